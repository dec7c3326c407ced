//! What a controller and the workers that run its queues share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use nvmet_dma::{DmaHandle, DoorbellPage};
use nvmet_spec::status::Status;

use crate::irq::Vectors;
use crate::queue::{CompletionQueueState, InvalidDoorbell, SubmissionQueueState};
use crate::reservation::NoticeKind;
use crate::stats::Stats;
use crate::subsystem::{Subsystem, Who};

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
    /// The shadow doorbells are the truth from now on.
    ShadowSet,
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
    /// The worker has more to do than another one, which should have a completion queue.
    Overloaded {
        /// The queue.
        cqid: u16,
        /// Index of the other worker.
        to: usize,
    },
    /// The worker has let go of a completion queue and its submission queues; nothing of them is in flight.
    Released {
        /// The completion queue.
        cq: CompletionQueueState,
        /// Its submission queues.
        sqs: Vec<SubmissionQueueState>,
    },
    /// The worker keeps a completion queue that it was to release.
    Kept {
        /// The queue.
        cqid: u16,
    },
    /// The counters have what the worker had completed when it was asked.
    Counted,
    /// A reservation notification for the host (NVMe Base 2.0, 8.19.2).
    Notice {
        /// The namespace.
        nsid: u32,
        /// What happened.
        kind: NoticeKind,
    },
    /// What the subsystem was asked to do for an admin command is done, or not.
    Done {
        /// The token of the request.
        token: u32,
        /// Success or why not.
        status: Status,
    },
    /// NVM Subsystem Reset.
    SubsystemReset,
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

/// Completion queues that a controller may have, the admin queue's included.
const MAX_QUEUES: usize = 512;

/// Failures that are kept until the control thread fetches them; the oldest make room.
const MAX_FAILURES: usize = 64;

/// Invalid doorbells that wait for the control thread; about as many more if several workers tell at once.
const MAX_INVALID: u32 = 64;

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
    /// The doorbell registers of the client that is attached.
    pub page: ArcSwap<DoorbellPage>,
    /// Interrupt vectors.
    pub vectors: Arc<Vectors>,
    /// The namespaces.
    pub subsystem: Arc<Subsystem>,
    /// Who the controller is to its subsystem.
    pub who: Who,
    /// Counters.
    pub stats: Stats,
    running: AtomicBool,
    admin_seen: AtomicU32,
    admin_told: AtomicBool,
    failures: Mutex<Failures>,
    /// [`Event::InvalidDoorbell`]s that the control thread has not handled.
    invalid: AtomicU32,
    /// By completion queue: a worker was told that it was rung, and has not heard yet.
    rung: Box<[AtomicBool]>,
    events: Sender<Event>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Link {
    /// `events` reaches the control thread, which `wake` rouses.
    #[expect(clippy::too_many_arguments, reason = "all that two sides share, gathered in one place")]
    pub fn new(
        key: u64,
        dma: DmaHandle,
        page: Arc<DoorbellPage>,
        vectors: Arc<Vectors>,
        subsystem: Arc<Subsystem>,
        who: Who,
        events: Sender<Event>,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let (stats, running, failures) = (Stats::default(), AtomicBool::new(false), Mutex::default());
        let page = ArcSwap::new(page);
        let (admin_seen, admin_told) = (AtomicU32::new(0), AtomicBool::new(false));
        Self {
            key,
            dma,
            page,
            vectors,
            subsystem,
            who,
            stats,
            running,
            admin_seen,
            admin_told,
            failures,
            invalid: AtomicU32::new(0),
            rung: std::iter::repeat_with(AtomicBool::default).take(MAX_QUEUES).collect(),
            events,
            wake,
        }
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

    /// Called by the control thread with each value of the admin doorbells that it acts on.
    pub fn saw_admin_doorbells(&self, tail: u32, head: u32) {
        self.admin_seen.store(tail & 0xffff | head << 16, Ordering::Release);
    }

    /// Called by the control thread before it looks at the admin doorbells because of [`Event::AdminDoorbell`].
    ///
    /// Swaps, so that it sees at least the doorbells that the worker saw which set the mark.
    pub fn heard_of_admin_doorbells(&self) {
        self.admin_told.swap(false, Ordering::AcqRel);
    }

    /// Called by the worker that watches the mapped page: tells the control thread once if the doorbells are not what
    /// it acted on last. What the worker saw before does not matter: a head may have come round to the same value.
    pub fn tell_of_admin_doorbells(&self, tail: u32, head: u32) -> bool {
        let news = self.admin_seen.load(Ordering::Acquire) != (tail & 0xffff | head << 16)
            && !self.admin_told.swap(true, Ordering::AcqRel);
        if news {
            self.tell(Event::AdminDoorbell);
        }
        news
    }

    /// Called by the control thread after it stored a doorbell of completion queue `cqid`, or of a submission queue that
    /// posts to it: whether the worker has to be told. Not while it has not heard of an earlier one: then it will see
    /// this one, too.
    pub fn ring(&self, cqid: u16) -> bool {
        self.rung.get(usize::from(cqid)).is_some_and(|rung| !rung.swap(true, Ordering::AcqRel))
    }

    /// Called by the worker before it reads the doorbells that it was told of, and by the control thread before another
    /// worker gets the queue. Swaps, so that it sees at least those of whoever found the mark set.
    pub fn heard_ring(&self, cqid: u16) {
        if let Some(rung) = self.rung.get(usize::from(cqid)) {
            rung.swap(false, Ordering::AcqRel);
        }
    }

    /// Has the control thread look what is new.
    pub fn rouse(&self) {
        (self.wake)();
    }

    /// Tells the control thread. A controller that is gone hears nothing.
    pub fn tell(&self, event: Event) {
        if self.events.send(event).is_ok() {
            (self.wake)();
        }
    }

    /// Tells the control thread of an invalid doorbell, unless it has enough of them to do: a guest can write them faster
    /// than anybody reads logs.
    pub fn tell_of_invalid_doorbell(&self, invalid: InvalidDoorbell) {
        if self.invalid.load(Ordering::Relaxed) < MAX_INVALID {
            self.invalid.fetch_add(1, Ordering::Relaxed);
            self.tell(Event::InvalidDoorbell(invalid));
        }
    }

    /// Called by the control thread with each [`Event::InvalidDoorbell`].
    pub fn heard_of_invalid_doorbell(&self) {
        self.invalid.fetch_sub(1, Ordering::Relaxed);
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
