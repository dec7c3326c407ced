//! A guest: memory, doorbells, queues, interrupts; and a worker that is driven turn by turn.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use nvmet_block::Backend;
use nvmet_dma::{DoorbellPage, EventFd, LoopbackMemory};
use nvmet_spec::command::{Cqe, NvmOpcode, Sqe};
use zerocopy::{IntoBytes, transmute};

use crate::irq::Vectors;
use crate::namespace::NamespaceConfig;
use crate::queue::{
    CQE_SIZE, CompletionQueueState, DOORBELL_PAGE_SIZE, SQE_SIZE, SubmissionQueueState, register_index,
};
use crate::subsystem::{HostIdentity, Subsystem, SubsystemConfig, Who};
use crate::worker::{Command, Event, Link, LocalWorker};

pub const BASE: u64 = LoopbackMemory::IOVA;
pub const SHADOW: usize = 0;
pub const EVENT_IDX: usize = 0x1000;
/// Where data lies, as an offset.
pub const DATA: usize = 0x40_0000;
pub const MEMORY: usize = 0x80_0000;
/// Far more than anything here takes.
pub const DEADLINE: Duration = Duration::from_secs(60);

fn sq_offset(qid: u16) -> usize {
    usize::from(qid) * 0x2_0000
}

fn cq_offset(qid: u16) -> usize {
    sq_offset(qid) + 0x1_0000
}

/// A submission queue, as the guest has it.
#[derive(Clone, Copy, Debug)]
pub struct Sq {
    pub qid: u16,
    pub entries: u32,
    pub tail: u32,
    rung: u32,
}

impl Sq {
    /// Whether its doorbell has not been told of the tail.
    pub fn is_silent(&self) -> bool {
        self.rung != self.tail
    }
}

/// A completion queue, as the guest has it.
#[derive(Clone, Copy, Debug)]
pub struct Cq {
    pub qid: u16,
    pub entries: u32,
    pub head: u32,
    phase: bool,
    rung: u32,
}

pub struct Guest {
    pub memory: LoopbackMemory,
    pub page: Arc<DoorbellPage>,
    pub link: Arc<Link>,
    pub events: Receiver<Event>,
    pub shadow: bool,
    irqs: Vec<EventFd>,
    next_cid: u16,
}

pub fn subsystem(backends: impl IntoIterator<Item = Arc<dyn Backend>>) -> Arc<Subsystem> {
    let subsystem = Arc::new(Subsystem::new(SubsystemConfig::new("1")).unwrap());
    for backend in backends {
        add(&subsystem, backend);
    }
    subsystem
}

pub fn add(subsystem: &Subsystem, backend: Arc<dyn Backend>) -> u32 {
    subsystem.add_namespace(NamespaceConfig::new(backend)).unwrap()
}

impl Guest {
    pub fn new(subsystem: Arc<Subsystem>) -> Self {
        let memory = LoopbackMemory::new(MEMORY).unwrap();
        let page = Arc::new(DoorbellPage::new(DOORBELL_PAGE_SIZE).unwrap());
        let vectors = Arc::new(Vectors::new(8));
        let irqs: Vec<EventFd> = (0..8).map(|_| EventFd::new().unwrap()).collect();
        let shared = irqs
            .iter()
            .map(|irq| EventFd::from_client(OwnedFd::from(irq.try_clone().unwrap())).unwrap())
            .collect();
        vectors.assign(0, shared).unwrap();
        let (sender, events) = mpsc::channel();
        let link = Link::new(
            Link::next_key(),
            memory.handle(),
            page.clone(),
            vectors,
            subsystem,
            Who { cntlid: 1, host: HostIdentity { nqn: "nqn.test".into(), id: [1; 16] } },
            sender,
            Box::new(|| {}),
        );
        link.set_running(true);
        Self { memory, page, link: Arc::new(link), events, shadow: false, irqs, next_cid: 0 }
    }

    pub fn key(&self) -> u64 {
        self.link.key
    }

    pub fn attach(&self, polled: bool) -> Command {
        let link = self.link.clone();
        Command::Attach { link, page_size: 4096, max_transfer: 1 << 20, polled, admin: false }
    }

