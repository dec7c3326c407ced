//! Counters that workers add to once a batch and the control thread reads.
//!
//! Knows nothing of commands beyond their direction. All counters only grow; reads are not a consistent snapshot.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a batch did, gathered without atomics and added to [`Stats`] at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Read and Compare commands completed.
    pub reads: u64,
    /// Write commands completed; Write Zeroes carries no user data and does not count.
    pub writes: u64,
    /// Bytes transferred to the host by Read and Compare.
    pub bytes_read: u64,
    /// Bytes transferred from the host by Write.
    pub bytes_written: u64,
    /// Completions posted.
    pub completions: u64,
    /// Completions with an error status.
    pub errors: u64,
    /// Errors of the medium: Media and Data Integrity status codes other than Compare Failure.
    pub media_errors: u64,
    /// Interrupts requested.
    pub interrupts: u64,
}

/// The counters of one controller.
#[derive(Debug, Default)]
pub struct Stats {
    reads: AtomicU64,
    writes: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    completions: AtomicU64,
    errors: AtomicU64,
    media_errors: AtomicU64,
    interrupts: AtomicU64,
}

impl Stats {
    /// Adds what a batch did.
    pub fn add(&self, batch: &Batch) {
        for (counter, value) in [
            (&self.reads, batch.reads),
            (&self.writes, batch.writes),
            (&self.bytes_read, batch.bytes_read),
            (&self.bytes_written, batch.bytes_written),
            (&self.completions, batch.completions),
            (&self.errors, batch.errors),
            (&self.media_errors, batch.media_errors),
            (&self.interrupts, batch.interrupts),
        ] {
            if value != 0 {
                counter.fetch_add(value, Relaxed);
            }
        }
    }

    /// The counters now.
    pub fn read(&self) -> Batch {
        Batch {
            reads: self.reads.load(Relaxed),
            writes: self.writes.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            completions: self.completions.load(Relaxed),
            errors: self.errors.load(Relaxed),
            media_errors: self.media_errors.load(Relaxed),
            interrupts: self.interrupts.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_add_up() {
        let stats = Stats::default();
        let batch = Batch { reads: 3, bytes_read: 4096, completions: 3, ..Batch::default() };
        stats.add(&batch);
        stats.add(&batch);
        assert_eq!(stats.read(), Batch { reads: 6, bytes_read: 8192, completions: 6, ..Batch::default() });
    }
}
