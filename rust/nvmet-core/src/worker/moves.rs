//! Moving a group to another worker.
//!
//! The worker that has it stops fetching; when none of its commands is in flight the group is plain data, which goes to
//! the control thread and from there to its new worker. If commands do not end soon, or the control thread has an order
//! for the group, it stays and goes on: nothing waits for a move.

use std::time::{Duration, Instant};

use super::groups::Submission;
use super::link::Event;
use super::run::Worker;

/// How long a group that is to move may wait for its commands before it stays.
const PATIENCE: Duration = Duration::from_millis(5);
/// Busy turns between two looks at the clock.
const TURNS_PER_LOOK: u32 = 16;

impl Worker {
    /// Proposes to give a group away if this worker has too much to do.
    pub(super) fn balance(&mut self) {
        let Some((board, me)) = &self.peers else { return };
        self.busy_turns = self.busy_turns.wrapping_add(1);
        if !self.busy_turns.is_multiple_of(TURNS_PER_LOOK) {
            return;
        }
        let Some(verdict) = self.meter.look(board, *me, self.pace.idle(), Instant::now()) else { return };
        let work = self.groups.iter().enumerate().filter_map(|(at, group)| Some((at, group.as_ref()?.work)));
        if let Some((at, to)) = verdict.choose(work)
            && let Some(group) = self.groups[at].as_ref()
            && let Some(controller) = self.controllers[group.controller].as_ref()
        {
            controller.link.tell(Event::Overloaded { cqid: group.cq.state().cqid, to });
            self.meter.proposed();
        }
        self.groups.iter_mut().flatten().for_each(|group| group.work = 0);
    }

    /// Begins to let a group go. A group with something unusual going on stays.
    pub(super) fn release(&mut self, controller: usize, cqid: u16) {
        let group = self.group_of_cq(controller, cqid).and_then(|at| self.groups[at].as_mut());
        let usual = |sq: &Submission| !sq.removing && sq.aborts.is_empty();
        match group.filter(|group| group.leaving.is_none() && group.sqs.iter().flatten().all(usual)) {
            Some(group) => {
                group.leaving = Some(Instant::now() + PATIENCE);
                self.leaving += 1;
            }
            // Every order to let go has an answer: others wait for it.
            None => self.tell(controller, Event::Kept { cqid }),
        }
    }

    /// Keeps a group that was to go, if it has not gone yet.
    pub(super) fn keep(&mut self, at: usize) {
        let Some(group) = self.groups[at].as_mut() else { return };
        if group.leaving.take().is_some() {
            self.leaving -= 1;
            let (controller, cqid) = (group.controller, group.cq.state().cqid);
            self.tell(controller, Event::Kept { cqid });
            self.activate(at);
        }
    }

    /// Lets go of the groups that have nothing in flight any more, at the end of a turn; true if one went or stayed.
    pub(super) fn let_groups_go(&mut self) -> bool {
        let mut changed = false;
        for at in 0..self.groups.len() {
            let Some(group) = self.groups[at].as_ref() else { continue };
            let Some(deadline) = group.leaving else { continue };
            let in_flight = group.sqs.iter().flatten().any(|sq| sq.in_flight > 0);
            if !in_flight && !group.listed && group.cq.is_attached() {
                self.settle_for_good(at);
                let Some(group) = self.groups[at].as_ref() else { continue };
                let (controller, cq) = (group.controller, *group.cq.state());
                let sqs = group.sqs.iter().flatten().map(|sq| *sq.queue.state()).collect();
                self.drop_group(at);
                self.tell(controller, Event::Released { cq, sqs });
                changed = true;
            } else if Instant::now() >= deadline {
                self.keep(at);
                changed = true;
            }
        }
        changed
    }

    /// How long the worker may sleep while groups want to go.
    pub(super) fn move_limit(&self) -> Option<Duration> {
        (self.leaving > 0).then_some(PATIENCE)
    }
}
