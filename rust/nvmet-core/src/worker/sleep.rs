//! How a worker sleeps: on its own eventfd and the descriptors of its backends.
//!
//! [`handshake`](super::handshake) says why no wake-up is lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll;

use super::mailbox::Shared;
use crate::error::TargetError;

/// Waits for work.
pub struct Sleeper {
    epoll: OwnedFd,
    shared: Arc<Shared>,
}

impl Sleeper {
    pub fn new(shared: Arc<Shared>) -> Result<Self, TargetError> {
        let system = |error| TargetError::system("make an epoll instance", error);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system)?;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&epoll, shared.wake.as_fd(), data, epoll::EventFlags::IN).map_err(system)?;
        Ok(Self { epoll, shared })
    }

    /// Also wakes when `fd` is readable, until it is closed.
    pub fn watch(&self, fd: BorrowedFd<'_>) -> Result<(), TargetError> {
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(1), epoll::EventFlags::IN)
            .map_err(|error| TargetError::system("watch a backend", error))
    }

    /// Waits until woken or for `limit`; the worker has said that it sleeps and has found nothing to do since. True if a
    /// backend's descriptor was readable.
    pub fn wait(&self, limit: Option<Duration>) -> bool {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let none = epoll::EventData::new_u64(0);
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: none }; 8];
        // An interrupted wait is a spurious wake-up like any other.
        let woken = epoll::wait(&self.epoll, events.as_mut_slice(), limit.as_ref()).unwrap_or(0);
        let woken = || events.iter().take(woken);
        if woken().any(|event| event.data.u64() == 0) {
            // Nothing to read is as good as read.
            let _ = self.shared.wake.drain();
        }
        woken().any(|event| event.data.u64() != 0)
    }
}
