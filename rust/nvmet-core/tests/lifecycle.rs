//! The life of a controller: enable, disable, shutdown, resets of every kind, and the queues and events in between.

mod common;

use std::time::{Duration, Instant};

use common::gate::Seen;
use common::guest::{CONFIG, DATA, Guest, IOVA, LIMIT, MEMORY, Ring, page_io};
use common::{attach_patiently, namespace, ram, serve, serve_gate, serve_with};
use nvmet_core::device::DoorbellMode;
use nvmet_core::target::Event;
use nvmet_host::{ClientProfile, Drive, HostConfig, QueueConfig, SqeExt};
use nvmet_spec::command::{
    AbortCdw10, AdminOpcode, CreateCqCdw11, CreateSqCdw11, GetLogPageCdw10, NvmOpcode, SetFeaturesCdw10, Sqe,
};
use nvmet_spec::feature::{FeatureId, NumberOfQueues};
use nvmet_spec::registers::{
    self, Aqa, ArbitrationMechanism, Cc, CommandSetSelected, Csts, Doorbell, NSSR_MAGIC,
    ShutdownNotification, ShutdownStatus,
};
use nvmet_spec::status::Status;

fn guest(served: &common::Served) -> Guest {
    Guest::connect(&served.socket)
}

fn set_features(fid: FeatureId, cdw11: u32) -> Sqe {
    let cdw10 = SetFeaturesCdw10::new().with_fid(fid.into()).into_bits();
    Sqe::new(AdminOpcode::SetFeatures, 0, 0).with_cdw10(cdw10).with_cdw11(cdw11)
}

fn abort(sqid: u16, cid: u16) -> Sqe {
    Sqe::new(AdminOpcode::Abort, 0, 0).with_cdw10(AbortCdw10::new().with_sqid(sqid).with_cid(cid).into_bits())
}

fn event_request() -> Sqe {
    Sqe::new(AdminOpcode::AsyncEventRequest, 0, 0)
}

/// Get Log Page of one page into the guest's data.
fn log_page(lid: u8, rae: bool) -> Sqe {
    let cdw10 = GetLogPageCdw10::new().with_lid(lid).with_rae(rae).with_numdl(1023);
    let mut sqe = Sqe::new(AdminOpcode::GetLogPage, 0, 0xffff_ffff).with_cdw10(cdw10.into_bits());
    sqe.prp1 = IOVA + DATA;
    sqe
}

/// The controller refuses to come up, says so, and comes up when it is asked properly.
fn fails_and_recovers(guest: &mut Guest, what: &str, spoil: impl FnOnce(&mut Guest) -> Cc) {
    guest.prepare_admin(64, 64);
    let cc = spoil(guest);
    guest.set32(registers::CC, cc.into_bits());
    let csts = guest.wait_csts(what, |csts| csts.rdy() || csts.cfs());
    assert!(csts.cfs() && !csts.rdy(), "{what}: {csts:?}");
    guest.disable();
    assert!(!guest.csts().cfs(), "{what}");
    guest.enable();
    guest.assert_alive();
    let mut ring = guest.create_pair(1);
    assert_eq!(guest.io(&mut ring, &page_io(NvmOpcode::Read, 1)).status(), Status::SUCCESS, "{what}");
    guest.disable();
}

#[test]
fn settings_that_are_not_supported_are_fatal_until_the_next_reset() {
    let served = serve(DoorbellMode::Trapped);
    let guest = &mut guest(&served);
    let cc = Guest::cc();
    fails_and_recovers(guest, "AQA.ASQS of one entry", |guest| {
        guest.set32(registers::AQA, Aqa::new().with_asqs_z(0).with_acqs_z(63).into_bits());
        cc
    });
    fails_and_recovers(guest, "AQA.ACQS of one entry", |guest| {
        guest.set32(registers::AQA, Aqa::new().with_asqs_z(63).with_acqs_z(0).into_bits());
        cc
    });
    for asq in [0, 0x1000, IOVA + MEMORY as u64 + 4096, !0xfff] {
        fails_and_recovers(guest, "ASQ outside of memory", |guest| {
            guest.set64(registers::ASQ, asq);
            cc
        });
        fails_and_recovers(guest, "ACQ outside of memory", |guest| {
            guest.set64(registers::ACQ, asq);
            cc
        });
    }
    fails_and_recovers(guest, "an admin queue that runs over the end of memory", |guest| {
        guest.set32(registers::AQA, Aqa::new().with_asqs_z(4095).with_acqs_z(63).into_bits());
        guest.set64(registers::ASQ, IOVA + MEMORY as u64 - 4096);
        cc
    });
    fails_and_recovers(guest, "a queue that is not at a page of 8 KiB", |guest| {
        guest.set64(registers::ASQ, IOVA + 0x1000);
        cc.with_mps(1)
    });
    for mps in 5..=15 {
        fails_and_recovers(guest, "CC.MPS beyond CAP.MPSMAX", |_| cc.with_mps(mps));
    }
    fails_and_recovers(guest, "CC.CSS: all command sets", |_| cc.with_css(CommandSetSelected::AllSupported));
    fails_and_recovers(guest, "CC.CSS: admin only", |_| cc.with_css(CommandSetSelected::AdminOnly));
    fails_and_recovers(guest, "CC.AMS", |_| cc.with_ams(ArbitrationMechanism::WeightedRoundRobinUrgent));
}

