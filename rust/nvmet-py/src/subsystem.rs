//! A subsystem for Python: namespaces, ANA, reservations, health, while hosts use them.
//!
//! May know `nvmet-core`. Every call that may block releases the GIL.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use nvmet_core::{
    namespace::{NamespaceConfig, NamespaceIds, StateFile},
    subsystem::Health,
};
use pyo3::{prelude::*, types::PyDict};

use crate::error;
use crate::owned::Owned;
use crate::storage::Storage;
use crate::values::{self, Counters, Registrants};

/// A subsystem: what its controllers have in common, above all the namespaces.
#[pyclass(frozen, module = "nvmet_vdev._nvmet")]
pub struct Subsystem {
    inner: Owned<Arc<nvmet_core::subsystem::Subsystem>>,
}

impl Subsystem {
    /// For Python.
    pub fn new(inner: Arc<nvmet_core::subsystem::Subsystem>) -> Self {
        Self { inner: Owned::new("subsystem", inner) }
    }

    /// The subsystem; ConfigError in a child of `fork`.
    pub fn get(&self) -> PyResult<&Arc<nvmet_core::subsystem::Subsystem>> {
        self.inner.get()
    }
}

#[pymethods]
impl Subsystem {
    /// The NVM Subsystem NVMe Qualified Name.
    #[getter]
    fn nqn(&self) -> PyResult<&str> {
        Ok(self.get()?.nqn())
    }

    /// Adds `storage` as a namespace; returns its identifier (NSID).
    ///
    /// `nsid` is 1 to 1024, or the lowest free one. `block_size` is 512 or 4096 bytes. `read_only`: writes are refused
    /// even if the storage would take them. `uuid`, `nguid` and `eui64` are 16, 16 and 8 bytes, zero for none. `state` is
    /// the file of what outlasts the target, `counted` what was counted before.
    #[pyo3(signature = (
        storage, *, nsid = None, block_size = 512, read_only = false, uuid = None, nguid = None, eui64 = None,
        ana_group = 1, reservations = true, state = None, discard_state = false, hosts = None, enabled = true,
        counted = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python method")]
    fn add_namespace(
        &self,
        py: Python<'_>,
        storage: &Storage,
        nsid: Option<u32>,
        block_size: u32,
        read_only: bool,
        uuid: Option<[u8; 16]>,
        nguid: Option<[u8; 16]>,
        eui64: Option<[u8; 8]>,
        ana_group: u32,
        reservations: bool,
        state: Option<PathBuf>,
        discard_state: bool,
        hosts: Option<Vec<String>>,
        enabled: bool,
        counted: Option<Counters>,
    ) -> PyResult<u32> {
        let (subsystem, backend) = (self.get()?, Arc::clone(storage.backend()?));
        let ids = NamespaceIds {
            uuid: uuid.unwrap_or_default(),
            nguid: nguid.unwrap_or_default(),
            eui64: eui64.unwrap_or_default(),
        };
        let config = NamespaceConfig {
            nsid,
            block_size,
            read_only,
            ids,
            enabled,
            ana_group,
            hosts: hosts.map(Arc::from),
            reservations,
            state: state.map(|path| StateFile { path, discard: discard_state }),
            counted: values::batch(&counted.unwrap_or_default()),
            ..NamespaceConfig::new(backend)
        };
        py.detach(|| subsystem.add_namespace(config)).map_err(error::target)
    }

    /// Removes a namespace; its hosts are told, and I/O in flight completes as it will. Waits up to `timeout` seconds until
    /// nothing of the target has it any more; whether that is so.
    #[pyo3(signature = (nsid, timeout = 0.0))]
    fn remove_namespace(&self, py: Python<'_>, nsid: u32, timeout: f64) -> PyResult<bool> {
        let (subsystem, limit) = (self.get()?, seconds(timeout)?);
        py.detach(|| subsystem.remove_and_wait(nsid, limit)).map_err(error::target)
    }

