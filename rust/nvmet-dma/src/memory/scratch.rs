//! Where discarded data goes: one small mapping of the process that nobody ever reads.

use std::ptr::NonNull;
use std::sync::OnceLock;

use crate::error::DmaError;
use crate::mapping::Mapping;

/// Size of the scratch mapping in bytes; longer discards use it several times.
pub(super) const SCRATCH_LEN: usize = 64 * 1024;

/// First byte of the scratch mapping, which lives as long as the process.
pub(super) fn scratch() -> Result<NonNull<u8>, DmaError> {
    static SCRATCH: OnceLock<Mapping> = OnceLock::new();
    if let Some(mapping) = SCRATCH.get() {
        return Ok(mapping.base());
    }
    let fresh = Mapping::anonymous(SCRATCH_LEN)
        .map_err(|errno| DmaError::MapFailed { errno: errno.raw_os_error() })?;
    Ok(SCRATCH.get_or_init(|| fresh).base())
}
