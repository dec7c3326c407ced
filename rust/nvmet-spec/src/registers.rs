//! Controller properties (registers): offsets and layouts (Base §3.1.3) and doorbells (PCIe §3.1.2).
//!
//! Knows where a register is and what its bits mean. Which access each bit allows, and what an access does, is the
//! controller's business.

use bitfield_struct::bitfield;

/// Controller Capabilities, 8 bytes, RO (Base §3.1.3.1).
pub const CAP: u64 = 0x00;
/// Version, 4 bytes, RO (Base §3.1.3.2).
pub const VS: u64 = 0x08;
/// Interrupt Mask Set, 4 bytes, RW1S (Base §3.1.3.3).
pub const INTMS: u64 = 0x0c;
/// Interrupt Mask Clear, 4 bytes, RW1C (Base §3.1.3.4).
pub const INTMC: u64 = 0x10;
/// Controller Configuration, 4 bytes, RW (Base §3.1.3.5).
pub const CC: u64 = 0x14;
/// Controller Status, 4 bytes, RO but NSSRO, which is RW1C (Base §3.1.3.6).
pub const CSTS: u64 = 0x1c;
/// NVM Subsystem Reset, 4 bytes, RW (Base §3.1.3.7).
pub const NSSR: u64 = 0x20;
/// Admin Queue Attributes, 4 bytes, RW (Base §3.1.3.8).
pub const AQA: u64 = 0x24;
/// Admin Submission Queue Base Address, 8 bytes, RW (Base §3.1.3.9).
pub const ASQ: u64 = 0x28;
/// Admin Completion Queue Base Address, 8 bytes, RW (Base §3.1.3.10).
pub const ACQ: u64 = 0x30;
/// Controller Memory Buffer Location, 4 bytes, RO (Base §3.1.3.11).
pub const CMBLOC: u64 = 0x38;
/// Controller Memory Buffer Size, 4 bytes, RO (Base §3.1.3.12).
pub const CMBSZ: u64 = 0x3c;
/// Boot Partition Information, 4 bytes, RO (Base §3.1.3.13).
pub const BPINFO: u64 = 0x40;
/// Boot Partition Read Select, 4 bytes, RW (Base §3.1.3.14).
pub const BPRSEL: u64 = 0x44;
/// Boot Partition Memory Buffer Location, 8 bytes, RW (Base §3.1.3.15).
pub const BPMBL: u64 = 0x48;
/// Controller Memory Buffer Memory Space Control, 8 bytes, RW (Base §3.1.3.16).
pub const CMBMSC: u64 = 0x50;
/// Controller Memory Buffer Status, 4 bytes, RO (Base §3.1.3.17).
pub const CMBSTS: u64 = 0x58;
/// Controller Memory Buffer Elasticity Buffer Size, 4 bytes, RO (Base §3.1.3.18).
pub const CMBEBS: u64 = 0x5c;
/// Controller Memory Buffer Sustained Write Throughput, 4 bytes, RO (Base §3.1.3.19).
pub const CMBSWTP: u64 = 0x60;
/// NVM Subsystem Shutdown, 4 bytes, RW (Base §3.1.3.20).
pub const NSSD: u64 = 0x64;
/// Controller Ready Timeouts, 4 bytes, RO (Base §3.1.3.21).
pub const CRTO: u64 = 0x68;
/// Persistent Memory Region Capabilities, 4 bytes, RO (Base §3.1.3.22).
pub const PMRCAP: u64 = 0xe00;
/// Persistent Memory Region Control, 4 bytes, RW (Base §3.1.3.23).
pub const PMRCTL: u64 = 0xe04;
/// Persistent Memory Region Status, 4 bytes, RO (Base §3.1.3.24).
pub const PMRSTS: u64 = 0xe08;
/// Persistent Memory Region Elasticity Buffer Size, 4 bytes, RO (Base §3.1.3.25).
pub const PMREBS: u64 = 0xe0c;
/// Persistent Memory Region Sustained Write Throughput, 4 bytes, RO (Base §3.1.3.26).
pub const PMRSWTP: u64 = 0xe10;
/// Persistent Memory Region Memory Space Control Lower, 4 bytes, RW (Base §3.1.3.27).
pub const PMRMSCL: u64 = 0xe14;
/// Persistent Memory Region Memory Space Control Upper, 4 bytes, RW (Base §3.1.3.28).
pub const PMRMSCU: u64 = 0xe18;

