//! Copies between a mapping of ours and a transfer's guest memory.
//!
//! What it may know: mappings, segments, offsets. What it must not: what the mapping is made of.

use crate::error::DmaError;
use crate::mapping::Mapping;
use crate::memory::{Direction, Segments};
use crate::raw;

/// Bytes that are compared at a time.
const COMPARE_CHUNK: usize = 1024;

/// Copies from `at` on into all of `segments`.
///
/// # Errors
///
/// [`DmaError::OutOfBounds`]; [`DmaError::WrongDirection`] unless the segments are [`Direction::ToGuest`].
#[inline]
pub(crate) fn to_guest(mapping: &Mapping, at: usize, segments: &Segments<'_>) -> Result<(), DmaError> {
    segments.check_direction(Direction::ToGuest)?;
    let mut at = at;
    for (host, len) in segments.pieces() {
        let src = mapping.at(at, len)?;
        // SAFETY: `at` checked our range; the snapshot that the segments borrow keeps theirs valid and, by the
        // direction, writable; the two are different mappings.
        unsafe { raw::copy_across(src, host.as_ptr(), len) };
        at += len;
    }
    Ok(())
}

/// Copies all of `segments` to `at` on. Whether what was copied is the guest's is for the caller to ask
/// ([`Segments::check_poison`]).
///
/// # Errors
///
/// [`DmaError::OutOfBounds`]; [`DmaError::WrongDirection`] unless the segments are [`Direction::FromGuest`] and the
/// mapping is writable.
#[inline]
pub(crate) fn from_guest(mapping: &Mapping, at: usize, segments: &Segments<'_>) -> Result<(), DmaError> {
    segments.check_direction(Direction::FromGuest)?;
    mapping.check_writable()?;
    let mut at = at;
    for (host, len) in segments.pieces() {
        let dst = mapping.at(at, len)?;
        // SAFETY: as in `to_guest`, with the directions swapped; the mapping is writable.
        unsafe { raw::copy_across(host.as_ptr(), dst, len) };
        at += len;
    }
    Ok(())
}

/// Whether all of `segments` equals what is at `at` on.
///
/// # Errors
///
/// As [`from_guest`]; [`DmaError::Poisoned`] if what was compared may not be the guest's.
pub(crate) fn equals(mapping: &Mapping, at: usize, segments: &Segments<'_>) -> Result<bool, DmaError> {
    let mut ours = [0; COMPARE_CHUNK];
    let mut done = 0;
    while done < segments.len() {
        let (chunk, _) = ours.split_at_mut(COMPARE_CHUNK.min(segments.len() - done));
        mapping.read_bytes(at + done, chunk)?;
        if !segments.compare_with(done, chunk)? {
            return Ok(false);
        }
        done += chunk.len();
    }
    Ok(true)
}
