//! What a run measured: counters and latency histograms of one job, and the numbers that are shown.
//!
//! Latency is kept to two significant digits (1 %): the histogram then stays in the first-level cache.

use hdrhistogram::Histogram;
use std::time::Duration;

/// The longest latency that is told apart, in nanoseconds: 100 s. Longer ones count as this.
const MAX_LATENCY_NS: u64 = 100_000_000_000;

/// Reads or writes of one job while it runs. Recording allocates nothing.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    ios: u64,
    latency: Histogram<u64>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, MAX_LATENCY_NS, 2).expect("constant bounds are valid");
        Self { ios: 0, latency }
    }

    /// Counts one I/O that took `latency_ns`.
    #[inline]
    pub(crate) fn record(&mut self, latency_ns: u64) {
        self.ios += 1;
        self.latency.saturating_record(latency_ns);
    }

    fn merge(&mut self, other: &Self) {
        self.ios += other.ios;
        self.latency.add(&other.latency).expect("all recorders have the same bounds");
    }

    fn summary(&self, bs: u64, elapsed: Duration) -> Direction {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let bytes = self.ios * bs;
        Direction {
            ios: self.ios,
            bytes,
            iops: self.ios as f64 / seconds,
            bytes_per_second: bytes as f64 / seconds,
            latency: Latency::of(&self.latency),
        }
    }
}

/// What one job hands back.
#[derive(Debug, Clone)]
pub(crate) struct JobRecord {
    pub(crate) reads: Recorder,
    pub(crate) writes: Recorder,
    pub(crate) elapsed: Duration,
}

impl JobRecord {
    /// Adds what the same job did afterwards.
    pub(crate) fn append(&mut self, later: &Self) {
        self.reads.merge(&later.reads);
        self.writes.merge(&later.writes);
        self.elapsed += later.elapsed;
    }
}

/// Latency from submission to completion, in nanoseconds. All zero when there was no I/O.
///
/// Times are taken once per batch of completions, not per I/O: a value is late by at most the time of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Latency {
    /// Shortest.
    pub min_ns: u64,
    /// Mean.
    pub mean_ns: f64,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p99_9_ns: u64,
    /// Longest.
    pub max_ns: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            min_ns: histogram.min(),
            mean_ns: histogram.mean(),
            p50_ns: histogram.value_at_quantile(0.5),
            p99_ns: histogram.value_at_quantile(0.99),
            p99_9_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
        }
    }
}

/// Reads, writes, or both together.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Direction {
    /// I/Os completed.
    pub ios: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// I/Os per second.
    pub iops: f64,
    /// Bytes per second.
    pub bytes_per_second: f64,
    /// Latency.
    pub latency: Latency,
}

/// The numbers of one job, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Summary {
    /// Reads.
    pub read: Direction,
    /// Writes.
    pub write: Direction,
    /// Reads and writes.
    pub total: Direction,
    /// How long it took, in seconds; of the longest job in a sum.
    pub elapsed_s: f64,
}

impl Summary {
    /// Sums up jobs that ran at the same time. Rates are over the longest one.
    pub(crate) fn of<'a>(jobs: impl IntoIterator<Item = &'a JobRecord>, bs: u64) -> Self {
        let (mut reads, mut writes, mut elapsed) = (Recorder::new(), Recorder::new(), Duration::ZERO);
        for job in jobs {
            reads.merge(&job.reads);
            writes.merge(&job.writes);
            elapsed = elapsed.max(job.elapsed);
        }
        let mut total = reads.clone();
        total.merge(&writes);
        Self {
            read: reads.summary(bs, elapsed),
            write: writes.summary(bs, elapsed),
            total: total.summary(bs, elapsed),
            elapsed_s: elapsed.as_secs_f64(),
        }
    }
}

/// Processor time that this process has used since it started: all threads, user and kernel. A target that runs in
/// the same process is in it.
pub(crate) fn process_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(reads: u64, writes: u64, latency_ns: u64, elapsed_ms: u64) -> JobRecord {
        let fill = |n| {
            let mut recorder = Recorder::new();
            (0..n).for_each(|_| recorder.record(latency_ns));
            recorder
        };
        JobRecord { reads: fill(reads), writes: fill(writes), elapsed: Duration::from_millis(elapsed_ms) }
    }

    #[test]
    fn sums_are_over_all_jobs_and_rates_over_the_longest() {
        let jobs = [job(100, 0, 1_000, 500), job(50, 50, 3_000, 1_000)];
        let sum = Summary::of(&jobs, 4096);
        assert_eq!((sum.read.ios, sum.write.ios, sum.total.ios), (150, 50, 200));
        assert_eq!(sum.total.bytes, 200 * 4096);
        assert!((sum.total.iops - 200.0).abs() < 1e-6);
        assert!((sum.total.latency.mean_ns - 2_000.0).abs() < 20.0);
        assert!(sum.total.latency.max_ns >= 3_000 && sum.total.latency.max_ns < 3_100);
        assert!(sum.total.latency.p50_ns <= sum.total.latency.p99_ns);
    }

    #[test]
    fn no_io_is_zero_everywhere() {
        let sum = Summary::of(&[job(0, 0, 0, 0)], 4096);
        assert_eq!(sum.total, Direction::default());
    }

    #[test]
    fn a_latency_beyond_the_scale_counts_as_the_longest() {
        let sum = Summary::of(&[job(1, 0, u64::MAX, 10)], 512);
        assert_eq!(sum.read.ios, 1);
        assert!(sum.read.latency.max_ns >= MAX_LATENCY_NS);
    }

    #[test]
    fn processor_time_never_runs_backwards() {
        let before = process_cpu_time();
        assert!(process_cpu_time() >= before);
    }
}
