//! The exact bytes of each client, and what must come back.

mod common;

use common::*;
use nvmet_vfio_user::wire::{Header, command, flags};
use nvmet_vfio_user::{Errno, wire};
use std::os::fd::AsFd;
use zerocopy::{FromBytes, IntoBytes};

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// id 0, VERSION, 20 bytes; version 0.1 and nothing else.
const SPDK_VERSION: &str = "00 00 01 00 14 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00";

#[test]
fn spdk_negotiates_without_json_and_asks_for_a_region_with_4064_bytes() {
    let served = Served::new();
    let device = served.add("spdk", Toy::with_doorbells);
    let mut peer = Peer::connect(&served.path("spdk"));
    peer.send(&hex(SPDK_VERSION));
    let (header, body) = peer.reply();
    assert_eq!((header.id, header.command, header.flags), (0, 1, flags::TYPE_REPLY));
    assert_eq!(&body[..4], [0, 0, 1, 0]);
    assert_eq!(body.last(), Some(&0));
    let client = device.call(|toy| toy.client.clone()).unwrap().unwrap();
    assert!(!client.json && !client.reads_errors);
    assert_eq!((client.max_msg_fds, client.max_data_xfer_size), (1, 1 << 20));

    let mut query = hex("00 00 05 00 f0 0f 00 00 00 00 00 00 00 00 00 00 e0 0f 00 00");
    query.resize(16 + 4064, 0);
    peer.send(&query);
    let (header, body, fds) = peer.reply_with_fds();
    assert_eq!((header.id, header.size), (0, 16 + 64));
    let (info, rest) = wire::RegionInfo::read_from_prefix(&body).unwrap();
    assert_eq!((info.argsz, info.flags, info.cap_offset), (64, 0xf, 32));
    assert_eq!((info.size, info.offset), (0x4000, 0));
    let cap = wire::SparseMmap::read_from_bytes(rest).unwrap();
    assert_eq!((cap.cap.id, cap.cap.version, cap.cap.next, cap.nr_areas), (1, 1, 0, [1, 0]));
    assert_eq!((cap.area.offset, cap.area.size), (0x1000, 0x1000));
    assert_eq!(fds.len(), 1);

    // All its ids are 0, and its DMA_UNMAP carries a file descriptor.
    let file = memory(0x2000);
    let map = wire::DmaMap { argsz: 32, flags: 3, offset: 0, addr: 0x10_0000, size: 0x2000 };
    peer.send_fds(&message(0, command::DMA_MAP, 0, map.as_bytes()), &[file.as_fd()]);
    assert_eq!(peer.reply().0, Header { id: 0, command: 2, size: 16, flags: 1, errno: 0 });
    let unmap = wire::DmaUnmap { argsz: 24, flags: 0, addr: 0x10_0000, size: 0x2000 };
    peer.send_fds(&message(0, command::DMA_UNMAP, 0, unmap.as_bytes()), &[file.as_fd()]);
    let (header, body) = peer.reply();
    assert_eq!((header.size, header.errno), (40, 0));
    assert_eq!(body, unmap.as_bytes());
}

#[test]
fn qemu_gets_a_version_reply_no_longer_than_its_request() {
    let served = Served::new();
    let device = served.add("qemu", |toy| toy);
    let mut peer = Peer::connect(&served.path("qemu"));
    let request = version(QEMU_JSON);
    peer.send(&request);
    let (header, body) = peer.reply();
    assert!(header.size as usize <= request.len());
    assert_eq!(&body[..4], [0; 4], "minor no higher than proposed");
    let (nul, json) = body[4..].split_last().unwrap();
    assert_eq!(*nul, 0);
    assert!(json.starts_with(b"{\"capabilities\":{"));
    assert!(device.call(|toy| toy.client.clone().unwrap().reads_errors).unwrap());
}

#[test]
fn qemu_asks_for_a_region_twice_and_gets_the_file_with_the_whole_answer() {
    let served = Served::new();
    let _device = served.add("qemu", Toy::with_doorbells);
    let mut peer = Peer::ready(&served.path("qemu"));
    let ask = |argsz| wire::RegionInfo { argsz, ..Default::default() };
    for (id, argsz) in [(4, 32), (4, 63)] {
        peer.send(&message(id, command::DEVICE_GET_REGION_INFO, 0, ask(argsz).as_bytes()));
        let (header, body, fds) = peer.reply_with_fds();
        let info = wire::RegionInfo::read_from_bytes(&body).unwrap();
        assert_eq!((header.id, info.argsz, info.cap_offset), (id, 64, 0));
        assert_eq!(info.flags, 7, "no CAPS flag without capabilities");
        assert!(fds.is_empty());
    }
    // Cloud Hypervisor sends the second query with the id of the first.
    peer.send(&message(4, command::DEVICE_GET_REGION_INFO, 0, ask(64).as_bytes()));
    let (header, body, fds) = peer.reply_with_fds();
    assert_eq!((header.id, header.size, body.len(), fds.len()), (4, 80, 64, 1));
}

