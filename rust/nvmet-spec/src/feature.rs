//! Features: identifiers, selection, and the values of Get and Set Features (Base §5.15 and §5.27, NVM §4.1.3).
//!
//! Knows how values are encoded, not which features a controller has or what their defaults are.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// A Feature Identifier that neither the Base nor the NVM Command Set specification defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown Feature Identifier {fid:02x}h")]
pub struct UnknownFeature {
    /// The identifier as it stood in the command.
    pub fid: u8,
}

macro_rules! features {
    ($($code:literal $id:ident $name:literal, $section:literal;)*) => {
        /// Feature Identifiers (Base §5.27.1, NVM §4.1.3).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FeatureId {
            $(
                #[doc = concat!($name, " (", $section, ").")]
                $id = $code,
            )*
        }

        impl FeatureId {
            /// Every identifier, in numerical order.
            pub const ALL: &'static [Self] = &[$(Self::$id,)*];

            /// The feature's name in the specification.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)*
                }
            }
        }

        impl TryFrom<u8> for FeatureId {
            type Error = UnknownFeature;

            fn try_from(fid: u8) -> Result<Self, UnknownFeature> {
                match fid {
                    $($code => Ok(Self::$id),)*
                    _ => Err(UnknownFeature { fid }),
                }
            }
        }

        impl From<FeatureId> for u8 {
            fn from(id: FeatureId) -> u8 {
                id as u8
            }
        }
    };
}

features! {
    0x01 Arbitration "Arbitration", "Base §5.27.1.1";
    0x02 PowerManagement "Power Management", "Base §5.27.1.2";
    0x03 LbaRangeType "LBA Range Type", "NVM §4.1.3.1";
    0x04 TemperatureThreshold "Temperature Threshold", "Base §5.27.1.3";
    0x05 ErrorRecovery "Error Recovery", "NVM §4.1.3.2";
    0x06 VolatileWriteCache "Volatile Write Cache", "Base §5.27.1.4";
    0x07 NumberOfQueues "Number of Queues", "Base §5.27.1.5";
    0x08 InterruptCoalescing "Interrupt Coalescing", "Base §5.27.1.6";
    0x09 InterruptVectorConfig "Interrupt Vector Configuration", "Base §5.27.1.7";
    0x0a WriteAtomicityNormal "Write Atomicity Normal", "NVM §4.1.3.3";
    0x0b AsyncEventConfig "Asynchronous Event Configuration", "Base §5.27.1.8";
    0x0c AutonomousPowerStateTransition "Autonomous Power State Transition", "Base §5.27.1.9";
    0x0d HostMemoryBuffer "Host Memory Buffer", "Base §5.27.1.10";
    0x0e Timestamp "Timestamp", "Base §5.27.1.11";
    0x0f KeepAliveTimer "Keep Alive Timer", "Base §5.27.1.12";
    0x10 HostControlledThermalManagement "Host Controlled Thermal Management", "Base §5.27.1.13";
    0x11 NonOperationalPowerState "Non-Operational Power State Config", "Base §5.27.1.14";
    0x12 ReadRecoveryLevel "Read Recovery Level Config", "Base §5.27.1.15";
    0x13 PredictableLatencyConfig "Predictable Latency Mode Config", "Base §5.27.1.16";
    0x14 PredictableLatencyWindow "Predictable Latency Mode Window", "Base §5.27.1.17";
    0x15 LbaStatusInformation "LBA Status Information Report Interval", "NVM §4.1.3";
    0x16 HostBehaviorSupport "Host Behavior Support", "Base §5.27.1.18";
    0x17 SanitizeConfig "Sanitize Config", "Base §5.27.1.19";
    0x18 EnduranceGroupEventConfig "Endurance Group Event Configuration", "Base §5.27.1.20";
    0x19 IoCommandSetProfile "I/O Command Set Profile", "Base §5.27.1.21";
    0x1a SpinupControl "Spinup Control", "Base §5.27.1.22";
    0x7d EnhancedControllerMetadata "Enhanced Controller Metadata", "Base §5.27.1.23.1";
    0x7e ControllerMetadata "Controller Metadata", "Base §5.27.1.23.2";
    0x7f NamespaceMetadata "Namespace Metadata", "Base §5.27.1.23.3";
    0x80 SoftwareProgressMarker "Software Progress Marker", "Base §5.27.1.24";
    0x81 HostIdentifier "Host Identifier", "Base §5.27.1.25";
    0x82 ReservationNotificationMask "Reservation Notification Mask", "Base §5.27.1.26";
    0x83 ReservationPersistence "Reservation Persistence", "Base §5.27.1.27";
    0x84 NamespaceWriteProtection "Namespace Write Protection Config", "Base §5.27.1.28";
}

