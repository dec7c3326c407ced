//! Queue pairs: one completion queue and the submission queues that complete on it.
//!
//! A pair belongs to one thread and shares nothing with others but the socket, which it touches only when a doorbell
//! really has to be trapped. Submitting and polling allocate nothing and lock nothing.

use crate::{
    HostError,
    doorbell::{Doorbell, ShadowPages},
    drive::MAX_TIMEOUT,
    memory::DmaBuffer,
    transport::{Interrupt, Transport},
};
use nvmet_dma::EventFd;
use nvmet_spec::command::{Cqe, Sqe};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use zerocopy::IntoBytes;

/// How long one look at a quiet drive may take before its health is checked.
const HEALTH_INTERVAL: Duration = Duration::from_millis(100);
/// Empty polls between two looks at the clock.
const SPINS_PER_CLOCK: u32 = 256;

/// A completion queue in host memory.
#[derive(Debug)]
pub(crate) struct CompletionQueue {
    pub(crate) id: u16,
    pub(crate) ring: DmaBuffer,
    /// Entries.
    pub(crate) depth: u32,
    pub(crate) head: u32,
    pub(crate) phase: bool,
    pub(crate) doorbell: Doorbell,
    pub(crate) interrupt: Option<Interrupt>,
}

/// A submission queue in host memory.
#[derive(Debug)]
pub(crate) struct SubmissionQueue {
    pub(crate) id: u16,
    pub(crate) ring: DmaBuffer,
    /// Entries; one less can be in use.
    pub(crate) depth: u32,
    pub(crate) tail: u32,
    /// The tail that the controller was told.
    pub(crate) rung: u32,
    /// The head that the controller reported last.
    pub(crate) head: u32,
    pub(crate) doorbell: Doorbell,
}

impl CompletionQueue {
    /// Whether the entry at the head is new: its Phase Tag says so (Base §3.3.3.2.2).
    #[inline]
    fn ready(&self) -> Result<bool, HostError> {
        let dw3 = self.ring.load_u32(self.head as usize * Cqe::SIZE + 12)?;
        Ok((dw3 & (1 << 16) != 0) == self.phase)
    }

    /// Takes the entry at the head if it is new.
    #[inline]
    fn take(&mut self) -> Result<Option<Cqe>, HostError> {
        let at = self.head as usize * Cqe::SIZE;
        // The phase is read first, with acquire: the other dwords are then at least as new.
        let dw3 = self.ring.load_u32(at + 12)?;
        if (dw3 & (1 << 16) != 0) != self.phase {
            return Ok(None);
        }
        let dw = [self.ring.load_u32(at)?, self.ring.load_u32(at + 4)?, self.ring.load_u32(at + 8)?, dw3];
        self.head += 1;
        if self.head == self.depth {
            self.head = 0;
            self.phase = !self.phase;
        }
        Ok(Some(zerocopy::transmute!(dw)))
    }
}

impl SubmissionQueue {
    /// Entries that can be added before the queue is full: one always stays empty (Base §3.3.1.5).
    #[inline]
    fn free(&self) -> u32 {
        let used =
            if self.tail >= self.head { self.tail - self.head } else { self.tail + self.depth - self.head };
        self.depth - 1 - used
    }

    #[inline]
    fn push(&mut self, command: &Sqe) -> Result<(), HostError> {
        if self.free() == 0 {
            return Err(HostError::QueueFull { sqid: self.id });
        }
        self.ring.write(self.tail as usize * Sqe::SIZE, command.as_bytes())?;
        self.tail += 1;
        if self.tail == self.depth {
            self.tail = 0;
        }
        Ok(())
    }

    #[inline]
    fn ring(&mut self) -> Result<(), HostError> {
        if self.rung != self.tail {
            self.doorbell.ring(self.tail)?;
            self.rung = self.tail;
        }
        Ok(())
    }
}

/// A completion queue with its submission queues. It is `Send`: use each from one thread.
#[derive(Debug)]
pub struct QueuePair {
    pub(crate) cq: CompletionQueue,
    pub(crate) sqs: Vec<SubmissionQueue>,
    pub(crate) transport: Arc<Transport>,
    next_cid: u16,
}

