//! Every type, seen from every host, against every command: what §8.19 and §7.2 to §7.5 say.

use nvmet_spec::command::NvmOpcode;

use super::*;

/// Holds the reservation, by having acquired it.
const HOLDER: u8 = 1;
/// Registered; with All Registrants types a holder as well.
const REGISTRANT: u8 = 2;
/// Not registered.
const STRANGER: u8 = 3;
/// Registered, does nothing.
const WITNESS: u8 = 4;

const fn key(number: u8) -> u64 {
    0x100 + number as u64
}

/// The columns: what the host of the row does.
const COMMANDS: [&str; 13] = [
    "read",
    "write",
    "register",
    "replace",
    "unregister",
    "acquire the same type",
    "acquire another type",
    "preempt",
    "preempt and abort",
    "release the right type",
    "release the wrong type",
    "clear",
    "report",
];

/// | cell | means |
/// |---|---|
/// | `y`, `n` | allowed; Reservation Conflict |
/// | `C`, `I` | Reservation Conflict; Invalid Field: nothing changes |
/// | `.` | success, the same registrants and reservation |
/// | `+` | the host becomes a registrant |
/// | `k` | it has a new key |
/// | `u`, `x` | it is no registrant any more, and the reservation stays; and it is released |
/// | `r` | the reservation is released, the registrants stay |
/// | `p`, `t` | the preempted host is no registrant any more, and the reservation stays; and the issuer takes it over with another type |
/// | `c` | no registrants, no reservation |
///
/// A holder preempts the registrant, others the holder, always with another type than the one that is held.
const EXPECTED: &str = "
    type host         rd wr register replace unregister same another preempt abort right wrong clear report
    1    holder       y  y  .        k       x          .    C       p       p     r     I     c     .
    1    registrant   y  n  .        k       u          C    C       t       t     .     .     c     .
    1    stranger     y  n  +        C       C          C    C       C       C     C     C     C     .
    2    holder       y  y  .        k       x          .    C       p       p     r     I     c     .
    2    registrant   n  n  .        k       u          C    C       t       t     .     .     c     .
    2    stranger     n  n  +        C       C          C    C       C       C     C     C     C     .
    3    holder       y  y  .        k       x          .    C       p       p     r     I     c     .
    3    registrant   y  y  .        k       u          C    C       t       t     .     .     c     .
    3    stranger     y  n  +        C       C          C    C       C       C     C     C     C     .
    4    holder       y  y  .        k       x          .    C       p       p     r     I     c     .
    4    registrant   y  y  .        k       u          C    C       t       t     .     .     c     .
    4    stranger     n  n  +        C       C          C    C       C       C     C     C     C     .
    5    holder       y  y  .        k       u          .    C       p       p     r     I     c     .
    5    registrant   y  y  .        k       u          .    C       p       p     r     I     c     .
    5    stranger     y  n  +        C       C          C    C       C       C     C     C     C     .
    6    holder       y  y  .        k       u          .    C       p       p     r     I     c     .
    6    registrant   y  y  .        k       u          .    C       p       p     r     I     c     .
    6    stranger     n  n  +        C       C          C    C       C       C     C     C     C     .
";

const READ_GROUP: [NvmOpcode; 3] = [NvmOpcode::Read, NvmOpcode::Compare, NvmOpcode::Verify];
const WRITE_GROUP: [NvmOpcode; 6] = [
    NvmOpcode::Write,
    NvmOpcode::WriteZeroes,
    NvmOpcode::WriteUncorrectable,
    NvmOpcode::DatasetManagement,
    NvmOpcode::Copy,
    NvmOpcode::Flush,
];

fn command(name: &str, rtype: ReservationType, own: u64, target: u64) -> Command {
    match name {
        "register" => register(RegisterAction::Register, 0, own),
        "replace" => register(RegisterAction::Replace, own, 0x999),
        "unregister" => register(RegisterAction::Unregister, own, 0),
        "acquire the same type" => acquire(AcquireAction::Acquire, rtype, own, 0),
        "acquire another type" => acquire(AcquireAction::Acquire, other(rtype), own, 0),
        "preempt" => acquire(AcquireAction::Preempt, other(rtype), own, target),
        "preempt and abort" => acquire(AcquireAction::PreemptAndAbort, other(rtype), own, target),
        "release the right type" => release(ReleaseAction::Release, rtype, own),
        "release the wrong type" => release(ReleaseAction::Release, other(rtype), own),
        "clear" => release(ReleaseAction::Clear, other(rtype), own),
        other => unreachable!("{other}"),
    }
}

