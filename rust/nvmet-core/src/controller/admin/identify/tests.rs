use std::sync::Arc;

use nvmet_block::{Backend, BackendError, Features, Geometry, IoError, IoQueue};
use proptest::prelude::*;

use super::*;
use crate::namespace::{NamespaceConfig, NamespaceIds, StateFile};
use crate::subsystem::ana::AnaStates;
use crate::subsystem::{HostIdentity, SubsystemConfig};

const LIMITS: ControllerLimits = ControllerLimits { queues: 4, entries: 256 };
const IDS: NamespaceIds = NamespaceIds { uuid: [0x11; 16], nguid: [0x22; 16], eui64: [0x33; 8] };

struct Disk {
    geometry: Geometry,
    features: Features,
}

impl Disk {
    fn new(features: Features) -> Self {
        let geometry = Geometry {
            size: 1 << 20,
            min_block: 512,
            preferred_block: 512,
            physical_block: 4096,
            optimal_io: 65536,
            read_only: false,
        };
        Self { geometry, features }
    }
}

impl Backend for Disk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn features(&self) -> Features {
        self.features
    }

    fn open_queue(&self, _depth: u32) -> Result<Box<dyn IoQueue>, BackendError> {
        unreachable!("Identify opens no queue")
    }

    fn sync(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn describe(&self) -> String {
        "disk".into()
    }
}

fn subsystem() -> Subsystem {
    let config = SubsystemConfig {
        nqn: Some("nqn.2014-08.org.example:one".into()),
        model: "A model".into(),
        firmware: "0.1".into(),
        ..SubsystemConfig::new("SER1")
    };
    Subsystem::new(config).unwrap()
}

fn add(subsystem: &Subsystem, nsid: u32, block_size: u32, read_only: bool, ids: NamespaceIds, disk: Disk) {
    let backend = Arc::new(disk);
    let config =
        NamespaceConfig { nsid: Some(nsid), block_size, read_only, ids, ..NamespaceConfig::new(backend) };
    subsystem.add_namespace(config).unwrap();
}

/// NSIDs 1, 3 and 1024.
fn three() -> Subsystem {
    let subsystem = subsystem();
    for nsid in [1, 3, MAX_NAMESPACES] {
        add(&subsystem, nsid, 512, false, IDS, Disk::new(Features::default()));
    }
    subsystem
}

fn ask(subsystem: &Subsystem, cns: u8, cntid: u16, csi: u8, nsid: u32) -> Result<Page, Status> {
    ask_as(&who(7, "nqn.host"), subsystem, cns, cntid, csi, nsid)
}

fn who(cntlid: u16, nqn: &str) -> Who {
    Who { cntlid, host: HostIdentity { nqn: nqn.into(), id: [cntlid as u8; 16] } }
}

fn ask_as(who: &Who, subsystem: &Subsystem, cns: u8, cntid: u16, csi: u8, nsid: u32) -> Result<Page, Status> {
    let namespaces = Seeing::new(subsystem.namespaces(), who);
    let view = View {
        subsystem,
        namespaces: &namespaces,
        cntlid: who.cntlid,
        limits: &LIMITS,
        vid: 0x1af4,
        ssvid: 0x1100,
        vwc: false,
    };
    identify(&view, cns, cntid, csi, nsid)
}

fn u16_at(page: &Page, offset: usize) -> u16 {
    u16::from_le_bytes(page[offset..][..2].try_into().unwrap())
}

fn u32_at(page: &Page, offset: usize) -> u32 {
    u32::from_le_bytes(page[offset..][..4].try_into().unwrap())
}

fn u64_at(page: &Page, offset: usize) -> u64 {
    u64::from_le_bytes(page[offset..][..8].try_into().unwrap())
}

fn list(page: &Page) -> Vec<u32> {
    (0..NAMESPACE_LIST_ENTRIES).map(|at| u32_at(page, at * 4)).take_while(|&nsid| nsid != 0).collect()
}

