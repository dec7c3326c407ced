//! What changes about namespaces that several hosts use, and what one host can do to another by it.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::cluster::{Cluster, Host, block, hostnqn};
use common::gate::{Gate, SYNC_PANICS, SYNC_WAITS, SYNC_WORKS};
use common::guest::{DATA, IOVA, LIMIT};
use common::{Stopper, namespace, ram};
use nvmet_block::Backend;
use nvmet_core::namespace::{NamespaceConfig, StateFile};
use nvmet_core::subsystem::ana::AnaState;
use nvmet_host::SqeExt;
use nvmet_spec::command::{AdminOpcode, Fuse, GetLogPageCdw10, IdentifyCdw10, NSID_ALL, NvmOpcode, Sqe};
use nvmet_spec::feature::FeatureId;
use nvmet_spec::reservation::{AcquireAction, RegisterAction, ReservationType};
use nvmet_spec::status::Status;

const MIB: u64 = 1 << 20;
const NAMESPACE_CHANGED: (u8, u8, u8) = (2, 0, 4);
const PROTECTION: FeatureId = FeatureId::NamespaceWriteProtection;

fn drives(count: usize) -> Vec<NamespaceConfig> {
    (0..count).map(|_| namespace(ram(MIB), 512)).collect()
}

/// NSIDs in the Changed Namespace List, which is cleared.
fn changed(host: &mut Host) -> Vec<u32> {
    nsids(&host.log(4, NSID_ALL, 4096))
}

/// The active NSIDs.
fn active(host: &mut Host) -> Vec<u32> {
    nsids(&host.identify(2, 0))
}

fn nsids(page: &[u8]) -> Vec<u32> {
    let list = page.chunks(4).map(|entry| u32::from_le_bytes(entry.try_into().unwrap()));
    list.take_while(|&nsid| nsid != 0).collect()
}

#[test]
fn a_namespace_is_disabled_with_its_commands_drained_and_comes_back() {
    for workers in [1, 2, 4] {
        let gate = Gate::new(MIB);
        let cluster = Cluster::new(workers, vec![namespace(gate.clone(), 512)], &[1, 2]);
        let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
        one.listen();
        let request = one.event_request();
        gate.close();
        let cids = (one.submit(block(NvmOpcode::Write, 1, 0)), two.submit(block(NvmOpcode::Read, 1, 0)));
        gate.wait_held(2);
        cluster.subsystem.set_enabled(1, false).unwrap();
        assert_eq!(one.event(request), NAMESPACE_CHANGED);
        assert_eq!((changed(&mut one), active(&mut one)), (vec![1], vec![]));
        for host in [&mut one, &mut two] {
            host.refused(block(NvmOpcode::Read, 1, 0), Status::INVALID_FIELD);
        }
        // They have no time, and no way out but to be aborted.
        assert!(cluster.subsystem.drain(1, Duration::ZERO).is_ok());
        assert!(cluster.subsystem.drain(1, LIMIT / 8).is_ok());
        gate.wait_held(0);
        let statuses = [one.wait(cids.0), two.wait(cids.1)];
        let may_retry = |status: &Status| status.is(Status::NAMESPACE_NOT_READY) && !status.dnr();
        assert!(statuses.iter().all(may_retry), "{statuses:?}");
        gate.open();
        let request = one.event_request();
        cluster.subsystem.set_enabled(1, true).unwrap();
        assert_eq!(one.event(request), NAMESPACE_CHANGED);
        assert_eq!((changed(&mut one), active(&mut one)), (vec![1], vec![1]));
        two.ok(block(NvmOpcode::Read, 1, 0));
        // Those that end by themselves end well.
        gate.close();
        let cid = one.submit(block(NvmOpcode::Write, 1, 0));
        gate.wait_held(1);
        cluster.subsystem.set_enabled(1, false).unwrap();
        let (subsystem, opened) = (Arc::clone(&cluster.subsystem), Arc::clone(&gate));
        let drain = std::thread::spawn(move || subsystem.drain(1, LIMIT).unwrap());
        opened.open();
        assert!(drain.join().unwrap());
        assert!(one.wait(cid).is_success());
    }
}

