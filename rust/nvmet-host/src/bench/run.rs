//! A run: queue pairs, memory and threads for all jobs, and what they measured put together.

use super::{
    config::{BenchConfig, Range},
    job::{Engine, Io, Limits, Shape, Workload},
    offsets::{Offsets, Once},
    progress::Progress,
    rng::{Rng, mix},
    stats::{JobRecord, Summary, process_cpu_time},
    verify::{Blocks, ReadPass, VerifyReport, WritePass},
};
use crate::{Drive, HostError, QueueConfig, memory::DmaBuffer};
use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Entries that a queue has at least, if the drive allows it.
const MIN_ENTRIES: u32 = 64;
/// How often a job that holds looks whether it was told to stop.
const HOLD_SLICE: Duration = Duration::from_millis(200);

/// What a run measured.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BenchResult {
    /// What was run.
    pub config: BenchConfig,
    /// Namespace that was used.
    pub nsid: u32,
    /// How doorbells were rung: "shadow", "mapped" or "trapped".
    pub doorbells: &'static str,
    /// All jobs together. In verify mode: both passes together.
    pub summary: Summary,
    /// Each job.
    pub jobs: Vec<Summary>,
    /// Processor time of this process during the run, in seconds.
    pub cpu_s: f64,
    /// Whether the run was stopped before its end.
    pub cancelled: bool,
    /// What verify found; `None` in a benchmark.
    pub verify: Option<VerifyReport>,
}

/// Runs `config` on `drive`. Blocks until the end; `progress` (made for `config.numjobs` jobs) shows how far it is.
///
/// # Errors
/// [`HostError::Config`] before anything is touched; any error of the drive, of the first job that met one.
pub fn run(drive: &mut Drive, config: &BenchConfig, progress: &Progress) -> Result<BenchResult, HostError> {
    config.check()?;
    let namespace = drive.find_namespace(config.nsid)?;
    let block_bytes = namespace.block_size;
    let span = config.span(block_bytes, namespace.capacity_bytes(), drive.max_transfer())?;
    let limits = drive.queue_limits();
    let depth = config.iodepth + 1;
    if depth > limits.max_entries {
        return Err(HostError::argument(format!(
            "iodepth: {} is more than the drive's queues hold ({})",
            config.iodepth,
            limits.max_entries - 1
        )));
    }
    if config.numjobs > u32::from(limits.max_queues) {
        return Err(HostError::argument(format!(
            "numjobs: {} is more than the drive has I/O queues ({})",
            config.numjobs, limits.max_queues
        )));
    }
    let shape = Shape {
        nsid: namespace.nsid,
        bs: config.bs,
        blocks: (u64::from(config.bs) / block_bytes) as u32,
        page: drive.page_size(),
    };
    let mut engines = Vec::with_capacity(config.numjobs as usize);
    let prepared = prepare(drive, config, shape, depth, &mut engines);
    let doorbells = drive.doorbell_mode();
    let plan = Plan { config, shape, doorbells, block_bytes, span, progress };
    let outcome = prepared.and_then(|()| plan.execute(&mut engines));
    if outcome.is_ok() {
        hold(config.hold, progress);
    }
    let mut closed = Ok(());
    for engine in engines {
        // The memory goes after the queues: commands may still be in flight when a job failed.
        let (pair, _memory) = engine.into_parts();
        closed = closed.and(drive.delete_queue_pair(pair));
    }
    let result = outcome?;
    closed?;
    Ok(result)
}

/// Creates the queue pair, memory and slots of every job. What was made before an error stays in `engines`.
fn prepare(
    drive: &mut Drive,
    config: &BenchConfig,
    shape: Shape,
    depth: u32,
    engines: &mut Vec<Engine>,
) -> Result<(), HostError> {
    for job in 0..config.numjobs {
        let data = shape.buffer_bytes() * config.iodepth as usize;
        let lists = shape.list_bytes() * config.iodepth as usize;
        let memory = drive.map_memory(data + lists.next_multiple_of(shape.page as usize))?;
        let data = memory.allocate(data)?;
        let lists = if lists == 0 { None } else { Some(memory.allocate(lists)?) };
        // With a few entries the ring wraps all the time, and each wrap costs a doorbell that shadows cannot save.
        let depth = depth.max(MIN_ENTRIES.min(drive.queue_limits().max_entries));
        let vector = config.interrupts.then(|| drive.vector_for(job)).transpose()?;
        let pair = drive.create_queue_pair(&QueueConfig { depth, vector, ..QueueConfig::default() })?;
        engines.push(Engine::new(job, pair, shape, config.iodepth, data, lists)?);
    }
    Ok(())
}

/// A benchmark: the data does not matter.
#[derive(Debug)]
struct Load {
    offsets: Offsets,
    mix: Rng,
    /// Percentage of reads.
    reads: u64,
}

impl Workload for Load {
    #[inline]
    fn next(&mut self, _: &DmaBuffer, _: usize) -> Result<Option<Io>, HostError> {
        let write = match self.reads {
            100 => false,
            0 => true,
            reads => self.mix.below(100) >= reads,
        };
        Ok(Some(Io { number: self.offsets.next(), write }))
    }

    #[inline]
    fn done(&mut self, _: Io, _: &DmaBuffer, _: usize) -> Result<(), HostError> {
        Ok(())
    }
}

/// What all jobs of a run are told.
#[derive(Debug, Clone, Copy)]
struct Plan<'a> {
    config: &'a BenchConfig,
    shape: Shape,
    /// How doorbells are rung.
    doorbells: &'static str,
    /// Bytes of a logical block.
    block_bytes: u64,
    /// Commands that it takes to cover the range of the run.
    span: u64,
    progress: &'a Progress,
}

