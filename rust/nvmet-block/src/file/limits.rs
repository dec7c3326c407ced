//! What a file or block device can do: alignment of direct I/O, block sizes, hole punching.
//!
//! May know: statx, sysfs, fallocate. Nothing here changes the file's content or size.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use nvmet_dma::AlignedBuf;
use rustix::fs::{AtFlags, FallocateFlags, OFlags, Statx, StatxFlags};
use rustix::io::{Errno, pread};

use crate::size::MIN_BLOCK;

/// The facts that operations depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) block_device: bool,
    /// What direct I/O asks for; `None` for buffered I/O.
    pub(super) direct: Option<Direct>,
    /// Multiple that `fallocate` wants.
    pub(super) fallocate_align: u64,
    /// Smallest block of the medium.
    pub(super) logical_block: u32,
    pub(super) physical_block: u32,
    pub(super) optimal_io: u32,
    /// The device has queues that can be polled.
    pub(super) poll_queues: bool,
    /// `FALLOC_FL_PUNCH_HOLE` works, and leaves zeroes.
    pub(super) punch_hole: bool,
}

/// The alignment of direct I/O, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Direct {
    /// Multiple that address and length of every segment must be.
    pub(super) segment: usize,
    /// Multiple that offset and length of a transfer must be.
    pub(super) offset: u32,
}

/// Finds the limits out, and switches the descriptor to direct I/O where that suits `block_size`.
pub(super) fn explore(
    fd: BorrowedFd<'_>,
    device: Option<(u32, u32)>,
    size: u64,
    block_size: u32,
    read_only: bool,
) -> Result<Limits, Errno> {
    let stat =
        rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::DIOALIGN)?;
    let direct = direct(fd, &stat, size, block_size)?;
    Ok(match device {
        Some(device) => {
            let logical = power_of_two(queue_limit(device, "logical_block_size"), MIN_BLOCK);
            Limits {
                block_device: true,
                direct,
                fallocate_align: u64::from(logical),
                logical_block: logical,
                physical_block: power_of_two(queue_limit(device, "physical_block_size"), logical),
                optimal_io: queue_limit(device, "optimal_io_size")
                    .and_then(|n| u32::try_from(n).ok())
                    .unwrap_or(0),
                poll_queues: queue_limit(device, "io_poll") == Some(1),
                // A device punches holes by writing zeroes, and refuses if it cannot do so by itself.
                punch_hole: !read_only
                    && queue_limit(device, "write_zeroes_max_bytes").is_some_and(|n| n > 0),
            }
        }
        None => Limits {
            block_device: false,
            direct,
            fallocate_align: 1,
            logical_block: MIN_BLOCK,
            physical_block: power_of_two(Some(u64::from(stat.stx_blksize)), MIN_BLOCK).max(block_size),
            optimal_io: 0,
            poll_queues: false,
            punch_hole: !read_only && can_punch(fd, size),
        },
    })
}

fn power_of_two(value: Option<u64>, least: u32) -> u32 {
    value
        .and_then(|value| u32::try_from(value).ok())
        .filter(|value| value.is_power_of_two())
        .unwrap_or(least)
        .max(least)
}

/// A hole behind the end of a regular file changes nothing, and tells whether there can be holes.
fn can_punch(fd: BorrowedFd<'_>, size: u64) -> bool {
    rustix::fs::fallocate(fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, size, 4096).is_ok()
}

/// A number of `/sys/dev/block/MAJOR:MINOR/queue`; that of the whole disk for a partition.
fn queue_limit((major, minor): (u32, u32), name: &str) -> Option<u64> {
    let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let text = std::fs::read_to_string(device.join("queue").join(name))
        .or_else(|_| std::fs::read_to_string(device.join("../queue").join(name)))
        .ok()?;
    text.trim().parse().ok()
}

/// The alignment of direct I/O, after switching to it; `None` if buffered I/O is to be used.
fn direct(fd: BorrowedFd<'_>, stat: &Statx, size: u64, block_size: u32) -> Result<Option<Direct>, Errno> {
    let known = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    if known {
        let (mem, offset) = (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
        // Zero: no direct I/O on this file. More than a block: it would take a read-modify-write.
        if mem == 0 || offset == 0 || offset > block_size {
            return switch(fd, OFlags::empty()).map(|()| None);
        }
        return Ok(switch(fd, OFlags::DIRECT)
            .ok()
            .map(|()| Direct { segment: mem.max(offset) as usize, offset }));
    }
    if switch(fd, OFlags::DIRECT).is_err() {
        return switch(fd, OFlags::empty()).map(|()| None);
    }
    let align = probe(fd, size).filter(|align| *align <= block_size);
    if align.is_none() {
        switch(fd, OFlags::empty())?;
    }
    Ok(align.map(|align| Direct { segment: align as usize, offset: align }))
}

/// Sets the flags of the descriptor that can change; `O_NONBLOCK` goes, with it `io_uring` would not wait.
fn switch(fd: BorrowedFd<'_>, flags: OFlags) -> Result<(), Errno> {
    rustix::fs::fcntl_setfl(fd, flags)
}

/// The alignment that reading takes. `None` if none works, or if the file system takes anything: then `O_DIRECT` means
/// nothing to it.
fn probe(fd: BorrowedFd<'_>, size: u64) -> Option<u32> {
    let mut buf = AlignedBuf::new(3 * 4096).ok()?;
    let mut works = |start: usize, len: usize| {
        let room = buf.get_mut(start..start + len);
        room.is_some_and(|room| {
            len as u64 <= size && pread(fd.as_fd(), room, 0).is_ok_and(|read| read == len)
        })
    };
    if works(1, 511) {
        return None;
    }
    [512, 4096].into_iter().find(|align| works(*align as usize, *align as usize))
}
