//! Frames: where the data of an operation lies while somebody else has it.
//!
//! A slab belongs to a queue. Its memory is reserved at once and taken from the system as it is used; pieces of whole
//! frames are handed out and come back when the last one who knows them lets go.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nvmet_dma::Arena;
use offset_allocator::{Allocation, Allocator};

/// Bytes of a frame. Every operation's data starts at a multiple of it.
pub const FRAME: u64 = 4096;
/// Frames of a slab: 64 MiB.
const FRAMES: u32 = 16384;
/// Pieces that can be out at once; more than operations of a queue.
const PIECES: u32 = 4096;

/// The memory of one queue.
pub struct Slab {
    arena: Arc<Arena>,
    free: Mutex<Allocator<u32>>,
}

impl Slab {
    /// Reserves the memory.
    pub fn new() -> io::Result<Arc<Self>> {
        let arena = Arc::new(Arena::new(u64::from(FRAMES) * FRAME, false)?);
        Ok(Arc::new(Self { arena, free: Mutex::new(Allocator::with_max_allocs(FRAMES, PIECES)) }))
    }

    /// Memory for `len` bytes; none if there is no piece that large.
    pub fn take(self: &Arc<Self>, len: usize) -> Option<Arc<Frames>> {
        let count = u32::try_from((len as u64).div_ceil(FRAME).max(1)).ok()?;
        let piece = self.free.lock().unwrap_or_else(PoisonError::into_inner).allocate(count)?;
        Some(Arc::new(Frames { slab: Arc::clone(self), piece, len }))
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab").field("arena", &self.arena).finish_non_exhaustive()
    }
}

/// The memory of one operation: `len` bytes of an arena, from `at` on. Private to this process.
pub struct Frames {
    slab: Arc<Slab>,
    piece: Allocation<u32>,
    len: usize,
}

impl Frames {
    /// The memory that they are a part of: the same one for all operations of a queue.
    #[must_use]
    pub fn arena(&self) -> &Arc<Arena> {
        &self.slab.arena
    }

    /// Where they begin in it, in bytes; a multiple of 4096.
    #[must_use]
    pub fn at(&self) -> u64 {
        u64::from(self.piece.offset) * FRAME
    }

    /// Length of the data, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no data.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("at", &self.at()).field("len", &self.len).finish()
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.slab.free.lock().unwrap_or_else(PoisonError::into_inner).free(self.piece);
    }
}