/// SEL: which value Get Features returns (Base §5.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// 000b: the current value.
    Current,
    /// 001b: the default value.
    Default,
    /// 010b: the saved value.
    Saved,
    /// 011b: the supported capabilities, see [`SupportedCapabilities`].
    SupportedCapabilities,
    /// Any other value, reserved.
    Reserved(u8),
}

impl Select {
    /// From the three bits on the wire; higher bits are ignored.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0x7 {
            0 => Self::Current,
            1 => Self::Default,
            2 => Self::Saved,
            3 => Self::SupportedCapabilities,
            other => Self::Reserved(other),
        }
    }

    /// The three bits on the wire.
    pub const fn into_bits(self) -> u8 {
        match self {
            Self::Current => 0,
            Self::Default => 1,
            Self::Saved => 2,
            Self::SupportedCapabilities => 3,
            Self::Reserved(bits) => bits & 0x7,
        }
    }
}

/// Completion Dword 0 of Get Features with [`Select::SupportedCapabilities`] (Base §5.15).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SupportedCapabilities {
    /// The feature is saveable.
    pub saveable: bool,
    /// The feature is namespace specific.
    pub namespace_specific: bool,
    /// The feature is changeable.
    pub changeable: bool,
    #[bits(29)]
    __: u32,
}

/// Value of Arbitration (Base §5.27.1.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Arbitration {
    /// AB: Arbitration Burst, `1 << ab` commands; 111b is no limit.
    #[bits(3)]
    pub ab: u8,
    #[bits(5)]
    __: u8,
    /// LPW: Low Priority Weight, 0's based.
    pub lpw_z: u8,
    /// MPW: Medium Priority Weight, 0's based.
    pub mpw_z: u8,
    /// HPW: High Priority Weight, 0's based.
    pub hpw_z: u8,
}

/// Value of Power Management (Base §5.27.1.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PowerManagement {
    /// PS: Power State.
    #[bits(5)]
    pub ps: u8,
    /// WH: Workload Hint.
    #[bits(3)]
    pub wh: u8,
    #[bits(24)]
    __: u32,
}

/// Value of Temperature Threshold (Base §5.27.1.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct TemperatureThreshold {
    /// TMPTH: Temperature Threshold in kelvins.
    pub tmpth: u16,
    /// TMPSEL: Threshold Temperature Select; 0 composite, 1 to 8 a sensor, Fh all (Set Features only).
    #[bits(4)]
    pub tmpsel: u8,
    /// THSEL: Threshold Type Select; 0 over, 1 under temperature.
    #[bits(2)]
    pub thsel: u8,
    #[bits(10)]
    __: u16,
}

/// Value of Error Recovery (NVM §4.1.3.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ErrorRecovery {
    /// TLER: Time Limited Error Recovery, in units of 100 ms; 0 is no timeout.
    pub tler: u16,
    /// DULBE: Deallocated or Unwritten Logical Block Error Enable.
    pub dulbe: bool,
    #[bits(15)]
    __: u16,
}

/// Value of Volatile Write Cache (Base §5.27.1.4).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct VolatileWriteCache {
    /// WCE: Volatile Write Cache Enable.
    pub wce: bool,
    #[bits(31)]
    __: u32,
}

/// Number of Queues: requested in CDW11, allocated in Dword 0 of the completion (Base §5.27.1.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct NumberOfQueues {
    /// NSQR / NSQA: number of I/O Submission Queues, 0's based; FFFFh is not allowed in a request.
    pub nsq_z: u16,
    /// NCQR / NCQA: number of I/O Completion Queues, 0's based; FFFFh is not allowed in a request.
    pub ncq_z: u16,
}

impl NumberOfQueues {
    /// Number of I/O Submission Queues, 1-based.
    pub const fn nsq(&self) -> u32 {
        self.nsq_z() as u32 + 1
    }

    /// Number of I/O Completion Queues, 1-based.
    pub const fn ncq(&self) -> u32 {
        self.ncq_z() as u32 + 1
    }
}

/// Value of Interrupt Coalescing (Base §5.27.1.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptCoalescing {
    /// THR: Aggregation Threshold in completion queue entries, 0's based.
    pub thr_z: u8,
    /// TIME: Aggregation Time in units of 100 µs; 0 is no delay.
    pub time: u8,
    __: u16,
}

impl InterruptCoalescing {
    /// Completion queue entries to gather before an interrupt, 1-based.
    pub const fn thr(&self) -> u32 {
        self.thr_z() as u32 + 1
    }
}

