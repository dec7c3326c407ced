//! A completion queue: the controller is its producer (NVMe Base 2.0, 3.3.1.3).

use nvmet_dma::{Access, DmaError, Snapshot, Window};

use super::CQE_SIZE;

/// Everything that a completion queue is, as plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletionQueueState {
    /// Queue identifier; 0 is the admin queue.
    pub cqid: u16,
    /// Entries, 2 to 65536.
    pub entries: u32,
    /// Address of entry 0 in guest memory.
    pub base: u64,
    /// Index of the next entry to write.
    pub tail: u32,
    /// The last valid head that the host told.
    pub head: u32,
    /// Phase tag of the entries written in this pass.
    pub phase: bool,
    /// Interrupt vector, if interrupts are enabled for the queue.
    pub vector: Option<u16>,
}

/// The right to post one completion: a free entry is kept for whoever holds it. It has to end in
/// [`CompletionQueue::post`] or [`CompletionQueue::release`].
#[derive(Debug)]
#[must_use = "a permit keeps an entry of the completion queue"]
pub struct Permit(());

/// A completion queue in service.
#[derive(Debug)]
pub struct CompletionQueue {
    state: CompletionQueueState,
    window: Option<Window>,
    permits: u32,
    posted: u32,
    /// Completions for a time in which the queue's memory was out of reach; no more than there were permits.
    backlog: Vec<[u32; 4]>,
}

impl CompletionQueue {
    /// A queue that is not reachable until [`attach`](Self::attach) succeeds.
    pub fn new(state: CompletionQueueState) -> Self {
        Self { state, window: None, permits: 0, posted: 0, backlog: Vec::new() }
    }

    /// Looks the queue's memory up in `snapshot`. Without success no permit is given until a later attempt succeeds.
    ///
    /// # Errors
    ///
    /// Those of [`Snapshot::window`].
    pub fn attach(&mut self, snapshot: &Snapshot) -> Result<(), DmaError> {
        self.window = None;
        let len = self.state.entries as usize * CQE_SIZE;
        self.window = Some(snapshot.window(self.state.base, len, Access::WRITE)?);
        for [dw0, dw1, dw2, dw3] in std::mem::take(&mut self.backlog) {
            self.write(dw0, dw1, dw2, dw3);
        }
        Ok(())
    }

    /// Whether the queue's memory is reachable.
    pub fn is_attached(&self) -> bool {
        self.window.is_some()
    }

    /// The queue as plain data.
    pub fn state(&self) -> &CompletionQueueState {
        &self.state
    }

    /// Takes a head from the doorbell. False if it is no index of this queue or passes the tail.
    pub fn set_head(&mut self, head: u32) -> bool {
        if head == self.state.head {
            return true;
        }
        let consumed = self.distance(self.state.head, head);
        let valid = head < self.state.entries && consumed <= self.distance(self.state.head, self.state.tail);
        if valid {
            self.state.head = head;
        }
        valid
    }

    fn distance(&self, from: u32, to: u32) -> u32 {
        if to >= from { to - from } else { to + self.state.entries - from }
    }

    /// Entries for which a permit could be had.
    pub fn room(&self) -> u32 {
        if self.window.is_none() {
            return 0;
        }
        (self.state.entries - 1)
            .saturating_sub(self.distance(self.state.head, self.state.tail) + self.permits)
    }

    /// Keeps an entry, if one is free and the queue's memory is reachable.
    pub fn reserve(&mut self) -> Option<Permit> {
        if self.room() == 0 {
            return None;
        }
        self.permits += 1;
        Some(Permit(()))
    }

    /// Writes a completion into the kept entry; the phase tag becomes visible last. `status` is the 15-bit status
    /// field, without the phase tag. While the queue's memory is out of reach the completion is kept.
    #[expect(clippy::too_many_arguments, reason = "the fields of a completion queue entry")]
    pub fn post(&mut self, permit: Permit, dw0: u32, dw1: u32, sqid: u16, sqhd: u16, cid: u16, status: u16) {
        self.release(permit);
        let dw2 = u32::from(sqid) << 16 | u32::from(sqhd);
        let dw3 = u32::from(status) << 17 | u32::from(cid);
        if self.window.is_some() {
            self.write(dw0, dw1, dw2, dw3);
        } else {
            self.backlog.push([dw0, dw1, dw2, dw3]);
        }
    }

    /// Writes the completion of a command that was never in flight, into an entry that [`room`](Self::room) counted.
    pub fn post_success(&mut self, sqid: u16, sqhd: u16, cid: u16) {
        debug_assert!(self.room() > 0, "the caller looks for room");
        self.write(0, 0, u32::from(sqid) << 16 | u32::from(sqhd), u32::from(cid));
    }

    fn write(&mut self, dw0: u32, dw1: u32, dw2: u32, dw3: u32) {
        let Some(window) = &self.window else { return };
        let entry = [dw0, dw1, dw2, dw3 | u32::from(self.state.phase) << 16];
        if window.write_cqe(self.state.tail as usize * CQE_SIZE, entry).is_err() {
            return;
        }
        self.state.tail += 1;
        if self.state.tail == self.state.entries {
            self.state.tail = 0;
            self.state.phase = !self.state.phase;
        }
        self.posted += 1;
    }

    /// Gives a permit back without a completion.
    pub fn release(&mut self, permit: Permit) {
        let Permit(()) = permit;
        self.permits -= 1;
    }

    /// Whether anything was posted since the last [`take_posted`](Self::take_posted).
    pub fn has_posted(&self) -> bool {
        self.posted > 0
    }

    /// Entries that were written since the last call.
    pub fn take_posted(&mut self) -> u32 {
        std::mem::take(&mut self.posted)
    }

    /// The vector to signal for what was posted since the last call, if any: for queues of which each batch is
    /// signalled.
    pub fn take_interrupt(&mut self) -> Option<u16> {
        if self.take_posted() == 0 { None } else { self.state.vector }
    }

    /// Entries that hold completions which the host has not consumed yet.
    pub fn unconsumed(&self) -> u32 {
        self.distance(self.state.head, self.state.tail)
    }
}
