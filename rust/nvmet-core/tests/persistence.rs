//! What reservations and their commands leave behind: in the state file, over a restart, and after a reset.

mod common;

use common::cluster::{Cluster, Host, Report, block, hostid};
use common::gate::Gate;
use common::{namespace, ram};
use nvmet_core::namespace::{NamespaceConfig, StateFile};
use nvmet_core::subsystem::{Job, Reply, Wish};
use nvmet_host::SqeExt;
use nvmet_spec::command::{AbortCdw10, AdminOpcode, NSID_ALL, NvmOpcode, Sqe};
use nvmet_spec::feature::FeatureId;
use nvmet_spec::reservation::{AcquireAction, ChangePtpl, RegisterAction, ReleaseAction, ReservationType};
use nvmet_spec::status::Status;

use AcquireAction::Acquire;
use RegisterAction::{Register, Replace};
use ReservationType::{ExclusiveAccess, WriteExclusive};

const MIB: u64 = 1 << 20;

fn drive() -> NamespaceConfig {
    namespace(ram(MIB), 512)
}

fn with_state(directory: &tempfile::TempDir) -> NamespaceConfig {
    let state = StateFile { path: directory.path().join("state"), discard: false };
    NamespaceConfig { state: Some(state), ..drive() }
}

#[test]
fn persistence_is_by_namespace_or_for_all_that_the_host_sees() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| Some(StateFile { path: directory.path().join(name), discard: false });
    let hidden = NamespaceConfig {
        state: file("c"),
        hosts: Some(vec![common::cluster::hostnqn(2)].into()),
        ..drive()
    };
    let namespaces = vec![
        NamespaceConfig { state: file("a"), ..drive() },
        NamespaceConfig { state: file("b"), ..drive() },
        hidden,
        drive(),
    ];
    let cluster = Cluster::new(2, namespaces, &[1, 2]);
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    let ptpl = |host: &mut Host, nsid| host.get_feature(FeatureId::ReservationPersistence, nsid).dw0;
    assert!(one.set_feature(FeatureId::ReservationPersistence, 1, 1).is_success());
    assert_eq!([1, 2].map(|nsid| ptpl(&mut two, nsid)), [1, 0]);
    assert_eq!(two.report(1).ptpls, 1);
    let refused = one.set_feature(FeatureId::ReservationPersistence, 4, 1);
    assert_eq!(refused.code(), Status::INVALID_FIELD, "there is no file");
    let refused = one.set_feature(FeatureId::ReservationPersistence, 3, 1);
    assert_eq!(refused.code(), Status::INVALID_FIELD, "it does not see it");
    // All: not what is another host's.
    assert!(one.set_feature(FeatureId::ReservationPersistence, NSID_ALL, 1).is_success());
    assert_eq!([1, 2, 3, 4].map(|nsid| ptpl(&mut two, nsid)), [1, 1, 0, 0]);
    assert!(two.set_feature(FeatureId::ReservationPersistence, NSID_ALL, 1).is_success());
    assert!(one.set_feature(FeatureId::ReservationPersistence, NSID_ALL, 0).is_success());
    assert_eq!([1, 2, 3, 4].map(|nsid| ptpl(&mut two, nsid)), [0, 0, 1, 0]);
}

#[test]
fn reservations_that_persist_are_there_after_a_restart_and_the_others_are_not() {
    let directory = tempfile::tempdir().unwrap();
    for persist in [true, false] {
        let cptpl = if persist { ChangePtpl::Set } else { ChangePtpl::Clear };
        let cluster = Cluster::new(1, vec![with_state(&directory)], &[1, 2]);
        let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
        // From the round before.
        let sqe = two.release(1, ReleaseAction::Clear, WriteExclusive, 2);
        two.io(sqe);
        let sqe = one.register_ptpl(1, Register, 0, 1, cptpl);
        one.ok(sqe);
        two.join(1, 2);
        one.take(1, ExclusiveAccess, 1);
        let before = one.report(1);
        // As it is, with hosts that work: the power fails.
        drop((one, two));
        drop(cluster);
        let cluster = Cluster::new(1, vec![with_state(&directory)], &[2, 1]);
        let [mut two, mut one] = cluster.attach_all().try_into().ok().unwrap();
        let after = one.report(1);
        if persist {
            assert_eq!((after.generation, after.rtype, after.hosts()), (before.generation, 2, vec![1, 2]));
            two.refused(block(NvmOpcode::Read, 1, 0), Status::RESERVATION_CONFLICT);
        } else {
            assert_eq!(after, Report { generation: 0, rtype: 0, ptpls: 0, controllers: Vec::new() });
            two.ok(block(NvmOpcode::Write, 1, 0));
        }
    }
}

