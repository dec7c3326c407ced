//! A fixed range of guest memory that is used for long: submission and completion rings, shadow doorbells.
//!
//! What it may know: entries of 64 bytes, entries of four dwords, dwords. What it must not: queues, phases, tails.

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use super::{Access, Snapshot};
use crate::error::DmaError;
use crate::raw;

/// Part of a window that is contiguous in host memory.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// Offset of its first byte in the window.
    start: usize,
    host: NonNull<u8>,
    len: usize,
}

/// A range of guest memory, resolved once. It holds a clone of its snapshot, so it stays valid, and it keeps
/// unmapped regions from retiring: when the table changes, its owner makes it anew ([`Window::rebind`]) or drops it.
#[derive(Debug)]
pub struct Window {
    snapshot: Snapshot,
    iova: u64,
    len: usize,
    access: Access,
    /// The first part, nearly always the only one.
    first: Part,
    rest: Box<[Part]>,
}

impl Window {
    pub(super) fn new(snapshot: &Snapshot, iova: u64, len: usize, access: Access) -> Result<Self, DmaError> {
        if !iova.is_multiple_of(4) {
            return Err(DmaError::Misaligned { at: iova });
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut start = 0_usize;
        let mut last_mapping = None;
        snapshot.table().pieces(iova, len, access, snapshot.hint(), |piece| {
            let address = piece.host.as_ptr().addr();
            if !address.is_multiple_of(4) || !start.is_multiple_of(4) {
                return Err(DmaError::Misaligned { at: iova.wrapping_add(start as u64) });
            }
            match parts.last_mut() {
                Some(last)
                    if last_mapping == Some(piece.mapping)
                        && last.host.as_ptr().addr() + last.len == address =>
                {
                    last.len += piece.len;
                }
                _ => parts.push(Part { start, host: piece.host, len: piece.len }),
            }
            last_mapping = Some(piece.mapping);
            start += piece.len;
            Ok(())
        })?;
        let mut parts = parts.into_iter();
        let first = parts.next().unwrap_or(Part { start: 0, host: NonNull::dangling(), len: 0 });
        let rest = parts.collect();
        Ok(Self { snapshot: snapshot.clone(), iova, len, access, first, rest })
    }

    /// The same guest range in another snapshot. This window stays as it was if that fails.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::window`].
    pub fn rebind(&mut self, snapshot: &Snapshot) -> Result<(), DmaError> {
        *self = Self::new(snapshot, self.iova, self.len, self.access)?;
        Ok(())
    }

    /// Length in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Guest address of the first byte.
    #[inline]
    #[must_use]
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// Generation of the table that it was resolved with.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.snapshot.generation()
    }

