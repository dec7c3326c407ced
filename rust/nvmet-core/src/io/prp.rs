//! Physical Region Pages: PRP entries and lists to segments (NVMe Base 2.0, 4.1.1).
//!
//! Every entry is read once. Work is bounded by the transfer length: each list page but the first yields at least
//! one data page, and the first yields one or is a single hop.

use nvmet_dma::{SegmentBuilder, Snapshot};
use nvmet_spec::status::Status;

use super::status::dma_status;

/// PRP entries that are read from guest memory at a time.
const CHUNK: usize = 64;

/// Appends the memory that `prp1` and `prp2` name for a transfer of `len` bytes; `page` is CC.MPS in bytes, a power of two.
///
/// # Errors
///
/// PRP Offset Invalid for an entry that is not dword aligned, or a list entry that is not page aligned; Data Transfer
/// Error for memory that cannot be reached.
pub fn map(
    snapshot: &Snapshot,
    segments: &mut SegmentBuilder<'_>,
    page: u64,
    prp1: u64,
    prp2: u64,
    len: u64,
) -> Result<(), Status> {
    let offset_invalid = Status::PRP_OFFSET_INVALID.with_dnr();
    if len == 0 {
        return Ok(());
    }
    if prp1 & 3 != 0 {
        return Err(offset_invalid);
    }
    // A power of two; the compiler cannot know, and a division costs as much as all the rest.
    let (mask, shift) = (page - 1, page.trailing_zeros());
    let first = len.min(page - (prp1 & mask));
    segments.push(prp1, first as usize).map_err(|e| dma_status(&e))?;
    let mut left = len - first;
    if left == 0 {
        return Ok(());
    }
    if left <= page {
        // PRP2 is the second data page; it starts at its page's beginning.
        if prp2 & mask != 0 {
            return Err(offset_invalid);
        }
        return segments.push(prp2, left as usize).map_err(|e| dma_status(&e));
    }
    // PRP2 is a list pointer: it may start in the middle of a page, on a qword.
    if prp2 & 7 != 0 {
        return Err(offset_invalid);
    }
    let mut list = prp2;
    loop {
        let entries_left = (left + mask) >> shift;
        let room = (page - (list & mask)) / 8;
        // The last slot of a list page is a pointer to the next page if more than one entry is still needed.
        let chained = entries_left > room;
        let entries = if chained { room - 1 } else { entries_left };
        left = map_list(snapshot, segments, page, list, entries, left)?;
        if !chained {
            return Ok(());
        }
        let mut next = [0; 8];
        snapshot.read_bytes(list + entries * 8, &mut next).map_err(|e| dma_status(&e))?;
        list = u64::from_le_bytes(next);
        if list & mask != 0 {
            return Err(offset_invalid);
        }
    }
}

/// Appends `entries` entries of the list at `list`; returns what is left of `left`.
fn map_list(
    snapshot: &Snapshot,
    segments: &mut SegmentBuilder<'_>,
    page: u64,
    mut list: u64,
    mut entries: u64,
    mut left: u64,
) -> Result<u64, Status> {
    let mut chunk = [[0u8; 8]; CHUNK];
    while entries > 0 {
        let count = entries.min(CHUNK as u64);
        let now = &mut chunk[..count as usize];
        snapshot.read_bytes(list, now.as_flattened_mut()).map_err(|e| dma_status(&e))?;
        for entry in now {
            let address = u64::from_le_bytes(*entry);
            if address & (page - 1) != 0 {
                return Err(Status::PRP_OFFSET_INVALID.with_dnr());
            }
            let len = left.min(page);
            segments.push(address, len as usize).map_err(|e| dma_status(&e))?;
            left -= len;
        }
        // Only the end of the address space wraps, and then there is nothing more to read.
        list = list.wrapping_add(count * 8);
        entries -= count;
    }
    Ok(left)
}

#[cfg(test)]
mod tests;