    pub fn add_cq(&self, qid: u16, entries: u32) -> (Cq, Command) {
        let state = CompletionQueueState {
            cqid: qid,
            entries,
            base: BASE + cq_offset(qid) as u64,
            tail: 0,
            head: 0,
            phase: true,
            vector: Some(qid),
        };
        (Cq { qid, entries, head: 0, phase: true, rung: 0 }, Command::AddCq { key: self.key(), state })
    }

    pub fn add_sq(&self, qid: u16, cqid: u16, entries: u32) -> (Sq, Command) {
        let base = BASE + sq_offset(qid) as u64;
        let state = SubmissionQueueState { sqid: qid, cqid, entries, base, head: 0, tail: 0 };
        (Sq { qid, entries, tail: 0, rung: 0 }, Command::AddSq { key: self.key(), state })
    }

    pub fn set_shadow(&mut self) -> Command {
        self.shadow = true;
        let at = |offset| BASE + offset as u64;
        Command::SetShadow { key: self.key(), doorbells: at(SHADOW), event_idx: at(EVENT_IDX) }
    }

    /// Puts a command into the ring, without ringing; returns its identifier.
    pub fn put(&mut self, sq: &mut Sq, mut sqe: Sqe) -> u16 {
        self.next_cid += 1;
        sqe.cdw0 = sqe.cdw0.with_cid(self.next_cid);
        let at = sq_offset(sq.qid) + sq.tail as usize * SQE_SIZE;
        self.memory.memory().write_bytes(at, sqe.as_bytes()).unwrap();
        sq.tail = (sq.tail + 1) % sq.entries;
        self.next_cid
    }

    /// Writes a doorbell as a driver does; whether the device has to be told by a message.
    fn write_doorbell(&self, qid: u16, completion: bool, old: u32, new: u32) -> bool {
        let offset = (usize::from(qid) * 2 + usize::from(completion)) * 4;
        if self.shadow {
            self.memory.memory().store_u32(SHADOW + offset, new).unwrap();
            fence(Ordering::SeqCst);
            let event_idx = self.memory.memory().load_u32(EVENT_IDX + offset).unwrap();
            if (new.wrapping_sub(event_idx).wrapping_sub(1) as u16) >= (new.wrapping_sub(old) as u16) {
                return false;
            }
        }
        self.page.store(register_index(qid, completion), new).unwrap();
        true
    }

    /// Rings the tail; whether it takes a message.
    pub fn ring(&self, sq: &mut Sq) -> bool {
        let old = std::mem::replace(&mut sq.rung, sq.tail);
        self.write_doorbell(sq.qid, false, old, sq.tail)
    }

    /// Uses an identifier again.
    pub fn next_cid_is(&mut self, cid: u16) {
        self.next_cid = cid - 1;
    }

    /// Writes any value to the tail's doorbell; whether it takes a message.
    pub fn scribble(&self, sq: &mut Sq, value: u32) -> bool {
        let old = std::mem::replace(&mut sq.rung, value);
        self.write_doorbell(sq.qid, false, old, value)
    }

    /// What the control thread writes when a queue is created.
    pub fn seed(&self, qid: u16, completion: bool) {
        let offset = (usize::from(qid) * 2 + usize::from(completion)) * 4;
        self.page.store(register_index(qid, completion), 0).unwrap();
        self.memory.memory().store_u32(SHADOW + offset, 0).unwrap();
        let event_idx = if completion { 0xffff } else { 0 };
        self.memory.memory().store_u32(EVENT_IDX + offset, event_idx).unwrap();
    }

    /// Empties the rings of a pair.
    pub fn wipe(&self, qid: u16) {
        self.memory.memory().fill(sq_offset(qid), 0x2_0000, 0).unwrap();
    }

    /// Rings the head; whether it takes a message.
    pub fn ring_cq(&self, cq: &mut Cq) -> bool {
        let old = std::mem::replace(&mut cq.rung, cq.head);
        self.write_doorbell(cq.qid, true, old, cq.head)
    }