    /// What keeps the memory mapped.
    #[inline]
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Copies bytes out, each once.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`], [`DmaError::WrongDirection`], [`DmaError::Poisoned`].
    #[inline]
    pub fn read_bytes(&self, offset: usize, dst: &mut [u8]) -> Result<(), DmaError> {
        self.check_read(offset, dst.len())?;
        if let Some(host) = self.first_part(offset, dst.len()) {
            // SAFETY: the snapshot keeps the range valid; slices never lie in a mapping of ours.
            unsafe { raw::copy_out(host.as_ptr(), dst) };
            return self.check_poison();
        }
        let mut rest = dst;
        self.for_range(offset, rest.len(), |host, len| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            // SAFETY: the snapshot keeps `host` valid for `len` bytes, the length of `part`; slices never lie in a
            // mapping of ours.
            unsafe { raw::copy_out(host.as_ptr(), part) };
        });
        self.check_poison()
    }

    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`], [`DmaError::WrongDirection`].
    pub fn write_bytes(&self, offset: usize, src: &[u8]) -> Result<(), DmaError> {
        self.check_write(offset, src.len())?;
        let mut rest = src;
        self.for_range(offset, rest.len(), |host, len| {
            let (part, tail) = rest.split_at(len);
            rest = tail;
            // SAFETY: the snapshot keeps `host` valid for `len` bytes, the length of `part`, and `check_write` says
            // that it is mapped writable; slices never lie in a mapping of ours.
            unsafe { raw::copy_in(host.as_ptr(), part) };
        });
        Ok(())
    }

    /// One copy of a 64-byte entry (a submission queue entry).
    ///
    /// # Errors
    ///
    /// As [`Window::read_bytes`].
    #[inline]
    pub fn read_entry64(&self, offset: usize) -> Result<[u8; 64], DmaError> {
        self.check_read(offset, 64)?;
        let mut entry = [0; 64];
        if let Some(host) = self.first_part(offset, 64) {
            // SAFETY: the snapshot keeps the range valid; a local array does not lie in it.
            unsafe { raw::copy_out(host.as_ptr(), &mut entry) };
            self.check_poison()?;
        } else {
            self.read_bytes(offset, &mut entry)?;
        }
        Ok(entry)
    }

    /// Writes a completion queue entry of four dwords: dwords 0 to 2, then, with release, dword 3, which has the
    /// Phase Tag (or dwords 2 and 3 at once). `offset` is a multiple of 4.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`], [`DmaError::WrongDirection`], [`DmaError::Misaligned`].
    #[inline]
    pub fn write_cqe(&self, offset: usize, dwords: [u32; 4]) -> Result<(), DmaError> {
        self.check_write(offset, 16)?;
        if let Some(host) = self.first_part(offset, 16)
            && host.addr().get().is_multiple_of(8)
        {
            let [dw0, dw1, dw2, dw3] = dwords.map(u64::from);
            // SAFETY: the snapshot keeps the entry valid, it is aligned, and the window is for writing, so it is
            // mapped writable.
            unsafe {
                raw::store_u64(host.as_ptr(), dw1 << 32 | dw0, Ordering::Relaxed);
                raw::store_u64(host.add(8).as_ptr(), dw3 << 32 | dw2, Ordering::Release);
            }
            return Ok(());
        }
        for (index, dword) in dwords.into_iter().enumerate() {
            let ordering = if index == 3 { Ordering::Release } else { Ordering::Relaxed };
            self.store_dword(offset + index * 4, dword, ordering)?;
        }
        Ok(())
    }

    /// Loads a little-endian dword (acquire). `offset` is a multiple of 4.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`], [`DmaError::WrongDirection`], [`DmaError::Misaligned`], [`DmaError::Poisoned`].
    #[inline]
    pub fn load_u32(&self, offset: usize) -> Result<u32, DmaError> {
        self.check_read(offset, 4)?;
        let host = self.dword(offset)?;
        // SAFETY: the snapshot keeps the dword valid; `dword` checked that it is aligned.
        let value = unsafe { raw::load_u32(host.as_ptr()) };
        self.check_poison()?;
        Ok(value)
    }

    /// Stores a dword, little-endian (release). `offset` is a multiple of 4.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`], [`DmaError::WrongDirection`], [`DmaError::Misaligned`].
    #[inline]
    pub fn store_u32(&self, offset: usize, value: u32) -> Result<(), DmaError> {
        self.check_write(offset, 4)?;
        self.store_dword(offset, value, Ordering::Release)
    }

    /// Asks for the cache line at `offset`; does nothing outside of the window.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        if let Some(host) = self.first_part(offset, 1) {
            raw::prefetch(host.as_ptr());
        }
    }

    #[inline]
    fn store_dword(&self, offset: usize, value: u32, ordering: Ordering) -> Result<(), DmaError> {
        let host = self.dword(offset)?;
        // SAFETY: the snapshot keeps the dword valid, `dword` checked that it is aligned, and the callers that the
        // window is for writing, so it is mapped writable.
        unsafe { raw::store_u32(host.as_ptr(), value, ordering) };
        Ok(())
    }

    /// Address of `len` bytes, if they lie in the first part.
    #[inline]
    fn first_part(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        if offset.checked_add(len)? > self.first.len {
            return None;
        }
        // SAFETY: the offset is inside the part, which lies in one mapping.
        Some(unsafe { self.first.host.add(offset) })
    }

    /// Address of an aligned dword: every part starts at a multiple of 4, in the window and in host memory, and all
    /// but the last have a length that is one, so a dword never lies across two.
    #[inline]
    fn dword(&self, offset: usize) -> Result<NonNull<u8>, DmaError> {
        if !offset.is_multiple_of(4) {
            return Err(DmaError::Misaligned { at: offset as u64 });
        }
        if let Some(host) = self.first_part(offset, 4) {
            return Ok(host);
        }
        let out = DmaError::OutOfBounds { offset: offset as u64, len: 4, size: self.len as u64 };
        let part = self.rest.iter().rev().find(|part| part.start <= offset).ok_or(out)?;
        let inside = offset - part.start;
        if inside + 4 > part.len {
            return Err(out);
        }
        // SAFETY: the dword is inside the part, which lies in one mapping.
        Ok(unsafe { part.host.add(inside) })
    }

    #[inline]
    fn check_read(&self, offset: usize, len: usize) -> Result<(), DmaError> {
        if !self.access.read {
            return Err(DmaError::WrongDirection);
        }
        self.check_range(offset, len)
    }

    #[inline]
    fn check_write(&self, offset: usize, len: usize) -> Result<(), DmaError> {
        if !self.access.write {
            return Err(DmaError::WrongDirection);
        }
        self.check_range(offset, len)
    }

    #[inline]
    fn check_range(&self, offset: usize, len: usize) -> Result<(), DmaError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(DmaError::OutOfBounds { offset: offset as u64, len: len as u64, size: self.len as u64 }),
        }
    }

    #[inline]
    fn check_poison(&self) -> Result<(), DmaError> {
        if self.snapshot.is_poisoned() { Err(DmaError::Poisoned) } else { Ok(()) }
    }

    /// Calls `each` with the host ranges of a part that is inside; their lengths add up to `len`.
    #[inline]
    fn for_range(&self, offset: usize, len: usize, mut each: impl FnMut(NonNull<u8>, usize)) {
        let end = offset + len;
        for part in std::iter::once(&self.first).chain(self.rest.iter()) {
            let from = offset.max(part.start);
            let to = end.min(part.start + part.len);
            if from < to {
                // SAFETY: `from` is inside the part, which lies in one mapping.
                each(unsafe { part.host.add(from - part.start) }, to - from);
            }
        }
    }
}
