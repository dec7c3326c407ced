//! Log pages: identifiers and layouts (Base §5.16.1).
//!
//! Knows what a page looks like, not what is in it.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::command::CqeStatus;

/// A Log Page Identifier that is not in [`Lid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown Log Page Identifier {lid:02x}h")]
pub struct UnknownLogPage {
    /// The identifier as it stood in the command.
    pub lid: u8,
}

macro_rules! log_pages {
    ($($code:literal $id:ident $name:literal, $section:literal;)*) => {
        /// Log Page Identifiers (Base §5.16.1).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Lid {
            $(
                #[doc = concat!($name, " (", $section, ").")]
                $id = $code,
            )*
        }

        impl Lid {
            /// Every identifier, in numerical order.
            pub const ALL: &'static [Self] = &[$(Self::$id,)*];

            /// The log page's name in the specification.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)*
                }
            }
        }

        impl TryFrom<u8> for Lid {
            type Error = UnknownLogPage;

            fn try_from(lid: u8) -> Result<Self, UnknownLogPage> {
                match lid {
                    $($code => Ok(Self::$id),)*
                    _ => Err(UnknownLogPage { lid }),
                }
            }
        }

        impl From<Lid> for u8 {
            fn from(lid: Lid) -> u8 {
                lid as u8
            }
        }
    };
}

log_pages! {
    0x00 SupportedLogPages "Supported Log Pages", "Base §5.16.1.1";
    0x01 ErrorInformation "Error Information", "Base §5.16.1.2";
    0x02 SmartHealth "SMART / Health Information", "Base §5.16.1.3";
    0x03 FirmwareSlot "Firmware Slot Information", "Base §5.16.1.4";
    0x04 ChangedNamespaceList "Changed Namespace List", "Base §5.16.1.5";
    0x05 CommandEffects "Commands Supported and Effects", "Base §5.16.1.6";
    0x06 DeviceSelfTest "Device Self-test", "Base §5.16.1.7";
    0x07 TelemetryHostInitiated "Telemetry Host-Initiated", "Base §5.16.1.8";
    0x08 TelemetryControllerInitiated "Telemetry Controller-Initiated", "Base §5.16.1.9";
    0x09 EnduranceGroupInformation "Endurance Group Information", "Base §5.16.1.10";
    0x0c AsymmetricNamespaceAccess "Asymmetric Namespace Access", "Base §5.16.1.13";
    0x0d PersistentEventLog "Persistent Event Log", "Base §5.16.1.14";
    0x12 FeatureEffects "Feature Identifiers Supported and Effects", "Base §5.16.1.18";
    0x13 MiCommandEffects "NVMe-MI Commands Supported and Effects", "Base §5.16.1.19";
    0x70 Discovery "Discovery", "Base §5.16.1.23";
    0x80 ReservationNotification "Reservation Notification", "Base §5.16.1.24";
    0x81 SanitizeStatus "Sanitize Status", "Base §5.16.1.25";
}

/// LID Supported and Effects: one entry of [`SupportedLogPages`] (Base §5.16.1.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct LidEffects {
    /// LSUPP: LID Supported.
    pub lsupp: bool,
    /// IOS: Index Offset Supported.
    pub ios: bool,
    #[bits(14)]
    __: u16,
    /// LID Specific Parameter.
    pub lidsp: u16,
}

/// Supported Log Pages, 1024 bytes, indexed by LID (Base §5.16.1.1).
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SupportedLogPages {
    /// LID Supported and Effects, by LID.
    pub lids: [LidEffects; 256],
}

/// Parameter Error Location of an Error Information entry (Base §5.16.1.2).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ParameterErrorLocation {
    /// Byte in the command that contained the error.
    pub byte: u8,
    /// Bit in that byte.
    #[bits(3)]
    pub bit: u8,
    #[bits(5)]
    __: u8,
}

impl ParameterErrorLocation {
    /// FFFFh: the error is not specific to a particular parameter.
    pub const NONE: Self = Self::from_bits(0xffff);
}

/// An Error Information log entry, 64 bytes (Base §5.16.1.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ErrorInformation {
    /// Error Count: unique, rising; 0 marks an unused entry.
    pub error_count: u64,
    /// Submission Queue ID; FFFFh when the error is not that of a command.
    pub sqid: u16,
    /// Command ID; FFFFh when the error is not that of a command.
    pub cid: u16,
    /// Status Field, with the Phase Tag as posted or zero.
    pub status: CqeStatus,
    /// Parameter Error Location.
    pub parameter_error_location: ParameterErrorLocation,
    /// LBA: the first that failed.
    pub lba: u64,
    /// NSID: Namespace.
    pub nsid: u32,
    /// Vendor Specific Information Available: an LID, or 0.
    pub vendor_log_page: u8,
    /// TRTYPE: Transport Type; 0 where it does not apply.
    pub trtype: u8,
    /// Command Set Indicator (Base 2.1).
    pub csi: u8,
    /// Opcode (Base 2.1).
    pub opcode: u8,
    /// Command Specific Information.
    pub command_specific: u64,
    /// Transport Type Specific Information.
    pub transport_specific: u16,
    /// Reserved; the last byte is the Log Page Version of Base 2.1.
    pub reserved: [u8; 22],
}

