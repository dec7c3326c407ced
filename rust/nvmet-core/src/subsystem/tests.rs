use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use nvmet_block::RamBackend;
use nvmet_spec::feature::WriteProtectionState;
use nvmet_spec::log::AnaState;
use nvmet_spec::reservation::{AcquireAction, ChangePtpl, RegisterAction, ReservationType};
use nvmet_spec::status::Status;

use super::*;
use crate::namespace::StateFile;
use crate::reservation::{Command, NoticeKind};

/// Longer than anything takes; nothing waits for it to pass.
const LIMIT: Duration = Duration::from_secs(60);

/// What a member was asked.
#[derive(Debug)]
enum Asked {
    Notice(u32, NoticeKind),
    Fence { id: u64, end: Option<Status>, hold: Arc<Hold> },
    Reset,
}

struct Recorder(Mutex<Sender<Asked>>);

impl Recorder {
    fn note(&self, asked: Asked) {
        self.0.lock().unwrap().send(asked).unwrap();
    }
}

impl Member for Recorder {
    fn changed(&self) {}

    fn notify(&self, nsid: u32, kind: NoticeKind) {
        self.note(Asked::Notice(nsid, kind));
    }

    fn fence(&self, id: u64, end: Option<Status>, hold: &Arc<Hold>) {
        self.note(Asked::Fence { id, end, hold: Arc::clone(hold) });
    }

    fn subsystem_reset(&self) {
        self.note(Asked::Reset);
    }
}

fn host(id: u8) -> HostIdentity {
    HostIdentity { nqn: format!("nqn.host{id}"), id: [id; 16] }
}

fn who(id: u8) -> Who {
    Who { cntlid: id.into(), host: host(id) }
}

fn backend() -> Arc<dyn Backend> {
    Arc::new(RamBackend::new(1 << 20, false).unwrap())
}

fn with(config: SubsystemConfig) -> Arc<Subsystem> {
    Arc::new(Subsystem::new(config).unwrap())
}

/// A subsystem with namespace 1, and a controller of each host with what it was asked.
fn serve<const N: usize>(hosts: [u8; N]) -> (Arc<Subsystem>, [Receiver<Asked>; N]) {
    let subsystem = with(SubsystemConfig::new("1"));
    subsystem.add_namespace(NamespaceConfig::new(backend())).unwrap();
    let asked = hosts.map(|id| enter(&subsystem, None, id));
    (subsystem, asked)
}

fn enter(subsystem: &Subsystem, wanted: Option<u16>, id: u8) -> Receiver<Asked> {
    let (sender, asked) = mpsc::channel();
    let cntlid = subsystem.join(wanted, &host(id), AnaStates::default()).unwrap();
    subsystem.enter(cntlid, Arc::new(Recorder(Mutex::new(sender))));
    asked
}

fn ask(subsystem: &Arc<Subsystem>, id: u8, wish: Wish) -> Receiver<Result<Vec<u8>, Status>> {
    let (tell, told) = mpsc::channel();
    let reply = Reply::new(move |result| drop(tell.send(result)));
    subsystem.submit(Job { nsid: 1, id: None, host: [id; 16], wish, wanted: None, reply });
    told
}

fn done(subsystem: &Arc<Subsystem>, id: u8, wish: Wish) -> Result<Vec<u8>, Status> {
    ask(subsystem, id, wish).recv_timeout(LIMIT).unwrap()
}

fn register(key: u64) -> Wish {
    Wish::Reserve(Command::Register {
        action: RegisterAction::Register,
        iekey: false,
        cptpl: ChangePtpl::NoChange,
        crkey: 0,
        nrkey: key,
    })
}

fn acquire(action: AcquireAction, rtype: ReservationType, key: u64, preempt: u64) -> Wish {
    Wish::Reserve(Command::Acquire { action, rtype, crkey: key, prkey: preempt })
}

fn gate(subsystem: &Subsystem, id: u8) -> Gate {
    View::new(subsystem.namespaces(), &who(id)).get(1).unwrap().gate
}

#[test]
fn identifiers_come_from_the_range_and_are_given_once() {
    let subsystem = with(SubsystemConfig { cntlids: (5, 7), ..SubsystemConfig::new("1") });
    let join = |wanted| subsystem.join(wanted, &host(1), AnaStates::default());
    assert_eq!(join(None).unwrap(), 5);
    assert_eq!(join(Some(6)).unwrap(), 6);
    assert!(join(Some(6)).unwrap_err().to_string().contains("another controller has it"));
    assert!(join(Some(8)).unwrap_err().to_string().contains("use 5 to 7"));
    assert_eq!(join(None).unwrap(), 7);
    assert!(join(None).unwrap_err().to_string().contains("no identifier left"));
    subsystem.leave(6);
    assert_eq!(join(None).unwrap(), 6);
    for cntlids in [(0, 5), (6, 5), (1, 0xfff0)] {
        let error = Subsystem::new(SubsystemConfig { cntlids, ..SubsystemConfig::new("1") }).unwrap_err();
        assert!(error.to_string().contains("cntlid range"), "{error}");
    }
}

