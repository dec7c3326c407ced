//! Whole clients end to end: the one inside Cloud Hypervisor, and this crate's own.

mod common;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use common::*;
use nvmet_vfio_user::client::{Client, ClientError, ClientOptions, MapRange, Profile};
use nvmet_vfio_user::wire;
use nvmet_vfio_user::{Errno, IrqAction};

const RANGE: MapRange =
    MapRange { addr: 0x10_0000, size: 0x2000, offset: 0x1000, readable: true, writable: true };

#[test]
fn cloud_hypervisors_client_finds_the_device_and_uses_it() {
    let served = Served::new();
    let device = served.add("ch", Toy::with_doorbells);
    let mut client = vfio_user::Client::new(&served.path("ch")).unwrap();
    let bar = client.region(BAR0).unwrap();
    assert_eq!((bar.size, bar.flags), (0x4000, 0xf));
    let areas: Vec<_> = bar.sparse_areas.iter().map(|area| (area.offset, area.size)).collect();
    assert_eq!(areas, [(0x1000, 0x1000)]);
    assert_eq!(bar.file_offset.as_ref().unwrap().start(), 0);
    assert!(client.region(CONFIG).unwrap().file_offset.is_none());
    assert!(client.resettable(), "it takes a clear flag for resettable");
    let info = device.call(|toy| toy.client.clone()).unwrap().unwrap();
    assert!(info.json && !info.reads_errors);

    let mut data = [0; 4];
    client.region_read(BAR0, 0x10, &mut data).unwrap();
    assert_eq!(data, [0x10, 0x11, 0x12, 0x13]);
    client.region_write(BAR0, NOTE, &[9; 8]).unwrap();
    client.region_read(BAR0, u64::MAX, &mut data).unwrap();
    assert_eq!(data, [0xff; 4]);

    let file = memory(0x4000);
    client.dma_map(RANGE.offset, RANGE.addr, RANGE.size, file.as_raw_fd()).unwrap();
    let mapped =
        |toy: &mut Toy| toy.maps.values().map(|m| (m.addr, m.size, m.offset, m.fd.is_some())).collect();
    let maps: Vec<_> = device.call(mapped).unwrap();
    assert_eq!(maps, [(RANGE.addr, RANGE.size, RANGE.offset, true)]);
    client.dma_unmap(RANGE.addr, RANGE.size).unwrap();
    client.dma_unmap(RANGE.addr, RANGE.size).unwrap();
    client.reset().unwrap();
    client.shutdown().unwrap();
    eventually(&device, |toy| toy.client.is_none());
    let log = device.call(|toy| toy.log.lock().unwrap().clone()).unwrap();
    assert_eq!(log, ["attached", "write [9, 9, 9, 9, 9, 9, 9, 9]", "reset", "detached"]);
}

#[test]
fn cloud_hypervisor_sets_up_more_vectors_than_a_message_takes() {
    let served = Served::new();
    let device = served.add("ch", |toy| toy);
    let mut client = vfio_user::Client::new(&served.path("ch")).unwrap();
    assert_eq!(client.get_irq_info(MSIX).unwrap().count, VECTORS);
    assert_eq!(client.get_irq_info(0).unwrap().count, 0);
    let eventfds: Vec<OwnedFd> = (0..VECTORS).map(|_| eventfd()).collect();
    for (i, chunk) in eventfds.chunks(16).enumerate() {
        let fds: Vec<_> = chunk.iter().map(AsRawFd::as_raw_fd).collect();
        client.set_irqs(MSIX, 0x24, 16 * i as u32, fds.len() as u32, &fds).unwrap();
    }
    device.call(|toy| (0..VECTORS as usize).for_each(|vector| toy.fire(vector))).unwrap();
    assert!(eventfds.iter().all(|eventfd| fired(eventfd) == 1));
    client.set_irqs(MSIX, 0x21, 0, 0, &[]).unwrap();
    assert!(device.call(|toy| toy.eventfds.iter().all(Option::is_none)).unwrap());
}

