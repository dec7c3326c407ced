//! From the errors of memory and backends to NVMe status (NVMe Base 2.0, 4.2.3; NVM Command Set 1.1, 3.2).

use std::sync::Once;

use nvmet_block::{Direction, IoError};
use nvmet_dma::DmaError;
use nvmet_spec::status::Status;

/// The status of a command whose memory cannot be reached: Data Transfer Error.
///
/// Names the usual cause once: guest memory that the VMM did not share.
pub fn dma_status(error: &DmaError) -> Status {
    static TOLD: Once = Once::new();
    if matches!(error, DmaError::NotAccessible { .. }) {
        TOLD.call_once(|| {
            tracing::warn!(
                "a command points to guest memory that the VMM did not share ({error}); give the guest's memory \
                 backend share=on (QEMU) or shared=on (Cloud Hypervisor)"
            );
        });
    }
    if matches!(error, DmaError::TooManySegments { .. }) {
        return Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS.with_dnr();
    }
    Status::DATA_TRANSFER_ERROR
}

/// The status of a command that its backend failed.
pub fn io_status(error: IoError) -> Status {
    match error {
        IoError::Media(Direction::Read) => Status::UNRECOVERED_READ_ERROR,
        IoError::Media(Direction::Write) => Status::WRITE_FAULT,
        IoError::CompareFailed => Status::COMPARE_FAILURE,
        IoError::NoSpace => Status::CAPACITY_EXCEEDED,
        IoError::ReadOnly => Status::NAMESPACE_WRITE_PROTECTED.with_dnr(),
        IoError::Invalid => Status::INVALID_FIELD.with_dnr(),
        IoError::OutOfRange => Status::LBA_OUT_OF_RANGE.with_dnr(),
        IoError::Unsupported => Status::INVALID_OPCODE.with_dnr(),
        IoError::Gone => Status::NAMESPACE_NOT_READY,
        IoError::Reserved => Status::RESERVATION_CONFLICT,
        IoError::Integrity => Status::GUARD_CHECK_ERROR,
        IoError::Aborted => Status::ABORT_REQUESTED,
        IoError::Status { sct, sc, dnr } => exact(sct, sc, dnr),
        IoError::Retry | IoError::Internal => Status::INTERNAL_ERROR,
    }
}

/// A status that a backend chose itself. One that does not exist, and success, which no failure can be, are Internal
/// Error.
fn exact(sct: u8, sc: u8, dnr: bool) -> Status {
    let status = Status::new(sct, sc);
    if sct > 7 || status.is_success() {
        return Status::INTERNAL_ERROR;
    }
    if dnr { status.with_dnr() } else { status }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_status_that_a_backend_names_arrives_as_it_is(sct in 0u8..8, sc: u8, dnr: bool) {
            let status = io_status(IoError::Status { sct, sc, dnr });
            if (sct, sc) == (0, 0) {
                proptest::prop_assert_eq!(status, Status::INTERNAL_ERROR);
            } else {
                proptest::prop_assert_eq!((status.sct(), status.sc(), status.dnr()), (sct, sc, dnr));
                proptest::prop_assert!(!status.is_success() && !status.more() && status.crd() == 0);
            }
        }

        #[test]
        fn a_type_that_no_status_can_have_is_an_internal_error(sct in 8u8.., sc: u8, dnr: bool) {
            proptest::prop_assert_eq!(io_status(IoError::Status { sct, sc, dnr }), Status::INTERNAL_ERROR);
        }
    }
}
