//! A worker without a thread of its own: whoever has it drives it, turn by turn.
//!
//! For benches, which measure the hot path without a scheduler in it, and for tests, which decide what happens when.
//! It is the same worker that a [`WorkerPool`](super::WorkerPool) runs; only sleeping is left out.

use std::sync::Arc;
use std::sync::mpsc;

use super::mailbox::{Address, Command, Shared, WaitMode};
use super::run::Worker;
use crate::error::TargetError;

/// A worker that runs on the thread that calls [`LocalWorker::turn`].
pub struct LocalWorker {
    address: Address,
    worker: Worker,
}

impl LocalWorker {
    /// A worker without controllers.
    ///
    /// # Errors
    ///
    /// [`TargetError::System`] if the descriptors that a worker has cannot be had.
    pub fn new() -> Result<Self, TargetError> {
        let (commands, mailbox) = mpsc::channel();
        let address = Address { commands, shared: Arc::new(Shared::new()?) };
        let worker = Worker::new(mailbox, address.clone(), WaitMode::default(), None)?;
        Ok(Self { address, worker })
    }

    /// Hands over a command; the next turn obeys it.
    pub fn send(&self, command: Command) {
        self.address.send(command);
    }

    /// One turn through mail, doorbells and completions; whether there was anything to do. If not, interrupts that are
    /// not held back over a sleep are sent.
    pub fn turn(&mut self) -> bool {
        let busy = self.worker.turn();
        if !busy {
            self.worker.settle_for_sleep();
        }
        busy
    }

    /// A turn, and what comes before a sleep if it brought nothing; whether the worker would sleep until it is woken.
    #[cfg(test)]
    pub(super) fn doze(&mut self) -> bool {
        !self.worker.turn() && self.worker.lie_down(None) == Some(None)
    }
}
