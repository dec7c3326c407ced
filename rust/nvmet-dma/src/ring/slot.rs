//! One operation in flight: what it owns, and its submission entry.
//!
//! May know: iovecs and entries. Must not know: the rings.

use std::ptr;

use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{opcode, squeue};

use super::{MAX_SEGMENTS, MAX_TRANSFER, PushError, RingOp, held};
use crate::aligned::AlignedBuf;
use crate::memory::{Direction, Segments, Snapshot};

/// The ring's file: the only one that is registered.
const FILE: Fixed = Fixed(0);

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// On the free list.
    Idle,
    Read,
    Write {
        dsync: bool,
    },
    Fsync,
    Fallocate {
        mode: i32,
        len: u64,
    },
}

/// What one operation owns until its completion.
#[derive(Debug)]
pub(super) struct Slot {
    kind: Kind,
    tag: u64,
    /// Where the next byte goes in the file.
    offset: u64,
    /// What is still to be moved starts here.
    iovecs: Vec<libc::iovec>,
    /// Iovecs that are done with.
    first: usize,
    /// Bytes that were moved.
    done: usize,
    /// Bytes still to be moved.
    left: usize,
    /// Keeps guest memory mapped.
    pin: Option<Snapshot>,
    buf: Option<AlignedBuf>,
    /// The registered buffer that the only range lies in.
    fixed: Option<u16>,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            kind: Kind::Idle,
            tag: 0,
            offset: 0,
            iovecs: Vec::new(),
            first: 0,
            done: 0,
            left: 0,
            pin: None,
            buf: None,
            fixed: None,
        }
    }
}

impl Slot {
    /// The registered buffer in use.
    #[inline]
    pub(super) fn buffer(&self) -> Option<u16> {
        self.fixed
    }

    /// The tag, while an operation is loaded.
    pub(super) fn tag(&self) -> Option<u64> {
        (!matches!(self.kind, Kind::Idle)).then_some(self.tag)
    }

    /// Takes an operation over; `fixed` is the registered buffer that its segments are one range of, if there is one.
    /// The slot is not in flight. On error it stays empty.
    #[inline]
    pub(super) fn load(&mut self, op: RingOp<'_>, tag: u64, fixed: Option<u16>) -> Result<(), PushError> {
        self.fixed = fixed;
        self.first = 0;
        self.done = 0;
        self.left = 0;
        self.iovecs.clear();
        match op {
            RingOp::Read { offset, data } => {
                self.load_segments(&data, Direction::ToGuest)?;
                self.offset = offset;
                self.kind = Kind::Read;
            }
            RingOp::Write { offset, data, dsync } => {
                self.load_segments(&data, Direction::FromGuest)?;
                self.offset = offset;
                self.kind = Kind::Write { dsync };
            }
            RingOp::ReadBuf { offset, buf, len } => {
                self.load_buf(buf, len)?;
                self.offset = offset;
                self.kind = Kind::Read;
            }
            RingOp::WriteBuf { offset, buf, len, dsync } => {
                self.load_buf(buf, len)?;
                self.offset = offset;
                self.kind = Kind::Write { dsync };
            }
            RingOp::Fsync => {
                self.offset = 0;
                self.kind = Kind::Fsync;
            }
            RingOp::Fallocate { mode, offset, len } => {
                self.offset = offset;
                self.kind = Kind::Fallocate { mode: mode.bits() as i32, len };
            }
        }
        self.tag = tag;
        Ok(())
    }

    #[inline]
    fn load_segments(&mut self, data: &Segments<'_>, direction: Direction) -> Result<(), PushError> {
        if data.direction() != direction {
            return Err(PushError::WrongDirection);
        }
        if data.count() > MAX_SEGMENTS {
            return Err(PushError::TooManySegments);
        }
        if data.len() > MAX_TRANSFER {
            return Err(PushError::TooLong);
        }
        held::copy_iovecs(data, &mut self.iovecs);
        self.left = data.len();
        self.pin = Some(data.snapshot().clone());
        Ok(())
    }

