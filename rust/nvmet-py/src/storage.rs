//! Open storage for Python: what a namespace is added with, and the check that a backend does what it must.
//!
//! May know `nvmet-block`. Must not know who serves the storage.

use std::sync::Arc;

use nvmet_block::{
    Backend, BackendSpec, Geometry, OpenOptions,
    conformance::{self, Options, Outcome},
    open,
};
use pyo3::prelude::*;
use serde::Serialize;

use crate::error::{self, DeviceError};
use crate::owned::Owned;

/// An open backend: a file, a block device, memory, or a drive written in Python. It is closed when neither a namespace
/// nor Python has it any more.
#[pyclass(frozen, module = "nvmet_vdev._nvmet")]
pub struct Storage {
    backend: Owned<Arc<dyn Backend>>,
}

impl Storage {
    /// Storage in `backend`.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend: Owned::new("storage", backend) }
    }

    /// Where the data is; ConfigError in a child of `fork`.
    pub fn backend(&self) -> PyResult<&Arc<dyn Backend>> {
        self.backend.get()
    }

    fn geometry(&self, py: Python<'_>) -> PyResult<Geometry> {
        let backend = self.backend()?;
        Ok(py.detach(|| backend.geometry()))
    }
}

#[pymethods]
impl Storage {
    /// One line for people: kind, place and size.
    fn describe(&self, py: Python<'_>) -> PyResult<String> {
        let backend = self.backend()?;
        Ok(py.detach(|| backend.describe()))
    }

    /// Size in bytes now.
    #[getter]
    fn size(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.geometry(py)?.size)
    }

    /// Smallest logical block that it can serve, in bytes: a power of two, 512 or more.
    #[getter]
    fn min_block(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.geometry(py)?.min_block)
    }

    /// Whether writes are refused.
    #[getter]
    fn read_only(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.geometry(py)?.read_only)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<Storage {}>", self.describe(py)?))
    }
}

/// Opens `spec`: a path, `ram:SIZE` or `null:SIZE`.
///
/// `block_size` is 512 or 4096 bytes. With `create` an image file that does not exist is made, that many bytes large.
/// `iopoll`: the block device is polled for results. `fixed_buffers`: guest memory that is used often is registered with
/// the kernel, where that is allowed.
#[pyfunction]
#[pyo3(signature = (
    spec, *, block_size = 512, read_only = false, create = None, iopoll = false, fixed_buffers = true
))]
pub fn open_disk(
    py: Python<'_>,
    spec: &str,
    block_size: u32,
    read_only: bool,
    create: Option<u64>,
    iopoll: bool,
    fixed_buffers: bool,
) -> PyResult<Storage> {
    let spec: BackendSpec = spec.parse().map_err(error::backend)?;
    let options = OpenOptions { read_only, create, block_size, iopoll, fixed_buffers };
    let backend = py.detach(|| open(&spec, options)).map_err(error::backend)?;
    Ok(Storage::new(backend))
}

#[derive(Serialize)]
struct Report<'r> {
    backend: &'r str,
    passed: bool,
    checks: Vec<Check<'r>>,
}

#[derive(Serialize)]
struct Check<'r> {
    name: &'r str,
    outcome: &'static str,
    why: Option<&'r str>,
}

/// Runs the conformance suite of backends on `storage`, whose **content is overwritten** unless it is read-only; no
/// target may have it meanwhile.
///
/// `seed` is where the random sequences start, `rounds` how many batches of random operations there are, `depth` how
/// many operations are in flight at most (at least 1). Returns a JSON object: `backend` in its own words, `passed`, and
/// `checks`, a list of objects with `name`, `outcome` ("passed", "skipped" or "failed") and `why` (None if passed).
#[pyfunction]
#[pyo3(signature = (storage, *, seed = 1, rounds = 60, depth = 32))]
pub fn check_storage(
    py: Python<'_>,
    storage: &Storage,
    seed: u64,
    rounds: u32,
    depth: u32,
) -> PyResult<String> {
    let options = Options { seed, rounds, depth, ..Options::default() };
    let backend = storage.backend()?;
    let report = py.detach(|| conformance::run(backend.as_ref(), options));
    let checks = report.checks.iter().map(|check| {
        let (outcome, why) = match &check.outcome {
            Outcome::Passed => ("passed", None),
            Outcome::Skipped(why) => ("skipped", Some(why.as_str())),
            Outcome::Failed(why) => ("failed", Some(why.as_str())),
        };
        Check { name: check.name, outcome, why }
    });
    let report = Report { backend: &report.backend, passed: report.passed(), checks: checks.collect() };
    serde_json::to_string(&report).map_err(|error| DeviceError::new_err(error.to_string()))
}
