//! Errors: [`IoError`] of one operation, [`BackendError`] of opening something.
//!
//! May know: errno. Must not know: which NVMe status an error is (the device maps them), but that there is such a thing.

use std::path::PathBuf;

use rustix::io::Errno;

/// Which way the data of a failed operation went; it decides how a failure of the medium is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the medium: read, compare.
    Read,
    /// To the medium: write, zeroing, deallocation, flush.
    Write,
}

/// Why an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum IoError {
    /// The medium failed: unrecovered read error or write fault, by direction.
    #[error("the medium failed ({0:?})")]
    Media(Direction),
    /// What the backend holds is not what it was compared with.
    #[error("the data differs")]
    CompareFailed,
    /// No space left to store the data.
    #[error("no space left on the medium")]
    NoSpace,
    /// The backend does not accept writes.
    #[error("the backend is read-only")]
    ReadOnly,
    /// The operation is malformed for this backend (not a multiple of the minimum block, for example).
    #[error("invalid operation")]
    Invalid,
    /// The range does not lie within the backend.
    #[error("the range is beyond the end of the backend")]
    OutOfRange,
    /// The backend has no such operation.
    #[error("operation not supported")]
    Unsupported,
    /// It failed for now; the same operation may succeed later.
    #[error("temporary failure")]
    Retry,
    /// The backend went away.
    #[error("the backend is gone")]
    Gone,
    /// Somebody else holds a reservation on the medium.
    #[error("reservation conflict")]
    Reserved,
    /// The integrity check of the medium failed.
    #[error("integrity check failed")]
    Integrity,
    /// It was cancelled, and did not happen or happened in part.
    #[error("cancelled")]
    Aborted,
    /// Exactly this NVMe status, for backends that are told to say one (fault injection, scripts): Status Code Type,
    /// Status Code, Do Not Retry.
    #[error("NVMe status {sct:x}/{sc:02x}h")]
    Status {
        /// Status Code Type, 0 to 7.
        sct: u8,
        /// Status Code.
        sc: u8,
        /// Do Not Retry: the same command would fail again.
        dnr: bool,
    },
    /// Anything else.
    #[error("internal error")]
    Internal,
}

impl IoError {
    /// What an errno of the medium means, for an operation of that direction. Every errno has an answer.
    #[must_use]
    pub fn from_errno(errno: i32, direction: Direction) -> Self {
        // What Linux calls an error number (`MAX_ERRNO`).
        if !(1..4096).contains(&errno) {
            return Self::Internal;
        }
        match Errno::from_raw_os_error(errno) {
            // `EREMOTEIO`, `EILSEQ`, `ENODATA`, `EUCLEAN`: how block drivers and file systems report a bad sector.
            Errno::IO | Errno::REMOTEIO | Errno::ILSEQ | Errno::NODATA | Errno::UCLEAN => {
                Self::Media(direction)
            }
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::NoSpace,
            Errno::ROFS | Errno::PERM | Errno::ACCESS => Self::ReadOnly,
            Errno::INVAL => Self::Invalid,
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY => Self::Unsupported,
            Errno::TIMEDOUT | Errno::AGAIN | Errno::NOMEM | Errno::NOBUFS | Errno::BUSY | Errno::INTR => {
                Self::Retry
            }
            Errno::BADE => Self::Reserved,
            Errno::BADMSG => Self::Integrity,
            Errno::SHUTDOWN | Errno::NODEV | Errno::NXIO | Errno::NOMEDIUM | Errno::NOLINK | Errno::STALE => {
                Self::Gone
            }
            Errno::CANCELED => Self::Aborted,
            _ => Self::Internal,
        }
    }
}

/// Why a backend or a queue could not be opened: one line that says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The words for a backend were not understood.
    #[error("{spec:?}: {why}")]
    Spec {
        /// The words.
        spec: String,
        /// What is wrong with them.
        why: String,
    },
    /// A file or device cannot serve as a namespace.
    #[error("{}: {why}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it and what to do.
        why: String,
    },
    /// The size is zero, too large, or not a multiple of the block size.
    #[error("{what}: {why}")]
    Size {
        /// The backend, as the operator named it.
        what: String,
        /// What is wrong with the size.
        why: String,
    },
    /// Memory could not be had.
    #[error("{what}: {source}")]
    Memory {
        /// The backend, as the operator named it.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// It keeps its size.
    #[error("{what}: {why}")]
    Resize {
        /// The backend, as the operator named it.
        what: String,
        /// Why, and what to do.
        why: String,
    },
    /// The kernel refuses `io_uring`.
    #[error("{what}: {why}")]
    Ring {
        /// The backend, as the operator named it.
        what: String,
        /// Why, and what to do.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_has_its_meaning() {
        use Direction::{Read, Write};
        let table: &[(&[Errno], IoError)] = &[
            (
                &[Errno::IO, Errno::REMOTEIO, Errno::ILSEQ, Errno::NODATA, Errno::UCLEAN],
                IoError::Media(Write),
            ),
            (&[Errno::NOSPC, Errno::DQUOT, Errno::FBIG], IoError::NoSpace),
            (&[Errno::ROFS, Errno::PERM, Errno::ACCESS], IoError::ReadOnly),
            (&[Errno::INVAL], IoError::Invalid),
            (&[Errno::OPNOTSUPP, Errno::NOSYS, Errno::NOTTY], IoError::Unsupported),
            (
                &[Errno::TIMEDOUT, Errno::AGAIN, Errno::NOMEM, Errno::NOBUFS, Errno::BUSY, Errno::INTR],
                IoError::Retry,
            ),
            (&[Errno::BADE], IoError::Reserved),
            (&[Errno::BADMSG], IoError::Integrity),
            (
                &[Errno::SHUTDOWN, Errno::NODEV, Errno::NXIO, Errno::NOMEDIUM, Errno::NOLINK, Errno::STALE],
                IoError::Gone,
            ),
            (&[Errno::CANCELED], IoError::Aborted),
        ];
        for errno in 1..=200 {
            let known =
                table.iter().find(|(errnos, _)| errnos.iter().any(|known| known.raw_os_error() == errno));
            let wanted = known.map_or(IoError::Internal, |(_, error)| *error);
            assert_eq!(IoError::from_errno(errno, Write), wanted, "errno {errno}");
            let read = if wanted == IoError::Media(Write) { IoError::Media(Read) } else { wanted };
            assert_eq!(IoError::from_errno(errno, Read), read, "errno {errno}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_number_is_taken(errno: i32) {
            // `OSError.errno` of a backend in Python may be anything.
            let _ = IoError::from_errno(errno, Direction::Read);
        }
    }
}
