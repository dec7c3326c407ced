//! The I/O queues that exist, as the admin queue sees them (NVMe Base 2.0, 5.4 to 5.7).
//!
//! Plain data: the rings themselves belong to workers.

use std::collections::BTreeMap;

use nvmet_spec::command::{CreateCqCdw11, CreateQueueCdw10, CreateSqCdw11, DeleteQueueCdw10, Sqe};
use nvmet_spec::status::Status;

use crate::queue::{CompletionQueueState, SubmissionQueueState};

/// A submission queue that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqInfo {
    /// The completion queue that it posts to.
    pub cqid: u16,
    /// Entries.
    pub entries: u32,
    /// Being deleted.
    pub deleting: bool,
}

/// A completion queue that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CqInfo {
    /// Entries.
    pub entries: u32,
    /// It interrupts (IEN): firmware's does not.
    pub interrupts: bool,
    /// Being deleted.
    pub deleting: bool,
    /// Index of the worker that it was moved to; None: it is where it was put first.
    pub worker: Option<usize>,
}

/// What queues may be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Highest queue identifier for submission queues.
    pub submission: u16,
    /// Highest queue identifier for completion queues.
    pub completion: u16,
    /// Most entries of an I/O queue: CAP.MQES, one-based.
    pub entries: u32,
    /// Interrupt vectors.
    pub vectors: u16,
    /// CC.MPS in bytes.
    pub page_size: u64,
}

/// The I/O queues that exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueTable {
    /// Submission queues by identifier.
    pub sqs: BTreeMap<u16, SqInfo>,
    /// Completion queues by identifier.
    pub cqs: BTreeMap<u16, CqInfo>,
}

impl QueueTable {
    /// Whether any I/O queue exists.
    pub fn is_empty(&self) -> bool {
        self.sqs.is_empty() && self.cqs.is_empty()
    }

    /// Create I/O Completion Queue, 5.4.
    ///
    /// # Errors
    ///
    /// Invalid Queue Identifier, Invalid Queue Size, Invalid Interrupt Vector, Invalid Field, PRP Offset Invalid.
    pub fn create_cq(
        &mut self,
        sqe: &Sqe,
        iocqes: u8,
        limits: &QueueLimits,
    ) -> Result<CompletionQueueState, Status> {
        let (cdw10, cdw11) = (CreateQueueCdw10::from_bits(sqe.cdw10), CreateCqCdw11::from_bits(sqe.cdw11));
        let (cqid, entries) = (cdw10.qid(), cdw10.qsize());
        if cqid == 0 || cqid > limits.completion || self.cqs.contains_key(&cqid) {
            return Err(Status::INVALID_QUEUE_ID.with_dnr());
        }
        // CC.IOCQES has to be 16 bytes by now (NVMe Base 2.0, 3.1.3.5).
        if entries < 2 || entries > limits.entries || iocqes != 4 {
            return Err(Status::INVALID_QUEUE_SIZE.with_dnr());
        }
        check_base(sqe.prp1, cdw11.pc(), limits)?;
        if cdw11.ien() && cdw11.iv() >= limits.vectors {
            return Err(Status::INVALID_INTERRUPT_VECTOR.with_dnr());
        }
        self.cqs.insert(cqid, CqInfo { entries, interrupts: cdw11.ien(), deleting: false, worker: None });
        let vector = cdw11.ien().then_some(cdw11.iv());
        Ok(CompletionQueueState { cqid, entries, base: sqe.prp1, tail: 0, head: 0, phase: true, vector })
    }

    /// Create I/O Submission Queue, 5.5.
    ///
    /// # Errors
    ///
    /// Completion Queue Invalid, Invalid Queue Identifier, Invalid Queue Size, Invalid Field, PRP Offset Invalid.
    pub fn create_sq(
        &mut self,
        sqe: &Sqe,
        iosqes: u8,
        limits: &QueueLimits,
    ) -> Result<SubmissionQueueState, Status> {
        let (cdw10, cdw11) = (CreateQueueCdw10::from_bits(sqe.cdw10), CreateSqCdw11::from_bits(sqe.cdw11));
        let (sqid, entries, cqid) = (cdw10.qid(), cdw10.qsize(), cdw11.cqid());
        if cqid == 0 || cqid > limits.completion {
            return Err(Status::INVALID_QUEUE_ID.with_dnr());
        }
        if self.cqs.get(&cqid).is_none_or(|cq| cq.deleting) {
            return Err(Status::CQ_INVALID.with_dnr());
        }
        if sqid == 0 || sqid > limits.submission || self.sqs.contains_key(&sqid) {
            return Err(Status::INVALID_QUEUE_ID.with_dnr());
        }
        if entries < 2 || entries > limits.entries || iosqes != 6 {
            return Err(Status::INVALID_QUEUE_SIZE.with_dnr());
        }
        check_base(sqe.prp1, cdw11.pc(), limits)?;
        self.sqs.insert(sqid, SqInfo { cqid, entries, deleting: false });
        Ok(SubmissionQueueState { sqid, cqid, entries, base: sqe.prp1, head: 0, tail: 0 })
    }

