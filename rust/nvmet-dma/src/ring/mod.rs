//! The `io_uring` ring of one worker and one file: operations own their buffers until the kernel is done with them.
//!
//! [`Ring`] carries guest memory ([`Segments`](crate::Segments)) with a pin on it, or a buffer of ours
//! ([`AlignedBuf`]) that it gives back. A transfer that the kernel cut short is continued here.
//! [`Held`] keeps guest memory for operations that take several steps.
//!
//! May know: files, offsets, buffers. Must not know: blocks, alignment rules, what an error means.

mod fixed;
mod held;
mod op;
mod setup;
mod slot;
#[cfg(test)]
mod tests;
mod wake;

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, SubmissionQueue, Submitter, opcode, squeue};

use fixed::Fixed;
pub use held::Held;
pub use op::{MAX_ENTRIES, MAX_SEGMENTS, MAX_TRANSFER, PushError, RingOp};
use setup::Completion;
pub use setup::RingError;
use slot::Slot;
use wake::Wake;

use crate::aligned::AlignedBuf;

/// How long dropping a ring waits for operations that cannot be cancelled.
const DROP_WAIT: Duration = Duration::from_secs(2);
/// The tag, in the kernel's words, of a cancellation: no slot has it.
const CANCEL: u64 = u64::MAX;
/// Attempts to submit while the kernel is short of memory, a millisecond apart.
const SUBMIT_ATTEMPTS: u32 = 50;

/// An `io_uring` for one file, used by one thread.
///
/// Its descriptor ([`AsFd`]) is for `poll` and `epoll` only: after [`Ring::prepare_sleep`], and until the next call of
/// another method, it is readable when [`Ring::reap`] would find something.
#[derive(Debug)]
pub struct Ring {
    inner: RingInner,
    file: Arc<OwnedFd>,
    /// Most operations in flight.
    entries: u32,
    /// The kernel asks the device only when it is entered.
    polled: bool,
    /// As many as were ever in flight together; they may move, what the kernel has a pointer to may not.
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// How sleepers learn of completions, if not by the ring's own descriptor.
    wake: Option<Wake>,
    /// Guest memory that is registered, if any is to be.
    fixed: Option<Fixed>,
    /// Cancellations whose own completion is still to come.
    cancels: u32,
    /// The kernel ties the ring to the thread that made it.
    _one_thread: PhantomData<*const ()>,
}

/// [`IoUring`] has no `Debug`.
struct RingInner(IoUring);

impl std::fmt::Debug for RingInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoUring").field("fd", &self.0.as_raw_fd()).finish()
    }
}

impl Ring {
    /// Whether a ring can be had at all: to be told before the first I/O rather than by it.
    ///
    /// # Errors
    ///
    /// Those of [`Ring::new`].
    pub fn check() -> Result<(), RingError> {
        setup::build(1, Completion::Interrupt).map(drop)
    }

    /// A ring for `entries` operations in flight (1 to [`MAX_ENTRIES`]) on `file`.
    ///
    /// # Errors
    ///
    /// [`RingError::Forbidden`] and [`RingError::TooOld`] where there is no usable `io_uring`; [`RingError::Io`].
    pub fn new(file: Arc<OwnedFd>, entries: u32) -> Result<Self, RingError> {
        Self::with(file, entries, Completion::Interrupt)
    }

    /// A ring for direct reads and writes on a device with poll queues, which [`Ring::reap`] asks for results: there is
    /// no interrupt, and nothing to sleep on. Whatever else it is asked for, or of another file, ends with EOPNOTSUPP or
    /// EINVAL.
    ///
    /// # Errors
    ///
    /// Those of [`Ring::new`].
    pub fn polled(file: Arc<OwnedFd>, entries: u32) -> Result<Self, RingError> {
        Self::with(file, entries, Completion::Poll)
    }

    fn with(file: Arc<OwnedFd>, entries: u32, completion: Completion) -> Result<Self, RingError> {
        let entries = entries.clamp(1, MAX_ENTRIES);
        let mut inner = setup::build(entries, completion)?;
        setup::register_file(&inner, file.as_fd())?;
        let polled = completion == Completion::Poll;
        let wake = if setup::defers(&inner) && !polled {
            Some(Wake::new(&mut inner).map_err(RingError::Io)?)
        } else {
            None
        };
        Ok(Self {
            inner: RingInner(inner),
            file,
            entries,
            polled,
            slots: Vec::new(),
            free: Vec::new(),
            wake,
            fixed: None,
            cancels: 0,
            _one_thread: PhantomData,
        })
    }

    /// Registers guest memory that is used often: transfers past the page cache cost less then. The kernel keeps
    /// registered memory until [`Ring::forget_memory`].
    pub fn register_memory(&mut self) {
        self.fixed.get_or_insert_with(Fixed::new);
    }

