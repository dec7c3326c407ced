//! What hosts are told of a drive's health, and who they are to it: counters, thresholds, error log, resets, identity.

mod common;

use common::cluster::{Cluster, Host, block, hostid, hostnqn};
use common::guest::{DATA, Guest, IOVA};
use common::{namespace, ram, subsystem_config};
use nvmet_core::error::TargetError;
use nvmet_core::subsystem::{Health, SubsystemConfig};
use nvmet_core::target::{ControllerConfig, Lifetime, Listen};
use nvmet_spec::command::{NSID_ALL, NvmOpcode, Sqe};
use nvmet_spec::feature::FeatureId;
use nvmet_spec::registers;
use nvmet_spec::reservation::ReservationType;
use nvmet_spec::status::Status;

const MIB: u64 = 1 << 20;
const SMART: u8 = 2;

/// Reads, writes, units of 1000 * 512 bytes of each, and error log entries.
fn smart(host: &mut Host, nsid: u32) -> (u64, u64, u64, u64, u64) {
    let page = host.log(SMART, nsid, 512);
    let field = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
    (field(64), field(80), field(32), field(48), field(176))
}

/// Power cycles and unsafe shutdowns.
fn power(host: &mut Host) -> (u8, u8) {
    let page = host.log(SMART, NSID_ALL, 512);
    (page[112], page[144])
}

fn units(bytes: u64) -> u64 {
    bytes.div_ceil(512_000)
}

#[test]
fn counters_are_exactly_what_went_through_by_controller_and_by_namespace() {
    for workers in [1, 2, 4] {
        let namespaces = (0..2).map(|_| namespace(ram(MIB), 512)).collect();
        let cluster = Cluster::new(workers, namespaces, &[1, 2, 1]);
        let mut hosts = cluster.attach_all();
        let mut counts = [[(0u64, 0u64, 0u64, 0u64); 2]; 3];
        for round in 0..40u32 {
            for (at, host) in hosts.iter_mut().enumerate() {
                let mut cids = Vec::new();
                for (index, count) in counts[at].iter_mut().enumerate() {
                    let nsid = index as u32 + 1;
                    let blocks = (round + at as u32) % 8 + 1;
                    let mut add = |opcode, blocks: u32| {
                        let mut sqe = block(opcode, nsid, u64::from(round));
                        sqe.cdw12 = blocks - 1;
                        cids.push(host.push(sqe));
                    };
                    add(NvmOpcode::Write, blocks);
                    (count.1, count.3) = (count.1 + 1, count.3 + u64::from(blocks) * 512);
                    if round % (at as u32 + 1) == 0 {
                        add(NvmOpcode::Read, blocks);
                        add(NvmOpcode::Compare, blocks);
                        (count.0, count.2) = (count.0 + 2, count.2 + u64::from(blocks) * 1024);
                    }
                    add(NvmOpcode::WriteZeroes, blocks);
                    add(NvmOpcode::Flush, 1);
                }
                host.ring();
                for cid in cids {
                    // A Compare may differ by what another host has written meanwhile: nobody writes now.
                    assert!(host.wait(cid).is_success());
                }
            }
        }
        let sum = |counts: &mut dyn Iterator<Item = (u64, u64, u64, u64)>| {
            let add = |a: (u64, u64, u64, u64), b: (u64, u64, u64, u64)| {
                (a.0 + b.0, a.1 + b.1, a.2 + b.2, a.3 + b.3)
            };
            let (reads, writes, read, written) = counts.fold((0, 0, 0, 0), add);
            (reads, writes, units(read), units(written), 0)
        };
        for (host, counts) in hosts.iter_mut().zip(&counts) {
            assert_eq!(smart(host, NSID_ALL), sum(&mut counts.iter().copied()), "{workers} workers");
            assert_eq!(smart(host, 0), sum(&mut counts.iter().copied()));
        }
        for index in 0..2 {
            let all = sum(&mut counts.iter().map(|counts| counts[index]));
            for host in &mut hosts {
                assert_eq!(smart(host, index as u32 + 1), all, "{workers} workers");
            }
        }
    }
}

