//! Many registrants.

use super::*;

fn numbered(number: u32) -> HostId {
    let mut host = [0; 16];
    // Not in the order of numbers.
    host[..4].copy_from_slice(&number.to_le_bytes());
    host
}

fn crowd(count: usize) -> State {
    let mut state = State::default();
    for number in 1..=count as u32 {
        let command = register(RegisterAction::Register, 0, u64::from(number));
        state.execute(&numbered(number), &command, false).expect("registered");
    }
    state
}

#[test]
fn a_thousand_hosts_register_share_a_reservation_and_are_preempted_at_once() {
    let mut state = crowd(1024);
    let rtype = ReservationType::ExclusiveAccessAllRegistrants;
    state.execute(&numbered(7), &acquire(AcquireAction::Acquire, rtype, 7, 0), false).expect("acquired");
    let snapshot = state.snapshot();
    for number in 1..=1024 {
        assert_eq!(snapshot.access(&numbered(number)), Access::Full);
    }
    assert_eq!(snapshot.access(&numbered(1025)), Access::None);
    assert_eq!(state.registrants().filter(|registrant| registrant.holder).count(), 1024);
    let controllers: Vec<_> = (1..=1024).map(|number| (number as u16, numbered(number))).collect();
    assert_eq!(state.report(true, &controllers).len(), 64 + 1024 * 64);

    let command = acquire(AcquireAction::PreemptAndAbort, rtype, 9, 0);
    let outcome = state.execute(&numbered(9), &command, false).expect("preempted");
    assert_eq!((outcome.abort.len(), outcome.notices.len()), (1023, 1023));
    assert!(outcome.abort.is_sorted());
    assert_eq!(keys(&state), [(numbered(9), 9)]);
}

#[test]
fn one_more_than_the_most_registrants_is_refused_until_one_leaves() {
    let mut state = crowd(MAX_REGISTRANTS);
    let before = state.clone();
    let one_more = register(RegisterAction::Register, 0, 1);
    let ignoring = Command::Register {
        action: RegisterAction::Replace,
        iekey: true,
        cptpl: ChangePtpl::NoChange,
        crkey: 0,
        nrkey: 1,
    };
    for command in [one_more, ignoring] {
        assert_eq!(state.execute(&numbered(0x10000), &command, false), Err(Status::INTERNAL_ERROR));
    }
    assert_eq!(state, before);
    assert!(
        state.execute(&numbered(5), &register(RegisterAction::Register, 0, 5), false).is_ok(),
        "not one more"
    );
    assert!(state.execute(&numbered(5), &register(RegisterAction::Unregister, 5, 0), false).is_ok());
    assert!(state.execute(&numbered(0x10000), &one_more, false).is_ok());
}

#[test]
fn a_report_has_no_more_entries_than_it_can_count() {
    let mut state = registered(&[(1, 1), (2, 2)]);
    state.set_ptpl(true);
    let mut controllers: Vec<_> = (0..=u16::MAX).map(|cntlid| (cntlid, host(1))).collect();
    controllers.push((7, host(2)));
    let report = state.report(false, &controllers);
    assert_eq!(report[5..7], [0xff, 0xff]);
    assert_eq!(report.len(), 24 + 24 * 65535);
}
