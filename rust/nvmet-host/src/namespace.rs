//! A namespace with a queue pair of its own: blocking reads and writes for tests and tools.

use crate::{
    Drive, HostError, NamespaceInfo, SqeExt, drive::exchange, memory::HostMemory, queue::QueuePair,
    queues::QueueConfig, transfer::Data,
};
use nvmet_spec::command::{Cqe, NvmOpcode, Sqe};
use std::{sync::Arc, time::Duration};

/// Force Unit Access: CDW12 bit 30 of commands that have it (NVM §3.2).
const FUA: u32 = 1 << 30;
/// Attribute - Deallocate of Dataset Management: CDW11 bit 2 (NVM §3.2.3).
const AD: u32 = 1 << 2;
/// Most ranges of one Dataset Management command (NVM §3.2.3).
const MAX_RANGES: usize = 256;

/// A command with a starting LBA and a number of blocks (1 to 65536), as Read and Write have them (NVM §3.2).
#[must_use]
pub fn read_write(opcode: NvmOpcode, nsid: u32, slba: u64, blocks: u32) -> Sqe {
    // NLB is a 0's based value.
    Sqe::new(opcode, 0, nsid).with_slba(slba).with_cdw12(blocks.wrapping_sub(1) & 0xFFFF)
}

/// An active namespace, opened for blocking I/O.
#[derive(Debug)]
pub struct Namespace {
    info: NamespaceInfo,
    pair: QueuePair,
    memory: Arc<HostMemory>,
    page: u64,
    /// Most blocks of one command that carries data.
    most: u64,
    timeout: Duration,
}

impl Drive {
    /// Opens namespace `nsid` with a new queue pair.
    ///
    /// # Errors
    /// The namespace is not active, or the queue pair cannot be made.
    pub fn open_namespace(&mut self, nsid: u32) -> Result<Namespace, HostError> {
        let info = self.find_namespace(Some(nsid))?;
        let depth = self.queue_limits().max_entries.min(32);
        let pair = self.create_queue_pair(&QueueConfig { depth, ..QueueConfig::default() })?;
        // A quarter of the memory for one command, so that large requests are split rather than refused.
        let bytes = self.max_transfer().min(self.memory.len() as u64 / 4);
        Ok(Namespace {
            most: (bytes / info.block_size).clamp(1, 65_536),
            info,
            pair,
            memory: Arc::clone(&self.memory),
            page: self.page_size(),
            timeout: self.config.timeout,
        })
    }

    /// Deletes the queues of a namespace that was opened.
    ///
    /// # Errors
    /// As [`delete_queue_pair`](Self::delete_queue_pair).
    pub fn close_namespace(&mut self, namespace: Namespace) -> Result<(), HostError> {
        self.delete_queue_pair(namespace.pair)
    }
}

impl Namespace {
    /// What Identify said.
    #[must_use]
    pub const fn info(&self) -> &NamespaceInfo {
        &self.info
    }

    /// The queue pair, to submit by hand.
    pub const fn pair(&mut self) -> &mut QueuePair {
        &mut self.pair
    }

    /// Sends any I/O command and waits for its completion, whatever its status.
    ///
    /// # Errors
    /// As [`Drive::admin`].
    pub fn io(&mut self, sqe: Sqe, data: Data<'_>) -> Result<Cqe, HostError> {
        let Self { pair, timeout, .. } = self;
        exchange(&self.memory, self.page, sqe, data, |sqe| pair.call(sqe, *timeout, |_| {}))
    }

    fn io_ok(&mut self, sqe: Sqe, data: Data<'_>) -> Result<(), HostError> {
        let name = NvmOpcode::try_from(sqe.opcode()).map_or("I/O command", NvmOpcode::name);
        let completion = self.io(sqe, data)?;
        if completion.status().is_success() { Ok(()) } else { Err(HostError::command(name, completion)) }
    }

