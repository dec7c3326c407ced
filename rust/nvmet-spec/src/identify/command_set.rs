//! I/O Command Set specific structures: CNS 05h and 06h of the NVM Command Set (NVM §4.1.5.3 and §4.1.5.4), and the
//! Identify I/O Command Set structure, CNS 1Ch (Base §5.17.2.21).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{ExtendedLbaFormat, zero_by_default};

/// NVM Command Set Identify Namespace data structure, CNS 05h with CSI 00h, 4096 bytes (NVM §4.1.5.3).
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct NvmIdentifyNamespace {
    /// LBSTM: Logical Block Storage Tag Mask.
    pub lbstm: u64,
    /// PIC: Protection Information Capabilities.
    pub pic: u8,
    /// Reserved.
    pub reserved9: [u8; 3],
    /// ELBAF0 to ELBAF63: Extended LBA Formats.
    pub elbaf: [ExtendedLbaFormat; 64],
    /// Reserved.
    pub reserved268: [u8; 3828],
}

/// NVM Command Set Identify Controller data structure, CNS 06h with CSI 00h, 4096 bytes (NVM §4.1.5.4).
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct NvmIdentifyController {
    /// VSL: Verify Size Limit, as a power of two in units of CAP.MPSMIN; 0 is no limit.
    pub vsl: u8,
    /// WZSL: Write Zeroes Size Limit, as a power of two in units of CAP.MPSMIN; 0 is no limit.
    pub wzsl: u8,
    /// WUSL: Write Uncorrectable Size Limit, as a power of two in units of CAP.MPSMIN; 0 is no limit.
    pub wusl: u8,
    /// DMRL: Dataset Management Ranges Limit; 0 is no limit.
    pub dmrl: u8,
    /// DMRSL: Dataset Management Range Size Limit in logical blocks; 0 is no limit.
    pub dmrsl: u32,
    /// DMSL: Dataset Management Size Limit in logical blocks; 0 is no limit.
    pub dmsl: u64,
    /// Reserved.
    pub reserved16: [u8; 4080],
}

/// I/O Command Set Vector: one combination of command sets (Base §5.17.2.21).
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct IoCommandSetVector {
    /// NVM Command Set.
    pub nvm: bool,
    /// Key Value Command Set.
    pub key_value: bool,
    /// Zoned Namespace Command Set.
    pub zoned: bool,
    #[bits(61)]
    __: u64,
}

/// Identify I/O Command Set data structure, CNS 1Ch, 4096 bytes (Base §5.17.2.21).
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IdentifyIoCommandSets {
    /// I/O Command Set Combinations; zero after the last.
    pub combinations: [IoCommandSetVector; 512],
}

const _: () = {
    assert!(size_of::<NvmIdentifyNamespace>() == super::IDENTIFY_SIZE);
    assert!(size_of::<NvmIdentifyController>() == super::IDENTIFY_SIZE);
    assert!(size_of::<IdentifyIoCommandSets>() == super::IDENTIFY_SIZE);
};

zero_by_default!(NvmIdentifyNamespace NvmIdentifyController IdentifyIoCommandSets);