#[test]
fn our_client_sees_what_the_device_says() {
    let served = Served::new();
    let device = served.add("own", Toy::with_doorbells);
    for profile in [Profile::Capabilities, Profile::Bare] {
        let options = ClientOptions { profile, ..Default::default() };
        let mut client = Client::connect(served.path("own"), options).unwrap();
        assert_eq!(client.server().max_msg_fds, wire::SERVER_MAX_MSG_FDS);
        let json = device.call(|toy| toy.client.as_ref().unwrap().json).unwrap();
        assert_eq!(json, profile == Profile::Capabilities);
        let info = client.device_info().unwrap();
        assert_eq!((info.num_regions, info.num_irqs, info.resettable), (9, 5, false));
        let bar = client.region_info(BAR0).unwrap();
        assert_eq!((bar.size, bar.file_offset, bar.areas), (0x4000, 0, vec![(0x1000, 0x1000)]));
        assert!(bar.fd.is_some() && bar.flags.read && bar.flags.write);
        let config = client.region_info(CONFIG).unwrap();
        assert!(config.areas.is_empty() && config.fd.is_none());
        assert_eq!(client.region_info(1).unwrap().size, 0);
        assert_eq!(client.irq_info(MSIX).unwrap().count, VECTORS);
        drop(client);
        eventually(&device, |toy| toy.client.is_none());
    }
}

#[test]
fn our_client_reads_writes_and_posts() {
    let served = Served::new();
    let device = served.add("own", |toy| toy);
    let mut client = Client::connect(served.path("own"), ClientOptions::default()).unwrap();
    for value in 0..100u8 {
        client.region_write_posted(BAR0, NOTE, &[value; 4]).unwrap();
    }
    let mut data = [0; 4];
    client.region_read(BAR0, NOTE, &mut data).unwrap();
    assert_eq!(data, [99; 4], "a read is handled after all posted writes");
    client.region_write(CONFIG, 4, &[6, 4]).unwrap();
    assert_eq!(device.call(|toy| toy.config[4..6].to_vec()).unwrap(), [6, 4]);
    let mut config = vec![0; 4096];
    client.region_read(CONFIG, 0, &mut config).unwrap();
    assert_eq!(config, device.call(|toy| toy.config.clone()).unwrap());
    assert!(matches!(client.region_read(BAR0, 0, &mut vec![0; 1 << 21]), Err(ClientError::Invalid(_))));
}

#[test]
fn our_client_gets_the_servers_errors_and_goes_on() {
    let served = Served::new();
    let _device = served.add("own", |toy| toy);
    let mut client = Client::connect(served.path("own"), ClientOptions::default()).unwrap();
    let file = memory(0x4000);
    client.dma_map(RANGE, Some(file.as_fd())).unwrap();
    let refused = |result, expected| match result {
        Err(ClientError::Refused { errno, .. }) => assert_eq!(errno, expected),
        other => panic!("{other:?}"),
    };
    refused(client.dma_map(RANGE, None), Errno::EXIST);
    refused(client.dma_unmap(RANGE.addr, 0x1000), Errno::INVAL);
    client.dma_unmap(RANGE.addr, RANGE.size).unwrap();
    refused(client.dma_unmap(RANGE.addr, RANGE.size), Errno::NOENT);
    client.dma_unmap_all().unwrap();
    refused(client.act_on_irqs(MSIX, 0, VECTORS, IrqAction::Mask), Errno::INVAL);
    refused(client.act_on_irqs(MSIX, 1, VECTORS, IrqAction::Trigger), Errno::INVAL);
    refused(client.clear_irq_eventfds(MSIX, u32::MAX, 2), Errno::INVAL);
    refused(client.clear_irq_eventfds(9, 0, 1), Errno::INVAL);
    refused(client.region_info(9).map(drop), Errno::INVAL);
    refused(client.raw(wire::command::DMA_READ, &[0; 16], &[]).map(drop), Errno::NOTSUP);
    client.reset().unwrap();
}

#[test]
fn our_client_splits_eventfds_and_takes_them_away() {
    let served = Served::new();
    let device = served.add("own", |toy| toy);
    let mut client = Client::connect(served.path("own"), ClientOptions::default()).unwrap();
    let eventfds: Vec<OwnedFd> = (0..VECTORS - 3).map(|_| eventfd()).collect();
    client.set_irq_eventfds(MSIX, 3, &eventfds).unwrap();
    client.act_on_irqs(MSIX, 0, VECTORS, IrqAction::Trigger).unwrap();
    assert!(eventfds.iter().all(|eventfd| fired(eventfd) == 1));
    client.clear_irq_eventfds(MSIX, 3, 1).unwrap();
    client.act_on_irqs(MSIX, 0, VECTORS, IrqAction::Trigger).unwrap();
    assert_eq!(eventfds.iter().map(fired).collect::<Vec<_>>()[..2], [0, 1]);
    client.disable_irqs(MSIX).unwrap();
    assert!(device.call(|toy| toy.eventfds.iter().all(Option::is_none)).unwrap());
}
