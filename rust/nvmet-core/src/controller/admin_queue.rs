//! The admin queue: fetch, answer now or later, complete (NVMe Base 2.0, 3.3, 5).

use std::time::{Duration, Instant};

use nvmet_dma::Snapshot;
use nvmet_spec::command::{Fuse, Psdt, Sqe};
use nvmet_spec::status::Status;
use zerocopy::FromBytes;

use super::admin::Answer;
use super::{Controller, MEMORY_LOST};
use crate::queue::{
    CompletionQueue, CompletionQueueState, InvalidDoorbell, Permit, SubmissionQueue, SubmissionQueueState,
    register_index,
};
use crate::worker::{CommandFailure, Event};

/// Commands executed before other controllers have their turn: one may move a megabyte.
const BURST: usize = 64;
/// How long an Abort command waits for the backend to give the command back before it reports failure.
const ABORT_LIMIT: Duration = Duration::from_secs(2);

/// What an admin command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// A worker to give a submission queue back.
    SqRemoved(u16),
    /// A worker to drop a completion queue.
    CqRemoved(u16),
    /// This many workers to take the shadow doorbells over.
    ShadowSet(usize),
    /// A worker to abort the command with this token.
    Aborted(u32),
    /// The subsystem to do what was asked with this token.
    Done(u32),
    /// This many workers to bring the counters up to date.
    Counted(usize),
}

#[derive(Debug)]
struct Pending {
    sqe: Sqe,
    permit: Permit,
    waiting: Waiting,
    deadline: Option<Instant>,
}

/// The admin submission and completion queues.
#[derive(Debug)]
pub struct AdminQueue {
    sq: SubmissionQueue,
    cq: CompletionQueue,
    pending: Vec<Pending>,
    bad: (Option<u32>, Option<u32>),
}

impl AdminQueue {
    pub fn new(asq: u64, sq_entries: u32, acq: u64, cq_entries: u32) -> Self {
        Self {
            sq: SubmissionQueue::new(SubmissionQueueState {
                sqid: 0,
                cqid: 0,
                entries: sq_entries,
                base: asq,
                head: 0,
                tail: 0,
            }),
            // The admin completion queue uses vector 0 (NVMe Base 2.0, 3.1.3.9).
            cq: CompletionQueue::new(CompletionQueueState {
                cqid: 0,
                entries: cq_entries,
                base: acq,
                tail: 0,
                head: 0,
                phase: true,
                vector: Some(0),
            }),
            pending: Vec::new(),
            bad: (None, None),
        }
    }

    /// Looks the rings up; whether both can be reached.
    pub fn attach(&mut self, snapshot: &Snapshot) -> bool {
        let results = [self.sq.attach(snapshot), self.cq.attach(snapshot)];
        results.iter().all(Result::is_ok)
    }

    pub fn sq_entries(&self) -> u32 {
        self.sq.state().entries
    }

    pub fn cq_entries(&self) -> u32 {
        self.cq.state().entries
    }

    /// Reads the doorbells. The admin queue has no shadow: guests do not keep it up to date.
    fn read_doorbells(&mut self, tail: u32, head: u32) -> [Option<InvalidDoorbell>; 2] {
        let mut invalid = [None, None];
        if self.sq.set_tail(tail) {
            self.bad.0 = None;
        } else if self.bad.0.replace(tail) != Some(tail) {
            invalid[0] = Some(InvalidDoorbell::Value { qid: 0, completion: false, value: tail });
        }
        if self.cq.set_head(head) {
            self.bad.1 = None;
        } else if self.bad.1.replace(head) != Some(head) {
            invalid[1] = Some(InvalidDoorbell::Value { qid: 0, completion: true, value: head });
        }
        invalid
    }
}

impl Controller {
    /// Executes what the admin queue holds and delivers events.
    pub(super) fn run_admin_queue(&mut self) {
        let mut executed = 0;
        while self.is_running() && self.step() {
            executed += 1;
            if executed == BURST {
                self.link.tell(Event::AdminDoorbell);
                break;
            }
        }
        if self.is_running() && self.reader.snapshot().is_poisoned() {
            // With idle workers nobody else would find out.
            return self.fail(MEMORY_LOST);
        }
        self.deliver_events();
        if let Some(queue) = &mut self.admin_queue
            && let Some(vector) = queue.cq.take_interrupt()
        {
            self.link.vectors.signal(vector);
        }
    }

    /// Fetches and executes one command; whether there was one.
    fn step(&mut self) -> bool {
        let load = |completion| self.page.load(register_index(0, completion)).unwrap_or(0) & 0xffff;
        let (tail, head) = (load(false), load(true));
        self.link.saw_admin_doorbells(tail, head);
        let Some(queue) = &mut self.admin_queue else { return false };
        let invalid = queue.read_doorbells(tail, head);
        invalid.into_iter().flatten().for_each(|invalid| self.invalid_doorbell(invalid));
        let Some(queue) = &mut self.admin_queue else { return false };
        if queue.sq.pending() == 0 {
            return false;
        }
        let Some(permit) = queue.cq.reserve() else { return false };
        let sqe = queue.sq.fetch().and_then(|bytes| Sqe::read_from_bytes(&bytes).ok());
        let Some(sqe) = sqe else {
            queue.cq.release(permit);
            return false;
        };
        // Admin commands are not fused and use PRPs (NVMe Base 2.0, 3.3.3.1).
        let answer = if sqe.fuse() == Fuse::Normal && sqe.psdt() == Psdt::Prp {
            self.execute_admin(&sqe)
        } else {
            Answer::Now(Err(Status::INVALID_FIELD.with_dnr()))
        };
        match answer {
            Answer::Now(result) => self.complete_admin(&sqe, permit, result),
            Answer::Kept => {
                if let Some(queue) = &mut self.admin_queue {
                    queue.cq.release(permit);
                }
            }
            Answer::Later(waiting) => {
                let deadline = matches!(waiting, Waiting::Aborted(_)).then(|| Instant::now() + ABORT_LIMIT);
                if let Some(queue) = &mut self.admin_queue {
                    queue.pending.push(Pending { sqe, permit, waiting, deadline });
                }
                self.admin.set_pending_deadline(self.next_pending_deadline());
            }
        }
        true
    }

