//! A vfio-user server and client: wire format, framing, connections, reactor.
//!
//! vfio-user puts a PCI device behind a Unix socket: the client (QEMU, Cloud Hypervisor, SPDK) asks for regions,
//! interrupts and DMA in messages that mirror the kernel's VFIO ioctls. This crate speaks that protocol and knows
//! nothing of NVMe: what a region or an interrupt *is* stays behind the [`Device`] trait.
//!
//! | module | what it says | what it may know |
//! | --- | --- | --- |
//! | [`wire`] | structures and constants as they lie on the socket | bytes |
//! | [`caps`] | the JSON of VERSION | bytes, text |
//! | [`decode`], [`encode`] | message → typed request, answer → message; pure and total | [`wire`] |
//! | [`framing`] | where a message begins and ends, free of I/O | [`wire`], [`decode`] |
//! | `session`, `connection` | what one client may do; its socket, its one message, its one reply | all but the reactor |
//! | [`device`] | the seam that a device implements | nothing of sockets |
//! | [`listener`] | a socket file: bind, stale files, mode, removal | the file system |
//! | [`reactor`] | one thread that serves many devices | all of the above |
//! | [`client`] | a client with timeouts, for hosts and tests | [`wire`], [`caps`] |
//!
//! What is left out: server-to-client DMA messages (DMA_READ, DMA_WRITE), migration, the twin socket, and
//! REGION_WRITE_MULTI is understood but not advertised (see [`decode`]).

#![forbid(unsafe_code)]

pub mod caps;
pub mod client;
mod connection;
pub mod decode;
pub mod device;
pub mod encode;
pub mod framing;
pub mod listener;
pub mod reactor;
mod session;
mod socket;
pub mod wire;

pub use device::{
    ClientInfo, Device, DeviceInfo, DmaMap, DmaUnmap, IrqAction, IrqData, IrqFlags, IrqInfo, Outcome,
    RegionFlags, RegionInfo, RegionMmap, SetIrqs,
};
pub use rustix::io::Errno;