#[test]
fn admin_queues_of_every_size_work() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = guest(&served);
    for (sq, cq) in [(2, 2), (4096, 4096), (2, 4096), (4096, 2), (3, 5)] {
        guest.enable_with(sq, cq, Guest::cc());
        for _ in 0..sq.max(cq) + 3 {
            guest.assert_alive();
        }
        let mut ring = guest.create_pair(1);
        assert_eq!(guest.io(&mut ring, &page_io(NvmOpcode::Read, 1)).status(), Status::SUCCESS);
        guest.ok(Guest::delete(AdminOpcode::DeleteIoSq, 1));
        guest.disable();
    }
}

#[test]
fn a_full_admin_queue_is_worked_off_as_its_host_makes_room() {
    for mode in [DoorbellMode::Trapped, DoorbellMode::Mapped] {
        let served = serve(mode);
        let mut guest = guest(&served);
        guest.enable_with(4096, 4, Guest::cc());
        let mut ring = guest.admin.clone();
        let mut sqe = Sqe::new(AdminOpcode::Identify, 0, 0).with_cdw10(1);
        sqe.prp1 = IOVA + DATA;
        for cid in 0..4000 {
            sqe.cdw0.set_cid(cid);
            guest.push(&mut ring, &sqe);
        }
        guest.ring_tail(&ring);
        for cid in 0..4000 {
            assert_eq!(guest.wait(&mut ring).cid, cid);
        }
    }
}

/// Rings the doorbells of a client that maps them: no message tells of them.
#[test]
fn a_full_admin_queue_goes_on_when_its_head_moves_in_a_mapped_page() {
    let served = serve(DoorbellMode::Mapped);
    let mut guest = guest(&served);
    let region = guest.client.region_info(0).unwrap();
    let (offset, size) = region.areas[0];
    let page =
        nvmet_dma::MappedArea::new(std::os::fd::AsFd::as_fd(&region.fd.unwrap()), offset, size as usize)
            .unwrap();
    guest.enable_with(64, 4, Guest::cc());
    let mut ring = guest.admin.clone();
    for cid in 0..60 {
        let mut sqe = Sqe::new(AdminOpcode::KeepAlive, 0, 0);
        sqe.cdw0.set_cid(cid);
        guest.push(&mut ring, &sqe);
    }
    page.store_u32(0, ring.tail).unwrap();
    let deadline = Instant::now() + LIMIT;
    for cid in 0..60 {
        let cqe = loop {
            if let Some(cqe) = guest.peek(&mut ring) {
                break cqe;
            }
            assert!(Instant::now() < deadline, "command {cid} waits for ever");
            std::thread::yield_now();
        };
        assert_eq!(cqe.cid, cid);
        page.store_u32(4, ring.head).unwrap();
    }
}

#[test]
fn a_mapping_that_a_client_keeps_does_not_reach_the_doorbells_of_the_next_one() {
    let served = serve(DoorbellMode::Mapped);
    let map = |guest: &mut Guest| {
        let region = guest.client.region_info(0).unwrap();
        let fd = region.fd.unwrap();
        nvmet_dma::MappedArea::new(std::os::fd::AsFd::as_fd(&fd), region.areas[0].0, 4096).unwrap()
    };
    let mut first = guest(&served);
    let kept = map(&mut first);
    drop(first);
    let mut second = guest(&served);
    let own = map(&mut second);
    kept.store_u32(0, 7).unwrap();
    assert_eq!(own.load_u32(0).unwrap(), 0);
}

