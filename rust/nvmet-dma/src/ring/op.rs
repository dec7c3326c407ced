//! What a ring is asked for, and why it may refuse.
//!
//! May know: files, offsets, buffers. Must not know: how the kernel is asked.

use crate::aligned::AlignedBuf;
use crate::memory::Segments;

/// Most segments of one transfer (`UIO_MAXIOV`).
pub const MAX_SEGMENTS: usize = 1024;
/// Most bytes of one transfer: the kernel moves less than 2 GiB at a time, and a result is an `i32`.
pub const MAX_TRANSFER: usize = 1 << 30;
/// Most operations of one ring.
pub const MAX_ENTRIES: u32 = 16384;

/// One operation on the ring's file. Offsets and lengths in bytes.
#[derive(Debug)]
pub enum RingOp<'a> {
    /// Reads into guest memory.
    Read {
        /// Offset in the file.
        offset: u64,
        /// Where to, and how much; [`Direction::ToGuest`](crate::Direction::ToGuest).
        data: Segments<'a>,
    },
    /// Writes guest memory.
    Write {
        /// Offset in the file.
        offset: u64,
        /// What; [`Direction::FromGuest`](crate::Direction::FromGuest).
        data: Segments<'a>,
        /// `RWF_DSYNC`: done when the data is on the medium.
        dsync: bool,
    },
    /// Reads into the front of a buffer, which comes back with the result.
    ReadBuf {
        /// Offset in the file.
        offset: u64,
        /// The buffer.
        buf: AlignedBuf,
        /// Bytes.
        len: usize,
    },
    /// Writes the front of a buffer, which comes back with the result.
    WriteBuf {
        /// Offset in the file.
        offset: u64,
        /// The buffer.
        buf: AlignedBuf,
        /// Bytes.
        len: usize,
        /// `RWF_DSYNC`: done when the data is on the medium.
        dsync: bool,
    },
    /// `fdatasync`.
    Fsync,
    /// `fallocate`.
    Fallocate {
        /// `FALLOC_FL_*`.
        mode: rustix::fs::FallocateFlags,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

/// Why an operation was not taken. A buffer that came with it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// As many operations as the ring has entries are in flight.
    #[error("the ring is full")]
    Full,
    /// More segments than [`MAX_SEGMENTS`].
    #[error("more than {MAX_SEGMENTS} segments")]
    TooManySegments,
    /// More bytes than [`MAX_TRANSFER`], or than the buffer has.
    #[error("more than {MAX_TRANSFER} bytes, or than the buffer has")]
    TooLong,
    /// The segments are for the other direction.
    #[error("the segments are for the other direction")]
    WrongDirection,
}
