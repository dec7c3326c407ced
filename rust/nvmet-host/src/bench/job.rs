//! The loop of one job: keep `iodepth` commands in flight on a queue pair until told to stop.
//!
//! Nothing in it allocates, locks or hashes. Commands are built once per slot; an I/O changes an LBA and a CID stays.
//! The clock is read once per batch of completions, and the doorbells are rung once per batch.

use super::{
    progress::Progress,
    stats::{JobRecord, Recorder},
};
use crate::{HostError, SqeExt, memory::DmaBuffer, namespace::read_write, prp, queue::QueuePair};
use nvmet_spec::command::{NvmOpcode, Sqe};
use std::time::{Duration, Instant};

/// Empty polls before a job begins to look at the clock.
const SPINS: u32 = 512;
/// How often a job without completions looks whether it was told to stop.
const SLICE: Duration = Duration::from_millis(200);
/// How long a job that was told to stop waits for what is in flight.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// What a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Reading,
    Writing,
}

/// One command that can be in flight: CID = number of the slot.
#[derive(Debug)]
struct Slot {
    command: Sqe,
    /// Nanoseconds since the job's start.
    submitted: u64,
    /// The I/O's number, in units of the block size.
    io: u64,
    state: State,
}

/// What to do next, as an [`Engine`] asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Io {
    /// Number of the I/O, in units of the block size.
    pub(crate) number: u64,
    pub(crate) write: bool,
}

/// Where I/Os come from and what happens with their data. The engine is generic over it, so a benchmark's source
/// costs nothing where it does nothing.
pub(crate) trait Workload {
    /// The next I/O, `None` when there are no more. `buffer` is the slot's memory.
    fn next(&mut self, buffer: &DmaBuffer, at: usize) -> Result<Option<Io>, HostError>;
    /// `io` has succeeded; its data is in `buffer`.
    fn done(&mut self, io: Io, buffer: &DmaBuffer, at: usize) -> Result<(), HostError>;
}

/// One I/O's shape on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) nsid: u32,
    /// Bytes per I/O.
    pub(crate) bs: u32,
    /// Logical blocks per I/O.
    pub(crate) blocks: u32,
    /// Memory page size in bytes.
    pub(crate) page: u64,
}

impl Shape {
    /// Bytes of buffer memory of one slot: whole pages, so PRP entries are aligned.
    pub(crate) fn buffer_bytes(&self) -> usize {
        u64::from(self.bs).next_multiple_of(self.page) as usize
    }

    /// Bytes of PRP list memory of one slot, a power of two or whole pages so that a list crosses no page in between.
    pub(crate) fn list_bytes(&self) -> usize {
        let count = prp::entry_count(0, self.bs as usize, self.page);
        match prp::list_bytes(count, 0, self.page) {
            0 => 0,
            bytes if bytes as u64 <= self.page => bytes.next_power_of_two(),
            bytes => (bytes as u64).next_multiple_of(self.page) as usize,
        }
    }
}

/// Options of the loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// When to start no new I/O; `None`: when the workload ends.
    pub(crate) runtime: Option<Duration>,
    /// How long one command may take.
    pub(crate) command_timeout: Duration,
    /// Wait for interrupts instead of polling.
    pub(crate) interrupts: bool,
}

/// A job's queue pair, slots and memory.
#[derive(Debug)]
pub(crate) struct Engine {
    job: u32,
    pair: QueuePair,
    slots: Vec<Slot>,
    /// Slots that are free; never longer than `slots`.
    idle: Vec<u16>,
    buffer: DmaBuffer,
    /// Holds the PRP lists that the commands point to.
    lists: Option<DmaBuffer>,
    shape: Shape,
}

impl Engine {
    /// Prepares `depth` slots over `buffer` (depth × [`Shape::buffer_bytes`]) and `lists` (depth ×
    /// [`Shape::list_bytes`]).
    pub(crate) fn new(
        job: u32,
        pair: QueuePair,
        shape: Shape,
        depth: u32,
        buffer: DmaBuffer,
        lists: Option<DmaBuffer>,
    ) -> Result<Self, HostError> {
        let mut slots = Vec::with_capacity(depth as usize);
        for number in 0..depth as usize {
            let data = buffer.iova() + (number * shape.buffer_bytes()) as u64;
            let list_at = number * shape.list_bytes();
            let list_iova = lists.as_ref().map_or(0, |lists| lists.iova() + list_at as u64);
            let mut written = Ok(());
            let pair = prp::layout(
                prp::entries(data, shape.bs as usize, shape.page),
                list_iova,
                shape.page,
                |at, entry| {
                    if let (Some(lists), Ok(())) = (&lists, &written) {
                        written = lists.write((at - lists.iova()) as usize, &entry.to_le_bytes());
                    }
                },
            );
            written?;
            let mut command = read_write(NvmOpcode::Read, shape.nsid, 0, shape.blocks).with_prp(pair);
            command.cdw0.set_cid(number as u16);
            slots.push(Slot { command, submitted: 0, io: 0, state: State::Idle });
        }
        let idle = (0..depth as u16).rev().collect();
        Ok(Self { job, pair, slots, idle, buffer, lists, shape })
    }

