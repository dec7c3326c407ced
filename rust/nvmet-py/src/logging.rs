//! Events of the Rust side (`tracing`), to standard error, for those who ask for them.

use pyo3::prelude::*;
use tracing_subscriber::EnvFilter;

/// Logs to standard error from now on: 0 errors and warnings, 1 what happens, 2 every command. The environment variable
/// NVMET_VDEV_LOG overrides it with directives as `nvmet_core=trace`. A second call changes nothing.
#[pyfunction]
pub fn init_logging(verbosity: u8) {
    let level = match verbosity {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("NVMET_VDEV_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // Fails when a logger is there already, which then stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .try_init();
}
