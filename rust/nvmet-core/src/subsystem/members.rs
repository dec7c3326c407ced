//! The controllers of a subsystem as it knows them, and the hosts that they belong to.

use std::sync::Arc;

use nvmet_spec::status::Status;
use uuid::Uuid;

use super::Subsystem;
use crate::error::TargetError;
use crate::reservation::{HostId, NoticeKind};

/// Whose controller it is: the host that it belongs to (design: identity is configured, stable, never zero).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIdentity {
    /// The host's NQN.
    pub nqn: String,
    /// The 128-bit Host Identifier.
    pub id: [u8; 16],
}

/// How NQNs begin that are a UUID (NVMe Base 2.0, 4.5).
const UUID_NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:";

impl HostIdentity {
    /// The host of a controller of `subsystem` that is reached at `place`: as configured, else derived from what stays
    /// the same over restarts. Never zero: with zero all hosts would be one to reservations.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] for the identifier zero.
    pub fn new(
        subsystem: &str,
        place: &[u8],
        nqn: Option<String>,
        id: Option<HostId>,
    ) -> Result<Self, TargetError> {
        if id == Some([0; 16]) {
            return Err(TargetError::config("hostid", "0", "use any value but zero, for example a UUID"));
        }
        let derived = |name: &[u8]| Uuid::new_v5(&Uuid::NAMESPACE_URL, name);
        let nqn = nqn.unwrap_or_else(|| {
            let by_place = || derived(&[subsystem.as_bytes(), b"\0", place].concat());
            format!("{UUID_NQN}{}", id.map_or_else(by_place, Uuid::from_bytes))
        });
        let id = id.unwrap_or_else(|| {
            // As hosts of Linux have it: the UUID of the name is the identifier.
            let named = nqn.strip_prefix(UUID_NQN).and_then(|text| Uuid::parse_str(text).ok());
            named.filter(|uuid| !uuid.is_nil()).unwrap_or_else(|| derived(nqn.as_bytes())).into_bytes()
        });
        Ok(Self { nqn, id })
    }

    /// Whether both can be: a host has one name and one identifier, or reservations would take one for two, or two for
    /// one.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if not.
    pub fn check_beside(&self, other: &Self) -> Result<(), TargetError> {
        if other.nqn == self.nqn && other.id != self.id {
            let fix = "a controller of this host has another Host Identifier: give both the same one";
            return Err(TargetError::config("hostnqn", &self.nqn, fix));
        }
        if other.nqn != self.nqn && other.id == self.id {
            let fix = format!("{} has this Host Identifier: give each host its own", other.nqn);
            return Err(TargetError::config("hostid", Uuid::from_bytes(self.id), fix));
        }
        Ok(())
    }
}

/// A controller by its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Controller Identifier.
    pub cntlid: u16,
    /// The host that it belongs to.
    pub host: HostIdentity,
}

/// Held by everything that must end before something goes on: when the last holder drops it, whoever waits is told.
pub struct Hold(Box<dyn Fn() + Send + Sync>);

impl Hold {
    /// `over` is called when the last holder is gone, on its thread.
    pub fn new(over: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self(Box::new(over)))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hold")
    }
}

/// What a subsystem asks of a controller. Called from any thread, sometimes under the subsystem's lock: it only passes
/// the word.
pub trait Member: Send + Sync {
    /// Namespaces or health are not what they were.
    fn changed(&self);

    /// A reservation notification for its host (NVMe Base 2.0, 8.19.2).
    fn notify(&self, nsid: u32, kind: NoticeKind);

    /// `hold` is for its I/O commands that are on their way on the namespace with this [id](crate::namespace::Namespace::id),
    /// and for workers until they know the latest map. With `end` the commands are aborted, with this status.
    fn fence(&self, namespace: u64, end: Option<Status>, hold: &Arc<Hold>);

    /// NVM Subsystem Reset (NVMe Base 2.0, 3.7.1).
    fn subsystem_reset(&self);
}

/// A controller that has joined.
pub(super) struct Joined {
    pub who: Who,
    /// None until it is ready to hear something.
    pub member: Option<Arc<dyn Member>>,
}

impl Subsystem {
    /// Backends may have commands of a controller for long after it has [left](Self::leave): fences reach them by
    /// `remains`, for as long as somebody has what this returns.
    pub fn leave_behind(self: &Arc<Self>, host: HostId, remains: Arc<dyn Member>) -> Arc<Hold> {
        let mut state = self.lock();
        let number = state.next_remains;
        state.next_remains += 1;
        state.remains.push((number, host, remains));
        let subsystem = Arc::downgrade(self);
        Hold::new(move || {
            if let Some(subsystem) = subsystem.upgrade() {
                subsystem.lock().remains.retain(|(other, ..)| *other != number);
            }
        })
    }
}
