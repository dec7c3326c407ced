//! Capability fields of the Identify Namespace data structures (NVM §4.1.5.1, Base §5.17.2.8).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// NSFEAT: Namespace Features (NVM §4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Nsfeat {
    /// THINP: Thin Provisioning; NCAP may be less than NSZE, NUSE is tracked.
    pub thinp: bool,
    /// NSABP: Namespace Atomic Boundary and Power fields NAWUN, NAWUPF and NACWU are defined.
    pub nsabp: bool,
    /// DAE: Deallocated Error; DULBE is supported.
    pub dae: bool,
    /// UIDREUSE: NGUID and EUI64 are never reused.
    pub uidreuse: bool,
    /// OPTPERF: NPWG, NPWA, NPDG, NPDA and NOWS are defined.
    pub optperf: bool,
    #[bits(3)]
    __: u8,
}

/// FLBAS: Formatted LBA Size (NVM §4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Flbas {
    /// Format Index, bits 3:0.
    #[bits(4)]
    pub index_low: u8,
    /// Metadata is at the end of the logical block, as an extended LBA.
    pub extended_metadata: bool,
    /// Format Index, bits 5:4.
    #[bits(2)]
    pub index_high: u8,
    __: bool,
}

impl Flbas {
    /// Format `index` (0 to 63), metadata apart.
    pub const fn for_format(index: u8) -> Self {
        Self::new().with_index_low(index & 0xf).with_index_high((index >> 4) & 0x3)
    }

    /// Index of the LBA format in use, 0 to 63.
    pub const fn index(&self) -> u8 {
        self.index_low() | self.index_high() << 4
    }
}

/// MC: Metadata Capabilities (NVM §4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Mc {
    /// Metadata as part of an extended LBA.
    pub extended: bool,
    /// Metadata in a buffer of its own.
    pub separate: bool,
    #[bits(6)]
    __: u8,
}

/// DPC: End-to-end Data Protection Capabilities (NVM §4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Dpc {
    /// Protection Information Type 1.
    pub type1: bool,
    /// Protection Information Type 2.
    pub type2: bool,
    /// Protection Information Type 3.
    pub type3: bool,
    /// Protection information in the first bytes of the metadata.
    pub first_bytes: bool,
    /// Protection information in the last bytes of the metadata.
    pub last_bytes: bool,
    #[bits(3)]
    __: u8,
}

/// DPS: End-to-end Data Protection Type Settings (NVM §4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Dps {
    /// Protection Information Type, 1 to 3; 0 is off.
    #[bits(3)]
    pub pi_type: u8,
    /// Protection information is in the first bytes of the metadata, otherwise the last.
    pub first_bytes: bool,
    #[bits(4)]
    __: u8,
}

/// NMIC: Namespace Multi-path I/O and Namespace Sharing Capabilities (NVM §4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Nmic {
    /// SHRNS: Shared Namespace; may be attached to two or more controllers.
    pub shrns: bool,
    #[bits(7)]
    __: u8,
}

/// RESCAP: Reservation Capabilities (NVM §4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Rescap {
    /// Persist Through Power Loss.
    pub ptpl: bool,
    /// Write Exclusive.
    pub write_exclusive: bool,
    /// Exclusive Access.
    pub exclusive_access: bool,
    /// Write Exclusive - Registrants Only.
    pub write_exclusive_registrants: bool,
    /// Exclusive Access - Registrants Only.
    pub exclusive_access_registrants: bool,
    /// Write Exclusive - All Registrants.
    pub write_exclusive_all: bool,
    /// Exclusive Access - All Registrants.
    pub exclusive_access_all: bool,
    /// Ignore Existing Key as of revision 1.3.
    pub ignore_existing_key: bool,
}

/// FPI: Format Progress Indicator (NVM §4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Fpi {
    /// Percentage of the namespace that remains to be formatted.
    #[bits(7)]
    pub remaining: u8,
    /// The indicator is supported.
    pub supported: bool,
}

/// What a read of a deallocated logical block returns: DLFEAT bits 2:0 (NVM §4.1.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeallocatedRead {
    /// 000b: not reported.
    NotReported,
    /// 001b: all bytes 00h.
    Zeroes,
    /// 010b: all bytes FFh.
    Ones,
    /// Any other value, reserved.
    Reserved(u8),
}

impl DeallocatedRead {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::NotReported,
            1 => Self::Zeroes,
            2 => Self::Ones,
            other => Self::Reserved(other),
        }
    }

    const fn into_bits(self) -> u8 {
        match self {
            Self::NotReported => 0,
            Self::Zeroes => 1,
            Self::Ones => 2,
            Self::Reserved(bits) => bits,
        }
    }
}

/// DLFEAT: Deallocate Logical Block Features (NVM §4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Dlfeat {
    /// What a read of a deallocated logical block returns.
    #[bits(3)]
    pub read: DeallocatedRead,
    /// The Deallocate bit of Write Zeroes is supported.
    pub write_zeroes_deallocate: bool,
    /// The Guard of a deallocated block is the CRC of its content, otherwise FFFFh.
    pub guard_crc: bool,
    #[bits(3)]
    __: u8,
}

/// NSATTR: Namespace Attributes (NVM §4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Nsattr {
    /// Write protected, for whatever reason.
    pub write_protected: bool,
    #[bits(7)]
    __: u8,
}

/// NSFEAT of the I/O Command Set Independent structure (Base §5.17.2.8).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct IndependentNsfeat {
    #[bits(3)]
    __: u8,
    /// UIDREUSE: NGUID and EUI64 are never reused.
    pub uidreuse: bool,
    /// RMEDIA: Rotational Media.
    pub rmedia: bool,
    #[bits(3)]
    __: u8,
}

/// NSTAT: Namespace Status (Base §5.17.2.8).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Nstat {
    /// NRDY: Namespace Ready.
    pub nrdy: bool,
    #[bits(7)]
    __: u8,
}

/// LBA Format, 4 bytes (NVM §4.1.5.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct LbaFormat {
    /// MS: Metadata Size in bytes.
    pub ms: u16,
    /// LBADS: LBA Data Size, as a power of two; 0 marks an unused format, otherwise at least 9.
    pub lbads: u8,
    /// RP: Relative Performance; 0 best to 3 degraded.
    #[bits(2)]
    pub rp: u8,
    #[bits(6)]
    __: u8,
}

impl LbaFormat {
    /// Bytes of a logical block; `None` for an unused format or a size that 64 bits cannot hold.
    pub const fn block_size(&self) -> Option<u64> {
        if self.lbads() == 0 { None } else { 1u64.checked_shl(self.lbads() as u32) }
    }
}

/// Extended LBA Format, 4 bytes (NVM §4.1.5.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ExtendedLbaFormat {
    /// STS: Storage Tag Size in bits.
    #[bits(7)]
    pub sts: u8,
    /// PIF: Protection Information Format; 0 16-bit, 1 32-bit, 2 64-bit guard.
    #[bits(2)]
    pub pif: u8,
    #[bits(23)]
    __: u32,
}