#[test]
fn a_drain_says_when_a_backend_does_not_let_go() {
    let gate = Gate::new(MIB);
    let cluster = Cluster::new(2, vec![namespace(gate.clone(), 512)], &[1]);
    let mut host = cluster.attach(0);
    gate.close_for_good();
    let cid = host.submit(block(NvmOpcode::Write, 1, 0));
    gate.wait_held(1);
    cluster.subsystem.set_enabled(1, false).unwrap();
    assert!(!cluster.subsystem.drain(1, Duration::from_millis(1)).unwrap());
    gate.open();
    assert!(host.wait(cid).is_success());
    assert!(cluster.subsystem.drain(1, LIMIT).unwrap());
    assert!(cluster.subsystem.drain(2, LIMIT).is_err());
}

#[test]
fn a_removed_namespace_is_waited_for_in_all_of_its_sizes_and_leaves_its_files_free() {
    let directory = tempfile::tempdir().unwrap();
    let gate = Gate::new(2 * MIB);
    let config = || NamespaceConfig {
        state: Some(StateFile { path: directory.path().join("state"), discard: false }),
        ..namespace(gate.clone(), 512)
    };
    let cluster = Cluster::new(2, vec![config()], &[1, 2]);
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    gate.close();
    let cid = one.submit(block(NvmOpcode::Read, 1, 0));
    gate.wait_held(1);
    let backend: Arc<dyn Backend> = gate.clone();
    cluster.target.resize(&backend, Some(MIB)).unwrap();
    drop(backend);
    // The old size has a command, the new one is let go of by everybody.
    assert!(!cluster.subsystem.remove_and_wait(1, Duration::from_millis(5)).unwrap());
    for host in [&mut one, &mut two] {
        host.refused(block(NvmOpcode::Read, 1, 0), Status::INVALID_FIELD);
    }
    gate.open();
    assert!(one.wait(cid).is_success());
    for round in 0..20 {
        common::wait_for("the state file is free", || {
            round > 0 || cluster.subsystem.add_namespace(config()).is_ok()
        });
        if round > 0 {
            // This time at once.
            cluster.subsystem.add_namespace(config()).unwrap();
        }
        two.ok(block(NvmOpcode::Read, 1, 0));
        assert!(cluster.subsystem.remove_and_wait(1, LIMIT).unwrap());
        gate.wait_queues(0);
    }
    assert!(cluster.subsystem.remove_and_wait(1, LIMIT).is_err());
}

#[test]
fn a_namespace_of_another_host_is_nowhere_to_be_seen() {
    for workers in [1, 2] {
        let mut namespaces = drives(2);
        namespaces[1].hosts = Some(vec![hostnqn(2)].into());
        let cluster = Cluster::new(workers, namespaces, &[1, 2]);
        let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
        one.listen();
        let request = one.event_request();
        assert_eq!((active(&mut one), active(&mut two)), (vec![1], vec![1, 2]));
        // As a namespace that there is not.
        for cns in [0, 8] {
            assert!(one.identify(cns, 2).iter().all(|&byte| byte == 0), "{cns}");
        }
        let identify = |cns| {
            let mut sqe = Sqe::new(AdminOpcode::Identify, 0, 2)
                .with_cdw10(IdentifyCdw10::new().with_cns(cns).into_bits());
            sqe.prp1 = IOVA + DATA;
            sqe
        };
        one.guest.refused(identify(3), Status::INVALID_NAMESPACE_OR_FORMAT);
        one.guest.refused(identify(0x12), Status::INVALID_FIELD);
        for fid in [FeatureId::ReservationNotificationMask, FeatureId::ReservationPersistence, PROTECTION] {
            assert!(one.get_feature(fid, 2).status().is(Status::INVALID_FIELD), "{fid:?}");
            assert!(one.set_feature(fid, 2, 0).is(Status::INVALID_FIELD), "{fid:?}");
        }
        one.guest.refused(Host::log_sqe(2, 0, 2, 0, 512, true), Status::INVALID_FIELD);
        let register = one.register(2, RegisterAction::Register, 0, 1);
        for sqe in [
            block(NvmOpcode::Read, 2, 0),
            block(NvmOpcode::Write, 2, 0),
            common::cluster::flush(2),
            register,
            Host::report_sqe(2, true, 16),
        ] {
            one.refused(sqe, Status::INVALID_FIELD);
        }
        let page = one.log(0x0c, 0, 64);
        assert_eq!((page[8], page[20], page[48]), (1, 1, 1), "one group with one namespace: 1");
        // What happens to it is no news: size and protection, reservations, another one in its place.
        two.join(2, 2);
        cluster.subsystem.protect(2, true).unwrap();
        cluster.subsystem.set_enabled(2, false).unwrap();
        cluster.subsystem.set_enabled(2, true).unwrap();
        cluster.subsystem.clear_reservation(2, LIMIT).unwrap();
        one.assert_no_event(request);
        assert!(changed(&mut one).is_empty());
        // Attached, and taken away again, with what it has of it.
        cluster.subsystem.attach_to(2, Some(vec![hostnqn(1)].into())).unwrap();
        assert_eq!(one.event(request), NAMESPACE_CHANGED);
        assert_eq!((changed(&mut one), active(&mut one), active(&mut two)), (vec![2], vec![1, 2], vec![1]));
        one.ok(block(NvmOpcode::Read, 2, 0));
        two.refused(block(NvmOpcode::Read, 2, 0), Status::INVALID_FIELD);
        cluster.subsystem.protect(2, false).unwrap();
        one.join(2, 1);
        one.take(2, ReservationType::ExclusiveAccess, 1);
        cluster.subsystem.attach_to(2, Some([].into())).unwrap();
        assert_eq!((active(&mut one), active(&mut two)), (vec![1], vec![1]));
        cluster.subsystem.attach_to(2, None).unwrap();
        two.refused(block(NvmOpcode::Read, 2, 0), Status::RESERVATION_CONFLICT);
        one.ok(block(NvmOpcode::Write, 2, 0));
        let controllers = |host: &mut Host, nsid| {
            let page = host.identify(0x12, nsid);
            (page[0], page[2], page[4])
        };
        assert_eq!(controllers(&mut two, 2), (2, 1, 2));
        cluster.subsystem.attach_to(2, Some(vec![hostnqn(2)].into())).unwrap();
        assert_eq!((controllers(&mut two, 2), controllers(&mut two, 1)), ((1, 2, 0), (2, 1, 2)));
    }
}

