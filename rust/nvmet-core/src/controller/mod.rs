//! The controller: registers, state machine, admin queue (NVMe Base 2.0, 3).
//!
//! Runs on the control thread and gives the I/O queues to workers. Knows nothing of vfio-user: it is driven by
//! register accesses, [`Controller::poll`] and a deadline. Its state is plain data, apart from the channels to workers.

mod admin;
mod admin_queue;
mod health;
mod lifecycle;
mod member;
mod moves;
mod queues;
mod registers;
mod rings;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nvmet_dma::{DmaHandle, DmaReader, DoorbellPage};
use nvmet_spec::registers::{DOORBELL_BASE, Doorbell, ShutdownStatus};

use self::admin::AdminState;
use self::admin_queue::AdminQueue;
pub use self::health::Lifetime;
use self::lifecycle::{Phase, Shutdown};
use self::member::{Membership, Remains};
use self::moves::Moves;
use self::queues::QueueTable;
use self::registers::Registers;
use self::rings::RingWatch;
use crate::error::TargetError;
use crate::irq::Vectors;
use crate::queue::{DOORBELL_PAGE_SIZE, Doorbells, InvalidDoorbell, register_index};
use crate::stats::Batch;
pub use crate::subsystem::HostIdentity;
use crate::subsystem::ana::AnaStates;
use crate::subsystem::{Subsystem, View, Who};
use crate::worker::{Command, Event, Link, WorkerPool};

/// The most I/O queues: their doorbells and the admin queue's fill a page of 4096 bytes, and so do shadow doorbells.
pub const MAX_IO_QUEUES: u16 = 511;
/// MDTS in bytes.
pub const MAX_TRANSFER: u64 = 1 << 20;

/// What a controller is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerLimits {
    /// I/O queue pairs, 1 to [`MAX_IO_QUEUES`].
    pub queues: u16,
    /// Entries of an I/O queue, 2 to 65536.
    pub entries: u32,
}

impl ControllerLimits {
    /// Checks the ranges.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] naming the value that is out of range.
    pub fn check(&self) -> Result<(), TargetError> {
        if self.queues == 0 || self.queues > MAX_IO_QUEUES {
            return Err(TargetError::config("queues", self.queues, format!("use 1 to {MAX_IO_QUEUES}")));
        }
        if !(2..=65536).contains(&self.entries) {
            return Err(TargetError::config("queue size", self.entries, "use 2 to 65536 entries"));
        }
        Ok(())
    }
}

/// What a controller begins with.
#[derive(Clone, Debug)]
pub struct ControllerSetup {
    /// Queues and their size.
    pub limits: ControllerLimits,
    /// PCI Vendor ID and Subsystem Vendor ID.
    pub pci_ids: (u16, u16),
    /// Whose controller it is.
    pub host: HostIdentity,
    /// Where it is reached, for people.
    pub place: String,
    /// The Controller Identifier wanted; None: any.
    pub cntlid: Option<u16>,
    /// The states that ANA groups begin in.
    pub ana: AnaStates,
    /// What SMART counted before this process.
    pub lifetime: Lifetime,
}

/// A controller of a subsystem.
pub struct Controller {
    limits: ControllerLimits,
    pci_ids: (u16, u16),
    place: String,
    cntlid: u16,
    subsystem: Arc<Subsystem>,
    link: Arc<Link>,
    pool: Arc<WorkerPool>,
    events: Receiver<Event>,
    reader: DmaReader,
    page: Arc<DoorbellPage>,
    doorbells: Doorbells,
    registers: Registers,
    phase: Phase,
    shutdown: Option<Shutdown>,
    bus_master: bool,
    attached: bool,
    polled: bool,
    admin_queue: Option<AdminQueue>,
    queues: QueueTable,
    moves: Moves,
    rings: RingWatch,
    admin: AdminState,
}

impl Controller {
    /// A controller after power on. `wake` rouses the control thread to call [`poll`](Self::poll), from any thread.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] for limits out of range or an identifier that cannot be had, [`TargetError::System`] for a
    /// doorbell page that cannot be made.
    pub fn new(
        setup: ControllerSetup,
        subsystem: Arc<Subsystem>,
        pool: Arc<WorkerPool>,
        dma: DmaHandle,
        vectors: Arc<Vectors>,
        wake: impl Fn() + Send + Sync + Clone + 'static,
    ) -> Result<Self, TargetError> {
        let ControllerSetup { limits, pci_ids, host, place, cntlid, ana, lifetime } = setup;
        limits.check()?;
        let page = DoorbellPage::new(DOORBELL_PAGE_SIZE)
            .map_err(|e| TargetError::system("make the doorbell page", e))?;
        let page = Arc::new(page);
        let cntlid = subsystem.join(cntlid, &host, ana)?;
        let who = Who { cntlid, host };
        let (sender, events) = channel();
        let link = Arc::new(Link::new(
            Link::next_key(),
            dma,
            Arc::clone(&page),
            vectors,
            Arc::clone(&subsystem),
            who,
            sender,
            Box::new(wake),
        ));
        subsystem.enter(cntlid, Arc::new(Membership::new(&link, &pool)));
        let view = View::new(subsystem.namespaces(), &link.who);
        Ok(Self {
            registers: Registers::new(limits.entries)
                .with_subsystem_reset(subsystem.config().subsystem_reset != Some(false)),
            admin: AdminState::new(&limits, link.who.host.id, view, lifetime),
            reader: link.dma.reader(),
            doorbells: Doorbells::new(Arc::clone(&page)),
            limits,
            pci_ids,
            place,
            cntlid,
            subsystem,
            link,
            pool,
            events,
            page,
            phase: Phase::Disabled,
            shutdown: None,
            bus_master: false,
            attached: false,
            polled: false,
            admin_queue: None,
            queues: QueueTable::default(),
            moves: Moves::new(),
            rings: RingWatch::default(),
        })
    }

