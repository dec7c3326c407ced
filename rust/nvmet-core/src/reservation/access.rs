//! What a host may do with a namespace while there is a reservation (Base §8.19.3).
//!
//! May know: types, registrants, opcodes. Must not know: keys, how a reservation came to be, who asks when.

use nvmet_spec::command::NvmOpcode;
use nvmet_spec::reservation::ReservationType;

use super::HostId;
use super::state::Held;

/// What the reservation on a namespace leaves to a host (Base §8.19.3, "Command Behavior in the Presence of a
/// Reservation").
///
/// | group | commands |
/// |---|---|
/// | read | Read, Compare, Verify; Security Receive |
/// | write | Write, Write Zeroes, Write Uncorrectable, Dataset Management, Copy, Flush; Format NVM, Sanitize, Security Send, Namespace Management, Namespace Attachment |
/// | neither | every other one: they are always allowed, and a reservation command decides for itself |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Every command.
    Full,
    /// Commands of the read group, and of neither.
    ReadOnly,
    /// Commands of neither group.
    None,
}

impl Access {
    /// Whether a command is allowed; if not, it ends with Reservation Conflict.
    pub const fn allows(self, opcode: NvmOpcode) -> bool {
        match opcode {
            NvmOpcode::Read | NvmOpcode::Compare | NvmOpcode::Verify => !matches!(self, Self::None),
            NvmOpcode::Write
            | NvmOpcode::WriteZeroes
            | NvmOpcode::WriteUncorrectable
            | NvmOpcode::DatasetManagement
            | NvmOpcode::Copy
            | NvmOpcode::Flush => matches!(self, Self::Full),
            NvmOpcode::ReservationRegister
            | NvmOpcode::ReservationReport
            | NvmOpcode::ReservationAcquire
            | NvmOpcode::ReservationRelease => true,
        }
    }
}

/// Reservation and registrants at one moment: what workers check commands against, behind an `Arc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    held: Held,
    /// Ascending.
    registrants: Box<[HostId]>,
}

impl Snapshot {
    pub(super) fn new(held: Held, registrants: Box<[HostId]>) -> Self {
        debug_assert!(registrants.is_sorted());
        Self { held, registrants }
    }

    /// What the host may do. Without a reservation no more than one comparison, else logarithmic.
    pub fn access(&self, host: &HostId) -> Access {
        use ReservationType as Type;
        let others = match self.held {
            Held::Nothing => return Access::Full,
            Held::By(_, holder) if holder == *host => return Access::Full,
            Held::By(Type::WriteExclusive, _) => return Access::ReadOnly,
            Held::By(Type::ExclusiveAccess, _) => return Access::None,
            Held::By(Type::WriteExclusiveRegistrantsOnly, _)
            | Held::ByAll(Type::WriteExclusiveAllRegistrants) => Access::ReadOnly,
            Held::By(..) | Held::ByAll(_) => Access::None,
        };
        if self.is_registrant(host) { Access::Full } else { others }
    }

    /// Whether the host is registered.
    pub fn is_registrant(&self, host: &HostId) -> bool {
        self.registrants.binary_search(host).is_ok()
    }

    /// The type of the reservation; [`ReservationType::None`] without one.
    pub fn rtype(&self) -> ReservationType {
        self.held.rtype()
    }
}
