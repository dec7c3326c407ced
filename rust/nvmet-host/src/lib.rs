//! An NVMe host (driver) over vfio-user, with host memory of its own.
//!
//! It is the test driver of the device, the load of `nvmet-vdev bench`, and works against any vfio-user NVMe server.
//! It attaches to a socket, enables the controller, and talks to it the way a guest's driver does: rings in shared
//! memory, doorbells that are shadowed, mapped or trapped, interrupts by eventfd or polling.
//!
//! | module | what it says | what it may know |
//! | --- | --- | --- |
//! | [`drive`](Drive), [`access`](QueueLimits), [`admin`](IDENTIFY_BYTES), [`queues`](QueueConfig), [`events`](AsyncEvent), [`namespace`](Namespace), [`info`](ControllerInfo) | the controller as a driver sees it | all below |
//! | [`session`](Session) | a drive for many threads: submit now, wait later | all but `bench` |
//! | [`queue`](QueuePair) | rings: submit, ring, poll, wait | memory, doorbells |
//! | `doorbell` | shadow, mapped and trapped doorbells | memory, transport |
//! | [`memory`](HostMemory), [`transfer`](Transfer) | memfds that the device reaches | transport |
//! | `transport` | the one place that talks to the socket | the vfio-user client |
//! | [`prp`], [`sgl`], [`command`](SqeExt), `pci`, `allocator` | layouts, pure | nothing |
//! | [`mod@bench`] | load and verify | queue pairs, memory |
//!
//! Every wait has a deadline and an eye on the controller's health: a server that closes, goes silent or fails gives
//! an error that says so.

#![forbid(unsafe_code)]

mod access;
mod admin;
mod allocator;
pub mod bench;
mod command;
mod config;
mod doorbell;
mod drive;
mod error;
mod events;
mod info;
mod memory;
mod namespace;
mod pci;
pub mod prp;
mod queue;
mod queues;
mod session;
pub mod sgl;
mod transfer;
mod transport;

pub use access::QueueLimits;
pub use admin::IDENTIFY_BYTES;
pub use command::{SqeExt, command_name, status_name};
pub use config::{ClientProfile, DoorbellPolicy, HostConfig};
pub use drive::Drive;
pub use error::HostError;
pub use events::AsyncEvent;
pub use info::{ControllerInfo, DriveInfo, NamespaceInfo};
pub use memory::{DmaBuffer, HostMemory};
pub use namespace::{Namespace, read_write};
pub use pci::PciIdentity;
pub use queue::QueuePair;
pub use queues::QueueConfig;
pub use session::{Outcome, Queue, Request, Session, SessionLimits, Ticket};
pub use transfer::{Data, Transfer};
