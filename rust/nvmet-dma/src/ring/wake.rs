//! How a thread that sleeps in `epoll` learns of a completion.
//!
//! With `DEFER_TASKRUN` a completion is work that the kernel puts on a list, and runs when the ring's thread enters the
//! kernel. Putting it there makes the ring's descriptor readable, but wakes nobody who already sleeps on it (seen on
//! Linux 6.18). It does signal a registered eventfd, unless `IORING_CQ_EVENTFD_DISABLED` is set in the completion
//! queue. So that is what sleepers wait for; and since the flag is set while the thread is awake, completions cost
//! no signal then.
//!
//! **No wake-up is lost**, whenever the completion comes:
//!
//! * the kernel puts the work on its list (a full barrier), *then* reads the flag, and signals if it is clear;
//! * we clear the flag, a full fence, *then* enter the kernel, which runs what is on the list; and look for entries.
//!
//! Whichever is first in the order of the two barriers: either the kernel sees the flag clear and signals, or we see the
//! work. The flag `IORING_SQ_TASKRUN` alone would not do for the look: the kernel sets it after the barrier, so it
//! may become visible after the kernel has read our flag.
//!
//! **No sleep is cut short for ever**: the counter is emptied before the flag is cleared, and when a sleep is prepared
//! with nothing in flight. A signal that the kernel had decided on before we set the flag, and that comes after the
//! counter was emptied, ends one sleep for nothing; before the next one the counter is emptied again.
//!
//! May know: the eventfd, the flag. Must not know: operations.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{Ordering, fence};

use io_uring::{CompletionQueue, IoUring};

use crate::eventfd::EventFd;

/// The eventfd of a ring that defers its work.
#[derive(Debug)]
pub(super) struct Wake {
    event: EventFd,
    /// The flag is clear: completions signal.
    armed: bool,
    /// It was clear at some time, so the counter may be above zero.
    used: bool,
}

impl Wake {
    /// Registers an eventfd, and disables it.
    pub(super) fn new(ring: &mut IoUring) -> io::Result<Self> {
        let event = EventFd::new()?;
        ring.submitter().register_eventfd(event.as_fd().as_raw_fd())?;
        ring.completion().disable_eventfd();
        Ok(Self { event, armed: false, used: false })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// From here on completions signal: the caller enters the kernel, and looks, before it sleeps.
    pub(super) fn arm(&mut self, cq: &CompletionQueue<'_>) {
        self.empty();
        self.armed = true;
        self.used = true;
        cq.enable_eventfd();
        fence(Ordering::SeqCst);
    }

    /// Nobody sleeps: completions need not signal.
    #[inline]
    pub(super) fn disarm(&mut self, cq: &CompletionQueue<'_>) {
        if self.armed {
            self.armed = false;
            cq.disable_eventfd();
        }
    }

    /// Makes the descriptor not readable.
    pub(super) fn empty(&mut self) {
        if self.used {
            // Nothing to read is as good as read.
            let _ = self.event.drain();
        }
    }
}
