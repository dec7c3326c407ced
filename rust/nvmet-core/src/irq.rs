//! The interrupt vectors of one controller: workers signal them, the control thread gives and takes their
//! eventfds.
//!
//! A vector without an eventfd remembers that it was signalled (its bit in the MSI-X Pending Bit Array, PCIe
//! Base 7.7.2.9) and fires when it gets one. QEMU re-points vectors whenever the guest masks and unmasks
//! them, and takes all away for a moment when the guest enables one more: no interrupt may fall into such a
//! gap. A spurious one may be sent instead: an MSI-X driver looks at its queue's phase tags and finds
//! nothing.
//!
//! There is no masking here: clients emulate the mask bits of the MSI-X Table by re-pointing vectors, so the
//! device reports its vectors as not maskable.
//!
//! May know: eventfds and vector numbers. Must not know: queues, coalescing, vfio-user messages.
//!
//! # Why no signal is lost
//!
//! A vector is an eventfd slot F and a flag P. Signalling with F empty does `P := true; fence; read F`, and
//! assigning does `F := fd; fence; take P`. The fences are sequentially consistent, so at least one of the
//! two sees what the other wrote: either the signaller finds the new eventfd, or the assigner finds P.
//! Whoever *takes* P (an atomic swap to false that returned true) signals; two who look at once cannot both
//! take it.
//!
//! P is only ever written by read-modify-write operations, so whoever takes it synchronizes with every
//! signaller whose `true` is folded in: the completion queue entries written before the signal are visible
//! before the eventfd fires.
//!
//! A signaller may still hold the old eventfd when F is replaced and write to it after the client has
//! forgotten it. The assigner sees that (the old eventfd is still shared) and sets P itself.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use arc_swap::ArcSwapOption;
use nvmet_dma::EventFd;
use thiserror::Error;

/// Why eventfds cannot be assigned or vectors fired.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum IrqError {
    /// The range ends behind the last vector.
    #[error("interrupt vectors {start} to {start}+{count} are out of range: there are {vectors}")]
    OutOfRange {
        /// First vector of the range.
        start: u32,
        /// Number of vectors of the range.
        count: usize,
        /// Vectors that exist.
        vectors: usize,
    },
}

/// The MSI-X vectors of a controller, and its ERR interrupt. Shared: workers hold it behind an [`Arc`].
#[derive(Debug)]
pub struct Vectors {
    vectors: Box<[Vector]>,
    err: Vector,
}

/// On a cache line of its own: neighbours belong to other queues, hence to other workers.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Vector {
    eventfd: ArcSwapOption<EventFd>,
    pending: AtomicBool,
    signals: AtomicU64,
}

impl Vectors {
    /// `count` vectors, none of which has an eventfd.
    #[must_use]
    pub fn new(count: u16) -> Self {
        Self { vectors: (0..count).map(|_| Vector::default()).collect(), err: Vector::default() }
    }

    /// Number of vectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Whether there are no vectors at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// Sends the interrupt of `vector`, or remembers it. From any thread; takes no lock, allocates nothing,
    /// does not block. Completion queue entries must have been written before. A vector that does not exist
    /// is ignored: Create I/O Completion Queue refuses it (NVMe Base 2.0 5.4, Invalid Interrupt Vector).
    pub fn signal(&self, vector: u16) {
        if let Some(vector) = self.vectors.get(usize::from(vector)) {
            vector.signal();
        }
    }

    /// Tells the client that the device is broken for good: QEMU stops the guest. Not for errors that NVMe
    /// can tell.
    pub fn signal_err(&self) {
        self.err.signal();
    }

    /// Gives the vectors from `start` on an eventfd each, in place of those they had; fires where one was
    /// pending.
    ///
    /// # Errors
    /// [`IrqError::OutOfRange`]; no vector has changed then.
    pub fn assign(&self, start: u32, eventfds: Vec<EventFd>) -> Result<(), IrqError> {
        for (vector, eventfd) in self.range(start, eventfds.len())?.iter().zip(eventfds) {
            vector.replace(Some(Arc::new(eventfd)));
        }
        Ok(())
    }

    /// Takes the eventfds of `count` vectors from `start` on.
    ///
    /// # Errors
    /// [`IrqError::OutOfRange`]; no vector has changed then.
    pub fn deassign(&self, start: u32, count: u32) -> Result<(), IrqError> {
        for vector in self.range(start, count as usize)? {
            vector.replace(None);
        }
        Ok(())
    }

    /// Takes the eventfds of all vectors, as when MSI-X is switched off. What is pending stays so: QEMU
    /// switches off and on again to enable one more vector while the others are in use. ERR keeps its
    /// eventfd.
    pub fn disable_all(&self) {
        for vector in &self.vectors {
            vector.replace(None);
        }
    }

