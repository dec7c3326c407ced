//! Preempting while the losers are at work (NVMe Base 2.0, 8.19.7).

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use common::cluster::{Cluster, Host, block, flush};
use common::gate::Gate;
use common::guest::{DATA, Guest, IOVA, LIMIT};
use common::laborious::Laborious;
use common::{Stopper, namespace, ram, workers_as_wanted};
use nvmet_block::Op;
use nvmet_core::device::DoorbellMode;
use nvmet_host::SqeExt;
use nvmet_spec::command::{AbortCdw10, AdminOpcode, Fuse, NSID_ALL, NvmOpcode, Sqe};
use nvmet_spec::registers;
use nvmet_spec::reservation::{AcquireAction, RegisterAction, ReleaseAction, ReservationType};
use nvmet_spec::status::Status;

use ReservationType::WriteExclusive;

const MIB: u64 = 1 << 20;

/// Namespaces 1 and 2 behind gates, 3 in memory; hosts 1, 2 and 3, of which 1 and 2 are registered with namespace 1
/// by their numbers.
fn contended(workers: u16) -> (Cluster, [Arc<Gate>; 2], [Host; 3]) {
    let gates = [Gate::new(MIB), Gate::new(MIB)];
    let namespaces =
        vec![namespace(gates[0].clone(), 512), namespace(gates[1].clone(), 512), namespace(ram(MIB), 512)];
    let cluster = Cluster::new(workers, namespaces, &[1, 2, 3]);
    let mut hosts: [Host; 3] = cluster.attach_all().try_into().ok().unwrap();
    hosts[0].join(1, 1);
    hosts[1].join(1, 2);
    (cluster, gates, hosts)
}

/// Preempt and Abort of host 2 by host 1 on namespace 1.
fn preempt_and_abort(one: &mut Host) -> u16 {
    let sqe = one.acquire(1, AcquireAction::PreemptAndAbort, WriteExclusive, 1, 2);
    one.submit(sqe)
}

fn pair(host: &mut Host, nsid: u32, slba: u64) -> [u16; 2] {
    let mut compare = block(NvmOpcode::Compare, nsid, slba);
    compare.cdw0.set_fuse(Fuse::First);
    let mut write = block(NvmOpcode::Write, nsid, slba);
    write.cdw0.set_fuse(Fuse::Second);
    [host.push(compare), host.push(write)]
}

/// Deallocates so many ranges of one block.
fn discard(host: &mut Host, nsid: u32, ranges: u32) -> u16 {
    let list: Vec<u8> = (0..ranges)
        .flat_map(|at| [[0; 4], 1u32.to_le_bytes(), (at * 2).to_le_bytes(), [0; 4]].concat())
        .collect();
    host.guest.memory.write_bytes((DATA + 0x2000) as usize, &list).unwrap();
    let mut sqe = Sqe::new(NvmOpcode::DatasetManagement, 0, nsid).with_cdw10(ranges - 1).with_cdw11(4);
    sqe.prp1 = IOVA + DATA + 0x2000;
    host.push(sqe)
}

/// Asserts that a Preempt and Abort of `one` has not completed, after everything that can go on has gone on: the
/// subsystem has told the worker of `two`, this one has looked at its commands, and what it told has been heard.
#[track_caller]
fn assert_waits(one: &mut Host, two: &mut Host, cid: u16) {
    one.report(1);
    two.ok(block(NvmOpcode::Read, 3, 0));
    one.report(1);
    assert_eq!(one.poll(cid), None);
}

