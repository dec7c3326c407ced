//! The NVMe controller model: PCI function, registers, queues, commands, workers, target.
//!
//! Modules have ranks and import only downward: `target` → `device` → `controller`, `placement` → `worker` → `io`, `subsystem`,
//! `namespace`, `reservation` → `queue`, `pci`, `irq`, `thread` → `error`, `stats`. `docs/architecture.md` says what each may know.

#![forbid(unsafe_code)]

pub mod controller;
pub mod device;
pub mod error;
pub mod io;
pub mod irq;
pub mod namespace;
pub mod pci;
mod placement;
pub mod queue;
pub mod reservation;
pub mod stats;
pub mod subsystem;
pub mod target;
mod thread;
pub mod worker;

pub use error::TargetError;
