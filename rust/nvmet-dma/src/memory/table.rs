//! The immutable, sorted table of one controller's regions.
//!
//! What it may know: addresses and where they are in host memory. It is built by `space` and read by everything else.

use std::cell::Cell;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Access;
use crate::error::DmaError;
use crate::mapping::Mapping;

/// In place of a mapping's id where there is no mapping: ids start at 1.
pub(super) const NO_MAPPING: u64 = 0;

/// Tells one mapped region from any other, also from a later one at the same place.
#[derive(Debug)]
pub(crate) struct Life {
    id: u64,
    over: AtomicBool,
}

impl Life {
    pub(super) fn begin() -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), over: AtomicBool::new(false) })
    }

    /// Unique in the process, never used again, not 0.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether the region was unmapped; snapshots may still have it.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// Held by whoever mapped the region.
#[derive(Debug)]
pub(super) struct Alive(pub(super) Arc<Life>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

/// A region, as the data side needs it.
#[derive(Debug, Clone)]
pub(super) struct Region {
    pub(super) life: Arc<Life>,
    /// First guest address.
    pub(super) iova: u64,
    /// Last guest address (inclusive, so that a region may end at the top of the address space).
    pub(super) last: u64,
    /// Host address of the first byte; `None` for a region without a file.
    pub(super) host: Option<NonNull<u8>>,
    /// Id of the mapping, or [`NO_MAPPING`].
    pub(super) mapping: u64,
    /// What the device may do.
    pub(super) access: Access,
}

/// Part of a guest range that is contiguous in host memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// Host address, valid for `len` bytes as long as the table lives.
    pub(super) host: NonNull<u8>,
    /// Length in bytes, never zero.
    pub(super) len: usize,
    /// Id of the mapping it lies in.
    pub(super) mapping: u64,
}

/// Calls the owner when it is dropped: a field of its own, so that it can be the last one to go.
pub(super) struct Notify(pub(super) Arc<dyn Fn() + Send + Sync>);

impl Drop for Notify {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notify")
    }
}

/// All regions of one controller at one moment.
#[derive(Debug)]
pub(crate) struct DmaTable {
    pub(super) generation: u64,
    /// Sorted by address, no overlaps.
    pub(super) regions: Box<[Region]>,
    /// Keeps every `Region::host` valid.
    pub(super) _mappings: Box<[Arc<Mapping>]>,
    /// Whether the kernel may keep pages of it.
    pub(super) pinning: bool,
    pub(super) poison: Arc<AtomicBool>,
    /// Last field: fields drop in order, so the mappings are released before the control thread is told.
    pub(super) _notify: Notify,
}

// SAFETY: the pointers in `regions` point into `mappings`, which are `Send + Sync` and live as long as the table;
// they are only used for raw copies and atomics (SAFETY.md, "Copies").
unsafe impl Send for DmaTable {}
// SAFETY: as above; the table is immutable.
unsafe impl Sync for DmaTable {}

impl DmaTable {
    /// Whether memory has vanished under a mapping of this table's owner.
    #[inline]
    pub(super) fn is_poisoned(&self) -> bool {
        self.poison.load(Ordering::Relaxed)
    }

    /// The region of an address, the one of the last hit first.
    #[inline]
    fn find(&self, iova: u64, hint: &Cell<usize>) -> Result<&Region, DmaError> {
        if let Some(region) = self.regions.get(hint.get())
            && region.iova <= iova
            && iova <= region.last
        {
            return Ok(region);
        }
        let after = self.regions.partition_point(|region| region.iova <= iova);
        let index = after.checked_sub(1).ok_or(DmaError::NotMapped { iova })?;
        match self.regions.get(index) {
            Some(region) if iova <= region.last => {
                hint.set(index);
                Ok(region)
            }
            _ => Err(DmaError::NotMapped { iova }),
        }
    }

    /// Splits a guest range at the ends of regions; `each` gets the pieces in order.
    #[inline]
    pub(super) fn pieces(
        &self,
        mut iova: u64,
        mut len: usize,
        needed: Access,
        hint: &Cell<usize>,
        mut each: impl FnMut(Piece) -> Result<(), DmaError>,
    ) -> Result<(), DmaError> {
        while len > 0 {
            let region = self.find(iova, hint)?;
            if let Some(direction) = region.access.refuses(needed) {
                return Err(DmaError::AccessDenied { iova, direction });
            }
            let host = region.host.ok_or(DmaError::NotAccessible { iova })?;
            // A region with a host address is smaller than the host's address space: both casts are lossless.
            let offset = (iova - region.iova) as usize;
            let room = (region.last - iova) as usize + 1;
            let now = len.min(room);
            // SAFETY: `offset` is inside the region, whose bytes all lie in one mapping.
            let host = unsafe { host.add(offset) };
            each(Piece { host, len: now, mapping: region.mapping })?;
            len -= now;
            if len > 0 {
                iova = iova.checked_add(now as u64).ok_or(DmaError::NotMapped { iova: 0 })?;
            }
        }
        Ok(())
    }
}
