//! The target for Python: subsystems, namespaces, controllers and their events.
//!
//! May know `nvmet-core`. Every call that may block releases the GIL; no thread of the target ever
//! needs it.

use std::{
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use nvmet_core::{
    device::DoorbellMode,
    namespace::{NamespaceConfig, NamespaceIds},
    subsystem::SubsystemConfig,
    target::{ControllerConfig, Event, Listen, TargetConfig},
    worker::WaitMode,
};
use nvmet_dma::inherited;
use pyo3::{prelude::*, types::PyAny};

use crate::error::{self, DeviceError};
use crate::storage::Storage;

/// The model number of a drive whose operator did not choose one.
const MODEL: &str = "nvmet-vdev";

/// A running target: its threads, its subsystems and the sockets that their controllers are reached by.
///
/// A context manager: it shuts down at the end of the block. `workers` threads, 1 to 1024, carry the data; with `cpus`
/// they are pinned to these in turn. `wait` says how they wait for work: "adaptive" looks again for a while and then
/// sleeps, "event" sleeps at once, "poll" never sleeps while a client is attached and takes all of a CPU for each
/// worker. What works, but not as one may think (CPUs that no worker uses, more polling workers than CPUs), is logged
/// as a warning: see `init_logging`.
#[pyclass(frozen, module = "nvmet_vdev._nvmet")]
pub struct Target {
    inner: nvmet_core::target::Target,
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
        Ok(Self { inner: inner.map_err(error::target)? })
    }

    /// Adds a subsystem without namespaces.
    ///
    /// `serial` has up to 20 ASCII characters, `model` 40, `firmware` 8; without `nqn` one is derived from `serial`.
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
        Ok(Subsystem { inner: self.inner.add_subsystem(config).map_err(error::target)? })
    }

    /// Makes a controller of `subsystem` and listens for its client; returns a number that names it in events.
    ///
    /// Either `socket` is a path at which a socket is made, mode 0600, or `fd` is a socket that listens already; it is
    /// duplicated. `doorbells` is "auto", "trapped" or "mapped", for this controller alone.
    #[pyo3(signature = (subsystem, *, socket = None, fd = None, queues = 64, queue_size = 1024, doorbells = "auto"))]
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
    ) -> PyResult<u64> {
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
        let config = ControllerConfig { queues, queue_size, doorbells, ..ControllerConfig::new(socket) };
        let id = py.detach(|| self.inner.listen(&subsystem.inner, config)).map_err(error::target)?;
        Ok(id.0)
    }

    /// A file descriptor that is readable while `next_event` has something to return.
    fn fileno(&self) -> RawFd {
        self.inner.event_fd().as_raw_fd()
    }

    /// What happened next, without waiting: ("attached", controller), ("detached", controller) or None.
    fn next_event(&self, py: Python<'_>) -> Option<(&'static str, u64)> {
        py.detach(|| self.inner.next_event(Some(Duration::ZERO))).map(|event| match event {
            Event::ClientAttached(id) => ("attached", id.0),
            Event::ClientDetached(id) => ("detached", id.0),
        })
    }

    /// Disconnects all clients, ends what runs, flushes every disk and removes the sockets, in `timeout` seconds at most.
    ///
    /// Raises DeviceError when that fails: data may then not be on the medium. A second call does nothing.
    #[pyo3(signature = (timeout = 30.0))]
    fn shutdown(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let limit = Duration::try_from_secs_f64(timeout)
            .map_err(|_| error::config(format!("timeout: {timeout} is not a number of seconds")))?;
        // Whatever the reason, a shutdown that fails is no mistake of the caller.
        py.detach(|| self.inner.shutdown(limit)).map_err(|error| DeviceError::new_err(error.to_string()))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (exc_type, exc_value, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc_value: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_value, traceback);
        let stopped = self.shutdown(py, 30.0);
        // The first error is the one that tells; that of a shutdown on the way out does not replace it.
        if exc_type.is_none() { stopped } else { Ok(()) }
    }
}

/// A subsystem: what its controllers have in common, above all the namespaces.
#[pyclass(frozen, module = "nvmet_vdev._nvmet")]
pub struct Subsystem {
    inner: Arc<nvmet_core::subsystem::Subsystem>,
}

#[pymethods]
impl Subsystem {
    /// The NVM Subsystem NVMe Qualified Name.
    #[getter]
    fn nqn(&self) -> &str {
        self.inner.nqn()
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
        let backend = Arc::clone(storage.backend());
        let ids = NamespaceIds { uuid: uuid.unwrap_or_default(), ..NamespaceIds::default() };
        let config = NamespaceConfig { nsid, block_size, read_only, backend, ids };
        py.detach(|| self.inner.add_namespace(config)).map_err(error::target)
    }
}

/// A descriptor of the target's own for the open file that Python knows as `fd`.
fn duplicate(fd: RawFd) -> PyResult<OwnedFd> {
    inherited::duplicate(fd).map_err(|error| error::config(format!("file descriptor {fd}: {error}")))
}