    /// Controller Identifier.
    pub fn cntlid(&self) -> u16 {
        self.cntlid
    }

    /// The host that the controller belongs to.
    pub fn host(&self) -> &HostIdentity {
        &self.link.who.host
    }

    /// The doorbell page, for mapping.
    pub fn doorbell_page(&self) -> &Arc<DoorbellPage> {
        &self.page
    }

    /// Gives the next client a doorbell page of its own: the last one may still have its mapping. Call only while
    /// the controller [is quiet](Self::is_quiet).
    ///
    /// # Errors
    ///
    /// [`TargetError::System`]; the page is the old one then.
    pub fn renew_doorbell_page(&mut self) -> Result<(), TargetError> {
        let page = DoorbellPage::new(DOORBELL_PAGE_SIZE);
        self.page = Arc::new(page.map_err(|e| TargetError::system("make the doorbell page", e))?);
        self.doorbells = Doorbells::new(Arc::clone(&self.page));
        self.link.page.store(Arc::clone(&self.page));
        Ok(())
    }

    /// Counters of the I/O queues.
    pub fn stats(&self) -> Batch {
        self.link.stats.read()
    }

    /// What SMART has counted over the controller's life, with its Error Information log.
    pub fn lifetime(&mut self) -> Lifetime {
        self.gather_failures();
        let in_use = self.attached && self.registers.csts.shst() != ShutdownStatus::Complete;
        Lifetime { in_use, ..self.admin.lifetime(&self.link.stats.read()) }
    }

    /// Begins with a client, which is a power cycle to its host. `polled`: it writes doorbells through a mapping, so that
    /// no message tells of them.
    pub fn client_attached(&mut self, polled: bool) {
        self.polled = polled;
        self.attached = true;
        self.rings = RingWatch::default();
        self.admin.powered_on();
    }

    /// The client has left: the power is off.
    pub fn client_detached(&mut self) {
        self.attached = false;
        let unsafely = self.phase == Phase::Enabled && self.registers.csts.shst() != ShutdownStatus::Complete;
        self.admin.powered_off(unsafely);
    }

    /// Follows the Bus Master Enable bit: without it the controller reads and writes no guest memory on its own.
    pub fn set_bus_master(&mut self, enabled: bool) {
        self.bus_master = enabled;
        self.link.set_running(self.is_running());
        if enabled {
            self.refresh_workers();
            self.run_admin_queue();
        }
    }

    /// The guest's memory has changed: everybody lets go of the old map.
    pub fn memory_changed(&mut self) {
        let snapshot = self.reader.snapshot();
        if let Some(queue) = &mut self.admin_queue {
            queue.attach(snapshot);
        }
        self.attach_shadow();
        self.refresh_workers();
        self.run_admin_queue();
    }

