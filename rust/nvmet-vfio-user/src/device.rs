//! The seam between the protocol and a device.
//!
//! Everything here is free of sockets and message layouts. The reactor calls a device from one thread only, never
//! concurrently, and never twice for one message. It checks what can be checked without knowing the device: indexes,
//! ranges, flag combinations, file descriptor counts.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::Errno;

/// A PCI device that can be served over vfio-user. It is built, lives and ends on the reactor's thread, so it need not
/// be [`Send`].
///
/// # Pending operations
///
/// [`region_write`](Self::region_write), [`dma_unmap`](Self::dma_unmap), [`reset`](Self::reset) and
/// [`detached`](Self::detached) may answer [`Outcome::Pending`]. At most one operation is pending at any time: the
/// connection handles no further message until [`poll`](Self::poll) answered [`Outcome::Done`], so order is kept, and
/// the reply leaves then. `poll` is called when the device's [`Waker`](crate::reactor::Waker) fired or its
/// [`deadline`](Self::deadline) passed; so a device that answers `Pending` must see to one of the two. Clients give
/// up after 5 s (QEMU), so a device should finish within 4 s.
///
/// If the client leaves while an operation is pending, `detached` is called and takes that operation's place.
///
/// # Panics
///
/// A panic in any of these calls is caught: it closes the connection and `detached` is called. A device that panics
/// in `detached` is served no more.
pub trait Device: Any {
    /// The number of regions and interrupt types, fixed for the life of the device.
    fn info(&self) -> DeviceInfo;

    /// Describes region `index`, which is below [`DeviceInfo::num_regions`]. Size 0 for an absent region.
    ///
    /// May change only in [`attached`](Self::attached) (which region parts can be mapped is a question of the client).
    fn region_info(&self, index: u32) -> RegionInfo;

    /// Describes interrupt type `index`, which is below [`DeviceInfo::num_irqs`]. Count 0 for an absent type.
    fn irq_info(&self, index: u32) -> IrqInfo;

    /// A client has negotiated its version; every other call about a client comes after this one.
    fn attached(&mut self, client: &ClientInfo);

    /// The client is gone: forget its memory and its eventfds, keep the state of the device.
    ///
    /// Called once for every `attached`. Until it is done no other client is served.
    fn detached(&mut self) -> Outcome;

    /// Reads `data.len()` bytes at `offset`, which lie inside the region. The buffer comes filled with 0xff.
    ///
    /// Infallible: what cannot be read reads as the hardware would answer.
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]);

    /// Writes `data` (never empty) at `offset`; the bytes lie inside the region. Read-only bytes are ignored.
    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Outcome;

    /// Makes a range of the client's memory known. `size` is not 0 and neither address nor file offset wraps.
    ///
    /// # Errors
    ///
    /// [`Errno::EXIST`] if it overlaps another map; any other errno as it comes. An error is reported to the client
    /// (QEMU prints it and goes on believing that the map exists), so a map without file descriptor must be accepted.
    fn dma_map(&mut self, map: DmaMap) -> Result<(), Errno>;

    /// Forgets a range. When the operation is done nothing may touch the range any more.
    ///
    /// # Errors
    ///
    /// [`Errno::NOENT`] if nothing of the range is mapped: what the client wants holds already, so a client that
    /// cannot understand an error is told success. Any other errno ([`Errno::INVAL`] if the range cuts a map) closes
    /// the connection of such a client.
    fn dma_unmap(&mut self, range: DmaUnmap) -> Result<Outcome, Errno>;

    /// Changes interrupts. The index exists, `start + count` is within its count.
    ///
    /// # Errors
    ///
    /// Any errno, [`Errno::INVAL`] for an action that the type does not know.
    fn set_irqs(&mut self, irqs: SetIrqs) -> Result<(), Errno>;

    /// DEVICE_RESET: as a conventional reset of the function. DMA maps and eventfds stay.
    fn reset(&mut self) -> Outcome;

    /// Makes progress. `Done` if nothing is pending (any more), `Pending` if the pending operation has not finished.
    ///
    /// Spurious calls happen.
    fn poll(&mut self, now: Instant) -> Outcome;

    /// When `poll` wants to be called at the latest. Asked after every call that could change it.
    fn deadline(&self) -> Option<Instant>;
}

/// How an operation that may take time has ended for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It is done.
    Done,
    /// It goes on; [`Device::poll`] will say when it is done.
    Pending,
}

/// Answer to DEVICE_GET_INFO. The PCI flag is always set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Number of regions, 8 to 10: QEMU needs 8, SPDK's initiator has room for 10. A PCI device has 9.
    pub num_regions: u32,
    /// Number of interrupt types, 3 to 50. A PCI device has 5.
    pub num_irqs: u32,
    /// Whether VFIO_DEVICE_FLAGS_RESET is set. DEVICE_RESET is served either way.
    pub resettable: bool,
}

