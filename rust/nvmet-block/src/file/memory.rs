//! A file on a memory file system (tmpfs): operations that are done at once, without the ring.
//!
//! The kernel hands io_uring's work on such files to threads of its own, though nothing there ever waits for a medium.
//! Ranges that have all their pages are copied through a mapping, the others are moved by system calls: an access
//! through the mapping to a hole would take up room, and is a SIGBUS where there is none.
//!
//! May know: operations, the map, which chunks are dense. Must not know: the ring.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nvmet_dma::file_io::{Moved, read_at, write_at};
use nvmet_dma::{DmaError, FileMap, Segments};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use super::dense::Chunks;
use super::task::PUNCH;
use crate::error::{Direction, IoError};
use crate::queue::Op;

/// `statfs` magic of tmpfs (Linux `include/uapi/linux/magic.h`).
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Most bytes that are zeroed or given back at once; more would keep the worker from its other queues.
const MAX_ZEROED: u64 = 1 << 20;

/// Largest file that is mapped: what is known of its chunks takes 16 MiB then.
const MAX_MAPPED: u64 = 1 << 40;

/// A regular file on tmpfs.
#[derive(Debug)]
pub(super) struct MemoryFile {
    fd: Arc<OwnedFd>,
    path: PathBuf,
    mapped: Option<Mapped>,
    /// Written through the mapping since the file's times were set.
    touched: AtomicBool,
}

#[derive(Debug)]
struct Mapped {
    map: FileMap,
    chunks: Chunks,
    /// Somebody was told that the map is lost.
    told: AtomicBool,
}

impl MemoryFile {
    /// The file, if it lies on tmpfs.
    pub(super) fn new(fd: &Arc<OwnedFd>, path: &Path, size: u64, writable: bool) -> Option<Arc<Self>> {
        let kind = rustix::fs::fstatfs(fd).ok()?.f_type as u64 & 0xffff_ffff;
        if kind != TMPFS_MAGIC {
            return None;
        }
        let page = rustix::param::page_size() as u64;
        let map = if size > MAX_MAPPED {
            Err(std::io::ErrorKind::FileTooLarge.into())
        } else {
            FileMap::new(fd.as_fd(), size, writable)
        };
        let mapped = match map {
            Ok(map) => {
                let chunks = Chunks::new(map.len(), page);
                Some(Mapped { map, chunks, told: AtomicBool::new(false) })
            }
            Err(error) => {
                tracing::info!(path = %path.display(), %error, "the file is not mapped: system calls move its data");
                None
            }
        };
        let file =
            Self { fd: Arc::clone(fd), path: path.to_owned(), mapped, touched: AtomicBool::new(false) };
        Some(Arc::new(file))
    }

    /// Carries an operation out, whose range was checked. None if it is one for the ring.
    #[inline]
    pub(super) fn run(&self, op: &Op<'_>) -> Option<Result<(), IoError>> {
        match *op {
            Op::Read { offset, ref data } => Some(self.read(offset, data)),
            Op::Write { offset, ref data, fua } => Some(self.write(offset, data, fua)),
            Op::Compare { offset, ref data } => self.compare(offset, data),
            Op::WriteZeroes { offset, len, deallocate: false, .. } => self.zero(offset, len),
            Op::WriteZeroes { offset, len, .. } | Op::Deallocate { offset, len } => self.punch(offset, len),
            Op::Flush => Some(self.flush()),
        }
    }

    /// The map, if it serves all of a range by itself.
    #[inline]
    fn mapped(&self, offset: u64, len: u64) -> Option<&Mapped> {
        let mapped = self.mapped.as_ref().filter(|mapped| !mapped.map.is_lost())?;
        mapped.chunks.are_dense(&mapped.map, offset, len).then_some(mapped)
    }

    #[inline]
    fn read(&self, offset: u64, data: &Segments<'_>) -> Result<(), IoError> {
        if let Some(mapped) = self.mapped(offset, data.len() as u64) {
            match mapped.map.read(offset, data) {
                Err(DmaError::FileLost) => self.lost(mapped),
                result => return result.map_err(io_error),
            }
        }
        let moved = read_at(self.fd.as_fd(), offset, data, false).map_err(io_error)?;
        self.accessed(offset, data.len());
        status(moved, data.len(), Direction::Read)
    }

    #[inline]
    fn write(&self, offset: u64, data: &Segments<'_>, fua: bool) -> Result<(), IoError> {
        if let Some(mapped) = self.mapped(offset, data.len() as u64) {
            match mapped.map.write(offset, data) {
                // What reached the file is written once more.
                Err(DmaError::FileLost) => self.lost(mapped),
                result => {
                    self.touch();
                    return result.map_err(io_error);
                }
            }
        }
        let moved = write_at(self.fd.as_fd(), offset, data, false, fua).map_err(io_error)?;
        self.accessed(offset, data.len());
        status(moved, data.len(), Direction::Write)
    }

