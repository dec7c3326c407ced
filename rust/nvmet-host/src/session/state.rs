//! What a session keeps: the drive, its I/O queue, and where each command is.

use super::{Outcome, Queue, Request, SessionLimits, Ticket};
use crate::{
    AsyncEvent, Drive, HostError, QueueConfig, QueuePair, SqeExt, Transfer,
    transport::{Bell, Transport},
};
use nvmet_spec::command::{AbortCdw10, AdminOpcode, Cqe, Sqe};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// CIDs from here on are those of blocking commands and event requests of [`Drive`].
const CIDS: u16 = 0x8000;
/// I/O commands in flight at most: CIDs stay free, and a queue has fewer entries anyway as a rule.
const MAX_DEPTH: u32 = 0x4000;
/// Entries of the admin queue that are kept for event requests and for blocking commands.
const KEPT: u32 = 4;

/// Where a command is.
#[derive(Debug)]
enum Slot {
    Flying(Flying),
    Done(Outcome),
    /// The controller was reset under it.
    Lost,
}

#[derive(Debug)]
struct Flying {
    queue: Queue,
    cid: u16,
    transfer: Option<Transfer>,
    /// Bytes wanted of it.
    length: usize,
    /// Whether somebody will ask.
    wanted: bool,
}

#[derive(Debug)]
struct Attached {
    drive: Drive,
    io: QueuePair,
    /// Commands that may be in flight on `io`.
    depth: u32,
}

impl Attached {
    fn pair(&mut self, queue: Queue) -> &mut QueuePair {
        match queue {
            Queue::Admin => &mut self.drive.admin,
            Queue::Io => &mut self.io,
        }
    }

    fn room(&self, queue: Queue) -> usize {
        match queue {
            Queue::Admin => (u32::from(self.drive.config.admin_entries.clamp(2, 4096)) - 1)
                .saturating_sub(KEPT)
                .max(1) as usize,
            Queue::Io => self.depth as usize,
        }
    }
}

#[derive(Debug)]
pub(super) struct State {
    /// `None`: detached.
    attached: Option<Attached>,
    /// As asked for.
    depth: u32,
    slots: HashMap<u64, Slot>,
    /// Tickets by CID, for each [`Queue`].
    in_flight: [HashMap<u16, u64>; 2],
    next_ticket: u64,
    next_cid: u16,
    events: VecDeque<AsyncEvent>,
    /// What came of an event request that failed.
    refused: Option<HostError>,
    /// Whether a thread sleeps on the bell, without the lock.
    pub(super) someone_polls: bool,
}

impl State {
    pub(super) fn new(mut drive: Drive, depth: u32) -> Result<Self, HostError> {
        let (io, granted) = io_queue(&mut drive, depth)?;
        Ok(Self {
            attached: Some(Attached { drive, io, depth: granted }),
            depth,
            slots: HashMap::new(),
            in_flight: Default::default(),
            next_ticket: 0,
            next_cid: 0,
            events: VecDeque::new(),
            refused: None,
            someone_polls: false,
        })
    }

    fn attached(&mut self) -> Result<&mut Attached, HostError> {
        self.attached.as_mut().ok_or(HostError::Detached)
    }

    pub(super) fn drive(&mut self) -> Result<&mut Drive, HostError> {
        self.attached().map(|attached| &mut attached.drive)
    }

    pub(super) fn transport(&mut self) -> Result<Arc<Transport>, HostError> {
        self.drive().map(|drive| Arc::clone(&drive.transport))
    }

    /// What to sleep on until something comes.
    pub(super) fn bell(&mut self) -> Result<Bell, HostError> {
        Ok(Bell::of(&*self.transport()?, &[0, 1]))
    }

    pub(super) fn limits(&mut self) -> Result<SessionLimits, HostError> {
        let Attached { drive, depth, .. } = self.attached()?;
        Ok(SessionLimits {
            depth: *depth,
            max_transfer: drive.max_transfer().min(drive.memory.len() as u64 / 4),
            doorbells: drive.doorbell_mode(),
        })
    }

