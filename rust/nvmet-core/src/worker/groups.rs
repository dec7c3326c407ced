//! Groups: a completion queue and the submission queues that post to it.

use std::time::Instant;

use nvmet_dma::Snapshot;

use super::interrupts::InterruptGate;
use super::tuning::Tuning;
use crate::queue::{
    CompletionQueue, CompletionQueueState, Doorbells, InvalidDoorbell, SubmissionQueue, SubmissionQueueState,
};

/// Whether EventIdx, written when a doorbell had the value `told`, has to be moved on now that it went from `old` to `new`:
/// the host rings when it comes round to it. It does not before the next look if that is as far as half a lap, and as
/// twice the last step.
fn comes_round(entries: u32, told: u32, old: u32, new: u32) -> bool {
    let distance = |from, to| if to >= from { to - from } else { to + entries - from };
    // It may have been armed at an invalid value, which the host never comes round to.
    told >= entries || distance(told, new) + 2 * distance(old, new) > entries / 2
}

/// A submission queue of a group.
#[derive(Debug)]
pub struct Submission {
    /// The ring.
    pub queue: SubmissionQueue,
    /// Commands fetched and not completed.
    pub in_flight: u32,
    /// Fetch no more; say when the commands in flight are over.
    pub removing: bool,
    /// Commands that the host wants aborted and that are still in the ring: identifier and token.
    pub aborts: Vec<(u16, u32)>,
    bad_tail: Option<u32>,
    /// The tail at which EventIdx was written last.
    told_at: u32,
}

impl Submission {
    fn new(state: SubmissionQueueState) -> Self {
        Self {
            told_at: state.tail,
            queue: SubmissionQueue::new(state),
            in_flight: 0,
            removing: false,
            aborts: Vec::new(),
            bad_tail: None,
        }
    }

    /// The tail, as the host compares it with what it wrote last: valid or not.
    fn seen(&self) -> u32 {
        self.bad_tail.unwrap_or(self.queue.state().tail)
    }
}

/// A completion queue and its submission queues.
#[derive(Debug)]
pub struct Group {
    /// Index of the controller in the worker.
    pub controller: usize,
    /// The completion queue.
    pub cq: CompletionQueue,
    /// The submission queues; indexes stay while a queue lives.
    pub sqs: Vec<Option<Submission>>,
    /// Decides on its interrupt.
    pub gate: InterruptGate,
    /// It is in the worker's list of those whose interrupt is held back.
    pub held: bool,
    /// Commands wait in a submission queue because the completion queue has no room.
    pub parked: bool,
    /// The submission queue that is polled first.
    pub first: usize,
    /// It is polled every turn; else it waits to be rung, or for its place in the round of polled ones.
    pub active: bool,
    /// Turns in which others had work and this one had none.
    pub quiet: u32,
    /// It is to go to another worker, or to stay after all from then on; fetches nothing.
    pub leaving: Option<Instant>,
    /// Commands, and transfers in units of 4 KiB, since the load was last measured.
    pub work: u64,
    /// It is in the worker's list of those that have posted.
    pub listed: bool,
    bad_head: Option<u32>,
    /// The head at which EventIdx was written last.
    told_at: u32,
}

impl Group {
    pub fn new(controller: usize, state: CompletionQueueState) -> Self {
        let cq = CompletionQueue::new(state);
        Self {
            controller,
            told_at: state.head,
            gate: InterruptGate::new(cq.unconsumed()),
            cq,
            sqs: Vec::new(),
            held: false,
            parked: false,
            first: 0,
            active: false,
            quiet: 0,
            leaving: None,
            work: 0,
            listed: false,
            bad_head: None,
        }
    }

    /// Follows what the host has set about its queues.
    pub fn tune(&mut self, tuning: &Tuning) {
        let CompletionQueueState { entries, vector, .. } = *self.cq.state();
        self.gate.configure(vector.and_then(|vector| tuning.coalescing_of(vector)), entries - 1);
    }

    /// Takes a submission queue in.
    pub fn add(&mut self, state: SubmissionQueueState) -> &mut Submission {
        let at = self.sqs.iter().position(Option::is_none).unwrap_or_else(|| {
            self.sqs.push(None);
            self.sqs.len() - 1
        });
        self.sqs[at].insert(Submission::new(state))
    }

