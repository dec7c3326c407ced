//! Counters that workers add to once a batch and the control thread reads.
//!
//! Knows nothing of commands beyond their direction. All counters only grow; reads are not a consistent snapshot.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// What a batch did, gathered without atomics and added to a [`Shard`] at its end.
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

impl Batch {
    /// What came to these counters since they were `before`.
    #[inline]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            writes: self.writes - before.writes,
            bytes_read: self.bytes_read - before.bytes_read,
            bytes_written: self.bytes_written - before.bytes_written,
            completions: self.completions - before.completions,
            errors: self.errors - before.errors,
            media_errors: self.media_errors - before.media_errors,
            interrupts: self.interrupts - before.interrupts,
        }
    }
}

impl AddAssign for Batch {
    fn add_assign(&mut self, other: Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.completions += other.completions;
        self.errors += other.errors;
        self.media_errors += other.media_errors;
        self.interrupts += other.interrupts;
    }
}

/// The part of a controller's counters that one thread adds to, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Shard {
    reads: AtomicU64,
    writes: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    completions: AtomicU64,
    errors: AtomicU64,
    media_errors: AtomicU64,
    interrupts: AtomicU64,
}

impl Shard {
    /// Adds what a batch did. Only the thread that the shard was given to calls this, so nothing is lost although no
    /// addition is atomic.
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
                counter.store(counter.load(Relaxed).wrapping_add(value), Relaxed);
            }
        }
    }

    fn read(&self) -> Batch {
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

/// The counters of one controller.
#[derive(Debug, Default)]
pub struct Stats {
    shards: Mutex<Vec<Arc<Shard>>>,
}

impl Stats {
    /// A shard for the calling thread alone, to be dropped when it adds no more. There are never more shards than there
    /// were threads at once.
    pub fn shard(&self) -> Arc<Shard> {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = shards.iter_mut().find_map(|shard| Arc::get_mut(shard).is_some().then_some(shard))
        {
            return Arc::clone(free);
        }
        let shard = Arc::new(Shard::default());
        shards.push(Arc::clone(&shard));
        shard
    }

    /// The counters now.
    pub fn read(&self) -> Batch {
        let mut sum = Batch::default();
        for shard in &*self.shards.lock().unwrap_or_else(PoisonError::into_inner) {
            sum += shard.read();
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_several_threads_add_up_and_outlive_them() {
        let stats = Stats::default();
        let batch = Batch { reads: 3, bytes_read: 4096, completions: 3, ..Batch::default() };
        let (one, two) = (stats.shard(), stats.shard());
        one.add(&batch);
        two.add(&batch);
        drop(one);
        stats.shard().add(&batch);
        assert_eq!(
            stats.read(),
            Batch { reads: 9, bytes_read: 3 * 4096, completions: 9, ..Batch::default() }
        );
        assert_eq!(stats.shards.lock().unwrap().len(), 2, "a shard that is free is used again");
    }
}
