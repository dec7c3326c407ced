//! Admin commands (NVMe Base 2.0, 5).
//!
//! This file decides which module answers and moves the data. What the answers are stands in the modules, which know
//! neither guest memory nor threads.

mod ana_log;
mod error_log;
mod events;
mod features;
mod identify;
mod logs;
mod namespace_features;
mod notices;
mod queue_commands;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use nvmet_dma::SegmentBuf;
use nvmet_dma::memory::Direction;
use nvmet_spec::aer::{AsyncEvent, EventType};
use nvmet_spec::command::{
    AdminOpcode, DoorbellBufferConfig, GetFeaturesCdw10, GetLogPageCdw10, GetLogPageCdw11, GetLogPageCdw14,
    IdentifyCdw10, IdentifyCdw11, SetFeaturesCdw10, Sqe, get_log_page_length, get_log_page_offset,
};
use nvmet_spec::feature::FeatureId;
use nvmet_spec::log::{CriticalWarning, Lid};
use nvmet_spec::status::Status;

use self::error_log::ErrorLog;
use self::events::AsyncEvents;
use self::features::{Features, SetRequest};
use self::logs::{ChangedNamespaces, LogView};
use self::notices::ReservationNotices;
use super::admin_queue::Waiting;
use super::{Controller, ControllerLimits, Lifetime, MAX_TRANSFER};
use crate::io::dma_status;
use crate::io::execute::{Context, map_data};
use crate::queue::InvalidDoorbell;
use crate::reservation::NoticeKind;
use crate::stats::Batch;
use crate::subsystem::{Health, View};
use crate::worker::{Command, Tuning};

/// How an admin command is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With Dword 0 or an error, now.
    Now(Result<u32, Status>),
    /// When a worker has answered.
    Later(Waiting),
    /// When there is an event: Asynchronous Event Request.
    Kept,
}

/// What admin commands read and change.
pub struct AdminState {
    view: View,
    changed: ChangedNamespaces,
    features: Features,
    events: AsyncEvents,
    notices: ReservationNotices,
    /// Changes of ANA groups before the last Controller Level Reset, from which on they are counted.
    ana_before: BTreeMap<u32, u64>,
    health: Health,
    /// What was counted before this controller was made, and what no I/O queue counts.
    lifetime: Lifetime,
    error_log: ErrorLog,
    shadow: Option<DoorbellBufferConfig>,
    aborting: u32,
    next_token: u32,
    /// Lives from one Controller Level Reset to the next.
    life: Arc<()>,
    keep_alive: Option<Instant>,
    pending_deadline: Option<Instant>,
    segments: SegmentBuf,
    started: Instant,
}

impl AdminState {
    /// The state after power on.
    pub fn new(limits: &ControllerLimits, host_id: [u8; 16], view: View, lifetime: Lifetime) -> Self {
        let mut features = Features::new(limits, host_id);
        features.set_volatile_write_cache(has_volatile_write_cache(&view));
        Self {
            features,
            ana_before: view.map().ana_changes().clone(),
            view,
            changed: ChangedNamespaces::default(),
            events: AsyncEvents::new(),
            notices: ReservationNotices::default(),
            health: Health::default(),
            error_log: ErrorLog::restore(&lifetime.error_log, lifetime.errors),
            lifetime,
            shadow: None,
            aborting: 0,
            next_token: 0,
            life: Arc::default(),
            keep_alive: None,
            pending_deadline: None,
            segments: SegmentBuf::new(MAX_SEGMENTS, MAX_TRANSFER as usize),
            started: Instant::now(),
        }
    }

    /// The namespaces that the host was last told of.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Takes a new view over and notes for the host what changed.
    pub fn view_changed(&mut self, view: View) {
        let changed = self.view.changed_to(&view);
        let ana = self.view.ana_differs(&view);
        self.features.set_volatile_write_cache(has_volatile_write_cache(&view));
        self.view = view;
        let wanted = self.features.async_event_config();
        if !changed.is_empty() {
            self.changed.add(&changed);
            if wanted.namespace_attribute() {
                self.events.raise(AsyncEvent::NAMESPACE_ATTRIBUTE_CHANGED);
            }
        }
        if ana && wanted.ana_change() {
            self.events.raise(AsyncEvent::ANA_CHANGE);
        }
    }

    /// A reservation notification for the host.
    pub fn notice(&mut self, nsid: u32, kind: NoticeKind) {
        // A host learns nothing of namespaces that it does not see.
        if self.view.get(nsid).is_some() && self.notices.add(nsid, kind) {
            self.events.raise(AsyncEvent::RESERVATION_LOG_AVAILABLE);
        }
    }

    /// A client has attached.
    pub fn powered_on(&mut self) {
        self.lifetime.power_cycles += 1;
    }

