//! What every thread of the target does before it works.

use nix::sys::signal::{SigSet, Signal};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::error::TargetError;

/// Blocks the signals that can be blocked, so that they reach the thread that the program chose for them (in Python:
/// the main thread), and pins the thread to `cpu`.
///
/// Faults stay deliverable: a fault that is blocked ends the process.
///
/// # Errors
///
/// [`TargetError::Config`] for a CPU that the process may not use, [`TargetError::System`] for the rest.
pub fn prepare(cpu: Option<usize>) -> Result<(), TargetError> {
    let mut signals = SigSet::all();
    for fault in [Signal::SIGBUS, Signal::SIGSEGV, Signal::SIGFPE, Signal::SIGILL, Signal::SIGTRAP] {
        signals.remove(fault);
    }
    signals.thread_block().map_err(|error| TargetError::system("block signals", error))?;
    let Some(cpu) = cpu else { return Ok(()) };
    let unusable =
        || TargetError::config("cpu", cpu, "use one that this process may run on (see taskset -p)");
    if cpu >= CpuSet::MAX_CPU {
        return Err(unusable());
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|_| unusable())
}
