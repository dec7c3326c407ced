//! Creating and deleting I/O queues (Base §5.4 to §5.7).

use crate::{
    Drive, HostError, SqeExt,
    doorbell::Doorbell,
    queue::{CompletionQueue, QueuePair, SubmissionQueue},
    transfer::Data,
};
use nvmet_spec::{
    command::{AdminOpcode, Cqe, CreateCqCdw11, CreateQueueCdw10, CreateSqCdw11, DeleteQueueCdw10, Sqe},
    registers::Doorbell as Register,
};
use std::{collections::BTreeSet, sync::Arc};

/// What a queue pair should be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Entries of the completion queue and of each submission queue; one less can be in flight on each.
    pub depth: u32,
    /// Submission queues that complete on the one completion queue.
    pub submission_queues: u16,
    /// MSI-X vector, which must be armed; `None`: polled.
    pub vector: Option<u16>,
    /// Queue priority, QPRIO (Base §5.5): 0 urgent to 3 low; only matters with weighted round robin.
    pub priority: u8,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { depth: 128, submission_queues: 1, vector: None, priority: 0 }
    }
}

impl Drive {
    /// Creates a completion queue and its submission queues, with the lowest free identifiers.
    ///
    /// # Errors
    /// [`HostError::Command`] when the controller refuses; [`HostError::Argument`] for a depth or vector that cannot be.
    pub fn create_queue_pair(&mut self, config: &QueueConfig) -> Result<QueuePair, HostError> {
        if !(2..=65_536).contains(&config.depth) {
            return Err(HostError::argument(format!("a queue has 2 to 65536 entries, not {}", config.depth)));
        }
        let cq = self.create_cq(config)?;
        self.cqids.insert(cq.id);
        let mut pair = QueuePair::new(cq, Vec::new(), Arc::clone(&self.transport));
        for _ in 0..config.submission_queues {
            match self.create_sq(config, pair.cq_id()) {
                Ok(sq) => {
                    self.sqids.insert(sq.id);
                    pair.sqs.push(sq);
                }
                Err(error) => {
                    // Best effort: the error that matters is the one at hand.
                    let _ = self.delete_queue_pair(pair);
                    return Err(error);
                }
            }
        }
        Ok(pair)
    }

    /// Deletes the queues of a pair: submission queues first (Base §5.6). Commands in flight are aborted.
    ///
    /// # Errors
    /// [`HostError::Command`] for the first that the controller refuses; the others are deleted all the same.
    pub fn delete_queue_pair(&mut self, pair: QueuePair) -> Result<(), HostError> {
        let mut outcome = Ok(());
        for sqid in pair.sq_ids() {
            outcome = outcome.and(self.delete_queue(AdminOpcode::DeleteIoSq, sqid));
            self.sqids.remove(&sqid);
        }
        outcome = outcome.and(self.delete_queue(AdminOpcode::DeleteIoCq, pair.cq_id()));
        self.cqids.remove(&pair.cq_id());
        if outcome.is_err() {
            // The controller may still use the rings.
            pair.abandon();
        }
        outcome
    }

    /// The vector for job or queue number `index`: all but vector 0, in turn.
    ///
    /// # Errors
    /// [`HostError::Argument`] when no vector but 0 is armed.
    pub fn vector_for(&self, index: u32) -> Result<u16, HostError> {
        match u32::from(self.transport.vectors().saturating_sub(1)) {
            0 => Err(HostError::argument("interrupts need at least two vectors; attach with `vectors` set")),
            vectors => Ok((1 + index % vectors) as u16),
        }
    }

    fn create_cq(&mut self, config: &QueueConfig) -> Result<CompletionQueue, HostError> {
        let id = lowest_free(&self.cqids)?;
        let interrupt = match config.vector {
            None => None,
            Some(vector) => Some(self.transport.interrupt(vector).ok_or_else(|| {
                HostError::argument(format!("vector {vector} is not armed; attach with more `vectors`"))
            })?),
        };
        let ring = self.memory.allocate(config.depth as usize * Cqe::SIZE)?;
        let cdw11 = CreateCqCdw11::new()
            .with_pc(true)
            .with_ien(config.vector.is_some())
            .with_iv(config.vector.unwrap_or(0));
        let mut sqe = Sqe::new(AdminOpcode::CreateIoCq, 0, 0)
            .with_cdw10(create_cdw10(id, config.depth))
            .with_cdw11(cdw11.into_bits());
        sqe.prp1 = ring.iova();
        let doorbell = self.doorbell(Register::CqHead(id))?;
        self.admin_ok(sqe, Data::None)?;
        Ok(CompletionQueue { id, ring, depth: config.depth, head: 0, phase: true, doorbell, interrupt })
    }

    fn create_sq(&mut self, config: &QueueConfig, cqid: u16) -> Result<SubmissionQueue, HostError> {
        let id = lowest_free(&self.sqids)?;
        let ring = self.memory.allocate(config.depth as usize * Sqe::SIZE)?;
        let cdw11 = CreateSqCdw11::new().with_pc(true).with_qprio(config.priority & 3).with_cqid(cqid);
        let mut sqe = Sqe::new(AdminOpcode::CreateIoSq, 0, 0)
            .with_cdw10(create_cdw10(id, config.depth))
            .with_cdw11(cdw11.into_bits());
        sqe.prp1 = ring.iova();
        let doorbell = self.doorbell(Register::SqTail(id))?;
        self.admin_ok(sqe, Data::None)?;
        Ok(SubmissionQueue { id, ring, depth: config.depth, tail: 0, rung: 0, head: 0, doorbell })
    }

    /// The doorbell of a queue that is about to be created: a shadow that an earlier queue of the same identifier left
    /// must be gone before the controller looks at it.
    fn doorbell(&self, which: Register) -> Result<Doorbell, HostError> {
        let mut doorbell = Doorbell::new(Arc::clone(&self.transport), which, self.cap.dstrd());
        if let Some(pages) = &self.shadow {
            doorbell.use_shadow(pages, 0, false)?;
        }
        Ok(doorbell)
    }

    fn delete_queue(&mut self, opcode: AdminOpcode, qid: u16) -> Result<(), HostError> {
        let cdw10 = DeleteQueueCdw10::new().with_qid(qid).into_bits();
        self.admin_ok(Sqe::new(opcode, 0, 0).with_cdw10(cdw10), Data::None).map(drop)
    }
}

fn create_cdw10(qid: u16, depth: u32) -> u32 {
    CreateQueueCdw10::new().with_qid(qid).with_qsize_z((depth - 1) as u16).into_bits()
}

/// The lowest identifier from 1 on that is not in use.
fn lowest_free(used: &BTreeSet<u16>) -> Result<u16, HostError> {
    (1..=u16::MAX)
        .find(|id| !used.contains(id))
        .ok_or_else(|| HostError::argument("all queue identifiers are in use"))
}
