//! Decoding, and the rules that the matrix has no column for.

use nvmet_spec::command::NvmOpcode;
use nvmet_spec::reservation::{AcquireCdw10, RegisterCdw10, ReleaseCdw10};

use super::*;

use ReservationType::{
    ExclusiveAccess as Ea, WriteExclusive as We, WriteExclusiveAllRegistrants as WeAr,
    WriteExclusiveRegistrantsOnly as WeRo,
};

const REGISTER: NvmOpcode = NvmOpcode::ReservationRegister;
const ACQUIRE: NvmOpcode = NvmOpcode::ReservationAcquire;
const RELEASE: NvmOpcode = NvmOpcode::ReservationRelease;

fn two(first: u64, second: u64) -> [u8; 16] {
    let mut data = [0; 16];
    data[..8].copy_from_slice(&first.to_le_bytes());
    data[8..].copy_from_slice(&second.to_le_bytes());
    data
}

#[test]
fn a_command_is_what_its_dword_and_data_say() {
    let data = two(0x1122_3344_5566_7788, 0x99);
    let (crkey, second) = (0x1122_3344_5566_7788, 0x99);
    assert_eq!([16, 16, 8, 0], [REGISTER, ACQUIRE, RELEASE, NvmOpcode::Read].map(Command::data_len));
    assert_eq!(
        Command::decode(REGISTER, 3 << 30 | 1 << 3 | 2, &data),
        Ok(Command::Register {
            action: RegisterAction::Replace,
            iekey: true,
            cptpl: ChangePtpl::Set,
            crkey,
            nrkey: second
        })
    );
    assert_eq!(
        Command::decode(ACQUIRE, 4 << 8 | 2, &data),
        Ok(Command::Acquire {
            action: AcquireAction::PreemptAndAbort,
            rtype: ReservationType::ExclusiveAccessRegistrantsOnly,
            crkey,
            prkey: second
        })
    );
    assert_eq!(
        Command::decode(RELEASE, 1, &data[..8]),
        Ok(Command::Release { action: ReleaseAction::Clear, rtype: ReservationType::None, crkey })
    );
}

#[test]
fn what_is_reserved_or_too_short_is_an_invalid_field() {
    let invalid = Err(INVALID_FIELD);
    let data = two(1, 2);
    for action in 3..8 {
        assert_eq!(Command::decode(REGISTER, action, &data), invalid, "RREGA {action}");
        assert_eq!(Command::decode(ACQUIRE, 1 << 8 | action, &data), invalid, "RACQA {action}");
    }
    for action in 2..8 {
        assert_eq!(Command::decode(RELEASE, 1 << 8 | action, &data), invalid, "RRELA {action}");
    }
    assert_eq!(Command::decode(REGISTER, 1 << 30, &data), invalid, "CPTPL 01b");
    for rtype in (0..=0xff).filter(|rtype| !(1..=6).contains(rtype)) {
        assert_eq!(Command::decode(ACQUIRE, rtype << 8, &data), invalid, "RTYPE {rtype}");
    }
    for opcode in [REGISTER, ACQUIRE, RELEASE] {
        let short = &data[..Command::data_len(opcode) - 1];
        assert_eq!(Command::decode(opcode, 1 << 8, short), invalid, "{opcode:?}");
    }
    assert_eq!(Command::decode(NvmOpcode::Read, 0, &data), Err(Status::INVALID_OPCODE.with_dnr()));
}

#[test]
fn ignoring_the_existing_key_is_for_register_alone() {
    let data = two(1, 2);
    let register = RegisterCdw10::new().with_iekey(true).into_bits();
    assert!(Command::decode(REGISTER, register, &data).is_ok());
    let acquire = AcquireCdw10::new().with_rtype(We).with_iekey(true).into_bits();
    assert_eq!(Command::decode(ACQUIRE, acquire, &data), Err(INVALID_FIELD));
    let release = ReleaseCdw10::new().with_iekey(true).into_bits();
    assert_eq!(Command::decode(RELEASE, release, &data), Err(INVALID_FIELD));
}

fn ignoring(action: RegisterAction, nrkey: u64) -> Command {
    Command::Register { action, iekey: true, cptpl: ChangePtpl::NoChange, crkey: 0xbad, nrkey }
}

