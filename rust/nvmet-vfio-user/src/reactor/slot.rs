//! One device in the reactor: its socket, its client, and where it stands between two clients.

use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::handle::{Call, Heir, ReactorError};
use crate::connection::{Connection, Life, Why};
use crate::device::{Device, Outcome};
use crate::listener::Listener;

/// Connections taken from a listener at once: others get their turn in between.
const ACCEPTS: usize = 16;
/// How long a listener rests when the process has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How soon a device whose deadline stays in the past is polled again.
const POLL_PAUSE: Duration = Duration::from_millis(1);

/// What epoll reports.
#[derive(Clone, Copy)]
pub(super) struct Token {
    pub(super) device: u64,
    pub(super) is_connection: bool,
}

impl Token {
    pub(super) fn from_u64(token: u64) -> Self {
        Self { device: token >> 1, is_connection: token & 1 == 1 }
    }

    fn data(self) -> EventData {
        EventData::new_u64(self.device << 1 | u64::from(self.is_connection))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A client is served, or may come.
    Serving,
    /// The device lets go of a client; the next one waits.
    Detaching,
    /// The device panicked while it let go: it may still hold the client's memory, so it gets no other.
    Failed,
}

pub(super) struct Slot {
    id: u64,
    device: Box<dyn Device>,
    flag: Arc<AtomicBool>,
    state: State,
    listener: Option<Listener>,
    listener_interest: EventFlags,
    /// The client has left but not all it said is handled: who comes now is the next client, not a second one.
    hold_next: bool,
    accept_again: Option<Instant>,
    client: Option<Client>,
    polled: Option<Instant>,
    removing: bool,
    heirs: Vec<Heir>,
}

struct Client {
    connection: Connection,
    /// What epoll watches; `None` before it knows the connection.
    interest: Option<EventFlags>,
    handshake_by: Option<Instant>,
}

impl Slot {
    pub(super) fn new(
        id: u64,
        device: Box<dyn Device>,
        listener: Listener,
        flag: Arc<AtomicBool>,
        epoll: &OwnedFd,
    ) -> Result<Self, ReactorError> {
        let token = Token { device: id, is_connection: false };
        epoll::add(epoll, &listener, token.data(), EventFlags::IN).map_err(std::io::Error::from)?;
        Ok(Self {
            id,
            device,
            flag,
            state: State::Serving,
            listener: Some(listener),
            listener_interest: EventFlags::IN,
            hold_next: false,
            accept_again: None,
            client: None,
            polled: None,
            removing: false,
            heirs: Vec::new(),
        })
    }

    pub(super) fn take_wake(&self) -> bool {
        self.flag.swap(false, Ordering::AcqRel)
    }

