use std::sync::Arc;
use std::time::SystemTime;

use nvmet_block::{Backend, RamBackend};
use nvmet_spec::feature::FeatureId;
use nvmet_spec::log::AnaState;
use proptest::prelude::*;

use super::super::super::ControllerLimits;
use super::super::features::SetRequest;
use super::*;
use crate::namespace::NamespaceConfig;
use crate::reservation::NoticeKind;
use crate::stats::Batch;
use crate::subsystem::ana::AnaStates;
use crate::subsystem::{HostIdentity, Subsystem, SubsystemConfig, Who};

struct World {
    lifetime: Lifetime,
    subsystem: Subsystem,
    health: Health,
    error_log: ErrorLog,
    changed: ChangedNamespaces,
    notices: ReservationNotices,
    features: Features,
}

impl World {
    fn new() -> Self {
        Self {
            lifetime: Lifetime::default(),
            subsystem: Subsystem::new(SubsystemConfig::new("1")).unwrap(),
            health: Health::default(),
            error_log: ErrorLog::default(),
            changed: ChangedNamespaces::default(),
            notices: ReservationNotices::default(),
            features: Features::new(&ControllerLimits { queues: 4, entries: 64 }, [1; 16]),
        }
    }

    fn page(&self, lid: u8, nsid: u32) -> Result<Vec<u8>, Status> {
        self.part_of_page(lid, 0, nsid)
    }

