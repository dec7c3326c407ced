//! Commands through queues: data, completions, interrupts, back-pressure.

use nvmet_spec::command::{NSID_ALL, NvmOpcode, Sqe};
use nvmet_spec::status::Status;

use super::backend::TestBackend;
use super::rig::{Rig, add, read, rw, subsystem};
use crate::queue::InvalidDoorbell;
use crate::worker::{Command, Event};

#[test]
fn what_was_written_is_read_back_and_compares_equal() {
    let backend = TestBackend::new();
    let mut rig = Rig::new([backend.clone() as _]);
    rig.guest.fill(0, 8192, 0xa5);
    assert!(rig.one(rw(NvmOpcode::Write, 1, 16, 16, 0)).status().is_success());
    assert_eq!(backend.bytes(8192, 8192), [0xa5; 8192]);
    assert!(rig.one(rw(NvmOpcode::Read, 1, 16, 16, 0x4000)).status().is_success());
    assert_eq!(rig.guest.data(0x4000, 8192), [0xa5; 8192]);
    assert!(rig.one(rw(NvmOpcode::Compare, 1, 16, 16, 0)).status().is_success());
    rig.guest.fill(100, 1, 0);
    let differs = rig.one(rw(NvmOpcode::Compare, 1, 16, 16, 0));
    assert!(differs.status().is(Status::COMPARE_FAILURE) && differs.status().more());
    assert!(rig.one(rw(NvmOpcode::WriteZeroes, 1, 16, 8, 0)).status().is_success());
    assert_eq!((backend.bytes(8192, 4096), backend.bytes(12288, 1)), (vec![0; 4096], vec![0xa5]));
    let stats = rig.guest.link.stats.read();
    assert_eq!((stats.reads, stats.writes, stats.bytes_read, stats.bytes_written), (3, 1, 16384, 8192));
    assert_eq!((stats.completions, stats.errors, stats.media_errors, stats.interrupts), (5, 1, 0, 5));
}

#[test]
fn a_completion_says_which_command_and_how_far_the_queue_was_read() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let cids = [rig.put(read(1)), rig.put(read(1)), rig.put(read(1))];
    rig.run();
    let all = rig.completions();
    assert_eq!(all.iter().map(|cqe| cqe.cid).collect::<Vec<_>>(), cids);
    assert_eq!(all.iter().map(|cqe| (cqe.sqid, cqe.sqhd)).collect::<Vec<_>>(), [(1, 1), (1, 2), (1, 3)]);
}

#[test]
fn a_failed_command_is_noted_for_the_error_log() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let status = |sqe, rig: &mut Rig| rig.one(sqe).status();
    assert!(status(rw(NvmOpcode::Read, 1, 2048, 1, 0), &mut rig).is(Status::LBA_OUT_OF_RANGE));
    assert!(status(read(2), &mut rig).is(Status::INVALID_FIELD), "an inactive namespace");
    assert!(status(read(0), &mut rig).is(Status::INVALID_NAMESPACE_OR_FORMAT));
    assert!(status(read(NSID_ALL), &mut rig).is(Status::INVALID_NAMESPACE_OR_FORMAT));
    assert!(status(Sqe::new(0x7f_u8, 0, 1), &mut rig).is(Status::INVALID_OPCODE));
    let (failures, dropped) = rig.guest.link.take_failures();
    assert_eq!((failures.len(), dropped), (5, 0));
    assert_eq!((failures[0].sqid, failures[0].lba, failures[1].nsid), (1, 2048, 2));
}

#[test]
fn a_batch_over_several_namespaces_is_counted_on_each_of_them_and_takes_one_interrupt() {
    let slow = TestBackend::held(1);
    let mut rig = Rig::new([TestBackend::new() as _, TestBackend::new() as _, slow.clone() as _]);
    rig.guest.fill(0, 4096, 1);
    for (opcode, nsid) in [
        (NvmOpcode::Read, 1),
        (NvmOpcode::Read, 1),
        (NvmOpcode::Write, 2),
        (NvmOpcode::Read, 1),
        (NvmOpcode::Read, 3),
    ] {
        rig.put(rw(opcode, nsid, 0, 8, 0));
    }
    rig.guest.ring(&mut rig.sq);
    assert!(rig.worker.turn());
    assert_eq!(rig.completions().len(), 4, "the last one is still on its way");
    let counted = |rig: &Rig| {
        let namespaces = rig.guest.link.subsystem.namespaces();
        [1, 2, 3].map(|nsid| {
            let stats = namespaces.get(nsid).unwrap().stats().read();
            (stats.reads, stats.writes, stats.bytes_read, stats.bytes_written, stats.completions)
        })
    };
    assert_eq!(counted(&rig), [(3, 0, 3 * 4096, 0, 3), (0, 1, 0, 4096, 1), (0, 0, 0, 0, 0)]);
    assert_eq!(rig.guest.link.stats.read().interrupts, 1);
    slow.release();
    rig.run();
    assert_eq!(counted(&rig)[2], (1, 0, 4096, 0, 1));
    let all = rig.guest.link.stats.read();
    assert_eq!((all.reads, all.writes, all.completions, all.interrupts), (4, 1, 5, 2));
}

