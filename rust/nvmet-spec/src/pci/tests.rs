use core::mem::offset_of;

use super::*;
use proptest::prelude::*;

#[test]
fn registers_stand_where_the_specification_puts_them() {
    assert_eq!(Command::new().with_memory_space(true).with_bus_master(true).into_bits(), 6);
    assert_eq!(Command::new().with_interrupt_disable(true).with_serr(true).into_bits(), 1 << 10 | 1 << 8);
    assert_eq!(Status::new().with_capabilities_list(true).into_bits(), 1 << 4);
    assert_eq!(
        Status::new().with_detected_parity_error(true).with_signaled_target_abort(true).into_bits(),
        0x8800
    );
    assert_eq!(Pmcsr::new().with_power_state(3).with_no_soft_reset(true).into_bits(), 0b1011);
    assert_eq!(
        DeviceCapabilities::new().with_flr(true).with_role_based_error_reporting(true).into_bits(),
        0x1000_8000
    );
    assert_eq!(
        DeviceControl::new().with_initiate_flr(true).with_max_read_request_size(2).into_bits(),
        0xa000
    );
    let link =
        LinkCapabilities::new().with_max_speed(2).with_max_width(4).with_aspm_optionality_compliance(true);
    assert_eq!(link.into_bits(), 0x0040_0042);
    let link = LinkControl::new().with_aspm(3).with_read_completion_boundary(true).with_common_clock(true);
    assert_eq!(link.with_extended_synch(true).into_bits(), 0x00cb);
    let serial = ExtendedCapabilityHeader::new().with_id(3).with_version(1).with_next(0x150);
    assert_eq!(serial.into_bits(), 0x1501_0003);
    let control = MsixControl::new().with_enable(true).with_function_mask(true).with_table_size_z(64);
    assert_eq!(control.into_bits(), 0xc040);
    assert_eq!(control.table_size(), 65);
    assert_eq!(MsixLocation::new().with_bir(4).with_offset_qwords(0x200).into_bits(), 0x1004);
}

#[test]
fn capability_fields_stand_at_their_offsets() {
    assert_eq!(offset_of!(MsixCapability, control), 2);
    assert_eq!(offset_of!(MsixCapability, table), 4);
    assert_eq!(offset_of!(MsixCapability, pba), 8);
    assert_eq!(offset_of!(PmCapability, capabilities), 2);
    assert_eq!(offset_of!(PmCapability, control_status), 4);
    assert_eq!(offset_of!(MsixEntry, data), 8);
    assert_eq!(offset_of!(MsixEntry, control), 12);
}

proptest! {
    #[test]
    fn any_table_entry_survives_decoding(bytes: [u8; 16], bits: u16) {
        let entry = MsixEntry::read_from_bytes(&bytes).unwrap();
        prop_assert_eq!(entry.as_bytes(), &bytes);
        prop_assert_eq!(entry.control.masked(), bytes[12] & 1 == 1);
        prop_assert_eq!(MsixControl::from_bits(bits).into_bits(), bits);
        prop_assert_eq!(MsixControl::from_bits(bits).table_size(), u32::from(bits & 0x7ff) + 1);
    }
}