#[test]
fn a_view_has_the_gates_of_ana_reservations_and_write_protection_in_this_order() {
    let (subsystem, _asked) = serve([1, 2]);
    assert!(gate(&subsystem, 2).is_open());
    let conflict = Some(Status::RESERVATION_CONFLICT.with_dnr());
    let protected = Some(Status::NAMESPACE_WRITE_PROTECTED.with_dnr());
    subsystem.protect(1, true).unwrap();
    assert_eq!(gate(&subsystem, 2), Gate { write: protected, ..Gate::OPEN });
    done(&subsystem, 1, register(7)).unwrap();
    done(&subsystem, 1, acquire(AcquireAction::Acquire, ReservationType::WriteExclusive, 7, 0)).unwrap();
    assert_eq!(gate(&subsystem, 1), Gate { write: protected, ..Gate::OPEN });
    assert_eq!(gate(&subsystem, 2), Gate { write: conflict, flush: conflict, ..Gate::OPEN });
    subsystem.set_ana_state(2, 1, AnaState::Inaccessible).unwrap();
    let away = Some(Status::ANA_INACCESSIBLE);
    assert_eq!(gate(&subsystem, 2), Gate { any: away, read: away, write: away, flush: away });
    assert_eq!(gate(&subsystem, 1).any, None, "of one controller alone");
}

#[test]
fn ana_means_nothing_while_hosts_are_not_told_of_it() {
    let (subsystem, _one) = serve([1]);
    subsystem.set_ana_group(1, 2).unwrap();
    assert!(gate(&subsystem, 1).is_open(), "there is one controller, and no ANA in its Identify data");
    let _two = enter(&subsystem, None, 2);
    assert_eq!(gate(&subsystem, 1).any, Some(Status::ANA_INACCESSIBLE));
    let config = SubsystemConfig { shared: Some(true), ..SubsystemConfig::new("1") };
    let subsystem = with(config);
    subsystem.add_namespace(NamespaceConfig { ana_group: 2, ..NamespaceConfig::new(backend()) }).unwrap();
    assert_eq!(gate(&subsystem, 1).any, Some(Status::ANA_INACCESSIBLE));
}

#[test]
fn a_host_hears_of_what_changed_for_it() {
    let (subsystem, _asked) = serve([1, 2]);
    let view = |id| View::new(subsystem.namespaces(), &who(id));
    let changes = |change: &dyn Fn()| {
        let before = [view(1), view(2)];
        change();
        let after = [view(1), view(2)];
        [0, 1].map(|at| (before[at].changed_to(&after[at]), before[at].ana_differs(&after[at])))
    };
    let (both, nobody) = ([(vec![1], false), (vec![1], false)], [(vec![], false), (vec![], false)]);
    assert_eq!(changes(&|| subsystem.protect(1, true).unwrap()), both);
    assert_eq!(changes(&|| subsystem.protect(1, true).unwrap()), nobody);
    assert_eq!(changes(&|| drop(done(&subsystem, 1, register(1)))), nobody, "reservations are no attribute");
    let only_1: Arc<[String]> = vec!["nqn.host1".to_owned()].into();
    let attach = || subsystem.attach_to(1, Some(Arc::clone(&only_1))).unwrap();
    assert_eq!(changes(&attach), [(vec![], false), (vec![1], false)]);
    assert_eq!(changes(&|| subsystem.set_enabled(1, false).unwrap()), [(vec![1], false), (vec![], false)]);
    subsystem.set_enabled(1, true).unwrap();
    subsystem.attach_to(1, None).unwrap();
    assert_eq!(
        changes(&|| subsystem.set_ana_state(2, 1, AnaState::NonOptimized).unwrap()),
        [(vec![], false), (vec![], true)]
    );
    assert_eq!(
        changes(&|| subsystem.set_ana_group(1, 2).unwrap()),
        [(vec![1], true), (vec![1], true)],
        "ANAGRPID is an attribute, too"
    );
    assert_eq!(changes(&|| subsystem.set_ana_group(1, 2).unwrap()), nobody);
}

