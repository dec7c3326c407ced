//! A target with a ram drive behind a socket, for tests that attach as a guest would.

#![expect(dead_code, reason = "each test binary uses a part of this")]

use std::path::PathBuf;
use std::sync::Arc;

use nvmet_block::{Backend, RamBackend};
use nvmet_core::device::DoorbellMode;
use nvmet_core::namespace::{NamespaceConfig, NamespaceIds};
use nvmet_core::subsystem::{Subsystem, SubsystemConfig};
use nvmet_core::target::{ControllerConfig, ControllerId, Listen, Target, TargetConfig};

pub struct Served {
    pub target: Target,
    pub subsystem: Arc<Subsystem>,
    pub id: ControllerId,
    pub socket: PathBuf,
    directory: tempfile::TempDir,
}

pub fn namespace(backend: Arc<dyn Backend>, block_size: u32) -> NamespaceConfig {
    let ids = NamespaceIds { uuid: [7; 16], nguid: [8; 16], eui64: [9; 8] };
    NamespaceConfig { nsid: None, block_size, read_only: false, backend, ids }
}

pub fn subsystem_config(serial: &str) -> SubsystemConfig {
    SubsystemConfig {
        nqn: None,
        serial: serial.to_owned(),
        model: "nvmet-vdev".to_owned(),
        firmware: "1".to_owned(),
    }
}

pub fn serve_with(
    workers: u16,
    namespaces: Vec<NamespaceConfig>,
    change: impl FnOnce(&mut ControllerConfig),
) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(TargetConfig { workers, cpus: Vec::new() }).unwrap();
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
