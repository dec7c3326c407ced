//! One script, two servers: ours, and the `vfio_user` crate's own with the same device behind it. What a client sees
//! has to be the same, byte by byte. The client is that crate's, too.
//!
//! Where the protocol lets the two differ, and they do, nothing is compared: the crate's server answers no errno but
//! EINVAL (all other errors have errno 0), its client does not look at errors, it takes no DATA_BOOL in SET_IRQS, offers
//! no mapping here, and it does not tell its device that a client has left.

mod common;

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use common::guest::{DATA, IOVA, LIMIT, MEMORY, Ring};
use common::{namespace, ram, serve_with, subsystem_config};
use nvmet_core::controller::{ControllerLimits, HostIdentity, Lifetime};
use nvmet_core::device::{DeviceConfig, DoorbellMode, StandaloneDevice};
use nvmet_core::pci::PciIds;
use nvmet_core::subsystem::Subsystem;
use nvmet_core::subsystem::ana::AnaStates;
use nvmet_core::worker::{WorkerConfig, WorkerPool};
use nvmet_dma::{EventFd, SharedMemory};
use nvmet_host::{SqeExt, read_write};
use nvmet_spec::command::{AdminOpcode, CreateCqCdw11, CreateSqCdw11, GetLogPageCdw10, NvmOpcode, Sqe};
use nvmet_spec::registers::{self, Aqa, Cc, Doorbell};
use vfio_user::{Client, Server};
use zerocopy::IntoBytes;

const BAR0: u32 = 0;
const CONFIG: u32 = 7;
const MSIX: u32 = 2;
const QUEUES: u16 = 4;
const ENTRIES: u32 = 64;

/// What the client saw, with what it had done.
type Transcript = Vec<(String, Vec<u8>)>;

struct Script {
    client: Client,
    memory: SharedMemory,
    seen: Transcript,
}

impl Script {
    fn new(socket: &Path) -> Self {
        let client = Client::new(socket).unwrap();
        Self { client, memory: SharedMemory::new(MEMORY).unwrap(), seen: Transcript::new() }
    }

    fn note(&mut self, what: String, bytes: impl Into<Vec<u8>>) {
        self.seen.push((what, bytes.into()));
    }

