//! A backend's queue with guest memory of its own, and nothing of NVMe around it.

use std::time::{Duration, Instant};

use nvmet_block::{Backend, IoError, IoQueue, Op, Submitted};
use nvmet_dma::{Direction, DmaReader, LoopbackMemory, SegmentBuf};
use nvmet_host::bench::Rng;

use crate::{TRANSFER, wait};

/// Bytes that are written at a time to fill a backend.
const CHUNK: usize = 1 << 20;

/// Reads or writes of [`TRANSFER`] bytes at random offsets.
pub struct DataQueue {
    queue: Box<dyn IoQueue>,
    reader: DmaReader,
    segments: SegmentBuf,
    guest: LoopbackMemory,
    rng: Rng,
    size: u64,
    idle: Vec<u64>,
}

impl DataQueue {
    /// A queue of `backend` for up to `depth` operations.
    ///
    /// # Panics
    ///
    /// When the system gives no memory.
    pub fn open(backend: &dyn Backend, depth: u32) -> Result<Self, nvmet_block::BackendError> {
        let guest = LoopbackMemory::new(CHUNK.max(depth as usize * TRANSFER)).expect("there is memory");
        Ok(Self {
            queue: backend.open_queue(depth)?,
            reader: guest.handle().reader(),
            segments: SegmentBuf::new(1024, CHUNK),
            guest,
            rng: Rng::new(1),
            size: backend.geometry().size,
            idle: (0..u64::from(depth)).collect(),
        })
    }

    /// Submits an operation whose data is `len` bytes at `at` of guest memory; true if it is done already.
    fn submit(&mut self, tag: u64, offset: u64, at: usize, len: usize, write: bool) -> bool {
        let direction = if write { Direction::FromGuest } else { Direction::ToGuest };
        let mut builder = self.segments.begin(self.reader.snapshot(), direction);
        builder.push(LoopbackMemory::IOVA + at as u64, len).expect("it is mapped");
        let data = builder.finish();
        let op = if write { Op::Write { offset, data, fua: false } } else { Op::Read { offset, data } };
        match self.queue.submit(tag, op) {
            Submitted::Done(result) => {
                result.expect("the backend works");
                true
            }
            Submitted::Pending => false,
            Submitted::Full => panic!("a queue has room for its depth"),
        }
    }

    /// The time of `count` operations at random offsets, as many in flight as the queue was opened for.
    ///
    /// # Panics
    ///
    /// If an operation fails.
    pub fn run(&mut self, count: u64, write: bool) -> Duration {
        let depth = self.idle.len();
        let (mut started, mut done, mut quiet) = (0, 0, 0);
        let start = Instant::now();
        while done < count {
            for _ in 0..self.idle.len() {
                if started == count {
                    break;
                }
                let Some(tag) = self.idle.pop() else { break };
                let offset = self.rng.below(self.size / TRANSFER as u64) * TRANSFER as u64;
                started += 1;
                if self.submit(tag, offset, tag as usize * TRANSFER, TRANSFER, write) {
                    done += 1;
                    self.idle.push(tag);
                }
            }
            self.queue.kick();
            let before = done;
            let idle = &mut self.idle;
            self.queue.reap(&mut |tag, result: Result<(), IoError>| {
                result.expect("the backend works");
                done += 1;
                idle.push(tag);
            });
            if done == before && self.idle.len() < depth {
                wait(&mut quiet);
            }
        }
        start.elapsed()
    }

    /// Writes the whole backend, so that every page of it is its own.
    ///
    /// # Panics
    ///
    /// If a write fails.
    pub fn fill(&mut self) {
        let mut bytes = vec![0; CHUNK];
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&self.rng.next_u64().to_le_bytes());
        }
        self.guest.memory().write_bytes(0, &bytes).expect("it is inside");
        for offset in (0..self.size).step_by(CHUNK) {
            let len = (self.size - offset).min(CHUNK as u64) as usize;
            let mut done = self.submit(0, offset, 0, len, true);
            let mut quiet = 0;
            while !done {
                self.queue.kick();
                self.queue.reap(&mut |_, result| {
                    result.expect("the backend works");
                    done = true;
                });
                wait(&mut quiet);
            }
        }
    }
}