/// Offset of the first doorbell, the tail of the Admin Submission Queue (PCIe §3.1.2).
pub const DOORBELL_BASE: u64 = 0x1000;

/// The value that triggers an NVM Subsystem Reset when written to NSSR: "NVMe" (Base §3.1.3.7).
pub const NSSR_MAGIC: u32 = 0x4e56_4d65;
/// The value that starts a normal NVM Subsystem Shutdown when written to NSSD: "Nrml" (Base §3.1.3.20).
pub const NSSD_NORMAL_MAGIC: u32 = 0x4e72_6d6c;
/// The value that starts an abrupt NVM Subsystem Shutdown when written to NSSD: "Abpt" (Base §3.1.3.20).
pub const NSSD_ABRUPT_MAGIC: u32 = 0x4162_7074;

/// CAP.CSS bit: NVM Command Set (Base §3.1.3.1).
pub const CAP_CSS_NVM: u8 = 1 << 0;
/// CAP.CSS bit: one or more I/O Command Sets, chosen with the I/O Command Set profile (Base §3.1.3.1).
pub const CAP_CSS_IOCS: u8 = 1 << 6;
/// CAP.CSS bit: no I/O Command Set, Admin only (Base §3.1.3.1).
pub const CAP_CSS_NO_IO: u8 = 1 << 7;

/// CAP: Controller Capabilities (Base §3.1.3.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Cap {
    /// MQES: Maximum Queue Entries Supported for I/O queues, 0's based; the smallest legal value is 1.
    pub mqes_z: u16,
    /// CQR: Contiguous Queues Required.
    pub cqr: bool,
    /// AMS: Arbitration Mechanism Supported; bit 0 weighted round robin with urgent, bit 1 vendor specific.
    #[bits(2)]
    pub ams: u8,
    #[bits(5)]
    __: u8,
    /// TO: Timeout, worst-case wait for CSTS.RDY to change, in units of 500 ms.
    pub to: u8,
    /// DSTRD: Doorbell Stride; the stride is `4 << dstrd` bytes, see [`Cap::doorbell_stride`].
    #[bits(4)]
    pub dstrd: u8,
    /// NSSRS: NVM Subsystem Reset Supported.
    pub nssrs: bool,
    /// CSS: Command Sets Supported, one bit each: [`CAP_CSS_NVM`], [`CAP_CSS_IOCS`], [`CAP_CSS_NO_IO`].
    pub css: u8,
    /// BPS: Boot Partition Support.
    pub bps: bool,
    /// CPS: Controller Power Scope.
    #[bits(2)]
    pub cps: u8,
    /// MPSMIN: Memory Page Size Minimum, `1 << (12 + mpsmin)` bytes.
    #[bits(4)]
    pub mpsmin: u8,
    /// MPSMAX: Memory Page Size Maximum, `1 << (12 + mpsmax)` bytes.
    #[bits(4)]
    pub mpsmax: u8,
    /// PMRS: Persistent Memory Region Supported.
    pub pmrs: bool,
    /// CMBS: Controller Memory Buffer Supported.
    pub cmbs: bool,
    /// NSSS: NVM Subsystem Shutdown Supported.
    pub nsss: bool,
    /// CRMS.CRWMS: Controller Ready With Media Support.
    pub crwms: bool,
    /// CRMS.CRIMS: Controller Ready Independent of Media Support.
    pub crims: bool,
    /// NSSES: NVM Subsystem Shutdown Enhancements Supported (Base 2.1).
    pub nsses: bool,
    #[bits(2)]
    __: u8,
}

impl Cap {
    /// Maximum number of entries of an I/O queue, 1-based.
    pub const fn mqes(&self) -> u32 {
        self.mqes_z() as u32 + 1
    }