#[test]
fn qemu_pipelines_maps_reads_the_config_space_at_once_and_posts_writes() {
    let served = Served::new();
    let device = served.add("qemu", |toy| toy);
    let mut peer = Peer::ready(&served.path("qemu"));
    let file = memory(0x10000);
    let map = |addr, flags| wire::DmaMap { argsz: 32, flags, offset: 0x1000, addr, size: 0x1000 };
    peer.send_fds(&message(2, command::DMA_MAP, 0, map(0, 3).as_bytes()), &[file.as_fd()]);
    peer.send(&message(3, command::DMA_MAP, 0, map(0xfffc_0000, 1).as_bytes()));
    let info = wire::DeviceInfo { argsz: 16, ..Default::default() };
    peer.send(&message(4, command::DEVICE_GET_INFO, 0, info.as_bytes()));
    assert_eq!(read_exact_reply(&mut peer).0.id, 2);
    assert_eq!(read_exact_reply(&mut peer).0.id, 3);
    let (header, body) = read_exact_reply(&mut peer);
    assert_eq!((header.id, header.size), (4, 32));
    assert_eq!(body, [16u32, 2, 9, 5].as_bytes());
    assert_eq!(
        device.call(|toy| toy.maps.values().map(|m| m.fd.is_some()).collect::<Vec<_>>()).unwrap(),
        [true, false]
    );

    let (header, body) = peer.call(command::REGION_READ, &access(CONFIG, 0, 4096, &[]));
    assert_eq!((header.errno, body.len()), (0, 16 + 4096));
    assert_eq!(body[16..], device.call(|toy| toy.config.clone()).unwrap());

    peer.send(&message(9, command::REGION_WRITE, flags::NO_REPLY, &write(BAR0, NOTE, &[1, 2, 3, 4])));
    peer.send(&message(9, command::REGION_WRITE, flags::NO_REPLY, &write(BAR0, 0x8000, &[1])));
    peer.send(&message(9, 99, flags::NO_REPLY, &[]));
    // The next reply answers the next command: the posted ones got none, and were handled before.
    let (_, body) = peer.call(command::REGION_READ, &access(BAR0, NOTE, 4, &[]));
    assert_eq!(body[16..], [1, 2, 3, 4]);
}

/// Replies to pipelined commands can be joined in the socket.
fn read_exact_reply(peer: &mut Peer) -> (Header, Vec<u8>) {
    use std::io::Read;
    let mut head = [0; 16];
    peer.0.read_exact(&mut head).unwrap();
    let header = Header::read_from_bytes(&head).unwrap();
    let mut body = vec![0; header.size as usize - 16];
    peer.0.read_exact(&mut body).unwrap();
    (header, body)
}

#[test]
fn an_access_outside_a_region_succeeds_reads_ones_and_writes_nothing() {
    let served = Served::new();
    let device = served.add("any", |toy| toy);
    let mut peer = Peer::ready(&served.path("any"));
    let before = device.call(|toy| toy.bar.clone()).unwrap();
    for (region, offset) in [(BAR0, 0x3ffe), (BAR0, u64::MAX), (3, 0), (8, 0), (77, 0), (CONFIG, 4096)] {
        let (header, body) = peer.call(command::REGION_READ, &access(region, offset, 4, &[]));
        assert_eq!((header.flags, header.size), (flags::TYPE_REPLY, 36), "read {region} {offset:#x}");
        assert_eq!(body[16..], [0xff; 4]);
        let (header, body) = peer.call(command::REGION_WRITE, &write(region, offset, &[1, 2, 3, 4]));
        assert_eq!((header.flags, body.len()), (flags::TYPE_REPLY, 16), "write {region} {offset:#x}");
    }
    let (header, body) = peer.call(command::REGION_READ, &access(BAR0, 0, 0, &[]));
    assert_eq!((header.flags, body.len()), (flags::TYPE_REPLY, 16));
    assert_eq!(device.call(|toy| toy.bar.clone()).unwrap(), before);
}

#[test]
fn absent_regions_and_interrupts_are_described_as_empty() {
    let served = Served::new();
    let _device = served.add("any", |toy| toy);
    let mut peer = Peer::ready(&served.path("any"));
    for index in 0..9 {
        let ask = wire::RegionInfo { argsz: 32, index, ..Default::default() };
        let (header, body) = peer.call(command::DEVICE_GET_REGION_INFO, ask.as_bytes());
        let info = wire::RegionInfo::read_from_bytes(&body).unwrap();
        assert_eq!((header.errno, info.index, info.argsz), (0, index, 32));
        assert_eq!(info.size > 0, index == BAR0 || index == CONFIG);
    }
    for index in 0..5 {
        let ask = wire::IrqInfo { argsz: 16, index, ..Default::default() };
        let (header, body) = peer.call(command::DEVICE_GET_IRQ_INFO, ask.as_bytes());
        assert_eq!((header.errno, header.size), (0, 32));
        let info = wire::IrqInfo::read_from_bytes(&body).unwrap();
        assert_eq!(info.count, [0, 0, VECTORS, 1, 0][index as usize]);
    }
    let ask = wire::RegionIoFds { argsz: 16, index: 0, ..Default::default() };
    let (_, body) = peer.call(command::DEVICE_GET_REGION_IO_FDS, ask.as_bytes());
    assert_eq!(body, [16u32, 0, 0, 0].as_bytes());
    let ask = wire::RegionInfo { argsz: 32, index: 9, ..Default::default() };
    assert_eq!(peer.call(command::DEVICE_GET_REGION_INFO, ask.as_bytes()).0.errno, 22);
}

