//! The target: workers, the control thread, subsystems and the sockets that they are reached by.
//!
//! What programs and the Python bindings use. Every call may come from any thread but the target's own.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nvmet_block::Backend;
use nvmet_dma::EventFd;
use nvmet_vfio_user::listener::{ListenError, Listener};
use nvmet_vfio_user::reactor::{DeviceHandle, Reactor, ReactorError, ReactorHandle, ReactorOptions};

use crate::controller::ControllerLimits;
pub use crate::controller::{HostIdentity, Lifetime};
use crate::device::{ClientEvent, DeviceConfig, DoorbellMode, NvmeDevice};
use crate::error::TargetError;
use crate::pci::PciIds;
use crate::placement::{allowed_cpus, place};
use crate::stats::Batch;
use crate::subsystem::ana::AnaStates;
use crate::subsystem::{Subsystem, SubsystemConfig};
use crate::worker::{WaitMode, WorkerPool};

/// What a target is to be like.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// Worker threads, 1 to 1024.
    pub workers: u16,
    /// CPUs that the workers are pinned to, in turn: fewer than workers are shared, more stay unused (and are named
    /// in a warning). Empty: not pinned.
    pub cpus: Vec<usize>,
    /// How the workers wait for work.
    pub wait: WaitMode,
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self { workers: 1, cpus: Vec::new(), wait: WaitMode::default() }
    }
}

/// Where a controller is reached.
#[derive(Debug)]
pub enum Listen {
    /// A path at which a socket is made.
    Path(PathBuf),
    /// A socket that listens already.
    Fd(OwnedFd),
}

/// What a controller is to be like.
#[derive(Debug)]
pub struct ControllerConfig {
    /// Where it is reached.
    pub socket: Listen,
    /// I/O queues, 1 to 511.
    pub queues: u16,
    /// Entries of an I/O queue, 2 to 65536.
    pub queue_size: u32,
    /// How doorbells reach the device.
    pub doorbells: DoorbellMode,
    /// PCI identity.
    pub ids: PciIds,
    /// NQN of the host that the controller belongs to; None: its identifier as a UUID, or derived from the subsystem and
    /// the socket.
    pub hostnqn: Option<String>,
    /// Host Identifier, not zero; None: the UUID of the host's NQN, if it is one, else derived from the NQN.
    pub hostid: Option<[u8; 16]>,
    /// Controller Identifier, in the range of the subsystem; None: any.
    pub cntlid: Option<u16>,
    /// States of ANA groups.
    pub ana: AnaStates,
    /// What SMART counted before this process.
    pub lifetime: Lifetime,
}

impl ControllerConfig {
    /// A controller with 64 queues of 1024 entries.
    pub fn new(socket: Listen) -> Self {
        Self {
            socket,
            queues: 64,
            queue_size: 1024,
            doorbells: DoorbellMode::Auto,
            ids: PciIds::default(),
            hostnqn: None,
            hostid: None,
            cntlid: None,
            ana: AnaStates::default(),
            lifetime: Lifetime::default(),
        }
    }
}

/// Names a controller of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControllerId(pub u64);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client has connected.
    ClientAttached(ControllerId),
    /// The client is gone.
    ClientDetached(ControllerId),
}

/// Counters of a target.
#[derive(Clone, Debug, Default)]
pub struct TargetStats {
    /// Of each controller's I/O queues.
    pub controllers: Vec<(ControllerId, Batch)>,
}

struct Served {
    device: DeviceHandle<NvmeDevice>,
    host: HostIdentity,
    attached: Arc<AtomicBool>,
    subsystem: Arc<Subsystem>,
}

struct State {
    subsystems: Vec<Arc<Subsystem>>,
    controllers: BTreeMap<ControllerId, Served>,
    next: u64,
    reactor: Option<ReactorHandle>,
    thread: Option<JoinHandle<()>>,
}

/// A running target.
pub struct Target {
    state: Mutex<State>,
    pool: Arc<WorkerPool>,
    events: Mutex<Receiver<Event>>,
    tell: Sender<Event>,
    signal: Arc<EventFd>,
}

