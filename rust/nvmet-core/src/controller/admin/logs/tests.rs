use std::time::SystemTime;

use nvmet_spec::feature::FeatureId;
use proptest::prelude::*;

use super::super::super::ControllerLimits;
use super::super::features::SetRequest;
use super::*;

struct World {
    stats: Batch,
    error_log: ErrorLog,
    changed: ChangedNamespaces,
    features: Features,
    uptime: Duration,
}

impl World {
    fn new() -> Self {
        Self {
            stats: Batch::default(),
            error_log: ErrorLog::default(),
            changed: ChangedNamespaces::default(),
            features: Features::new(&ControllerLimits { queues: 4, entries: 64 }, [1; 16]),
            uptime: Duration::ZERO,
        }
    }

    fn page(&self, lid: u8, nsid: u32) -> Result<Vec<u8>, Status> {
        let Self { stats, error_log, changed, features, uptime } = self;
        let view = LogView { stats, error_log, changed, features, uptime: *uptime, firmware: "1.2" };
        log_page(&view, lid, nsid)
    }
}

fn dword(page: &[u8], index: usize) -> u32 {
    u32::from_le_bytes(page[index * 4..][..4].try_into().unwrap())
}

fn qword(page: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(page[offset..][..8].try_into().unwrap())
}

#[test]
fn exactly_the_pages_that_are_listed_can_be_read() {
    let world = World::new();
    let list = world.page(0, 0).unwrap();
    assert_eq!(list.len(), 1024);
    for lid in 0..=0xff_u8 {
        let listed = dword(&list, usize::from(lid)) & 1 != 0;
        match world.page(lid, NSID_ALL) {
            Ok(page) => assert!(listed && page.len() % 4 == 0, "{lid:02x}h"),
            Err(status) => {
                assert!(!listed && status.is(Status::INVALID_LOG_PAGE) && status.dnr(), "{lid:02x}h");
            }
        }
    }
}

#[test]
fn smart_counters_are_those_of_the_queues() {
    let mut world = World::new();
    world.stats = Batch {
        reads: 10,
        writes: 20,
        bytes_read: 512_001,
        bytes_written: 512_000,
        media_errors: 3,
        errors: 9,
        ..Batch::default()
    };
    world.uptime = Duration::from_secs(2 * 3600 + 3599);
    world.error_log.add_dropped(9);
    let page = world.page(2, 0).unwrap();
    assert_eq!(page.len(), 512);
    assert_eq!(page[0], 0);
    assert_eq!(page[1..3], 313_u16.to_le_bytes());
    assert_eq!(page[3], 100);
    assert!(page[4] < page[3]);
    assert_eq!((qword(&page, 32), qword(&page, 48)), (2, 1), "thousands of 512 bytes, rounded up");
    assert_eq!((qword(&page, 64), qword(&page, 80)), (10, 20));
    assert_eq!((qword(&page, 112), qword(&page, 128)), (1, 2));
    assert_eq!((qword(&page, 160), qword(&page, 176)), (3, 9));
}

#[test]
fn smart_of_a_single_namespace_is_refused() {
    let world = World::new();
    assert!(world.page(2, 1).unwrap_err().is(Status::INVALID_FIELD));
    assert!(world.page(2, NSID_ALL).is_ok());
}

