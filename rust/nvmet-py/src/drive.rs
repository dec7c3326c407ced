//! A drive that Python drives: commands in, completions out.
//!
//! May know `nvmet-host`. Every wait releases the GIL and comes back ten times a second, so that signals are handled;
//! what cannot be cut into slices runs on a thread of its own meanwhile.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use nvmet_host::{
    ControllerInfo, DoorbellPolicy, HostConfig, HostError, NamespaceInfo, Queue, Request, Ticket,
};
use pyo3::{prelude::*, pybacked::PyBackedBytes, types::PyBytes};

use crate::{
    error::{self, DeviceError},
    host::json,
};

/// The longest that Python does not see a signal.
const SLICE: Duration = Duration::from_millis(100);
/// No wait is longer: a point in time must not overflow.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Commands on a drive, from any thread: see `nvmet_vdev.drive`, which makes them.
#[pyclass(frozen, module = "nvmet_vdev._nvmet")]
pub struct Session {
    inner: Arc<nvmet_host::Session>,
}

#[pymethods]
impl Session {
    /// Attaches to the drive behind `socket`; `timeout` in seconds for each message, `memory` in bytes.
    #[new]
    #[pyo3(signature = (socket, *, timeout = 10.0, depth = 128, interrupts = true, doorbells = "auto",
        memory = 64 << 20))]
    fn new(
        py: Python<'_>,
        socket: PathBuf,
        timeout: f64,
        depth: u32,
        interrupts: bool,
        doorbells: &str,
        memory: usize,
    ) -> PyResult<Self> {
        let doorbells: DoorbellPolicy =
            doorbells.parse().map_err(|error| error::host(HostError::Config(error)))?;
        let config = HostConfig {
            timeout: seconds(timeout)?,
            vectors: if interrupts { 2 } else { 0 },
            memory_bytes: memory,
            io_queues: 1,
            doorbells,
            ..HostConfig::default()
        };
        let inner = apart(py, move || nvmet_host::Session::attach(socket, config, depth))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Submits commands: for each the 64 bytes of its entry, data to send, and how many bytes to take. Waits for room
    /// for `timeout` seconds at most. A ticket for each.
    fn submit(
        &self,
        py: Python<'_>,
        admin: bool,
        commands: Vec<(PyBackedBytes, PyBackedBytes, usize)>,
        timeout: f64,
    ) -> PyResult<Vec<u64>> {
        let queue = if admin { Queue::Admin } else { Queue::Io };
        let requests: Result<Vec<Request<'_>>, HostError> =
            commands.iter().map(|(entry, out, length)| Request::new(entry, out, *length)).collect();
        let requests = requests.map_err(error::host)?;
        let mut tickets = Vec::with_capacity(requests.len());
        let outcome = in_slices(py, timeout, "room in a queue", |deadline| {
            tickets.extend(self.inner.submit(queue, &requests[tickets.len()..], deadline)?);
            Ok((tickets.len() == requests.len()).then_some(()))
        });
        if outcome.is_err() {
            py.detach(|| tickets.iter().for_each(|&ticket| self.inner.forget(ticket)));
        }
        outcome.map(|()| tickets.into_iter().map(|ticket| ticket.0).collect())
    }

    /// Waits for a command: DW0, DW1, the Status field (15 bits) and the data of its completion. Once for each ticket.
    fn wait<'py>(
        &self,
        py: Python<'py>,
        ticket: u64,
        timeout: f64,
    ) -> PyResult<(u32, u32, u16, Bound<'py, PyBytes>)> {
        let wait = |deadline| self.inner.wait(Ticket(ticket), deadline);
        let outcome = in_slices(py, timeout, "a completion", wait)?;
        let completion = outcome.completion;
        let status = completion.status().into_bits();
        Ok((completion.dw0, completion.dw1, status, PyBytes::new(py, &outcome.data)))
    }

    /// Whether a command has ended.
    fn done(&self, py: Python<'_>, ticket: u64) -> PyResult<bool> {
        py.detach(|| self.inner.is_done(Ticket(ticket))).map_err(error::host)
    }

    /// Nobody will wait for this command.
    fn forget(&self, py: Python<'_>, ticket: u64) {
        py.detach(|| self.inner.forget(Ticket(ticket)));
    }

    /// Sends Abort for a command: the ticket of that, or None when it has ended.
    fn abort(&self, py: Python<'_>, ticket: u64) -> PyResult<Option<u64>> {
        let abort = py.detach(|| self.inner.abort(Ticket(ticket))).map_err(error::host)?;
        Ok(abort.map(|ticket| ticket.0))
    }

    /// The next asynchronous event: type, information, log page.
    fn next_event(&self, py: Python<'_>, timeout: f64) -> PyResult<(u8, u8, u8)> {
        let event =
            in_slices(py, timeout, "an asynchronous event", |deadline| self.inner.next_event(deadline))?;
        Ok((event.event_type, event.info, event.log_page))
    }

    /// Reads a register of BAR0, of 8 bytes with `wide`, else of 4.
    fn register(&self, py: Python<'_>, offset: u64, wide: bool) -> PyResult<u64> {
        let inner = Arc::clone(&self.inner);
        apart(py, move || inner.register(offset, wide))
    }

    /// Writes a register of BAR0.
    fn set_register(&self, py: Python<'_>, offset: u64, value: u64, wide: bool) -> PyResult<()> {
        let inner = Arc::clone(&self.inner);
        apart(py, move || inner.set_register(offset, value, wide))
    }

    /// Commands in flight, bytes of one command, and how doorbells are rung.
    fn limits(&self, py: Python<'_>) -> PyResult<(u32, u64, &'static str)> {
        let limits = py.detach(|| self.inner.limits()).map_err(error::host)?;
        Ok((limits.depth, limits.max_transfer, limits.doorbells))
    }

    /// Resets the controller and enables it again.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        let inner = Arc::clone(&self.inner);
        apart(py, move || inner.reset())
    }

    /// Announces a shutdown and waits for it.
    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        let inner = Arc::clone(&self.inner);
        apart(py, move || inner.shutdown())
    }

    /// Shuts down, disables the controller and closes the connection. A second call does nothing.
    fn detach(&self, py: Python<'_>) -> PyResult<()> {
        let inner = Arc::clone(&self.inner);
        apart(py, move || inner.detach())
    }

    /// Closes the connection without a word.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner.close());
    }
}

