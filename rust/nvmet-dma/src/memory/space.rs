//! The control side: regions come and go, each change publishes a new table.
//!
//! What it may know: what a client asked to map, its files. It is owned by the control thread; workers only ever see
//! the tables that it publishes.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use super::file::{FileFacts, FileId, inspect};
use super::snapshot::Published;
use super::table::{Alive, DmaTable, Life, NO_MAPPING, Notify, Region};
use super::{Access, DmaHandle};
use crate::error::DmaError;
use crate::mapping::Mapping;
use crate::sigbus;

/// Most regions of one client (`max_dma_maps` of the vfio-user VERSION message).
pub const MAX_REGIONS: usize = 65535;
/// Most mappings of one client: the kernel's limit for the whole process (`vm.max_map_count`) is 65530.
pub const MAX_MAPPINGS: usize = 1024;
/// Most address space of one client, in bytes: a process has 128 TiB on x86-64.
pub const MAX_MAPPED_BYTES: u64 = 8 << 40;

/// A region as the client described it.
#[derive(Debug)]
struct Entry {
    size: u64,
    access: Access,
    /// File and offset; `None` for a region without one, or without any access.
    source: Option<Source>,
    alive: Alive,
}

#[derive(Debug, Clone)]
struct Source {
    file: FileId,
    offset: u64,
    mapping: Arc<Mapping>,
    /// Offset of the region in the mapping.
    start: usize,
}

/// A mapping and the range of the file that it covers.
#[derive(Debug)]
struct FileMapping {
    file: FileId,
    writable: bool,
    /// Offset in the file of the mapping's first byte.
    start: u64,
    mapping: Arc<Mapping>,
    /// Number of regions in it.
    users: usize,
}

impl FileMapping {
    /// A region at an offset of the file that this covers.
    fn source(&self, offset: u64) -> Source {
        // Inside of the mapping, so it fits.
        let start = (offset - self.start) as usize;
        Source { file: self.file, offset, mapping: Arc::clone(&self.mapping), start }
    }
}

/// The guest memory of one controller.
pub struct DmaSpace {
    published: Arc<Published>,
    entries: BTreeMap<u64, Entry>,
    files: Vec<FileMapping>,
    /// Earlier tables that somebody may still use.
    old_tables: Vec<Weak<DmaTable>>,
    poison: Arc<AtomicBool>,
    on_retired: Arc<dyn Fn() + Send + Sync>,
    generation: u64,
    pinning: bool,
}

impl DmaSpace {
    /// No memory yet. `on_retired` is called, on whatever thread that happens, when the last user of an earlier table
    /// is gone: it wakes the control thread, which then asks [`Retired::is_done`]. It may be called more often than
    /// needed, and must neither panic nor block.
    #[must_use]
    pub fn new(on_retired: impl Fn() + Send + Sync + 'static) -> Self {
        sigbus::install();
        let on_retired: Arc<dyn Fn() + Send + Sync> = Arc::new(on_retired);
        let poison = Arc::new(AtomicBool::new(false));
        let table = DmaTable {
            generation: 0,
            pinning: false,
            regions: Box::default(),
            _mappings: Box::default(),
            poison: Arc::clone(&poison),
            _notify: Notify(Arc::clone(&on_retired)),
        };
        Self {
            published: Arc::new(Published {
                table: ArcSwap::from_pointee(table),
                generation: AtomicU64::new(0),
            }),
            entries: BTreeMap::new(),
            files: Vec::new(),
            old_tables: Vec::new(),
            poison,
            on_retired,
            generation: 0,
            pinning: false,
        }
    }

    /// Whether the kernel may keep pages of the memory that is mapped from now on, beyond operations. Not at first: a
    /// client that takes pages out of its file while they are mapped (memory ballooning) would from then on see others
    /// than the kernel. QEMU switches that off for its vfio-user devices.
    pub fn set_pinning(&mut self, allowed: bool) {
        self.pinning = allowed;
    }

    /// Where workers get their readers.
    #[must_use]
    pub fn handle(&self) -> DmaHandle {
        DmaHandle(Arc::clone(&self.published))
    }

