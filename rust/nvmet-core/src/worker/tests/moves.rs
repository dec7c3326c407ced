//! Groups that go from worker to worker.

use std::sync::Arc;

use super::backend::TestBackend;
use super::rig::{DEADLINE, Guest, Rig, read, subsystem};
use crate::queue::{CompletionQueueState, SubmissionQueueState};
use crate::worker::{Command, Event, LocalWorker, WorkerConfig, WorkerPool};

fn released(rig: &Rig) -> Option<(CompletionQueueState, Vec<SubmissionQueueState>)> {
    match rig.guest.event() {
        Some(Event::Released { cq, sqs }) => Some((cq, sqs)),
        None => None,
        other => panic!("{other:?}"),
    }
}

/// What the control thread does with a group that was let go.
fn adopt(guest: &Guest, worker: &LocalWorker, cq: CompletionQueueState, sqs: Vec<SubmissionQueueState>) {
    let key = guest.key();
    worker.send(Command::AddCq { key, state: cq });
    sqs.into_iter().for_each(|state| worker.send(Command::AddSq { key, state }));
}

#[test]
fn a_group_goes_on_at_another_worker_where_it_stopped() {
    let mut rig = Rig::with(subsystem([TestBackend::new() as _]), 8, 8);
    for _ in 0..11 {
        rig.one(read(1));
    }
    rig.put_all([read(1); 3]);
    rig.guest.ring(&mut rig.sq);
    rig.worker.send(Command::Release { key: rig.guest.key(), cqid: 1 });
    rig.settle();
    let (cq, sqs) = released(&rig).unwrap();
    assert!(rig.next().is_none(), "what was not fetched goes along");
    let other = LocalWorker::new().unwrap();
    other.send(rig.guest.attach(false));
    adopt(&rig.guest, &other, cq, sqs);
    rig.worker = other;
    rig.settle();
    assert_eq!(rig.completions().len(), 3);
    for _ in 0..20 {
        assert!(rig.one(read(1)).status().is_success());
    }
}

#[test]
fn a_group_goes_when_its_last_command_is_over() {
    let backend = TestBackend::held(8);
    let mut rig = Rig::new([backend.clone() as _]);
    rig.put_all([read(1); 3]);
    rig.run();
    rig.worker.send(Command::Release { key: rig.guest.key(), cqid: 1 });
    rig.worker.turn();
    assert!(released(&rig).is_none());
    rig.put(read(1));
    rig.guest.ring(&mut rig.sq);
    backend.release();
    rig.settle();
    let (cq, sqs) = released(&rig).unwrap();
    assert_eq!((cq.tail, sqs[0].head), (3, 3), "it fetched no more, and posted all");
    assert_eq!(rig.completions().len(), 3);
    assert_eq!(rig.guest.interrupts(1), 1);
}

#[test]
fn a_group_that_is_called_back_stays_and_goes_on() {
    let backend = TestBackend::held(8);
    let mut rig = Rig::new([backend.clone() as _]);
    let key = rig.guest.key();
    rig.put(read(1));
    rig.run();
    rig.obey(Command::Release { key, cqid: 1 });
    rig.put(read(1));
    rig.guest.ring(&mut rig.sq);
    rig.obey(Command::Keep { key, cqid: 1 });
    assert!(matches!(rig.guest.event(), Some(Event::Kept { cqid: 1 })));
    rig.obey(Command::Keep { key, cqid: 1 });
    assert!(rig.guest.event().is_none(), "one answer");
    backend.release();
    rig.settle();
    assert_eq!(rig.completions().len(), 2);
}

#[test]
fn a_group_whose_backend_hangs_stays() {
    let backend = TestBackend::held(8);
    let mut rig = Rig::new([backend.clone() as _]);
    rig.put(read(1));
    rig.run();
    rig.worker.send(Command::Release { key: rig.guest.key(), cqid: 1 });
    let kept = loop {
        rig.worker.turn();
        if let Some(event) = rig.guest.event() {
            break event;
        }
    };
    assert!(matches!(kept, Event::Kept { cqid: 1 }));
    backend.release();
    rig.settle();
    assert_eq!(rig.completions().len(), 1);
}

#[test]
fn every_order_to_let_go_has_an_answer() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let key = rig.guest.key();
    rig.obey(Command::Release { key, cqid: 9 });
    assert!(matches!(rig.guest.event(), Some(Event::Kept { cqid: 9 })), "there is no such queue");
    rig.guest.link.set_running(false);
    let cid = rig.put(read(1));
    rig.run();
    rig.obey(Command::Abort { key, sqid: 1, cid, token: 7 });
    rig.worker.turn();
    rig.guest.link.set_running(true);
    rig.worker.send(Command::Release { key, cqid: 1 });
    rig.worker.turn();
    // Either the abort was noted, which keeps the group, or the command was not known yet.
    assert!(
        std::iter::from_fn(|| rig.guest.event())
            .any(|event| { matches!(event, Event::Kept { cqid: 1 } | Event::Released { .. }) })
    );
}

#[test]
fn a_reset_takes_a_group_that_wants_to_go() {
    let backend = TestBackend::held(8);
    let mut rig = Rig::new([backend.clone() as _]);
    let key = rig.guest.key();
    rig.put(read(1));
    rig.run();
    rig.obey(Command::Release { key, cqid: 1 });
    rig.obey(Command::Quiesce { key });
    backend.release();
    rig.settle();
    assert!(matches!(rig.guest.event(), Some(Event::Quiesced)));
    assert!(rig.guest.event().is_none());
}

#[test]
fn under_load_nothing_is_lost_between_two_threads() {
    let pool = WorkerPool::start(vec![WorkerConfig::default(); 2]).unwrap();
    let mut guest = Guest::new(subsystem([TestBackend::new() as Arc<dyn nvmet_block::Backend>]));
    let key = guest.key();
    let (mut cq, add_cq) = guest.add_cq(1, 64);
    let (mut sq, add_sq) = guest.add_sq(1, 1, 64);
    pool.iter().for_each(|worker| worker.send(guest.attach(false)));
    let mut at = 0;
    let worker = |at: usize| pool.get(at).unwrap();
    worker(at).send(add_cq);
    worker(at).send(add_sq);
    let (mut sent, mut done, mut moves) = (0_u32, 0_u32, 0_u32);
    let mut moving = false;
    let end = std::time::Instant::now() + DEADLINE;
    while done < 40_000 || moves < 20 {
        while sent - done < 32 {
            guest.put(&mut sq, read(1));
            sent += 1;
        }
        if guest.ring(&mut sq) {
            worker(at).ring(&guest.link, 1);
        }
        while let Some(cqe) = guest.next(&mut cq) {
            assert!(cqe.status().is_success());
            done += 1;
        }
        if guest.ring_cq(&mut cq) {
            worker(at).ring(&guest.link, 1);
        }
        if !moving && done / 500 > moves {
            worker(at).send(Command::Release { key, cqid: 1 });
            moving = true;
        }
        match guest.event() {
            Some(Event::Released { cq, sqs }) => {
                at = 1 - at;
                worker(at).send(Command::AddCq { key, state: cq });
                sqs.into_iter().for_each(|state| worker(at).send(Command::AddSq { key, state }));
                (moving, moves) = (false, moves + 1);
            }
            Some(Event::Kept { .. }) => moving = false,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
        assert!(std::time::Instant::now() < end, "a command was lost: {done} of {sent}, {moves} moves");
    }
}
