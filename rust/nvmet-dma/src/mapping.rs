//! An owned `mmap`: base, length, and bounds-checked access to its bytes.
//!
//! The one type that owns mapped memory; guest regions, the doorbell page, shared host memory and the RAM arena are
//! all made of it. What it may know: a file, a range, a protection. It never hands out a reference to its bytes.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::error::DmaError;
use crate::{raw, sigbus};

/// A mapping that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    id: u64,
    base: NonNull<u8>,
    len: usize,
    /// `len`, rounded up to whole pages of the file: what the kernel has mapped.
    mapped: usize,
    writable: bool,
    /// Declared before `poison`: the guard's entry points to it.
    guard: Option<sigbus::Registration>,
    poison: Option<Arc<AtomicBool>>,
}

// SAFETY: the memory belongs to the process, not to a thread, and every access goes through raw copies and atomics
// that tolerate concurrent access (SAFETY.md, "Copies").
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives no references to the bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `file` at `offset` (a multiple of the page size), shared.
    ///
    /// With `poison`, the SIGBUS guard watches the mapping: where the file has vanished it puts zero pages of
    /// `page_size` bytes and sets the flag. `page_size` is that of the file (hugetlbfs has larger ones).
    pub(crate) fn of_file(
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        writable: bool,
        page_size: usize,
        poison: Option<Arc<AtomicBool>>,
    ) -> Result<Self, Errno> {
        let prot = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a null hint lets the kernel choose free addresses, so no other memory is touched.
        let base = unsafe {
            rustix::mm::mmap(ptr::null_mut(), len, prot, MapFlags::SHARED | MapFlags::NORESERVE, file, offset)
        }?;
        let mapped = len.next_multiple_of(page_size);
        let mut mapping = Self::own(base, len, mapped, writable)?;
        mapping.guard = poison.as_ref().map(|flag| {
            // SAFETY: the mapping is ours, and its drop removes the registration before unmapping it and before
            // letting go of the flag.
            unsafe { sigbus::Registration::new(mapping.base.as_ptr().addr(), mapped, page_size, flag) }
        });
        mapping.poison = poison;
        Ok(mapping)
    }

    /// Maps `len` bytes of private zeroed memory, of which the kernel reserves nothing in advance.
    pub(crate) fn anonymous(len: usize) -> Result<Self, Errno> {
        // SAFETY: a null hint lets the kernel choose free addresses, so no other memory is touched.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        Self::own(base, len, len.next_multiple_of(page_size()), true)
    }

    fn own(base: *mut std::ffi::c_void, len: usize, mapped: usize, writable: bool) -> Result<Self, Errno> {
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let mapping = Self { id, base, len, mapped, writable, guard: None, poison: None };
        // A guest's memory and data have no place in our core dumps; a refusal changes nothing else.
        let _ = mapping.advise(0, len, Advice::LinuxDontDump);
        Ok(mapping)
    }

    /// Unique in the process; never used again.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// First byte. The pointer is valid for `len()` bytes as long as the mapping lives.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether the guard had to replace pages of this mapping's owner.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poison.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// The address of `len` bytes at `offset`, if they are inside.
    #[inline]
    pub(crate) fn at(&self, offset: usize, len: usize) -> Result<*mut u8, DmaError> {
        match offset.checked_add(len) {
            // SAFETY: the offset is within the mapping, or one past its end for an empty range.
            Some(end) if end <= self.len => Ok(unsafe { self.base.as_ptr().add(offset) }),
            _ => Err(DmaError::OutOfBounds { offset: offset as u64, len: len as u64, size: self.len as u64 }),
        }
    }

    /// The address of a dword at `offset`, which must be a multiple of 4.
    #[inline]
    fn dword(&self, offset: usize) -> Result<*mut u8, DmaError> {
        if !offset.is_multiple_of(4) {
            return Err(DmaError::Misaligned { at: offset as u64 });
        }
        self.at(offset, 4)
    }

    #[inline]
    pub(crate) fn check_writable(&self) -> Result<(), DmaError> {
        if self.writable { Ok(()) } else { Err(DmaError::WrongDirection) }
    }

    /// Copies bytes out.
    #[inline]
    pub(crate) fn read_bytes(&self, offset: usize, dst: &mut [u8]) -> Result<(), DmaError> {
        let src = self.at(offset, dst.len())?;
        // SAFETY: `at` checked the range; Rust slices never lie in a mapping of ours, so they do not overlap.
        unsafe { raw::copy_out(src, dst) };
        Ok(())
    }

    /// Copies bytes in.
    #[inline]
    pub(crate) fn write_bytes(&self, offset: usize, src: &[u8]) -> Result<(), DmaError> {
        self.check_writable()?;
        let dst = self.at(offset, src.len())?;
        // SAFETY: `at` checked the range, the mapping is writable; slices never lie in a mapping of ours.
        unsafe { raw::copy_in(dst, src) };
        Ok(())
    }

    /// Fills a range with one byte value.
    pub(crate) fn fill(&self, offset: usize, len: usize, byte: u8) -> Result<(), DmaError> {
        self.check_writable()?;
        let dst = self.at(offset, len)?;
        // SAFETY: `at` checked the range, the mapping is writable.
        unsafe { raw::fill(dst, byte, len) };
        Ok(())
    }

    /// Loads a dword (acquire).
    #[inline]
    pub(crate) fn load_u32(&self, offset: usize) -> Result<u32, DmaError> {
        let src = self.dword(offset)?;
        // SAFETY: `dword` checked range and alignment (the base is page aligned).
        Ok(unsafe { raw::load_u32(src) })
    }

    /// Stores a dword (release).
    #[inline]
    pub(crate) fn store_u32(&self, offset: usize, value: u32) -> Result<(), DmaError> {
        self.check_writable()?;
        let dst = self.dword(offset)?;
        // SAFETY: `dword` checked range and alignment (the base is page aligned), the mapping is writable.
        unsafe { raw::store_u32(dst, value, Ordering::Release) };
        Ok(())
    }

    /// Reads one byte, for the fault that it may be.
    #[inline]
    pub(crate) fn touch(&self, offset: usize) -> Result<(), DmaError> {
        let at = self.at(offset, 1)?;
        // SAFETY: `at` checked the range.
        unsafe { raw::touch(at) };
        Ok(())
    }

    /// How many of the pages from `offset` on, as many as `pages` has bytes, are in memory (`mincore`).
    pub(crate) fn resident(&self, offset: usize, pages: &mut [u8]) -> Result<usize, Errno> {
        let len = pages.len().checked_mul(page_size()).ok_or(Errno::INVAL)?;
        let at = self.at(offset, len).map_err(|_| Errno::INVAL)?;
        // SAFETY: the call reads page tables and writes one byte a page into `pages`, which has that many.
        let result = unsafe { libc::mincore(at.cast(), len, pages.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error()
                .raw_os_error()
                .map_or(Errno::IO, Errno::from_raw_os_error));
        }
        Ok(pages.iter().filter(|page| **page & 1 == 1).count())
    }

    /// Gives advice that does not change what the bytes are, for a page-aligned range.
    pub(crate) fn advise(&self, offset: usize, len: usize, advice: Advice) -> Result<(), Errno> {
        let at = self.at(offset, len).map_err(|_| Errno::INVAL)?;
        // SAFETY: the range is ours.
        unsafe { rustix::mm::madvise(at.cast(), len, advice) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        drop(self.guard.take());
        // SAFETY: the mapping is ours and nobody can reach it any more: every user holds it by reference or `Arc`.
        // A failure could only mean a wrong range and leaves the mapping in place.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.mapped) };
        debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
    }
}

/// Size of an ordinary page in bytes.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}