#[test]
fn changes_of_what_is_not_there_change_nothing() {
    let (subsystem, _asked) = serve([1]);
    let before = subsystem.version();
    for error in [
        subsystem.set_enabled(2, true).unwrap_err(),
        subsystem.protect(0, true).unwrap_err(),
        subsystem.attach_to(1025, None).unwrap_err(),
        subsystem.set_ana_group(2, 1).unwrap_err(),
        subsystem.set_ana_group(1, 0).unwrap_err(),
        subsystem.set_ana_group(1, 1025).unwrap_err(),
        subsystem.set_ana_state(9, 1, AnaState::Optimized).unwrap_err(),
        subsystem.set_ana_state(1, 1, AnaState::Reserved(7)).unwrap_err(),
        subsystem.drain(2, LIMIT).unwrap_err(),
        subsystem.set_health(Health { spare: 101, ..Health::default() }).unwrap_err(),
    ] {
        assert!(matches!(error, TargetError::Config { .. }), "{error}");
    }
    assert_eq!(subsystem.version(), before);
}

#[test]
fn a_drain_waits_for_every_controller_and_ends_what_takes_too_long() {
    let (subsystem, asked) = serve([1, 2]);
    let waits = std::thread::spawn({
        let subsystem = Arc::clone(&subsystem);
        move || subsystem.drain(1, LIMIT).unwrap()
    });
    let hold = |asked: &Receiver<Asked>| match asked.recv_timeout(LIMIT).unwrap() {
        Asked::Fence { id, end, hold } => (id, end, hold),
        other => panic!("{other:?}"),
    };
    let [first, second] = [hold(&asked[0]), hold(&asked[1])];
    assert_eq!((first.0, first.1), (subsystem.namespaces().get(1).unwrap().id(), None));
    drop(first);
    assert!(!waits.is_finished());
    drop(second);
    assert!(waits.join().unwrap());
    // Nobody lets go: the second time they are told to end it.
    assert!(!subsystem.drain(1, Duration::ZERO).unwrap());
    assert_eq!([hold(&asked[0]).1, hold(&asked[0]).1], [None, Some(Status::NAMESPACE_NOT_READY)]);
}

#[test]
fn preempt_and_abort_is_answered_when_the_losers_commands_have_ended() {
    let (subsystem, [asked_1, asked_2, asked_3]) = serve([1, 2, 3]);
    for id in 1..=3 {
        done(&subsystem, id, register(id.into())).unwrap();
    }
    let exclusive = ReservationType::ExclusiveAccess;
    done(&subsystem, 2, acquire(AcquireAction::Acquire, exclusive, 2, 0)).unwrap();
    let answer = ask(&subsystem, 1, acquire(AcquireAction::PreemptAndAbort, exclusive, 1, 2));
    assert!(matches!(
        asked_2.recv_timeout(LIMIT).unwrap(),
        Asked::Notice(1, NoticeKind::RegistrationPreempted)
    ));
    let fence = asked_2.recv_timeout(LIMIT).unwrap();
    assert!(matches!(fence, Asked::Fence { end: Some(Status::ABORTED_PREEMPT_AND_ABORT), .. }));
    assert!(answer.try_recv().is_err(), "commands of the loser are on their way");
    assert_eq!(
        gate(&subsystem, 2).read,
        Some(Status::RESERVATION_CONFLICT.with_dnr()),
        "it has lost already"
    );
    // Others go on meanwhile.
    done(&subsystem, 3, register(3)).unwrap();
    drop(fence);
    answer.recv_timeout(LIMIT).unwrap().unwrap();
    assert!(asked_1.try_recv().is_err() && asked_3.try_recv().is_err(), "the others are not asked");
}

#[test]
fn a_command_whose_answer_gets_lost_ends_all_the_same() {
    let (tell, told) = mpsc::channel();
    drop(Reply::new(move |result| drop(tell.send(result))));
    assert!(told.try_recv().unwrap().unwrap_err().is(Status::INTERNAL_ERROR));
    assert!(told.try_recv().is_err(), "and once");
}

#[test]
fn a_report_lists_the_controllers_of_each_registrant() {
    let (subsystem, _asked) = serve([1, 1, 2]);
    done(&subsystem, 1, register(0xabc)).unwrap();
    done(&subsystem, 3, register(0xdef)).unwrap();
    let report = done(&subsystem, 2, Wish::Report(true)).unwrap();
    assert_eq!(report[..4], 2u32.to_le_bytes(), "generation");
    assert_eq!(report.len(), 64 + 3 * 64);
    let ids: Vec<u16> =
        report[64..].chunks(64).map(|entry| u16::from_le_bytes([entry[0], entry[1]])).collect();
    assert_eq!(ids, [1, 2, 0xffff], "a registrant without a controller is listed as well");
}

