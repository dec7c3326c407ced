//! How to attach.

use crate::{HostError, bench::ConfigError};
use std::{str::FromStr, time::Duration};

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
    /// Shadow doorbells, even when a page could be mapped. A controller without Doorbell Buffer Config is refused.
    Shadow,
    /// The mapped page. A controller that offers none is refused.
    Mapped,
    /// Register writes only, even when a page could be mapped: what a guest's firmware does.
    Registers,
}

impl DoorbellPolicy {
    /// Whether to shadow doorbells, given whether a page is mapped and what the controller supports.
    ///
    /// # Errors
    /// [`HostError::Argument`] when the policy demands what there is not.
    pub(crate) fn wants_shadow(self, mapped: bool, supported: bool) -> Result<bool, HostError> {
        match self {
            Self::Auto => Ok(supported && !mapped),
            Self::NoShadow | Self::Registers => Ok(false),
            Self::Shadow if supported => Ok(true),
            Self::Shadow => Err(HostError::argument(
                "doorbells: the drive has no Doorbell Buffer Config, so they cannot be shadowed; use auto",
            )),
            Self::Mapped if mapped => Ok(false),
            Self::Mapped => Err(HostError::argument(
                "doorbells: the drive offers no page to map; use auto, or serve it with mapped doorbells",
            )),
        }
    }
}

impl FromStr for DoorbellPolicy {
    type Err = ConfigError;

    /// The words of `nvmet-vdev bench --doorbells`.
    fn from_str(word: &str) -> Result<Self, ConfigError> {
        match word {
            "auto" => Ok(Self::Auto),
            "shadow" => Ok(Self::Shadow),
            "mapped" => Ok(Self::Mapped),
            "trapped" => Ok(Self::Registers),
            _ => Err(ConfigError(format!(
                "doorbells: `{word}` is no way to ring; use auto, shadow, mapped or trapped"
            ))),
        }
    }
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
