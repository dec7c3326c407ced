//! Doorbells: the BAR0 page, and the shadow buffers of Doorbell Buffer Config (NVMe Base 2.0, 5.8; PCIe Transport 1.1, 3.1.2).
//!
//! The page holds what was written to the doorbell registers, by message or through a mapping of the client's. Once
//! shadow buffers are configured they are the only truth for the I/O queues; a register write is then only a wake-up.

use std::sync::Arc;

use nvmet_dma::{Access, DmaError, DoorbellPage, Snapshot, Window};
use nvmet_spec::registers;

/// A doorbell that was written with something that is no index of its queue (AER 01/00h and 01/01h; Base 2.0, 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidDoorbell {
    /// The doorbell belongs to no queue: Write to Invalid Doorbell Register.
    Register {
        /// Offset in BAR0.
        offset: u32,
    },
    /// The value is no index of the queue: Invalid Doorbell Write Value.
    Value {
        /// Queue identifier.
        qid: u16,
        /// True for a completion queue head, false for a submission queue tail.
        completion: bool,
        /// The value that was written.
        value: u32,
    },
}

/// The shadow doorbell and EventIdx buffers of a controller.
#[derive(Debug)]
pub struct Shadow {
    doorbells: Window,
    event_idx: Window,
}

impl Shadow {
    /// Looks the two buffers up: `len` bytes each.
    ///
    /// # Errors
    ///
    /// Those of [`Snapshot::window`].
    pub fn attach(snapshot: &Snapshot, doorbells: u64, event_idx: u64, len: usize) -> Result<Self, DmaError> {
        Ok(Self {
            doorbells: snapshot.window(doorbells, len, Access::READ_WRITE)?,
            event_idx: snapshot.window(event_idx, len, Access::READ_WRITE)?,
        })
    }
}

/// Where a worker reads tails and heads.
#[derive(Debug)]
pub struct Doorbells {
    page: Arc<DoorbellPage>,
    shadow: Option<Shadow>,
}

/// Bytes of the page: as BAR0 has them, registers (here unused) and then one page of doorbells. A client that maps
/// doorbells finds them at the offset that they have in BAR0.
pub const DOORBELL_PAGE_SIZE: usize = 0x2000;

/// Index of a doorbell among doorbells and, times four, its offset in a shadow buffer (stride CAP.DSTRD = 0).
fn index(qid: u16, completion: bool) -> usize {
    usize::from(qid) * 2 + usize::from(completion)
}

/// Index of a doorbell register in the page.
pub fn register_index(qid: u16, completion: bool) -> usize {
    registers::DOORBELL_BASE as usize / 4 + index(qid, completion)
}

impl Doorbells {
    /// Doorbells that live in `page` until shadow buffers are set.
    pub fn new(page: Arc<DoorbellPage>) -> Self {
        Self { page, shadow: None }
    }

    /// Sets or drops the shadow buffers.
    pub fn set_shadow(&mut self, shadow: Option<Shadow>) {
        self.shadow = shadow;
    }

    /// Whether shadow buffers are the truth.
    pub fn is_shadowed(&self) -> bool {
        self.shadow.is_some()
    }

    fn load(&self, qid: u16, completion: bool) -> u32 {
        let value = match &self.shadow {
            Some(shadow) => shadow.doorbells.load_u32(index(qid, completion) * 4),
            None => self.page.load(register_index(qid, completion)),
        };
        // The number of queues is bounded by the size of a page, so there is a value. Bits 31:16 are reserved.
        value.unwrap_or(0) & 0xffff
    }

    /// The tail of submission queue `qid`, as the host last wrote it: any value.
    pub fn sq_tail(&self, qid: u16) -> u32 {
        self.load(qid, false)
    }

    /// The head of completion queue `qid`, as the host last wrote it: any value.
    pub fn cq_head(&self, qid: u16) -> u32 {
        self.load(qid, true)
    }

    /// Seeds the shadow doorbell of a queue with what the controller holds. A guest may leave its buffer as it was
    /// before a controller reset, and a tail of that time must not be taken for a new one.
    ///
    /// A submission queue begins armed. A completion queue does not: its EventIdx lags the head, which says that no
    /// ring is wanted until [`arm`](Self::arm).
    pub fn seed(&self, qid: u16, completion: bool, value: u32) {
        if let Some(shadow) = &self.shadow {
            let at = index(qid, completion) * 4;
            let event_idx = if completion { value.wrapping_sub(1) & 0xffff } else { value };
            // Both lie in the buffer: the number of queues is bounded by its size.
            let _ = shadow.doorbells.store_u32(at, value);
            let _ = shadow.event_idx.store_u32(at, event_idx);
        }
    }

    /// Asks the host to ring when a doorbell moves past `seen`. Only a re-check after a full fence makes this safe
    /// to sleep on.
    pub fn arm(&self, qid: u16, completion: bool, seen: u32) {
        if let Some(shadow) = &self.shadow {
            let _ = shadow.event_idx.store_u32(index(qid, completion) * 4, seen);
        }
    }
}
