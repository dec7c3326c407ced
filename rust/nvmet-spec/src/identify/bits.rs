//! Capability fields of the Identify Controller data structure (Base §5.17.2.1, NVM §4.1.5.2).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// CMIC: Controller Multi-Path I/O and Namespace Sharing Capabilities (Base §5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Cmic {
    /// The NVM subsystem may contain more than one port.
    pub multi_port: bool,
    /// The NVM subsystem may contain two or more controllers.
    pub multi_controller: bool,
    /// The controller is that of an SR-IOV Virtual Function.
    pub sriov: bool,
    /// Asymmetric Namespace Access Reporting is supported.
    pub ana: bool,
    #[bits(4)]
    __: u8,
}

/// OAES: Optional Asynchronous Events Supported (Base §5.17.2.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Oaes {
    __: u8,
    /// Namespace Attribute Notices.
    pub namespace_attribute: bool,
    /// Firmware Activation Notices.
    pub firmware_activation: bool,
    __: bool,
    /// Asymmetric Namespace Access Change Notices.
    pub ana_change: bool,
    /// Predictable Latency Event Aggregate Log Change Notices.
    pub predictable_latency: bool,
    /// LBA Status Information Alert Notices.
    pub lba_status_information: bool,
    /// Endurance Group Event Aggregate Log Page Change Notices.
    pub endurance_group: bool,
    /// Normal NVM Subsystem Shutdown event.
    pub normal_shutdown: bool,
    #[bits(11)]
    __: u16,
    /// Zone Descriptor Changed Notices.
    pub zone_descriptor: bool,
    #[bits(3)]
    __: u8,
    /// Discovery Log Change Notices.
    pub discovery_log: bool,
}

/// CTRATT: Controller Attributes (Base §5.17.2.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Ctratt {
    /// HIDS: Host Identifier Support; 128-bit Host Identifiers.
    pub host_id_128: bool,
    /// NOPSPM: Non-Operational Power State Permissive Mode.
    pub nopspm: bool,
    /// NVM Sets.
    pub nvm_sets: bool,
    /// RRLVLS: Read Recovery Levels.
    pub rrlvls: bool,
    /// Endurance Groups.
    pub endurance_groups: bool,
    /// PLM: Predictable Latency Mode.
    pub plm: bool,
    /// TBKAS: Traffic Based Keep Alive Support.
    pub tbkas: bool,
    /// NG: Namespace Granularity.
    pub ng: bool,
    /// SQA: SQ Associations.
    pub sqa: bool,
    /// UUID List.
    pub uuid_list: bool,
    /// MDS: Multi-Domain Subsystem.
    pub mds: bool,
    /// FCM: Fixed Capacity Management.
    pub fcm: bool,
    /// VCM: Variable Capacity Management.
    pub vcm: bool,
    /// DEG: Delete Endurance Group.
    pub deg: bool,
    /// DNVMS: Delete NVM Set.
    pub dnvms: bool,
    /// ELBAS: Extended LBA Formats Supported.
    pub elbas: bool,
    __: u16,
}

/// CNTRLTYPE: Controller Type (Base §5.17.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ControllerType {
    /// 0h: not reported.
    NotReported = 0,
    /// 1h: I/O controller.
    Io = 1,
    /// 2h: Discovery controller.
    Discovery = 2,
    /// 3h: Administrative controller.
    Administrative = 3,
}

/// OACS: Optional Admin Command Support (Base §5.17.2.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Oacs {
    /// Security Send and Security Receive.
    pub security: bool,
    /// Format NVM.
    pub format: bool,
    /// Firmware Commit and Firmware Image Download.
    pub firmware: bool,
    /// Namespace Management and Namespace Attachment.
    pub namespace_management: bool,
    /// Device Self-test.
    pub self_test: bool,
    /// Directives.
    pub directives: bool,
    /// NVMe-MI Send and NVMe-MI Receive.
    pub nvme_mi: bool,
    /// Virtualization Management.
    pub virtualization: bool,
    /// Doorbell Buffer Config.
    pub doorbell_buffer_config: bool,
    /// Get LBA Status.
    pub get_lba_status: bool,
    /// Command and Feature Lockdown.
    pub lockdown: bool,
    #[bits(5)]
    __: u8,
}

/// FRMW: Firmware Updates (Base §5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Frmw {
    /// Firmware slot 1 is read-only.
    pub slot1_read_only: bool,
    /// Number of firmware slots, 1 to 7.
    #[bits(3)]
    pub slots: u8,
    /// Firmware activation without a reset.
    pub activation_without_reset: bool,
    /// SMUD: Support Multiple Update Detection.
    pub smud: bool,
    #[bits(2)]
    __: u8,
}

/// LPA: Log Page Attributes (Base §5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Lpa {
    /// SMART / Health Information for a single namespace.
    pub smart_per_namespace: bool,
    /// Commands Supported and Effects.
    pub command_effects: bool,
    /// Extended data: NUMD of 32 bits and the log page offset.
    pub extended_data: bool,
    /// Telemetry log pages and notices.
    pub telemetry: bool,
    /// Persistent Event log.
    pub persistent_event: bool,
    /// Supported Log Pages, and the effects pages 12h and 13h.
    pub supported_log_pages: bool,
    /// Telemetry Data Area 4.
    pub telemetry_area_4: bool,
    __: bool,
}

