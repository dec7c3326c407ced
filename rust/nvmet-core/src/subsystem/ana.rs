//! Asymmetric Namespace Access: which states the groups of a controller are in (NVMe Base 2.0, 8.1).
//!
//! Plain data, with nvmet's rule for groups that nobody has said anything of. Must not know namespaces.

use std::collections::BTreeMap;

pub use nvmet_spec::log::AnaState;
use nvmet_spec::status::Status;

/// The group whose namespaces are optimized unless told otherwise.
pub const DEFAULT_ANA_GROUP: u32 = 1;

/// The states of ANA groups, as one controller reports them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnaStates(BTreeMap<u32, AnaState>);

impl AnaStates {
    /// The state of a group: as set, else optimized for group 1 and inaccessible for others, as nvmet's ports have it.
    pub fn get(&self, group: u32) -> AnaState {
        self.0.get(&group).copied().unwrap_or(if group == DEFAULT_ANA_GROUP {
            AnaState::Optimized
        } else {
            AnaState::Inaccessible
        })
    }

    /// Puts a group into a state; whether it was in another one.
    pub fn set(&mut self, group: u32, state: AnaState) -> bool {
        let before = self.get(group);
        self.0.insert(group, state);
        before != state
    }

    /// The groups whose state was set, and their states, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, AnaState)> + '_ {
        self.0.iter().map(|(&group, &state)| (group, state))
    }
}

impl FromIterator<(u32, AnaState)> for AnaStates {
    fn from_iter<I: IntoIterator<Item = (u32, AnaState)>>(states: I) -> Self {
        Self(states.into_iter().collect())
    }
}

/// What commands for namespaces of a group in this state end with, if it keeps them from being carried out (8.1.3). Not
/// with Do Not Retry: another path may do better, and this one later.
pub fn refusal(state: AnaState) -> Option<Status> {
    match state {
        AnaState::Optimized | AnaState::NonOptimized => None,
        AnaState::Inaccessible | AnaState::Reserved(_) => Some(Status::ANA_INACCESSIBLE),
        AnaState::PersistentLoss => Some(Status::ANA_PERSISTENT_LOSS),
        AnaState::Change => Some(Status::ANA_TRANSITION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_nobody_set_are_as_nvmets_ports_have_them() {
        let mut states = AnaStates::default();
        assert_eq!(states.get(1), AnaState::Optimized);
        assert_eq!(states.get(2), AnaState::Inaccessible);
        assert!(!states.set(1, AnaState::Optimized), "it was");
        assert!(states.set(1, AnaState::Change));
        assert!(states.set(7, AnaState::NonOptimized));
        assert_eq!(states.iter().collect::<Vec<_>>(), [(1, AnaState::Change), (7, AnaState::NonOptimized)]);
    }

    #[test]
    fn three_states_refuse_commands_with_a_path_status_that_may_be_retried() {
        for (state, status) in [
            (AnaState::Optimized, None),
            (AnaState::NonOptimized, None),
            (AnaState::PersistentLoss, Some((3, 1))),
            (AnaState::Inaccessible, Some((3, 2))),
            (AnaState::Change, Some((3, 3))),
        ] {
            let refused = refusal(state);
            assert_eq!(refused.map(|status| (status.sct(), status.sc())), status, "{state:?}");
            assert!(refused.is_none_or(|status| !status.dnr()), "{state:?}");
        }
    }
}
