//! Another size for a file in service: the file is cut or extended, and queues that are opened from now on have it.
//!
//! May know: the file, its length. Must not know: queues. Those that are open keep their size; what they still have in
//! flight may reach behind the new end, so the file is cut once more when the last of them is gone.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// What a file's length is meant to be, in bytes. Common to all sizes that the file has had.
#[derive(Debug)]
pub(super) struct Length {
    fd: Arc<OwnedFd>,
    device: bool,
    meant: Mutex<u64>,
}

impl Length {
    pub(super) fn new(fd: &Arc<OwnedFd>, device: bool, size: u64) -> Arc<Self> {
        Arc::new(Self { fd: Arc::clone(fd), device, meant: Mutex::new(size) })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.meant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file or device has.
    pub(super) fn measure(&self) -> Result<u64, Errno> {
        if self.device {
            rustix::fs::seek(&self.fd, SeekFrom::End(0))
        } else {
            Ok(u64::try_from(rustix::fs::fstat(&self.fd)?.st_size).unwrap_or(0))
        }
    }

    /// Makes the file that long.
    pub(super) fn set(&self, size: u64) -> Result<(), Errno> {
        let mut meant = self.lock();
        rustix::fs::ftruncate(self.fd.as_fd(), size)?;
        *meant = size;
        Ok(())
    }

    /// Somebody else has made it that long.
    pub(super) fn note(&self, size: u64) {
        *self.lock() = size;
    }

    /// Cuts off what was written behind the end by those who knew another one.
    pub(super) fn settle(&self) {
        let meant = self.lock();
        if !self.device
            && self.measure().is_ok_and(|size| size > *meant)
            && let Err(error) = rustix::fs::ftruncate(self.fd.as_fd(), *meant)
        {
            tracing::warn!(%error, "a file that was made smaller is longer than it should be");
        }
    }
}
