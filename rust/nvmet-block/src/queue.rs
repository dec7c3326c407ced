//! The data side of a backend: operations, and the queue that carries them out.
//!
//! May know: bytes and guest memory segments. Must not know: logical blocks, commands, other queues.

use std::os::fd::BorrowedFd;

use nvmet_dma::Segments;

use crate::error::IoError;

/// One operation on a backend; offsets and lengths in bytes.
///
/// Ranges are checked by the queue against the backend's size, read-only state and minimum block.
#[derive(Debug, Clone, Copy)]
pub enum Op<'a> {
    /// Fills `data` from `offset`.
    Read {
        /// First byte of the backend.
        offset: u64,
        /// Guest memory to fill; its length is the length of the transfer.
        data: Segments<'a>,
    },
    /// Writes `data` at `offset`.
    Write {
        /// First byte of the backend.
        offset: u64,
        /// Guest memory to take; its length is the length of the transfer.
        data: Segments<'a>,
        /// Force unit access: the data is on the medium when the operation is done.
        fua: bool,
    },
    /// Compares what the backend holds at `offset` with `data`: [`IoError::CompareFailed`] where they differ.
    Compare {
        /// First byte of the backend.
        offset: u64,
        /// Guest memory to compare with.
        data: Segments<'a>,
    },
    /// Makes a range read as zeroes.
    WriteZeroes {
        /// First byte of the backend.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The range may lose its storage, if it still reads as zeroes.
        deallocate: bool,
        /// Force unit access: the zeroes are on the medium when the operation is done.
        fua: bool,
    },
    /// The range's content is no longer needed. Advice: a backend that cannot gives success and does nothing.
    Deallocate {
        /// First byte of the backend.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Everything that was completed before this was submitted is on the medium when it is done.
    Flush,
}

/// What became of a submitted operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Submitted {
    /// Carried out; it will not be reported by [`IoQueue::reap`].
    Done(Result<(), IoError>),
    /// Accepted: [`IoQueue::reap`] will report its tag once, after the next [`IoQueue::kick`] at the latest.
    Pending,
    /// No room, nothing was taken: reap, then submit again.
    Full,
}

/// One worker's data queue. It lives on one thread and need not be [`Send`].
///
/// A worker submits a batch, kicks once, and reaps; before it sleeps until [`ready`](Self::ready) is readable it calls
/// [`prepare_sleep`](Self::prepare_sleep). Dropping a queue cancels what is in flight or waits for it; memory that an operation still uses is never
/// released under it.
pub trait IoQueue {
    /// Submits an operation under `tag`, which is not in flight already.
    ///
    /// The queue keeps whatever it needs of `op` (a pin on guest memory too) until it is done.
    fn submit(&mut self, tag: u64, op: Op<'_>) -> Submitted;

    /// Starts everything that is submitted; at most one system call.
    fn kick(&mut self);

    /// Calls `done` once for every operation that finished, with its tag. Never blocks.
    ///
    /// Every pending operation's tag is reported exactly once, unless the queue is dropped first.
    fn reap(&mut self, done: &mut dyn FnMut(u64, Result<(), IoError>));

    /// A descriptor to sleep on, after [`prepare_sleep`](Self::prepare_sleep): readable when [`reap`](Self::reap) would
    /// find something; none when operations never stay pending. Level-triggered, for `epoll` or `poll`; not to be read
    /// from. The same one as long as the queue lives.
    fn ready(&self) -> Option<BorrowedFd<'_>>;

    /// Makes [`ready`](Self::ready) tell of completions until the next call of another method. True if the worker must
    /// not sleep: there is something to reap already, or operations are in flight that only `reap` brings forward.
    ///
    /// Called before every sleep while operations are in flight, and in any case if the descriptor has ended the sleep
    /// before: nothing in flight, it is not readable afterwards. A queue whose descriptor always tells need not have it.
    fn prepare_sleep(&mut self) -> bool {
        false
    }

    /// Lets go of guest memory that the queue, or the kernel for it, keeps beyond operations: of what was unmapped since,
    /// or of `all`. Called after guest memory was unmapped, and with `all` when a controller goes. Operations in flight
    /// keep theirs until they end.
    fn forget_memory(&mut self, all: bool) {
        let _ = all;
    }

    /// Whether operations in flight are carried out by other threads of this process. A worker that looks for their
    /// completions lets these threads have its CPU meanwhile.
    fn wants_cpu(&self) -> bool {
        false
    }

    /// Operations that were accepted and not reported yet.
    fn in_flight(&self) -> usize;

    /// Tries to end an operation early. It is still reported once: with [`IoError::Aborted`] if this came in time,
    /// else with its own result. An unknown tag is ignored.
    fn cancel(&mut self, tag: u64);
}
