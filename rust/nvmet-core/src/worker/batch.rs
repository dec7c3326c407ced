//! The way of most commands: a batch of Reads and Writes from one submission queue.
//!
//! Entries are copied once, in a row; each is decoded, checked, turned into segments and given to the backend, and those
//! that are over at once are completed on the spot, without ever being in flight. Whatever is out of the ordinary
//! (fused pairs, other opcodes, aborts in the ring) goes the long way, through [`commands`](super::commands).
//! This is the hot path: it allocates nothing, locks nothing and formats nothing; what belongs to a batch is done once.

use nvmet_spec::command::{Fuse, NvmOpcode, Sqe};

use super::commands::Fetched;
use super::groups::Group;
use super::inflight::{Entry, Origin};
use super::run::Worker;
use crate::io::decode::{IoCommand, decode};
use crate::io::execute::{Context, Request, issue, transferred};

/// Entries that are copied at once.
pub const BATCH: usize = 32;
/// Commands that a group may have fetched in one turn, before the next one has its turn.
const QUOTA: u32 = 64;
/// Bytes after which a group's turn is over, if its backend moved them on this thread.
const QUOTA_BYTES: u64 = 512 << 10;

/// What became of an attempt to serve a submission queue.
struct Served {
    /// Commands fetched.
    count: u32,
    /// Bytes moved on this thread.
    bytes: u64,
    /// The completion queue has no room for more.
    no_room: bool,
}

impl Worker {
    /// Reads a group's doorbells and starts what they bring; whether there was anything.
    pub(super) fn poll_group(&mut self, at: usize) -> bool {
        let Some(owner) = self.groups[at].as_ref().map(|group| group.controller) else { return false };
        let mut busy = self.refresh(owner);
        let Some(group) = self.groups[at].as_mut() else { return busy };
        let Some(controller) = self.controllers[owner].as_mut() else { return busy };
        if !controller.link.is_running() || group.leaving.is_some() {
            return busy;
        }
        let (before, link) = (group.cq.state().head, &controller.link);
        if let Some(invalid) = group.read_head(&controller.doorbells) {
            link.tell_of_invalid_doorbell(invalid);
        }
        busy |= group.parked && group.cq.state().head != before;
        group.parked = false;
        for sq in 0..group.sqs.len() {
            if let Some(invalid) = group.read_tail(sq, &controller.doorbells) {
                link.tell_of_invalid_doorbell(invalid);
            }
        }
        // After the tails: a command that was submitted after somebody was told that a reservation has changed must meet
        // the map that says so.
        controller.refresh_namespaces(&mut self.namespaces, &self.sleeper);
        // With one queue there is nothing to arbitrate.
        let burst =
            if group.sqs.len() == 1 { QUOTA } else { controller.tuning.arbitration_burst.clamp(1, QUOTA) };
        busy | self.serve_group(at, burst)
    }

