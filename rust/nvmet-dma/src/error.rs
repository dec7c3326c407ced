//! What can go wrong with guest memory, for the control side (mapping) and for the data side (reaching it).

use std::io;

use thiserror::Error;

use crate::memory::Direction;

/// An error of this crate's memory types: small and `Copy`, so that the hot path formats and allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DmaError {
    /// A region of zero bytes.
    #[error("the region at {iova:#x} is empty")]
    EmptyRegion {
        /// Guest address of the region.
        iova: u64,
    },
    /// The region goes beyond the last address.
    #[error("the region at {iova:#x} of {size:#x} bytes wraps around the address space")]
    RegionWraps {
        /// Guest address of the region.
        iova: u64,
        /// Size in bytes.
        size: u64,
    },
    /// The range in the file goes beyond the largest offset.
    #[error("offset {offset:#x} plus {size:#x} bytes is no valid file range")]
    OffsetWraps {
        /// Offset in the file, in bytes.
        offset: u64,
        /// Size in bytes.
        size: u64,
    },
    /// Some of the range is mapped already, and not by an identical region.
    #[error("the region at {iova:#x} of {size:#x} bytes overlaps one that is mapped")]
    Overlap {
        /// Guest address of the refused region.
        iova: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// Unmap of a range that is not exactly one mapped region.
    #[error("no region starts at {iova:#x} with {size:#x} bytes")]
    NotFound {
        /// Guest address asked for.
        iova: u64,
        /// Size asked for, in bytes.
        size: u64,
    },
    /// The client maps more regions than it may.
    #[error("more than {limit} regions are mapped")]
    TooManyRegions {
        /// The largest number of regions.
        limit: usize,
    },
    /// The client's regions need more mappings, or more address space, than one client may take.
    #[error("the regions need more than {mappings} mappings or {bytes:#x} bytes of address space")]
    TooMuchMapped {
        /// The largest number of mappings.
        mappings: usize,
        /// The most address space, in bytes.
        bytes: u64,
    },
    /// The file ends before the region does.
    #[error("the file has {file_size:#x} bytes, the region needs {offset:#x} plus {size:#x}")]
    FileTooShort {
        /// Offset of the region in the file, in bytes.
        offset: u64,
        /// Size of the region in bytes.
        size: u64,
        /// Size of the file in bytes.
        file_size: u64,
    },
    /// The descriptor is not one of shareable memory.
    #[error("the descriptor cannot be mapped: {reason}")]
    NotMappable {
        /// Why not.
        reason: &'static str,
    },
    /// The kernel refused to map the file.
    #[error("mapping the file failed: {}", io::Error::from_raw_os_error(*.errno))]
    MapFailed {
        /// The kernel's errno.
        errno: i32,
    },
    /// The address belongs to no region.
    #[error("guest address {iova:#x} is not mapped")]
    NotMapped {
        /// The first address that is not mapped.
        iova: u64,
    },
    /// The address belongs to a region that came without a file.
    #[error(
        "guest address {iova:#x} is memory that the VMM does not share: give the VM shared memory \
         (QEMU: -object memory-backend-memfd,share=on; Cloud Hypervisor: --memory shared=on)"
    )]
    NotAccessible {
        /// The first address that cannot be reached.
        iova: u64,
    },
    /// The region may not be used in this direction.
    #[error("guest address {iova:#x} may not be used {direction}")]
    AccessDenied {
        /// The first address that is refused.
        iova: u64,
        /// The direction that is refused.
        direction: Direction,
    },
    /// The transfer is made of more pieces than the buffer was made for.
    #[error("more than {limit} segments")]
    TooManySegments {
        /// The largest number of segments.
        limit: usize,
    },
    /// The transfer has more bytes than the buffer was made for.
    #[error("more than {limit} bytes")]
    TooLong {
        /// The largest number of bytes.
        limit: usize,
    },
    /// The range is not inside the object.
    #[error("{len} bytes at {offset} are outside of {size} bytes")]
    OutOfBounds {
        /// Offset asked for, in bytes.
        offset: u64,
        /// Length asked for, in bytes.
        len: u64,
        /// Size of the object in bytes.
        size: u64,
    },
    /// An address, offset or boundary that must be a multiple of 4 is not.
    #[error("{at:#x} is not a multiple of 4")]
    Misaligned {
        /// The address or offset.
        at: u64,
    },
    /// The segments or the window were made for the other direction.
    #[error("the memory was resolved for the other direction")]
    WrongDirection,
    /// The client took away memory under a mapping (it truncated its file), or the memory failed.
    #[error("guest memory vanished under its mapping")]
    Poisoned,
    /// A file of ours that is mapped was truncated, could not get a page, or its memory failed.
    #[error("the file vanished under its mapping, at least in part")]
    FileLost,
}

impl DmaError {
    /// The errno that says the same to a vfio-user client (positive, as in the protocol's error field).
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Overlap { .. } => libc::EEXIST,
            Self::NotFound { .. } => libc::ENOENT,
            Self::TooManyRegions { .. } => libc::ENOSPC,
            Self::TooMuchMapped { .. } => libc::ENOMEM,
            Self::MapFailed { errno } => *errno,
            Self::NotMapped { .. } | Self::NotAccessible { .. } | Self::Poisoned => libc::EFAULT,
            Self::FileLost => libc::EIO,
            Self::AccessDenied { .. } | Self::WrongDirection => libc::EACCES,
            Self::TooManySegments { .. } | Self::TooLong { .. } => libc::E2BIG,
            Self::EmptyRegion { .. }
            | Self::RegionWraps { .. }
            | Self::OffsetWraps { .. }
            | Self::FileTooShort { .. }
            | Self::NotMappable { .. }
            | Self::OutOfBounds { .. }
            | Self::Misaligned { .. } => libc::EINVAL,
        }
    }
}

impl From<DmaError> for io::Error {
    fn from(error: DmaError) -> Self {
        let kind = match error {
            DmaError::MapFailed { errno } => Self::from_raw_os_error(errno).kind(),
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
