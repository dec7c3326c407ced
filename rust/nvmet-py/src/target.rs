//! The target for Python: subsystems, namespaces, controllers and their events.
//!
//! May know `nvmet-core`. Every call that may block releases the GIL; no thread of the target ever
//! needs it.

use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use nvmet_core::{
    device::DoorbellMode,
    namespace::{NamespaceConfig, NamespaceIds},
    stats::Batch,
    subsystem::SubsystemConfig,
    target::{ControllerConfig, ControllerId, Event, Listen, TargetConfig},
    worker::WaitMode,
};
use nvmet_dma::inherited;
use pyo3::prelude::*;

use crate::error::{self, DeviceError};
use crate::owned::Owned;
use crate::storage::Storage;

/// The model number of a drive whose operator did not choose one.
const MODEL: &str = "nvmet-vdev";

/// A running target: its threads, its subsystems and the sockets that their controllers are reached by.
///
/// `workers` threads, 1 to 1024, carry the data; with `cpus` they are pinned to these in turn. `wait` is "adaptive",
/// "event" or "poll".
#[pyclass(frozen, module = "nvmet_vdev._nvmet")]
pub struct Target {
    inner: Owned<nvmet_core::target::Target>,
}

#[pymethods]
impl Target {
    #[new]
    #[pyo3(signature = (*, workers = 1, cpus = Vec::new(), wait = "adaptive"))]
    fn new(py: Python<'_>, workers: u32, cpus: Vec<usize>, wait: &str) -> PyResult<Self> {
        let wait = match wait {
            "poll" => WaitMode::Poll,
            "adaptive" => WaitMode::Adaptive,
            "event" => WaitMode::Event,
            other => return Err(error::config(format!("wait: {other:?}; use poll, adaptive or event"))),
        };
        let workers = u16::try_from(workers)
            .map_err(|_| error::config(format!("workers: {workers}; use 1 to 1024")))?;
        let inner = py.detach(|| nvmet_core::target::Target::start(TargetConfig { workers, cpus, wait }));
        Ok(Self { inner: Owned::new("target", inner.map_err(error::target)?) })
    }

    /// Adds a subsystem without namespaces.
    #[pyo3(signature = (*, serial, nqn = None, model = MODEL, firmware = None))]
    fn add_subsystem(
        &self,
        serial: String,
        nqn: Option<String>,
        model: &str,
        firmware: Option<String>,
    ) -> PyResult<Subsystem> {
        let firmware = firmware.unwrap_or_else(|| env!("CARGO_PKG_VERSION").chars().take(8).collect());
        let config = SubsystemConfig { nqn, serial, model: model.to_owned(), firmware };
        let inner = self.inner.get()?.add_subsystem(config).map_err(error::target)?;
        Ok(Subsystem { inner: Owned::new("subsystem", inner) })
    }

    /// Makes a controller of `subsystem` and listens for its client; returns a number that names it.
    ///
    /// Either `socket` is a path at which a socket is made, mode 0600, or `fd` is a socket that listens already; it is
    /// duplicated. `hostid` are the 16 bytes of the Host Identifier.
    #[pyo3(signature = (
        subsystem, *, socket = None, fd = None, queues = 64, queue_size = 1024, doorbells = "auto", hostnqn = None,
        hostid = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python method")]
    fn listen(
        &self,
        py: Python<'_>,
        subsystem: &Subsystem,
        socket: Option<PathBuf>,
        fd: Option<RawFd>,
        queues: u16,
        queue_size: u32,
        doorbells: &str,
        hostnqn: Option<String>,
        hostid: Option<[u8; 16]>,
    ) -> PyResult<u64> {
        let (target, subsystem) = (self.inner.get()?, subsystem.inner.get()?);
        let socket = match (socket, fd) {
            (Some(path), None) => Listen::Path(path),
            (None, Some(fd)) => Listen::Fd(duplicate(fd)?),
            _ => return Err(error::config("listen: give either a socket path or a file descriptor")),
        };
        let doorbells = match doorbells {
            "auto" => DoorbellMode::Auto,
            "trapped" => DoorbellMode::Trapped,
            "mapped" => DoorbellMode::Mapped,
            other => {
                return Err(error::config(format!("doorbells: {other:?}; use auto, trapped or mapped")));
            }
        };
        let config = ControllerConfig {
            queues,
            queue_size,
            doorbells,
            hostnqn,
            hostid,
            ..ControllerConfig::new(socket)
        };
        let id = py.detach(|| target.listen(subsystem, config)).map_err(error::target)?;
        Ok(id.0)
    }

    /// Removes a controller and its socket; its client is disconnected.
    fn close(&self, py: Python<'_>, controller: u64) -> PyResult<()> {
        let target = self.inner.get()?;
        py.detach(|| target.close(ControllerId(controller))).map_err(error::target)
    }

    /// NQN and 16 bytes of identifier of the host that a controller belongs to.
    fn host(&self, controller: u64) -> PyResult<(String, [u8; 16])> {
        let host = self.inner.get()?.host(ControllerId(controller)).map_err(error::target)?;
        Ok((host.nqn, host.id))
    }

