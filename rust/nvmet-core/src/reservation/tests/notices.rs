//! Who is told of what (Base §8.19.1, and the sections of the commands).

use super::*;

use NoticeKind::{
    RegistrationPreempted as Unregistered, ReservationPreempted as Cleared, ReservationReleased as Released,
};
use ReservationType::{
    ExclusiveAccess as Ea, ExclusiveAccessAllRegistrants as EaAr, ExclusiveAccessRegistrantsOnly as EaRo,
    WriteExclusive as We, WriteExclusiveAllRegistrants as WeAr, WriteExclusiveRegistrantsOnly as WeRo,
};

/// Hosts 1 to 4 are registered, 1 holds the reservation; 3 and 4 have the same key.
const HOSTS: [(u8, u64); 4] = [(1, 0x11), (2, 0x22), (3, 0x34), (4, 0x34)];

fn check(what: &str, mut state: State, issuer: u8, command: Command, expected: &[(u8, NoticeKind)]) {
    let outcome =
        state.execute(&host(issuer), &command, true).unwrap_or_else(|status| panic!("{what}: {status}"));
    let expected: Vec<_> =
        expected.iter().map(|&(number, kind)| Notice { host: host(number), kind }).collect();
    assert_eq!(outcome.notices, expected, "{what}");
}

#[test]
fn a_release_tells_the_other_registrants_unless_the_type_is_a_plain_one() {
    let told = [(2, Released), (3, Released), (4, Released)];
    for (rtype, expected) in
        [(We, &[][..]), (Ea, &[]), (WeRo, &told), (EaRo, &told), (WeAr, &told), (EaAr, &told)]
    {
        let command = release(ReleaseAction::Release, rtype, 0x11);
        check(&format!("{rtype:?}"), held(rtype, &HOSTS), 1, command, expected);
    }
    // With All Registrants any of them releases it, and tells the one that acquired it.
    let command = release(ReleaseAction::Release, WeAr, 0x22);
    check(
        "by another holder",
        held(WeAr, &HOSTS),
        2,
        command,
        &[(1, Released), (3, Released), (4, Released)],
    );
    check("of nothing", registered(&HOSTS), 1, release(ReleaseAction::Release, WeRo, 0x11), &[]);
    check("by no holder", held(WeRo, &HOSTS), 2, release(ReleaseAction::Release, WeRo, 0x22), &[]);
}

#[test]
fn a_holder_that_unregisters_tells_the_other_registrants_of_a_registrants_only_type() {
    let told = [(2, Released), (3, Released), (4, Released)];
    for (rtype, expected) in
        [(We, &[][..]), (Ea, &[]), (WeRo, &told), (EaRo, &told), (WeAr, &[]), (EaAr, &[])]
    {
        let command = register(RegisterAction::Unregister, 0x11, 0);
        check(&format!("{rtype:?}"), held(rtype, &HOSTS), 1, command, expected);
        let command = register(RegisterAction::Unregister, 0x22, 0);
        check(&format!("{rtype:?}, no holder"), held(rtype, &HOSTS), 2, command, &[]);
    }
    check("the last one", held(WeAr, &HOSTS[..1]), 1, register(RegisterAction::Unregister, 0x11, 0), &[]);
}

#[test]
fn a_clear_tells_every_other_registrant_whether_or_not_something_was_held() {
    let told = [(1, Cleared), (3, Cleared), (4, Cleared)];
    for rtype in TYPES {
        let command = release(ReleaseAction::Clear, We, 0x22);
        check(&format!("{rtype:?}"), held(rtype, &HOSTS), 2, command, &told);
    }
    check("nothing held", registered(&HOSTS), 2, release(ReleaseAction::Clear, We, 0x22), &told);
}

#[test]
fn a_preempt_tells_those_it_unregisters_and_the_rest_if_the_type_changes() {
    let preempt = |rtype, crkey, prkey| acquire(AcquireAction::Preempt, rtype, crkey, prkey);
    let others = [(3, Unregistered), (4, Unregistered)];
    check(
        "the holder, another type",
        held(We, &HOSTS),
        2,
        preempt(Ea, 0x22, 0x11),
        &[(1, Unregistered), (3, Released), (4, Released)],
    );
    check("the holder, the same type", held(We, &HOSTS), 2, preempt(We, 0x22, 0x11), &[(1, Unregistered)]);
    check(
        "itself, another type",
        held(We, &HOSTS),
        1,
        preempt(WeRo, 0x11, 0x11),
        &[(2, Released), (3, Released), (4, Released)],
    );
    check("itself, the same type", held(We, &HOSTS), 1, preempt(We, 0x11, 0x11), &[]);
    check("others by a registrant", held(We, &HOSTS), 2, preempt(Ea, 0x22, 0x34), &others);
    check("others by the holder", held(We, &HOSTS), 1, preempt(Ea, 0x11, 0x34), &others);
    check("without a reservation", registered(&HOSTS), 1, preempt(Ea, 0x11, 0x34), &others);
    check("its own key", registered(&HOSTS), 3, preempt(Ea, 0x34, 0x34), &[(4, Unregistered)]);
    check("all registrants by key", held(WeAr, &HOSTS), 1, preempt(Ea, 0x11, 0x34), &others);
    check(
        "all registrants",
        held(WeAr, &HOSTS),
        4,
        preempt(Ea, 0x34, 0),
        &[(1, Unregistered), (2, Unregistered), (3, Unregistered)],
    );
}

#[test]
fn a_preempt_and_abort_tells_the_same_and_ends_commands_of_those_it_unregisters() {
    let mut state = held(We, &HOSTS);
    let command = acquire(AcquireAction::PreemptAndAbort, Ea, 0x22, 0x11);
    let outcome = state.execute(&host(2), &command, false).expect("preempted");
    assert_eq!(outcome.abort, [host(1)]);
    assert_eq!(outcome.notices.len(), 3);
    // Never its own, even if it unregisters itself.
    let mut state = registered(&HOSTS);
    let command = acquire(AcquireAction::PreemptAndAbort, Ea, 0x34, 0x34);
    let outcome = state.execute(&host(3), &command, false).expect("preempted");
    assert_eq!(outcome.abort, [host(4)]);
    assert_eq!(keys(&state), [(host(1), 0x11), (host(2), 0x22)]);
}

#[test]
fn what_registers_replaces_or_acquires_tells_nobody() {
    check("register", held(WeRo, &HOSTS), 9, register(RegisterAction::Register, 0, 9), &[]);
    check("replace", held(WeRo, &HOSTS), 1, register(RegisterAction::Replace, 0x11, 9), &[]);
    check("acquire", registered(&HOSTS), 1, acquire(AcquireAction::Acquire, WeRo, 0x11, 0), &[]);
}

#[test]
fn the_operators_clear_tells_everybody_and_ends_nobodys_commands() {
    let mut state = held(WeAr, &HOSTS);
    let generation = state.generation();
    let outcome = state.clear_by_operator();
    let told: Vec<_> = (1..=4).map(|number| Notice { host: host(number), kind: Cleared }).collect();
    assert_eq!(outcome, Outcome { changed: true, notices: told, abort: Vec::new() });
    assert_eq!((keys(&state), state.rtype()), (vec![], ReservationType::None));
    assert_eq!(state.generation(), generation + 1);
    assert_eq!(state.clear_by_operator(), Outcome::default());
    assert_eq!(state.generation(), generation + 1);
}
