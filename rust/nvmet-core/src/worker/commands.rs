//! The way of any command through a worker: fetch, decode, issue, complete.
//!
//! Most commands take the shorter way of [`batch`](super::batch), and come here only if their backend does not complete
//! them at once. It allocates nothing, takes no lock (but for fused pairs) and formats nothing.

use nvmet_block::IoError;
use nvmet_spec::command::{Fuse, NSID_ALL, NvmOpcode, RwCdw12, Sqe};
use nvmet_spec::status::{Status, StatusCodeType};
use zerocopy::FromBytes;

use super::controllers::ControllerSlot;
use super::groups::{Group, Submission};
use super::inflight::{Entry, FusedLock, Origin, Pair};
use super::link::{CommandFailure, Event};
use super::namespaces::{NamespaceQueues, Place};
use super::run::Worker;
use crate::io::decode::{IoCommand, decode};
use crate::io::execute::{Context, Issued, Request, issue, transferred};
use crate::io::io_status;
use crate::namespace::{ATOMIC_COMPARE_WRITE_BLOCKS, MAX_NAMESPACES};
use crate::queue::{CompletionQueue, Permit};
use crate::stats::Batch;
use crate::subsystem::Gate;

/// What became of the attempt to fetch one command.
pub(super) enum Fetched {
    /// It is on its way.
    Started,
    /// There is none.
    Nothing,
    /// The completion queue has no room for it.
    NoRoom,
}

impl Worker {
    /// Fetches and starts the next command of a submission queue, whatever it is; the second half of a pair with it.
    pub(super) fn fetch(&mut self, at: usize, sq: usize) -> Fetched {
        let Some(group) = self.groups[at].as_mut() else { return Fetched::Nothing };
        let Group { cq, sqs, controller, .. } = group;
        let Some(submission) = sqs[sq].as_mut() else { return Fetched::Nothing };
        if submission.removing || submission.queue.pending() == 0 {
            return Fetched::Nothing;
        }
        let Some(permit) = cq.reserve() else { return Fetched::NoRoom };
        let Some(sqe) = fetch_sqe(submission) else {
            cq.release(permit);
            return Fetched::Nothing;
        };
        let first_of_pair = sqe.fuse() == Fuse::First && cq.state().entries > 2;
        if first_of_pair && cq.room() == 0 {
            submission.queue.unfetch();
            cq.release(permit);
            return Fetched::NoRoom;
        }
        let (origin, owner) = (Origin::Queue { group: at, sq }, *controller);
        let fuse = sqe.fuse();
        let mut entry = take_in(submission, owner, origin, permit, sqe);
        let second = first_of_pair.then(|| take_second(cq, submission, owner, origin)).flatten();
        if let Some(slot) = self.controllers[owner].as_mut() {
            slot.outstanding += 1 + u32::from(second.is_some());
        }
        match second {
            Some(second) => self.start_pair(entry, second),
            None => {
                if matches!(fuse, Fuse::First | Fuse::Second) {
                    entry.status = Status::ABORTED_MISSING_FUSED.with_dnr();
                }
                self.start(entry);
            }
        }
        Fetched::Started
    }

    pub(super) fn start(&mut self, entry: Entry) {
        let (aborted, pair) = (!entry.status.is_success(), entry.pair);
        let slot = self.inflight.insert(entry);
        match pair {
            _ if aborted => self.complete(slot),
            Pair::First(second) => self.issue_pair(slot, second),
            _ => self.issue(slot),
        }
    }

    fn start_pair(&mut self, mut first: Entry, mut second: Entry) {
        let status =
            if first.status.is_success() { check_pair(&first.sqe, &second.sqe) } else { Err(first.status) };
        second.pair = Pair::Second;
        let second = self.inflight.insert(second);
        first.pair = Pair::First(second);
        first.status = status.err().unwrap_or(Status::SUCCESS);
        self.start(first);
    }