impl QueuePair {
    pub(crate) fn new(cq: CompletionQueue, sqs: Vec<SubmissionQueue>, transport: Arc<Transport>) -> Self {
        Self { cq, sqs, transport, next_cid: 0 }
    }

    /// Identifier of the completion queue.
    #[must_use]
    pub const fn cq_id(&self) -> u16 {
        self.cq.id
    }

    /// Identifiers of the submission queues.
    pub fn sq_ids(&self) -> impl Iterator<Item = u16> {
        self.sqs.iter().map(|sq| sq.id)
    }

    /// Commands that fit into submission queue number `sq` of this pair now.
    #[must_use]
    pub fn free_slots(&self, sq: usize) -> u32 {
        self.sqs.get(sq).map_or(0, SubmissionQueue::free)
    }

    /// Puts a command into the first submission queue. The caller chooses the CID. Nothing is told to the controller
    /// before [`ring`](Self::ring).
    ///
    /// # Errors
    /// [`HostError::QueueFull`].
    #[inline]
    pub fn submit(&mut self, command: &Sqe) -> Result<(), HostError> {
        self.submit_to(0, command)
    }

    /// Puts a command into submission queue number `sq` of this pair (0 is the first).
    ///
    /// # Errors
    /// [`HostError::QueueFull`], [`HostError::Argument`] when the pair has no such queue.
    #[inline]
    pub fn submit_to(&mut self, sq: usize, command: &Sqe) -> Result<(), HostError> {
        match self.sqs.get_mut(sq) {
            Some(queue) => queue.push(command),
            None => Err(no_such_queue()),
        }
    }

    /// Tells the controller about all commands submitted since the last call: one doorbell a queue.
    ///
    /// # Errors
    /// The doorbell is trapped and the connection is lost.
    #[inline]
    pub fn ring(&mut self) -> Result<(), HostError> {
        self.sqs.iter_mut().try_for_each(SubmissionQueue::ring)
    }

    /// Whether [`poll`](Self::poll) would find something.
    ///
    /// # Errors
    /// The queue's memory is gone (cannot happen with memory of this crate's making).
    #[inline]
    pub fn has_completion(&self) -> Result<bool, HostError> {
        self.cq.ready()
    }

    /// Calls `each` with the CID and the entry of every new completion, then releases the entries by one doorbell.
    /// Returns how many there were, at most one queue's length.
    ///
    /// # Errors
    /// The doorbell is trapped and the connection is lost.
    #[inline]
    pub fn poll(&mut self, mut each: impl FnMut(u16, Cqe)) -> Result<usize, HostError> {
        let mut count = 0;
        while count < self.cq.depth as usize {
            let Some(completion) = self.cq.take()? else { break };
            self.note_head(&completion);
            each(completion.cid, completion);
            count += 1;
        }
        if count > 0 {
            self.cq.doorbell.ring(self.cq.head)?;
        }
        Ok(count)
    }

    /// Frees submission queue entries as far as the controller reports to have fetched them.
    #[inline]
    fn note_head(&mut self, completion: &Cqe) {
        let (sqid, head) = (completion.sqid, u32::from(completion.sqhd));
        for sq in &mut self.sqs {
            // A head beyond the queue is the controller's mistake; following it would break the ring.
            if sq.id == sqid && head < sq.depth {
                sq.head = head;
            }
        }
    }

    /// Waits until there is a completion: by the interrupt if the queue has one, else by polling.
    ///
    /// Looks after the controller's health all the while, so a dead or silent server is an error, not a hang.
    ///
    /// # Errors
    /// [`HostError::Timeout`] at `deadline`; [`HostError::Fatal`] when CSTS.CFS is set; a lost connection.
    pub fn wait(&mut self, deadline: Instant) -> Result<(), HostError> {
        let started = Instant::now();
        let mut health = started + HEALTH_INTERVAL;
        while !self.cq.ready()? {
            let now = Instant::now();
            if now >= deadline {
                self.transport.check_health()?;
                return Err(HostError::Timeout { what: "a completion", after: now - started });
            }
            if now >= health {
                self.transport.check_health()?;
                health = now + HEALTH_INTERVAL;
            }
            match &self.cq.interrupt {
                Some(interrupt) => interrupt.wait(deadline.min(health) - now)?,
                None => {
                    for _ in 0..SPINS_PER_CLOCK {
                        if self.cq.ready()? {
                            break;
                        }
                        std::hint::spin_loop();
                    }
                    // With more queues than processors what is waited for may be the turn of another one.
                    std::thread::yield_now();
                }
            }
        }
        Ok(())
    }

