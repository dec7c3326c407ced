//! A worker's loop: mail, doorbells, completions, sleep.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nvmet_block::IoError;
use nvmet_dma::SegmentBuf;

use super::controllers::ControllerSlot;
use super::groups::Group;
use super::inflight::Inflight;
use super::mailbox::{Command, Shared, WaitMode};
use super::namespaces::NamespaceQueues;
use super::sleep::Sleeper;
use crate::error::TargetError;

/// How long a worker looks for more work before it sleeps.
const SPIN: Duration = Duration::from_micros(20);
/// The shortest and the longest nap while a client's mapped doorbells have to be polled.
const NAP: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(4));
/// Segments that one command may have: the limit of one vectored I/O system call.
const MAX_SEGMENTS: usize = 1024;
/// Bytes that one command may transfer; MDTS is checked before and is smaller.
const MAX_BYTES: usize = 64 << 20;

/// A worker thread's state. The other files of this module say what is done with it.
pub struct Worker {
    mailbox: Receiver<Command>,
    wait: WaitMode,
    pub(super) shared: Arc<Shared>,
    pub(super) sleeper: Sleeper,
    pub(super) controllers: Vec<Option<ControllerSlot>>,
    pub(super) groups: Vec<Option<Group>>,
    pub(super) inflight: Inflight,
    pub(super) namespaces: NamespaceQueues,
    pub(super) segments: SegmentBuf,
    /// Commands that wait for a backend or a lock, oldest first.
    pub(super) stalled: Vec<u32>,
    pub(super) retrying: Vec<u32>,
    /// A command has ended in this turn.
    pub(super) completed: bool,
    done: Vec<(u64, Result<(), IoError>)>,
}

impl Worker {
    pub fn new(mailbox: Receiver<Command>, shared: Arc<Shared>, wait: WaitMode) -> Result<Self, TargetError> {
        Ok(Self {
            mailbox,
            wait,
            sleeper: Sleeper::new(Arc::clone(&shared))?,
            shared,
            controllers: Vec::new(),
            groups: Vec::new(),
            inflight: Inflight::default(),
            namespaces: NamespaceQueues::default(),
            segments: SegmentBuf::new(MAX_SEGMENTS, MAX_BYTES),
            stalled: Vec::new(),
            retrying: Vec::new(),
            completed: false,
            done: Vec::new(),
        })
    }

    /// Runs until told to stop.
    pub fn run(&mut self) {
        let spin = match self.wait {
            WaitMode::Poll => Duration::MAX,
            WaitMode::Adaptive => SPIN,
            WaitMode::Event => Duration::ZERO,
        };
        let mut idle_since = None;
        let mut nap = NAP.0;
        while !self.shared.stop.load(Ordering::Acquire) {
            if self.turn() {
                idle_since = None;
                nap = NAP.0;
                continue;
            }
            let now = Instant::now();
            let attached = self.controllers.iter().any(Option::is_some);
            if attached && now - *idle_since.get_or_insert(now) < spin {
                std::hint::spin_loop();
                continue;
            }
            self.sleep(nap);
            nap = (nap * 2).min(NAP.1);
        }
    }

    /// One turn through everything; whether there was anything to do.
    pub(super) fn turn(&mut self) -> bool {
        let mut busy = self.read_mail();
        for at in 0..self.controllers.len() {
            busy |= self.refresh(at);
        }
        for at in 0..self.groups.len() {
            busy |= self.poll_group(at);
        }
        self.namespaces.kick();
        busy |= self.reap();
        self.retry_stalled();
        busy |= std::mem::take(&mut self.completed);
        if busy {
            self.finish_turn();
        }
        busy
    }

    fn read_mail(&mut self) -> bool {
        if !self.shared.mail.swap(false, Ordering::Acquire) {
            return false;
        }
        while let Ok(command) = self.mailbox.try_recv() {
            self.obey(command);
        }
        true
    }

    /// Brings a controller up to date with the guest's memory and the namespaces.
    fn refresh(&mut self, at: usize) -> bool {
        let Some(controller) = self.controllers[at].as_mut() else { return false };
        if controller.quiescing {
            controller.let_go_of_memory();
            return false;
        }
        controller.refresh_namespaces(&mut self.namespaces, &self.sleeper);
        let memory_changed = controller.refresh_memory();
        if memory_changed {
            let snapshot = controller.reader.snapshot();
            for group in self.groups.iter_mut().flatten().filter(|group| group.controller == at) {
                group.attach(snapshot);
            }
        }
        // A queue that is back in reach may have posted what it kept: that needs its interrupt.
        controller.poll_admin() || memory_changed
    }

    fn reap(&mut self) -> bool {
        let mut done = std::mem::take(&mut self.done);
        self.namespaces.reap(&mut done);
        let busy = !done.is_empty();
        for (tag, result) in done.drain(..) {
            self.operation_done(tag, result);
        }
        self.done = done;
        busy
    }

    /// Signals what was posted and adds the counters up: once a turn.
    fn finish_turn(&mut self) {
        for group in self.groups.iter_mut().flatten() {
            if let Some(vector) = group.cq.take_interrupt()
                && let Some(controller) = self.controllers[group.controller].as_mut()
            {
                controller.link.vectors.signal(vector);
                controller.batch.interrupts += 1;
            }
        }
        for controller in self.controllers.iter_mut().flatten() {
            controller.publish_batch();
        }
    }

    fn sleep(&mut self, nap: Duration) {
        let polled =
            self.controllers.iter().flatten().any(|controller| controller.polled && !controller.quiescing);
        let mut limit = polled.then_some(nap);
        for group in self.groups.iter().flatten() {
            if let Some(controller) = &self.controllers[group.controller] {
                group.arm(&controller.doorbells);
            }
        }
        if !self.stalled.is_empty() {
            // A lock that another worker holds gives no signal when it is free.
            limit = Some(NAP.0);
        }
        let Self { groups, controllers, shared, .. } = self;
        self.sleeper.sleep(limit, || {
            shared.mail.load(Ordering::Acquire)
                || shared.stop.load(Ordering::Acquire)
                || groups.iter().flatten().any(|group| {
                    controllers[group.controller]
                        .as_ref()
                        .is_some_and(|c| c.link.is_running() && group.has_work(&c.doorbells))
                })
        });
    }
}