    /// Lets go of registered memory that was unmapped, or of `all` registered memory. To be called when memory was
    /// unmapped; operations in flight keep theirs until they end.
    pub fn forget_memory(&mut self, all: bool) {
        if let Some(fixed) = &mut self.fixed {
            fixed.forget(&self.inner.0.submitter(), all);
        }
    }

    /// Operations that were pushed and not reaped.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The file that the operations are for.
    #[must_use]
    pub fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    /// Takes an operation; [`Ring::submit`] starts it, and [`Ring::reap`] reports `tag`.
    ///
    /// # Errors
    ///
    /// [`PushError`]; nothing was taken then.
    #[inline]
    pub fn push(&mut self, op: RingOp<'_>, tag: u64) -> Result<(), PushError> {
        let index = match self.free.last() {
            Some(&index) => index,
            None => self.grow()?,
        };
        let slot = self.slots.get_mut(index as usize).ok_or(PushError::Full)?;
        let buffer = match (&mut self.fixed, &op) {
            (Some(fixed), RingOp::Read { data, .. } | RingOp::Write { data, .. }) => fixed.find(data),
            _ => None,
        };
        if let Err(error) = slot.load(op, tag, buffer) {
            self.release(buffer);
            return Err(error);
        }
        let entry = slot.entry().user_data(u64::from(index));
        let (submitter, mut sq, _) = self.inner.0.split();
        // SAFETY: the slot owns what the entry points to (iovecs, pinned guest memory or buffer); it is neither moved
        // nor loaded again before the completion, because it leaves the free list below, and is leaked if the ring is
        // dropped before.
        let pushed = unsafe { push_entry(&submitter, &mut sq, &entry) };
        drop((submitter, sq));
        if !pushed {
            slot.unload();
            self.release(buffer);
            return Err(PushError::Full);
        }
        self.free.pop();
        Ok(())
    }

    #[cold]
    fn release(&mut self, buffer: Option<u16>) {
        if let (Some(fixed), Some(buffer)) = (&mut self.fixed, buffer) {
            fixed.release(&self.inner.0.submitter(), buffer);
        }
    }

    /// One more slot, on the free list.
    #[cold]
    fn grow(&mut self) -> Result<u32, PushError> {
        let index = self.slots.len() as u32;
        if index >= self.entries {
            return Err(PushError::Full);
        }
        self.slots.push(Slot::default());
        // Room for all of them: `reap` does not allocate.
        self.free.reserve(self.slots.len());
        self.free.push(index);
        Ok(index)
    }

    /// Hands everything that was pushed to the kernel, and lets it run what it has deferred: one system call, none if
    /// there is nothing of either.
    ///
    /// What the kernel cannot take now stays, and goes with the next `submit` or [`Ring::reap`].
    #[inline]
    pub fn submit(&mut self) {
        let (submitter, mut sq, cq) = self.inner.0.split();
        if let Some(wake) = &mut self.wake {
            wake.disarm(&cq);
        }
        sq.sync();
        if !sq.is_empty() || sq.taskrun() {
            enter(&submitter, &mut sq);
        }
        if let Some(fixed) = &mut self.fixed {
            fixed.register_wanted(&submitter);
        }
    }

    /// Makes the descriptor fit to be slept on. True if there is something to reap, or to submit, already: then the
    /// thread must not sleep; so it is while a polled device is busy. With nothing in flight it makes the descriptor not readable. At most two system calls.
    pub fn prepare_sleep(&mut self) -> bool {
        let idle = self.in_flight() == 0;
        if self.polled {
            return !idle;
        }
        let (submitter, mut sq, mut cq) = self.inner.0.split();
        if let Some(wake) = &mut self.wake {
            if idle {
                wake.empty();
                return false;
            }
            wake.arm(&cq);
            enter(&submitter, &mut sq);
        }
        sq.sync();
        cq.sync();
        !cq.is_empty() || !sq.is_empty() || sq.taskrun() || sq.cq_overflow()
    }

    /// Calls `each` with tag, result and buffer of every operation that is done. Never blocks.
    ///
    /// The result is a negative errno, or the bytes that were moved: all of them, or fewer at the end of the file.
    #[inline]
    pub fn reap(&mut self, mut each: impl FnMut(u64, i32, Option<AlignedBuf>)) {
        let busy = self.polled && self.in_flight() > 0;
        let (submitter, mut sq, mut cq) = self.inner.0.split();
        if let Some(wake) = &mut self.wake {
            wake.disarm(&cq);
        }
        sq.sync();
        let asks = busy && cq.is_empty();
        if asks || sq.taskrun() || sq.cq_overflow() || !sq.is_empty() && cq.is_empty() {
            enter(&submitter, &mut sq);
        }
        cq.sync();
        let mut continued = false;
        for cqe in &mut cq {
            let index = cqe.user_data();
            if index == CANCEL {
                self.cancels = self.cancels.saturating_sub(1);
                continue;
            }
            // Indices are those that were pushed.
            let Some(slot) = self.slots.get_mut(index as usize) else { continue };
            let mut result = cqe.result();
            if slot.advance(result) {
                let entry = slot.entry().user_data(index);
                // SAFETY: as in `push`; the slot stays off the free list.
                if unsafe { push_entry(&submitter, &mut sq, &entry) } {
                    continued = true;
                    continue;
                }
                result = -libc::EAGAIN;
            }
            if let (Some(fixed), Some(buffer)) = (&mut self.fixed, slot.buffer()) {
                fixed.release(&submitter, buffer);
            }
            let (tag, result, buf) = slot.finish(result);
            self.free.push(index as u32);
            each(tag, result, buf);
        }
        if continued {
            sq.sync();
            enter(&submitter, &mut sq);
        }
    }