    fn read(&mut self, region: u32, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0x5a; len];
        self.client.region_read(region, offset, &mut data).unwrap();
        self.note(format!("read {region} at {offset:#x}"), data.clone());
        data
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        self.client.region_write(region, offset, data).unwrap();
    }

    fn write32(&mut self, offset: u64, value: u32) {
        self.write(BAR0, offset, &value.to_le_bytes());
    }

    fn write64(&mut self, offset: u64, value: u64) {
        self.write(BAR0, offset, &value.to_le_bytes());
    }

    /// Reads without taking notes until a bit of CSTS is as wanted: how often that takes is not the question.
    fn wait_ready(&mut self, ready: bool) {
        let deadline = Instant::now() + LIMIT;
        let mut csts = [0; 4];
        loop {
            self.client.region_read(BAR0, registers::CSTS, &mut csts).unwrap();
            if (csts[0] & 1 != 0) == ready {
                return self.note(format!("ready {ready}"), csts);
            }
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
    }

    /// What stands in every region, also in those that are not there, and beyond their ends.
    fn tour(&mut self) {
        let regions: Vec<(u32, u64, u32)> = (0..9)
            .filter_map(|index| {
                self.client.region(index).map(|region| (region.index, region.size, region.flags))
            })
            .collect();
        for (index, size, flags) in regions {
            self.note(format!("region {index}: {size:#x} bytes, flags {flags:#x}"), []);
            for offset in (0..size).step_by(256) {
                self.read(index, offset, 256.min(size - offset) as usize);
            }
            for (offset, len) in [(0u64, 1), (1, 2), (3, 4), (5, 8), (0x13, 3), (0xffe, 4), (0x1006, 8)] {
                self.read(index, offset, len);
            }
            for offset in [size.saturating_sub(2), size, size + 4096, u64::MAX - 3, u64::MAX] {
                self.read(index, offset, 4);
                self.write(index, offset, &[0xff; 4]);
            }
        }
        for index in 0..5 {
            let irq = self.client.get_irq_info(index).unwrap();
            self.note(format!("interrupts {index}: {} with flags {:#x}", irq.count, irq.flags), []);
        }
    }

    /// Writes everywhere, in every width, and looks at what came of it.
    fn scribble(&mut self) {
        let mut dice = 1u64;
        let mut roll = move || {
            dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (dice >> 33) as usize
        };
        for _ in 0..1500 {
            let (region, size) =
                [(BAR0, 0x40), (BAR0, 0x1010), (4, 0x50), (5, 16), (CONFIG, 0x100)][roll() % 5];
            let len = [1usize, 2, 4, 8][roll() % 4];
            let offset = (roll() % (size - len + 1)) as u64;
            let data: Vec<u8> = (0..len).map(|_| roll() as u8).collect();
            // Resets, power states and enabling have their own steps.
            let resets = region == BAR0 && offset <= 0x23 && offset + len as u64 > 0x14;
            let moves = region == CONFIG && offset + len as u64 > 0x40;
            if resets || moves {
                continue;
            }
            self.write(region, offset, &data);
            self.read(region, offset & !7, 8);
        }
    }

    /// Offset of a capability in config space.
    fn capability(&mut self, id: u8) -> u64 {
        let mut at = self.read(CONFIG, 0x34, 1)[0];
        while self.read(CONFIG, at.into(), 1) != [id] {
            at = self.read(CONFIG, u64::from(at) + 1, 1)[0];
        }
        at.into()
    }

    /// D3hot and back, a function level reset, a subsystem reset.
    fn power_and_resets(&mut self) {
        let power = self.capability(0x01) + 4;
        for state in [3u16, 1, 0] {
            self.write(CONFIG, power, &state.to_le_bytes());
            self.read(CONFIG, 0, 256);
            self.read(BAR0, 0, 64);
            self.read(4, 0, 64);
        }
        let control = self.capability(0x10) + 8;
        self.write(CONFIG, control, &0x8000u16.to_le_bytes());
        self.read(CONFIG, 0, 256);
        self.read(BAR0, 0, 64);
        self.write32(registers::NSSR, registers::NSSR_MAGIC);
        self.read(BAR0, 0, 64);
        // Enabled with nothing set up, which is fatal.
        self.write32(registers::CC, 1);
        self.read(BAR0, 0, 64);
    }

    fn submit(&mut self, ring: &mut Ring, sqe: &Sqe) {
        self.memory.write_bytes((ring.sq + u64::from(ring.tail) * 64) as usize, sqe.as_bytes()).unwrap();
        ring.tail = (ring.tail + 1) % ring.sq_entries;
        self.write32(Doorbell::SqTail(ring.sqid).offset(0), ring.tail);
        let at = (ring.cq + u64::from(ring.head) * 16) as usize;
        let deadline = Instant::now() + LIMIT;
        let cqe = loop {
            let cqe = self.memory.read_cqe(at).unwrap();
            if (cqe[3] & 0x1_0000 != 0) == ring.phase {
                break cqe;
            }
            assert!(Instant::now() < deadline, "opcode {:#x}", sqe.opcode());
            thread::yield_now();
        };
        ring.head += 1;
        if ring.head == ring.cq_entries {
            (ring.head, ring.phase) = (0, !ring.phase);
        }
        self.write32(Doorbell::CqHead(ring.cqid).offset(0), ring.head);
        self.note(format!("completion of opcode {:#x}", sqe.opcode()), cqe.as_bytes());
    }

    fn note_data(&mut self, len: usize) {
        let mut data = vec![0; len];
        self.memory.read_bytes(DATA as usize, &mut data).unwrap();
        self.note("data".to_owned(), data);
        self.memory.fill(DATA as usize, len, 0).unwrap();
    }

    /// A life of the controller.
    fn live(&mut self) {
        self.write(CONFIG, 4, &6u16.to_le_bytes());
        let mut admin = Ring::new(0, 32, 32);
        self.memory.fill(0, DATA as usize, 0).unwrap();
        self.write32(registers::AQA, Aqa::new().with_asqs_z(31).with_acqs_z(31).into_bits());
        self.write64(registers::ASQ, IOVA + admin.sq);
        self.write64(registers::ACQ, IOVA + admin.cq);
        let cc = Cc::new().with_en(true).with_iosqes(6).with_iocqes(4);
        self.write32(registers::CC, cc.into_bits());
        self.wait_ready(true);
        let page = |opcode, nsid| {
            let mut sqe = Sqe::new(opcode, 9, nsid);
            sqe.prp1 = IOVA + DATA;
            sqe
        };
        for (cns, nsid) in
            [(0, 1), (0, 2), (1, 0), (2, 0), (3, 1), (5, 1), (6, 0), (7, 0), (8, 1), (0x1c, 0), (99, 0)]
        {
            self.submit(&mut admin, &page(AdminOpcode::Identify, nsid).with_cdw10(cns));
            self.note_data(4096);
        }
        for fid in 0..=0x20 {
            self.submit(&mut admin, &page(AdminOpcode::GetFeatures, 0).with_cdw10(fid));
            // The clock shows what it shows.
            if fid == 0x0e {
                self.memory.fill(DATA as usize, 8, 0).unwrap();
            }
            self.note_data(4096);
        }
        for lid in [0u8, 2, 3, 4, 5, 0x12, 0x13, 0xc0, 1] {
            let cdw10 = GetLogPageCdw10::new().with_lid(lid).with_numdl(127).into_bits();
            self.submit(&mut admin, &page(AdminOpcode::GetLogPage, 0xffff_ffff).with_cdw10(cdw10));
            self.note_data(512);
        }
        let mut ring = Ring::new(1, 16, 16);
        let size = (ring.sq_entries - 1) << 16 | 1;
        let mut create = Sqe::new(AdminOpcode::CreateIoCq, 1, 0).with_cdw10(size);
        create.cdw11 = CreateCqCdw11::new().with_pc(true).with_ien(true).with_iv(1).into_bits();
        create.prp1 = IOVA + ring.cq;
        self.submit(&mut admin, &create);
        let mut create = Sqe::new(AdminOpcode::CreateIoSq, 1, 0).with_cdw10(size);
        create.cdw11 = CreateSqCdw11::new().with_pc(true).with_cqid(1).into_bits();
        create.prp1 = IOVA + ring.sq;
        self.submit(&mut admin, &create);
        for round in 0..40u64 {
            let pattern: Vec<u8> = (0..4096).map(|at| (at + round * 3) as u8).collect();
            self.memory.write_bytes(DATA as usize, &pattern).unwrap();
            for opcode in [NvmOpcode::Write, NvmOpcode::Compare, NvmOpcode::Read] {
                let mut sqe = read_write(opcode, 1 + (round / 39) as u32, round * 60, 8);
                sqe.prp1 = IOVA + DATA;
                self.submit(&mut ring, &sqe);
            }
            self.note_data(4096);
        }
        let first = Sqe::new(AdminOpcode::DeleteIoCq, 1, 0).with_cdw10(1);
        self.submit(&mut admin, &first);
        self.submit(&mut admin, &Sqe::new(AdminOpcode::DeleteIoSq, 1, 0).with_cdw10(1));
        self.submit(&mut admin, &first);
        self.read(5, 0, 8);
        self.write32(registers::CC, cc.with_en(false).into_bits());
        self.wait_ready(false);
    }

    fn run(mut self) -> Transcript {
        self.tour();
        self.scribble();
        self.power_and_resets();
        self.client.reset().unwrap();
        self.tour();
        let file = self.memory.fd().as_raw_fd();
        self.client.dma_map(0, IOVA, MEMORY as u64, file).unwrap();
        let eventfds: Vec<EventFd> = (0..2).map(|_| EventFd::new().unwrap()).collect();
        let raw: Vec<i32> = eventfds.iter().map(|eventfd| eventfd.as_fd().as_raw_fd()).collect();
        for (index, eventfd) in raw.iter().enumerate() {
            self.client.set_irqs(MSIX, 0x24, index as u32, 1, &[*eventfd]).unwrap();
        }
        for _ in 0..2 {
            self.live();
            // The last interrupt may come a moment after its completion; that there were some is what counts.
            self.note("interrupts".to_owned(), [u8::from(eventfds[0].drain().unwrap() > 0)]);
            let deadline = Instant::now() + LIMIT;
            while eventfds[1].drain().unwrap() == 0 {
                assert!(Instant::now() < deadline, "no interrupt of the I/O queue");
            }
            self.client.reset().unwrap();
        }
        self.client.dma_unmap(IOVA, MEMORY as u64).unwrap();
        self.client.set_irqs(MSIX, 0x21, 0, 0, &[]).unwrap();
        self.read(5, 0, 8);
        self.tour();
        self.client.shutdown().unwrap();
        self.seen
    }
}

