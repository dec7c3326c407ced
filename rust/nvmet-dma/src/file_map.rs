//! A file of a memory file system (tmpfs), mapped: its bytes without a system call.
//!
//! What it may know: a file, its pages, offsets, segments. What it must not: blocks, commands, when to use it.
//!
//! Others may truncate the file, punch holes into it, or fill its file system. SAFETY.md, "Files that are mapped",
//! says why nothing that was answered with `Ok` can have gone to memory that is not the file's.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crate::error::DmaError;
use crate::mapping::{Mapping, page_size};
use crate::memory::Segments;
use crate::{sigbus, transfer};

/// A shared mapping of a file. Its last page is not served: that it is there is how a truncation is noticed.
///
/// Transfers of several threads may overlap: each byte is then one of either, as on any disk.
#[derive(Debug)]
pub struct FileMap {
    mapping: Mapping,
    /// Bytes that are served, from the start: all whole pages before the last one.
    len: usize,
    page: usize,
}

impl FileMap {
    /// Most pages that [`FileMap::missing`] looks at.
    pub const MAX_PAGES: usize = 64;

    /// Maps the first `size` bytes of `file`, for writing too if `writable`.
    ///
    /// # Errors
    ///
    /// `Unsupported` if there is nothing to serve, or if the kernel does not tell this process which pages the file
    /// has (it takes the file's owner, or permission to write to it); those of `mmap`: no address space, no permission.
    pub fn new(file: BorrowedFd<'_>, size: u64, writable: bool) -> io::Result<Self> {
        let page = page_size();
        let len = usize::try_from(size).unwrap_or(0).saturating_sub(1) / page * page;
        // With the last page of the file, and one behind its end, which the file cannot have.
        let whole = len.checked_add(2 * page).filter(|_| len > 0);
        let whole = whole.ok_or_else(|| unsupported("the file has one page, or is too large"))?;
        sigbus::install();
        let poison = Some(Arc::new(AtomicBool::new(false)));
        let mapping = Mapping::of_file(file, 0, whole, writable, page, poison)?;
        if mapping.resident(len + page, &mut [0])? != 0 {
            return Err(unsupported("the kernel does not tell which pages the file has"));
        }
        Ok(Self { mapping, len, page })
    }

    /// Bytes that are served, from the start of the file on: less than the file has.
    #[inline]
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Whether nothing is served; never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the file has lost pages, or could not get one, under this mapping: it serves nothing any more.
    #[inline]
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.mapping.is_poisoned()
    }

    /// How many of the pages at `offset` the file has not in memory: holes, pages that were never written, pages in
    /// swap. `offset` and `len` are whole pages, at most [`FileMap::MAX_PAGES`] of them.
    ///
    /// # Errors
    ///
    /// `InvalidInput`; those of `mincore`.
    pub fn missing(&self, offset: u64, len: usize) -> io::Result<usize> {
        let mut pages = [0; Self::MAX_PAGES];
        let count = len / self.page;
        let (at, Some(pages)) = (self.range(offset, len)?, pages.get_mut(..count)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok(count - self.mapping.resident(at, pages)?)
    }

    /// Copies from `offset` on into all of `segments`. A page that is missing becomes one of zeroes.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`]; [`DmaError::WrongDirection`] unless the segments are
    /// [`Direction::ToGuest`](crate::Direction::ToGuest); [`DmaError::FileLost`] if what was copied may not be the
    /// file's.
    #[inline]
    pub fn read(&self, offset: u64, segments: &Segments<'_>) -> Result<(), DmaError> {
        let at = self.range(offset, segments.len())?;
        transfer::to_guest(&self.mapping, at, segments)?;
        self.settle(Ordering::Acquire)
    }

    /// Copies all of `segments` to `offset` on.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`]; [`DmaError::WrongDirection`] unless the segments are
    /// [`Direction::FromGuest`](crate::Direction::FromGuest) and the map is writable; [`DmaError::FileLost`] if the
    /// file may not have all of it; [`DmaError::Poisoned`] if what was copied may not be the guest's.
    #[inline]
    pub fn write(&self, offset: u64, segments: &Segments<'_>) -> Result<(), DmaError> {
        let at = self.range(offset, segments.len())?;
        transfer::from_guest(&self.mapping, at, segments)?;
        self.settle(Ordering::SeqCst)?;
        segments.check_poison()
    }

    /// Whether all of `segments` equals what is at `offset` on.
    ///
    /// # Errors
    ///
    /// As [`FileMap::write`].
    pub fn compare(&self, offset: u64, segments: &Segments<'_>) -> Result<bool, DmaError> {
        let at = self.range(offset, segments.len())?;
        let equal = transfer::equals(&self.mapping, at, segments)?;
        self.settle(Ordering::Acquire)?;
        Ok(equal)
    }

    /// Writes zeroes.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`]; [`DmaError::WrongDirection`] unless the map is writable; [`DmaError::FileLost`] if
    /// the file may not have all of them.
    pub fn zero(&self, offset: u64, len: usize) -> Result<(), DmaError> {
        let at = self.range(offset, len)?;
        self.mapping.fill(at, len, 0)?;
        self.settle(Ordering::SeqCst)
    }

    /// Whether all that was accessed so far was the file.
    ///
    /// A file that is cut short loses its last page, or only some of that page's bytes, which are not served.
    #[inline]
    fn settle(&self, order: Ordering) -> Result<(), DmaError> {
        // Both looks come after the copy. A store to the file may be overtaken by a later load unless that is `SeqCst`.
        fence(order);
        self.mapping.touch(self.len)?;
        fence(Ordering::Acquire);
        if self.is_lost() { Err(DmaError::FileLost) } else { Ok(()) }
    }

    /// A range that is served, as a start in the mapping.
    #[inline]
    fn range(&self, offset: u64, len: usize) -> Result<usize, DmaError> {
        match usize::try_from(offset).ok().and_then(|start| Some((start, start.checked_add(len)?))) {
            Some((start, end)) if end <= self.len => Ok(start),
            _ => Err(DmaError::OutOfBounds { offset, len: len as u64, size: self.len as u64 }),
        }
    }
}

#[cold]
fn unsupported(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}
