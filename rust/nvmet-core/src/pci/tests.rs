use proptest::prelude::*;

use super::*;

const CONFIG: PciConfig = PciConfig {
    ids: PciIds { vendor: 0x1af4, device: 0x10f8, subsystem_vendor: 0x1af4, subsystem: 0x10f8, revision: 1 },
    bar0_size: MIN_BAR0_SIZE,
    vectors: 65,
    serial: Some(0x0211_2233_4455_6677),
};

/// Where the capability list of [`CONFIG`] puts things; found by walking it, asserted once below.
const PMCSR: u64 = 0x44;
const MSIX_CONTROL: u64 = 0x52;
const DEVICE_CONTROL: u64 = 0x88;
const LINK_CONTROL: u64 = 0x90;

fn function() -> PciFunction {
    PciFunction::new(CONFIG).expect("valid")
}

fn read<const N: usize>(function: &PciFunction, offset: u64) -> [u8; N] {
    let mut data = [0; N];
    function.read(offset, &mut data);
    data
}

fn read16(function: &PciFunction, offset: u64) -> u16 {
    u16::from_le_bytes(read(function, offset))
}

fn read32(function: &PciFunction, offset: u64) -> u32 {
    u32::from_le_bytes(read(function, offset))
}

fn whole(function: &PciFunction) -> Vec<u8> {
    function.snapshot().config_space
}

/// Writes where the outcome does not matter to the test.
fn poke(function: &mut PciFunction, offset: u64, data: &[u8]) {
    let _ = function.write(offset, data);
}

/// The capability list as a guest walks it: (id, offset).
fn capabilities(function: &PciFunction) -> Vec<(u8, u64)> {
    let mut found = Vec::new();
    let [mut at] = read::<1>(function, 0x34);
    while at != 0 {
        assert_eq!(at % 4, 0);
        assert!(at >= 0x40);
        assert!(found.len() < 48, "the list loops");
        let [id, next] = read::<2>(function, u64::from(at));
        found.push((id, u64::from(at)));
        at = next;
    }
    found
}

#[test]
fn the_header_is_that_of_an_nvme_controller_without_legacy_parts() {
    let function = function();
    assert_eq!(read32(&function, 0x00), 0x10f8_1af4);
    assert_eq!(read16(&function, 0x04), 0, "everything off");
    assert_eq!(read16(&function, 0x06), 0x0010, "a capability list, no interrupt pending");
    assert_eq!(read::<4>(&function, 0x08), [1, 0x02, 0x08, 0x01]);
    assert_eq!(read::<1>(&function, 0x0e), [0], "type 0, one function");
    assert_eq!(read32(&function, 0x2c), 0x10f8_1af4);
    assert_eq!(read::<1>(&function, 0x3d), [0], "no interrupt pin");
}

#[test]
fn the_capability_list_ends_and_has_pm_msix_and_express() {
    let found = capabilities(&function());
    assert_eq!(found, [(0x01, PMCSR - 4), (0x11, MSIX_CONTROL - 2), (0x10, DEVICE_CONTROL - 8)]);
}

#[test]
fn the_extended_list_is_one_serial_number_or_nothing() {
    let with = function();
    assert_eq!(read32(&with, 0x100), 0x0001_0003, "id 3, version 1, last");
    assert_eq!(u64::from_le_bytes(read(&with, 0x104)), 0x0211_2233_4455_6677);
    let without = PciFunction::new(PciConfig { serial: None, ..CONFIG }).expect("valid");
    assert_eq!(read32(&without, 0x100), 0);
}

#[test]
fn sizing_a_bar_gives_its_size_and_type() {
    for bar0_size in [MIN_BAR0_SIZE, 64 << 10, MAX_BAR0_SIZE] {
        for vectors in [1, 65, msix::MAX_VECTORS] {
            let mut function = PciFunction::new(PciConfig { bar0_size, vectors, ..CONFIG }).expect("valid");
            for bar in 0..6 {
                poke(&mut function, 0x10 + 4 * bar, &[0xff; 4]);
            }
            let low = read32(&function, 0x10);
            let high = read32(&function, 0x14);
            assert_eq!(low & 0xf, 0b0100, "64-bit memory, not prefetchable");
            let mask = u64::from(high) << 32 | u64::from(low & !0xf);
            assert_eq!(!mask + 1, bar0_size);
            assert_eq!((read32(&function, 0x18), read32(&function, 0x1c)), (0, 0));
            for bar in [4, 5] {
                let value = read32(&function, 0x10 + 4 * bar);
                assert_eq!(value & 0xf, 0, "32-bit memory, not prefetchable");
                assert_eq!(u64::from(!value + 1), function.bar_size(bar as usize));
            }
            assert_eq!([1, 2, 3, 6].map(|bar| function.bar_size(bar)), [0; 4]);
            assert_eq!(function.bar_size(0), bar0_size);
            assert!(function.bar_size(4) >= u64::from(vectors) * 16);
        }
    }
}