    /// Issues a command, or the rest of one.
    fn issue(&mut self, slot: u32) {
        let tag = self.inflight.tag(slot);
        let Some(entry) = self.inflight.get_mut(slot) else { return };
        let Some(controller) = self.controllers[entry.controller].as_mut() else { return };
        if !entry.status.is_success() {
            // It failed or was cancelled while the rest of it waited: the rest is not issued.
            if entry.pending == 0 {
                self.complete(slot);
            }
            return;
        }
        let command = match entry.command {
            Some(command) => command,
            None => match decode(&entry.sqe) {
                Ok(command) => *entry.command.insert(command),
                Err(status) => {
                    entry.status = status;
                    return self.complete(slot);
                }
            },
        };
        if let IoCommand::Reservation(reservation) = command {
            return self.reserve(slot, reservation);
        }
        let issued = if matches!(command, IoCommand::Flush) {
            let all = entry.origin == Origin::Flush || entry.sqe.nsid == NSID_ALL;
            let targets = if all { None } else { Some(entry.sqe.nsid) };
            issue_flush(controller, &mut self.namespaces, &mut self.segments, entry, targets, tag)
        } else {
            match target(controller, entry.sqe.nsid) {
                Ok(place) => {
                    entry.namespace = place.queue;
                    issue_on(
                        place,
                        controller,
                        &mut self.namespaces,
                        &mut self.segments,
                        entry,
                        &command,
                        tag,
                    )
                }
                Err(status) => {
                    // An earlier attempt may have named a place that another namespace has by now.
                    entry.namespace = usize::MAX;
                    Issued::done(status)
                }
            }
        };
        let Some(entry) = self.inflight.get_mut(slot) else { return };
        entry.pending += issued.pending;
        entry.next = issued.next;
        if entry.status.is_success() {
            entry.status = issued.status;
        }
        if issued.full && entry.status.is_success() {
            self.stall(slot);
        } else if entry.pending == 0 {
            self.complete(slot);
        }
    }

    pub(super) fn stall(&mut self, slot: u32) {
        if let Some(entry) = self.inflight.get_mut(slot) {
            entry.stalled = true;
            self.stalled.push(slot);
        }
    }

    /// Tries again what a backend or a lock refused.
    pub(super) fn retry_stalled(&mut self) {
        if self.stalled.is_empty() {
            return;
        }
        let mut retrying = std::mem::take(&mut self.retrying);
        std::mem::swap(&mut retrying, &mut self.stalled);
        self.namespaces.expect_room();
        for slot in retrying.drain(..) {
            let Some(entry) = self.inflight.get_mut(slot) else { continue };
            if entry.status.is_success() && self.namespaces.is_full(entry.namespace) {
                // Its backend has refused one of the same turn, which was there first.
                self.stalled.push(slot);
                continue;
            }
            entry.stalled = false;
            match entry.pair {
                Pair::First(second) => self.issue_pair(slot, second),
                _ => self.issue(slot),
            }
        }
        self.retrying = retrying;
        self.namespaces.kick();
    }

    /// An operation of a backend ended.
    pub(super) fn operation_done(&mut self, tag: u64, result: Result<(), IoError>) {
        let Some(slot) = self.inflight.slot(tag) else { return };
        let Some(entry) = self.inflight.get_mut(slot) else { return };
        entry.pending = entry.pending.saturating_sub(1);
        if let Err(error) = result
            && entry.status.is_success()
        {
            let undone = error == IoError::Aborted && !entry.cancelled.is_success();
            entry.status = if undone { entry.cancelled } else { io_status(error) };
        }
        if entry.pending == 0 && !entry.stalled {
            self.complete(slot);
        }
    }

    /// Issues the Compare of a pair once the pair's blocks are free.
    fn issue_pair(&mut self, first: u32, second: u32) {
        if !self.lock_pair(second) {
            return self.stall(first);
        }
        self.issue(first);
    }

    /// Locks the blocks of a pair, if it has a namespace to lock them in; false if others hold them.
    fn lock_pair(&mut self, second: u32) -> bool {
        let Some(entry) = self.inflight.get_mut(second) else { return true };
        if entry.lock.is_some() {
            return true;
        }
        let Some(controller) = self.controllers[entry.controller].as_ref() else { return true };
        let Ok(place) = target(controller, entry.sqe.nsid) else { return true };
        let Some(queue) = self.namespaces.get_mut(place.queue) else { return true };
        let blocks = (entry.sqe.slba(), nlb(&entry.sqe));
        if blocks.0.checked_add(blocks.1).is_none_or(|end| end > queue.namespace.blocks()) {
            return true;
        }
        entry.lock = FusedLock::try_new(&queue.namespace, blocks.0, blocks.1);
        entry.lock.is_some()
    }

