//! One thread that serves many devices.
//!
//! The thread waits in epoll for listeners, connections and one eventfd. Other threads reach it through a
//! [`ReactorHandle`] (commands) and [`Waker`]s (a device has something to do); both write the eventfd. It never
//! blocks on a socket, so a client that stalls holds up nobody else.
//!
//! The thread is the caller's: whoever calls [`Reactor::run`] decides on its name and blocks signals in it.

mod handle;
mod slot;

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

pub use handle::{DeviceHandle, ReactorError, ReactorHandle, Waker};

use crate::Errno;
use handle::{Command, Shared};
use slot::{Slot, Token};

/// Events taken from epoll at once.
const EVENTS: usize = 64;
/// Longest wait at a time: kernels before 5.11 count milliseconds in 31 bits.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// What epoll reports for the eventfd. Devices count from 0 and never come this far.
const WAKE: u64 = u64::MAX;

/// Times that a reactor keeps.
#[derive(Clone, Copy, Debug)]
pub struct ReactorOptions {
    /// How long a client may take to say VERSION. Until then it keeps others away from the socket.
    pub handshake_timeout: Duration,
    /// How long devices may take to let go of their clients when the reactor stops.
    pub stop_grace: Duration,
}

impl Default for ReactorOptions {
    fn default() -> Self {
        Self { handshake_timeout: Duration::from_secs(10), stop_grace: Duration::from_secs(5) }
    }
}

/// Serves devices. See the [module](self).
pub struct Reactor {
    epoll: std::os::fd::OwnedFd,
    commands: Receiver<Command>,
    handle: ReactorHandle,
    options: ReactorOptions,
}

/// A reactor in its thread, where the devices are.
struct Running {
    epoll: std::os::fd::OwnedFd,
    commands: Receiver<Command>,
    handle: ReactorHandle,
    slots: HashMap<u64, Slot>,
    options: ReactorOptions,
    stop_by: Option<Instant>,
}

impl Reactor {
    /// Makes a reactor that serves nothing yet.
    ///
    /// # Errors
    ///
    /// If the system has no file descriptors left.
    pub fn new(options: ReactorOptions) -> std::io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let shared = Shared::new()?;
        epoll::add(&epoll, shared.eventfd(), EventData::new_u64(WAKE), EventFlags::IN)?;
        let (sender, commands) = mpsc::channel();
        let handle = ReactorHandle::new(sender, shared);
        Ok(Self { epoll, commands, handle, options })
    }

    /// How other threads reach this reactor.
    pub fn handle(&self) -> ReactorHandle {
        self.handle.clone()
    }

    /// Serves until [`ReactorHandle::stop`], then lets every device go of its client and drops it.
    ///
    /// # Errors
    ///
    /// If epoll itself fails, which it does not in a healthy process.
    pub fn run(self) -> std::io::Result<()> {
        let Self { epoll, commands, handle, options } = self;
        Running { epoll, commands, handle, slots: HashMap::new(), options, stop_by: None }.run()
    }
}

impl Running {
    fn run(mut self) -> std::io::Result<()> {
        self.handle.shared().enter();
        let mut events = Vec::with_capacity(EVENTS);
        while !(self.slots.is_empty() && self.stop_by.is_some()) {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), self.timeout().as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut woken = false;
            for event in events.drain(..) {
                let data = event.data;
                match data.u64() {
                    WAKE => woken = true,
                    token => self.ready(Token::from_u64(token)),
                }
            }
            if woken {
                self.handle.shared().drain();
                self.obey();
                self.slots.values_mut().filter(|slot| slot.take_wake()).for_each(Slot::poll);
            }
            let now = Instant::now();
            for slot in self.slots.values_mut().filter(|slot| slot.due().is_some_and(|due| due <= now)) {
                slot.expire(now);
            }
            for (_, slot) in self.slots.extract_if(|_, slot| slot.is_removed()) {
                slot.hand_back();
            }
            for slot in self.slots.values_mut() {
                slot.update(&self.epoll);
            }
            if self.stop_by.is_some_and(|by| by <= now) {
                tracing::warn!(devices = self.slots.len(), "devices did not let go of their clients in time");
                return Ok(());
            }
        }
        Ok(())
    }

    fn ready(&mut self, token: Token) {
        let Some(slot) = self.slots.get_mut(&token.device) else { return };
        if token.is_connection {
            slot.service();
        } else {
            slot.accept(self.options.handshake_timeout);
        }
    }

    fn obey(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Add { id, make, listener, flag, done } => {
                    let added = if self.stop_by.is_some() {
                        Err(ReactorError::Stopped)
                    } else {
                        let Some(device) = make() else {
                            // Before the caller hears of it, who may want the path for something else.
                            drop(listener);
                            continue;
                        };
                        Slot::new(id, device, listener, flag, &self.epoll).map(|slot| {
                            self.slots.insert(id, slot);
                        })
                    };
                    // Nobody waits any more if the caller's thread is gone.
                    let _ = done.send(added);
                }
                Command::Call { id, call } => match self.slots.get_mut(&id) {
                    Some(slot) => slot.call(call),
                    None => {
                        call(None);
                    }
                },
                Command::Remove { id, heir } => {
                    if let Some(slot) = self.slots.get_mut(&id) {
                        slot.remove(Some(heir));
                    }
                }
                Command::Stop => {
                    self.stop_by.get_or_insert_with(|| Instant::now() + self.options.stop_grace);
                    self.slots.values_mut().for_each(|slot| slot.remove(None));
                }
            }
        }
    }

    fn timeout(&self) -> Option<rustix::event::Timespec> {
        let due = self.slots.values().filter_map(Slot::due).chain(self.stop_by).min()?;
        let left = due.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
        Some(rustix::event::Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        })
    }
}
