//! The backend queues of a worker: one for each namespace, whatever the number of controllers that reach it.

use std::collections::HashMap;
use std::sync::Arc;

use nvmet_block::{IoError, IoQueue};

use super::sleep::Sleeper;
use crate::namespace::Namespace;
use crate::stats::{Batch, Shard};
use crate::subsystem::{Gate, View};

/// Operations that a backend queue should be able to hold. More wait in the worker.
const DEPTH: u32 = 1024;

/// So many times in a row completions came from other threads alone, before these get the CPU.
const ALONE: u32 = 16;

/// A namespace as one worker sees it.
pub struct NamespaceQueue {
    /// The namespace.
    pub namespace: Arc<Namespace>,
    /// Where operations go. None if it could not be opened: commands end with Namespace Not Ready.
    pub queue: Option<Box<dyn IoQueue>>,
    /// It has refused an operation since [`NamespaceQueues::expect_room`].
    pub full: bool,
    /// It is in the list of those with operations in flight.
    listed: bool,
    users: u32,
    shard: Arc<Shard>,
}

/// The backend queues of a worker.
#[derive(Default)]
pub struct NamespaceQueues {
    slots: Vec<Option<NamespaceQueue>>,
    /// Index by [`Namespace::uid`].
    known: HashMap<u64, usize>,
    /// Those with operations in flight, which have to be kicked and reaped.
    busy: Vec<usize>,
    /// Some have no user any more, but operations in flight.
    draining: bool,
    /// How many times completions came from other threads since a command was carried out otherwise.
    alone: u32,
}

/// A namespace that a controller reaches.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Index of its backend queue.
    pub queue: usize,
    /// What its commands are refused with.
    pub gate: Gate,
    /// The gate refuses nothing.
    pub open: bool,
}

/// What a controller reaches, by NSID.
#[derive(Debug, Default)]
pub struct NamespaceIndex {
    by_nsid: Vec<Option<Place>>,
}

impl NamespaceIndex {
    /// The place of an NSID, if the namespace is active.
    #[inline]
    pub fn get(&self, nsid: u32) -> Option<&Place> {
        self.by_nsid.get((nsid as usize).wrapping_sub(1))?.as_ref()
    }

    /// The first active namespace after `nsid`, and its place.
    pub fn after(&self, nsid: u32) -> Option<(u32, Place)> {
        let rest = self.by_nsid.iter().zip(1..).skip(nsid as usize);
        rest.filter_map(|(place, nsid)| Some((nsid, (*place)?))).next()
    }

    /// The indexes of the backend queues of all active namespaces, by ascending NSID.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.by_nsid.iter().flatten().map(|place| place.queue)
    }
}

