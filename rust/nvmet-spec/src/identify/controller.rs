//! Identify Controller data structure, CNS 01h (Base §5.17.2.1).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    Anacap, Cmic, Ctratt, EntrySizes, Fna, Frmw, Fuses, Lpa, Nwpc, Oacs, Oaes, Oncs, Sgls, Vwc,
    zero_by_default,
};
use crate::registers::Vs;

/// Flags of a Power State Descriptor, byte 3 (Base §5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PowerStateFlags {
    /// MXPS: Max Power Scale; MP is in units of 0.0001 W, otherwise 0.01 W.
    pub mxps: bool,
    /// NOPS: Non-Operational State.
    pub nops: bool,
    #[bits(6)]
    __: u8,
}

/// Power State Descriptor, 32 bytes (Base §5.17.2.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PowerStateDescriptor {
    /// MP: Maximum Power, see [`PowerStateFlags::mxps`].
    pub mp: u16,
    /// Reserved.
    pub reserved2: u8,
    /// MXPS and NOPS.
    pub flags: PowerStateFlags,
    /// ENLAT: Entry Latency in microseconds.
    pub enlat: u32,
    /// EXLAT: Exit Latency in microseconds.
    pub exlat: u32,
    /// RRT: Relative Read Throughput, lower is better.
    pub rrt: u8,
    /// RRL: Relative Read Latency, lower is better.
    pub rrl: u8,
    /// RWT: Relative Write Throughput, lower is better.
    pub rwt: u8,
    /// RWL: Relative Write Latency, lower is better.
    pub rwl: u8,
    /// IDLP: Idle Power.
    pub idlp: u16,
    /// IPS: Idle Power Scale in bits 7:6.
    pub ips: u8,
    /// Reserved.
    pub reserved19: u8,
    /// ACTP: Active Power.
    pub actp: u16,
    /// APS: Active Power Scale in bits 7:6, APW: Active Power Workload in bits 2:0.
    pub apws: u8,
    /// Reserved.
    pub reserved23: [u8; 9],
}

