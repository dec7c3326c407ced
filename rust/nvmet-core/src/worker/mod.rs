//! Worker threads: they own the I/O queues and run the hot path.
//!
//! A completion queue and all submission queues that post to it (a group) belong to one worker at any time, so
//! nothing in them is shared. The control thread talks to a worker by [`Command`] and is answered by [`Event`] through
//! the controller's [`Link`]. Knows threads; must not know registers, admin commands or vfio-user.

mod balance;
mod batch;
mod commands;
mod controllers;
mod delivery;
mod groups;
mod handshake;
mod inflight;
mod interrupts;
mod link;
mod local;
mod mailbox;
mod moves;
mod namespaces;
mod orders;
mod pace;
mod reservations;
mod run;
mod schedule;
mod sleep;
#[cfg(test)]
mod tests;
mod tuning;
mod watch;

pub use link::{CommandFailure, Event, Link};
pub use local::LocalWorker;
pub use mailbox::{Command, WaitMode, WorkerConfig, WorkerHandle, WorkerPool};
pub use tuning::{Coalescing, Tuning, VectorSet};
