//! What the control thread orders: taking queues over, giving them back, flush, abort.

use std::sync::Arc;

use nvmet_spec::command::Sqe;
use nvmet_spec::status::Status;
use zerocopy::FromZeros;

use super::controllers::ControllerSlot;
use super::groups::Group;
use super::inflight::{Entry, Origin};
use super::link::Event;
use super::mailbox::Command;
use super::run::Worker;
use super::tuning::Tuning;
use crate::io::decode::IoCommand;
use crate::io::execute::operation_tag;
use crate::queue::{CompletionQueueState, SubmissionQueueState};

/// Aborts of commands in one ring that are remembered. A guest may take the command back after it asked.
const MAX_ABORTS: usize = 64;
/// Commands for which room is made in advance. Guests may create queues that they never fill.
const MAX_RESERVED: usize = 16384;

impl Worker {
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Attach { link, page_size, max_transfer, polled, admin } => {
                let slot = ControllerSlot::new(link, page_size, max_transfer, polled, admin);
                self.polled += u32::from(polled);
                match self.controllers.iter().position(Option::is_none) {
                    Some(at) => self.controllers[at] = Some(slot),
                    None => self.controllers.push(Some(slot)),
                }
            }
            Command::AddCq { key, state } => self.add_cq(key, state),
            Command::AddSq { key, state } => self.add_sq(key, state),
            Command::RemoveSq { key, sqid } => self.remove_sq(key, sqid),
            Command::RemoveCq { key, cqid } => self.remove_cq(key, cqid),
            Command::SetShadow { key, doorbells, event_idx } => {
                if let Some(at) = self.find(key)
                    && let Some(controller) = self.controllers[at].as_mut()
                {
                    let old = controller.set_shadow(doorbells, event_idx);
                    for group in self.groups.iter_mut().flatten().filter(|group| group.controller == at) {
                        group.carry_over(&old, &controller.doorbells);
                    }
                    controller.link.tell(Event::ShadowSet);
                    self.activate_controller(at);
                }
            }
            Command::Tune { key, tuning } => self.tune(key, tuning),
            Command::Abort { key, sqid, cid, token } => self.abort(key, sqid, cid, token),
            Command::Flush { key } => self.flush(key),
            Command::Quiesce { key } => self.quiesce(key),
            Command::Release { key, cqid } => {
                // Else it went with a reset, which ended the move, too.
                if let Some(at) = self.find(key) {
                    self.release(at, cqid);
                }
            }
            Command::Keep { key, cqid } => {
                if let Some(group) = self.find(key).and_then(|at| self.group_of_cq(at, cqid)) {
                    self.keep(group);
                }
            }
            Command::Outlast { key, over } => {
                for slot in self.controllers.iter_mut().flatten().filter(|slot| slot.link.key == key) {
                    slot.over = Some(Arc::clone(&over));
                }
            }
            Command::Rung { key, cqid } => self.rung(key, cqid),
            Command::Fence { key, namespace, end, hold } => self.fence(key, namespace, end, &hold),
            // The counters of earlier turns are out.
            Command::Count { key } => {
                if let Some(at) = self.find(key) {
                    self.tell(at, Event::Counted);
                }
            }
            Command::Reserved { tag, result } => self.reserved(tag, result),
            Command::Refresh { key } => {
                if let Some(at) = self.find(key) {
                    // Even if this turn has done so: the message may be younger.
                    self.controllers[at].iter_mut().for_each(|controller| controller.fresh_in = 0);
                    self.refresh(at);
                    self.activate_controller(at);
                }
            }
        }
    }

    fn find(&self, key: u64) -> Option<usize> {
        self.controllers
            .iter()
            .position(|slot| slot.as_ref().is_some_and(|slot| slot.link.key == key && !slot.quiescing))
    }

    pub(super) fn tell(&self, controller: usize, event: Event) {
        if let Some(slot) = self.controllers[controller].as_ref() {
            slot.link.tell(event);
        }
    }

    pub(super) fn group_of_cq(&self, controller: usize, cqid: u16) -> Option<usize> {
        self.controllers[controller].as_ref()?.group(cqid)
    }

    fn rung(&mut self, key: u64, cqid: u16) {
        let Some(at) = self.find(key) else { return };
        let Some(controller) = self.controllers[at].as_ref() else { return };
        controller.link.heard_ring(cqid);
        if let Some(group) = controller.group(cqid) {
            self.activate(group);
        }
    }

    fn place_of_sq(&self, controller: usize, sqid: u16) -> Option<(usize, usize)> {
        self.groups.iter().enumerate().find_map(|(at, group)| {
            let group = group.as_ref().filter(|group| group.controller == controller)?;
            let sq = group
                .sqs
                .iter()
                .position(|sq| sq.as_ref().is_some_and(|sq| sq.queue.state().sqid == sqid))?;
            Some((at, sq))
        })
    }

    fn add_cq(&mut self, key: u64, state: CompletionQueueState) {
        let Some(at) = self.find(key) else { return };
        let Some(controller) = self.controllers[at].as_mut() else { return };
        // Backends are opened here, not by the first command.
        controller.refresh_namespaces(&mut self.namespaces, &self.sleeper);
        let entries = |group: &Group| group.cq.state().entries as usize;
        let total = self.groups.iter().flatten().map(entries).sum::<usize>() + state.entries as usize;
        self.inflight.reserve(total.min(MAX_RESERVED));
        let mut group = Group::new(at, state);
        group.attach(controller.reader.snapshot());
        group.tune(&controller.tuning);
        let free = self.groups.iter().position(Option::is_none).unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() - 1
        });
        controller.set_group(state.cqid, Some(free));
        controller.watch.include(state.cqid);
        self.groups[free] = Some(group);
        self.activate(free);
    }

    fn tune(&mut self, key: u64, tuning: Tuning) {
        let Some(at) = self.find(key) else { return };
        if let Some(controller) = self.controllers[at].as_mut() {
            controller.tuning = tuning;
        }
        for group in self.groups.iter_mut().flatten().filter(|group| group.controller == at) {
            group.tune(&tuning);
        }
    }

    fn add_sq(&mut self, key: u64, state: SubmissionQueueState) {
        let Some(at) = self.find(key) else { return };
        let Some(at_group) = self.group_of_cq(at, state.cqid) else { return };
        let (Some(group), Some(controller)) = (self.groups[at_group].as_mut(), self.controllers[at].as_mut())
        else {
            return;
        };
        controller.watch.include(state.sqid);
        let submission = group.add(state);
        if let Err(error) = submission.queue.attach(controller.reader.snapshot()) {
            tracing::debug!("submission queue {} rests: {error}", state.sqid);
        }
        self.activate(at_group);
    }

    fn remove_sq(&mut self, key: u64, sqid: u16) {
        let Some(at) = self.find(key) else { return };
        let Some((group, sq)) = self.place_of_sq(at, sqid) else {
            return self.tell(at, Event::SqRemoved { sqid });
        };
        if let Some(submission) = self.groups[group].as_mut().and_then(|group| group.sqs[sq].as_mut()) {
            submission.removing = true;
            for (_, token) in std::mem::take(&mut submission.aborts) {
                self.tell(at, Event::Aborted { token, aborted: false });
            }
        }
        let origin = Origin::Queue { group, sq };
        let slots: Vec<u32> =
            self.inflight.iter().filter(|(_, entry)| entry.origin == origin).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.cancel(slot, Status::ABORTED_SQ_DELETION);
        }
        self.after_completion(at, origin);
    }

    fn remove_cq(&mut self, key: u64, cqid: u16) {
        let Some(at) = self.find(key) else { return };
        if let Some(group) = self.group_of_cq(at, cqid) {
            self.drop_group(group);
        }
        self.tell(at, Event::CqRemoved { cqid });
    }

    pub(super) fn drop_group(&mut self, at: usize) {
        let Some(group) = self.groups[at].take() else { return };
        if let Some(controller) = self.controllers[group.controller].as_mut() {
            controller.set_group(group.cq.state().cqid, None);
        }
        self.leaving -= u32::from(group.leaving.is_some());
        // Whoever takes the index has its own place in the lists.
        self.active.retain(|&other| other != at);
        self.posted.retain(|&other| other != at);
        self.held.retain(|&other| other != at);
    }

    /// Ends a command early: at once if no backend has it, else as soon as the backend lets go of it.
    pub(super) fn cancel(&mut self, slot: u32, status: Status) {
        let tag = self.inflight.tag(slot);
        let Some(entry) = self.inflight.get_mut(slot) else { return };
        if entry.stalled {
            // The rest of it is not issued.
            entry.stalled = false;
            entry.status = status;
            self.stalled.retain(|&other| other != slot);
            if entry.pending == 0 {
                return self.complete(slot);
            }
        }
        if entry.pending > 0 && matches!(entry.command, Some(IoCommand::Reservation(_))) {
            // Whoever has it may wait for others for long, and does not need the command any more.
            (entry.pending, entry.status) = (0, status);
            return self.complete(slot);
        }
        if entry.pending > 0 {
            // Several namespaces, or one and the same before and after it was resized.
            let all = matches!(entry.command, Some(IoCommand::Flush | IoCommand::DatasetManagement { .. }));
            let at = if all { None } else { Some(entry.namespace) };
            let operations = match entry.command {
                Some(IoCommand::DatasetManagement { ranges, .. }) => ranges,
                _ => 1,
            };
            for index in 0..operations {
                self.namespaces.cancel(operation_tag(tag, index), at);
            }
        }
        // Else it is the Write of a fused pair, which its Compare takes along.
    }

    fn abort(&mut self, key: u64, sqid: u16, cid: u16, token: u32) {
        let Some(at) = self.find(key) else { return };
        let not_found = Event::Aborted { token, aborted: false };
        let Some((group, sq)) = self.place_of_sq(at, sqid) else { return self.tell(at, not_found) };
        let origin = Origin::Queue { group, sq };
        let found = self
            .inflight
            .iter()
            .find(|(_, entry)| entry.origin == origin && entry.sqe.cid() == cid && entry.abort.is_none())
            .map(|(slot, _)| slot);
        if let Some(slot) = found {
            if let Some(entry) = self.inflight.get_mut(slot) {
                entry.abort = Some(token);
            }
            return self.cancel(slot, Status::ABORT_REQUESTED);
        }
        let Some(submission) = self.groups[group].as_mut().and_then(|group| group.sqs[sq].as_mut()) else {
            return;
        };
        let waiting = (0..submission.queue.pending())
            .map_while(|ahead| submission.queue.peek(ahead))
            .any(|sqe| u16::from_le_bytes([sqe[2], sqe[3]]) == cid);
        // A second Abort of a command finds it aborted already: it would wait for the next one with that identifier.
        let wanted = submission.aborts.iter().any(|&(other, _)| other == cid);
        if waiting && !wanted && !submission.removing && submission.aborts.len() < MAX_ABORTS {
            submission.aborts.push((cid, token));
        } else {
            self.tell(at, not_found);
        }
    }

    fn flush(&mut self, key: u64) {
        let Some(at) = self.find(key) else { return };
        let Some(controller) = self.controllers[at].as_mut() else { return };
        controller.refresh_namespaces(&mut self.namespaces, &self.sleeper);
        controller.outstanding += 1;
        let mut entry = Entry::new(at, Origin::Flush, None, Sqe::new_zeroed());
        entry.command = Some(IoCommand::Flush);
        self.start(entry);
    }

    /// Drops all queues of a controller. What backends still have becomes nobody's.
    fn quiesce(&mut self, key: u64) {
        let Some(at) = self.find(key) else { return };
        if let Some(controller) = self.controllers[at].as_mut() {
            controller.quiescing = true;
            self.quiescing += 1;
            self.polled -= u32::from(controller.polled);
        }
        for group in 0..self.groups.len() {
            if self.groups[group].as_ref().is_some_and(|group| group.controller == at) {
                self.drop_group(group);
            }
        }
        let slots: Vec<u32> =
            self.inflight.iter().filter(|(_, entry)| entry.controller == at).map(|(slot, _)| slot).collect();
        for &slot in &slots {
            if let Some(entry) = self.inflight.get_mut(slot) {
                entry.origin = Origin::Orphan;
            }
        }
        for slot in slots {
            self.cancel(slot, Status::ABORTED_SQ_DELETION);
        }
        self.after_completion(at, Origin::Orphan);
    }

    /// Whether a removal that waited for commands in flight is over.
    pub(super) fn after_completion(&mut self, at: usize, origin: Origin) {
        if let Origin::Queue { group, sq } = origin
            && let Some(slot) = self.groups[group].as_mut().map(|group| &mut group.sqs[sq])
            && let Some(submission) = slot.as_ref()
            && submission.removing
            && submission.in_flight == 0
        {
            let sqid = submission.queue.state().sqid;
            *slot = None;
            self.tell(at, Event::SqRemoved { sqid });
        }
        let over = |slot: &ControllerSlot| slot.quiescing && slot.outstanding == 0;
        if self.controllers[at].as_ref().is_some_and(over)
            && let Some(controller) = self.controllers[at].take()
        {
            self.quiescing -= 1;
            self.namespaces.release(&controller.index);
            self.namespaces.forget_memory(true);
            controller.link.tell(Event::Quiesced);
        }
    }
}