/// Identify Controller data structure, 4096 bytes (Base §5.17.2.1).
///
/// 128-bit fields are bytes, little-endian: the layout does not align them.
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IdentifyController {
    /// VID: PCI Vendor ID.
    pub vid: u16,
    /// SSVID: PCI Subsystem Vendor ID.
    pub ssvid: u16,
    /// SN: Serial Number, ASCII, padded with spaces; see [`super::ascii_field`].
    pub sn: [u8; 20],
    /// MN: Model Number, ASCII, padded with spaces.
    pub mn: [u8; 40],
    /// FR: Firmware Revision, ASCII, padded with spaces.
    pub fr: [u8; 8],
    /// RAB: Recommended Arbitration Burst, as a power of two.
    pub rab: u8,
    /// IEEE: OUI Identifier, least significant byte first.
    pub ieee: [u8; 3],
    /// CMIC: Multi-Path I/O and Namespace Sharing Capabilities.
    pub cmic: Cmic,
    /// MDTS: Maximum Data Transfer Size, as a power of two in units of CAP.MPSMIN; 0 is no limit.
    pub mdts: u8,
    /// CNTLID: Controller ID.
    pub cntlid: u16,
    /// VER: Version, the value of the VS register.
    pub ver: u32,
    /// RTD3R: RTD3 Resume Latency in microseconds.
    pub rtd3r: u32,
    /// RTD3E: RTD3 Entry Latency in microseconds.
    pub rtd3e: u32,
    /// OAES: Optional Asynchronous Events Supported.
    pub oaes: Oaes,
    /// CTRATT: Controller Attributes.
    pub ctratt: Ctratt,
    /// RRLS: Read Recovery Levels Supported, one bit each.
    pub rrls: u16,
    /// Reserved.
    pub reserved102: [u8; 9],
    /// CNTRLTYPE: Controller Type, see [`super::ControllerType`].
    pub cntrltype: u8,
    /// FGUID: FRU Globally Unique Identifier.
    pub fguid: [u8; 16],
    /// CRDT1: Command Retry Delay Time 1 in units of 100 ms.
    pub crdt1: u16,
    /// CRDT2: Command Retry Delay Time 2 in units of 100 ms.
    pub crdt2: u16,
    /// CRDT3: Command Retry Delay Time 3 in units of 100 ms.
    pub crdt3: u16,
    /// Reserved.
    pub reserved134: [u8; 119],
    /// NVMSR: NVM Subsystem Report.
    pub nvmsr: u8,
    /// VWCI: VPD Write Cycle Information.
    pub vwci: u8,
    /// MEC: Management Endpoint Capabilities.
    pub mec: u8,
    /// OACS: Optional Admin Command Support.
    pub oacs: Oacs,
    /// ACL: Abort Command Limit, 0's based.
    pub acl_z: u8,
    /// AERL: Asynchronous Event Request Limit, 0's based.
    pub aerl_z: u8,
    /// FRMW: Firmware Updates.
    pub frmw: Frmw,
    /// LPA: Log Page Attributes.
    pub lpa: Lpa,
    /// ELPE: Error Log Page Entries, 0's based.
    pub elpe_z: u8,
    /// NPSS: Number of Power States Support, 0's based.
    pub npss_z: u8,
    /// AVSCC: Admin Vendor Specific Command Configuration.
    pub avscc: u8,
    /// APSTA: Autonomous Power State Transition Attributes.
    pub apsta: u8,
    /// WCTEMP: Warning Composite Temperature Threshold in kelvins.
    pub wctemp: u16,
    /// CCTEMP: Critical Composite Temperature Threshold in kelvins.
    pub cctemp: u16,
    /// MTFA: Maximum Time for Firmware Activation in units of 100 ms.
    pub mtfa: u16,
    /// HMPRE: Host Memory Buffer Preferred Size in units of 4 KiB.
    pub hmpre: u32,
    /// HMMIN: Host Memory Buffer Minimum Size in units of 4 KiB.
    pub hmmin: u32,
    /// TNVMCAP: Total NVM Capacity in bytes.
    pub tnvmcap: [u8; 16],
    /// UNVMCAP: Unallocated NVM Capacity in bytes.
    pub unvmcap: [u8; 16],
    /// RPMBS: Replay Protected Memory Block Support.
    pub rpmbs: u32,
    /// EDSTT: Extended Device Self-test Time in minutes.
    pub edstt: u16,
    /// DSTO: Device Self-test Options.
    pub dsto: u8,
    /// FWUG: Firmware Update Granularity in units of 4 KiB.
    pub fwug: u8,
    /// KAS: Keep Alive Support, the timer's granularity in units of 100 ms; 0 is not supported.
    pub kas: u16,
    /// HCTMA: Host Controlled Thermal Management Attributes.
    pub hctma: u16,
    /// MNTMT: Minimum Thermal Management Temperature in kelvins.
    pub mntmt: u16,
    /// MXTMT: Maximum Thermal Management Temperature in kelvins.
    pub mxtmt: u16,
    /// SANICAP: Sanitize Capabilities.
    pub sanicap: u32,
    /// HMMINDS: Host Memory Buffer Minimum Descriptor Entry Size in units of 4 KiB.
    pub hmminds: u32,
    /// HMMAXD: Host Memory Maximum Descriptors Entries.
    pub hmmaxd: u16,
    /// NSETIDMAX: NVM Set Identifier Maximum.
    pub nsetidmax: u16,
    /// ENDGIDMAX: Endurance Group Identifier Maximum.
    pub endgidmax: u16,
    /// ANATT: ANA Transition Time in seconds.
    pub anatt: u8,
    /// ANACAP: Asymmetric Namespace Access Capabilities.
    pub anacap: Anacap,
    /// ANAGRPMAX: ANA Group Identifier Maximum.
    pub anagrpmax: u32,
    /// NANAGRPID: Number of ANA Group Identifiers.
    pub nanagrpid: u32,
    /// PELS: Persistent Event Log Size in units of 64 KiB.
    pub pels: u32,
    /// Domain Identifier.
    pub domain_id: u16,
    /// Reserved.
    pub reserved358: [u8; 10],
    /// MEGCAP: Max Endurance Group Capacity in bytes.
    pub megcap: [u8; 16],
    /// Reserved.
    pub reserved384: [u8; 128],
    /// SQES: Submission Queue Entry Size.
    pub sqes: EntrySizes,
    /// CQES: Completion Queue Entry Size.
    pub cqes: EntrySizes,
    /// MAXCMD: Maximum Outstanding Commands for a queue; 0 is not reported.
    pub maxcmd: u16,
    /// NN: Number of Namespaces, the largest valid NSID unless MNAN is smaller.
    pub nn: u32,
    /// ONCS: Optional NVM Command Support.
    pub oncs: Oncs,
    /// FUSES: Fused Operation Support.
    pub fuses: Fuses,
    /// FNA: Format NVM Attributes.
    pub fna: Fna,
    /// VWC: Volatile Write Cache.
    pub vwc: Vwc,
    /// AWUN: Atomic Write Unit Normal in logical blocks, 0's based.
    pub awun_z: u16,
    /// AWUPF: Atomic Write Unit Power Fail in logical blocks, 0's based.
    pub awupf_z: u16,
    /// ICSVSCC: I/O Command Set Vendor Specific Command Configuration.
    pub icsvscc: u8,
    /// NWPC: Namespace Write Protection Capabilities.
    pub nwpc: Nwpc,
    /// ACWU: Atomic Compare & Write Unit in logical blocks, 0's based.
    pub acwu_z: u16,
    /// CDFS: Copy Descriptor Formats Supported, one bit each.
    pub cdfs: u16,
    /// SGLS: SGL Support.
    pub sgls: Sgls,
    /// MNAN: Maximum Number of Allowed Namespaces; 0 means NN.
    pub mnan: u32,
    /// MAXDNA: Maximum Domain Namespace Attachments.
    pub maxdna: [u8; 16],
    /// MAXCNA: Maximum I/O Controller Namespace Attachments.
    pub maxcna: u32,
    /// Reserved.
    pub reserved564: [u8; 204],
    /// SUBNQN: NVM Subsystem NVMe Qualified Name, UTF-8, padded with zeroes; see [`super::nqn_field`].
    pub subnqn: [u8; 256],
    /// Reserved.
    pub reserved1024: [u8; 768],
    /// NVMe over Fabrics fields (IOCCSZ to OFCS), zero over PCIe.
    pub fabrics: [u8; 256],
    /// PSD0 to PSD31: Power State Descriptors.
    pub psd: [PowerStateDescriptor; 32],
    /// Vendor specific.
    pub vendor_specific: [u8; 1024],
}

impl IdentifyController {
    /// VER as the Version register.
    pub const fn version(&self) -> Vs {
        Vs::from_bits(self.ver)
    }

    /// TNVMCAP: total NVM capacity in bytes.
    pub const fn total_capacity(&self) -> u128 {
        u128::from_le_bytes(self.tnvmcap)
    }

    /// Largest data transfer in bytes, with memory pages of at least `1 << (12 + mpsmin)` bytes (CAP.MPSMIN, 0 to 15);
    /// `None` when there is no limit, or none that 64 bits can hold.
    pub const fn max_transfer(&self, mpsmin: u8) -> Option<u64> {
        let shift = self.mdts as u32 + 12 + mpsmin as u32;
        if self.mdts == 0 { None } else { 1u64.checked_shl(shift) }
    }
}

const _: () = {
    assert!(size_of::<PowerStateDescriptor>() == 32);
    assert!(size_of::<IdentifyController>() == super::IDENTIFY_SIZE);
};

zero_by_default!(IdentifyController);