    /// Distance between doorbells in bytes.
    pub const fn doorbell_stride(&self) -> u32 {
        4 << self.dstrd()
    }
}

/// VS: Version (Base §3.1.3.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Vs {
    /// TER: Tertiary Version Number.
    pub ter: u8,
    /// MNR: Minor Version Number.
    pub mnr: u8,
    /// MJR: Major Version Number.
    pub mjr: u16,
}

impl Vs {
    /// NVM Express 1.4.
    pub const V1_4: Self = Self::new().with_mjr(1).with_mnr(4);
    /// NVM Express 2.0.
    pub const V2_0: Self = Self::new().with_mjr(2);
    /// NVM Express 2.1.
    pub const V2_1: Self = Self::new().with_mjr(2).with_mnr(1);
}

/// CC: Controller Configuration (Base §3.1.3.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cc {
    /// EN: Enable.
    pub en: bool,
    #[bits(3)]
    __: u8,
    /// CSS: I/O Command Set Selected.
    #[bits(3)]
    pub css: CommandSetSelected,
    /// MPS: Memory Page Size, `1 << (12 + mps)` bytes, see [`Cc::page_size`].
    #[bits(4)]
    pub mps: u8,
    /// AMS: Arbitration Mechanism Selected.
    #[bits(3)]
    pub ams: ArbitrationMechanism,
    /// SHN: Shutdown Notification.
    #[bits(2)]
    pub shn: ShutdownNotification,
    /// IOSQES: I/O Submission Queue Entry Size, as a power of two.
    #[bits(4)]
    pub iosqes: u8,
    /// IOCQES: I/O Completion Queue Entry Size, as a power of two.
    #[bits(4)]
    pub iocqes: u8,
    /// CRIME: Controller Ready Independent of Media Enable.
    pub crime: bool,
    #[bits(7)]
    __: u8,
}

impl Cc {
    /// Memory page size in bytes: 4 KiB to 128 MiB.
    pub const fn page_size(&self) -> u32 {
        1 << (12 + self.mps() as u32)
    }
}

/// CC.CSS: I/O Command Set Selected (Base §3.1.3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandSetSelected {
    /// 000b: the NVM Command Set.
    Nvm,
    /// 110b: all supported I/O Command Sets.
    AllSupported,
    /// 111b: the Admin Command Set only.
    AdminOnly,
    /// Any other value, reserved.
    Reserved(u8),
}

impl CommandSetSelected {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Nvm,
            6 => Self::AllSupported,
            7 => Self::AdminOnly,
            other => Self::Reserved(other),
        }
    }

    const fn into_bits(self) -> u8 {
        match self {
            Self::Nvm => 0,
            Self::AllSupported => 6,
            Self::AdminOnly => 7,
            Self::Reserved(bits) => bits,
        }
    }
}

/// CC.AMS: Arbitration Mechanism Selected (Base §3.1.3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArbitrationMechanism {
    /// 000b: round robin.
    RoundRobin,
    /// 001b: weighted round robin with urgent priority class.
    WeightedRoundRobinUrgent,
    /// 111b: vendor specific.
    VendorSpecific,
    /// Any other value, reserved.
    Reserved(u8),
}

impl ArbitrationMechanism {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::RoundRobin,
            1 => Self::WeightedRoundRobinUrgent,
            7 => Self::VendorSpecific,
            other => Self::Reserved(other),
        }
    }

    const fn into_bits(self) -> u8 {
        match self {
            Self::RoundRobin => 0,
            Self::WeightedRoundRobinUrgent => 1,
            Self::VendorSpecific => 7,
            Self::Reserved(bits) => bits,
        }
    }
}

/// CC.SHN: Shutdown Notification (Base §3.1.3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownNotification {
    /// 00b: no notification.
    None,
    /// 01b: normal shutdown.
    Normal,
    /// 10b: abrupt shutdown.
    Abrupt,
    /// 11b: reserved.
    Reserved,
}

