//! A namespace with a queue pair of its own: blocking reads and writes for tests and tools.

use crate::{
    Drive, HostError, NamespaceInfo, SqeExt, drive::exchange, memory::HostMemory, queue::QueuePair,
    queues::QueueConfig, transfer::Data,
};
use nvmet_spec::command::{Cqe, DSM_MAX_RANGES, DsmCdw10, DsmCdw11, DsmRange, NvmOpcode, RwCdw12, Sqe};
use std::{sync::Arc, time::Duration};
use zerocopy::IntoBytes;

/// A command with a starting LBA and a number of blocks (1 to 65536), as Read and Write have them (NVM §3.2).
#[must_use]
pub fn read_write(opcode: NvmOpcode, nsid: u32, slba: u64, blocks: u32) -> Sqe {
    let cdw12 = RwCdw12::new().with_nlb_z(blocks.wrapping_sub(1) as u16);
    Sqe::new(opcode, 0, nsid).with_slba(slba).with_cdw12(cdw12.into_bits())
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
        self.out(NvmOpcode::Write, lba, data, RwCdw12::new().with_fua(fua))
    }

    /// Compares whole blocks from `lba` on; a difference is the status Compare Failure.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn compare(&mut self, lba: u64, data: &[u8]) -> Result<(), HostError> {
        self.out(NvmOpcode::Compare, lba, data, RwCdw12::new())
    }

    fn out(&mut self, opcode: NvmOpcode, lba: u64, data: &[u8], flags: RwCdw12) -> Result<(), HostError> {
        self.blocks(data.len())?;
        let mut at = lba;
        for part in data.chunks(self.step()) {
            let blocks = self.blocks(part.len())?;
            let mut sqe = read_write(opcode, self.info.nsid, at, blocks as u32);
            sqe.cdw12 |= flags.into_bits();
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
        if !(1..=DSM_MAX_RANGES).contains(&ranges.len()) {
            return Err(HostError::argument(format!(
                "{} ranges; one command takes 1 to {DSM_MAX_RANGES}",
                ranges.len()
            )));
        }
        let ranges: Vec<DsmRange> =
            ranges.iter().map(|&(slba, nlb)| DsmRange { cattr: 0, nlb, slba }).collect();
        let sqe = Sqe::new(NvmOpcode::DatasetManagement, 0, self.info.nsid)
            .with_cdw10(DsmCdw10::new().with_nr_z((ranges.len() - 1) as u8).into_bits())
            .with_cdw11(DsmCdw11::new().with_ad(true).into_bits());
        self.io_ok(sqe, Data::Out(ranges.as_bytes()))
    }
}