#[test]
fn whatever_the_loser_has_on_its_way_has_ended_before_preempt_and_abort_completes() {
    for workers in [1, 2, 4] {
        let (_cluster, [gate, other], [mut one, mut two, mut three]) = contended(workers);
        // Nine operations in the backend (five ranges at first); the rest waits in the worker.
        gate.close_with_room(9);
        other.close();
        let elsewhere = two.submit(block(NvmOpcode::Write, 2, 0));
        other.wait_held(1);
        let mut lost = vec![two.push(block(NvmOpcode::Read, 1, 0)), two.push(block(NvmOpcode::Write, 1, 0))];
        lost.push(two.push(block(NvmOpcode::WriteZeroes, 1, 9)));
        let fused = pair(&mut two, 1, 4);
        lost.push(discard(&mut two, 1, 256));
        lost.push(two.push(block(NvmOpcode::Compare, 1, 1)));
        two.ring();
        gate.wait_held(9);
        let innocent = three.submit(block(NvmOpcode::Read, 2, 0));
        other.wait_held(2);
        let cid = preempt_and_abort(&mut one);
        assert!(one.wait(cid).is_success());
        for cid in lost {
            let status = two.poll(cid).expect("it has completed");
            assert!(status.is(Status::ABORTED_PREEMPT_AND_ABORT), "{status}");
        }
        let statuses = fused.map(|cid| two.poll(cid).expect("it has completed").code());
        assert_eq!(statuses, [Status::ABORTED_PREEMPT_AND_ABORT, Status::ABORTED_FAILED_FUSED]);
        gate.wait_held(0);
        // What others do, and what is done elsewhere, goes on.
        other.wait_held(2);
        assert_eq!((two.poll(elsewhere), three.poll(innocent)), (None, None));
        other.open();
        assert!(two.wait(elsewhere).is_success() && three.wait(innocent).is_success());
        assert_eq!(one.report(1).hosts(), [1]);
    }
}

#[test]
fn what_cannot_be_aborted_is_waited_for() {
    for workers in [1, 2] {
        let (_cluster, [gate, _], [mut one, mut two, _]) = contended(workers);
        one.take(1, WriteExclusive, 1);
        gate.close_for_good();
        let lost = two.submit(block(NvmOpcode::Read, 1, 0));
        gate.wait_held(1);
        let cid = preempt_and_abort(&mut one);
        assert_waits(&mut one, &mut two, cid);
        // It is preempted already, and the event says so.
        two.refused(block(NvmOpcode::Write, 1, 0), Status::RESERVATION_CONFLICT);
        gate.open();
        assert!(one.wait(cid).is_success());
        assert!(two.poll(lost).expect("it has completed").is_success());
    }
}

#[test]
fn a_flush_of_all_is_waited_for_also_when_another_namespace_keeps_it() {
    let (_cluster, [gate, other], [mut one, mut two, _]) = contended(2);
    gate.close();
    other.close_with_room(0);
    let lost = two.submit(flush(NSID_ALL));
    gate.wait_held(1);
    let cid = preempt_and_abort(&mut one);
    assert_waits(&mut one, &mut two, cid);
    gate.open();
    other.open();
    assert!(one.wait(cid).is_success());
    assert!(two.poll(lost).expect("it has completed").is_success());
}

#[test]
fn a_pair_that_waits_for_blocks_of_another_namespace_is_none_of_it() {
    for workers in [1, 2] {
        let (_cluster, [_, other], [mut one, mut two, mut three]) = contended(workers);
        other.close();
        let first = pair(&mut three, 2, 0);
        three.ring();
        other.wait_held(1);
        // The blocks are taken.
        let second = pair(&mut two, 2, 0);
        two.ring();
        two.ok(block(NvmOpcode::Read, 3, 0));
        let cid = preempt_and_abort(&mut one);
        assert!(one.wait(cid).is_success());
        other.open();
        assert_eq!(first.map(|cid| three.wait(cid)), [Status::SUCCESS; 2]);
        assert_eq!(second.map(|cid| two.wait(cid)), [Status::SUCCESS; 2]);
    }
}