#[test]
fn one_host_protects_and_all_are_kept_from_writing() {
    for workers in [1, 2] {
        let cluster = Cluster::new(workers, drives(1), &[1, 2]);
        let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
        two.listen();
        let request = two.event_request();
        assert!(one.set_feature(PROTECTION, 1, 1).is_success());
        assert_eq!(two.get_feature(PROTECTION, 1).dw0, 1);
        for host in [&mut one, &mut two] {
            for opcode in [NvmOpcode::Write, NvmOpcode::WriteZeroes] {
                let status = host.io(block(opcode, 1, 0));
                assert!(status.is(Status::NAMESPACE_WRITE_PROTECTED) && status.dnr(), "{status}");
            }
            host.ok(block(NvmOpcode::Read, 1, 0));
            host.ok(common::cluster::flush(1));
            assert_eq!(host.identify(0, 1)[99] & 1, 1, "NSATTR");
        }
        assert_eq!(two.event(request), NAMESPACE_CHANGED);
        assert_eq!(changed(&mut two), [1]);
        assert!(two.set_feature(PROTECTION, 1, 0).is_success());
        one.ok(block(NvmOpcode::Write, 1, 0));
        // The operator's.
        cluster.subsystem.protect(1, true).unwrap();
        assert_eq!(one.get_feature(PROTECTION, 1).dw0, 1);
        for state in 0..3 {
            assert!(one.set_feature(PROTECTION, 1, state).is(Status::FEATURE_NOT_CHANGEABLE), "{state}");
        }
        two.refused(block(NvmOpcode::Write, 1, 0), Status::NAMESPACE_WRITE_PROTECTED);
        cluster.subsystem.protect(1, false).unwrap();
        two.ok(block(NvmOpcode::Write, 1, 0));
        for state in 3..8 {
            assert!(one.set_feature(PROTECTION, 1, state).is(Status::INVALID_FIELD), "{state}");
        }
        let sqe = Host::set_feature_sqe(PROTECTION, 1, 1);
        one.guest.refused(Sqe { cdw10: sqe.cdw10 | 1 << 31, ..sqe }, Status::FEATURE_NOT_SAVEABLE);
        assert!(one.set_feature(PROTECTION, NSID_ALL, 1).is(Status::INVALID_NAMESPACE_OR_FORMAT));
        // Until power cycle: nobody takes it back, and no reset does.
        assert!(one.set_feature(PROTECTION, 1, 2).is_success());
        assert!(one.set_feature(PROTECTION, 1, 2).is_success());
        for state in 0..2 {
            assert!(two.set_feature(PROTECTION, 1, state).is(Status::FEATURE_NOT_CHANGEABLE), "{state}");
        }
        one.restart();
        two.refused(block(NvmOpcode::Write, 1, 0), Status::NAMESPACE_WRITE_PROTECTED);
    }
}

