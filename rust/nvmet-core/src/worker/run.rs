//! A worker's loop: mail, doorbells, completions, sleep.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nvmet_block::IoError;
use nvmet_dma::SegmentBuf;
use nvmet_spec::command::Sqe;
use zerocopy::FromZeros;

use super::balance::{Board, Meter};
use super::batch::BATCH;
use super::controllers::ControllerSlot;
use super::groups::Group;
use super::inflight::Inflight;
use super::mailbox::{Address, Command, Shared, WaitMode};
use super::namespaces::NamespaceQueues;
use super::pace::{Pace, Rest};
use super::sleep::Sleeper;
use crate::error::TargetError;

/// The longest sleep while a command waits for something that gives no signal.
const STALL: Duration = Duration::from_micros(50);
/// Letters that are read in one turn: hosts can have them written as fast as they are read.
const MAIL_QUOTA: usize = 256;
/// Segments that one command may have: the limit of one vectored I/O system call.
const MAX_SEGMENTS: usize = 1024;
/// Bytes that one command may transfer; MDTS is checked before and is smaller.
const MAX_BYTES: usize = 64 << 20;

/// A worker thread's state. The other files of this module say what is done with it.
pub struct Worker {
    mailbox: Receiver<Command>,
    pub(super) pace: Pace,
    pub(super) meter: Meter,
    /// The loads of all workers and the index of this one, if there are others.
    pub(super) peers: Option<(Arc<Board>, usize)>,
    pub(super) shared: Arc<Shared>,
    /// Where answers to it are sent.
    pub(super) own: Address,
    pub(super) sleeper: Sleeper,
    pub(super) controllers: Vec<Option<ControllerSlot>>,
    /// Controllers that are quiescing.
    pub(super) quiescing: u32,
    /// Controllers whose doorbells have to be polled.
    pub(super) polled: u32,
    pub(super) groups: Vec<Option<Group>>,
    /// Groups that are polled every turn.
    pub(super) active: Vec<usize>,
    /// Groups that have posted in this turn.
    pub(super) posted: Vec<usize>,
    /// Groups whose interrupt is held back, and some that have none to hold any more.
    pub(super) held: Vec<usize>,
    /// Where times begin.
    pub(super) started: Instant,
    /// Where the round of polled groups and admin queues goes on.
    pub(super) round: usize,
    /// Something that cannot be heard has come: look for it now.
    pub(super) look_everywhere: bool,
    /// Groups that are to go to another worker.
    pub(super) leaving: u32,
    pub(super) turns: u64,
    /// Those with work.
    pub(super) busy_turns: u32,
    pub(super) was_busy: bool,
    pub(super) inflight: Inflight,
    pub(super) namespaces: NamespaceQueues,
    /// A backend's descriptor has ended the last sleep.
    roused: bool,
    pub(super) segments: SegmentBuf,
    /// Submission queue entries of a batch.
    pub(super) entries: Box<[Sqe; BATCH]>,
    /// Commands that wait for a backend or a lock, oldest first.
    pub(super) stalled: Vec<u32>,
    pub(super) retrying: Vec<u32>,
    /// A command has ended in this turn.
    pub(super) completed: bool,
    done: Vec<(u64, Result<(), IoError>)>,
}

impl Worker {
    pub fn new(
        mailbox: Receiver<Command>,
        own: Address,
        wait: WaitMode,
        peers: Option<(Arc<Board>, usize)>,
    ) -> Result<Self, TargetError> {
        Ok(Self {
            mailbox,
            pace: Pace::new(wait),
            meter: Meter::default(),
            peers,
            sleeper: Sleeper::new(Arc::clone(&own.shared))?,
            shared: Arc::clone(&own.shared),
            own,
            controllers: Vec::new(),
            quiescing: 0,
            polled: 0,
            groups: Vec::new(),
            active: Vec::new(),
            posted: Vec::new(),
            held: Vec::new(),
            started: Instant::now(),
            round: 0,
            look_everywhere: false,
            leaving: 0,
            turns: 0,
            busy_turns: 0,
            was_busy: false,
            inflight: Inflight::default(),
            namespaces: NamespaceQueues::default(),
            roused: false,
            segments: SegmentBuf::new(MAX_SEGMENTS, MAX_BYTES),
            entries: Box::new([(); BATCH].map(|()| Sqe::new_zeroed())),
            stalled: Vec::new(),
            retrying: Vec::new(),
            completed: false,
            done: Vec::new(),
        })
    }