impl ShutdownNotification {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::None,
            1 => Self::Normal,
            2 => Self::Abrupt,
            _ => Self::Reserved,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// CSTS: Controller Status (Base §3.1.3.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Csts {
    /// RDY: Ready.
    pub rdy: bool,
    /// CFS: Controller Fatal Status.
    pub cfs: bool,
    /// SHST: Shutdown Status.
    #[bits(2)]
    pub shst: ShutdownStatus,
    /// NSSRO: NVM Subsystem Reset Occurred, RW1C.
    pub nssro: bool,
    /// PP: Processing Paused.
    pub pp: bool,
    /// ST: Shutdown Type; set when the shutdown is that of the NVM subsystem.
    pub st: bool,
    #[bits(25)]
    __: u32,
}

/// CSTS.SHST: Shutdown Status (Base §3.1.3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownStatus {
    /// 00b: normal operation, no shutdown requested.
    Normal,
    /// 01b: shutdown processing occurring.
    Occurring,
    /// 10b: shutdown processing complete.
    Complete,
    /// 11b: reserved.
    Reserved,
}

impl ShutdownStatus {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Normal,
            1 => Self::Occurring,
            2 => Self::Complete,
            _ => Self::Reserved,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// AQA: Admin Queue Attributes (Base §3.1.3.8).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Aqa {
    /// ASQS: Admin Submission Queue Size in entries, 0's based; the smallest legal value is 1.
    #[bits(12)]
    pub asqs_z: u16,
    #[bits(4)]
    __: u8,
    /// ACQS: Admin Completion Queue Size in entries, 0's based; the smallest legal value is 1.
    #[bits(12)]
    pub acqs_z: u16,
    #[bits(4)]
    __: u8,
}

impl Aqa {
    /// Entries of the Admin Submission Queue, 1-based: 1 to 4096.
    pub const fn asqs(&self) -> u32 {
        self.asqs_z() as u32 + 1
    }

    /// Entries of the Admin Completion Queue, 1-based: 1 to 4096.
    pub const fn acqs(&self) -> u32 {
        self.acqs_z() as u32 + 1
    }
}

/// CRTO: Controller Ready Timeouts, in units of 500 ms (Base §3.1.3.21).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Crto {
    /// CRWMT: Controller Ready With Media Timeout.
    pub crwmt: u16,
    /// CRIMT: Controller Ready Independent of Media Timeout.
    pub crimt: u16,
}

/// A doorbell: which queue, and which end of it (PCIe §3.1.2.1 and §3.1.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doorbell {
    /// SQyTDBL: Submission Queue y Tail Doorbell.
    SqTail(u16),
    /// CQyHDBL: Completion Queue y Head Doorbell.
    CqHead(u16),
}

impl Doorbell {
    /// The doorbell at `offset` of BAR0 with stride code `dstrd` (0 to 15, CAP.DSTRD); `None` when the offset is below
    /// the doorbells, not on a stride boundary, or beyond the last queue identifier.
    pub const fn at(offset: u64, dstrd: u8) -> Option<Self> {
        let stride = 4u64 << (dstrd & 0xf);
        let Some(relative) = offset.checked_sub(DOORBELL_BASE) else { return None };
        if !relative.is_multiple_of(stride) {
            return None;
        }
        let index = relative / stride;
        if index > 2 * 0xffff + 1 {
            return None;
        }
        let qid = (index / 2) as u16;
        Some(if index.is_multiple_of(2) { Self::SqTail(qid) } else { Self::CqHead(qid) })
    }

    /// Offset in BAR0 with stride code `dstrd` (0 to 15).
    pub const fn offset(self, dstrd: u8) -> u64 {
        let index = match self {
            Self::SqTail(qid) => qid as u64 * 2,
            Self::CqHead(qid) => qid as u64 * 2 + 1,
        };
        DOORBELL_BASE + index * (4u64 << (dstrd & 0xf))
    }
}

/// The value written to a doorbell (PCIe §3.1.2.1 and §3.1.2.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DoorbellValue {
    /// SQT or CQH: the new tail or head, an entry index.
    pub index: u16,
    __: u16,
}

#[cfg(test)]
mod tests;
