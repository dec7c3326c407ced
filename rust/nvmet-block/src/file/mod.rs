//! The file backend: a regular file or a block device, through `io_uring`.
//!
//! * `open`: checks, creation, and what the medium can do (its `limits`); nothing of it runs per operation.
//! * `lock`: against a second writer, in the words that QEMU uses for its images.
//! * `queue`, `task`: the hot part, one ring per queue.
//! * `resize`: another size while in service.
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
mod resize;
mod task;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::backend::{Backend, Features, Geometry};
use crate::error::{BackendError, Direction, IoError};
use crate::queue::IoQueue;
use crate::size::{check_size, exact};
use crate::spec::OpenOptions;
use limits::Limits;
use memory::MemoryFile;
use queue::FileQueue;
use resize::Length;

/// A backend in a regular file or on a block device.
#[derive(Debug)]
pub struct FileBackend {
    path: PathBuf,
    /// Another one after every change of the size.
    shared: Mutex<Arc<Shared>>,
    block_size: u32,
}

/// What all queues of a file share that were opened while it had the same size.
#[derive(Debug)]
struct Shared {
    fd: Arc<OwnedFd>,
    length: Arc<Length>,
    geometry: Geometry,
    features: Features,
    limits: Limits,
    /// The file has become smaller since.
    outgrown: AtomicBool,
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
        if self.outgrown.load(Ordering::Relaxed) {
            self.length.settle();
        }
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
            length: Length::new(&fd, opened.limits.block_device, opened.geometry.size),
            fd,
            outgrown: AtomicBool::new(false),
            geometry: opened.geometry,
            features: opened.features,
            limits: opened.limits,
            memory,
            fixed_buffers: options.fixed_buffers,
            iopoll: options.iopoll,
            no_punch: AtomicBool::new(!opened.limits.punch_hole),
            no_zero_range: AtomicBool::new(false),
        };
        Ok(Self {
            path: path.to_owned(),
            shared: Mutex::new(Arc::new(shared)),
            block_size: options.block_size,
        })
    }

    /// Whether I/O goes past the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.shared().limits.direct.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.lock())
    }

    fn refuse(&self, why: impl Into<String>) -> BackendError {
        BackendError::Resize { what: self.path.display().to_string(), why: why.into() }
    }

    /// Queues that are opened from now on have this size.
    fn adopt(&self, shared: &mut Arc<Shared>, size: u64) {
        let memory = shared.memory.is_some();
        let memory = memory
            .then(|| MemoryFile::new(&shared.fd, &self.path, size, !shared.geometry.read_only))
            .flatten();
        let next = Shared {
            fd: Arc::clone(&shared.fd),
            length: Arc::clone(&shared.length),
            geometry: Geometry { size, ..shared.geometry },
            features: shared.features,
            limits: shared.limits,
            outgrown: AtomicBool::new(false),
            memory,
            fixed_buffers: shared.fixed_buffers,
            iopoll: shared.iopoll,
            no_punch: AtomicBool::new(!shared.can_punch()),
            no_zero_range: AtomicBool::new(!shared.can_zero_range()),
        };
        let last = std::mem::replace(shared, Arc::new(next));
        last.outgrown.store(size < last.geometry.size, Ordering::Relaxed);
    }
}

impl Backend for FileBackend {
    fn geometry(&self) -> Geometry {
        self.shared().geometry
    }

    fn features(&self) -> Features {
        self.shared().features
    }

    fn open_queue(&self, depth: u32) -> Result<Box<dyn IoQueue>, BackendError> {
        let queue = FileQueue::new(self.shared(), depth).map_err(|error| BackendError::Ring {
            what: self.path.display().to_string(),
            why: error.to_string(),
        })?;
        Ok(Box::new(queue))
    }

    fn sync(&self) -> Result<(), IoError> {
        let shared = self.shared();
        if let Some(memory) = &shared.memory {
            memory.set_times();
        }
        loop {
            match rustix::fs::fdatasync(&shared.fd) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(IoError::from_errno(errno.raw_os_error(), Direction::Write)),
            }
        }
    }

    fn resize(&self, size: u64) -> Result<(), BackendError> {
        let mut shared = self.lock();
        check_size(&self.path.display().to_string(), size, self.block_size)?;
        if shared.limits.block_device {
            return Err(self.refuse("a block device: give it its size with its own tools, then none here"));
        }
        if shared.geometry.read_only {
            return Err(self.refuse("open read-only: its size is not changed"));
        }
        if size < shared.geometry.size
            && let Some(memory) = &shared.memory
        {
            memory.expect_cut();
        }
        let failed = |errno| self.refuse(format!("cannot be made {size} bytes long: {errno}"));
        shared.length.set(size).map_err(failed)?;
        if size != shared.geometry.size {
            self.adopt(&mut shared, size);
        }
        Ok(())
    }

    fn refresh(&self) -> Result<(), BackendError> {
        let mut shared = self.lock();
        let failed = |errno| self.refuse(format!("cannot be measured: {errno}"));
        let size = shared.length.measure().map_err(failed)?;
        if size != shared.geometry.size {
            check_size(&self.path.display().to_string(), size, self.block_size)?;
            shared.length.note(size);
            self.adopt(&mut shared, size);
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let shared = self.shared();
        let Limits { block_device, direct, .. } = shared.limits;
        let kind = if block_device { "block device" } else { "file" };
        let cache = match direct {
            Some(_) if shared.iopoll => "direct, polled",
            Some(_) => "direct",
            None => "buffered",
        };
        let access = if shared.geometry.read_only { ", read-only" } else { "" };
        format!("{}: {kind}, {}, {cache}{access}", self.path.display(), exact(shared.geometry.size))
    }
}