    /// When [`expire`](Self::expire) wants to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        let deadline = match self.state {
            State::Failed => None,
            _ => guarded(|| self.device.deadline()).flatten(),
        };
        let not_before = self.polled.map(|polled| polled + POLL_PAUSE);
        let poll = deadline.map(|deadline| not_before.map_or(deadline, |pause| pause.max(deadline)));
        let handshake = self.client.as_ref().and_then(|client| client.handshake_by);
        poll.into_iter().chain(handshake).chain(self.accept_again).min()
    }

    /// Some time has come.
    pub(super) fn expire(&mut self, now: Instant) {
        self.accept_again = self.accept_again.filter(|&again| again > now);
        if self.client.as_ref().and_then(|client| client.handshake_by).is_some_and(|by| by <= now) {
            self.close(Why::Broken("no VERSION in time"));
        }
        self.poll();
    }

    /// Lets the device make progress.
    pub(super) fn poll(&mut self) {
        let now = Instant::now();
        self.polled = Some(now);
        let device = self.device.as_mut();
        match (self.state, &mut self.client) {
            (State::Failed, _) => {}
            (State::Detaching, _) => self.state = detach_state(guarded(|| device.poll(now))),
            (State::Serving, None) => {
                let _ = guarded(|| device.poll(now));
            }
            (State::Serving, Some(client)) => {
                let life = guarded(|| client.connection.poll_pending(device, now));
                self.lived(life);
            }
        }
    }

    /// The connection is ready.
    pub(super) fn service(&mut self) {
        let Some(client) = &mut self.client else { return };
        let device = self.device.as_mut();
        let life = guarded(|| client.connection.service(device));
        self.lived(life);
    }

    /// Somebody wants to connect.
    pub(super) fn accept(&mut self, handshake_timeout: Duration) {
        if self.client.as_ref().is_some_and(|client| client.connection.peer_is_gone()) {
            self.service();
            self.hold_next = self.client.is_some();
        }
        for _ in 0..ACCEPTS {
            if self.hold_next || self.state != State::Serving {
                return;
            }
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok(None) => return,
                Ok(Some(_)) if self.client.is_some() => {
                    tracing::info!(device = self.id, "a second client was turned away");
                }
                Ok(Some(socket)) => {
                    tracing::debug!(device = self.id, "a client has connected");
                    self.client = Some(Client {
                        connection: Connection::new(socket),
                        interest: None,
                        handshake_by: Some(Instant::now() + handshake_timeout),
                    });
                }
                Err(error) => {
                    tracing::warn!(device = self.id, %error, "cannot accept a client");
                    self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Another thread calls into the device.
    pub(super) fn call(&mut self, call: Call) {
        if self.state == State::Failed {
            call(None);
        } else if call(Some(self.device.as_mut())) {
            self.close(Why::Broken("a call into the device panicked"));
        } else {
            self.poll();
        }
    }

    /// No more clients; the device goes to `heir` when it has let go of this one.
    pub(super) fn remove(&mut self, heir: Option<Heir>) {
        self.removing = true;
        self.listener = None;
        self.heirs.extend(heir);
        self.close(Why::Broken("the device is being removed"));
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removing && self.state != State::Detaching
    }

    /// Gives the device to whoever asked first.
    pub(super) fn hand_back(self) {
        if let Some(heir) = self.heirs.into_iter().next() {
            heir(self.device);
        }
    }

    /// Tells epoll what is of interest now.
    pub(super) fn update(&mut self, epoll: &OwnedFd) {
        if let Some(client) = &mut self.client {
            if client.connection.is_attached() {
                client.handshake_by = None;
            }
            let wanted = client.connection.interest();
            let data = Token { device: self.id, is_connection: true }.data();
            let fd = client.connection.fd();
            let changed = match client.interest {
                None => epoll::add(epoll, fd, data, wanted),
                Some(interest) if interest != wanted => epoll::modify(epoll, fd, data, wanted),
                Some(_) => Ok(()),
            };
            client.interest = Some(wanted);
            if let Err(errno) = changed {
                self.close(Why::Socket(errno));
            }
        }
        let open = self.state == State::Serving && !self.hold_next && self.accept_again.is_none();
        let wanted = if open { EventFlags::IN } else { EventFlags::empty() };
        if let Some(listener) = self.listener.as_ref().filter(|_| wanted != self.listener_interest) {
            let data = Token { device: self.id, is_connection: false }.data();
            match epoll::modify(epoll, listener.as_fd(), data, wanted) {
                Ok(()) => self.listener_interest = wanted,
                Err(error) => tracing::error!(device = self.id, %error, "cannot watch the socket"),
            }
        }
    }

    fn lived(&mut self, life: Option<Life>) {
        match life {
            Some(Life::Open) => {}
            Some(Life::Closed(why)) => self.close(why),
            None => self.close(Why::Broken("the device panicked")),
        }
    }

    /// Ends the connection, if there is one, and has the device let go of its client.
    fn close(&mut self, why: Why) {
        let Some(client) = self.client.take() else { return };
        self.hold_next = false;
        match why {
            Why::Left => tracing::debug!(device = self.id, "the client has left"),
            Why::Broken(why) => tracing::warn!(device = self.id, why, "the client was disconnected"),
            Why::Socket(errno) => tracing::warn!(device = self.id, %errno, "the connection failed"),
        }
        let attached = client.connection.is_attached();
        drop(client);
        if attached {
            let device = self.device.as_mut();
            self.state = detach_state(guarded(|| device.detached()));
            if self.state == State::Failed {
                tracing::error!(
                    device = self.id,
                    "the device is served no more: it panicked as its client left"
                );
                self.listener = None;
            }
        }
    }
}

fn detach_state(outcome: Option<Outcome>) -> State {
    match outcome {
        Some(Outcome::Done) => State::Serving,
        Some(Outcome::Pending) => State::Detaching,
        None => State::Failed,
    }
}

/// Calls into a device. `None` if it panicked; the panic hook has printed why.
fn guarded<R>(call: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
