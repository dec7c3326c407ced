use super::*;
use crate::wire::{DEFAULT_MAX_DATA_XFER_SIZE, HEADER_SIZE, MAX_MESSAGE_SIZE};
use proptest::prelude::*;
use zerocopy::IntoBytes;

fn ok(command: u16, body: &[u8]) -> Request<'_> {
    decode(command, body, 0, DEFAULT_MAX_DATA_XFER_SIZE).unwrap()
}

fn refused(command: u16, body: &[u8], fds: usize) -> Errno {
    decode(command, body, fds, DEFAULT_MAX_DATA_XFER_SIZE).unwrap_err()
}

#[test]
fn only_commands_of_a_possible_size_have_a_boundary() {
    let of = |size, flags| {
        let header = Header { id: 1, command: 4, size, flags, errno: 0 };
        super::header(header.as_bytes().try_into().unwrap()).1
    };
    assert_eq!(of(HEADER_SIZE as u32, 0), Ok(0));
    assert_eq!(of(MAX_MESSAGE_SIZE, flags::NO_REPLY), Ok(MAX_MESSAGE_SIZE as usize - HEADER_SIZE));
    assert_eq!(of(15, 0), Err(HeaderError::Size(15)));
    assert_eq!(of(MAX_MESSAGE_SIZE + 1, 0), Err(HeaderError::Size(MAX_MESSAGE_SIZE + 1)));
    assert_eq!(of(16, flags::TYPE_REPLY), Err(HeaderError::Type(1)));
}

#[test]
fn a_body_that_is_too_short_is_invalid() {
    for (command, least) in
        [(1, 4), (2, 32), (3, 24), (4, 16), (5, 32), (6, 16), (7, 16), (8, 20), (9, 16), (10, 16), (15, 8)]
    {
        assert_eq!(refused(command, &vec![0; least - 1], 0), Errno::INVAL, "command {command}");
    }
}

#[test]
fn spdk_asks_for_a_region_with_a_body_of_4064_bytes() {
    let mut body = vec![0; 4064];
    body[..4].copy_from_slice(&4064u32.to_ne_bytes());
    body[8] = 7;
    assert_eq!(ok(command::DEVICE_GET_REGION_INFO, &body), Request::GetRegionInfo { index: 7, argsz: 4064 });
}

#[test]
fn argsz_must_leave_room_for_the_fixed_part() {
    let info = wire::DeviceInfo { argsz: 15, ..Default::default() };
    assert_eq!(refused(command::DEVICE_GET_INFO, info.as_bytes(), 0), Errno::INVAL);
    let info = wire::RegionInfo { argsz: 31, ..Default::default() };
    assert_eq!(refused(command::DEVICE_GET_REGION_INFO, info.as_bytes(), 0), Errno::INVAL);
}

#[test]
fn a_dma_map_may_end_at_the_top_of_the_address_space_but_not_wrap() {
    let map = |addr, size, offset, flags| wire::DmaMap { argsz: 32, flags, offset, addr, size };
    let good = map(u64::MAX - 4095, 4096, 0, 3);
    assert_eq!(ok(command::DMA_MAP, good.as_bytes()), Request::DmaMap(good));
    for bad in [
        map(u64::MAX - 4094, 4096, 0, 3),
        map(0, 0, 0, 3),
        map(0, 4096, u64::MAX, 3),
        map(0, 1, 0, 0),
        map(0, 1, 0, 16 | 3),
    ] {
        assert_eq!(refused(command::DMA_MAP, bad.as_bytes(), 0), Errno::INVAL);
    }
    assert_eq!(refused(command::DMA_MAP, good.as_bytes(), 2), Errno::INVAL);
}

