//! Admin commands about I/O queues: create, delete, abort, Doorbell Buffer Config (NVMe Base 2.0, 5.1, 5.4 to 5.8).

use nvmet_dma::Access;
use nvmet_spec::command::{AbortCdw10, AbortDw0, DoorbellBufferConfig, Sqe};
use nvmet_spec::status::Status;

use super::super::Controller;
use super::super::admin_queue::Waiting;
use super::super::queues::QueueLimits;
use super::Answer;
use crate::io::dma_status;
use crate::queue::{CQE_SIZE, SQE_SIZE, register_index};
use crate::worker::Command;

/// Abort commands that may be outstanding: Identify Controller ACL, one-based.
pub const ABORT_LIMIT: u32 = 4;

impl Controller {
    fn queue_limits(&self) -> QueueLimits {
        let (submission, completion) = self.admin.features.queues();
        QueueLimits {
            submission,
            completion,
            entries: self.limits.entries,
            vectors: self.link.vectors.len() as u16,
            page_size: u64::from(self.registers.cc.page_size()),
        }
    }

    /// A ring that is not in the guest's memory is refused here, where the host can see it.
    ///
    /// So is any ring while the shadow doorbells are out of reach: the ring's could not be seeded.
    fn check_ring(&mut self, base: u64, bytes: usize, access: Access) -> Result<(), Status> {
        if self.admin.shadow.is_some() && !self.doorbells.is_shadowed() {
            return Err(Status::DATA_TRANSFER_ERROR);
        }
        self.reader.snapshot().check(base, bytes, access).map_err(|error| dma_status(&error).with_dnr())
    }

    pub(super) fn create_cq(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let limits = self.queue_limits();
        let state = self.queues.create_cq(sqe, self.registers.cc.iocqes(), &limits)?;
        if let Err(status) = self.check_ring(state.base, state.entries as usize * CQE_SIZE, Access::WRITE) {
            self.queues.cqs.remove(&state.cqid);
            return Err(status);
        }
        self.clear_doorbell(state.cqid, true);
        let key = self.link.key;
        self.order(state.cqid, Command::AddCq { key, state });
        Ok(0)
    }

    pub(super) fn create_sq(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let limits = self.queue_limits();
        let state = self.queues.create_sq(sqe, self.registers.cc.iosqes(), &limits)?;
        if let Err(status) = self.check_ring(state.base, state.entries as usize * SQE_SIZE, Access::READ) {
            self.queues.sqs.remove(&state.sqid);
            return Err(status);
        }
        self.clear_doorbell(state.sqid, false);
        let key = self.link.key;
        self.order(state.cqid, Command::AddSq { key, state });
        Ok(0)
    }

    /// A new queue starts at 0, whatever a queue of the same identifier left in the doorbells.
    fn clear_doorbell(&mut self, qid: u16, completion: bool) {
        // Identifiers are bounded so that every doorbell lies in the page.
        let _ = self.page.store(register_index(qid, completion), 0);
        self.doorbells.seed(qid, completion, 0);
    }

    pub(super) fn delete_sq(&mut self, sqe: &Sqe) -> Answer {
        match self.queues.begin_delete_sq(sqe) {
            Ok((sqid, cqid)) => {
                let key = self.link.key;
                self.order(cqid, Command::RemoveSq { key, sqid });
                Answer::Later(Waiting::SqRemoved(sqid))
            }
            Err(status) => Answer::Now(Err(status)),
        }
    }

    pub(super) fn delete_cq(&mut self, sqe: &Sqe) -> Answer {
        match self.queues.begin_delete_cq(sqe) {
            Ok(cqid) => {
                let key = self.link.key;
                self.order(cqid, Command::RemoveCq { key, cqid });
                Answer::Later(Waiting::CqRemoved(cqid))
            }
            Err(status) => Answer::Now(Err(status)),
        }
    }

    /// Abort. Dword 0 bit 0 says that the command was not aborted, which is no error.
    pub(super) fn abort(&mut self, sqe: &Sqe) -> Answer {
        if self.admin.aborting == ABORT_LIMIT {
            return Answer::Now(Err(Status::ABORT_COMMAND_LIMIT_EXCEEDED));
        }
        let cdw10 = AbortCdw10::from_bits(sqe.cdw10);
        let (sqid, cid) = (cdw10.sqid(), cdw10.cid());
        if sqid == 0 {
            // Of admin commands only an Asynchronous Event Request stays long enough to be aborted.
            return Answer::Now(Ok(aborted_dw0(self.abort_event_request(cid))));
        }
        let Some(cqid) = self.queues.sqs.get(&sqid).map(|sq| sq.cqid) else {
            return Answer::Now(Ok(aborted_dw0(false)));
        };
        self.admin.aborting += 1;
        let token = self.admin.next_token;
        self.admin.next_token = token.wrapping_add(1);
        let key = self.link.key;
        self.order(cqid, Command::Abort { key, sqid, cid, token });
        Answer::Later(Waiting::Aborted(token))
    }

    /// An Abort command that waited is answered.
    pub(in super::super) fn abort_over(&mut self, aborted: bool) -> Result<u32, Status> {
        self.admin.aborting = self.admin.aborting.saturating_sub(1);
        Ok(aborted_dw0(aborted))
    }

    /// Doorbell Buffer Config, 5.8: from its completion on the shadow buffers are the truth for I/O queues.
    pub(super) fn doorbell_buffer_config(&mut self, sqe: &Sqe) -> Answer {
        let config = DoorbellBufferConfig::from_sqe(sqe);
        let page_size = u64::from(self.registers.cc.page_size());
        if [config.shadow_doorbells, config.event_idxs]
            .iter()
            .any(|address| !address.is_multiple_of(page_size))
        {
            return Answer::Now(Err(Status::INVALID_FIELD.with_dnr()));
        }
        // A queue that moves from worker to worker at the moment is carried over by neither.
        let queues = self.queues.sqs.keys().map(|&qid| (qid, false));
        let queues = queues.chain(self.queues.cqs.keys().map(|&qid| (qid, true)));
        let values: Vec<_> = queues
            .map(|(qid, completion)| (qid, completion, self.doorbells.value(qid, completion)))
            .collect();
        self.admin.shadow = Some(config);
        self.attach_shadow();
        if !self.doorbells.is_shadowed() {
            self.admin.shadow = None;
            self.doorbells.set_shadow(None);
            return Answer::Now(Err(Status::INVALID_FIELD.with_dnr()));
        }
        for (qid, completion, value) in values {
            self.doorbells.seed(qid, completion, value.unwrap_or(0));
        }
        for worker in self.pool.iter() {
            worker.send(Command::SetShadow {
                key: self.link.key,
                doorbells: config.shadow_doorbells,
                event_idx: config.event_idxs,
            });
        }
        Answer::Later(Waiting::ShadowSet(self.pool.iter().len()))
    }

    /// Aborts an outstanding Asynchronous Event Request.
    fn abort_event_request(&mut self, cid: u16) -> bool {
        let found = self.admin.events.abort(cid);
        if found {
            self.complete_aborted_event_request(cid);
        }
        found
    }
}

fn aborted_dw0(aborted: bool) -> u32 {
    AbortDw0::new().with_not_aborted(!aborted).into_bits()
}
