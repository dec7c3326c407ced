//! The conformance suite: what every backend does, checked through its queues as a worker uses them.
//!
//! [`run`] takes any [`Backend`], one of ours or one of a user's, and **overwrites its content** (unless it is
//! read-only). What the backend does not promise is not asked for: without `stores_data` nothing is compared.
//!
//! May know: the traits, and guest memory of its own. Must not know: any backend.

mod data;
mod model;
mod queueing;
mod ranges;
pub(crate) mod rig;

use std::fmt;
use std::time::Duration;

use crate::backend::Backend;
use rig::Rig;

/// How hard to look.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Where the random sequences start; a failure is repeated with the seed that it came with.
    pub seed: u64,
    /// Batches of random operations.
    pub rounds: u32,
    /// Depth of the queues, at least 1.
    pub depth: u32,
    /// How long one operation may take before the check fails.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 1, rounds: 60, depth: 32, patience: Duration::from_secs(60) }
    }
}

/// What came out of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The backend does what it must.
    Passed,
    /// It does not apply, for this reason.
    Skipped(String),
    /// It does not, for this reason.
    Failed(String),
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What holds if it passes.
    pub name: &'static str,
    /// What came out.
    pub outcome: Outcome,
}

/// All checks of one run, in order. It displays as one line per check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The backend, in its own words.
    pub backend: String,
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether nothing failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| !matches!(check.outcome, Outcome::Failed(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.backend)?;
        for check in &self.checks {
            match &check.outcome {
                Outcome::Passed => writeln!(f, "  ok    {}", check.name)?,
                Outcome::Skipped(why) => writeln!(f, "  skip  {}: {why}", check.name)?,
                Outcome::Failed(why) => writeln!(f, "  FAIL  {}: {why}", check.name)?,
            }
        }
        Ok(())
    }
}

/// Why a check ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    Skip(String),
    Fail(String),
}

impl Stop {
    pub(crate) fn skip(why: impl Into<String>) -> Self {
        Self::Skip(why.into())
    }

    pub(crate) fn fail(why: impl Into<String>) -> Self {
        Self::Fail(why.into())
    }
}

type Verdict = Result<(), Stop>;

/// What a check works with.
struct Context<'b> {
    backend: &'b dyn Backend,
    options: Options,
}

impl Context<'_> {
    fn rig(&self) -> Result<Rig, Stop> {
        Rig::new(self.backend, &self.options)
    }

    /// Smallest block, in bytes.
    fn block(&self) -> u64 {
        u64::from(self.backend.geometry().min_block)
    }

    fn needs_write(&self) -> Verdict {
        if self.backend.geometry().read_only { Err(Stop::skip("the backend is read-only")) } else { Ok(()) }
    }

    fn needs_data(&self) -> Verdict {
        self.needs_write()?;
        if self.backend.features().stores_data {
            Ok(())
        } else {
            Err(Stop::skip("the backend stores no data"))
        }
    }

    fn needs_size(&self, bytes: u64) -> Verdict {
        if self.backend.geometry().size >= bytes {
            Ok(())
        } else {
            Err(Stop::skip(format!("the backend has less than {bytes} bytes")))
        }
    }
}

/// Fails the check unless the condition holds.
fn ensure(condition: bool, why: impl FnOnce() -> String) -> Verdict {
    if condition { Ok(()) } else { Err(Stop::Fail(why())) }
}

type CheckFn = fn(&Context<'_>) -> Verdict;

const CHECKS: &[(&str, CheckFn)] = &[
    ("its geometry is consistent", ranges::geometry_is_consistent),
    ("it describes itself in one line", ranges::one_line),
    ("ranges beyond its end are refused", ranges::beyond_the_end),
    ("ranges that wrap around are refused", ranges::wrapping),
    ("parts of blocks are refused", ranges::parts_of_blocks),
    ("empty ranges succeed", ranges::empty_ranges),
    ("a read-only backend refuses changes and serves reads", ranges::read_only),
    ("what was written is read back", data::write_then_read),
    ("segments of any length at any address work", data::odd_segments),
    ("thousands of segments work", data::many_segments),
    ("long transfers work", data::long_transfers),
    ("the last block works", data::last_block),
    ("FUA and flush succeed and keep the data", data::fua_and_flush),
    ("write zeroes leaves zeroes, and nothing else", data::write_zeroes),
    ("deallocate leaves the neighbours alone, and zeroes if promised", data::deallocate),
    ("compare finds the same and the different", data::compare),
    ("sync succeeds", data::sync),
    ("random operations at depth match a model", model::random_operations),
    ("two queues on two threads do not disturb each other", queueing::two_threads),
    ("a full queue takes nothing and loses nothing", queueing::full),
    ("every operation is reported once, cancelled or not", queueing::cancel),
    ("a queue dropped with operations in flight leaves the backend usable", queueing::dropped),
    ("guest memory is released when its operations are done", queueing::released),
];

/// Runs every check. The backend's content is lost.
#[must_use]
pub fn run(backend: &dyn Backend, options: Options) -> Report {
    let context = Context { backend, options: Options { depth: options.depth.max(1), ..options } };
    let checks = CHECKS
        .iter()
        .map(|(name, check)| {
            let outcome = match check(&context) {
                Ok(()) => Outcome::Passed,
                Err(Stop::Skip(why)) => Outcome::Skipped(why),
                Err(Stop::Fail(why)) => Outcome::Failed(why),
            };
            Check { name, outcome }
        })
        .collect();
    Report { backend: backend.describe(), checks }
}
