//! The file backend: a regular file or a block device, through `io_uring`.
//!
//! * `open`: checks, creation, and what the medium can do (its `limits`); nothing of it runs per operation.
//! * `lock`: against a second writer, in the words that QEMU uses for its images.
//! * `queue`, `task`: the hot part, one ring per queue.
//! * `memory`, `dense`: the hot part of files on tmpfs, without the ring; `cached`: reads from the page cache.
//!
//! May know: files. Must not know: who reads and writes them.

mod cached;
mod dense;
mod limits;
mod lock;
mod memory;
mod open;
mod polling;
mod queue;
mod task;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::backend::{Backend, Features, Geometry};
use crate::error::{BackendError, Direction, IoError};
use crate::queue::IoQueue;
use crate::size::exact;
use crate::spec::OpenOptions;
use limits::Limits;
use memory::MemoryFile;
use queue::FileQueue;

/// A backend in a regular file or on a block device.
#[derive(Debug)]
pub struct FileBackend {
    path: PathBuf,
    shared: Arc<Shared>,
}

/// What all queues of a file share.
#[derive(Debug)]
struct Shared {
    fd: Arc<OwnedFd>,
    geometry: Geometry,
    features: Features,
    limits: Limits,
    /// The same file, if it lies on a memory file system.
    memory: Option<Arc<MemoryFile>>,
    /// Guest memory may be registered with the ring.
    fixed_buffers: bool,
    /// Direct transfers go by a polled ring.
    iopoll: bool,
    /// `FALLOC_FL_PUNCH_HOLE` was answered with "not supported".
    no_punch: AtomicBool,
    /// `FALLOC_FL_ZERO_RANGE` was answered with "not supported".
    no_zero_range: AtomicBool,
}

impl Shared {
    fn can_punch(&self) -> bool {
        !self.no_punch.load(Ordering::Relaxed)
    }

    fn can_zero_range(&self) -> bool {
        !self.no_zero_range.load(Ordering::Relaxed)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.memory = None;
        // More users: a ring that had to leave operations to the kernel. The lock stays with them.
        if Arc::strong_count(&self.fd) == 1 {
            let _ = nvmet_dma::ofd::unlock_all(self.fd.as_fd());
        }
    }
}

impl FileBackend {
    /// Opens or creates the file, and locks it for as long as the backend or a queue of it lives: one writer, or any
    /// number of readers.
    ///
    /// # Errors
    /// [`BackendError::File`] and [`BackendError::Size`], with what to do. A file that exists is never changed by
    /// opening it, and a file that could not be created completely is removed.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, BackendError> {
        let opened = open::open(path, options)?;
        let fd = opened.fd;
        let memory = if opened.limits.block_device {
            None
        } else {
            MemoryFile::new(&fd, path, opened.geometry.size, !options.read_only)
        };
        let shared = Shared {
            fd,
            geometry: opened.geometry,
            features: opened.features,
            limits: opened.limits,
            memory,
            fixed_buffers: options.fixed_buffers,
            iopoll: options.iopoll,
            no_punch: AtomicBool::new(!opened.limits.punch_hole),
            no_zero_range: AtomicBool::new(false),
        };
        Ok(Self { path: path.to_owned(), shared: Arc::new(shared) })
    }

    /// Whether I/O goes past the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.shared.limits.direct.is_some()
    }
}

impl Backend for FileBackend {
    fn geometry(&self) -> Geometry {
        self.shared.geometry
    }

    fn features(&self) -> Features {
        self.shared.features
    }

    fn open_queue(&self, depth: u32) -> Result<Box<dyn IoQueue>, BackendError> {
        let queue = FileQueue::new(Arc::clone(&self.shared), depth).map_err(|error| BackendError::Ring {
            what: self.path.display().to_string(),
            why: error.to_string(),
        })?;
        Ok(Box::new(queue))
    }

    fn sync(&self) -> Result<(), IoError> {
        if let Some(memory) = &self.shared.memory {
            memory.set_times();
        }
        loop {
            match rustix::fs::fdatasync(&self.shared.fd) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(IoError::from_errno(errno.raw_os_error(), Direction::Write)),
            }
        }
    }

    fn describe(&self) -> String {
        let Limits { block_device, direct, .. } = self.shared.limits;
        let kind = if block_device { "block device" } else { "file" };
        let cache = match direct {
            Some(_) if self.shared.iopoll => "direct, polled",
            Some(_) => "direct",
            None => "buffered",
        };
        let access = if self.shared.geometry.read_only { ", read-only" } else { "" };
        format!("{}: {kind}, {}, {cache}{access}", self.path.display(), exact(self.shared.geometry.size))
    }
}
