//! Asymmetric Namespace Access: what each controller of a subsystem says and does (NVMe Base 2.0, 8.1).

mod common;

use common::cluster::{Cluster, Host, block, flush, hostnqn};
use common::gate::Gate;
use common::{namespace, ram};
use nvmet_core::namespace::NamespaceConfig;
use nvmet_core::subsystem::ana::AnaState;
use nvmet_spec::command::{AdminOpcode, NvmOpcode, Sqe};
use nvmet_spec::feature::FeatureId;
use nvmet_spec::reservation::RegisterAction;
use nvmet_spec::status::Status;

const MIB: u64 = 1 << 20;
const ANA_LOG: u8 = 0x0c;
const ANA_CHANGE: (u8, u8, u8) = (2, 3, ANA_LOG);
const NAMESPACE_CHANGED: (u8, u8, u8) = (2, 0, 4);

/// Namespaces in these groups.
fn groups(groups: &[u32]) -> Vec<NamespaceConfig> {
    let config = |&ana_group: &u32| NamespaceConfig { ana_group, ..namespace(ram(MIB), 512) };
    groups.iter().map(config).collect()
}

/// A group: identifier, state, change count, NSIDs.
type Group = (u32, u8, u64, Vec<u32>);

/// The header's change count, and each group.
fn log(host: &mut Host) -> (u64, Vec<Group>) {
    let page = host.log(ANA_LOG, 0, 1024);
    let dword = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
    let qword = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
    let mut at = 16;
    let descriptors = (0..page[8])
        .map(|_| {
            let nsids =
                (0..dword(at + 4) as usize).map(|index| dword(at + 32 + index * 4)).collect::<Vec<_>>();
            let descriptor = (dword(at), page[at + 16], qword(at + 8), nsids);
            at += 32 + descriptor.3.len() * 4;
            descriptor
        })
        .collect();
    (qword(0), descriptors)
}

#[test]
fn each_state_lets_commands_through_or_ends_them_with_its_status_on_this_controller_alone() {
    for workers in [1, 2] {
        let cluster = Cluster::new(workers, groups(&[1, 2]), &[1, 1]);
        let [mut here, mut there] = cluster.attach_all().try_into().ok().unwrap();
        for (state, refused) in [
            (AnaState::Inaccessible, Some(Status::ANA_INACCESSIBLE)),
            (AnaState::NonOptimized, None),
            (AnaState::PersistentLoss, Some(Status::ANA_PERSISTENT_LOSS)),
            (AnaState::Optimized, None),
            (AnaState::Change, Some(Status::ANA_TRANSITION)),
        ] {
            cluster.subsystem.set_ana_state(1, 1, state).unwrap();
            let register = here.register(1, RegisterAction::Register, 0, 1);
            let unregister = here.register(1, RegisterAction::Unregister, 1, 0);
            for sqe in [
                block(NvmOpcode::Read, 1, 0),
                block(NvmOpcode::Write, 1, 0),
                block(NvmOpcode::Compare, 1, 0),
                flush(1),
                register,
                Host::report_sqe(1, true, 16),
                unregister,
            ] {
                let status = here.io(sqe);
                assert_eq!(status.code(), refused.unwrap_or(Status::SUCCESS), "{state:?}");
                assert!(!status.dnr(), "{state:?}: another path, or a later time, may do");
            }
            there.ok(block(NvmOpcode::Write, 1, 0));
            // There is a namespace, whatever the state, but nothing in it.
            let capacity = |host: &mut Host| host.identify(0, 1)[..24].to_vec();
            let (mine, theirs) = (capacity(&mut here), capacity(&mut there));
            assert_eq!(mine[..16], theirs[..16]);
            assert_eq!(mine[16..] == [0; 8], refused.is_some(), "{state:?}: NUSE");
        }
        // Group 2 is inaccessible until somebody says something else.
        here.refused(block(NvmOpcode::Read, 2, 0), Status::ANA_INACCESSIBLE);
        cluster.subsystem.set_ana_state(2, 2, AnaState::Optimized).unwrap();
        here.refused(block(NvmOpcode::Read, 2, 0), Status::ANA_INACCESSIBLE);
        there.ok(block(NvmOpcode::Read, 2, 0));
    }
}

#[test]
fn commands_in_flight_end_well_and_those_that_waited_with_the_state() {
    let gate = Gate::new(MIB);
    let cluster = Cluster::new(2, vec![namespace(gate.clone(), 512)], &[1, 1]);
    let [mut here, mut there] = cluster.attach_all().try_into().ok().unwrap();
    gate.close_with_room(1);
    let running = here.submit(block(NvmOpcode::Write, 1, 0));
    gate.wait_held(1);
    let waiting = here.submit(block(NvmOpcode::Write, 1, 1));
    cluster.subsystem.set_ana_state(1, 1, AnaState::Inaccessible).unwrap();
    here.refused(block(NvmOpcode::Write, 1, 2), Status::ANA_INACCESSIBLE);
    let failed = here.wait(waiting);
    assert!(failed.is(Status::ANA_INACCESSIBLE) && !failed.dnr(), "{failed}");
    gate.open();
    assert!(here.wait(running).is_success());
    there.ok(block(NvmOpcode::Write, 1, 1));
}

