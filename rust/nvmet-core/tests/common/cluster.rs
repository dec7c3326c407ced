//! One subsystem that several hosts reach, each by controllers and queues of its own, and commands as they send them.

use std::path::PathBuf;
use std::sync::Arc;

use nvmet_core::namespace::NamespaceConfig;
use nvmet_core::subsystem::{Subsystem, SubsystemConfig};
use nvmet_core::target::{ControllerConfig, ControllerId, Listen, Target};
use nvmet_host::{SqeExt, read_write};
use nvmet_spec::command::{
    AdminOpcode, Cqe, GetFeaturesCdw10, GetLogPageCdw10, IdentifyCdw10, NvmOpcode, SetFeaturesCdw10, Sqe,
};
use nvmet_spec::feature::FeatureId;
use nvmet_spec::reservation::{
    AcquireAction, AcquireCdw10, ChangePtpl, RegisterAction, RegisterCdw10, ReleaseAction, ReleaseCdw10,
    ReportCdw11, ReservationType,
};
use nvmet_spec::status::Status;

use super::guest::{DATA, Guest, IOVA, Ring};
use super::{subsystem_config, workers_as_wanted};

/// Where the data of admin commands is.
const ADMIN_DATA: u64 = DATA + (8 << 20);
/// Where the keys of reservation commands are, each in a place of its own.
const KEYS: u64 = DATA + (9 << 20);

pub struct Cluster {
    pub target: Target,
    pub subsystem: Arc<Subsystem>,
    pub ids: Vec<ControllerId>,
    pub sockets: Vec<PathBuf>,
    pub directory: tempfile::TempDir,
}

/// The NQN of host number `host`.
pub fn hostnqn(host: u8) -> String {
    format!("nqn.2014-08.org.nvmexpress:host{host}")
}

/// The Host Identifier of host number `host`.
pub fn hostid(host: u8) -> [u8; 16] {
    [host; 16]
}

impl Cluster {
    /// A controller for each of `hosts`, by number; one that is named twice has two.
    pub fn new(workers: u16, namespaces: Vec<NamespaceConfig>, hosts: &[u8]) -> Self {
        let mut cluster = Self::empty(workers, subsystem_config("CLUSTER"), namespaces);
        for &host in hosts {
            cluster.listen(host, |_| {});
        }
        cluster
    }

    pub fn empty(workers: u16, config: SubsystemConfig, namespaces: Vec<NamespaceConfig>) -> Self {
        let target = Target::start(workers_as_wanted(workers)).unwrap();
        let subsystem = target.add_subsystem(config).unwrap();
        for namespace in namespaces {
            subsystem.add_namespace(namespace).unwrap();
        }
        let directory = tempfile::tempdir().unwrap();
        Self { target, subsystem, ids: Vec::new(), sockets: Vec::new(), directory }
    }

    /// One more controller, of a host by its number; returns its index.
    pub fn listen(&mut self, host: u8, change: impl FnOnce(&mut ControllerConfig)) -> usize {
        let socket = self.directory.path().join(format!("{}.sock", self.sockets.len()));
        let mut config = ControllerConfig::new(Listen::Path(socket.clone()));
        (config.hostnqn, config.hostid) = (Some(hostnqn(host)), Some(hostid(host)));
        change(&mut config);
        self.ids.push(self.target.listen(&self.subsystem, config).unwrap());
        self.sockets.push(socket);
        self.ids.len() - 1
    }

    /// A guest on a controller, by its index, with one I/O queue pair.
    pub fn attach(&self, at: usize) -> Host {
        Host::new(Guest::connect(&self.sockets[at]))
    }

    pub fn attach_all(&self) -> Vec<Host> {
        (0..self.ids.len()).map(|at| self.attach(at)).collect()
    }
}

/// A guest with a queue pair.
pub struct Host {
    pub guest: Guest,
    pub ring: Ring,
    cid: u16,
    /// Where the next keys go.
    slot: u64,
    /// Completions that nobody has asked for yet.
    done: Vec<Cqe>,
}

impl Host {
    /// Enables the controller.
    pub fn new(mut guest: Guest) -> Self {
        guest.enable();
        let ring = guest.create_pair(1);
        Self { guest, ring, cid: 0, slot: 0, done: Vec::new() }
    }

    /// Controller reset, and enabled again.
    pub fn restart(&mut self) {
        self.guest.disable();
        self.guest.enable();
        self.ring = self.guest.create_pair(1);
        self.done.clear();
    }

    /// Puts an I/O command into the ring with an identifier of its own, which is returned.
    pub fn push(&mut self, mut sqe: Sqe) -> u16 {
        self.cid = (self.cid + 1) % 0x1000;
        sqe.cdw0.set_cid(self.cid);
        self.guest.push(&mut self.ring, &sqe);
        self.cid
    }

    pub fn ring(&mut self) {
        self.guest.ring_tail(&self.ring);
    }

    pub fn submit(&mut self, sqe: Sqe) -> u16 {
        let cid = self.push(sqe);
        self.ring();
        cid
    }

