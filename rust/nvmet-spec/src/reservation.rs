//! Reservations: types, command dwords and data structures (Base §7.2 to §7.5, §8.19).
//!
//! Knows the wire. Who holds what, and what is refused to whom, is the subsystem's business.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// RTYPE: Reservation Type (Base §7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReservationType {
    /// 0h: no reservation (Reservation Report).
    None,
    /// 1h: Write Exclusive.
    WriteExclusive,
    /// 2h: Exclusive Access.
    ExclusiveAccess,
    /// 3h: Write Exclusive - Registrants Only.
    WriteExclusiveRegistrantsOnly,
    /// 4h: Exclusive Access - Registrants Only.
    ExclusiveAccessRegistrantsOnly,
    /// 5h: Write Exclusive - All Registrants.
    WriteExclusiveAllRegistrants,
    /// 6h: Exclusive Access - All Registrants.
    ExclusiveAccessAllRegistrants,
    /// Any other value, reserved.
    Reserved(u8),
}

impl ReservationType {
    /// From the byte on the wire.
    pub const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::None,
            1 => Self::WriteExclusive,
            2 => Self::ExclusiveAccess,
            3 => Self::WriteExclusiveRegistrantsOnly,
            4 => Self::ExclusiveAccessRegistrantsOnly,
            5 => Self::WriteExclusiveAllRegistrants,
            6 => Self::ExclusiveAccessAllRegistrants,
            other => Self::Reserved(other),
        }
    }

    /// The byte on the wire.
    pub const fn into_bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::WriteExclusive => 1,
            Self::ExclusiveAccess => 2,
            Self::WriteExclusiveRegistrantsOnly => 3,
            Self::ExclusiveAccessRegistrantsOnly => 4,
            Self::WriteExclusiveAllRegistrants => 5,
            Self::ExclusiveAccessAllRegistrants => 6,
            Self::Reserved(bits) => bits,
        }
    }
}

/// Declares a 3-bit action field: the actions it names, and a catch-all.
macro_rules! actions {
    ($(#[$doc:meta])* $name:ident { $($(#[$action_doc:meta])* $id:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$action_doc])* $id,)*
            /// Any other value, reserved.
            Reserved(u8),
        }

        impl $name {
            const fn from_bits(bits: u8) -> Self {
                match bits {
                    $($code => Self::$id,)*
                    other => Self::Reserved(other),
                }
            }

            const fn into_bits(self) -> u8 {
                match self {
                    $(Self::$id => $code,)*
                    Self::Reserved(bits) => bits,
                }
            }
        }
    };
}

actions! {
    /// RREGA: Reservation Register Action (Base §7.3).
    RegisterAction {
        /// 000b: register a reservation key.
        Register = 0,
        /// 001b: unregister a reservation key.
        Unregister = 1,
        /// 010b: replace a reservation key.
        Replace = 2,
    }
}

actions! {
    /// RACQA: Reservation Acquire Action (Base §7.2).
    AcquireAction {
        /// 000b: acquire.
        Acquire = 0,
        /// 001b: preempt.
        Preempt = 1,
        /// 010b: preempt and abort.
        PreemptAndAbort = 2,
    }
}

actions! {
    /// RRELA: Reservation Release Action (Base §7.4).
    ReleaseAction {
        /// 000b: release.
        Release = 0,
        /// 001b: clear.
        Clear = 1,
    }
}

actions! {
    /// CPTPL: Change Persist Through Power Loss State (Base §7.3).
    ChangePtpl {
        /// 00b: no change.
        NoChange = 0,
        /// 10b: reservations and registrants are released at power on.
        Clear = 2,
        /// 11b: reservations and registrants persist across a power loss.
        Set = 3,
    }
}

/// CDW10 of Reservation Register (Base §7.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RegisterCdw10 {
    /// RREGA: Reservation Register Action.
    #[bits(3)]
    pub rrega: RegisterAction,
    /// IEKEY: Ignore Existing Key.
    pub iekey: bool,
    #[bits(26)]
    __: u32,
    /// CPTPL: Change Persist Through Power Loss State.
    #[bits(2)]
    pub cptpl: ChangePtpl,
}

