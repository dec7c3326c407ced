//! A guest in loopback memory: rings, doorbells and data as its driver has them.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{self, Receiver};

use nvmet_block::Backend;
use nvmet_core::irq::Vectors;
use nvmet_core::namespace::NamespaceConfig;
use nvmet_core::queue::{
    CQE_SIZE, CompletionQueueState, DOORBELL_PAGE_SIZE, SQE_SIZE, SubmissionQueueState, register_index,
};
use nvmet_core::subsystem::{HostIdentity, Subsystem, SubsystemConfig, Who};
use nvmet_core::worker::{Command, Event, Link};
use nvmet_dma::{DoorbellPage, LoopbackMemory};
use nvmet_host::bench::Rng;
use nvmet_spec::command::{NvmOpcode, Sqe};
use zerocopy::IntoBytes;

/// Entries of the submission and of the completion queue that is used.
pub const ENTRIES: u32 = 256;
/// Bytes of a transfer.
pub const TRANSFER: usize = 4096;
/// Commands in flight at a time.
pub const DEPTHS: [u32; 3] = [1, 32, 128];

/// Entries of a queue that exists and is not used.
const IDLE_ENTRIES: u32 = 16;
const PAGE: usize = 4096;
const SHADOW: usize = 0;
const EVENT_IDX: usize = PAGE;
const SQ: usize = 2 * PAGE;
const CQ: usize = SQ + ENTRIES as usize * SQE_SIZE;
const DATA: usize = CQ + ENTRIES as usize * CQE_SIZE;
const IDLE: usize = DATA + ENTRIES as usize * TRANSFER;
/// Bytes of an idle queue pair's rings, one after the other.
const IDLE_PAIR: usize = IDLE_ENTRIES as usize * (SQE_SIZE + CQE_SIZE);

/// What a guest's driver has set up.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Queue pairs, at least 1: the first is used, the others are idle.
    pub queues: u16,
    /// Doorbells are shadowed (Doorbell Buffer Config, NVMe Base 2.0, 5.8), else in a mapped page.
    pub shadow: bool,
    /// Offsets are random, else sequential.
    pub random: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self { queues: 1, shadow: false, random: false }
    }
}

/// One controller and its guest.
pub struct Guest {
    memory: LoopbackMemory,
    page: Arc<DoorbellPage>,
    link: Arc<Link>,
    _events: Receiver<Event>,
    layout: Layout,
    transfers: u64,
    rng: Rng,
    next: u64,
    tail: u32,
    rung: u32,
    head: u32,
    phase: bool,
}

