//! Load: fio's words, one thread and queue pair a job, latency histograms, and a verify mode.
//!
//! What it may know: queue pairs, buffers, namespaces. What it must not: sockets, registers.
//!
//! The clock is read once per batch of completions (reading it costs about as much as a whole I/O), so a latency is
//! exact to the time of one batch.

mod config;
mod job;
mod offsets;
pub mod pattern;
mod progress;
mod rng;
mod run;
mod stats;
mod verify;

pub use config::{BenchConfig, ConfigError, MAX_BLOCK_BYTES, MAX_IODEPTH, MAX_JOBS, Range, Rw};
pub use progress::Progress;
pub use rng::Rng;
pub use run::{BenchResult, run};
pub use stats::{Direction, Latency, Summary};
pub use verify::{Mismatch, REPORTED_MISMATCHES, VerifyReport};
