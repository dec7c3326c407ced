//! Guest memory, the shared doorbell page and the io_uring ring: all unsafe code of nvmet-vdev.
//!
//! Every other crate of the workspace forbids `unsafe`, so what is public here is sound whatever a safe caller
//! does with it, and whatever the guest, its VMM or a peer that shares memory with us does meanwhile.
//! `SAFETY.md` beside this crate's manifest holds the argument as a whole; each block has its own reason.
//!
//! What it may know: mappings, bytes, file descriptors. What it must not: NVMe, vfio-user, queues, commands.

pub mod aligned;
pub mod arena;
pub mod doorbell;
pub mod error;
pub mod eventfd;
pub mod file_io;
pub mod file_map;
pub mod host_memory;
pub mod inherited;
pub mod loopback;
mod mapping;
pub mod memory;
pub mod ofd;
mod raw;
pub mod ring;
pub mod sigbus;
mod transfer;

pub use aligned::AlignedBuf;
pub use arena::Arena;
pub use doorbell::DoorbellPage;
pub use error::DmaError;
pub use eventfd::EventFd;
pub use file_map::FileMap;
pub use host_memory::{MappedArea, SharedMemory};
pub use loopback::LoopbackMemory;
pub use memory::{
    Access, Direction, DmaHandle, DmaReader, DmaSpace, Retired, SegmentBuf, SegmentBuilder, Segments,
    Snapshot, Window,
};