/// What a client may do with a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionFlags {
    /// REGION_READ makes sense.
    pub read: bool,
    /// REGION_WRITE makes sense.
    pub write: bool,
}

/// Answer to DEVICE_GET_REGION_INFO.
#[derive(Clone, Debug, Default)]
pub struct RegionInfo {
    /// Size in bytes, 0 if the region is absent.
    pub size: u64,
    /// Allowed accesses by message.
    pub flags: RegionFlags,
    /// The part that the client may map, if any.
    pub mmap: Option<RegionMmap>,
}

/// The one part of a region that a client may map: SPDK's initiator takes area *i* from file descriptor *i*, and the
/// protocol has one file descriptor a region, so there is never more than one.
#[derive(Clone, Debug)]
pub struct RegionMmap {
    /// The file. A client can map all of it, so it must hold nothing else, and should be sealed against resizing.
    pub fd: Arc<OwnedFd>,
    /// Where byte 0 of the region lies in the file.
    pub file_offset: u64,
    /// Offset of the part in the region, page aligned.
    pub offset: u64,
    /// Size of the part in bytes, page aligned, not 0.
    pub size: u64,
}

/// Flags of an interrupt type, VFIO_IRQ_INFO_*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IrqFlags {
    /// Can be signalled by eventfd.
    pub eventfd: bool,
    /// MASK and UNMASK actions are supported.
    pub maskable: bool,
    /// Masks itself when it fires.
    pub automasked: bool,
    /// The number of enabled vectors cannot change while enabled. QEMU wants this clear for MSI-X.
    pub noresize: bool,
}

/// Answer to DEVICE_GET_IRQ_INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IrqInfo {
    /// Number of vectors, 0 if the type is absent.
    pub count: u32,
    /// What can be done with them.
    pub flags: IrqFlags,
}

/// What is known of a client once VERSION was negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Whether VERSION carried JSON. Without it the client is SPDK's initiator or one like it, which needs its
    /// doorbells mapped.
    pub json: bool,
    /// Whether the client is known to understand error replies: it announced a capability that only such clients do
    /// (QEMU, libvfio-user). Cloud Hypervisor is not: an error reply can block it for ever.
    pub reads_errors: bool,
    /// The minor version that the client proposed.
    pub minor: u16,
    /// File descriptors that the client takes in one message.
    pub max_msg_fds: u32,
    /// Bytes of data that the client takes in one message.
    pub max_data_xfer_size: u32,
}

/// DMA_MAP.
#[derive(Debug)]
pub struct DmaMap {
    /// First I/O virtual address.
    pub addr: u64,
    /// Bytes, not 0; `addr + size - 1` does not wrap.
    pub size: u64,
    /// Offset of the range in the file; not necessarily aligned to the page size of a hugetlbfs file.
    pub offset: u64,
    /// The device may read the memory.
    pub readable: bool,
    /// The device may write the memory.
    pub writable: bool,
    /// The memory. None: reachable only by messages, which this server does not send, so not reachable.
    pub fd: Option<OwnedFd>,
}

/// DMA_UNMAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaUnmap {
    /// One range, which must be exactly one that was mapped.
    Range {
        /// First I/O virtual address.
        addr: u64,
        /// Bytes.
        size: u64,
    },
    /// Everything.
    All,
}

/// What SET_IRQS does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqAction {
    /// Mask the vectors.
    Mask,
    /// Unmask the vectors.
    Unmask,
    /// With eventfds: assign them. Without: fire the vectors now.
    Trigger,
}

/// What SET_IRQS acts with.
#[derive(Debug)]
pub enum IrqData {
    /// Acts on all vectors of the range. With [`IrqAction::Trigger`] and count 0: disable the whole type.
    None,
    /// Acts on the vectors whose entry is true; one entry a vector.
    Bool(Vec<bool>),
    /// One eventfd a vector, or none at all: take the assigned ones away. The file descriptors come from the
    /// client: they may be any kind of file, also one whose write blocks.
    Eventfd(Vec<OwnedFd>),
}

/// SET_IRQS.
#[derive(Debug)]
pub struct SetIrqs {
    /// Interrupt type, VFIO_PCI_*_IRQ_INDEX.
    pub index: u32,
    /// First vector.
    pub start: u32,
    /// Number of vectors; 0 is legal only with [`IrqData::None`].
    pub count: u32,
    /// What to do.
    pub action: IrqAction,
    /// With what.
    pub data: IrqData,
}