    fn compare(&self, offset: u64, data: &Segments<'_>) -> Option<Result<(), IoError>> {
        let mapped = self.mapped(offset, data.len() as u64)?;
        match mapped.map.compare(offset, data) {
            Ok(true) => Some(Ok(())),
            Ok(false) => Some(Err(IoError::CompareFailed)),
            Err(DmaError::FileLost) => {
                self.lost(mapped);
                None
            }
            Err(error) => Some(Err(io_error(error))),
        }
    }

    fn zero(&self, offset: u64, len: u64) -> Option<Result<(), IoError>> {
        if len > MAX_ZEROED {
            return None;
        }
        let mapped = self.mapped(offset, len)?;
        match mapped.map.zero(offset, len as usize) {
            Err(DmaError::FileLost) => {
                self.lost(mapped);
                None
            }
            result => {
                self.touch();
                Some(result.map_err(io_error))
            }
        }
    }

    fn punch(&self, offset: u64, len: u64) -> Option<Result<(), IoError>> {
        if len == 0 || len > MAX_ZEROED {
            return None;
        }
        self.begin_punch(offset, len);
        let result = rustix::fs::fallocate(&self.fd, PUNCH, offset, len);
        self.end_punch();
        match result {
            Ok(()) => Some(Ok(())),
            // As it is done without a memory file.
            Err(Errno::OPNOTSUPP | Errno::INTR) => None,
            Err(errno) => Some(Err(IoError::from_errno(errno.raw_os_error(), Direction::Write))),
        }
    }

    fn flush(&self) -> Result<(), IoError> {
        self.set_times();
        rustix::io::retry_on_intr(|| rustix::fs::fdatasync(&self.fd))
            .map_err(|errno| IoError::from_errno(errno.raw_os_error(), Direction::Write))
    }

    #[inline]
    fn accessed(&self, offset: u64, len: usize) {
        if let Some(mapped) = &self.mapped {
            mapped.chunks.accessed(offset, len as u64);
        }
    }

    fn begin_punch(&self, offset: u64, len: u64) {
        if let Some(mapped) = &self.mapped {
            mapped.chunks.begin_punch(offset, len);
        }
    }

    fn end_punch(&self) {
        if let Some(mapped) = &self.mapped {
            mapped.chunks.end_punch();
        }
    }

    /// Says that a range loses its pages, as long as the answer lives.
    pub(super) fn punching(self: &Arc<Self>, offset: u64, len: u64) -> Punching {
        self.begin_punch(offset, len);
        Punching(Arc::clone(self))
    }

    /// The file is going to be cut by us: that its map is lost then is no news.
    pub(super) fn expect_cut(&self) {
        if let Some(mapped) = &self.mapped {
            mapped.told.store(true, Ordering::Relaxed);
        }
    }

    #[cold]
    fn lost(&self, mapped: &Mapped) {
        if !mapped.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                path = %self.path.display(),
                "the file was cut short, its file system is full, or memory failed: \
                 slower from now on, by system calls; restart the target when it is mended"
            );
        }
    }

    #[inline]
    fn touch(&self) {
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
    }

    /// A store to a mapping does not change the file's times, which backups go by.
    pub(super) fn set_times(&self) {
        if self.touched.load(Ordering::Relaxed) && self.touched.swap(false, Ordering::Relaxed) {
            let times = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            };
            // Times are a courtesy: nothing hangs on them.
            let _ = rustix::fs::futimens(&self.fd, &times);
        }
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.set_times();
    }
}

/// A range is losing its pages on the ring.
#[derive(Debug)]
pub(super) struct Punching(Arc<MemoryFile>);

impl Drop for Punching {
    fn drop(&mut self) {
        self.0.end_punch();
    }
}

/// What a transfer of `len` bytes came to; fewer mean that the file ends before its size at the start.
#[inline]
fn status(moved: Moved, len: usize, direction: Direction) -> Result<(), IoError> {
    match moved {
        Moved { bytes, .. } if bytes == len => Ok(()),
        Moved { stopped: Some(errno), .. } => Err(IoError::from_errno(errno.raw_os_error(), direction)),
        Moved { stopped: None, .. } => Err(IoError::Media(direction)),
    }
}

/// The bounds were checked, so what is left is guest memory that went away, or a caller's mistake.
#[cold]
fn io_error(error: DmaError) -> IoError {
    match error {
        DmaError::OutOfBounds { .. } => IoError::OutOfRange,
        DmaError::WrongDirection => IoError::Invalid,
        _ => IoError::Internal,
    }
}
