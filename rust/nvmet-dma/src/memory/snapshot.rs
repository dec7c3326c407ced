//! The data side's view: a reader per thread, and the snapshots it hands out.
//!
//! What it may know: tables and when they change. A snapshot pins its table; see `Retired` for the other end.

use std::cell::Cell;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::table::{DmaTable, Life};
use super::{Access, Window};
use crate::error::DmaError;
use crate::raw;

/// What the control side publishes.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) table: ArcSwap<DmaTable>,
    /// Generation of `table`, stored after it: one load tells a reader whether it is up to date.
    pub(super) generation: AtomicU64,
}

/// Where readers come from. Cheap to clone and to send to a worker.
#[derive(Debug, Clone)]
pub struct DmaHandle(pub(super) Arc<Published>);

impl DmaHandle {
    /// A reader for the calling thread.
    #[must_use]
    pub fn reader(&self) -> DmaReader {
        DmaReader::new(self)
    }
}

/// One thread's access to the current table.
///
/// It keeps the table that it saw last: a worker that sleeps must be woken after an unmap, and call
/// [`DmaReader::snapshot`] (or drop the reader), or the unmapped region never retires.
#[derive(Debug)]
pub struct DmaReader {
    published: Arc<Published>,
    current: Snapshot,
}

impl DmaReader {
    /// A reader for the calling thread.
    #[must_use]
    pub fn new(handle: &DmaHandle) -> Self {
        let published = Arc::clone(&handle.0);
        let current = Snapshot::of(published.table.load_full());
        Self { published, current }
    }

    /// Whether the table has changed since [`DmaReader::snapshot`] was called last. One atomic load.
    #[inline]
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.published.generation.load(Ordering::Acquire) != self.current.generation()
    }

    /// The current table. One atomic load when it has not changed.
    #[inline]
    pub fn snapshot(&mut self) -> &Snapshot {
        if self.is_stale() {
            self.refresh();
        }
        &self.current
    }

    /// The table that [`DmaReader::snapshot`] gave last: for the rest of a batch.
    #[inline]
    #[must_use]
    pub fn current(&self) -> &Snapshot {
        &self.current
    }

    #[cold]
    fn refresh(&mut self) {
        self.current = Snapshot::of(self.published.table.load_full());
    }
}

#[derive(Debug)]
struct Pin {
    table: Arc<DmaTable>,
    /// Index of the region that was hit last.
    hint: Cell<usize>,
}

/// A table as it was at one moment; everything it says stays valid as long as a clone of it lives.
///
/// Cloning is cheap and not atomic, so a snapshot stays on its thread.
#[derive(Debug, Clone)]
pub struct Snapshot(Rc<Pin>);

impl Snapshot {
    fn of(table: Arc<DmaTable>) -> Self {
        Self(Rc::new(Pin { table, hint: Cell::new(0) }))
    }

    #[inline]
    pub(super) fn table(&self) -> &DmaTable {
        &self.0.table
    }

    /// The region that a host range lies in, if it is the one that was hit last, and where it is in host memory: first
    /// byte and length. Nothing for bytes that are thrown away, or if the kernel may not keep pages of this memory.
    #[inline]
    pub(crate) fn region_at(&self, host: usize, len: usize) -> Option<(&Arc<Life>, NonNull<u8>, usize)> {
        let region = self.0.table.regions.get(self.0.hint.get())?;
        let base = region.host?;
        let offset = host.checked_sub(base.as_ptr().addr())?;
        // A region with a host address is smaller than the host's address space.
        let size = (region.last - region.iova) as usize + 1;
        (self.0.table.pinning && offset < size && len <= size - offset).then_some((&region.life, base, size))
    }

    #[inline]
    pub(super) fn hint(&self) -> &Cell<usize> {
        &self.0.hint
    }

    /// Grows by one with every change of the controller's regions.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.table.generation
    }

    /// Whether memory vanished under a mapping (the client truncated its file, or the memory failed) since the
    /// space was made or cleared last. The controller can only set CSTS.CFS then. One relaxed load.
    #[inline]
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.0.table.is_poisoned()
    }

    /// Whether a whole range can be reached.
    ///
    /// # Errors
    ///
    /// [`DmaError::NotMapped`], [`DmaError::NotAccessible`] or [`DmaError::AccessDenied`] with the first address
    /// that is refused.
    pub fn check(&self, iova: u64, len: usize, access: Access) -> Result<(), DmaError> {
        self.table().pieces(iova, len, access, self.hint(), |_| Ok(()))
    }

    /// Copies guest memory into `dst`, each byte once.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::check`], and [`DmaError::Poisoned`]; `dst` is then partly filled.
    pub fn read_bytes(&self, iova: u64, dst: &mut [u8]) -> Result<(), DmaError> {
        let mut done = 0;
        self.table().pieces(iova, dst.len(), Access::READ, self.hint(), |piece| {
            if let Some(part) = dst.get_mut(done..done + piece.len) {
                // SAFETY: the table keeps the piece valid, and it is as long as `part`; slices never lie in a
                // mapping of ours.
                unsafe { raw::copy_out(piece.host.as_ptr(), part) };
            }
            done += piece.len;
            Ok(())
        })?;
        if self.is_poisoned() { Err(DmaError::Poisoned) } else { Ok(()) }
    }

    /// Copies `src` into guest memory.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::check`]; part of the bytes may have been written.
    pub fn write_bytes(&self, iova: u64, src: &[u8]) -> Result<(), DmaError> {
        let mut done = 0;
        self.table().pieces(iova, src.len(), Access::WRITE, self.hint(), |piece| {
            if let Some(part) = src.get(done..done + piece.len) {
                // SAFETY: the table keeps the piece valid, it is as long as `part` and mapped writable since the
                // region allows writing; slices never lie in a mapping of ours.
                unsafe { raw::copy_in(piece.host.as_ptr(), part) };
            }
            done += piece.len;
            Ok(())
        })
    }

    /// A fixed range for rings and shadow doorbells; it holds a clone of this snapshot.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::check`]; [`DmaError::Misaligned`] if a dword of it could lie across two pieces or be
    /// misaligned in host memory.
    pub fn window(&self, iova: u64, len: usize, access: Access) -> Result<Window, DmaError> {
        Window::new(self, iova, len, access)
    }

    #[cfg(test)]
    pub(super) fn mapping_count(&self) -> usize {
        self.0.table._mappings.len()
    }

    /// Where the first mapping begins in this process.
    #[cfg(test)]
    pub(crate) fn first_mapping(&self) -> Option<std::ptr::NonNull<u8>> {
        self.0.table._mappings.first().map(|mapping| mapping.base())
    }
}
