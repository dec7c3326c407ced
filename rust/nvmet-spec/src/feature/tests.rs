use core::mem::offset_of;

use super::*;
use proptest::prelude::*;

#[test]
fn identifiers_return_from_their_numbers_and_unknown_ones_keep_theirs() {
    for &id in FeatureId::ALL {
        assert_eq!(FeatureId::try_from(u8::from(id)), Ok(id));
        assert!(!id.name().is_empty());
    }
    assert_eq!(FeatureId::try_from(0xc0).unwrap_err().to_string(), "unknown Feature Identifier c0h");
}

#[test]
fn values_stand_where_the_specification_puts_them() {
    assert_eq!(SupportedCapabilities::new().with_changeable(true).into_bits(), 4);
    assert_eq!(
        Arbitration::new().with_ab(7).with_lpw_z(1).with_mpw_z(2).with_hpw_z(3).into_bits(),
        0x0302_0107
    );
    let queues = NumberOfQueues::from_bits(0x003f_001f);
    assert_eq!((queues.nsq(), queues.ncq()), (32, 64));
    let threshold = TemperatureThreshold::from_bits(0x001f_0157);
    assert_eq!((threshold.tmpth(), threshold.tmpsel(), threshold.thsel()), (343, 0xf, 1));
    let vector = InterruptVectorConfig::from_bits(0x0001_0005);
    assert_eq!((vector.iv(), vector.cd()), (5, true));
    assert_eq!(InterruptCoalescing::from_bits(0x0a03).thr(), 4);
    assert_eq!(InterruptCoalescing::from_bits(0x0a03).time(), 10);
    assert!(ErrorRecovery::from_bits(1 << 16).dulbe());
    assert_eq!(ReservationNotificationMask::new().with_respre(true).into_bits(), 8);
    assert_eq!(NamespaceWriteProtection::from_bits(1).wps(), WriteProtectionState::WriteProtect);
}

#[test]
fn the_timestamp_holds_48_bits_of_milliseconds() {
    let stamp =
        Timestamp::new().with_milliseconds(0x1234_5678_9abc).with_origin(TimestampOrigin::SetFeatures);
    assert_eq!(stamp.as_bytes(), [0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 0x02, 0x00]);
}

#[test]
fn host_behavior_fields_stand_at_their_offsets() {
    assert_eq!(offset_of!(HostBehaviorSupport, lbafee), 2);
    assert_eq!(offset_of!(HostBehaviorSupport, cdfe), 4);
    assert_eq!(offset_of!(HostBehaviorSupport, reserved), 6);
}

proptest! {
    #[test]
    fn any_value_survives_decoding(bits: u32, wide: u64, small: u8) {
        prop_assert_eq!(Arbitration::from_bits(bits).into_bits(), bits);
        prop_assert_eq!(TemperatureThreshold::from_bits(bits).into_bits(), bits);
        let stamp = Timestamp::from_bits(wide);
        prop_assert_eq!(stamp.with_origin(stamp.origin()).with_milliseconds(stamp.milliseconds()), stamp);
        let protection = NamespaceWriteProtection::from_bits(bits);
        prop_assert_eq!(protection.with_wps(protection.wps()), protection);
        prop_assert_eq!(Select::from_bits(small).into_bits(), small & 7);
    }
}