#[test]
fn write_protection_of_a_host_is_flushed_and_waits_for_writes_in_flight() {
    let (subsystem, asked) = serve([1]);
    let answer = ask(&subsystem, 1, Wish::Protect(WriteProtectionState::WriteProtect));
    let fence = asked[0].recv_timeout(LIMIT).unwrap();
    assert!(matches!(fence, Asked::Fence { end: None, .. }));
    assert!(answer.try_recv().is_err());
    assert!(gate(&subsystem, 1).write.is_some(), "writes that come now are refused");
    drop(fence);
    answer.recv_timeout(LIMIT).unwrap().unwrap();
    done(&subsystem, 1, Wish::Protect(WriteProtectionState::None)).unwrap();
    assert!(gate(&subsystem, 1).is_open());
    let until = ask(&subsystem, 1, Wish::Protect(WriteProtectionState::UntilPowerCycle));
    drop(asked[0].recv_timeout(LIMIT).unwrap());
    until.recv_timeout(LIMIT).unwrap().unwrap();
    let opened = done(&subsystem, 1, Wish::Protect(WriteProtectionState::None)).unwrap_err();
    assert!(opened.is(Status::FEATURE_NOT_CHANGEABLE));
}

#[test]
fn what_is_kept_in_a_file_is_there_in_the_next_target() {
    let directory = tempfile::tempdir().unwrap();
    let start = |discard| {
        let subsystem = with(SubsystemConfig::new("1"));
        let state = Some(StateFile { path: directory.path().join("state"), discard });
        let result = subsystem.add_namespace(NamespaceConfig { state, ..NamespaceConfig::new(backend()) });
        result.map(|_| subsystem)
    };
    let first = start(false).unwrap();
    done(&first, 1, register(7)).unwrap();
    done(&first, 1, Wish::Persist(true)).unwrap();
    done(&first, 1, acquire(AcquireAction::Acquire, ReservationType::ExclusiveAccess, 7, 0)).unwrap();
    done(&first, 1, Wish::Protect(WriteProtectionState::WriteProtect)).unwrap();
    assert!(start(false).unwrap_err().to_string().contains("another target uses it"));
    drop(first);
    let second = start(false).unwrap();
    assert_eq!(gate(&second, 2).read, Some(Status::RESERVATION_CONFLICT.with_dnr()));
    assert_eq!(gate(&second, 1).write, Some(Status::NAMESPACE_WRITE_PROTECTED.with_dnr()));
    done(&second, 1, Wish::Protect(WriteProtectionState::UntilPowerCycle)).unwrap();
    done(&second, 1, Wish::Clear).unwrap();
    drop(second);
    assert!(gate(&start(false).unwrap(), 2).is_open());
    std::fs::write(directory.path().join("state"), "not a state file").unwrap();
    let error = start(false).unwrap_err();
    assert!(matches!(error, TargetError::State { .. }) && error.to_string().contains("discard"), "{error}");
    assert!(gate(&start(true).unwrap(), 2).is_open());
}

#[test]
fn persistence_needs_a_file_and_takes_all_namespaces_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (subsystem, _asked) = serve([1]);
    assert!(done(&subsystem, 1, Wish::Persist(true)).unwrap_err().is(Status::INVALID_FIELD));
    done(&subsystem, 1, Wish::Persist(false)).unwrap();
    let state = Some(StateFile { path: directory.path().join("state"), discard: false });
    subsystem.add_namespace(NamespaceConfig { state, ..NamespaceConfig::new(backend()) }).unwrap();
    let (tell, told) = mpsc::channel();
    let reply = Reply::new(move |result| drop(tell.send(result)));
    let all = nvmet_spec::command::NSID_ALL;
    let ids = subsystem.namespaces().iter().map(|namespace| namespace.id()).collect();
    subsystem.submit(Job {
        nsid: all,
        id: None,
        host: [1; 16],
        wish: Wish::PersistAll(ids, true),
        wanted: None,
        reply,
    });
    told.recv_timeout(LIMIT).unwrap().unwrap();
    let ptpl: Vec<bool> = subsystem
        .namespaces()
        .iter()
        .map(|namespace| namespace.keeper().read(|kept| kept.reservations.ptpl()))
        .collect();
    assert_eq!(ptpl, [false, true]);
}

#[test]
fn a_subsystem_reset_is_everybodys_only_where_that_is_allowed() {
    for (allowed, expected) in [(None, [false, true, false]), (Some(true), [false, true, true])] {
        let subsystem = with(SubsystemConfig { subsystem_reset: allowed, ..SubsystemConfig::new("1") });
        let asked = [1, 1, 2].map(|id| enter(&subsystem, None, id));
        subsystem.reset(1);
        let reset = asked.map(|asked| asked.try_iter().any(|asked| matches!(asked, Asked::Reset)));
        assert_eq!(reset, expected, "{allowed:?}; the one that does it does it itself");
    }
}
