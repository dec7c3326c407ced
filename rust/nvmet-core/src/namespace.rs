//! A namespace: a backend with an LBA format and identifiers (NVMe Base 2.0, 3.2.1).
//!
//! May know backends. Must not know queues, controllers or threads: many controllers may reach one namespace.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use nvmet_block::{Backend, Features};

use crate::error::TargetError;

/// The highest NSID and the number of namespaces a subsystem can hold: Identify Controller NN, fixed for good because
/// guests take it for constant while a controller lives.
pub const MAX_NAMESPACES: u32 = 1024;

/// Logical blocks that a fused Compare and Write may have: Identify Controller ACWU, one-based.
pub const ATOMIC_COMPARE_WRITE_BLOCKS: u64 = 8;

/// The identifiers that name a namespace to hosts (NVMe Base 2.0, 4.5.1). All stable across restarts if configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceIds {
    /// Namespace UUID; all zero: none.
    pub uuid: [u8; 16],
    /// Namespace Globally Unique Identifier, big endian; all zero: none.
    pub nguid: [u8; 16],
    /// IEEE Extended Unique Identifier, big endian; all zero: none.
    pub eui64: [u8; 8],
}

/// What a namespace is made of.
pub struct NamespaceConfig {
    /// The namespace identifier wanted, 1 to [`MAX_NAMESPACES`]; None: the lowest free one.
    pub nsid: Option<u32>,
    /// Logical block size in bytes: 512 or 4096.
    pub block_size: u32,
    /// Refuse writes even if the backend would take them.
    pub read_only: bool,
    /// Where the data is.
    pub backend: Arc<dyn Backend>,
    /// Identifiers.
    pub ids: NamespaceIds,
}

/// A namespace in service.
pub struct Namespace {
    uid: u64,
    nsid: u32,
    block_shift: u32,
    blocks: u64,
    read_only: bool,
    ids: NamespaceIds,
    features: Features,
    backend: Arc<dyn Backend>,
    fused: Mutex<Vec<(u64, u64)>>,
}

impl std::fmt::Debug for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Namespace")
            .field("nsid", &self.nsid)
            .field("backend", &self.backend.describe())
            .finish()
    }
}

impl Namespace {
    /// Makes a namespace of `config`.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] for a block size that is not 512 or 4096, or a backend that is smaller than one block
    /// or not made of whole blocks.
    pub fn new(nsid: u32, config: NamespaceConfig) -> Result<Self, TargetError> {
        static NEXT_UID: AtomicU64 = AtomicU64::new(1);
        if !matches!(config.block_size, 512 | 4096) {
            return Err(TargetError::config("block size", config.block_size, "use 512 or 4096"));
        }
        let geometry = config.backend.geometry();
        let shift = config.block_size.trailing_zeros();
        let blocks = geometry.size >> shift;
        if blocks == 0 || blocks << shift != geometry.size {
            return Err(TargetError::config(
                "size",
                format!("{} is {} bytes", config.backend.describe(), geometry.size),
                format!("it must be a multiple of the block size {} and not 0", config.block_size),
            ));
        }
        Ok(Self {
            uid: NEXT_UID.fetch_add(1, Ordering::Relaxed),
            nsid,
            block_shift: shift,
            blocks,
            read_only: config.read_only || geometry.read_only,
            ids: config.ids,
            features: config.backend.features(),
            backend: config.backend,
            fused: Mutex::new(Vec::new()),
        })
    }

    /// Unique in this process, never reused: tells a namespace from one that replaced it under the same NSID.
    pub fn uid(&self) -> u64 {
        self.uid
    }

    /// The namespace identifier, 1 to [`MAX_NAMESPACES`].
    pub fn nsid(&self) -> u32 {
        self.nsid
    }

    /// log2 of the logical block size in bytes: 9 or 12.
    pub fn block_shift(&self) -> u32 {
        self.block_shift
    }

    /// Namespace size in logical blocks, never 0.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Identifiers.
    pub fn ids(&self) -> &NamespaceIds {
        &self.ids
    }

    /// What the backend can do.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Where the data is.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Takes the blocks `first..first + count` for a fused Compare and Write; false if another one holds a part of
    /// them: try again later. Each success is given back with [`unlock_fused`](Self::unlock_fused).
    pub fn try_lock_fused(&self, first: u64, count: u64) -> bool {
        let mut held = self.fused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let free = held.iter().all(|&(start, len)| first + count <= start || start + len <= first);
        if free {
            held.push((first, count));
        }
        free
    }

    /// Gives blocks back that [`try_lock_fused`](Self::try_lock_fused) took.
    pub fn unlock_fused(&self, first: u64, count: u64) {
        let mut held = self.fused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(at) = held.iter().position(|&range| range == (first, count)) {
            held.swap_remove(at);
        }
    }
}
