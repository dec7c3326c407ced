//! What the control thread orders: removal, abort, quiesce.

use nvmet_spec::command::{NSID_ALL, NvmOpcode, Sqe};
use nvmet_spec::status::Status;

use super::backend::TestBackend;
use super::fused::pair;
use super::rig::{Rig, read, subsystem};
use crate::worker::{Command, Event};

fn codes(rig: &mut Rig) -> Vec<(u16, Status)> {
    rig.completions().iter().map(|cqe| (cqe.cid, cqe.status().code())).collect()
}

fn abort(rig: &mut Rig, cid: u16) -> Option<bool> {
    let key = rig.guest.key();
    rig.obey(Command::Abort { key, sqid: 1, cid, token: 5 });
    match rig.guest.event() {
        Some(Event::Aborted { token: 5, aborted }) => Some(aborted),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_queue_is_removed_when_its_commands_are_over() {
    let backend = TestBackend::held(2);
    let mut rig = Rig::new([backend as _]);
    let cids = rig.put_all([read(1); 5]);
    rig.run();
    rig.put(read(1));
    rig.guest.ring(&mut rig.sq);
    let key = rig.guest.key();
    rig.obey(Command::RemoveSq { key, sqid: 1 });
    assert!(matches!(rig.guest.event(), Some(Event::SqRemoved { sqid: 1 })));
    assert!(rig.guest.event().is_none());
    let mut over = codes(&mut rig);
    over.sort_by_key(|&(cid, _)| cid);
    let deleted = Status::ABORTED_SQ_DELETION;
    let expected = [Status::ABORT_REQUESTED, Status::ABORT_REQUESTED, deleted, deleted, deleted];
    assert_eq!(over, cids.into_iter().zip(expected).collect::<Vec<_>>(), "and nothing more is fetched");
    rig.obey(Command::RemoveCq { key, cqid: 1 });
    assert!(matches!(rig.guest.event(), Some(Event::CqRemoved { cqid: 1 })));
    rig.obey(Command::RemoveSq { key, sqid: 1 });
    assert!(matches!(rig.guest.event(), Some(Event::SqRemoved { sqid: 1 })), "there is none");
}

#[test]
fn a_new_queue_of_the_same_number_begins_afresh() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    rig.put_all([read(1); 10]);
    rig.run();
    assert_eq!(rig.completions().len(), 10);
    let key = rig.guest.key();
    rig.obey(Command::RemoveSq { key, sqid: 1 });
    rig.obey(Command::RemoveCq { key, cqid: 1 });
    rig.guest.page.zero();
    rig.guest.memory.memory().fill(0x3_0000, 0x1000, 0).unwrap();
    let (cq, add_cq) = rig.guest.add_cq(1, 16);
    let (sq, add_sq) = rig.guest.add_sq(1, 1, 16);
    (rig.cq, rig.sq) = (cq, sq);
    rig.worker.send(add_cq);
    rig.obey(add_sq);
    assert!(rig.one(read(1)).status().is_success());
}

#[test]
fn a_command_is_aborted_wherever_it_is() {
    let backend = TestBackend::held(1);
    let mut rig = Rig::with(subsystem([backend.clone() as _]), 64, 4);
    let cids = rig.put_all([read(1); 6]);
    rig.run();
    // In the backend, stalled, stalled, and three in the ring: the completion queue has room for three.
    assert_eq!(abort(&mut rig, cids[1]), Some(true), "stalled");
    assert_eq!(abort(&mut rig, cids[0]), Some(true), "in the backend");
    assert_eq!(abort(&mut rig, cids[4]), None, "in the ring: when it is fetched");
    assert_eq!(abort(&mut rig, 4711), Some(false), "unknown");
    let aborted = Status::ABORT_REQUESTED;
    assert_eq!(codes(&mut rig), [(cids[1], aborted), (cids[0], aborted)]);
    rig.settle();
    assert!(matches!(rig.guest.event(), Some(Event::Aborted { token: 5, aborted: true })));
    backend.release();
    rig.settle();
    let mut rest = codes(&mut rig);
    rig.settle();
    rest.extend(codes(&mut rig));
    rest.sort_by_key(|&(cid, _)| cid);
    let expected = [Status::SUCCESS, Status::SUCCESS, aborted, Status::SUCCESS];
    assert_eq!(rest, cids[2..].iter().copied().zip(expected).collect::<Vec<_>>());
    assert!(rig.guest.event().is_none(), "each abort is answered once");
}

#[test]
fn the_second_half_of_a_pair_is_aborted_in_the_ring() {
    let backend = TestBackend::held(8);
    let mut rig = Rig::with(subsystem([backend.clone() as _]), 64, 4);
    rig.put_all([read(1); 2]);
    let cids = pair(1).map(|sqe| rig.put(sqe));
    rig.run();
    assert_eq!(abort(&mut rig, cids[1]), None, "there is no room to fetch it");
    backend.release();
    rig.settle();
    assert_eq!(rig.completions().len(), 2);
    rig.settle();
    assert!(matches!(rig.guest.event(), Some(Event::Aborted { token: 5, .. })), "an abort is answered");
    assert_eq!(rig.completions().len(), 2);
}

#[test]
fn an_abort_in_the_ring_dies_with_its_queue() {
    let mut rig = Rig::with(subsystem([TestBackend::held(8) as _]), 64, 2);
    rig.put(read(1));
    let cid = rig.put(read(1));
    rig.run();
    assert_eq!(abort(&mut rig, cid), None);
    let key = rig.guest.key();
    rig.obey(Command::RemoveSq { key, sqid: 1 });
    assert!(matches!(rig.guest.event(), Some(Event::Aborted { token: 5, aborted: false })));
    assert!(matches!(rig.guest.event(), Some(Event::SqRemoved { sqid: 1 })));
}

#[test]
fn a_quiesce_takes_everything_back() {
    let backends = [TestBackend::held(2), TestBackend::held(2)];
    let mut rig = Rig::new(backends.clone().map(|backend| backend as _));
    rig.put_all([read(1); 5]);
    rig.put(Sqe::new(NvmOpcode::Flush, 0, NSID_ALL));
    rig.put(Sqe::new(NvmOpcode::Flush, 0, 2));
    rig.put_all(pair(1));
    rig.run();
    let key = rig.guest.key();
    rig.obey(Command::Quiesce { key });
    assert!(matches!(rig.guest.event(), Some(Event::Quiesced)));
    assert!(rig.guest.event().is_none());
    assert_eq!(rig.completions().len(), 0, "nothing is written after it");
    assert_eq!(backends.map(|backend| backend.open_queues()), [0, 0]);
    assert!(rig.guest.memory.space().unmap_all().is_done(), "no hold on the guest's memory is left");
    rig.settle();
}

#[test]
fn a_flush_of_all_that_hangs_does_not_hold_a_quiesce_up() {
    let backends = [TestBackend::new(), TestBackend::held(8), TestBackend::held(8)];
    let mut rig = Rig::new(backends.map(|backend| backend as _));
    rig.put(Sqe::new(NvmOpcode::Flush, 0, NSID_ALL));
    rig.run();
    let key = rig.guest.key();
    rig.worker.send(Command::Flush { key });
    rig.obey(Command::Quiesce { key });
    assert!(matches!(rig.guest.event(), Some(Event::Quiesced)));
}

#[test]
fn a_controller_comes_back_after_a_quiesce() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    for _ in 0..3 {
        assert!(rig.one(read(1)).status().is_success());
        let key = rig.guest.key();
        rig.obey(Command::Quiesce { key });
        assert!(matches!(rig.guest.event(), Some(Event::Quiesced)));
        rig.guest.page.zero();
        rig.guest.memory.memory().fill(0x3_0000, 0x1000, 0).unwrap();
        let (cq, add_cq) = rig.guest.add_cq(1, 64);
        let (sq, add_sq) = rig.guest.add_sq(1, 1, 64);
        (rig.cq, rig.sq) = (cq, sq);
        rig.worker.send(rig.guest.attach(false));
        rig.worker.send(add_cq);
        rig.obey(add_sq);
    }
}