#[test]
fn cc_disables_with_io_in_flight_and_ready_falls_when_all_is_over() {
    let (served, gate) = serve_gate();
    let mut guest = guest(&served);
    for stubborn in [false, true] {
        guest.enable();
        let mut ring = guest.create_pair(1);
        if stubborn {
            gate.close_for_good();
        } else {
            gate.close();
        }
        for cid in 0..20 {
            guest.push(&mut ring, &page_io(NvmOpcode::Read, cid));
        }
        guest.ring_tail(&ring);
        gate.wait_held(20);
        guest.set32(registers::CC, Guest::cc().with_en(false).into_bits());
        if stubborn {
            // The backend still has the guest's memory, so the controller is not reset yet; enabling does not hurry it.
            assert!(guest.csts().rdy());
            guest.set32(registers::CC, Guest::cc().into_bits());
            assert!(guest.csts().rdy());
            guest.set32(registers::CC, Guest::cc().with_en(false).into_bits());
            gate.open();
        }
        guest.wait_csts("disable", |csts| !csts.rdy());
        // What was completed before CSTS.RDY fell is the host's to see; from then on nothing is written.
        while guest.peek(&mut ring).is_some() {}
        gate.wait_held(0);
        gate.open();
        assert!(guest.peek(&mut ring).is_none(), "no completion after a reset");
    }
}

#[test]
fn a_host_that_enables_before_the_reset_is_over_gets_a_fresh_controller() {
    let (served, gate) = serve_gate();
    let mut guest = guest(&served);
    guest.enable();
    let mut ring = guest.create_pair(1);
    gate.close_for_good();
    guest.push(&mut ring, &page_io(NvmOpcode::Read, 1));
    guest.ring_tail(&ring);
    gate.wait_held(1);
    guest.set32(registers::CC, Guest::cc().with_en(false).into_bits());
    guest.prepare_admin(64, 64);
    guest.set32(registers::CC, Guest::cc().into_bits());
    gate.open();
    let cid = guest.submit_admin(Sqe::new(AdminOpcode::KeepAlive, 0, 0));
    let deadline = Instant::now() + LIMIT;
    while guest.poll_admin(cid).is_none() {
        // Lost as long as the reset goes on.
        let ring = guest.admin.clone();
        guest.ring_tail(&ring);
        assert!(Instant::now() < deadline, "{:?}", guest.csts());
    }
    guest.assert_alive();
}

#[test]
fn a_shutdown_that_is_announced_while_disabled_is_complete_at_once_and_over_with_the_next_enable() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = guest(&served);
    for kind in [ShutdownNotification::Normal, ShutdownNotification::Abrupt] {
        guest.set32(registers::CC, Guest::cc().with_en(false).with_shn(kind).into_bits());
        assert_eq!(guest.csts().shst(), ShutdownStatus::Complete);
        guest.enable();
        assert_eq!(guest.csts().shst(), ShutdownStatus::Normal);
        guest.assert_alive();
        guest.disable();
    }
}

#[test]
fn a_shutdown_of_a_failed_controller_still_flushes() {
    let (served, gate) = serve_gate();
    let mut guest = guest(&served);
    guest.enable();
    guest.ok(set_features(FeatureId::KeepAliveTimer, 100));
    guest.wait_csts("keep alive expiry", |csts| csts.cfs());
    guest.set32(registers::CC, Guest::cc().with_shn(ShutdownNotification::Abrupt).into_bits());
    guest.wait_csts("shutdown", |csts| csts.shst() == ShutdownStatus::Complete);
    assert_eq!(gate.seen(), [Seen::Flush]);
}

#[test]
fn a_silent_host_is_a_fatal_error_and_the_next_enable_brings_everything_back() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = guest(&served);
    for _ in 0..2 {
        guest.enable();
        let mut ring = guest.create_pair(1);
        assert_eq!(guest.io(&mut ring, &page_io(NvmOpcode::Read, 1)).status(), Status::SUCCESS);
        guest.ok(set_features(FeatureId::KeepAliveTimer, 200));
        guest.ok(Sqe::new(AdminOpcode::KeepAlive, 0, 0));
        guest.wait_csts("keep alive expiry", |csts| csts.cfs());
        guest.push(&mut ring, &page_io(NvmOpcode::Read, 2));
        guest.ring_tail(&ring);
        let cid = guest.submit_admin(Sqe::new(AdminOpcode::KeepAlive, 0, 0));
        assert!(guest.csts().cfs());
        assert!(guest.poll_admin(cid).is_none() && guest.peek(&mut ring).is_none());
        // Bus mastering off and on again does not bring a failed controller back.
        guest.set_command(2);
        guest.set_command(6);
        assert!(guest.csts().cfs() && guest.peek(&mut ring).is_none());
        guest.disable();
        assert!(!guest.csts().cfs());
    }
}

#[test]
fn a_subsystem_reset_resets_the_controller_and_is_told_until_cleared() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = guest(&served);
    guest.enable();
    guest.create_pair(1);
    guest.set32(registers::NSSR, 0x1234_5678);
    guest.assert_alive();
    guest.set32(registers::NSSR, NSSR_MAGIC);
    let csts = guest.wait_csts("NSSR", |csts| csts.nssro());
    assert!(!csts.rdy() && !csts.cfs());
    assert_eq!(guest.get32(registers::CC), 0);
    guest.enable();
    assert!(guest.csts().nssro());
    guest.set32(registers::CSTS, Csts::new().with_nssro(true).into_bits());
    assert!(!guest.csts().nssro());
    guest.assert_alive();
}

