//! Log pages (NVMe Base 2.0, 5.16).
//!
//! Builds whole pages; the caller cuts out what the host asked for. May know counters and features, must not know
//! memory or queues.

use std::collections::BTreeSet;
use std::time::Duration;

use nvmet_spec::command::{AdminOpcode, NSID_ALL, NvmOpcode};
use nvmet_spec::status::Status;

use super::error_log::ErrorLog;
use super::features::{Features, TEMPERATURE, is_namespace_specific};
use super::identify::put_ascii;
use crate::stats::Batch;

/// Log Page Identifiers, Figure 202.
pub mod lid {
    /// Supported Log Pages.
    pub const SUPPORTED_LOG_PAGES: u8 = 0x00;
    /// Error Information.
    pub const ERROR_INFORMATION: u8 = 0x01;
    /// SMART / Health Information.
    pub const SMART_HEALTH: u8 = 0x02;
    /// Firmware Slot Information.
    pub const FIRMWARE_SLOT: u8 = 0x03;
    /// Changed Namespace List.
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    /// Commands Supported and Effects.
    pub const COMMAND_EFFECTS: u8 = 0x05;
    /// Feature Identifiers Supported and Effects.
    pub const FEATURE_EFFECTS: u8 = 0x12;
    /// NVMe-MI Commands Supported and Effects.
    pub const MI_COMMAND_EFFECTS: u8 = 0x13;
}

/// The log pages that there are.
const SUPPORTED: [u8; 8] = [
    lid::SUPPORTED_LOG_PAGES,
    lid::ERROR_INFORMATION,
    lid::SMART_HEALTH,
    lid::FIRMWARE_SLOT,
    lid::CHANGED_NAMESPACES,
    lid::COMMAND_EFFECTS,
    lid::FEATURE_EFFECTS,
    lid::MI_COMMAND_EFFECTS,
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
const IO_COMMANDS: [(NvmOpcode, bool); 6] = [
    (NvmOpcode::Flush, false),
    (NvmOpcode::Write, true),
    (NvmOpcode::Read, false),
    (NvmOpcode::Compare, false),
    (NvmOpcode::WriteZeroes, true),
    (NvmOpcode::DatasetManagement, true),
];

/// What log pages tell of.
#[derive(Debug)]
pub struct LogView<'a> {
    /// Counters of the I/O queues.
    pub stats: &'a Batch,
    /// Errors.
    pub error_log: &'a ErrorLog,
    /// Namespaces that changed and that the host has not read of.
    pub changed: &'a ChangedNamespaces,
    /// Features.
    pub features: &'a Features,
    /// Since the controller was made.
    pub uptime: Duration,
    /// Firmware revision: at most 8 characters of ASCII.
    pub firmware: &'a str,
}

/// The Changed Namespace List, 5.16.1.5.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedNamespaces(BTreeSet<u32>);

impl ChangedNamespaces {
    /// Entries of the log page.
    const ENTRIES: usize = 1024;

    /// Notes namespaces that came, went or changed.
    pub fn add(&mut self, nsids: &[u32]) {
        self.0.extend(nsids);
    }

    /// The log page: ascending NSIDs, or FFFFFFFFh if there are more than it can hold.
    fn page(&self) -> Vec<u8> {
        let mut page = if self.0.len() > Self::ENTRIES {
            NSID_ALL.to_le_bytes().to_vec()
        } else {
            self.0.iter().flat_map(|nsid| nsid.to_le_bytes()).collect()
        };
        page.resize(Self::ENTRIES * 4, 0);
        page
    }
}

/// A whole log page.
///
/// # Errors
///
/// Invalid Log Page for one that is not supported, Invalid Field for the SMART / Health Information of a namespace.
pub fn log_page(view: &LogView<'_>, lid: u8, nsid: u32) -> Result<Vec<u8>, Status> {
    Ok(match lid {
        lid::SUPPORTED_LOG_PAGES => supported_log_pages(),
        lid::ERROR_INFORMATION => view.error_log.page(),
        // Identify Controller LPA bit 0: there is none for a single namespace.
        lid::SMART_HEALTH if !matches!(nsid, 0 | NSID_ALL) => return Err(Status::INVALID_FIELD.with_dnr()),
        lid::SMART_HEALTH => smart_health(view),
        lid::FIRMWARE_SLOT => firmware_slot(view.firmware),
        lid::CHANGED_NAMESPACES => view.changed.page(),
        lid::COMMAND_EFFECTS => command_effects(),
        lid::FEATURE_EFFECTS => feature_effects(view.features),
        // There is no NVMe-MI, so no command of its is supported (5.16.1.20).
        lid::MI_COMMAND_EFFECTS => vec![0; 4096],
        _ => return Err(Status::INVALID_LOG_PAGE.with_dnr()),
    })
}

