//! What kills other targets. Every test has a neighbour on the same worker and the same control thread, which reads
//! back what it wrote all the while and must not notice anything.

mod common;

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use common::guest::{CONFIG, DATA, Guest, IOVA, LIMIT, MEMORY, Ring, page_io};
use common::{Neighbour, Served, attach_patiently, serve, serve_gate};
use nvmet_core::device::DoorbellMode;
use nvmet_dma::EventFd;
use nvmet_host::{SqeExt, prp::PrpPair, read_write};
use nvmet_spec::command::{AdminOpcode, NvmOpcode, Sqe};
use nvmet_spec::registers::{self, Doorbell};
use nvmet_spec::sgl::{SglDescriptor, SglType};
use nvmet_spec::status::Status;
use nvmet_vfio_user::client::{ClientError, MapRange};
use rustix::fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, ftruncate, memfd_create};

/// Where memory that a test plays with is mapped.
const TRICK: u64 = 1 << 40;
const TRICK_SIZE: u64 = 1 << 20;
const MSIX: u32 = 2;

fn with_neighbour() -> (Served, Neighbour, Guest) {
    let served = serve(DoorbellMode::Trapped);
    let neighbour = Neighbour::start(&served);
    let guest = Guest::connect(&served.socket);
    (served, neighbour, guest)
}

/// Memory whose size is not sealed, as a careless VMM has it.
fn map_trick(guest: &mut Guest) -> OwnedFd {
    let file = memfd_create("trick", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, TRICK_SIZE).unwrap();
    guest.client.dma_map(trick_range(), Some(file.as_fd())).unwrap();
    file
}

fn trick_range() -> MapRange {
    MapRange { addr: TRICK, size: TRICK_SIZE, offset: 0, readable: true, writable: true }
}

fn at(mut sqe: Sqe, prp1: u64) -> Sqe {
    sqe.prp1 = prp1;
    sqe
}

/// The controller works as if nothing had happened.
fn works(guest: &mut Guest, ring: &mut Ring) {
    guest.assert_alive();
    for opcode in [NvmOpcode::Write, NvmOpcode::Read] {
        assert_eq!(guest.io(ring, &page_io(opcode, 0x77)).status(), Status::SUCCESS);
    }
}

#[test]
fn a_truncated_memory_file_is_the_end_of_its_controller_alone() {
    let (served, neighbour, mut guest) = with_neighbour();
    guest.enable();
    let mut ring = guest.create_pair(1);
    let file = map_trick(&mut guest);
    for opcode in [NvmOpcode::Write, NvmOpcode::Read] {
        assert_eq!(guest.io(&mut ring, &at(page_io(opcode, 1), TRICK)).status(), Status::SUCCESS);
    }
    ftruncate(&file, 0).unwrap();
    guest.push(&mut ring, &at(page_io(NvmOpcode::Read, 2), TRICK));
    guest.ring_tail(&ring);
    guest.wait_csts("memory that vanished", |csts| csts.cfs());
    drop(guest);
    let mut drive = attach_patiently(&served.socket);
    drive.open_namespace(1).unwrap();
    neighbour.finish();
}

#[test]
fn an_admin_queue_in_a_truncated_file_is_noticed_although_all_workers_sleep() {
    let (served, neighbour, mut guest) = with_neighbour();
    let file = map_trick(&mut guest);
    guest.prepare_admin(64, 64);
    guest.set64(registers::ASQ, TRICK);
    guest.set32(registers::CC, Guest::cc().into_bits());
    guest.wait_csts("enable", |csts| csts.rdy());
    ftruncate(&file, 0).unwrap();
    guest.doorbell(Doorbell::SqTail(0), 1);
    guest.wait_csts("memory that vanished", |csts| csts.cfs());
    drop(guest);
    attach_patiently(&served.socket);
    neighbour.finish();
}