/// CDW10 of Reservation Acquire (Base §7.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AcquireCdw10 {
    /// RACQA: Reservation Acquire Action.
    #[bits(3)]
    pub racqa: AcquireAction,
    /// IEKEY: Ignore Existing Key.
    pub iekey: bool,
    #[bits(4)]
    __: u8,
    /// RTYPE: Reservation Type.
    #[bits(8)]
    pub rtype: ReservationType,
    __: u16,
}

/// CDW10 of Reservation Release (Base §7.4).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReleaseCdw10 {
    /// RRELA: Reservation Release Action.
    #[bits(3)]
    pub rrela: ReleaseAction,
    /// IEKEY: Ignore Existing Key.
    pub iekey: bool,
    #[bits(4)]
    __: u8,
    /// RTYPE: Reservation Type.
    #[bits(8)]
    pub rtype: ReservationType,
    __: u16,
}

/// Length of the data that a Reservation Report asks for in bytes, from NUMD (CDW10, 0's based dwords) (Base §7.5).
pub const fn report_length(cdw10: u32) -> u64 {
    (cdw10 as u64 + 1) * 4
}

/// CDW11 of Reservation Report (Base §7.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReportCdw11 {
    /// EDS: Extended Data Structure.
    pub eds: bool,
    #[bits(31)]
    __: u32,
}

/// Data of Reservation Register, 16 bytes (Base §7.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegisterData {
    /// CRKEY: Current Reservation Key.
    pub crkey: u64,
    /// NRKEY: New Reservation Key.
    pub nrkey: u64,
}

/// Data of Reservation Acquire, 16 bytes (Base §7.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AcquireData {
    /// CRKEY: Current Reservation Key.
    pub crkey: u64,
    /// PRKEY: Preempt Reservation Key.
    pub prkey: u64,
}

/// Data of Reservation Release, 8 bytes (Base §7.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ReleaseData {
    /// CRKEY: Current Reservation Key.
    pub crkey: u64,
}

/// Head of the Reservation Status data structure, 24 bytes; the extended one has 40 reserved bytes more, see
/// [`REPORT_EXTENDED_HEADER`] (Base §7.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ReportHeader {
    /// GEN: Generation.
    pub generation: u32,
    /// RTYPE: Reservation Type, see [`ReservationType`].
    pub rtype: u8,
    /// REGCTL: Number of Registered Controllers, little-endian: it is not aligned.
    pub regctl: [u8; 2],
    /// Reserved.
    pub reserved7: [u8; 2],
    /// PTPLS: Persist Through Power Loss State.
    pub ptpls: u8,
    /// Reserved.
    pub reserved10: [u8; 14],
}

/// Bytes before the first entry of the extended Reservation Status data structure (Base §7.5).
pub const REPORT_EXTENDED_HEADER: usize = 64;

/// RCSTS: Reservation Status of a registered controller (Base §7.5).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ReservationStatus {
    /// The controller is associated with a host that holds the reservation.
    pub holder: bool,
    #[bits(7)]
    __: u8,
}

/// Registered Controller data structure, 24 bytes (Base §7.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegisteredController {
    /// CNTLID: Controller ID; FFFFh for a dynamic controller.
    pub cntlid: u16,
    /// RCSTS: Reservation Status.
    pub rcsts: ReservationStatus,
    /// Reserved.
    pub reserved3: [u8; 5],
    /// HOSTID: 64-bit Host Identifier.
    pub hostid: u64,
    /// RKEY: Reservation Key.
    pub rkey: u64,
}

/// Registered Controller Extended data structure, 64 bytes (Base §7.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegisteredControllerExtended {
    /// CNTLID: Controller ID; FFFFh for a dynamic controller.
    pub cntlid: u16,
    /// RCSTS: Reservation Status.
    pub rcsts: ReservationStatus,
    /// Reserved.
    pub reserved3: [u8; 5],
    /// RKEY: Reservation Key.
    pub rkey: u64,
    /// HOSTID: 128-bit Host Identifier.
    pub hostid: [u8; 16],
    /// Reserved.
    pub reserved32: [u8; 32],
}

const _: () = {
    assert!(size_of::<RegisterData>() == 16);
    assert!(size_of::<AcquireData>() == 16);
    assert!(size_of::<ReleaseData>() == 8);
    assert!(size_of::<ReportHeader>() == 24);
    assert!(size_of::<RegisteredController>() == 24);
    assert!(size_of::<RegisteredControllerExtended>() == 64);
};

#[cfg(test)]
mod tests;
