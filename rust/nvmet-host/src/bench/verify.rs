//! Write a pattern, read it back, say what is wrong.
//!
//! The write pass and the read pass are workloads of the same engine that benchmarks use: at depth, on all jobs, each
//! on a range of its own, every I/O of the range exactly once.

use super::{
    job::{Io, Workload},
    offsets::Once,
    pattern::{self, BlockId, Found},
};
use crate::{HostError, memory::DmaBuffer};

/// Mismatches that are reported one by one; the others are only counted.
pub const REPORTED_MISMATCHES: usize = 16;

/// A block that did not read back as it was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mismatch {
    /// Logical block address.
    pub lba: u64,
    /// What the block should be.
    pub expected: String,
    /// What was found instead.
    pub found: String,
}

/// What a verify run found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct VerifyReport {
    /// Logical blocks written and read back.
    pub blocks: u64,
    /// Blocks that were wrong.
    pub mismatched: u64,
    /// The first of them, in the order of their addresses within each job.
    pub mismatches: Vec<Mismatch>,
    /// The number that tells this run's data from that of every other run.
    pub generation: u64,
}

impl VerifyReport {
    pub(crate) fn merge(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.mismatched += other.mismatched;
        self.mismatches.extend(other.mismatches);
        self.mismatches.sort_by_key(|mismatch| mismatch.lba);
        self.mismatches.truncate(REPORTED_MISMATCHES);
    }
}

/// What both passes know about the blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocks {
    pub(crate) nsid: u32,
    pub(crate) generation: u64,
    pub(crate) seed: u64,
    /// Bytes of a logical block.
    pub(crate) block_bytes: usize,
    /// Logical blocks per I/O.
    pub(crate) per_io: u32,
}

impl Blocks {
    fn id(&self, io: u64, block: u64) -> BlockId {
        let lba = io * u64::from(self.per_io) + block;
        BlockId { nsid: self.nsid, lba, generation: self.generation, seed: self.seed }
    }

    fn scratch(&self) -> Vec<u8> {
        vec![0; self.block_bytes * self.per_io as usize]
    }
}

/// The first pass.
#[derive(Debug)]
pub(crate) struct WritePass {
    blocks: Blocks,
    order: Once,
    scratch: Vec<u8>,
}

impl WritePass {
    pub(crate) fn new(blocks: Blocks, order: Once) -> Self {
        Self { scratch: blocks.scratch(), blocks, order }
    }
}

impl Workload for WritePass {
    fn next(&mut self, buffer: &DmaBuffer, at: usize) -> Result<Option<Io>, HostError> {
        let Some(number) = self.order.next() else { return Ok(None) };
        for (block, bytes) in (0..).zip(self.scratch.chunks_exact_mut(self.blocks.block_bytes)) {
            pattern::fill(bytes, self.blocks.id(number, block));
        }
        buffer.write(at, &self.scratch)?;
        Ok(Some(Io { number, write: true }))
    }

    fn done(&mut self, _: Io, _: &DmaBuffer, _: usize) -> Result<(), HostError> {
        Ok(())
    }
}

/// The second pass.
#[derive(Debug)]
pub(crate) struct ReadPass {
    blocks: Blocks,
    order: Once,
    scratch: Vec<u8>,
    poison: Vec<u8>,
    pub(crate) report: VerifyReport,
}

impl ReadPass {
    pub(crate) fn new(blocks: Blocks, order: Once) -> Self {
        let report = VerifyReport { generation: blocks.generation, ..VerifyReport::default() };
        let scratch = blocks.scratch();
        Self { poison: vec![0xA5; scratch.len()], scratch, blocks, order, report }
    }

    fn note(&mut self, id: BlockId, found: Found) {
        self.report.mismatched += 1;
        if self.report.mismatches.len() < REPORTED_MISMATCHES {
            self.report.mismatches.push(Mismatch {
                lba: id.lba,
                expected: id.to_string(),
                found: found.to_string(),
            });
        }
    }
}

impl Workload for ReadPass {
    fn next(&mut self, buffer: &DmaBuffer, at: usize) -> Result<Option<Io>, HostError> {
        let Some(number) = self.order.next() else { return Ok(None) };
        // A read that moves no data must not find what an earlier read left in the buffer.
        buffer.write(at, &self.poison)?;
        Ok(Some(Io { number, write: false }))
    }

    fn done(&mut self, io: Io, buffer: &DmaBuffer, at: usize) -> Result<(), HostError> {
        let mut bytes = std::mem::take(&mut self.scratch);
        buffer.read(at, &mut bytes)?;
        for (block, bytes) in (0..).zip(bytes.chunks_exact(self.blocks.block_bytes)) {
            let id = self.blocks.id(io.number, block);
            self.report.blocks += 1;
            if let Err(found) = pattern::check(bytes, id) {
                self.note(id, found);
            }
        }
        self.scratch = bytes;
        Ok(())
    }
}
