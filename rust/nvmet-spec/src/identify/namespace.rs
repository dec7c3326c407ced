//! Identify Namespace data structures: CNS 00h (NVM §4.1.5.1) and CNS 08h (Base §5.17.2.8).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    Dlfeat, Dpc, Dps, Flbas, Fpi, IndependentNsfeat, LbaFormat, Mc, Nmic, Nsattr, Nsfeat, Nstat, Rescap,
    zero_by_default,
};

/// Identify Namespace data structure of the NVM Command Set, CNS 00h, 4096 bytes (NVM §4.1.5.1).
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// NSZE: Namespace Size in logical blocks.
    pub nsze: u64,
    /// NCAP: Namespace Capacity in logical blocks.
    pub ncap: u64,
    /// NUSE: Namespace Utilization in logical blocks.
    pub nuse: u64,
    /// NSFEAT: Namespace Features.
    pub nsfeat: Nsfeat,
    /// NLBAF: Number of LBA Formats, 0's based.
    pub nlbaf_z: u8,
    /// FLBAS: Formatted LBA Size.
    pub flbas: Flbas,
    /// MC: Metadata Capabilities.
    pub mc: Mc,
    /// DPC: End-to-end Data Protection Capabilities.
    pub dpc: Dpc,
    /// DPS: End-to-end Data Protection Type Settings.
    pub dps: Dps,
    /// NMIC: Multi-path I/O and Namespace Sharing Capabilities.
    pub nmic: Nmic,
    /// RESCAP: Reservation Capabilities.
    pub rescap: Rescap,
    /// FPI: Format Progress Indicator.
    pub fpi: Fpi,
    /// DLFEAT: Deallocate Logical Block Features.
    pub dlfeat: Dlfeat,
    /// NAWUN: Namespace Atomic Write Unit Normal in logical blocks, 0's based.
    pub nawun_z: u16,
    /// NAWUPF: Namespace Atomic Write Unit Power Fail in logical blocks, 0's based.
    pub nawupf_z: u16,
    /// NACWU: Namespace Atomic Compare & Write Unit in logical blocks, 0's based.
    pub nacwu_z: u16,
    /// NABSN: Namespace Atomic Boundary Size Normal in logical blocks, 0's based; 0 is no boundary.
    pub nabsn_z: u16,
    /// NABO: Namespace Atomic Boundary Offset, an LBA.
    pub nabo: u16,
    /// NABSPF: Namespace Atomic Boundary Size Power Fail in logical blocks, 0's based; 0 is no boundary.
    pub nabspf_z: u16,
    /// NOIOB: Namespace Optimal I/O Boundary in logical blocks; 0 is none reported.
    pub noiob: u16,
    /// NVMCAP: NVM Capacity in bytes.
    pub nvmcap: [u8; 16],
    /// NPWG: Namespace Preferred Write Granularity in logical blocks, 0's based.
    pub npwg_z: u16,
    /// NPWA: Namespace Preferred Write Alignment in logical blocks, 0's based.
    pub npwa_z: u16,
    /// NPDG: Namespace Preferred Deallocate Granularity in logical blocks, 0's based.
    pub npdg_z: u16,
    /// NPDA: Namespace Preferred Deallocate Alignment in logical blocks, 0's based.
    pub npda_z: u16,
    /// NOWS: Namespace Optimal Write Size in logical blocks, 0's based.
    pub nows_z: u16,
    /// MSSRL: Maximum Single Source Range Length (Copy) in logical blocks.
    pub mssrl: u16,
    /// MCL: Maximum Copy Length in logical blocks.
    pub mcl: u32,
    /// MSRC: Maximum Source Range Count (Copy), 0's based.
    pub msrc_z: u8,
    /// Reserved.
    pub reserved81: u8,
    /// NULBAF: Number of Unique Attribute LBA Formats (NVM 1.0 with TP 4109).
    pub nulbaf: u8,
    /// Reserved.
    pub reserved83: [u8; 9],
    /// ANAGRPID: ANA Group Identifier; 0 is none.
    pub anagrpid: u32,
    /// Reserved.
    pub reserved96: [u8; 3],
    /// NSATTR: Namespace Attributes.
    pub nsattr: Nsattr,
    /// NVMSETID: NVM Set Identifier.
    pub nvmsetid: u16,
    /// ENDGID: Endurance Group Identifier.
    pub endgid: u16,
    /// NGUID: Namespace Globally Unique Identifier, big-endian; zero is none.
    pub nguid: [u8; 16],
    /// EUI64: IEEE Extended Unique Identifier, big-endian; zero is none.
    pub eui64: [u8; 8],
    /// LBAF0 to LBAF63: LBA Formats.
    pub lbaf: [LbaFormat; 64],
    /// Vendor specific.
    pub vendor_specific: [u8; 3712],
}

impl IdentifyNamespace {
    /// The LBA format in use; `None` when FLBAS names one that NLBAF does not count.
    pub fn format(&self) -> Option<LbaFormat> {
        let index = self.flbas.index();
        let counted = u16::from(self.nlbaf_z) + 1 + u16::from(self.nulbaf);
        if u16::from(index) < counted { self.lbaf.get(usize::from(index)).copied() } else { None }
    }
}

/// I/O Command Set Independent Identify Namespace data structure, CNS 08h, 4096 bytes (Base §5.17.2.8).
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IdentifyIndependentNamespace {
    /// NSFEAT: Common Namespace Features.
    pub nsfeat: IndependentNsfeat,
    /// NMIC: Multi-path I/O and Namespace Sharing Capabilities.
    pub nmic: Nmic,
    /// RESCAP: Reservation Capabilities.
    pub rescap: Rescap,
    /// FPI: Format Progress Indicator.
    pub fpi: Fpi,
    /// ANAGRPID: ANA Group Identifier; 0 is none.
    pub anagrpid: u32,
    /// NSATTR: Namespace Attributes.
    pub nsattr: Nsattr,
    /// Reserved.
    pub reserved9: u8,
    /// NVMSETID: NVM Set Identifier.
    pub nvmsetid: u16,
    /// ENDGID: Endurance Group Identifier.
    pub endgid: u16,
    /// NSTAT: Namespace Status.
    pub nstat: Nstat,
    /// Reserved.
    pub reserved15: [u8; 4081],
}

const _: () = {
    assert!(size_of::<IdentifyNamespace>() == super::IDENTIFY_SIZE);
    assert!(size_of::<IdentifyIndependentNamespace>() == super::IDENTIFY_SIZE);
};

zero_by_default!(IdentifyNamespace IdentifyIndependentNamespace);
