//! Doorbells: the BAR0 page, and the shadow buffers of Doorbell Buffer Config (NVMe Base 2.0, 5.8; PCIe Transport 1.1, 3.1.2).
//!
//! The page holds what was written to the doorbell registers, by message or through a mapping of the client's. Once
//! shadow buffers are configured they are the only truth for the I/O queues; a register write is then only a wake-up.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

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

/// Where the truth about the I/O queues is.
#[derive(Debug)]
enum Source {
    Registers,
    Shadow(Shadow),
    /// In shadow buffers whose memory cannot be reached. The registers hold what was rung last, which is older than
    /// what was fetched: taken for a tail it would make the controller fetch old commands again.
    OutOfReach,
}

/// Where a worker reads tails and heads.
#[derive(Debug)]
pub struct Doorbells {
    page: Arc<DoorbellPage>,
    source: Source,
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
        Self { page, source: Source::Registers }
    }

    /// Sets the shadow buffers, or goes back to the registers.
    pub fn set_shadow(&mut self, shadow: Option<Shadow>) {
        self.source = shadow.map_or(Source::Registers, Source::Shadow);
    }

    /// Lets go of shadow buffers whose memory is gone; there are no tails and heads until they are set again.
    pub fn lose_shadow(&mut self) {
        self.source = Source::OutOfReach;
    }

    /// Whether shadow buffers are the truth, and can be reached.
    pub fn is_shadowed(&self) -> bool {
        matches!(self.source, Source::Shadow(_))
    }

    /// A doorbell, as the host last wrote it: any value. None while it cannot be read.
    pub fn value(&self, qid: u16, completion: bool) -> Option<u32> {
        let value = match &self.source {
            Source::Registers => self.page.load(register_index(qid, completion)),
            Source::Shadow(shadow) => shadow.doorbells.load_u32(index(qid, completion) * 4),
            Source::OutOfReach => return None,
        };
        // Bits 31:16 are reserved.
        Some(value.ok()? & 0xffff)
    }

    /// The tail of submission queue `qid`, as the host last wrote it: any value. None while it cannot be read.
    pub fn sq_tail(&self, qid: u16) -> Option<u32> {
        self.value(qid, false)
    }

    /// The head of completion queue `qid`, as the host last wrote it: any value. None while it cannot be read.
    pub fn cq_head(&self, qid: u16) -> Option<u32> {
        self.value(qid, true)
    }

    /// Copies doorbells from byte `offset` of theirs on, as they are; false while they cannot be read.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        match &self.source {
            Source::Registers => {
                self.page.read_bytes(registers::DOORBELL_BASE as usize + offset, into).is_ok()
            }
            Source::Shadow(shadow) => shadow.doorbells.read_bytes(offset, into).is_ok(),
            Source::OutOfReach => false,
        }
    }

    /// Seeds the shadow doorbell of a queue with what the controller holds. A guest may leave its buffer as it was
    /// before a controller reset, and a tail of that time must not be taken for a new one.
    ///
    /// A submission queue begins armed. A completion queue does not: its EventIdx lags the head, which says that no
    /// ring is wanted until [`arm`](Self::arm).
    pub fn seed(&self, qid: u16, completion: bool, value: u32) {
        if let Source::Shadow(shadow) = &self.source {
            let at = index(qid, completion) * 4;
            let event_idx = if completion { value.wrapping_sub(1) & 0xffff } else { value };
            // Both lie in the buffer: the number of queues is bounded by its size.
            let _ = shadow.doorbells.store_u32(at, value);
            let _ = shadow.event_idx.store_u32(at, event_idx);
        }
    }

    /// Seeds the shadow doorbell of a queue with the value that `old` has, which these doorbells replace; `seen`: the value
    /// that was read last, for doorbells that cannot be read. Until the host knows of the shadow buffers it goes on to
    /// write registers, and a tail that is older than what was fetched would bring old commands back.
    pub fn carry_over(&self, old: &Self, qid: u16, completion: bool, seen: u32) -> u32 {
        let load = || old.value(qid, completion).unwrap_or(seen);
        let mut value = load();
        // It may be written meanwhile; by one who maps it and means harm, all the time.
        for _ in 0..16 {
            self.seed(qid, completion, value);
            fence(Ordering::SeqCst);
            let now = load();
            if now == value {
                break;
            }
            value = now;
        }
        value
    }

    /// Passes a register on to the shadow buffer, after it was stored: the host does not know of the buffer yet, and a
    /// worker may read it already.
    pub fn pass_on(&self, qid: u16, completion: bool, value: u32) {
        if let Source::Shadow(shadow) = &self.source {
            // Pairs with the one in `carry_over`: it sees the register, or this store comes after its own.
            fence(Ordering::SeqCst);
            let _ = shadow.doorbells.store_u32(index(qid, completion) * 4, value);
        }
    }

    /// Asks the host not to ring before a doorbell has gone round to `seen` again: it is being polled. A busy host passes
    /// an EventIdx that stays where it is once a lap.
    pub fn disarm(&self, qid: u16, completion: bool, seen: u32) {
        if let Source::Shadow(shadow) = &self.source {
            let behind = seen.wrapping_sub(1) & 0xffff;
            let _ = shadow.event_idx.store_u32(index(qid, completion) * 4, behind);
        }
    }

    /// Asks the host to ring when a doorbell moves past `seen`. Only a re-check after a full fence makes this safe
    /// to sleep on.
    pub fn arm(&self, qid: u16, completion: bool, seen: u32) {
        if let Source::Shadow(shadow) = &self.source {
            let _ = shadow.event_idx.store_u32(index(qid, completion) * 4, seen);
        }
    }
}
