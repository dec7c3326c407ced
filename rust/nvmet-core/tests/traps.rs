//! What made guests stumble over other NVMe devices, one test a trap.
//!
//! The traps are from the histories of SPDK, Propolis, OpenVMM, Cloud Hypervisor and the nvmet drivers. Each test
//! drives the device through its socket as the guest that fell into the trap would.

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::gate::Seen;
use common::guest::{CONFIG, DATA, Guest, IOVA, LIMIT, Ring, page_io};
use common::{attach_patiently, namespace, ram, serve, serve_gate, serve_with};
use nvmet_core::device::DoorbellMode;
use nvmet_core::namespace::MAX_NAMESPACES;
use nvmet_dma::EventFd;
use nvmet_host::{Data, Drive, HostConfig, HostError, QueueConfig, SqeExt, prp, read_write};
use nvmet_spec::command::{AdminOpcode, IdentifyCdw10, NvmOpcode, RwCdw12, SetFeaturesCdw10, Sqe};
use nvmet_spec::feature::{FeatureId, Select};
use nvmet_spec::registers::{self, Cc, Csts, Doorbell, ShutdownNotification, ShutdownStatus};
use nvmet_spec::status::Status;

const MSIX: u32 = 2;

/// 6.1: Windows masks BAR0 with FFFFC000h.
#[test]
fn bar0_is_16_kib_and_asks_for_no_less() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = Guest::bare(&served.socket);
    assert_eq!(guest.client.region_info(0).unwrap().size, 0x4000);
    guest.client.region_write(CONFIG, 0x10, &[0xff; 4]).unwrap();
    let mut bar = [0; 4];
    guest.client.region_read(CONFIG, 0x10, &mut bar).unwrap();
    assert_eq!(u32::from_le_bytes(bar) & !0xf, 0xffff_c000);
}

/// 6.2: an error from one of these stops the start of Windows.
#[test]
fn windows_gets_and_sets_every_mandatory_feature_when_it_starts() {
    // Write-back cache, so that 06h exists as well.
    let (served, _gate) = serve_gate();
    let mut drive = attach_patiently(&served.socket);
    drive.identify(1, 0).unwrap();
    for fid in [0x01u8, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0b] {
        for select in [Select::Current, Select::Default, Select::Saved, Select::SupportedCapabilities] {
            drive.get_features(fid, select, 0, Data::None).unwrap();
        }
        let value = drive.get_features(fid, Select::Current, 0, Data::None).unwrap();
        drive.set_features(fid, 0, value, Data::None).unwrap();
        assert_eq!(drive.get_features(fid, Select::Current, 0, Data::None).unwrap(), value, "{fid:#x}");
    }
    let queues = drive.get_features(FeatureId::NumberOfQueues, Select::Current, 0, Data::None).unwrap();
    drive.set_features(FeatureId::NumberOfQueues, 0, queues, Data::None).unwrap();
    drive.open_namespace(1).unwrap();
}

/// 6.3: Windows and Cloud Hypervisor's guests ask for what the NVM Command Set adds to Identify Controller.
#[test]
fn identify_controller_of_the_command_set_is_a_zero_page() {
    let served = serve(DoorbellMode::Trapped);
    let mut drive = attach_patiently(&served.socket);
    assert!(drive.identify(0x06, 0).unwrap().iter().all(|&byte| byte == 0));
}

/// 6.4: log pages that some guests ask for and that may not exist.
#[test]
fn unknown_log_pages_are_refused_and_nothing_stalls() {
    let served = serve(DoorbellMode::Trapped);
    let mut drive = attach_patiently(&served.socket);
    drive.get_log_page(0x00, 0, 1024, 0, false).unwrap();
    for lid in [0xc0, 0xc1, 0xca, 0xff, 0x0e] {
        let error = drive.get_log_page(lid, 0xffff_ffff, 512, 0, false).unwrap_err();
        assert!(
            matches!(error, HostError::Command { status, .. } if status.is(Status::INVALID_LOG_PAGE) && status.dnr()),
            "{error}"
        );
    }
    drive.identify(1, 0).unwrap();
}