    /// Whether a client is attached to a controller.
    fn attached(&self, controller: u64) -> PyResult<bool> {
        self.inner.get()?.is_attached(ControllerId(controller)).map_err(error::target)
    }

    /// Gives `storage` another size in bytes, or (None) takes over the one that it has got by itself, for all namespaces
    /// on it.
    #[pyo3(signature = (storage, size = None))]
    fn resize(&self, py: Python<'_>, storage: &Storage, size: Option<u64>) -> PyResult<()> {
        let (target, backend) = (self.inner.get()?, storage.backend()?);
        py.detach(|| target.resize(backend, size)).map_err(error::target)
    }

    /// Counters of every controller since it was made.
    fn stats(&self, py: Python<'_>) -> PyResult<BTreeMap<u64, BTreeMap<&'static str, u64>>> {
        let target = self.inner.get()?;
        let stats = py.detach(|| target.stats());
        Ok(stats.controllers.into_iter().map(|(id, batch)| (id.0, counters(&batch))).collect())
    }

    /// A file descriptor that is readable while `next_event` has something to return.
    fn fileno(&self) -> PyResult<RawFd> {
        Ok(self.inner.get()?.event_fd().as_raw_fd())
    }

    /// What happened next, without waiting: ("attached", controller), ("detached", controller) or None.
    fn next_event(&self, py: Python<'_>) -> PyResult<Option<(&'static str, u64)>> {
        let target = self.inner.get()?;
        Ok(py.detach(|| target.next_event(Some(Duration::ZERO))).map(|event| match event {
            Event::ClientAttached(id) => ("attached", id.0),
            Event::ClientDetached(id) => ("detached", id.0),
        }))
    }

    /// Disconnects all clients, ends what runs, flushes every disk and removes the sockets, in `timeout` seconds at most.
    #[pyo3(signature = (timeout = 30.0))]
    fn shutdown(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let target = self.inner.get()?;
        let limit = Duration::try_from_secs_f64(timeout)
            .map_err(|_| error::config(format!("timeout: {timeout} is not a number of seconds")))?;
        // Whatever the reason, a shutdown that fails is no mistake of the caller.
        py.detach(|| target.shutdown(limit)).map_err(|error| DeviceError::new_err(error.to_string()))
    }
}

fn counters(batch: &Batch) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("reads", batch.reads),
        ("writes", batch.writes),
        ("bytes_read", batch.bytes_read),
        ("bytes_written", batch.bytes_written),
        ("completions", batch.completions),
        ("errors", batch.errors),
        ("media_errors", batch.media_errors),
        ("interrupts", batch.interrupts),
    ])
}

/// A subsystem: what its controllers have in common, above all the namespaces.
#[pyclass(frozen, module = "nvmet_vdev._nvmet")]
pub struct Subsystem {
    inner: Owned<Arc<nvmet_core::subsystem::Subsystem>>,
}

#[pymethods]
impl Subsystem {
    /// The NVM Subsystem NVMe Qualified Name.
    #[getter]
    fn nqn(&self) -> PyResult<&str> {
        Ok(self.inner.get()?.nqn())
    }

    /// Adds `storage` as a namespace; returns its identifier (NSID).
    ///
    /// `nsid` is 1 to 1024, or the lowest free one. `block_size` is 512 or 4096 bytes. `read_only`: writes are refused
    /// even if the storage would take them. `uuid` are the 16 bytes of the namespace's UUID.
    #[pyo3(signature = (storage, *, nsid = None, block_size = 512, read_only = false, uuid = None))]
    fn add_namespace(
        &self,
        py: Python<'_>,
        storage: &Storage,
        nsid: Option<u32>,
        block_size: u32,
        read_only: bool,
        uuid: Option<[u8; 16]>,
    ) -> PyResult<u32> {
        let (subsystem, backend) = (self.inner.get()?, Arc::clone(storage.backend()?));
        let ids = NamespaceIds { uuid: uuid.unwrap_or_default(), ..NamespaceIds::default() };
        let config = NamespaceConfig { nsid, block_size, read_only, backend, ids };
        py.detach(|| subsystem.add_namespace(config)).map_err(error::target)
    }

    /// Removes a namespace; its hosts are told, and I/O in flight completes as it will.
    fn remove_namespace(&self, py: Python<'_>, nsid: u32) -> PyResult<()> {
        let subsystem = self.inner.get()?;
        py.detach(|| subsystem.remove_namespace(nsid)).map_err(error::target)
    }

    /// A namespace now: its size in bytes, its block size in bytes, and whether writes are refused; None if there is no
    /// such namespace.
    fn namespace(&self, nsid: u32) -> PyResult<Option<(u64, u32, bool)>> {
        let namespaces = self.inner.get()?.namespaces();
        Ok(namespaces.get(nsid).map(|namespace| {
            let shift = namespace.block_shift();
            (namespace.blocks() << shift, 1 << shift, namespace.read_only())
        }))
    }
}

/// A descriptor of the target's own for the open file that Python knows as `fd`.
fn duplicate(fd: RawFd) -> PyResult<OwnedFd> {
    inherited::duplicate(fd).map_err(|error| error::config(format!("file descriptor {fd}: {error}")))
}
