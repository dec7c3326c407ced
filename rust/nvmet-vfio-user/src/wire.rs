//! Structures and constants as they lie on the socket.
//!
//! Everything is in host byte order: both ends run on one machine. Structures begin after the 16-byte [`Header`]
//! unless they are the header. Flags that the protocol shares with the kernel's VFIO come from `vfio-bindings`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_IRQ_INFO_AUTOMASKED, VFIO_IRQ_INFO_EVENTFD,
    VFIO_IRQ_INFO_MASKABLE, VFIO_IRQ_INFO_NORESIZE, VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_ACTION_UNMASK, VFIO_IRQ_SET_DATA_BOOL, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE,
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_ERR_IRQ_INDEX,
    VFIO_PCI_INTX_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS,
    VFIO_REGION_INFO_CAP_SPARSE_MMAP, VFIO_REGION_INFO_FLAG_CAPS, VFIO_REGION_INFO_FLAG_MMAP,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE,
};

/// Size of [`Header`] in bytes.
pub const HEADER_SIZE: usize = size_of::<Header>();

/// The major version that is spoken.
pub const VERSION_MAJOR: u16 = 0;
/// The highest minor version that is spoken.
pub const VERSION_MINOR: u16 = 1;

/// Bytes of data in one message when the peer does not say (`max_data_xfer_size`), and what this server announces.
pub const DEFAULT_MAX_DATA_XFER_SIZE: u32 = 1 << 20;
/// File descriptors in one message when the peer does not say (`max_msg_fds`).
pub const DEFAULT_MAX_MSG_FDS: u32 = 1;
/// File descriptors in one message that this server announces: QEMU refuses more than 16.
pub const SERVER_MAX_MSG_FDS: u32 = 16;
/// File descriptors in one message that are accepted: Cloud Hypervisor does not ask what may be sent.
pub const ACCEPTED_MSG_FDS: usize = 32;
/// Bytes of JSON that are accepted in VERSION.
pub const MAX_VERSION_DATA: usize = 4096;
/// The largest message that is accepted: the data of a region access and its two headers.
pub const MAX_MESSAGE_SIZE: u32 =
    DEFAULT_MAX_DATA_XFER_SIZE + (HEADER_SIZE + size_of::<RegionAccess>()) as u32;

/// Command numbers.
pub mod command {
    /// Negotiates the version; must come first.
    pub const VERSION: u16 = 1;
    /// Makes client memory known.
    pub const DMA_MAP: u16 = 2;
    /// Forgets client memory.
    pub const DMA_UNMAP: u16 = 3;
    /// Asks about the device.
    pub const DEVICE_GET_INFO: u16 = 4;
    /// Asks about a region.
    pub const DEVICE_GET_REGION_INFO: u16 = 5;
    /// Asks for ioeventfds of a region.
    pub const DEVICE_GET_REGION_IO_FDS: u16 = 6;
    /// Asks about an interrupt type.
    pub const DEVICE_GET_IRQ_INFO: u16 = 7;
    /// Sets up or fires interrupts.
    pub const DEVICE_SET_IRQS: u16 = 8;
    /// Reads a region.
    pub const REGION_READ: u16 = 9;
    /// Writes a region.
    pub const REGION_WRITE: u16 = 10;
    /// Reads client memory (server to client).
    pub const DMA_READ: u16 = 11;
    /// Writes client memory (server to client).
    pub const DMA_WRITE: u16 = 12;
    /// Resets the device.
    pub const DEVICE_RESET: u16 = 13;
    /// Several small region writes in one message.
    pub const REGION_WRITE_MULTI: u16 = 15;
}

/// Bits of [`Header::flags`].
pub mod flags {
    /// Mask of the message type.
    pub const TYPE_MASK: u32 = 0xf;
    /// Type: a command.
    pub const TYPE_COMMAND: u32 = 0;
    /// Type: a reply.
    pub const TYPE_REPLY: u32 = 1;
    /// The sender of a command wants no reply.
    pub const NO_REPLY: u32 = 1 << 4;
    /// A reply reports an error, see [`Header::errno`](super::Header::errno).
    pub const ERROR: u32 = 1 << 5;
}

/// Bits of [`DmaMap::flags`].
pub mod dma_map_flags {
    /// The device may read.
    pub const READ: u32 = 1 << 0;
    /// The device may write.
    pub const WRITE: u32 = 1 << 1;
    /// The memory can be mapped (newer clients).
    pub const MMAP: u32 = 1 << 2;
    /// The memory can be reached by file I/O (newer clients).
    pub const FILE_IO: u32 = 1 << 3;
}

/// Bits of [`DmaUnmap::flags`].
pub mod dma_unmap_flags {
    /// A dirty bitmap is wanted.
    pub const GET_DIRTY_BITMAP: u32 = 1 << 0;
    /// Unmap everything; address and size are 0.
    pub const ALL: u32 = 1 << 1;
}

/// What every message begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Chosen by the sender of the command, echoed in the reply. Not necessarily unique.
    pub id: u16,
    /// See [`command`].
    pub command: u16,
    /// Bytes of the whole message, this header included.
    pub size: u32,
    /// See [`flags`].
    pub flags: u32,
    /// Error number of an error reply.
    pub errno: u32,
}