/// 6.5: NN is a constant, whatever comes and goes.
#[test]
fn nn_is_the_same_when_namespaces_come_and_go() {
    let served = serve(DoorbellMode::Trapped);
    let mut drive = attach_patiently(&served.socket);
    let nn =
        |drive: &mut Drive| u32::from_le_bytes(drive.identify(1, 0).unwrap()[516..520].try_into().unwrap());
    assert_eq!(nn(&mut drive), MAX_NAMESPACES);
    served.subsystem.add_namespace(namespace(ram(1 << 20), 512)).unwrap();
    assert_eq!(nn(&mut drive), MAX_NAMESPACES);
    served.subsystem.remove_namespace(1).unwrap();
    served.subsystem.remove_namespace(2).unwrap();
    assert_eq!(nn(&mut drive), MAX_NAMESPACES);
}

/// 6.6: a list that is not cleared makes the second removal invisible.
#[test]
fn the_changed_namespace_list_is_cleared_by_reading_it_unless_rae_is_set() {
    let served = serve(DoorbellMode::Trapped);
    let mut drive = attach_patiently(&served.socket);
    drive.set_features(FeatureId::AsyncEventConfig, 0, 1 << 8, Data::None).unwrap();
    drive.arm_events(2).unwrap();
    let wait = |drive: &mut Drive| {
        let deadline = Instant::now() + LIMIT;
        loop {
            let events = drive.poll_events().unwrap();
            if !events.is_empty() {
                return events;
            }
            assert!(Instant::now() < deadline, "no event");
            std::thread::yield_now();
        }
    };
    let list = |drive: &mut Drive, rae| {
        let page = drive.get_log_page(0x04, 0xffff_ffff, 4096, 0, rae).unwrap();
        let entry = |at: usize| u32::from_le_bytes(page[at * 4..at * 4 + 4].try_into().unwrap());
        (entry(0), entry(1))
    };
    for (nsid, remove) in [(2, false), (3, false), (2, true), (3, true), (2, false)] {
        if remove {
            served.subsystem.remove_namespace(nsid).unwrap();
        } else {
            assert_eq!(served.subsystem.add_namespace(namespace(ram(1 << 20), 512)).unwrap(), nsid);
        }
        let events = wait(&mut drive);
        assert_eq!((events.len(), events[0].event_type, events[0].log_page), (1, 2, 4));
        assert_eq!(list(&mut drive, true), (nsid, 0), "RAE keeps it");
        assert_eq!(list(&mut drive, false), (nsid, 0));
        assert_eq!(list(&mut drive, false), (0, 0));
    }
}

/// 6.7: nothing is saveable.
#[test]
fn a_feature_that_is_to_be_saved_is_refused() {
    let served = serve(DoorbellMode::Trapped);
    let mut drive = attach_patiently(&served.socket);
    for fid in [0x01u8, 0x02, 0x04, 0x05, 0x08, 0x09, 0x0b] {
        let cdw10 = SetFeaturesCdw10::new().with_fid(fid).with_sv(true).into_bits();
        let cqe =
            drive.admin(Sqe::new(AdminOpcode::SetFeatures, 0, 0).with_cdw10(cdw10), Data::None).unwrap();
        assert!(cqe.status().is(Status::FEATURE_NOT_SAVEABLE), "{fid:#x}: {}", cqe.status());
    }
}

/// 6.8 and 7.4: older Linux leaves the shadow page as it was when it resets the controller.
#[test]
fn stale_shadow_doorbells_survive_no_reset() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = Guest::connect(&served.socket);
    let (shadow, event_idx) = (DATA + 0x10_0000, DATA + 0x10_1000);
    let config = Sqe {
        prp1: IOVA + shadow,
        prp2: IOVA + event_idx,
        ..Sqe::new(AdminOpcode::DoorbellBufferConfig, 0, 0)
    };
    for round in 0..3u16 {
        guest.enable();
        // Before the queues exist, and after.
        if round != 1 {
            guest.ok(config);
        }
        let mut ring = guest.create_pair(1);
        if round == 1 {
            guest.ok(config);
        }
        // The page is as the last round left it: a tail of 5 must not make the controller fetch five entries.
        assert!(guest.peek(&mut ring).is_none());
        guest.assert_alive();
        assert!(guest.peek(&mut ring).is_none(), "round {round}");
        for cid in 0..5 {
            let sqe = page_io(NvmOpcode::Read, round * 8 + cid);
            guest.push(&mut ring, &sqe);
            guest.memory.store_u32((shadow + 8) as usize, ring.tail).unwrap();
            guest.ring_tail(&ring);
            let cqe = loop {
                if let Some(cqe) = guest.peek(&mut ring) {
                    break cqe;
                }
                std::thread::yield_now();
            };
            assert_eq!((cqe.cid, cqe.status()), (round * 8 + cid, Status::SUCCESS));
            guest.memory.store_u32((shadow + 12) as usize, ring.head).unwrap();
        }
        if round == 1 {
            guest.client.reset().unwrap();
            guest.set_command(6);
        } else {
            guest.disable();
        }
    }
}