    /// The status of a command that was submitted.
    pub fn wait(&mut self, cid: u16) -> Status {
        loop {
            if let Some(at) = self.done.iter().position(|cqe| cqe.cid == cid) {
                return self.done.swap_remove(at).status();
            }
            let cqe = self.guest.wait(&mut self.ring);
            self.done.push(cqe);
        }
    }

    /// Whether a command has completed by now.
    pub fn poll(&mut self, cid: u16) -> Option<Status> {
        while let Some(cqe) = self.guest.take(&mut self.ring) {
            self.done.push(cqe);
        }
        let at = self.done.iter().position(|cqe| cqe.cid == cid)?;
        Some(self.done.swap_remove(at).status())
    }

    pub fn io(&mut self, sqe: Sqe) -> Status {
        let cid = self.submit(sqe);
        self.wait(cid)
    }

    #[track_caller]
    pub fn ok(&mut self, sqe: Sqe) {
        let status = self.io(sqe);
        assert!(status.is_success(), "opcode {:#x}: {status}", sqe.opcode());
    }

    #[track_caller]
    pub fn refused(&mut self, sqe: Sqe, wanted: Status) {
        let status = self.io(sqe);
        assert!(status.is(wanted), "opcode {:#x}: {status} and not {wanted}", sqe.opcode());
    }

    /// Puts two numbers where a command may have them, which no other one uses for long; returns where that is.
    pub fn keys(&mut self, first: u64, second: u64) -> u64 {
        self.slot = (self.slot + 1) % 0x4000;
        let at = KEYS + self.slot * 64 + 8;
        let bytes = [first.to_le_bytes(), second.to_le_bytes()].concat();
        self.guest.memory.write_bytes(at as usize, &bytes).unwrap();
        IOVA + at
    }

    pub fn register(&mut self, nsid: u32, action: RegisterAction, crkey: u64, nrkey: u64) -> Sqe {
        self.register_ptpl(nsid, action, crkey, nrkey, ChangePtpl::NoChange)
    }

    pub fn register_ptpl(
        &mut self,
        nsid: u32,
        action: RegisterAction,
        crkey: u64,
        nrkey: u64,
        cptpl: ChangePtpl,
    ) -> Sqe {
        let cdw10 = RegisterCdw10::new().with_rrega(action).with_cptpl(cptpl);
        let mut sqe = Sqe::new(NvmOpcode::ReservationRegister, 0, nsid).with_cdw10(cdw10.into_bits());
        sqe.prp1 = self.keys(crkey, nrkey);
        sqe
    }

    pub fn acquire(
        &mut self,
        nsid: u32,
        action: AcquireAction,
        rtype: ReservationType,
        crkey: u64,
        prkey: u64,
    ) -> Sqe {
        let cdw10 = AcquireCdw10::new().with_racqa(action).with_rtype(rtype).into_bits();
        let mut sqe = Sqe::new(NvmOpcode::ReservationAcquire, 0, nsid).with_cdw10(cdw10);
        sqe.prp1 = self.keys(crkey, prkey);
        sqe
    }

    pub fn release(&mut self, nsid: u32, action: ReleaseAction, rtype: ReservationType, crkey: u64) -> Sqe {
        let cdw10 = ReleaseCdw10::new().with_rrela(action).with_rtype(rtype).into_bits();
        let mut sqe = Sqe::new(NvmOpcode::ReservationRelease, 0, nsid).with_cdw10(cdw10);
        sqe.prp1 = self.keys(crkey, 0);
        sqe
    }

    /// Registers a key.
    #[track_caller]
    pub fn join(&mut self, nsid: u32, key: u64) {
        let sqe = self.register(nsid, RegisterAction::Register, 0, key);
        self.ok(sqe);
    }

    /// Acquires a reservation.
    #[track_caller]
    pub fn take(&mut self, nsid: u32, rtype: ReservationType, key: u64) {
        let sqe = self.acquire(nsid, AcquireAction::Acquire, rtype, key, 0);
        self.ok(sqe);
    }

    /// A Reservation Report of so many dwords (one-based) to [`DATA`].
    pub fn report_sqe(nsid: u32, extended: bool, dwords: u32) -> Sqe {
        let mut sqe = Sqe::new(NvmOpcode::ReservationReport, 0, nsid)
            .with_cdw10(dwords - 1)
            .with_cdw11(ReportCdw11::new().with_eds(extended).into_bits());
        sqe.prp1 = IOVA + DATA;
        sqe
    }

    /// The extended Reservation Status data structure.
    #[track_caller]
    pub fn report(&mut self, nsid: u32) -> Report {
        self.ok(Self::report_sqe(nsid, true, 1024));
        Report::read(&self.data(DATA, 4096))
    }

    pub fn data(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.guest.memory.read_bytes(at as usize, &mut bytes).unwrap();
        bytes
    }

    pub fn get_feature(&mut self, fid: FeatureId, nsid: u32) -> Cqe {
        let cdw10 = GetFeaturesCdw10::new().with_fid(fid.into()).into_bits();
        self.guest.call(Sqe::new(AdminOpcode::GetFeatures, 0, nsid).with_cdw10(cdw10))
    }

