//! What SMART / Health Information counts over the life of a controller (NVMe Base 2.0, 5.16.1.3).
//!
//! Plain data that can be written down at the end of a process and given to the controller that the next one makes.

use crate::stats::Batch;

/// Counters over a controller's life, and its Error Information log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Commands and bytes of its I/O queues.
    pub stats: Batch,
    /// Clients that attached: to the host each is a power cycle.
    pub power_cycles: u64,
    /// Seconds that it was there for.
    pub power_on_seconds: u64,
    /// A client is there and has not shut it down: the end of the process would be an unsafe shutdown. From the attach
    /// on, because nobody hears when it is enabled.
    pub in_use: bool,
    /// Clients that left an enabled controller without a shutdown notification.
    pub unsafe_shutdowns: u64,
    /// Errors, those that are no longer in the log included.
    pub errors: u64,
    /// Entries of the Error Information log, newest first: 64 bytes each.
    pub error_log: Vec<u8>,
}
