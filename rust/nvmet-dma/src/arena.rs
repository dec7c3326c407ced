//! The memory of a RAM namespace: private, sparse, shared by the threads of this process.
//!
//! What it may know: offsets and segments. What it must not: blocks, commands.

use std::io;
use std::ptr::NonNull;

use rustix::mm::Advice;

use crate::error::DmaError;
use crate::mapping::{Mapping, page_size};
use crate::memory::Segments;
use crate::transfer;

/// Size of a transparent huge page where pages have 4 KiB.
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed private memory that takes up room only where it was written.
///
/// Transfers of several threads may overlap: each byte is then one of either, as on any disk.
#[derive(Debug)]
pub struct Arena {
    mapping: Mapping,
    /// Where the first byte is in the mapping.
    start: usize,
    size: usize,
}

impl Arena {
    /// `size` zeroed bytes. `huge_pages` asks for transparent huge pages: faster, and coarser in what it takes up.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a size of zero or one that no process can have; those of `mmap`.
    pub fn new(size: u64, huge_pages: bool) -> io::Result<Self> {
        let size = usize::try_from(size).ok().filter(|size| *size > 0);
        let rounded = size.and_then(|size| size.checked_next_multiple_of(page_size()));
        // A huge page starts at a multiple of its size, and not every kernel maps memory there by itself.
        let whole = rounded.and_then(|rounded| rounded.checked_add(if huge_pages { HUGE_PAGE } else { 0 }));
        let (Some(size), Some(rounded), Some(whole)) = (size, rounded, whole) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the size is zero or too large"));
        };
        let mapping = Mapping::anonymous(whole)?;
        let mut start = 0;
        if huge_pages {
            let base = mapping.base().as_ptr().addr();
            start = base.next_multiple_of(HUGE_PAGE) - base;
            // A kernel without them says EINVAL, and the memory works all the same.
            let _ = mapping.advise(start, rounded, Advice::LinuxHugepage);
        }
        Ok(Self { mapping, start, size })
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size as u64
    }

    /// Copies from `offset` on into all of `segments`.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`]; [`DmaError::WrongDirection`] unless the segments are [`Direction::ToGuest`](crate::Direction::ToGuest).
    pub fn read(&self, offset: u64, segments: &Segments<'_>) -> Result<(), DmaError> {
        let at = self.range(offset, segments.len() as u64)?;
        transfer::to_guest(&self.mapping, at, segments)
    }

    /// Copies all of `segments` to `offset` on.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`]; [`DmaError::WrongDirection`] unless the segments are
    /// [`Direction::FromGuest`](crate::Direction::FromGuest);
    /// [`DmaError::Poisoned`] if what was copied may not be the guest's.
    pub fn write(&self, offset: u64, segments: &Segments<'_>) -> Result<(), DmaError> {
        let at = self.range(offset, segments.len() as u64)?;
        transfer::from_guest(&self.mapping, at, segments)?;
        segments.check_poison()
    }

    /// Whether all of `segments` equals what is at `offset` on.
    ///
    /// # Errors
    ///
    /// As [`Arena::write`].
    pub fn compare(&self, offset: u64, segments: &Segments<'_>) -> Result<bool, DmaError> {
        let at = self.range(offset, segments.len() as u64)?;
        transfer::equals(&self.mapping, at, segments)
    }

    /// Where `len` bytes from `offset` on are: valid as long as the arena lives. The bytes may change at any moment.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn as_ptr(&self, offset: u64, len: u64) -> Result<NonNull<u8>, DmaError> {
        let at = self.range(offset, len)?;
        Ok(self.mapping.base().map_addr(|base| base.saturating_add(at)))
    }

    /// Copies bytes out.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn read_bytes(&self, offset: u64, dst: &mut [u8]) -> Result<(), DmaError> {
        let at = self.range(offset, dst.len() as u64)?;
        self.mapping.read_bytes(at, dst)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn write_bytes(&self, offset: u64, src: &[u8]) -> Result<(), DmaError> {
        let at = self.range(offset, src.len() as u64)?;
        self.mapping.write_bytes(at, src)
    }

    /// Sets a range to zero. Whole pages are given back to the kernel, the rest is written.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn zero(&self, offset: u64, len: u64) -> Result<(), DmaError> {
        let start = self.range(offset, len)?;
        // `range` checked that `len` fits.
        let end = start + len as usize;
        let first_page = start.next_multiple_of(page_size());
        let last_page = end / page_size() * page_size();
        if first_page >= last_page {
            return self.mapping.fill(start, end - start, 0);
        }
        self.mapping.fill(start, first_page - start, 0)?;
        self.mapping.fill(last_page, end - last_page, 0)?;
        if self.discard(first_page, last_page - first_page).is_err() {
            // Locked memory cannot be given back.
            self.mapping.fill(first_page, last_page - first_page, 0)?;
        }
        Ok(())
    }

    /// Gives whole pages back; they read as zero from now on.
    fn discard(&self, at: usize, len: usize) -> io::Result<()> {
        // Private anonymous memory reads as zero after this; it is a plain concurrent write of zeros to others.
        Ok(self.mapping.advise(at, len, Advice::LinuxDontNeed)?)
    }

    /// A range inside of the arena, as a start in the mapping.
    fn range(&self, offset: u64, len: u64) -> Result<usize, DmaError> {
        match offset.checked_add(len) {
            // Not larger than `size`, so it fits.
            Some(end) if end <= self.size as u64 => Ok(self.start + offset as usize),
            _ => Err(DmaError::OutOfBounds { offset, len, size: self.size as u64 }),
        }
    }
}
