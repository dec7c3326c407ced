//! What one controller sees of its subsystem's namespaces, and what it may do on them.
//!
//! Made once for each change and each user, so that a command costs one look-up. May know hosts, ANA and reservations;
//! must not know queues or commands.

use std::sync::Arc;

use nvmet_spec::log::AnaState;
use nvmet_spec::status::Status;

use super::ana::{AnaStates, refusal};
use super::map::{NamespaceMap, Slot};
use super::members::Who;
use crate::namespace::Namespace;
use crate::reservation::Access;

/// What commands of one controller end with on one namespace before anything else is looked at; None: they are carried
/// out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// Any command (ANA state; NVMe Base 2.0, 8.1.3).
    pub any: Option<Status>,
    /// Read and Compare.
    pub read: Option<Status>,
    /// Write, Write Zeroes, Dataset Management.
    pub write: Option<Status>,
    /// Flush, which reservations count among the writes (NVMe Base 2.0, 8.19.1) and write protection does not.
    pub flush: Option<Status>,
}

impl Gate {
    /// Everything is carried out.
    pub const OPEN: Self = Self { any: None, read: None, write: None, flush: None };

    fn new(slot: &Slot, state: AnaState, host: &[u8; 16]) -> Self {
        let conflict = Status::RESERVATION_CONFLICT.with_dnr();
        let (read, write) = match slot.reservation.access(host) {
            Access::Full => (None, None),
            Access::ReadOnly => (None, Some(conflict)),
            Access::None => (Some(conflict), Some(conflict)),
        };
        let protected = slot.write_protected().then_some(Status::NAMESPACE_WRITE_PROTECTED.with_dnr());
        let any = refusal(state);
        Self { any, read: any.or(read), write: any.or(write).or(protected), flush: any.or(write) }
    }

    /// Whether every command is carried out.
    pub fn is_open(&self) -> bool {
        *self == Self::OPEN
    }
}

/// An active namespace as a controller sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The namespace and its state.
    pub slot: Slot,
    /// The state of its ANA group on this controller.
    pub ana: AnaState,
    /// What may be done on it.
    pub gate: Gate,
}

impl Seen {
    /// The namespace.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.slot.namespace
    }

    /// What a host is told of when it changes (Namespace Attribute Changed).
    fn attributes(&self) -> (u64, bool, u32) {
        (self.namespace().uid(), self.slot.write_protected(), self.slot.ana_group)
    }
}

/// What one controller sees.
#[derive(Clone, Debug)]
pub struct View {
    map: Arc<NamespaceMap>,
    seen: Vec<Option<Seen>>,
    ana: Arc<AnaStates>,
}

impl View {
    /// What the controller `who` sees of `map`: what is enabled and attached to its host.
    pub fn new(map: Arc<NamespaceMap>, who: &Who) -> Self {
        let ana = map.ana(who.cntlid);
        let mut seen = Vec::new();
        for slot in map.slots().filter(|slot| slot.enabled && slot.is_attached_to(&who.host.nqn)) {
            let state = if map.shared { ana.get(slot.ana_group) } else { AnaState::Optimized };
            let gate = Gate::new(slot, state, &who.host.id);
            let index = slot.namespace.nsid() as usize - 1;
            seen.resize_with(index, || None);
            seen.push(Some(Seen { slot: slot.clone(), ana: state, gate }));
        }
        Self { map, seen, ana }
    }

    /// What everybody's view is made of.
    pub fn map(&self) -> &Arc<NamespaceMap> {
        &self.map
    }

    /// The namespace of an NSID, if it is active.
    pub fn get(&self, nsid: u32) -> Option<&Seen> {
        self.seen.get(nsid.checked_sub(1)? as usize)?.as_ref()
    }

    /// The active namespaces by ascending NSID.
    pub fn iter(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().flatten()
    }

    /// The states of ANA groups.
    pub fn ana(&self) -> &AnaStates {
        &self.ana
    }

    /// The NSIDs that a host of `other`, a later view, has to hear of, ascending.
    pub fn changed_to(&self, other: &View) -> Vec<u32> {
        let attributes = |view: &View, nsid| view.get(nsid).map(Seen::attributes);
        let last = self.seen.len().max(other.seen.len()) as u32;
        (1..=last).filter(|&nsid| attributes(self, nsid) != attributes(other, nsid)).collect()
    }

    /// Whether in `other`, a later view, a group is in another state, or a namespace in another group.
    pub fn ana_differs(&self, other: &View) -> bool {
        let moved = |seen: &Seen| {
            let later = other.get(seen.namespace().nsid());
            later.is_some_and(|later| later.slot.ana_group != seen.slot.ana_group)
        };
        self.ana != other.ana || self.iter().any(moved)
    }
}
