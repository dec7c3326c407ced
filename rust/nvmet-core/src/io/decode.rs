//! From the 64 bytes of an I/O command to a typed one (NVM Command Set 1.1, 3).
//!
//! Zero-based fields become one-based here and nowhere else. What needs a namespace is checked in
//! [`execute`](super::execute).

use nvmet_spec::command::{DsmCdw10, DsmCdw11, Fuse, NvmOpcode, Psdt, RwCdw12, Sqe};
use nvmet_spec::status::Status;

/// A range of logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Starting LBA.
    pub slba: u64,
    /// Number of logical blocks, at least 1.
    pub nlb: u64,
}

impl Blocks {
    /// Whether the range lies in a namespace of `size` logical blocks.
    pub fn fits(&self, size: u64) -> bool {
        self.slba.checked_add(self.nlb).is_some_and(|end| end <= size)
    }
}

/// An I/O command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoCommand {
    /// Flush, 7.1 of NVMe Base 2.0.
    Flush,
    /// Read, 3.2.4.
    Read(Blocks),
    /// Write, 3.2.6. The flag is Force Unit Access.
    Write(Blocks, bool),
    /// Compare, 3.2.1.
    Compare(Blocks),
    /// Write Zeroes, 3.2.8.
    WriteZeroes {
        /// What is set to zero.
        blocks: Blocks,
        /// Deallocate (DEAC): the blocks may be deallocated.
        deallocate: bool,
        /// Force Unit Access.
        fua: bool,
    },
    /// Dataset Management, 3.2.3.
    DatasetManagement {
        /// Number of ranges, 1 to 256.
        ranges: u32,
        /// Attribute Deallocate (AD).
        deallocate: bool,
    },
    /// Reservation Register, Report, Acquire or Release, 7.2 to 7.5 of NVMe Base 2.0.
    Reservation(NvmOpcode),
}

/// Decodes an I/O command. Fused commands are paired by the caller; `sqe` may be either half.
///
/// # Errors
///
/// Invalid Command Opcode for anything that is not above, Invalid Field in Command for a fuse or data pointer format
/// that is reserved, or a directive.
pub fn decode(sqe: &Sqe) -> Result<IoCommand, Status> {
    let invalid_field = Status::INVALID_FIELD.with_dnr();
    let opcode = NvmOpcode::try_from(sqe.opcode()).map_err(|_| Status::INVALID_OPCODE.with_dnr())?;
    if sqe.psdt() == Psdt::Reserved || sqe.fuse() == Fuse::Reserved {
        return Err(invalid_field);
    }
    let rw = RwCdw12::from_bits(sqe.cdw12);
    let blocks = Blocks { slba: sqe.slba(), nlb: u64::from(rw.nlb()) };
    Ok(match opcode {
        NvmOpcode::Flush => IoCommand::Flush,
        NvmOpcode::Read => IoCommand::Read(blocks),
        NvmOpcode::Write => {
            // Directives are not supported: DTYPE has to be 0h (NVMe Base 2.0, 8.7).
            if rw.dtype() != 0 {
                return Err(invalid_field);
            }
            IoCommand::Write(blocks, rw.fua())
        }
        NvmOpcode::Compare => IoCommand::Compare(blocks),
        NvmOpcode::WriteZeroes => IoCommand::WriteZeroes { blocks, deallocate: rw.deac(), fua: rw.fua() },
        NvmOpcode::DatasetManagement => IoCommand::DatasetManagement {
            ranges: DsmCdw10::from_bits(sqe.cdw10).nr(),
            deallocate: DsmCdw11::from_bits(sqe.cdw11).ad(),
        },
        NvmOpcode::ReservationRegister
        | NvmOpcode::ReservationReport
        | NvmOpcode::ReservationAcquire
        | NvmOpcode::ReservationRelease => IoCommand::Reservation(opcode),
        _ => return Err(Status::INVALID_OPCODE.with_dnr()),
    })
}

#[cfg(test)]
mod tests;