    /// Sends one command and waits for its completion. The CID is chosen here. Completions of other commands that come
    /// meanwhile go to `other`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait); not for a bad status, which is in the entry.
    pub fn call(
        &mut self,
        mut command: Sqe,
        timeout: Duration,
        mut other: impl FnMut(Cqe),
    ) -> Result<Cqe, HostError> {
        let cid = self.fresh_cid();
        command.cdw0.set_cid(cid);
        self.submit(&command)?;
        self.ring()?;
        let deadline = Instant::now() + timeout.min(MAX_TIMEOUT);
        let sqid = self.sqs.first().map(|sq| sq.id);
        loop {
            self.wait(deadline)?;
            let mut mine = None;
            self.poll(|_, completion| {
                if completion.cid == cid && Some(completion.sqid) == sqid {
                    mine = Some(completion);
                } else {
                    other(completion);
                }
            })?;
            if let Some(completion) = mine {
                return Ok(completion);
            }
        }
    }

    /// Rings all doorbells of the pair through `pages` from now on.
    pub(crate) fn use_shadow(&mut self, pages: &ShadowPages) -> Result<(), HostError> {
        let admin = self.cq.id == 0;
        self.cq.doorbell.use_shadow(pages, self.cq.head, admin)?;
        self.sqs.iter_mut().try_for_each(|sq| sq.doorbell.use_shadow(pages, sq.rung, admin))
    }

    /// Writes to `pages` what the doorbells will be when one more command was submitted.
    pub(crate) fn announce_next(&self, pages: &ShadowPages) -> Result<(), HostError> {
        self.cq.doorbell.announce(pages, self.cq.head)?;
        self.sqs.iter().try_for_each(|sq| sq.doorbell.announce(pages, (sq.tail + 1) % sq.depth))
    }

    /// Gives the rings up for good: the controller may still use them.
    pub(crate) fn abandon(self) {
        self.cq.ring.abandon();
        self.sqs.into_iter().for_each(|sq| sq.ring.abandon());
    }

    /// A CID for [`call`](Self::call), from the upper half, so that it does not meet those that the caller counts from 0.
    pub(crate) fn fresh_cid(&mut self) -> u16 {
        self.next_cid = self.next_cid.wrapping_add(1) & 0x3FFF;
        0x8000 | self.next_cid
    }

    /// The eventfd of the queue's interrupt vector, if it has one.
    #[must_use]
    pub fn eventfd(&self) -> Option<&EventFd> {
        self.cq.interrupt.as_ref().map(Interrupt::eventfd)
    }

    /// Writes any value to the tail doorbell register of submission queue number `sq` of this pair, past all
    /// bookkeeping: for tests of what a controller makes of it.
    ///
    /// # Errors
    /// [`HostError::Argument`] when the pair has no such queue; a lost connection.
    pub fn write_tail_doorbell(&self, sq: usize, value: u32) -> Result<(), HostError> {
        match self.sqs.get(sq) {
            Some(queue) => queue.doorbell.ring_register(value),
            None => Err(no_such_queue()),
        }
    }

    /// Writes any value to the head doorbell register of the completion queue, past all bookkeeping.
    ///
    /// # Errors
    /// A lost connection.
    pub fn write_head_doorbell(&self, value: u32) -> Result<(), HostError> {
        self.cq.doorbell.ring_register(value)
    }

    /// Memory of the completion queue.
    #[must_use]
    pub const fn cq_memory(&self) -> &DmaBuffer {
        &self.cq.ring
    }

    /// Memory of submission queue number `sq` of this pair.
    #[must_use]
    pub fn sq_memory(&self, sq: usize) -> Option<&DmaBuffer> {
        self.sqs.get(sq).map(|sq| &sq.ring)
    }
}

#[cold]
fn no_such_queue() -> HostError {
    HostError::argument("the pair has no submission queue of that number")
}
