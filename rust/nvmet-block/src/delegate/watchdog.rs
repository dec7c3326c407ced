//! The time limit of operations: what takes longer fails, whoever has it.
//!
//! Every operation has the same limit, so the oldest is the next to fail. A thread of its own: whoever carries
//! operations out may hang.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::consumer::Inbox;
use super::request::Request;
use crate::error::IoError;

/// What is watched at least, before it is searched.
const ROOM: usize = 4096;

/// Fails what takes too long.
#[derive(Debug)]
pub struct Watchdog {
    limit: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By deadline. Weak: what has ended gives its frames back.
    watched: VecDeque<(Instant, Weak<Request>)>,
    /// How long `watched` may become before what has ended is looked for behind the first.
    room: usize,
    stopped: bool,
}

impl Watchdog {
    /// Starts the thread, which ends with [`stop`](Self::stop).
    pub fn start(limit: Duration, inbox: &Arc<Inbox>) -> io::Result<Arc<Self>> {
        let dog = Arc::new(Self { limit, state: Mutex::default(), changed: Condvar::new() });
        let (own, inbox) = (Arc::clone(&dog), Arc::clone(inbox));
        std::thread::Builder::new().name("nvmet-limit".to_owned()).spawn(move || own.run(&inbox))?;
        Ok(dog)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches requests that begin now.
    pub fn watch(&self, batch: &[Arc<Request>]) {
        let deadline = Instant::now() + self.limit;
        let mut state = self.lock();
        // What has ended in order takes no room.
        while state.watched.front().is_some_and(|(_, request)| has_ended(request)) {
            state.watched.pop_front();
        }
        // Behind one that hangs, the others would pile up until its deadline.
        if state.watched.len() >= state.room {
            state.watched.retain(|(_, request)| !has_ended(request));
            state.room = ROOM.max(2 * state.watched.len());
        }
        let wake = state.watched.is_empty();
        state.watched.extend(batch.iter().map(|request| (deadline, Arc::downgrade(request))));
        drop(state);
        if wake {
            self.changed.notify_one();
        }
    }

    /// How many are watched, those included that have ended and were not looked at.
    #[cfg(test)]
    pub fn watched(&self) -> usize {
        self.lock().watched.len()
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_one();
    }

    fn run(&self, inbox: &Inbox) {
        let mut state = self.lock();
        while !state.stopped {
            let now = Instant::now();
            let Some((deadline, request)) = state.watched.front() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if has_ended(request) {
                state.watched.pop_front();
            } else if *deadline > now {
                let left = *deadline - now;
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            } else if let Some(request) = state.watched.pop_front().and_then(|(_, request)| request.upgrade())
            {
                drop(state);
                fail(&request, inbox);
                state = self.lock();
            }
        }
    }
}

fn has_ended(request: &Weak<Request>) -> bool {
    request.upgrade().is_none_or(|request| request.has_ended())
}

fn fail(request: &Arc<Request>, inbox: &Inbox) {
    let Some(was_taken) = request.end() else { return };
    inbox.withdraw(request, was_taken);
    request.home.report(request.slot, Err(IoError::Retry));
}