    /// Ends a command: its completion, its counters, and what waits for it.
    pub(super) fn complete(&mut self, slot: u32) {
        // Worked on in place: moving an entry costs more than all of what follows.
        let Some(entry) = self.inflight.get_mut(slot) else { return };
        let (status, owner, origin, pair) = (entry.status, entry.controller, entry.origin, entry.pair);
        self.completed = true;
        let Some(controller) = self.controllers[owner].as_mut() else { return self.inflight.remove(slot) };
        controller.outstanding -= 1;
        if let Some(token) = entry.abort.take() {
            controller.link.tell(Event::Aborted { token, aborted: status.is(Status::ABORT_REQUESTED) });
        }
        match origin {
            Origin::Flush => controller.link.tell(Event::Flushed { status }),
            Origin::Orphan => {}
            Origin::Queue { group, sq } => {
                if let Some(in_service) = self.groups[group].as_mut() {
                    count(controller, &mut self.namespaces, entry);
                    post(in_service, sq, controller, entry);
                    self.has_posted(group);
                }
            }
        }
        self.inflight.remove(slot);
        if let Pair::First(second) = pair {
            self.go_on(second, status);
        }
        self.after_completion(owner, origin);
    }

    /// The Compare of a pair has ended: its Write begins or fails.
    fn go_on(&mut self, second: u32, status: Status) {
        let Some(entry) = self.inflight.get_mut(second) else { return };
        if status.is_success() && entry.origin != Origin::Orphan {
            self.issue(second);
        } else {
            entry.status = Status::ABORTED_FAILED_FUSED.with_dnr();
            self.complete(second);
        }
    }
}

fn fetch_sqe(submission: &mut Submission) -> Option<Sqe> {
    Sqe::read_from_bytes(&submission.queue.fetch()?).ok()
}

/// A command that was fetched, unless the host has asked for its abort meanwhile.
fn take_in(
    submission: &mut Submission,
    controller: usize,
    origin: Origin,
    permit: Permit,
    sqe: Sqe,
) -> Entry {
    let mut entry = Entry::new(controller, origin, Some(permit), sqe);
    submission.in_flight += 1;
    if !submission.aborts.is_empty() {
        let cid = entry.sqe.cid();
        if let Some(wanted) = submission.aborts.iter().position(|&(other, _)| other == cid) {
            entry.abort = Some(submission.aborts.swap_remove(wanted).1);
            entry.status = Status::ABORT_REQUESTED;
        }
    }
    entry
}

/// Fetches the second half of a fused pair, if that is what comes next in the ring.
fn take_second(
    cq: &mut CompletionQueue,
    submission: &mut Submission,
    controller: usize,
    origin: Origin,
) -> Option<Entry> {
    let permit = cq.reserve()?;
    match fetch_sqe(submission) {
        Some(sqe) if sqe.fuse() == Fuse::Second => {
            return Some(take_in(submission, controller, origin, permit, sqe));
        }
        Some(_) => submission.queue.unfetch(),
        None => {}
    }
    cq.release(permit);
    None
}

/// Number of logical blocks of a command that has some, one-based.
fn nlb(sqe: &Sqe) -> u64 {
    u64::from(RwCdw12::from_bits(sqe.cdw12).nlb())
}

/// The only fused operation is Compare and Write on the same blocks (NVM Command Set 1.1, 2.1.1; 3.2.1).
fn check_pair(first: &Sqe, second: &Sqe) -> Result<(), Status> {
    let compare = NvmOpcode::try_from(first.opcode()) == Ok(NvmOpcode::Compare);
    let write = NvmOpcode::try_from(second.opcode()) == Ok(NvmOpcode::Write);
    let range = |sqe: &Sqe| (sqe.nsid, sqe.slba(), nlb(sqe));
    let small = nlb(first) <= ATOMIC_COMPARE_WRITE_BLOCKS;
    if compare && write && small && range(first) == range(second) {
        Ok(())
    } else {
        Err(Status::INVALID_FIELD.with_dnr())
    }
}

/// The place of an NSID (NVMe Base 2.0, 3.2.1.2).
pub(super) fn target(controller: &ControllerSlot, nsid: u32) -> Result<Place, Status> {
    controller.index.get(nsid).copied().ok_or_else(|| {
        if (1..=MAX_NAMESPACES).contains(&nsid) {
            Status::INVALID_FIELD.with_dnr()
        } else {
            Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr()
        }
    })
}

fn issue_on(
    place: Place,
    controller: &mut ControllerSlot,
    namespaces: &mut NamespaceQueues,
    segments: &mut nvmet_dma::SegmentBuf,
    entry: &Entry,
    command: &IoCommand,
    tag: u64,
) -> Issued {
    // What the controller itself flushes at a shutdown is not the host's command.
    if !place.open
        && entry.origin != Origin::Flush
        && let Err(status) = check_gate(&place.gate, command)
    {
        return Issued::done(status);
    }
    let at = place.queue;
    let Some(target) = namespaces.get_mut(at) else { return Issued::done(Status::INTERNAL_ERROR) };
    let Some(queue) = target.queue.as_mut() else { return Issued::done(Status::NAMESPACE_NOT_READY) };
    let mut context = Context {
        snapshot: controller.reader.snapshot(),
        segments,
        page_size: controller.page_size,
        max_transfer: controller.max_transfer,
    };
    let request = Request { command, sqe: &entry.sqe, tag, skip: entry.next };
    let issued = issue(request, &target.namespace, queue.as_mut(), &mut context);
    target.full |= issued.full;
    if issued.pending > 0 {
        namespaces.accepted(at);
    }
    issued
}

