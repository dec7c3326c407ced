//! How doorbells reach a controller: the choice for each of them, and what an operator is told of a slow one.

mod common;

use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};

use common::guest::{DATA, Guest, IOVA, LIMIT, Ring, page_io};
use common::{Served, attach_patiently, namespace, ram, serve, subsystem_config};
use nvmet_core::device::DoorbellMode;
use nvmet_core::target::{ControllerConfig, Listen, Target, TargetConfig};
use nvmet_core::worker::WaitMode;
use nvmet_host::{DoorbellPolicy, Drive, HostConfig};
use nvmet_spec::command::{AdminOpcode, CreateCqCdw11, NvmOpcode, Sqe};
use nvmet_spec::registers::Doorbell;
use nvmet_spec::status::Status;
use nvmet_vfio_user::client::{Client, ClientOptions, Profile};

/// The log of this process; each test looks for its own socket in it.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn served(mode: DoorbellMode) -> Served {
    static START: Once = Once::new();
    START.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
            .with_ansi(false)
            .with_writer(|| Log)
            .init();
    });
    serve(mode)
}

/// Warnings about the guest at this socket.
fn warnings(served: &Served) -> Vec<String> {
    let place = served.socket.to_str().unwrap();
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&log).lines().filter(|line| line.contains(place)).map(str::to_owned).collect()
}

fn enabled(served: &Served) -> Guest {
    let mut guest = Guest::connect(&served.socket);
    guest.enable();
    guest
}

/// A queue pair as an operating system makes it, or as firmware does: without interrupts.
fn create_pair(guest: &mut Guest, interrupts: bool) {
    let ring = Ring::new(1, 64, 64);
    let mut cq = Guest::create_cq(&ring);
    cq.cdw11 = CreateCqCdw11::from_bits(cq.cdw11).with_ien(interrupts).into_bits();
    guest.ok(cq);
    guest.ok(Guest::create_sq(&ring));
}

fn ring(guest: &mut Guest, times: u32) {
    for _ in 0..times {
        guest.doorbell(Doorbell::CqHead(1), 0);
    }
    // Rings have no reply; this has one, and comes after them.
    guest.csts();
}

fn set_shadow_doorbells(guest: &mut Guest) {
    let mut sqe = Sqe::new(AdminOpcode::DoorbellBufferConfig, 0, 0);
    (sqe.prp1, sqe.prp2) = (IOVA + DATA + 0x10_0000, IOVA + DATA + 0x10_1000);
    guest.ok(sqe);
}

#[test]
fn a_guest_that_rings_by_message_for_good_is_named_once_with_the_cure() {
    let served = served(DoorbellMode::Trapped);
    let mut guest = enabled(&served);
    create_pair(&mut guest, true);
    ring(&mut guest, 999);
    assert_eq!(warnings(&served), [""; 0]);
    ring(&mut guest, 1);
    let said = warnings(&served);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("WARN") && said[0].contains("--doorbells mapped"), "{said:?}");
    ring(&mut guest, 2000);
    guest.disable();
    guest.enable();
    create_pair(&mut guest, true);
    ring(&mut guest, 2000);
    assert_eq!(warnings(&served).len(), 1, "it is the same client");
    drop(guest);
    let mut guest = enabled(&served);
    create_pair(&mut guest, true);
    ring(&mut guest, 1000);
    assert_eq!(warnings(&served).len(), 2, "the next client has its own");
}

#[test]
fn a_guest_that_sets_up_shadow_doorbells_is_not_named_whatever_its_firmware_did() {
    let served = served(DoorbellMode::Trapped);
    let mut guest = enabled(&served);
    create_pair(&mut guest, false);
    ring(&mut guest, 3000);
    guest.disable();
    guest.enable();
    create_pair(&mut guest, true);
    ring(&mut guest, 500);
    set_shadow_doorbells(&mut guest);
    ring(&mut guest, 3000);
    assert_eq!(warnings(&served), [""; 0]);
}

#[test]
fn rings_of_the_admin_queue_and_of_a_client_that_was_offered_the_page_do_not_count() {
    for mode in [DoorbellMode::Trapped, DoorbellMode::Mapped] {
        let served = served(mode);
        let mut guest = enabled(&served);
        create_pair(&mut guest, true);
        if mode == DoorbellMode::Mapped {
            ring(&mut guest, 2000);
        }
        for _ in 0..2000 {
            guest.doorbell(Doorbell::CqHead(0), guest.admin.head);
        }
        guest.assert_alive();
        assert_eq!(warnings(&served), [""; 0], "{mode:?}");
    }
}