/// 6.9: Linux takes PRP lists from pools of 256 bytes, so they begin anywhere in a page.
#[test]
fn prp_lists_begin_in_the_middle_of_a_page() {
    let served = serve(DoorbellMode::Trapped);
    let mut drive = attach_patiently(&served.socket);
    let mut pair = drive.create_queue_pair(&QueueConfig::default()).unwrap();
    let memory = Arc::clone(drive.memory());
    let (lists, buffer) = (memory.allocate(8192).unwrap(), memory.allocate(32 * 4096).unwrap());
    let data: Vec<u8> = (0..32 * 4096).map(|at| (at / 11) as u8).collect();
    // The last one runs over the end of its page: its last entry there points to the next page.
    for (at, pages, first) in [(256, 32, 0), (512 + 8, 17, 8), (3840, 32, 12), (4088, 3, 0), (4080, 9, 2048)]
    {
        let bytes = (pages * 4096 - first) / 512 * 512;
        buffer.write(first, &data[..bytes]).unwrap();
        let entries = prp::entries(buffer.iova() + first as u64, bytes, 4096);
        let pair_of = prp::layout(entries, lists.iova() + at, 4096, |iova, entry| {
            lists.write((iova - lists.iova()) as usize, &entry.to_le_bytes()).unwrap();
        });
        let command = |opcode| read_write(opcode, 1, 3, (bytes / 512) as u32).with_prp(pair_of);
        let cqe = drive.io(&mut pair, command(NvmOpcode::Write), Data::None).unwrap();
        assert!(cqe.status().is_success(), "list at {at}: {}", cqe.status());
        buffer.fill(0, buffer.len(), 0).unwrap();
        let cqe = drive.io(&mut pair, command(NvmOpcode::Read), Data::None).unwrap();
        assert!(cqe.status().is_success(), "list at {at}: {}", cqe.status());
        assert!(buffer.to_vec(first, bytes).unwrap() == data[..bytes], "list at {at}");
    }
}

/// 6.10: one bad admin command is one bad completion.
#[test]
fn unknown_admin_commands_are_invalid_opcodes_and_the_controller_lives() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = Guest::connect(&served.socket);
    guest.enable();
    let mut ring = guest.create_pair(1);
    for opcode in [0x03u8, 0x07, 0x0b, 0x7d, 0x7f, 0x80, 0x84, 0xc0, 0xff, 0x19, 0x1d] {
        let cqe = guest.call(Sqe::new(opcode, 0, 0));
        let status = cqe.status();
        assert!(status.is(Status::INVALID_OPCODE) && status.dnr(), "{opcode:#x}: {status}");
    }
    guest.refused(Sqe::new(AdminOpcode::Identify, 0, 0).with_cdw10(0x1234), Status::INVALID_FIELD);
    assert!(!guest.csts().cfs());
    guest.assert_alive();
    assert_eq!(guest.io(&mut ring, &page_io(NvmOpcode::Read, 3)).status(), Status::SUCCESS);
}

