//! What a client's descriptor is, and whether it may be mapped.
//!
//! What it may know: `fstat`, `fstatfs`, open flags. A descriptor comes from outside: everything it claims is checked.

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags};

use crate::error::DmaError;
use crate::mapping::page_size;

/// `statfs` magic of hugetlbfs (Linux `include/uapi/linux/magic.h`).
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;
/// `statfs` magic of FUSE.
const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;

/// What makes two descriptors the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

/// A file that passed the checks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileFacts {
    pub(crate) id: FileId,
    /// Size in bytes, now.
    pub(crate) size: u64,
    /// Size of the pages that a mapping of it is made of: offset and length of a mapping are multiples.
    pub(crate) page_size: usize,
}

/// Checks that `fd` is memory that can be mapped with the wanted access.
pub(crate) fn inspect(fd: BorrowedFd<'_>, writable: bool) -> Result<FileFacts, DmaError> {
    let refuse = |reason| Err(DmaError::NotMappable { reason });
    let failed = |errno: rustix::io::Errno| DmaError::MapFailed { errno: errno.raw_os_error() };
    let stat = rustix::fs::fstat(fd).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return refuse("it is not a regular file or memfd");
    }
    let flags = rustix::fs::fcntl_getfl(fd).map_err(failed)?;
    if flags.contains(OFlags::PATH) || flags & OFlags::RWMODE == OFlags::WRONLY {
        return refuse("it is not open for reading");
    }
    if writable && flags & OFlags::RWMODE != OFlags::RDWR {
        return refuse("the region is writable, but the file is open for reading only");
    }
    let magic = rustix::fs::fstatfs(fd).map_err(failed)?.f_type as u64 & 0xffff_ffff;
    if magic == FUSE_SUPER_MAGIC {
        // Whoever serves the file system could let every access of ours hang.
        return refuse("it lies on a FUSE file system");
    }
    let page_size = match usize::try_from(stat.st_blksize) {
        Ok(huge) if magic == HUGETLBFS_MAGIC && huge.is_power_of_two() && huge > page_size() => huge,
        _ => page_size(),
    };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(FileFacts { id: FileId { dev: stat.st_dev, ino: stat.st_ino }, size, page_size })
}