    /// Reads BAR0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let registers = data.len().min(DOORBELL_BASE.saturating_sub(offset) as usize);
        self.registers.read(offset, &mut data[..registers]);
        // Doorbells read what was written; beyond the page there is nothing.
        let (at, rest) = (offset as usize + registers, &mut data[registers..]);
        let doorbells = rest.len().min(DOORBELL_PAGE_SIZE.saturating_sub(at));
        if doorbells > 0 {
            let _ = self.page.read_bytes(at, &mut rest[..doorbells]);
        }
    }

    /// Writes BAR0.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if offset >= DOORBELL_BASE {
            return self.write_doorbell(offset, data);
        }
        for effect in self.registers.write(offset, data).into_iter().flatten() {
            self.apply(effect);
        }
    }

    /// A doorbell that came as a message. Valid in mapped mode too, and on the same page.
    fn write_doorbell(&mut self, offset: u64, data: &[u8]) {
        if self.phase != Phase::Enabled {
            // There are no queues yet, or no longer: a CPU of the guest may ring while another one resets.
            return;
        }
        match self.store_doorbell(offset, data) {
            // Whatever is news by now comes before what the host asks: it may have heard of it elsewhere.
            Ok(0) => self.poll(Instant::now()),
            Ok(cqid) => {
                self.worker_of(cqid).ring(&self.link, cqid);
                self.watch_rings();
            }
            Err(invalid) => {
                self.invalid_doorbell(invalid);
                // The event goes out with what the admin queue has; nothing else may come for long.
                self.run_admin_queue();
            }
        }
    }

    /// An I/O doorbell came as a message. A guest that goes on like that has a slow drive, and its operator a cure.
    fn watch_rings(&mut self) {
        // With shadow doorbells rings are rare; a client that maps doorbells has the cure and does not use it.
        if self.polled || self.admin.shadow().is_some() {
            return;
        }
        if self.rings.rang(self.queues.cqs.values().any(|cq| cq.interrupts)) {
            tracing::warn!(
                "the guest at {} rings its doorbells by message ({} times so far) and sets up no shadow doorbells: \
                 every command costs it exits and messages; serve it with --doorbells mapped, for a worker that polls \
                 while it is attached",
                self.place,
                self.rings.rings(),
            );
        }
    }

    /// Stores what was written to a doorbell, and returns the completion queue that decides on who has to know.
    fn store_doorbell(&mut self, offset: u64, data: &[u8]) -> Result<u16, InvalidDoorbell> {
        let no_doorbell = InvalidDoorbell::Register { offset: offset as u32 };
        // Doorbells are written as dwords (PCIe Transport 1.1, 3.1.2).
        let bytes = <[u8; 4]>::try_from(data).map_err(|_| no_doorbell)?;
        let value = u32::from_le_bytes(bytes) & 0xffff;
        let (qid, completion) = match Doorbell::at(offset, 0) {
            Some(Doorbell::SqTail(qid)) => (qid, false),
            Some(Doorbell::CqHead(qid)) => (qid, true),
            None => return Err(no_doorbell),
        };
        let (entries, cqid) = self.queue_of(qid, completion).ok_or(no_doorbell)?;
        if value >= entries {
            return Err(InvalidDoorbell::Value { qid, completion, value });
        }
        // The queue exists, so its doorbell lies in the page.
        let _ = self.page.store(register_index(qid, completion), value);
        if qid != 0 && self.awaits_shadow() {
            self.doorbells.pass_on(qid, completion, value);
        }
        Ok(cqid)
    }

    /// Entries of a queue and the completion queue that decides on its worker.
    fn queue_of(&self, qid: u16, completion: bool) -> Option<(u32, u16)> {
        if qid == 0 {
            let queue = self.admin_queue.as_ref()?;
            return Some((if completion { queue.cq_entries() } else { queue.sq_entries() }, 0));
        }
        if completion {
            self.queues.cqs.get(&qid).map(|cq| (cq.entries, qid))
        } else {
            self.queues.sqs.get(&qid).map(|sq| (sq.entries, sq.cqid))
        }
    }

    /// Handles what workers told, changed namespaces and deadlines.
    pub fn poll(&mut self, now: Instant) {
        while let Ok(event) = self.events.try_recv() {
            self.handle(event);
        }
        if !self.subsystem.is_current(self.admin.view().map()) {
            self.admin.view_changed(View::new(self.subsystem.namespaces(), &self.link.who));
            self.refresh_workers();
        }
        self.admin.check_health(*self.subsystem.health());
        self.check_deadlines(now);
        self.run_admin_queue();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Quiesced => self.worker_quiesced(),
            Event::Flushed { status } => self.flushed(status),
            Event::InvalidDoorbell(invalid) => {
                self.link.heard_of_invalid_doorbell();
                self.invalid_doorbell(invalid);
            }
            // The end of `poll` looks at the admin queue.
            Event::AdminDoorbell => self.link.heard_of_admin_doorbells(),
            Event::MemoryLost => self.fail(MEMORY_LOST),
            Event::Overloaded { cqid, to } => self.begin_move(cqid, to),
            Event::Released { cq, sqs } => self.released(cq, sqs),
            Event::Kept { cqid } => self.kept(cqid),
            Event::Notice { nsid, kind } => self.admin.notice(nsid, kind),
            Event::SubsystemReset => self.subsystem_reset(),
            Event::SqRemoved { .. }
            | Event::CqRemoved { .. }
            | Event::ShadowSet
            | Event::Aborted { .. }
            | Event::Counted
            | Event::Done { .. } => self.answer_pending(&event),
        }
    }

    /// When [`poll`](Self::poll) is to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        [self.shutdown.as_ref().map(|shutdown| shutdown.deadline), self.admin.deadline()]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let remains = Arc::new(Remains::new(&self.link, &self.pool));
        let over = self.subsystem.leave_behind(self.link.who.host.id, remains);
        self.subsystem.leave(self.cntlid);
        for worker in self.pool.iter() {
            worker.send(Command::Quiesce { key: self.link.key });
            worker.send(Command::Outlast { key: self.link.key, over: Arc::clone(&over) });
        }
    }
}

/// Why a controller fails whose guest memory is gone.
const MEMORY_LOST: &str = "guest memory vanished: its file was truncated";

/// How long CC.SHN waits for backends to flush before it reports completion all the same: RTD3 Entry Latency.
pub(crate) const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