#[test]
fn a_function_level_reset_forgets_everything_but_the_memory_map() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = guest(&served);
    for _ in 0..3 {
        guest.set_command(6);
        guest.enable();
        let mut ring = guest.create_pair(1);
        assert_eq!(guest.io(&mut ring, &page_io(NvmOpcode::Read, 1)).status(), Status::SUCCESS);
        guest.flr();
        assert_eq!((guest.get32(registers::CC), guest.get32(registers::AQA)), (0, 0));
        assert!(!guest.csts().rdy());
        assert_eq!(guest.config(4), 0, "bus mastering and memory space are off");
    }
}

#[test]
fn a_reset_answers_in_time_while_a_backend_hangs_and_ready_waits_for_it() {
    let (served, gate) = serve_gate();
    let mut guest = guest(&served);
    guest.enable();
    let mut ring = guest.create_pair(1);
    gate.close_for_good();
    guest.push(&mut ring, &page_io(NvmOpcode::Read, 1));
    guest.ring_tail(&ring);
    gate.wait_held(1);
    // Answered although it is not over: clients give up after some seconds.
    guest.client.reset().unwrap();
    assert!(!guest.csts().rdy() && !guest.csts().cfs());
    // The backend may still write to memory of the old life: no new one begins.
    guest.set_command(6);
    guest.prepare_admin(64, 64);
    guest.set32(registers::CC, Guest::cc().into_bits());
    for _ in 0..100 {
        assert!(!guest.csts().rdy());
    }
    gate.open();
    guest.wait_csts("enable", |csts| csts.rdy());
    guest.assert_alive();
}

#[test]
fn device_reset_at_every_moment_of_a_life_leaves_a_controller_that_works() {
    let (served, gate) = serve_gate();
    let mut guest = guest(&served);
    for moment in 0..9 {
        guest.set_command(6);
        gate.open();
        if moment > 0 {
            guest.prepare_admin(64, 64);
        }
        if moment > 1 {
            guest.set32(registers::CC, Guest::cc().into_bits());
        }
        if moment > 2 {
            guest.wait_csts("enable", |csts| csts.rdy());
            guest.submit_admin(event_request());
        }
        if moment > 3 {
            let mut ring = guest.create_pair(1);
            if moment > 4 {
                gate.close();
                (0..9).for_each(|cid| guest.push(&mut ring, &page_io(NvmOpcode::Write, cid)));
                guest.ring_tail(&ring);
                if moment > 5 {
                    gate.wait_held(9);
                    guest.submit_admin(Guest::delete(AdminOpcode::DeleteIoSq, 1));
                }
            }
        }
        if moment > 6 {
            guest.set32(registers::CC, Guest::cc().with_shn(ShutdownNotification::Normal).into_bits());
        }
        if moment > 7 {
            guest.set32(registers::CC, Guest::cc().with_en(false).into_bits());
        }
        guest.client.reset().unwrap();
        assert_eq!((guest.get32(registers::CC), guest.csts().into_bits()), (0, 0), "moment {moment}");
    }
    gate.open();
    guest.set_command(6);
    guest.enable();
    let mut ring = guest.create_pair(1);
    assert_eq!(guest.io(&mut ring, &page_io(NvmOpcode::Read, 1)).status(), Status::SUCCESS);
}

#[test]
fn without_bus_mastering_nothing_is_fetched() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = guest(&served);
    guest.enable();
    let mut ring = guest.create_pair(1);
    for off in [0, 2] {
        guest.set_command(off);
        guest.push(&mut ring, &page_io(NvmOpcode::Read, 7));
        guest.ring_tail(&ring);
        let cid = guest.submit_admin(Sqe::new(AdminOpcode::KeepAlive, 0, 0));
        assert!(guest.csts().rdy());
        assert!(guest.poll_admin(cid).is_none() && guest.peek(&mut ring).is_none());
        guest.set_command(6);
        guest.wait_admin(cid);
        assert_eq!(guest.wait(&mut ring).cid, 7);
    }
    // Turned off while disabled and on while enabled.
    guest.disable();
    guest.set_command(2);
    guest.enable();
    let cid = guest.submit_admin(Sqe::new(AdminOpcode::KeepAlive, 0, 0));
    assert!(guest.csts().rdy() && guest.poll_admin(cid).is_none());
    guest.set_command(6);
    guest.wait_admin(cid);
    let mut ring = guest.create_pair(1);
    assert_eq!(guest.io(&mut ring, &page_io(NvmOpcode::Read, 1)).status(), Status::SUCCESS);
}