#[test]
fn a_threshold_at_the_temperature_is_a_critical_warning() {
    let mut world = World::new();
    let request = SetRequest {
        fid: FeatureId::TemperatureThreshold.into(),
        save: false,
        nsid: 0,
        cdw11: u32::from(TEMPERATURE),
        data: &[],
        queues_exist: false,
    };
    world.features.set(request, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(world.page(2, 0).unwrap()[0], 0b10);
    let above = SetRequest { cdw11: u32::from(TEMPERATURE) + 1, ..request };
    world.features.set(above, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(world.page(2, 0).unwrap()[0], 0);
}

#[test]
fn firmware_slot_1_is_active() {
    let page = World::new().page(3, 0).unwrap();
    assert_eq!(page[0], 1);
    assert_eq!(&page[8..16], b"1.2     ");
    assert!(page[16..].iter().all(|&byte| byte == 0));
}

#[test]
fn changed_namespaces_are_listed_once_in_order() {
    let mut world = World::new();
    world.changed.add(&[7, 3]);
    world.changed.add(&[3, 1]);
    let page = world.page(4, NSID_ALL).unwrap();
    assert_eq!(page.len(), 4096);
    assert_eq!((0..5).map(|at| dword(&page, at)).collect::<Vec<_>>(), [1, 3, 7, 0, 0]);
}

#[test]
fn more_changed_namespaces_than_fit_are_all_namespaces() {
    let mut world = World::new();
    world.changed.add(&(1..=1024).collect::<Vec<_>>());
    let page = world.page(4, 0).unwrap();
    assert_eq!((dword(&page, 0), dword(&page, 1023)), (1, 1024));
    world.changed.add(&[2000]);
    let page = world.page(4, 0).unwrap();
    assert_eq!(dword(&page, 0), NSID_ALL);
    assert!(page[4..].iter().all(|&byte| byte == 0));
}

#[test]
fn effects_list_every_command_and_which_ones_change_blocks() {
    let page = World::new().page(5, 0).unwrap();
    let set = |from: usize| (0..256).filter(|at| dword(&page, from + at) != 0).collect::<Vec<_>>();
    assert_eq!(page.len(), 4096);
    assert_eq!(set(0), [0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18, 0x7c]);
    assert_eq!(set(256), [0x00, 0x01, 0x02, 0x05, 0x08, 0x09]);
    for opcode in [0x01, 0x08, 0x09] {
        assert_eq!(dword(&page, 256 + opcode), 0b11);
    }
    assert_eq!(dword(&page, 256 + 0x02), 0b01);
    assert!(page[2048..].iter().all(|&byte| byte == 0));
}

#[test]
fn feature_effects_are_of_the_features_that_there_are() {
    let mut world = World::new();
    let set = |page: &[u8]| (0..256).filter(|&at| dword(page, at) & 1 != 0).collect::<Vec<_>>();
    let page = world.page(0x12, 0).unwrap();
    assert_eq!(page.len(), 1024);
    assert_eq!(set(&page), [0x01, 0x02, 0x04, 0x05, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0e, 0x0f, 0x16, 0x81]);
    assert_eq!((dword(&page, 1), dword(&page, 5)), (1 | 1 << 21, 1 | 1 << 20));
    world.features.set_volatile_write_cache(true);
    assert!(set(&world.page(0x12, 0).unwrap()).contains(&0x06));
}

proptest! {
    #[test]
    fn a_page_has_its_size_and_reads_the_same_whatever_was_counted(
        lid in any::<u8>(),
        nsid in prop_oneof![Just(0), Just(NSID_ALL), any::<u32>()],
        counters in any::<[u64; 5]>(),
        errors in 0..200_u16,
        changed in prop::collection::vec(1..1025_u32, 0..50),
    ) {
        let [reads, writes, bytes_read, bytes_written, media_errors] = counters;
        let mut world = World::new();
        world.stats = Batch { reads, writes, bytes_read, bytes_written, media_errors, ..Batch::default() };
        world.changed.add(&changed);
        for cid in 0..errors {
            let failure = crate::worker::CommandFailure { sqid: 1, cid, status: Status::INTERNAL_ERROR, lba: 0, nsid: 1 };
            world.error_log.add(&failure);
        }
        let page = world.page(lid, nsid);
        prop_assert_eq!(&page, &world.page(lid, nsid));
        if let Ok(page) = page {
            let size = match lid {
                0x00 | 0x12 => 1024,
                0x02 | 0x03 => 512,
                _ => 4096,
            };
            prop_assert_eq!(page.len(), size);
        }
    }
}