#[test]
fn the_same_key_again_is_a_success_and_another_one_a_conflict() {
    let mut state = registered(&[(1, 0x11)]);
    assert!(state.execute(&host(1), &register(RegisterAction::Register, 0, 0x11), false).is_ok());
    for command in [
        register(RegisterAction::Register, 0x11, 0x12),
        ignoring(RegisterAction::Register, 0x12),
        register(RegisterAction::Register, 0x11, 0),
    ] {
        assert_eq!(state.execute(&host(1), &command, false), Err(CONFLICT));
    }
    assert_eq!(keys(&state), [(host(1), 0x11)]);
    assert!(
        state.execute(&host(2), &register(RegisterAction::Register, 0, 0x11), false).is_ok(),
        "keys need not differ"
    );
}

#[test]
fn a_key_of_zero_is_never_registered() {
    let mut state = registered(&[(1, 0x11)]);
    for (number, command) in [
        (1, register(RegisterAction::Replace, 0x11, 0)),
        (1, ignoring(RegisterAction::Replace, 0)),
        (2, register(RegisterAction::Register, 0, 0)),
        (2, ignoring(RegisterAction::Replace, 0)),
    ] {
        assert_eq!(state.execute(&host(number), &command, false), Err(INVALID_FIELD), "{command:?}");
    }
    assert_eq!(keys(&state), [(host(1), 0x11)]);
}

#[test]
fn ignoring_the_existing_key_replaces_without_it_and_registers_a_stranger() {
    let mut state = registered(&[(1, 0x11)]);
    assert_eq!(state.execute(&host(1), &register(RegisterAction::Replace, 0xbad, 2), false), Err(CONFLICT));
    assert_eq!(state.execute(&host(2), &register(RegisterAction::Replace, 0, 2), false), Err(CONFLICT));
    assert_eq!(
        state.execute(&host(1), &register(RegisterAction::Unregister, 0xbad, 0), false),
        Err(CONFLICT)
    );
    assert_eq!(state.execute(&host(2), &ignoring(RegisterAction::Unregister, 0), false), Err(CONFLICT));
    assert!(state.execute(&host(1), &ignoring(RegisterAction::Replace, 0x12), false).is_ok());
    assert!(state.execute(&host(2), &ignoring(RegisterAction::Replace, 0x22), false).is_ok());
    assert_eq!(keys(&state), [(host(1), 0x12), (host(2), 0x22)]);
    assert!(state.execute(&host(1), &ignoring(RegisterAction::Unregister, 0), false).is_ok());
    assert_eq!(keys(&state), [(host(2), 0x22)]);
}

#[test]
fn a_holder_that_replaces_its_key_still_holds_and_is_preempted_by_the_new_key() {
    let mut state = held(We, &[(1, 0x11), (2, 0x22)]);
    assert!(state.execute(&host(1), &register(RegisterAction::Replace, 0x11, 0x12), false).is_ok());
    assert_eq!(state.holder(), Some(host(1)));
    let by_old = acquire(AcquireAction::Preempt, We, 0x22, 0x11);
    assert_eq!(state.execute(&host(2), &by_old, false), Err(CONFLICT));
    assert!(state.execute(&host(2), &acquire(AcquireAction::Preempt, We, 0x22, 0x12), false).is_ok());
    assert_eq!((state.holder(), keys(&state)), (Some(host(2)), vec![(host(2), 0x22)]));
}

#[test]
fn a_wrong_current_key_is_a_conflict_for_every_action() {
    let before = held(WeAr, &[(1, 0x11), (2, 0x22)]);
    for command in [
        acquire(AcquireAction::Acquire, WeAr, 0x22, 0),
        acquire(AcquireAction::Preempt, We, 0, 0x22),
        acquire(AcquireAction::PreemptAndAbort, We, 0x22, 0),
        release(ReleaseAction::Release, WeAr, 0),
        release(ReleaseAction::Clear, WeAr, 0x22),
    ] {
        let mut state = before.clone();
        assert_eq!(state.execute(&host(1), &command, false), Err(CONFLICT), "{command:?}");
        assert_eq!(state, before, "{command:?}");
    }
}

