//! Moving queues between workers while the guest uses them.
//!
//! A move is begun by a worker with too much to do and ends with an answer of the same worker: the group as plain data,
//! or that it stays. Orders for the group that come in between call it back first and are sent when the answer is there,
//! so none is ever sent to a worker that no longer has the group.

use std::collections::BTreeMap;

use super::Controller;
use super::lifecycle::Phase;
use crate::queue::{CompletionQueueState, SubmissionQueueState};
use crate::worker::{Command, WorkerHandle};

/// A completion queue on its way to another worker.
#[derive(Default)]
pub struct Move {
    to: usize,
    called_back: bool,
    /// Orders that came meanwhile.
    orders: Vec<Command>,
}

/// Moves in progress, by completion queue.
pub type Moves = BTreeMap<u16, Move>;

impl Controller {
    /// The worker that has a completion queue.
    pub(super) fn worker_of(&self, cqid: u16) -> &WorkerHandle {
        match self.pool.get(self.place_of(cqid)) {
            Some(worker) => worker,
            None => self.pool.for_queue(self.link.key, cqid),
        }
    }

    fn place_of(&self, cqid: u16) -> usize {
        let moved = self.queues.cqs.get(&cqid).and_then(|cq| cq.worker);
        moved.unwrap_or_else(|| self.pool.place(self.link.key, cqid))
    }

    /// Gives an order about a completion queue, or a submission queue of it, to the worker that has it.
    pub(super) fn order(&mut self, cqid: u16, order: Command) {
        let key = self.link.key;
        let Some(moving) = self.moves.get_mut(&cqid) else { return self.worker_of(cqid).send(order) };
        moving.orders.push(order);
        if !std::mem::replace(&mut moving.called_back, true) {
            self.worker_of(cqid).send(Command::Keep { key, cqid });
        }
    }

    /// A worker has too much to do.
    pub(super) fn begin_move(&mut self, cqid: u16, to: usize) {
        let movable = self.queues.cqs.get(&cqid).is_some_and(|cq| !cq.deleting);
        let sensible = self.pool.get(to).is_some() && self.place_of(cqid) != to;
        if self.phase != Phase::Enabled || !movable || !sensible || self.moves.contains_key(&cqid) {
            return;
        }
        self.moves.insert(cqid, Move { to, ..Move::default() });
        self.worker_of(cqid).send(Command::Release { key: self.link.key, cqid });
    }

    /// A worker has let a group go.
    pub(super) fn released(&mut self, cq: CompletionQueueState, sqs: Vec<SubmissionQueueState>) {
        // Else the queues went with a reset.
        let Some(moving) = self.moves.remove(&cq.cqid) else { return };
        let (key, cqid) = (self.link.key, cq.cqid);
        if let Some(info) = self.queues.cqs.get_mut(&cqid) {
            info.worker = Some(moving.to);
        }
        tracing::debug!("completion queue {cqid} moves to worker {}", moving.to);
        // The other worker may not have heard of a ring yet, and nobody is to wait for that any more.
        self.link.heard_ring(cqid);
        let worker = self.worker_of(cqid);
        worker.send(Command::AddCq { key, state: cq });
        for state in sqs {
            worker.send(Command::AddSq { key, state });
        }
        moving.orders.into_iter().for_each(|order| worker.send(order));
    }

    /// A worker keeps a group.
    pub(super) fn kept(&mut self, cqid: u16) {
        if let Some(moving) = self.moves.remove(&cqid) {
            let worker = self.worker_of(cqid);
            moving.orders.into_iter().for_each(|order| worker.send(order));
        }
    }
}

#[cfg(test)]
mod tests {
    use nvmet_dma::LoopbackMemory;

    use super::super::queues::CqInfo;
    use super::super::{ControllerLimits, ControllerSetup, HostIdentity, Lifetime};
    use super::*;
    use crate::irq::Vectors;
    use crate::subsystem::ana::AnaStates;
    use crate::subsystem::{Subsystem, SubsystemConfig};
    use crate::worker::{WorkerConfig, WorkerPool};
    use std::sync::Arc;

    #[test]
    fn the_new_worker_hears_of_rings_though_the_old_one_has_not() {
        let config = SubsystemConfig::new("1");
        let memory = LoopbackMemory::new(1 << 20).unwrap();
        let mut controller = Controller::new(
            ControllerSetup {
                limits: ControllerLimits { queues: 2, entries: 64 },
                pci_ids: (0, 0),
                host: HostIdentity { nqn: String::new(), id: [1; 16] },
                place: "a test".into(),
                cntlid: None,
                ana: AnaStates::default(),
                lifetime: Lifetime::default(),
            },
            Arc::new(Subsystem::new(config).unwrap()),
            Arc::new(WorkerPool::start(vec![WorkerConfig::default(); 2]).unwrap()),
            memory.handle(),
            Arc::new(Vectors::new(3)),
            || {},
        )
        .unwrap();
        let cq = CompletionQueueState {
            cqid: 1,
            entries: 64,
            base: 0,
            tail: 0,
            head: 0,
            phase: true,
            vector: None,
        };
        let info = CqInfo { entries: 64, interrupts: false, deleting: false, worker: None };
        controller.queues.cqs.insert(1, info);
        controller.phase = Phase::Enabled;
        let to = 1 - controller.place_of(1);
        controller.begin_move(1, to);
        assert!(controller.link.ring(1), "the old worker is told, and busy with something else");
        controller.released(cq, Vec::new());
        assert!(controller.link.ring(1), "the new worker is told");
    }
}