    /// Delete I/O Submission Queue, 5.7: marks the queue. Returns its identifier and its completion queue.
    ///
    /// # Errors
    ///
    /// Invalid Queue Identifier.
    pub fn begin_delete_sq(&mut self, sqe: &Sqe) -> Result<(u16, u16), Status> {
        let sqid = DeleteQueueCdw10::from_bits(sqe.cdw10).qid();
        match self.sqs.get_mut(&sqid) {
            Some(sq) if !sq.deleting => {
                sq.deleting = true;
                Ok((sqid, sq.cqid))
            }
            _ => Err(Status::INVALID_QUEUE_ID.with_dnr()),
        }
    }

    /// Delete I/O Completion Queue, 5.6: marks the queue. Returns its identifier.
    ///
    /// # Errors
    ///
    /// Invalid Queue Identifier; Invalid Queue Deletion while a submission queue posts to it.
    pub fn begin_delete_cq(&mut self, sqe: &Sqe) -> Result<u16, Status> {
        let cqid = DeleteQueueCdw10::from_bits(sqe.cdw10).qid();
        let in_use = self.sqs.values().any(|sq| sq.cqid == cqid);
        match self.cqs.get_mut(&cqid) {
            Some(cq) if !cq.deleting && !in_use => {
                cq.deleting = true;
                Ok(cqid)
            }
            Some(cq) if !cq.deleting => Err(Status::INVALID_QUEUE_DELETION.with_dnr()),
            _ => Err(Status::INVALID_QUEUE_ID.with_dnr()),
        }
    }
}

/// CAP.CQR: queues are physically contiguous, and begin with a memory page.
fn check_base(prp1: u64, contiguous: bool, limits: &QueueLimits) -> Result<(), Status> {
    if !contiguous {
        return Err(Status::INVALID_FIELD.with_dnr());
    }
    if !prp1.is_multiple_of(limits.page_size) {
        return Err(Status::PRP_OFFSET_INVALID.with_dnr());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvmet_spec::command::AdminOpcode;

    const LIMITS: QueueLimits =
        QueueLimits { submission: 4, completion: 4, entries: 256, vectors: 5, page_size: 4096 };

    fn cq(qid: u16, entries: u32, vector: u16) -> Sqe {
        let mut sqe = Sqe::new(AdminOpcode::CreateIoCq, 1, 0);
        sqe.prp1 = 0x10000;
        sqe.cdw10 = (entries - 1) << 16 | u32::from(qid);
        sqe.cdw11 = u32::from(vector) << 16 | 0b11;
        sqe
    }

    fn sq(qid: u16, entries: u32, cqid: u16) -> Sqe {
        let mut sqe = Sqe::new(AdminOpcode::CreateIoSq, 1, 0);
        sqe.prp1 = 0x20000;
        sqe.cdw10 = (entries - 1) << 16 | u32::from(qid);
        sqe.cdw11 = u32::from(cqid) << 16 | 1;
        sqe
    }

    fn delete(qid: u16) -> Sqe {
        let mut sqe = Sqe::new(AdminOpcode::DeleteIoCq, 1, 0);
        sqe.cdw10 = u32::from(qid);
        sqe
    }

    #[test]
    fn every_wrong_field_has_its_status() {
        let mut table = QueueTable::default();
        let mut create = |sqe: &Sqe| table.create_cq(sqe, 4, &LIMITS).unwrap_err();
        assert!(create(&cq(0, 16, 0)).is(Status::INVALID_QUEUE_ID));
        assert!(create(&cq(5, 16, 0)).is(Status::INVALID_QUEUE_ID));
        assert!(create(&cq(1, 1, 0)).is(Status::INVALID_QUEUE_SIZE));
        assert!(create(&cq(1, 257, 0)).is(Status::INVALID_QUEUE_SIZE));
        assert!(create(&cq(1, 16, 5)).is(Status::INVALID_INTERRUPT_VECTOR));
        assert!(create(&Sqe { prp1: 0x10008, ..cq(1, 16, 0) }).is(Status::PRP_OFFSET_INVALID));
        assert!(create(&Sqe { cdw11: 0b10, ..cq(1, 16, 0) }).is(Status::INVALID_FIELD));
        assert!(table.create_cq(&cq(1, 16, 0), 0, &LIMITS).unwrap_err().is(Status::INVALID_QUEUE_SIZE));
        assert!(table.create_sq(&sq(1, 16, 1), 6, &LIMITS).unwrap_err().is(Status::CQ_INVALID));
        assert!(table.is_empty());
    }

    #[test]
    fn a_completion_queue_goes_after_its_submission_queues() {
        let mut table = QueueTable::default();
        table.create_cq(&cq(1, 16, 0), 4, &LIMITS).unwrap();
        table.create_sq(&sq(1, 16, 1), 6, &LIMITS).unwrap();
        table.create_sq(&sq(2, 16, 1), 6, &LIMITS).unwrap();
        assert!(table.begin_delete_cq(&delete(1)).unwrap_err().is(Status::INVALID_QUEUE_DELETION));
        for sqid in [1, 2] {
            assert_eq!(table.begin_delete_sq(&delete(sqid)).unwrap(), (sqid, 1));
            assert!(table.begin_delete_sq(&delete(sqid)).is_err(), "it is being deleted already");
            table.sqs.remove(&sqid);
        }
        assert_eq!(table.begin_delete_cq(&delete(1)).unwrap(), 1);
    }
}