#[test]
fn a_batch_takes_one_interrupt_for_each_completion_queue() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    rig.put_all([read(1); 40]);
    rig.guest.ring(&mut rig.sq);
    assert!(rig.worker.turn());
    assert_eq!((rig.completions().len(), rig.guest.interrupts(1)), (40, 1));
    rig.settle();
    assert_eq!(rig.guest.interrupts(1), 0);
}

#[test]
fn a_burst_longer_than_one_turn_is_fetched_to_its_end() {
    let mut rig = Rig::with(subsystem([TestBackend::new() as _]), 1024, 1024);
    rig.put_all([read(1); 1000]);
    rig.run();
    assert_eq!(rig.completions().len(), 1000);
}

#[test]
fn a_flush_of_all_namespaces_reaches_each_of_them() {
    let backends = [TestBackend::new(), TestBackend::held(1), TestBackend::new()];
    let mut rig = Rig::new(backends.clone().map(|backend| backend as _));
    rig.put(Sqe::new(NvmOpcode::Flush, 0, NSID_ALL));
    rig.run();
    assert_eq!((rig.completions().len(), backends.clone().map(|b| b.flushes())), (0, [1, 1, 1]));
    backends[1].release();
    rig.settle();
    assert!(rig.completions()[0].status().is_success());
    assert!(rig.one(Sqe::new(NvmOpcode::Flush, 0, 3)).status().is_success());
    assert_eq!(backends.clone().map(|b| b.flushes()), [1, 1, 2]);
    rig.obey(Command::Flush { key: rig.guest.key() });
    assert!(matches!(rig.guest.event(), Some(Event::Flushed { status }) if status.is_success()));
    assert_eq!(backends.map(|b| b.flushes()), [2, 2, 3]);
}

#[test]
fn a_flush_that_met_a_full_backend_goes_on_with_the_namespaces_that_are_left() {
    let backends = [TestBackend::new(), TestBackend::held(1), TestBackend::new()];
    let mut rig = Rig::new(backends.clone().map(|backend| backend as _));
    rig.put(read(2));
    rig.put(Sqe::new(NvmOpcode::Flush, 0, NSID_ALL));
    rig.run();
    assert_eq!(backends.clone().map(|b| b.flushes()), [1, 0, 0]);
    rig.guest.link.subsystem.remove_namespace(1).unwrap();
    backends[1].release();
    rig.settle();
    assert_eq!((rig.completions().len(), backends.map(|b| b.flushes())), (2, [1, 1, 1]));
}

#[test]
fn submission_queues_share_a_completion_queue_fairly() {
    let mut rig = Rig::with(subsystem([TestBackend::new() as _]), 64, 4);
    let (mut second, add_sq) = rig.guest.add_sq(2, 1, 64);
    rig.obey(add_sq);
    for _ in 0..30 {
        rig.put(read(1));
        rig.guest.put(&mut second, read(1));
    }
    rig.guest.ring(&mut second);
    rig.run();
    let mut served = Vec::new();
    while served.len() < 60 {
        rig.settle();
        let some: Vec<u16> = rig.completions().iter().map(|cqe| cqe.sqid).collect();
        assert!(!some.is_empty() && some.len() <= 3);
        served.extend(some);
    }
    let first = served.iter().take(30).filter(|&&sqid| sqid == 1).count();
    assert!((9..=21).contains(&first), "{first} of the first 30");
}