#[test]
fn a_preempt_key_of_zero_is_everybody_else_with_all_registrants_and_invalid_otherwise() {
    let hosts = [(1, 0x11), (2, 0x22), (3, 0x33)];
    for (rtype, result) in
        [(We, Err(INVALID_FIELD)), (WeRo, Err(INVALID_FIELD)), (ReservationType::None, Err(CONFLICT))]
    {
        let mut state = if rtype == ReservationType::None { registered(&hosts) } else { held(rtype, &hosts) };
        for (number, key) in hosts {
            let command = acquire(AcquireAction::Preempt, Ea, key, 0);
            assert_eq!(state.execute(&host(number), &command, false), result, "{rtype:?}");
        }
    }
    for (rtype, holder) in [(Ea, Some(host(2))), (WeAr, None)] {
        let mut state = held(WeAr, &hosts);
        assert!(state.execute(&host(2), &acquire(AcquireAction::Preempt, rtype, 0x22, 0), false).is_ok());
        assert_eq!((state.rtype(), state.holder()), (rtype, holder));
        assert_eq!(keys(&state), [(host(2), 0x22)]);
    }
    let mut alone = held(WeAr, &[(1, 0x11)]);
    assert!(
        alone.execute(&host(1), &acquire(AcquireAction::Preempt, Ea, 0x11, 0), false).is_ok(),
        "changes the type"
    );
    assert_eq!(alone.rtype(), Ea);
}

#[test]
fn a_preempt_of_a_key_that_nobody_has_is_a_conflict() {
    for rtype in TYPES {
        let mut state = held(rtype, &[(1, 0x11)]);
        let command = acquire(AcquireAction::Preempt, We, 0x11, 0x99);
        assert_eq!(state.execute(&host(1), &command, false), Err(CONFLICT), "{rtype:?}");
    }
    let mut state = registered(&[(1, 0x11)]);
    assert_eq!(
        state.execute(&host(1), &acquire(AcquireAction::Preempt, We, 0x11, 0x99), false),
        Err(CONFLICT)
    );
}

#[test]
fn a_holder_that_preempts_itself_changes_the_type_and_unregisters_others_with_its_key() {
    let mut state = held(We, &[(1, 0x11), (2, 0x11), (3, 0x33)]);
    let command = acquire(AcquireAction::PreemptAndAbort, Ea, 0x11, 0x11);
    let outcome = state.execute(&host(1), &command, false).expect("preempted");
    assert_eq!((state.rtype(), state.holder()), (Ea, Some(host(1))));
    assert_eq!(keys(&state), [(host(1), 0x11), (host(3), 0x33)]);
    assert_eq!(outcome.abort, [host(2)]);
}

#[test]
fn a_registrant_with_the_holders_key_takes_over_and_stays_registered() {
    let mut state = held(We, &[(1, 0x11), (2, 0x11), (3, 0x11)]);
    assert!(state.execute(&host(2), &acquire(AcquireAction::Preempt, WeAr, 0x11, 0x11), false).is_ok());
    assert_eq!((state.rtype(), keys(&state)), (WeAr, vec![(host(2), 0x11)]));
}

#[test]
fn a_host_can_preempt_its_own_registration_away() {
    // No reservation, one of somebody else, one of all.
    let mut free = registered(&[(1, 0x11), (2, 0x22)]);
    let mut taken = held(We, &[(1, 0x11), (2, 0x22)]);
    for state in [&mut free, &mut taken] {
        assert!(state.execute(&host(2), &acquire(AcquireAction::Preempt, Ea, 0x22, 0x22), false).is_ok());
        assert_eq!(keys(state), [(host(1), 0x11)]);
    }
    assert_eq!(taken.holder(), Some(host(1)));
    let mut all = held(WeAr, &[(1, 0x11), (2, 0x11)]);
    assert!(all.execute(&host(2), &acquire(AcquireAction::Preempt, Ea, 0x11, 0x11), false).is_ok());
    assert_eq!((all.rtype(), keys(&all)), (ReservationType::None, vec![]), "with the last registrant");
}

#[test]
fn a_release_by_nobody_who_holds_succeeds_whatever_its_type() {
    for mut state in [registered(&[(1, 0x11), (2, 0x22)]), held(We, &[(1, 0x11), (2, 0x22)])] {
        for rtype in [We, Ea, ReservationType::None, ReservationType::Reserved(0x77)] {
            let outcome = state.execute(&host(2), &release(ReleaseAction::Release, rtype, 0x22), false);
            assert_eq!(outcome, Ok(Outcome::default()), "{rtype:?}");
        }
    }
}

