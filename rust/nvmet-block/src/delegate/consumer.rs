//! The side that carries operations out: it takes requests in batches and completes them one by one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nvmet_dma::EventFd;

use super::request::{Home, Kind, Request};
use crate::error::IoError;

/// What [`Consumer::take`] found.
#[derive(Debug, Default)]
pub struct Taken {
    /// To be carried out and completed, oldest first.
    pub requests: Vec<Arc<Request>>,
    /// Requests that were taken before and given up since: nobody waits for them.
    pub given_up: Vec<Arc<Request>>,
    /// There will be no more requests.
    pub closed: bool,
}

/// Takes requests. Clones share the work.
#[derive(Debug, Clone)]
pub struct Consumer {
    inbox: Arc<Inbox>,
}

impl Consumer {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox }
    }

    /// Takes up to `limit` requests; waits for some if there are none, up to `timeout` (None: for ever). With 0 none are
    /// taken: who has no room for more learns of those that were given up, and of the end.
    ///
    /// Returns with nothing after `timeout`, when a taken request was given up, after a [`poke`](Self::poke), and when
    /// there will be no more.
    /// With `together` all are of one queue, so that their frames are in one arena.
    #[must_use]
    pub fn take(&self, limit: usize, together: bool, timeout: Option<Duration>) -> Taken {
        self.inbox.take(limit, together, timeout)
    }

    /// Readable while [`take`](Self::take) would not wait, for those who wait for more than this; to be
    /// [drained](Self::drain) before each `take`. Signalled from the first call on.
    ///
    /// The same one for all clones.
    #[must_use]
    pub fn ready(&self) -> BorrowedFd<'_> {
        self.inbox.lock().signals = true;
        self.inbox.ready.as_fd()
    }

    /// Makes [`ready`](Self::ready) not readable, until something comes.
    pub fn drain(&self) {
        let _ = self.inbox.ready.drain();
    }

    /// How many requests wait to be taken.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inbox.lock().waiting.len()
    }

    /// Has one [`take`](Self::take) return with nothing: there is something else to do.
    pub fn poke(&self) {
        let mut state = self.inbox.lock();
        state.poked = true;
        self.inbox.wake(state, false, true);
    }

    /// Ends the backend: what waits fails with [`IoError::Gone`], and so does what comes later.
    pub fn close(&self) {
        self.inbox.close();
    }
}

/// What the queues of a delegate share.
#[derive(Debug)]
pub struct Inbox {
    /// Size in bytes: what reaches beyond it when it is taken has lost its place.
    size: AtomicU64,
    state: Mutex<State>,
    come: Condvar,
    ready: EventFd,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Request>>,
    given_up: Vec<Arc<Request>>,
    closed: bool,
    /// Somebody is to come back without a request.
    poked: bool,
    /// Consumers that sleep in `take`.
    sleepers: usize,
    /// Somebody waits on the descriptor.
    signals: bool,
}

impl Inbox {
    pub(super) fn new(size: u64) -> io::Result<Self> {
        Ok(Self {
            size: AtomicU64::new(size),
            state: Mutex::default(),
            come: Condvar::new(),
            ready: EventFd::new()?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Size in bytes now.
    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Another size in bytes: requests beyond it that nobody has taken will fail with [`IoError::OutOfRange`].
    pub(super) fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
    }

    /// Hands a batch over, and empties it; false if the backend has ended: nothing was taken then.
    pub(super) fn put(&self, batch: &mut Vec<Arc<Request>>) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        let several = batch.len() > 1;
        let was_empty = state.waiting.is_empty();
        state.waiting.extend(batch.drain(..));
        self.wake(state, several, was_empty);
        true
    }

    /// Tells whoever has `request` that nobody waits for it any more.
    pub(super) fn give_up(&self, request: &Arc<Request>) {
        let mut state = self.lock();
        state.given_up.push(Arc::clone(request));
        self.wake(state, true, true);
    }

    /// After `request` was ended by somebody else than a consumer.
    pub(super) fn withdraw(&self, request: &Arc<Request>, was_taken: bool) {
        if was_taken {
            self.give_up(request);
        } else {
            self.forget_ended();
        }
    }

    /// Drops requests that ended before anybody took them, with their frames.
    pub(super) fn forget_ended(&self) {
        self.lock().waiting.retain(|request| !request.has_ended());
    }

    fn wake(&self, state: MutexGuard<'_, State>, several: bool, signal: bool) {
        let (sleepers, signals) = (state.sleepers, state.signals && signal);
        drop(state);
        match sleepers {
            0 => {}
            1 => self.come.notify_one(),
            _ if several => self.come.notify_all(),
            _ => self.come.notify_one(),
        }
        if signals {
            let _ = self.ready.signal();
        }
    }

    fn take(&self, limit: usize, together: bool, timeout: Option<Duration>) -> Taken {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.lock();
        loop {
            let mut taken = Taken { given_up: std::mem::take(&mut state.given_up), ..Taken::default() };
            while taken.requests.len() < limit
                && let Some(next) = state.waiting.front()
            {
                if together
                    && taken.requests.first().is_some_and(|first| !Arc::ptr_eq(&first.home, &next.home))
                {
                    break;
                }
                let Some(next) = state.waiting.pop_front() else { break };
                if !next.take() {
                    continue;
                }
                if next.offset.saturating_add(next.len) > self.size.load(Ordering::Relaxed) {
                    // The backend became smaller while it waited.
                    next.complete(Err(IoError::OutOfRange));
                } else {
                    taken.requests.push(next);
                }
            }
            taken.closed = state.closed && state.waiting.is_empty();
            let poked = std::mem::take(&mut state.poked);
            if !taken.requests.is_empty() || !taken.given_up.is_empty() || taken.closed || poked {
                return taken;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return taken;
            }
            state.sleepers += 1;
            state = match left {
                None => self.come.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.come.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
            state.sleepers -= 1;
        }
    }

    /// Has everything that was completed put on the medium.
    pub(super) fn flush_and_wait(&self, limit: Option<Duration>) -> Result<(), IoError> {
        let home = Home::new().map_err(|_| IoError::Internal)?;
        let request = Arc::new(Request::new(Kind::Flush, 0, 0, 0, &home));
        if !self.put(&mut vec![Arc::clone(&request)]) {
            return Err(IoError::Gone);
        }
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut done = Vec::new();
        while !home.arm() {
            if !home.wait(deadline)
                && let Some(was_taken) = request.end()
            {
                self.withdraw(&request, was_taken);
                return Err(IoError::Retry);
            }
        }
        home.collect(&mut done);
        done.pop().map_or(Err(IoError::Internal), |(_, result)| result)
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        self.wake(state, true, true);
        for request in waiting {
            request.complete(Err(IoError::Gone));
        }
    }
}
