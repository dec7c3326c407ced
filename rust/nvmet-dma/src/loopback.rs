//! Guest memory without a guest: shared memory of our own, mapped into a space of its own.
//!
//! For whoever needs segments without a client: tests and benches of backends.

use std::io;

use crate::host_memory::SharedMemory;
use crate::memory::{Access, DmaHandle, DmaSpace};

/// `SharedMemory`, reachable as guest memory from address [`LoopbackMemory::IOVA`] on.
#[derive(Debug)]
pub struct LoopbackMemory {
    space: DmaSpace,
    memory: SharedMemory,
}

impl LoopbackMemory {
    /// Guest address of the first byte.
    pub const IOVA: u64 = 0x1_0000_0000;

    /// At least `len` zeroed bytes, rounded up to whole pages, for reading and writing.
    ///
    /// # Errors
    ///
    /// As [`SharedMemory::new`].
    pub fn new(len: usize) -> io::Result<Self> {
        let memory = SharedMemory::new(len)?;
        let mut space = DmaSpace::new(|| {});
        space.set_pinning(true);
        let fd = memory.fd().try_clone_to_owned()?;
        space.map(Self::IOVA, memory.len() as u64, 0, Access::READ_WRITE, Some(fd))?;
        Ok(Self { space, memory })
    }

    /// Where readers come from.
    #[must_use]
    pub fn handle(&self) -> DmaHandle {
        self.space.handle()
    }

    /// The same bytes, as the guest sees them: offset 0 is address [`LoopbackMemory::IOVA`].
    #[must_use]
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The space, to map more or to unmap.
    pub fn space(&mut self) -> &mut DmaSpace {
        &mut self.space
    }
}