#[test]
fn a_full_completion_queue_parks_and_a_head_lets_go_on() {
    for shadow in [false, true] {
        let mut rig = Rig::with(subsystem([TestBackend::new() as _]), 64, 4);
        if shadow {
            let command = rig.guest.set_shadow();
            rig.obey(command);
            assert!(matches!(rig.guest.event(), Some(Event::ShadowSet)));
        }
        rig.put_all([read(1); 40]);
        rig.run();
        let mut done = 0;
        while done < 40 {
            assert!(!rig.worker.turn(), "it rests while there is no room");
            assert!(rig.next().is_some());
            rig.guest.ring_cq(&mut rig.cq);
            done += 1;
            assert_eq!(rig.worker.turn(), done < 38, "a head is work as long as something is parked");
        }
        assert!(rig.next().is_none());
        assert_eq!(rig.guest.link.stats.read().completions, 40);
    }
}

#[test]
fn an_invalid_doorbell_is_reported_once() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let tail = rig.sq.tail;
    rig.sq.tail = 64;
    rig.run();
    let invalid = InvalidDoorbell::Value { qid: 1, completion: false, value: 64 };
    assert!(matches!(rig.guest.event(), Some(Event::InvalidDoorbell(seen)) if seen == invalid));
    rig.settle();
    assert!(rig.guest.event().is_none());
    rig.sq.tail = tail;
    assert!(rig.one(read(1)).status().is_success(), "the queue goes on");
    rig.cq.head = 9;
    rig.guest.ring_cq(&mut rig.cq);
    rig.settle();
    let invalid = InvalidDoorbell::Value { qid: 1, completion: true, value: 9 };
    assert!(matches!(rig.guest.event(), Some(Event::InvalidDoorbell(seen)) if seen == invalid));
    rig.settle();
    assert!(rig.guest.event().is_none());
}

#[test]
fn nothing_is_fetched_while_the_controller_does_not_run() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    rig.guest.link.set_running(false);
    rig.put(read(1));
    rig.run();
    assert_eq!(rig.completions().len(), 0);
    rig.guest.link.set_running(true);
    rig.settle();
    assert_eq!(rig.completions().len(), 1);
}

#[test]
fn a_slow_backend_stalls_its_own_namespace_alone() {
    let slow = TestBackend::held(4);
    let mut rig = Rig::with(subsystem([slow.clone() as _, TestBackend::new() as _]), 256, 256);
    let slow_cids = rig.put_all([read(1); 50]);
    let fast_cids = rig.put_all([read(2); 50]);
    rig.run();
    let cids = |rig: &mut Rig| rig.completions().iter().map(|cqe| cqe.cid).collect::<Vec<_>>();
    assert_eq!(cids(&mut rig), fast_cids);
    assert!(rig.one(read(2)).status().is_success());
    slow.release();
    rig.settle();
    assert_eq!(cids(&mut rig), slow_cids);
}

#[test]
fn a_deallocation_larger_than_the_backend_takes_completes_once() {
    let backend = TestBackend::held(3);
    let mut rig = Rig::new([backend.clone() as _]);
    let ranges: Vec<u8> = (0..256_u64).flat_map(|at| [1 << 32, at * 2]).flat_map(u64::to_le_bytes).collect();
    rig.guest.memory.memory().write_bytes(super::rig::DATA, &ranges).unwrap();
    let mut dsm = rw(NvmOpcode::DatasetManagement, 1, 0, 1, 0);
    (dsm.cdw10, dsm.cdw11) = (255, 4);
    rig.put(dsm);
    rig.run();
    assert_eq!(rig.completions().len(), 0);
    backend.release();
    rig.settle();
    assert!(rig.completions()[0].status().is_success());
}

#[test]
fn a_namespace_that_goes_leaves_its_commands_in_peace_and_takes_no_more() {
    let backend = TestBackend::held(8);
    let mut rig = Rig::new([backend.clone() as _, TestBackend::new() as _]);
    rig.put(read(1));
    rig.run();
    rig.guest.link.subsystem.remove_namespace(1).unwrap();
    rig.settle();
    assert_eq!(backend.open_queues(), 1, "a command is in flight");
    assert!(rig.one(read(1)).status().is(Status::INVALID_FIELD));
    let successor = TestBackend::new();
    assert_eq!(add(&rig.guest.link.subsystem, successor.clone()), 1);
    assert!(rig.one(read(1)).status().is_success(), "another namespace took its place");
    backend.release();
    rig.settle();
    assert!(rig.completions()[0].status().is_success());
    assert_eq!((backend.open_queues(), successor.open_queues()), (0, 1), "closed with its last command");
    assert!(rig.one(read(2)).status().is_success());
}