#[test]
fn each_command_that_fails_has_an_entry_in_the_log_of_its_controller() {
    let cluster = Cluster::new(2, vec![namespace(ram(MIB), 512)], &[1, 2]);
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    one.join(1, 1);
    one.take(1, ReservationType::ExclusiveAccess, 1);
    let cid = two.submit(block(NvmOpcode::Write, 1, 77));
    let status = two.wait(cid);
    assert!(status.is(Status::RESERVATION_CONFLICT) && status.more());
    let sqe = two.acquire(
        1,
        nvmet_spec::reservation::AcquireAction::Acquire,
        ReservationType::WriteExclusive,
        9,
        0,
    );
    two.refused(sqe, Status::RESERVATION_CONFLICT);
    let page = two.log(1, NSID_ALL, 128);
    let entry = &page[64..];
    assert_eq!((page[0], entry[0]), (2, 1), "newest first");
    assert_eq!((entry[8], entry[10]), (1, cid as u8), "queue and command");
    assert_eq!(u16::from_le_bytes([entry[12], entry[13]]) >> 1 & 0x7ff, 0x83, "status");
    assert_eq!((entry[16], entry[24]), (77, 1), "block and namespace");
    assert_eq!(page[16..24], [0; 8], "a reservation command has no block");
    assert_eq!((smart(&mut two, NSID_ALL).4, smart(&mut one, NSID_ALL).4), (2, 0));
}

#[test]
fn figures_that_cross_a_threshold_are_told_once_to_those_who_want_to_know() {
    let cluster = Cluster::new(1, vec![namespace(ram(MIB), 512)], &[1, 2]);
    let [mut one, mut two] = cluster.attach_all().try_into().ok().unwrap();
    one.listen();
    assert!(two.set_feature(FeatureId::AsyncEventConfig, 0, 0).is_success());
    let (mine, theirs) = (one.event_request(), two.event_request());
    let health = Health { temperature: 350, spare: 50, ..Health::default() };
    cluster.subsystem.set_health(health).unwrap();
    assert_eq!(one.event(mine), (1, 1, SMART), "temperature");
    two.assert_no_event(theirs);
    let page = two.log(SMART, NSID_ALL, 512);
    assert_eq!((page[0], u16::from_le_bytes([page[1], page[2]]), page[3]), (2, 350, 50));
    // One of the type, until the page was read.
    let mine = one.event_request();
    cluster.subsystem.set_health(Health { spare: 5, reliability_degraded: true, ..health }).unwrap();
    one.assert_no_event(mine);
    assert_eq!(one.log(SMART, NSID_ALL, 512)[0], 0b111);
    let first = one.event(mine);
    assert_eq!((first.0, first.2), (1, SMART));
    // The same again is no news; a threshold of one's own is.
    one.log(SMART, NSID_ALL, 512);
    cluster.subsystem.set_health(Health::default()).unwrap();
    let threshold = 300;
    assert!(two.set_feature(FeatureId::AsyncEventConfig, 0, 0xff).is_success());
    assert!(two.set_feature(FeatureId::TemperatureThreshold, 0, threshold).is_success());
    assert_eq!(two.event(theirs), (1, 1, SMART));
    for wrong in
        [Health { spare: 101, ..Health::default() }, Health { spare_threshold: 200, ..Health::default() }]
    {
        assert!(matches!(cluster.subsystem.set_health(wrong), Err(TargetError::Config { .. })));
    }
}

