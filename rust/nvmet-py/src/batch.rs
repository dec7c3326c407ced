//! A batch of requests for a backend in Python that takes them together.
//!
//! May know requests and buffers. What is not completed when the last reference to a batch goes fails.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nvmet_block::{
    IoError,
    delegate::{Kind, Request},
};
use nvmet_pybuf::Window;
use pyo3::{
    exceptions::PyIndexError,
    prelude::*,
    types::{PyBytes, PyIterator, PyList, PyMemoryView},
};

use crate::{
    channel::{release, view},
    status::{direction, io_error},
};

type Buffer = (Py<Window>, Py<PyMemoryView>);

/// Requests that are carried out together; each is completed once, in any order, from any thread.
///
/// `len()` and iteration give `Request` objects; `kind` and `length` are what all have in common. The same as columns, memoryviews that numpy takes as they are:
/// `kinds` (bytes: 0 read, 1 write, 2 flush, 3 discard, 4 write zeroes, 5 compare), `offsets` and `lengths` (64-bit
/// unsigned integers, bytes), `flags` (bytes: 1 FUA, 2 may discard), and `positions` (64-bit unsigned integers): where
/// in `memory` the data of each request begins, a multiple of 4096.
#[pyclass(frozen, module = "nvmet_vdev._nvmet")]
pub struct Batch {
    requests: Vec<Arc<Request>>,
    buffers: Mutex<Vec<Option<Buffer>>>,
}

impl Batch {
    /// A batch of requests that are of one queue.
    pub fn new(requests: Vec<Arc<Request>>) -> Self {
        let buffers = Mutex::new(requests.iter().map(|_| None).collect());
        Self { requests, buffers }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Buffer>>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, index: usize) -> PyResult<&Arc<Request>> {
        self.requests.get(index).ok_or_else(|| PyIndexError::new_err("there is no such request in the batch"))
    }

    fn end(&self, py: Python<'_>, index: usize, result: Result<(), IoError>) {
        let buffer = self.lock()[index].take();
        if let Some(buffer) = buffer {
            release(py, &buffer);
        }
        self.requests[index].complete(result);
    }

    /// The data of a request, while it has not ended.
    fn buffer<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Option<Bound<'py, PyMemoryView>>> {
        let request = self.request(index)?;
        if let Some((_, view)) = &self.lock()[index] {
            return Ok(Some(view.clone_ref(py).into_bound(py)));
        }
        if request.has_ended() {
            return Ok(None);
        }
        let Some(buffer) = view(py, request)? else { return Ok(None) };
        let view = buffer.1.clone_ref(py).into_bound(py);
        self.lock()[index] = Some(buffer);
        // Another thread may have completed it meanwhile, and found no buffer to release.
        if request.has_ended()
            && let Some(buffer) = self.lock()[index].take()
        {
            release(py, &buffer);
            return Ok(None);
        }
        Ok(Some(view))
    }
}

/// Bytes as a memoryview of 64-bit unsigned integers.
fn column<'py>(py: Python<'py>, values: impl Iterator<Item = u64>) -> PyResult<Bound<'py, PyAny>> {
    let bytes: Vec<u8> = values.flat_map(u64::to_ne_bytes).collect();
    PyMemoryView::from(&PyBytes::new(py, &bytes))?.call_method1("cast", ("Q",))
}

