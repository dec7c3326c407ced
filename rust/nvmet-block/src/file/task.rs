//! One operation of a file queue, as a chain of steps on the ring.
//!
//! May know: what a ring's result means for the operation. Must not know: the ring, or other operations.

use std::sync::atomic::Ordering;

use nvmet_dma::AlignedBuf;
use nvmet_dma::ring::{Held, RingOp};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::Shared;
use super::memory::Punching;
use crate::error::{Direction, IoError};

/// Bytes that one bounce buffer holds: longer operations take several steps.
pub(super) const PIECE: usize = 128 * 1024;

pub(super) const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);

/// What an operation does through buffers of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounce {
    Read,
    Write { fua: bool },
    Compare,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    /// The kernel moves guest memory; `len` bytes.
    Direct { direction: Direction, len: usize },
    /// Piece by piece through a buffer; `done` of `len` bytes so far.
    Bounced { kind: Bounce, offset: u64, len: usize, done: usize },
    /// The range loses its storage; on failure as `Zero`, if `zeroes` are promised.
    Punch { offset: u64, len: u64, zeroes: bool, fua: bool },
    /// The range keeps its storage, and reads as zeroes.
    ZeroRange { offset: u64, len: u64, fua: bool },
    /// Zeroes are written, piece by piece.
    WriteZeroes { offset: u64, left: u64, fua: bool },
    /// What `RWF_DSYNC` does for writes.
    Sync,
}

/// What became of a step.
#[derive(Debug)]
pub(super) enum Progress {
    Done(Result<(), IoError>),
    /// [`Task::work`] is to be started.
    Again,
}

/// One operation.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) tag: u64,
    pub(super) active: bool,
    pub(super) cancelled: bool,
    pub(super) work: Work,
    /// Guest memory, for `Bounced`.
    pub(super) held: Held,
    /// Kept between two pieces.
    pub(super) buf: Option<AlignedBuf>,
    /// While pages of a memory file go.
    pub(super) punching: Option<Punching>,
}

impl Task {
    pub(super) fn new() -> Self {
        Self {
            tag: 0,
            active: false,
            cancelled: false,
            work: Work::Sync,
            held: Held::default(),
            buf: None,
            punching: None,
        }
    }

    /// Whether the next step goes through a buffer.
    pub(super) fn needs_buffer(&self) -> bool {
        matches!(self.work, Work::Bounced { .. } | Work::WriteZeroes { .. })
    }