    /// Asks the kernel to give up the operation with this tag (`ECANCELED`), if it can still. Best effort; the
    /// operation is reported in any case.
    pub fn cancel(&mut self, tag: u64) {
        // A device that is polled is asked anyway, and the kernel does not cancel what is there.
        let found = self.slots.iter().position(|slot| slot.tag() == Some(tag)).filter(|_| !self.polled);
        let Some(index) = found else { return };
        if self.cancels >= self.entries {
            return;
        }
        let entry = opcode::AsyncCancel::new(index as u64).build().user_data(CANCEL);
        let (submitter, mut sq, _) = self.inner.0.split();
        // SAFETY: a cancellation points to no memory.
        if unsafe { push_entry(&submitter, &mut sq, &entry) } {
            self.cancels += 1;
            sq.sync();
            enter(&submitter, &mut sq);
        }
    }

    /// Cancels what can be cancelled and waits for the rest, at most [`DROP_WAIT`].
    fn wind_down(&mut self) {
        self.submit();
        let deadline = Instant::now() + DROP_WAIT;
        let second = Timespec::new().sec(1);
        // Linux 6.0; without it what follows only waits.
        let _ = self.inner.0.submitter().register_sync_cancel(Some(second), CancelBuilder::any());
        loop {
            self.reap(|_, _, _| {});
            let left = deadline.saturating_duration_since(Instant::now());
            if self.in_flight() == 0 || left.is_zero() {
                return;
            }
            let pause = Timespec::from(left.min(Duration::from_millis(100)));
            let args = SubmitArgs::new().timespec(&pause);
            // Time-out, interruption and completion all lead back to the top.
            let _ = self.inner.0.submitter().submit_with_args(1, &args);
        }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if let Some(wake) = &self.wake {
            return wake.fd();
        }
        // SAFETY: the ring keeps its descriptor open as long as it lives.
        unsafe { BorrowedFd::borrow_raw(self.inner.0.as_raw_fd()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.in_flight() > 0 {
            self.wind_down();
        }
        // The kernel takes the ring itself apart some time later; guest memory, the file, its locks and its device are given up now.
        self.forget_memory(true);
        let _ = self.inner.0.submitter().unregister_files();
        if self.in_flight() > 0 {
            tracing::error!(left = self.in_flight(), "operations do not end; their memory is given up");
            // The kernel may still read and write through these slots.
            std::mem::forget(std::mem::take(&mut self.slots));
            // Whoever shares the file sees that it is still in use.
            std::mem::forget(Arc::clone(&self.file));
        }
    }
}

/// Adds an entry, making room by a system call if need be. False when there is no room.
///
/// # Safety
///
/// What the entry points to stays valid until its completion.
#[inline]
unsafe fn push_entry(submitter: &Submitter<'_>, sq: &mut SubmissionQueue<'_>, entry: &squeue::Entry) -> bool {
    // SAFETY: the caller vouches for the entry.
    if unsafe { sq.push(entry) }.is_ok() {
        return true;
    }
    sq.sync();
    enter(submitter, sq);
    // SAFETY: as above.
    unsafe { sq.push(entry) }.is_ok()
}

/// `io_uring_enter`: submits what is there and runs what the kernel left for us to run; waits for nothing.
#[inline]
fn enter(submitter: &Submitter<'_>, sq: &mut SubmissionQueue<'_>) {
    for attempt in 0..SUBMIT_ATTEMPTS {
        let entries = sq.len() as u32;
        // SAFETY: there is no argument; what the entries point to was vouched for when they were pushed.
        let entered =
            unsafe { submitter.enter::<libc::sigset_t>(entries, 0, EnterFlags::GETEVENTS.bits(), None) };
        match entered.map_err(|error| error.raw_os_error()) {
            Ok(_) | Err(Some(libc::EBUSY)) => break,
            Err(Some(libc::EINTR)) => {}
            Err(Some(libc::EAGAIN)) if attempt + 1 < SUBMIT_ATTEMPTS => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(errno) => {
                tracing::error!(?errno, "io_uring_enter failed");
                break;
            }
        }
    }
    sq.sync();
}
