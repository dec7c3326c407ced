//! What a namespace keeps beside its data: reservations (NVMe Base 2.0, 8.19) and write protection (8.12).
//!
//! May know the reservation state machine and its file. Must not know who asks, or who has to be told of a change.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nvmet_spec::feature::WriteProtectionState;
use nvmet_spec::status::Status;

use crate::reservation::{Saved, State, Store};

/// What hosts have set on a namespace, for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Registrants and the reservation.
    pub reservations: State,
    /// The state that hosts set with feature 84h.
    pub protection: WriteProtectionState,
}

impl Default for Kept {
    fn default() -> Self {
        Self { reservations: State::default(), protection: WriteProtectionState::None }
    }
}

impl Kept {
    /// As it is at power on, from what the file says.
    fn at_power_on(saved: Saved) -> Self {
        let protection = if saved.write_protected {
            WriteProtectionState::WriteProtect
        } else {
            WriteProtectionState::None
        };
        Self { reservations: saved.reservations, protection }
    }

    /// What the next power on is to find.
    fn to_save(&self) -> Saved {
        Saved {
            reservations: self.reservations.at_power_on(),
            write_protected: self.protection == WriteProtectionState::WriteProtect,
        }
    }
}

/// Keeps it, in memory and, where there is a file, there.
#[derive(Debug, Default)]
pub struct Keeper {
    reservations: bool,
    store: Option<(PathBuf, Store)>,
    kept: Mutex<Kept>,
    /// Held by who changes it, for as long as the medium takes; who reads does not wait for that.
    changing: Mutex<()>,
}

impl Keeper {
    /// Nothing is reserved and nothing outlasts the target. `reservations`: whether hosts may reserve.
    pub fn in_memory(reservations: bool) -> Self {
        Self { reservations, ..Self::default() }
    }

    /// With a file, at `path`, and what it said.
    pub fn with_store(reservations: bool, path: PathBuf, store: Store, saved: Saved) -> Self {
        let kept = Mutex::new(Kept::at_power_on(saved));
        Self { reservations, store: Some((path, store)), kept, changing: Mutex::default() }
    }

    /// Whether hosts may reserve.
    pub fn takes_reservations(&self) -> bool {
        self.reservations
    }

    /// Whether what is kept outlasts the target: Persist Through Power Loss is possible.
    pub fn persists(&self) -> bool {
        self.store.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept now.
    pub fn read<T>(&self, look: impl FnOnce(&Kept) -> T) -> T {
        look(&self.lock())
    }

    /// Changes it. What has to outlast the target is on the medium before this returns. May block for as long as the
    /// medium takes; not for workers, and not for the control thread.
    ///
    /// # Errors
    ///
    /// Those of `change`, and Internal Error if the file cannot be written; nothing has changed then.
    pub fn change<T>(&self, change: impl FnOnce(&mut Kept) -> Result<T, Status>) -> Result<T, Status> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.lock().clone();
        let result = change(&mut next)?;
        // Also what the last one left: if that failed late, the file may be the new one. Free if it has it already.
        if let Some((path, store)) = &self.store {
            store.save(&next.to_save()).map_err(|error| {
                tracing::error!("state file {}: {error}; the command that changed it failed", path.display());
                Status::INTERNAL_ERROR
            })?;
        }
        *self.lock() = next;
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reservation::{Identity, testing};

    #[test]
    fn what_a_save_that_failed_late_left_in_the_file_is_gone_with_the_next_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let open = || {
            let identity = Identity { nqn: "nqn.test".into(), nsid: 1, uuid: [1; 16] };
            let (store, saved) = Store::open(&path, identity, false).unwrap();
            Keeper::with_store(true, path.clone(), store, saved)
        };
        let protect = |keeper: &Keeper, protection| {
            keeper.change(|kept| {
                kept.protection = protection;
                Ok(())
            })
        };
        let keeper = open();
        testing::arm(None);
        protect(&keeper, WriteProtectionState::WriteProtect).unwrap();
        let last = testing::steps().len() - 1;
        protect(&keeper, WriteProtectionState::None).unwrap();
        testing::arm(Some((last, testing::Fault::Fail)));
        assert_eq!(protect(&keeper, WriteProtectionState::WriteProtect), Err(Status::INTERNAL_ERROR));
        assert_eq!(keeper.read(|kept| kept.protection), WriteProtectionState::None);
        assert!(path.exists(), "it was renamed before it failed");
        // Nothing new is to be kept, and yet the file is not what it should be.
        testing::arm(None);
        protect(&keeper, WriteProtectionState::None).unwrap();
        drop(keeper);
        assert_eq!(open().read(|kept| kept.protection), WriteProtectionState::None);
    }

    #[test]
    fn who_reads_does_not_wait_for_who_changes_it() {
        let keeper = Keeper::in_memory(true);
        let changed = keeper.change(|kept| {
            kept.protection = WriteProtectionState::WriteProtect;
            Ok(keeper.read(|kept| kept.protection))
        });
        assert_eq!(changed, Ok(WriteProtectionState::None), "it is not changed before it is kept");
        assert_eq!(keeper.read(|kept| kept.protection), WriteProtectionState::WriteProtect);
    }
}