#[test]
fn power_cycles_and_shutdowns_are_counted_and_a_life_goes_on_in_the_next_process() {
    let cluster = Cluster::new(1, vec![namespace(ram(MIB), 512)], &[1]);
    let gone = || {
        common::wait_for("the client has left", || !cluster.target.is_attached(cluster.ids[0]).unwrap());
    };
    let mut host = cluster.attach(0);
    assert_eq!(power(&mut host), (1, 0));
    host.refused(block(NvmOpcode::Read, 9, 0), Status::INVALID_FIELD);
    // Enabled, and gone.
    drop(host);
    gone();
    let mut host = cluster.attach(0);
    assert_eq!(power(&mut host), (2, 1));
    // A reset is no power cycle; a controller that is disabled has nothing to lose.
    host.restart();
    assert_eq!(power(&mut host), (2, 1));
    host.guest.disable();
    drop(host);
    gone();
    let mut host = cluster.attach(0);
    assert_eq!(power(&mut host), (3, 1));
    host.ok(block(NvmOpcode::Write, 1, 0));
    let cc = Guest::cc().with_shn(nvmet_spec::registers::ShutdownNotification::Normal);
    host.guest.set32(registers::CC, cc.into_bits());
    host.guest.wait_csts("shutdown", |csts| csts.shst() == nvmet_spec::registers::ShutdownStatus::Complete);
    drop(host);
    gone();
    let life: Lifetime = cluster.target.lifetime(cluster.ids[0]).unwrap();
    assert_eq!((life.power_cycles, life.unsafe_shutdowns, life.errors, life.stats.writes), (3, 1, 1, 1));
    let counted = cluster.subsystem.namespaces().get(1).unwrap().stats().read();
    drop(cluster);
    let drive = nvmet_core::namespace::NamespaceConfig { counted, ..namespace(ram(MIB), 512) };
    let mut cluster = Cluster::empty(1, subsystem_config("NEXT"), vec![drive]);
    cluster.listen(1, |config| config.lifetime = life);
    let mut host = cluster.attach(0);
    assert_eq!(power(&mut host), (4, 1));
    assert_eq!((smart(&mut host, NSID_ALL).1, smart(&mut host, 1).1, smart(&mut host, 1).4), (1, 1, 1));
    host.ok(block(NvmOpcode::Write, 1, 0));
    host.refused(block(NvmOpcode::Read, 8, 5), Status::INVALID_FIELD);
    assert_eq!((smart(&mut host, NSID_ALL).1, smart(&mut host, 1).1), (2, 2));
    let page = host.log(1, NSID_ALL, 128);
    assert_eq!(
        (page[0], page[24], page[64], page[64 + 24]),
        (2, 8, 1, 9),
        "newest first, the old one after it"
    );
}

fn cntlids(cluster: &Cluster) -> Vec<u16> {
    cluster.ids.iter().map(|&id| cluster.target.cntlid(id).unwrap()).collect()
}

#[test]
fn identifiers_of_controllers_come_from_the_range_and_are_used_again_when_free() {
    let config = SubsystemConfig { cntlids: (10, 12), ..subsystem_config("RANGE") };
    let mut cluster = Cluster::empty(1, config, vec![namespace(ram(MIB), 512)]);
    cluster.listen(1, |_| {});
    cluster.listen(1, |config| config.cntlid = Some(12));
    cluster.listen(2, |_| {});
    assert_eq!(cntlids(&cluster), [10, 12, 11]);
    let refused = |cntlid| {
        let mut config = ControllerConfig::new(Listen::Path(cluster.directory.path().join("more.sock")));
        config.cntlid = cntlid;
        cluster.target.listen(&cluster.subsystem, config).unwrap_err().to_string()
    };
    for (cntlid, what) in [
        (None, "no identifier left"),
        (Some(9), "10 to 12"),
        (Some(13), "10 to 12"),
        (Some(11), "another controller"),
    ] {
        let error = refused(cntlid);
        assert!(error.contains(what) && !error.contains('\n'), "{error}");
    }
    assert!(!cluster.directory.path().join("more.sock").exists(), "nothing is left of it");
    let mut host = cluster.attach(1);
    let page = host.identify(1, 0);
    assert_eq!(page[78..80], [12, 0]);
    assert_eq!(host.identify(0x13, 0)[..8], [3, 0, 10, 0, 11, 0, 12, 0]);
    cluster.target.close(cluster.ids[0]).unwrap();
    assert_eq!(host.identify(0x13, 0)[..6], [2, 0, 11, 0, 12, 0]);
    cluster.ids.remove(0);
    cluster.listen(3, |_| {});
    assert_eq!(cntlids(&cluster), [12, 11, 10]);
    for cntlids in [(0, 5), (5, 4), (1, 0xfff0)] {
        let config = SubsystemConfig { cntlids, ..subsystem_config("WRONG") };
        assert!(
            matches!(cluster.target.add_subsystem(config), Err(TargetError::Config { .. })),
            "{cntlids:?}"
        );
    }
}