#[test]
fn the_controller_says_who_it_is() {
    let page = ask(&subsystem(), 0x01, 0, 0, 0).unwrap();
    assert_eq!((u16_at(&page, 0), u16_at(&page, 2)), (0x1af4, 0x1100));
    assert_eq!(&page[4..24], b"SER1                ");
    assert_eq!(&page[24..64], format!("{:40}", "A model").as_bytes());
    assert_eq!(&page[64..72], b"0.1     ");
    assert_eq!(u16_at(&page, 78), 7);
    assert_eq!(u32_at(&page, 80), 0x0002_0000);
    assert_eq!(page[111], 1);
    assert_eq!(&page[768..796], b"nqn.2014-08.org.example:one\0");
}

#[test]
fn the_controller_says_what_it_can_do() {
    let page = ask(&subsystem(), 0x01, 0, 0, 0).unwrap();
    assert_eq!(4096_u64 << page[77], MAX_TRANSFER);
    assert_eq!(u32_at(&page, 88), 10_000_000, "RTD3E in microseconds");
    assert_eq!(u16_at(&page, 256), 1 << 8, "Doorbell Buffer Config and nothing else");
    assert_eq!((page[258], page[259]), (3, 3));
    assert_eq!((page[512], page[513]), (0x66, 0x44));
    assert!(u32::from(u16_at(&page, 514)) < LIMITS.entries);
    assert_eq!(u32_at(&page, 516), MAX_NAMESPACES);
    assert_eq!(u16_at(&page, 520), 0x7d);
    assert_eq!(u16_at(&page, 522), 1);
    assert_eq!(page[525], 0b110, "no cache; Flush takes NSID FFFFFFFFh all the same");
    assert_eq!(u64::from(u16_at(&page, 532)), ATOMIC_COMPARE_WRITE_BLOCKS - 1);
    assert_eq!(u32_at(&page, 536), 0x5_0001);
    assert!(u16_at(&page, 266) < u16_at(&page, 268), "warning before critical temperature");
}

#[test]
fn a_volatile_write_cache_is_told() {
    let subsystem = subsystem();
    let namespaces = Seeing::new(subsystem.namespaces(), &who(1, "nqn.host"));
    let view = View {
        subsystem: &subsystem,
        namespaces: &namespaces,
        cntlid: 1,
        limits: &LIMITS,
        vid: 0,
        ssvid: 0,
        vwc: true,
    };
    assert_eq!(identify(&view, 0x01, 0, 0, 0).unwrap()[525], 0b111);
}

#[test]
fn controllers_and_namespaces_are_shared_from_the_second_controller_on() {
    let subsystem = three();
    let shared = |subsystem: &Subsystem| {
        [(0x01, 76), (0x00, 30), (0x08, 1)].map(|(cns, at)| ask(subsystem, cns, 0, 0, 1).unwrap()[at])
    };
    let join = || subsystem.join(None, &who(0, "nqn.host").host, AnaStates::default()).unwrap();
    join();
    assert_eq!(shared(&subsystem), [0, 0, 0]);
    let second = join();
    assert_eq!(shared(&subsystem), [0b1011, 1, 1], "several ports and controllers, and ANA");
    subsystem.leave(second);
    assert_eq!(shared(&subsystem), [0b1011, 1, 1], "hosts have been told, and one may come again");
}

#[test]
fn a_namespace_says_its_size_format_and_names() {
    let subsystem = subsystem();
    add(&subsystem, 1, 512, false, IDS, Disk::new(Features::default()));
    add(&subsystem, 2, 4096, true, IDS, Disk::new(Features::default()));
    let (small, large) = (ask(&subsystem, 0, 0, 0, 1).unwrap(), ask(&subsystem, 0, 0, 0, 2).unwrap());
    for (page, blocks, lbads) in [(&small, 2048, 9), (&large, 256, 12)] {
        for offset in [0, 8, 16] {
            assert_eq!(u64_at(page, offset), blocks);
        }
        assert_eq!((page[25], page[26]), (0, 0), "one format, the first");
        assert_eq!(u32_at(page, 128), lbads << 16);
        assert_eq!(u64_at(page, 48), 1 << 20);
        assert_eq!((&page[104..120], &page[120..128]), (&[0x22; 16][..], &[0x33; 8][..]));
    }
    assert_eq!((small[99], large[99]), (0, 1), "write protected");
}

