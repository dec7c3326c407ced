//! The null backend: it has a size, transfers nothing, and is done at once. For measuring everything else.
//!
//! May know: its size. Guest memory stays untouched by reads, so what a guest reads is what it had in its buffer.

use std::os::fd::BorrowedFd;

use crate::backend::{Backend, Features, Geometry};
use crate::bounds::Bounds;
use crate::error::{BackendError, IoError};
use crate::queue::{IoQueue, Op, Submitted};
use crate::size::exact;

/// A backend without data.
#[derive(Debug, Clone)]
pub struct NullBackend {
    geometry: Geometry,
}

impl NullBackend {
    /// `size` bytes of nothing.
    ///
    /// # Errors
    /// [`BackendError::Size`] unless the size is a multiple of 512 and not zero.
    pub fn new(size: u64, read_only: bool) -> Result<Self, BackendError> {
        Ok(Self { geometry: Geometry::without_medium("null", size, read_only)? })
    }
}

impl Backend for NullBackend {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn features(&self) -> Features {
        Features {
            volatile_write_cache: false,
            discard: true,
            write_zeroes: true,
            discarded_reads_zero: false,
            stores_data: false,
        }
    }

    fn open_queue(&self, _depth: u32) -> Result<Box<dyn IoQueue>, BackendError> {
        Ok(Box::new(NullQueue { bounds: Bounds::new(&self.geometry) }))
    }

    fn sync(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn describe(&self) -> String {
        format!("null, {}", exact(self.geometry.size))
    }
}

#[derive(Debug)]
struct NullQueue {
    bounds: Bounds,
}

impl IoQueue for NullQueue {
    #[inline]
    fn submit(&mut self, _tag: u64, op: Op<'_>) -> Submitted {
        Submitted::Done(self.bounds.check(&op))
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
