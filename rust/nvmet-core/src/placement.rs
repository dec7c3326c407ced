//! Which worker runs on which CPU, and what an operator has to know about that.
//!
//! Arithmetic on the configuration: what it refuses comes before any thread is started. It asks the system only which
//! CPUs there are for this process.

use std::collections::BTreeSet;

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::error::TargetError;
use crate::worker::{WaitMode, WorkerConfig};

/// The most workers of a target.
const MAX_WORKERS: u16 = 1024;

/// A configuration that works, but not as its writer may think.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// There are more CPUs than workers.
    Unused {
        /// The CPUs that no worker runs on.
        cpus: BTreeSet<usize>,
        /// Workers.
        workers: u16,
    },
    /// Workers that never sleep have to share CPUs.
    Crowded {
        /// Workers.
        workers: u16,
        /// The CPUs that they have.
        cpus: BTreeSet<usize>,
    },
}

impl std::fmt::Display for Oddity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unused { cpus, workers } => {
                let all = usize::from(*workers) + cpus.len();
                write!(
                    f,
                    "cpus: {} not used: there is one CPU for each worker, and workers is {workers}; ",
                    list(cpus)
                )?;
                write!(f, "set workers to {all} or leave them out")
            }
            Self::Crowded { workers, cpus } => {
                let count = cpus.len();
                write!(f, "workers: {workers} that never sleep (wait is poll) have only {} ", list(cpus))?;
                write!(f, "and take them from each other; use {count} workers at most, or wait adaptive")
            }
        }
    }
}

/// CPUs that this process may run on: those that exist, less what taskset and a cgroup's cpuset take away.
///
/// # Errors
///
/// [`TargetError::System`] if the system does not tell.
pub fn allowed_cpus() -> Result<BTreeSet<usize>, TargetError> {
    let set = sched_getaffinity(None).map_err(|e| TargetError::system("read the CPU affinity", e))?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// What the workers of a target are, on a machine where it may use the CPUs `allowed`.
///
/// # Errors
///
/// [`TargetError::Config`] for a number of workers out of range, and for a CPU that is not there or not allowed.
pub fn place(
    workers: u16,
    cpus: &[usize],
    wait: WaitMode,
    allowed: &BTreeSet<usize>,
) -> Result<(Vec<WorkerConfig>, Vec<Oddity>), TargetError> {
    if workers == 0 || workers > MAX_WORKERS {
        return Err(TargetError::config("workers", workers, format!("use 1 to {MAX_WORKERS}")));
    }
    let refused: BTreeSet<usize> = cpus.iter().copied().filter(|cpu| !allowed.contains(cpu)).collect();
    if !refused.is_empty() {
        let fix =
            format!("this process may run on {} (taskset -p and its cgroup's cpuset say so)", list(allowed));
        return Err(TargetError::config("cpus", list(&refused), fix));
    }
    let used: BTreeSet<usize> = cpus.iter().copied().take(workers.into()).collect();
    let unused: BTreeSet<usize> = cpus.iter().copied().filter(|cpu| !used.contains(cpu)).collect();
    let room = if cpus.is_empty() { allowed } else { &used };
    let mut oddities = Vec::new();
    if wait == WaitMode::Poll && usize::from(workers) > room.len() {
        oddities.push(Oddity::Crowded { workers, cpus: room.clone() });
    }
    if !unused.is_empty() {
        oddities.push(Oddity::Unused { cpus: unused, workers });
    }
    let mut turn = cpus.iter().copied().cycle();
    Ok(((0..workers).map(|_| WorkerConfig { cpu: turn.next(), wait }).collect(), oddities))
}

/// CPUs as taskset(1) writes them: `0,2-3`.
fn list(cpus: &BTreeSet<usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let word = |&(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    let what = if cpus.len() == 1 { "CPU" } else { "CPUs" };
    format!("{what} {}", ranges.iter().map(word).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(
        workers: u16,
        cpus: &[usize],
        wait: WaitMode,
        allowed: usize,
    ) -> (Vec<Option<usize>>, Vec<String>) {
        let (workers, oddities) = place(workers, cpus, wait, &(0..allowed).collect()).unwrap();
        assert!(workers.iter().all(|worker| worker.wait == wait));
        (workers.iter().map(|worker| worker.cpu).collect(), oddities.iter().map(Oddity::to_string).collect())
    }

    #[test]
    fn workers_take_the_cpus_in_turn() {
        let (cpus, odd) = placed(5, &[4, 1], WaitMode::Adaptive, 8);
        assert_eq!(cpus, [Some(4), Some(1), Some(4), Some(1), Some(4)]);
        assert!(odd.is_empty());
        let (cpus, odd) = placed(64, &[], WaitMode::Event, 2);
        assert_eq!(cpus, [None; 64]);
        assert!(odd.is_empty());
    }

    #[test]
    fn cpus_that_stay_unused_are_named() {
        let (_, odd) = placed(2, &[0, 1, 2, 3, 5], WaitMode::Adaptive, 8);
        assert_eq!(odd.len(), 1);
        assert!(odd[0].contains("CPUs 2-3,5 not used") && odd[0].contains("workers to 5"), "{}", odd[0]);
        let (_, odd) = placed(3, &[1, 1, 1, 1], WaitMode::Adaptive, 2);
        assert!(odd.is_empty(), "a CPU that is named twice is used");
    }

    #[test]
    fn workers_that_poll_need_a_cpu_each() {
        for (workers, cpus, crowd) in [
            (3, &[][..], Some("have only CPUs 0-1")),
            (2, &[1], Some("have only CPU 1")),
            (2, &[], None),
            (2, &[0, 1], None),
        ] {
            let (_, odd) = placed(workers, cpus, WaitMode::Poll, 2);
            assert_eq!(odd.len(), usize::from(crowd.is_some()), "{odd:?}");
            assert!(odd.iter().all(|odd| odd.contains(crowd.unwrap_or_default())), "{odd:?}");
            assert!(placed(workers, cpus, WaitMode::Adaptive, 2).1.is_empty());
        }
    }

    #[test]
    fn a_cpu_that_is_not_there_and_no_workers_are_refused() {
        let allowed: BTreeSet<usize> = [0, 1, 3].into();
        let refuse =
            |workers, cpus: &[usize]| place(workers, cpus, WaitMode::Poll, &allowed).unwrap_err().to_string();
        let error = refuse(1, &[0, 2, 9]);
        assert!(error.starts_with("cpus: CPUs 2,9; ") && error.contains("CPUs 0-1,3"), "{error}");
        assert!(refuse(1, &[usize::MAX]).contains("18446744073709551615"));
        assert!(refuse(0, &[]).contains("use 1 to 1024"));
        assert!(refuse(1025, &[]).contains("1025"));
    }

    #[test]
    fn this_process_may_run_somewhere() {
        assert!(!allowed_cpus().unwrap().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_list_of_cpus_can_be_read_back(cpus in proptest::collection::btree_set(0usize..300, 1..40)) {
            let text = list(&cpus);
            let numbers = text.split_once(' ').unwrap().1.split(',').flat_map(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                first.parse::<usize>().unwrap()..=last.parse().unwrap()
            });
            proptest::prop_assert_eq!(numbers.collect::<BTreeSet<_>>(), cpus);
        }
    }
}
