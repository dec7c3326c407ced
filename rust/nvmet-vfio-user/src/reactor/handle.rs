//! How other threads reach the reactor. Knows commands, nothing of sockets.

use std::any::Any;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};

use rustix::event::{EventfdFlags, eventfd};

use crate::device::Device;
use crate::listener::Listener;

/// Builds a device on the reactor's thread; `None` if that failed.
pub(super) type Make = Box<dyn FnOnce() -> Option<Box<dyn Device>> + Send>;

/// Takes a device that is removed, on the reactor's thread.
pub(super) type Heir = Box<dyn FnOnce(Box<dyn Device>) + Send>;

/// A call into a device. Gets `None` if the device is gone; says whether it panicked.
pub(super) type Call = Box<dyn FnOnce(Option<&mut dyn Device>) -> bool + Send>;

pub(super) enum Command {
    Add {
        id: u64,
        make: Make,
        listener: Listener,
        flag: Arc<AtomicBool>,
        done: SyncSender<Result<(), ReactorError>>,
    },
    Call {
        id: u64,
        call: Call,
    },
    Remove {
        id: u64,
        heir: Heir,
    },
    Stop,
}

/// Why a reactor did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ReactorError {
    /// It has stopped.
    #[error("the control thread has stopped")]
    Stopped,
    /// The device has been removed, or has failed and is served no more.
    #[error("the device is no longer served")]
    NoDevice,
    /// The call panicked. Its device's connection was closed.
    #[error("a call into the device panicked; this is a bug, its client was disconnected")]
    Panicked,
    /// The call came from the reactor's own thread, where waiting for the answer would never end.
    #[error("a device cannot wait for its own control thread")]
    OwnThread,
    /// The listener could not be watched.
    #[error("cannot watch the socket: {0}")]
    System(#[from] std::io::Error),
}

/// What wakers and handles share with the reactor.
pub(super) struct Shared {
    eventfd: OwnedFd,
    next_id: AtomicU64,
    thread: OnceLock<ThreadId>,
}

impl Shared {
    pub(super) fn new() -> std::io::Result<Arc<Self>> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { eventfd, next_id: AtomicU64::new(0), thread: OnceLock::new() }))
    }

    pub(super) fn eventfd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// This thread is the reactor's from now on.
    pub(super) fn enter(&self) {
        self.thread.get_or_init(|| thread::current().id());
    }

    pub(super) fn drain(&self) {
        // EAGAIN says that there was nothing to drain, which is as good.
        let _ = rustix::io::read(&self.eventfd, &mut [0; 8]);
    }

    fn ring(&self) {
        // EAGAIN says that the counter is full, so the reactor is as good as woken.
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }
}

/// Tells the reactor that a device wants [`Device::poll`] to be called. Cheap to clone; callable from any thread.
///
/// Wake-ups between two polls are joined. Everything that was done before [`wake`](Self::wake) is visible to the poll.
#[derive(Clone)]
pub struct Waker {
    flag: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl Waker {
    /// Has `poll` called soon.
    pub fn wake(&self) {
        // The reactor empties the eventfd before it takes flags, so a flag that is set already is not overlooked.
        if !self.flag.swap(true, Ordering::AcqRel) {
            self.shared.ring();
        }
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waker").field("flag", &self.flag).finish_non_exhaustive()
    }
}

/// Adds devices to a reactor and stops it. Cheap to clone; usable from any thread but the reactor's own.
#[derive(Clone)]
pub struct ReactorHandle {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

impl ReactorHandle {
    pub(super) fn new(commands: Sender<Command>, shared: Arc<Shared>) -> Self {
        Self { commands, shared }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Serves the device that `make` builds, on the reactor's thread, on `listener`, from when this returns. Waits for
    /// the reactor, so it must be running or about to.
    ///
    /// # Errors
    ///
    /// [`ReactorError::Stopped`], [`ReactorError::OwnThread`], [`ReactorError::System`], [`ReactorError::Panicked`].
    pub fn add<D: Device>(
        &self,
        listener: Listener,
        make: impl FnOnce(Waker) -> D + Send + 'static,
    ) -> Result<DeviceHandle<D>, ReactorError> {
        self.try_add(listener, |waker| Ok(make(waker)))
    }

    /// As [`add`](Self::add), for a device that may fail to be built; then nothing is served.
    ///
    /// # Errors
    ///
    /// Those of `make` and of [`add`](Self::add).
    pub fn try_add<D: Device, E: From<ReactorError> + Send + 'static>(
        &self,
        listener: Listener,
        make: impl FnOnce(Waker) -> Result<D, E> + Send + 'static,
    ) -> Result<DeviceHandle<D>, E> {
        self.check_thread()?;
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let flag = Arc::new(AtomicBool::new(false));
        let waker = Waker { flag: flag.clone(), shared: self.shared.clone() };
        let (fail, failed) = sync_channel(1);
        let make: Make = Box::new(move || {
            let made = catch_unwind(AssertUnwindSafe(|| make(waker)));
            match made.unwrap_or_else(|_| Err(ReactorError::Panicked.into())) {
                Ok(device) => Some(Box::new(device) as Box<dyn Device>),
                Err(error) => {
                    // Nobody waits any more if the caller's thread is gone.
                    let _ = fail.send(error);
                    None
                }
            }
        });
        let (done, added) = sync_channel(1);
        self.send(Command::Add { id, make, listener, flag, done })?;
        match added.recv() {
            Ok(result) => result?,
            Err(_) => return Err(failed.try_recv().unwrap_or_else(|_| ReactorError::Stopped.into())),
        }
        Ok(DeviceHandle { id, reactor: self.clone(), device: PhantomData })
    }

