//! Log pages (NVMe Base 2.0, 5.16).
//!
//! Builds whole pages; the caller cuts out what the host asked for. May know counters, features and what the host sees of
//! namespaces; must not know memory or queues.

use std::collections::{BTreeMap, BTreeSet};

use nvmet_spec::command::{AdminOpcode, NSID_ALL, NvmOpcode};
use nvmet_spec::identify::ascii_field;
use nvmet_spec::log::{
    ActiveFirmwareInfo, ChangedNamespaceList, CommandEffect, CommandEffects, CriticalWarning, EffectsScope,
    FeatureEffect, FeatureEffects, FirmwareSlot, Lid, LidEffects, SmartHealth, SupportedLogPages,
};
use nvmet_spec::status::Status;
use zerocopy::IntoBytes;

use super::super::Lifetime;
use super::ana_log;
use super::error_log::ErrorLog;
use super::features::{Features, is_namespace_specific};
use super::notices::ReservationNotices;
use crate::namespace::MAX_NAMESPACES;
use crate::subsystem::{Health, View};

/// The log pages that there are.
const SUPPORTED: [Lid; 10] = [
    Lid::SupportedLogPages,
    Lid::ErrorInformation,
    Lid::SmartHealth,
    Lid::FirmwareSlot,
    Lid::ChangedNamespaceList,
    Lid::CommandEffects,
    Lid::AsymmetricNamespaceAccess,
    Lid::FeatureEffects,
    Lid::MiCommandEffects,
    Lid::ReservationNotification,
];

/// The Admin commands that are carried out.
const ADMIN_COMMANDS: [AdminOpcode; 12] = [
    AdminOpcode::DeleteIoSq,
    AdminOpcode::CreateIoSq,
    AdminOpcode::GetLogPage,
    AdminOpcode::DeleteIoCq,
    AdminOpcode::CreateIoCq,
    AdminOpcode::Identify,
    AdminOpcode::Abort,
    AdminOpcode::SetFeatures,
    AdminOpcode::GetFeatures,
    AdminOpcode::AsyncEventRequest,
    AdminOpcode::KeepAlive,
    AdminOpcode::DoorbellBufferConfig,
];

/// The I/O commands that are carried out, and whether they change logical blocks.
const IO_COMMANDS: [(NvmOpcode, bool); 10] = [
    (NvmOpcode::Flush, false),
    (NvmOpcode::Write, true),
    (NvmOpcode::Read, false),
    (NvmOpcode::Compare, false),
    (NvmOpcode::WriteZeroes, true),
    (NvmOpcode::DatasetManagement, true),
    (NvmOpcode::ReservationRegister, false),
    (NvmOpcode::ReservationReport, false),
    (NvmOpcode::ReservationAcquire, false),
    (NvmOpcode::ReservationRelease, false),
];

/// What log pages tell of.
#[derive(Debug)]
pub struct LogView<'a> {
    /// Counters over the controller's life.
    pub lifetime: &'a Lifetime,
    /// What the host sees.
    pub namespaces: &'a View,
    /// Changes of ANA groups before the last reset, by group.
    pub ana_before: &'a BTreeMap<u32, u64>,
    /// Figures that the operator sets.
    pub health: &'a Health,
    /// Critical Warning.
    pub warning: CriticalWarning,
    /// Errors.
    pub error_log: &'a ErrorLog,
    /// Namespaces that changed and that the host has not read of.
    pub changed: &'a ChangedNamespaces,
    /// Reservation notifications that the host has not read.
    pub notices: &'a ReservationNotices,
    /// Features.
    pub features: &'a Features,
    /// Firmware revision: at most 8 characters of ASCII.
    pub firmware: &'a str,
}

/// The Changed Namespace List, 5.16.1.5.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedNamespaces(BTreeSet<u32>);

impl ChangedNamespaces {
    /// Notes namespaces that came, went or changed.
    pub fn add(&mut self, nsids: &[u32]) {
        self.0.extend(nsids);
    }

    /// The log page: ascending NSIDs, or FFFFFFFFh alone if there are more than it can hold.
    fn page(&self) -> ChangedNamespaceList {
        let mut page = ChangedNamespaceList::default();
        if self.0.len() > page.nsids.len() {
            page.nsids[0] = NSID_ALL;
        } else {
            page.nsids.iter_mut().zip(&self.0).for_each(|(entry, &nsid)| *entry = nsid);
        }
        page
    }
}