#[test]
fn the_log_has_the_groups_with_their_states_and_members_as_this_controller_sees_them() {
    let mut namespaces = groups(&[1, 1, 3]);
    namespaces[1].hosts = Some(vec![hostnqn(2)].into());
    let mut cluster = Cluster::new(2, namespaces, &[1]);
    cluster.listen(2, |config| {
        config.ana = [(3, AnaState::NonOptimized), (7, AnaState::PersistentLoss)].into_iter().collect()
    });
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    let (count, mine) = log(&mut one);
    let states = |log: &[Group]| {
        log.iter().map(|(group, state, _, nsids)| (*group, *state, nsids.clone())).collect::<Vec<_>>()
    };
    assert_eq!(states(&mine), [(1, 1, vec![1]), (3, 3, vec![3])]);
    let (_, theirs) = log(&mut two);
    assert_eq!(states(&theirs), [(1, 1, vec![1, 2]), (3, 2, vec![3]), (7, 4, vec![])]);
    // Groups only, and pieces.
    let whole = two.log_at(ANA_LOG, 0, 0, 1024);
    let groups = two.log_at(ANA_LOG, 1, 0, 1024);
    assert_eq!(groups[..9], whole[..9]);
    assert_eq!((groups[16], groups[16 + 32], groups[16 + 64]), (1, 3, 7));
    assert!(groups[16 + 3 * 32..].iter().all(|&byte| byte == 0));
    let len = 16 + 3 * 32 + 3 * 4;
    for offset in (0..=len).step_by(4) {
        assert_eq!(two.log_at(ANA_LOG, 0, offset as u64, 64)[..], whole[offset..][..64], "{offset}");
    }
    for offset in [2, len as u64 + 4, 1 << 40] {
        two.guest.refused(Host::log_sqe(ANA_LOG, 0, 0, offset, 64, true), Status::INVALID_FIELD);
    }
    // The count rises with whatever may change a page: a state, a move, and members that come and go.
    let mut last = count;
    let mut rises = |what: &str| {
        let (count, _) = log(&mut one);
        assert!(count > last, "{what}: {count}");
        last = count;
    };
    let subsystem = &cluster.subsystem;
    subsystem.set_ana_state(1, 3, AnaState::Optimized).unwrap();
    rises("state");
    subsystem.set_ana_group(3, 1).unwrap();
    rises("group");
    subsystem.set_enabled(3, false).unwrap();
    rises("disabled");
    subsystem.set_enabled(3, true).unwrap();
    rises("enabled");
    subsystem.attach_to(2, None).unwrap();
    rises("attached");
    subsystem.remove_namespace(2).unwrap();
    rises("removed");
    subsystem.add_namespace(namespace(ram(MIB), 512)).unwrap();
    rises("added");
    let (_, mine) = log(&mut one);
    assert_eq!(states(&mine), [(1, 1, vec![1, 2, 3]), (3, 1, vec![])]);
    assert_eq!(mine.iter().map(|group| group.2).sum::<u64>(), last);
}

#[test]
fn changes_are_counted_from_a_controllers_last_reset() {
    let cluster = Cluster::new(1, groups(&[1, 2]), &[1, 2]);
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    assert_eq!(log(&mut one).0, 0);
    for state in [AnaState::Optimized, AnaState::NonOptimized] {
        cluster.subsystem.set_ana_state(1, 2, state).unwrap();
    }
    assert_eq!((log(&mut one).0, log(&mut one).1[1].2, log(&mut two).0), (2, 2, 2));
    one.restart();
    assert_eq!((log(&mut one).0, log(&mut one).1[1].2, log(&mut two).0), (0, 0, 2));
    cluster.subsystem.set_ana_state(1, 2, AnaState::Optimized).unwrap();
    assert_eq!((log(&mut one).0, log(&mut one).1[1].2, log(&mut two).0), (1, 1, 3));
}

