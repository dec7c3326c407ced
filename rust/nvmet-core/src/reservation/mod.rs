//! Reservations of one namespace (Base §7.2 to §7.5, §8.19): who is registered, who holds what, what that lets a host
//! do, and how it outlives the target.
//!
//! Plain values without threads, queues or controllers: the caller serialises commands, publishes the [`Snapshot`],
//! saves what [`Saved`] is to keep, tells the hosts of an [`Outcome`] and ends their commands.

mod access;
mod command;
mod preempt;
mod report;
mod saved;
mod state;
mod store;

pub use access::{Access, Snapshot};
pub use command::Command;
pub use saved::{DecodeError, Identity, Saved};
pub use state::{MAX_REGISTRANTS, Notice, NoticeKind, Outcome, Registrant, State};
#[cfg(test)]
pub(crate) use store::testing;
pub use store::{Store, StoreError};

/// A host, by its 128-bit Host Identifier; a 64-bit one is followed by zeroes. Registrations are a host's, not a
/// controller's (Base §8.19).
pub type HostId = [u8; 16];

#[cfg(test)]
mod tests;
