//! A namespace: a backend with an LBA format and identifiers (NVMe Base 2.0, 3.2.1).
//!
//! May know backends and what is kept beside the data. Must not know queues, controllers or threads: many controllers
//! may reach one namespace.

mod keeper;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nvmet_block::{Backend, Features};

pub use self::keeper::{Keeper, Kept};
use crate::error::TargetError;
use crate::reservation::{Identity, Store};
use crate::stats::{Batch, Stats};

/// The highest NSID and the number of namespaces a subsystem can hold: Identify Controller NN, fixed for good because
/// guests take it for constant while a controller lives.
pub const MAX_NAMESPACES: u32 = 1024;

/// The highest ANA Group Identifier: Identify Controller ANAGRPMAX, and the number of groups, NANAGRPID.
pub const MAX_ANA_GROUPS: u32 = 1024;

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
    /// Whether hosts see it (nvmet's `enable`).
    pub enabled: bool,
    /// ANA group, 1 to [`MAX_ANA_GROUPS`].
    pub ana_group: u32,
    /// NQNs of the hosts that it is attached to; None: all.
    pub hosts: Option<Arc<[String]>>,
    /// Whether it takes reservations (nvmet's `resv_enable`).
    pub reservations: bool,
    /// Where reservations and write protection outlast the target; None: they end with it.
    pub state: Option<StateFile>,
    /// What was counted on it before this process.
    pub counted: Batch,
}

/// Where a namespace keeps what outlasts the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    /// The file; it need not exist.
    pub path: PathBuf,
    /// Throw away a file that is damaged or another namespace's, instead of refusing it.
    pub discard: bool,
}

impl NamespaceConfig {
    /// A namespace on `backend` with blocks of 512 bytes, the lowest free NSID and no identifiers, which every host
    /// sees, in ANA group 1, with reservations that end with the target.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            nsid: None,
            block_size: 512,
            read_only: false,
            backend,
            ids: NamespaceIds::default(),
            enabled: true,
            ana_group: 1,
            hosts: None,
            reservations: true,
            state: None,
            counted: Batch::default(),
        }
    }
}

/// A namespace in service.
pub struct Namespace {
    id: u64,
    uid: u64,
    nsid: u32,
    block_shift: u32,
    blocks: u64,
    read_only: bool,
    ids: NamespaceIds,
    features: Features,
    backend: Arc<dyn Backend>,
    common: Arc<Common>,
}

/// What a namespace keeps when its size changes: the one that was and the one that is may both have commands in flight.
struct Common {
    /// Blocks of fused pairs that are on their way: first, count.
    fused: Mutex<Vec<(u64, u64)>>,
    /// What all controllers did on it.
    stats: Stats,
    /// What hosts have agreed on about it, if it takes reservations, and what is kept of that.
    keeper: Keeper,
    /// The last one: it goes after everything else has.
    gone: Gone,
}