/// ANACAP: Asymmetric Namespace Access Capabilities (Base §5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Anacap {
    /// ANA Optimized state is reported.
    pub optimized: bool,
    /// ANA Non-Optimized state is reported.
    pub non_optimized: bool,
    /// ANA Inaccessible state is reported.
    pub inaccessible: bool,
    /// ANA Persistent Loss state is reported.
    pub persistent_loss: bool,
    /// ANA Change state is reported.
    pub change: bool,
    __: bool,
    /// ANAGRPID of a namespace does not change while it is attached.
    pub group_id_fixed: bool,
    /// Namespace Management takes a non-zero ANAGRPID.
    pub group_id_settable: bool,
}

/// Queue entry sizes as powers of two: SQES and CQES (Base §5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EntrySizes {
    /// Required (minimum) entry size.
    #[bits(4)]
    pub required: u8,
    /// Maximum entry size.
    #[bits(4)]
    pub maximum: u8,
}

/// ONCS: Optional NVM Command Support (Base §5.17.2.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Oncs {
    /// Compare.
    pub compare: bool,
    /// Write Uncorrectable.
    pub write_uncorrectable: bool,
    /// Dataset Management.
    pub dataset_management: bool,
    /// Write Zeroes.
    pub write_zeroes: bool,
    /// Save field of Set Features and Select field of Get Features.
    pub save_select: bool,
    /// Reservations.
    pub reservations: bool,
    /// Timestamp feature.
    pub timestamp: bool,
    /// Verify.
    pub verify: bool,
    /// Copy.
    pub copy: bool,
    #[bits(7)]
    __: u8,
}

/// FUSES: Fused Operation Support (Base §5.17.2.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Fuses {
    /// Compare and Write.
    pub compare_and_write: bool,
    #[bits(15)]
    __: u16,
}

/// FNA: Format NVM Attributes (Base §5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Fna {
    /// A format applies to all namespaces.
    pub format_all: bool,
    /// A secure erase applies to all namespaces.
    pub erase_all: bool,
    /// Cryptographic erase is supported.
    pub crypto_erase: bool,
    /// Format NVM does not take NSID FFFFFFFFh.
    pub broadcast_unsupported: bool,
    #[bits(4)]
    __: u8,
}

/// Flush with NSID FFFFFFFFh: VWC bits 2:1 (Base §5.17.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushAll {
    /// 00b: not indicated.
    NotIndicated,
    /// 01b: reserved.
    Reserved,
    /// 10b: not supported.
    Unsupported,
    /// 11b: supported.
    Supported,
}

impl FlushAll {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::NotIndicated,
            1 => Self::Reserved,
            2 => Self::Unsupported,
            _ => Self::Supported,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// VWC: Volatile Write Cache (Base §5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Vwc {
    /// A volatile write cache is present.
    pub present: bool,
    /// Flush with NSID FFFFFFFFh.
    #[bits(2)]
    pub flush_all: FlushAll,
    #[bits(5)]
    __: u8,
}

/// NWPC: Namespace Write Protection Capabilities (Base §5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Nwpc {
    /// No Write Protect and Write Protect states.
    pub supported: bool,
    /// Write Protect Until Power Cycle state.
    pub until_power_cycle: bool,
    /// Permanent Write Protect state.
    pub permanent: bool,
    #[bits(5)]
    __: u8,
}

/// SGL support: SGLS bits 1:0 (Base §5.17.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SglSupport {
    /// 00b: SGLs are not supported.
    None,
    /// 01b: supported, data blocks of any alignment and granularity.
    AnyAlignment,
    /// 10b: supported, data blocks aligned to and multiples of a dword.
    DwordAlignment,
    /// 11b: reserved.
    Reserved,
}

impl SglSupport {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::None,
            1 => Self::AnyAlignment,
            2 => Self::DwordAlignment,
            _ => Self::Reserved,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// SGLS: SGL Support (Base §5.17.2.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Sgls {
    /// SGL support in the NVM Command Set.
    #[bits(2)]
    pub support: SglSupport,
    /// Keyed SGL Data Block descriptor.
    pub keyed: bool,
    #[bits(5)]
    __: u8,
    /// SDT: SGL Descriptor Threshold, the recommended most descriptors in a command; 0 is not reported.
    pub sdt: u8,
    /// SGL Bit Bucket descriptor.
    pub bit_bucket: bool,
    /// MPTR may be the address of a byte-aligned contiguous buffer.
    pub metadata_byte_aligned: bool,
    /// The SGL may be longer than the data.
    pub longer_than_data: bool,
    /// MPTR may be the address of an SGL segment.
    pub metadata_sgl: bool,
    /// The Address field may hold an offset.
    pub address_offset: bool,
    /// Transport SGL Data Block descriptor.
    pub transport: bool,
    #[bits(10)]
    __: u16,
}