    /// Submits what there is room for; see [`Session::submit`](super::Session::submit).
    pub(super) fn submit(
        &mut self,
        queue: Queue,
        requests: &[Request<'_>],
    ) -> Result<Vec<Ticket>, HostError> {
        let mut tickets = Vec::with_capacity(requests.len());
        let mut outcome = Ok(());
        for request in requests {
            match self.place(queue, request) {
                Ok(ticket) => tickets.push(ticket),
                Err(HostError::QueueFull { .. }) => break,
                // Commands that end give their memory back.
                Err(HostError::OutOfMemory { .. }) if self.in_flight.iter().any(|all| !all.is_empty()) => {
                    break;
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let rung = self.attached()?.pair(queue).ring();
        if let Err(error) = outcome.and(rung) {
            tickets.into_iter().for_each(|ticket| self.forget(ticket));
            return Err(error);
        }
        Ok(tickets)
    }

    fn place(&mut self, queue: Queue, request: &Request<'_>) -> Result<Ticket, HostError> {
        let used = self.in_flight[queue as usize].len();
        let cid = self.free_cid(queue);
        let attached = self.attached()?;
        if used >= attached.room(queue) {
            return Err(HostError::QueueFull { sqid: sqid(attached.pair(queue)) });
        }
        let mut entry = request.entry;
        entry.cdw0.set_cid(cid);
        let bytes = request.out.len().max(request.length);
        let mut transfer = None;
        if bytes > 0 {
            let drive = &attached.drive;
            let memory = Transfer::new(&drive.memory, bytes, 0, drive.config.page_size)?;
            memory.buffer().write(0, request.out)?;
            (entry.prp1, entry.prp2) = (memory.prp().prp1, memory.prp().prp2);
            transfer = Some(memory);
        }
        attached.pair(queue).submit(&entry)?;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.in_flight[queue as usize].insert(cid, ticket);
        let flying = Flying { queue, cid, transfer, length: request.length, wanted: true };
        self.slots.insert(ticket, Slot::Flying(flying));
        Ok(Ticket(ticket))
    }

    fn free_cid(&mut self, queue: Queue) -> u16 {
        loop {
            let cid = self.next_cid;
            self.next_cid = (self.next_cid + 1) % CIDS;
            if !self.in_flight[queue as usize].contains_key(&cid) {
                return cid;
            }
        }
    }

    /// Takes all completions that are there; whether there were any.
    pub(super) fn poll(&mut self) -> Result<bool, HostError> {
        let Attached { drive, io, .. } = self.attached()?;
        let mut found = Vec::new();
        io.poll(|_, completion| found.push((Queue::Io, completion)))?;
        let Drive { admin, stray, .. } = drive;
        admin.poll(|_, completion| stray.push(completion))?;
        stray.retain(|completion| {
            let ours = completion.cid < CIDS;
            if ours {
                found.push((Queue::Admin, *completion));
            }
            !ours
        });
        let events = drive.take_events();
        let mut arrived = !found.is_empty();
        match events {
            Ok(events) => {
                arrived |= !events.is_empty();
                self.events.extend(events);
            }
            Err(error) => self.refused = Some(error),
        }
        // All are taken, whatever one of them is: the rest belongs to other threads.
        let mut outcome = Ok(arrived);
        for (queue, completion) in found {
            if let Err(error) = self.finish(queue, completion) {
                outcome = Err(error);
            }
        }
        outcome
    }

    fn finish(&mut self, queue: Queue, completion: Cqe) -> Result<(), HostError> {
        let ticket = self.in_flight[queue as usize].remove(&completion.cid);
        let slot = ticket.and_then(|ticket| Some((ticket, self.slots.remove(&ticket)?)));
        let Some((ticket, Slot::Flying(flying))) = slot else {
            return Err(HostError::UnexpectedCompletion { cid: completion.cid, sqid: completion.sqid });
        };
        if flying.wanted {
            let data = match flying.transfer {
                Some(transfer) => transfer.buffer().to_vec(0, flying.length)?,
                None => Vec::new(),
            };
            self.slots.insert(ticket, Slot::Done(Outcome { completion, data }));
        }
        Ok(())
    }

    /// The outcome of a command, if it has ended.
    pub(super) fn take(&mut self, ticket: Ticket) -> Result<Option<Outcome>, HostError> {
        self.attached()?;
        match self.slots.get(&ticket.0) {
            Some(Slot::Flying(_)) => return Ok(None),
            Some(_) => {}
            None => return Err(HostError::argument("the command was waited for already; it ends once")),
        }
        match self.slots.remove(&ticket.0) {
            Some(Slot::Done(outcome)) => Ok(Some(outcome)),
            _ => Err(HostError::Reset),
        }
    }

    pub(super) fn is_done(&self, ticket: Ticket) -> bool {
        !matches!(self.slots.get(&ticket.0), Some(Slot::Flying(_)))
    }

    pub(super) fn forget(&mut self, ticket: Ticket) {
        match self.slots.get_mut(&ticket.0) {
            // Its memory stays until the controller is done with it.
            Some(Slot::Flying(flying)) => flying.wanted = false,
            Some(_) => drop(self.slots.remove(&ticket.0)),
            None => {}
        }
    }

    pub(super) fn abort(&mut self, ticket: Ticket) -> Result<Option<Ticket>, HostError> {
        let Some(Slot::Flying(Flying { queue, cid, .. })) = self.slots.get(&ticket.0) else {
            return Ok(None);
        };
        let (queue, cid) = (*queue, *cid);
        let sqid = sqid(self.attached()?.pair(queue));
        let cdw10 = AbortCdw10::new().with_sqid(sqid).with_cid(cid).into_bits();
        let entry = Sqe::new(AdminOpcode::Abort, 0, 0).with_cdw10(cdw10);
        let tickets = self.submit(Queue::Admin, &[Request { entry, out: &[], length: 0 }])?;
        tickets.first().copied().map(Some).ok_or(HostError::QueueFull { sqid: 0 })
    }

    /// The oldest event that nobody has taken; sees to it that there will be one.
    pub(super) fn next_event(&mut self) -> Result<Option<AsyncEvent>, HostError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        self.drive()?.arm_events(1)?;
        Ok(None)
    }

    pub(super) fn reset(&mut self) -> Result<(), HostError> {
        self.drive()?.disable()?;
        // The controller has let go of all memory.
        self.in_flight = Default::default();
        self.slots.retain(|_, slot| match slot {
            Slot::Flying(flying) => flying.wanted,
            _ => true,
        });
        for slot in self.slots.values_mut().filter(|slot| matches!(slot, Slot::Flying(_))) {
            *slot = Slot::Lost;
        }
        self.events.clear();
        self.refused = None;
        let depth = self.depth;
        let attached = self.attached()?;
        attached.drive.enable()?;
        (attached.io, attached.depth) = io_queue(&mut attached.drive, depth)?;
        Ok(())
    }

    /// The drive, if it is attached still; nobody else has it from here on.
    pub(super) fn detach(&mut self) -> Option<Drive> {
        let attached = self.attached.take()?;
        self.in_flight = Default::default();
        for (_, slot) in self.slots.drain() {
            // The controller may still use the memory until it is disabled.
            if let Slot::Flying(Flying { transfer: Some(transfer), .. }) = slot {
                transfer.abandon();
            }
        }
        Some(attached.drive)
    }
}

/// The one submission queue of a pair.
fn sqid(pair: &QueuePair) -> u16 {
    pair.sq_ids().next().unwrap_or(0)
}

/// An I/O queue for `depth` commands, or as many as there can be.
fn io_queue(drive: &mut Drive, depth: u32) -> Result<(QueuePair, u32), HostError> {
    let entries = depth.min(MAX_DEPTH).saturating_add(1).min(drive.queue_limits().max_entries).max(2);
    let vector = (drive.transport.vectors() > 1).then_some(1);
    let config = QueueConfig { depth: entries, vector, ..QueueConfig::default() };
    Ok((drive.create_queue_pair(&config)?, entries - 1))
}