impl NamespaceQueues {
    /// The queue at an index that a [`NamespaceIndex`] gave.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut NamespaceQueue> {
        self.slots.get_mut(index)?.as_mut()
    }

    /// Opens what `view` has and returns the index of it.
    pub fn acquire(&mut self, view: &View, sleeper: &Sleeper) -> NamespaceIndex {
        let mut index = NamespaceIndex::default();
        for seen in view.iter() {
            let queue = self.open(seen.namespace(), sleeper);
            index.by_nsid.resize(seen.namespace().nsid() as usize - 1, None);
            index.by_nsid.push(Some(Place { queue, gate: seen.gate, open: seen.gate.is_open() }));
        }
        index
    }

    /// Gives an index back; queues that nobody uses are closed once idle.
    pub fn release(&mut self, index: &NamespaceIndex) {
        for at in index.iter() {
            if let Some(slot) = self.get_mut(at) {
                slot.users -= 1;
            }
        }
        self.close_idle();
    }

    fn open(&mut self, namespace: &Arc<Namespace>, sleeper: &Sleeper) -> usize {
        if let Some(&at) = self.known.get(&namespace.uid())
            && let Some(slot) = self.get_mut(at)
        {
            slot.users += 1;
            return at;
        }
        let opened = namespace.backend().open_queue(DEPTH).map_err(|error| error.to_string());
        let queue = match opened.and_then(|queue| {
            if let Some(ready) = queue.ready() {
                sleeper.watch(ready).map_err(|error| error.to_string())?;
            }
            Ok(queue)
        }) {
            Ok(queue) => Some(queue),
            Err(error) => {
                tracing::error!(nsid = namespace.nsid(), "namespace {}: {error}", namespace.nsid());
                None
            }
        };
        let slot = NamespaceQueue {
            namespace: Arc::clone(namespace),
            queue,
            full: false,
            listed: false,
            users: 1,
            shard: namespace.stats().shard(),
        };
        let at = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[at] = Some(slot);
        self.known.insert(namespace.uid(), at);
        at
    }

    /// Counts what was done on a namespace.
    pub fn count(&mut self, index: usize, batch: &Batch) {
        if let Some(slot) = self.get_mut(index) {
            slot.shard.add(batch);
        }
    }

    /// Called when a backend has accepted an operation.
    pub fn accepted(&mut self, index: usize) {
        if let Some(slot) = self.get_mut(index)
            && !std::mem::replace(&mut slot.listed, true)
        {
            self.busy.push(index);
        }
    }

    /// Before a sleep; true if the worker must not sleep. `roused` says that a backend's descriptor ended the last one:
    /// then also queues without operations in flight have to make theirs not readable.
    pub fn prepare_sleep(&mut self, roused: bool) -> bool {
        let slots = self.slots.iter_mut().flatten().filter(|slot| roused || slot.listed);
        let queues = slots.filter_map(|slot| slot.queue.as_mut());
        // Each of them, also after one that is awake.
        queues.fold(false, |awake, queue| queue.prepare_sleep() | awake)
    }

    /// Has the backends let go of guest memory that was unmapped, or of `all`.
    pub fn forget_memory(&mut self, all: bool) {
        for queue in self.slots.iter_mut().flatten().filter_map(|slot| slot.queue.as_mut()) {
            queue.forget_memory(all);
        }
    }

    /// Gives the backends what was submitted since the last call.
    pub fn kick(&mut self) {
        for &at in &self.busy {
            if let Some(queue) = self.slots[at].as_mut().and_then(|slot| slot.queue.as_mut()) {
                queue.kick();
            }
        }
    }

    /// Collects what is done into `done`.
    pub fn reap(&mut self, done: &mut Vec<(u64, Result<(), IoError>)>) {
        let (slots, alone) = (&mut self.slots, &mut self.alone);
        self.busy.retain(|&at| {
            let Some(slot) = slots[at].as_mut() else { return false };
            let Some(queue) = slot.queue.as_mut() else { return false };
            let (before, theirs) = (done.len(), queue.wants_cpu());
            queue.reap(&mut |tag, result| done.push((tag, result)));
            if done.len() > before {
                *alone = if theirs { alone.saturating_add(1) } else { 0 };
            }
            slot.listed = queue.in_flight() > 0;
            slot.listed
        });
    }

    /// Closes queues that had operations in flight when their last user left, once these are over.
    pub fn close_drained(&mut self) {
        if self.draining {
            self.close_idle();
        }
    }

    /// Whether other threads of this process have work of ours, and could use this CPU for it. Not while commands come
    /// for other backends: who lets a thread that computes have the CPU gets it back late, and these are not to wait.
    pub fn want_cpu(&self) -> bool {
        let queue = |&at: &usize| self.slots[at].as_ref()?.queue.as_ref();
        self.alone >= ALONE && self.busy.iter().filter_map(queue).any(|queue| queue.wants_cpu())
    }

    /// Called when commands were done on the spot.
    #[inline]
    pub fn done_at_once(&mut self) {
        self.alone = 0;
    }

    /// Forgets which backends were full.
    pub fn expect_room(&mut self) {
        self.slots.iter_mut().flatten().for_each(|slot| slot.full = false);
    }

    /// Whether a backend has refused an operation since [`expect_room`](Self::expect_room).
    pub fn is_full(&self, index: usize) -> bool {
        self.slots.get(index).and_then(Option::as_ref).is_some_and(|slot| slot.full)
    }

    /// Asks for an early end of a command's operations, in one backend or in all.
    pub fn cancel(&mut self, tag: u64, index: Option<usize>) {
        let slots =
            self.slots.iter_mut().enumerate().filter(|(at, _)| index.is_none_or(|index| index == *at));
        for queue in slots.filter_map(|(_, slot)| slot.as_mut()?.queue.as_mut()) {
            queue.cancel(tag);
        }
    }

    /// Closes queues that no controller uses and that have nothing in flight.
    fn close_idle(&mut self) {
        self.draining = false;
        for slot in &mut self.slots {
            let Some(unused) = slot.as_ref().filter(|slot| slot.users == 0) else { continue };
            if unused.queue.as_ref().is_none_or(|queue| queue.in_flight() == 0) {
                self.known.remove(&unused.namespace.uid());
                // Closing the queue's descriptor takes it out of the sleeper's set.
                *slot = None;
            } else {
                self.draining = true;
            }
        }
    }
}
