//! The commands that a worker has fetched and not completed: a slab, indexed by the tag that backends carry.

use std::sync::Arc;

use nvmet_spec::command::Sqe;
use nvmet_spec::status::Status;

use crate::io::decode::IoCommand;
use crate::namespace::Namespace;
use crate::queue::Permit;
use crate::subsystem::Hold;

/// A tag is a slot in bits 31:0, the number of an operation in bits 39:32, a generation above.
const GENERATION_SHIFT: u32 = 40;
const GENERATION_MASK: u32 = 0xff_ffff;

/// Where a command came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A submission queue of a group, by their indexes in the worker.
    Queue {
        /// Index of the group.
        group: usize,
        /// Index of the submission queue in the group.
        sq: usize,
    },
    /// The worker itself: a flush that the controller asked for.
    Flush,
    /// A queue that is gone: the result interests nobody.
    Orphan,
}

/// The place of a command in a fused pair (NVMe Base 2.0, 3.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pair {
    /// Not fused.
    Single,
    /// The Compare; the slot of its Write.
    First(u32),
    /// The Write.
    Second,
}

/// Blocks that are taken for a fused pair, as long as this lives.
#[derive(Debug)]
pub struct FusedLock {
    namespace: Arc<Namespace>,
    first: u64,
    count: u64,
}

impl FusedLock {
    /// Takes the blocks; None if another pair holds a part of them.
    pub fn try_new(namespace: &Arc<Namespace>, first: u64, count: u64) -> Option<Self> {
        namespace.try_lock_fused(first, count).then(|| Self {
            namespace: Arc::clone(namespace),
            first,
            count,
        })
    }
}

impl Drop for FusedLock {
    fn drop(&mut self) {
        self.namespace.unlock_fused(self.first, self.count);
    }
}

/// Holds that a command has, newest first, as long as this lives.
#[derive(Debug)]
pub struct Holds {
    _hold: Arc<Hold>,
    before: Option<Box<Holds>>,
}

impl Drop for Holds {
    /// One by one: hosts decide on how many there are, and the stack is small.
    fn drop(&mut self) {
        let mut next = self.before.take();
        while let Some(mut holds) = next {
            next = holds.before.take();
        }
    }
}

/// A command on its way.
#[derive(Debug)]
pub struct Entry {
    generation: u32,
    /// Index of the controller in the worker.
    pub controller: usize,
    /// Where it came from.
    pub origin: Origin,
    /// The kept place in the completion queue.
    pub permit: Option<Permit>,
    /// The command as fetched.
    pub sqe: Sqe,
    /// The command as decoded, once it is.
    pub command: Option<IoCommand>,
    /// Index of the namespace's queue in the worker; of none before the command is issued.
    pub namespace: usize,
    /// Operations that the backend has.
    pub pending: u32,
    /// Operations issued so far.
    pub next: u32,
    /// The first error so far.
    pub status: Status,
    /// Fused pairs.
    pub pair: Pair,
    /// Held by the Write of a pair, from the beginning of its Compare on.
    pub lock: Option<FusedLock>,
    /// Whether it, or the rest of it, waits to be issued.
    pub stalled: bool,
    /// Token of the Abort command that waits for this one.
    pub abort: Option<u32>,
    /// What it ends with if its backend gives it back undone; success: the backend's word.
    pub cancelled: Status,
    /// Those that wait for its end.
    pub holds: Option<Box<Holds>>,
    /// Lives while the subsystem is asked for something for it.
    pub asking: Option<Arc<()>>,
}

impl Entry {
    /// A command that nothing has been done for yet.
    pub fn new(controller: usize, origin: Origin, permit: Option<Permit>, sqe: Sqe) -> Self {
        Self {
            generation: 0,
            controller,
            origin,
            permit,
            sqe,
            command: None,
            namespace: usize::MAX,
            pending: 0,
            next: 0,
            status: Status::SUCCESS,
            pair: Pair::Single,
            lock: None,
            stalled: false,
            abort: None,
            cancelled: Status::SUCCESS,
            holds: None,
            asking: None,
        }
    }

    /// Lets `hold` go when the command has ended, and not before.
    pub fn add_hold(&mut self, hold: Arc<Hold>) {
        self.holds = Some(Box::new(Holds { _hold: hold, before: self.holds.take() }));
    }
}