/// Value of Interrupt Vector Configuration (Base §5.27.1.7).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptVectorConfig {
    /// IV: Interrupt Vector.
    pub iv: u16,
    /// CD: Coalescing Disable.
    pub cd: bool,
    #[bits(15)]
    __: u16,
}

/// Value of Write Atomicity Normal (NVM §4.1.3.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct WriteAtomicityNormal {
    /// DN: Disable Normal; only AWUPF and NAWUPF hold.
    pub dn: bool,
    #[bits(31)]
    __: u32,
}

/// Timestamp Origin (Base §5.27.1.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampOrigin {
    /// 000b: cleared to 0 by a Controller Level Reset.
    Reset,
    /// 001b: initialized by a Set Features command.
    SetFeatures,
    /// Any other value, reserved.
    Reserved(u8),
}

impl TimestampOrigin {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Reset,
            1 => Self::SetFeatures,
            other => Self::Reserved(other),
        }
    }

    const fn into_bits(self) -> u8 {
        match self {
            Self::Reset => 0,
            Self::SetFeatures => 1,
            Self::Reserved(bits) => bits,
        }
    }
}

/// Data of Timestamp, 8 bytes (Base §5.27.1.11).
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Timestamp {
    /// Timestamp: milliseconds since midnight 1 January 1970 UTC, or since the reset.
    #[bits(48)]
    pub milliseconds: u64,
    /// Synch: the controller may have stopped counting while it was vendor specifically paused.
    pub synch: bool,
    /// Timestamp Origin; only Get Features returns it.
    #[bits(3)]
    pub origin: TimestampOrigin,
    #[bits(4)]
    __: u8,
    __: u8,
}

/// Data of Host Behavior Support, 512 bytes (Base §5.27.1.18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct HostBehaviorSupport {
    /// ACRE: Advanced Command Retry Enable, 0 or 1.
    pub acre: u8,
    /// ETDAS: Extended Telemetry Data Area 4 Supported, 0 or 1.
    pub etdas: u8,
    /// LBAFEE: LBA Format Extension Enable, 0 or 1.
    pub lbafee: u8,
    /// HDISNS: Host Dispersed Namespace Support (Base 2.1), 0 or 1.
    pub hdisns: u8,
    /// CDFE: Copy Descriptor Formats Enable (Base 2.1), one bit for each of the formats 2h to 4h.
    pub cdfe: u16,
    /// Reserved.
    pub reserved: [u8; 506],
}

const _: () = assert!(size_of::<HostBehaviorSupport>() == 512);

impl Default for HostBehaviorSupport {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

/// CDW11 of Host Identifier (Base §5.27.1.25).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct HostIdentifier {
    /// EXHID: Enable Extended Host Identifier; 16 bytes of data, otherwise 8.
    pub exhid: bool,
    #[bits(31)]
    __: u32,
}

/// Value of Reservation Notification Mask: set bits mask (Base §5.27.1.26).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReservationNotificationMask {
    __: bool,
    /// REGPRE: mask Registration Preempted.
    pub regpre: bool,
    /// RESREL: mask Reservation Released.
    pub resrel: bool,
    /// RESPRE: mask Reservation Preempted.
    pub respre: bool,
    #[bits(28)]
    __: u32,
}

/// Value of Reservation Persistence (Base §5.27.1.27).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReservationPersistence {
    /// PTPL: Persist Through Power Loss.
    pub ptpl: bool,
    #[bits(31)]
    __: u32,
}

/// Write protection state of a namespace (Base §5.27.1.28).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteProtectionState {
    /// 000b: no write protection.
    None,
    /// 001b: write protected.
    WriteProtect,
    /// 010b: write protected until power cycle.
    UntilPowerCycle,
    /// 011b: permanently write protected.
    Permanent,
    /// Any other value, reserved.
    Reserved(u8),
}

impl WriteProtectionState {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::None,
            1 => Self::WriteProtect,
            2 => Self::UntilPowerCycle,
            3 => Self::Permanent,
            other => Self::Reserved(other),
        }
    }

    const fn into_bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::WriteProtect => 1,
            Self::UntilPowerCycle => 2,
            Self::Permanent => 3,
            Self::Reserved(bits) => bits,
        }
    }
}

/// Value of Namespace Write Protection Config (Base §5.27.1.28).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct NamespaceWriteProtection {
    /// Write Protection State.
    #[bits(3)]
    pub wps: WriteProtectionState,
    #[bits(29)]
    __: u32,
}

/// Value of I/O Command Set Profile (Base §5.27.1.21).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IoCommandSetProfile {
    /// IOCSCI: I/O Command Set Combination Index.
    #[bits(9)]
    pub iocsci: u16,
    #[bits(23)]
    __: u32,
}

#[cfg(test)]
mod tests;
