//! Reads that the page cache answers at once, without the ring.
//!
//! Only while reads come one by one: alone, one saves the way through the ring, while many share one `io_uring_enter`
//! and would each be a system call here. Writes and long reads gain nothing.
//!
//! May know: reads that do not wait (`RWF_NOWAIT`). Must not know: the ring, what becomes of the others.

use std::os::fd::BorrowedFd;

use nvmet_dma::Segments;
use nvmet_dma::file_io::{Moved, read_at};
use rustix::io::Errno;

/// Longest read that is tried, in bytes.
const LONGEST: usize = 64 * 1024;
/// Reads after one that was alone in its batch that are tried; then one goes to the ring, to see whether it still is.
const RUN: u32 = 63;
/// Most reads that go to the ring without a try, after tries that were in vain.
const MAX_PAUSE: u32 = 1024;

/// One queue's luck with the page cache.
#[derive(Debug)]
pub(super) struct Cached {
    /// The file is cached, and its file system knows such reads.
    usable: bool,
    /// Reads that are to be tried.
    run: u32,
    /// Reads of this batch that went to the ring.
    batch: u32,
    /// Reads that are not tried.
    pause: u32,
    /// The pause after the next failure.
    next: u32,
}

impl Cached {
    /// `buffered`: I/O goes through the page cache.
    pub(super) fn new(buffered: bool) -> Self {
        Self { usable: buffered, run: 0, batch: 0, pause: 0, next: 1 }
    }

    /// A batch has ended.
    #[inline]
    pub(super) fn kicked(&mut self) {
        match std::mem::take(&mut self.batch) {
            0 => {}
            1 => self.run = RUN,
            _ => self.run = 0,
        }
    }

    /// Whether the read was done. If not it is one for the ring, which moves all of it, and finds out what is wrong.
    #[inline]
    pub(super) fn read(&mut self, file: BorrowedFd<'_>, offset: u64, data: &Segments<'_>) -> bool {
        if !self.usable {
            return false;
        }
        let done = self.tried(file, offset, data);
        self.batch += u32::from(!done);
        done
    }

    #[inline]
    fn tried(&mut self, file: BorrowedFd<'_>, offset: u64, data: &Segments<'_>) -> bool {
        if self.run == 0 || data.len() > LONGEST {
            return false;
        }
        self.run -= 1;
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        match read_at(file, offset, data, true) {
            Ok(Moved { bytes, .. }) if bytes == data.len() => {
                self.next = 1;
                true
            }
            Ok(Moved { stopped: Some(Errno::OPNOTSUPP | Errno::NOSYS), .. }) => {
                self.usable = false;
                false
            }
            _ => {
                self.pause = self.next;
                self.next = (self.next * 2).min(MAX_PAUSE);
                false
            }
        }
    }
}
