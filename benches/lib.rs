//! Shared set-up of the benchmarks: a guest in loopback memory, a worker to drive, and places for files.

mod data;
mod drive;
mod guest;
mod local;
mod measure;
mod places;

pub use data::DataQueue;
pub use drive::{Load, serve};
pub use guest::{DEPTHS, ENTRIES, Guest, Layout, TRANSFER};
pub use local::Local;
pub use measure::{BatchTimer, wait};
pub use places::{Place, places};

use std::sync::Arc;

use nvmet_block::{Backend, NullBackend, RamBackend};

/// Size of the namespace in bytes, where it does not matter.
pub const NAMESPACE: u64 = 64 << 20;

/// A backend that transfers nothing.
///
/// # Panics
///
/// Never: the size is good.
pub fn null() -> Arc<dyn Backend> {
    Arc::new(NullBackend::new(NAMESPACE, false).expect("the size is good"))
}

/// Memory without content: reads copy the page of zeroes, which stays in the caches.
///
/// # Panics
///
/// When the system gives no memory.
pub fn ram() -> Arc<dyn Backend> {
    Arc::new(RamBackend::new(NAMESPACE, false).expect("there is memory"))
}
