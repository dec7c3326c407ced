//! File descriptors that this process was started with, known by their number alone.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A descriptor of our own, close-on-exec, for the open file that `fd` is a number of; `fd` stays as it is.
///
/// # Errors
///
/// EBADF when `fd` is not open, EMFILE when no descriptor is left.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC touches no memory, and any number is allowed: one that is not open is EBADF.
    let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if own < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made `own`, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(own) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write, pipe};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_duplicate_is_the_same_open_file_and_outlives_the_number() {
        let (reader, mut writer) = pipe().unwrap();
        let own = duplicate(reader.as_raw_fd()).unwrap();
        drop(reader);
        writer.write_all(b"x").unwrap();
        let mut byte = [0];
        std::fs::File::from(own).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn a_number_that_is_not_open_is_refused() {
        for fd in [-1, i32::MIN, i32::MAX] {
            assert_eq!(duplicate(fd).unwrap_err().raw_os_error(), Some(libc::EBADF));
        }
    }
}
