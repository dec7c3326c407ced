//! Command dwords of the I/O commands of the NVM Command Set (NVM §3.2).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// PRINFO: Protection Information (NVM §3.2).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct PrInfo {
    /// PRCHK: check the reference tag.
    pub check_reference_tag: bool,
    /// PRCHK: check the application tag.
    pub check_application_tag: bool,
    /// PRCHK: check the guard.
    pub check_guard: bool,
    /// PRACT: Protection Information Action; insert or strip.
    pub pract: bool,
    #[bits(4)]
    __: u8,
}

/// CDW12 of Read, Write, Compare, Verify and Write Zeroes (NVM §3.2).
///
/// DTYPE is defined for Write, DEAC for Write Zeroes; elsewhere these bits are reserved.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RwCdw12 {
    /// NLB: Number of Logical Blocks, 0's based.
    pub nlb_z: u16,
    /// CETYPE: Command Extension Type (NVM 1.1), reserved before.
    #[bits(4)]
    pub cetype: u8,
    /// DTYPE: Directive Type.
    #[bits(4)]
    pub dtype: u8,
    /// STC: Storage Tag Check.
    pub stc: bool,
    /// DEAC: Deallocate.
    pub deac: bool,
    /// PRINFO: Protection Information.
    #[bits(4)]
    pub prinfo: PrInfo,
    /// FUA: Force Unit Access.
    pub fua: bool,
    /// LR: Limited Retry.
    pub lr: bool,
}

impl RwCdw12 {
    /// Number of logical blocks, 1-based: 1 to 65536.
    pub const fn nlb(&self) -> u32 {
        self.nlb_z() as u32 + 1
    }
}

/// CDW13 of Read and Write: Dataset Management hints and the directive (NVM §3.2.4 and §3.2.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RwCdw13 {
    /// DSM.AF: Access Frequency.
    #[bits(4)]
    pub access_frequency: u8,
    /// DSM.AL: Access Latency.
    #[bits(2)]
    pub access_latency: u8,
    /// DSM: Sequential Request.
    pub sequential: bool,
    /// DSM: Incompressible.
    pub incompressible: bool,
    __: u8,
    /// DSPEC: Directive Specific (Write).
    pub dspec: u16,
}

/// CDW15 of the commands that check protection information (NVM §3.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RwCdw15 {
    /// ELBAT: Expected Logical Block Application Tag (LBAT for writes).
    pub elbat: u16,
    /// ELBATM: Expected Logical Block Application Tag Mask (LBATM for writes).
    pub elbatm: u16,
}

/// CDW10 of Dataset Management (NVM §3.2.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DsmCdw10 {
    /// NR: Number of Ranges, 0's based.
    pub nr_z: u8,
    #[bits(24)]
    __: u32,
}

impl DsmCdw10 {
    /// Number of ranges, 1-based: 1 to 256.
    pub const fn nr(&self) -> u32 {
        self.nr_z() as u32 + 1
    }
}

/// CDW11 of Dataset Management (NVM §3.2.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DsmCdw11 {
    /// IDR: Integral Dataset for Read.
    pub idr: bool,
    /// IDW: Integral Dataset for Write.
    pub idw: bool,
    /// AD: Attribute - Deallocate.
    pub ad: bool,
    #[bits(29)]
    __: u32,
}

/// Most ranges that one Dataset Management command can carry (NVM §3.2.3).
pub const DSM_MAX_RANGES: usize = 256;

/// One Dataset Management range, 16 bytes (NVM §3.2.3). The length is not 0's based.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DsmRange {
    /// Context Attributes.
    pub cattr: u32,
    /// Length in logical blocks; 0 is a range of none.
    pub nlb: u32,
    /// SLBA: Starting LBA.
    pub slba: u64,
}

const _: () = assert!(size_of::<DsmRange>() == 16);