    /// Gives the queue pair back, and the memory that has to outlive it.
    pub(crate) fn into_parts(self) -> (QueuePair, (DmaBuffer, Option<DmaBuffer>)) {
        (self.pair, (self.buffer, self.lists))
    }

    /// Runs `work` until it ends, the time is up, or `progress` is cancelled; then lets what is in flight end.
    pub(crate) fn run(
        &mut self,
        work: &mut impl Workload,
        limits: Limits,
        progress: &Progress,
    ) -> Result<JobRecord, HostError> {
        let (mut reads, mut writes) = (Recorder::new(), Recorder::new());
        let start = Instant::now();
        let end = limits.runtime.map_or(u64::MAX, nanos);
        let mut now = 0;
        let mut more = true;
        loop {
            if more {
                more = self.fill(work, now)?;
                self.pair.ring()?;
            }
            if self.idle.len() == self.slots.len() {
                break;
            }
            self.wait(limits, progress)?;
            now = nanos(start.elapsed());
            let done = self.reap(work, now, &mut reads, &mut writes)?;
            progress.add(self.job, done as u64);
            if now >= end || progress.is_cancelled() {
                more = false;
            }
        }
        Ok(JobRecord { reads, writes, elapsed: start.elapsed() })
    }

    /// Starts an I/O in every free slot. False when the workload has no more.
    fn fill(&mut self, work: &mut impl Workload, now: u64) -> Result<bool, HostError> {
        let stride = self.shape.buffer_bytes();
        while let Some(&cid) = self.idle.last() {
            let at = usize::from(cid) * stride;
            let Some(io) = work.next(&self.buffer, at)? else { return Ok(false) };
            let Some(slot) = self.slots.get_mut(usize::from(cid)) else { break };
            slot.command.set_slba(io.number * u64::from(self.shape.blocks));
            let opcode = if io.write { NvmOpcode::Write } else { NvmOpcode::Read };
            slot.command.cdw0.set_opc(opcode as u8);
            (slot.io, slot.submitted) = (io.number, now);
            self.pair.submit(&slot.command)?;
            slot.state = if io.write { State::Writing } else { State::Reading };
            self.idle.pop();
        }
        Ok(true)
    }

    /// Takes all completions there are.
    #[inline]
    fn reap(
        &mut self,
        work: &mut impl Workload,
        now: u64,
        reads: &mut Recorder,
        writes: &mut Recorder,
    ) -> Result<usize, HostError> {
        let Self { pair, slots, idle, buffer, shape, .. } = self;
        let stride = shape.buffer_bytes();
        let mut failed = None;
        let done = pair.poll(|cid, completion| {
            let slot = match slots.get_mut(usize::from(cid)) {
                Some(slot) if slot.state != State::Idle => slot,
                _ => {
                    failed = Some(HostError::UnexpectedCompletion { cid, sqid: completion.sqid });
                    return;
                }
            };
            let write = slot.state == State::Writing;
            slot.state = State::Idle;
            idle.push(cid);
            if !completion.status().is_success() {
                let what = if write { "Write" } else { "Read" };
                failed = Some(HostError::command(what, completion));
                return;
            }
            if write { &mut *writes } else { &mut *reads }.record(now.saturating_sub(slot.submitted));
            let io = Io { number: slot.io, write };
            if let Err(error) = work.done(io, buffer, usize::from(cid) * stride) {
                failed = Some(error);
            }
        })?;
        failed.map_or(Ok(done), Err)
    }

    /// Returns when there is a completion.
    #[inline]
    fn wait(&mut self, limits: Limits, progress: &Progress) -> Result<(), HostError> {
        let spins = if limits.interrupts { 1 } else { SPINS };
        for _ in 0..spins {
            if self.pair.has_completion()? {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        self.wait_long(limits, progress)
    }

    /// Waits on, with an eye on the clock, the controller's health, and the wish to stop.
    #[cold]
    fn wait_long(&mut self, limits: Limits, progress: &Progress) -> Result<(), HostError> {
        let started = Instant::now();
        loop {
            match self.pair.wait(Instant::now() + SLICE) {
                Err(HostError::Timeout { .. }) => {}
                other => return other,
            }
            let limit = if progress.is_cancelled() { CANCEL_TIMEOUT } else { limits.command_timeout };
            let after = started.elapsed();
            if after >= limit {
                return Err(HostError::Timeout { what: "an I/O command", after });
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
