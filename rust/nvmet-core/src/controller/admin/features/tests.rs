use proptest::prelude::*;

use super::*;

const LIMITS: ControllerLimits = ControllerLimits { queues: 8, entries: 256 };
const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// A host identifier that needs 128 bits.
const HOST_ID: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

fn features() -> Features {
    let mut features = Features::new(&LIMITS, HOST_ID);
    features.set_volatile_write_cache(true);
    features
}

fn request(fid: FeatureId, cdw11: u32) -> SetRequest<'static> {
    SetRequest { fid: fid.into(), save: false, nsid: 0, cdw11, data: &[], queues_exist: false }
}

fn get(features: &Features, fid: FeatureId, cdw11: u32) -> FeatureValue {
    features.get(fid.into(), Select::Current, cdw11, 0, NOW).unwrap()
}

#[test]
fn what_windows_asks_for_at_start_is_answered() {
    let mut features = features();
    for fid in [0x01, 0x02, 0x04, 0x05, 0x08, 0x09, 0x0b] {
        let value = features.get(fid, Select::Current, 0, 0, NOW);
        let value = value.unwrap_or_else(|status| panic!("Get Features {fid:02x}h: {status}")).dw0;
        let again = SetRequest { fid, save: false, nsid: 0, cdw11: value, data: &[], queues_exist: false };
        features.set(again, NOW).unwrap_or_else(|status| panic!("Set Features {fid:02x}h: {status}"));
    }
}

#[test]
fn no_feature_can_be_saved() {
    let mut features = features();
    let before = features.clone();
    for fid in SUPPORTED {
        let request = SetRequest { save: true, ..request(fid, 0) };
        assert!(features.set(request, NOW).unwrap_err().is(Status::FEATURE_NOT_SAVEABLE), "{fid:?}");
        let capabilities = features.get(fid.into(), Select::SupportedCapabilities, 0, 0, NOW).unwrap();
        assert!(!SupportedCapabilities::from_bits(capabilities.dw0).saveable());
        assert!(capabilities.data.is_empty());
    }
    // The clock may not have moved either.
    assert_eq!(features, before);
}

#[test]
fn an_unknown_feature_or_selection_is_an_invalid_field() {
    let mut features = features();
    for fid in 0..=0xff_u8 {
        if SUPPORTED.iter().any(|&known| u8::from(known) == fid) {
            continue;
        }
        let request = SetRequest { fid, ..request(FeatureId::Arbitration, 0) };
        assert!(features.set(request, NOW).unwrap_err().is(Status::INVALID_FIELD));
        assert!(features.get(fid, Select::Current, 0, 0, NOW).unwrap_err().is(Status::INVALID_FIELD));
        assert_eq!(Features::data_len(fid, 1), 0);
    }
    assert!(features.get(1, Select::Reserved(5), 0, 0, NOW).unwrap_err().is(Status::INVALID_FIELD));
}

#[test]
fn a_namespace_is_refused_for_features_of_the_controller() {
    let mut features = features();
    let mut set = |fid, nsid| features.set(SetRequest { nsid, ..request(fid, 0) }, NOW);
    assert!(set(FeatureId::Arbitration, 1).unwrap_err().is(Status::FEATURE_NOT_NAMESPACE_SPECIFIC));
    assert!(set(FeatureId::Arbitration, NSID_ALL).is_ok());
    let unknown = MAX_NAMESPACES + 1;
    assert!(set(FeatureId::Arbitration, unknown).unwrap_err().is(Status::INVALID_NAMESPACE_OR_FORMAT));
    assert!(set(FeatureId::ErrorRecovery, 1).is_ok());
}