#[test]
fn unmap_takes_a_range_or_everything_and_tolerates_a_file_descriptor() {
    let unmap = |flags, addr, size| wire::DmaUnmap { argsz: 24, flags, addr, size };
    let one = unmap(0, 4096, 8192);
    let expect = Request::DmaUnmap { echo: one, range: DmaUnmap::Range { addr: 4096, size: 8192 } };
    assert_eq!(decode(command::DMA_UNMAP, one.as_bytes(), 1, 0), Ok(expect));
    assert!(matches!(ok(3, unmap(2, 0, 0).as_bytes()), Request::DmaUnmap { range: DmaUnmap::All, .. }));
    assert_eq!(refused(3, unmap(2, 0, 4096).as_bytes(), 0), Errno::INVAL);
    assert_eq!(refused(3, unmap(1, 0, 4096).as_bytes(), 0), Errno::NOTSUP);
    assert_eq!(refused(3, unmap(0, 0, 0).as_bytes(), 0), Errno::INVAL);
}

#[test]
fn set_irqs_wants_one_data_and_one_action_flag() {
    let set = |flags, count| wire::IrqSet { argsz: 20, flags, index: 2, start: 0, count };
    let eventfds = set(0x24, 3);
    assert!(matches!(
        decode(8, eventfds.as_bytes(), 3, 0),
        Ok(Request::SetIrqs { action: IrqAction::Trigger, data: IrqSelector::Eventfd, .. })
    ));
    assert!(decode(8, eventfds.as_bytes(), 0, 0).is_ok(), "none: take them away");
    assert_eq!(refused(8, eventfds.as_bytes(), 2), Errno::INVAL);
    assert!(matches!(ok(8, set(0x21, 0).as_bytes()), Request::SetIrqs { data: IrqSelector::None, .. }));
    for flags in [0, 0x20, 0x04, 0x25, 0x34, 0x64, 0x22] {
        assert_eq!(refused(8, set(flags, 1).as_bytes(), 1), Errno::INVAL, "flags {flags:#x}");
    }
    let mut bools = set(0x22, 2).as_bytes().to_vec();
    bools.extend([1, 0]);
    assert!(matches!(ok(8, &bools), Request::SetIrqs { data: IrqSelector::Bool(&[1, 0]), .. }));
    assert_eq!(refused(8, set(0x22, u32::MAX).as_bytes(), 0), Errno::INVAL);
}

#[test]
fn region_counts_must_match_the_data() {
    let access = wire::RegionAccess { offset: 0x14, region: 0, count: 4 };
    let mut body = access.as_bytes().to_vec();
    assert_eq!(refused(10, &body, 0), Errno::INVAL);
    body.extend([1, 2, 3, 4]);
    assert_eq!(ok(10, &body), Request::RegionWrite { access, data: &[1, 2, 3, 4] });
    body.push(5);
    assert_eq!(refused(10, &body, 0), Errno::INVAL);
    let big = wire::RegionAccess { count: DEFAULT_MAX_DATA_XFER_SIZE + 1, ..access };
    assert_eq!(refused(9, big.as_bytes(), 0), Errno::INVAL);
}

#[test]
fn write_multi_is_understood_and_bounded() {
    let entry =
        wire::MultiWrite { access: wire::RegionAccess { offset: 8, region: 0, count: 4 }, data: [9; 8] };
    let mut body = 2u64.to_ne_bytes().to_vec();
    body.extend(entry.as_bytes());
    assert_eq!(refused(15, &body, 0), Errno::INVAL);
    body.extend(entry.as_bytes());
    assert_eq!(ok(15, &body), Request::RegionWriteMulti(vec![entry, entry]));
    body[0] = 3;
    assert_eq!(refused(15, &body, 0), Errno::INVAL);
}

#[test]
fn what_is_not_served_is_refused() {
    for command in [0, 11, 12, 14, 16, 17, 18, 19, 0xffff] {
        assert_eq!(refused(command, &[0; 64], 0), Errno::NOTSUP);
    }
}

proptest! {
    #[test]
    fn any_message_decodes_or_is_refused(
        command in 0u16..20,
        body in proptest::collection::vec(any::<u8>(), 0..300),
        fds in 0usize..40,
    ) {
        if let Ok(Request::RegionRead(access)) = decode(command, &body, fds, 4096) {
            prop_assert!(access.count <= 4096);
        }
    }
}
