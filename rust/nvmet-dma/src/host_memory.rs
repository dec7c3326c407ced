//! Memory of an NVMe host (driver) of ours: what it shares with the controller, and what the controller shares.
//!
//! What it may know: bytes, dwords, completion queue entries as four dwords. What it must not: queues.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::doorbell::sealed_memory;
use crate::error::DmaError;
use crate::mapping::Mapping;
use crate::memory::file::inspect;
use crate::sigbus;

/// Memory that is made here and shared by descriptor.
#[derive(Debug)]
pub struct SharedMemory {
    mapping: Mapping,
    file: OwnedFd,
}

impl SharedMemory {
    /// At least `len` zeroed bytes, rounded up to whole pages; the size is sealed.
    ///
    /// # Errors
    ///
    /// Those of `memfd_create`, `ftruncate` and `mmap`; `InvalidInput` for a length of zero.
    pub fn new(len: usize) -> io::Result<Self> {
        let (file, mapping) = sealed_memory("nvmet-memory", len)?;
        Ok(Self { mapping, file })
    }

    /// The descriptor to share.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A range of a file that somebody else made, such as the doorbell page of a server.
#[derive(Debug)]
pub struct MappedArea {
    mapping: Mapping,
}

impl MappedArea {
    /// Maps `len` bytes of `fd` at `offset` for reading and writing; `offset` is a multiple of the page size.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the range is empty, starts inside of a page or is not inside of the file, or if the descriptor
    /// is not one of memory; those of `fstat` and `mmap`.
    pub fn new(fd: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        if len == 0 {
            return Err(DmaError::EmptyRegion { iova: 0 }.into());
        }
        let facts = inspect(fd, true)?;
        if offset.checked_add(len as u64).is_none_or(|end| end > facts.size) {
            return Err(DmaError::FileTooShort { offset, size: len as u64, file_size: facts.size }.into());
        }
        sigbus::install();
        let poison = Some(Arc::new(AtomicBool::new(false)));
        Ok(Self { mapping: Mapping::of_file(fd, offset, len, true, facts.page_size, poison)? })
    }

    /// Whether the file has vanished under the mapping, at least in part.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.mapping.is_poisoned()
    }
}

macro_rules! accessors {
    ($type:ty) => {
        impl $type {
            /// Length in bytes.
            #[must_use]
            pub fn len(&self) -> usize {
                self.mapping.len()
            }

            /// Always `false`: there is at least one byte.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.mapping.len() == 0
            }

            /// Copies bytes out.
            ///
            /// # Errors
            ///
            /// [`DmaError::OutOfBounds`].
            #[inline]
            pub fn read_bytes(&self, offset: usize, dst: &mut [u8]) -> Result<(), DmaError> {
                self.mapping.read_bytes(offset, dst)
            }

            /// Copies bytes in.
            ///
            /// # Errors
            ///
            /// [`DmaError::OutOfBounds`].
            #[inline]
            pub fn write_bytes(&self, offset: usize, src: &[u8]) -> Result<(), DmaError> {
                self.mapping.write_bytes(offset, src)
            }

            /// Fills a range with one byte value.
            ///
            /// # Errors
            ///
            /// [`DmaError::OutOfBounds`].
            pub fn fill(&self, offset: usize, len: usize, byte: u8) -> Result<(), DmaError> {
                self.mapping.fill(offset, len, byte)
            }

            /// Loads a little-endian dword (acquire).
            ///
            /// # Errors
            ///
            /// [`DmaError::OutOfBounds`]; [`DmaError::Misaligned`] if `offset` is no multiple of 4.
            #[inline]
            pub fn load_u32(&self, offset: usize) -> Result<u32, DmaError> {
                self.mapping.load_u32(offset)
            }

            /// Stores a dword, little-endian (release).
            ///
            /// # Errors
            ///
            /// As [`Self::load_u32`].
            #[inline]
            pub fn store_u32(&self, offset: usize, value: u32) -> Result<(), DmaError> {
                self.mapping.store_u32(offset, value)
            }

            /// Reads a completion queue entry of four dwords: first, with acquire, dword 3, which has the Phase Tag.
            /// If the phase says that the entry is new, the other dwords are those of the same entry.
            ///
            /// # Errors
            ///
            /// As [`Self::load_u32`].
            #[inline]
            pub fn read_cqe(&self, offset: usize) -> Result<[u32; 4], DmaError> {
                let last = self.mapping.load_u32(offset.saturating_add(12))?;
                let mut entry = [0, 0, 0, last];
                for (index, dword) in entry.iter_mut().take(3).enumerate() {
                    *dword = self.mapping.load_u32(offset + index * 4)?;
                }
                Ok(entry)
            }
        }
    };
}

accessors!(SharedMemory);
accessors!(MappedArea);