#[test]
fn error_recovery_is_per_namespace() {
    let mut features = features();
    let set = |features: &mut Features, nsid, tler| {
        features.set(SetRequest { nsid, ..request(FeatureId::ErrorRecovery, tler) }, NOW)
    };
    let get =
        |features: &Features, nsid| features.get(5, Select::Current, 0, nsid, NOW).map(|value| value.dw0);
    set(&mut features, 2, 30).unwrap();
    assert_eq!((get(&features, 1), get(&features, 2)), (Ok(0), Ok(30)));
    set(&mut features, NSID_ALL, 7).unwrap();
    assert_eq!((get(&features, 1), get(&features, 2), get(&features, 0)), (Ok(7), Ok(7), Ok(7)));
    assert!(get(&features, NSID_ALL).unwrap_err().is(Status::INVALID_NAMESPACE_OR_FORMAT));
    let dulbe = ErrorRecovery::new().with_dulbe(true).into_bits();
    assert!(set(&mut features, 2, dulbe).unwrap_err().is(Status::INVALID_FIELD));
}

#[test]
fn the_number_of_queues_is_the_lesser_of_wish_and_limit() {
    let mut features = features();
    assert_eq!(features.queues(), (8, 8));
    let mut set = |nsq_z: u32, ncq_z: u32, queues_exist| {
        let request = SetRequest { queues_exist, ..request(FeatureId::NumberOfQueues, ncq_z << 16 | nsq_z) };
        features.set(request, NOW)
    };
    assert_eq!(set(3, 100, false), Ok(7 << 16 | 3));
    assert!(set(0xffff, 0, false).unwrap_err().is(Status::INVALID_FIELD));
    assert!(set(0, 0xffff, false).unwrap_err().is(Status::INVALID_FIELD));
    assert!(set(0, 0, true).unwrap_err().is(Status::COMMAND_SEQUENCE_ERROR));
    assert_eq!(features.queues(), (4, 8));
    assert_eq!(get(&features, FeatureId::NumberOfQueues, 0).dw0, 7 << 16 | 3);
    let default = features.get(7, Select::Default, 0, 0, NOW).unwrap();
    assert_eq!(default.dw0, 7 << 16 | 7);
    features.reset();
    assert_eq!(features.queues(), (8, 8));
}

#[test]
fn there_is_a_write_cache_feature_only_with_a_write_cache_and_it_stays_on() {
    let mut features = features();
    assert_eq!(get(&features, FeatureId::VolatileWriteCache, 0).dw0, 1);
    assert_eq!(features.set(request(FeatureId::VolatileWriteCache, 1), NOW), Ok(0));
    let off = features.set(request(FeatureId::VolatileWriteCache, 0), NOW);
    assert!(off.unwrap_err().is(Status::FEATURE_NOT_CHANGEABLE));
    features.set_volatile_write_cache(false);
    assert!(features.get(6, Select::Current, 0, 0, NOW).unwrap_err().is(Status::INVALID_FIELD));
    let on = features.set(request(FeatureId::VolatileWriteCache, 1), NOW);
    assert!(on.unwrap_err().is(Status::INVALID_FIELD));
}

#[test]
fn only_power_state_0_can_be_set() {
    let mut features = features();
    assert_eq!(features.set(request(FeatureId::PowerManagement, 2 << 5), NOW), Ok(0));
    assert_eq!(get(&features, FeatureId::PowerManagement, 0).dw0, 2 << 5);
    let other = features.set(request(FeatureId::PowerManagement, 1), NOW);
    assert!(other.unwrap_err().is(Status::INVALID_FIELD));
}

#[test]
fn vectors_are_configured_one_by_one_up_to_the_last() {
    let mut features = features();
    let disabled = |iv: u32| 1 << 16 | iv;
    assert_eq!(get(&features, FeatureId::InterruptVectorConfig, 0).dw0, disabled(0));
    features.set(request(FeatureId::InterruptVectorConfig, disabled(8)), NOW).unwrap();
    assert_eq!(get(&features, FeatureId::InterruptVectorConfig, 8).dw0, disabled(8));
    assert_eq!(get(&features, FeatureId::InterruptVectorConfig, 7).dw0, 7);
    features.set(request(FeatureId::InterruptVectorConfig, 8), NOW).unwrap();
    assert_eq!(get(&features, FeatureId::InterruptVectorConfig, 8).dw0, 8);
    let beyond = features.set(request(FeatureId::InterruptVectorConfig, 9), NOW);
    assert!(beyond.unwrap_err().is(Status::INVALID_FIELD));
    assert!(features.get(9, Select::Current, 9, 0, NOW).unwrap_err().is(Status::INVALID_FIELD));
}