#[test]
fn in_d3hot_registers_read_as_ones_and_nothing_is_fetched() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = guest(&served);
    guest.enable();
    let mut ring = guest.create_pair(1);
    guest.push(&mut ring, &page_io(NvmOpcode::Read, 7));
    guest.set_power_state(3);
    guest.ring_tail(&ring);
    assert_eq!(guest.get32(registers::CSTS), u32::MAX);
    guest.set32(registers::CC, 0);
    assert!(guest.peek(&mut ring).is_none());
    // No_Soft_Reset: everything is as it was.
    guest.set_power_state(0);
    assert!(guest.csts().rdy());
    guest.ring_tail(&ring);
    assert_eq!(guest.wait(&mut ring).cid, 7);
    guest.assert_alive();
}

#[test]
fn rings_of_a_disabled_controller_are_no_errors() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = guest(&served);
    guest.doorbell(Doorbell::SqTail(3), 5);
    guest.enable();
    guest.disable();
    guest.doorbell(Doorbell::CqHead(1), 5);
    guest.doorbell(Doorbell::SqTail(0), 5);
    guest.enable();
    let event = guest.submit_admin(event_request());
    guest.ok(log_page(1, false));
    assert_eq!(guest.memory.load_u32(DATA as usize).unwrap(), 0, "the error log is empty");
    assert!(guest.poll_admin(event).is_none());
}

#[test]
fn an_invalid_doorbell_is_an_event_at_once_and_an_entry_in_the_error_log() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = guest(&served);
    guest.enable();
    let ring = guest.create_pair(1);
    let cases: [(Doorbell, u32, u32); 6] = [
        (Doorbell::SqTail(1), ring.sq_entries, 0x0001_0100),
        (Doorbell::CqHead(1), 0xffff, 0x0001_0100),
        (Doorbell::SqTail(0), 64, 0x0001_0100),
        (Doorbell::CqHead(0), 64, 0x0001_0100),
        (Doorbell::SqTail(2), 1, 0x0001_0000),
        (Doorbell::CqHead(500), 1, 0x0001_0000),
    ];
    for (errors, (doorbell, value, event)) in cases.into_iter().enumerate() {
        let cid = guest.submit_admin(event_request());
        guest.assert_alive();
        guest.doorbell(doorbell, value);
        // Nothing else is sent: the event comes by itself.
        assert_eq!(guest.wait_admin(cid).dw0, event, "{doorbell:?} {value}");
        guest.ok(log_page(1, false));
        assert_eq!(guest.memory.load_u32(DATA as usize).unwrap(), errors as u32 + 1);
    }
    // A dword that is written in bytes, and one between two doorbells.
    for (offset, len) in [(0x1008u64, 1usize), (0x1008, 2), (0x100a, 4), (0x1008, 8)] {
        let cid = guest.submit_admin(event_request());
        guest.assert_alive();
        guest.client.region_write(0, offset, &[0; 8][..len]).unwrap();
        assert_eq!(guest.wait_admin(cid).dw0, 0x0001_0000, "{len} bytes at {offset:#x}");
        guest.ok(log_page(1, false));
    }
    assert!(!guest.csts().cfs());
}

#[test]
fn events_have_a_limit_are_masked_until_their_log_is_read_and_none_is_lost() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = guest(&served);
    guest.enable();
    let cids: Vec<u16> = (0..4).map(|_| guest.submit_admin(event_request())).collect();
    guest.refused(event_request(), Status::AER_LIMIT_EXCEEDED);
    guest.doorbell(Doorbell::SqTail(9), 1);
    assert_eq!(guest.wait_admin(cids[0]).dw0, 0x0001_0000);
    // Of the same type: masked.
    guest.doorbell(Doorbell::SqTail(0), 64);
    guest.assert_alive();
    assert!(guest.poll_admin(cids[1]).is_none());
    guest.ok(log_page(1, true));
    assert!(guest.poll_admin(cids[1]).is_none(), "RAE keeps the mask");
    guest.ok(log_page(1, false));
    assert_eq!(guest.wait_admin(cids[1]).dw0, 0x0001_0100);
    // Another type is not masked by this one.
    guest.ok(set_features(FeatureId::AsyncEventConfig, 1 << 8));
    served.subsystem.add_namespace(namespace(ram(1 << 20), 512)).unwrap();
    assert_eq!(guest.wait_admin(cids[2]).dw0, 0x0004_0002);
    // A request can be taken back; afterwards there is room for as many as before.
    assert_eq!(guest.ok(abort(0, cids[3])).dw0, 0);
    assert!(guest.wait_admin(cids[3]).status().is(Status::ABORT_REQUESTED));
    assert_eq!(guest.ok(abort(0, cids[3])).dw0, 1);
    for _ in 0..4 {
        guest.submit_admin(event_request());
    }
    guest.refused(event_request(), Status::AER_LIMIT_EXCEEDED);
    // A reset takes them all, without completions.
    guest.disable();
    guest.enable();
    assert!(guest.stray.is_empty());
    guest.submit_admin(event_request());
    guest.assert_alive();
    assert!(guest.stray.is_empty());
}

