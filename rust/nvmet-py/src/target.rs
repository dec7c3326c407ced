//! The target for Python: subsystems, controllers and their events.
//!
//! May know `nvmet-core`. Every call that may block releases the GIL; no thread of the target ever
//! needs it.

use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::PathBuf,
    time::Duration,
};

use nvmet_core::{
    device::DoorbellMode,
    subsystem::{MAX_CNTLID, SubsystemConfig},
    target::{ControllerConfig, ControllerId, Event, Listen, TargetConfig},
    worker::WaitMode,
};
use nvmet_dma::inherited;
use pyo3::prelude::*;

use crate::error::{self, DeviceError};
use crate::owned::Owned;
use crate::storage::Storage;
use crate::subsystem::Subsystem;
use crate::values::{self, Counters};

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
    ///
    /// `shared`: hosts are told that there may be several controllers (None: when there are). `subsystem_reset`: a host may
    /// reset all controllers, or (False) none, or (None) those of its own.
    #[pyo3(signature = (
        *, serial, nqn = None, model = MODEL, firmware = None, cntlid_min = 1, cntlid_max = MAX_CNTLID, shared = None,
        subsystem_reset = None, ieee_oui = 0
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python method")]
    fn add_subsystem(
        &self,
        serial: String,
        nqn: Option<String>,
        model: &str,
        firmware: Option<String>,
        cntlid_min: u16,
        cntlid_max: u16,
        shared: Option<bool>,
        subsystem_reset: Option<bool>,
        ieee_oui: u32,
    ) -> PyResult<Subsystem> {
        let firmware = firmware.unwrap_or_else(|| env!("CARGO_PKG_VERSION").chars().take(8).collect());
        let config = SubsystemConfig {
            nqn,
            serial,
            model: model.to_owned(),
            firmware,
            cntlids: (cntlid_min, cntlid_max),
            shared,
            subsystem_reset,
            ieee_oui,
        };
        Ok(Subsystem::new(self.inner.get()?.add_subsystem(config).map_err(error::target)?))
    }

    /// Removes a subsystem that has no controllers, with its namespaces.
    fn remove_subsystem(&self, py: Python<'_>, subsystem: &Subsystem) -> PyResult<()> {
        let (target, subsystem) = (self.inner.get()?, subsystem.get()?);
        py.detach(|| target.remove_subsystem(subsystem)).map_err(error::target)
    }

    /// Makes a controller of `subsystem` and listens for its client; returns a number that names it.
    ///
    /// Either `socket` is a path at which a socket is made, mode 0600, or `fd` is a socket that listens already; it is
    /// duplicated. `hostid` are the 16 bytes of the Host Identifier, `ana` states by group, `counted` and `error_log` what
    /// `lifetime` gave at the end of an earlier process.
    #[pyo3(signature = (
        subsystem, *, socket = None, fd = None, queues = 64, queue_size = 1024, doorbells = "auto", hostnqn = None,
        hostid = None, cntlid = None, ana = None, counted = None, error_log = None
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
        cntlid: Option<u16>,
        ana: Option<BTreeMap<u32, String>>,
        counted: Option<Counters>,
        error_log: Option<Vec<u8>>,
    ) -> PyResult<u64> {
        let (target, subsystem) = (self.inner.get()?, subsystem.get()?);
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
            cntlid,
            ana: values::ana_of(&ana.unwrap_or_default())?,
            lifetime: values::lifetime_of(&counted.unwrap_or_default(), error_log.unwrap_or_default()),
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

    /// Controller Identifier.
    fn cntlid(&self, py: Python<'_>, controller: u64) -> PyResult<u16> {
        let target = self.inner.get()?;
        py.detach(|| target.cntlid(ControllerId(controller))).map_err(error::target)
    }

    /// What SMART has counted over the life of a controller, and the entries of its error log: 64 bytes each.
    fn lifetime(&self, py: Python<'_>, controller: u64) -> PyResult<(Counters, Vec<u8>)> {
        let target = self.inner.get()?;
        let life = py.detach(|| target.lifetime(ControllerId(controller))).map_err(error::target)?;
        Ok(values::lifetime(&life))
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
    fn stats(&self, py: Python<'_>) -> PyResult<BTreeMap<u64, Counters>> {
        let target = self.inner.get()?;
        let stats = py.detach(|| target.stats());
        Ok(stats.controllers.into_iter().map(|(id, batch)| (id.0, values::counters(&batch))).collect())
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

/// A descriptor of the target's own for the open file that Python knows as `fd`.
fn duplicate(fd: RawFd) -> PyResult<OwnedFd> {
    inherited::duplicate(fd).map_err(|error| error::config(format!("file descriptor {fd}: {error}")))
}
