//! Data of one blocking command: a bounce buffer in host memory and the PRP entries for it.

use crate::{
    HostError,
    memory::{DmaBuffer, HostMemory},
    prp::{self, PrpPair},
};
use std::sync::Arc;

/// Data that a blocking command moves.
#[derive(Debug, Default)]
pub enum Data<'a> {
    /// None: DPTR is sent as it stands in the command.
    #[default]
    None,
    /// From the controller to the host. The buffer is filled when the command has succeeded.
    In(&'a mut [u8]),
    /// From the host to the controller.
    Out(&'a [u8]),
}

/// Host memory for the data of one command.
#[derive(Debug)]
pub struct Transfer {
    buffer: DmaBuffer,
    /// The PRP list, if one is needed.
    list: Option<DmaBuffer>,
    prp: PrpPair,
}

impl Transfer {
    /// Memory for `len` bytes, the first of them `offset` bytes into a page of `page` bytes.
    ///
    /// # Errors
    /// [`HostError::OutOfMemory`].
    pub fn new(memory: &Arc<HostMemory>, len: usize, offset: usize, page: u64) -> Result<Self, HostError> {
        let buffer = memory.allocate(offset + len)?;
        let start = buffer.iova() + offset as u64;
        let list = match prp::list_bytes(prp::entry_count(start, len, page), 0, page) {
            0 => None,
            bytes => Some(memory.allocate(bytes)?),
        };
        let list_iova = list.as_ref().map_or(0, DmaBuffer::iova);
        let mut written = Ok(());
        let prp = prp::layout(prp::entries(start, len, page), list_iova, page, |at, entry| {
            if let (Some(list), Ok(())) = (&list, &written) {
                written = list.write((at - list_iova) as usize, &entry.to_le_bytes());
            }
        });
        written.map(|()| Self { buffer, list, prp })
    }

    /// PRP1 and PRP2.
    #[must_use]
    pub const fn prp(&self) -> PrpPair {
        self.prp
    }

    /// The memory, from the start of its first page.
    #[must_use]
    pub const fn buffer(&self) -> &DmaBuffer {
        &self.buffer
    }

    /// Gives the memory up for good: a command that was never completed may still use it.
    pub(crate) fn abandon(self) {
        self.buffer.abandon();
        if let Some(list) = self.list {
            list.abandon();
        }
    }
}
