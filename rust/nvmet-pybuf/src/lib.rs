//! The memory of operations as Python buffers.
//!
//! CPython's buffer protocol hands out a raw pointer, so this is the one crate beside `nvmet-dma` with unsafe code, and
//! there is nothing else in it but a question to the interpreter. What it hands out is private memory of this process ([`Arena`]), never a guest's.
//!
//! **Why it is sound.** A [`Window`] owns its arena and whatever keeps the range from being used for something else;
//! CPython owns a reference to the window for each buffer that it was given (`Py_buffer.obj`), so the memory is there
//! until the last of them is released, however long that takes. The length never changes, so nothing can move it. A
//! window that was closed gives no more buffers. Rust reads and writes the same bytes with the raw copies of `nvmet-dma`,
//! which tolerate that they change meanwhile, and holds no reference to them.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nvmet_block::delegate::Frames;
use nvmet_dma::Arena;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;
use pyo3::{ffi, types::PyMemoryView};

/// Whether the interpreter that runs is the process's first. Classes and objects of an extension are shared by all
/// interpreters that import it, which Python does not allow.
#[must_use]
pub fn is_main_interpreter(_py: Python<'_>) -> bool {
    // SAFETY: the token says that this thread is attached to an interpreter, so there is one, and it stays.
    unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) == 0 }
}

/// A range of memory that Python may look at, and fill if it is writable.
#[pyclass(frozen, module = "nvmet_vdev._nvmet")]
#[derive(Debug)]
pub struct Window {
    arena: Arc<Arena>,
    at: u64,
    len: usize,
    writable: bool,
    closed: AtomicBool,
    /// Buffers that were given and not released.
    exports: AtomicUsize,
    /// Keeps the range from being used for something else.
    _frames: Option<Arc<Frames>>,
}

impl Window {
    /// The data of one operation.
    #[must_use]
    pub fn of_frames(frames: Arc<Frames>, writable: bool) -> Self {
        let (arena, at, len) = (Arc::clone(frames.arena()), frames.at(), frames.len());
        Self::new(arena, at, len, writable, Some(frames))
    }

    /// All of an arena, for writing.
    #[must_use]
    pub fn of_arena(arena: Arc<Arena>) -> Self {
        let len = usize::try_from(arena.size()).unwrap_or(0);
        Self::new(arena, 0, len, true, None)
    }

    fn new(arena: Arc<Arena>, at: u64, len: usize, writable: bool, frames: Option<Arc<Frames>>) -> Self {
        let (closed, exports) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { arena, at, len, writable, closed, exports, _frames: frames }
    }

    /// A memoryview of it; `window` stays alive with it.
    ///
    /// # Errors
    /// Those of CPython; BufferError for a window that was closed.
    pub fn view<'py>(window: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        PyMemoryView::from(window.as_any())
    }

    /// Gives no more buffers, and says whether one that was given is still in use.
    pub fn close(&self) -> bool {
        self.closed.store(true, Ordering::Release);
        self.exports.load(Ordering::Acquire) > 0
    }
}

#[pymethods]
impl Window {
    /// CPython's `bf_getbuffer`.
    ///
    /// # Safety
    ///
    /// `view` is what CPython passes: null, or a `Py_buffer` to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("there is no buffer to fill"));
        }
        let this = slf.get();
        // SAFETY: not null, so it is a `Py_buffer` that CPython wants filled; a null object says that it is not.
        unsafe { (*view).obj = ptr::null_mut() };
        if this.closed.load(Ordering::Acquire) {
            return Err(PyValueError::new_err("the operation has ended: its buffer was valid until then"));
        }
        let len = ffi::Py_ssize_t::try_from(this.len)?;
        let base = this.arena.as_ptr(this.at, this.len as u64);
        let base = base.map_err(|error| PyBufferError::new_err(error.to_string()))?;
        let read_only = c_int::from(!this.writable);
        // SAFETY: `view` as above. `base` is valid for `len` bytes as long as the arena lives, which this object owns and
        // which `view` gets a reference to. The function checks `flags` against `read_only`.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), base.as_ptr().cast::<c_void>(), len, read_only, flags)
        };
        if filled != 0 {
            return Err(PyErr::fetch(slf.py()));
        }
        this.exports.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// CPython's `bf_releasebuffer`.
    ///
    /// # Safety
    ///
    /// `view` is one that `__getbuffer__` has filled.
    unsafe fn __releasebuffer__(&self, view: *mut ffi::Py_buffer) {
        let _ = view;
        self.exports.fetch_sub(1, Ordering::AcqRel);
    }

    fn __len__(&self) -> usize {
        self.len
    }
}