#[test]
fn workers_are_told_of_what_was_set_and_reset() {
    let mut features = features();
    let fresh = features.tuning();
    assert_eq!((fresh.arbitration_burst, fresh.coalescing), (1 << ARBITRATION_BURST, None));
    assert!(fresh.uncoalesced.contains(0) && (1..=8).all(|vector| !fresh.uncoalesced.contains(vector)));
    for burst in 0..8 {
        features.set(request(FeatureId::Arbitration, 0x0102_0300 | burst), NOW).unwrap();
        let expected = if burst == 7 { u32::MAX } else { 1 << burst };
        assert_eq!(features.tuning().arbitration_burst, expected);
    }
    // (THR, 0's based; TIME): a cleared one turns it off (5.27.1.6).
    let coalescing = |threshold, time| Some(Coalescing { threshold, time });
    for ((thr_z, time), expected) in [
        ((0, 0), None),
        ((0, 10), None),
        ((10, 0), None),
        ((1, 1), coalescing(2, 100_000)),
        ((255, 255), coalescing(256, 25_500_000)),
    ] {
        features.set(request(FeatureId::InterruptCoalescing, time << 8 | thr_z), NOW).unwrap();
        assert_eq!(features.tuning().coalescing, expected);
        assert_eq!(get(&features, FeatureId::InterruptCoalescing, 0).dw0, time << 8 | thr_z);
    }
    features.set(request(FeatureId::InterruptVectorConfig, 1 << 16 | 8), NOW).unwrap();
    features.set(request(FeatureId::InterruptVectorConfig, 0), NOW).unwrap();
    let tuning = features.tuning();
    assert_eq!((tuning.coalescing_of(0), tuning.coalescing_of(8)), (tuning.coalescing, None));
    for select in [Select::Default, Select::Saved] {
        for (fid, default) in [(1, u32::from(ARBITRATION_BURST)), (8, 0), (9, 1 << 16)] {
            assert_eq!(features.get(fid, select, 0, 0, NOW).unwrap().dw0, default);
        }
    }
    features.reset();
    assert_eq!(features.tuning(), fresh);
}

#[test]
fn temperature_thresholds_are_over_and_under() {
    let mut features = features();
    let select = |tmpsel, thsel| TemperatureThreshold::new().with_tmpsel(tmpsel).with_thsel(thsel);
    let threshold = |features: &Features, selected: TemperatureThreshold| {
        let value = features.get(4, Select::Current, selected.into_bits(), 0, NOW)?;
        Ok::<_, Status>(TemperatureThreshold::from_bits(value.dw0).tmpth())
    };
    assert_eq!(threshold(&features, select(0, 0)), Ok(WARNING_TEMPERATURE));
    assert_eq!(threshold(&features, select(0, 1)), Ok(0));
    assert_eq!(threshold(&features, select(3, 0)), Ok(0xffff), "no such sensor");
    assert!(threshold(&features, select(9, 0)).is_err());
    assert!(threshold(&features, select(0, 2)).is_err());
    let mut set = |selected: TemperatureThreshold, tmpth| {
        features.set(request(FeatureId::TemperatureThreshold, selected.with_tmpth(tmpth).into_bits()), NOW)
    };
    set(select(0xf, 0), 350).unwrap();
    set(select(0, 1), 280).unwrap();
    assert!(set(select(1, 0), 300).is_err());
    assert_eq!(threshold(&features, select(0, 0)), Ok(350));
    assert_eq!(threshold(&features, select(0, 1)), Ok(280));
    assert!(!features.temperature_warning(313));
    features.set(request(FeatureId::TemperatureThreshold, 300), NOW).unwrap();
    assert!(features.temperature_warning(313));
}