#[test]
fn a_loser_that_resets_or_leaves_is_waited_for_too() {
    for leaves in [false, true] {
        let (cluster, [gate, _], [mut one, mut two, mut three]) = contended(2);
        gate.close_for_good();
        two.submit(block(NvmOpcode::Write, 1, 0));
        gate.wait_held(1);
        let rest = if leaves {
            drop(two);
            None
        } else {
            two.guest.set32(registers::CC, Guest::cc().with_en(false).into_bits());
            Some(two)
        };
        // The control thread has heard of it.
        three.guest.assert_alive();
        let cid = preempt_and_abort(&mut one);
        assert_waits(&mut one, &mut three, cid);
        gate.open();
        assert!(one.wait(cid).is_success());
        gate.wait_held(0);
        let mut two = rest.unwrap_or_else(|| {
            common::wait_for("the loser has left", || !cluster.target.is_attached(cluster.ids[1]).unwrap());
            cluster.attach(1)
        });
        two.restart();
        two.ok(block(NvmOpcode::Read, 1, 0));
    }
}

#[test]
fn a_loser_whose_controller_is_removed_is_waited_for_too() {
    let (cluster, [gate, _], [mut one, mut two, mut three]) = contended(2);
    gate.close_for_good();
    two.submit(block(NvmOpcode::Write, 1, 0));
    gate.wait_held(1);
    // It is given some time for its commands, and removed all the same.
    cluster.target.close(cluster.ids[1]).unwrap();
    let cid = preempt_and_abort(&mut one);
    assert_waits(&mut one, &mut three, cid);
    gate.open();
    assert!(one.wait(cid).is_success());
    gate.wait_held(0);
}

#[test]
fn a_loser_whose_memory_goes_away_keeps_nobody_waiting() {
    let (_cluster, [gate, _], [mut one, mut two, _]) = contended(2);
    gate.close();
    two.submit(block(NvmOpcode::Write, 1, 0));
    gate.wait_held(1);
    let cid = preempt_and_abort(&mut one);
    two.guest.unmap();
    assert!(one.wait(cid).is_success());
    gate.wait_held(0);
    two.guest.map();
    two.guest.assert_alive();
}

#[test]
fn the_one_who_preempts_may_abort_reset_and_leave_meanwhile() {
    for way in 0..4 {
        let (cluster, [gate, _], [mut one, mut two, mut three]) = contended(2);
        gate.close_for_good();
        let lost = two.submit(block(NvmOpcode::Read, 1, 0));
        gate.wait_held(1);
        let cid = preempt_and_abort(&mut one);
        assert_waits(&mut one, &mut two, cid);
        match way {
            0 => {
                let abort = AbortCdw10::new().with_sqid(1).with_cid(cid).into_bits();
                assert_eq!(one.guest.ok(Sqe::new(AdminOpcode::Abort, 0, 0).with_cdw10(abort)).dw0, 0);
                assert!(one.wait(cid).is(Status::ABORT_REQUESTED));
            }
            1 => {
                one.guest.ok(Guest::delete(AdminOpcode::DeleteIoSq, 1));
                assert!(one.wait(cid).is(Status::ABORTED_SQ_DELETION));
            }
            2 => one.restart(),
            _ => {
                drop(one);
                cluster.target.close(cluster.ids[0]).unwrap();
            }
        }
        // It is done, whoever hears of it.
        assert_eq!(three.report(1).hosts(), [1]);
        gate.open();
        assert!(two.wait(lost).is_success());
        let sqe = two.register(1, RegisterAction::Register, 0, 2);
        two.ok(sqe);
    }
}

#[test]
fn only_so_many_preempts_wait_for_one_command_and_the_rest_may_come_again() {
    let (_cluster, [gate, _], [mut one, mut two, _]) = contended(2);
    gate.close_for_good();
    let lost = two.submit(block(NvmOpcode::Read, 1, 0));
    gate.wait_held(1);
    let waiting: Vec<u16> = (0..16)
        .map(|_| {
            let cid = preempt_and_abort(&mut one);
            // Behind it.
            one.report(1);
            two.join(1, 2);
            cid
        })
        .collect();
    let cid = preempt_and_abort(&mut one);
    let refused = one.wait(cid);
    assert!(refused.is(Status::INTERNAL_ERROR) && !refused.dnr(), "{refused}");
    assert_eq!(one.report(1).hosts(), [1, 2], "nothing has changed");
    // Nobody else is kept from anything.
    two.join(3, 2);
    gate.open();
    assert!(two.wait(lost).is_success());
    assert!(waiting.into_iter().all(|cid| one.wait(cid).is_success()));
    let cid = preempt_and_abort(&mut one);
    assert!(one.wait(cid).is_success());
}

