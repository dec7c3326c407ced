//! Making a ring: the flags that this kernel takes, the operations it knows, the registered file.
//!
//! May know: kernel versions and errno. Must not know: operations in flight.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{IoUring, Probe, opcode};

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The kernel has no `io_uring`, or forbids it to this process.
    #[error(
        "io_uring is not available ({0}): allow it in sysctl kernel.io_uring_disabled and in the seccomp profile of the container"
    )]
    Forbidden(io::Error),
    /// The kernel's `io_uring` lacks an operation.
    #[error("this kernel's io_uring is too old: Linux 5.11 or later is needed")]
    TooOld,
    /// Anything else that setting it up may answer.
    #[error("io_uring could not be set up: {0}; if memory is short, raise ulimit -l")]
    Io(io::Error),
}

impl RingError {
    fn from_setup(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => Self::Forbidden(error),
            _ => Self::Io(error),
        }
    }
}

/// The smallest submission queue that is tried.
const FEWEST_ENTRIES: u32 = 8;

/// A ring with the best flags that the kernel takes, for batches of `entries` operations: fewer where the memory that
/// the process may lock (`RLIMIT_MEMLOCK`, which some kernels charge rings to) is not enough. Pushing more only costs
/// more system calls.
pub(super) fn build(mut entries: u32) -> Result<IoUring, RingError> {
    loop {
        match build_exactly(entries) {
            Err(RingError::Io(error))
                if error.raw_os_error() == Some(libc::ENOMEM) && entries > FEWEST_ENTRIES =>
            {
                entries = (entries / 2).max(FEWEST_ENTRIES);
            }
            other => return other,
        }
    }
}

/// Not `DEFER_TASKRUN`: with it the ring's descriptor wakes nobody who sleeps in `poll` or `epoll` (seen on Linux
/// 6.18), and workers sleep there.
fn build_exactly(entries: u32) -> Result<IoUring, RingError> {
    let best = IoUring::builder()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(entries);
    let ring = match best {
        // Linux before 6.1.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::builder().build(entries),
        other => other,
    };
    let ring = ring.map_err(RingError::from_setup)?;
    check(&ring)?;
    Ok(ring)
}

fn check(ring: &IoUring) -> Result<(), RingError> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|_| RingError::TooOld)?;
    let needed = [
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::AsyncCancel::CODE,
    ];
    let complete = needed.iter().all(|code| probe.is_supported(*code));
    // `EXT_ARG` is from 5.11 and bounds the wait when a ring is dropped; `NODROP` keeps completions that do not fit.
    if complete && ring.params().is_feature_ext_arg() && ring.params().is_feature_nodrop() {
        Ok(())
    } else {
        Err(RingError::TooOld)
    }
}

/// Registers the ring's only file.
pub(super) fn register_file(ring: &IoUring, file: BorrowedFd<'_>) -> Result<(), RingError> {
    ring.submitter().register_files(&[file.as_raw_fd()]).map_err(RingError::Io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_forbids_io_uring_is_told_from_one_that_fails() {
        for errno in [libc::ENOSYS, libc::EPERM, libc::EACCES] {
            let error = RingError::from_setup(io::Error::from_raw_os_error(errno));
            assert!(matches!(error, RingError::Forbidden(_)));
            assert!(error.to_string().contains("kernel.io_uring_disabled"));
        }
        let error = RingError::from_setup(io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(matches!(error, RingError::Io(_)));
    }
}
