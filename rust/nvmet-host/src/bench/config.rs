//! What to run: fio's words, checked before anything is started.

use std::{fmt, str::FromStr, time::Duration};

/// The most jobs one run may have.
pub const MAX_JOBS: u32 = 256;
/// The deepest queue one job may ask for: SQ and CQ of 65 536 entries hold one less (Base §3.3.1.5).
pub const MAX_IODEPTH: u32 = 65_535;
/// The largest block size, in bytes.
pub const MAX_BLOCK_BYTES: u32 = 64 << 20;

/// A configuration that cannot be run. The text names the option, the value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// The access pattern, in fio's words (`--rw`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rw {
    /// Sequential reads.
    Read,
    /// Sequential writes.
    Write,
    /// Random reads.
    #[default]
    RandRead,
    /// Random writes.
    RandWrite,
    /// Random reads and writes, mixed by `rwmixread`.
    RandRw,
}

impl Rw {
    /// Whether offsets are random.
    #[must_use]
    pub const fn is_random(self) -> bool {
        matches!(self, Self::RandRead | Self::RandWrite | Self::RandRw)
    }

    /// Whether the pattern writes at all.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::RandWrite | Self::RandRw)
    }

    /// How many of 100 I/Os are reads, if `randrw` mixes in `rwmixread` percent.
    #[must_use]
    pub const fn read_percentage(self, rwmixread: u8) -> u8 {
        match self {
            Self::Read | Self::RandRead => 100,
            Self::Write | Self::RandWrite => 0,
            Self::RandRw => rwmixread,
        }
    }

    /// fio's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::RandRead => "randread",
            Self::RandWrite => "randwrite",
            Self::RandRw => "randrw",
        }
    }
}

impl fmt::Display for Rw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Rw {
    type Err = ConfigError;

    fn from_str(word: &str) -> Result<Self, ConfigError> {
        [Self::Read, Self::Write, Self::RandRead, Self::RandWrite, Self::RandRw]
            .into_iter()
            .find(|rw| rw.as_str() == word)
            .ok_or_else(|| {
                ConfigError(format!(
                    "rw: `{word}` is not an access pattern; use read, write, randread, randwrite or randrw"
                ))
            })
    }
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// One run.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BenchConfig {
    /// Access pattern.
    pub rw: Rw,
    /// Percentage of reads in `randrw`, 0 to 100.
    pub rwmixread: u8,
    /// Bytes per I/O; a multiple of the namespace's block size.
    pub bs: u32,
    /// I/Os that each job keeps in flight.
    pub iodepth: u32,
    /// Jobs: each is a thread with a queue pair of its own.
    pub numjobs: u32,
    /// How long to run. `verify` ignores it: it ends when everything was read back. In seconds where serialised.
    #[serde(serialize_with = "seconds")]
    pub runtime: Duration,
    /// Bytes of the namespace to use, from its start; `None`: all of it. Rounded down to whole I/Os.
    pub size: Option<u64>,
    /// Seed of the offsets and of the verify pattern.
    pub seed: u64,
    /// Namespace identifier; `None`: the first active one.
    pub nsid: Option<u32>,
    /// CPUs to pin jobs to: job *i* runs on `cpus[i % len]`. Empty: not pinned.
    pub cpus: Vec<usize>,
    /// Wait for interrupts instead of polling.
    pub interrupts: bool,
    /// How long to stay attached after the load, with the queues in place and without a command, as an idle guest
    /// does. In seconds where serialised.
    #[serde(serialize_with = "seconds")]
    pub hold: Duration,
    /// Write a pattern over `size`, then read it all back. Destroys what is there.
    pub verify: bool,
    /// How long one command may take before the run is given up. In seconds where serialised.
    #[serde(serialize_with = "seconds")]
    pub command_timeout: Duration,
}

impl Default for BenchConfig {
    fn default() -> Self {
        Self {
            rw: Rw::RandRead,
            rwmixread: 50,
            bs: 4096,
            iodepth: 32,
            numjobs: 1,
            runtime: Duration::from_secs(5),
            size: None,
            seed: 0x6E76_6D65,
            nsid: None,
            cpus: Vec::new(),
            interrupts: false,
            hold: Duration::ZERO,
            verify: false,
            command_timeout: Duration::from_secs(30),
        }
    }
}

/// Where one job works: `count` I/Os of `bs` bytes from I/O number `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Number of the first I/O in units of `bs`.
    pub first: u64,
    /// How many I/Os fit.
    pub count: u64,
}