/// Bit 0 of an entry of the three pages that list what is supported: LSUPP, CSUPP, FSUPP.
const IS_SUPPORTED: u32 = 1;
/// LBCC, bit 1 of a Commands Supported and Effects entry: may change logical block content.
const CHANGES_BLOCKS: u32 = 1 << 1;

/// A page of dwords of which some are not 0.
fn dwords(size: usize, entries: impl IntoIterator<Item = (usize, u32)>) -> Vec<u8> {
    let mut page = vec![0; size];
    for (index, value) in entries {
        page[index * 4..][..4].copy_from_slice(&value.to_le_bytes());
    }
    page
}

/// Supported Log Pages, 5.16.1.1. No page has an index offset or specific parameters (IOS, LIDSP).
fn supported_log_pages() -> Vec<u8> {
    dwords(1024, SUPPORTED.map(|lid| (usize::from(lid), IS_SUPPORTED)))
}

/// Commands Supported and Effects, 5.16.1.6: dwords by opcode, of Admin and then of I/O commands.
///
/// No scope is given: Linux takes any bit of an I/O command besides CSUPP and LBCC for unusual and warns.
fn command_effects() -> Vec<u8> {
    let admin = ADMIN_COMMANDS.map(|opcode| (usize::from(u8::from(opcode)), IS_SUPPORTED));
    let io = IO_COMMANDS.map(|(opcode, writes)| {
        let effects = if writes { IS_SUPPORTED | CHANGES_BLOCKS } else { IS_SUPPORTED };
        (256 + usize::from(u8::from(opcode)), effects)
    });
    dwords(4096, admin.into_iter().chain(io))
}

/// Feature Identifiers Supported and Effects, 5.16.1.19, with the scope (FSP) of each feature.
fn feature_effects(features: &Features) -> Vec<u8> {
    const NAMESPACE_SCOPE: u32 = 1 << 20;
    const CONTROLLER_SCOPE: u32 = 1 << 21;
    let scope = |fid| if is_namespace_specific(fid) { NAMESPACE_SCOPE } else { CONTROLLER_SCOPE };
    dwords(1024, features.supported().map(|fid| (usize::from(u8::from(fid)), IS_SUPPORTED | scope(fid))))
}

/// SMART / Health Information, Figure 207. What nothing is known of is 0: there is no wear, no spare that could run
/// out, and a controller that ends with its process has no unsafe shutdowns.
fn smart_health(view: &LogView<'_>) -> Vec<u8> {
    /// Critical Warning: a temperature threshold of the host's is reached.
    const TEMPERATURE_WARNING: u8 = 1 << 1;
    /// Data Units are thousands of 512 bytes, rounded up.
    const DATA_UNIT: u64 = 512 * 1000;
    let mut page = vec![0; 512];
    if view.features.temperature_warning() {
        page[0] = TEMPERATURE_WARNING;
    }
    page[1..3].copy_from_slice(&TEMPERATURE.to_le_bytes());
    // Available Spare and its threshold, in percent.
    page[3] = 100;
    page[4] = 10;
    let stats = view.stats;
    for (offset, value) in [
        (32, stats.bytes_read.div_ceil(DATA_UNIT)),
        (48, stats.bytes_written.div_ceil(DATA_UNIT)),
        (64, stats.reads),
        (80, stats.writes),
        // Power Cycles: the one that made the controller.
        (112, 1),
        // Power On Hours.
        (128, view.uptime.as_secs() / 3600),
        (160, stats.media_errors),
        (176, view.error_log.count()),
    ] {
        page[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }
    page
}

/// Firmware Slot Information, Figure 208: slot 1 is active and the only one.
fn firmware_slot(firmware: &str) -> Vec<u8> {
    let mut page = vec![0; 512];
    page[0] = 1;
    put_ascii(&mut page[8..16], firmware);
    page
}

#[cfg(test)]
mod tests;