    /// Has the reactor let go of all clients and end. Does not wait: [`Reactor::run`](super::Reactor::run) returns
    /// when it is done. Stopping twice is fine.
    pub fn stop(&self) {
        // If it cannot be sent, the reactor has stopped.
        let _ = self.send(Command::Stop);
    }

    fn send(&self, command: Command) -> Result<(), ReactorError> {
        self.commands.send(command).map_err(|_| ReactorError::Stopped)?;
        self.shared.ring();
        Ok(())
    }

    fn check_thread(&self) -> Result<(), ReactorError> {
        if self.shared.thread.get() == Some(&thread::current().id()) {
            return Err(ReactorError::OwnThread);
        }
        Ok(())
    }
}

/// A device that a reactor serves. Dropping the handle changes nothing.
pub struct DeviceHandle<D> {
    id: u64,
    reactor: ReactorHandle,
    device: PhantomData<fn() -> D>,
}

impl<D> Clone for DeviceHandle<D> {
    fn clone(&self) -> Self {
        Self { id: self.id, reactor: self.reactor.clone(), device: PhantomData }
    }
}

impl<D: Device> DeviceHandle<D> {
    /// Calls into the device on the reactor's thread, between two messages, and waits for the result. The
    /// device is polled afterwards.
    ///
    /// # Errors
    ///
    /// [`ReactorError::Stopped`], [`ReactorError::NoDevice`], [`ReactorError::Panicked`], [`ReactorError::OwnThread`].
    pub fn call<R: Send + 'static>(
        &self,
        call: impl FnOnce(&mut D) -> R + Send + 'static,
    ) -> Result<R, ReactorError> {
        self.reactor.check_thread()?;
        let (done, result) = sync_channel(1);
        let call: Call = Box::new(move |device| {
            let device = device.and_then(|device| (device as &mut dyn Any).downcast_mut::<D>());
            let outcome = match device {
                None => Err(ReactorError::NoDevice),
                Some(device) => {
                    catch_unwind(AssertUnwindSafe(|| call(device))).map_err(|_| ReactorError::Panicked)
                }
            };
            let panicked = matches!(outcome, Err(ReactorError::Panicked));
            // Nobody waits any more if the caller's thread is gone.
            let _ = done.send(outcome);
            panicked
        });
        self.reactor.send(Command::Call { id: self.id, call })?;
        result.recv().unwrap_or(Err(ReactorError::Stopped))
    }

    /// Closes the socket, disconnects the client, waits until the device has let go of it, and drops the device.
    ///
    /// # Errors
    ///
    /// [`ReactorError::NoDevice`] if it was removed already or the reactor stopped, [`ReactorError::OwnThread`].
    pub fn remove(&self) -> Result<(), ReactorError> {
        self.remove_with(drop)
    }

    /// As [`remove`](Self::remove), and has `last` called with the device on the reactor's thread.
    ///
    /// # Errors
    ///
    /// Those of [`remove`](Self::remove).
    pub fn remove_with<R: Send + 'static>(
        &self,
        last: impl FnOnce(D) -> R + Send + 'static,
    ) -> Result<R, ReactorError> {
        self.reactor.check_thread()?;
        let (done, result) = sync_channel(1);
        let heir: Heir = Box::new(move |device| {
            let device: Box<dyn Any> = device;
            if let Ok(device) = device.downcast::<D>()
                && let Ok(value) = catch_unwind(AssertUnwindSafe(|| last(*device)))
            {
                // Nobody waits any more if the caller's thread is gone.
                let _ = done.send(value);
            }
        });
        self.reactor.send(Command::Remove { id: self.id, heir })?;
        result.recv().map_err(|_| ReactorError::NoDevice)
    }
}
