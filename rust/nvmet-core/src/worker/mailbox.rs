//! How the control thread talks to workers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nvmet_dma::EventFd;
use nvmet_spec::status::Status;

use super::balance::Board;
use super::handshake::Handshake;
use super::link::Link;
use super::run::Worker;
use super::tuning::Tuning;
use crate::error::TargetError;
use crate::queue::{CompletionQueueState, SubmissionQueueState};
use crate::subsystem::Hold;

/// What a worker is asked to do. `key` is [`Link::key`].
pub enum Command {
    /// Get ready for a controller that was enabled.
    Attach {
        /// The controller.
        link: Arc<Link>,
        /// CC.MPS in bytes.
        page_size: u64,
        /// MDTS in bytes.
        max_transfer: u64,
        /// The doorbell page is mapped by the client: nothing will wake the worker.
        polled: bool,
        /// Watch the admin doorbells too.
        admin: bool,
    },
    /// Take over a completion queue.
    AddCq {
        /// The controller.
        key: u64,
        /// The queue.
        state: CompletionQueueState,
    },
    /// Take over a submission queue, whose completion queue the worker has.
    AddSq {
        /// The controller.
        key: u64,
        /// The queue.
        state: SubmissionQueueState,
    },
    /// Stop a submission queue; answered by [`Event::SqRemoved`](super::Event::SqRemoved) when its commands are over.
    RemoveSq {
        /// The controller.
        key: u64,
        /// The queue.
        sqid: u16,
    },
    /// Drop a completion queue without submission queues; answered by [`Event::CqRemoved`](super::Event::CqRemoved).
    RemoveCq {
        /// The controller.
        key: u64,
        /// The queue.
        cqid: u16,
    },
    /// Let go of a completion queue and its submission queues; answered by [`Event::Released`](super::Event::Released), or
    /// by [`Event::Kept`](super::Event::Kept) if that takes long.
    Release {
        /// The controller.
        key: u64,
        /// The queue.
        cqid: u16,
    },
    /// Keep it after all; answered by [`Event::Kept`](super::Event::Kept), unless it has gone or was kept already.
    Keep {
        /// The controller.
        key: u64,
        /// The queue.
        cqid: u16,
    },
    /// Use shadow doorbells; answered by [`Event::ShadowSet`](super::Event::ShadowSet).
    SetShadow {
        /// The controller.
        key: u64,
        /// Address of the shadow doorbell buffer.
        doorbells: u64,
        /// Address of the EventIdx buffer.
        event_idx: u64,
    },
    /// Treat the queues of a controller so from now on.
    Tune {
        /// The controller.
        key: u64,
        /// How.
        tuning: Tuning,
    },
    /// Abort a command; answered by [`Event::Aborted`](super::Event::Aborted).
    Abort {
        /// The controller.
        key: u64,
        /// Its submission queue.
        sqid: u16,
        /// Its identifier.
        cid: u16,
        /// Returned with the answer.
        token: u32,
    },
    /// Flush every namespace; answered by [`Event::Flushed`](super::Event::Flushed).
    Flush {
        /// The controller.
        key: u64,
    },
    /// Drop all queues of a controller; answered by [`Event::Quiesced`](super::Event::Quiesced) when nothing is in flight.
    Quiesce {
        /// The controller.
        key: u64,
    },
    /// Hold `over` for as long as anything of a controller is there that is being quiesced.
    Outlast {
        /// The controller.
        key: u64,
        /// Let go when it has ended.
        over: Arc<Hold>,
    },
    /// A doorbell of a completion queue, or of a submission queue that posts to it, was written by message.
    Rung {
        /// The controller.
        key: u64,
        /// The completion queue.
        cqid: u16,
    },
    /// Take the latest map of namespaces over, and hold `hold` for each of the controller's I/O commands that are on their
    /// way on a namespace, and with `end` abort them. A controller that is being quiesced counts, too.
    Fence {
        /// The controller.
        key: u64,
        /// [Id](crate::namespace::Namespace::id) of the namespace.
        namespace: u64,
        /// Abort them, with this status.
        end: Option<Status>,
        /// Let go when they have ended.
        hold: Arc<Hold>,
    },
    /// Answered by [`Event::Counted`](super::Event::Counted) when the counters have what was completed before.
    Count {
        /// The controller.
        key: u64,
    },
    /// The subsystem's answer to a reservation command.
    Reserved {
        /// Tag of the command.
        tag: u64,
        /// Data for the host, or why not.
        result: Result<Vec<u8>, Status>,
    },
    /// Look at everything anew: the guest's memory changed (let go of the old map), or the controller runs again.
    Refresh {
        /// The controller.
        key: u64,
    },
}

/// How a worker waits for work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitMode {
    /// It never sleeps while a client is attached: the shortest latency, and all of a CPU.
    Poll,
    /// It looks again for as long as the gaps seen so far make that worth while, then sleeps.
    #[default]
    Adaptive,
    /// It sleeps as soon as there is nothing to do: the least CPU time, and a wake-up for every batch.
    Event,
}