#[test]
fn write_protection_is_there_after_a_restart_unless_it_was_until_power_cycle() {
    let directory = tempfile::tempdir().unwrap();
    for (state, after) in [(1, 1), (0, 0), (2, 0)] {
        let start = || {
            let state = Some(StateFile { path: directory.path().join("state"), discard: false });
            Cluster::new(1, vec![NamespaceConfig { state, ..namespace(ram(MIB), 512) }], &[1])
        };
        let cluster = start();
        let mut host = cluster.attach(0);
        assert!(host.set_feature(PROTECTION, 1, state).is_success());
        drop(host);
        drop(cluster);
        let cluster = start();
        let mut host = cluster.attach(0);
        assert_eq!(host.get_feature(PROTECTION, 1).dw0, after, "{state}");
        assert_eq!(host.io(block(NvmOpcode::Write, 1, 0)).is_success(), after == 0, "{state}");
    }
}

#[test]
fn protection_is_on_when_all_writes_that_came_before_are_on_the_medium() {
    for workers in [1, 2, 4] {
        let gate = Gate::new(MIB);
        let cluster = Cluster::new(workers, vec![namespace(gate.clone(), 512)], &[1, 2]);
        let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
        gate.close();
        let write = two.submit(block(NvmOpcode::Write, 1, 0));
        gate.wait_held(1);
        let cid = one.guest.submit_admin(Host::set_feature_sqe(PROTECTION, 1, 1));
        common::wait_for("it is protected", || {
            cluster.subsystem.namespaces().slot(1).unwrap().write_protected()
        });
        two.refused(block(NvmOpcode::Write, 1, 0), Status::NAMESPACE_WRITE_PROTECTED);
        one.guest.assert_alive();
        assert!(one.guest.poll_admin(cid).is_none());
        // It comes to the sync, which takes its time.
        gate.set_sync(SYNC_WAITS);
        gate.open();
        assert!(two.wait(write).is_success(), "it was not aborted");
        one.guest.assert_alive();
        assert!(one.guest.poll_admin(cid).is_none());
        gate.set_sync(SYNC_WORKS);
        assert!(one.guest.wait_admin(cid).status().is_success());
    }
}

#[test]
fn a_sync_that_hangs_or_panics_is_its_own_namespaces_trouble() {
    let gate = Gate::new(MIB);
    let cluster = Cluster::new(2, vec![namespace(gate.clone(), 512), namespace(ram(MIB), 512)], &[1, 2]);
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    gate.set_sync(SYNC_WAITS);
    let hangs: Vec<u16> =
        (0..16).map(|_| one.guest.submit_admin(Host::set_feature_sqe(PROTECTION, 1, 1))).collect();
    // The others' service goes on.
    two.join(1, 2);
    two.take(1, ReservationType::WriteExclusive, 2);
    two.join(2, 2);
    assert!(two.set_feature(PROTECTION, 2, 1).is_success());
    let refused = two.set_feature(PROTECTION, 1, 1);
    assert!(refused.is(Status::INTERNAL_ERROR) && !refused.dnr(), "{refused}: there are enough of them");
    one.guest.assert_alive();
    assert!(hangs.iter().all(|&cid| one.guest.poll_admin(cid).is_none()));
    gate.set_sync(SYNC_WORKS);
    assert!(hangs.iter().all(|&cid| one.guest.wait_admin(cid).status().is_success()));
    gate.set_sync(SYNC_PANICS);
    assert!(one.set_feature(PROTECTION, 1, 1).is(Status::WRITE_FAULT));
    gate.set_sync(SYNC_WORKS);
    assert!(one.set_feature(PROTECTION, 1, 0).is_success());
    two.ok(block(NvmOpcode::Write, 1, 0));
    // Nor does one that hangs keep its host from going.
    gate.set_sync(SYNC_WAITS);
    one.guest.submit_admin(Host::set_feature_sqe(PROTECTION, 1, 1));
    two.report(1);
    one.restart();
    drop(one);
    cluster.target.close(cluster.ids[0]).unwrap();
    two.report(1);
    gate.set_sync(SYNC_WORKS);
    drop(two);
    drop(cluster);
    gate.wait_queues(0);
    common::wait_for("the backend is let go", || Arc::strong_count(&gate) == 1);
}