#[test]
fn a_state_file_that_cannot_be_written_fails_the_command_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(2, vec![with_state(&directory)], &[1, 2]);
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    let sqe = one.register_ptpl(1, Register, 0, 1, ChangePtpl::Set);
    one.ok(sqe);
    let request = two.event_request();
    let before = one.report(1);
    std::fs::remove_dir_all(directory.path()).unwrap();
    let all = [
        one.register(1, Replace, 1, 7),
        one.acquire(1, Acquire, ExclusiveAccess, 1, 0),
        one.release(1, ReleaseAction::Clear, WriteExclusive, 1),
    ];
    for sqe in all {
        one.refused(sqe, Status::INTERNAL_ERROR);
    }
    let sqe = two.register(1, Register, 0, 2);
    two.refused(sqe, Status::INTERNAL_ERROR);
    assert_eq!(one.set_feature(FeatureId::NamespaceWriteProtection, 1, 1).code(), Status::INTERNAL_ERROR);
    assert!(cluster.subsystem.clear_reservation(1, common::guest::LIMIT).is_err());
    assert_eq!(one.report(1), before);
    two.assert_no_event(request);
    two.ok(block(NvmOpcode::Write, 1, 0));
}

#[test]
fn a_target_that_goes_takes_its_threads_and_locks_along() {
    let resv_threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
        };
        tasks.map(name).filter(|name| name.trim() == "nvmet-resv").count()
    };
    let directory = tempfile::tempdir().unwrap();
    let gate = Gate::new(MIB);
    for round in 0..3u64 {
        let config = NamespaceConfig {
            state: Some(StateFile { path: directory.path().join("state"), discard: false }),
            ..namespace(gate.clone(), 512)
        };
        let cluster = Cluster::new(2, vec![config], &[1]);
        let mut host = cluster.attach(0);
        let sqe = host.register_ptpl(
            1,
            if round == 0 { Register } else { Replace },
            round,
            round + 1,
            ChangePtpl::Set,
        );
        host.ok(sqe);
        assert!(host.set_feature(FeatureId::NamespaceWriteProtection, 1, 1).is_success());
        assert!(host.set_feature(FeatureId::NamespaceWriteProtection, 1, 0).is_success());
        // The next round uses the file at once.
        drop(cluster);
        gate.wait_queues(0);
        assert_eq!(std::sync::Arc::strong_count(&gate), 1, "round {round}");
    }
    common::wait_for("the threads", || resv_threads() == 0);
}

#[test]
fn what_was_not_begun_when_its_host_aborted_it_or_reset_is_not_done() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(2, vec![with_state(&directory)], &[1, 2]);
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    for aborts in [true, false] {
        // The subsystem has something else to do.
        let (busy, begun) = std::sync::mpsc::channel();
        let (go_on, told) = std::sync::mpsc::channel::<()>();
        let reply = Reply::new(move |_| {
            busy.send(()).unwrap();
            told.recv().unwrap();
        });
        let wish = Wish::Report(true);
        cluster.subsystem.submit(Job { nsid: 1, id: None, host: hostid(2), wish, wanted: None, reply });
        begun.recv().unwrap();
        let sqe = one.register(1, Register, 0, 1);
        let cid = one.submit(sqe);
        one.ok(block(NvmOpcode::Read, 1, 0));
        if aborts {
            let abort = AbortCdw10::new().with_sqid(1).with_cid(cid).into_bits();
            assert_eq!(one.guest.ok(Sqe::new(AdminOpcode::Abort, 0, 0).with_cdw10(abort)).dw0, 0);
            assert!(one.wait(cid).is(Status::ABORT_REQUESTED));
        } else {
            one.guest.submit_admin(Host::set_feature_sqe(FeatureId::NamespaceWriteProtection, 1, 1));
            one.guest.submit_admin(Host::set_feature_sqe(FeatureId::ReservationPersistence, 1, 1));
            one.guest.assert_alive();
            one.restart();
        }
        go_on.send(()).unwrap();
        assert_eq!(two.report(1), Report { generation: 0, rtype: 0, ptpls: 0, controllers: Vec::new() });
        two.ok(block(NvmOpcode::Write, 1, 0));
    }
}
