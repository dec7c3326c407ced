//! Scatter Gather Lists to segments (NVMe Base 2.0, 4.1.2).
//!
//! Every descriptor is read once. Lists are bounded in descriptors and in segments, so one that loops ends.

use nvmet_dma::{SegmentBuilder, Snapshot};
use nvmet_spec::sgl::{SUBTYPE_ADDRESS, SglDescriptor, SglType};
use nvmet_spec::status::Status;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::status::dma_status;

/// Descriptors that are read from guest memory at a time.
const CHUNK: usize = 32;
/// The most descriptors that one command may have.
const MAX_DESCRIPTORS: u64 = 2048;
/// The most segments that one command may have.
const MAX_SEGMENTS: u32 = 256;

/// Appends the memory that the SGL beginning with `first` names for a transfer of `len` bytes. `to_host` is true for
/// a command that transfers to the host: only there a bit bucket takes data.
///
/// A list that names more than `len` bytes is accepted (Identify Controller SGLS bit 18).
///
/// # Errors
///
/// The SGL status codes of NVMe Base 2.0, Figure 101, and Data Transfer Error for memory that cannot be reached.
pub fn map(
    snapshot: &Snapshot,
    segments: &mut SegmentBuilder<'_>,
    first: &SglDescriptor,
    len: u64,
    to_host: bool,
) -> Result<(), Status> {
    let mut left = len;
    let mut segment = match kind(first)? {
        SglType::Segment | SglType::LastSegment => *first,
        _ => {
            append(segments, first, &mut left, to_host)?;
            return finished(left);
        }
    };
    let mut budget = MAX_DESCRIPTORS;
    for _ in 0..MAX_SEGMENTS {
        let last = kind(&segment)? == SglType::LastSegment;
        let bytes = u64::from(segment.length);
        if bytes == 0 || !bytes.is_multiple_of(16) {
            return Err(Status::INVALID_SGL_SEGMENT_DESCRIPTOR.with_dnr());
        }
        let count = bytes / 16;
        budget = budget.checked_sub(count).ok_or(Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS.with_dnr())?;
        let data = if last { count } else { count - 1 };
        map_segment(snapshot, segments, segment.address, data, &mut left, to_host)?;
        if last {
            return finished(left);
        }
        let mut next = SglDescriptor::new_zeroed();
        let at = segment.address.wrapping_add(data * 16);
        snapshot.read_bytes(at, next.as_mut_bytes()).map_err(|e| dma_status(&e))?;
        if !matches!(kind(&next)?, SglType::Segment | SglType::LastSegment) {
            return Err(Status::INVALID_SGL_SEGMENT_DESCRIPTOR.with_dnr());
        }
        segment = next;
    }
    Err(Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS.with_dnr())
}

fn finished(left: u64) -> Result<(), Status> {
    if left == 0 { Ok(()) } else { Err(Status::DATA_SGL_LENGTH_INVALID.with_dnr()) }
}

fn kind(descriptor: &SglDescriptor) -> Result<SglType, Status> {
    // The other sub types belong to fabrics.
    if descriptor.subtype() == SUBTYPE_ADDRESS {
        Ok(descriptor.kind())
    } else {
        Err(Status::SGL_DESCRIPTOR_TYPE_INVALID.with_dnr())
    }
}

fn map_segment(
    snapshot: &Snapshot,
    segments: &mut SegmentBuilder<'_>,
    mut address: u64,
    mut count: u64,
    left: &mut u64,
    to_host: bool,
) -> Result<(), Status> {
    let mut chunk = [[0u8; 16]; CHUNK];
    while count > 0 {
        let now = &mut chunk[..count.min(CHUNK as u64) as usize];
        snapshot.read_bytes(address, now.as_flattened_mut()).map_err(|e| dma_status(&e))?;
        for bytes in &*now {
            let descriptor = SglDescriptor::read_from_bytes(bytes).map_err(|_| Status::INTERNAL_ERROR)?;
            append(segments, &descriptor, left, to_host)?;
        }
        address = address.wrapping_add(now.len() as u64 * 16);
        count -= now.len() as u64;
    }
    Ok(())
}

/// Appends a descriptor that stands for data.
fn append(
    segments: &mut SegmentBuilder<'_>,
    descriptor: &SglDescriptor,
    left: &mut u64,
    to_host: bool,
) -> Result<(), Status> {
    let len = u64::from(descriptor.length).min(*left);
    match kind(descriptor)? {
        SglType::DataBlock if len == 0 => {}
        SglType::DataBlock => {
            segments.push(descriptor.address, len as usize).map_err(|e| dma_status(&e))?;
            *left -= len;
        }
        SglType::BitBucket if to_host => {
            segments.push_bit_bucket(len as usize).map_err(|e| dma_status(&e))?;
            *left -= len;
        }
        SglType::BitBucket => {}
        SglType::Segment | SglType::LastSegment => {
            return Err(Status::INVALID_SGL_SEGMENT_DESCRIPTOR.with_dnr());
        }
        _ => return Err(Status::SGL_DESCRIPTOR_TYPE_INVALID.with_dnr()),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
