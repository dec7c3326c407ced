//! What an exception of a backend means to the guest.
//!
//! May know errors of operations. The table is in docs/backends.md.

use nvmet_block::{Direction, IoError, delegate::Kind};
use pyo3::{
    exceptions::{PyOSError, PyTimeoutError},
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::PyType,
};

/// Which way the data of a request goes.
pub fn direction(kind: Kind) -> Direction {
    match kind {
        Kind::Read | Kind::Compare => Direction::Read,
        Kind::Write | Kind::Flush | Kind::Deallocate | Kind::WriteZeroes => Direction::Write,
    }
}

/// The error that an exception stands for: that of its errno for OSError, an exact status for NvmeError, aborted for a
/// cancelled coroutine, else an internal error.
pub fn io_error(error: &Bound<'_, PyAny>, direction: Direction) -> IoError {
    exact(error, direction).unwrap_or(IoError::Internal)
}

fn exact(error: &Bound<'_, PyAny>, direction: Direction) -> PyResult<IoError> {
    static NVME_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static CANCELLED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = error.py();
    if error.is_instance(NVME_ERROR.import(py, "nvmet_vdev.backend", "NvmeError")?)? {
        return Ok(IoError::Status {
            sct: error.getattr(intern!(py, "sct"))?.extract()?,
            sc: error.getattr(intern!(py, "sc"))?.extract()?,
            dnr: error.getattr(intern!(py, "dnr"))?.extract()?,
        });
    }
    if error.is_instance_of::<PyOSError>() {
        let errno: Option<i32> = error.getattr(intern!(py, "errno"))?.extract()?;
        return Ok(match errno {
            Some(errno) => IoError::from_errno(errno, direction),
            None if error.is_instance_of::<PyTimeoutError>() => IoError::Retry,
            None => IoError::Media(direction),
        });
    }
    // What is not imported was not raised.
    let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
    if modules.contains("asyncio")?
        && error.is_instance(CANCELLED.import(py, "asyncio", "CancelledError")?)?
    {
        return Ok(IoError::Aborted);
    }
    Ok(IoError::Internal)
}