    /// Fires `count` vectors from `start` on, as if the device had signalled them.
    ///
    /// # Errors
    /// [`IrqError::OutOfRange`]; no vector has fired then.
    pub fn trigger(&self, start: u32, count: u32) -> Result<(), IrqError> {
        self.range(start, count as usize)?.iter().for_each(Vector::signal);
        Ok(())
    }

    /// Fires those vectors from `start` on whose entry in `which` is true.
    ///
    /// # Errors
    /// [`IrqError::OutOfRange`]; no vector has fired then.
    pub fn trigger_where(&self, start: u32, which: &[bool]) -> Result<(), IrqError> {
        let vectors = self.range(start, which.len())?;
        vectors.iter().zip(which).filter(|(_, which)| **which).for_each(|(vector, _)| vector.signal());
        Ok(())
    }

    /// Gives ERR its eventfd, or takes it.
    pub fn assign_err(&self, eventfd: Option<EventFd>) {
        self.err.replace(eventfd.map(Arc::new));
    }

    /// Drops every eventfd, that of ERR too: the client has left. What is pending stays until
    /// [`Vectors::clear_pending`].
    pub fn release(&self) {
        self.disable_all();
        self.err.replace(None);
    }

    /// Forgets what is pending. For a controller or function reset, when no worker signals any more: the
    /// completion queues that were signalled for are gone.
    pub fn clear_pending(&self) {
        for vector in self.vectors.iter().chain([&self.err]) {
            vector.take_pending();
        }
    }

    /// Pending bits of vectors `64 * word` to `64 * word + 63`, as the Pending Bit Array shows them.
    #[must_use]
    pub fn pending_word(&self, word: usize) -> u64 {
        let vectors = self.vectors.chunks(64).nth(word).unwrap_or_default();
        vectors
            .iter()
            .enumerate()
            .fold(0, |bits, (at, vector)| bits | u64::from(vector.pending.load(Ordering::Relaxed)) << at)
    }

    /// How often `vector` was signalled since it exists, delivered or pending; 0 for a vector that does not
    /// exist.
    #[must_use]
    pub fn signals(&self, vector: u16) -> u64 {
        self.vectors.get(usize::from(vector)).map_or(0, |vector| vector.signals.load(Ordering::Relaxed))
    }

    /// How often all vectors together were signalled.
    #[must_use]
    pub fn total_signals(&self) -> u64 {
        self.vectors.iter().map(|vector| vector.signals.load(Ordering::Relaxed)).sum()
    }

    fn range(&self, start: u32, count: usize) -> Result<&[Vector], IrqError> {
        let first = start as usize;
        first.checked_add(count).and_then(|end| self.vectors.get(first..end)).ok_or(IrqError::OutOfRange {
            start,
            count,
            vectors: self.vectors.len(),
        })
    }
}

impl Vector {
    fn signal(&self) {
        self.signals.fetch_add(1, Ordering::Relaxed);
        if !self.fire() {
            self.mark_pending();
            self.deliver_pending();
        }
    }

    /// Signals the eventfd, if there is one.
    fn fire(&self) -> bool {
        let eventfd = self.eventfd.load();
        let Some(eventfd) = eventfd.as_ref() else { return false };
        // Can only fail for what is not an eventfd, and `EventFd` is one.
        let _ = eventfd.signal();
        true
    }

    /// Fires if there is both an eventfd and something pending; the caller has fenced.
    ///
    /// The flag is taken first and the eventfd loaded after it, so that who takes the flag of an assigner
    /// cannot write to the eventfd that this assigner replaced. Another turn needs the slot to change
    /// meanwhile, so this ends.
    fn deliver_pending(&self) {
        while self.eventfd.load().is_some() && self.take_pending() {
            if self.fire() {
                return;
            }
            self.mark_pending();
        }
    }

    /// Sets the flag, and orders that before whatever is read next.
    fn mark_pending(&self) {
        // Release: our completion queue entries travel with the flag, to whoever takes it.
        self.pending.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// Clears the flag, true if it was set.
    fn take_pending(&self) -> bool {
        // Acquire: sees the completion queue entries of every signaller that set the flag.
        self.pending.swap(false, Ordering::AcqRel)
    }

    fn replace(&self, new: Option<Arc<EventFd>>) {
        let old = self.eventfd.swap(new);
        // Orders the slot before the look at the flag; pairs with the fence of a signaller's `mark_pending`.
        fence(Ordering::SeqCst);
        // A worker between loading the old eventfd and writing to it holds a reference (`swap` has turned
        // borrowed ones into counted ones). If the count is one, every such write is done; if not, it may
        // come too late to count.
        if old.is_some_and(|old| Arc::strong_count(&old) > 1) {
            self.mark_pending();
        }
        self.deliver_pending();
    }
}
