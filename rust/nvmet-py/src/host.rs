//! The host driver for Python: what a drive says about itself, and load on it.
//!
//! May know `nvmet-host`. Results cross as JSON: what they hold is written down once, in the types of that crate.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use nvmet_host::{
    DoorbellPolicy, Drive, DriveInfo, HostConfig, HostError,
    bench::{self, BenchConfig, BenchResult, ConfigError, Progress, Rw},
};
use pyo3::prelude::*;

use crate::error::{self, DeviceError};

/// What the drive behind `socket` says about itself: a `DriveInfo` as a JSON object.
#[pyfunction]
pub fn identify(py: Python<'_>, socket: &str) -> PyResult<String> {
    let found = py.detach(|| -> Result<DriveInfo, HostError> {
        let mut drive = Drive::attach(socket, HostConfig::default())?;
        let info = drive.info()?;
        drive.detach()?;
        Ok(info)
    });
    json(&found.map_err(error::host)?)
}

/// Load on a drive: it runs on a thread of its own from construction on.
#[pyclass(frozen, module = "nvmet_vdev._nvmet")]
pub struct Bench {
    progress: Arc<Progress>,
    state: Mutex<State>,
}

type Outcome = Box<Result<BenchResult, HostError>>;

enum State {
    Running(Receiver<Outcome>),
    Done(Outcome),
    /// The thread ended without a word: it panicked.
    Lost,
}

#[pymethods]
impl Bench {
    /// Starts a job with fio's words; `bs` and `size` in bytes, `runtime` in seconds.
    #[new]
    #[pyo3(signature = (socket, *, rw = "randread", bs = 4096, iodepth = 32, numjobs = 1, runtime = 5.0, size = None,
        verify = false, cpus = Vec::new(), doorbells = "auto", interrupts = false, hold = 0.0))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python constructor")]
    fn new(
        socket: String,
        rw: &str,
        bs: u64,
        iodepth: u32,
        numjobs: u32,
        runtime: f64,
        size: Option<u64>,
        verify: bool,
        cpus: Vec<usize>,
        doorbells: &str,
        interrupts: bool,
        hold: f64,
    ) -> PyResult<Self> {
        let doorbells: DoorbellPolicy =
            doorbells.parse().map_err(|error: ConfigError| error::config(error.to_string()))?;
        let config = BenchConfig {
            rw: rw.parse::<Rw>().map_err(|error| error::config(error.to_string()))?,
            // What does not fit is out of range as well: the check below names it.
            bs: u32::try_from(bs).unwrap_or(u32::MAX),
            iodepth,
            numjobs,
            runtime: seconds("runtime", runtime)?,
            hold: seconds("hold", hold)?,
            interrupts,
            size,
            verify,
            cpus,
            ..BenchConfig::default()
        };
        config.check().map_err(|error| error::config(error.to_string()))?;
        let progress = Arc::new(Progress::new(config.numjobs));
        let (sender, receiver) = mpsc::channel();
        let seen = Arc::clone(&progress);
        thread::Builder::new()
            .name("bench".into())
            .spawn(move || {
                let result = Box::new(load(&socket, &config, doorbells, &seen));
                // Nobody listens any more when Python has dropped the object.
                let _ = sender.send(result);
            })
            .map_err(|error| error::config(format!("cannot start a thread: {error}")))?;
        Ok(Self { progress, state: Mutex::new(State::Running(receiver)) })
    }

    /// Waits up to `timeout` seconds; whether the job has ended.
    fn wait(&self, py: Python<'_>, timeout: f64) -> bool {
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or(Duration::ZERO);
        py.detach(|| self.receive(Some(timeout)))
    }

    /// Commands completed so far.
    fn ios(&self) -> u64 {
        self.progress.ios()
    }

    /// How many commands there will be in a verify job; 0 in one that ends by time.
    fn goal(&self) -> u64 {
        self.progress.goal()
    }

    /// Asks the job to end early; what was measured counts.
    fn cancel(&self) {
        self.progress.cancel();
    }

    /// Waits for the end and returns the report as JSON.
    fn result(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.receive(None));
        match std::mem::replace(&mut *self.lock(), State::Lost) {
            State::Done(outcome) => json(&(*outcome).map_err(error::host)?),
            State::Running(_) | State::Lost => Err(DeviceError::new_err("the job has no result")),
        }
    }
}

impl Bench {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive(&self, timeout: Option<Duration>) -> bool {
        let mut state = self.lock();
        let State::Running(receiver) = &*state else { return true };
        let received = match timeout {
            Some(timeout) => receiver.recv_timeout(timeout),
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        *state = match received {
            Ok(result) => State::Done(result),
            Err(RecvTimeoutError::Disconnected) => State::Lost,
            Err(RecvTimeoutError::Timeout) => return false,
        };
        true
    }
}

/// A time that Python gives.
fn seconds(what: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| error::config(format!("{what}: {value} is not a number of seconds")))
}

fn load(
    socket: &str,
    config: &BenchConfig,
    doorbells: DoorbellPolicy,
    progress: &Progress,
) -> Result<BenchResult, HostError> {
    let usual = HostConfig::default();
    // The controller grants I/O queues once; ask for what the jobs need.
    let io_queues = u16::try_from(config.numjobs).unwrap_or(u16::MAX).max(usual.io_queues);
    // One for each job (`check` has bounded them), and vector 0 for the admin queue.
    let vectors = if config.interrupts { config.numjobs as u16 + 1 } else { usual.vectors };
    let mut drive = Drive::attach(socket, HostConfig { io_queues, vectors, doorbells, ..usual })?;
    let report = bench::run(&mut drive, config, progress)?;
    drive.detach()?;
    Ok(report)
}

/// `value` as Python takes it.
pub fn json(value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| DeviceError::new_err(error.to_string()))
}