    /// The client has left; `unsafely`: without a shutdown.
    pub fn powered_off(&mut self, unsafely: bool) {
        self.lifetime.unsafe_shutdowns += u64::from(unsafely);
    }

    /// What was counted over the life of the controller, with the counters of its I/O queues.
    pub fn lifetime(&self, stats: &Batch) -> Lifetime {
        let mut total = self.lifetime.clone();
        total.stats += *stats;
        total.power_on_seconds += self.started.elapsed().as_secs();
        total.errors = self.error_log.count();
        total.error_log = self.error_log.entries();
        total
    }

    /// The controller was enabled. What happened while it was disabled is nothing that its host asked to hear of.
    pub fn enabled(&mut self) {
        self.reset();
        self.restart_keep_alive();
    }

    /// What workers have to know of the features.
    pub fn tuning(&self) -> Tuning {
        self.features.tuning()
    }

    /// Controller Level Reset.
    pub fn reset(&mut self) {
        self.features.reset();
        self.events.reset();
        self.notices.reset();
        self.ana_before = self.view.map().ana_changes().clone();
        self.changed = ChangedNamespaces::default();
        self.shadow = None;
        self.aborting = 0;
        self.life = Arc::default();
        self.keep_alive = None;
        self.pending_deadline = None;
    }

    /// The shadow doorbells that the host configured.
    pub fn shadow(&self) -> Option<DoorbellBufferConfig> {
        self.shadow
    }

    /// The completion of an outstanding Asynchronous Event Request, if there is something to tell.
    pub fn next_event(&mut self) -> Option<(u16, u32)> {
        self.events.next()
    }

    /// When something has to be looked at.
    pub fn deadline(&self) -> Option<Instant> {
        [self.keep_alive, self.pending_deadline].into_iter().flatten().min()
    }

    /// Remembers the earliest deadline of a command that waits.
    pub fn set_pending_deadline(&mut self, deadline: Option<Instant>) {
        self.pending_deadline = deadline;
    }

    /// Whether the host has been silent for longer than it said (NVMe Base 2.0, 3.9).
    pub fn keep_alive_expired(&mut self, now: Instant) -> bool {
        let expired = self.keep_alive.is_some_and(|deadline| deadline <= now);
        if expired {
            self.keep_alive = None;
        }
        expired
    }

    /// Tells the host of critical warnings that are new, as far as it wants to hear of them.
    pub fn check_health(&mut self, health: Health) {
        if health != self.health {
            let before = self.critical_warning();
            self.health = health;
            self.warn(before);
        }
    }

    /// SMART / Health Information, Critical Warning.
    fn critical_warning(&self) -> CriticalWarning {
        self.health.warning().with_temperature(self.features.temperature_warning(self.health.temperature))
    }

    /// A threshold on the wrong side of the figure is crossed at once (NVMe Base 2.0, 5.27.1.3), and so is what a host
    /// wants to hear of from now on.
    fn warn(&mut self, before: CriticalWarning) {
        let wanted = self.features.async_event_config().smart_critical_warnings();
        let new =
            CriticalWarning::from_bits(self.critical_warning().into_bits() & !before.into_bits() & wanted);
        for (is_new, event) in [
            (new.temperature(), AsyncEvent::TEMPERATURE_THRESHOLD),
            (new.spare(), AsyncEvent::SPARE_BELOW_THRESHOLD),
            (new.reliability(), AsyncEvent::RELIABILITY),
        ] {
            if is_new {
                self.events.raise(event);
            }
        }
    }

    fn restart_keep_alive(&mut self) {
        let timeout = self.features.keep_alive();
        self.keep_alive = (!timeout.is_zero()).then(|| Instant::now() + timeout);
    }
}

impl Controller {
    pub(super) fn execute_admin(&mut self, sqe: &Sqe) -> Answer {
        let Ok(opcode) = AdminOpcode::try_from(sqe.opcode()) else {
            return Answer::Now(Err(Status::INVALID_OPCODE.with_dnr()));
        };
        let answer = match opcode {
            AdminOpcode::Identify => self.identify(sqe),
            AdminOpcode::GetLogPage => match Lid::try_from(GetLogPageCdw10::from_bits(sqe.cdw10).lid()) {
                Ok(Lid::SmartHealth) => return self.wait_for_counters(),
                _ => self.get_log_page(sqe),
            },
            AdminOpcode::GetFeatures => self.get_features(sqe),
            AdminOpcode::SetFeatures => return self.set_features(sqe),
            AdminOpcode::KeepAlive => {
                self.admin.restart_keep_alive();
                Ok(0)
            }
            AdminOpcode::AsyncEventRequest => match self.admin.events.request(sqe.cid()) {
                Ok(()) => return Answer::Kept,
                Err(status) => Err(status),
            },
            AdminOpcode::CreateIoCq => self.create_cq(sqe),
            AdminOpcode::CreateIoSq => self.create_sq(sqe),
            AdminOpcode::DeleteIoCq => return self.delete_cq(sqe),
            AdminOpcode::DeleteIoSq => return self.delete_sq(sqe),
            AdminOpcode::Abort => return self.abort(sqe),
            AdminOpcode::DoorbellBufferConfig => return self.doorbell_buffer_config(sqe),
            _ => Err(Status::INVALID_OPCODE.with_dnr()),
        };
        Answer::Now(answer)
    }