impl Header {
    /// Whether the sender wants no reply, not even an error.
    pub fn no_reply(&self) -> bool {
        self.flags & flags::NO_REPLY != 0
    }

    /// The message type.
    pub fn message_type(&self) -> u32 {
        self.flags & flags::TYPE_MASK
    }
}

/// Fixed part of VERSION, in both directions; JSON ending in NUL may follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Version {
    /// Must be equal on both sides.
    pub major: u16,
    /// Proposed by the client, lowered by the server.
    pub minor: u16,
}

/// DMA_MAP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaMap {
    /// Bytes of this structure.
    pub argsz: u32,
    /// See [`dma_map_flags`].
    pub flags: u32,
    /// Offset in the file.
    pub offset: u64,
    /// First I/O virtual address.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
}

/// DMA_UNMAP, echoed in the reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaUnmap {
    /// Room for the reply.
    pub argsz: u32,
    /// See [`dma_unmap_flags`].
    pub flags: u32,
    /// First I/O virtual address.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
}

/// DEVICE_GET_INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeviceInfo {
    /// Request: room for the reply. Reply: bytes of this structure.
    pub argsz: u32,
    /// VFIO_DEVICE_FLAGS_*.
    pub flags: u32,
    /// Number of regions.
    pub num_regions: u32,
    /// Number of interrupt types.
    pub num_irqs: u32,
}

/// DEVICE_GET_REGION_INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionInfo {
    /// Request: room for the reply. Reply: bytes that the whole answer needs.
    pub argsz: u32,
    /// VFIO_REGION_INFO_FLAG_*.
    pub flags: u32,
    /// Which region.
    pub index: u32,
    /// Offset of the first capability from the start of this structure, 0 if there is none.
    pub cap_offset: u32,
    /// Bytes, 0 if the region is absent.
    pub size: u64,
    /// Offset of the region in the file that comes with the reply.
    pub offset: u64,
}

/// The sparse mmap capability of a region with exactly one area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SparseMmap {
    /// Head of the capability.
    pub cap: CapHeader,
    /// Number of areas, and four reserved bytes.
    pub nr_areas: [u32; 2],
    /// The area.
    pub area: SparseArea,
}

/// What every capability of a region begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CapHeader {
    /// VFIO_REGION_INFO_CAP_*.
    pub id: u16,
    /// Version of this capability.
    pub version: u16,
    /// Offset of the next capability from the start of [`RegionInfo`], 0 at the end.
    pub next: u32,
}

/// A part of a region that can be mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SparseArea {
    /// Offset in the region.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// DEVICE_GET_REGION_IO_FDS without entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionIoFds {
    /// Request: room for the reply. Reply: bytes that the whole answer needs.
    pub argsz: u32,
    /// Zero.
    pub flags: u32,
    /// Which region.
    pub index: u32,
    /// Number of entries that follow.
    pub count: u32,
}

/// DEVICE_GET_IRQ_INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IrqInfo {
    /// Request: room for the reply. Reply: bytes of this structure.
    pub argsz: u32,
    /// VFIO_IRQ_INFO_*.
    pub flags: u32,
    /// Which interrupt type.
    pub index: u32,
    /// Number of vectors.
    pub count: u32,
}

/// Fixed part of DEVICE_SET_IRQS; with DATA_BOOL `count` bytes follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IrqSet {
    /// Bytes of this structure and of what follows.
    pub argsz: u32,
    /// VFIO_IRQ_SET_*.
    pub flags: u32,
    /// Which interrupt type.
    pub index: u32,
    /// First vector.
    pub start: u32,
    /// Number of vectors.
    pub count: u32,
}

/// Fixed part of REGION_READ and REGION_WRITE, in both directions; data may follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionAccess {
    /// Offset in the region.
    pub offset: u64,
    /// Which region.
    pub region: u32,
    /// Bytes of data.
    pub count: u32,
}

/// One entry of REGION_WRITE_MULTI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MultiWrite {
    /// Where, and how many bytes of `data`.
    pub access: RegionAccess,
    /// At most 8 bytes.
    pub data: [u8; 8],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_size_that_the_protocol_says() {
        assert_eq!(size_of::<Header>(), 16);
        assert_eq!(size_of::<Version>(), 4);
        assert_eq!(size_of::<DmaMap>(), 32);
        assert_eq!(size_of::<DmaUnmap>(), 24);
        assert_eq!(size_of::<DeviceInfo>(), 16);
        assert_eq!(size_of::<RegionInfo>(), 32);
        assert_eq!(size_of::<SparseMmap>(), 32);
        assert_eq!(size_of::<RegionIoFds>(), 16);
        assert_eq!(size_of::<IrqInfo>(), 16);
        assert_eq!(size_of::<IrqSet>(), 20);
        assert_eq!(size_of::<RegionAccess>(), 16);
        assert_eq!(size_of::<MultiWrite>(), 24);
    }
}