    fn complete_admin(&mut self, sqe: &Sqe, permit: Permit, result: Result<u32, Status>) {
        let (dw0, mut status) = match result {
            Ok(dw0) => (dw0, Status::SUCCESS),
            Err(status) => (0, status),
        };
        if !status.is_success() {
            let failure = CommandFailure { sqid: 0, cid: sqe.cid(), status, lba: 0, nsid: sqe.nsid };
            self.link.note_failure(failure);
            status = status.with_more();
        }
        if let Some(queue) = &mut self.admin_queue {
            let head = queue.sq.state().head as u16;
            queue.cq.post(permit, dw0, 0, 0, head, sqe.cid(), status.into_bits());
        }
    }

    /// Completes outstanding Asynchronous Event Requests with what is to be told.
    fn deliver_events(&mut self) {
        if !self.is_running() {
            return;
        }
        let Some(queue) = &mut self.admin_queue else { return };
        while queue.cq.room() > 0
            && let Some((cid, dw0)) = self.admin.next_event()
            && let Some(permit) = queue.cq.reserve()
        {
            let head = queue.sq.state().head as u16;
            queue.cq.post(permit, dw0, 0, 0, head, cid, Status::SUCCESS.into_bits());
        }
    }

    /// Completes an Asynchronous Event Request that an Abort command took back.
    pub(super) fn complete_aborted_event_request(&mut self, cid: u16) {
        let Some(queue) = &mut self.admin_queue else { return };
        if let Some(permit) = queue.cq.reserve() {
            let head = queue.sq.state().head as u16;
            queue.cq.post(permit, 0, 0, 0, head, cid, Status::ABORT_REQUESTED.into_bits());
        }
    }

    /// Whether a Doorbell Buffer Config is on its way: workers may read the shadow doorbells already, and the host does not
    /// write them yet.
    pub(super) fn awaits_shadow(&self) -> bool {
        let waits = |pending: &Pending| matches!(pending.waiting, Waiting::ShadowSet(_));
        self.admin_queue.as_ref().is_some_and(|queue| queue.pending.iter().any(waits))
    }

    /// A worker's answer that an admin command may wait for.
    pub(super) fn answer_pending(&mut self, event: &Event) {
        let Some(queue) = &mut self.admin_queue else { return };
        let matching = queue.pending.iter_mut().position(|pending| match (&mut pending.waiting, event) {
            (Waiting::SqRemoved(wanted), Event::SqRemoved { sqid }) => wanted == sqid,
            (Waiting::CqRemoved(wanted), Event::CqRemoved { cqid }) => wanted == cqid,
            (Waiting::Aborted(wanted), Event::Aborted { token, .. }) => wanted == token,
            (Waiting::Done(wanted), Event::Done { token, .. }) => wanted == token,
            (Waiting::ShadowSet(left), Event::ShadowSet) | (Waiting::Counted(left), Event::Counted) => {
                *left -= 1;
                *left == 0
            }
            _ => false,
        });
        let Some(at) = matching else { return };
        let pending = queue.pending.swap_remove(at);
        let result = match *event {
            Event::SqRemoved { sqid } => {
                self.queues.sqs.remove(&sqid);
                Ok(0)
            }
            Event::CqRemoved { cqid } => {
                self.queues.cqs.remove(&cqid);
                Ok(0)
            }
            Event::Aborted { aborted, .. } => self.abort_over(aborted),
            Event::Counted => self.get_log_page(&pending.sqe),
            Event::Done { status, .. } if !status.is_success() => Err(status),
            _ => Ok(0),
        };
        self.complete_admin(&pending.sqe, pending.permit, result);
        self.admin.set_pending_deadline(self.next_pending_deadline());
    }

    /// Abort commands whose time is up report that the command was not aborted.
    pub(super) fn expire_pending(&mut self, now: Instant) {
        loop {
            let Some(queue) = &mut self.admin_queue else { return };
            let late = |pending: &Pending| pending.deadline.is_some_and(|deadline| deadline <= now);
            let Some(at) = queue.pending.iter().position(late) else { break };
            let pending = queue.pending.swap_remove(at);
            let result = self.abort_over(false);
            self.complete_admin(&pending.sqe, pending.permit, result);
        }
        self.admin.set_pending_deadline(self.next_pending_deadline());
    }

    fn next_pending_deadline(&self) -> Option<Instant> {
        self.admin_queue.as_ref()?.pending.iter().filter_map(|pending| pending.deadline).min()
    }
}