/// A small generator: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

const BLOCKS: u64 = 16;

/// One block, stamped with the number of a host.
fn write_of(host: &mut Host, number: u8, slba: u64) -> Sqe {
    let at = DATA + u64::from(number) * 512;
    host.guest.memory.fill(at as usize, 512, number).unwrap();
    let mut sqe = block(NvmOpcode::Write, 1, slba);
    sqe.prp1 = IOVA + at;
    sqe
}

/// Writes all blocks and asserts that they stay as they are.
fn own_all(host: &mut Host, number: u8) {
    let cids: Vec<u16> = (0..BLOCKS)
        .map(|slba| {
            let sqe = write_of(host, number, slba);
            host.push(sqe)
        })
        .collect();
    host.ring();
    assert!(cids.into_iter().all(|cid| host.wait(cid).is_success()), "the holder writes");
    for _ in 0..4 {
        let mut sqe = block(NvmOpcode::Read, 1, 0);
        sqe.cdw12 = BLOCKS as u32 - 1;
        (sqe.prp1, sqe.prp2) = (IOVA + DATA + 0x4000, IOVA + DATA + 0x5000);
        host.ok(sqe);
        let stamps: HashSet<u8> = host.data(DATA + 0x4000, BLOCKS as usize * 512).into_iter().collect();
        assert_eq!(stamps, HashSet::from([number]), "a host that has lost has written");
    }
}