#[test]
fn a_live_queue_whose_memory_is_taken_and_given_back_goes_on() {
    let (_served, neighbour, mut guest) = with_neighbour();
    guest.enable();
    let mut ring = guest.create_pair(1);
    for round in 0..50 {
        guest.unmap();
        for cid in 0..5 {
            guest.push(&mut ring, &page_io(NvmOpcode::Read, cid));
        }
        guest.ring_tail(&ring);
        let admin = guest.submit_admin(Sqe::new(AdminOpcode::KeepAlive, 0, 0));
        let csts = guest.csts();
        assert!(csts.rdy() && !csts.cfs(), "round {round}");
        assert!(guest.peek(&mut ring).is_none());
        guest.map();
        guest.wait_admin(admin);
        for _ in 0..5 {
            assert_eq!(guest.wait(&mut ring).status(), Status::SUCCESS, "round {round}");
        }
    }
    works(&mut guest, &mut ring);
    neighbour.finish();
}

#[test]
fn addresses_that_wrap_or_lead_nowhere_are_transfer_errors() {
    let (_served, neighbour, mut guest) = with_neighbour();
    guest.enable();
    let mut ring = guest.create_pair(1);
    let top = !0xfff;
    for prp1 in [0, top, top + 8, IOVA - 4096, IOVA + MEMORY as u64, 1 << 63] {
        for opcode in [NvmOpcode::Read, NvmOpcode::Write] {
            let status = guest.io(&mut ring, &at(page_io(opcode, 1), prp1)).status();
            assert!(status.is(Status::DATA_TRANSFER_ERROR), "{prp1:#x}: {status}");
        }
        let mut identify = Sqe::new(AdminOpcode::Identify, 0, 0).with_cdw10(1);
        (identify.prp1, identify.prp2) = (prp1, top);
        guest.refused(identify, Status::DATA_TRANSFER_ERROR);
    }
    // A transfer that begins in memory and runs over its end, a list at the end of the address space.
    let mut sqe = read_write(NvmOpcode::Read, 1, 0, 64);
    for prp in [
        PrpPair { prp1: IOVA + MEMORY as u64 - 4096, prp2: top },
        PrpPair { prp1: IOVA + DATA, prp2: u64::MAX - 7 },
    ] {
        sqe = sqe.with_prp(prp);
        assert!(guest.io(&mut ring, &sqe).status().is(Status::DATA_TRANSFER_ERROR));
    }
    for (address, length) in [(u64::MAX - 100, 4096), (u64::MAX, 1 << 20), (IOVA + MEMORY as u64 - 512, 4096)]
    {
        let sgl = SglDescriptor::new(SglType::DataBlock, address, length);
        let sqe = read_write(NvmOpcode::Read, 1, 0, 8).with_sgl(sgl);
        assert!(!guest.io(&mut ring, &sqe).status().is_success());
    }
    for (addr, size) in [(u64::MAX - 4095, 8192), (!0xfff, !0xfff), (0, 0)] {
        let range = MapRange { addr, size, offset: 0, readable: true, writable: true };
        let refused = guest.client.dma_map(range, None);
        assert!(matches!(refused, Err(ClientError::Refused { .. })), "{addr:#x}+{size:#x}");
    }
    works(&mut guest, &mut ring);
    neighbour.finish();
}

#[test]
fn lists_that_loop_come_to_an_end() {
    let (_served, neighbour, mut guest) = with_neighbour();
    guest.enable();
    let mut ring = guest.create_pair(1);
    let list = IOVA + DATA;
    let memory = |guest: &Guest, iova: u64, bytes: &[u8]| {
        guest.memory.write_bytes((iova - IOVA) as usize, bytes).unwrap();
    };
    // A page of PRP entries that are all this page, entered at its end: the controller reads data into its own list.
    for entry in 0..512 {
        memory(&guest, list + entry * 8, &list.to_le_bytes());
    }
    for first in [0u64, 8, 4088] {
        let prp = PrpPair { prp1: list, prp2: list + first };
        let sqe = read_write(NvmOpcode::Write, 1, 0, 2048).with_prp(prp);
        let _ = guest.io(&mut ring, &sqe);
    }
    // An SGL segment that ends with itself.
    for kind in [SglType::Segment, SglType::LastSegment] {
        let bucket = SglDescriptor::new(SglType::BitBucket, 0, 0);
        let itself = SglDescriptor::new(kind, list, 32);
        memory(&guest, list, zerocopy::IntoBytes::as_bytes(&[bucket, itself]));
        let sqe =
            read_write(NvmOpcode::Read, 1, 0, 8).with_sgl(SglDescriptor::new(SglType::Segment, list, 32));
        let status = guest.io(&mut ring, &sqe).status();
        assert!(!status.is_success() && status.dnr(), "{status}");
    }
    let huge = SglDescriptor::new(SglType::LastSegment, list, !15);
    let sqe = read_write(NvmOpcode::Read, 1, 0, 8).with_sgl(huge);
    assert!(!guest.io(&mut ring, &sqe).status().is_success());
    works(&mut guest, &mut ring);
    neighbour.finish();
}

