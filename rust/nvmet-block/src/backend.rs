//! The control side of a backend: what it is, what it can do, and the opening of queues.
//!
//! May know: sizes and capabilities in bytes. Must not know: who asks, or how requests are carried out.

use crate::error::{BackendError, IoError};
use crate::queue::IoQueue;
use crate::size::{MIN_BLOCK, blocks_for, check_size};

/// The size and the block structure of a backend, all in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the whole backend, in bytes; a multiple of `min_block`.
    pub size: u64,
    /// Smallest logical block that the backend serves: offsets and lengths must be multiples of it. A power of two.
    pub min_block: u32,
    /// Logical block size that suits the backend best: a power of two, not below `min_block`.
    pub preferred_block: u32,
    /// Unit that the medium writes without a read-modify-write: a power of two, not below `min_block`.
    pub physical_block: u32,
    /// Transfer size that suits the backend best, a multiple of `physical_block`; 0 when there is none to name.
    pub optimal_io: u32,
    /// Whether writes, zeroing and deallocation are refused with [`IoError::ReadOnly`].
    pub read_only: bool,
}

impl Geometry {
    /// Of a backend that has no medium below, such as memory. `what` names it in the error.
    ///
    /// # Errors
    /// [`BackendError::Size`] unless the size is a multiple of 512 and not zero.
    pub(crate) fn without_medium(what: &str, size: u64, read_only: bool) -> Result<Self, BackendError> {
        check_size(what, size, MIN_BLOCK)?;
        let block = blocks_for(size);
        Ok(Self {
            size,
            min_block: MIN_BLOCK,
            preferred_block: block,
            physical_block: block,
            optimal_io: 0,
            read_only,
        })
    }
}

/// What a backend can do beyond reading and writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// A completed write may be lost by a power failure until a flush, or unless it was written with FUA.
    pub volatile_write_cache: bool,
    /// Deallocation gives storage back (it is accepted in any case, and does nothing without this).
    pub discard: bool,
    /// Zeroing is cheaper than writing zeroes (it is accepted in any case).
    pub write_zeroes: bool,
    /// A range reads as zeroes after a [`Deallocate`](crate::Op::Deallocate) of it that succeeded.
    pub discarded_reads_zero: bool,
    /// What was written is read back. False for a backend that transfers nothing.
    pub stores_data: bool,
}

/// The shared side of a namespace's storage. It is asked from the control thread and opens one queue per worker.
pub trait Backend: Send + Sync {
    /// Size and block structure. The size may change while the backend is in use: queues have the one they were opened
    /// with.
    fn geometry(&self) -> Geometry;

    /// What the backend can do; constant over its life.
    fn features(&self) -> Features;

    /// Opens a data queue for up to `depth` operations in flight (at least 1).
    ///
    /// It is called on the thread that will use the queue; the queue never leaves it.
    ///
    /// # Errors
    /// When the operating system refuses what the queue needs; the error says what and why.
    fn open_queue(&self, depth: u32) -> Result<Box<dyn IoQueue>, BackendError>;

    /// Puts everything that was completed on the medium, and blocks until it is there. For the control side (shutdown
    /// of the process) only.
    ///
    /// # Errors
    /// When the medium refused: data may be lost.
    fn sync(&self) -> Result<(), IoError>;

    /// Gives the backend another size, in bytes. What is behind a smaller end is lost; operations of open queues that
    /// reach behind it end anyhow, and leave nothing there.
    ///
    /// # Errors
    /// When the backend keeps its size, or cannot have that one; nothing has changed then.
    fn resize(&self, size: u64) -> Result<(), BackendError> {
        let _ = size;
        let why = "it keeps the size it has: use a file, or a backend that can be resized".to_owned();
        Err(BackendError::Resize { what: self.describe(), why })
    }

    /// Looks what size the medium has by now, if somebody else may have changed it.
    ///
    /// # Errors
    /// When the medium has a size that cannot be served; the backend keeps the one it had then.
    fn refresh(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// One line for people: kind, place and size.
    fn describe(&self) -> String;
}