impl BenchConfig {
    /// Checks everything that can be checked without a drive.
    ///
    /// # Errors
    /// [`ConfigError`] names the first option that is out of range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |text: String| Err(ConfigError(text));
        if !(1..=MAX_JOBS).contains(&self.numjobs) {
            return fail(format!("numjobs: {} is not in 1..={MAX_JOBS}", self.numjobs));
        }
        if !(1..=MAX_IODEPTH).contains(&self.iodepth) {
            return fail(format!("iodepth: {} is not in 1..={MAX_IODEPTH}", self.iodepth));
        }
        if self.rwmixread > 100 {
            return fail(format!("rwmixread: {} is not a percentage", self.rwmixread));
        }
        if !(1..=MAX_BLOCK_BYTES).contains(&self.bs) {
            return fail(format!("bs: {} is not in 1..={MAX_BLOCK_BYTES} bytes", self.bs));
        }
        if self.runtime.is_zero() && !self.verify {
            return fail("runtime: it must be longer than zero".into());
        }
        Ok(())
    }

    /// Checks the block size and span against a namespace and gives the I/Os of all jobs together.
    ///
    /// # Errors
    /// [`ConfigError`] when `bs` is no multiple of the block size, larger than a command can carry, or the span holds
    /// no I/O for each job.
    pub fn span(&self, block_bytes: u64, capacity: u64, max_transfer: u64) -> Result<u64, ConfigError> {
        let bs = u64::from(self.bs);
        if bs % block_bytes != 0 {
            return Err(ConfigError(format!(
                "bs: {bs} bytes is not a multiple of the namespace's {block_bytes}-byte blocks"
            )));
        }
        let most = max_transfer.min(65_536 * block_bytes);
        if bs > most {
            return Err(ConfigError(format!(
                "bs: {bs} bytes is more than one command may carry; the drive takes at most {most}"
            )));
        }
        if let Some(size) = self.size
            && size > capacity
        {
            return Err(ConfigError(format!(
                "size: {size} bytes is more than the namespace has ({capacity} bytes)"
            )));
        }
        let ios = self.size.unwrap_or(capacity) / bs;
        if ios < u64::from(self.numjobs) {
            return Err(ConfigError(format!(
                "size: {} bytes hold {ios} I/Os of {bs} bytes, fewer than the {} jobs",
                self.size.unwrap_or(capacity),
                self.numjobs
            )));
        }
        Ok(ios)
    }

    /// The range of job `job` when `span` I/Os are shared out: disjoint, without a gap.
    #[must_use]
    pub fn range(&self, job: u32, span: u64) -> Range {
        let (job, jobs) = (u64::from(job), u64::from(self.numjobs.max(1)));
        let start = |job: u64| (u128::from(span) * u128::from(job) / u128::from(jobs)) as u64;
        Range { first: start(job), count: start(job + 1) - start(job) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fios_words_are_understood_and_others_named() {
        for rw in [Rw::Read, Rw::Write, Rw::RandRead, Rw::RandWrite, Rw::RandRw] {
            assert_eq!(rw.as_str().parse(), Ok(rw));
        }
        let error = "trim".parse::<Rw>().unwrap_err().to_string();
        assert!(error.contains("`trim`") && error.contains("randrw"), "{error}");
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let ok = BenchConfig::default();
        assert_eq!(ok.check(), Ok(()));
        for (bad, name) in [
            (BenchConfig { numjobs: 0, ..ok.clone() }, "numjobs"),
            (BenchConfig { iodepth: 0, ..ok.clone() }, "iodepth"),
            (BenchConfig { iodepth: 65_536, ..ok.clone() }, "iodepth"),
            (BenchConfig { rwmixread: 101, ..ok.clone() }, "rwmixread"),
            (BenchConfig { bs: 0, ..ok.clone() }, "bs"),
            (BenchConfig { runtime: Duration::ZERO, ..ok.clone() }, "runtime"),
        ] {
            assert!(bad.check().unwrap_err().to_string().starts_with(name));
        }
    }

    #[test]
    fn a_span_fits_the_namespace_or_is_refused() {
        let config = BenchConfig { bs: 4096, size: Some(1 << 20), ..BenchConfig::default() };
        assert_eq!(config.span(512, 1 << 30, 1 << 19), Ok(256));
        assert!(config.span(8192, 1 << 30, 1 << 19).is_err());
        assert!(config.span(512, 1 << 19, 1 << 19).is_err());
        assert!(config.span(512, 1 << 30, 2048).is_err());
        let small = BenchConfig { numjobs: 300, ..config };
        assert!(small.span(512, 1 << 30, 1 << 19).is_err());
    }

    proptest! {
        #[test]
        fn the_jobs_ranges_cover_the_span_once(jobs in 1u32..=256, more in 0u64..u64::MAX / 2) {
            let config = BenchConfig { numjobs: jobs, ..BenchConfig::default() };
            let span = u64::from(jobs) + more;
            let mut at = 0;
            for job in 0..jobs {
                let range = config.range(job, span);
                prop_assert_eq!(range.first, at);
                prop_assert!(range.count > 0);
                at += range.count;
            }
            prop_assert_eq!(at, span);
        }
    }
}
