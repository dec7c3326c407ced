//! Reservations as hosts of several VMs see them, command by command (NVMe Base 2.0, 7.2 to 7.5, 8.19).

mod common;

use common::cluster::{Cluster, Host, Report, block, flush, hostid};
use common::gate::Gate;
use common::guest::{DATA, IOVA};
use common::{namespace, ram};
use nvmet_core::namespace::NamespaceConfig;
use nvmet_core::reservation::Command;
use nvmet_core::subsystem::{Job, Reply, Wish};
use nvmet_host::{SqeExt, prp::PrpPair};
use nvmet_spec::command::{Fuse, NSID_ALL, NvmOpcode, Sqe};
use nvmet_spec::feature::FeatureId;
use nvmet_spec::reservation::{AcquireAction, ChangePtpl, RegisterAction, ReleaseAction, ReservationType};
use nvmet_spec::sgl::{SglDescriptor, SglType};
use nvmet_spec::status::Status;

use AcquireAction::{Acquire, Preempt};
use RegisterAction::{Register, Replace, Unregister};
use ReservationType::{ExclusiveAccess, WriteExclusive, WriteExclusiveRegistrantsOnly};

const MIB: u64 = 1 << 20;
/// Log page and first two bytes of the event of a reservation notification.
const NOTICE: (u8, u8, u8) = (6, 0, 0x80);

fn drive() -> NamespaceConfig {
    namespace(ram(MIB), 512)
}

/// Kind, NSID, and how many more there are, of the notification that is read from the log.
fn notice(host: &mut Host) -> (u8, u32, u8) {
    let page = host.log(0x80, 0, 64);
    (page[8], u32::from_le_bytes(page[12..16].try_into().unwrap()), page[9])
}

#[test]
fn a_host_reserves_and_the_others_are_kept_out_until_it_lets_go() {
    for workers in [1, 2, 4] {
        let cluster = Cluster::new(workers, vec![drive()], &[1, 2]);
        let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
        one.join(1, 0x11);
        one.take(1, WriteExclusive, 0x11);
        two.refused(block(NvmOpcode::Write, 1, 0), Status::RESERVATION_CONFLICT);
        two.ok(block(NvmOpcode::Read, 1, 0));
        one.ok(block(NvmOpcode::Write, 1, 0));
        let report = one.report(1);
        assert_eq!((report.rtype, report.ptpls, report.generation), (1, 0, 1));
        assert_eq!(report.controllers, [(1, true, 0x11, 1)]);
        // The other one cannot take it, nor release it.
        let sqe = two.acquire(1, Acquire, WriteExclusive, 0, 0);
        two.refused(sqe, Status::RESERVATION_CONFLICT);
        two.join(1, 0x22);
        let sqe = two.acquire(1, Acquire, WriteExclusive, 0x22, 0);
        two.refused(sqe, Status::RESERVATION_CONFLICT);
        let sqe = two.release(1, ReleaseAction::Release, WriteExclusive, 0x22);
        two.ok(sqe);
        two.refused(block(NvmOpcode::Write, 1, 0), Status::RESERVATION_CONFLICT);
        let sqe = one.release(1, ReleaseAction::Release, ExclusiveAccess, 0x11);
        one.refused(sqe, Status::INVALID_FIELD);
        let sqe = one.release(1, ReleaseAction::Release, WriteExclusive, 0x11);
        one.ok(sqe);
        two.ok(block(NvmOpcode::Write, 1, 0));
        let sqe = one.register(1, Replace, 0x11, 0x12);
        one.ok(sqe);
        let sqe = one.register(1, Unregister, 0x11, 0);
        one.refused(sqe, Status::RESERVATION_CONFLICT);
        let sqe = one.register(1, Unregister, 0x12, 0);
        one.ok(sqe);
        assert_eq!(two.report(1).controllers, [(2, false, 0x22, 2)]);
        let sqe = two.release(1, ReleaseAction::Clear, WriteExclusive, 0x22);
        two.ok(sqe);
        assert_eq!(two.report(1).controllers, []);
    }
}