    fn part_of_page(&self, lid: u8, lsp: u8, nsid: u32) -> Result<Vec<u8>, Status> {
        let Self { lifetime, subsystem, health, error_log, changed, notices, features } = self;
        let host = HostIdentity { nqn: "nqn.host".into(), id: [1; 16] };
        let namespaces = &View::new(subsystem.namespaces(), &Who { cntlid: 1, host });
        let warning = health.warning().with_temperature(features.temperature_warning(health.temperature));
        let view = LogView {
            lifetime,
            namespaces,
            ana_before: &BTreeMap::new(),
            health,
            warning,
            error_log,
            changed,
            notices,
            features,
            firmware: "1.2",
        };
        log_page(&view, lid, lsp, nsid)
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
    world.lifetime.stats = Batch {
        reads: 10,
        writes: 20,
        bytes_read: 512_001,
        bytes_written: 512_000,
        media_errors: 3,
        errors: 9,
        ..Batch::default()
    };
    world.lifetime.power_on_seconds = 2 * 3600 + 3599;
    (world.lifetime.power_cycles, world.lifetime.unsafe_shutdowns, world.lifetime.errors) = (1, 5, 9);
    let page = world.page(2, 0).unwrap();
    assert_eq!(page.len(), 512);
    assert_eq!(page[0], 0);
    assert_eq!(page[1..3], 313_u16.to_le_bytes());
    assert_eq!(page[3], 100);
    assert!(page[4] < page[3]);
    assert_eq!((qword(&page, 32), qword(&page, 48)), (2, 1), "thousands of 512 bytes, rounded up");
    assert_eq!((qword(&page, 64), qword(&page, 80)), (10, 20));
    assert_eq!((qword(&page, 112), qword(&page, 128)), (1, 2));
    assert_eq!(qword(&page, 144), 5);
    assert_eq!((qword(&page, 160), qword(&page, 176)), (3, 9));
}

#[test]
fn smart_of_a_namespace_counts_what_was_done_on_it() {
    let mut world = World::new();
    world.lifetime.stats = Batch { reads: 10, ..Batch::default() };
    world.subsystem.add_namespace(NamespaceConfig::new(ram())).unwrap();
    let namespaces = world.subsystem.namespaces();
    let done = Batch { reads: 3, writes: 4, bytes_read: 1, media_errors: 2, ..Batch::default() };
    namespaces.get(1).unwrap().stats().shard().add(&done);
    let page = world.page(2, 1).unwrap();
    assert_eq!((qword(&page, 32), qword(&page, 64), qword(&page, 80), qword(&page, 160)), (1, 3, 4, 2));
    assert_eq!(qword(&world.page(2, NSID_ALL).unwrap(), 64), 10);
    assert!(world.page(2, 2).unwrap_err().is(Status::INVALID_FIELD), "inactive");
    assert!(world.page(2, 5000).unwrap_err().is(Status::INVALID_NAMESPACE_OR_FORMAT));
}

fn ram() -> Arc<dyn Backend> {
    Arc::new(RamBackend::new(1 << 20, false).unwrap())
}

#[test]
fn figures_that_the_operator_sets_are_told_with_their_warnings() {
    let mut world = World::new();
    world.health = Health {
        temperature: 400,
        spare: 9,
        spare_threshold: 10,
        percentage_used: 120,
        reliability_degraded: true,
    };
    let page = world.page(2, 0).unwrap();
    assert_eq!(page[..6], [0b111, 0x90, 0x01, 9, 10, 120]);
    world.health.spare = 10;
    assert_eq!(world.page(2, 0).unwrap()[0], 0b110, "at the threshold is not below it");
}

#[test]
fn the_ana_page_lists_groups_with_their_namespaces() {
    let world = World::new();
    for nsid in [1, 2, 5] {
        let config = NamespaceConfig { nsid: Some(nsid), ..NamespaceConfig::new(ram()) };
        world.subsystem.add_namespace(config).unwrap();
    }
    let host = HostIdentity { nqn: "nqn.host".into(), id: [1; 16] };
    world.subsystem.join(Some(1), &host, AnaStates::from_iter([(9, AnaState::Change)])).unwrap();
    world.subsystem.set_ana_group(5, 3).unwrap();
    world.subsystem.set_ana_state(1, 3, AnaState::NonOptimized).unwrap();
    let page = world.page(0x0c, 0).unwrap();
    assert_eq!(page.len(), 16 + 3 * 32 + 3 * 4);
    assert_eq!((qword(&page, 0), page[8]), (6, 3), "three namespaces, two groups for one move, and a state");
    let group =
        |at: usize| (dword(&page[at..], 0), dword(&page[at..], 1), qword(&page[at..], 8), page[at + 16]);
    assert_eq!(group(16), (1, 2, 4, 1), "optimized");
    assert_eq!((dword(&page[48..], 0), dword(&page[48..], 1)), (1, 2));
    assert_eq!(group(56), (3, 1, 2, 2), "non-optimized");
    assert_eq!(dword(&page[88..], 0), 5);
    assert_eq!(group(92), (9, 0, 0, 0xf), "a group without namespaces whose state was set");
    let groups = world.part_of_page(0x0c, 1, 0).unwrap();
    assert_eq!(groups.len(), 16 + 3 * 32, "Return Groups Only");
    assert_eq!(dword(&groups[48..], 0), 3);
}

#[test]
fn the_notification_page_is_the_oldest_one() {
    let mut world = World::new();
    assert_eq!(world.page(0x80, 0).unwrap(), [0; 64]);
    world.notices.add(7, NoticeKind::ReservationReleased);
    world.notices.add(8, NoticeKind::RegistrationPreempted);
    let page = world.page(0x80, 0).unwrap();
    assert_eq!((qword(&page, 0), page[8], page[9], dword(&page, 3)), (1, 2, 1, 7));
}

#[test]
fn a_threshold_at_the_temperature_is_a_critical_warning() {
    let mut world = World::new();
    let request = SetRequest {
        fid: FeatureId::TemperatureThreshold.into(),
        save: false,
        nsid: 0,
        cdw11: u32::from(world.health.temperature),
        data: &[],
        queues_exist: false,
    };
    world.features.set(request, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(world.page(2, 0).unwrap()[0], 0b10);
    let above = SetRequest { cdw11: request.cdw11 + 1, ..request };
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
    assert_eq!(set(256), [0x00, 0x01, 0x02, 0x05, 0x08, 0x09, 0x0d, 0x0e, 0x11, 0x15]);
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
    assert_eq!(
        set(&page),
        [0x01, 0x02, 0x04, 0x05, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0e, 0x0f, 0x16, 0x81, 0x82, 0x83, 0x84]
    );
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
        world.lifetime.stats = Batch { reads, writes, bytes_read, bytes_written, media_errors, ..Batch::default() };
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
                0x0c => 16,
                0x80 => 64,
                _ => 4096,
            };
            prop_assert_eq!(page.len(), size);
        }
    }
}
