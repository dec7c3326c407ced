//! Rust errors as Python exceptions: whose turn it is decides the class, the text stays as it is.

use nvmet_block::BackendError;
use nvmet_core::TargetError;
use nvmet_host::HostError;
use pyo3::{PyErr, create_exception, exceptions::PyException};

create_exception!(
    nvmet_vdev._nvmet,
    NvmetError,
    PyException,
    "An error of nvmet-vdev; str() of it is one line that says what, where and what to do."
);
create_exception!(
    nvmet_vdev._nvmet,
    ConfigError,
    NvmetError,
    "What was asked for cannot be done as it was asked; the caller can change it."
);
create_exception!(
    nvmet_vdev._nvmet,
    DeviceError,
    NvmetError,
    "A drive, or the connection to it, failed while it was used."
);

/// The exception for an error of the target.
pub fn target(error: TargetError) -> PyErr {
    match error {
        TargetError::Deadline { .. } | TargetError::ShutDown => DeviceError::new_err(error.to_string()),
        _ => ConfigError::new_err(error.to_string()),
    }
}

/// The exception for an error of a backend that is being opened.
pub fn backend(error: BackendError) -> PyErr {
    ConfigError::new_err(error.to_string())
}

/// The exception for an error of the host driver.
pub fn host(error: HostError) -> PyErr {
    let text = error.to_string();
    match error {
        HostError::SocketMissing { .. }
        | HostError::SocketRefused { .. }
        | HostError::Connect { .. }
        | HostError::Busy { .. }
        | HostError::NotVfioUser { .. }
        | HostError::NotNvme { .. }
        | HostError::Unsupported(_)
        | HostError::Argument(_)
        | HostError::Config(_)
        | HostError::Detached
        | HostError::OutOfMemory { .. }
        | HostError::Pin { .. } => ConfigError::new_err(text),
        _ => DeviceError::new_err(text),
    }
}

/// A caller's mistake that no other crate has seen.
pub fn config(text: impl Into<String>) -> PyErr {
    ConfigError::new_err(text.into())
}