#[test]
fn granularity_is_that_of_the_medium_in_blocks() {
    let subsystem = subsystem();
    add(&subsystem, 1, 512, false, IDS, Disk::new(Features::default()));
    add(&subsystem, 2, 4096, false, IDS, Disk::new(Features::default()));
    let mut plain = Disk::new(Features::default());
    (plain.geometry.physical_block, plain.geometry.optimal_io) = (512, 0);
    add(&subsystem, 3, 4096, false, IDS, plain);
    for (nsid, unit_z, optimal_z) in [(1, 7, 127), (2, 0, 15), (3, 0, 0)] {
        let page = ask(&subsystem, 0, 0, 0, nsid).unwrap();
        assert_eq!(page[24], 1 << 4);
        for offset in [64, 66, 68, 70] {
            assert_eq!(u16_at(&page, offset), unit_z);
        }
        assert_eq!(u16_at(&page, 72), optimal_z);
    }
}

#[test]
fn deallocated_blocks_read_zero_only_if_the_backend_says_so() {
    let subsystem = subsystem();
    let discard = Features { discard: true, ..Features::default() };
    let zeroes = Features { discarded_reads_zero: true, ..discard };
    for (nsid, features) in [(1, Features::default()), (2, discard), (3, zeroes)] {
        add(&subsystem, nsid, 512, false, IDS, Disk::new(features));
    }
    assert_eq!([1, 2, 3].map(|nsid| ask(&subsystem, 0, 0, 0, nsid).unwrap()[33]), [0, 8, 9]);
}

#[test]
fn an_inactive_namespace_is_zero_and_an_invalid_one_an_error() {
    let subsystem = three();
    for cns in [0x00, 0x05, 0x08] {
        assert_eq!(ask(&subsystem, cns, 0, 0, 2).unwrap(), Box::new([0; IDENTIFY_SIZE]), "CNS {cns:02x}h");
        for nsid in [0, MAX_NAMESPACES + 1, NSID_ALL] {
            let error = ask(&subsystem, cns, 0, 0, nsid).unwrap_err();
            assert!(error.is(Status::INVALID_NAMESPACE_OR_FORMAT), "CNS {cns:02x}h");
        }
    }
}

#[test]
fn lists_hold_the_active_namespaces_above_the_given_one() {
    let subsystem = three();
    for cns in [0x02, 0x07] {
        let ask = |nsid| ask(&subsystem, cns, 0, 0, nsid);
        assert_eq!(list(&ask(0).unwrap()), [1, 3, 1024]);
        assert_eq!(list(&ask(1).unwrap()), [3, 1024]);
        assert_eq!(list(&ask(2).unwrap()), [3, 1024]);
        assert!(list(&ask(1024).unwrap()).is_empty());
        assert!(list(&ask(0xffff_fffd).unwrap()).is_empty());
        for nsid in [0xffff_fffe, 0xffff_ffff] {
            assert!(ask(nsid).unwrap_err().is(Status::INVALID_NAMESPACE_OR_FORMAT));
        }
    }
}

#[test]
fn a_full_list_fills_the_page() {
    let subsystem = subsystem();
    for nsid in 1..=MAX_NAMESPACES {
        add(&subsystem, nsid, 512, false, IDS, Disk::new(Features::default()));
    }
    assert_eq!(list(&ask(&subsystem, 0x02, 0, 0, 0).unwrap()), (1..=1024).collect::<Vec<_>>());
}

