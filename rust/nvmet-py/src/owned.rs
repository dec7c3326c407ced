//! What a Python object owns: refused in a child of `fork`, and let go of without the GIL.
//!
//! May know processes and the GIL. Must not know what is owned.

use pyo3::prelude::*;

use crate::error;

/// Something that lives in one process: its threads, locks and sockets are not there in a child of `fork`.
pub struct Owned<T: Send> {
    inner: Option<T>,
    /// What it is, for people.
    what: &'static str,
    process: u32,
}

impl<T: Send> Owned<T> {
    /// Owns `inner`, called `what` in errors.
    pub fn new(what: &'static str, inner: T) -> Self {
        Self { inner: Some(inner), what, process: std::process::id() }
    }

    /// What is owned; ConfigError in another process than the one that made it.
    pub fn get(&self) -> PyResult<&T> {
        let ours = self.process == std::process::id();
        self.inner.as_ref().filter(|_| ours).ok_or_else(|| {
            error::config(format!(
                "this {} belongs to process {}: a child of fork() cannot use it; make one in the child",
                self.what, self.process
            ))
        })
    }
}

impl<T: Send> Drop for Owned<T> {
    fn drop(&mut self) {
        let mut inner = self.inner.take();
        if self.process == std::process::id() {
            // The end of a backend in Python takes the GIL, on another thread.
            Python::try_attach(|py| py.detach(|| inner = None));
        }
        // In a child it is the parent's, whose locks and sockets it would take along; and when the interpreter is gone,
        // the process follows.
        std::mem::forget(inner);
    }
}