#[test]
fn there_is_no_rom_to_size() {
    let mut function = function();
    for mask in [0xffff_ffff_u32, 0xffff_f800, 0xffff_fffe] {
        poke(&mut function, 0x30, &mask.to_le_bytes());
        assert_eq!(read32(&function, 0x30), 0);
    }
}

#[test]
fn command_keeps_what_a_function_without_io_has_and_tells_of_bus_master() {
    let mut function = function();
    let effects = function.write(0x04, &[0xff, 0xff]);
    assert_eq!(effects, Effects { bus_master: Some(true), memory_space: Some(true), ..Effects::default() });
    assert_eq!(read16(&function, 0x04), 0x0546);
    assert!(function.bus_master() && function.memory_space());
    assert!(function.write(0x04, &0x0406_u16.to_le_bytes()).is_empty(), "nothing changed for the device");
    let effects = function.write(0x04, &0x0402_u16.to_le_bytes());
    assert_eq!(effects, Effects { bus_master: Some(false), ..Effects::default() });
}

#[test]
fn a_dword_write_reaches_command_and_leaves_status_alone() {
    let mut function = function();
    let effects = function.write(0x04, &0x0000_0404_u32.to_le_bytes());
    assert_eq!(effects.bus_master, Some(true));
    assert_eq!(read32(&function, 0x04), 0x0010_0404);
}

#[test]
fn status_errors_are_cleared_by_ones_only() {
    let mut function = function();
    function.registers[0x07] = 0xf9;
    poke(&mut function, 0x06, &[0x00, 0x00]);
    assert_eq!(read16(&function, 0x06), 0xf910);
    poke(&mut function, 0x06, &[0xff, 0x81]);
    assert_eq!(read16(&function, 0x06), 0x7810);
    poke(&mut function, 0x06, &[0xff, 0xff]);
    assert_eq!(read16(&function, 0x06), 0x0010);
}

#[test]
fn initiate_flr_is_reported_and_reads_zero() {
    let mut function = function();
    let control = read16(&function, DEVICE_CONTROL);
    assert_eq!(read32(&function, DEVICE_CONTROL - 4) >> 28, 1, "FLR capable");
    for effects in [
        function.write(DEVICE_CONTROL, &(control | 0x8000).to_le_bytes()),
        function.write(DEVICE_CONTROL + 1, &[(control >> 8) as u8 | 0x80]),
    ] {
        assert_eq!(effects, Effects { flr: true, ..Effects::default() });
    }
    assert_eq!(read16(&function, DEVICE_CONTROL), control);
    assert!(function.write(DEVICE_CONTROL, &[0x80]).is_empty(), "bit 7 is not bit 15");
}

#[test]
fn power_goes_to_d3hot_and_back_and_nowhere_else() {
    let mut function = function();
    poke(&mut function, 0x04, &[0x06]);
    assert_eq!(function.power_state(), PowerState::D0);
    assert_eq!(function.write(PMCSR, &[0b11]).power_state, Some(PowerState::D3hot));
    assert!(function.write(PMCSR, &[0b01]).is_empty(), "D1 is not supported");
    assert!(function.write(PMCSR, &[0b10, 0xff]).is_empty(), "D2 is not supported");
    assert_eq!(read16(&function, PMCSR), 0b1011);
    let effects = function.write(PMCSR, &[0b00]);
    assert_eq!(effects, Effects { power_state: Some(PowerState::D0), ..Effects::default() });
    assert!(function.bus_master(), "no soft reset");
}