/// Says that it was dropped.
#[derive(Default)]
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
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
    /// Makes a namespace of `config`, with nothing that outlasts the target.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] for a block size that is not 512 or 4096, an ANA group out of range, or a backend that is
    /// smaller than one block or not made of whole blocks.
    pub fn new(nsid: u32, config: NamespaceConfig) -> Result<Self, TargetError> {
        let keeper = Keeper::in_memory(config.reservations);
        Self::with_keeper(nsid, config, keeper)
    }

    /// Makes a namespace of `config` in the subsystem called `nqn`, with what its state file keeps.
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::new`]; [`TargetError::State`] for a file that cannot be used.
    pub fn open(nqn: &str, nsid: u32, config: NamespaceConfig) -> Result<Self, TargetError> {
        let Some(file) = &config.state else { return Self::new(nsid, config) };
        let identity = Identity { nqn: nqn.to_owned(), nsid, uuid: config.ids.uuid };
        let (store, saved) = Store::open(&file.path, identity, file.discard)
            .map_err(|error| TargetError::State { reason: error.to_string() })?;
        let keeper = Keeper::with_store(config.reservations, file.path.clone(), store, saved);
        Self::with_keeper(nsid, config, keeper)
    }

    fn with_keeper(nsid: u32, config: NamespaceConfig, keeper: Keeper) -> Result<Self, TargetError> {
        if !matches!(config.block_size, 512 | 4096) {
            return Err(TargetError::config("block size", config.block_size, "use 512 or 4096"));
        }
        check_ana_group(config.ana_group)?;
        let geometry = config.backend.geometry();
        let shift = config.block_size.trailing_zeros();
        let blocks = whole_blocks(&config.backend.describe(), geometry.size, shift)?;
        let stats = Stats::default();
        stats.shard().add(&config.counted);
        Ok(Self {
            id: next_uid(),
            uid: next_uid(),
            nsid,
            block_shift: shift,
            blocks,
            read_only: config.read_only || geometry.read_only,
            ids: config.ids,
            features: config.backend.features(),
            backend: config.backend,
            common: Arc::new(Common { fused: Mutex::default(), stats, keeper, gone: Gone::default() }),
        })
    }

    /// Whether it could have `size` bytes.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] unless that is whole blocks, and at least one.
    pub fn check_size(&self, size: u64) -> Result<(), TargetError> {
        whole_blocks(&self.backend.describe(), size, self.block_shift).map(|_| ())
    }

    /// The same namespace with the size that its backend has now; None if it has that size already.
    ///
    /// It is another one to workers, which open a queue of its size for it while that of the old one runs dry.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if the backend is smaller than one block by now or not made of whole blocks.
    pub fn resized(&self) -> Result<Option<Self>, TargetError> {
        let size = self.backend.geometry().size;
        let blocks = whole_blocks(&self.backend.describe(), size, self.block_shift)?;
        Ok((blocks != self.blocks).then(|| Self {
            id: self.id,
            uid: next_uid(),
            blocks,
            nsid: self.nsid,
            block_shift: self.block_shift,
            read_only: self.read_only,
            ids: self.ids,
            features: self.features,
            backend: Arc::clone(&self.backend),
            common: Arc::clone(&self.common),
        }))
    }

    /// Unique in this process, never reused: tells a namespace from one that replaced it under the same NSID,
    /// or that is the same with another size.
    pub fn uid(&self) -> u64 {
        self.uid
    }

    /// As [`uid`](Self::uid), but it stays when the size changes.
    pub fn id(&self) -> u64 {
        self.id
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

    /// Counters of what all controllers did on it.
    pub fn stats(&self) -> &Stats {
        &self.common.stats
    }

    /// Reservations and write protection.
    pub fn keeper(&self) -> &Keeper {
        &self.common.keeper
    }

    /// True as soon as it is gone in all of its sizes, and has let go of its backend and its state file.
    pub fn gone(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.common.gone.0)
    }

    /// Takes the blocks `first..first + count` for a fused Compare and Write; false if another one holds a part of
    /// them: try again later. Each success is given back with [`unlock_fused`](Self::unlock_fused).
    pub fn try_lock_fused(&self, first: u64, count: u64) -> bool {
        let mut held = self.common.fused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let free = held.iter().all(|&(start, len)| first + count <= start || start + len <= first);
        if free {
            held.push((first, count));
        }
        free
    }

    /// Gives blocks back that [`try_lock_fused`](Self::try_lock_fused) took.
    pub fn unlock_fused(&self, first: u64, count: u64) {
        let mut held = self.common.fused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(at) = held.iter().position(|&range| range == (first, count)) {
            held.swap_remove(at);
        }
    }
}

fn next_uid() -> u64 {
    static NEXT_UID: AtomicU64 = AtomicU64::new(1);
    NEXT_UID.fetch_add(1, Ordering::Relaxed)
}

/// Checks an ANA Group Identifier.
///
/// # Errors
///
/// [`TargetError::Config`] if it is not 1 to [`MAX_ANA_GROUPS`].
pub fn check_ana_group(group: u32) -> Result<(), TargetError> {
    if (1..=MAX_ANA_GROUPS).contains(&group) {
        return Ok(());
    }
    Err(TargetError::config("ana group", group, format!("use 1 to {MAX_ANA_GROUPS}")))
}

/// Logical blocks of `size` bytes.
fn whole_blocks(what: &str, size: u64, shift: u32) -> Result<u64, TargetError> {
    let blocks = size >> shift;
    if blocks == 0 || blocks << shift != size {
        return Err(TargetError::config(
            "size",
            format!("{what}, at {size} bytes"),
            format!("it must be a multiple of the block size {} and not 0", 1u32 << shift),
        ));
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvmet_block::{FileBackend, OpenOptions};

    #[test]
    fn a_namespace_that_is_resized_keeps_its_name_and_the_blocks_of_fused_pairs() {
        let directory = tempfile::tempdir().unwrap();
        let options = OpenOptions { create: Some(1 << 20), ..OpenOptions::default() };
        let backend: Arc<dyn Backend> =
            Arc::new(FileBackend::open(&directory.path().join("image"), options).unwrap());
        let ids = NamespaceIds { uuid: [7; 16], ..NamespaceIds::default() };
        let config = NamespaceConfig {
            block_size: 4096,
            read_only: true,
            ids,
            ..NamespaceConfig::new(Arc::clone(&backend))
        };
        let before = Namespace::new(3, config).unwrap();
        assert!(before.resized().unwrap().is_none(), "it has that size");
        assert!(before.try_lock_fused(8, 4));
        backend.resize(2 << 20).unwrap();
        let after = before.resized().unwrap().unwrap();
        assert_eq!((after.blocks(), before.blocks()), (512, 256));
        assert_eq!((after.nsid(), after.block_shift(), after.read_only(), after.ids()), (3, 12, true, &ids));
        assert_ne!(after.uid(), before.uid());
        assert_eq!(after.id(), before.id());
        assert!(!after.try_lock_fused(11, 1), "a pair on the old one still has it");
        before.unlock_fused(8, 4);
        assert!(after.try_lock_fused(11, 1));
        assert!(!before.try_lock_fused(8, 4));
        backend.resize(512).unwrap();
        assert!(after.resized().unwrap_err().to_string().contains("multiple of the block size 4096"));
    }
}
