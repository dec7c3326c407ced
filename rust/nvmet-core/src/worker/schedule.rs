//! Which groups a worker looks at, so that idle ones cost nothing.
//!
//! An active group is polled every turn. One that had no work for long, while others had some, rests: its EventIdx is
//! armed, so its host rings, by a message that the control thread turns into [`Command::Rung`](super::Command::Rung).
//! A host that writes through a mapping cannot be heard: its doorbells are [watched](super::watch), one piece in a turn
//! without work and in every 16th busy one, and all of them before a sleep. Before the worker sleeps all groups are put to rest.
//!
//! What was watched counts for resting groups only. A group rests when its doorbells, looked at once more, show no work,
//! so whatever comes after that makes a difference to the copy; and whatever else may give a resting group work (memory
//! that comes back, a controller that runs again) has all groups of its controller polled.
//!
//! Arming, then a fence, then one more look: either the look finds what the host wrote, or the host finds EventIdx
//! armed ([`handshake`](super::handshake) says why).

use std::sync::atomic::{Ordering, fence};

use super::controllers::ControllerSlot;
use super::run::Worker;

/// Busy turns without work after which a group rests.
const PATIENCE: u32 = 1024;
/// Busy turns between two looks at a piece of what is watched.
const BUSY_TURNS: u64 = 16;
impl Worker {
    /// Polls the active groups; whether there was any work.
    pub(super) fn poll_active(&mut self) -> bool {
        let mut busy = false;
        let mut next = 0;
        while let Some(&at) = self.active.get(next) {
            if self.poll_group(at) {
                busy = true;
                if let Some(group) = self.groups[at].as_mut() {
                    group.quiet = 0;
                }
            } else if self.was_busy && self.goes_to_rest(at) {
                self.active.swap_remove(next);
                continue;
            }
            next += 1;
        }
        busy
    }

    /// Looks after groups and admin queues whose hosts cannot be heard: a piece of one controller in a turn, and in some
    /// busy ones; all if something came before a sleep.
    pub(super) fn poll_round(&mut self, busy: bool) -> bool {
        let (mut found, all) = (false, std::mem::take(&mut self.look_everywhere));
        let controllers = self.controllers.len();
        if busy && !all && !self.turns.is_multiple_of(BUSY_TURNS) {
            return false;
        }
        self.round = (self.round + 1) % controllers.max(1);
        for at in 0..controllers {
            // Admin queues have nobody else who looks at them: all, in every turn without work.
            if busy && !all && at != self.round {
                continue;
            }
            let watched =
                |slot: &&mut ControllerSlot| slot.polled && !slot.quiescing && slot.link.is_running();
            let Some(slot) = self.controllers[at].as_mut().filter(watched) else { continue };
            found |= slot.poll_admin();
            let ControllerSlot { watch, doorbells, .. } = slot;
            if all && watch.look_at_all(doorbells) || at == self.round && watch.look(doorbells) {
                found |= self.poll_resting(at);
            }
        }
        found
    }

    /// Polls the resting groups of a controller that have work.
    fn poll_resting(&mut self, controller: usize) -> bool {
        let mut found = false;
        let groups = self.controllers[controller].as_ref().map_or(0, |slot| slot.groups.len());
        for cqid in 0..groups {
            let group = self.controllers[controller].as_ref().and_then(|slot| slot.group(cqid as u16));
            if let Some(at) = group
                && self.groups[at].as_ref().is_some_and(|group| !group.active)
                && self.group_has_work(at)
            {
                self.activate(at);
                found |= self.poll_group(at);
            }
        }
        found
    }

    /// Whether a group that was quiet for another busy turn is to be polled no more.
    fn goes_to_rest(&mut self, at: usize) -> bool {
        let Some(group) = self.groups[at].as_mut() else { return true };
        group.quiet += 1;
        if group.quiet < PATIENCE {
            return false;
        }
        group.quiet = 0;
        let Some(controller) = self.controllers[group.controller].as_ref() else { return true };
        group.arm(&controller.doorbells);
        fence(Ordering::SeqCst);
        if controller.link.is_running() && group.has_work(&controller.doorbells) {
            return false;
        }
        group.active = false;
        true
    }

    /// Polls a group from the next turn on.
    pub(super) fn activate(&mut self, at: usize) {
        let Some(group) = self.groups[at].as_mut() else { return };
        group.quiet = 0;
        if std::mem::replace(&mut group.active, true) {
            return;
        }
        if let Some(controller) = self.controllers[group.controller].as_ref() {
            group.disarm(&controller.doorbells);
        }
        self.active.push(at);
    }

    /// Polls all groups of a controller.
    pub(super) fn activate_controller(&mut self, at: usize) {
        for group in 0..self.groups.len() {
            if self.groups[group].as_ref().is_some_and(|group| group.controller == at) {
                self.activate(group);
            }
        }
    }

    /// Has every host ring that can.
    pub(super) fn arm_all(&mut self) {
        for &at in &self.active {
            if let Some(group) = self.groups[at].as_mut()
                && let Some(controller) = &self.controllers[group.controller]
            {
                group.arm(&controller.doorbells);
            }
        }
    }

    /// Whether anything came that is not a message.
    pub(super) fn any_has_work(&self) -> bool {
        let unheard = |slot: &ControllerSlot| {
            slot.polled && !slot.quiescing && slot.link.is_running() && slot.watch.differs(&slot.doorbells)
        };
        self.active.iter().any(|&at| self.group_has_work(at))
            || self.polled > 0 && self.controllers.iter().flatten().any(unheard)
    }

    /// Puts all groups to rest; they are armed.
    pub(super) fn deactivate_all(&mut self) {
        while let Some(at) = self.active.pop() {
            if let Some(group) = self.groups[at].as_mut() {
                (group.active, group.quiet) = (false, 0);
            }
        }
    }

    fn group_has_work(&self, at: usize) -> bool {
        let Some(group) = self.groups[at].as_ref() else { return false };
        self.controllers[group.controller]
            .as_ref()
            .is_some_and(|slot| slot.link.is_running() && group.has_work(&slot.doorbells))
    }
}
