use core::mem::offset_of;

use super::*;
use proptest::prelude::*;

#[test]
fn report_fields_stand_at_their_offsets() {
    assert_eq!(offset_of!(ReportHeader, rtype), 4);
    assert_eq!(offset_of!(ReportHeader, regctl), 5);
    assert_eq!(offset_of!(ReportHeader, ptpls), 9);
    assert_eq!(offset_of!(RegisteredController, rcsts), 2);
    assert_eq!(offset_of!(RegisteredController, hostid), 8);
    assert_eq!(offset_of!(RegisteredController, rkey), 16);
    assert_eq!(offset_of!(RegisteredControllerExtended, rkey), 8);
    assert_eq!(offset_of!(RegisteredControllerExtended, hostid), 16);
}

#[test]
fn command_dwords_stand_where_the_specification_puts_them() {
    let register = RegisterCdw10::from_bits(0xc000_000a);
    assert_eq!(
        (register.rrega(), register.iekey(), register.cptpl()),
        (RegisterAction::Replace, true, ChangePtpl::Set)
    );
    let acquire = AcquireCdw10::from_bits(0x0000_0301);
    assert_eq!(acquire.racqa(), AcquireAction::Preempt);
    assert_eq!(acquire.rtype(), ReservationType::WriteExclusiveRegistrantsOnly);
    let release = ReleaseCdw10::from_bits(0x0000_0601);
    assert_eq!(
        (release.rrela(), release.rtype()),
        (ReleaseAction::Clear, ReservationType::ExclusiveAccessAllRegistrants)
    );
    assert_eq!(report_length(0), 4);
    assert_eq!(report_length(u32::MAX), 1 << 34);
}

proptest! {
    #[test]
    fn any_command_dword_survives_decoding(bits: u32, byte: u8) {
        let register = RegisterCdw10::from_bits(bits);
        prop_assert_eq!(register.with_rrega(register.rrega()).with_cptpl(register.cptpl()), register);
        let acquire = AcquireCdw10::from_bits(bits);
        prop_assert_eq!(acquire.with_racqa(acquire.racqa()).with_rtype(acquire.rtype()), acquire);
        let release = ReleaseCdw10::from_bits(bits);
        prop_assert_eq!(release.with_rrela(release.rrela()).with_rtype(release.rtype()), release);
        prop_assert_eq!(ReservationType::from_bits(byte).into_bits(), byte);
    }
}