fn flags(request: &Request) -> u8 {
    u8::from(request.fua) | u8::from(request.may_discard) << 1
}

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.requests.len()
    }

    fn __getitem__(slf: Bound<'_, Self>, index: usize) -> PyResult<BatchRequest> {
        let request = Arc::clone(slf.get().request(index)?);
        Ok(BatchRequest { batch: slf.unbind(), index, request })
    }

    fn __iter__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyIterator>> {
        let py = slf.py();
        let all = (0..slf.get().requests.len()).map(|index| Self::__getitem__(slf.clone(), index));
        PyList::new(py, all.collect::<PyResult<Vec<_>>>()?)?.try_iter()
    }

    /// What all of them are; None if they differ.
    #[getter]
    fn kind(&self) -> Option<u8> {
        let (first, rest) = self.requests.split_first()?;
        rest.iter().all(|other| other.kind == first.kind).then_some(first.kind as u8)
    }

    /// Bytes of every one of them; None if they differ.
    #[getter]
    fn length(&self) -> Option<u64> {
        let (first, rest) = self.requests.split_first()?;
        rest.iter().all(|other| other.len == first.len).then_some(first.len)
    }

    /// What each request is.
    #[getter]
    fn kinds<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        let bytes: Vec<u8> = self.requests.iter().map(|request| request.kind as u8).collect();
        PyMemoryView::from(&PyBytes::new(py, &bytes))
    }

    /// First byte of each, in the backend.
    #[getter]
    fn offsets<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        column(py, self.requests.iter().map(|request| request.offset))
    }

    /// Bytes of each.
    #[getter]
    fn lengths<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        column(py, self.requests.iter().map(|request| request.len))
    }

    /// 1 for FUA, 2 for "may discard".
    #[getter]
    fn flags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        let bytes: Vec<u8> = self.requests.iter().map(|request| flags(request)).collect();
        PyMemoryView::from(&PyBytes::new(py, &bytes))
    }

    /// Where in `memory` the data of each begins; 0 for those without data.
    #[getter]
    fn positions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let at = |request: &Arc<Request>| request.frames.as_ref().map_or(0, |frames| frames.at());
        column(py, self.requests.iter().map(at))
    }

    /// The memory that the data of these requests lies in, writable: private to this backend, and the same for all
    /// batches of a worker. What is outside of the requests' ranges belongs to others. Empty if none has data.
    #[getter]
    fn memory<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        match self.requests.iter().find_map(|request| request.frames.as_ref()) {
            Some(frames) => Window::view(&Bound::new(py, Window::of_arena(Arc::clone(frames.arena())))?),
            None => PyMemoryView::from(&PyBytes::new(py, &[])),
        }
    }

    /// Completes the request at `index`, or all that were not completed: with success, or with the status that `error`
    /// stands for. Who was given up meanwhile, or completed before, stays so.
    #[pyo3(signature = (index = None, error = None))]
    fn complete(
        &self,
        py: Python<'_>,
        index: Option<usize>,
        error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let range = match index {
            Some(index) => {
                self.request(index)?;
                index..index + 1
            }
            None => 0..self.requests.len(),
        };
        for index in range {
            let kind = self.requests[index].kind;
            self.end(py, index, error.map_or(Ok(()), |error| Err(io_error(error, direction(kind)))));
        }
        Ok(())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for request in &self.requests {
            // What was completed is not changed by this.
            request.complete(Err(IoError::Internal));
        }
    }
}

/// One request of a batch.
#[pyclass(frozen, name = "Request", module = "nvmet_vdev._nvmet")]
pub struct BatchRequest {
    batch: Py<Batch>,
    index: usize,
    request: Arc<Request>,
}

#[pymethods]
impl BatchRequest {
    /// 0 read, 1 write, 2 flush, 3 discard, 4 write zeroes, 5 compare.
    #[getter]
    fn kind(&self) -> u8 {
        self.request.kind as u8
    }

    /// First byte, in the backend.
    #[getter]
    fn offset(&self) -> u64 {
        self.request.offset
    }

    /// Bytes.
    #[getter]
    fn length(&self) -> u64 {
        self.request.len
    }

    /// Force unit access: on the medium when it is completed.
    #[getter]
    fn fua(&self) -> bool {
        self.request.fua
    }

    /// Of zeroing: the range may lose its storage.
    #[getter]
    fn may_discard(&self) -> bool {
        self.request.may_discard
    }

    /// Whether nobody waits for it any more: it was completed, or given up (aborted, timed out).
    #[getter]
    fn ended(&self) -> bool {
        self.request.has_ended()
    }

    /// Its data, writable for a read: valid until it is completed. None for those without data, and after the end.
    #[getter]
    fn buffer<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyMemoryView>>> {
        self.batch.get().buffer(py, self.index)
    }

    /// Completes it with success, or with the status that `error` stands for.
    #[pyo3(signature = (error = None))]
    fn complete(&self, py: Python<'_>, error: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let result = match error {
            Some(error) => Err(io_error(error, direction(self.request.kind))),
            // A comparison that found a difference has no exception of its own.
            None => Ok(()),
        };
        self.batch.get().end(py, self.index, result);
        Ok(())
    }

    /// Completes a comparison that found a difference.
    fn differs(&self, py: Python<'_>) {
        if self.request.kind == Kind::Compare {
            self.batch.get().end(py, self.index, Err(IoError::CompareFailed));
        }
    }
}
