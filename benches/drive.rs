//! A target on sockets, and an NVMe driver attached to one: everything of the product but Python.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvmet_block::Backend;
use nvmet_core::TargetError;
use nvmet_core::device::DoorbellMode;
use nvmet_core::namespace::NamespaceConfig;
use nvmet_core::subsystem::SubsystemConfig;
use nvmet_core::target::{ControllerConfig, Listen, Target};
use nvmet_host::bench::Rng;
use nvmet_host::{DmaBuffer, Drive, HostConfig, HostError, QueueConfig, QueuePair, read_write};
use nvmet_spec::command::NvmOpcode;

use crate::{TRANSFER, wait};

/// Looks at a silent device before its command counts as lost: at least seconds.
const SILENCE: u32 = 1 << 30;
const BLOCKS: u32 = (TRANSFER / 512) as u32;

/// Adds a controller of a subsystem of its own, whose namespace 1 is `backend`.
///
/// # Errors
///
/// The socket cannot be had.
pub fn serve(
    target: &Target,
    socket: &Path,
    doorbells: DoorbellMode,
    backend: Arc<dyn Backend>,
) -> Result<(), TargetError> {
    // The name of the socket in its directory is unique, and so is the subsystem's.
    let serial = socket.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let subsystem = target.add_subsystem(SubsystemConfig::new(serial))?;
    subsystem.add_namespace(NamespaceConfig::new(backend))?;
    let socket = Listen::Path(socket.to_owned());
    target.listen(&subsystem, ControllerConfig { doorbells, ..ControllerConfig::new(socket) })?;
    Ok(())
}

/// A driver that reads 4 KiB at random offsets, by polling.
#[derive(Debug)]
pub struct Load {
    pair: QueuePair,
    _idle: Vec<QueuePair>,
    buffer: DmaBuffer,
    rng: Rng,
    blocks: u64,
    free: Vec<u16>,
    /// Held for its connection.
    drive: Drive,
}

impl Load {
    /// Attaches to the socket, with `queues` queue pairs of which the first one is used, `depth` commands at a time.
    ///
    /// # Errors
    ///
    /// The device is not as it should be.
    pub fn attach(socket: &Path, queues: u16, depth: u16) -> Result<Self, HostError> {
        let rings = usize::from(queues) * 16 * 1024;
        let memory_bytes = (1 << 20) + usize::from(depth) * TRANSFER + rings;
        let mut drive =
            Drive::attach(socket, HostConfig { memory_bytes, io_queues: queues, ..HostConfig::default() })?;
        let namespace = drive.open_namespace(1)?;
        let blocks = namespace.info().blocks;
        drive.close_namespace(namespace)?;
        let entries = u32::from(depth) + 1;
        let pair = drive.create_queue_pair(&QueueConfig { depth: entries, ..QueueConfig::default() })?;
        let idle = (1..queues)
            .map(|_| drive.create_queue_pair(&QueueConfig { depth: 32, ..QueueConfig::default() }))
            .collect::<Result<_, _>>()?;
        let buffer = drive.memory().allocate_aligned(usize::from(depth) * TRANSFER, TRANSFER)?;
        let free = (0..depth).collect();
        Ok(Self { pair, _idle: idle, buffer, rng: Rng::new(1), blocks, free, drive })
    }

    /// How doorbells are rung: "shadow", "mapped" or "trapped".
    #[must_use]
    pub fn doorbell_mode(&self) -> &'static str {
        self.drive.doorbell_mode()
    }

    /// Starts up to `limit` commands, as far as there are free ones, and rings. Returns how many.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub fn start(&mut self, limit: u64) -> Result<u64, HostError> {
        let mut started = 0;
        while started < limit
            && let Some(cid) = self.free.pop()
        {
            let slba = self.rng.below(self.blocks / u64::from(BLOCKS)) * u64::from(BLOCKS);
            let mut sqe = read_write(NvmOpcode::Read, 1, slba, BLOCKS);
            sqe.cdw0.set_cid(cid);
            sqe.prp1 = self.buffer.iova() + u64::from(cid) * TRANSFER as u64;
            self.pair.submit(&sqe)?;
            started += 1;
        }
        self.pair.ring()?;
        Ok(started)
    }

    /// Takes the completions that are there. Returns how many.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    ///
    /// # Panics
    ///
    /// If a command failed.
    pub fn reap(&mut self) -> Result<u64, HostError> {
        let free = &mut self.free;
        let done = self.pair.poll(|cid, completion| {
            assert!(completion.status().is_success(), "a command failed: {:?}", completion.status());
            free.push(cid);
        })?;
        Ok(done as u64)
    }

    /// The time of `count` commands, as many in flight as there may be.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    ///
    /// # Panics
    ///
    /// If a command failed, or the device is silent.
    pub fn run(&mut self, count: u64) -> Result<Duration, HostError> {
        let (mut started, mut done, mut quiet) = (0, 0, 0_u32);
        let start = Instant::now();
        while done < count {
            if started < count && !self.free.is_empty() {
                started += self.start(count - started)?;
            }
            let some = self.reap()?;
            done += some;
            if some > 0 {
                quiet = 0;
                continue;
            }
            wait(&mut quiet);
            assert!(quiet < SILENCE, "a command was lost");
        }
        Ok(start.elapsed())
    }
}