    /// Number of regions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no regions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether memory vanished under a mapping since the space was made or cleared.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poison.load(Ordering::Relaxed)
    }

    /// Maps `size` bytes of `fd` at `offset` to the guest addresses from `iova`. Without a descriptor the region is
    /// known but cannot be reached ([`DmaError::NotAccessible`]), and `offset` means nothing. A region that is mapped
    /// already, exactly the same, is accepted.
    ///
    /// # Errors
    ///
    /// [`DmaError::EmptyRegion`], [`DmaError::RegionWraps`], [`DmaError::OffsetWraps`], [`DmaError::Overlap`],
    /// [`DmaError::TooManyRegions`], [`DmaError::TooMuchMapped`], [`DmaError::FileTooShort`],
    /// [`DmaError::NotMappable`], [`DmaError::MapFailed`]. Nothing has changed then.
    pub fn map(
        &mut self,
        iova: u64,
        size: u64,
        offset: u64,
        access: Access,
        fd: Option<OwnedFd>,
    ) -> Result<(), DmaError> {
        let span = size.checked_sub(1).ok_or(DmaError::EmptyRegion { iova })?;
        let last = iova.checked_add(span).ok_or(DmaError::RegionWraps { iova, size })?;
        // A region that nobody may use needs no mapping.
        let fd = fd.filter(|_| access.read || access.write);
        let facts = match &fd {
            Some(fd) => {
                let end = offset.checked_add(size).filter(|end| i64::try_from(*end).is_ok());
                let end = end.ok_or(DmaError::OffsetWraps { offset, size })?;
                let facts = inspect(fd.as_fd(), access.write)?;
                if end > facts.size {
                    return Err(DmaError::FileTooShort { offset, size, file_size: facts.size });
                }
                Some(facts)
            }
            None => None,
        };
        if let Some((&start, neighbour)) = self.entries.range(..=last).next_back()
            && start + (neighbour.size - 1) >= iova
        {
            let source = facts.map(|facts| (facts.id, offset));
            let same = start == iova
                && neighbour.size == size
                && neighbour.access == access
                && neighbour.source.as_ref().map(|known| (known.file, known.offset)) == source;
            return if same { Ok(()) } else { Err(DmaError::Overlap { iova, size }) };
        }
        if self.entries.len() >= MAX_REGIONS {
            return Err(DmaError::TooManyRegions { limit: MAX_REGIONS });
        }
        let source = match (&fd, facts) {
            (Some(fd), Some(facts)) => Some(self.source(fd, &facts, offset, size, access.write)?),
            _ => None,
        };
        self.entries.insert(iova, Entry { size, access, source, alive: Alive(Life::begin()) });
        self.publish();
        Ok(())
    }

    /// Removes the region that has exactly this range. Workers see it from their next
    /// [`super::DmaReader::snapshot`] on; it is out of use when the returned [`Retired`] says so.
    ///
    /// # Errors
    ///
    /// [`DmaError::NotFound`].
    pub fn unmap(&mut self, iova: u64, size: u64) -> Result<Retired, DmaError> {
        match self.entries.get(&iova) {
            Some(entry) if entry.size == size => {}
            _ => return Err(DmaError::NotFound { iova, size }),
        }
        let mut unused = Vec::new();
        if let Some(source) = self.entries.remove(&iova).and_then(|entry| entry.source) {
            for file in &mut self.files {
                if Arc::ptr_eq(&file.mapping, &source.mapping) {
                    file.users -= 1;
                }
            }
            unused.extend(self.files.extract_if(.., |file| file.users == 0).map(|file| file.mapping));
        }
        self.publish();
        Ok(Retired { tables: self.old_tables.clone(), _mappings: unused })
    }

    /// Removes every region, as on UNMAP_ALL.
    pub fn unmap_all(&mut self) -> Retired {
        self.entries.clear();
        let unused = self.files.drain(..).map(|file| file.mapping).collect();
        self.publish();
        Retired { tables: self.old_tables.clone(), _mappings: unused }
    }

    /// Removes every region and forgets that memory ever vanished: for a client that has gone.
    pub fn clear(&mut self) -> Retired {
        self.poison = Arc::new(AtomicBool::new(false));
        self.unmap_all()
    }

    /// Finds or makes the mapping for a region's range of a file.
    fn source(
        &mut self,
        fd: &OwnedFd,
        facts: &FileFacts,
        offset: u64,
        size: u64,
        writable: bool,
    ) -> Result<Source, DmaError> {
        let end = offset + size;
        let covers = |known: &&mut FileMapping| {
            known.file == facts.id
                && known.writable == writable
                && known.start <= offset
                && end <= known.start + known.mapping.len() as u64
        };
        if let Some(known) = self.files.iter_mut().find(covers) {
            known.users += 1;
            return Ok(known.source(offset));
        }
        let fresh = self.map_file(fd, facts, offset, size, writable)?;
        let source = fresh.source(offset);
        self.files.push(fresh);
        Ok(source)
    }

    /// Maps the whole file if the client's share allows it, so that further regions of it need no mapping; otherwise
    /// only the pages of the region.
    fn map_file(
        &self,
        fd: &OwnedFd,
        facts: &FileFacts,
        offset: u64,
        size: u64,
        writable: bool,
    ) -> Result<FileMapping, DmaError> {
        let too_much = DmaError::TooMuchMapped { mappings: MAX_MAPPINGS, bytes: MAX_MAPPED_BYTES };
        let mapped: u64 = self.files.iter().map(|file| file.mapping.len() as u64).sum();
        if self.files.len() >= MAX_MAPPINGS {
            return Err(too_much);
        }
        let room = MAX_MAPPED_BYTES.saturating_sub(mapped);
        let page = facts.page_size as u64;
        let start = offset / page * page;
        let part = (offset + size).next_multiple_of(page) - start;
        let mut result = Err(too_much);
        for (start, len) in [(0, facts.size.next_multiple_of(page)), (start, part)] {
            let Ok(bytes) = usize::try_from(len) else { continue };
            if len > room {
                continue;
            }
            let poison = Some(Arc::clone(&self.poison));
            match Mapping::of_file(fd.as_fd(), start, bytes, writable, facts.page_size, poison) {
                Ok(mapping) => {
                    let mapping = Arc::new(mapping);
                    return Ok(FileMapping { file: facts.id, writable, start, mapping, users: 1 });
                }
                Err(errno) => result = Err(DmaError::MapFailed { errno: errno.raw_os_error() }),
            }
        }
        result
    }

    /// Publishes a table of the regions as they are now, and remembers the one that it replaces.
    fn publish(&mut self) {
        self.generation += 1;
        let regions = self.entries.iter().map(|(&iova, entry)| Region {
            life: Arc::clone(&entry.alive.0),
            iova,
            last: iova + (entry.size - 1),
            host: entry.source.as_ref().map(|source| {
                // SAFETY: `source` put the region inside the mapping.
                unsafe { source.mapping.base().add(source.start) }
            }),
            mapping: entry.source.as_ref().map_or(NO_MAPPING, |source| source.mapping.id()),
            access: entry.access,
        });
        let table = DmaTable {
            generation: self.generation,
            pinning: self.pinning,
            regions: regions.collect(),
            _mappings: self.files.iter().map(|file| Arc::clone(&file.mapping)).collect(),
            poison: Arc::clone(&self.poison),
            _notify: Notify(Arc::clone(&self.on_retired)),
        };
        let old = self.published.table.swap(Arc::new(table));
        self.published.generation.store(self.generation, Ordering::Release);
        self.old_tables.retain(|table| table.strong_count() > 0);
        self.old_tables.push(Arc::downgrade(&old));
    }
}

impl Drop for DmaSpace {
    fn drop(&mut self) {
        // Readers may outlive the space; the memory need not.
        drop(self.unmap_all());
    }
}

impl std::fmt::Debug for DmaSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DmaSpace")
            .field("regions", &self.entries.len())
            .field("mappings", &self.files.len())
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// A region, or all of them, on the way out.
///
/// Whatever has been unmapped stays valid for whoever still uses it; this only tells whether anybody does. Dropping
/// it early is harmless.
#[derive(Debug)]
#[must_use = "an unmap is answered when its region is out of use"]
pub struct Retired {
    tables: Vec<Weak<DmaTable>>,
    /// Held so that the memory is unmapped by the control thread, not by a worker.
    _mappings: Vec<Arc<Mapping>>,
}

impl Retired {
    /// Whether no snapshot that could reach the removed memory is left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.tables.iter().all(|table| table.strong_count() == 0)
    }
}