#[test]
fn only_events_that_there_are_can_be_turned_on() {
    let mut features = features();
    features.set(request(FeatureId::AsyncEventConfig, u32::MAX), NOW).unwrap();
    assert_eq!(get(&features, FeatureId::AsyncEventConfig, 0).dw0, 0x9ff);
    assert!(features.async_event_config().namespace_attribute());
    features.reset();
    assert!(!features.async_event_config().namespace_attribute());
}

#[test]
fn the_keep_alive_timeout_is_rounded_up_to_its_granularity() {
    let mut features = features();
    for (asked, kept) in [(0, 0), (1, 100), (100, 100), (101, 200), (u32::MAX, u32::MAX / 100 * 100)] {
        features.set(request(FeatureId::KeepAliveTimer, asked), NOW).unwrap();
        assert_eq!(get(&features, FeatureId::KeepAliveTimer, 0).dw0, kept);
        assert_eq!(features.keep_alive(), Duration::from_millis(kept.into()));
    }
}

#[test]
fn the_timestamp_counts_on_from_what_was_set() {
    let mut features = features();
    assert_eq!(Features::data_len(0x0e, 0), 8);
    let set = Timestamp::new().with_milliseconds(1_000);
    let request = SetRequest { data: set.as_bytes(), ..request(FeatureId::Timestamp, 0) };
    features.set(request, NOW).unwrap();
    let read = |features: &Features, now| {
        let data = features.get(0x0e, Select::Current, 0, 0, now).unwrap().data;
        Timestamp::read_from_bytes(&data).unwrap()
    };
    let later = read(&features, NOW + Duration::from_millis(250));
    assert_eq!((later.milliseconds(), later.origin()), (1_250, TimestampOrigin::SetFeatures));
    let earlier = read(&features, NOW - Duration::from_secs(1));
    assert_eq!(earlier.milliseconds(), 1_000, "a wall clock that was set back");
    features.reset();
    let fresh = read(&features, NOW);
    assert_eq!((fresh.milliseconds(), fresh.origin()), (0, TimestampOrigin::Reset));
}

#[test]
fn the_timestamp_wraps_at_48_bits() {
    let mut features = features();
    let set = Timestamp::new().with_milliseconds((1 << 48) - 1);
    features.set(SetRequest { data: set.as_bytes(), ..request(FeatureId::Timestamp, 0) }, NOW).unwrap();
    let data = features.get(0x0e, Select::Current, 0, 0, NOW + Duration::from_millis(2)).unwrap().data;
    assert_eq!(Timestamp::read_from_bytes(&data).unwrap().milliseconds(), 1);
}

#[test]
fn host_behavior_takes_what_is_supported() {
    let mut features = features();
    let mut set = |value: HostBehaviorSupport| {
        features.set(SetRequest { data: value.as_bytes(), ..request(FeatureId::HostBehaviorSupport, 0) }, NOW)
    };
    let none = HostBehaviorSupport::default();
    assert!(set(HostBehaviorSupport { acre: 2, ..none }).unwrap_err().is(Status::INVALID_FIELD));
    assert!(set(HostBehaviorSupport { etdas: 1, ..none }).unwrap_err().is(Status::INVALID_FIELD));
    assert!(set(HostBehaviorSupport { lbafee: 1, ..none }).unwrap_err().is(Status::INVALID_FIELD));
    set(HostBehaviorSupport { acre: 1, ..none }).unwrap();
    let data = get(&features, FeatureId::HostBehaviorSupport, 0).data;
    assert_eq!((data.len(), data[0]), (512, 1));
}

#[test]
fn the_host_identifier_is_the_configured_one() {
    let mut features = features();
    assert_eq!(get(&features, FeatureId::HostIdentifier, 1).data, HOST_ID);
    let short = features.get(0x81, Select::Current, 0, 0, NOW);
    assert!(short.unwrap_err().is(Status::HOST_ID_INCONSISTENT_FORMAT));
    assert_eq!((Features::data_len(0x81, 0), Features::data_len(0x81, 1)), (8, 16));
    let mut set =
        |data: &[u8]| features.set(SetRequest { data, ..request(FeatureId::HostIdentifier, 1) }, NOW);
    assert_eq!(set(&HOST_ID), Ok(0));
    assert!(set(&[9; 16]).unwrap_err().is(Status::COMMAND_SEQUENCE_ERROR));
    features.reset();
    assert_eq!(get(&features, FeatureId::HostIdentifier, 1).data, HOST_ID);
}