    fn identify(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let (cdw10, cdw11) = (IdentifyCdw10::from_bits(sqe.cdw10), IdentifyCdw11::from_bits(sqe.cdw11));
        let view = identify::View {
            subsystem: &self.subsystem,
            namespaces: &self.admin.view,
            cntlid: self.cntlid,
            limits: &self.limits,
            vid: self.pci_ids.0,
            ssvid: self.pci_ids.1,
            vwc: has_volatile_write_cache(&self.admin.view),
        };
        let data = identify::identify(&view, cdw10.cns(), cdw10.cntid(), cdw11.csi(), sqe.nsid)?;
        self.write_data(sqe, data.as_slice())?;
        Ok(0)
    }

    /// What a host has seen completed has to be counted in what it reads.
    fn wait_for_counters(&self) -> Answer {
        for worker in self.pool.iter() {
            worker.send(Command::Count { key: self.link.key });
        }
        Answer::Later(Waiting::Counted(self.pool.iter().len()))
    }

    pub(super) fn get_log_page(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let (cdw10, cdw11) = (GetLogPageCdw10::from_bits(sqe.cdw10), GetLogPageCdw11::from_bits(sqe.cdw11));
        if GetLogPageCdw14::from_bits(sqe.cdw14).ot() {
            // No log page has an index (Identify Controller LPA).
            return Err(Status::INVALID_FIELD.with_dnr());
        }
        self.gather_failures();
        let admin = &self.admin;
        let lifetime = admin.lifetime(&self.link.stats.read());
        let view = LogView {
            lifetime: &lifetime,
            namespaces: &admin.view,
            ana_before: &admin.ana_before,
            health: &admin.health,
            warning: admin.critical_warning(),
            error_log: &admin.error_log,
            features: &admin.features,
            changed: &admin.changed,
            notices: &admin.notices,
            firmware: &self.subsystem.config().firmware,
        };
        let page = logs::log_page(&view, cdw10.lid(), cdw10.lsp(), sqe.nsid)?;
        let offset = get_log_page_offset(sqe.cdw12, sqe.cdw13);
        let wanted = get_log_page_length(cdw10, cdw11);
        // An offset beyond the page is an error, and has to be a dword's (NVMe Base 2.0, 5.16.1).
        let rest = usize::try_from(offset).ok().and_then(|offset| page.get(offset..));
        let Some(rest) = rest.filter(|_| offset.is_multiple_of(4)) else {
            return Err(Status::INVALID_FIELD.with_dnr());
        };
        let wanted = usize::try_from(wanted).ok().filter(|&wanted| wanted as u64 <= MAX_TRANSFER);
        let wanted = wanted.ok_or(Status::INVALID_FIELD.with_dnr())?;
        // What is asked for beyond the end of the page reads 0.
        let mut data = vec![0; wanted];
        let there = rest.len().min(wanted);
        data[..there].copy_from_slice(&rest[..there]);
        self.write_data(sqe, &data)?;
        if !cdw10.rae() {
            self.admin.log_was_read(cdw10.lid());
        }
        Ok(0)
    }

    fn get_features(&mut self, sqe: &Sqe) -> Result<u32, Status> {
        let cdw10 = GetFeaturesCdw10::from_bits(sqe.cdw10);
        if let Some(fid) = namespace_features::one_of_them(cdw10.fid()) {
            return self.get_namespace_feature(fid, cdw10.sel(), sqe.nsid);
        }
        let features = &self.admin.features;
        let value = features.get(cdw10.fid(), cdw10.sel(), sqe.cdw11, sqe.nsid, SystemTime::now())?;
        if !value.data.is_empty() {
            self.write_data(sqe, &value.data)?;
        }
        Ok(value.dw0)
    }

    fn set_features(&mut self, sqe: &Sqe) -> Answer {
        let cdw10 = SetFeaturesCdw10::from_bits(sqe.cdw10);
        match namespace_features::one_of_them(cdw10.fid()) {
            Some(_) if cdw10.sv() => Answer::Now(Err(Status::FEATURE_NOT_SAVEABLE.with_dnr())),
            Some(fid) => self.set_namespace_feature(fid, sqe.nsid, sqe.cdw11),
            None => Answer::Now(self.set_controller_feature(sqe, cdw10)),
        }
    }