impl Target {
    /// Starts the threads. A configuration that works but not as one may think is warned of.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] for no workers or a CPU that may not be used, [`TargetError::System`] for lack of
    /// resources.
    pub fn start(config: TargetConfig) -> Result<Self, TargetError> {
        let (workers, oddities) = place(config.workers, &config.cpus, config.wait, &allowed_cpus()?)?;
        oddities.iter().for_each(|oddity| tracing::warn!("{oddity}"));
        let pool = Arc::new(WorkerPool::start(workers)?);
        let signal = Arc::new(EventFd::new().map_err(|e| TargetError::system("make an eventfd", e))?);
        let reactor = Reactor::new(ReactorOptions::default());
        let reactor = reactor.map_err(|e| TargetError::system("start the control thread", e))?;
        let handle = reactor.handle();
        let (ready, started) = channel();
        let thread = std::thread::Builder::new()
            .name("nvmet-ctl".to_owned())
            .spawn(move || {
                let prepared = crate::thread::prepare(None);
                let run = prepared.is_ok();
                // The starter waits for exactly this message.
                let _ = ready.send(prepared);
                if run && let Err(error) = reactor.run() {
                    tracing::error!("the control thread ended: {error}");
                }
            })
            .map_err(|error| TargetError::system("start the control thread", error))?;
        started.recv().unwrap_or(Err(TargetError::ShutDown))?;
        let (tell, events) = channel();
        Ok(Self {
            state: Mutex::new(State {
                subsystems: Vec::new(),
                controllers: BTreeMap::new(),
                next: 1,
                reactor: Some(handle),
                thread: Some(thread),
            }),
            pool,
            events: Mutex::new(events),
            tell,
            signal,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subsystem, without namespaces.
    ///
    /// # Errors
    ///
    /// Those of [`Subsystem::new`]; [`TargetError::Config`] if the NQN is taken.
    pub fn add_subsystem(&self, config: SubsystemConfig) -> Result<Arc<Subsystem>, TargetError> {
        let subsystem = Arc::new(Subsystem::new(config)?);
        let mut state = self.lock();
        if state.subsystems.iter().any(|other| other.nqn() == subsystem.nqn()) {
            return Err(TargetError::config("nqn", subsystem.nqn(), "a subsystem has it already"));
        }
        state.subsystems.push(Arc::clone(&subsystem));
        Ok(subsystem)
    }

    /// Makes a controller of `subsystem` and listens for its client.
    ///
    /// # Errors
    ///
    /// [`TargetError::Listen`] for a socket that cannot be had, [`TargetError::Config`] for values out of range.
    pub fn listen(
        &self,
        subsystem: &Arc<Subsystem>,
        config: ControllerConfig,
    ) -> Result<ControllerId, TargetError> {
        let ControllerConfig {
            socket,
            queues,
            queue_size,
            doorbells,
            ids,
            hostnqn,
            hostid,
            cntlid,
            ana,
            lifetime,
        } = config;
        let place = place_of(&socket);
        let host = HostIdentity::new(subsystem.nqn(), &place, hostnqn, hostid)?;
        let limits = ControllerLimits { queues, entries: queue_size };
        limits.check()?;
        ids.validate().map_err(|error| TargetError::config("pci ids", error, "choose other ones"))?;
        let mut state = self.lock();
        state.controllers.values().try_for_each(|served| host.check_beside(&served.host))?;
        let reactor = state.reactor.clone().ok_or(TargetError::ShutDown)?;
        let listener = match socket {
            Listen::Path(path) => Listener::bind(path),
            Listen::Fd(fd) => Listener::from_fd(fd),
        };
        let listener = listener.map_err(listen_error)?;
        let id = ControllerId(state.next);
        let (tell, signal) = (self.tell.clone(), Arc::clone(&self.signal));
        let attached = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&attached);
        let events = move |event| {
            flag.store(event == ClientEvent::Attached, Ordering::Relaxed);
            let event = match event {
                ClientEvent::Attached => Event::ClientAttached(id),
                ClientEvent::Detached => Event::ClientDetached(id),
            };
            // A target that has ended needs no news.
            let _ = tell.send(event);
            let _ = signal.signal();
        };
        let place = String::from_utf8_lossy(&place).into_owned();
        let device =
            DeviceConfig { limits, ids, doorbells, host: host.clone(), place, cntlid, ana, lifetime };
        let (subsystem, pool) = (Arc::clone(subsystem), Arc::clone(&self.pool));
        let served = Arc::clone(&subsystem);
        let device = reactor.try_add(listener, move |waker| {
            NvmeDevice::new(device, subsystem, pool, move || waker.wake(), events)
        })?;
        state.controllers.insert(id, Served { device, host, attached, subsystem: served });
        state.next += 1;
        Ok(id)
    }

    /// Removes a controller and its socket; its client is disconnected.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if there is no such controller, [`TargetError::ShutDown`].
    pub fn close(&self, id: ControllerId) -> Result<(), TargetError> {
        let served = self.lock().controllers.remove(&id);
        Ok(served.ok_or_else(|| no_controller(id))?.device.remove()?)
    }

    /// The host that a controller belongs to.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if there is no such controller.
    pub fn host(&self, id: ControllerId) -> Result<HostIdentity, TargetError> {
        self.lock().controllers.get(&id).map(|served| served.host.clone()).ok_or_else(|| no_controller(id))
    }

    /// The Controller Identifier of a controller.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if there is no such controller, [`TargetError::ShutDown`].
    pub fn cntlid(&self, id: ControllerId) -> Result<u16, TargetError> {
        Ok(self.device(id)?.call(|device| device.cntlid())?)
    }

    /// What SMART has counted over the life of a controller, with its Error Information log.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if there is no such controller, [`TargetError::ShutDown`].
    pub fn lifetime(&self, id: ControllerId) -> Result<Lifetime, TargetError> {
        Ok(self.device(id)?.call(|device| device.lifetime())?)
    }

    fn device(&self, id: ControllerId) -> Result<DeviceHandle<NvmeDevice>, TargetError> {
        self.lock().controllers.get(&id).map(|served| served.device.clone()).ok_or_else(|| no_controller(id))
    }

    /// Removes a subsystem that no controller belongs to, with its namespaces. What backends have is on the medium when
    /// they are closed, or not, as after [`Subsystem::remove_namespace`].
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if it has controllers, or is none of this target.
    pub fn remove_subsystem(&self, subsystem: &Arc<Subsystem>) -> Result<(), TargetError> {
        let mut state = self.lock();
        let nqn = subsystem.nqn();
        if state.controllers.values().any(|served| Arc::ptr_eq(&served.subsystem, subsystem)) {
            return Err(TargetError::config("subsystem", nqn, "close its controllers first"));
        }
        let at = state.subsystems.iter().position(|other| Arc::ptr_eq(other, subsystem));
        let at = at.ok_or_else(|| TargetError::config("subsystem", nqn, "there is no such subsystem"))?;
        state.subsystems.remove(at);
        Ok(())
    }

    /// Whether a client is attached to a controller.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if there is no such controller.
    pub fn is_attached(&self, id: ControllerId) -> Result<bool, TargetError> {
        let state = self.lock();
        let served = state.controllers.get(&id).ok_or_else(|| no_controller(id))?;
        Ok(served.attached.load(Ordering::Relaxed))
    }

    /// Gives a backend another size, in bytes, or (None) takes over the one that it has got by itself. All namespaces on
    /// it follow, in every subsystem, and their hosts are told.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] for a size that is not whole blocks; [`TargetError::Backend`] if the backend refuses.
    pub fn resize(&self, backend: &Arc<dyn Backend>, size: Option<u64>) -> Result<(), TargetError> {
        // Not under the lock: a backend may ask for this itself, on the way.
        let subsystems = self.lock().subsystems.clone();
        match size {
            None => backend.refresh()?,
            Some(size) => {
                subsystems.iter().try_for_each(|subsystem| subsystem.check_size(backend, size))?;
                backend.resize(size)?;
            }
        }
        subsystems.iter().try_for_each(|subsystem| subsystem.backend_resized(backend))
    }

    /// The next event, waiting for it up to `timeout` (None: for ever).
    pub fn next_event(&self, timeout: Option<Duration>) -> Option<Event> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the look: what is told after it makes the descriptor readable again.
        let _ = self.signal.drain();
        let event = match timeout {
            None => events.recv().ok(),
            Some(timeout) => events.recv_timeout(timeout).ok(),
        };
        if event.is_some() {
            // There may be more; whoever finds nothing leaves the descriptor drained.
            let _ = self.signal.signal();
        }
        event
    }

    /// Readable while [`next_event`](Self::next_event) has something, for programs that wait for more than this.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }

    /// Counters now.
    pub fn stats(&self) -> TargetStats {
        let handles: Vec<_> =
            self.lock().controllers.iter().map(|(id, served)| (*id, served.device.clone())).collect();
        let read = |(id, handle): (ControllerId, DeviceHandle<NvmeDevice>)| {
            handle.call(|device| device.stats()).ok().map(|stats| (id, stats))
        };
        TargetStats { controllers: handles.into_iter().filter_map(read).collect() }
    }

    /// Disconnects all clients, waits for I/O in flight, flushes every backend, and ends the control thread.
    ///
    /// # Errors
    ///
    /// [`TargetError::Deadline`] if that takes longer than `limit`; [`TargetError::System`] if a flush failed.
    pub fn shutdown(&self, limit: Duration) -> Result<(), TargetError> {
        let (controllers, subsystems, reactor, thread) = {
            let mut state = self.lock();
            let subsystems = std::mem::take(&mut state.subsystems);
            (std::mem::take(&mut state.controllers), subsystems, state.reactor.take(), state.thread.take())
        };
        let Some(reactor) = reactor else { return Ok(()) };
        let deadline = Instant::now() + limit;
        let (done, finished) = channel();
        let work = move || {
            for served in controllers.into_values() {
                // A device that is gone already needs no removing.
                let _ = served.device.remove();
            }
            reactor.stop();
            if let Some(thread) = thread {
                let _ = thread.join();
            }
            let mut result = Ok(());
            for namespace in subsystems
                .iter()
                .flat_map(|subsystem| subsystem.namespaces().iter().cloned().collect::<Vec<_>>())
            {
                if let Err(error) = namespace.backend().sync() {
                    let error = std::io::Error::other(format!("{}: {error}", namespace.backend().describe()));
                    result = Err(TargetError::system("flush", error));
                }
            }
            // Backends are closed by then, as far as nobody else has them.
            drop(subsystems);
            // Whoever waited may have given up.
            let _ = done.send(result);
        };
        std::thread::Builder::new()
            .name("nvmet-stop".to_owned())
            .spawn(work)
            .map_err(|error| TargetError::system("start a thread", error))?;
        match finished.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(result) => result,
            Err(_) => {
                Err(TargetError::Deadline { what: "the shutdown".to_owned(), seconds: limit.as_secs_f64() })
            }
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        /// A backend that hangs must not hang the program's end.
        const LIMIT: Duration = Duration::from_secs(10);
        if let Err(error) = self.shutdown(LIMIT) {
            tracing::error!("{error}");
        }
    }
}

fn no_controller(id: ControllerId) -> TargetError {
    TargetError::config("controller", id.0, "there is no such controller")
}

fn listen_error(error: ListenError) -> TargetError {
    TargetError::Listen { reason: error.to_string() }
}

impl From<ReactorError> for TargetError {
    fn from(error: ReactorError) -> Self {
        match error {
            ReactorError::Stopped => Self::ShutDown,
            other => Self::system("reach the control thread", std::io::Error::other(other)),
        }
    }
}

/// The path or the abstract name that a socket is bound to.
fn place_of(socket: &Listen) -> Vec<u8> {
    let fd = match socket {
        Listen::Path(path) => return path.as_os_str().as_encoded_bytes().to_vec(),
        Listen::Fd(fd) => fd,
    };
    let address = fd.try_clone().map(UnixListener::from).and_then(|listener| listener.local_addr());
    let name = address.ok().and_then(|address| match address.as_pathname() {
        Some(path) => Some(path.as_os_str().as_encoded_bytes().to_vec()),
        None => address.as_abstract_name().map(<[u8]>::to_vec),
    });
    name.unwrap_or_default()
}
