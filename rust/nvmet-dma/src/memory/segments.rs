//! A transfer's guest memory as a list of host ranges.
//!
//! What it may know: the snapshot that resolved the addresses, which it borrows, so the ranges cannot outlive it.

use std::ptr::NonNull;

use super::scratch::{SCRATCH_LEN, scratch};
use super::table::{NO_MAPPING, Piece};
use super::{Direction, Snapshot};
use crate::error::DmaError;
use crate::raw;

/// Bytes that are compared at a time.
const COMPARE_CHUNK: usize = 1024;

/// Room for the segments of one transfer, to be used again and again without allocating.
#[derive(Debug)]
pub struct SegmentBuf {
    iovecs: Vec<libc::iovec>,
    max_segments: usize,
    max_bytes: usize,
}

// SAFETY: what is left in `iovecs` between two uses is never dereferenced: `begin` clears it, and `Segments` is the
// only way to its pointers.
unsafe impl Send for SegmentBuf {}
// SAFETY: a shared reference gives no access to the pointers.
unsafe impl Sync for SegmentBuf {}

impl SegmentBuf {
    /// Room for `max_segments` segments and, over all, `max_bytes` bytes. Allocates once, here.
    #[must_use]
    pub fn new(max_segments: usize, max_bytes: usize) -> Self {
        Self { iovecs: Vec::with_capacity(max_segments), max_segments, max_bytes }
    }

    /// Starts a transfer; what was in the buffer is forgotten.
    #[inline]
    pub fn begin<'b>(&'b mut self, snapshot: &'b Snapshot, direction: Direction) -> SegmentBuilder<'b> {
        self.iovecs.clear();
        SegmentBuilder { buf: self, snapshot, direction, bytes: 0, last_mapping: NO_MAPPING }
    }
}

/// Collects the guest ranges of one transfer, in order.
#[derive(Debug)]
pub struct SegmentBuilder<'b> {
    buf: &'b mut SegmentBuf,
    snapshot: &'b Snapshot,
    direction: Direction,
    bytes: usize,
    last_mapping: u64,
}

impl<'b> SegmentBuilder<'b> {
    /// Adds a guest range. It is split where regions end, and joined to the one before where both are contiguous
    /// in host memory. An empty range adds nothing, wherever it is.
    ///
    /// # Errors
    ///
    /// [`DmaError::NotMapped`], [`DmaError::NotAccessible`] or [`DmaError::AccessDenied`] with the first address
    /// that is refused; [`DmaError::TooManySegments`], [`DmaError::TooLong`]. The transfer is then to be given up.
    #[inline]
    pub fn push(&mut self, iova: u64, len: usize) -> Result<(), DmaError> {
        self.check_room(len)?;
        let (snapshot, access) = (self.snapshot, self.direction.access());
        snapshot.table().pieces(iova, len, access, snapshot.hint(), |piece| self.append(piece))
    }

    /// Adds `len` bytes that are thrown away (SGL Bit Bucket descriptor, NVMe Base 2.0 §4.1.2.2).
    ///
    /// # Errors
    ///
    /// [`DmaError::WrongDirection`] for data from the guest: such a descriptor has no bytes then.
    /// [`DmaError::TooManySegments`], [`DmaError::TooLong`].
    pub fn push_bit_bucket(&mut self, len: usize) -> Result<(), DmaError> {
        if self.direction != Direction::ToGuest {
            return Err(DmaError::WrongDirection);
        }
        self.check_room(len)?;
        let host = scratch()?;
        let mut left = len;
        while left > 0 {
            let now = left.min(SCRATCH_LEN);
            self.append(Piece { host, len: now, mapping: NO_MAPPING })?;
            left -= now;
        }
        Ok(())
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are no bytes so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The transfer as it is now.
    #[inline]
    #[must_use]
    pub fn finish(self) -> Segments<'b> {
        let buf: &'b SegmentBuf = self.buf;
        Segments {
            iovecs: &buf.iovecs,
            skip: 0,
            len: self.bytes,
            snapshot: self.snapshot,
            direction: self.direction,
        }
    }

    #[inline]
    fn check_room(&self, len: usize) -> Result<(), DmaError> {
        let limit = self.buf.max_bytes;
        if len > limit - self.bytes { Err(DmaError::TooLong { limit }) } else { Ok(()) }
    }