#[test]
fn the_event_comes_to_hosts_that_want_it_of_what_changes_for_them() {
    let cluster = Cluster::new(2, groups(&[1, 2]), &[1, 2]);
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    one.listen();
    let (mine, theirs) = (one.event_request(), two.event_request());
    cluster.subsystem.set_ana_state(1, 2, AnaState::Optimized).unwrap();
    cluster.subsystem.set_ana_state(2, 2, AnaState::Optimized).unwrap();
    assert_eq!(one.event(mine), ANA_CHANGE);
    two.assert_no_event(theirs);
    // One of the kind until the page was read (RAE 0).
    let mine = one.event_request();
    cluster.subsystem.set_ana_state(1, 2, AnaState::Change).unwrap();
    one.refused(block(NvmOpcode::Read, 2, 0), Status::ANA_TRANSITION);
    one.assert_no_event(mine);
    one.log_at(ANA_LOG, 0, 0, 64);
    one.assert_no_event(mine);
    log(&mut one);
    assert_eq!(one.event(mine), ANA_CHANGE);
    assert_eq!(log(&mut one).1[1].1, 0xf);
    // What is only the other's is no news, nor is what was the state already.
    let mine = one.event_request();
    cluster.subsystem.set_ana_state(2, 1, AnaState::NonOptimized).unwrap();
    cluster.subsystem.set_ana_state(1, 2, AnaState::Change).unwrap();
    one.assert_no_event(mine);
    // A namespace that moves is another namespace, and other groups.
    cluster.subsystem.set_ana_group(2, 1).unwrap();
    assert_eq!(one.event(mine), NAMESPACE_CHANGED);
    assert_eq!(one.log(4, 0xffff_ffff, 4096)[..8], [2, 0, 0, 0, 0, 0, 0, 0]);
    let mine = one.event_request();
    assert_eq!(one.event(mine), ANA_CHANGE);
    one.ok(block(NvmOpcode::Read, 2, 0));
    assert_eq!(log(&mut one).1[0].3, [1, 2]);
    // Nobody is told what he does not want to hear.
    two.assert_no_event(theirs);
    two.listen();
    cluster.subsystem.set_ana_state(2, 1, AnaState::Optimized).unwrap();
    assert_eq!(two.event(theirs), ANA_CHANGE);
}

#[test]
fn identify_says_what_there_is_and_nothing_where_there_is_one_controller() {
    let field = |page: &[u8], at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
    let alone = Cluster::new(1, groups(&[3]), &[1]);
    let mut host = alone.attach(0);
    let page = host.identify(1, 0);
    assert_eq!((page[76], field(&page, 92) & 1 << 11, page[342], page[343]), (0, 0, 0, 0));
    assert_eq!((field(&page, 344), field(&page, 348)), (0, 0));
    assert_eq!(host.identify(0, 1)[30] & 1, 0, "NMIC");
    assert_eq!(field(&host.identify(0, 1), 92), 0, "ANAGRPID");
    let cluster = Cluster::new(1, groups(&[3]), &[1, 2]);
    let mut host = cluster.attach(1);
    let page = host.identify(1, 0);
    // CMIC: ports, controllers, ANA. OAES: ANA Change.
    assert_eq!((page[76] & 0b1011, field(&page, 92) & 1 << 11), (0b1011, 1 << 11));
    // ANATT is not zero; ANACAP: five states, a group that may change.
    assert!(page[342] > 0 && page[343] & 0b1_1111 == 0b1_1111, "{:?}", &page[342..344]);
    assert_eq!(page[343] & 0x40, 0, "ANAGRPID may change while the namespace is attached");
    assert!(field(&page, 344) >= 3 && field(&page, 348) <= field(&page, 344));
    assert_eq!(host.identify(0, 1)[30] & 1, 1, "NMIC");
    assert_eq!(field(&host.identify(0, 1), 92), 3, "ANAGRPID");
    // Wrong groups and states.
    for (cntlid, group, state) in [
        (1, 0, AnaState::Optimized),
        (1, 1025, AnaState::Optimized),
        (9, 1, AnaState::Optimized),
        (1, 1, AnaState::Reserved(0)),
    ] {
        assert!(cluster.subsystem.set_ana_state(cntlid, group, state).is_err());
    }
    assert!(cluster.subsystem.set_ana_group(1, 0).is_err() && cluster.subsystem.set_ana_group(2, 1).is_err());
}

#[test]
fn a_host_writes_on_by_its_other_controller_when_one_fails_over_and_over() {
    for workers in [1, 2] {
        let cluster = Cluster::new(workers, groups(&[1]), &[1, 1]);
        let mut paths: [Host; 2] = cluster.attach_all().try_into().ok().unwrap();
        let mut at = 0;
        for round in 0..100u64 {
            let (good, bad) = (1 + (round % 2) as u16, 2 - (round % 2) as u16);
            cluster.subsystem.set_ana_state(bad, 1, AnaState::Inaccessible).unwrap();
            cluster.subsystem.set_ana_state(good, 1, AnaState::Optimized).unwrap();
            for slba in 0..8 {
                let status = paths[at].io(block(NvmOpcode::Write, 1, slba));
                if status.is(Status::ANA_INACCESSIBLE) {
                    at ^= 1;
                    paths[at].ok(block(NvmOpcode::Write, 1, slba));
                } else {
                    assert!(status.is_success(), "{status}");
                }
            }
            assert_eq!(at + 1, usize::from(good), "round {round}");
        }
        // Nobody has read a log page all the while.
        let request = paths[0].event_request();
        paths[0].assert_no_event(request);
        assert!(paths[0].set_feature(FeatureId::AsyncEventConfig, 0, 1 << 11).is_success());
        cluster.subsystem.set_ana_state(1, 1, AnaState::Change).unwrap();
        assert_eq!(paths[0].event(request), ANA_CHANGE);
        paths[0].guest.ok(Sqe::new(AdminOpcode::KeepAlive, 0, 0));
    }
}
