//! A target with a ram drive behind a socket, for tests that attach as a guest would.

#![expect(dead_code, reason = "each test binary uses a part of this")]

pub mod cluster;
pub mod gate;
pub mod guest;
pub mod laborious;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use nvmet_block::{Backend, RamBackend};
use nvmet_core::device::DoorbellMode;
use nvmet_core::namespace::{NamespaceConfig, NamespaceIds};
use nvmet_core::subsystem::{Subsystem, SubsystemConfig};
use nvmet_core::target::{ControllerConfig, ControllerId, Listen, Target, TargetConfig};
use nvmet_core::worker::WaitMode;
use nvmet_host::{Drive, HostConfig};

pub struct Served {
    pub target: Target,
    pub subsystem: Arc<Subsystem>,
    pub id: ControllerId,
    pub socket: PathBuf,
    pub directory: tempfile::TempDir,
}

pub fn namespace(backend: Arc<dyn Backend>, block_size: u32) -> NamespaceConfig {
    let ids = NamespaceIds { uuid: [7; 16], nguid: [8; 16], eui64: [9; 8] };
    NamespaceConfig { block_size, ids, ..NamespaceConfig::new(backend) }
}

pub fn subsystem_config(serial: &str) -> SubsystemConfig {
    SubsystemConfig::new(serial)
}

/// `make modes` runs every test with other workers than they ask for: `NVMET_TEST_WORKERS`, `NVMET_TEST_WAIT`.
pub fn workers_as_wanted(workers: u16) -> TargetConfig {
    let wanted = |name| std::env::var(name).ok();
    let wait = match wanted("NVMET_TEST_WAIT").as_deref() {
        Some("poll") => WaitMode::Poll,
        Some("event") => WaitMode::Event,
        None | Some("adaptive") => WaitMode::Adaptive,
        Some(other) => panic!("NVMET_TEST_WAIT={other}: use poll, adaptive or event"),
    };
    let workers = wanted("NVMET_TEST_WORKERS").map_or(workers, |text| text.parse().unwrap());
    TargetConfig { workers, wait, ..TargetConfig::default() }
}

pub fn serve_with(
    workers: u16,
    namespaces: Vec<NamespaceConfig>,
    change: impl FnOnce(&mut ControllerConfig),
) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(workers_as_wanted(workers)).unwrap();
    let subsystem = target.add_subsystem(subsystem_config("TEST1")).unwrap();
    for namespace in namespaces {
        subsystem.add_namespace(namespace).unwrap();
    }
    let socket = directory.path().join("nvme.sock");
    let mut config = ControllerConfig::new(Listen::Path(socket.clone()));
    change(&mut config);
    let id = target.listen(&subsystem, config).unwrap();
    Served { target, subsystem, id, socket, directory }
}

pub fn ram(size: u64) -> Arc<dyn Backend> {
    Arc::new(RamBackend::new(size, false).unwrap())
}

/// A 16 MiB ram drive with 512-byte blocks.
pub fn serve(mode: DoorbellMode) -> Served {
    serve_with(1, vec![namespace(ram(16 << 20), 512)], |config| config.doorbells = mode)
}

/// A drive behind a gate: 16 MiB, 512-byte blocks, one worker.
pub fn serve_gate() -> (Served, Arc<gate::Gate>) {
    let gate = gate::Gate::new(16 << 20);
    let backend: Arc<dyn Backend> = Arc::clone(&gate) as _;
    (serve_with(1, vec![namespace(backend, 512)], |config| config.doorbells = DoorbellMode::Trapped), gate)
}

/// Another VM on the same target: it writes and reads back all the time, and nothing that happens to others disturbs it.
pub struct Neighbour {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Neighbour {
    pub fn start(served: &Served) -> Self {
        let subsystem = served.target.add_subsystem(subsystem_config("NEIGHBOUR")).unwrap();
        subsystem.add_namespace(namespace(ram(8 << 20), 512)).unwrap();
        let socket = served.directory.path().join("neighbour.sock");
        served.target.listen(&subsystem, ControllerConfig::new(Listen::Path(socket.clone()))).unwrap();
        let mut drive = attach_patiently(&socket);
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, counter) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
        let rounds = Arc::clone(&counter);
        let thread = std::thread::spawn(move || {
            let mut namespace = drive.open_namespace(1).unwrap();
            let mut rounds = 0u64;
            while !flag.load(Ordering::Relaxed) || rounds == 0 {
                let data: Vec<u8> = (0..4096).map(|at| (at as u64 ^ rounds) as u8).collect();
                namespace.write(rounds % 16000, &data, false).unwrap();
                let mut back = vec![0; data.len()];
                namespace.read(rounds % 16000, &mut back).unwrap();
                assert!(back == data, "round {rounds}");
                drive.keep_alive().unwrap();
                rounds += 1;
                counter.store(rounds, Ordering::Relaxed);
            }
            drive.close_namespace(namespace).unwrap();
            drive.detach().unwrap();
        });
        Self { stop, rounds, thread }
    }

    /// Waits until it has begun and finished a round from here on.
    pub fn goes_on(&self) {
        let now = self.rounds.load(Ordering::Relaxed);
        while self.rounds.load(Ordering::Relaxed) < now + 2 {
            // It has a deadline for everything it does.
            assert!(!self.thread.is_finished(), "the neighbour was disturbed");
            std::thread::yield_now();
        }
    }

    /// One more round from here on, then the end.
    pub fn finish(self) {
        self.goes_on();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Attaches with limits that a busy machine does not reach.
pub fn attach_patiently(socket: &Path) -> Drive {
    let config = HostConfig { timeout: guest::LIMIT, memory_bytes: 16 << 20, ..HostConfig::default() };
    Drive::attach(socket, config).unwrap()
}

/// Waits for what has no event.
pub fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + guest::LIMIT;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}: not within {:?}", guest::LIMIT);
        std::thread::yield_now();
    }
}

/// Tells other threads to stop, also when a test fails.
pub struct Stopper<'a>(pub &'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