/// What a worker thread is.
#[derive(Clone, Debug, Default)]
pub struct WorkerConfig {
    /// The CPU it is pinned to, if any.
    pub cpu: Option<usize>,
    /// How it waits.
    pub wait: WaitMode,
}

/// The part of a worker that other threads touch.
pub(super) struct Shared {
    pub(super) wake: EventFd,
    pub(super) handshake: Handshake,
    pub(super) stop: AtomicBool,
    pub(super) mail: AtomicBool,
}

impl Shared {
    pub(super) fn new() -> Result<Self, TargetError> {
        Ok(Self {
            wake: EventFd::new().map_err(|e| TargetError::system("make an eventfd", e))?,
            handshake: Handshake::new(),
            stop: AtomicBool::new(false),
            mail: AtomicBool::new(false),
        })
    }
}

/// Where a worker takes commands.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) commands: Sender<Command>,
    pub(super) shared: Arc<Shared>,
}

impl Address {
    /// Hands over a command. A worker that has stopped takes none.
    pub(super) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.shared.mail.store(true, Ordering::Release);
            self.notify();
        }
    }

    /// Wakes the worker if it sleeps.
    fn notify(&self) {
        if self.shared.handshake.must_wake() {
            self.rouse();
        }
    }

    fn rouse(&self) {
        if let Err(error) = self.shared.wake.signal() {
            tracing::error!("a worker cannot be woken: {error}");
        }
    }
}

/// A running worker.
pub struct WorkerHandle {
    address: Address,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl WorkerHandle {
    fn spawn(index: usize, config: WorkerConfig, board: Option<Arc<Board>>) -> Result<Self, TargetError> {
        let (commands, mailbox) = mpsc::channel();
        let address = Address { commands, shared: Arc::new(Shared::new()?) };
        let (ready, started) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("nvmet-w{index}"))
            .spawn({
                let own = address.clone();
                move || start(&config, mailbox, own, board.map(|board| (board, index)), &ready)
            })
            .map_err(|e| TargetError::system("start a worker thread", e))?;
        started.recv().unwrap_or_else(|_| {
            Err(TargetError::system("start a worker thread", std::io::Error::other("it ended at once")))
        })?;
        Ok(Self { address, thread: Mutex::new(Some(thread)) })
    }

    /// Hands over a command. A worker that has stopped takes none.
    pub fn send(&self, command: Command) {
        self.address.send(command);
    }

    /// Tells the worker, after a doorbell in the page was written, that completion queue `cqid` of a controller or one
    /// of its submission queues may have work.
    pub fn ring(&self, link: &Link, cqid: u16) {
        if link.ring(cqid) {
            self.send(Command::Rung { key: link.key, cqid });
        }
    }

    fn stop(&self) {
        self.address.shared.stop.store(true, Ordering::Release);
        self.address.rouse();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("a worker thread panicked");
        }
    }
}

fn start(
    config: &WorkerConfig,
    mailbox: Receiver<Command>,
    own: Address,
    peers: Option<(Arc<Board>, usize)>,
    ready: &Sender<Result<(), TargetError>>,
) {
    match crate::thread::prepare(config.cpu).and_then(|()| Worker::new(mailbox, own, config.wait, peers)) {
        Ok(mut worker) => {
            // The receiver waits for exactly this message.
            let _ = ready.send(Ok(()));
            worker.run();
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
}

/// The workers of a target.
pub struct WorkerPool {
    workers: Vec<WorkerHandle>,
}

impl WorkerPool {
    /// Starts one thread for each configuration.
    ///
    /// # Errors
    ///
    /// [`TargetError::System`] if a thread cannot be started or pinned.
    pub fn start(configs: Vec<WorkerConfig>) -> Result<Self, TargetError> {
        // One worker alone has nobody to compare with.
        let board = (configs.len() > 1).then(|| Arc::new(Board::new(configs.len())));
        let workers = configs
            .into_iter()
            .enumerate()
            .map(|(index, config)| WorkerHandle::spawn(index, config, board.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Self { workers })
    }

    /// A worker by its index.
    pub fn get(&self, index: usize) -> Option<&WorkerHandle> {
        self.workers.get(index)
    }

    /// The worker that completion queue `cqid` of controller `key` begins with. Neighbouring queues go to different ones.
    pub fn for_queue(&self, key: u64, cqid: u16) -> &WorkerHandle {
        &self.workers[self.place(key, cqid)]
    }

    /// The index of [`for_queue`](Self::for_queue).
    pub fn place(&self, key: u64, cqid: u16) -> usize {
        ((key + u64::from(cqid)) % self.workers.len() as u64) as usize
    }

    /// All workers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &WorkerHandle> {
        self.workers.iter()
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.workers.iter().for_each(WorkerHandle::stop);
    }
}
