//! Namespaces that change while hosts use them: another size, removal, with commands in flight.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::gate::Gate;
use common::guest::{DATA, Guest, IOVA, Ring, page_io};
use common::{Served, attach_patiently, namespace, ram, serve_gate, serve_with, subsystem_config};
use nvmet_block::{Backend, FileBackend, OpenOptions};
use nvmet_core::error::TargetError;
use nvmet_core::target::{ControllerId, TargetStats};
use nvmet_host::{SqeExt, read_write};
use nvmet_spec::command::{
    AbortCdw10, AdminOpcode, GetLogPageCdw10, IdentifyCdw10, NvmOpcode, SetFeaturesCdw10, Sqe,
};
use nvmet_spec::feature::FeatureId;
use nvmet_spec::status::Status;

const MIB: u64 = 1 << 20;

fn file(served: &tempfile::TempDir, size: u64) -> Arc<dyn Backend> {
    let options = OpenOptions { create: Some(size), ..OpenOptions::default() };
    Arc::new(FileBackend::open(&served.path().join("image"), options).unwrap())
}

fn resize(served: &Served, size: u64) {
    try_resize(served, Some(size)).unwrap();
}

fn try_resize(served: &Served, size: Option<u64>) -> Result<(), TargetError> {
    let backend = Arc::clone(served.subsystem.namespaces().get(1).unwrap().backend());
    served.target.resize(&backend, size)
}

/// A guest that wants to hear of changed namespaces, with one queue pair.
fn listening(served: &Served) -> (Guest, Ring) {
    let mut guest = Guest::connect(&served.socket);
    guest.enable();
    let cdw10 = SetFeaturesCdw10::new().with_fid(FeatureId::AsyncEventConfig.into()).into_bits();
    guest.ok(Sqe::new(AdminOpcode::SetFeatures, 0, 0).with_cdw10(cdw10).with_cdw11(1 << 8));
    let ring = guest.create_pair(1);
    (guest, ring)
}

