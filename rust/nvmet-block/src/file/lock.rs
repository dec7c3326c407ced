//! The lock against a second writer, with the byte ranges that QEMU uses for its images (`block/file-posix.c`): so
//! QEMU and we exclude each other too.
//!
//! A byte from 100 on says "I use this permission", a byte from 200 on "I do not share this permission"; both are
//! shared locks, and whoever finds the opposite byte of somebody else gives up.

use std::io;
use std::os::fd::BorrowedFd;

use nvmet_dma::ofd::{LockKind, is_locked, try_lock};

const USED: u32 = 100;
const UNSHARED: u32 = 200;

/// QEMU's `BLK_PERM_CONSISTENT_READ`, `BLK_PERM_WRITE` and `BLK_PERM_RESIZE`, as bit numbers.
const CONSISTENT_READ: u32 = 0;
const WRITE: u32 = 1;
const RESIZE: u32 = 3;

/// Locks the file for its open file description. False if somebody writes to it, or if we want to and it is in use.
pub(super) fn lock(fd: BorrowedFd<'_>, read_only: bool) -> io::Result<bool> {
    let used: &[u32] = if read_only { &[CONSISTENT_READ] } else { &[CONSISTENT_READ, WRITE] };
    let unshared = [WRITE, RESIZE];
    let ours = used.iter().map(|bit| USED + bit).chain(unshared.iter().map(|bit| UNSHARED + bit));
    for byte in ours {
        if !try_lock(fd, LockKind::Shared, byte, 1)? {
            return Ok(false);
        }
    }
    let theirs = used.iter().map(|bit| UNSHARED + bit).chain(unshared.iter().map(|bit| USED + bit));
    for byte in theirs {
        if is_locked(fd, LockKind::Exclusive, byte, 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}
