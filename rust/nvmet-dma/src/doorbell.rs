//! The doorbell page that is shared with the client: a sealed memfd of our own.
//!
//! What it may know: dwords and bytes. What it must not: which doorbell a dword is. The client may write anything
//! into it at any time, but can neither shrink nor grow it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};

use crate::error::DmaError;
use crate::mapping::{Mapping, page_size};

/// Doorbells in memory that is shared with the client.
#[derive(Debug)]
pub struct DoorbellPage {
    mapping: Mapping,
    file: OwnedFd,
}

impl DoorbellPage {
    /// A zeroed page (or several) of at least `len` bytes, rounded up to whole pages.
    ///
    /// # Errors
    ///
    /// Those of `memfd_create`, `ftruncate` and `mmap`; `InvalidInput` for a length of zero.
    pub fn new(len: usize) -> io::Result<Self> {
        let (file, mapping) = sealed_memory("nvmet-doorbells", len)?;
        Ok(Self { mapping, file })
    }

    /// Length in bytes, a multiple of the page size.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Always `false`: there is at least one page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mapping.len() == 0
    }

    /// The descriptor for the client.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Loads dword number `index` (acquire).
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    #[inline]
    pub fn load(&self, index: usize) -> Result<u32, DmaError> {
        self.mapping.load_u32(index.saturating_mul(4))
    }

    /// Stores dword number `index` (release).
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    #[inline]
    pub fn store(&self, index: usize, value: u32) -> Result<(), DmaError> {
        self.mapping.store_u32(index.saturating_mul(4), value)
    }

    /// Copies bytes out, for a region read; a single aligned dword is loaded as one.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn read_bytes(&self, offset: usize, dst: &mut [u8]) -> Result<(), DmaError> {
        match <&mut [u8; 4]>::try_from(&mut *dst) {
            Ok(dword) if offset.is_multiple_of(4) => *dword = self.mapping.load_u32(offset)?.to_le_bytes(),
            _ => self.mapping.read_bytes(offset, dst)?,
        }
        Ok(())
    }

    /// Copies bytes in, for a region write; a single aligned dword is stored as one.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn write_bytes(&self, offset: usize, src: &[u8]) -> Result<(), DmaError> {
        match <[u8; 4]>::try_from(src) {
            Ok(dword) if offset.is_multiple_of(4) => {
                self.mapping.store_u32(offset, u32::from_le_bytes(dword))
            }
            _ => self.mapping.write_bytes(offset, src),
        }
    }

    /// Sets every byte to zero.
    pub fn zero(&self) {
        let zeroed = self.mapping.fill(0, self.mapping.len(), 0);
        debug_assert!(zeroed.is_ok(), "the whole mapping is inside of itself");
    }
}

/// A zeroed memfd that nobody can resize, and its mapping.
pub(crate) fn sealed_memory(name: &str, len: usize) -> io::Result<(OwnedFd, Mapping)> {
    let len = len
        .checked_next_multiple_of(page_size())
        .filter(|len| *len > 0)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "shared memory has at least one byte"))?;
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, len as u64)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    // Sealed against shrinking, so its pages cannot vanish: no guard needed.
    let mapping = Mapping::of_file(file.as_fd(), 0, len, true, page_size(), None)?;
    Ok((file, mapping))
}