#[test]
fn msix_control_has_its_size_and_tells_of_enable_and_mask() {
    let mut function = function();
    assert_eq!(read16(&function, MSIX_CONTROL), 64, "0's based");
    assert_eq!(read32(&function, MSIX_CONTROL + 2), 4, "table at offset 0 of BAR4");
    assert_eq!(read32(&function, MSIX_CONTROL + 6), 5, "PBA at offset 0 of BAR5");
    let effects = function.write(MSIX_CONTROL, &[0xff, 0xff]);
    assert_eq!(effects.msix, Some(MsixControl { enabled: true, masked: true }));
    assert_eq!(read16(&function, MSIX_CONTROL), 0xc040);
    let effects = function.write(MSIX_CONTROL, &[0x00, 0x80]);
    assert_eq!(effects.msix, Some(MsixControl { enabled: true, masked: false }));
    assert_eq!(function.msix_control(), MsixControl { enabled: true, masked: false });
}

#[test]
fn the_link_runs_as_fast_as_it_can() {
    let function = function();
    let capabilities = read32(&function, LINK_CONTROL - 4);
    let status = read16(&function, LINK_CONTROL + 2);
    assert_eq!(capabilities & 0x3ff, u32::from(status & 0x3ff), "or Linux says that bandwidth is limited");
    assert_eq!(capabilities >> 10 & 0b11, 0, "no ASPM");
}

#[test]
fn a_conventional_reset_brings_back_the_first_state() {
    let mut function = function();
    let fresh = whole(&function);
    poke(&mut function, 0, &[0xff; 0x88]);
    poke(&mut function, LINK_CONTROL, &[0xff; 2]);
    assert_ne!(whole(&function), fresh);
    let effects = function.reset(Reset::Conventional);
    assert_eq!(effects.bus_master, Some(false));
    assert_eq!(effects.power_state, Some(PowerState::D0));
    assert_eq!(effects.msix, Some(MsixControl { enabled: false, masked: false }));
    assert_eq!(whole(&function), fresh);
    assert!(function.reset(Reset::Conventional).is_empty());
}

#[test]
fn a_function_level_reset_leaves_the_link_alone() {
    let mut function = function();
    let fresh = whole(&function);
    poke(&mut function, 0x04, &[0x06, 0x04]);
    poke(&mut function, 0x10, &[0xff; 8]);
    poke(&mut function, MSIX_CONTROL, &[0x00, 0x80]);
    poke(&mut function, LINK_CONTROL, &[0x40]);
    assert_eq!(function.reset(Reset::Function).bus_master, Some(false));
    assert_eq!(read16(&function, LINK_CONTROL), 0x40);
    poke(&mut function, LINK_CONTROL, &[0x00]);
    assert_eq!(whole(&function), fresh);
}

