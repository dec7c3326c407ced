//! What a run shows while it runs, and how it is told to stop. Shared with the thread that watches.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A counter in a cache line of its own, so that jobs do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// I/Os done so far, and the wish to stop. All methods may be called from any thread at any time.
#[derive(Debug)]
pub struct Progress {
    counters: Box<[Counter]>,
    goal: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// For a run of `jobs` jobs.
    #[must_use]
    pub fn new(jobs: u32) -> Self {
        let counters = (0..jobs.max(1)).map(|_| Counter::default()).collect();
        Self { counters, goal: AtomicU64::new(0), cancelled: AtomicBool::new(false) }
    }

    /// I/Os completed so far, by all jobs.
    #[must_use]
    pub fn ios(&self) -> u64 {
        self.counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum()
    }

    /// How many I/Os there will be: known in verify mode, 0 when the run ends by time.
    #[must_use]
    pub fn goal(&self) -> u64 {
        self.goal.load(Ordering::Relaxed)
    }

    /// Asks the run to stop: I/Os in flight end, no new ones start, what was measured is reported.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(crate) fn set_goal(&self, ios: u64) {
        self.goal.store(ios, Ordering::Relaxed);
    }

    /// Job `job` has completed `ios` more. Only that job calls this for its number.
    #[inline]
    pub(crate) fn add(&self, job: u32, ios: u64) {
        if let Some(counter) = self.counters.get(job as usize) {
            // One writer: a plain load and store do, without a locked instruction.
            let done = counter.0.load(Ordering::Relaxed);
            counter.0.store(done + ios, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_over_all_jobs_and_a_foreign_job_is_ignored() {
        let progress = Progress::new(2);
        progress.add(0, 3);
        progress.add(1, 4);
        progress.add(2, 100);
        assert_eq!(progress.ios(), 7);
        assert!(!progress.is_cancelled());
        progress.cancel();
        assert!(progress.is_cancelled());
    }
}