    /// Adds a piece, or makes the last one longer if both lie in one mapping and touch.
    #[inline]
    fn append(&mut self, piece: Piece) -> Result<(), DmaError> {
        let limit = self.buf.max_segments;
        let iovecs = &mut self.buf.iovecs;
        if piece.mapping != NO_MAPPING
            && piece.mapping == self.last_mapping
            && let Some(last) = iovecs.last_mut()
            && last.iov_base.addr() + last.iov_len == piece.host.as_ptr().addr()
        {
            last.iov_len += piece.len;
        } else if iovecs.len() >= limit {
            return Err(DmaError::TooManySegments { limit });
        } else {
            iovecs.push(libc::iovec { iov_base: piece.host.as_ptr().cast(), iov_len: piece.len });
            self.last_mapping = piece.mapping;
        }
        self.bytes += piece.len;
        Ok(())
    }
}

/// The guest memory of one transfer, or a part of it. Cheap to copy.
///
/// The memory may change at any moment: nothing here gives references, every read is one copy.
#[derive(Debug, Clone, Copy)]
pub struct Segments<'b> {
    /// The segments that this view touches.
    iovecs: &'b [libc::iovec],
    /// Bytes of the first segment that are before the view.
    skip: usize,
    /// Bytes of the view.
    len: usize,
    snapshot: &'b Snapshot,
    direction: Direction,
}

impl<'b> Segments<'b> {
    /// Segments out of their parts, kept by the ring.
    ///
    /// # Safety
    ///
    /// `iovecs` are the pieces of segments of this snapshot and direction, and `len` is the sum of their lengths.
    pub(crate) unsafe fn from_parts(
        iovecs: &'b [libc::iovec],
        len: usize,
        snapshot: &'b Snapshot,
        direction: Direction,
    ) -> Self {
        Self { iovecs, skip: 0, len, snapshot, direction }
    }

    /// Bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of ranges that are contiguous in host memory.
    #[inline]
    #[must_use]
    pub fn count(&self) -> usize {
        self.iovecs.len()
    }