#[test]
fn outside_of_config_space_reads_ones_and_swallows_writes() {
    let mut function = function();
    let before = whole(&function);
    assert_eq!(read::<8>(&function, 4092), [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    for offset in [4096, u64::MAX - 3, u64::MAX] {
        assert_eq!(read::<8>(&function, offset), [0xff; 8]);
        assert!(function.write(offset, &[0xff; 8]).is_empty());
    }
    assert_eq!(whole(&function), before);
}

#[test]
fn a_bad_configuration_is_named() {
    for size in [0, 4096, MIN_BAR0_SIZE / 2, MIN_BAR0_SIZE + 1, MAX_BAR0_SIZE * 2, u64::MAX] {
        let error = PciFunction::new(PciConfig { bar0_size: size, ..CONFIG }).expect_err("refused");
        assert_eq!(error, PciError::Bar0Size { size });
    }
    for vectors in [0, 2049] {
        let error = PciFunction::new(PciConfig { vectors, ..CONFIG }).expect_err("refused");
        assert_eq!(error, PciError::Vectors { vectors });
    }
    let ids = PciIds { vendor: 0xffff, ..PciIds::default() };
    assert!(matches!(PciFunction::new(PciConfig { ids, ..CONFIG }), Err(PciError::ReservedVendor { .. })));
}

#[test]
fn a_state_of_another_function_is_refused_and_changes_nothing() {
    let mut function = function();
    poke(&mut function, 0x04, &[0x06]);
    let before = function.snapshot();
    let other = PciFunction::new(PciConfig { vectors: 64, ..CONFIG }).expect("valid").snapshot();
    assert_eq!(function.restore(&other), Err(PciError::StateMismatch { offset: 0x52, saved: 63, here: 64 }));
    let short = PciState { config_space: vec![0; 256] };
    assert_eq!(function.restore(&short), Err(PciError::StateLength { length: 256 }));
    let mut in_d1 = before.clone();
    in_d1.config_space[PMCSR as usize] |= 0b01;
    assert!(matches!(function.restore(&in_d1), Err(PciError::StateMismatch { offset: 0x44, .. })));
    assert_eq!(function.snapshot(), before);
}

/// One thing a client can do to config space.
#[derive(Clone, Debug)]
enum Op {
    Write(u64, Vec<u8>),
    Reset(Reset),
}

fn op() -> impl Strategy<Value = Op> {
    // Half of the writes go to the registers that matter, the rest anywhere and beyond the end.
    let offset = prop_oneof![0u64..0x110, 0u64..4200, Just(u64::MAX)];
    prop_oneof![
        9 => (offset, prop::collection::vec(any::<u8>(), 0..16)).prop_map(|(at, data)| Op::Write(at, data)),
        1 => prop_oneof![Just(Reset::Function), Just(Reset::Conventional)].prop_map(Op::Reset),
    ]
}

fn apply(function: &mut PciFunction, op: &Op) -> Effects {
    match op {
        Op::Write(offset, data) => function.write(*offset, data),
        Op::Reset(reset) => function.reset(*reset),
    }
}

proptest! {
    #[test]
    fn no_write_changes_a_read_only_bit(ops in prop::collection::vec(op(), 1..40)) {
        let mut function = function();
        // What can be written, learned as a guest would: all ones, compared with all zeros.
        let (mut ones, mut zeros) = (function.clone(), function.clone());
        poke(&mut ones, 0, &[0xff; 4096]);
        poke(&mut zeros, 0, &[0x00; 4096]);
        let (fresh, ones, zeros) = (whole(&function), whole(&ones), whole(&zeros));
        for op in &ops {
            let _ = apply(&mut function, op);
        }
        for (at, now) in whole(&function).iter().enumerate() {
            let writable = ones[at] ^ zeros[at];
            prop_assert_eq!((now ^ fresh[at]) & !writable, 0, "offset {:#x}", at);
        }
        prop_assert_eq!(capabilities(&function).len(), 3);
    }

    #[test]
    fn effects_follow_the_getters(ops in prop::collection::vec(op(), 1..40)) {
        let mut function = function();
        for op in &ops {
            let before = (function.bus_master(), function.memory_space(), function.power_state(), function.msix_control());
            let effects = apply(&mut function, op);
            let after = (function.bus_master(), function.memory_space(), function.power_state(), function.msix_control());
            prop_assert_eq!(effects.bus_master, (before.0 != after.0).then_some(after.0));
            prop_assert_eq!(effects.memory_space, (before.1 != after.1).then_some(after.1));
            prop_assert_eq!(effects.power_state, (before.2 != after.2).then_some(after.2));
            prop_assert_eq!(effects.msix, (before.3 != after.3).then_some(after.3));
        }
    }

    #[test]
    fn a_write_and_the_same_write_byte_by_byte_are_equal(
        before in prop::collection::vec(op(), 0..10), at in 0u64..0x110, data in prop::collection::vec(any::<u8>(), 1..16),
    ) {
        let mut function = function();
        for op in &before {
            let _ = apply(&mut function, op);
        }
        let mut bytewise = function.clone();
        let flr = function.write(at, &data).flr;
        let mut bytewise_flr = false;
        for (offset, byte) in (at..).zip(&data) {
            bytewise_flr |= bytewise.write(offset, &[*byte]).flr;
        }
        prop_assert_eq!(flr, bytewise_flr);
        prop_assert_eq!(whole(&function), whole(&bytewise));
    }

    #[test]
    fn reads_are_equal_at_any_split(ops in prop::collection::vec(op(), 0..20), at in 0usize..4200, length in 0usize..300) {
        let mut function = function();
        for op in &ops {
            let _ = apply(&mut function, op);
        }
        let mut all = whole(&function);
        all.resize(4500, 0xff);
        let mut part = vec![0; length];
        function.read(at as u64, &mut part);
        prop_assert_eq!(&part, &all[at..at + length]);
    }

    #[test]
    fn a_restored_function_is_the_saved_one(ops in prop::collection::vec(op(), 0..40)) {
        let mut saved = function();
        for op in &ops {
            let _ = apply(&mut saved, op);
        }
        let mut restored = function();
        let effects = restored.restore(&saved.snapshot()).expect("the same function");
        prop_assert_eq!(restored.snapshot(), saved.snapshot());
        prop_assert_eq!(effects.bus_master, saved.bus_master().then_some(true));
    }
}