#[test]
fn a_host_identifier_of_64_bits_has_both_forms() {
    let mut id = [0; 16];
    id[..8].fill(0x5a);
    let mut features = Features::new(&LIMITS, id);
    assert_eq!(get(&features, FeatureId::HostIdentifier, 0).data, [0x5a; 8]);
    assert_eq!(get(&features, FeatureId::HostIdentifier, 1).data, id);
    let short = SetRequest { data: &[0x5a; 8], ..request(FeatureId::HostIdentifier, 0) };
    assert_eq!(features.set(short, NOW), Ok(0));
}

#[test]
fn data_of_the_wrong_length_is_refused() {
    let mut features = features();
    for fid in [FeatureId::Timestamp, FeatureId::HostBehaviorSupport, FeatureId::HostIdentifier] {
        assert!(features.set(SetRequest { data: &[0; 3], ..request(fid, 1) }, NOW).is_err());
    }
}

/// What can be read of every feature, by feature.
fn all(features: &Features) -> Vec<(u8, Vec<Result<FeatureValue, Status>>)> {
    let read = |fid: u8, cdw11, nsid| features.get(fid, Select::Current, cdw11, nsid, NOW);
    (0..=0xff)
        .map(|fid| {
            let variants = match fid {
                0x04 => vec![read(fid, 0, 0), read(fid, 1 << 20, 0)],
                0x05 => (0..4).map(|nsid| read(fid, 0, nsid)).collect(),
                0x09 => (0..=9).map(|iv| read(fid, iv, 0)).collect(),
                _ => vec![read(fid, 1, 0)],
            };
            (fid, variants)
        })
        .collect()
}

fn any_fid() -> impl Strategy<Value = u8> {
    prop_oneof![4 => prop::sample::select(SUPPORTED.to_vec()).prop_map(u8::from), 1 => any::<u8>()]
}

proptest! {
    #[test]
    fn setting_a_feature_never_changes_another(
        sets in prop::collection::vec(
            (any_fid(), any::<bool>(), 0..4_u32, prop_oneof![any::<u32>(), 0..512_u32], any::<u8>(), any::<bool>()),
            1..40,
        ),
    ) {
        let mut features = features();
        for (fid, save, nsid, cdw11, byte, queues_exist) in sets {
            let before = all(&features);
            let data = vec![byte; Features::data_len(fid, cdw11)];
            let request = SetRequest { fid, save, nsid, cdw11, data: &data, queues_exist };
            let result = features.set(request, NOW);
            let after = all(&features);
            for ((other, old), (_, new)) in before.iter().zip(&after) {
                if *other != fid || result.is_err() {
                    prop_assert_eq!(old, new, "feature {:02x}h after a Set of {:02x}h", other, fid);
                }
            }
            let (nsq, ncq) = features.queues();
            prop_assert!((1..=8).contains(&nsq) && (1..=8).contains(&ncq));
        }
        let fresh = all(&self::features());
        features.reset();
        for ((fid, after), (_, new)) in all(&features).iter().zip(&fresh) {
            prop_assert_eq!(after, new, "feature {:02x}h after a reset", fid);
        }
    }

    #[test]
    fn get_never_panics_and_defaults_never_change(
        fid in any::<u8>(), sel in 0..8_u8, cdw11 in any::<u32>(), nsid in any::<u32>(),
    ) {
        let mut features = features();
        let select = Select::from_bits(sel);
        let before = features.get(fid, select, cdw11, nsid, NOW);
        let _ = features.set(request(FeatureId::Arbitration, cdw11), NOW);
        if fid != 0x01 || select != Select::Current {
            prop_assert_eq!(before, features.get(fid, select, cdw11, nsid, NOW));
        }
    }
}