#[test]
fn all_controllers_of_a_host_are_one_registrant() {
    let cluster = Cluster::new(2, vec![drive()], &[1, 1, 2]);
    let [mut one, mut same, mut two] = cluster.attach_all().try_into().ok().unwrap();
    one.join(1, 0x11);
    same.take(1, ExclusiveAccess, 0x11);
    for host in [&mut one, &mut same] {
        host.ok(block(NvmOpcode::Write, 1, 0));
        assert_eq!(host.report(1).controllers, [(1, true, 0x11, 1), (2, true, 0x11, 1)]);
    }
    two.refused(block(NvmOpcode::Read, 1, 0), Status::RESERVATION_CONFLICT);
    // A reset and a client that leaves end nothing; a host without a controller is still there.
    one.restart();
    drop(same);
    two.refused(block(NvmOpcode::Read, 1, 0), Status::RESERVATION_CONFLICT);
    cluster.target.close(cluster.ids[0]).unwrap();
    cluster.target.close(cluster.ids[1]).unwrap();
    assert_eq!(two.report(1).controllers, [(0xffff, true, 0x11, 1)]);
    two.refused(block(NvmOpcode::Read, 1, 0), Status::RESERVATION_CONFLICT);
}

#[test]
fn keys_come_from_wherever_a_data_pointer_may_point() {
    let cluster = Cluster::new(1, vec![drive()], &[1]);
    let mut host = cluster.attach(0);
    let put = |host: &mut Host, at: u64, bytes: &[u8]| {
        host.guest.memory.write_bytes((DATA + at) as usize, bytes).unwrap();
    };
    let keys = [0x1111u64.to_le_bytes(), 0x2222u64.to_le_bytes()].concat();
    let sqe = |host: &mut Host| host.register(1, Register, 0, 0);
    let registered = |host: &mut Host| {
        let keys: Vec<u64> = host.report(1).controllers.iter().map(|entry| entry.2).collect();
        let sqe = host.register(1, Unregister, 0x2222, 0);
        host.ok(sqe);
        keys
    };
    // Two pages that are not neighbours, 4 bytes in the first.
    let (first, second) = (0x1ffc, 0x8000);
    put(&mut host, first, &keys[..4]);
    put(&mut host, second, &keys[4..]);
    let pair = PrpPair { prp1: IOVA + DATA + first, prp2: IOVA + DATA + second };
    let command = sqe(&mut host).with_prp(pair);
    host.ok(command);
    assert_eq!(registered(&mut host), [0x2222]);
    // An SGL with a data block at an odd address.
    put(&mut host, 0x3001, &keys);
    let inline = SglDescriptor::new(SglType::DataBlock, IOVA + DATA + 0x3001, 16);
    let command = sqe(&mut host).with_sgl(inline);
    host.ok(command);
    assert_eq!(registered(&mut host), [0x2222]);
    // Segments: 3 bytes here and 13 there.
    put(&mut host, 0x4005, &keys[..3]);
    put(&mut host, 0x6003, &keys[3..]);
    let list = [(0x4005, 3), (0x6003, 13)]
        .map(|(at, len)| {
            zerocopy::IntoBytes::as_bytes(&SglDescriptor::new(SglType::DataBlock, IOVA + DATA + at, len))
                .to_vec()
        })
        .concat();
    put(&mut host, 0x7000, &list);
    let segment = SglDescriptor::new(SglType::LastSegment, IOVA + DATA + 0x7000, 32);
    let command = sqe(&mut host).with_sgl(segment);
    host.ok(command);
    assert_eq!(registered(&mut host), [0x2222]);
    // Nowhere, too short, not a dword's address.
    let nowhere = sqe(&mut host).with_prp(PrpPair { prp1: 0x10, prp2: 0 });
    assert!(!host.io(nowhere).is_success());
    let short = sqe(&mut host).with_sgl(SglDescriptor::new(SglType::DataBlock, IOVA + DATA, 15));
    host.refused(short, Status::DATA_SGL_LENGTH_INVALID);
    let odd = sqe(&mut host).with_prp(PrpPair { prp1: IOVA + DATA + 1, prp2: 0 });
    host.refused(odd, Status::PRP_OFFSET_INVALID);
    assert_eq!(host.report(1).controllers, []);
}

