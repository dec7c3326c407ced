//! Submission and completion queue entries (Base §3.3.3), opcodes, and the command dwords of each command.
//!
//! Knows layouts. It does not check a command: whether a field is legal for this controller is decided where the
//! command is carried out.

mod admin;
mod io;
mod opcode;

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

pub use self::admin::*;
pub use self::io::*;
pub use self::opcode::*;
use crate::sgl::SglDescriptor;
use crate::status::Status;

/// NSID that stands for all namespaces (Base §3.2.1.2).
pub const NSID_ALL: u32 = 0xffff_ffff;
/// Command Identifier that Error Information uses where no command is meant; hosts should not use it (Base §3.3.3.1).
pub const CID_NONE: u16 = 0xffff;

/// Fused Operation (Base §3.3.3.1, Command Dword 0 bits 9:8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fuse {
    /// 00b: normal operation.
    Normal,
    /// 01b: fused operation, first command.
    First,
    /// 10b: fused operation, second command.
    Second,
    /// 11b: reserved.
    Reserved,
}

impl Fuse {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Normal,
            1 => Self::First,
            2 => Self::Second,
            _ => Self::Reserved,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// PRP or SGL for Data Transfer (Base §3.3.3.1, Command Dword 0 bits 15:14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Psdt {
    /// 00b: PRPs.
    Prp,
    /// 01b: SGLs, MPTR is the address of a contiguous metadata buffer.
    SglMetadataBuffer,
    /// 10b: SGLs, MPTR is the address of an SGL segment with one descriptor.
    SglMetadataSgl,
    /// 11b: reserved.
    Reserved,
}

impl Psdt {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Prp,
            1 => Self::SglMetadataBuffer,
            2 => Self::SglMetadataSgl,
            _ => Self::Reserved,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// CDW0: Command Dword 0 (Base §3.3.3.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Cdw0 {
    /// OPC: Opcode; see [`AdminOpcode`] and [`NvmOpcode`].
    pub opc: u8,
    /// FUSE: Fused Operation.
    #[bits(2)]
    pub fuse: Fuse,
    #[bits(4)]
    __: u8,
    /// PSDT: PRP or SGL for Data Transfer.
    #[bits(2)]
    pub psdt: Psdt,
    /// CID: Command Identifier.
    pub cid: u16,
}

/// A submission queue entry in the Common Command Format, 64 bytes (Base §3.3.3.1).
///
/// DPTR is held as PRP1 and PRP2; [`Sqe::sgl1`] reads the same bytes as an SGL descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Sqe {
    /// CDW0: Command Dword 0.
    pub cdw0: Cdw0,
    /// NSID: Namespace Identifier.
    pub nsid: u32,
    /// CDW2: Command Dword 2, command specific.
    pub cdw2: u32,
    /// CDW3: Command Dword 3, command specific.
    pub cdw3: u32,
    /// MPTR: Metadata Pointer.
    pub mptr: u64,
    /// DPTR.PRP1: PRP Entry 1.
    pub prp1: u64,
    /// DPTR.PRP2: PRP Entry 2, or the address of a PRP List.
    pub prp2: u64,
    /// CDW10: Command Dword 10, command specific.
    pub cdw10: u32,
    /// CDW11: Command Dword 11, command specific.
    pub cdw11: u32,
    /// CDW12: Command Dword 12, command specific.
    pub cdw12: u32,
    /// CDW13: Command Dword 13, command specific.
    pub cdw13: u32,
    /// CDW14: Command Dword 14, command specific.
    pub cdw14: u32,
    /// CDW15: Command Dword 15, command specific.
    pub cdw15: u32,
}

const _: () = assert!(size_of::<Sqe>() == Sqe::SIZE);

impl Sqe {
    /// Bytes of an entry in an Admin queue and in an I/O queue of the NVM Command Set.
    pub const SIZE: usize = 64;
    /// The size as CC.IOSQES and Identify Controller SQES express it: a power of two.
    pub const SIZE_LOG2: u8 = 6;

    /// A command with `opcode`, `cid` and `nsid`, everything else zero (PRPs, not fused).
    pub fn new(opcode: impl Into<u8>, cid: u16, nsid: u32) -> Self {
        Self { cdw0: Cdw0::new().with_opc(opcode.into()).with_cid(cid), nsid, ..Self::new_zeroed() }
    }

    /// OPC: Opcode.
    pub const fn opcode(&self) -> u8 {
        self.cdw0.opc()
    }

    /// CID: Command Identifier.
    pub const fn cid(&self) -> u16 {
        self.cdw0.cid()
    }

    /// FUSE: Fused Operation.
    pub const fn fuse(&self) -> Fuse {
        self.cdw0.fuse()
    }

    /// PSDT: PRP or SGL for Data Transfer.
    pub const fn psdt(&self) -> Psdt {
        self.cdw0.psdt()
    }

    /// DPTR.SGL1: the first SGL descriptor.
    pub fn sgl1(&self) -> SglDescriptor {
        zerocopy::transmute!([self.prp1, self.prp2])
    }

    /// Stores `sgl` as DPTR.SGL1.
    pub fn set_sgl1(&mut self, sgl: SglDescriptor) {
        [self.prp1, self.prp2] = zerocopy::transmute!(sgl);
    }

    /// CDW10 and CDW11 as one 64-bit number: the SLBA of the commands that have one (NVM §3.2).
    pub const fn slba(&self) -> u64 {
        self.cdw10 as u64 | (self.cdw11 as u64) << 32
    }

    /// Stores `slba` in CDW10 and CDW11.
    pub const fn set_slba(&mut self, slba: u64) {
        self.cdw10 = slba as u32;
        self.cdw11 = (slba >> 32) as u32;
    }
}

/// Phase Tag and Status of a completion queue entry (Base §3.3.3.2, Dword 3 bits 31:16).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct CqeStatus {
    /// P: Phase Tag.
    pub phase: bool,
    /// Status.
    #[bits(15)]
    pub status: Status,
}

/// A completion queue entry, 16 bytes (Base §3.3.3.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Cqe {
    /// DW0: Dword 0, command specific.
    pub dw0: u32,
    /// DW1: Dword 1, command specific.
    pub dw1: u32,
    /// SQHD: SQ Head Pointer.
    pub sqhd: u16,
    /// SQID: SQ Identifier.
    pub sqid: u16,
    /// CID: Command Identifier.
    pub cid: u16,
    /// Phase Tag and Status: the last bytes to be written.
    pub status: CqeStatus,
}

const _: () = assert!(size_of::<Cqe>() == Cqe::SIZE);

impl Cqe {
    /// Bytes of an entry.
    pub const SIZE: usize = 16;
    /// The size as CC.IOCQES and Identify Controller CQES express it: a power of two.
    pub const SIZE_LOG2: u8 = 4;

    /// Status of the command.
    pub const fn status(&self) -> Status {
        self.status.status()
    }

    /// P: Phase Tag.
    pub const fn phase(&self) -> bool {
        self.status.phase()
    }
}

#[cfg(test)]
mod tests;
