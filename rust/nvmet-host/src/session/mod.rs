//! A drive for many threads: commands are submitted without waiting, and awaited by a ticket.
//!
//! One thread at a time sleeps on the interrupts, or polls; others that wait sleep until it has looked. Nothing here
//! knows a command set: what is sent is the caller's, right or wrong.

mod state;

use crate::{AsyncEvent, Drive, HostConfig, HostError, transport::Bell};
use nvmet_spec::command::{Cqe, Sqe};
use state::State;
use std::{
    path::Path,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use zerocopy::FromBytes;

/// How long a drive may be quiet before its health is checked.
const HEALTH_INTERVAL: Duration = Duration::from_millis(100);

/// Where a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Queue {
    /// The admin queue.
    Admin = 0,
    /// The session's I/O queue.
    Io = 1,
}

/// A command that was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// A command and its data.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The entry; its CID is chosen by the session, and so are PRP1 and PRP2 when there is data.
    pub entry: Sqe,
    /// Data for the controller.
    pub out: &'a [u8],
    /// Bytes wanted from the controller.
    pub length: usize,
}

impl<'a> Request<'a> {
    /// A command from the 64 bytes of its entry.
    ///
    /// # Errors
    /// [`HostError::Argument`] for another number of bytes.
    pub fn new(entry: &[u8], out: &'a [u8], length: usize) -> Result<Self, HostError> {
        let entry = Sqe::read_from_bytes(entry).map_err(|_| {
            HostError::argument(format!("{} bytes; a submission queue entry has {}", entry.len(), Sqe::SIZE))
        })?;
        Ok(Self { entry, out, length })
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its completion queue entry.
    pub completion: Cqe,
    /// What the buffer holds, whatever the status: zeroes where the controller wrote nothing.
    pub data: Vec<u8>,
}

/// What a session may do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// I/O commands in flight.
    pub depth: u32,
    /// Bytes of one command: the smaller of MDTS and a quarter of the host memory.
    pub max_transfer: u64,
    /// How doorbells are rung: "shadow", "mapped" or "trapped".
    pub doorbells: &'static str,
}

/// An attached drive that threads share, with one I/O queue pair.
///
/// Dropping it closes the connection without a word, as a killed VMM does; [`detach`](Self::detach) takes leave.
#[derive(Debug)]
pub struct Session {
    state: Mutex<State>,
    /// The thread that polls has looked, or has gone.
    looked: Condvar,
}