/// 6.11: a guest reboots inside of one VMM process. Firmware and the VMM do this in every order.
#[test]
fn a_reboot_in_any_order_leaves_a_controller_that_works() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = Guest::connect(&served.socket);
    let eventfds: Vec<EventFd> = (0..2).map(|_| EventFd::new().unwrap()).collect();
    let steps: [&dyn Fn(&mut Guest); 3] = [
        &|guest| {
            guest.client.reset().unwrap();
            guest.set_command(6);
        },
        &|guest| guest.disable(),
        &|guest| {
            guest.client.disable_irqs(MSIX).unwrap();
            guest.client.set_irq_eventfds(MSIX, 0, &eventfds).unwrap();
        },
    ];
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for order in orders {
        guest.enable();
        let ring = Ring::new(1, 64, 64);
        guest.memory.fill(ring.sq as usize, 0x8_0000, 0).unwrap();
        let mut create = Guest::create_cq(&ring);
        create.cdw11 |= 1 << 16 | 0b10;
        guest.ok(create);
        guest.ok(Guest::create_sq(&ring));
        let mut ring = ring;
        assert_eq!(guest.io(&mut ring, &page_io(NvmOpcode::Write, 1)).status(), Status::SUCCESS);
        // Left in the middle of things.
        guest.push(&mut ring, &page_io(NvmOpcode::Read, 2));
        guest.ring_tail(&ring);
        order.into_iter().for_each(|step| steps[step](&mut guest));
        assert!(!guest.csts().rdy());
    }
    // And the interrupt of the last life's vectors arrives.
    guest.enable();
    let _ = eventfds[0].drain().unwrap();
    guest.assert_alive();
    let deadline = Instant::now() + LIMIT;
    while eventfds[0].drain().unwrap() == 0 {
        assert!(Instant::now() < deadline, "no interrupt");
        guest.assert_alive();
    }
}

/// 6.12: a shutdown flushes.
#[test]
fn a_shutdown_flushes_every_namespace() {
    let (served, gate) = serve_gate();
    let mut guest = Guest::connect(&served.socket);
    for kind in [ShutdownNotification::Normal, ShutdownNotification::Abrupt] {
        guest.enable();
        gate.forget();
        guest.set32(registers::CC, Guest::cc().with_shn(kind).into_bits());
        guest.wait_csts("shutdown", |csts| csts.shst() == ShutdownStatus::Complete);
        assert_eq!(gate.seen(), [Seen::Flush]);
        guest.disable();
        assert_eq!(guest.csts().shst(), ShutdownStatus::Normal);
    }
}

/// 6.12: a shutdown comes to its end even if the medium does not, within what RTD3E says.
#[test]
fn a_shutdown_is_over_within_rtd3e_while_a_backend_hangs() {
    let (served, gate) = serve_gate();
    let mut guest = Guest::connect(&served.socket);
    guest.enable();
    let mut identify = Sqe::new(AdminOpcode::Identify, 0, 0);
    identify.cdw10 = IdentifyCdw10::new().with_cns(1).into_bits();
    identify.prp1 = IOVA + DATA;
    guest.ok(identify);
    // RTD3 Entry Latency, in microseconds: what Linux waits for at a shutdown.
    let rtd3e = guest.memory.load_u32(DATA as usize + 88).unwrap();
    assert_eq!(rtd3e, 10_000_000);
    let mut ring = guest.create_pair(1);
    gate.close_for_good();
    guest.push(&mut ring, &page_io(NvmOpcode::Write, 1));
    guest.ring_tail(&ring);
    gate.wait_held(1);
    guest.set32(registers::CC, Guest::cc().with_shn(ShutdownNotification::Normal).into_bits());
    assert_eq!(guest.csts().shst(), ShutdownStatus::Occurring);
    guest.wait_csts("shutdown", |csts| csts.shst() == ShutdownStatus::Complete);
    gate.open();
    guest.disable();
}

/// 6.12b: what has a volatile write cache honours FUA.
#[test]
fn fua_reaches_the_backend_of_a_volatile_write_cache() {
    let (served, gate) = serve_gate();
    let mut drive = attach_patiently(&served.socket);
    assert_eq!(drive.identify(1, 0).unwrap()[525] & 1, 1, "VWC");
    let mut namespace = drive.open_namespace(1).unwrap();
    namespace.write(0, &[1; 512], true).unwrap();
    namespace.write(1, &[1; 512], false).unwrap();
    let fua = RwCdw12::new().with_fua(true).into_bits();
    let mut zeroes = read_write(NvmOpcode::WriteZeroes, 1, 0, 8);
    zeroes.cdw12 |= fua;
    assert!(namespace.io(zeroes, Data::None).unwrap().status().is_success());
    namespace.flush().unwrap();
    let expected =
        [Seen::Write { fua: true }, Seen::Write { fua: false }, Seen::WriteZeroes { fua: true }, Seen::Flush];
    assert_eq!(gate.seen(), expected);
}