#[test]
fn a_report_is_cut_at_what_was_asked_for_and_padded_with_zeroes() {
    let cluster = Cluster::new(1, vec![drive()], &[1, 2]);
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    one.join(1, 0x11);
    two.join(1, 0x22);
    one.ok(Host::report_sqe(1, true, 1024));
    let whole = one.data(DATA, 4096);
    assert_eq!(Report::read(&whole).hosts(), [1, 2]);
    assert!(whole[64 + 2 * 64..].iter().all(|&byte| byte == 0));
    for dwords in [1, 2, 6, 16, 17, 33, 48] {
        one.guest.memory.fill(DATA as usize, 4096, 0xee).unwrap();
        one.ok(Host::report_sqe(1, true, dwords));
        let (there, beyond) = (dwords as usize * 4, one.data(DATA, 4096));
        assert_eq!(beyond[..there], whole[..there], "{dwords}");
        assert!(beyond[there..].iter().all(|&byte| byte == 0xee), "{dwords}");
    }
    // The largest transfer; one dword more; as much as the field can say.
    let list: Vec<u8> = (1..256u64).flat_map(|page| (IOVA + DATA + page * 4096).to_le_bytes()).collect();
    one.guest.memory.write_bytes((DATA + (2 << 20)) as usize, &list).unwrap();
    one.guest.memory.fill(DATA as usize, 1 << 20, 0xee).unwrap();
    let mut largest = Host::report_sqe(1, true, 1 << 18);
    largest.prp2 = IOVA + DATA + (2 << 20);
    one.ok(largest);
    let data = one.data(DATA, 1 << 20);
    assert!(data[..4096] == whole && data[4096..].iter().all(|&byte| byte == 0));
    largest.cdw10 += 1;
    one.refused(largest, Status::INVALID_FIELD);
    largest.cdw10 = u32::MAX;
    one.refused(largest, Status::INVALID_FIELD);
    // No room for it in memory: the command fails, the reservations are as they were.
    let mut nowhere = Host::report_sqe(1, true, 1024);
    nowhere.prp1 = 0x1000;
    assert!(!one.io(nowhere).is_success());
    assert_eq!(one.report(1), Report::read(&whole));
}

#[test]
fn the_short_report_is_for_hosts_with_64_bits() {
    let mut cluster = Cluster::new(1, vec![drive()], &[1]);
    let id = |low: u64| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&low.to_le_bytes());
        Some(id)
    };
    cluster.listen(8, |config| config.hostid = id(0x1122_3344_5566_7788));
    let [mut long, mut short] = cluster.attach_all().try_into().ok().unwrap();
    short.join(1, 0x88);
    short.ok(Host::report_sqe(1, false, 12));
    let report = short.data(DATA, 48);
    assert_eq!(report[5..7], [1, 0]);
    assert_eq!(report[24..26], [2, 0], "controller");
    assert_eq!(report[32..40], 0x1122_3344_5566_7788u64.to_le_bytes(), "Host Identifier");
    assert_eq!(report[40..48], 0x88u64.to_le_bytes(), "key");
    long.join(1, 0x11);
    short.refused(Host::report_sqe(1, false, 12), Status::HOST_ID_INCONSISTENT_FORMAT);
    long.refused(Host::report_sqe(1, false, 12), Status::HOST_ID_INCONSISTENT_FORMAT);
    assert_eq!(short.report(1).controllers.len(), 2);
}

