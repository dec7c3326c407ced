//! The ram backend: sparse memory of this process, gone with it. Every operation is done at once.
//!
//! May know: the arena. Pages take up room when they are written, and give it back when they are zeroed.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use nvmet_dma::{Arena, DmaError};

use crate::backend::{Backend, Features, Geometry};
use crate::bounds::Bounds;
use crate::error::{BackendError, IoError};
use crate::queue::{IoQueue, Op, Submitted};
use crate::size::exact;

/// Size from which on memory comes in transparent huge pages: a smaller drive would be rounded up by too much.
const HUGE_PAGES_FROM: u64 = 64 << 20;

/// A backend in memory.
#[derive(Debug, Clone)]
pub struct RamBackend {
    arena: Arc<Arena>,
    geometry: Geometry,
}

impl RamBackend {
    /// `size` zeroed bytes.
    ///
    /// # Errors
    /// [`BackendError::Size`] unless the size is a multiple of 512 and not zero;
    /// [`BackendError::Memory`] if the process cannot have that much address space.
    pub fn new(size: u64, read_only: bool) -> Result<Self, BackendError> {
        let geometry = Geometry::without_medium("ram", size, read_only)?;
        let arena = Arena::new(size, size >= HUGE_PAGES_FROM)
            .map_err(|source| BackendError::Memory { what: format!("ram:{}", exact(size)), source })?;
        Ok(Self { arena: Arc::new(arena), geometry })
    }
}

impl Backend for RamBackend {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn features(&self) -> Features {
        Features {
            volatile_write_cache: false,
            discard: true,
            write_zeroes: true,
            discarded_reads_zero: true,
            stores_data: true,
        }
    }

    fn open_queue(&self, _depth: u32) -> Result<Box<dyn IoQueue>, BackendError> {
        Ok(Box::new(RamQueue { arena: Arc::clone(&self.arena), bounds: Bounds::new(&self.geometry) }))
    }

    fn sync(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn describe(&self) -> String {
        format!("ram, {}", exact(self.geometry.size))
    }
}

#[derive(Debug)]
struct RamQueue {
    arena: Arc<Arena>,
    bounds: Bounds,
}

impl RamQueue {
    #[inline]
    fn execute(&self, op: &Op<'_>) -> Result<(), IoError> {
        self.bounds.check(op)?;
        match op {
            Op::Read { offset, data } => self.arena.read(*offset, data).map_err(io_error),
            Op::Write { offset, data, .. } => self.arena.write(*offset, data).map_err(io_error),
            Op::Compare { offset, data } => match self.arena.compare(*offset, data) {
                Ok(true) => Ok(()),
                Ok(false) => Err(IoError::CompareFailed),
                Err(error) => Err(io_error(error)),
            },
            Op::WriteZeroes { offset, len, .. } | Op::Deallocate { offset, len } => {
                self.arena.zero(*offset, *len).map_err(io_error)
            }
            Op::Flush => Ok(()),
        }
    }
}

/// The bounds were checked, so what is left is guest memory that went away, or a caller's mistake.
#[cold]
fn io_error(error: DmaError) -> IoError {
    match error {
        DmaError::OutOfBounds { .. } => IoError::OutOfRange,
        DmaError::WrongDirection => IoError::Invalid,
        _ => IoError::Internal,
    }
}

impl IoQueue for RamQueue {
    #[inline]
    fn submit(&mut self, _tag: u64, op: Op<'_>) -> Submitted {
        Submitted::Done(self.execute(&op))
    }

    fn kick(&mut self) {}

    fn reap(&mut self, _done: &mut dyn FnMut(u64, Result<(), IoError>)) {}

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        0
    }

    fn cancel(&mut self, _tag: u64) {}
}