#[test]
fn a_host_is_one_host_and_says_so() {
    let mut cluster = Cluster::new(1, vec![namespace(ram(MIB), 512)], &[1, 1]);
    let listen = |nqn: Option<String>, id, name: &str| {
        let mut config = ControllerConfig::new(Listen::Path(cluster.directory.path().join(name)));
        (config.hostnqn, config.hostid) = (nqn, id);
        cluster.target.listen(&cluster.subsystem, config)
    };
    for id in [None, Some(hostid(2))] {
        let error = listen(Some(hostnqn(1)), id, "x.sock").unwrap_err().to_string();
        assert!(error.contains("another Host Identifier") && !error.contains('\n'), "{error}");
    }
    let error = listen(Some(hostnqn(2)), Some(hostid(1)), "x.sock").unwrap_err().to_string();
    assert!(error.contains("has this Host Identifier"), "{error}");
    assert!(listen(None, Some([0; 16]), "x.sock").unwrap_err().to_string().contains("zero"));
    // Derived, stable, different.
    let derived = |name: &str| {
        let id = listen(None, None, name).unwrap();
        let host = cluster.target.host(id).unwrap();
        cluster.target.close(id).unwrap();
        host
    };
    let (first, again, other) = (derived("a.sock"), derived("a.sock"), derived("b.sock"));
    assert!(first == again && first != other && first.id != [0; 16]);
    // A name that is a UUID, and the identifier, are one thing where only one of them is given.
    let uuid = "befdec4c-2234-41b2-a85c-ca77c773af36";
    let bytes = *uuid::Uuid::parse_str(uuid).unwrap().as_bytes();
    let named = format!("nqn.2014-08.org.nvmexpress:uuid:{uuid}");
    let by_name = listen(Some(named.clone()), None, "c.sock").unwrap();
    let by_id = listen(None, Some(bytes), "d.sock").unwrap();
    for id in [by_name, by_id] {
        let host = cluster.target.host(id).unwrap();
        assert_eq!((host.nqn, host.id), (named.clone(), bytes));
        cluster.target.close(id).unwrap();
    }
    // The configured one is what the feature says, and nothing else can be set.
    let mut host = cluster.attach(0);
    let mut sqe = Sqe { cdw10: 0x81, cdw11: 1, ..Host::set_feature_sqe(FeatureId::HostIdentifier, 0, 1) };
    sqe.prp1 = IOVA + DATA;
    for (id, good) in [(hostid(1), true), (hostid(2), false), ([0; 16], false)] {
        host.guest.memory.write_bytes(DATA as usize, &id).unwrap();
        let mut fresh = Host::new({
            host.guest.disable();
            host.guest
        });
        // Before any queue exists is the time for it.
        fresh.guest.disable();
        fresh.guest.enable();
        assert_eq!(fresh.guest.call(sqe).status().is_success(), good, "{id:?}");
        host = fresh;
    }
    cluster.listen(1, |_| {});
}

#[test]
fn a_subsystem_reset_reaches_the_controllers_that_it_may_reach() {
    for (allowed, hit) in
        [(None, [true, true, false]), (Some(true), [true, true, true]), (Some(false), [false; 3])]
    {
        let config = SubsystemConfig { subsystem_reset: allowed, ..subsystem_config("RESET") };
        let mut cluster = Cluster::empty(2, config, vec![namespace(ram(MIB), 512)]);
        for host in [1, 1, 2] {
            cluster.listen(host, |_| {});
        }
        let mut hosts = cluster.attach_all();
        hosts[2].join(1, 2);
        hosts[2].take(1, ReservationType::WriteExclusive, 2);
        assert!(hosts[0].set_feature(FeatureId::NamespaceWriteProtection, 1, 2).is_success());
        hosts[0].guest.set32(registers::NSSR, registers::NSSR_MAGIC);
        for (host, hit) in hosts.iter_mut().zip(hit) {
            if hit {
                host.guest.wait_csts("reset", |csts| csts.nssro() && !csts.rdy());
                host.guest
                    .set32(registers::CSTS, nvmet_spec::registers::Csts::new().with_nssro(true).into_bits());
                assert!(!host.guest.csts().nssro());
                host.guest.enable();
                host.ring = host.guest.create_pair(1);
            }
            assert!(host.guest.csts().rdy() && !host.guest.csts().nssro());
            host.ok(block(NvmOpcode::Read, 1, 0));
        }
        // Reservations stay; no power was lost.
        hosts[0].refused(block(NvmOpcode::Write, 1, 0), Status::RESERVATION_CONFLICT);
        assert_eq!(hosts[2].report(1).hosts(), [2]);
        assert_eq!(hosts[2].get_feature(FeatureId::NamespaceWriteProtection, 1).dw0, 2);
    }
}