/// Critical Warning of [`SmartHealth`] (Base §5.16.1.3).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct CriticalWarning {
    /// The available spare is below its threshold.
    pub spare: bool,
    /// A temperature is at or beyond a threshold.
    pub temperature: bool,
    /// The NVM subsystem's reliability is degraded.
    pub reliability: bool,
    /// All media are read-only.
    pub read_only: bool,
    /// The volatile memory backup device failed.
    pub backup_failed: bool,
    /// The Persistent Memory Region is read-only or unreliable.
    pub pmr: bool,
    #[bits(2)]
    __: u8,
}

/// SMART / Health Information, 512 bytes (Base §5.16.1.3).
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SmartHealth {
    /// Critical Warning.
    pub critical_warning: CriticalWarning,
    /// Composite Temperature in kelvins, little-endian: it is not aligned.
    pub composite_temperature: [u8; 2],
    /// Available Spare in percent.
    pub available_spare: u8,
    /// Available Spare Threshold in percent.
    pub available_spare_threshold: u8,
    /// Percentage Used; may exceed 100.
    pub percentage_used: u8,
    /// Endurance Group Critical Warning Summary.
    pub endurance_group_critical_warning: u8,
    /// Reserved.
    pub reserved7: [u8; 25],
    /// Data Units Read, in thousands of 512-byte units, rounded up.
    pub data_units_read: u128,
    /// Data Units Written, in thousands of 512-byte units, rounded up.
    pub data_units_written: u128,
    /// Host Read Commands.
    pub host_read_commands: u128,
    /// Host Write Commands.
    pub host_write_commands: u128,
    /// Controller Busy Time in minutes.
    pub controller_busy_time: u128,
    /// Power Cycles.
    pub power_cycles: u128,
    /// Power On Hours.
    pub power_on_hours: u128,
    /// Unsafe Shutdowns.
    pub unsafe_shutdowns: u128,
    /// Media and Data Integrity Errors.
    pub media_errors: u128,
    /// Number of Error Information Log Entries over the life of the controller.
    pub error_log_entries: u128,
    /// Warning Composite Temperature Time in minutes.
    pub warning_temperature_time: u32,
    /// Critical Composite Temperature Time in minutes.
    pub critical_temperature_time: u32,
    /// Temperature Sensors 1 to 8 in kelvins; 0 where there is none.
    pub temperature_sensors: [u16; 8],
    /// Thermal Management Temperature 1 and 2 Transition Counts.
    pub thermal_transitions: [u32; 2],
    /// Total Time for Thermal Management Temperature 1 and 2 in seconds.
    pub thermal_times: [u32; 2],
    /// Reserved.
    pub reserved232: [u8; 280],
}

/// AFI: Active Firmware Info of [`FirmwareSlot`] (Base §5.16.1.4).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ActiveFirmwareInfo {
    /// Active slot, 1 to 7.
    #[bits(3)]
    pub active: u8,
    __: bool,
    /// Slot activated at the next Controller Level Reset, 0 for none.
    #[bits(3)]
    pub next: u8,
    __: bool,
}

/// Firmware Slot Information, 512 bytes (Base §5.16.1.4).
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FirmwareSlot {
    /// AFI: Active Firmware Info.
    pub afi: ActiveFirmwareInfo,
    /// Reserved.
    pub reserved1: [u8; 7],
    /// FRS1 to FRS7: firmware revisions, ASCII; zero for an empty slot.
    pub frs: [[u8; 8]; 7],
    /// Reserved.
    pub reserved64: [u8; 448],
}

/// Changed Namespace List, 4096 bytes (Base §5.16.1.5).
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ChangedNamespaceList {
    /// NSIDs, ascending, unused entries zero; FFFFFFFFh alone when more than 1024 changed.
    pub nsids: [u32; 1024],
}

/// Scope of a command or a feature (Base §5.16.1.6).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct EffectsScope {
    /// Namespace.
    pub namespace: bool,
    /// Controller.
    pub controller: bool,
    /// NVM Set.
    pub nvm_set: bool,
    /// Endurance Group.
    pub endurance_group: bool,
    /// Domain.
    pub domain: bool,
    /// NVM Subsystem.
    pub nvm_subsystem: bool,
    #[bits(10)]
    __: u16,
}

/// Commands Supported and Effects: one entry of [`CommandEffects`] (Base §5.16.1.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct CommandEffect {
    /// CSUPP: Command Supported.
    pub csupp: bool,
    /// LBCC: Logical Block Content Change.
    pub lbcc: bool,
    /// NCC: Namespace Capability Change.
    pub ncc: bool,
    /// NIC: Namespace Inventory Change.
    pub nic: bool,
    /// CCC: Controller Capability Change.
    pub ccc: bool,
    #[bits(11)]
    __: u16,
    /// CSE: Command Submission and Execution; 0 no restriction, 1 one at a time in a namespace, 2 in all.
    #[bits(3)]
    pub cse: u8,
    /// USS: UUID Selection Supported.
    pub uss: bool,
    /// CSP: Command Scope; 0 is not reported.
    #[bits(12)]
    pub csp: EffectsScope,
}

