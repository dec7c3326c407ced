//! Event counters: our own to wake threads, a client's to raise interrupts.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// A non-blocking eventfd.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new one, with count zero.
    ///
    /// # Errors
    ///
    /// Those of `eventfd`.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// A client's descriptor, if it really is an eventfd. It is made non-blocking, so that a full counter cannot block
    /// the thread that raises an interrupt. (The flag belongs to the open file, which the client shares.)
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is anything else; those of `readlink` and `fcntl`.
    pub fn from_client(fd: OwnedFd) -> io::Result<Self> {
        let link = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
        if link.as_bytes() != b"anon_inode:[eventfd]" {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is not an eventfd"));
        }
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Ok(Self(fd))
    }

    /// Adds one. A counter that is full is an event that is pending already.
    ///
    /// # Errors
    ///
    /// Those of `write`, but neither EAGAIN nor EINTR.
    #[inline]
    pub fn signal(&self) -> io::Result<()> {
        loop {
            match rustix::io::write(&self.0, &1_u64.to_ne_bytes()) {
                Ok(_) | Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Takes the count and leaves zero; zero if nothing was pending.
    ///
    /// # Errors
    ///
    /// Those of `read`, but neither EAGAIN nor EINTR.
    pub fn drain(&self) -> io::Result<u64> {
        let mut count = [0; 8];
        loop {
            match rustix::io::read(&self.0, &mut count) {
                Ok(_) => return Ok(u64::from_ne_bytes(count)),
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// A second descriptor of the same counter.
    ///
    /// # Errors
    ///
    /// Those of `fcntl`.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<EventFd> for OwnedFd {
    fn from(event: EventFd) -> Self {
        event.0
    }
}