impl Guest {
    /// A guest with one queue pair, whose namespace 1 is `backend`.
    ///
    /// # Panics
    ///
    /// When the system gives no memory.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self::with(backend, Layout::default())
    }

    /// A guest with `layout`.
    ///
    /// # Panics
    ///
    /// When the system gives no memory.
    pub fn with(backend: Arc<dyn Backend>, layout: Layout) -> Self {
        let transfers = backend.geometry().size / TRANSFER as u64;
        let subsystem = Arc::new(Subsystem::new(SubsystemConfig::new("1")).expect("the names are good"));
        subsystem.add_namespace(NamespaceConfig::new(backend)).expect("the namespace is good");
        let len = IDLE + usize::from(layout.queues) * IDLE_PAIR;
        let memory = LoopbackMemory::new(len).expect("there is memory");
        let page = Arc::new(DoorbellPage::new(DOORBELL_PAGE_SIZE).expect("there is memory"));
        let vectors = Arc::new(Vectors::new(1));
        let (sender, events) = mpsc::channel();
        let (key, dma) = (Link::next_key(), memory.handle());
        let who = Who { cntlid: 1, host: HostIdentity { nqn: "nqn.bench".into(), id: [1; 16] } };
        let link = Link::new(key, dma, page.clone(), vectors, subsystem, who, sender, Box::new(|| {}));
        link.set_running(true);
        Self {
            memory,
            page,
            link: Arc::new(link),
            _events: events,
            layout,
            transfers,
            rng: Rng::new(1),
            next: 0,
            tail: 0,
            rung: 0,
            head: 0,
            phase: true,
        }
    }

    /// What a worker has to be told to serve the queues. With `polled` it never sleeps for long by itself.
    pub fn commands(&self, polled: bool) -> Vec<Command> {
        let key = self.link.key;
        let link = self.link.clone();
        let mut commands = vec![Command::Attach {
            link,
            page_size: PAGE as u64,
            max_transfer: 1 << 20,
            polled,
            admin: false,
        }];
        if self.layout.shadow {
            commands.push(Command::SetShadow { key, doorbells: at(SHADOW), event_idx: at(EVENT_IDX) });
        }
        for qid in 1..=self.layout.queues {
            let idle = IDLE + usize::from(qid - 1) * IDLE_PAIR;
            let (entries, sq, cq) = match qid {
                1 => (ENTRIES, SQ, CQ),
                _ => (IDLE_ENTRIES, idle, idle + IDLE_ENTRIES as usize * SQE_SIZE),
            };
            let state = CompletionQueueState {
                cqid: qid,
                entries,
                base: at(cq),
                tail: 0,
                head: 0,
                phase: true,
                vector: None,
            };
            commands.push(Command::AddCq { key, state });
            let state =
                SubmissionQueueState { sqid: qid, cqid: qid, entries, base: at(sq), head: 0, tail: 0 };
            commands.push(Command::AddSq { key, state });
        }
        commands
    }

    /// Names the controller to a worker.
    pub fn key(&self) -> u64 {
        self.link.key
    }

    /// Writes a Read of 4 KiB into the next entry, without ringing.
    ///
    /// # Panics
    ///
    /// Never: the queue lies in memory.
    pub fn put(&mut self) {
        let data = at(DATA + self.tail as usize * TRANSFER);
        let number = if self.layout.random { self.rng.below(self.transfers) } else { self.next };
        self.next = (self.next + 1) % self.transfers;
        let mut sqe = Sqe::new(NvmOpcode::Read, self.tail as u16, 1);
        sqe.set_slba(number * (TRANSFER as u64 / 512));
        (sqe.cdw12, sqe.prp1) = (TRANSFER as u32 / 512 - 1, data);
        let slot = SQ + self.tail as usize * SQE_SIZE;
        self.memory.memory().write_bytes(slot, sqe.as_bytes()).expect("it is inside");
        self.tail = (self.tail + 1) % ENTRIES;
    }

    /// Moves the tail doorbell. What the worker has to be told because the doorbell's register was written: nothing
    /// where it polls the page.
    pub fn ring(&mut self) -> Option<Command> {
        let before = std::mem::replace(&mut self.rung, self.tail);
        let written = self.move_doorbell(false, before, self.tail);
        (written && self.layout.shadow && self.link.ring(1))
            .then(|| Command::Rung { key: self.link.key, cqid: 1 })
    }

    /// Takes the completions that are there, moves the head doorbell, and returns how many there were.
    ///
    /// # Panics
    ///
    /// If a command failed.
    pub fn reap(&mut self) -> u32 {
        let mut count = 0;
        let before = self.head;
        while let Ok(cqe) = self.memory.memory().read_cqe(CQ + self.head as usize * CQE_SIZE)
            && (cqe[3] >> 16 & 1 == 1) == self.phase
        {
            assert_eq!(cqe[3] >> 17, 0, "a command failed");
            self.head += 1;
            if self.head == ENTRIES {
                (self.head, self.phase) = (0, !self.phase);
            }
            count += 1;
        }
        if count > 0 {
            self.move_doorbell(true, before, self.head);
        }
        count
    }

    /// As a driver does it: the register only where the controller asked for it. For a head it never does: there are
    /// fewer commands in flight than completion queue entries.
    fn move_doorbell(&self, completion: bool, before: u32, now: u32) -> bool {
        let register = register_index(1, completion);
        if self.layout.shadow {
            let slot = (2 + usize::from(completion)) * 4;
            let memory = self.memory.memory();
            let _ = memory.store_u32(SHADOW + slot, now);
            // The shadow has to be seen before EventIdx is read, as the controller arms and then looks again.
            fence(Ordering::SeqCst);
            let event_idx = memory.load_u32(EVENT_IDX + slot).unwrap_or(before) as u16;
            let (before, now) = (before as u16, now as u16);
            if now.wrapping_sub(event_idx).wrapping_sub(1) >= now.wrapping_sub(before) {
                return false;
            }
        }
        let _ = self.page.store(register, now);
        true
    }
}

fn at(offset: usize) -> u64 {
    LoopbackMemory::IOVA + offset as u64
}
