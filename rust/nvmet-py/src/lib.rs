//! Python bindings of nvmet-vdev: the module `nvmet_vdev._nvmet`.
//!
//! Without logic of its own: values and errors are translated, and the GIL is released around every call that may
//! block. It may know the public interfaces of `nvmet-core`, `nvmet-block` and `nvmet-host`.
//!
//! | module | what it says |
//! | --- | --- |
//! | `channel`, `batch`, `status` | requests for backends in Python, and what their exceptions mean |
//! | `target` | target, subsystems, namespaces, controllers |
//! | `storage` | disks that are open, and the check of a backend |
//! | `drive` | a drive that Python drives |
//! | `host` | identify and load on a drive |
//! | `owned` | objects that a child of `fork` leaves alone |
//! | `error` | whose turn it is when something fails |
//! | `logging` | events to standard error |

#![forbid(unsafe_code)]

mod batch;
mod channel;
mod drive;
mod error;
mod host;
mod logging;
mod owned;
mod status;
mod storage;
mod subsystem;
mod target;
mod values;

use pyo3::{exceptions::PyImportError, prelude::*};

/// Bytes of a size as people write it: `512`, `4k`, `10G`; units are binary.
#[pyfunction]
fn parse_size(text: &str) -> PyResult<u64> {
    nvmet_block::parse_size(text).map_err(error::config)
}

/// Refuses interpreters other than the first.
fn check_interpreter(py: Python<'_>) -> PyResult<()> {
    if nvmet_pybuf::is_main_interpreter(py) {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "nvmet_vdev works in the main interpreter only, not in a subinterpreter; use threads or processes",
    ))
}

/// The Rust side of nvmet-vdev.
#[pymodule]
mod _nvmet {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::batch::{Batch, BatchRequest};
    #[pymodule_export]
    use super::channel::Channel;
    #[pymodule_export]
    use super::drive::{Session, command_name, decode_controller, decode_namespace, status_name};
    #[pymodule_export]
    use super::error::{ConfigError, DeviceError, NvmetError};
    #[pymodule_export]
    use super::host::{Bench, identify};
    #[pymodule_export]
    use super::logging::init_logging;
    #[pymodule_export]
    use super::parse_size;
    #[pymodule_export]
    use super::storage::{Storage, check_storage, open_disk};
    #[pymodule_export]
    use super::subsystem::Subsystem;
    #[pymodule_export]
    use super::target::Target;
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name that Python has for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::check_interpreter(module.py())
    }
}