fn standalone() -> StandaloneDevice {
    let subsystem = Arc::new(Subsystem::new(subsystem_config("TEST1")).unwrap());
    subsystem.add_namespace(namespace(ram(16 << 20), 512)).unwrap();
    let pool = Arc::new(WorkerPool::start(vec![WorkerConfig::default()]).unwrap());
    let config = DeviceConfig {
        limits: ControllerLimits { queues: QUEUES, entries: ENTRIES },
        ids: PciIds::default(),
        doorbells: DoorbellMode::Trapped,
        host: host(),
        place: "the standalone device".to_owned(),
        cntlid: None,
        ana: AnaStates::default(),
        lifetime: Lifetime::default(),
    };
    StandaloneDevice::new(config, subsystem, pool).unwrap()
}

fn host() -> HostIdentity {
    HostIdentity {
        nqn: "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001".to_owned(),
        id: [7; 16],
    }
}

#[test]
fn a_client_sees_the_same_device_behind_either_server() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("theirs.sock");
    let mut device = standalone();
    let server = Server::new(&socket, true, device.irqs(), device.regions()).unwrap();
    let theirs = thread::scope(|scope| {
        let serving = scope.spawn(|| server.run(&mut device));
        let seen = Script::new(&socket).run();
        let _ = serving.join().unwrap();
        seen
    });
    let served = serve_with(1, vec![namespace(ram(16 << 20), 512)], |config| {
        config.queues = QUEUES;
        config.queue_size = ENTRIES;
        config.doorbells = DoorbellMode::Trapped;
        config.hostnqn = Some(host().nqn);
        config.hostid = Some(host().id);
    });
    let ours = Script::new(&served.socket).run();
    assert_eq!(ours.len(), theirs.len());
    for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(ours.0, theirs.0, "step {at}");
        let differs = ours.1.iter().zip(&theirs.1).position(|(ours, theirs)| ours != theirs);
        assert!(ours.1 == theirs.1, "step {at}, {}: byte {differs:?}", ours.0);
    }
}

#[test]
fn a_device_without_our_server_ends_with_its_owner() {
    let device = standalone();
    assert_eq!(device.irqs().len(), 5);
    assert_eq!(device.regions().len(), 9);
    drop(device);
}

#[test]
fn accesses_that_no_region_has_reach_no_device() {
    use vfio_user::ServerBackend;
    let mut device = standalone();
    for region in [0, 1, 4, 5, 7, 8, 9, u32::MAX] {
        for offset in [0x4000, 0x10000, u64::MAX - 2, u64::MAX] {
            let mut data = [0; 8];
            device.region_read(region, offset, &mut data).unwrap();
            assert_eq!(data, [0xff; 8]);
            device.region_write(region, offset, &data).unwrap();
        }
        device.region_read(region, 0, &mut []).unwrap();
        device.region_write(region, 0, &[]).unwrap();
    }
}