#[test]
fn commands_that_make_no_sense_change_nothing() {
    let quiet = NamespaceConfig { reservations: false, ..drive() };
    let cluster = Cluster::new(2, vec![drive(), quiet], &[1]);
    let mut host = cluster.attach(0);
    // RESCAP says which namespace takes reservations, ONCS that there may be some.
    assert_eq!(host.identify(0, 1)[31], 0xfe);
    assert_eq!(host.identify(0, 2)[31], 0);
    assert_ne!(host.identify(1, 0)[520] & 0x20, 0);
    let report = Host::report_sqe(2, true, 16);
    host.refused(report, Status::INVALID_OPCODE);
    let sqe = host.register(2, Register, 0, 1);
    host.refused(sqe, Status::INVALID_OPCODE);
    for (nsid, status) in [
        (3, Status::INVALID_FIELD),
        (0, Status::INVALID_NAMESPACE_OR_FORMAT),
        (NSID_ALL, Status::INVALID_NAMESPACE_OR_FORMAT),
        (1025, Status::INVALID_NAMESPACE_OR_FORMAT),
    ] {
        let all = [
            host.register(nsid, Register, 0, 1),
            host.acquire(nsid, Acquire, WriteExclusive, 1, 0),
            host.release(nsid, ReleaseAction::Clear, WriteExclusive, 1),
            Host::report_sqe(nsid, true, 16),
        ];
        for sqe in all {
            host.refused(sqe, status);
        }
    }
    // Every Dword 10 with one bit set, for a host that is not registered: nothing but Register without key succeeds.
    for bit in 0..32 {
        for opcode in [NvmOpcode::ReservationAcquire, NvmOpcode::ReservationRelease] {
            let mut sqe = Sqe::new(opcode, 0, 1).with_cdw10(1 << bit);
            sqe.prp1 = host.keys(0, 0);
            assert!(!host.io(sqe).is_success(), "{opcode:?}, bit {bit}");
        }
        let mut sqe = Sqe::new(NvmOpcode::ReservationRegister, 0, 1).with_cdw10(1 << bit);
        sqe.prp1 = host.keys(0, 0);
        assert!(!host.io(sqe).is_success(), "register with key 0, bit {bit}");
    }
    // Fused with something, in either place.
    for fuse in [Fuse::First, Fuse::Second] {
        let mut sqe = host.register(1, Register, 0, 1);
        sqe.cdw0.set_fuse(fuse);
        host.refused(sqe, Status::ABORTED_MISSING_FUSED);
    }
    assert_eq!(host.report(1), Report { generation: 0, rtype: 0, ptpls: 0, controllers: Vec::new() });
}

/// What the other host is left with for each command: Read, Compare, Write, Write Zeroes, Dataset Management, Flush.
fn statuses(host: &mut Host) -> Vec<bool> {
    let range = [0u32.to_le_bytes(), 1u32.to_le_bytes(), [0; 4], [0; 4]].concat();
    host.guest.memory.write_bytes((DATA + 0x1000) as usize, &range).unwrap();
    let mut discard = Sqe::new(NvmOpcode::DatasetManagement, 0, 1).with_cdw11(4);
    discard.prp1 = IOVA + DATA + 0x1000;
    let zeroes = block(NvmOpcode::WriteZeroes, 1, 0);
    [
        block(NvmOpcode::Read, 1, 0),
        block(NvmOpcode::Compare, 1, 0),
        block(NvmOpcode::Write, 1, 0),
        zeroes,
        discard,
        flush(1),
    ]
    .map(|sqe| {
        let status = host.io(sqe);
        assert!(status.is_success() || status.is(Status::RESERVATION_CONFLICT) && status.dnr(), "{status}");
        status.is_success()
    })
    .to_vec()
}

#[test]
fn another_host_has_what_the_type_leaves_it_on_every_backend() {
    for pending in [false, true] {
        let gate = Gate::new(MIB);
        let backend = if pending { gate.clone() } else { ram(MIB) };
        let cluster = Cluster::new(2, vec![namespace(backend, 512)], &[1, 2, 3]);
        let [mut holder, mut registrant, mut other] = cluster.attach_all().try_into().ok().unwrap();
        holder.join(1, 1);
        registrant.join(1, 2);
        for bits in 1..=6u8 {
            let rtype = ReservationType::from_bits(bits);
            holder.take(1, rtype, 1);
            let (reads, writes) = (bits % 2 == 1, false);
            assert_eq!(statuses(&mut holder), [true; 6], "holder, type {bits}");
            assert_eq!(
                statuses(&mut other),
                [reads, reads, writes, writes, writes, writes],
                "other, type {bits}"
            );
            let all = bits > 2;
            let expected = if all { [true; 6] } else { [reads, reads, writes, writes, writes, writes] };
            assert_eq!(statuses(&mut registrant), expected, "registrant, type {bits}");
            let sqe = holder.release(1, ReleaseAction::Release, rtype, 1);
            holder.ok(sqe);
            assert_eq!(statuses(&mut other), [true; 6], "released, type {bits}");
        }
    }
}

