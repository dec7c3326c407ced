//! A controller as one worker sees it.

use std::sync::Arc;

use nvmet_dma::{DmaReader, DoorbellPage};

use super::link::{Event, Link};
use super::namespaces::{NamespaceIndex, NamespaceQueues};
use super::sleep::Sleeper;
use super::tuning::Tuning;
use super::watch::Watch;
use crate::queue::{Doorbells, Shadow, register_index};
use crate::stats::{Batch, Shard};
use crate::subsystem::{Hold, View};

/// Bytes of the shadow doorbell and EventIdx buffers: one page each (NVMe Base 2.0, 5.8).
pub fn shadow_len(page_size: u64) -> usize {
    page_size as usize
}

/// A controller as one worker sees it.
pub struct ControllerSlot {
    /// What it shares with its workers.
    pub link: Arc<Link>,
    /// The guest's memory.
    pub reader: DmaReader,
    /// Where tails and heads are read.
    pub doorbells: Doorbells,
    /// Backend queues by NSID.
    pub index: NamespaceIndex,
    /// CC.MPS in bytes.
    pub page_size: u64,
    /// MDTS in bytes.
    pub max_transfer: u64,
    /// What the host has set about its queues.
    pub tuning: Tuning,
    /// Nothing wakes the worker when a doorbell is written.
    pub polled: bool,
    /// Commands in [`Inflight`](super::inflight::Inflight) that belong to the controller.
    pub outstanding: u32,
    /// All queues are gone; say when nothing is outstanding.
    pub quiescing: bool,
    /// Let go when it has ended.
    pub over: Option<Arc<Hold>>,
    /// Counters of this batch.
    pub batch: Batch,
    /// Indexes of its groups in the worker, by completion queue.
    pub groups: Vec<Option<usize>>,
    /// Its doorbells, if nothing wakes the worker when they are written.
    pub watch: Watch,
    /// The turn that last brought it up to date.
    pub fresh_in: u64,
    shard: Arc<Shard>,
    /// Of the map of namespaces that `index` is made of; 0: none yet.
    version: u64,
    page: Arc<DoorbellPage>,
    generation: Option<u64>,
    shadow: Option<(u64, u64)>,
    admin: bool,
    memory_lost: bool,
}

impl ControllerSlot {
    pub fn new(link: Arc<Link>, page_size: u64, max_transfer: u64, polled: bool, admin: bool) -> Self {
        let page = link.page.load_full();
        Self {
            reader: link.dma.reader(),
            doorbells: Doorbells::new(Arc::clone(&page)),
            page,
            index: NamespaceIndex::default(),
            page_size,
            max_transfer,
            tuning: Tuning::DEFAULT,
            polled,
            outstanding: 0,
            quiescing: false,
            over: None,
            batch: Batch::default(),
            groups: Vec::new(),
            watch: Watch::default(),
            fresh_in: 0,
            shard: link.stats.shard(),
            version: 0,
            generation: None,
            shadow: None,
            admin,
            memory_lost: false,
            link,
        }
    }

    /// Takes a new map of namespaces over, if there is one.
    #[inline]
    pub fn refresh_namespaces(&mut self, queues: &mut NamespaceQueues, sleeper: &Sleeper) {
        let version = self.link.subsystem.version();
        if version != self.version {
            self.version = version;
            self.take_map_over(queues, sleeper);
        }
    }

    #[cold]
    fn take_map_over(&mut self, queues: &mut NamespaceQueues, sleeper: &Sleeper) {
        let view = View::new(self.link.subsystem.namespaces(), &self.link.who);
        let index = queues.acquire(&view, sleeper);
        let old = std::mem::replace(&mut self.index, index);
        queues.release(&old);
    }

    /// Whether the guest's memory is another than at the last call, so that rings have to be looked up again. Tells
    /// the control thread when memory vanished under its mapping.
    pub fn refresh_memory(&mut self) -> bool {
        let snapshot = self.reader.snapshot();
        if snapshot.is_poisoned() && !self.memory_lost {
            self.memory_lost = true;
            self.link.tell(Event::MemoryLost);
        }
        let generation = Some(snapshot.generation());
        if self.generation == generation {
            return false;
        }
        self.generation = generation;
        self.attach_shadow();
        true
    }

    /// Switches to shadow doorbells, and returns those that they replace. While they are out of reach no doorbell has a
    /// value.
    pub fn set_shadow(&mut self, doorbells: u64, event_idx: u64) -> Doorbells {
        let old = std::mem::replace(&mut self.doorbells, Doorbells::new(Arc::clone(&self.page)));
        self.shadow = Some((doorbells, event_idx));
        self.attach_shadow();
        old
    }

    fn attach_shadow(&mut self) {
        let Some((doorbells, event_idx)) = self.shadow else { return };
        let len = shadow_len(self.page_size);
        match Shadow::attach(self.reader.snapshot(), doorbells, event_idx, len) {
            Ok(shadow) => self.doorbells.set_shadow(Some(shadow)),
            Err(error) => {
                tracing::warn!("shadow doorbells are out of reach: {error}");
                self.doorbells.lose_shadow();
            }
        }
    }

    /// Uses the guest's memory no more. What backends still have keeps its own hold on it.
    pub fn let_go_of_memory(&mut self) {
        self.shadow = None;
        self.doorbells.set_shadow(None);
        self.reader.snapshot();
    }

    /// The group of a completion queue.
    pub fn group(&self, cqid: u16) -> Option<usize> {
        *self.groups.get(usize::from(cqid))?
    }

    /// Notes or forgets the group of a completion queue.
    pub fn set_group(&mut self, cqid: u16, group: Option<usize>) {
        let at = usize::from(cqid);
        if self.groups.len() <= at {
            self.groups.resize(at + 1, None);
        }
        self.groups[at] = group;
    }

    /// Looks at the admin doorbells in the mapped page, if this worker is to; true if the control thread was told.
    pub fn poll_admin(&self) -> bool {
        let load = |completion| self.page.load(register_index(0, completion)).unwrap_or(0);
        self.admin && self.link.is_running() && self.link.tell_of_admin_doorbells(load(false), load(true))
    }

    /// Adds this batch's counters to the controller's.
    pub fn publish_batch(&mut self) {
        if self.batch != Batch::default() {
            self.shard.add(&self.batch);
            self.batch = Batch::default();
        }
    }
}
