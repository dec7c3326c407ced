//! Guest memory: what the VMM lets us reach, and how workers reach it without locks.
//!
//! * [`DmaSpace`], owned by the control thread, maps and unmaps regions and publishes immutable tables;
//! * [`DmaReader`], one per worker, gives the current table as a [`Snapshot`]; what holds a snapshot (an I/O in
//!   flight, a [`Window`]) keeps every mapping of that table valid, so an unmap can never leave a pointer behind;
//! * [`Retired`] tells the control thread when the last user of an unmapped region is gone;
//! * [`SegmentBuf`] turns guest addresses into [`Segments`] of mapped memory, and [`Window`] is a fixed range for
//!   rings and shadow doorbells.
//!
//! What it may know: addresses, sizes, files. What it must not: what the bytes mean.

pub(crate) mod file;
mod scratch;
mod segments;
mod snapshot;
mod space;
mod table;
mod window;

#[cfg(test)]
mod tests;

use std::fmt;

pub use segments::{SegmentBuf, SegmentBuilder, Segments};
pub use snapshot::{DmaHandle, DmaReader, Snapshot};
pub use space::{DmaSpace, MAX_MAPPED_BYTES, MAX_MAPPINGS, MAX_REGIONS, Retired};
pub(crate) use table::Life;
pub use window::Window;

/// What the device may do with a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access {
    /// The device may read guest memory.
    pub read: bool,
    /// The device may write guest memory.
    pub write: bool,
}

impl Access {
    /// Reading only.
    pub const READ: Self = Self { read: true, write: false };
    /// Writing only.
    pub const WRITE: Self = Self { read: false, write: true };
    /// Reading and writing.
    pub const READ_WRITE: Self = Self { read: true, write: true };

    /// The first direction that is needed and not allowed.
    #[inline]
    pub(crate) fn refuses(self, needed: Self) -> Option<Direction> {
        if needed.read && !self.read {
            Some(Direction::FromGuest)
        } else if needed.write && !self.write {
            Some(Direction::ToGuest)
        } else {
            None
        }
    }
}

/// Which way data goes, seen from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The device reads guest memory (data of a Write command).
    FromGuest,
    /// The device writes guest memory (data of a Read command).
    ToGuest,
}

impl Direction {
    /// The access that the direction needs.
    #[inline]
    #[must_use]
    pub fn access(self) -> Access {
        match self {
            Self::FromGuest => Access::READ,
            Self::ToGuest => Access::WRITE,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FromGuest => "for reading by the device",
            Self::ToGuest => "for writing by the device",
        })
    }
}