#[test]
fn a_driver_without_shadow_doorbells_is_named_while_it_works() {
    let served = served(DoorbellMode::Auto);
    let config = HostConfig { doorbells: DoorbellPolicy::NoShadow, timeout: LIMIT, ..HostConfig::default() };
    let mut drive = Drive::attach(&served.socket, config).unwrap();
    let mut namespace = drive.open_namespace(1).unwrap();
    let mut block = [0; 512];
    for lba in 0..10_500 {
        namespace.read(lba % 1000, &mut block).unwrap();
    }
    assert_eq!(warnings(&served).len(), 1);
}

/// Whether the client at `socket` is offered the doorbell page.
fn is_offered(socket: &Path, profile: Profile) -> bool {
    let mut client = Client::connect(socket, ClientOptions { profile, timeout: LIMIT }).unwrap();
    client.region_info(0).unwrap().fd.is_some()
}

#[test]
fn auto_follows_what_the_client_says_of_itself_and_the_others_do_not() {
    for (mode, capabilities, bare) in [
        (DoorbellMode::Auto, false, true),
        (DoorbellMode::Trapped, false, false),
        (DoorbellMode::Mapped, true, true),
    ] {
        let served = serve(mode);
        // One after the other: the next client is not the last one.
        for _ in 0..2 {
            assert_eq!(is_offered(&served.socket, Profile::Capabilities), capabilities, "{mode:?}");
            assert_eq!(is_offered(&served.socket, Profile::Bare), bare, "{mode:?}");
        }
    }
}

#[test]
fn controllers_of_one_target_have_their_doorbells_each_in_its_own_way() {
    let served = serve(DoorbellMode::Trapped);
    let second = served.directory.path().join("mapped.sock");
    let mut config = ControllerConfig::new(Listen::Path(second.clone()));
    config.doorbells = DoorbellMode::Mapped;
    served.target.listen(&served.subsystem, config).unwrap();
    let mut trapped = attach_patiently(&served.socket);
    let mut mapped = attach_patiently(&second);
    let modes = [trapped.doorbell_mode(), mapped.doorbell_mode()].map(ToString::to_string);
    assert_eq!(modes, ["shadow", "mapped"]);
    let (mut one, mut other) = (trapped.open_namespace(1).unwrap(), mapped.open_namespace(1).unwrap());
    for round in 0..50u8 {
        one.write(3, &[round; 512], false).unwrap();
        let mut block = [0; 512];
        other.read(3, &mut block).unwrap();
        assert_eq!(block, [round; 512]);
    }
}

/// A target of that many workers that wait like this, and a drive on it.
fn waiting(wait: WaitMode, workers: u16, mode: DoorbellMode) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(TargetConfig { workers, wait, ..TargetConfig::default() }).unwrap();
    let subsystem = target.add_subsystem(subsystem_config("WAITS")).unwrap();
    subsystem.add_namespace(namespace(ram(16 << 20), 512)).unwrap();
    let socket = directory.path().join("nvme.sock");
    let mut config = ControllerConfig::new(Listen::Path(socket.clone()));
    config.doorbells = mode;
    let id = target.listen(&subsystem, config).unwrap();
    Served { target, subsystem, id, socket, directory }
}

#[test]
fn rings_by_message_are_heard_in_every_mode_and_however_workers_wait() {
    for wait in [WaitMode::Poll, WaitMode::Adaptive, WaitMode::Event] {
        for mode in [DoorbellMode::Trapped, DoorbellMode::Mapped] {
            let served = waiting(wait, 2, mode);
            let mut guest = enabled(&served);
            let mut rings = [guest.create_pair(1), guest.create_pair(2)];
            for cid in 0..20 {
                let ring = &mut rings[usize::from(cid % 2)];
                let cqe = guest.io(ring, &page_io(NvmOpcode::Read, cid));
                assert_eq!(cqe.status(), Status::SUCCESS, "{wait:?} {mode:?}");
            }
        }
    }
}
