//! Reservation Status, byte by byte (Base §7.5).

use super::*;

/// Host 1 has two controllers, 2 none, 3 one but is not registered.
const CONTROLLERS: [(u16, HostId); 3] = [(0x0201, [1; 16]), (0x0003, [3; 16]), (0x0102, [1; 16])];

fn state(rtype: ReservationType) -> State {
    let mut state = held(rtype, &[(1, 0x1122_3344_5566_7788), (2, 0x22)]);
    state.generation = 0x0a0b_0c0d;
    state.set_ptpl(true);
    state
}

#[test]
fn the_basic_structure_has_24_bytes_and_24_for_each_controller() {
    let mut expected = vec![0x0d, 0x0c, 0x0b, 0x0a, 1, 3, 0, 0, 0, 1];
    expected.resize(24, 0);
    for cntlid in [[0x02, 0x01], [0x01, 0x02]] {
        expected.extend(cntlid);
        expected.extend([1, 0, 0, 0, 0, 0]);
        expected.extend([1; 8]);
        expected.extend([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    }
    expected.extend([0xff, 0xff, 0, 0, 0, 0, 0, 0]);
    expected.extend([2; 8]);
    expected.extend([0x22, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(state(ReservationType::WriteExclusive).report(false, &CONTROLLERS), expected);
}

#[test]
fn the_extended_structure_has_64_bytes_and_64_for_each_controller() {
    let mut expected = vec![0x0d, 0x0c, 0x0b, 0x0a, 4, 3, 0, 0, 0, 1];
    expected.resize(64, 0);
    for cntlid in [[0x02, 0x01], [0x01, 0x02]] {
        expected.extend(cntlid);
        expected.extend([1, 0, 0, 0, 0, 0]);
        expected.extend([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        expected.extend([1; 16]);
        expected.extend([0; 32]);
    }
    expected.extend([0xff, 0xff, 0, 0, 0, 0, 0, 0]);
    expected.extend([0x22, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([2; 16]);
    expected.extend([0; 32]);
    assert_eq!(state(ReservationType::ExclusiveAccessRegistrantsOnly).report(true, &CONTROLLERS), expected);
}

#[test]
fn with_all_registrants_every_controller_holds() {
    let report = state(ReservationType::WriteExclusiveAllRegistrants).report(true, &CONTROLLERS);
    let holders = report[64..].chunks_exact(64).map(|entry| entry[2]);
    assert_eq!(holders.collect::<Vec<_>>(), [1, 1, 1]);
}

#[test]
fn a_namespace_without_registrants_has_a_header_alone() {
    assert_eq!(State::default().report(false, &CONTROLLERS), [0; 24]);
    assert_eq!(State::default().report(true, &CONTROLLERS), [0; 64]);
}