#[test]
fn abort_ends_what_waits_and_says_so_when_there_is_nothing_to_end() {
    let (served, gate) = serve_gate();
    let mut guest = guest(&served);
    guest.enable();
    let mut ring = guest.create_pair(1);
    assert_eq!(guest.ok(abort(1, 5)).dw0, 1, "no such command");
    assert_eq!(guest.ok(abort(7, 5)).dw0, 1, "no such queue");
    assert_eq!(guest.ok(abort(0, 5)).dw0, 1, "admin commands are not aborted");
    gate.close();
    for cid in 0..3 {
        guest.push(&mut ring, &page_io(NvmOpcode::Read, cid));
    }
    guest.ring_tail(&ring);
    gate.wait_held(3);
    assert_eq!(guest.ok(abort(1, 1)).dw0, 0, "in flight");
    let cqe = guest.wait(&mut ring);
    assert!(cqe.cid == 1 && cqe.status().is(Status::ABORT_REQUESTED), "{cqe:?}");
    gate.open();
    let mut rest = [guest.wait(&mut ring).cid, guest.wait(&mut ring).cid];
    rest.sort_unstable();
    assert_eq!(rest, [0, 2]);
}

#[test]
fn abort_gives_up_on_a_backend_that_does_not() {
    let (served, gate) = serve_gate();
    let mut guest = guest(&served);
    guest.enable();
    let mut ring = guest.create_pair(1);
    gate.close_for_good();
    for cid in 0..5 {
        guest.push(&mut ring, &page_io(NvmOpcode::Read, cid));
    }
    guest.ring_tail(&ring);
    gate.wait_held(5);
    let aborts: Vec<u16> = (0..4).map(|cid| guest.submit_admin(abort(1, cid))).collect();
    guest.refused(abort(1, 4), Status::ABORT_COMMAND_LIMIT_EXCEEDED);
    for cid in aborts {
        assert_eq!(guest.wait_admin(cid).dw0, 1);
    }
    gate.open();
    for _ in 0..5 {
        assert_eq!(guest.wait(&mut ring).status(), Status::SUCCESS);
    }
    assert_eq!(guest.ok(abort(1, 0)).dw0, 1);
}

#[test]
fn queues_are_deleted_in_the_right_order_only() {
    let (served, gate) = serve_gate();
    let mut guest = guest(&served);
    guest.enable();
    let mut ring = guest.create_pair(1);
    let delete_sq = Guest::delete(AdminOpcode::DeleteIoSq, 1);
    let delete_cq = Guest::delete(AdminOpcode::DeleteIoCq, 1);
    for qid in [0, 2, 64, 0xffff] {
        guest.refused(Guest::delete(AdminOpcode::DeleteIoSq, qid), Status::INVALID_QUEUE_ID);
        guest.refused(Guest::delete(AdminOpcode::DeleteIoCq, qid), Status::INVALID_QUEUE_ID);
    }
    guest.refused(delete_cq, Status::INVALID_QUEUE_DELETION);
    gate.close();
    for cid in 0..4 {
        guest.push(&mut ring, &page_io(NvmOpcode::Read, cid));
    }
    guest.ring_tail(&ring);
    gate.wait_held(4);
    // Its commands end before it does.
    guest.ok(delete_sq);
    for _ in 0..4 {
        let status = guest.wait(&mut ring).status();
        assert!(status.is(Status::ABORTED_SQ_DELETION) || status.is(Status::ABORT_REQUESTED), "{status}");
    }
    guest.refused(delete_sq, Status::INVALID_QUEUE_ID);
    guest.ok(delete_cq);
    guest.refused(delete_cq, Status::INVALID_QUEUE_ID);
    gate.open();
    let mut ring = guest.create_pair(1);
    assert_eq!(guest.io(&mut ring, &page_io(NvmOpcode::Read, 1)).status(), Status::SUCCESS);
}

