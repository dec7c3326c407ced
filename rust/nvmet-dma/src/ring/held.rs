//! Guest memory kept for an operation of several steps.
//!
//! May know: segments and pins. Must not know: what the steps are.

use crate::memory::{Direction, Segments, Snapshot};

/// An owned copy of [`Segments`], with its pin. Used again and again without allocating.
#[derive(Debug, Default)]
pub struct Held {
    iovecs: Vec<libc::iovec>,
    what: Option<What>,
}

#[derive(Debug)]
struct What {
    len: usize,
    direction: Direction,
    snapshot: Snapshot,
}

impl Held {
    /// Takes a copy of `data`, and a pin on its memory; forgets what was held before.
    pub fn hold(&mut self, data: &Segments<'_>) {
        self.release();
        copy_iovecs(data, &mut self.iovecs);
        self.what =
            Some(What { len: data.len(), direction: data.direction(), snapshot: data.snapshot().clone() });
    }

    /// Drops the pin.
    pub fn release(&mut self) {
        self.what = None;
        self.iovecs.clear();
    }

    /// What is held.
    #[must_use]
    pub fn view(&self) -> Option<Segments<'_>> {
        let what = self.what.as_ref()?;
        // SAFETY: the iovecs are the pieces of segments of this snapshot and direction, in order, and nothing else:
        // `hold` fills both, `release` empties both.
        Some(unsafe { Segments::from_parts(&self.iovecs, what.len, &what.snapshot, what.direction) })
    }
}

/// Adds the ranges of `data` to `iovecs`. They are valid as long as a clone of the snapshot lives.
#[inline]
pub(super) fn copy_iovecs(data: &Segments<'_>, iovecs: &mut Vec<libc::iovec>) {
    match data.iovecs() {
        Some(whole) => iovecs.extend_from_slice(whole),
        None => iovecs.extend(
            data.pieces().map(|(host, len)| libc::iovec { iov_base: host.as_ptr().cast(), iov_len: len }),
        ),
    }
}
