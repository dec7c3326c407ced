//! Open file description locks on ranges of a file (`fcntl(2)`, `F_OFD_SETLK`).
//!
//! May know: descriptors and ranges. Must not know: what a range stands for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether a lock admits others of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Any number of these at a time.
    Shared,
    /// Only one, and no shared one.
    Exclusive,
}

fn range(kind: LockKind, start: u32, len: u32) -> libc::flock {
    libc::flock {
        l_type: match kind {
            LockKind::Shared => libc::F_RDLCK,
            LockKind::Exclusive => libc::F_WRLCK,
        } as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: libc::off_t::from(start),
        l_len: libc::off_t::from(len),
        // Must be zero for open file description locks.
        l_pid: 0,
    }
}

/// Locks `len` bytes from `start` for the open file description of `fd`, until it is closed. False if somebody else
/// holds a lock that conflicts. Never waits.
///
/// # Errors
///
/// Those of `fcntl`: a descriptor that is not open for what the kind needs, a file system without locks.
pub fn try_lock(fd: BorrowedFd<'_>, kind: LockKind, start: u32, len: u32) -> io::Result<bool> {
    let lock = range(kind, start, len);
    // SAFETY: the descriptor is open, and the call only reads `lock`.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            error => Err(error),
        },
    }
}

/// Gives up every lock that the open file description of `fd` holds. Closing it does too, but only when no process has
/// it any more, a child between `fork` and `exec` included.
///
/// # Errors
///
/// Those of `fcntl`.
pub fn unlock_all(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut everything = range(LockKind::Shared, 0, 0);
    everything.l_type = libc::F_UNLCK as libc::c_short;
    // SAFETY: the descriptor is open, and the call only reads `everything`.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const everything) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether another open file description holds a lock that conflicts with one of that kind and range.
///
/// # Errors
///
/// Those of `fcntl`.
pub fn is_locked(fd: BorrowedFd<'_>, kind: LockKind, start: u32, len: u32) -> io::Result<bool> {
    let mut lock = range(kind, start, len);
    // SAFETY: the descriptor is open, and `lock` is ours to be written.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } {
        0 => Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn two_opens_of_one_process_exclude_each_other() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (one, two) = (File::open(file.path()).unwrap(), File::open(file.path()).unwrap());
        assert!(try_lock(one.as_fd(), LockKind::Shared, 100, 1).unwrap());
        assert!(try_lock(two.as_fd(), LockKind::Shared, 100, 1).unwrap());
        assert!(is_locked(two.as_fd(), LockKind::Exclusive, 100, 1).unwrap());
        assert!(!is_locked(two.as_fd(), LockKind::Shared, 100, 1).unwrap());
        assert!(!is_locked(two.as_fd(), LockKind::Exclusive, 101, 1).unwrap());
        let writer = File::options().read(true).write(true).open(file.path()).unwrap();
        assert!(!try_lock(writer.as_fd(), LockKind::Exclusive, 0, 200).unwrap());
        drop((one, two));
        assert!(try_lock(writer.as_fd(), LockKind::Exclusive, 0, 200).unwrap());
        let another = writer.try_clone().unwrap();
        unlock_all(writer.as_fd()).unwrap();
        let third = File::options().read(true).write(true).open(file.path()).unwrap();
        assert!(try_lock(third.as_fd(), LockKind::Exclusive, 0, 200).unwrap());
        drop(another);
    }
}