/// Flushes one namespace, or all of them, from the one that an earlier attempt stopped at.
fn issue_flush(
    controller: &mut ControllerSlot,
    namespaces: &mut NamespaceQueues,
    segments: &mut nvmet_dma::SegmentBuf,
    entry: &mut Entry,
    nsid: Option<u32>,
    tag: u64,
) -> Issued {
    if let Some(nsid) = nsid {
        return match target(controller, nsid) {
            Ok(place) => {
                entry.namespace = place.queue;
                issue_on(place, controller, namespaces, segments, entry, &IoCommand::Flush, tag)
            }
            Err(status) => Issued::done(status),
        };
    }
    let mut all = Issued { pending: 0, status: Status::SUCCESS, next: entry.next, full: false };
    // `next` is the NSID that was issued last: namespaces may come and go between two attempts.
    while let Some((nsid, place)) = controller.index.after(all.next) {
        let one = issue_on(place, controller, namespaces, segments, entry, &IoCommand::Flush, tag);
        all.pending += one.pending;
        if all.status.is_success() {
            all.status = one.status;
        }
        if one.full {
            entry.namespace = place.queue;
            all.full = true;
            break;
        }
        all.next = nsid;
    }
    all
}

/// Whether a command is carried out at all (NVMe Base 2.0, 8.1.3, 8.12, 8.19.1).
fn check_gate(gate: &Gate, command: &IoCommand) -> Result<(), Status> {
    let refused = match command {
        IoCommand::Read(_) | IoCommand::Compare(_) => gate.read,
        IoCommand::Write(..) | IoCommand::WriteZeroes { .. } | IoCommand::DatasetManagement { .. } => {
            gate.write
        }
        IoCommand::Flush => gate.flush,
        IoCommand::Reservation(_) => gate.any,
    };
    refused.map_or(Ok(()), Err)
}

/// SMART counts commands that were completed, whatever their status, and the data that went through.
fn count(controller: &mut ControllerSlot, namespaces: &mut NamespaceQueues, entry: &Entry) {
    let mut batch = Batch { completions: 1, ..Batch::default() };
    if !entry.status.is_success() {
        batch.errors = 1;
        let media = entry.status.code_type() == StatusCodeType::Media;
        batch.media_errors = u64::from(media && !entry.status.is(Status::COMPARE_FAILURE));
    }
    match &entry.command {
        Some(IoCommand::Read(_) | IoCommand::Compare(_)) => batch.reads = 1,
        Some(IoCommand::Write(..)) => batch.writes = 1,
        _ => {}
    }
    if entry.status.is_success()
        && let Some(command) = &entry.command
        && let Some(queue) = namespaces.get_mut(entry.namespace)
    {
        (batch.bytes_read, batch.bytes_written) = transferred(command, queue.namespace.block_shift());
    }
    controller.batch += batch;
    namespaces.count(entry.namespace, &batch);
}

/// Whether a command names logical blocks in its Dwords 10 and 11.
fn has_blocks(command: &IoCommand) -> bool {
    !matches!(command, IoCommand::Flush | IoCommand::DatasetManagement { .. } | IoCommand::Reservation(_))
}

fn post(group: &mut Group, sq: usize, controller: &ControllerSlot, entry: &mut Entry) {
    let Some(submission) = group.sqs[sq].as_mut() else { return };
    submission.in_flight -= 1;
    let Some(permit) = entry.permit.take() else { return };
    let (sqid, head) = (submission.queue.state().sqid, submission.queue.state().head);
    let cid = entry.sqe.cid();
    let mut status = entry.status;
    if !status.is_success() {
        let lba = if entry.command.is_some_and(|c| has_blocks(&c)) { entry.sqe.slba() } else { 0 };
        controller.link.note_failure(CommandFailure { sqid, cid, status, lba, nsid: entry.sqe.nsid });
        // The Error Information log has an entry for it.
        status = status.with_more();
    }
    group.cq.post(permit, 0, 0, sqid, head as u16, cid, status.into_bits());
}