/// The state that a cell stands for, but for its generation.
fn after(cell: &str, before: &State, rtype: ReservationType, issuer: u8, target: u8) -> State {
    let mut state = before.clone();
    let (issuer, target) = (host(issuer), host(target));
    match cell {
        "." => {}
        "+" => drop(state.registrants.insert(issuer, key(STRANGER))),
        "k" => drop(state.registrants.insert(issuer, 0x999)),
        "u" => drop(state.registrants.remove(&issuer)),
        "x" => {
            state.registrants.remove(&issuer);
            state.held = state::Held::Nothing;
        }
        "r" => state.held = state::Held::Nothing,
        "p" => drop(state.registrants.remove(&target)),
        "t" => {
            state.registrants.remove(&target);
            state.held = state::Held::acquired(other(rtype), issuer);
        }
        "c" => {
            state.registrants.clear();
            state.held = state::Held::Nothing;
        }
        other => unreachable!("{other}"),
    }
    state
}

fn check_access(groups: &[NvmOpcode], cell: &str, state: &State, issuer: u8, context: &str) {
    for &opcode in groups {
        let allowed = state.snapshot().access(&host(issuer)).allows(opcode);
        assert_eq!(allowed, cell == "y", "{opcode:?}, {context}");
    }
}

fn check_command(name: &str, cell: &str, before: &State, rtype: ReservationType, issuer: u8, context: &str) {
    let target = if issuer == HOLDER { REGISTRANT } else { HOLDER };
    let command = command(name, rtype, key(issuer), key(target));
    let mut state = before.clone();
    let result = state.execute(&host(issuer), &command, false);
    let status = match cell {
        "C" => Some(CONFLICT),
        "I" => Some(INVALID_FIELD),
        _ => None,
    };
    if let Some(status) = status {
        assert_eq!(result, Err(status), "{context}");
        assert_eq!(state, *before, "{context}");
        return;
    }
    let outcome = result.unwrap_or_else(|status| panic!("{context}: {status}"));
    let counts = !matches!(command, Command::Release { action: ReleaseAction::Release, .. })
        && !matches!(command, Command::Acquire { action: AcquireAction::Acquire, .. });
    let mut expected = after(cell, before, rtype, issuer, target);
    expected.generation += u32::from(counts);
    assert_eq!(state, expected, "{context}");
    assert_eq!(outcome.changed, state != *before, "{context}");
    let aborted = if name == "preempt and abort" { vec![host(target)] } else { Vec::new() };
    assert_eq!(outcome.abort, aborted, "{context}");
}

#[test]
fn every_type_lets_every_host_do_with_every_command_what_the_specification_says() {
    let mut cells = 0;
    for row in EXPECTED.lines().filter(|line| !line.trim().is_empty()).skip(1) {
        let mut row = row.split_whitespace();
        let mut next = || row.next().expect("a cell for every column");
        let rtype = ReservationType::from_bits(next().parse().expect("a type"));
        let who = next();
        let issuer = match who {
            "holder" => HOLDER,
            "registrant" => REGISTRANT,
            _ => STRANGER,
        };
        let hosts = [HOLDER, REGISTRANT, WITNESS].map(|number| (number, key(number)));
        let state = held(rtype, &hosts);
        for name in COMMANDS {
            let cell = next();
            let context = format!("{name} by the {who} while there is {rtype:?}");
            match name {
                "read" => check_access(&READ_GROUP, cell, &state, issuer, &context),
                "write" => check_access(&WRITE_GROUP, cell, &state, issuer, &context),
                "report" => {
                    let access = state.snapshot().access(&host(issuer));
                    assert!(access.allows(NvmOpcode::ReservationReport), "{context}");
                    assert_eq!(state.report(true, &[])[4], rtype.into_bits(), "{context}");
                }
                _ => check_command(name, cell, &state, rtype, issuer, &context),
            }
            cells += 1;
        }
        assert_eq!(row.next(), None, "more cells than columns");
    }
    assert_eq!(cells, 6 * 3 * 13);
}

#[test]
fn reservation_commands_are_never_refused_for_what_access_there_is() {
    for access in [Access::Full, Access::ReadOnly, Access::None] {
        for opcode in [
            NvmOpcode::ReservationRegister,
            NvmOpcode::ReservationReport,
            NvmOpcode::ReservationAcquire,
            NvmOpcode::ReservationRelease,
        ] {
            assert!(access.allows(opcode), "{access:?} {opcode:?}");
        }
    }
}

#[test]
fn without_a_reservation_everybody_may_do_everything() {
    let state = registered(&[(1, 1)]);
    for number in [1, 2] {
        assert_eq!(state.snapshot().access(&host(number)), Access::Full);
    }
    assert_eq!(state.snapshot().rtype(), ReservationType::None);
    assert!(state.snapshot().is_registrant(&host(1)) && !state.snapshot().is_registrant(&host(2)));
}