#[test]
fn the_last_registrant_takes_a_reservation_of_all_with_it() {
    let mut state = held(WeAr, &[(1, 0x11), (2, 0x22)]);
    assert!(state.execute(&host(1), &register(RegisterAction::Unregister, 0x11, 0), false).is_ok());
    assert_eq!((state.rtype(), state.is_holder(&host(2))), (WeAr, true));
    // Who registers now holds it as well.
    assert!(state.execute(&host(3), &register(RegisterAction::Register, 0, 0x33), false).is_ok());
    assert!(state.is_holder(&host(3)) && !state.is_holder(&host(1)));
    assert!(state.execute(&host(3), &register(RegisterAction::Unregister, 0x33, 0), false).is_ok());
    assert!(state.execute(&host(2), &register(RegisterAction::Unregister, 0x22, 0), false).is_ok());
    assert_eq!(state.rtype(), ReservationType::None);
}

fn changing(action: RegisterAction, cptpl: ChangePtpl, crkey: u64, nrkey: u64) -> Command {
    Command::Register { action, iekey: false, cptpl, crkey, nrkey }
}

#[test]
fn ptpl_changes_with_any_register_that_succeeds() {
    let mut state = State::default();
    for (command, ptpl) in [
        (changing(RegisterAction::Register, ChangePtpl::Set, 0, 1), true),
        (changing(RegisterAction::Register, ChangePtpl::NoChange, 0, 1), true),
        (changing(RegisterAction::Replace, ChangePtpl::Clear, 1, 2), false),
        (changing(RegisterAction::Unregister, ChangePtpl::Set, 2, 0), true),
    ] {
        assert!(state.execute(&host(1), &command, true).is_ok());
        assert_eq!(state.ptpl(), ptpl, "{command:?}");
    }
    let conflict = changing(RegisterAction::Unregister, ChangePtpl::Clear, 2, 0);
    assert_eq!(state.execute(&host(1), &conflict, true), Err(CONFLICT));
    assert!(state.ptpl(), "not with one that fails");
    state.set_ptpl(false);
    assert!(!state.ptpl());
}

#[test]
fn ptpl_cannot_be_set_where_nothing_persists() {
    let mut state = State::default();
    let command = changing(RegisterAction::Register, ChangePtpl::Set, 0, 1);
    assert_eq!(state.execute(&host(1), &command, false), Err(INVALID_FIELD));
    assert_eq!(state, State::default());
    let command = changing(RegisterAction::Register, ChangePtpl::Clear, 0, 1);
    assert!(state.execute(&host(1), &command, false).is_ok());
}

#[test]
fn the_generation_counts_register_clear_and_preempt_alone_and_wraps() {
    let mut state = State { generation: u32::MAX - 1, ..State::default() };
    let steps = [
        (1, register(RegisterAction::Register, 0, 0x11), u32::MAX),
        (1, register(RegisterAction::Register, 0, 0x11), 0),
        (1, register(RegisterAction::Register, 0, 0x12), 0),
        (2, register(RegisterAction::Register, 0, 0x22), 1),
        (1, register(RegisterAction::Replace, 0x11, 0x12), 2),
        (1, acquire(AcquireAction::Acquire, We, 0x12, 0), 2),
        (1, acquire(AcquireAction::Acquire, We, 0x12, 0), 2),
        (1, acquire(AcquireAction::Preempt, Ea, 0x12, 0x12), 3),
        (2, acquire(AcquireAction::Preempt, Ea, 0x22, 0x99), 3),
        (1, release(ReleaseAction::Release, We, 0x12), 3),
        (1, release(ReleaseAction::Release, Ea, 0x12), 3),
        (1, acquire(AcquireAction::PreemptAndAbort, Ea, 0x12, 0x22), 4),
        (1, register(RegisterAction::Unregister, 0x12, 0), 5),
        (1, register(RegisterAction::Unregister, 0x12, 0), 5),
        (1, register(RegisterAction::Register, 0, 0x11), 6),
        (1, release(ReleaseAction::Clear, Ea, 0x11), 7),
    ];
    for (number, command, generation) in steps {
        let _ = state.execute(&host(number), &command, false);
        assert_eq!(state.generation(), generation, "{command:?}");
    }
}