    pub fn set_feature_sqe(fid: FeatureId, nsid: u32, value: u32) -> Sqe {
        let cdw10 = SetFeaturesCdw10::new().with_fid(fid.into()).into_bits();
        Sqe::new(AdminOpcode::SetFeatures, 0, nsid).with_cdw10(cdw10).with_cdw11(value)
    }

    pub fn set_feature(&mut self, fid: FeatureId, nsid: u32, value: u32) -> Status {
        self.guest.call(Self::set_feature_sqe(fid, nsid, value)).status()
    }

    pub fn log_sqe(lid: u8, lsp: u8, nsid: u32, offset: u64, len: usize, rae: bool) -> Sqe {
        let cdw10 = GetLogPageCdw10::new()
            .with_lid(lid)
            .with_lsp(lsp)
            .with_rae(rae)
            .with_numdl((len / 4 - 1) as u16)
            .into_bits();
        let mut sqe = Sqe::new(AdminOpcode::GetLogPage, 0, nsid).with_cdw10(cdw10);
        (sqe.cdw12, sqe.cdw13) = (offset as u32, (offset >> 32) as u32);
        sqe.prp1 = IOVA + ADMIN_DATA;
        sqe
    }

    /// A log page, from its beginning, which clears its events.
    #[track_caller]
    pub fn log(&mut self, lid: u8, nsid: u32, len: usize) -> Vec<u8> {
        self.guest.ok(Self::log_sqe(lid, 0, nsid, 0, len, false));
        self.data(ADMIN_DATA, len)
    }

    #[track_caller]
    pub fn log_at(&mut self, lid: u8, lsp: u8, offset: u64, len: usize) -> Vec<u8> {
        self.guest.ok(Self::log_sqe(lid, lsp, 0, offset, len, true));
        self.data(ADMIN_DATA, len)
    }

    #[track_caller]
    pub fn identify(&mut self, cns: u8, nsid: u32) -> Vec<u8> {
        let mut sqe = Sqe::new(AdminOpcode::Identify, 0, nsid)
            .with_cdw10(IdentifyCdw10::new().with_cns(cns).into_bits());
        sqe.prp1 = IOVA + ADMIN_DATA;
        self.guest.ok(sqe);
        self.data(ADMIN_DATA, 4096)
    }

    /// An Asynchronous Event Request.
    pub fn event_request(&mut self) -> u16 {
        self.guest.submit_admin(Sqe::new(AdminOpcode::AsyncEventRequest, 0, 0))
    }

    /// Dword 0 of an event: type, information, log page.
    pub fn event(&mut self, cid: u16) -> (u8, u8, u8) {
        let cqe = self.guest.wait_admin(cid);
        assert!(cqe.status().is_success(), "{}", cqe.status());
        let [event_type, information, log_page, _] = cqe.dw0.to_le_bytes();
        (event_type & 7, information, log_page)
    }

    /// Whether nothing has come for an event request, once the control thread has done all that it was told.
    #[track_caller]
    pub fn assert_no_event(&mut self, cid: u16) {
        self.guest.assert_alive();
        let cqe = self.guest.poll_admin(cid);
        assert!(cqe.is_none(), "{cqe:?}");
    }

    /// Wants to hear of everything.
    pub fn listen(&mut self) {
        let status = self.set_feature(FeatureId::AsyncEventConfig, 0, 1 << 8 | 1 << 11 | 0x1f);
        assert!(status.is_success(), "{status}");
    }
}

/// A Reservation Status data structure with extended entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub generation: u32,
    pub rtype: u8,
    pub ptpls: u8,
    /// Controller, holder, key, first byte of the host identifier.
    pub controllers: Vec<(u16, bool, u64, u8)>,
}

impl Report {
    pub fn read(bytes: &[u8]) -> Self {
        let count = u16::from_le_bytes([bytes[5], bytes[6]]);
        let entry = |at: usize| {
            let entry = &bytes[64 + at * 64..][..64];
            let cntlid = u16::from_le_bytes([entry[0], entry[1]]);
            (cntlid, entry[2] & 1 == 1, u64::from_le_bytes(entry[8..16].try_into().unwrap()), entry[16])
        };
        Self {
            generation: u32::from_le_bytes(bytes[..4].try_into().unwrap()),
            rtype: bytes[4],
            ptpls: bytes[9],
            controllers: (0..usize::from(count)).map(entry).collect(),
        }
    }

    /// The hosts that are registered, each as often as it has controllers.
    pub fn hosts(&self) -> Vec<u8> {
        self.controllers.iter().map(|controller| controller.3).collect()
    }
}

/// A Read or Write of one block from or to [`DATA`].
pub fn block(opcode: NvmOpcode, nsid: u32, slba: u64) -> Sqe {
    let mut sqe = read_write(opcode, nsid, slba, 1);
    sqe.prp1 = IOVA + DATA;
    sqe
}

/// A Flush.
pub fn flush(nsid: u32) -> Sqe {
    Sqe::new(NvmOpcode::Flush, 0, nsid)
}