    /// A namespace now, by the names of its attributes; None if there is no such namespace.
    fn namespace<'py>(&self, py: Python<'py>, nsid: u32) -> PyResult<Option<Bound<'py, PyDict>>> {
        let map = self.get()?.namespaces();
        let Some(slot) = map.slot(nsid) else { return Ok(None) };
        let (namespace, ids) = (&slot.namespace, slot.namespace.ids());
        let shift = namespace.block_shift();
        let facts = PyDict::new(py);
        facts.set_item("size", namespace.blocks() << shift)?;
        facts.set_item("block_size", 1u32 << shift)?;
        facts.set_item("read_only", namespace.read_only())?;
        facts.set_item("enabled", slot.enabled)?;
        facts.set_item("protected", slot.locked)?;
        facts.set_item("write_protected", slot.write_protected())?;
        facts.set_item("ana_group", slot.ana_group)?;
        facts.set_item("hosts", slot.hosts.as_deref().map(<[String]>::to_vec))?;
        facts.set_item("reservations", namespace.keeper().takes_reservations())?;
        facts.set_item("persistent", namespace.keeper().persists())?;
        facts.set_item("uuid", pyo3::types::PyBytes::new(py, &ids.uuid))?;
        facts.set_item("nguid", pyo3::types::PyBytes::new(py, &ids.nguid))?;
        facts.set_item("eui64", pyo3::types::PyBytes::new(py, &ids.eui64))?;
        Ok(Some(facts))
    }

    /// Counters of what all controllers did on a namespace.
    fn namespace_stats(&self, nsid: u32) -> PyResult<Counters> {
        let map = self.get()?.namespaces();
        Ok(values::counters(&map.get(nsid).ok_or_else(|| no_namespace(nsid))?.stats().read()))
    }

    /// Shows a namespace to hosts, or hides it from them.
    fn set_enabled(&self, nsid: u32, enabled: bool) -> PyResult<()> {
        self.get()?.set_enabled(nsid, enabled).map_err(error::target)
    }

    /// Waits until no command is on its way on a namespace. Those that take more than `timeout` seconds are aborted, and
    /// waited for for as long again; False if backends do not let go of them even then.
    fn drain(&self, py: Python<'_>, nsid: u32, timeout: f64) -> PyResult<bool> {
        let (subsystem, limit) = (self.get()?, seconds(timeout)?);
        py.detach(|| subsystem.drain(nsid, limit)).map_err(error::target)
    }

    /// Write protects a namespace, or no more.
    fn protect(&self, nsid: u32, on: bool) -> PyResult<()> {
        self.get()?.protect(nsid, on).map_err(error::target)
    }

    /// Puts a namespace into another ANA group.
    fn set_ana_group(&self, nsid: u32, group: u32) -> PyResult<()> {
        self.get()?.set_ana_group(nsid, group).map_err(error::target)
    }

    /// Attaches a namespace to the hosts with these NQNs, or (None) to all.
    #[pyo3(signature = (nsid, hosts))]
    fn attach_to(&self, nsid: u32, hosts: Option<Vec<String>>) -> PyResult<()> {
        self.get()?.attach_to(nsid, hosts.map(Arc::from)).map_err(error::target)
    }

    /// The ANA states that were set for a controller, by group.
    fn ana(&self, cntlid: u16) -> PyResult<BTreeMap<u32, &'static str>> {
        Ok(values::ana(&self.get()?.namespaces().ana(cntlid)))
    }

    /// Puts an ANA group into another state on one controller.
    fn set_ana_state(&self, cntlid: u16, group: u32, state: &str) -> PyResult<()> {
        let state = values::ana_state(state)?;
        self.get()?.set_ana_state(cntlid, group, state).map_err(error::target)
    }

    /// Generation, type (0: none), Persist Through Power Loss, and the registrants: host, key, whether it holds.
    fn reservation(&self, nsid: u32) -> PyResult<(u32, u8, bool, Registrants)> {
        let map = self.get()?.namespaces();
        let namespace = map.get(nsid).ok_or_else(|| no_namespace(nsid))?;
        Ok(namespace.keeper().read(values::reservation))
    }

    /// Releases the reservation and unregisters all hosts, which are told.
    fn clear_reservation(&self, py: Python<'_>, nsid: u32, timeout: f64) -> PyResult<()> {
        let (subsystem, limit) = (self.get()?, seconds(timeout)?);
        py.detach(|| subsystem.clear_reservation(nsid, limit)).map_err(error::target)
    }

    /// The controllers: identifier, NQN and identifier of the host.
    fn controllers(&self) -> PyResult<Vec<(u16, String, [u8; 16])>> {
        let controllers = self.get()?.controllers();
        Ok(controllers.into_iter().map(|who| (who.cntlid, who.host.nqn, who.host.id)).collect())
    }

    /// What SMART says beyond counters.
    fn health<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        values::health(py, &self.get()?.health())
    }

    /// Says something else from now on.
    #[pyo3(signature = (*, temperature, spare, spare_threshold, percentage_used, reliability_degraded))]
    fn set_health(
        &self,
        temperature: u16,
        spare: u8,
        spare_threshold: u8,
        percentage_used: u8,
        reliability_degraded: bool,
    ) -> PyResult<()> {
        let health = Health { temperature, spare, spare_threshold, percentage_used, reliability_degraded };
        self.get()?.set_health(health).map_err(error::target)
    }
}

fn no_namespace(nsid: u32) -> PyErr {
    error::config(format!("nsid: {nsid}; there is no such namespace"))
}

fn seconds(timeout: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(timeout)
        .map_err(|_| error::config(format!("timeout: {timeout} is not a number of seconds")))
}
