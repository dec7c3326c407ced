//! A page-aligned buffer of our own, for bounce I/O.

use std::alloc::{self, Layout};
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Alignment in bytes: enough for direct I/O to any device.
pub const ALIGNMENT: usize = 4096;

/// A zeroed heap buffer that starts at a page.
#[derive(Debug)]
pub struct AlignedBuf {
    base: NonNull<u8>,
    len: usize,
    layout: Layout,
}

// SAFETY: the buffer is owned like a `Box<[u8]>`.
unsafe impl Send for AlignedBuf {}
// SAFETY: as above, a shared reference only gives shared slices.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// `len` zeroed bytes.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`; `InvalidInput` for a length that no buffer can have.
    pub fn new(len: usize) -> io::Result<Self> {
        // At least one byte, so that there is always an allocation to free.
        let layout = Layout::from_size_align(len.max(1), ALIGNMENT)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc::alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len, layout })
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the allocation has at least that many initialised bytes, and the borrow is ours.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { alloc::dealloc(self.base.as_ptr(), self.layout) };
    }
}