#[test]
fn every_way_to_create_a_queue_wrongly_has_its_status() {
    let served = serve_with(1, vec![namespace(ram(1 << 20), 512)], |config| {
        config.queues = 4;
        config.queue_size = 64;
    });
    let mut guest = guest(&served);
    guest.enable();
    let ring = Ring::new(1, 16, 16);
    let (cq, sq) = (Guest::create_cq(&ring), Guest::create_sq(&ring));
    let with = |sqe: Sqe, change: &dyn Fn(&mut Sqe)| {
        let mut sqe = sqe;
        change(&mut sqe);
        sqe
    };
    let id = |qid: u32| move |sqe: &mut Sqe| sqe.cdw10 = sqe.cdw10 & !0xffff | qid;
    let entries_z = |size: u32| move |sqe: &mut Sqe| sqe.cdw10 = sqe.cdw10 & 0xffff | size << 16;
    guest.refused(sq, Status::CQ_INVALID);
    for qid in [0, 5, 0xffff] {
        guest.refused(with(cq, &id(qid)), Status::INVALID_QUEUE_ID);
    }
    for size in [0, 64, 0xffff] {
        guest.refused(with(cq, &entries_z(size)), Status::INVALID_QUEUE_SIZE);
    }
    let interrupt = |iv: u16| CreateCqCdw11::new().with_pc(true).with_ien(true).with_iv(iv).into_bits();
    for iv in [5, 0xffff] {
        guest.refused(with(cq, &|sqe| sqe.cdw11 = interrupt(iv)), Status::INVALID_INTERRUPT_VECTOR);
    }
    guest.refused(with(cq, &|sqe| sqe.cdw11 = 0), Status::INVALID_FIELD);
    guest.refused(with(cq, &|sqe| sqe.prp1 += 8), Status::PRP_OFFSET_INVALID);
    guest.refused(with(cq, &|sqe| sqe.prp1 = 0x5000), Status::DATA_TRANSFER_ERROR);
    guest.ok(with(cq, &|sqe| sqe.cdw11 = interrupt(4)));
    guest.refused(cq, Status::INVALID_QUEUE_ID);
    for qid in [0, 5, 0xffff] {
        guest.refused(with(sq, &id(qid)), Status::INVALID_QUEUE_ID);
    }
    let on = |cqid: u16| CreateSqCdw11::new().with_pc(true).with_cqid(cqid).into_bits();
    guest.refused(with(sq, &|sqe| sqe.cdw11 = on(2)), Status::CQ_INVALID);
    for cqid in [0, 5, 0xffff] {
        guest.refused(with(sq, &|sqe| sqe.cdw11 = on(cqid)), Status::INVALID_QUEUE_ID);
    }
    for size in [0, 64, 0xffff] {
        guest.refused(with(sq, &entries_z(size)), Status::INVALID_QUEUE_SIZE);
    }
    guest.refused(with(sq, &|sqe| sqe.cdw11 &= !1), Status::INVALID_FIELD);
    guest.refused(with(sq, &|sqe| sqe.prp1 += 64), Status::PRP_OFFSET_INVALID);
    guest.refused(with(sq, &|sqe| sqe.prp1 = !0xfff), Status::DATA_TRANSFER_ERROR);
    guest.ok(sq);
    guest.refused(sq, Status::INVALID_QUEUE_ID);
    // Queue entry sizes that were never set.
    guest.disable();
    guest.enable_with(64, 64, Guest::cc().with_iosqes(0));
    guest.ok(cq);
    guest.refused(sq, Status::INVALID_QUEUE_SIZE);
}

#[test]
fn number_of_queues_is_settled_before_the_first_queue() {
    let served = serve_with(1, vec![namespace(ram(1 << 20), 512)], |config| config.queues = 8);
    let mut guest = guest(&served);
    let value =
        |nsq_z: u16, ncq_z: u16| NumberOfQueues::new().with_nsq_z(nsq_z).with_ncq_z(ncq_z).into_bits();
    let set = |value| set_features(FeatureId::NumberOfQueues, value);
    guest.enable();
    assert_eq!(guest.ok(set(value(99, 99))).dw0, value(7, 7));
    assert_eq!(guest.ok(set(value(1, 3))).dw0, value(1, 3));
    guest.refused(set(value(0xffff, 0)), Status::INVALID_FIELD);
    guest.refused(set(value(0, 0xffff)), Status::INVALID_FIELD);
    guest.create_pair(2);
    guest.refused(set(value(7, 7)), Status::COMMAND_SEQUENCE_ERROR);
    guest.refused(Guest::create_cq(&Ring::new(5, 16, 16)), Status::INVALID_QUEUE_ID);
    guest.ok(Guest::create_cq(&Ring::new(4, 16, 16)));
    let mut sq = Guest::create_sq(&Ring::new(3, 16, 16));
    sq.cdw11 = CreateSqCdw11::new().with_pc(true).with_cqid(4).into_bits();
    guest.refused(sq, Status::INVALID_QUEUE_ID);
    // A reset brings the default back.
    guest.disable();
    guest.enable();
    guest.create_pair(8);
}