/// A whole log page.
///
/// # Errors
///
/// Invalid Log Page for one that is not supported; Invalid Field, or Invalid Namespace or Format, for the SMART / Health
/// Information of a namespace that the host does not see.
pub fn log_page(view: &LogView<'_>, lid: u8, lsp: u8, nsid: u32) -> Result<Vec<u8>, Status> {
    let lid = Lid::try_from(lid).map_err(|_| Status::INVALID_LOG_PAGE.with_dnr())?;
    Ok(match lid {
        Lid::SupportedLogPages => supported_log_pages().as_bytes().to_vec(),
        Lid::ErrorInformation => view.error_log.page(),
        Lid::SmartHealth => smart_health(view, nsid)?.as_bytes().to_vec(),
        Lid::FirmwareSlot => firmware_slot(view.firmware).as_bytes().to_vec(),
        Lid::ChangedNamespaceList => view.changed.page().as_bytes().to_vec(),
        Lid::CommandEffects => command_effects().as_bytes().to_vec(),
        Lid::AsymmetricNamespaceAccess => {
            ana_log::page(view.namespaces, view.ana_before, lsp & ana_log::GROUPS_ONLY != 0)
        }
        Lid::ReservationNotification => view.notices.page().as_bytes().to_vec(),
        Lid::FeatureEffects => feature_effects(view.features).as_bytes().to_vec(),
        // There is no NVMe-MI, so none of its commands is supported.
        Lid::MiCommandEffects => vec![0; 4096],
        _ => return Err(Status::INVALID_LOG_PAGE.with_dnr()),
    })
}

/// Supported Log Pages, 5.16.1.1. No page has index offsets or specific parameters (IOS, LIDSP).
fn supported_log_pages() -> SupportedLogPages {
    let mut page = SupportedLogPages::default();
    for lid in SUPPORTED {
        page.lids[usize::from(u8::from(lid))] = LidEffects::new().with_lsupp(true);
    }
    page
}

/// Commands Supported and Effects, 5.16.1.6.
///
/// No scope is given: Linux takes any bit of an I/O command besides CSUPP and LBCC for unusual and warns.
fn command_effects() -> CommandEffects {
    let mut page = CommandEffects::default();
    for opcode in ADMIN_COMMANDS {
        page.acs[usize::from(u8::from(opcode))] = CommandEffect::new().with_csupp(true);
    }
    for (opcode, writes) in IO_COMMANDS {
        page.iocs[usize::from(u8::from(opcode))] = CommandEffect::new().with_csupp(true).with_lbcc(writes);
    }
    page
}

/// Feature Identifiers Supported and Effects.
fn feature_effects(features: &Features) -> FeatureEffects {
    let mut page = FeatureEffects::default();
    for fid in features.supported() {
        let namespace = is_namespace_specific(fid);
        let scope = EffectsScope::new().with_namespace(namespace).with_controller(!namespace);
        page.fids[usize::from(u8::from(fid))] = FeatureEffect::new().with_fsupp(true).with_fsp(scope);
    }
    page
}

/// SMART / Health Information, 5.16.1.3. The counters of commands are those of the namespace, if it is one's page
/// (Identify Controller LPA bit 0), over all controllers; all else is the controller's.
fn smart_health(view: &LogView<'_>, nsid: u32) -> Result<SmartHealth, Status> {
    let data_units = |bytes: u64| bytes.div_ceil(512 * 1000).into();
    let life = view.lifetime;
    let stats = match nsid {
        0 | NSID_ALL => life.stats,
        1..=MAX_NAMESPACES => match view.namespaces.get(nsid) {
            Some(seen) => seen.namespace().stats().read(),
            None => return Err(Status::INVALID_FIELD.with_dnr()),
        },
        _ => return Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr()),
    };
    Ok(SmartHealth {
        critical_warning: view.warning,
        composite_temperature: view.health.temperature.to_le_bytes(),
        available_spare: view.health.spare,
        available_spare_threshold: view.health.spare_threshold,
        percentage_used: view.health.percentage_used,
        data_units_read: data_units(stats.bytes_read),
        data_units_written: data_units(stats.bytes_written),
        host_read_commands: stats.reads.into(),
        host_write_commands: stats.writes.into(),
        power_cycles: life.power_cycles.into(),
        power_on_hours: (life.power_on_seconds / 3600).into(),
        unsafe_shutdowns: life.unsafe_shutdowns.into(),
        media_errors: stats.media_errors.into(),
        error_log_entries: life.errors.into(),
        ..SmartHealth::default()
    })
}

/// Firmware Slot Information, 5.16.1.4: slot 1 is active and the only one.
fn firmware_slot(firmware: &str) -> FirmwareSlot {
    let mut page = FirmwareSlot { afi: ActiveFirmwareInfo::new().with_active(1), ..FirmwareSlot::default() };
    // The subsystem has checked that it is printable and fits.
    page.frs[0] = ascii_field(firmware).unwrap_or([b' '; 8]);
    page
}

#[cfg(test)]
mod tests;