#[test]
fn a_host_that_hears_nothing_is_safe_whatever_changes() {
    let cluster = Cluster::new(2, drives(1), &[1, 2]);
    let [mut deaf, mut two] = cluster.attach_all().try_into().ok().unwrap();
    two.listen();
    let request = two.event_request();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let cids: Vec<u16> = (1..5)
                    .flat_map(|nsid| [block(NvmOpcode::Read, nsid, 0), block(NvmOpcode::Write, nsid, 1)])
                    .map(|sqe| deaf.push(sqe))
                    .collect();
                deaf.ring();
                for cid in cids {
                    let status = deaf.wait(cid);
                    let expected = [
                        Status::INVALID_FIELD,
                        Status::NAMESPACE_WRITE_PROTECTED,
                        Status::ANA_TRANSITION,
                        Status::LBA_OUT_OF_RANGE,
                    ];
                    assert!(
                        status.is_success() || expected.iter().any(|&other| status.is(other)),
                        "{status}"
                    );
                }
            }
            deaf
        });
        let _stopper = Stopper(&stop);
        let subsystem = &cluster.subsystem;
        for round in 0..150 {
            subsystem.protect(1, round % 2 == 0).unwrap();
            let nsid = subsystem.add_namespace(namespace(ram(MIB), 512)).unwrap();
            subsystem
                .set_ana_state(1, 1, if round % 3 == 0 { AnaState::Change } else { AnaState::Optimized })
                .unwrap();
            subsystem.attach_to(nsid, (round % 5 == 0).then(|| vec![hostnqn(2)].into())).unwrap();
            subsystem.set_enabled(nsid, false).unwrap();
            subsystem.set_enabled(nsid, true).unwrap();
            if round % 4 != 3 {
                assert!(subsystem.remove_and_wait(nsid, LIMIT).unwrap(), "round {round}");
            }
            assert!(!load.is_finished());
        }
        stop.store(true, Ordering::Relaxed);
        let mut deaf = load.join().unwrap();
        cluster.subsystem.protect(1, false).unwrap();
        cluster.subsystem.set_ana_state(1, 1, AnaState::Optimized).unwrap();
        deaf.ok(block(NvmOpcode::Write, 1, 0));
        let list = changed(&mut deaf);
        assert!(list.len() >= 30 && list.is_sorted(), "{list:?}");
    });
    assert_eq!(two.event(request), NAMESPACE_CHANGED);
}

#[test]
fn more_changed_namespaces_than_the_list_can_name_are_all() {
    let cluster = Cluster::new(1, Vec::new(), &[1]);
    let mut host = cluster.attach(0);
    let backend = ram(MIB);
    for _ in 0..1024 {
        cluster.subsystem.add_namespace(NamespaceConfig::new(Arc::clone(&backend))).unwrap();
    }
    assert!(cluster.subsystem.add_namespace(NamespaceConfig::new(backend)).is_err());
    assert_eq!(active(&mut host).len(), 1024);
    assert_eq!(changed(&mut host).len(), 1024);
    host.ok(block(NvmOpcode::Read, 1024, 0));
    assert!(changed(&mut host).is_empty());
}

/// Commands that nobody sends who means well, from a generator that is the same in every run.
fn garbage(host: &mut Host, random: &mut u64) -> Sqe {
    let mut next = || {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *random
    };
    let opcode = [
        NvmOpcode::ReservationRegister,
        NvmOpcode::ReservationReport,
        NvmOpcode::ReservationAcquire,
        NvmOpcode::ReservationRelease,
    ][(next() % 4) as usize];
    let nsid = [1, 1, 1, 2, 0, NSID_ALL][(next() % 6) as usize];
    // Mostly such as are carried out.
    let cdw10 = if next() % 4 == 0 { next() as u32 } else { (next() & 0x70f) as u32 };
    let mut sqe = Sqe::new(opcode, 0, nsid).with_cdw10(cdw10).with_cdw11(next() as u32);
    (sqe.prp1, sqe.prp2) = match next() % 8 {
        0 => (next(), next()),
        _ => (host.keys(next() % 3, next() % 3), IOVA + DATA + 0x8000),
    };
    if next() % 16 == 0 {
        sqe.cdw0.set_fuse(if next() % 2 == 0 { Fuse::First } else { Fuse::Second });
    }
    sqe
}