/// Commands Supported and Effects, 4096 bytes (Base §5.16.1.6).
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CommandEffects {
    /// ACS: Admin commands, by opcode.
    pub acs: [CommandEffect; 256],
    /// IOCS: I/O commands, by opcode.
    pub iocs: [CommandEffect; 256],
    /// Reserved.
    pub reserved: [u8; 2048],
}

/// FID Supported and Effects: one entry of [`FeatureEffects`] (Base §5.16.1.18).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct FeatureEffect {
    /// FSUPP: FID Supported.
    pub fsupp: bool,
    /// UDCC: User Data Content Change.
    pub udcc: bool,
    /// NCC: Namespace Capability Change.
    pub ncc: bool,
    /// NIC: Namespace Inventory Change.
    pub nic: bool,
    /// CCC: Controller Capability Change.
    pub ccc: bool,
    #[bits(14)]
    __: u16,
    /// USS: UUID Selection Supported.
    pub uss: bool,
    /// FSP: FID Scope; 0 is not reported.
    #[bits(12)]
    pub fsp: EffectsScope,
}

/// Feature Identifiers Supported and Effects, 1024 bytes, indexed by FID (Base §5.16.1.18).
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FeatureEffects {
    /// FID Supported and Effects, by FID.
    pub fids: [FeatureEffect; 256],
}

/// ANA state of a group (Base §8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnaState {
    /// 1h: optimized.
    Optimized,
    /// 2h: non-optimized.
    NonOptimized,
    /// 3h: inaccessible.
    Inaccessible,
    /// 4h: persistent loss.
    PersistentLoss,
    /// Fh: change.
    Change,
    /// Any other value, reserved.
    Reserved(u8),
}

impl AnaState {
    /// From the four bits on the wire; higher bits are ignored.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0xf {
            0x1 => Self::Optimized,
            0x2 => Self::NonOptimized,
            0x3 => Self::Inaccessible,
            0x4 => Self::PersistentLoss,
            0xf => Self::Change,
            other => Self::Reserved(other),
        }
    }

    /// The four bits on the wire.
    pub const fn into_bits(self) -> u8 {
        match self {
            Self::Optimized => 0x1,
            Self::NonOptimized => 0x2,
            Self::Inaccessible => 0x3,
            Self::PersistentLoss => 0x4,
            Self::Change => 0xf,
            Self::Reserved(bits) => bits & 0xf,
        }
    }
}

/// Head of the Asymmetric Namespace Access log page, 16 bytes (Base §5.16.1.13).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AnaHeader {
    /// Change Count.
    pub change_count: u64,
    /// Number of ANA Group Descriptors.
    pub groups: u16,
    /// Reserved.
    pub reserved: [u8; 6],
}

/// ANA Group Descriptor, 32 bytes, followed by its NSIDs (Base §5.16.1.13).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AnaGroupDescriptor {
    /// ANA Group ID.
    pub group_id: u32,
    /// Number of NSIDs that follow.
    pub nsids: u32,
    /// Change Count.
    pub change_count: u64,
    /// Asymmetric Namespace Access State in bits 3:0, see [`AnaState`].
    pub state: u8,
    /// Reserved.
    pub reserved: [u8; 15],
}

/// Reservation Notification, 64 bytes (Base §5.16.1.24).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ReservationNotification {
    /// Log Page Count: rises with each notification, 0 when there is none.
    pub log_page_count: u64,
    /// Type; 0 empty, 1 Registration Preempted, 2 Reservation Released, 3 Reservation Preempted.
    pub kind: u8,
    /// Number of Available Log Pages after this one.
    pub available: u8,
    /// Reserved.
    pub reserved10: [u8; 2],
    /// NSID: Namespace.
    pub nsid: u32,
    /// Reserved.
    pub reserved16: [u8; 48],
}

const _: () = {
    assert!(size_of::<SupportedLogPages>() == 1024);
    assert!(size_of::<ErrorInformation>() == 64);
    assert!(size_of::<SmartHealth>() == 512);
    assert!(size_of::<FirmwareSlot>() == 512);
    assert!(size_of::<ChangedNamespaceList>() == 4096);
    assert!(size_of::<CommandEffects>() == 4096);
    assert!(size_of::<FeatureEffects>() == 1024);
    assert!(size_of::<AnaHeader>() == 16);
    assert!(size_of::<AnaGroupDescriptor>() == 32);
    assert!(size_of::<ReservationNotification>() == 64);
};

macro_rules! zero_by_default {
    ($($page:ident)*) => {
        $(impl Default for $page {
            fn default() -> Self {
                Self::new_zeroed()
            }
        })*
    };
}

zero_by_default! {
    SupportedLogPages SmartHealth FirmwareSlot ChangedNamespaceList CommandEffects FeatureEffects
    ReservationNotification
}

#[cfg(test)]
mod tests;
