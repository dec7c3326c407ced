//! Opening and creating a file: every check, before anything is served from it.
//!
//! May know: paths, permissions, messages for people. Must not know: queues.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nvmet_dma::ring::Ring;
use rustix::fs::{FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::limits::{self, Limits};
use super::{lock, polling};
use crate::backend::{Features, Geometry};
use crate::error::BackendError;
use crate::size::{MIN_BLOCK, check_size};
use crate::spec::OpenOptions;

/// A file that passed all checks, locked.
pub(super) struct Opened {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) geometry: Geometry,
    pub(super) features: Features,
    pub(super) limits: Limits,
}

pub(super) fn open(path: &Path, options: OpenOptions) -> Result<Opened, BackendError> {
    match options.create {
        None => prepare(path, open_existing(path, options.read_only)?, options),
        Some(size) => {
            check_size(&path.display().to_string(), size, options.block_size)?;
            if options.read_only {
                return Err(refuse(
                    path,
                    "a new file is of no use read-only: leave --create or --read-only out",
                ));
            }
            let fd = create(path)?;
            let filled = match rustix::fs::ftruncate(&fd, size) {
                Ok(()) => prepare(path, fd, options),
                Err(errno) => Err(refuse(path, format!("cannot be made {size} bytes long: {errno}"))),
            };
            if filled.is_err() {
                // It was ours alone: nobody else can have put anything into it.
                let _ = rustix::fs::unlink(path);
            }
            filled
        }
    }
}

fn refuse(path: &Path, why: impl Into<String>) -> BackendError {
    BackendError::File { path: path.to_owned(), why: why.into() }
}

fn create(path: &Path) -> Result<OwnedFd, BackendError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| {
        refuse(
            path,
            match errno {
                Errno::EXIST => {
                    "exists already: leave --create out to use it, or choose another name".to_owned()
                }
                Errno::NOENT => "its directory does not exist: make it first".to_owned(),
                Errno::ACCESS | Errno::PERM => "no permission to create a file there".to_owned(),
                Errno::ROFS => "the file system is read-only: nothing can be created there".to_owned(),
                errno => format!("cannot be created: {errno}"),
            },
        )
    })
}

fn open_existing(path: &Path, read_only: bool) -> Result<OwnedFd, BackendError> {
    // The kind is asked first: opening a FIFO or a tape drive does something to it.
    let stat = rustix::fs::stat(path).map_err(|errno| refuse(path, explain_open(errno, true)))?;
    let device = check_kind(path, FileType::from_raw_mode(stat.st_mode))?;
    let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    flags |= if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    if device && !read_only {
        // Without `O_CREAT`: the device is ours alone, and not mounted.
        flags |= OFlags::EXCL;
    }
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| refuse(path, explain_open(errno, read_only)))
}

fn explain_open(errno: Errno, read_only: bool) -> String {
    match errno {
        Errno::NOENT => "no such file: check the path, or create it with --create SIZE".to_owned(),
        Errno::NOTDIR => "part of the path is not a directory: check the path".to_owned(),
        Errno::ACCESS | Errno::PERM if read_only => "no permission to read it".to_owned(),
        Errno::ACCESS | Errno::PERM => {
            "no permission to write to it: change its permissions, or use --read-only".to_owned()
        }
        Errno::ROFS => "it is on a read-only file system or device: use --read-only".to_owned(),
        Errno::BUSY => "the device is in use (mounted, or opened exclusively): release it first".to_owned(),
        errno => format!("cannot be opened: {errno}"),
    }
}

/// True for a block device.
fn check_kind(path: &Path, kind: FileType) -> Result<bool, BackendError> {
    match kind {
        FileType::RegularFile => Ok(false),
        FileType::BlockDevice => Ok(true),
        FileType::Directory => Err(refuse(path, "is a directory: name a file or block device in it")),
        _ => Err(refuse(path, "is neither a regular file nor a block device")),
    }
}

/// Checks, locks and measures an open file.
fn prepare(path: &Path, fd: OwnedFd, options: OpenOptions) -> Result<Opened, BackendError> {
    let failed = |errno: Errno| refuse(path, format!("cannot be examined: {errno}"));
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    let is_device = check_kind(path, FileType::from_raw_mode(stat.st_mode))?;
    Ring::check()
        .map_err(|error| BackendError::Ring { what: path.display().to_string(), why: error.to_string() })?;
    take_lock(path, &fd, options.read_only)?;
    let size = if is_device {
        rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(failed)?
    } else {
        u64::try_from(stat.st_size).unwrap_or(0)
    };
    if size == 0 {
        return Err(refuse(
            path,
            "is empty: give it a size first (truncate -s 10G FILE), or use --create SIZE",
        ));
    }
    check_size(&path.display().to_string(), size, options.block_size)?;
    let device = is_device.then(|| (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)));
    let limits =
        limits::explore(fd.as_fd(), device, size, options.block_size, options.read_only).map_err(failed)?;
    let fd = Arc::new(fd);
    if options.iopoll {
        polling::check(&fd, &limits).map_err(|why| refuse(path, why))?;
    }
    let geometry = geometry(size, &limits, options);
    let features = Features {
        volatile_write_cache: !options.read_only,
        discard: limits.punch_hole,
        write_zeroes: !options.read_only,
        discarded_reads_zero: limits.punch_hole,
        stores_data: true,
    };
    Ok(Opened { fd, geometry, features, limits })
}

fn geometry(size: u64, limits: &Limits, options: OpenOptions) -> Geometry {
    // Buffered I/O takes any offset. Direct I/O was chosen only if what it asks for is within a block.
    let min_block = limits.direct.map_or(MIN_BLOCK, |direct| direct.offset.max(MIN_BLOCK));
    let physical_block = limits.physical_block.max(min_block);
    Geometry {
        size,
        min_block,
        preferred_block: options.block_size.max(limits.logical_block),
        physical_block,
        optimal_io: limits.optimal_io - limits.optimal_io % physical_block,
        read_only: options.read_only,
    }
}

fn take_lock(path: &Path, fd: &OwnedFd, read_only: bool) -> Result<(), BackendError> {
    match lock::lock(fd.as_fd(), read_only) {
        Ok(true) => Ok(()),
        Ok(false) if read_only => {
            Err(refuse(path, "another process writes to it: stop that process first, or work on a copy"))
        }
        Ok(false) => Err(refuse(
            path,
            "another process uses it: stop that process first, or let both use it with --read-only",
        )),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the file system has no locks: a second writer is not noticed");
            Ok(())
        }
    }
}
