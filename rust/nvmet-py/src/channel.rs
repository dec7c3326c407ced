//! The way of commands to a backend in Python and back: a channel for single requests.
//!
//! May know the delegate backend and buffers. What is called for a request, and when, is decided in Python
//! (`nvmet_vdev.bridge`). The GIL is released while a call waits, and a request ends without it.

use std::{
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use nvmet_block::{
    IoError,
    delegate::{Consumer, Delegate, DelegateConfig, Kind, Request},
};
use nvmet_pybuf::Window;
use pyo3::{
    intern,
    prelude::*,
    types::{PyMemoryView, PyTuple},
};

use crate::{
    batch::Batch,
    error,
    status::{direction, io_error},
    storage::Storage,
};

/// The longest time without a look at Python's signals.
const SLICE: Duration = Duration::from_secs(3600);
/// Force unit access: bit of a request's flags.
const FUA: u8 = 1;
/// The range may lose its storage: bit of a request's flags.
const MAY_DISCARD: u8 = 2;

/// Where a backend in Python gets its requests from.
///
/// A request is a tuple (token, kind, offset, what, flags): kind 0 read, 1 write, 2 flush, 3 discard, 4 write zeroes,
/// 5 compare; `what` is a memoryview for those with data, else the length in bytes; flags are 1 for FUA and 2 for "may
/// discard". `token` names it until it ends.
#[pyclass(frozen, module = "nvmet_vdev._nvmet")]
pub struct Channel {
    delegate: Weak<Delegate>,
    consumer: Consumer,
    taken: Mutex<Table>,
    /// Of the process that made it: a fork has no part in it.
    pid: u32,
}

#[derive(Default)]
struct Table {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    given_up: Vec<usize>,
}

struct Entry {
    request: Arc<Request>,
    buffer: Option<(Py<Window>, Py<PyMemoryView>)>,
}

#[pymethods]
impl Channel {
    /// A channel, and the storage whose requests come by it until nobody has it any more.
    ///
    /// `name` says what it is, for people; `size` and `block_size` are bytes. Without `flush` and `discard` these
    /// succeed without being asked for. `timeout`: seconds after which a request fails, whoever has it.
    ///
    /// Raises ConfigError for a size that is 0 or not a multiple of the block size.
    #[staticmethod]
    #[pyo3(signature = (name, *, size, block_size, read_only, flush, discard, timeout))]
    fn open(
        name: String,
        size: u64,
        block_size: u32,
        read_only: bool,
        flush: bool,
        discard: bool,
        timeout: Option<f64>,
    ) -> PyResult<(Self, Storage)> {
        let timeout = timeout
            .map(Duration::try_from_secs_f64)
            .transpose()
            .map_err(|_| error::config(format!("{name}: the timeout is not a number of seconds")))?;
        let config = DelegateConfig { what: name, size, block_size, read_only, flush, discard, timeout };
        let (delegate, consumer) = Delegate::new(config).map_err(error::backend)?;
        let channel = Self {
            delegate: Arc::downgrade(&delegate),
            consumer,
            taken: Mutex::default(),
            pid: std::process::id(),
        };
        Ok((channel, Storage::new(delegate)))
    }

    /// Takes up to `limit` requests, and waits for some if there are none, up to `timeout` seconds (None: for ever). With
    /// 0 nothing is taken: for those who have no room, and want to know what was given up.
    ///
    /// Returns None when there will be no more. An empty list is no mistake: look again.
    #[pyo3(signature = (limit, timeout = None))]
    fn take<'py>(
        &self,
        py: Python<'py>,
        limit: usize,
        timeout: Option<f64>,
    ) -> PyResult<Option<Vec<Bound<'py, PyTuple>>>> {
        self.check_process()?;
        let taken = match wait(timeout) {
            // Nothing to wait for: the GIL stays.
            Some(Duration::ZERO) => self.consumer.take(limit, false, Some(Duration::ZERO)),
            _ if self.consumer.waiting() > 0 => self.consumer.take(limit, false, Some(Duration::ZERO)),
            timeout => py.detach(|| self.consumer.take(limit, false, timeout)),
        };
        self.lock().note(&taken.given_up);
        if taken.closed && taken.requests.is_empty() {
            return Ok(None);
        }
        Ok(Some(taken.requests.into_iter().filter_map(|request| self.hand_over(py, request)).collect()))
    }

    /// The tokens of requests that were given up since the last call: nobody waits for them. They still have to be ended.
    fn given_up(&self) -> Vec<usize> {
        std::mem::take(&mut self.lock().given_up)
    }

    /// Takes requests in batches: the next one, of `limit` requests at most, or None when there will be no more.
    #[pyo3(signature = (limit, timeout = None))]
    fn take_batch(&self, py: Python<'_>, limit: usize, timeout: Option<f64>) -> PyResult<Option<Batch>> {
        self.check_process()?;
        let taken = if self.consumer.waiting() > 0 {
            self.consumer.take(limit, true, Some(Duration::ZERO))
        } else {
            py.detach(|| self.consumer.take(limit, true, wait(timeout)))
        };
        if taken.closed && taken.requests.is_empty() {
            return Ok(None);
        }
        Ok(Some(Batch::new(taken.requests)))
    }

    /// Has one call of `take` or `take_batch` return with nothing: there is something else to do.
    fn poke(&self) {
        self.consumer.poke();
    }

    /// How many requests wait to be taken.
    fn waiting(&self) -> usize {
        self.consumer.waiting()
    }

    /// A request has been carried out. True if its buffer is still in use: somebody has kept it.
    fn done(&self, py: Python<'_>, token: usize) -> bool {
        self.end(py, token, Ok(()))
    }

    /// A comparison has found a difference. As `done`.
    fn differs(&self, py: Python<'_>, token: usize) -> bool {
        self.end(py, token, Err(IoError::CompareFailed))
    }

    /// A request has failed with an exception, which says the status. As `done`.
    fn fail(&self, py: Python<'_>, token: usize, error: &Bound<'_, PyAny>) -> bool {
        let kind = self.lock().entries.get(token).and_then(Option::as_ref).map(|entry| entry.request.kind);
        let result = kind.map_or(IoError::Internal, |kind| io_error(error, direction(kind)));
        self.end(py, token, Err(result))
    }

    /// A file descriptor that is readable when `take` would not wait; `drain` it before `take`.
    fn fileno(&self) -> RawFd {
        self.consumer.ready().as_raw_fd()
    }

    /// Makes the descriptor not readable, until something comes.
    fn drain(&self) {
        self.consumer.drain();
    }

    /// A new size in bytes, for queues that are opened from now on. Raises ConfigError as `open`.
    fn set_size(&self, size: u64) -> PyResult<()> {
        match self.delegate.upgrade() {
            Some(delegate) => delegate.set_size(size).map_err(error::backend),
            None => Ok(()),
        }
    }

    /// Ends the storage: requests fail from now on, and `take` returns None.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.consumer.close());
    }

    /// Whether this is the process that made the channel, and not a fork of it.
    fn is_own_process(&self) -> bool {
        self.pid == std::process::id()
    }
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_process(&self) -> PyResult<()> {
        if self.is_own_process() {
            return Ok(());
        }
        Err(error::config(
            "this process was forked from the target's: a backend serves in the process that opened it",
        ))
    }

    /// A request as Python gets it; None if there is no memory for that, which the guest is told.
    ///
    /// The table is not locked while objects are made: that may run finalizers, hence other threads, which may want it.
    fn hand_over<'py>(&self, py: Python<'py>, request: Arc<Request>) -> Option<Bound<'py, PyTuple>> {
        let (kind, offset, len) = (request.kind as u8, request.offset, request.len);
        let flags = if request.fua { FUA } else { 0 } | if request.may_discard { MAY_DISCARD } else { 0 };
        let Ok(buffer) = view(py, &request) else {
            request.complete(Err(IoError::Retry));
            return None;
        };
        let view = buffer.as_ref().map(|(_, view)| view.clone_ref(py));
        let token = self.lock().add(Entry { request, buffer });
        let tuple = match view {
            Some(view) => (token, kind, offset, view, flags).into_pyobject(py),
            None => (token, kind, offset, len, flags).into_pyobject(py),
        };
        if tuple.is_err() {
            self.end(py, token, Err(IoError::Retry));
        }
        tuple.ok()
    }

    fn end(&self, py: Python<'_>, token: usize, result: Result<(), IoError>) -> bool {
        let entry = {
            let mut table = self.lock();
            let Some(entry) = table.entries.get_mut(token).and_then(Option::take) else { return false };
            table.free.push(token);
            // The next one with this token was not given up.
            table.given_up.retain(|given_up| *given_up != token);
            entry
        };
        // First the buffer: whoever has kept it has no part in what the guest gets.
        let kept = entry.buffer.is_some_and(|buffer| release(py, &buffer));
        entry.request.complete(result);
        kept
    }
}