/// What the 4096 bytes of Identify Controller say: a `ControllerInfo` as a JSON object.
#[pyfunction]
pub fn decode_controller(data: &[u8]) -> PyResult<String> {
    json(&ControllerInfo::from_bytes(data).map_err(error::host)?)
}

/// What the 4096 bytes of Identify Namespace, and its descriptors, say: a `NamespaceInfo` as a JSON object.
#[pyfunction]
pub fn decode_namespace(nsid: u32, data: &[u8], descriptors: &[u8]) -> PyResult<String> {
    json(&NamespaceInfo::from_bytes(nsid, data, descriptors).map_err(error::host)?)
}

/// What the specification calls an admin or an I/O command.
#[pyfunction]
pub fn command_name(admin: bool, opcode: u8) -> Option<&'static str> {
    nvmet_host::command_name(admin, opcode)
}

/// What the specification calls a status.
#[pyfunction]
pub fn status_name(sct: u8, sc: u8) -> Option<&'static str> {
    nvmet_host::status_name(sct, sc)
}

fn seconds(timeout: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(timeout)
        .map(|timeout| timeout.min(LONGEST))
        .map_err(|_| error::config(format!("timeout: {timeout} is not a number of seconds")))
}

/// Takes steps with a deadline, none longer than [`SLICE`], until one gives something; between them Python's signal
/// handlers run.
fn in_slices<T: Send>(
    py: Python<'_>,
    timeout: f64,
    what: &'static str,
    mut step: impl FnMut(Instant) -> Result<Option<T>, HostError> + Send,
) -> PyResult<T> {
    let started = Instant::now();
    let end = started + seconds(timeout)?;
    loop {
        let deadline = end.min(Instant::now() + SLICE);
        if let Some(value) = py.detach(|| step(deadline)).map_err(error::host)? {
            return Ok(value);
        }
        py.check_signals()?;
        if Instant::now() >= end {
            return Err(error::host(HostError::Timeout { what, after: started.elapsed() }));
        }
    }
}

/// Runs `work` on a thread of its own and waits for it while signal handlers run. Interrupted, it goes on alone.
fn apart<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
) -> PyResult<T> {
    let (sender, mut receiver) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("drive".into())
        .spawn(move || {
            // Nobody listens any more after an interrupt.
            let _ = sender.send(work());
        })
        .map_err(|error| error::config(format!("cannot start a thread: {error}")))?;
    loop {
        let received;
        (received, receiver) = py.detach(move || (receiver.recv_timeout(SLICE), receiver));
        match received {
            Ok(result) => return result.map_err(error::host),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(DeviceError::new_err("the drive's thread ended without a word"));
            }
        }
    }
}