#[test]
fn descriptors_leave_out_identifiers_that_there_are_not() {
    let subsystem = subsystem();
    add(&subsystem, 1, 512, false, IDS, Disk::new(Features::default()));
    let uuid = NamespaceIds { uuid: [0x44; 16], ..NamespaceIds::default() };
    add(&subsystem, 2, 512, false, uuid, Disk::new(Features::default()));
    let kinds = |nsid| {
        let page = ask(&subsystem, 0x03, 0, 0, nsid).unwrap();
        let (mut at, mut kinds) = (0, Vec::new());
        while page[at] != 0 {
            kinds.push((page[at], page[at + 1], page[at + 4]));
            at += 4 + usize::from(page[at + 1]);
        }
        kinds
    };
    assert_eq!(kinds(1), [(1, 8, 0x33), (2, 16, 0x22), (3, 16, 0x11), (4, 1, 0)]);
    assert_eq!(kinds(2), [(3, 16, 0x44), (4, 1, 0)]);
    let inactive = ask(&subsystem, 0x03, 0, 0, 3);
    assert!(inactive.unwrap_err().is(Status::INVALID_NAMESPACE_OR_FORMAT));
}

#[test]
fn the_nvm_command_set_has_its_structures_and_no_other_set_has_any() {
    let subsystem = three();
    let ask = |cns, csi, nsid| ask(&subsystem, cns, 0xffff, csi, nsid);
    // Windows takes an error here for a broken controller.
    assert_eq!(ask(0x06, 0, 0).unwrap(), Box::new([0; IDENTIFY_SIZE]));
    assert!(ask(0x06, 2, 0).unwrap_err().is(Status::INVALID_FIELD));
    assert!(ask(0x07, 2, 0).unwrap_err().is(Status::INVALID_FIELD));
    assert!(ask(0x05, 2, 1).unwrap_err().is(Status::INVALID_IO_COMMAND_SET));
    assert!(ask(0x05, 0, 1).is_ok());
    let sets = ask(0x1c, 0, 0).unwrap();
    assert_eq!(u64_at(&sets, 0), 1);
    assert!(sets[8..].iter().all(|&byte| byte == 0));
}

#[test]
fn command_sets_are_told_of_this_controller_only() {
    let subsystem = subsystem();
    assert!(ask(&subsystem, 0x1c, 7, 0, 0).is_ok());
    assert!(ask(&subsystem, 0x1c, 8, 0, 0).unwrap_err().is(Status::INVALID_FIELD));
}

#[test]
fn a_host_sees_the_namespaces_that_are_enabled_and_attached_to_it() {
    let subsystem = three();
    subsystem.attach_to(3, Some(vec!["nqn.other".to_owned()].into())).unwrap();
    subsystem.set_enabled(1, false).unwrap();
    let ask = |host: &str, cns, nsid| ask_as(&who(1, host), &subsystem, cns, 0, 0, nsid);
    assert_eq!(list(&ask("nqn.host", 0x02, 0).unwrap()), [1024]);
    assert_eq!(list(&ask("nqn.other", 0x02, 0).unwrap()), [3, 1024]);
    assert_eq!(ask("nqn.host", 0x00, 3).unwrap(), Box::new([0; IDENTIFY_SIZE]), "as inactive");
    assert!(u64_at(&ask("nqn.other", 0x00, 3).unwrap(), 0) > 0);
    subsystem.attach_to(3, None).unwrap();
    subsystem.set_enabled(1, true).unwrap();
    assert_eq!(list(&ask("nqn.host", 0x02, 0).unwrap()), [1, 3, 1024]);
}

