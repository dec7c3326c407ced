//! One operation on its way to a consumer and back.
//!
//! It ends exactly once: whoever first moves it to `ENDED` (the consumer with a result, the queue that cancels, the
//! watchdog) reports it; everybody else is too late and finds out.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nvmet_dma::EventFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::slab::Frames;
use crate::error::IoError;

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const ENDED: u8 = 2;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Fill the frames.
    Read = 0,
    /// Write what is in the frames.
    Write = 1,
    /// Put what was completed on the medium.
    Flush = 2,
    /// The range is no longer needed.
    Deallocate = 3,
    /// Make the range read as zeroes.
    WriteZeroes = 4,
    /// [`IoError::CompareFailed`] unless what is stored equals the frames.
    Compare = 5,
}

/// An operation.
#[derive(Debug)]
pub struct Request {
    /// What is to be done.
    pub kind: Kind,
    /// First byte of the backend.
    pub offset: u64,
    /// Bytes; 0 for a flush.
    pub len: u64,
    /// Force unit access: on the medium when it is completed.
    pub fua: bool,
    /// Of zeroing: the range may lose its storage.
    pub may_discard: bool,
    /// The data of a read, write or compare.
    pub frames: Option<Arc<Frames>>,
    pub(super) slot: u32,
    pub(super) home: Arc<Home>,
    state: AtomicU8,
}

impl Request {
    pub(super) fn new(kind: Kind, offset: u64, len: u64, slot: u32, home: &Arc<Home>) -> Self {
        Self {
            kind,
            offset,
            len,
            fua: false,
            may_discard: false,
            frames: None,
            slot,
            home: Arc::clone(home),
            state: AtomicU8::new(WAITING),
        }
    }

    /// Whether it was given up meanwhile: nobody waits for it any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) == ENDED
    }

    /// For a consumer: false if it was given up before.
    pub(super) fn take(&self) -> bool {
        self.state.compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Ends it without a report, and says whether a consumer had it; None if it has ended before.
    pub(super) fn end(&self) -> Option<bool> {
        match self.state.swap(ENDED, Ordering::AcqRel) {
            ENDED => None,
            state => Some(state == TAKEN),
        }
    }

    /// Ends it and reports `result` to its queue, unless it has ended before: false then.
    pub fn complete(&self, result: Result<(), IoError>) -> bool {
        if self.end().is_none() {
            return false;
        }
        self.home.report(self.slot, result);
        true
    }
}

/// Where a queue's completions come in.
#[derive(Debug)]
pub struct Home {
    state: Mutex<Arrivals>,
    ready: EventFd,
}

#[derive(Debug, Default)]
struct Arrivals {
    done: Vec<(u32, Result<(), IoError>)>,
    /// The owner sleeps, or is about to.
    armed: bool,
}

impl Home {
    pub(super) fn new() -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self { state: Mutex::default(), ready: EventFd::new()? }))
    }

    fn lock(&self) -> MutexGuard<'_, Arrivals> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ready(&self) -> &EventFd {
        &self.ready
    }

    pub(super) fn report(&self, slot: u32, result: Result<(), IoError>) {
        let mut arrivals = self.lock();
        arrivals.done.push((slot, result));
        let wake = std::mem::take(&mut arrivals.armed);
        drop(arrivals);
        if wake {
            // An eventfd that is ours refuses nothing.
            let _ = self.ready.signal();
        }
    }

    /// Moves what has come into `into`, which is empty.
    pub(super) fn collect(&self, into: &mut Vec<(u32, Result<(), IoError>)>) {
        let mut arrivals = self.lock();
        arrivals.armed = false;
        std::mem::swap(&mut arrivals.done, into);
    }

    /// Sleeps until [`ready`](Self::ready) is readable; false after `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        let mut fds = [PollFd::new(&self.ready, PollFlags::IN)];
        // Interrupted is like woken: the caller looks again.
        poll(&mut fds, left.as_ref()) != Ok(0)
    }

    /// Has the next completion make [`ready`](Self::ready) readable. True if there are some already.
    pub(super) fn arm(&self) -> bool {
        let mut arrivals = self.lock();
        let _ = self.ready.drain();
        arrivals.armed = arrivals.done.is_empty();
        !arrivals.armed
    }
}
