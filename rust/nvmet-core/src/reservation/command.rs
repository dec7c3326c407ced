//! Reservation Register, Acquire and Release from the wire (Base §7.2 to §7.4).
//!
//! May know: command dwords and data structures. Must not know: who is registered. What can be told to be wrong from
//! the command alone is refused here.

use nvmet_spec::command::NvmOpcode;
use nvmet_spec::reservation::{
    AcquireAction, AcquireCdw10, AcquireData, ChangePtpl, RegisterAction, RegisterCdw10, RegisterData,
    ReleaseAction, ReleaseCdw10, ReleaseData, ReservationType,
};
use nvmet_spec::status::Status;
use zerocopy::FromBytes;

pub(super) const INVALID_FIELD: Status = Status::INVALID_FIELD.with_dnr();

/// A decoded reservation command; fields are called as in the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Reservation Register (Base §7.3).
    Register {
        /// RREGA: what to do.
        action: RegisterAction,
        /// IEKEY: the current key does not matter.
        iekey: bool,
        /// CPTPL: whether reservations are to persist from now on.
        cptpl: ChangePtpl,
        /// CRKEY: the host's current key.
        crkey: u64,
        /// NRKEY: the host's new key.
        nrkey: u64,
    },
    /// Reservation Acquire (Base §7.2).
    Acquire {
        /// RACQA: what to do.
        action: AcquireAction,
        /// RTYPE: type of the new reservation.
        rtype: ReservationType,
        /// CRKEY: the host's current key.
        crkey: u64,
        /// PRKEY: the key of those to preempt.
        prkey: u64,
    },
    /// Reservation Release (Base §7.4).
    Release {
        /// RRELA: what to do.
        action: ReleaseAction,
        /// RTYPE: type of the reservation to release.
        rtype: ReservationType,
        /// CRKEY: the host's current key.
        crkey: u64,
    },
}

impl Command {
    /// How much data a command of `opcode` brings, in bytes; 0 if it is none of the three.
    pub const fn data_len(opcode: NvmOpcode) -> usize {
        match opcode {
            NvmOpcode::ReservationRegister => size_of::<RegisterData>(),
            NvmOpcode::ReservationAcquire => size_of::<AcquireData>(),
            NvmOpcode::ReservationRelease => size_of::<ReleaseData>(),
            _ => 0,
        }
    }

    /// The command of `opcode` with this Command Dword 10 and data ([`Command::data_len`] bytes).
    ///
    /// # Errors
    ///
    /// Invalid Field for a reserved action, type or CPTPL, for data that is too short, and for IEKEY in Acquire and
    /// Release, where it lets a stranger through and is refused since NVMe 1.3; Invalid Opcode for an opcode that is
    /// none of the three.
    pub fn decode(opcode: NvmOpcode, cdw10: u32, data: &[u8]) -> Result<Self, Status> {
        match opcode {
            NvmOpcode::ReservationRegister => {
                let (fields, keys) = (RegisterCdw10::from_bits(cdw10), prefix::<RegisterData>(data)?);
                let (action, cptpl) = (fields.rrega(), fields.cptpl());
                // A reserved action is a reserved value of a field; Linux calls it Invalid Opcode.
                if matches!(action, RegisterAction::Reserved(_)) || matches!(cptpl, ChangePtpl::Reserved(_)) {
                    return Err(INVALID_FIELD);
                }
                let RegisterData { crkey, nrkey } = keys;
                Ok(Self::Register { action, iekey: fields.iekey(), cptpl, crkey, nrkey })
            }
            NvmOpcode::ReservationAcquire => {
                let (fields, keys) = (AcquireCdw10::from_bits(cdw10), prefix::<AcquireData>(data)?);
                let (action, rtype) = (fields.racqa(), fields.rtype());
                if matches!(action, AcquireAction::Reserved(_)) || !can_be_acquired(rtype) || fields.iekey() {
                    return Err(INVALID_FIELD);
                }
                let AcquireData { crkey, prkey } = keys;
                Ok(Self::Acquire { action, rtype, crkey, prkey })
            }
            NvmOpcode::ReservationRelease => {
                let (fields, keys) = (ReleaseCdw10::from_bits(cdw10), prefix::<ReleaseData>(data)?);
                let action = fields.rrela();
                if matches!(action, ReleaseAction::Reserved(_)) || fields.iekey() {
                    return Err(INVALID_FIELD);
                }
                // Any type: it means nothing to Clear, and Release compares it with the one that is held.
                Ok(Self::Release { action, rtype: fields.rtype(), crkey: keys.crkey })
            }
            _ => Err(Status::INVALID_OPCODE.with_dnr()),
        }
    }
}

/// Whether a reservation can be of this type.
pub(super) const fn can_be_acquired(rtype: ReservationType) -> bool {
    !matches!(rtype, ReservationType::None | ReservationType::Reserved(_))
}

fn prefix<T: FromBytes>(data: &[u8]) -> Result<T, Status> {
    T::read_from_prefix(data).map(|(value, _)| value).map_err(|_| INVALID_FIELD)
}
