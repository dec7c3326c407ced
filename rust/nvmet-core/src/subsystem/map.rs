//! The namespaces of a subsystem at one moment, with all that decides on who may do what on them.
//!
//! Immutable once published. Says the same to everybody; what one controller sees of it is [`View`](super::View)'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use nvmet_spec::feature::WriteProtectionState;

use super::ana::AnaStates;
use crate::namespace::Namespace;
use crate::reservation::Snapshot;

/// A namespace and what can change about it while it is in service.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The namespace.
    pub namespace: Arc<Namespace>,
    /// Whether hosts see it.
    pub enabled: bool,
    /// Write protected by the operator: no host can take that back.
    pub locked: bool,
    /// Write protected by a host (feature 84h).
    pub protection: WriteProtectionState,
    /// ANA Group Identifier.
    pub ana_group: u32,
    /// NQNs of the hosts that it is attached to; None: all.
    pub hosts: Option<Arc<[String]>>,
    /// Who may read and write.
    pub reservation: Arc<Snapshot>,
}

impl Slot {
    /// Whether writes are refused to everybody.
    pub fn write_protected(&self) -> bool {
        self.locked || self.namespace.read_only() || self.protection != WriteProtectionState::None
    }

    /// Whether it is attached to controllers of the host with this NQN.
    pub fn is_attached_to(&self, hostnqn: &str) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|other| other == hostnqn))
    }
}

/// The namespaces of a subsystem at one moment.
#[derive(Clone, Debug, Default)]
pub struct NamespaceMap {
    slots: Vec<Option<Slot>>,
    /// Whether hosts are told of ANA: its states mean something only then.
    pub(super) shared: bool,
    /// ANA states by controller.
    pub(super) ana: BTreeMap<u16, Arc<AnaStates>>,
    /// How often the state or the members of an ANA group changed, for whomever: by group.
    pub(super) group_changes: BTreeMap<u32, u64>,
}

impl NamespaceMap {
    /// The namespace of an NSID, whether or not it is enabled.
    pub fn get(&self, nsid: u32) -> Option<&Arc<Namespace>> {
        self.slot(nsid).map(|slot| &slot.namespace)
    }

    /// The namespaces by ascending NSID.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Namespace>> {
        self.slots().map(|slot| &slot.namespace)
    }

    /// The namespace of an NSID and its state.
    pub fn slot(&self, nsid: u32) -> Option<&Slot> {
        self.slots.get(nsid.checked_sub(1)? as usize)?.as_ref()
    }

    pub(super) fn slot_mut(&mut self, nsid: u32) -> Option<&mut Slot> {
        self.slots.get_mut(nsid.checked_sub(1)? as usize)?.as_mut()
    }

    /// The namespaces and their states by ascending NSID.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten()
    }

    /// The ANA states that a controller reports.
    pub fn ana(&self, cntlid: u16) -> Arc<AnaStates> {
        self.ana.get(&cntlid).cloned().unwrap_or_default()
    }

    /// How often the state or the members of ANA groups changed, by group, of those that did.
    pub fn ana_changes(&self) -> &BTreeMap<u32, u64> {
        &self.group_changes
    }

    pub(super) fn count_ana_change(&mut self, group: u32) {
        *self.group_changes.entry(group).or_default() += 1;
    }

    pub(super) fn set(&mut self, nsid: u32, slot: Option<Slot>) {
        let index = nsid as usize - 1;
        if self.slots.len() <= index {
            self.slots.resize(index + 1, None);
        }
        self.slots[index] = slot;
    }
}