    fn set_controller_feature(&mut self, sqe: &Sqe, cdw10: SetFeaturesCdw10) -> Result<u32, Status> {
        let mut data = vec![0; Features::data_len(cdw10.fid(), sqe.cdw11)];
        if !data.is_empty() {
            self.read_data(sqe, &mut data)?;
        }
        let request = SetRequest {
            fid: cdw10.fid(),
            save: cdw10.sv(),
            nsid: sqe.nsid,
            cdw11: sqe.cdw11,
            data: &data,
            queues_exist: !self.queues.is_empty(),
        };
        let dw0 = self.admin.features.set(request, SystemTime::now())?;
        match FeatureId::try_from(cdw10.fid()) {
            Ok(FeatureId::KeepAliveTimer) => self.admin.restart_keep_alive(),
            Ok(FeatureId::TemperatureThreshold | FeatureId::AsyncEventConfig) => {
                self.admin.warn(CriticalWarning::new());
            }
            Ok(
                FeatureId::Arbitration | FeatureId::InterruptCoalescing | FeatureId::InterruptVectorConfig,
            ) => self.tune_workers(),
            _ => {}
        }
        Ok(dw0)
    }

    /// Tells every worker what the features are that it applies.
    pub(super) fn tune_workers(&self) {
        let (key, tuning) = (self.link.key, self.admin.tuning());
        for worker in self.pool.iter() {
            worker.send(Command::Tune { key, tuning });
        }
    }

    /// Copies `data` to where the command's PRPs point.
    fn write_data(&mut self, sqe: &Sqe, data: &[u8]) -> Result<(), Status> {
        let mut context =
            admin_context(&mut self.reader, &mut self.admin.segments, self.registers.cc.page_size());
        let segments = map_data(sqe, &mut context, data.len() as u64, Direction::ToGuest)?;
        segments.write_from(0, data).map_err(|error| dma_status(&error))
    }

    /// Copies what the command's PRPs point to, once.
    fn read_data(&mut self, sqe: &Sqe, data: &mut [u8]) -> Result<(), Status> {
        let mut context =
            admin_context(&mut self.reader, &mut self.admin.segments, self.registers.cc.page_size());
        let segments = map_data(sqe, &mut context, data.len() as u64, Direction::FromGuest)?;
        segments.read_to(0, data).map_err(|error| dma_status(&error))
    }

    /// Takes the failures that workers noted into the Error Information log.
    pub(super) fn gather_failures(&mut self) {
        let (failures, dropped) = self.link.take_failures();
        self.admin.error_log.add_dropped(dropped);
        for failure in failures {
            self.admin.error_log.add(&failure);
        }
    }

    /// Error log entry and asynchronous event for a doorbell written with nonsense (NVMe Base 2.0, 5.2; 5.16.1.2).
    pub(super) fn invalid_doorbell(&mut self, invalid: InvalidDoorbell) {
        self.gather_failures();
        self.admin.error_log.add_doorbell(invalid);
        self.admin.events.raise(match invalid {
            InvalidDoorbell::Register { .. } => AsyncEvent::INVALID_DOORBELL_REGISTER,
            InvalidDoorbell::Value { .. } => AsyncEvent::INVALID_DOORBELL_VALUE,
        });
    }
}

impl AdminState {
    /// The host has read a log page and lets its events come again.
    fn log_was_read(&mut self, lid: u8) {
        match Lid::try_from(lid) {
            Ok(Lid::ErrorInformation) => self.events.clear(EventType::Error),
            Ok(Lid::SmartHealth) => self.events.clear(EventType::SmartHealth),
            Ok(Lid::ChangedNamespaceList) => {
                self.changed = ChangedNamespaces::default();
                self.events.clear(EventType::Notice);
            }
            Ok(Lid::AsymmetricNamespaceAccess) => self.events.clear(EventType::Notice),
            Ok(Lid::ReservationNotification) => {
                self.events.clear(EventType::IoCommandSet);
                if self.notices.read() {
                    self.events.raise(AsyncEvent::RESERVATION_LOG_AVAILABLE);
                }
            }
            _ => {}
        }
    }
}

/// Identify Controller VWC, and whether there is a feature of this name.
fn has_volatile_write_cache(view: &View) -> bool {
    view.iter().any(|seen| seen.namespace().features().volatile_write_cache)
}

/// Segments that the data of one admin command may have: a page list for the largest log page.
const MAX_SEGMENTS: usize = 1024;

fn admin_context<'a>(
    reader: &'a mut nvmet_dma::DmaReader,
    segments: &'a mut SegmentBuf,
    page_size: u32,
) -> Context<'a> {
    Context {
        snapshot: reader.snapshot(),
        segments,
        page_size: u64::from(page_size),
        max_transfer: MAX_TRANSFER,
    }
}