/// Hosts take the reservation from one another while all of them write all the time.
fn take_turns(workers: u16, seed: u64, action: AcquireAction) {
    const HOSTS: u8 = 3;
    const TURNS: u64 = 24;
    let cluster = Cluster::new(workers, vec![namespace(ram(MIB), 512)], &[1, 2, 3]);
    let mut hosts = cluster.attach_all();
    hosts[0].join(1, 1);
    hosts[0].take(1, WriteExclusive, 1);
    // Whose it is, and whose turn it is to take it.
    let holder = Mutex::new(1u8);
    // Odd while it changes; else twice the number of changes so far, and in the upper half who holds it.
    let epoch = AtomicU64::new(1 << 32);
    std::thread::scope(|scope| {
        let threads = (1..=HOSTS).zip(hosts).map(|(number, mut host)| {
            let (holder, epoch) = (&holder, &epoch);
            scope.spawn(move || {
                let mut random = Random(seed + u64::from(number));
                let deadline = Instant::now() + LIMIT;
                while epoch.load(Ordering::SeqCst) as u32 / 2 < TURNS as u32 {
                    assert!(Instant::now() < deadline, "it takes too long");
                    let turn = (random.below(4) == 0).then(|| holder.try_lock().ok()).flatten();
                    if let Some(mut holder) = turn {
                        if *holder != number {
                            let before = epoch.fetch_add(1, Ordering::SeqCst) as u32;
                            host.join(1, number.into());
                            let sqe =
                                host.acquire(1, action, WriteExclusive, number.into(), (*holder).into());
                            host.ok(sqe);
                            *holder = number;
                            epoch.store(u64::from(number) << 32 | u64::from(before + 2), Ordering::SeqCst);
                        }
                        if action == AcquireAction::PreemptAndAbort {
                            own_all(&mut host, number);
                        }
                        continue;
                    }
                    let before = epoch.load(Ordering::SeqCst);
                    let cids: Vec<u16> = (0..1 + random.below(16))
                        .map(|_| {
                            let sqe = write_of(&mut host, number, random.below(BLOCKS));
                            host.push(sqe)
                        })
                        .collect();
                    host.ring();
                    let statuses: Vec<Status> = cids.into_iter().map(|cid| host.wait(cid)).collect();
                    let settled = before & 1 == 0 && epoch.load(Ordering::SeqCst) == before;
                    for status in statuses {
                        let told = status.is_success()
                            || status.is(Status::RESERVATION_CONFLICT)
                            || status.is(Status::ABORTED_PREEMPT_AND_ABORT);
                        assert!(told, "{status}");
                        let may = before >> 32 == u64::from(number);
                        assert!(!settled || status.is_success() == may, "{status}, for {may}");
                    }
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        // The end of the scope would wait as well, where ThreadSanitizer does not see it.
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_host_that_has_lost_never_writes_after_preempt_and_abort() {
    for (workers, seed) in [(1, 0x5eed1), (2, 0x5eed2), (4, 0x5eed3)] {
        take_turns(workers, seed, AcquireAction::PreemptAndAbort);
    }
}

#[test]
fn what_is_submitted_after_preempt_has_completed_meets_it_and_the_winner_meets_none() {
    for (workers, seed) in [(1, 0x5eed4), (2, 0x5eed5), (4, 0x5eed6)] {
        take_turns(workers, seed, AcquireAction::Preempt);
    }
}

#[test]
fn the_losers_queues_move_between_workers_meanwhile() {
    // What the loser keeps two queues busy with.
    let (backend, workers) =
        Laborious::new(MIB, |op| matches!(op, Op::Write { data, .. } if data.len() > 512));
    let mut cluster = Cluster::new(2, vec![namespace(backend, 512)], &[1, 2]);
    let busy = cluster.listen(2, |config| config.doorbells = DoorbellMode::Trapped);
    let [mut one, mut two] = [cluster.attach(0), cluster.attach(1)];
    let mut busy = cluster.attach(busy);
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    one.join(1, 1);
    // There may be one alone (`make modes`).
    let there = usize::from(workers_as_wanted(2).workers.min(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Every other queue begins on the same worker.
            let mut rings = [busy.ring.clone(), busy.guest.create_pair(3)];
            let mut outstanding = [0u16; 2];
            busy.guest.memory.fill(DATA as usize, 8192, 2).unwrap();
            let mut sqe = block(NvmOpcode::Write, 1, 0);
            sqe.cdw12 = BLOCKS as u32 - 1;
            sqe.prp2 = IOVA + DATA + 4096;
            while !stop.load(Ordering::Relaxed) {
                for (ring, outstanding) in rings.iter_mut().zip(&mut outstanding) {
                    while *outstanding < 16 {
                        sqe.cdw0.set_cid(*outstanding);
                        busy.guest.push(ring, &sqe);
                        *outstanding += 1;
                    }
                    busy.guest.ring_tail(ring);
                    while let Some(cqe) = busy.guest.take(ring) {
                        *outstanding -= 1;
                        served.fetch_add(u64::from(cqe.status().is_success()), Ordering::Relaxed);
                    }
                }
            }
        });
        let _stopper = Stopper(&stop);
        let deadline = Instant::now() + LIMIT;
        let mut after = 0;
        while after < 10 {
            two.join(1, 2);
            one.take(1, WriteExclusive, 1);
            let cid = preempt_and_abort(&mut one);
            assert!(one.wait(cid).is_success());
            // What the loser had on its way when it lost has ended; this would be written over by it.
            own_all(&mut one, 1);
            let sqe = one.release(1, ReleaseAction::Release, WriteExclusive, 1);
            one.ok(sqe);
            after += u32::from(workers.lock().unwrap().len() >= there);
            assert!(Instant::now() < deadline, "the queues stay with one worker");
            // The loser has to be at work to be worth a move.
            let before = served.load(Ordering::Relaxed);
            common::wait_for("work", || served.load(Ordering::Relaxed) > before + 100);
        }
    });
}
