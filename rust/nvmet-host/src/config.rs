//! How to attach.

use std::time::Duration;

/// Which client the host presents itself as. A server may choose its doorbell mode by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientProfile {
    /// VERSION with JSON capabilities, as QEMU and Cloud Hypervisor send it.
    #[default]
    Json,
    /// VERSION 0.1 without JSON, as SPDK's initiator sends it.
    Bare,
}

/// How to ring doorbells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DoorbellPolicy {
    /// Shadow doorbells when the controller supports Doorbell Buffer Config and offers no page to map, else mapped
    /// doorbells when it does, else register writes.
    #[default]
    Auto,
    /// Never shadow doorbells: mapped when offered, else register writes.
    NoShadow,
    /// Register writes only, even when a page could be mapped: what a guest's firmware does.
    Registers,
}

/// Options of [`Drive::attach`](crate::Drive::attach).
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Which client to be.
    pub profile: ClientProfile,
    /// Longest wait for a reply of the server, and for an admin command.
    pub timeout: Duration,
    /// Bytes of host memory for queues and the buffers of blocking commands; memory that is not touched costs nothing.
    pub memory_bytes: usize,
    /// Device address of the first byte of host memory; a multiple of the page size.
    pub iova: u64,
    /// Memory page size that CC.MPS selects, in bytes: a power of two from 4 KiB on that the controller supports.
    pub page_size: u64,
    /// Entries of each admin queue, 2 to 4096.
    pub admin_entries: u16,
    /// How many I/O queue pairs to ask the controller for (Number of Queues).
    pub io_queues: u16,
    /// How many MSI-X vectors to arm; 0: poll only. Vector 0 serves the admin queue.
    pub vectors: u16,
    /// How to ring doorbells.
    pub doorbells: DoorbellPolicy,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            profile: ClientProfile::default(),
            timeout: Duration::from_secs(10),
            memory_bytes: 64 << 20,
            iova: 1 << 32,
            page_size: 4096,
            admin_entries: 64,
            io_queues: 64,
            vectors: 0,
            doorbells: DoorbellPolicy::default(),
        }
    }
}
