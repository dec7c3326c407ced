use core::mem::offset_of;

use super::*;
use crate::status::Status;
use proptest::prelude::*;

#[test]
fn identifiers_return_from_their_numbers_and_unknown_ones_keep_theirs() {
    for &lid in Lid::ALL {
        assert_eq!(Lid::try_from(u8::from(lid)), Ok(lid));
        assert!(!lid.name().is_empty());
    }
    assert_eq!(Lid::try_from(0xc0).unwrap_err().to_string(), "unknown Log Page Identifier c0h");
}

#[test]
fn error_information_fields_stand_at_their_offsets() {
    assert_eq!(offset_of!(ErrorInformation, sqid), 8);
    assert_eq!(offset_of!(ErrorInformation, cid), 10);
    assert_eq!(offset_of!(ErrorInformation, status), 12);
    assert_eq!(offset_of!(ErrorInformation, parameter_error_location), 14);
    assert_eq!(offset_of!(ErrorInformation, lba), 16);
    assert_eq!(offset_of!(ErrorInformation, nsid), 24);
    assert_eq!(offset_of!(ErrorInformation, vendor_log_page), 28);
    assert_eq!(offset_of!(ErrorInformation, opcode), 31);
    assert_eq!(offset_of!(ErrorInformation, command_specific), 32);
    assert_eq!(offset_of!(ErrorInformation, transport_specific), 40);
    let entry = ErrorInformation {
        status: CqeStatus::new().with_status(Status::INVALID_FIELD),
        parameter_error_location: ParameterErrorLocation::NONE,
        ..Default::default()
    };
    assert_eq!(entry.as_bytes()[12..16], [0x04, 0x00, 0xff, 0xff]);
}

#[test]
fn smart_fields_stand_at_their_offsets() {
    assert_eq!(offset_of!(SmartHealth, composite_temperature), 1);
    assert_eq!(offset_of!(SmartHealth, available_spare), 3);
    assert_eq!(offset_of!(SmartHealth, percentage_used), 5);
    assert_eq!(offset_of!(SmartHealth, data_units_read), 32);
    assert_eq!(offset_of!(SmartHealth, data_units_written), 48);
    assert_eq!(offset_of!(SmartHealth, host_read_commands), 64);
    assert_eq!(offset_of!(SmartHealth, controller_busy_time), 96);
    assert_eq!(offset_of!(SmartHealth, power_cycles), 112);
    assert_eq!(offset_of!(SmartHealth, power_on_hours), 128);
    assert_eq!(offset_of!(SmartHealth, unsafe_shutdowns), 144);
    assert_eq!(offset_of!(SmartHealth, media_errors), 160);
    assert_eq!(offset_of!(SmartHealth, error_log_entries), 176);
    assert_eq!(offset_of!(SmartHealth, warning_temperature_time), 192);
    assert_eq!(offset_of!(SmartHealth, temperature_sensors), 200);
    assert_eq!(offset_of!(SmartHealth, thermal_transitions), 216);
    assert_eq!(offset_of!(SmartHealth, thermal_times), 224);
    assert_eq!(CriticalWarning::new().with_temperature(true).into_bits(), 2);
}

#[test]
fn other_pages_put_their_fields_at_their_offsets() {
    assert_eq!(offset_of!(FirmwareSlot, frs), 8);
    assert_eq!(offset_of!(CommandEffects, iocs), 1024);
    assert_eq!(offset_of!(AnaHeader, groups), 8);
    assert_eq!(offset_of!(AnaGroupDescriptor, change_count), 8);
    assert_eq!(offset_of!(AnaGroupDescriptor, state), 16);
    assert_eq!(offset_of!(ReservationNotification, nsid), 12);
    assert_eq!(ActiveFirmwareInfo::new().with_active(1).with_next(2).into_bits(), 0x21);
}

#[test]
fn effects_stand_where_the_specification_puts_them() {
    let scope = EffectsScope::new().with_controller(true);
    let command = CommandEffect::new().with_csupp(true).with_lbcc(true).with_cse(2).with_csp(scope);
    assert_eq!(command.into_bits(), 1 | 1 << 1 | 2 << 16 | 1 << 21);
    let feature = FeatureEffect::new()
        .with_fsupp(true)
        .with_uss(true)
        .with_fsp(EffectsScope::new().with_namespace(true));
    assert_eq!(feature.into_bits(), 1 | 1 << 19 | 1 << 20);
    assert_eq!(LidEffects::new().with_ios(true).with_lidsp(1).into_bits(), 0x1_0002);
}

proptest! {
    #[test]
    fn any_effects_survive_decoding(bits: u32, state: u8) {
        let command = CommandEffect::from_bits(bits);
        prop_assert_eq!(command.with_csp(command.csp()).with_cse(command.cse()), command);
        let feature = FeatureEffect::from_bits(bits);
        prop_assert_eq!(feature.with_fsp(feature.fsp()), feature);
        prop_assert_eq!(AnaState::from_bits(state).into_bits(), state & 0xf);
    }

    #[test]
    fn any_64_bytes_are_an_error_entry(low: [u8; 32], high: [u8; 32]) {
        let bytes: Vec<u8> = low.into_iter().chain(high).collect();
        let entry = ErrorInformation::read_from_bytes(&bytes).unwrap();
        prop_assert_eq!(entry.as_bytes(), &bytes);
    }
}