#[test]
fn controller_lists_name_the_subsystems_controllers_and_those_of_a_namespace() {
    let subsystem = three();
    let words = |page: Page| -> Vec<u16> {
        let count = usize::from(u16_at(&page, 0));
        (1..=count).map(|at| u16_at(&page, 2 * at)).collect()
    };
    for (wanted, nqn) in [(9, "nqn.a"), (4, "nqn.b"), (200, "nqn.a")] {
        subsystem.join(Some(wanted), &who(0, nqn).host, AnaStates::default()).unwrap();
    }
    subsystem.attach_to(1, Some(vec!["nqn.host".to_owned(), "nqn.a".to_owned()].into())).unwrap();
    let ask = |cns, first, nsid| ask(&subsystem, cns, first, 0, nsid);
    assert_eq!(words(ask(0x13, 0, 0).unwrap()), [4, 9, 200]);
    assert_eq!(words(ask(0x13, 5, 0).unwrap()), [9, 200]);
    assert_eq!(words(ask(0x12, 0, 1).unwrap()), [9, 200]);
    assert_eq!(words(ask(0x12, 10, 1).unwrap()), [200]);
    assert_eq!(words(ask(0x12, 0, 3).unwrap()), [4, 9, 200]);
    assert!(ask(0x12, 0, 2).unwrap_err().is(Status::INVALID_FIELD), "inactive");
}

#[test]
fn ana_groups_are_told_where_there_are_several_controllers() {
    let subsystem = three();
    let page = ask(&subsystem, 0x01, 0, 0, 0).unwrap();
    assert_eq!((page[342], page[343], u32_at(&page, 344), u32_at(&page, 348)), (0, 0, 0, 0));
    assert_eq!(u32_at(&ask(&subsystem, 0, 0, 0, 1).unwrap(), 92), 0);
    let config = SubsystemConfig { shared: Some(true), ..SubsystemConfig::new("SER1") };
    let subsystem = Subsystem::new(config).unwrap();
    add(&subsystem, 1, 512, false, IDS, Disk::new(Features::default()));
    subsystem.set_ana_group(1, 7).unwrap();
    let page = ask(&subsystem, 0x01, 0, 0, 0).unwrap();
    assert_eq!((page[342], page[343], u32_at(&page, 344), u32_at(&page, 348)), (10, 0x1f, 1024, 1024));
    let namespace = ask(&subsystem, 0, 0, 0, 1).unwrap();
    assert_eq!(u32_at(&namespace, 92), 7);
    assert!(u64_at(&namespace, 0) > 0);
    assert_eq!(u64_at(&namespace, 16), 0, "NUSE of a namespace that is out of reach");
}

#[test]
fn reservations_are_told_where_they_are_enabled() {
    let subsystem = subsystem();
    let disk = || Arc::new(Disk::new(Features::default()));
    subsystem.add_namespace(NamespaceConfig::new(disk())).unwrap();
    subsystem.add_namespace(NamespaceConfig { reservations: false, ..NamespaceConfig::new(disk()) }).unwrap();
    assert_eq!([1, 2].map(|nsid| ask(&subsystem, 0, 0, 0, nsid).unwrap()[31]), [0xfe, 0]);
    let directory = tempfile::tempdir().unwrap();
    let state = StateFile { path: directory.path().join("state"), discard: false };
    let config = NamespaceConfig { state: Some(state), ..NamespaceConfig::new(disk()) };
    subsystem.add_namespace(config).unwrap();
    assert_eq!(ask(&subsystem, 0, 0, 0, 3).unwrap()[31], 0xff, "Persist Through Power Loss");
}

#[test]
fn a_ready_namespace_says_so() {
    assert_eq!(ask(&three(), 0x08, 0, 0, 1).unwrap()[14], 1);
}

proptest! {
    #[test]
    fn no_question_makes_it_panic_and_unknown_structures_are_invalid_fields(
        cns in any::<u8>(), cntid in any::<u16>(), csi in any::<u8>(),
        nsid in prop_oneof![0..5_u32, any::<u32>()],
    ) {
        let result = ask(&three(), cns, cntid, csi, nsid);
        if !matches!(cns, 0..=3 | 5..=8 | 0x12 | 0x13 | 0x1c) {
            let error = result.unwrap_err();
            prop_assert!(error.is(Status::INVALID_FIELD) && error.dnr());
        }
    }
}