#[test]
fn an_error_reply_is_a_header_and_the_stream_stays_in_step() {
    let served = Served::new();
    let _device = served.add("any", |toy| toy);
    let mut peer = Peer::ready(&served.path("any"));
    let not_served = Errno::NOTSUP.raw_os_error() as u32;
    for (command, body, errno) in [
        (command::VERSION, vec![0; 4], 22),
        (command::DMA_READ, vec![0; 16], not_served),
        (command::DMA_WRITE, vec![0; 500], not_served),
        (14, vec![0; 64], not_served),
        (16, vec![0; 8], not_served),
        (0xffff, vec![0; 100_000], not_served),
        (command::REGION_WRITE, vec![0; 17], 22),
        (command::DEVICE_GET_INFO, vec![], 22),
    ] {
        let (header, body) = peer.call(command, &body);
        assert_eq!((header.flags, header.errno, body.len()), (0x21, errno, 0), "command {command}");
    }
    assert_eq!(peer.call(command::DEVICE_RESET, &[]).0.errno, 0);
}

#[test]
fn unmapping_what_is_not_mapped_is_an_error_only_to_who_can_read_it() {
    let served = Served::new();
    let _device = served.add("any", |toy| toy);
    let unmap = wire::DmaUnmap { argsz: 24, flags: 0, addr: 0x1000, size: 0x1000 };
    let mut peer = Peer::ready(&served.path("any"));
    assert_eq!(peer.call(command::DMA_UNMAP, unmap.as_bytes()).0.errno, 2);
    drop(peer);

    let mut peer = Peer::connect(&served.path("any"));
    peer.send(&version(b"{\"capabilities\":{\"max_msg_fds\":1,\"migration\":{\"pgsize\":4096}}}\0"));
    peer.reply();
    let (header, body) = peer.call(command::DMA_UNMAP, unmap.as_bytes());
    assert_eq!((header.flags, header.size), (1, 40));
    assert_eq!(body, unmap.as_bytes());
    // What cannot be unmapped must not be told to be: half of a map.
    let map = wire::DmaMap { argsz: 32, flags: 3, offset: 0, addr: 0x1000, size: 0x2000 };
    assert_eq!(peer.call(command::DMA_MAP, map.as_bytes()).0.errno, 0);
    peer.send(&message(8, command::DMA_UNMAP, 0, unmap.as_bytes()));
    assert!(peer.rest().is_empty());
}

#[test]
fn write_multi_is_understood_also_when_one_of_its_writes_takes_time() {
    let served = Served::new();
    let device = served.add("any", |toy| toy);
    let mut peer = Peer::ready(&served.path("any"));
    let entry = |offset, count, value| wire::MultiWrite {
        access: wire::RegionAccess { offset, region: BAR0, count },
        data: [value; 8],
    };
    let entries = [entry(NOTE, 4, 1), entry(SLOW, 4, 2), entry(NOTE, 8, 3), entry(1 << 40, 8, 4)];
    peer.send(&message(5, command::REGION_WRITE_MULTI, 0, &[4u64.as_bytes(), entries.as_bytes()].concat()));
    eventually(&device, |toy| toy.pending);
    assert_eq!(device.call(|toy| toy.log.lock().unwrap().len()).unwrap(), 2);
    device.call(Toy::finish).unwrap();
    let (header, body) = peer.reply();
    assert_eq!((header.id, header.flags, body.as_slice()), (5, 1, 4u64.as_bytes()));
    let log = device.call(|toy| toy.log.lock().unwrap().clone()).unwrap();
    assert_eq!(log[1..], ["write [1, 1, 1, 1]", "write [3, 3, 3, 3, 3, 3, 3, 3]"]);
}

#[test]
fn another_major_version_and_anything_before_version_end_the_connection() {
    let served = Served::new();
    let _device = served.add("any", |toy| toy);
    for first in [
        message(1, command::VERSION, 0, &[1, 0, 0, 0]),
        message(1, command::VERSION, 0, &[0, 0, 0]),
        message(1, command::VERSION, 0, b"\0\0\0\0{\"capabilities\":7}\0"),
        message(1, command::DEVICE_RESET, 0, &[]),
    ] {
        let mut peer = Peer::connect(&served.path("any"));
        peer.send(&first);
        let rest = peer.rest();
        let header = Header::read_from_bytes(&rest).unwrap();
        assert_eq!((header.id, header.flags), (1, 0x21));
    }
    Peer::ready(&served.path("any"));
}