impl Session {
    /// Attaches as [`Drive::attach`] and makes an I/O queue for `depth` commands in flight, or as many as the
    /// controller's queues take. With two vectors or more (`config.vectors`) waits sleep on interrupts, else they poll.
    ///
    /// # Errors
    /// As [`Drive::attach`]; [`HostError::Argument`] for a depth of 0.
    pub fn attach(path: impl AsRef<Path>, config: HostConfig, depth: u32) -> Result<Self, HostError> {
        if depth == 0 {
            return Err(HostError::argument("depth: 0; use 1 or more commands in flight"));
        }
        let drive = Drive::attach(path, config)?;
        Ok(Self { state: Mutex::new(State::new(drive, depth)?), looked: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts as many of `requests` into the queue as there is room for, in order, and rings the doorbell once. Waits
    /// until `deadline` for room for the first; an empty list says that there was none.
    ///
    /// # Errors
    /// [`HostError::OutOfMemory`] for data that never fits; [`HostError::Detached`]; a lost connection.
    pub fn submit(
        &self,
        queue: Queue,
        requests: &[Request<'_>],
        deadline: Instant,
    ) -> Result<Vec<Ticket>, HostError> {
        let submitted = self.until(deadline, |state| {
            let tickets = state.submit(queue, requests)?;
            Ok((!tickets.is_empty() || requests.is_empty()).then_some(tickets))
        })?;
        Ok(submitted.unwrap_or_default())
    }

    /// Waits until `deadline` for a command to end; `None`: it has not. An outcome is given out once.
    ///
    /// # Errors
    /// [`HostError::Reset`] when the controller was reset meanwhile; [`HostError::Argument`] for a ticket that was
    /// redeemed; [`HostError::Fatal`], [`HostError::Detached`], a lost connection.
    pub fn wait(&self, ticket: Ticket, deadline: Instant) -> Result<Option<Outcome>, HostError> {
        self.until(deadline, |state| state.take(ticket))
    }

    /// Whether a command has ended; never waits.
    ///
    /// # Errors
    /// [`HostError::Detached`], a lost connection.
    pub fn is_done(&self, ticket: Ticket) -> Result<bool, HostError> {
        let mut state = self.lock();
        state.poll()?;
        Ok(state.is_done(ticket))
    }

    /// Gives a ticket up: what its command leaves is dropped.
    pub fn forget(&self, ticket: Ticket) {
        self.lock().forget(ticket);
    }

    /// Sends Abort (Base §5.1) for a command: the ticket of the Abort command, whose DW0 bit 0 is clear when the
    /// command was aborted. `None`: it has ended already.
    ///
    /// # Errors
    /// [`HostError::QueueFull`]; as [`wait`](Self::wait).
    pub fn abort(&self, ticket: Ticket) -> Result<Option<Ticket>, HostError> {
        let mut state = self.lock();
        state.poll()?;
        state.abort(ticket)
    }

    /// Waits until `deadline` for the next asynchronous event, keeping one Asynchronous Event Request outstanding from
    /// the first call on. `None`: there was none.
    ///
    /// # Errors
    /// [`HostError::Command`] when the request is refused; as [`wait`](Self::wait).
    pub fn next_event(&self, deadline: Instant) -> Result<Option<AsyncEvent>, HostError> {
        self.until(deadline, State::next_event)
    }

    /// Resets the controller (CC.EN) and enables it again, with new queues. Commands in flight end with
    /// [`HostError::Reset`].
    ///
    /// # Errors
    /// As [`Drive::enable`]; it may be tried again.
    pub fn reset(&self) -> Result<(), HostError> {
        let reset = self.lock().reset();
        self.looked.notify_all();
        reset
    }

    /// Announces a normal shutdown and waits for it, as [`Drive::shutdown`]. [`reset`](Self::reset) brings the drive
    /// back.
    ///
    /// # Errors
    /// As [`Drive::shutdown`].
    pub fn shutdown(&self) -> Result<(), HostError> {
        self.lock().drive()?.shutdown()
    }

    /// Takes leave as [`Drive::detach`]. Whoever waits gets [`HostError::Detached`]; a second call does nothing.
    ///
    /// # Errors
    /// As [`Drive::detach`]; the connection is closed all the same.
    pub fn detach(&self) -> Result<(), HostError> {
        let drive = self.lock().detach();
        self.looked.notify_all();
        drive.map_or(Ok(()), Drive::detach)
    }

    /// Closes the connection without a word, as a killed VMM does.
    pub fn close(&self) {
        drop(self.lock().detach());
        self.looked.notify_all();
    }

    /// Reads a register of BAR0 of 4 bytes, or 8 with `wide`.
    ///
    /// # Errors
    /// [`HostError::Detached`], a lost connection.
    pub fn register(&self, offset: u64, wide: bool) -> Result<u64, HostError> {
        let transport = self.lock().transport()?;
        if wide { transport.reg64(offset) } else { transport.reg32(offset).map(u64::from) }
    }

    /// Writes a register of BAR0 of 4 bytes, or 8 with `wide`, and waits until the device has it.
    ///
    /// # Errors
    /// [`HostError::Argument`] for a value that is too large; [`HostError::Detached`], a lost connection.
    pub fn set_register(&self, offset: u64, value: u64, wide: bool) -> Result<(), HostError> {
        let transport = self.lock().transport()?;
        if wide {
            return transport.set_reg64(offset, value);
        }
        let value = u32::try_from(value).map_err(|_| {
            HostError::argument(format!("{value:#x} does not fit into a register of 4 bytes"))
        })?;
        transport.set_reg32(offset, value)
    }

    /// What may be done at once.
    ///
    /// # Errors
    /// [`HostError::Detached`].
    pub fn limits(&self) -> Result<SessionLimits, HostError> {
        self.lock().limits()
    }

    /// Takes completions until `ready` gives something, at most until `deadline`.
    fn until<T>(
        &self,
        deadline: Instant,
        mut ready: impl FnMut(&mut State) -> Result<Option<T>, HostError>,
    ) -> Result<Option<T>, HostError> {
        let mut state = self.lock();
        let mut health = Instant::now() + HEALTH_INTERVAL;
        let mut bell: Option<Bell> = None;
        loop {
            let arrived = state.poll()?;
            if arrived {
                self.looked.notify_all();
            }
            if let Some(value) = ready(&mut state)? {
                return Ok(Some(value));
            }
            let now = Instant::now();
            if arrived {
                health = now + HEALTH_INTERVAL;
            } else if now >= health {
                let transport = state.transport()?;
                drop(state);
                transport.check_health()?;
                health = now + HEALTH_INTERVAL;
                state = self.lock();
                // What came during that look counts: the deadline is looked at in the next turn.
                continue;
            }
            if now >= deadline {
                return Ok(None);
            }
            let limit = deadline.min(health) - now;
            if state.someone_polls {
                state = self.looked.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            state.someone_polls = true;
            let bell = match &mut bell {
                Some(bell) => bell,
                none => none.insert(state.bell()?),
            };
            drop(state);
            let rung = bell.wait(limit);
            state = self.lock();
            state.someone_polls = false;
            self.looked.notify_all();
            rung?;
        }
    }
}