#[test]
fn a_flood_of_reservation_commands_disturbs_neither_neighbours_nor_the_hosts_of_other_namespaces() {
    for workers in [1, 2] {
        let cluster = Cluster::new(workers, drives(2), &[1, 2, 3]);
        let [mut flooder, mut second, mut worker] = cluster.attach_all().try_into().ok().unwrap();
        let stop = AtomicBool::new(false);
        let flood = |host: &mut Host, seed: u64| {
            let (mut random, mut events) = (seed, 0);
            while !stop.load(Ordering::Relaxed) || events < 50 {
                let cids: Vec<u16> = (0..60)
                    .map(|_| {
                        let sqe = garbage(host, &mut random);
                        host.push(sqe)
                    })
                    .collect();
                host.ring();
                for cid in cids {
                    host.wait(cid);
                }
                host.set_feature(FeatureId::ReservationPersistence, NSID_ALL, (random % 2) as u32);
                host.set_feature(FeatureId::ReservationNotificationMask, NSID_ALL, random as u32);
                host.log(0x80, 0, 64);
                events += 1;
            }
        };
        std::thread::scope(|scope| {
            let threads =
                [scope.spawn(|| flood(&mut flooder, 0xbad1)), scope.spawn(|| flood(&mut second, 0xbad2))];
            let stopper = Stopper(&stop);
            for round in 0..100u64 {
                // Its own reservation, on a namespace that the others cannot take: they do not know its key.
                if round == 0 {
                    let sqe = worker.register(2, RegisterAction::Register, 0, 0xfeed_beef);
                    worker.ok(sqe);
                }
                worker.report(2);
                worker.io(block(NvmOpcode::Read, 2, round % 100));
                let sqe = worker.acquire(
                    2,
                    AcquireAction::Acquire,
                    ReservationType::WriteExclusive,
                    0xfeed_beef,
                    0,
                );
                worker.io(sqe);
                assert!(threads.iter().all(|thread| !thread.is_finished()), "round {round}");
            }
            drop(stopper);
            // The end of the scope would wait as well, where ThreadSanitizer does not see it.
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        for host in [&mut flooder, &mut second, &mut worker] {
            host.guest.assert_alive();
            host.report(1);
        }
        cluster.subsystem.clear_reservation(1, LIMIT).unwrap();
        cluster.subsystem.clear_reservation(2, LIMIT).unwrap();
        assert!(worker.report(2).hosts().is_empty());
        worker.ok(block(NvmOpcode::Write, 2, 0));
        let cdw10 = GetLogPageCdw10::new().with_lid(1).with_numdl(63).into_bits();
        let mut sqe = Sqe::new(AdminOpcode::GetLogPage, 0, NSID_ALL).with_cdw10(cdw10);
        sqe.prp1 = IOVA + DATA;
        flooder.guest.ok(sqe);
    }
}

#[test]
fn clients_that_come_and_go_all_the_time_disturb_nobody() {
    let cluster = Cluster::new(2, drives(1), &[1, 2]);
    let mut steady = cluster.attach(0);
    steady.join(1, 1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let restless = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) || rounds < 10 {
                let mut host = cluster.attach(1);
                for key in 0..4 {
                    let sqe = host.register(1, RegisterAction::Replace, key, key + 1);
                    host.push(sqe);
                }
                host.push(block(NvmOpcode::Write, 1, 0));
                host.ring();
                if rounds % 3 == 0 {
                    host.restart();
                }
                rounds += 1;
            }
        });
        let _stopper = Stopper(&stop);
        for round in 0..100 {
            steady.take(1, ReservationType::WriteExclusive, 1);
            steady.ok(block(NvmOpcode::Write, 1, round));
            assert!(!restless.is_finished());
        }
    });
    assert_eq!(steady.report(1).hosts(), [1]);
}
