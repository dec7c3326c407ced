//! A guest without a driver: registers, rings and commands by hand, so that everything can be wrong.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use nvmet_dma::SharedMemory;
use nvmet_host::SqeExt;
use nvmet_spec::command::{
    AdminOpcode, Cqe, CreateCqCdw11, CreateQueueCdw10, CreateSqCdw11, DeleteQueueCdw10, IdentifyCdw10, Sqe,
};
use nvmet_spec::registers::{self, Aqa, Cc, Csts, Doorbell};
use nvmet_spec::status::Status;
use nvmet_vfio_user::client::{Client, ClientOptions, MapRange, Profile};
use zerocopy::{FromBytes, IntoBytes};

pub const BAR0: u32 = 0;
pub const CONFIG: u32 = 7;
/// Where the guest's memory begins.
pub const IOVA: u64 = 1 << 32;
/// Bytes of guest memory.
pub const MEMORY: usize = 64 << 20;
/// How long anything may take before a test says that it hangs. Never waited for in full when all is well.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Bytes between the rings of two queue pairs: room for 4096 entries of both.
const RINGS: u64 = 0x8_0000;
const CQ_OFFSET: u64 = 0x4_0000;
/// Rings come first, then data.
pub const DATA: u64 = 0x200_0000;

/// A queue pair as its driver keeps it.
#[derive(Clone, Debug)]
pub struct Ring {
    pub sqid: u16,
    pub cqid: u16,
    /// Offsets in guest memory.
    pub sq: u64,
    pub cq: u64,
    pub sq_entries: u32,
    pub cq_entries: u32,
    pub tail: u32,
    pub head: u32,
    pub phase: bool,
}

impl Ring {
    /// Rings at the places that belong to a queue identifier.
    pub fn new(qid: u16, sq_entries: u32, cq_entries: u32) -> Self {
        let sq = u64::from(qid) * RINGS;
        Self {
            sqid: qid,
            cqid: qid,
            sq,
            cq: sq + CQ_OFFSET,
            sq_entries,
            cq_entries,
            tail: 0,
            head: 0,
            phase: true,
        }
    }
}

/// A connected guest.
pub struct Guest {
    pub client: Client,
    pub memory: SharedMemory,
    pub admin: Ring,
    /// Admin completions that nobody has asked for yet.
    pub stray: VecDeque<Cqe>,
    next_cid: u16,
}

impl Guest {
    /// Connects, turns on memory space and bus mastering, and makes all of its memory known.
    pub fn connect(socket: &Path) -> Self {
        let mut guest = Self::bare(socket);
        guest.set_command(0x6);
        guest.map();
        guest
    }

    /// Connects and does nothing else.
    pub fn bare(socket: &Path) -> Self {
        let options = ClientOptions { profile: Profile::Capabilities, timeout: LIMIT };
        let client = Client::connect(socket, options).unwrap();
        let memory = SharedMemory::new(MEMORY).unwrap();
        Self { client, memory, admin: Ring::new(0, 64, 64), stray: VecDeque::new(), next_cid: 0 }
    }

    pub fn map(&mut self) {
        let range = MapRange { addr: IOVA, size: MEMORY as u64, offset: 0, readable: true, writable: true };
        self.client.dma_map(range, Some(self.memory.fd())).unwrap();
    }

    pub fn unmap(&mut self) {
        self.client.dma_unmap(IOVA, MEMORY as u64).unwrap();
    }

    /// PCI Command: 2 is Memory Space Enable, 4 is Bus Master Enable.
    pub fn set_command(&mut self, command: u16) {
        self.client.region_write(CONFIG, 4, &command.to_le_bytes()).unwrap();
    }

    pub fn config(&mut self, offset: u64) -> u8 {
        let mut byte = [0];
        self.client.region_read(CONFIG, offset, &mut byte).unwrap();
        byte[0]
    }

    /// Offset of a capability in config space.
    pub fn capability(&mut self, id: u8) -> u64 {
        let mut at = u64::from(self.config(0x34));
        while self.config(at) != id {
            at = u64::from(self.config(at + 1));
            assert_ne!(at, 0, "capability {id:#x}");
        }
        at
    }

    /// Function Level Reset (PCIe Base 6.6.2).
    pub fn flr(&mut self) {
        let control = self.capability(0x10) + 8;
        self.client.region_write(CONFIG, control, &0x8000u16.to_le_bytes()).unwrap();
    }

    /// Power state: 0 is D0, 3 is D3hot.
    pub fn set_power_state(&mut self, state: u16) {
        let control = self.capability(0x01) + 4;
        self.client.region_write(CONFIG, control, &state.to_le_bytes()).unwrap();
    }

