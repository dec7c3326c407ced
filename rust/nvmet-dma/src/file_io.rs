//! Reads and writes of a file that are done when the call returns, straight to and from guest memory.
//!
//! What it may know: files, offsets, segments. What it must not: blocks, what an error means.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::io::Errno;

use crate::error::DmaError;
use crate::memory::{Direction, Segments};
use crate::ring::MAX_SEGMENTS;

/// Ranges that are put together on the stack for one call, where the segments cannot be used as they are.
const BATCH: usize = 64;

/// How far a transfer got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Bytes that were moved, from the start.
    pub bytes: usize,
    /// Why it did not go on. None if all was moved, or if the file ends there.
    pub stopped: Option<Errno>,
}

/// Reads from `offset` on into all of `segments`. With `now` only what is in memory: else it stops with `EAGAIN`, or
/// with `EOPNOTSUPP` where the file system cannot tell (`RWF_NOWAIT`).
///
/// # Errors
///
/// [`DmaError::WrongDirection`] unless the segments are [`Direction::ToGuest`].
#[inline]
pub fn read_at(
    file: BorrowedFd<'_>,
    offset: u64,
    segments: &Segments<'_>,
    now: bool,
) -> Result<Moved, DmaError> {
    segments.check_direction(Direction::ToGuest)?;
    let flags = if now { libc::RWF_NOWAIT } else { 0 };
    Ok(transfer(offset, segments, |iovecs, offset| {
        // SAFETY: the ranges are valid and, by the direction, writable: the snapshot that `segments` borrows keeps them
        // mapped, and the kernel is done with them when the call returns.
        unsafe { libc::preadv2(file.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as i32, offset, flags) }
    }))
}

/// Writes all of `segments` at `offset`. With `now` only if that does not wait, as in [`read_at`]; with `dsync` it is on
/// the medium when this returns.
///
/// # Errors
///
/// [`DmaError::WrongDirection`] unless the segments are [`Direction::FromGuest`].
#[inline]
pub fn write_at(
    file: BorrowedFd<'_>,
    offset: u64,
    segments: &Segments<'_>,
    now: bool,
    dsync: bool,
) -> Result<Moved, DmaError> {
    segments.check_direction(Direction::FromGuest)?;
    let flags = if now { libc::RWF_NOWAIT } else { 0 } | if dsync { libc::RWF_DSYNC } else { 0 };
    Ok(transfer(offset, segments, |iovecs, offset| {
        // SAFETY: as in `read_at`; the kernel only reads.
        unsafe { libc::pwritev2(file.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as i32, offset, flags) }
    }))
}

/// Calls until all is moved, the file ends, or the kernel says why not.
#[inline]
fn transfer(
    offset: u64,
    segments: &Segments<'_>,
    call: impl Fn(&[libc::iovec], libc::off_t) -> libc::ssize_t,
) -> Moved {
    let mut done = 0;
    while let Ok(rest) = segments.skip(done)
        && !rest.is_empty()
    {
        let Some(at) = offset.checked_add(done as u64).and_then(|at| libc::off_t::try_from(at).ok()) else {
            return Moved { bytes: done, stopped: Some(Errno::INVAL) };
        };
        let moved = match rest.iovecs() {
            Some(whole) => call(whole.get(..MAX_SEGMENTS).unwrap_or(whole), at),
            None => {
                let mut room = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
                let mut count = 0;
                for (place, (host, len)) in room.iter_mut().zip(rest.pieces()) {
                    *place = libc::iovec { iov_base: host.as_ptr().cast(), iov_len: len };
                    count += 1;
                }
                call(room.get(..count).unwrap_or(&[]), at)
            }
        };
        match usize::try_from(moved) {
            Ok(0) => return Moved { bytes: done, stopped: None },
            Ok(moved) => done += moved,
            Err(_) => {
                let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
                if errno != libc::EINTR {
                    return Moved { bytes: done, stopped: Some(Errno::from_raw_os_error(errno)) };
                }
            }
        }
    }
    Moved { bytes: done, stopped: None }
}
