//! Reservation commands, and fences around the commands of those who lose one.
//!
//! The state is the subsystem's: a worker copies what the host sent, passes the command on, and completes it when the
//! answer is there. May know the subsystem's service; must not know what a command does.

use std::sync::Arc;

use nvmet_dma::memory::Direction;
use nvmet_spec::command::{NSID_ALL, NvmOpcode, Sqe};
use nvmet_spec::reservation::{ReportCdw11, report_length};
use nvmet_spec::status::Status;

use super::commands::target;
use super::controllers::ControllerSlot;
use super::inflight::Entry;
use super::mailbox::Command;
use super::run::Worker;
use crate::io::decode::IoCommand;
use crate::io::dma_status;
use crate::io::execute::{Context, map_data, read_data};
use crate::reservation;
use crate::subsystem::{Hold, Job, Reply, Wish};

impl Worker {
    /// Passes a reservation command on.
    pub(super) fn reserve(&mut self, slot: u32, opcode: NvmOpcode) {
        let passed = self.pass_on(slot, opcode);
        let Some(entry) = self.inflight.get_mut(slot) else { return };
        match passed {
            Ok(()) => entry.pending += 1,
            Err(status) => {
                entry.status = status;
                self.complete(slot);
            }
        }
    }

    fn pass_on(&mut self, slot: u32, opcode: NvmOpcode) -> Result<(), Status> {
        let tag = self.inflight.tag(slot);
        let entry = self.inflight.get_mut(slot).ok_or(Status::INTERNAL_ERROR)?;
        let controller = self.controllers[entry.controller].as_mut().ok_or(Status::INTERNAL_ERROR)?;
        let sqe = entry.sqe;
        let place = target(controller, sqe.nsid)?;
        place.gate.any.map_or(Ok(()), Err)?;
        entry.namespace = place.queue;
        let namespace = &self.namespaces.get_mut(place.queue).ok_or(Status::INTERNAL_ERROR)?.namespace;
        if !namespace.keeper().takes_reservations() {
            return Err(Status::INVALID_OPCODE.with_dnr());
        }
        let id = namespace.id();
        let wish = if opcode == NvmOpcode::ReservationReport {
            if report_length(sqe.cdw10) > controller.max_transfer {
                return Err(Status::INVALID_FIELD.with_dnr());
            }
            Wish::Report(ReportCdw11::from_bits(sqe.cdw11).eds())
        } else {
            let mut data = [0; 16];
            let data = &mut data[..reservation::Command::data_len(opcode)];
            read_data(&sqe, &mut context(controller, &mut self.segments), data)?;
            Wish::Reserve(reservation::Command::decode(opcode, sqe.cdw10, data)?)
        };
        let own = self.own.clone();
        let asking = entry.asking.insert(Arc::default());
        let wanted = Some(Arc::downgrade(asking));
        let host = controller.link.who.host.id;
        controller.link.subsystem.submit(Job {
            nsid: sqe.nsid,
            id: Some(id),
            host,
            wish,
            wanted,
            reply: Reply::new(move |result| own.send(Command::Reserved { tag, result })),
        });
        Ok(())
    }

    /// The answer to a reservation command, which may be gone by now.
    pub(super) fn reserved(&mut self, tag: u64, result: Result<Vec<u8>, Status>) {
        let Some(slot) = self.inflight.slot(tag) else { return };
        let Some(entry) = self.inflight.get_mut(slot) else { return };
        let Some(controller) = self.controllers[entry.controller].as_mut() else { return };
        entry.pending = entry.pending.saturating_sub(1);
        let written = result.and_then(|data| {
            let report = entry.command == Some(IoCommand::Reservation(NvmOpcode::ReservationReport));
            if report { self::report(&entry.sqe, data, controller, &mut self.segments) } else { Ok(()) }
        });
        if let Err(status) = written
            && entry.status.is_success()
        {
            entry.status = status;
        }
        if entry.pending == 0 {
            self.complete(slot);
        }
    }

    /// Holds `hold` for every I/O command of a controller that is on its way on a namespace.
    pub(super) fn fence(&mut self, key: u64, namespace: u64, end: Option<Status>, hold: &Arc<Hold>) {
        let with_key = |slot: &Option<ControllerSlot>| slot.as_ref().is_some_and(|slot| slot.link.key == key);
        // One that is being quiesced has no queues any more, but its backends may be at work.
        for at in
            (0..self.controllers.len()).filter(|&at| with_key(&self.controllers[at])).collect::<Vec<_>>()
        {
            if let Some(controller) = self.controllers[at].as_mut().filter(|slot| !slot.quiescing) {
                controller.refresh_namespaces(&mut self.namespaces, &self.sleeper);
            }
            let Self { inflight, namespaces, controllers, .. } = self;
            let mut on_it = |entry: &Entry| {
                // A pair that waits for its blocks, and a Write for its Compare, have no queue yet, but go to one.
                let index = || Some(controllers[at].as_ref()?.index.get(entry.sqe.nsid)?.queue);
                let queue = if entry.namespace == usize::MAX { index() } else { Some(entry.namespace) };
                let queue = queue.and_then(|queue| namespaces.get_mut(queue));
                flushes_all(entry) || queue.is_some_and(|queue| queue.namespace.id() == namespace)
            };
            let slots: Vec<u32> = inflight
                .iter()
                .filter(|(_, entry)| entry.controller == at)
                .filter(|(_, entry)| !matches!(entry.command, Some(IoCommand::Reservation(_))))
                .filter(|(_, entry)| on_it(entry))
                .map(|(slot, _)| slot)
                .collect();
            for &slot in &slots {
                if let Some(entry) = self.inflight.get_mut(slot) {
                    entry.add_hold(Arc::clone(hold));
                }
            }
            let Some(status) = end else { continue };
            for slot in slots {
                // An earlier one may have taken it along.
                self.end_fenced(slot, status);
            }
        }
    }

    fn end_fenced(&mut self, slot: u32, status: Status) {
        let aborts = |command: &IoCommand| !matches!(command, IoCommand::Flush);
        let Some(entry) = self.inflight.get_mut(slot) else { return };
        if entry.holds.is_some() && entry.command.as_ref().is_none_or(aborts) {
            entry.cancelled = status;
            self.cancel(slot, status);
        }
    }
}

/// Whether it may have operations on any namespace: a host's flush of all, or the controller's own.
fn flushes_all(entry: &Entry) -> bool {
    entry.command == Some(IoCommand::Flush) && matches!(entry.sqe.nsid, 0 | NSID_ALL)
}

fn context<'a>(controller: &'a mut ControllerSlot, segments: &'a mut nvmet_dma::SegmentBuf) -> Context<'a> {
    Context {
        snapshot: controller.reader.snapshot(),
        segments,
        page_size: controller.page_size,
        max_transfer: controller.max_transfer,
    }
}

/// Gives the host as much of a Reservation Status data structure as it has asked for; what lies beyond its end reads 0.
fn report(
    sqe: &Sqe,
    mut data: Vec<u8>,
    controller: &mut ControllerSlot,
    segments: &mut nvmet_dma::SegmentBuf,
) -> Result<(), Status> {
    // It is bounded by the size of a transfer.
    data.resize(report_length(sqe.cdw10) as usize, 0);
    let mut context = context(controller, segments);
    let to = map_data(sqe, &mut context, data.len() as u64, Direction::ToGuest)?;
    to.write_from(0, &data).map_err(|error| dma_status(&error))
}
