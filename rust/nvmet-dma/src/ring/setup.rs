//! Making a ring: the flags that this kernel takes, the operations it knows, the registered file.
//!
//! May know: kernel versions and errno. Must not know: operations in flight.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

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
    #[error("io_uring could not be set up: {0}{hint}", hint = memory_hint(.0))]
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

fn memory_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            "; this kernel charges it to the memory that may be locked: raise RLIMIT_MEMLOCK (ulimit -l, systemd LimitMEMLOCK=), or serve fewer disks"
        }
        _ => "",
    }
}

/// The submission queue that is tried where memory is short: its 64 bytes an entry fill a page, and no ring has less.
const FEW_ENTRIES: u32 = 64;
/// Attempts while memory is short, [`SETUP_PAUSE`] apart. A ring that was closed is taken apart, and no longer charged,
/// only some time later (seen: 0.12 s), so a reset could find the memory still taken by the rings before it.
const SETUP_ATTEMPTS: u32 = 50;
const SETUP_PAUSE: Duration = Duration::from_millis(10);

/// The submission queue otherwise: a batch is rarely larger, and pushing more only costs one more system call.
const BATCH: u32 = 128;

/// How the ring learns that a device is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Completion {
    /// By an interrupt.
    Interrupt,
    /// By asking the device (`IORING_SETUP_IOPOLL`): direct reads and writes only.
    Poll,
}

/// A ring with the best flags that the kernel takes, for `operations` in flight: a completion for each of them fits.
/// Less where the memory that the user's processes may lock (`RLIMIT_MEMLOCK`, which some kernels charge rings to) is
/// not enough. Then it takes as little as a ring can, not all that is left: the next one needs some, too. Completions
/// beyond those that fit wait in the kernel.
pub(super) fn build(operations: u32, completion: Completion) -> Result<IoUring, RingError> {
    let (mut entries, mut completions) = (operations.min(BATCH), operations.max(2));
    for _ in 1..SETUP_ATTEMPTS {
        match build_exactly(entries, completions, completion) {
            Err(RingError::Io(error)) if error.raw_os_error() == Some(libc::ENOMEM) => {
                if entries > FEW_ENTRIES {
                    (entries, completions) = (FEW_ENTRIES, 2 * FEW_ENTRIES);
                } else {
                    std::thread::sleep(SETUP_PAUSE);
                }
            }
            other => return other,
        }
    }
    build_exactly(entries, completions, completion)
}

/// Whether the kernel defers the ring's work until the ring's thread comes for it.
pub(super) fn defers(ring: &IoUring) -> bool {
    // The one flag of its set that can be asked for: they are taken together, or none is.
    ring.params().is_setup_single_issuer()
}

fn build_exactly(entries: u32, completions: u32, completion: Completion) -> Result<IoUring, RingError> {
    let builder = || {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(completions);
        if completion == Completion::Poll {
            builder.setup_iopoll();
        }
        builder
    };
    let best = builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(entries);
    let ring = match best {
        // Linux before 6.1.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => builder().build(entries),
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
        opcode::ReadFixed::CODE,
        opcode::WriteFixed::CODE,
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
        assert!(error.to_string().contains("RLIMIT_MEMLOCK"));
    }
}
