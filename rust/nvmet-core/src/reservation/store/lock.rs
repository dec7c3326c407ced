//! The lock of a state file against a second user: a file of its own beside it, locked for its open file description.
//!
//! May know: a directory and a name. Must not know: what is protected.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};

use nvmet_dma::ofd::{LockKind, try_lock, unlock_all};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// Held until it is dropped, or the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    directory: OwnedFd,
    name: OsString,
    file: OwnedFd,
}

impl Lock {
    /// Locks the file of this name, which is made if there is none. None if somebody else has it. Never waits.
    pub(super) fn take(directory: &OwnedFd, name: &OsStr) -> Result<Option<Self>, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        loop {
            let file = rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
            #[cfg(test)]
            super::testing::reach_lock();
            let locked = try_lock(file.as_fd(), LockKind::Exclusive, 0, 1).map_err(io)?;
            if !locked {
                return Ok(None);
            }
            // Its last user removes it, maybe between our open and our lock: what counts is the one that is there.
            let ours = rustix::fs::fstat(&file)?;
            match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(there) if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) => {
                    return Ok(Some(Self {
                        directory: directory.try_clone().map_err(io)?,
                        name: name.into(),
                        file,
                    }));
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // In this order: once it is unlocked, it may be somebody else's.
        let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
        // A child between fork and exec has the descriptor too.
        let _ = unlock_all(self.file.as_fd());
    }
}

fn io(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