    /// Which way the data goes.
    #[inline]
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// What keeps the memory mapped: an operation that outlives this borrow holds a clone of it.
    #[inline]
    #[must_use]
    pub fn snapshot(&self) -> &'b Snapshot {
        self.snapshot
    }

    /// Whether base and length of every segment are multiples of `align`, a power of two (direct I/O).
    #[must_use]
    pub fn is_aligned(&self, align: usize) -> bool {
        let mask = align.wrapping_sub(1);
        self.pieces().all(|(host, len)| (host.as_ptr().addr() | len) & mask == 0)
    }

    /// The part from `offset` with `len` bytes, as for the rest of a short I/O.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn slice(&self, offset: usize, len: usize) -> Result<Self, DmaError> {
        self.check_range(offset, len)?;
        if len == 0 {
            return Ok(Self { iovecs: &[], skip: 0, len: 0, ..*self });
        }
        let mut before = self.skip + offset;
        let mut first = 0;
        while let Some(iovec) = self.iovecs.get(first)
            && before >= iovec.iov_len
        {
            before -= iovec.iov_len;
            first += 1;
        }
        let mut end = first;
        let mut covered = 0;
        while covered < before + len
            && let Some(iovec) = self.iovecs.get(end)
        {
            covered += iovec.iov_len;
            end += 1;
        }
        Ok(Self { iovecs: self.iovecs.get(first..end).unwrap_or(&[]), skip: before, len, ..*self })
    }

    /// The part from `offset` to the end.
    ///
    /// # Errors
    ///
    /// [`DmaError::OutOfBounds`].
    pub fn skip(&self, offset: usize) -> Result<Self, DmaError> {
        let len = self.len.checked_sub(offset).ok_or(DmaError::OutOfBounds {
            offset: offset as u64,
            len: 0,
            size: self.len as u64,
        })?;
        self.slice(offset, len)
    }

    /// Copies guest memory from offset `at` into `dst`, each byte once.
    ///
    /// # Errors
    ///
    /// [`DmaError::WrongDirection`], [`DmaError::OutOfBounds`]; [`DmaError::Poisoned`] if the bytes may not be the
    /// guest's.
    pub fn read_to(&self, at: usize, dst: &mut [u8]) -> Result<(), DmaError> {
        self.check_direction(Direction::FromGuest)?;
        let mut rest = dst;
        self.for_range(at, rest.len(), |host, len| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            // SAFETY: the snapshot keeps `host` valid for `len` bytes, the length of `part`; slices never lie in a
            // mapping of ours.
            unsafe { raw::copy_out(host.as_ptr(), part) };
        })?;
        self.check_poison()
    }

    /// Copies `src` into guest memory from offset `at`.
    ///
    /// # Errors
    ///
    /// [`DmaError::WrongDirection`], [`DmaError::OutOfBounds`].
    pub fn write_from(&self, at: usize, src: &[u8]) -> Result<(), DmaError> {
        self.check_direction(Direction::ToGuest)?;
        let mut rest = src;
        self.for_range(at, rest.len(), |host, len| {
            let (part, tail) = rest.split_at(len);
            rest = tail;
            // SAFETY: the snapshot keeps `host` valid for `len` bytes, the length of `part`, and the direction says
            // that it is mapped writable; slices never lie in a mapping of ours.
            unsafe { raw::copy_in(host.as_ptr(), part) };
        })
    }

    /// Fills all of it with one byte value.
    ///
    /// # Errors
    ///
    /// [`DmaError::WrongDirection`].
    pub fn fill(&self, byte: u8) -> Result<(), DmaError> {
        self.check_direction(Direction::ToGuest)?;
        self.for_range(0, self.len, |host, len| {
            // SAFETY: the snapshot keeps `host` valid for `len` bytes, the direction says that it is mapped writable.
            unsafe { raw::fill(host.as_ptr(), byte, len) };
        })
    }

    /// Whether guest memory from offset `at` equals `expected`.
    ///
    /// # Errors
    ///
    /// As [`Segments::read_to`].
    pub fn compare_with(&self, at: usize, expected: &[u8]) -> Result<bool, DmaError> {
        self.check_range(at, expected.len())?;
        let mut chunk = [0; COMPARE_CHUNK];
        let mut at = at;
        for part in expected.chunks(COMPARE_CHUNK) {
            let (copy, _) = chunk.split_at_mut(part.len());
            self.read_to(at, copy)?;
            if copy != part {
                return Ok(false);
            }
            at += part.len();
        }
        Ok(true)
    }

    /// The host address, if the view is one range, and not empty.
    #[inline]
    pub(crate) fn only_range(&self) -> Option<usize> {
        let [one] = self.iovecs else { return None };
        (self.len > 0).then(|| one.iov_base.addr() + self.skip)
    }

    /// The host ranges of this view, in order. Valid as long as a clone of the snapshot lives.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (NonNull<u8>, usize)> + use<'b> {
        let mut skip = self.skip;
        let mut left = self.len;
        self.iovecs.iter().filter_map(move |iovec| {
            let host = NonNull::new(iovec.iov_base.cast::<u8>())?;
            let now = (iovec.iov_len - skip).min(left);
            // SAFETY: `skip` is less than the segment's length: the view starts inside its first segment, and `skip`
            // is zero for the others.
            let host = unsafe { host.add(skip) };
            skip = 0;
            left -= now;
            Some((host, now))
        })
    }

    /// The segments as the kernel wants them, if the view starts and ends with whole segments (as what a builder
    /// made always does); otherwise use [`Segments::pieces`].
    pub(crate) fn iovecs(&self) -> Option<&'b [libc::iovec]> {
        let whole: usize = self.iovecs.iter().map(|iovec| iovec.iov_len).sum();
        (self.skip == 0 && whole == self.len).then_some(self.iovecs)
    }

    pub(crate) fn check_direction(&self, direction: Direction) -> Result<(), DmaError> {
        if self.direction == direction { Ok(()) } else { Err(DmaError::WrongDirection) }
    }

    pub(crate) fn check_poison(&self) -> Result<(), DmaError> {
        if self.snapshot.is_poisoned() { Err(DmaError::Poisoned) } else { Ok(()) }
    }

    fn check_range(&self, offset: usize, len: usize) -> Result<(), DmaError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(DmaError::OutOfBounds { offset: offset as u64, len: len as u64, size: self.len as u64 }),
        }
    }

    /// Calls `each` with the host ranges of a part of the view; their lengths add up to `len`.
    #[inline]
    fn for_range(
        &self,
        at: usize,
        len: usize,
        mut each: impl FnMut(NonNull<u8>, usize),
    ) -> Result<(), DmaError> {
        for (host, len) in self.slice(at, len)?.pieces() {
            each(host, len);
        }
        Ok(())
    }
}
