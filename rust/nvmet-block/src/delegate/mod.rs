//! The delegate backend: its operations are carried out by somebody else in this process, at their own pace.
//!
//! A queue copies what a write carries out of guest memory when it is submitted, and what a read brings into guest
//! memory when it is reaped. Between the two the data lies in [`Frames`], memory of this process: who carries an
//! operation out never sees the guest's memory, so an operation can be given up at any moment (cancelled, timed out)
//! while whoever has it goes on, for ever if need be.
//!
//! [`Delegate`] is the backend, [`Consumer`] the side that takes [`Request`]s and completes them, from any thread.
//!
//! May know: the traits, frames, time. Must not know: Python, or whoever else carries operations out.

mod consumer;
mod queue;
mod request;
mod slab;
#[cfg(test)]
mod tests;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

pub use consumer::{Consumer, Taken};
pub use request::{Kind, Request};
pub use slab::Frames;

use crate::backend::{Backend, Features, Geometry};
use crate::bounds::Bounds;
use crate::error::{BackendError, IoError};
use crate::queue::IoQueue;
use crate::size::{check_size, exact};
use consumer::Inbox;
use queue::DelegateQueue;
use slab::Slab;
use watchdog::Watchdog;

/// What a delegate is to be like.
#[derive(Debug, Clone)]
pub struct DelegateConfig {
    /// What it is, for people.
    pub what: String,
    /// Size in bytes, a multiple of the block size.
    pub size: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether there is a flush. Without one what was written is on the medium when it is completed.
    pub flush: bool,
    /// Whether there is a discard. Without one deallocation succeeds and does nothing.
    pub discard: bool,
    /// How long an operation may take before it fails with [`IoError::Retry`].
    pub timeout: Option<Duration>,
}

/// A backend whose operations are carried out by its [`Consumer`]s.
#[derive(Debug)]
pub struct Delegate {
    config: DelegateConfig,
    inbox: Arc<Inbox>,
    watchdog: Option<Arc<Watchdog>>,
}

impl Delegate {
    /// A delegate, and the one who carries its operations out.
    ///
    /// # Errors
    /// [`BackendError::Size`] for a size that is zero or not a multiple of the block size; [`BackendError::Memory`] for
    /// lack of descriptors or threads.
    pub fn new(config: DelegateConfig) -> Result<(Arc<Self>, Consumer), BackendError> {
        check_size(&config.what, config.size, config.block_size)?;
        let failed = |source| BackendError::Memory { what: config.what.clone(), source };
        let inbox = Arc::new(Inbox::new(config.size).map_err(failed)?);
        let watchdog =
            config.timeout.map(|limit| Watchdog::start(limit, &inbox)).transpose().map_err(failed)?;
        let consumer = Consumer::new(Arc::clone(&inbox));
        Ok((Arc::new(Self { config, inbox, watchdog }), consumer))
    }

    /// Another size, in bytes. Queues that are open keep the one that they were opened with, but what reaches beyond the
    /// new one, and nobody has taken yet, fails with [`IoError::OutOfRange`].
    ///
    /// # Errors
    /// [`BackendError::Size`] as [`new`](Self::new).
    pub fn set_size(&self, size: u64) -> Result<(), BackendError> {
        check_size(&self.config.what, size, self.config.block_size)?;
        self.inbox.set_size(size);
        Ok(())
    }
}

impl Backend for Delegate {
    fn geometry(&self) -> Geometry {
        /// What most media underneath like best.
        const PHYSICAL: u32 = 4096;
        let size = self.inbox.size();
        let block = self.config.block_size;
        let physical = if size.is_multiple_of(u64::from(PHYSICAL)) { PHYSICAL.max(block) } else { block };
        Geometry {
            size,
            min_block: block,
            preferred_block: block,
            physical_block: physical,
            optimal_io: 0,
            read_only: self.config.read_only,
        }
    }

    fn features(&self) -> Features {
        Features {
            volatile_write_cache: self.config.flush && !self.config.read_only,
            discard: self.config.discard,
            write_zeroes: true,
            discarded_reads_zero: false,
            stores_data: true,
        }
    }

    fn open_queue(&self, depth: u32) -> Result<Box<dyn IoQueue>, BackendError> {
        let failed = |source| BackendError::Memory { what: self.config.what.clone(), source };
        let slab = Slab::new().map_err(failed)?;
        let queue = DelegateQueue::new(
            Arc::clone(&self.inbox),
            self.watchdog.clone(),
            Bounds::new(&self.geometry()),
            (self.config.flush, self.config.discard),
            slab,
            depth,
        );
        Ok(Box::new(queue.map_err(failed)?))
    }

    fn sync(&self) -> Result<(), IoError> {
        if !self.features().volatile_write_cache {
            return Ok(());
        }
        self.inbox.flush_and_wait(self.config.timeout)
    }

    fn describe(&self) -> String {
        format!("{}, {}", self.config.what, exact(self.inbox.size()))
    }
}

impl Drop for Delegate {
    fn drop(&mut self) {
        self.inbox.close();
        if let Some(watchdog) = &self.watchdog {
            watchdog.stop();
        }
    }
}