#[test]
fn a_fused_pair_and_a_flush_of_all_meet_the_reservation_too() {
    let cluster = Cluster::new(2, vec![drive(), drive()], &[1, 2]);
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    one.join(1, 1);
    let pair = |host: &mut Host, nsid| {
        let mut compare = block(NvmOpcode::Compare, nsid, 0);
        compare.cdw0.set_fuse(Fuse::First);
        let mut write = block(NvmOpcode::Write, nsid, 0);
        write.cdw0.set_fuse(Fuse::Second);
        let (first, second) = (host.push(compare), host.submit(write));
        (host.wait(first).code(), host.wait(second).code())
    };
    one.take(1, WriteExclusive, 1);
    assert_eq!(pair(&mut two, 1), (Status::SUCCESS, Status::RESERVATION_CONFLICT));
    assert_eq!(pair(&mut two, 2), (Status::SUCCESS, Status::SUCCESS));
    assert_eq!(pair(&mut one, 1), (Status::SUCCESS, Status::SUCCESS));
    two.refused(flush(NSID_ALL), Status::RESERVATION_CONFLICT);
    let sqe = one.release(1, ReleaseAction::Release, WriteExclusive, 1);
    one.ok(sqe);
    one.take(1, ExclusiveAccess, 1);
    assert_eq!(pair(&mut two, 1), (Status::RESERVATION_CONFLICT, Status::ABORTED_FAILED_FUSED));
    two.ok(flush(2));
}

#[test]
fn notifications_come_one_by_one_with_an_event_each_and_masks_keep_them_back() {
    let cluster = Cluster::new(2, vec![drive(), drive()], &[1, 2]);
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    let lose = |one: &mut Host, two: &mut Host, nsid| {
        let sqe = two.register(nsid, Register, 0, 2);
        assert!(two.io(sqe).is_success());
        let sqe = one.acquire(nsid, Preempt, WriteExclusive, 1, 2);
        one.ok(sqe);
    };
    one.join(1, 1);
    one.join(2, 1);
    // Nobody asks: they wait.
    lose(&mut one, &mut two, 1);
    lose(&mut one, &mut two, 2);
    let first = two.event_request();
    assert_eq!(two.event(first), NOTICE);
    let second = two.event_request();
    two.assert_no_event(second);
    // The page that is kept back (RAE) comes again.
    assert_eq!(two.log_at(0x80, 0, 0, 64)[8..10], [1, 1]);
    assert_eq!(notice(&mut two), (1, 1, 1));
    assert_eq!(two.event(second), NOTICE);
    assert_eq!(notice(&mut two), (1, 2, 0));
    assert_eq!(notice(&mut two), (0, 0, 0));
    // Masked on one of them.
    let third = two.event_request();
    assert!(two.set_feature(FeatureId::ReservationNotificationMask, 1, 0b0010).is_success());
    assert_eq!(two.get_feature(FeatureId::ReservationNotificationMask, 1).dw0, 0b0010);
    assert_eq!(two.get_feature(FeatureId::ReservationNotificationMask, 2).dw0, 0);
    lose(&mut one, &mut two, 1);
    lose(&mut one, &mut two, 2);
    assert_eq!(two.event(third), NOTICE);
    assert_eq!(notice(&mut two), (1, 2, 0));
    // All, then a reset, which takes masks and pages away.
    assert!(two.set_feature(FeatureId::ReservationNotificationMask, NSID_ALL, 0b1110).is_success());
    let fourth = two.event_request();
    lose(&mut one, &mut two, 2);
    two.assert_no_event(fourth);
    assert_eq!(notice(&mut two), (0, 0, 0));
    assert!(two.set_feature(FeatureId::ReservationNotificationMask, NSID_ALL, 0).is_success());
    lose(&mut one, &mut two, 2);
    assert_eq!(two.event(fourth), NOTICE);
    two.restart();
    assert_eq!(notice(&mut two), (0, 0, 0));
    assert_eq!(two.set_feature(FeatureId::ReservationNotificationMask, 3, 0).code(), Status::INVALID_FIELD);
}