    pub fn get32(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.client.region_read(BAR0, offset, &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    pub fn set32(&mut self, offset: u64, value: u32) {
        self.client.region_write(BAR0, offset, &value.to_le_bytes()).unwrap();
    }

    pub fn set64(&mut self, offset: u64, value: u64) {
        self.client.region_write(BAR0, offset, &value.to_le_bytes()).unwrap();
    }

    pub fn csts(&mut self) -> Csts {
        Csts::from_bits(self.get32(registers::CSTS))
    }

    /// Reads CSTS until it is as wanted.
    pub fn wait_csts(&mut self, what: &str, wanted: impl Fn(Csts) -> bool) -> Csts {
        let deadline = Instant::now() + LIMIT;
        loop {
            let csts = self.csts();
            if wanted(csts) {
                return csts;
            }
            assert!(Instant::now() < deadline, "{what}: CSTS is {csts:?}");
            std::thread::yield_now();
        }
    }

    /// CC as drivers enable a controller with 4 KiB pages.
    pub fn cc() -> Cc {
        Cc::new().with_en(true).with_iosqes(6).with_iocqes(4)
    }

    /// Sets the admin queue registers for a ring of so many entries, and clears the ring.
    pub fn prepare_admin(&mut self, sq_entries: u32, cq_entries: u32) {
        self.admin = Ring::new(0, sq_entries, cq_entries);
        self.stray.clear();
        self.memory.fill(0, RINGS as usize, 0).unwrap();
        let aqa = Aqa::new().with_asqs_z((sq_entries - 1) as u16).with_acqs_z((cq_entries - 1) as u16);
        self.set32(registers::AQA, aqa.into_bits());
        self.set64(registers::ASQ, IOVA + self.admin.sq);
        self.set64(registers::ACQ, IOVA + self.admin.cq);
    }

    /// Brings the controller up with an admin queue of 64 entries.
    pub fn enable(&mut self) {
        self.enable_with(64, 64, Self::cc());
    }

    pub fn enable_with(&mut self, sq_entries: u32, cq_entries: u32, cc: Cc) {
        self.prepare_admin(sq_entries, cq_entries);
        self.set32(registers::CC, cc.into_bits());
        let csts = self.wait_csts("enable", |csts| csts.rdy() || csts.cfs());
        assert!(csts.rdy() && !csts.cfs(), "{csts:?}");
    }

    pub fn disable(&mut self) {
        self.set32(registers::CC, Self::cc().with_en(false).into_bits());
        self.wait_csts("disable", |csts| !csts.rdy());
    }

    /// Puts a command into a ring, without telling anybody.
    pub fn push(&mut self, ring: &mut Ring, sqe: &Sqe) {
        self.push_bytes(ring, sqe.as_bytes());
    }

    pub fn push_bytes(&mut self, ring: &mut Ring, sqe: &[u8]) {
        let at = ring.sq + u64::from(ring.tail) * 64;
        self.memory.write_bytes(at as usize, sqe).unwrap();
        ring.tail = (ring.tail + 1) % ring.sq_entries;
    }

    pub fn ring_tail(&mut self, ring: &Ring) {
        self.doorbell(Doorbell::SqTail(ring.sqid), ring.tail);
    }

    pub fn doorbell(&mut self, doorbell: Doorbell, value: u32) {
        self.client.region_write_posted(BAR0, doorbell.offset(0), &value.to_le_bytes()).unwrap();
    }

    /// The next completion, if there is one; the head doorbell is not rung.
    pub fn peek(&mut self, ring: &mut Ring) -> Option<Cqe> {
        let at = ring.cq + u64::from(ring.head) * 16;
        let dwords = self.memory.read_cqe(at as usize).unwrap();
        let cqe = Cqe::read_from_bytes(dwords.as_bytes()).unwrap();
        if cqe.phase() != ring.phase {
            return None;
        }
        ring.head += 1;
        if ring.head == ring.cq_entries {
            (ring.head, ring.phase) = (0, !ring.phase);
        }
        Some(cqe)
    }

    /// The next completion, if there is one.
    pub fn take(&mut self, ring: &mut Ring) -> Option<Cqe> {
        let cqe = self.peek(ring)?;
        self.doorbell(Doorbell::CqHead(ring.cqid), ring.head);
        Some(cqe)
    }

    /// Waits for the next completion.
    pub fn wait(&mut self, ring: &mut Ring) -> Cqe {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(cqe) = self.take(ring) {
                return cqe;
            }
            assert!(Instant::now() < deadline, "no completion on queue {}: {:?}", ring.cqid, self.csts());
            std::thread::yield_now();
        }
    }

    /// Submits an admin command with a fresh identifier, which is returned.
    pub fn submit_admin(&mut self, mut sqe: Sqe) -> u16 {
        self.next_cid = self.next_cid.wrapping_add(1) & 0x7fff;
        sqe.cdw0.set_cid(self.next_cid);
        let mut ring = self.admin.clone();
        self.push(&mut ring, &sqe);
        self.ring_tail(&ring);
        self.admin = ring;
        self.next_cid
    }

    /// The completion of an admin command.
    pub fn wait_admin(&mut self, cid: u16) -> Cqe {
        if let Some(at) = self.stray.iter().position(|cqe| cqe.cid == cid) {
            return self.stray.remove(at).unwrap();
        }
        loop {
            let mut ring = self.admin.clone();
            let cqe = self.wait(&mut ring);
            self.admin = ring;
            if cqe.cid == cid {
                return cqe;
            }
            self.stray.push_back(cqe);
        }
    }

    /// An admin completion that has come, without waiting for one.
    pub fn poll_admin(&mut self, cid: u16) -> Option<Cqe> {
        let mut ring = self.admin.clone();
        while let Some(cqe) = self.take(&mut ring) {
            self.stray.push_back(cqe);
        }
        self.admin = ring;
        let at = self.stray.iter().position(|cqe| cqe.cid == cid)?;
        self.stray.remove(at)
    }

    pub fn call(&mut self, sqe: Sqe) -> Cqe {
        let cid = self.submit_admin(sqe);
        self.wait_admin(cid)
    }

    pub fn ok(&mut self, sqe: Sqe) -> Cqe {
        let cqe = self.call(sqe);
        assert!(cqe.status().is_success(), "opcode {:#x}: {}", sqe.opcode(), cqe.status());
        cqe
    }

    pub fn refused(&mut self, sqe: Sqe, status: Status) {
        let cqe = self.call(sqe);
        assert!(cqe.status().is(status), "opcode {:#x}: {} and not {status}", sqe.opcode(), cqe.status());
    }

    /// Whether the controller still does what it is asked: Identify Controller.
    pub fn assert_alive(&mut self) {
        let mut sqe = Sqe::new(AdminOpcode::Identify, 0, 0);
        sqe.cdw10 = IdentifyCdw10::new().with_cns(1).into_bits();
        sqe.prp1 = IOVA + DATA;
        self.ok(sqe);
    }

    pub fn create_cq(ring: &Ring) -> Sqe {
        let mut sqe = Sqe::new(AdminOpcode::CreateIoCq, 0, 0);
        sqe.cdw10 = create_cdw10(ring.cqid, ring.cq_entries);
        sqe.cdw11 = CreateCqCdw11::new().with_pc(true).into_bits();
        sqe.prp1 = IOVA + ring.cq;
        sqe
    }

    pub fn create_sq(ring: &Ring) -> Sqe {
        let mut sqe = Sqe::new(AdminOpcode::CreateIoSq, 0, 0);
        sqe.cdw10 = create_cdw10(ring.sqid, ring.sq_entries);
        sqe.cdw11 = CreateSqCdw11::new().with_pc(true).with_cqid(ring.cqid).into_bits();
        sqe.prp1 = IOVA + ring.sq;
        sqe
    }

    pub fn delete(opcode: AdminOpcode, qid: u16) -> Sqe {
        Sqe::new(opcode, 0, 0).with_cdw10(DeleteQueueCdw10::new().with_qid(qid).into_bits())
    }

    /// An I/O queue pair of 64 entries.
    pub fn create_pair(&mut self, qid: u16) -> Ring {
        let ring = Ring::new(qid, 64, 64);
        self.memory.fill(ring.sq as usize, RINGS as usize, 0).unwrap();
        self.ok(Self::create_cq(&ring));
        self.ok(Self::create_sq(&ring));
        ring
    }

    /// Submits an I/O command and waits for its completion.
    pub fn io(&mut self, ring: &mut Ring, sqe: &Sqe) -> Cqe {
        self.push(ring, sqe);
        self.ring_tail(ring);
        loop {
            let cqe = self.wait(ring);
            if cqe.cid == sqe.cid() {
                return cqe;
            }
        }
    }
}

fn create_cdw10(qid: u16, entries: u32) -> u32 {
    CreateQueueCdw10::new().with_qid(qid).with_qsize_z((entries - 1) as u16).into_bits()
}

/// A Read or Write of one page of data at the beginning of the namespace and of the guest's data.
pub fn page_io(opcode: nvmet_spec::command::NvmOpcode, cid: u16) -> Sqe {
    let mut sqe = nvmet_host::read_write(opcode, 1, 0, 8);
    sqe.cdw0.set_cid(cid);
    sqe.prp1 = IOVA + DATA;
    sqe
}