    /// Round robin over a group's submission queues (NVMe Base 2.0, 3.4.4), `burst` commands at a time.
    fn serve_group(&mut self, at: usize, burst: u32) -> bool {
        let Some(group) = self.groups[at].as_mut() else { return false };
        let (first, queues) = (group.first, group.sqs.len());
        let (mut left, mut bytes, mut busy) = (QUOTA, 0, false);
        let mut work = 0;
        'rounds: loop {
            let mut idle = true;
            for sq in (0..queues).map(|sq| (first + sq) % queues) {
                let served = self.serve(at, sq, burst.min(left));
                (idle, busy) = (idle && served.count == 0, busy || served.count > 0);
                left -= served.count.min(left);
                bytes += served.bytes;
                work += u64::from(served.count) + (served.bytes >> 12);
                if served.no_room {
                    self.park(at, sq + usize::from(served.count > 0));
                    break 'rounds;
                }
                if left == 0 || bytes >= QUOTA_BYTES {
                    self.begin_with(at, sq + 1);
                    break 'rounds;
                }
            }
            if idle {
                break;
            }
        }
        if let Some(group) = self.groups[at].as_mut() {
            group.work += work;
        }
        busy
    }

    /// There is no room in the group's completion queue; submission queue `next` is the first one that gets some.
    fn park(&mut self, at: usize, next: usize) {
        if let Some(group) = self.groups[at].as_mut() {
            group.parked = true;
        }
        self.begin_with(at, next);
    }

    fn begin_with(&mut self, at: usize, next: usize) {
        if let Some(group) = self.groups[at].as_mut() {
            group.first = next % group.sqs.len().max(1);
        }
    }

    /// Fetches up to `most` commands.
    fn serve(&mut self, at: usize, sq: usize, most: u32) -> Served {
        let mut served = Served { count: 0, bytes: 0, no_room: false };
        while served.count < most && served.bytes < QUOTA_BYTES {
            let Some(group) = self.groups[at].as_ref() else { return served };
            let Some(submission) = group.sqs[sq].as_ref() else { return served };
            let pending = submission.queue.pending();
            if pending == 0 || submission.removing {
                return served;
            }
            let room = group.cq.room();
            if room == 0 {
                served.no_room = true;
                return served;
            }
            let (count, wanted) = (served.count, (most - served.count).min(room) as usize);
            if submission.aborts.is_empty() {
                self.serve_batch(at, sq, wanted.min(BATCH), &mut served);
            }
            if served.count == count {
                // The next command is out of the ordinary.
                let moved = self.moved(at);
                match self.fetch(at, sq) {
                    Fetched::Started => {
                        served.count += 1;
                        served.bytes += self.moved(at).saturating_sub(moved);
                    }
                    Fetched::Nothing => return served,
                    Fetched::NoRoom => {
                        served.no_room = true;
                        return served;
                    }
                }
            } else if pending as usize == (served.count - count) as usize {
                return served;
            }
        }
        served
    }

    /// Bytes that commands of the group's controller have moved in this batch.
    fn moved(&self, at: usize) -> u64 {
        let owner = self.groups[at].as_ref().map(|group| group.controller);
        let controller = owner.and_then(|owner| self.controllers[owner].as_ref());
        controller.map_or(0, |controller| controller.batch.bytes_read + controller.batch.bytes_written)
    }

    /// Serves up to `wanted` ordinary commands, for all of which there is room; ends before the first other one.
    fn serve_batch(&mut self, at: usize, sq: usize, wanted: usize, served: &mut Served) {
        let Self { groups, controllers, inflight, namespaces, segments, entries, .. } = self;
        let Some(Group { cq, sqs, controller: owner, .. }) = groups[at].as_mut() else { return };
        let (Some(submission), Some(controller)) = (sqs[sq].as_mut(), controllers[*owner].as_mut()) else {
            return;
        };
        let count = submission.queue.peek_batch(&mut entries[..wanted]);
        let sqid = submission.queue.state().sqid;
        let mut context = Context {
            snapshot: controller.reader.current(),
            segments,
            page_size: controller.page_size,
            max_transfer: controller.max_transfer,
        };
        let batch = &mut controller.batch;
        // The namespace at hand, mostly the same from one to the next, and the counters when it began.
        let (mut run_on, mut before) = (usize::MAX, *batch);
        // All that were posted, and those of them that have been counted.
        let (mut posted, mut counted) = (0, 0);
        let mut unfinished = None;
        for sqe in &entries[..count] {
            let Some(command) = ordinary(sqe) else { break };
            let Some(place) = controller.index.get(sqe.nsid).filter(|place| place.open) else { break };
            let place = place.queue;
            if place != run_on {
                batch.completions += posted - std::mem::replace(&mut counted, posted);
                namespaces.count(run_on, &batch.since(&before));
                (run_on, before) = (place, *batch);
            }
            let Some(target) = namespaces.get_mut(place) else { break };
            let Some(queue) = target.queue.as_mut() else { break };
            let request = Request { command: &command, sqe, tag: inflight.next_tag(), skip: 0 };
            let issued = issue(request, &target.namespace, queue.as_mut(), &mut context);
            submission.queue.advance();
            served.count += 1;
            if issued.pending == 0 && !issued.full && issued.status.is_success() {
                let (read, written) = transferred(&command, target.namespace.block_shift());
                batch.reads += u64::from(written == 0);
                batch.writes += u64::from(written != 0);
                batch.bytes_read += read;
                batch.bytes_written += written;
                served.bytes += read + written;
                posted += 1;
                cq.post_success(sqid, submission.queue.state().head as u16, sqe.cid());
                if served.bytes >= QUOTA_BYTES {
                    break;
                }
                continue;
            }
            target.full |= issued.full;
            if issued.pending > 0 {
                namespaces.accepted(place);
            }
            // There was room for all.
            let Some(permit) = cq.reserve() else { break };
            let mut entry = Entry::new(*owner, Origin::Queue { group: at, sq }, Some(permit), *sqe);
            entry.command = Some(command);
            entry.namespace = place;
            (entry.pending, entry.next, entry.status) = (issued.pending, issued.next, issued.status);
            submission.in_flight += 1;
            controller.outstanding += 1;
            let slot = inflight.insert(entry);
            if issued.full || issued.pending == 0 {
                unfinished = Some((slot, issued.full && issued.status.is_success()));
                break;
            }
        }
        batch.completions += posted - counted;
        namespaces.count(run_on, &batch.since(&before));
        if posted > 0 {
            self.namespaces.done_at_once();
            self.has_posted(at);
        }
        match unfinished {
            Some((slot, true)) => self.stall(slot),
            Some((slot, false)) => self.complete(slot),
            None => {}
        }
    }
}

/// A Read or Write that is not fused, decoded.
#[inline]
fn ordinary(sqe: &Sqe) -> Option<IoCommand> {
    let opcode = sqe.opcode();
    let plain = opcode == NvmOpcode::Read as u8 || opcode == NvmOpcode::Write as u8;
    if !plain || sqe.fuse() != Fuse::Normal {
        return None;
    }
    decode(sqe).ok()
}