#[test]
fn release_and_clear_notify_those_that_stay_registered() {
    let cluster = Cluster::new(2, vec![drive()], &[1, 2, 2]);
    let [mut one, mut two, mut same] = cluster.attach_all().try_into().ok().unwrap();
    one.join(1, 1);
    two.join(1, 2);
    one.take(1, WriteExclusiveRegistrantsOnly, 1);
    let requests = (two.event_request(), same.event_request(), one.event_request());
    let sqe = one.release(1, ReleaseAction::Release, WriteExclusiveRegistrantsOnly, 1);
    one.ok(sqe);
    assert_eq!(two.event(requests.0), NOTICE);
    assert_eq!(same.event(requests.1), NOTICE);
    assert_eq!((notice(&mut two), notice(&mut same)), ((2, 1, 0), (2, 1, 0)));
    let sqe = one.release(1, ReleaseAction::Clear, WriteExclusive, 1);
    one.ok(sqe);
    let request = two.event_request();
    assert_eq!(two.event(request), NOTICE);
    assert_eq!(notice(&mut two), (3, 1, 0));
    one.assert_no_event(requests.2);
    // The operator's Clear is nobody's command.
    one.join(1, 1);
    cluster.subsystem.clear_reservation(1, common::guest::LIMIT).unwrap();
    assert_eq!(one.event(requests.2), NOTICE);
    assert_eq!(notice(&mut one), (3, 1, 0));
    assert_eq!(one.report(1).controllers, []);
}

#[test]
fn what_happens_while_a_controller_is_disabled_is_not_told_to_whoever_enables_it() {
    let cluster = Cluster::new(1, vec![drive()], &[1, 2]);
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    one.join(1, 1);
    two.join(1, 2);
    two.guest.disable();
    let sqe = one.acquire(1, Preempt, WriteExclusive, 1, 2);
    one.ok(sqe);
    two.guest.enable();
    let request = two.event_request();
    two.assert_no_event(request);
    assert_eq!(notice(&mut two), (0, 0, 0));
}

#[test]
fn hosts_by_the_thousand_are_registered_and_reported() {
    const HOSTS: u16 = 4096;
    let cluster = Cluster::new(2, vec![drive()], &[1]);
    let mut host = cluster.attach(0);
    // More than one process has sockets for: the others are known to the subsystem alone.
    let (tell, told) = std::sync::mpsc::channel();
    for number in 1..HOSTS {
        let mut other = hostid(0xff);
        other[..2].copy_from_slice(&number.to_be_bytes());
        let command = Command::Register {
            action: Register,
            iekey: false,
            cptpl: ChangePtpl::NoChange,
            crkey: 0,
            nrkey: u64::from(number),
        };
        let tell = tell.clone();
        let reply = Reply::new(move |result| tell.send(result).unwrap());
        let wish = Wish::Reserve(command);
        cluster.subsystem.submit(Job { nsid: 1, id: None, host: other, wish, wanted: None, reply });
    }
    assert!((1..HOSTS).all(|_| told.recv().unwrap().is_ok()));
    host.join(1, 0x77);
    host.take(1, ReservationType::ExclusiveAccessAllRegistrants, 0x77);
    // One more does not fit, and one that leaves makes room.
    let list: Vec<u8> = (1..128u64).flat_map(|page| (IOVA + DATA + page * 4096).to_le_bytes()).collect();
    host.guest.memory.write_bytes((DATA + (2 << 20)) as usize, &list).unwrap();
    let mut all = Host::report_sqe(1, true, 128 << 10);
    all.prp2 = IOVA + DATA + (2 << 20);
    host.ok(all);
    let report = Report::read(&host.data(DATA, 512 << 10));
    assert_eq!(report.controllers.len(), usize::from(HOSTS));
    assert!(report.controllers.iter().all(|&(_, holder, ..)| holder));
    host.ok(block(NvmOpcode::Write, 1, 0));
    // All of them at once.
    let sqe = host.acquire(1, AcquireAction::PreemptAndAbort, WriteExclusive, 0x77, 0);
    host.ok(sqe);
    assert_eq!(host.report(1).controllers, [(1, true, 0x77, 1)]);
}
