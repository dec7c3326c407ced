//! Shared set-up of the benchmarks: a guest in loopback memory, and a worker to drive.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use nvmet_block::Backend;
use nvmet_core::irq::Vectors;
use nvmet_core::namespace::{NamespaceConfig, NamespaceIds};
use nvmet_core::queue::{
    CQE_SIZE, CompletionQueueState, DOORBELL_PAGE_SIZE, SQE_SIZE, SubmissionQueueState, register_index,
};
use nvmet_core::subsystem::{Subsystem, SubsystemConfig};
use nvmet_core::worker::{Command, Event, Link};
use nvmet_dma::{DoorbellPage, LoopbackMemory};
use nvmet_spec::command::{NvmOpcode, Sqe};
use zerocopy::IntoBytes;

/// Entries of the submission and of the completion queue.
pub const ENTRIES: u32 = 256;
/// Bytes of a transfer.
pub const TRANSFER: usize = 4096;
/// Size of the namespace in bytes.
pub const NAMESPACE: u64 = 64 << 20;

const SQ: usize = 0;
const CQ: usize = 0x1_0000;
const DATA: usize = 0x2_0000;
const LEN: usize = DATA + ENTRIES as usize * TRANSFER;

/// One controller with one queue pair, as its guest sees it.
pub struct Guest {
    memory: LoopbackMemory,
    page: Arc<DoorbellPage>,
    link: Arc<Link>,
    _events: Receiver<Event>,
    tail: u32,
    head: u32,
    phase: bool,
}

impl Guest {
    /// A guest whose namespace 1 is `backend`.
    ///
    /// # Panics
    ///
    /// When the system gives no memory.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        let config =
            SubsystemConfig { nqn: None, serial: "1".into(), model: "bench".into(), firmware: "1".into() };
        let subsystem = Arc::new(Subsystem::new(config).expect("the names are good"));
        let ids = NamespaceIds::default();
        let config = NamespaceConfig { nsid: Some(1), block_size: 512, read_only: false, backend, ids };
        subsystem.add_namespace(config).expect("the namespace is good");
        let memory = LoopbackMemory::new(LEN).expect("there is memory");
        let page = Arc::new(DoorbellPage::new(DOORBELL_PAGE_SIZE).expect("there is memory"));
        let vectors = Arc::new(Vectors::new(1));
        let (sender, events) = mpsc::channel();
        let (key, dma) = (Link::next_key(), memory.handle());
        let link = Link::new(key, dma, page.clone(), vectors, subsystem, sender, Box::new(|| {}));
        link.set_running(true);
        Self { memory, page, link: Arc::new(link), _events: events, tail: 0, head: 0, phase: true }
    }

    /// What a worker has to be told to serve the queue pair. With `polled` it never sleeps for long by itself.
    pub fn commands(&self, polled: bool) -> [Command; 3] {
        let key = self.link.key;
        let at = |offset| LoopbackMemory::IOVA + offset as u64;
        let cq = CompletionQueueState {
            cqid: 1,
            entries: ENTRIES,
            base: at(CQ),
            tail: 0,
            head: 0,
            phase: true,
            vector: None,
        };
        let sq = SubmissionQueueState { sqid: 1, cqid: 1, entries: ENTRIES, base: at(SQ), head: 0, tail: 0 };
        let link = self.link.clone();
        [
            Command::Attach { link, page_size: 4096, max_transfer: 1 << 20, polled, admin: false },
            Command::AddCq { key, state: cq },
            Command::AddSq { key, state: sq },
        ]
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
        let data = LoopbackMemory::IOVA + (DATA + self.tail as usize * TRANSFER) as u64;
        let mut sqe = Sqe::new(NvmOpcode::Read, self.tail as u16, 1);
        sqe.set_slba(u64::from(self.tail) * 8);
        (sqe.cdw12, sqe.prp1) = (7, data);
        let at = SQ + self.tail as usize * SQE_SIZE;
        self.memory.memory().write_bytes(at, sqe.as_bytes()).expect("it is inside");
        self.tail = (self.tail + 1) % ENTRIES;
    }

    /// Writes the tail doorbell.
    pub fn ring(&self) {
        let _ = self.page.store(register_index(1, false), self.tail);
    }

    /// Takes the completions that are there, writes the head doorbell, and returns how many there were.
    ///
    /// # Panics
    ///
    /// If a command failed.
    pub fn reap(&mut self) -> u32 {
        let mut count = 0;
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
            let _ = self.page.store(register_index(1, true), self.head);
        }
        count
    }
}