impl Plan<'_> {
    /// Runs all jobs, each on a thread of its own, and puts together what they measured.
    fn execute(&self, engines: &mut [Engine]) -> Result<BenchResult, HostError> {
        let Self { config, shape, doorbells, span, progress, .. } = *self;
        let cpu = process_cpu_time();
        let (records, verify) = if config.verify {
            progress.set_goal(span * 2);
            let (records, report) = self.verify(engines)?;
            (records, Some(report))
        } else {
            (self.load(engines)?, None)
        };
        let cpu = process_cpu_time().saturating_sub(cpu);
        let bs = u64::from(config.bs);
        Ok(BenchResult {
            config: config.clone(),
            nsid: shape.nsid,
            doorbells,
            summary: Summary::of(&records, bs),
            jobs: records.iter().map(|record| Summary::of([record], bs)).collect(),
            cpu_s: cpu.as_secs_f64(),
            cancelled: progress.is_cancelled(),
            verify,
        })
    }

    fn load(&self, engines: &mut [Engine]) -> Result<Vec<JobRecord>, HostError> {
        let Self { config, span, progress, .. } = *self;
        on_all(engines, config, progress, |job, engine| {
            let seed = mix(config.seed ^ mix(u64::from(job)));
            let offsets = if config.rw.is_random() {
                Offsets::random(Range { first: 0, count: span }, seed)
            } else {
                Offsets::sequential(config.range(job, span))
            };
            let reads = config.rw.read_percentage(config.rwmixread);
            let mut work = Load { offsets, mix: Rng::new(!seed), reads: u64::from(reads) };
            engine.run(&mut work, limits(config), progress)
        })
    }

    /// Writes the whole span by all jobs, and only then reads it by all jobs.
    fn verify(&self, engines: &mut [Engine]) -> Result<(Vec<JobRecord>, VerifyReport), HostError> {
        let Self { config, shape, span, progress, .. } = *self;
        // Unlike the seed it differs from run to run, so data of an earlier run never passes for ours.
        let generation =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
        let blocks = Blocks {
            nsid: shape.nsid,
            generation,
            seed: config.seed,
            block_bytes: self.block_bytes as usize,
            per_io: shape.blocks,
        };
        let order = |job: u32, pass: u64| {
            let scatter = config.rw.is_random().then(|| mix(config.seed ^ u64::from(job) ^ (pass << 32)));
            Once::new(config.range(job, span), scatter)
        };
        let written = on_all(engines, config, progress, |job, engine| {
            engine.run(&mut WritePass::new(blocks, order(job, 0)), limits(config), progress)
        })?;
        let mut report = VerifyReport { generation, ..VerifyReport::default() };
        if progress.is_cancelled() {
            return Ok((written, report));
        }
        let read = on_all(engines, config, progress, |job, engine| {
            let mut pass = ReadPass::new(blocks, order(job, 1));
            let record = engine.run(&mut pass, limits(config), progress)?;
            Ok((record, pass.report))
        })?;
        let mut records = Vec::with_capacity(written.len());
        for (mut record, (read, found)) in written.into_iter().zip(read) {
            record.append(&read);
            records.push(record);
            report.merge(found);
        }
        Ok((records, report))
    }
}

/// Does nothing for `time`, or until the run is cancelled.
fn hold(time: Duration, progress: &Progress) {
    let started = Instant::now();
    while !progress.is_cancelled() {
        match time.checked_sub(started.elapsed()) {
            Some(left) if !left.is_zero() => thread::sleep(left.min(HOLD_SLICE)),
            _ => break,
        }
    }
}

fn limits(config: &BenchConfig) -> Limits {
    Limits {
        runtime: (!config.verify).then_some(config.runtime),
        command_timeout: config.command_timeout,
        interrupts: config.interrupts,
    }
}

/// Runs `work` for every engine on a thread of its own, pinned as configured. The first error wins and stops the
/// other jobs.
fn on_all<T: Send>(
    engines: &mut [Engine],
    config: &BenchConfig,
    progress: &Progress,
    work: impl Fn(u32, &mut Engine) -> Result<T, HostError> + Sync,
) -> Result<Vec<T>, HostError> {
    let work = &work;
    thread::scope(|scope| {
        let mut threads = Vec::with_capacity(engines.len());
        for (job, engine) in (0u32..).zip(engines) {
            let body = move || {
                let outcome = pin(config, job).and_then(|()| work(job, engine));
                if outcome.is_err() {
                    progress.cancel();
                }
                outcome
            };
            let name = format!("bench-{job}");
            match thread::Builder::new().name(name).spawn_scoped(scope, body) {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    progress.cancel();
                    return Err(HostError::Thread { job, source });
                }
            }
        }
        let mut outcomes = Vec::with_capacity(threads.len());
        for thread in threads {
            outcomes.push(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        outcomes.into_iter().collect()
    })
}

/// Pins the calling thread to the job's CPU, if there is a list.
fn pin(config: &BenchConfig, job: u32) -> Result<(), HostError> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let Some(&cpu) = config.cpus.get(job as usize % config.cpus.len().max(1)) else {
        return Ok(());
    };
    if cpu >= CpuSet::MAX_CPU {
        return Err(HostError::Pin { cpu, source: rustix::io::Errno::INVAL.into() });
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|errno| HostError::Pin { cpu, source: errno.into() })
}
