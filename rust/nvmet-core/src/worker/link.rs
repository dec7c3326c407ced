//! What a controller and the workers that run its queues share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use nvmet_dma::{DmaHandle, DoorbellPage};
use nvmet_spec::status::Status;

use crate::irq::Vectors;
use crate::queue::InvalidDoorbell;
use crate::stats::Stats;
use crate::subsystem::Subsystem;

/// What a worker tells the control thread about a controller.
#[derive(Debug)]
pub enum Event {
    /// A submission queue is gone and none of its commands is in flight.
    SqRemoved {
        /// The queue.
        sqid: u16,
    },
    /// A completion queue is gone.
    CqRemoved {
        /// The queue.
        cqid: u16,
    },
    /// The shadow doorbells are in use; false if their memory cannot be reached.
    ShadowSet {
        /// Whether it worked.
        ok: bool,
    },
    /// The answer to [`Command::Abort`](super::Command::Abort).
    Aborted {
        /// The token of the request.
        token: u32,
        /// Whether the command was aborted.
        aborted: bool,
    },
    /// All namespaces were flushed, with the first error.
    Flushed {
        /// Success or the first error.
        status: Status,
    },
    /// The worker holds nothing of the controller any more.
    Quiesced,
    /// The host wrote a doorbell with a value that makes no sense.
    InvalidDoorbell(InvalidDoorbell),
    /// The admin doorbells in the mapped page changed.
    AdminDoorbell,
    /// Guest memory vanished under its mapping.
    MemoryLost,
}

/// A command that completed with an error, for the Error Information log (NVMe Base 2.0, 5.16.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandFailure {
    /// Submission queue identifier.
    pub sqid: u16,
    /// Command identifier.
    pub cid: u16,
    /// The status.
    pub status: Status,
    /// First logical block of the command, if it has any.
    pub lba: u64,
    /// Namespace identifier of the command.
    pub nsid: u32,
}

/// Failures that are kept until the control thread fetches them; the oldest make room.
const MAX_FAILURES: usize = 64;

#[derive(Debug, Default)]
struct Failures {
    recent: VecDeque<CommandFailure>,
    dropped: u64,
}

/// What a controller and its workers share.
pub struct Link {
    /// Names the controller in commands to workers; unique in the process.
    pub key: u64,
    /// The guest's memory.
    pub dma: DmaHandle,
    /// The doorbell registers.
    pub page: Arc<DoorbellPage>,
    /// Interrupt vectors.
    pub vectors: Arc<Vectors>,
    /// The namespaces.
    pub subsystem: Arc<Subsystem>,
    /// Counters.
    pub stats: Stats,
    running: AtomicBool,
    failures: Mutex<Failures>,
    events: Sender<Event>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Link {
    /// `events` reaches the control thread, which `wake` rouses.
    pub fn new(
        key: u64,
        dma: DmaHandle,
        page: Arc<DoorbellPage>,
        vectors: Arc<Vectors>,
        subsystem: Arc<Subsystem>,
        events: Sender<Event>,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let (stats, running, failures) = (Stats::default(), AtomicBool::new(false), Mutex::default());
        Self { key, dma, page, vectors, subsystem, stats, running, failures, events, wake }
    }

    /// A key that no other link of this process has.
    pub fn next_key() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether commands may be fetched: PCI Bus Master Enable, and no fatal status.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Lets workers fetch commands, or not.
    pub fn set_running(&self, running: bool) {
        self.running.store(running, Ordering::Release);
    }

    /// Tells the control thread. A controller that is gone hears nothing.
    pub fn tell(&self, event: Event) {
        if self.events.send(event).is_ok() {
            (self.wake)();
        }
    }

    /// Notes a command that failed. Off the fast path; bounded.
    pub fn note_failure(&self, failure: CommandFailure) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.recent.len() == MAX_FAILURES {
            failures.recent.pop_front();
            failures.dropped += 1;
        }
        failures.recent.push_back(failure);
    }

    /// Takes the failures noted since the last call, oldest first, and how many older ones were dropped.
    pub fn take_failures(&self) -> (VecDeque<CommandFailure>, u64) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let Failures { recent, dropped } = std::mem::take(&mut *failures);
        (recent, dropped)
    }
}
