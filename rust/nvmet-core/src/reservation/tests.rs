//! Tests of reservations. What several of them need is here.

use nvmet_spec::reservation::{AcquireAction, ChangePtpl, RegisterAction, ReleaseAction, ReservationType};
use nvmet_spec::status::Status;

use super::*;

mod commands;
mod limits;
mod matrix;
mod model;
mod notices;
mod report;
mod saved;
mod store;

const TYPES: [ReservationType; 6] = [
    ReservationType::WriteExclusive,
    ReservationType::ExclusiveAccess,
    ReservationType::WriteExclusiveRegistrantsOnly,
    ReservationType::ExclusiveAccessRegistrantsOnly,
    ReservationType::WriteExclusiveAllRegistrants,
    ReservationType::ExclusiveAccessAllRegistrants,
];
const CONFLICT: Status = Status::RESERVATION_CONFLICT.with_dnr();
const INVALID_FIELD: Status = Status::INVALID_FIELD.with_dnr();

fn host(number: u8) -> HostId {
    [number; 16]
}

/// Another type than this one.
fn other(rtype: ReservationType) -> ReservationType {
    TYPES[(usize::from(rtype.into_bits()) + 1) % 6]
}

fn register(action: RegisterAction, crkey: u64, nrkey: u64) -> Command {
    Command::Register { action, iekey: false, cptpl: ChangePtpl::NoChange, crkey, nrkey }
}

fn acquire(action: AcquireAction, rtype: ReservationType, crkey: u64, prkey: u64) -> Command {
    Command::Acquire { action, rtype, crkey, prkey }
}

fn release(action: ReleaseAction, rtype: ReservationType, crkey: u64) -> Command {
    Command::Release { action, rtype, crkey }
}

/// A state with these hosts registered, each with the key that is given.
fn registered(hosts: &[(u8, u64)]) -> State {
    let mut state = State::default();
    for &(number, key) in hosts {
        state.execute(&host(number), &register(RegisterAction::Register, 0, key), false).expect("registered");
    }
    state
}

/// A state with these hosts registered, of which the first holds the reservation of this type.
fn held(rtype: ReservationType, hosts: &[(u8, u64)]) -> State {
    let mut state = registered(hosts);
    let (holder, key) = hosts[0];
    state.execute(&host(holder), &acquire(AcquireAction::Acquire, rtype, key, 0), false).expect("acquired");
    state
}

/// Who is registered, with which key.
fn keys(state: &State) -> Vec<(HostId, u64)> {
    state.registrants().map(|registrant| (registrant.host, registrant.key)).collect()
}