/// VERSION without capabilities.
const VERSION: [u8; 20] = [0, 0, 1, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

fn negotiate(served: &Served) -> UnixStream {
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    stream.write_all(&VERSION).unwrap();
    let mut header = [0; 16];
    stream.read_exact(&mut header).unwrap();
    let size = u32::from_ne_bytes(header[4..8].try_into().unwrap()) as usize;
    stream.read_exact(&mut vec![0; size - 16]).unwrap();
    stream
}

#[test]
fn a_client_that_stalls_in_the_middle_of_a_message_stalls_nobody_else() {
    let served = serve(DoorbellMode::Trapped);
    let neighbour = Neighbour::start(&served);
    for bytes in [0, 1, 15, 16, 20] {
        let mut stream = negotiate(&served);
        let mut message = [0u8; 32];
        message[2] = 9;
        message[4] = 32;
        stream.write_all(&message[..bytes]).unwrap();
        neighbour.goes_on();
        drop(stream);
    }
    attach_patiently(&served.socket);
    neighbour.finish();
}

#[test]
fn a_client_that_reads_no_replies_stalls_nobody_else() {
    let served = serve(DoorbellMode::Trapped);
    let neighbour = Neighbour::start(&served);
    let mut stream = negotiate(&served);
    stream.set_nonblocking(true).unwrap();
    // REGION_READ of 4 KiB of config space, until neither side takes any more.
    let mut message = Vec::from([0u8, 0, 9, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(0u64.to_ne_bytes());
    message.extend(CONFIG.to_ne_bytes());
    message.extend(4096u32.to_ne_bytes());
    let mut full = 0;
    while full < 1000 {
        match stream.write(&message) {
            Ok(32) => full = 0,
            // Half a message is as good as a whole one here.
            Ok(_) => break,
            Err(_) => full += 1,
        }
    }
    neighbour.finish();
    drop(stream);
    attach_patiently(&served.socket);
}

#[test]
fn an_eventfd_that_is_full_or_blocks_holds_nobody_up_and_other_files_are_refused() {
    let (_served, neighbour, mut guest) = with_neighbour();
    let eventfds: Vec<EventFd> = (0..2).map(|_| EventFd::new().unwrap()).collect();
    for eventfd in &eventfds {
        fcntl_setfl(eventfd, fcntl_getfl(eventfd).unwrap() & !OFlags::NONBLOCK).unwrap();
        rustix::io::write(eventfd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    }
    guest.client.set_irq_eventfds(MSIX, 0, &eventfds).unwrap();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    for other in [reader, writer, memfd_create("other", MemfdFlags::CLOEXEC).unwrap()] {
        let refused = guest.client.set_irq_eventfds(MSIX, 0, &[other]);
        assert!(matches!(refused, Err(ClientError::Refused { .. })));
    }
    guest.enable();
    let mut ring = Ring::new(1, 64, 64);
    let mut create = Guest::create_cq(&ring);
    create.cdw11 |= 1 << 16 | 0b10;
    guest.ok(create);
    guest.ok(Guest::create_sq(&ring));
    for _ in 0..100 {
        works(&mut guest, &mut ring);
    }
    neighbour.finish();
}

#[test]
fn shadow_pages_that_disappear_and_come_back_are_used_again() {
    let (_served, neighbour, mut guest) = with_neighbour();
    guest.enable();
    let file = map_trick(&mut guest);
    let mut sqe = Sqe::new(AdminOpcode::DoorbellBufferConfig, 0, 0);
    (sqe.prp1, sqe.prp2) = (TRICK, TRICK + 4096);
    guest.ok(sqe);
    let shadow = nvmet_dma::MappedArea::new(file.as_fd(), 0, 8192).unwrap();
    let mut ring = guest.create_pair(1);
    for round in 0..20u16 {
        guest.client.dma_unmap(TRICK, TRICK_SIZE).unwrap();
        guest.push(&mut ring, &page_io(NvmOpcode::Read, round));
        shadow.store_u32(8, ring.tail).unwrap();
        guest.ring_tail(&ring);
        guest.assert_alive();
        assert!(guest.peek(&mut ring).is_none(), "round {round}: there is no tail to be read");
        guest.client.dma_map(trick_range(), Some(file.as_fd())).unwrap();
        let deadline = Instant::now() + LIMIT;
        while guest.peek(&mut ring).is_none() {
            assert!(Instant::now() < deadline, "round {round}");
        }
        shadow.store_u32(12, ring.head).unwrap();
    }
    neighbour.finish();
}

#[test]
fn resets_of_every_kind_under_load_leave_no_half_state() {
    let (_served, neighbour, mut guest) = with_neighbour();
    for round in 0..120u32 {
        guest.set_command(6);
        guest.enable();
        let mut rings: Vec<Ring> = (1..=4).map(|qid| guest.create_pair(qid)).collect();
        for ring in &mut rings {
            (0..60).for_each(|cid| guest.push(ring, &page_io(NvmOpcode::Write, cid)));
            guest.ring_tail(ring);
        }
        match round % 4 {
            0 => guest.client.reset().unwrap(),
            1 => guest.flr(),
            2 => guest.set32(registers::NSSR, registers::NSSR_MAGIC),
            _ => guest.disable(),
        }
        guest.wait_csts("reset", |csts| !csts.rdy());
        // After a reset that is over nothing of the old life arrives.
        if round % 4 != 2 {
            let tails: Vec<Ring> = rings
                .iter_mut()
                .map(|ring| {
                    while guest.peek(ring).is_some() {}
                    ring.clone()
                })
                .collect();
            assert!(guest.config(0) != 0);
            for mut ring in tails {
                assert!(guest.peek(&mut ring).is_none(), "round {round}");
            }
        }
    }
    guest.set_command(6);
    guest.enable();
    let mut ring = guest.create_pair(1);
    works(&mut guest, &mut ring);
    neighbour.finish();
}

#[test]
fn memory_is_unmapped_under_load_and_nothing_is_written_there_afterwards() {
    let (_served, neighbour, mut guest) = with_neighbour();
    guest.enable();
    let file = map_trick(&mut guest);
    let area = nvmet_dma::MappedArea::new(file.as_fd(), 0, TRICK_SIZE as usize).unwrap();
    let mut ring = guest.create_pair(1);
    for round in 0..100 {
        for cid in 0..40u16 {
            guest.push(&mut ring, &at(page_io(NvmOpcode::Read, cid), TRICK + u64::from(cid) * 4096));
        }
        guest.ring_tail(&ring);
        guest.client.dma_unmap(TRICK, TRICK_SIZE).unwrap();
        area.fill(0, TRICK_SIZE as usize, 0xee).unwrap();
        for _ in 0..40 {
            let status = guest.wait(&mut ring).status();
            assert!(status.is_success() || status.is(Status::DATA_TRANSFER_ERROR), "{status}");
        }
        let mut bytes = vec![0; TRICK_SIZE as usize];
        area.read_bytes(0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 0xee), "round {round}");
        guest.client.dma_map(trick_range(), Some(file.as_fd())).unwrap();
    }
    works(&mut guest, &mut ring);
    neighbour.finish();
}

#[test]
fn memory_that_a_hanging_backend_uses_can_be_unmapped() {
    let (served, gate) = serve_gate();
    let neighbour = Neighbour::start(&served);
    let mut guest = Guest::connect(&served.socket);
    guest.enable();
    let _file = map_trick(&mut guest);
    let mut ring = guest.create_pair(1);
    gate.close_for_good();
    guest.push(&mut ring, &at(page_io(NvmOpcode::Read, 1), TRICK));
    guest.ring_tail(&ring);
    gate.wait_held(1);
    // Answered although the backend has not let go: clients give up after some seconds.
    guest.client.dma_unmap(TRICK, TRICK_SIZE).unwrap();
    gate.open();
    assert_eq!(guest.wait(&mut ring).cid, 1);
    works(&mut guest, &mut ring);
    neighbour.finish();
}

#[test]
fn memory_without_a_file_is_a_transfer_error() {
    let (_served, neighbour, mut guest) = with_neighbour();
    guest.enable();
    let mut ring = guest.create_pair(1);
    guest.client.dma_map(trick_range(), None).unwrap();
    for opcode in [NvmOpcode::Read, NvmOpcode::Write, NvmOpcode::Compare] {
        let status = guest.io(&mut ring, &at(page_io(opcode, 1), TRICK)).status();
        assert!(status.is(Status::DATA_TRANSFER_ERROR), "{status}");
    }
    guest
        .refused(at(Sqe::new(AdminOpcode::Identify, 0, 0).with_cdw10(1), TRICK), Status::DATA_TRANSFER_ERROR);
    guest.refused(at(Guest::create_cq(&Ring::new(2, 16, 16)), TRICK), Status::DATA_TRANSFER_ERROR);
    works(&mut guest, &mut ring);
    guest.client.dma_unmap(TRICK, TRICK_SIZE).unwrap();
    neighbour.finish();
}

/// Pseudorandom numbers (splitmix64): the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// An address: mostly in the guest's data, never in its rings.
    fn address(&mut self) -> u64 {
        match self.below(8) {
            0 => self.roll() | 1 << 40,
            1 => u64::MAX - self.below(8192),
            2 => self.below(IOVA),
            3 => IOVA + DATA + self.below(MEMORY as u64 - DATA - (4 << 20)),
            _ => IOVA + DATA + self.below(4096) * 4096,
        }
    }

    /// A command that is wrong somewhere, and often not everywhere.
    fn command(&mut self, opcodes: &[u8], cid: u16) -> Sqe {
        let opcode = if self.one_in(6) {
            self.roll() as u8
        } else {
            opcodes[self.below(opcodes.len() as u64) as usize]
        };
        let nsid = match self.below(6) {
            0 => self.roll() as u32,
            1 => u32::MAX,
            2 => 0,
            _ => 1,
        };
        let mut sqe = Sqe::new(opcode, cid, nsid);
        (sqe.prp1, sqe.prp2) = (self.address(), self.address());
        let mut dword = || match self.below(5) {
            0 => self.roll() as u32,
            1 => 0,
            2 => 1 << self.below(32),
            _ => self.below(0x400) as u32,
        };
        let dwords = [dword(), dword(), dword(), dword(), dword(), dword()];
        [sqe.cdw10, sqe.cdw11, sqe.cdw12, sqe.cdw13, sqe.cdw14, sqe.cdw15] = dwords;
        if self.one_in(4) {
            // FUSE, PSDT and what is reserved between them.
            let mut bits = sqe.cdw0.into_bits();
            bits ^= (self.roll() as u32 & 0xff) << 8;
            sqe.cdw0 = bits.into();
        }
        if self.one_in(10) {
            // SGLs instead: any descriptor.
            let kind = SglType::from_bits(self.roll() as u8 & 0xf);
            sqe = sqe.with_sgl(SglDescriptor::new(kind, self.address(), self.below(1 << 16) as u32));
            sqe.cdw0.set_cid(cid);
        }
        sqe
    }
}

const ADMIN: [u8; 14] = [0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x0d, 0x15, 0x18, 0x7c];
const IO: [u8; 9] = [0x00, 0x01, 0x02, 0x04, 0x05, 0x08, 0x09, 0x0d, 0x0e];

#[test]
fn every_garbage_admin_command_has_a_completion_or_is_the_end_of_its_controller() {
    let (_served, neighbour, mut guest) = with_neighbour();
    let mut dice = Dice(1);
    guest.enable();
    let (mut events, mut fatal) = (0, 0);
    for round in 0..4000u16 {
        let cid = round & 0x3fff;
        let sqe = dice.command(&ADMIN, cid);
        let mut ring = guest.admin.clone();
        guest.push(&mut ring, &sqe);
        guest.ring_tail(&ring);
        let deadline = Instant::now() + LIMIT;
        loop {
            match guest.take(&mut ring) {
                Some(cqe) if cqe.cid == cid => break,
                // An event, or a request for one that an Abort command took back.
                Some(_) => events -= 1,
                None => {}
            }
            if sqe.opcode() == u8::from(AdminOpcode::AsyncEventRequest) && events < 4 {
                // It waits for an event, unless it was wrong.
                events += 1;
                break;
            }
            if guest.csts().cfs() {
                break;
            }
            assert!(Instant::now() < deadline, "round {round}: {sqe:?}");
        }
        guest.admin = ring;
        if guest.csts().cfs() || round % 500 == 499 {
            fatal += u32::from(guest.csts().cfs());
            guest.disable();
            guest.enable();
            events = 0;
        }
    }
    assert!(fatal < 2000);
    guest.disable();
    guest.enable();
    let mut ring = guest.create_pair(1);
    works(&mut guest, &mut ring);
    neighbour.finish();
}

#[test]
fn every_garbage_io_command_has_a_completion() {
    let (_served, neighbour, mut guest) = with_neighbour();
    let mut dice = Dice(2);
    guest.enable();
    let mut ring = guest.create_pair(1);
    let mut good = 0;
    for round in 0..400u16 {
        let burst = dice.below(40) as u16 + 1;
        for cid in 0..burst {
            let sqe = dice.command(&IO, cid);
            guest.push(&mut ring, &sqe);
        }
        guest.ring_tail(&ring);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..burst {
            let cqe = guest.wait(&mut ring);
            assert!(cqe.cid < burst && seen.insert(cqe.cid), "round {round}: {cqe:?}");
            good += u32::from(cqe.status().is_success());
        }
    }
    assert!(good > 0, "some garbage has to be good, or nothing was tested");
    assert!(!guest.csts().cfs());
    works(&mut guest, &mut ring);
    neighbour.finish();
}

#[test]
fn random_bytes_as_commands_and_random_doorbells_kill_nothing() {
    let (_served, neighbour, mut guest) = with_neighbour();
    let mut dice = Dice(3);
    for round in 0..30 {
        guest.client.reset().unwrap();
        guest.set_command(6);
        guest.enable();
        let mut rings: Vec<Ring> = (1..=2).map(|qid| guest.create_pair(qid)).collect();
        rings.push(guest.admin.clone());
        for _ in 0..200 {
            let ring = &mut rings[dice.below(3) as usize];
            let bytes: Vec<u8> = (0..8).flat_map(|_| dice.roll().to_le_bytes()).collect();
            guest.push_bytes(ring, &bytes);
            if dice.one_in(4) {
                let queue = dice.below(4) as u16;
                let doorbell = if dice.one_in(2) { Doorbell::SqTail(queue) } else { Doorbell::CqHead(queue) };
                guest.doorbell(doorbell, dice.roll() as u32);
            } else {
                guest.ring_tail(ring);
                guest.take(ring);
            }
        }
        assert!(guest.config(0) != 0, "round {round}");
    }
    guest.client.reset().unwrap();
    guest.set_command(6);
    guest.enable();
    let mut ring = guest.create_pair(1);
    works(&mut guest, &mut ring);
    neighbour.finish();
}

#[test]
fn random_register_writes_of_every_width_kill_nothing() {
    let (_served, neighbour, mut guest) = with_neighbour();
    let mut dice = Dice(4);
    for _ in 0..4000 {
        let (region, size) = [(0, 0x4000u64), (0, 0x40), (0, 0x1040), (4, 0x400), (5, 0x40), (CONFIG, 0x100)]
            [dice.below(6) as usize];
        let size = size.min(guest.client.region_info(region).unwrap().size);
        let len = [1, 2, 4, 4, 4, 8, 3, 16][dice.below(8) as usize];
        let offset = dice.below(size - len);
        let offset = if dice.one_in(4) { offset } else { offset & !(len.next_power_of_two() - 1) };
        let mut data: Vec<u8> = (0..2).flat_map(|_| dice.roll().to_le_bytes()).collect();
        if dice.one_in(3) {
            data[0] |= 1;
            data[1..].fill(0);
        }
        guest.client.region_write(region, offset, &data[..len as usize]).unwrap();
        let mut back = vec![0; len as usize];
        guest.client.region_read(region, offset, &mut back).unwrap();
    }
    guest.set_power_state(0);
    guest.client.reset().unwrap();
    guest.set_command(6);
    guest.enable();
    let mut ring = guest.create_pair(1);
    works(&mut guest, &mut ring);
    neighbour.finish();
}
