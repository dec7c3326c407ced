//! Scatter Gather List descriptors (Base §4.1.2).
//!
//! Knows one descriptor. How descriptors chain into segments, and what may follow what, is the walker's business.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// SGL Descriptor Type (Base §4.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SglType {
    /// 0h: SGL Data Block descriptor.
    DataBlock,
    /// 1h: SGL Bit Bucket descriptor.
    BitBucket,
    /// 2h: SGL Segment descriptor.
    Segment,
    /// 3h: SGL Last Segment descriptor.
    LastSegment,
    /// 4h: Keyed SGL Data Block descriptor.
    KeyedDataBlock,
    /// 5h: Transport SGL Data Block descriptor.
    TransportDataBlock,
    /// Fh: vendor specific.
    VendorSpecific,
    /// Any other value, reserved.
    Reserved(u8),
}

impl SglType {
    /// From the four bits on the wire; higher bits are ignored.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0xf {
            0x0 => Self::DataBlock,
            0x1 => Self::BitBucket,
            0x2 => Self::Segment,
            0x3 => Self::LastSegment,
            0x4 => Self::KeyedDataBlock,
            0x5 => Self::TransportDataBlock,
            0xf => Self::VendorSpecific,
            other => Self::Reserved(other),
        }
    }

    /// The four bits on the wire.
    pub const fn into_bits(self) -> u8 {
        match self {
            Self::DataBlock => 0x0,
            Self::BitBucket => 0x1,
            Self::Segment => 0x2,
            Self::LastSegment => 0x3,
            Self::KeyedDataBlock => 0x4,
            Self::TransportDataBlock => 0x5,
            Self::VendorSpecific => 0xf,
            Self::Reserved(bits) => bits & 0xf,
        }
    }
}

/// SGL Descriptor Sub Type: the Address field is a memory address (Base §4.1.2).
pub const SUBTYPE_ADDRESS: u8 = 0x0;
/// SGL Descriptor Sub Type: the Address field is an offset (fabrics capsules and CMB, Base §4.1.2).
pub const SUBTYPE_OFFSET: u8 = 0x1;

/// One SGL descriptor, in the form shared by Data Block, Bit Bucket, Segment and Last Segment (Base §4.1.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SglDescriptor {
    /// Address of the data or of the next segment; reserved in a Bit Bucket.
    pub address: u64,
    /// Length of the data, of the bytes to discard, or of the next segment, in bytes.
    pub length: u32,
    /// Reserved.
    pub reserved: [u8; 3],
    /// SGL Identifier: type in bits 7:4, sub type in bits 3:0.
    pub identifier: u8,
}

const _: () = assert!(size_of::<SglDescriptor>() == 16);

impl SglDescriptor {
    /// A descriptor of type `kind` with the Address sub type.
    pub const fn new(kind: SglType, address: u64, length: u32) -> Self {
        Self { address, length, reserved: [0; 3], identifier: (kind.into_bits() << 4) | SUBTYPE_ADDRESS }
    }

    /// Descriptor type.
    pub const fn kind(&self) -> SglType {
        SglType::from_bits(self.identifier >> 4)
    }

    /// Descriptor sub type (0 to 15): [`SUBTYPE_ADDRESS`], [`SUBTYPE_OFFSET`].
    pub const fn subtype(&self) -> u8 {
        self.identifier & 0xf
    }
}

#[cfg(test)]
mod tests;
