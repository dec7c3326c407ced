use super::*;
use proptest::prelude::*;

#[test]
fn events_name_type_information_and_log_page() {
    assert_eq!(AsyncEvent::INVALID_DOORBELL_REGISTER.into_bits(), 0x0001_0000);
    assert_eq!(AsyncEvent::INVALID_DOORBELL_VALUE.into_bits(), 0x0001_0100);
    assert_eq!(AsyncEvent::TEMPERATURE_THRESHOLD.into_bits(), 0x0002_0101);
    assert_eq!(AsyncEvent::NAMESPACE_ATTRIBUTE_CHANGED.into_bits(), 0x0004_0002);
    assert_eq!(AsyncEvent::ANA_CHANGE.into_bits(), 0x000c_0302);
    assert_eq!(AsyncEvent::RESERVATION_LOG_AVAILABLE.into_bits(), 0x0080_0006);
}

#[test]
fn configuration_bits_stand_where_the_specification_puts_them() {
    let config = AsyncEventConfig::new().with_smart_critical_warnings(0x1f).with_namespace_attribute(true);
    assert_eq!(config.into_bits(), 0x11f);
    assert_eq!(AsyncEventConfig::new().with_ana_change(true).into_bits(), 1 << 11);
    assert_eq!(AsyncEventConfig::new().with_zone_descriptor(true).into_bits(), 1 << 27);
    assert_eq!(AsyncEventConfig::new().with_discovery_log(true).into_bits(), 1 << 31);
}

proptest! {
    #[test]
    fn any_dword_survives_decoding(bits: u32) {
        let event = AsyncEvent::from_bits(bits);
        prop_assert_eq!(event.with_event_type(event.event_type()).into_bits(), bits);
        prop_assert_eq!(AsyncEventConfig::from_bits(bits).into_bits(), bits);
    }
}