fn words(guest: &Guest, offset: u64) -> u64 {
    let mut bytes = [0; 8];
    guest.memory.read_bytes((DATA + offset) as usize, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// NSZE of namespace 1.
fn blocks(guest: &mut Guest) -> u64 {
    let mut sqe = Sqe::new(AdminOpcode::Identify, 0, 1).with_cdw10(IdentifyCdw10::new().into_bits());
    sqe.prp1 = IOVA + DATA;
    guest.ok(sqe);
    words(guest, 0)
}

/// Waits for the event, reads the Changed Namespace List, and returns its first two entries.
fn changed(guest: &mut Guest, cid: u16) -> (u32, u32) {
    assert_eq!(guest.wait_admin(cid).dw0, 0x0004_0002, "Namespace Attribute Changed");
    let cdw10 = GetLogPageCdw10::new().with_lid(4).with_numdl(1023).into_bits();
    let mut sqe = Sqe::new(AdminOpcode::GetLogPage, 0, 0xffff_ffff).with_cdw10(cdw10);
    sqe.prp1 = IOVA + DATA;
    guest.ok(sqe);
    let both = words(guest, 0);
    (both as u32, (both >> 32) as u32)
}

fn event_request(guest: &mut Guest) -> u16 {
    guest.submit_admin(Sqe::new(AdminOpcode::AsyncEventRequest, 0, 0))
}

/// A Read of the last page of a namespace of `size` bytes.
fn last_page(size: u64, cid: u16) -> Sqe {
    let mut sqe = read_write(NvmOpcode::Read, 1, (size - 4096) >> 9, 8);
    sqe.cdw0.set_cid(cid);
    sqe.prp1 = IOVA + DATA;
    sqe
}

#[test]
fn another_size_is_an_event_and_what_identify_says_and_commands_follow_it() {
    let directory = tempfile::tempdir().unwrap();
    let served = serve_with(1, vec![namespace(file(&directory, 4 * MIB), 512)], |_| {});
    let (mut guest, mut ring) = listening(&served);
    assert_eq!(blocks(&mut guest), (4 * MIB) >> 9);
    for (round, size) in [16 * MIB, MIB, 2 * MIB].into_iter().enumerate() {
        let cid = event_request(&mut guest);
        resize(&served, size);
        assert_eq!(changed(&mut guest, cid), (1, 0));
        assert_eq!(blocks(&mut guest), size >> 9);
        let status = |guest: &mut Guest, ring: &mut Ring, sqe| guest.io(ring, &sqe).status();
        let cid = 10 * round as u16;
        assert!(status(&mut guest, &mut ring, last_page(size, cid)).is_success(), "{size}");
        let beyond = status(&mut guest, &mut ring, last_page(size + 512, cid + 1));
        assert!(beyond.is(Status::LBA_OUT_OF_RANGE) && beyond.dnr(), "{size}: {beyond}");
        assert_eq!(std::fs::metadata(directory.path().join("image")).unwrap().len(), size);
    }
    // The same size is no news.
    let cid = event_request(&mut guest);
    resize(&served, 2 * MIB);
    guest.assert_alive();
    assert!(guest.poll_admin(cid).is_none());
}

#[test]
fn a_size_that_the_medium_got_by_itself_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let served = serve_with(1, vec![namespace(file(&directory, 4 * MIB), 512)], |_| {});
    let (mut guest, _) = listening(&served);
    let image = std::fs::OpenOptions::new().write(true).open(directory.path().join("image")).unwrap();
    image.set_len(6 * MIB).unwrap();
    assert_eq!(blocks(&mut guest), (4 * MIB) >> 9);
    let cid = event_request(&mut guest);
    try_resize(&served, None).unwrap();
    assert_eq!(changed(&mut guest, cid), (1, 0));
    assert_eq!(blocks(&mut guest), (6 * MIB) >> 9);
}

#[test]
fn namespaces_on_one_backend_have_one_size_in_every_subsystem() {
    let directory = tempfile::tempdir().unwrap();
    let backend = file(&directory, 4 * MIB);
    let served = serve_with(1, vec![namespace(Arc::clone(&backend), 512)], |_| {});
    let other = served.target.add_subsystem(subsystem_config("OTHER")).unwrap();
    other.add_namespace(namespace(ram(MIB), 512)).unwrap();
    other.add_namespace(namespace(backend, 4096)).unwrap();
    resize(&served, 2 * MIB);
    let namespaces = other.namespaces();
    let blocks: Vec<u64> = namespaces.iter().map(|namespace| namespace.blocks()).collect();
    assert_eq!(blocks, [MIB >> 9, (2 * MIB) >> 12]);
    // What does not suit one of them is done to none.
    let error = try_resize(&served, Some(MIB + 512)).unwrap_err();
    assert!(error.to_string().contains("block size 4096"), "{error}");
    assert_eq!(served.subsystem.namespaces().get(1).unwrap().blocks(), (2 * MIB) >> 9);
}

#[test]
fn sizes_that_cannot_be_are_refused_and_the_host_hears_nothing() {
    let served = serve_with(1, vec![namespace(ram(4 * MIB), 512)], |_| {});
    let (mut guest, _) = listening(&served);
    let cid = event_request(&mut guest);
    let refused = |size| {
        let error = try_resize(&served, Some(size)).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    };
    assert!(refused(0).contains("not 0"));
    assert!(refused(1000).contains("multiple of the block size 512"));
    assert!(refused(8 * MIB).contains("keeps the size"));
    assert_eq!(blocks(&mut guest), (4 * MIB) >> 9);
    assert!(guest.poll_admin(cid).is_none());
}

#[test]
fn commands_in_flight_end_well_while_the_namespace_becomes_another_size() {
    let (served, gate) = serve_gate();
    let (mut guest, mut ring) = listening(&served);
    guest.memory.fill(DATA as usize, 4096, 0xa5).unwrap();
    gate.close();
    guest.push(&mut ring, &page_io(NvmOpcode::Read, 1));
    guest.push(&mut ring, &last_page(16 * MIB, 2));
    guest.ring_tail(&ring);
    gate.wait_held(2);
    resize(&served, 8 * MIB);
    // A queue of the new size, and the old one as long as it has something in flight.
    gate.wait_queues(2);
    guest.push(&mut ring, &page_io(NvmOpcode::Read, 3));
    guest.push(&mut ring, &last_page(16 * MIB, 4));
    guest.ring_tail(&ring);
    let refused = guest.wait(&mut ring);
    assert_eq!((refused.cid, refused.status().code()), (4, Status::LBA_OUT_OF_RANGE));
    gate.wait_held(3);
    gate.open();
    let mut cids: Vec<u16> = (0..3)
        .map(|_| {
            let cqe = guest.wait(&mut ring);
            assert!(cqe.status().is_success(), "{}: {}", cqe.cid, cqe.status());
            cqe.cid
        })
        .collect();
    cids.sort_unstable();
    assert_eq!(cids, [1, 2, 3]);
    gate.wait_queues(1);
    // All of it counts: the one that was refused, and the data that went through the queue that is gone.
    common::wait_for("the counters", || counted(&served, served.id) == (4, 3 * 4096));
}

/// Reads and bytes of them.
fn counted(served: &Served, id: ControllerId) -> (u64, u64) {
    let TargetStats { controllers } = served.target.stats();
    let (_, batch) = controllers.into_iter().find(|(other, _)| *other == id).unwrap();
    (batch.reads, batch.bytes_read)
}

#[test]
fn abort_finds_a_command_that_began_before_the_namespace_was_resized() {
    let (served, gate) = serve_gate();
    let (mut guest, mut ring) = listening(&served);
    gate.close();
    guest.push(&mut ring, &page_io(NvmOpcode::Read, 1));
    guest.ring_tail(&ring);
    gate.wait_held(1);
    resize(&served, 8 * MIB);
    gate.wait_queues(2);
    let abort = AbortCdw10::new().with_sqid(1).with_cid(1).into_bits();
    assert_eq!(guest.ok(Sqe::new(AdminOpcode::Abort, 0, 0).with_cdw10(abort)).dw0, 0, "aborted");
    assert!(guest.wait(&mut ring).status().is(Status::ABORT_REQUESTED));
    gate.wait_queues(1);
    gate.open();
}

#[test]
fn commands_in_flight_end_while_their_namespace_is_removed_and_its_backend_is_let_go() {
    let (served, gate) = serve_gate();
    let (mut guest, mut ring) = listening(&served);
    let cid = event_request(&mut guest);
    gate.close();
    guest.push(&mut ring, &page_io(NvmOpcode::Read, 1));
    guest.ring_tail(&ring);
    gate.wait_held(1);
    served.subsystem.remove_namespace(1).unwrap();
    assert_eq!(changed(&mut guest, cid), (1, 0));
    assert!(guest.io(&mut ring, &page_io(NvmOpcode::Read, 2)).status().is(Status::INVALID_FIELD));
    gate.open();
    let cqe = guest.wait(&mut ring);
    assert_eq!((cqe.cid, cqe.status()), (1, Status::SUCCESS));
    gate.wait_queues(0);
    common::wait_for("the backend is let go", || Arc::strong_count(&gate) == 1);
    // The identifier is free, for something else.
    let cid = event_request(&mut guest);
    served.subsystem.add_namespace(namespace(ram(MIB), 512)).unwrap();
    assert_eq!(changed(&mut guest, cid), (1, 0));
    assert_eq!(blocks(&mut guest), MIB >> 9);
    assert!(guest.io(&mut ring, &page_io(NvmOpcode::Read, 3)).status().is_success());
}

#[test]
fn load_goes_on_while_the_size_changes_all_the_time() {
    let gate = Gate::new(16 * MIB);
    let backend: Arc<dyn Backend> = Arc::clone(&gate) as _;
    let served = serve_with(2, vec![namespace(backend, 512)], |_| {});
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut drive = attach_patiently(&served.socket);
            let mut namespace = drive.open_namespace(1).unwrap();
            let mut rounds = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let data: Vec<u8> = (0..4096).map(|at| (at as u64 ^ rounds) as u8).collect();
                namespace.write(rounds % 1000, &data, false).unwrap();
                let mut back = vec![0; data.len()];
                namespace.read(rounds % 1000, &mut back).unwrap();
                assert!(back == data, "round {rounds}");
                rounds += 1;
            }
            drive.close_namespace(namespace).unwrap();
            drive.detach().unwrap();
        });
        for round in 0..200 {
            resize(&served, MIB * (1 + round % 16));
            assert!(!load.is_finished(), "round {round}");
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap();
    });
    drop(served);
    gate.wait_queues(0);
}
