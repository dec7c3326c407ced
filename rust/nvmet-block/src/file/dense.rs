//! Which parts of a mapped file have all their pages, so that an access through the mapping allocates nothing.
//!
//! May know: chunks, pages, the map. Must not know: operations.
//!
//! What is said here is for the sake of space, not of data: an access to a page that went meanwhile is answered by the
//! kernel with a new page, or by the map with an error.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use nvmet_dma::FileMap;

/// Bytes of a chunk: what the kernel maps around a fault, so the first access costs one.
pub(super) const CHUNK: u64 = 64 * 1024;
/// A chunk that has all its pages. Any other value: pages that are to be accessed by system calls before it is worth
/// looking (again).
const DENSE: u8 = u8::MAX;
/// Least pages between two looks.
const PATIENCE: usize = 4;

/// What is known of every chunk of a [`FileMap`].
#[derive(Debug)]
pub(super) struct Chunks {
    states: Box<[AtomicU8]>,
    page: u64,
    /// Punches that are going on.
    punching: AtomicU32,
    /// Punches that are over, wrapping.
    punched: AtomicU32,
}

impl Chunks {
    /// Of the first `len` bytes of a file. A last part that is no whole chunk is never dense.
    pub(super) fn new(len: u64, page: u64) -> Self {
        Self {
            states: (0..len / CHUNK).map(|_| AtomicU8::new(0)).collect(),
            page,
            punching: AtomicU32::new(0),
            punched: AtomicU32::new(0),
        }
    }

    fn touched(&self, offset: u64, len: u64) -> impl Iterator<Item = (u64, &AtomicU8)> {
        let first = offset / CHUNK;
        let last = offset.saturating_add(len).div_ceil(CHUNK);
        (first..last).map_while(|chunk| Some((chunk, self.states.get(usize::try_from(chunk).ok()?)?)))
    }

    /// Whether all of a range, which is not empty, has its pages.
    #[inline]
    pub(super) fn are_dense(&self, map: &FileMap, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len);
        end <= self.states.len() as u64 * CHUNK
            && self.touched(offset, len).all(|(chunk, state)| match state.load(Ordering::Relaxed) {
                DENSE => true,
                0 => self.look(map, chunk, state),
                _ => false,
            })
    }

    /// Looks at one chunk: one system call.
    #[cold]
    fn look(&self, map: &FileMap, chunk: u64, state: &AtomicU8) -> bool {
        let punched = self.punched.load(Ordering::SeqCst);
        let quiet =
            || self.punching.load(Ordering::SeqCst) == 0 && self.punched.load(Ordering::SeqCst) == punched;
        match map.missing(chunk * CHUNK, CHUNK as usize) {
            Ok(0) if quiet() => {
                state.store(DENSE, Ordering::SeqCst);
                if quiet() {
                    return true;
                }
                // Somebody punches, and may have forgotten the chunk before we said that it is dense.
                state.store(0, Ordering::SeqCst);
                false
            }
            missing => {
                let missing = missing.map_or(PATIENCE, |missing| missing.max(PATIENCE));
                state.store(missing.min(usize::from(DENSE) - 1) as u8, Ordering::Relaxed);
                false
            }
        }
    }

    /// A range was accessed by system calls: a write may have filled chunks, a read may have fetched pages from swap.
    #[inline]
    pub(super) fn accessed(&self, offset: u64, len: u64) {
        let pages = u8::try_from((len.min(CHUNK) / self.page).max(1)).unwrap_or(DENSE);
        for (_, state) in self.touched(offset, len) {
            match state.load(Ordering::Relaxed) {
                DENSE | 0 => {}
                left => state.store(left.saturating_sub(pages), Ordering::Relaxed),
            }
        }
    }

    /// A range is going to lose pages: its chunks are not dense from now on, until [`Chunks::end_punch`] at least.
    pub(super) fn begin_punch(&self, offset: u64, len: u64) {
        self.punching.fetch_add(1, Ordering::SeqCst);
        for (_, state) in self.touched(offset, len) {
            state.store(0, Ordering::SeqCst);
        }
    }

    /// The pages are gone.
    pub(super) fn end_punch(&self) {
        self.punched.fetch_add(1, Ordering::SeqCst);
        self.punching.fetch_sub(1, Ordering::SeqCst);
    }
}