/// 6.13: guests with larger pages, up to the 64 KiB of aarch64.
#[test]
fn guests_with_larger_pages_move_data() {
    let served = serve_with(2, vec![namespace(ram(16 << 20), 4096)], |_| {});
    for page_size in [4096, 8192, 16384, 65536] {
        let config = HostConfig { page_size, timeout: LIMIT, ..HostConfig::default() };
        let mut drive = Drive::attach(&served.socket, config).unwrap();
        assert_eq!(Cc::from_bits(drive.reg32(registers::CC).unwrap()).page_size(), page_size as u32);
        let mut namespace = drive.open_namespace(1).unwrap();
        let data: Vec<u8> = (0..1 << 20).map(|at| (at / 3) as u8 ^ page_size as u8).collect();
        namespace.write(1, &data, false).unwrap();
        let mut back = vec![0; data.len()];
        namespace.read(1, &mut back).unwrap();
        assert!(back == data);
        drive.close_namespace(namespace).unwrap();
        drive.detach().unwrap();
    }
}

/// A guest with shadow doorbells whose rings it knows: what EventIdx says is what a driver would look at.
struct Shadowed {
    guest: Guest,
    ring: Ring,
}

impl Shadowed {
    const SHADOW: u64 = DATA + 0x10_0000;
    const EVENT_IDX: u64 = DATA + 0x10_1000;

    fn new(served: &common::Served, entries: (u32, u32)) -> Self {
        let mut guest = Guest::connect(&served.socket);
        guest.enable();
        guest.ok(Self::config());
        let ring = Ring::new(1, entries.0, entries.1);
        guest.ok(Guest::create_cq(&ring));
        guest.ok(Guest::create_sq(&ring));
        Self { guest, ring }
    }

    fn config() -> Sqe {
        Sqe {
            prp1: IOVA + Self::SHADOW,
            prp2: IOVA + Self::EVENT_IDX,
            ..Sqe::new(AdminOpcode::DoorbellBufferConfig, 0, 0)
        }
    }

    /// As Linux does it: the shadow, a barrier, and the register only if EventIdx was passed. Whether it was rung.
    fn update(&mut self, completion: bool, old: u32, new: u32) -> bool {
        let at = 8 + 4 * u64::from(completion);
        self.guest.memory.store_u32((Self::SHADOW + at) as usize, new).unwrap();
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let event_idx = self.guest.memory.load_u32((Self::EVENT_IDX + at) as usize).unwrap() as u16;
        let (old, new) = (old as u16, new as u16);
        let ring = new.wrapping_sub(event_idx).wrapping_sub(1) < new.wrapping_sub(old);
        if ring {
            let doorbell = if completion { Doorbell::CqHead(1) } else { Doorbell::SqTail(1) };
            self.guest.doorbell(doorbell, new.into());
        }
        ring
    }

    fn submit(&mut self, sqe: &Sqe) -> bool {
        let old = self.ring.tail;
        self.guest.push(&mut self.ring, sqe);
        self.update(false, old, self.ring.tail)
    }

    /// Consumes completions until `count` have come.
    fn complete(&mut self, count: usize) {
        let deadline = Instant::now() + LIMIT;
        let mut done = 0;
        while done < count {
            let old = self.ring.head;
            let mut ring = self.ring.clone();
            while let Some(cqe) = self.guest.peek(&mut ring) {
                assert_eq!(cqe.status(), Status::SUCCESS);
                done += 1;
            }
            self.ring = ring;
            if self.ring.head != old {
                self.update(true, old, self.ring.head);
            }
            assert!(Instant::now() < deadline, "{done} of {count}: a ring got lost");
            std::thread::yield_now();
        }
    }
}

/// 7.1: a submission queue that waits for room in its completion queue goes on when the guest makes room.
#[test]
fn a_full_completion_queue_does_not_put_its_submission_queue_to_sleep_for_ever() {
    let served = serve(DoorbellMode::Trapped);
    // Four times as many commands as completions fit.
    let mut shadowed = Shadowed::new(&served, (64, 4));
    for _ in 0..50 {
        for cid in 0..12 {
            shadowed.submit(&page_io(NvmOpcode::Read, cid));
        }
        shadowed.complete(12);
    }
}

