//! Host memory: memfds of our own, made known to the device by DMA_MAP, handed out in page runs.

use crate::{HostError, allocator::RunAllocator, transport::Transport};
use nvmet_dma::SharedMemory;
use nvmet_spec::sgl::{SglDescriptor, SglType};
use std::sync::{Arc, Mutex, PoisonError};

/// One memfd that the device can reach. Unmapped when the last user is gone.
#[derive(Debug)]
pub struct HostMemory {
    shared: SharedMemory,
    iova: u64,
    page: u64,
    runs: Mutex<RunAllocator>,
    /// `None`: it was never mapped, or is unmapped already.
    mapped_by: Mutex<Option<Arc<Transport>>>,
}

impl HostMemory {
    /// Makes `size` bytes of memory (rounded up to pages of `page` bytes) and maps it at `iova`.
    pub(crate) fn map(
        transport: &Arc<Transport>,
        iova: u64,
        size: usize,
        page: u64,
    ) -> Result<Arc<Self>, HostError> {
        let size = size.max(1).next_multiple_of(page as usize);
        let shared = SharedMemory::new(size).map_err(|error| HostError::Memory {
            what: "create a memfd",
            bytes: size,
            detail: error.to_string(),
        })?;
        transport.dma_map(&shared, iova)?;
        Ok(Arc::new(Self {
            runs: Mutex::new(RunAllocator::new(size, page as usize)),
            shared,
            iova,
            page,
            mapped_by: Mutex::new(Some(Arc::clone(transport))),
        }))
    }

    /// Address of the first byte as the device sees it.
    #[must_use]
    pub const fn iova(&self) -> u64 {
        self.iova
    }

    /// Size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// Whether there are no bytes; never so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands out at least `len` bytes of whole pages, filled with zeroes.
    ///
    /// # Errors
    /// [`HostError::OutOfMemory`].
    pub fn allocate(self: &Arc<Self>, len: usize) -> Result<DmaBuffer, HostError> {
        self.allocate_aligned(len, self.page as usize)
    }

    /// As [`allocate`](Self::allocate), at an address that is a multiple of `align` (a power of two).
    ///
    /// # Errors
    /// [`HostError::OutOfMemory`].
    pub fn allocate_aligned(self: &Arc<Self>, len: usize, align: usize) -> Result<DmaBuffer, HostError> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(start) = runs.allocate(len, align) else {
            return Err(HostError::OutOfMemory { wanted: len, free: runs.free_bytes() });
        };
        drop(runs);
        let buffer = DmaBuffer { memory: Arc::clone(self), start, len, abandoned: false };
        buffer.fill(0, len, 0)?;
        Ok(buffer)
    }

    /// Takes the memory away from the device now (DMA_UNMAP). Buffers stay readable here; the device answers commands
    /// that use them with an error.
    ///
    /// # Errors
    /// The server refused, or the connection is lost.
    pub fn unmap(&self) -> Result<(), HostError> {
        let transport = self.mapped_by.lock().unwrap_or_else(PoisonError::into_inner).take();
        match transport {
            Some(transport) if !transport.is_closed() => {
                transport.dma_unmap(self.iova, self.shared.len() as u64)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if let Err(error) = self.unmap() {
            // The server forgets the memory anyway when the connection ends.
            tracing::debug!(%error, iova = self.iova, "unmapping host memory failed");
        }
    }
}

/// A run of pages of [`HostMemory`]. Goes back when dropped.
///
/// The device may write it at any time: bytes are copied in and out, never borrowed.
#[derive(Debug)]
pub struct DmaBuffer {
    memory: Arc<HostMemory>,
    start: usize,
    len: usize,
    abandoned: bool,
}

impl DmaBuffer {
    /// Lets go of the buffer without making its memory free again: the device may still use it.
    pub(crate) fn abandon(mut self) {
        self.abandoned = true;
    }

    /// Address as the device sees it.
    #[must_use]
    #[inline]
    pub fn iova(&self) -> u64 {
        self.memory.iova + self.start as u64
    }

    /// Length in bytes, as asked for.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Checks a range and gives its offset in the memfd.
    #[inline]
    fn at(&self, offset: usize, len: usize) -> Result<usize, HostError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.start + offset),
            _ => Err(HostError::OutOfBuffer { offset, len, size: self.len }),
        }
    }

    /// Copies `data` to `offset`.
    ///
    /// # Errors
    /// [`HostError::OutOfBuffer`].
    #[inline]
    pub fn write(&self, offset: usize, data: &[u8]) -> Result<(), HostError> {
        let at = self.at(offset, data.len())?;
        Ok(self.memory.shared.write_bytes(at, data)?)
    }

    /// Copies from `offset` into `data`.
    ///
    /// # Errors
    /// [`HostError::OutOfBuffer`].
    #[inline]
    pub fn read(&self, offset: usize, data: &mut [u8]) -> Result<(), HostError> {
        let at = self.at(offset, data.len())?;
        Ok(self.memory.shared.read_bytes(at, data)?)
    }

    /// Copies `len` bytes from `offset` into a new vector.
    ///
    /// # Errors
    /// [`HostError::OutOfBuffer`].
    pub fn to_vec(&self, offset: usize, len: usize) -> Result<Vec<u8>, HostError> {
        self.at(offset, len)?;
        let mut bytes = vec![0; len];
        self.read(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Sets `len` bytes from `offset` on to `value`.
    ///
    /// # Errors
    /// [`HostError::OutOfBuffer`].
    pub fn fill(&self, offset: usize, len: usize, value: u8) -> Result<(), HostError> {
        let at = self.at(offset, len)?;
        Ok(self.memory.shared.fill(at, len, value)?)
    }

    /// Loads a little-endian dword with acquire ordering. `offset` is a multiple of 4.
    #[inline]
    pub(crate) fn load_u32(&self, offset: usize) -> Result<u32, HostError> {
        let at = self.at(offset, 4)?;
        Ok(self.memory.shared.load_u32(at)?)
    }

    /// Stores a little-endian dword with release ordering. `offset` is a multiple of 4.
    #[inline]
    pub(crate) fn store_u32(&self, offset: usize, value: u32) -> Result<(), HostError> {
        let at = self.at(offset, 4)?;
        Ok(self.memory.shared.store_u32(at, value)?)
    }

    /// An SGL Data Block descriptor of `len` bytes at `offset`.
    #[must_use]
    pub fn sgl(&self, offset: usize, len: u32) -> SglDescriptor {
        SglDescriptor::new(SglType::DataBlock, self.iova() + offset as u64, len)
    }
}

impl Drop for DmaBuffer {
    fn drop(&mut self) {
        if self.abandoned {
            return;
        }
        let mut runs = self.memory.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.release(self.start, self.len);
    }
}
