//! A submission queue: the controller is its consumer (NVMe Base 2.0, 3.3.1.2).

use nvmet_dma::{Access, DmaError, Snapshot, Window};
use nvmet_spec::command::Sqe;
use zerocopy::IntoBytes;

use super::SQE_SIZE;

/// Everything that a submission queue is, as plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmissionQueueState {
    /// Queue identifier; 0 is the admin queue.
    pub sqid: u16,
    /// The completion queue that it posts to.
    pub cqid: u16,
    /// Entries, 2 to 65536.
    pub entries: u32,
    /// Address of entry 0 in guest memory.
    pub base: u64,
    /// Index of the next entry to fetch.
    pub head: u32,
    /// The last valid tail that the host told.
    pub tail: u32,
}

/// A submission queue in service.
#[derive(Debug)]
pub struct SubmissionQueue {
    state: SubmissionQueueState,
    window: Option<Window>,
}

impl SubmissionQueue {
    /// A queue that is not reachable until [`attach`](Self::attach) succeeds.
    pub fn new(state: SubmissionQueueState) -> Self {
        Self { state, window: None }
    }

    /// Looks the queue's memory up in `snapshot`. Without success nothing is fetched until a later attempt succeeds.
    ///
    /// # Errors
    ///
    /// Those of [`Snapshot::window`].
    pub fn attach(&mut self, snapshot: &Snapshot) -> Result<(), DmaError> {
        self.window = None;
        let len = self.state.entries as usize * SQE_SIZE;
        self.window = Some(snapshot.window(self.state.base, len, Access::READ)?);
        Ok(())
    }

    /// The queue as plain data.
    pub fn state(&self) -> &SubmissionQueueState {
        &self.state
    }

    /// Takes a tail from the doorbell. False if it is no index of this queue: the tail stays as it was.
    pub fn set_tail(&mut self, tail: u32) -> bool {
        let valid = tail < self.state.entries;
        if valid {
            self.state.tail = tail;
        }
        valid
    }

    /// Entries that can be fetched now.
    pub fn pending(&self) -> u32 {
        if self.window.is_none() {
            return 0;
        }
        let SubmissionQueueState { head, tail, entries, .. } = self.state;
        if tail >= head { tail - head } else { tail + entries - head }
    }

    /// Copies the next entry, once. Call only with [`pending`](Self::pending) entries left.
    pub fn fetch(&mut self) -> Option<[u8; 64]> {
        if self.state.head == self.state.tail {
            return None;
        }
        let entry = self.window.as_ref()?.read_entry64(self.state.head as usize * SQE_SIZE).ok()?;
        self.advance();
        Some(entry)
    }

    /// Copies the next entries, once, without taking them: as many as there are and `into` holds. Each one that is
    /// begun is then taken by [`advance`](Self::advance).
    pub fn peek_batch(&self, into: &mut [Sqe]) -> usize {
        let SubmissionQueueState { head, entries, .. } = self.state;
        let count = (self.pending() as usize).min(into.len());
        let Some(window) = &self.window else { return 0 };
        // Up to the ring's end, and the rest from its beginning.
        let (first, rest) = into[..count].split_at_mut(count.min((entries - head) as usize));
        let copied = window.read_bytes(head as usize * SQE_SIZE, first.as_mut_bytes());
        match copied.and_then(|()| window.read_bytes(0, rest.as_mut_bytes())) {
            Ok(()) => count,
            Err(_) => 0,
        }
    }

    /// Takes one entry.
    pub fn advance(&mut self) {
        self.state.head += 1;
        if self.state.head == self.state.entries {
            self.state.head = 0;
        }
    }

    /// Takes the last [`fetch`](Self::fetch) back, once.
    pub fn unfetch(&mut self) {
        self.state.head = if self.state.head == 0 { self.state.entries - 1 } else { self.state.head - 1 };
    }

    /// Looks at an entry that has not been fetched: `ahead` entries after the head.
    pub fn peek(&self, ahead: u32) -> Option<[u8; 64]> {
        if ahead >= self.pending() {
            return None;
        }
        let index = (self.state.head + ahead) % self.state.entries;
        self.window.as_ref()?.read_entry64(index as usize * SQE_SIZE).ok()
    }
}