/// The commands on their way.
#[derive(Debug, Default)]
pub struct Inflight {
    entries: Vec<Option<Entry>>,
    generations: Vec<u32>,
    free: Vec<u32>,
}

impl Inflight {
    /// Makes room for `total` commands, so that inserting them does not allocate.
    pub fn reserve(&mut self, total: usize) {
        let additional = total.saturating_sub(self.entries.len());
        self.entries.reserve(additional);
        self.generations.reserve(additional);
        self.free.reserve(total.saturating_sub(self.free.len()));
    }

    /// Takes a command in; returns its slot.
    pub fn insert(&mut self, mut entry: Entry) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.generations.push(0);
            (self.entries.len() - 1) as u32
        });
        entry.generation = self.generations[slot as usize];
        self.entries[slot as usize] = Some(entry);
        slot
    }

    /// The tag that the next command taken in will have.
    pub fn next_tag(&self) -> u64 {
        let slot = self.free.last().copied().unwrap_or(self.entries.len() as u32);
        let generation = self.generations.get(slot as usize).copied().unwrap_or(0);
        u64::from(generation) << GENERATION_SHIFT | u64::from(slot)
    }

    /// The tag of the command in a slot, with room for the number of an operation
    /// ([`operation_tag`](crate::io::execute::operation_tag)). No other command has it before 2²⁴ more have passed
    /// through the slot.
    pub fn tag(&self, slot: u32) -> u64 {
        u64::from(self.generations[slot as usize]) << GENERATION_SHIFT | u64::from(slot)
    }

    /// The slot of a tag, if its command is still there.
    pub fn slot(&self, tag: u64) -> Option<u32> {
        let slot = tag as u32;
        let entry = self.entries.get(slot as usize)?.as_ref()?;
        (u64::from(entry.generation) == tag >> GENERATION_SHIFT).then_some(slot)
    }

    /// The command in a slot.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)?.as_mut()
    }

    /// Takes a command out.
    pub fn remove(&mut self, slot: u32) {
        let Some(entry @ Some(_)) = self.entries.get_mut(slot as usize) else { return };
        *entry = None;
        let generation = &mut self.generations[slot as usize];
        *generation = (*generation + 1) & GENERATION_MASK;
        self.free.push(slot);
    }

    /// All commands with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Entry)> {
        self.entries.iter().enumerate().filter_map(|(slot, entry)| Some((slot as u32, entry.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::execute::operation_tag;
    use zerocopy::FromZeros;

    #[test]
    fn every_operation_of_a_command_has_a_tag_that_leads_to_it() {
        let mut inflight = Inflight::default();
        for _ in 0..3 {
            let slot = inflight.insert(entry());
            inflight.remove(slot);
        }
        let slots = [inflight.insert(entry()), inflight.insert(entry())];
        for slot in slots {
            for index in 0..256 {
                assert_eq!(inflight.slot(operation_tag(inflight.tag(slot), index)), Some(slot));
            }
        }
    }

    fn entry() -> Entry {
        Entry::new(0, Origin::Orphan, None, Sqe::new_zeroed())
    }

    #[test]
    fn any_number_of_holds_is_let_go_of() {
        let (tell, told) = std::sync::mpsc::channel();
        let mut entry = entry();
        for _ in 0..1_000_000 {
            let tell = tell.clone();
            entry.add_hold(Hold::new(move || tell.send(()).unwrap()));
        }
        assert_eq!(told.try_iter().count(), 0);
        drop(entry);
        assert_eq!(told.try_iter().count(), 1_000_000);
    }

    #[test]
    fn a_tag_dies_with_its_command() {
        let mut inflight = Inflight::default();
        let first = inflight.insert(entry());
        let tag = inflight.tag(first);
        assert_eq!(inflight.slot(tag), Some(first));
        inflight.remove(first);
        let foretold = inflight.next_tag();
        let first = inflight.insert(entry());
        let tag = inflight.tag(first);
        assert_eq!(tag, foretold);
        assert_eq!(inflight.slot(tag), Some(first));
        inflight.remove(first);
        assert_eq!(inflight.slot(tag), None);
        let second = inflight.insert(entry());
        assert_eq!(second, first, "slots are used again");
        assert_eq!(inflight.slot(tag), None, "the old tag does not name the new command");
    }
}