    fn load_buf(&mut self, mut buf: AlignedBuf, len: usize) -> Result<(), PushError> {
        if len > MAX_TRANSFER || len > buf.len() {
            return Err(PushError::TooLong);
        }
        self.iovecs.push(libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: len });
        self.left = len;
        self.buf = Some(buf);
        Ok(())
    }

    /// Takes the result of a step in. True if the transfer goes on with [`Slot::entry`].
    #[inline]
    pub(super) fn advance(&mut self, result: i32) -> bool {
        let Ok(moved) = usize::try_from(result) else { return false };
        if !matches!(self.kind, Kind::Read | Kind::Write { .. }) {
            return false;
        }
        let moved = moved.min(self.left);
        self.done += moved;
        self.left -= moved;
        if self.left == 0 || moved == 0 {
            return false;
        }
        self.offset = self.offset.saturating_add(moved as u64);
        self.consume(moved);
        true
    }

    #[cold]
    fn consume(&mut self, mut moved: usize) {
        while let Some(iovec) = self.iovecs.get_mut(self.first) {
            if moved < iovec.iov_len {
                iovec.iov_base = iovec.iov_base.cast::<u8>().wrapping_add(moved).cast();
                iovec.iov_len -= moved;
                return;
            }
            moved -= iovec.iov_len;
            self.first += 1;
        }
    }

    /// Empties the slot: tag, result as the ring's user gets it, and buffer.
    #[inline]
    pub(super) fn finish(&mut self, result: i32) -> (u64, i32, Option<AlignedBuf>) {
        // At most `MAX_TRANSFER`.
        let result = if result < 0 { result } else { self.done as i32 };
        self.kind = Kind::Idle;
        self.pin = None;
        (self.tag, result, self.buf.take())
    }

    /// Empties a slot that did not become an operation.
    pub(super) fn unload(&mut self) {
        self.kind = Kind::Idle;
        self.pin = None;
        self.buf = None;
    }

    /// The submission entry for what is left to do. It points into the slot.
    #[inline]
    pub(super) fn entry(&self) -> squeue::Entry {
        let iovecs = self.iovecs.get(self.first..).unwrap_or(&[]);
        match (self.kind, iovecs) {
            (Kind::Idle, _) => opcode::Nop::new().build(),
            (Kind::Read, [one]) if let Some(buffer) = self.fixed => {
                opcode::ReadFixed::new(FILE, one.iov_base.cast(), one.iov_len as u32, buffer)
                    .offset(self.offset)
                    .build()
            }
            (Kind::Write { dsync }, [one]) if let Some(buffer) = self.fixed => {
                opcode::WriteFixed::new(FILE, one.iov_base.cast(), one.iov_len as u32, buffer)
                    .offset(self.offset)
                    .rw_flags(rw_flags(dsync))
                    .build()
            }
            // One range needs no vector that the kernel would have to fetch. Its length is at most `MAX_TRANSFER`.
            (Kind::Read, [one]) => {
                opcode::Read::new(FILE, one.iov_base.cast(), one.iov_len as u32).offset(self.offset).build()
            }
            (Kind::Read, _) => {
                opcode::Readv::new(FILE, vector(iovecs), iovecs.len() as u32).offset(self.offset).build()
            }
            (Kind::Write { dsync }, [one]) => {
                opcode::Write::new(FILE, one.iov_base.cast(), one.iov_len as u32)
                    .offset(self.offset)
                    .rw_flags(rw_flags(dsync))
                    .build()
            }
            (Kind::Write { dsync }, _) => opcode::Writev::new(FILE, vector(iovecs), iovecs.len() as u32)
                .offset(self.offset)
                .rw_flags(rw_flags(dsync))
                .build(),
            (Kind::Fsync, _) => opcode::Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build(),
            (Kind::Fallocate { mode, len }, _) => {
                opcode::Fallocate::new(FILE, len).offset(self.offset).mode(mode).build()
            }
        }
    }
}

#[inline]
fn vector(iovecs: &[libc::iovec]) -> *const libc::iovec {
    if iovecs.is_empty() { ptr::null() } else { iovecs.as_ptr() }
}

#[inline]
fn rw_flags(dsync: bool) -> i32 {
    if dsync { libc::RWF_DSYNC } else { 0 }
}
