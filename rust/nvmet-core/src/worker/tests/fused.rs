//! Fused Compare and Write.

use nvmet_spec::command::{Fuse, NvmOpcode, Sqe};
use nvmet_spec::status::Status;

use super::backend::TestBackend;
use super::rig::{Rig, read, rw, subsystem};
use crate::worker::{Command, Event};

pub fn pair(blocks: u32) -> [Sqe; 2] {
    let mut compare = rw(NvmOpcode::Compare, 1, 8, blocks, 0);
    compare.cdw0 = compare.cdw0.with_fuse(Fuse::First);
    let mut write = rw(NvmOpcode::Write, 1, 8, blocks, 0x4000);
    write.cdw0 = write.cdw0.with_fuse(Fuse::Second);
    [compare, write]
}

fn statuses(rig: &mut Rig, commands: impl IntoIterator<Item = Sqe>) -> Vec<Status> {
    let cids = rig.put_all(commands);
    rig.run();
    let all = rig.completions();
    assert_eq!(all.iter().map(|cqe| cqe.cid).collect::<Vec<_>>(), cids, "in order, and all of them");
    all.iter().map(|cqe| cqe.status().code()).collect()
}

#[test]
fn a_pair_writes_if_it_compares_equal_and_only_then() {
    let backend = TestBackend::new();
    let mut rig = Rig::new([backend.clone() as _]);
    rig.guest.fill(0x4000, 512, 1);
    assert_eq!(statuses(&mut rig, pair(1)), [Status::SUCCESS; 2]);
    assert_eq!(backend.bytes(8 * 512, 512), [1; 512]);
    rig.guest.fill(0x4000, 512, 2);
    assert_eq!(statuses(&mut rig, pair(1)), [Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED]);
    assert_eq!(backend.bytes(8 * 512, 512), [1; 512]);
    rig.guest.fill(0, 512, 1);
    assert_eq!(statuses(&mut rig, pair(1)), [Status::SUCCESS; 2]);
    assert_eq!(backend.bytes(8 * 512, 512), [2; 512]);
}

#[test]
fn half_a_pair_is_a_missing_fused_command() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let [first, second] = pair(1);
    let missing = Status::ABORTED_MISSING_FUSED;
    assert_eq!(statuses(&mut rig, [first]), [missing]);
    assert_eq!(statuses(&mut rig, [second]), [missing]);
    assert_eq!(statuses(&mut rig, [first, read(1), second]), [missing, Status::SUCCESS, missing]);
    assert_eq!(statuses(&mut rig, [first, first, second]), [missing, Status::SUCCESS, Status::SUCCESS]);
}

#[test]
fn a_pair_that_does_not_fit_together_is_refused() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let refused = [Status::INVALID_FIELD, Status::ABORTED_FAILED_FUSED];
    assert_eq!(statuses(&mut rig, pair(9)), refused, "more than ACWU");
    assert_eq!(statuses(&mut rig, pair(8)), [Status::SUCCESS; 2]);
    let [first, second] = pair(1);
    let mut elsewhere = second;
    elsewhere.set_slba(9);
    assert_eq!(statuses(&mut rig, [first, elsewhere]), refused);
    let mut reads = first;
    reads.cdw0 = reads.cdw0.with_opc(2);
    assert_eq!(statuses(&mut rig, [reads, second]), refused);
    let beyond = [first, second].map(|mut sqe| {
        sqe.set_slba(u64::MAX);
        sqe
    });
    assert_eq!(statuses(&mut rig, beyond), [Status::LBA_OUT_OF_RANGE, Status::ABORTED_FAILED_FUSED]);
    assert_eq!(statuses(&mut rig, pair(1)), [Status::SUCCESS; 2], "nothing is left locked");
}

#[test]
fn a_pair_waits_for_room_for_both() {
    let mut rig = Rig::with(subsystem([TestBackend::new() as _]), 64, 3);
    rig.put(read(1));
    rig.put_all(pair(1));
    rig.run();
    assert_eq!(rig.completions().len(), 1);
    rig.settle();
    assert_eq!(rig.completions().iter().map(|cqe| cqe.status()).collect::<Vec<_>>(), [Status::SUCCESS; 2]);
    let mut small = Rig::with(subsystem([TestBackend::new() as _]), 64, 2);
    small.put_all(pair(1));
    small.run();
    assert!(small.completions()[0].status().is(Status::ABORTED_MISSING_FUSED), "it can never have room");
    small.settle();
    assert!(small.completions()[0].status().is(Status::ABORTED_MISSING_FUSED));
}

#[test]
fn pairs_of_two_workers_on_the_same_blocks_wait_for_each_other() {
    let backend = TestBackend::held(8);
    let subsystem = subsystem([backend.clone() as _]);
    let mut rigs = [Rig::with(subsystem.clone(), 64, 64), Rig::with(subsystem, 64, 64)];
    for (byte, rig) in (1..).zip(&mut rigs) {
        rig.guest.fill(0x4000, 512, byte);
        rig.put_all(pair(1));
        rig.run();
        assert_eq!(rig.completions().len(), 0);
    }
    backend.release();
    let codes = |rig: &mut Rig| rig.completions().iter().map(|cqe| cqe.status().code()).collect::<Vec<_>>();
    rigs[1].settle();
    assert_eq!(codes(&mut rigs[1]), [], "the other one has the blocks");
    rigs[0].settle();
    assert_eq!(codes(&mut rigs[0]), [Status::SUCCESS; 2]);
    rigs[1].settle();
    assert_eq!(codes(&mut rigs[1]), [Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED]);
    assert_eq!(backend.bytes(8 * 512, 512), [1; 512]);
}

#[test]
fn a_second_half_that_meets_a_full_backend_does_not_hide_the_first() {
    let backend = TestBackend::held(1);
    let mut rig = Rig::new([backend.clone() as _]);
    let [first, second] = pair(1);
    rig.put(first);
    rig.put(second);
    rig.put(read(1));
    rig.run();
    backend.release();
    rig.settle();
    assert_eq!(rig.completions().len(), 3);
    assert!(rig.guest.interrupts(1) > 0);
}

#[test]
fn either_half_of_a_pair_can_be_aborted_in_the_ring() {
    for half in 0..2 {
        let mut rig = Rig::new([TestBackend::new() as _]);
        rig.guest.link.set_running(false);
        let cids = pair(1).map(|sqe| rig.put(sqe));
        rig.run();
        rig.guest.link.set_running(true);
        rig.worker.turn();
        let key = rig.guest.key();
        // Both are fetched together with the order, or before it.
        rig.obey(Command::Abort { key, sqid: 1, cid: cids[half], token: 9 });
        assert!(matches!(rig.guest.event(), Some(Event::Aborted { token: 9, .. })), "an abort is answered");
        assert_eq!(rig.completions().len(), 2);
    }
}