/// 7.2: Doorbell Buffer Config while I/O is on its way.
#[test]
fn shadow_doorbells_are_set_up_while_io_is_in_flight() {
    let (served, gate) = serve_gate();
    let mut guest = Guest::connect(&served.socket);
    guest.enable();
    let mut rings: Vec<Ring> = (1..=4).map(|qid| guest.create_pair(qid)).collect();
    gate.close();
    for ring in &mut rings {
        for cid in 0..8 {
            guest.push(ring, &page_io(NvmOpcode::Write, cid));
        }
        guest.ring_tail(ring);
    }
    gate.wait_held(32);
    guest.ok(Shadowed::config());
    gate.open();
    for ring in &mut rings {
        for _ in 0..8 {
            let cqe = loop {
                if let Some(cqe) = guest.peek(ring) {
                    break cqe;
                }
                std::thread::yield_now();
            };
            assert_eq!(cqe.status(), Status::SUCCESS);
        }
        // Where the rings were is where they go on.
        let sqid = u64::from(ring.sqid);
        let at = |which: u64| (Shadowed::SHADOW + sqid * 8 + which * 4) as usize;
        assert_eq!(guest.memory.load_u32(at(0)).unwrap(), ring.tail);
        guest.push(ring, &page_io(NvmOpcode::Read, 99));
        guest.memory.store_u32(at(1), ring.head).unwrap();
        guest.memory.store_u32(at(0), ring.tail).unwrap();
        guest.ring_tail(ring);
        while guest.peek(ring).is_none() {
            std::thread::yield_now();
        }
    }
}

/// 7.3 and 7.7: the shadow is the truth; the register only wakes. A sleeping target wakes by the one write that
/// EventIdx asks for.
#[test]
fn the_shadow_page_is_the_only_truth_and_no_ring_gets_lost() {
    let served = serve(DoorbellMode::Trapped);
    let mut shadowed = Shadowed::new(&served, (64, 64));
    // A register value that the shadow does not know of brings nothing.
    shadowed.guest.doorbell(Doorbell::SqTail(1), 40);
    shadowed.guest.assert_alive();
    assert!(shadowed.guest.peek(&mut shadowed.ring.clone()).is_none());
    let mut rung = 0;
    for round in 0..2000u16 {
        let burst = usize::from(round % 7) + 1;
        for cid in 0..burst {
            rung += usize::from(shadowed.submit(&page_io(NvmOpcode::Read, cid as u16)));
        }
        shadowed.complete(burst);
    }
    assert!(rung > 0, "an idle worker asks to be woken");
}

/// 7.5: the guest moves its tail between the arming and the second look of the worker.
#[test]
fn one_command_at_a_time_is_never_missed_by_a_worker_that_falls_asleep() {
    let served = serve(DoorbellMode::Trapped);
    let mut shadowed = Shadowed::new(&served, (2, 2));
    for round in 0..3000u16 {
        shadowed.submit(&page_io(NvmOpcode::Read, round));
        shadowed.complete(1);
        // Pauses of all lengths, so that the worker is met at every point on its way to sleep.
        (0..u32::from(round) * 7 % 4000).for_each(|_| std::hint::spin_loop());
    }
}

/// 7.6: all the queues that can be had fit in the one page of shadow doorbells.
#[test]
fn the_last_queue_has_its_shadow_doorbell_in_the_page() {
    let served = serve_with(1, vec![namespace(ram(1 << 20), 512)], |config| config.queues = 511);
    let mut drive = attach_patiently(&served.socket);
    assert_eq!(drive.cap().dstrd(), 0);
    assert_eq!(drive.set_number_of_queues(511).unwrap(), 511);
    let mut pairs: Vec<_> = (0..511)
        .map(|_| drive.create_queue_pair(&QueueConfig { depth: 4, ..QueueConfig::default() }).unwrap())
        .collect();
    let last = pairs.last_mut().unwrap();
    assert_eq!(last.cq_id(), 511);
    let cqe = drive.io(last, read_write(NvmOpcode::Read, 1, 0, 1), Data::In(&mut [0; 512])).unwrap();
    assert!(cqe.status().is_success());
    assert!(!Csts::from_bits(drive.reg32(registers::CSTS).unwrap()).cfs());
}