    /// The next completion, if there is one. The head is not rung.
    pub fn next(&self, cq: &mut Cq) -> Option<Cqe> {
        let at = cq_offset(cq.qid) + cq.head as usize * CQE_SIZE;
        let cqe: Cqe = transmute!(self.memory.memory().read_cqe(at).unwrap());
        if cqe.phase() != cq.phase {
            return None;
        }
        cq.head += 1;
        if cq.head == cq.entries {
            (cq.head, cq.phase) = (0, !cq.phase);
        }
        Some(cqe)
    }

    /// How often the interrupt of a vector was sent since the last call.
    pub fn interrupts(&self, vector: u16) -> u64 {
        self.irqs[usize::from(vector)].drain().unwrap()
    }

    pub fn irq(&self, vector: u16) -> &EventFd {
        &self.irqs[usize::from(vector)]
    }

    pub fn event(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    pub fn fill(&self, offset: usize, len: usize, byte: u8) {
        self.memory.memory().fill(DATA + offset, len, byte).unwrap();
    }

    pub fn data(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.memory().read_bytes(DATA + offset, &mut bytes).unwrap();
        bytes
    }
}

/// A command on `blocks` blocks, with its data at an offset of [`DATA`].
pub fn rw(opcode: NvmOpcode, nsid: u32, slba: u64, blocks: u32, data: usize) -> Sqe {
    let mut sqe = Sqe::new(opcode, 0, nsid);
    sqe.set_slba(slba);
    sqe.cdw12 = blocks - 1;
    sqe.prp1 = BASE + (DATA + data) as u64;
    sqe.prp2 = sqe.prp1 + 4096;
    sqe
}

pub fn read(nsid: u32) -> Sqe {
    rw(NvmOpcode::Read, nsid, 0, 1, 0)
}

/// A guest with one worker and a queue pair 1.
pub struct Rig {
    pub guest: Guest,
    pub worker: LocalWorker,
    pub sq: Sq,
    pub cq: Cq,
}

impl Rig {
    pub fn new(backends: impl IntoIterator<Item = Arc<dyn Backend>>) -> Self {
        Self::with(subsystem(backends), 64, 64)
    }

    pub fn with(subsystem: Arc<Subsystem>, sq_entries: u32, cq_entries: u32) -> Self {
        let (guest, mut worker) = (Guest::new(subsystem), LocalWorker::new().unwrap());
        let (cq, add_cq) = guest.add_cq(1, cq_entries);
        let (sq, add_sq) = guest.add_sq(1, 1, sq_entries);
        for command in [guest.attach(false), add_cq, add_sq] {
            worker.send(command);
        }
        worker.turn();
        Self { guest, worker, sq, cq }
    }

    pub fn put(&mut self, sqe: Sqe) -> u16 {
        self.guest.put(&mut self.sq, sqe)
    }

    pub fn put_all(&mut self, commands: impl IntoIterator<Item = Sqe>) -> Vec<u16> {
        commands.into_iter().map(|sqe| self.put(sqe)).collect()
    }

    /// Rings and lets the worker work until it has nothing to do.
    pub fn run(&mut self) {
        self.guest.ring(&mut self.sq);
        self.settle();
    }

    pub fn settle(&mut self) {
        for _ in 0..1000 {
            if !self.worker.turn() {
                return;
            }
        }
        panic!("the worker finds no rest");
    }

    pub fn obey(&mut self, command: Command) {
        self.worker.send(command);
        self.settle();
    }

    pub fn next(&mut self) -> Option<Cqe> {
        self.guest.next(&mut self.cq)
    }

    /// All completions; the head is rung.
    pub fn completions(&mut self) -> Vec<Cqe> {
        let all = std::iter::from_fn(|| self.guest.next(&mut self.cq)).collect();
        self.guest.ring_cq(&mut self.cq);
        all
    }

    /// Puts one command, runs, and returns its completion.
    pub fn one(&mut self, sqe: Sqe) -> Cqe {
        let cid = self.put(sqe);
        self.run();
        let all = self.completions();
        assert_eq!(all.iter().map(|cqe| cqe.cid).collect::<Vec<_>>(), [cid]);
        all[0]
    }
}