    /// Whole blocks in `bytes`.
    fn blocks(&self, bytes: usize) -> Result<u64, HostError> {
        match (bytes as u64).checked_rem(self.info.block_size) {
            Some(0) => Ok(bytes as u64 / self.info.block_size),
            _ => Err(HostError::argument(format!(
                "{bytes} bytes are no multiple of the namespace's {}-byte blocks",
                self.info.block_size
            ))),
        }
    }

    /// Bytes of the largest command that carries data.
    fn step(&self) -> usize {
        (self.most * self.info.block_size) as usize
    }

    /// Reads whole blocks from `lba` on, by as many commands as MDTS makes necessary.
    ///
    /// # Errors
    /// [`HostError::Command`]; [`HostError::Argument`] for a part of a block; as [`Drive::admin`].
    pub fn read(&mut self, lba: u64, data: &mut [u8]) -> Result<(), HostError> {
        self.blocks(data.len())?;
        let mut at = lba;
        for part in data.chunks_mut(self.step()) {
            let blocks = self.blocks(part.len())?;
            self.io_ok(read_write(NvmOpcode::Read, self.info.nsid, at, blocks as u32), Data::In(part))?;
            at += blocks;
        }
        Ok(())
    }

    /// Writes whole blocks from `lba` on; `fua`: to the medium itself.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&mut self, lba: u64, data: &[u8], fua: bool) -> Result<(), HostError> {
        self.out(NvmOpcode::Write, lba, data, if fua { FUA } else { 0 })
    }

    /// Compares whole blocks from `lba` on; a difference is the status Compare Failure.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn compare(&mut self, lba: u64, data: &[u8]) -> Result<(), HostError> {
        self.out(NvmOpcode::Compare, lba, data, 0)
    }

    fn out(&mut self, opcode: NvmOpcode, lba: u64, data: &[u8], cdw12: u32) -> Result<(), HostError> {
        self.blocks(data.len())?;
        let mut at = lba;
        for part in data.chunks(self.step()) {
            let blocks = self.blocks(part.len())?;
            let mut sqe = read_write(opcode, self.info.nsid, at, blocks as u32);
            sqe.cdw12 |= cdw12;
            self.io_ok(sqe, Data::Out(part))?;
            at += blocks;
        }
        Ok(())
    }

    /// Flushes the volatile write cache of this namespace.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn flush(&mut self) -> Result<(), HostError> {
        self.io_ok(Sqe::new(NvmOpcode::Flush, 0, self.info.nsid), Data::None)
    }

    /// Writes zeroes to `blocks` blocks from `lba` on, by commands of at most 65536 blocks.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write_zeroes(&mut self, lba: u64, blocks: u64) -> Result<(), HostError> {
        let mut done = 0;
        while done < blocks {
            let part = (blocks - done).min(65_536);
            let sqe = read_write(NvmOpcode::WriteZeroes, self.info.nsid, lba + done, part as u32);
            self.io_ok(sqe, Data::None)?;
            done += part;
        }
        Ok(())
    }

    /// Deallocates ranges of `(lba, blocks)` by Dataset Management, up to 256 in one command.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`HostError::Argument`] for no or too many ranges.
    pub fn deallocate(&mut self, ranges: &[(u64, u32)]) -> Result<(), HostError> {
        if !(1..=MAX_RANGES).contains(&ranges.len()) {
            return Err(HostError::argument(format!(
                "{} ranges; one command takes 1 to {MAX_RANGES}",
                ranges.len()
            )));
        }
        let mut data = Vec::with_capacity(ranges.len() * 16);
        for &(lba, blocks) in ranges {
            // Context attributes, length in blocks, starting LBA (NVM §3.2.3).
            data.extend_from_slice(&0u32.to_le_bytes());
            data.extend_from_slice(&blocks.to_le_bytes());
            data.extend_from_slice(&lba.to_le_bytes());
        }
        let sqe = Sqe::new(NvmOpcode::DatasetManagement, 0, self.info.nsid)
            .with_cdw10(ranges.len() as u32 - 1)
            .with_cdw11(AD);
        self.io_ok(sqe, Data::Out(&data))
    }
}