    /// Looks all rings up anew. What cannot be reached rests until the guest's memory changes again: a VMM may take a
    /// range away for a moment to give it back in pieces.
    pub fn attach(&mut self, snapshot: &Snapshot) {
        let cqid = self.cq.state().cqid;
        if let Err(error) = self.cq.attach(snapshot) {
            tracing::debug!("completion queue {cqid} rests: {error}");
        }
        for sq in self.sqs.iter_mut().flatten() {
            if let Err(error) = sq.queue.attach(snapshot) {
                tracing::debug!("submission queue {} rests: {error}", sq.queue.state().sqid);
            }
        }
    }

    /// Reads the head doorbell. An invalid value is reported once and changes nothing.
    pub fn read_head(&mut self, doorbells: &Doorbells) -> Option<InvalidDoorbell> {
        let state = self.cq.state();
        let (cqid, entries, before) = (state.cqid, state.entries, state.head);
        let head = doorbells.cq_head(cqid)?;
        if head == before {
            self.bad_head = None;
            return None;
        }
        if self.cq.set_head(head) {
            self.bad_head = None;
            if comes_round(entries, self.told_at, before, head) {
                doorbells.disarm(cqid, true, head);
                self.told_at = head;
            }
            return None;
        }
        let invalid = InvalidDoorbell::Value { qid: cqid, completion: true, value: head };
        (self.bad_head.replace(head) != Some(head)).then_some(invalid)
    }

    /// Reads the tail doorbell of a submission queue. An invalid value is reported once and changes nothing.
    pub fn read_tail(&mut self, sq: usize, doorbells: &Doorbells) -> Option<InvalidDoorbell> {
        let sq = self.sqs.get_mut(sq)?.as_mut()?;
        let state = sq.queue.state();
        let (sqid, entries, before) = (state.sqid, state.entries, state.tail);
        let tail = doorbells.sq_tail(sqid)?;
        if tail == before {
            sq.bad_tail = None;
            return None;
        }
        if sq.queue.set_tail(tail) {
            sq.bad_tail = None;
            if comes_round(entries, sq.told_at, before, tail) {
                doorbells.disarm(sqid, false, tail);
                sq.told_at = tail;
            }
            return None;
        }
        let invalid = InvalidDoorbell::Value { qid: sqid, completion: false, value: tail };
        (sq.bad_tail.replace(tail) != Some(tail)).then_some(invalid)
    }

    /// Asks the host to ring for whatever would give this group work.
    pub fn arm(&mut self, doorbells: &Doorbells) {
        for sq in self.sqs.iter_mut().flatten() {
            sq.told_at = sq.seen();
            doorbells.arm(sq.queue.state().sqid, false, sq.told_at);
        }
        if self.parked {
            // The index lags the tail: any entry that the host consumes rings.
            self.told_at = self.bad_head.unwrap_or(self.cq.state().head);
            doorbells.arm(self.cq.state().cqid, true, self.told_at);
        }
    }

    /// Goes on with other doorbells, which begin where the `old` ones are.
    pub fn carry_over(&mut self, old: &Doorbells, doorbells: &Doorbells) {
        for sq in self.sqs.iter_mut().flatten() {
            let (sqid, tail) = (sq.queue.state().sqid, sq.queue.state().tail);
            sq.told_at = doorbells.carry_over(old, sqid, false, tail);
        }
        let (cqid, head) = (self.cq.state().cqid, self.cq.state().head);
        self.told_at = doorbells.carry_over(old, cqid, true, head);
    }

    /// Asks the host not to ring: its queues are polled from now on.
    pub fn disarm(&mut self, doorbells: &Doorbells) {
        for sq in self.sqs.iter_mut().flatten() {
            sq.told_at = sq.seen();
            doorbells.disarm(sq.queue.state().sqid, false, sq.told_at);
        }
    }

    /// Whether a doorbell has moved, in a way that gives work, since it was last read.
    pub fn has_work(&self, doorbells: &Doorbells) -> bool {
        let moved = |sq: &Submission| {
            doorbells
                .sq_tail(sq.queue.state().sqid)
                .is_some_and(|tail| tail != sq.queue.state().tail && sq.bad_tail != Some(tail))
        };
        let freed = || {
            doorbells
                .cq_head(self.cq.state().cqid)
                .is_some_and(|head| head != self.cq.state().head && self.bad_head != Some(head))
        };
        self.parked && freed() || self.sqs.iter().flatten().any(moved)
    }
}