#[test]
fn many_submission_queues_share_a_completion_queue() {
    let served = serve_with(2, vec![namespace(ram(1 << 20), 512)], |config| config.queues = 16);
    let mut drive = attach_patiently(&served.socket);
    let config = QueueConfig { depth: 8, submission_queues: 16, ..QueueConfig::default() };
    let mut pair = drive.create_queue_pair(&config).unwrap();
    let buffer = drive.memory().allocate(4096).unwrap();
    for _ in 0..20 {
        // 112 commands for 7 places in the completion queue.
        for sq in 0..16 {
            for cid in 0..7 {
                let mut sqe = page_io(NvmOpcode::Read, sq as u16 * 16 + cid);
                sqe.prp1 = buffer.iova();
                pair.submit_to(sq, &sqe).unwrap();
            }
        }
        pair.ring().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 112 {
            pair.wait(Instant::now() + LIMIT).unwrap();
            pair.poll(|cid, cqe| {
                assert!(cqe.status().is_success() && cqe.sqid == cid / 16 + 1);
                assert!(seen.insert(cid));
            })
            .unwrap();
        }
    }
    drive.delete_queue_pair(pair).unwrap();
}

#[test]
fn shadow_doorbells_at_impossible_addresses_are_refused_and_the_registers_stay_in_use() {
    let served = serve(DoorbellMode::Trapped);
    let mut guest = guest(&served);
    guest.enable();
    let good = IOVA + DATA;
    let end = IOVA + MEMORY as u64;
    for (shadow, event_idx) in [
        (0, 0),
        (good, 0),
        (0, good),
        (good + 8, good),
        (good, good + 4),
        (end, good),
        (good, end),
        (!0xfff, good),
    ] {
        let mut sqe = Sqe::new(AdminOpcode::DoorbellBufferConfig, 0, 0);
        (sqe.prp1, sqe.prp2) = (shadow, event_idx);
        guest.refused(sqe, Status::INVALID_FIELD);
    }
    let mut ring = guest.create_pair(1);
    assert_eq!(guest.io(&mut ring, &page_io(NvmOpcode::Read, 1)).status(), Status::SUCCESS);
}

#[test]
fn a_client_that_left_is_told_of_when_nothing_of_it_is_left() {
    let (served, gate) = serve_gate();
    let mut guest = guest(&served);
    assert_eq!(served.target.next_event(Some(LIMIT)), Some(Event::ClientAttached(served.id)));
    guest.enable();
    let mut ring = guest.create_pair(1);
    gate.close_for_good();
    guest.push(&mut ring, &page_io(NvmOpcode::Read, 1));
    guest.ring_tail(&ring);
    gate.wait_held(1);
    drop(guest);
    // The backend still has memory of the client.
    assert_eq!(served.target.next_event(Some(Duration::ZERO)), None);
    gate.open();
    assert_eq!(served.target.next_event(Some(LIMIT)), Some(Event::ClientDetached(served.id)));
    attach_patiently(&served.socket);
}

#[test]
fn the_event_descriptor_is_readable_as_long_as_there_are_events() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let served = serve(DoorbellMode::Trapped);
    let readable = |seconds| {
        let fd = served.target.event_fd();
        let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap() == 1
    };
    assert!(!readable(0));
    for _ in 0..50 {
        drop(Guest::bare(&served.socket));
        for expected in [Event::ClientAttached(served.id), Event::ClientDetached(served.id)] {
            assert!(readable(60), "{expected:?} waits unseen");
            assert_eq!(served.target.next_event(Some(LIMIT)), Some(expected));
        }
        assert_eq!(served.target.next_event(Some(Duration::ZERO)), None);
        assert!(!readable(0));
    }
}

#[test]
fn config_space_and_registers_are_new_for_the_next_client() {
    let served = serve(DoorbellMode::Auto);
    for profile in [ClientProfile::Json, ClientProfile::Bare, ClientProfile::Json] {
        let config = HostConfig { profile, timeout: LIMIT, ..HostConfig::default() };
        let drive = Drive::attach(&served.socket, config).unwrap();
        assert_eq!(drive.doorbell_mode(), if profile == ClientProfile::Json { "shadow" } else { "mapped" });
        drop(drive);
        let mut guest = Guest::bare(&served.socket);
        assert_eq!((guest.get32(registers::CC), guest.get32(registers::CSTS)), (0, 0));
        let mut command = [0; 2];
        guest.client.region_read(CONFIG, 4, &mut command).unwrap();
        assert_eq!(command, [0, 0]);
    }
}