    /// The next step, for everything but `Direct`. It takes the buffer; on error it is lost.
    pub(super) fn step(&mut self) -> Result<RingOp<'static>, IoError> {
        let punch = |offset, len| RingOp::Fallocate { mode: PUNCH, offset, len };
        Ok(match self.work {
            Work::Bounced { kind, offset, len, done } => {
                let piece = (len - done).min(PIECE);
                let offset = offset + done as u64;
                let mut buf = self.buf.take().ok_or(IoError::Internal)?;
                match kind {
                    Bounce::Read | Bounce::Compare => RingOp::ReadBuf { offset, buf, len: piece },
                    Bounce::Write { fua } => {
                        let room = buf.get_mut(..piece).ok_or(IoError::Internal)?;
                        let data = self.held.view().ok_or(IoError::Internal)?;
                        data.read_to(done, room).map_err(|_| IoError::Internal)?;
                        RingOp::WriteBuf { offset, buf, len: piece, dsync: fua }
                    }
                }
            }
            Work::WriteZeroes { offset, left, .. } => {
                let piece = left.min(PIECE as u64) as usize;
                let mut buf = self.buf.take().ok_or(IoError::Internal)?;
                buf.get_mut(..piece).ok_or(IoError::Internal)?.fill(0);
                RingOp::WriteBuf { offset, buf, len: piece, dsync: false }
            }
            Work::Punch { offset, len, .. } => punch(offset, len),
            Work::ZeroRange { offset, len, .. } => RingOp::Fallocate { mode: ZERO, offset, len },
            Work::Sync => RingOp::Fsync,
            Work::Direct { .. } => return Err(IoError::Internal),
        })
    }

    /// Takes the ring's result of the step in.
    #[inline]
    pub(super) fn advance(&mut self, result: i32, buf: Option<AlignedBuf>, shared: &Shared) -> Progress {
        if let Work::Direct { direction, len } = self.work {
            return Progress::Done(moved(result, len, direction));
        }
        self.advance_steps(result, buf, shared)
    }

    fn advance_steps(&mut self, result: i32, buf: Option<AlignedBuf>, shared: &Shared) -> Progress {
        if buf.is_some() {
            self.buf = buf;
        }
        let unsupported = result == -Errno::OPNOTSUPP.raw_os_error();
        match self.work {
            Work::Bounced { kind, offset, len, done } => {
                let piece = (len - done).min(PIECE);
                if let Err(error) = self.bounce(kind, done, piece, result) {
                    return Progress::Done(Err(error));
                }
                if done + piece == len {
                    return Progress::Done(Ok(()));
                }
                self.work = Work::Bounced { kind, offset, len, done: done + piece };
                Progress::Again
            }
            Work::Punch { offset, len, zeroes, fua } if unsupported => {
                shared.no_punch.store(true, Ordering::Relaxed);
                if !zeroes {
                    return Progress::Done(Ok(()));
                }
                self.work = zero_work(shared, offset, len, fua);
                Progress::Again
            }
            Work::ZeroRange { offset, len, fua } if unsupported => {
                shared.no_zero_range.store(true, Ordering::Relaxed);
                self.work = zero_work(shared, offset, len, fua);
                Progress::Again
            }
            Work::Punch { fua, .. } | Work::ZeroRange { fua, .. } => self.synced(status(result), fua),
            Work::WriteZeroes { offset, left, fua } => {
                let piece = left.min(PIECE as u64);
                match moved(result, piece as usize, Direction::Write) {
                    Ok(()) if piece < left => {
                        self.work = Work::WriteZeroes { offset: offset + piece, left: left - piece, fua };
                        Progress::Again
                    }
                    result => self.synced(result, fua),
                }
            }
            Work::Sync | Work::Direct { .. } => Progress::Done(status(result)),
        }
    }

    fn synced(&mut self, result: Result<(), IoError>, fua: bool) -> Progress {
        if result.is_err() || !fua {
            return Progress::Done(result);
        }
        self.work = Work::Sync;
        Progress::Again
    }

    /// Checks one piece, and hands it to the guest.
    fn bounce(&mut self, kind: Bounce, done: usize, piece: usize, result: i32) -> Result<(), IoError> {
        let direction = if matches!(kind, Bounce::Write { .. }) { Direction::Write } else { Direction::Read };
        moved(result, piece, direction)?;
        if direction == Direction::Write {
            return Ok(());
        }
        let bytes = self.buf.as_ref().and_then(|buf| buf.get(..piece)).ok_or(IoError::Internal)?;
        let data = self.held.view().ok_or(IoError::Internal)?;
        if kind == Bounce::Read {
            return data.write_from(done, bytes).map_err(|_| IoError::Internal);
        }
        match data.compare_with(done, bytes) {
            Ok(true) => Ok(()),
            Ok(false) => Err(IoError::CompareFailed),
            Err(_) => Err(IoError::Internal),
        }
    }
}

/// The best way to zero a range that keeps its storage.
pub(super) fn zero_work(shared: &Shared, offset: u64, len: u64, fua: bool) -> Work {
    if shared.can_zero_range() && fits_fallocate(shared, offset, len) {
        Work::ZeroRange { offset, len, fua }
    } else {
        Work::WriteZeroes { offset, left: len, fua }
    }
}

/// Devices take whole blocks only.
pub(super) fn fits_fallocate(shared: &Shared, offset: u64, len: u64) -> bool {
    (offset | len) & (shared.limits.fallocate_align - 1) == 0
}

/// The result of a transfer of `len` bytes: fewer means that the file ends before its size at the start.
#[inline]
fn moved(result: i32, len: usize, direction: Direction) -> Result<(), IoError> {
    match usize::try_from(result) {
        Ok(moved) if moved == len => Ok(()),
        Ok(_) => Err(IoError::Media(direction)),
        Err(_) => Err(IoError::from_errno(result.wrapping_neg(), direction)),
    }
}

fn status(result: i32) -> Result<(), IoError> {
    if result < 0 { Err(IoError::from_errno(result.wrapping_neg(), Direction::Write)) } else { Ok(()) }
}