    /// Runs until told to stop.
    pub fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            if self.turn() {
                self.pace.worked(Instant::now);
                self.balance();
                continue;
            }
            let attached = self.controllers.iter().any(Option::is_some);
            match self.pace.rest(attached, self.polled > 0, Instant::now) {
                // They may have no other CPU than this one.
                Rest::Spin if self.namespaces.want_cpu() => std::thread::yield_now(),
                Rest::Spin => std::hint::spin_loop(),
                Rest::Sleep => self.sleep(None),
                Rest::Nap(limit) => self.sleep(Some(limit)),
            }
        }
    }

    /// One turn through everything; whether there was anything to do.
    pub(super) fn turn(&mut self) -> bool {
        self.turns += 1;
        let mut busy = self.read_mail();
        if self.quiescing > 0 {
            self.controllers
                .iter_mut()
                .flatten()
                .filter(|slot| slot.quiescing)
                .for_each(ControllerSlot::let_go_of_memory);
            self.namespaces.forget_memory(false);
        }
        busy |= self.poll_active();
        if self.polled > 0 {
            busy |= self.poll_round(busy);
        }
        self.namespaces.kick();
        busy |= self.reap();
        self.retry_stalled();
        busy |= std::mem::take(&mut self.completed);
        if !self.held.is_empty() {
            self.ask_again();
        }
        if busy {
            self.finish_turn();
        }
        if self.leaving > 0 {
            busy |= self.let_groups_go();
        }
        self.was_busy = busy;
        busy
    }

    fn read_mail(&mut self) -> bool {
        // Loads are cheaper than swaps, and there is mail once in thousands of turns.
        if !self.shared.mail.load(Ordering::Relaxed) || !self.shared.mail.swap(false, Ordering::Acquire) {
            return false;
        }
        for _ in 0..MAIL_QUOTA {
            let Ok(command) = self.mailbox.try_recv() else { return true };
            self.obey(command);
        }
        // There may be more: in the next turn.
        self.shared.mail.store(true, Ordering::Relaxed);
        true
    }

    /// Brings a controller up to date with the guest's memory and the namespaces, once a turn. True if a queue of it is
    /// back in reach.
    pub(super) fn refresh(&mut self, at: usize) -> bool {
        let Some(controller) = self.controllers[at].as_mut() else { return false };
        if controller.quiescing || controller.fresh_in == self.turns {
            return false;
        }
        controller.fresh_in = self.turns;
        controller.refresh_namespaces(&mut self.namespaces, &self.sleeper);
        if !controller.refresh_memory() {
            return false;
        }
        self.namespaces.forget_memory(false);
        let snapshot = controller.reader.current();
        for (index, group) in self.groups.iter_mut().enumerate() {
            let Some(group) = group.as_mut().filter(|group| group.controller == at) else { continue };
            group.attach(snapshot);
            // A queue that is back in reach may have posted what it kept: that needs its interrupt.
            if group.cq.has_posted() && !std::mem::replace(&mut group.listed, true) {
                self.posted.push(index);
            }
        }
        true
    }

    fn reap(&mut self) -> bool {
        let mut done = std::mem::take(&mut self.done);
        self.namespaces.reap(&mut done);
        let busy = !done.is_empty();
        for (tag, result) in done.drain(..) {
            self.operation_done(tag, result);
        }
        self.done = done;
        // Only now: commands that are completed look their namespace up.
        self.namespaces.close_drained();
        busy
    }

    /// Called when a group's completion queue has got an entry.
    pub(super) fn has_posted(&mut self, at: usize) {
        let Some(group) = self.groups[at].as_mut() else { return };
        if !std::mem::replace(&mut group.listed, true) {
            self.posted.push(at);
        }
    }

    /// Signals what was posted and adds the counters up: once a turn.
    fn finish_turn(&mut self) {
        while let Some(at) = self.posted.pop() {
            self.settle(at);
            let Some(group) = self.groups[at].as_mut() else { continue };
            group.listed = false;
            // The host will go on soon, where it has not been polled.
            let (sleeper, owner) = (!group.active, group.controller);
            if let Some(controller) = self.controllers[owner].as_mut() {
                controller.publish_batch();
            }
            if sleeper {
                self.activate(at);
            }
        }
    }

    fn sleep(&mut self, limit: Option<Duration>) {
        if let Some(limit) = self.lie_down(limit) {
            self.roused = self.sleeper.wait(limit);
        }
        self.shared.handshake.wake_up();
    }

    /// Makes ready for a sleep: how long it may be at most, or None if there is something to do.
    pub(super) fn lie_down(&mut self, limit: Option<Duration>) -> Option<Option<Duration>> {
        let held = self.settle_for_sleep();
        if self.namespaces.prepare_sleep(std::mem::take(&mut self.roused)) {
            return None;
        }
        let mut limit = [limit, held].into_iter().flatten().min();
        self.arm_all();
        if !self.stalled.is_empty() {
            // A lock that another worker holds gives no signal when it is free.
            limit = Some(limit.map_or(STALL, |limit| limit.min(STALL)));
        }
        if let Some(other) = self.move_limit() {
            limit = Some(limit.map_or(other, |limit| limit.min(other)));
        }
        self.shared.handshake.announce_sleep();
        let news = self.shared.mail.load(Ordering::Acquire)
            || self.shared.stop.load(Ordering::Acquire)
            || self.any_has_work();
        if news {
            self.look_everywhere = self.polled > 0;
            return None;
        }
        self.deactivate_all();
        Some(limit)
    }
}