#[test]
fn a_partly_issued_command_that_is_aborted_issues_no_more() {
    let backends = [TestBackend::held(1), TestBackend::held(1)];
    let mut rig = Rig::new(backends.clone().map(|backend| backend as _));
    rig.put(read(2));
    // Pending on the first namespace, stalled by the second.
    let flush = rig.put(Sqe::new(NvmOpcode::Flush, 0, NSID_ALL));
    rig.run();
    assert_eq!(abort(&mut rig, flush), Some(true));
    assert_eq!(codes(&mut rig), [(flush, Status::ABORT_REQUESTED)]);
    backends[1].release();
    rig.settle();
    assert_eq!((rig.completions().len(), backends[1].flushes()), (1, 0));
}

#[test]
fn a_deallocation_is_cancelled_range_by_range() {
    let mut rig = Rig::new([TestBackend::held(100) as _]);
    let ranges: Vec<u8> = (0..256_u64).flat_map(|at| [1 << 32, at * 2]).flat_map(u64::to_le_bytes).collect();
    rig.guest.memory.memory().write_bytes(super::rig::DATA, &ranges).unwrap();
    let mut dsm = super::rig::rw(NvmOpcode::DatasetManagement, 1, 0, 1, 0);
    (dsm.cdw10, dsm.cdw11) = (255, 4);
    let cid = rig.put(dsm);
    rig.run();
    assert_eq!(abort(&mut rig, cid), Some(true));
    assert_eq!(codes(&mut rig), [(cid, Status::ABORT_REQUESTED)]);
}
