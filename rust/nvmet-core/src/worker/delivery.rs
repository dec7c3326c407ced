//! Interrupts on their way: asks the [gate](super::interrupts) of each completion queue, and sends what it lets through.
//!
//! A queue that has posted is asked once, at the end of the turn. One whose interrupt is held back is asked again with
//! every turn, and before the worker sleeps.

use std::time::Duration;

use super::controllers::ControllerSlot;
use super::interrupts::Decision;
use super::run::Worker;

/// What a question comes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// The next turn.
    Turn,
    /// A sleep.
    Sleep,
}

impl Worker {
    /// Sends the interrupt of a group that has posted, or holds it back.
    pub(super) fn settle(&mut self, at: usize) {
        if self.ask(at, Before::Turn).is_some()
            && let Some(group) = self.groups[at].as_mut()
            && !std::mem::replace(&mut group.held, true)
        {
            self.held.push(at);
        }
    }

    /// Looks at all interrupts that are held back, but for those that the end of this turn looks at anyway.
    pub(super) fn ask_again(&mut self) {
        self.each_held(Before::Turn);
    }

    /// Sends what must not be held back over a sleep; how long the worker may sleep for the sake of the rest.
    pub(super) fn settle_for_sleep(&mut self) -> Option<Duration> {
        if self.held.is_empty() {
            return None;
        }
        let until = self.each_held(Before::Sleep)?;
        Some(Duration::from_nanos(until.saturating_sub(self.now())))
    }

    /// Sends what is held back of a group that goes away.
    pub(super) fn settle_for_good(&mut self, at: usize) {
        if let Some(group) = self.groups[at].as_mut() {
            group.gate.configure(None, 0);
            let controller = group.controller;
            self.ask(at, Before::Sleep);
            self.controllers[controller].iter_mut().for_each(ControllerSlot::publish_batch);
        }
    }

    /// Asks for all that are held back; the earliest time at which one has to be asked again.
    fn each_held(&mut self, before: Before) -> Option<u64> {
        let (mut next, mut earliest) = (0, None);
        while let Some(&at) = self.held.get(next) {
            if self.groups[at].as_ref().is_some_and(|group| group.listed) {
                next += 1;
                continue;
            }
            if let Some(until) = self.ask(at, before) {
                earliest = Some(earliest.map_or(until, |earliest: u64| earliest.min(until)));
                next += 1;
                continue;
            }
            self.held.swap_remove(next);
            if let Some(group) = self.groups[at].as_mut() {
                group.held = false;
                if let Some(controller) = self.controllers[group.controller].as_mut() {
                    controller.publish_batch();
                }
            }
        }
        earliest
    }

    /// Asks a group's gate and signals if it says so; if it says wait, until when.
    fn ask(&mut self, at: usize, before: Before) -> Option<u64> {
        let started = self.started;
        let group = self.groups[at].as_mut()?;
        let posted = group.cq.take_posted();
        let vector = group.cq.state().vector?;
        let controller = self.controllers[group.controller].as_mut()?;
        // While commands are parked the head is read where they are looked at: that it has moved is news there.
        if !group.parked
            && controller.link.is_running()
            && let Some(invalid) = group.read_head(&controller.doorbells)
        {
            controller.link.tell_of_invalid_doorbell(invalid);
        }
        let (unconsumed, now) = (group.cq.unconsumed(), || started.elapsed().as_nanos() as u64);
        let decision = match before {
            Before::Turn => group.gate.decide(posted, unconsumed, now),
            Before::Sleep => group.gate.before_sleep(posted, unconsumed, now),
        };
        match decision {
            Decision::Nothing => None,
            Decision::Signal => {
                controller.link.vectors.signal(vector);
                controller.batch.interrupts += 1;
                None
            }
            Decision::Wait { until } => Some(until),
        }
    }

    /// Nanoseconds on the clock of the gates.
    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }
}
