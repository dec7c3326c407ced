//! A whole device without its socket: any register writes, any guest memory, any commands. It does not panic, it
//! answers what is pending, and afterwards a reset brings a controller back that can be enabled.

#![no_main]

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use nvmet_block::RamBackend;
use nvmet_core::controller::{ControllerLimits, HostIdentity, Lifetime};
use nvmet_core::device::{DeviceConfig, DoorbellMode, NvmeDevice};
use nvmet_core::namespace::NamespaceConfig;
use nvmet_core::pci::PciIds;
use nvmet_core::subsystem::ana::AnaStates;
use nvmet_core::subsystem::{Subsystem, SubsystemConfig};
use nvmet_core::worker::{WorkerConfig, WorkerPool};
use nvmet_dma::SharedMemory;
use nvmet_spec::registers::{self, Csts, Doorbell};
use nvmet_vfio_user::{ClientInfo, Device, DmaMap, DmaUnmap, Outcome};

const BAR0: u32 = 0;
const CONFIG: u32 = 7;
/// Guest memory: rings first, then data.
const IOVA: u64 = 0x1_0000;
const SIZE: usize = 1 << 20;
const ACQ: u64 = IOVA + 0x1000;
const SQ: u64 = IOVA + 0x2000;
const CQ: u64 = IOVA + 0x3000;
/// Entries of every ring.
const ENTRIES: u32 = 16;

#[derive(Arbitrary, Debug)]
enum Action {
    Write { region: u8, offset: u16, data: Vec<u8> },
    Read { region: u8, offset: u16, len: u8 },
    Memory { at: u16, data: Vec<u8> },
    Admin { opcode: u8, nsid: u8, prp1: Address, prp2: Address, dwords: [u32; 6] },
    Io { opcode: u8, nsid: u8, prp1: Address, prp2: Address, dwords: [u32; 6] },
    Raw { io: bool, sqe: [u8; 32] },
    Doorbell { queue: u8, head: bool, value: u16 },
    Enable,
    CreatePair,
    Reset,
    Map,
    Unmap,
    Poll,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Address {
    Memory(u16),
    Page(u8),
    Any(u64),
}

impl Address {
    fn value(self) -> u64 {
        match self {
            Self::Memory(offset) => IOVA + u64::from(offset) * 8,
            Self::Page(page) => IOVA + u64::from(page) * 4096,
            Self::Any(address) => address,
        }
    }
}

struct Target {
    subsystem: Arc<Subsystem>,
    pool: Arc<WorkerPool>,
}

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let subsystem = Arc::new(Subsystem::new(SubsystemConfig::new("FUZZ")).expect("a subsystem"));
    let backend = Arc::new(RamBackend::new(1 << 20, false).expect("memory"));
    subsystem.add_namespace(NamespaceConfig::new(backend)).expect("a namespace");
    let pool = Arc::new(WorkerPool::start(vec![WorkerConfig::default()]).expect("a worker"));
    Target { subsystem, pool }
});

struct Guest {
    device: NvmeDevice,
    woken: Receiver<()>,
    memory: SharedMemory,
    /// Tails of the admin queue and of the I/O queue.
    tails: [u32; 2],
}

impl Guest {
    fn new() -> Self {
        let (wake, woken) = channel();
        let config = DeviceConfig {
            limits: ControllerLimits { queues: 2, entries: 64 },
            ids: PciIds::default(),
            doorbells: DoorbellMode::Trapped,
            host: HostIdentity { nqn: "nqn.2014-08.org.nvmexpress:uuid:fuzz".to_owned(), id: [1; 16] },
            place: "the fuzzer".to_owned(),
            cntlid: None,
            ana: AnaStates::default(),
            lifetime: Lifetime::default(),
        };
        let wake = move || {
            // A device that is woken after its end has nobody to tell.
            let _ = wake.send(());
        };
        let (subsystem, pool) = (Arc::clone(&TARGET.subsystem), Arc::clone(&TARGET.pool));
        let mut device = NvmeDevice::new(config, subsystem, pool, wake, |_| {}).expect("a device");
        device.attached(&ClientInfo {
            json: true,
            reads_errors: true,
            minor: 1,
            max_msg_fds: 16,
            max_data_xfer_size: 1 << 20,
        });
        let memory = SharedMemory::new(SIZE).expect("memory");
        let mut guest = Self { device, woken, memory, tails: [0; 2] };
        guest.write(CONFIG, 4, &6u16.to_le_bytes());
        guest.map();
        guest
    }

