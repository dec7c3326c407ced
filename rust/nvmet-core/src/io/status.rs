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
        IoError::Retry | IoError::Internal => Status::INTERNAL_ERROR,
    }
}