impl Table {
    fn add(&mut self, entry: Entry) -> usize {
        let token = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        self.entries[token] = Some(entry);
        token
    }

    fn note(&mut self, given_up: &[Arc<Request>]) {
        for request in given_up {
            let same = |entry: &Option<Entry>| {
                entry.as_ref().is_some_and(|entry| Arc::ptr_eq(&entry.request, request))
            };
            if let Some(at) = self.entries.iter().position(same) {
                self.given_up.push(at);
            }
        }
    }
}

/// The data of a request for Python: writable if it is to be filled.
pub fn view(py: Python<'_>, request: &Request) -> PyResult<Option<(Py<Window>, Py<PyMemoryView>)>> {
    let Some(frames) = &request.frames else { return Ok(None) };
    let window = Bound::new(py, Window::of_frames(Arc::clone(frames), request.kind == Kind::Read))?;
    let view = Window::view(&window)?;
    Ok(Some((window.unbind(), view.unbind())))
}

/// Takes a buffer back; true if somebody has kept a part of it.
pub fn release(py: Python<'_>, (window, view): &(Py<Window>, Py<PyMemoryView>)) -> bool {
    // BufferError: an array was made of it and kept, which `close` finds as well.
    let _ = view.call_method0(py, intern!(py, "release"));
    window.get().close()
}

fn wait(timeout: Option<f64>) -> Option<Duration> {
    let timeout = timeout?;
    Some(Duration::try_from_secs_f64(timeout).unwrap_or(Duration::ZERO).min(SLICE))
}