    /// Waits for what is pending. Backends here never hold anything, so it cannot take long.
    fn settle(&mut self, mut outcome: Outcome) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while outcome == Outcome::Pending {
            let _ = self.woken.recv_timeout(Duration::from_millis(100));
            outcome = self.device.poll(Instant::now());
            assert!(Instant::now() < deadline, "an operation is pending for ever");
        }
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        let size = self.device.region_info(region).size;
        if !data.is_empty() && offset + data.len() as u64 <= size {
            let outcome = self.device.region_write(region, offset, data);
            self.settle(outcome);
        }
    }

    fn write32(&mut self, offset: u64, value: u32) {
        self.write(BAR0, offset, &value.to_le_bytes());
    }

    fn csts(&mut self) -> Csts {
        let mut bytes = [0; 4];
        self.device.region_read(BAR0, registers::CSTS, &mut bytes);
        Csts::from_bits(u32::from_le_bytes(bytes))
    }

    fn map(&mut self) {
        let fd: OwnedFd = self.memory.fd().try_clone_to_owned().expect("a descriptor");
        let map =
            DmaMap { addr: IOVA, size: SIZE as u64, offset: 0, readable: true, writable: true, fd: Some(fd) };
        self.device.dma_map(map).expect("a map that was there before or fits");
    }

    fn unmap(&mut self) {
        if let Ok(outcome) = self.device.dma_unmap(DmaUnmap::All) {
            self.settle(outcome);
        }
    }

    fn enable(&mut self) {
        self.write32(registers::CC, 0);
        self.wait_disabled();
        self.tails = [0; 2];
        self.memory.fill(0, 0x4000, 0).expect("within memory");
        self.write32(registers::AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1));
        self.write(BAR0, registers::ASQ, &IOVA.to_le_bytes());
        self.write(BAR0, registers::ACQ, &ACQ.to_le_bytes());
        self.write32(registers::CC, 0x46_0001);
    }

    fn wait_disabled(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        // In D3hot registers read as ones, and nobody waits for them.
        while self.csts().rdy() && self.csts().into_bits() != u32::MAX {
            let _ = self.woken.recv_timeout(Duration::from_millis(100));
            let outcome = self.device.poll(Instant::now());
            self.settle(outcome);
            assert!(Instant::now() < deadline, "the controller is never reset");
        }
    }

    fn submit(&mut self, queue: usize, sqe: &[u8; 64]) {
        let ring = [IOVA, SQ][queue] - IOVA;
        let at = ring as usize + self.tails[queue] as usize * 64;
        self.memory.write_bytes(at, sqe).expect("within memory");
        self.tails[queue] = (self.tails[queue] + 1) % ENTRIES;
        self.write32(Doorbell::SqTail(queue as u16).offset(0), self.tails[queue]);
    }

    fn command(&mut self, queue: usize, opcode: u8, nsid: u32, prps: [u64; 2], dwords: [u32; 6]) {
        let mut sqe = [0; 64];
        sqe[0] = opcode;
        sqe[4..8].copy_from_slice(&nsid.to_le_bytes());
        sqe[24..32].copy_from_slice(&prps[0].to_le_bytes());
        sqe[32..40].copy_from_slice(&prps[1].to_le_bytes());
        for (to, dword) in sqe[40..].chunks_exact_mut(4).zip(dwords) {
            to.copy_from_slice(&dword.to_le_bytes());
        }
        self.submit(queue, &sqe);
    }

    fn create_pair(&mut self) {
        let size = (ENTRIES - 1) << 16 | 1;
        self.command(0, 0x05, 0, [CQ, 0], [size, 1, 0, 0, 0, 0]);
        self.command(0, 0x01, 0, [SQ, 0], [size, 1 << 16 | 1, 0, 0, 0, 0]);
        self.tails[1] = 0;
    }

    fn act(&mut self, action: Action) {
        let nsid_of = |nsid: u8| if nsid == 0xff { u32::MAX } else { nsid.into() };
        match action {
            Action::Write { region, offset, data } => {
                self.write(u32::from(region) % 9, u64::from(offset) % 0x4000, &data);
            }
            Action::Read { region, offset, len } => {
                let (region, mut data) = (u32::from(region) % 9, vec![0xff; len.into()]);
                if u64::from(offset) + data.len() as u64 <= self.device.region_info(region).size {
                    self.device.region_read(region, offset.into(), &mut data);
                }
            }
            Action::Memory { at, data } => {
                let at = usize::from(at) * 16;
                let len = data.len().min(SIZE - at);
                self.memory.write_bytes(at, &data[..len]).expect("within memory");
            }
            Action::Admin { opcode, nsid, prp1, prp2, dwords } => {
                self.command(0, opcode, nsid_of(nsid), [prp1.value(), prp2.value()], dwords);
            }
            Action::Io { opcode, nsid, prp1, prp2, dwords } => {
                self.command(1, opcode, nsid_of(nsid), [prp1.value(), prp2.value()], dwords);
            }
            Action::Raw { io, sqe } => {
                let mut whole = [0; 64];
                whole[..32].copy_from_slice(&sqe);
                whole[32..].copy_from_slice(&sqe);
                self.submit(usize::from(io), &whole);
            }
            Action::Doorbell { queue, head, value } => {
                let queue = u16::from(queue % 4);
                let doorbell = if head { Doorbell::CqHead(queue) } else { Doorbell::SqTail(queue) };
                self.write32(doorbell.offset(0), value.into());
            }
            Action::Enable => self.enable(),
            Action::CreatePair => self.create_pair(),
            Action::Reset => {
                let outcome = self.device.reset();
                self.settle(outcome);
                self.write(CONFIG, 4, &6u16.to_le_bytes());
            }
            Action::Map => self.map(),
            Action::Unmap => self.unmap(),
            Action::Poll => {
                let outcome = self.device.poll(Instant::now());
                self.settle(outcome);
            }
        }
    }
}

fuzz_target!(|actions: Vec<Action>| {
    let mut guest = Guest::new();
    guest.enable();
    guest.create_pair();
    for action in actions.into_iter().take(200) {
        guest.act(action);
    }
    // Whatever that was: a reset ends it.
    let outcome = guest.device.reset();
    guest.settle(outcome);
    guest.unmap();
    guest.map();
    guest.write(CONFIG, 4, &6u16.to_le_bytes());
    guest.enable();
    assert!(guest.csts().rdy() && !guest.csts().cfs(), "{:?}", guest.csts());
    let outcome = guest.device.detached();
    guest.settle(outcome);
});
