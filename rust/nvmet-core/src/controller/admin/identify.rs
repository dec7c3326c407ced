//! Identify data structures (NVMe Base 2.0, 5.17; NVM Command Set 1.1, 4.1.5).
//!
//! Says what the controller and its namespaces are, and nothing that is not true of them: a field that is not written
//! is 0, "not supported" or "not reported". Must not know memory, queues or threads.

use nvmet_spec::command::{Cqe, NSID_ALL, Sqe};
use nvmet_spec::registers::Vs;
use nvmet_spec::status::Status;

use super::super::{ControllerLimits, MAX_TRANSFER, SHUTDOWN_LIMIT};
use super::queue_commands::ABORT_LIMIT;
use super::{error_log, events, features};
use crate::namespace::{ATOMIC_COMPARE_WRITE_BLOCKS, MAX_NAMESPACES, Namespace};
use crate::subsystem::{NamespaceMap, Subsystem};

/// Bytes of every Identify data structure.
pub const SIZE: usize = 4096;
/// Entries of a namespace list.
const LIST_ENTRIES: usize = SIZE / 4;
/// CSI of the NVM Command Set, the only one there is.
const CSI_NVM: u8 = 0;

/// What Identify tells of.
#[derive(Debug)]
pub struct View<'a> {
    /// The subsystem.
    pub subsystem: &'a Subsystem,
    /// Its namespaces as the host knows them.
    pub namespaces: &'a NamespaceMap,
    /// Controller Identifier.
    pub cntlid: u16,
    /// What the controller can do.
    pub limits: &'a ControllerLimits,
    /// PCI Vendor ID.
    pub vid: u16,
    /// PCI Subsystem Vendor ID.
    pub ssvid: u16,
    /// Whether any namespace has a volatile write cache.
    pub vwc: bool,
}

type Page = Box<[u8; SIZE]>;

/// The Identify data structure that `cns` names.
///
/// # Errors
///
/// Invalid Field for a structure that is not supported, Invalid Namespace or Format, Invalid I/O Command Set.
pub fn identify(view: &View<'_>, cns: u8, cntid: u16, csi: u8, nsid: u32) -> Result<Page, Status> {
    let invalid_field = Status::INVALID_FIELD.with_dnr();
    let mut page = Box::new([0; SIZE]);
    match cns {
        0x00 => {
            if let Some(namespace) = namespace(view, nsid)? {
                identify_namespace(&mut page, namespace, view);
            }
        }
        0x01 => identify_controller(&mut page, view),
        0x02 => namespace_list(&mut page, view, nsid)?,
        0x03 => {
            // Not a zero page as for the others: the descriptors are those of an active namespace (5.17.2.3).
            let namespace = namespace(view, nsid)?;
            descriptors(&mut page, namespace.ok_or(Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr())?);
        }
        // The part of the NVM Command Set: no metadata, no protection information, so all 0.
        0x05 => {
            if namespace(view, nsid)?.is_some() && csi != CSI_NVM {
                return Err(Status::INVALID_IO_COMMAND_SET.with_dnr());
            }
        }
        // The part of the NVM Command Set: no command is limited in its size but by MDTS, so all 0.
        0x06 if csi == CSI_NVM => {}
        0x07 if csi == CSI_NVM => namespace_list(&mut page, view, nsid)?,
        0x08 => {
            if let Some(namespace) = namespace(view, nsid)? {
                independent_namespace(&mut page, namespace, view);
            }
        }
        // The I/O Command Sets that can be enabled together: vector 0 has the NVM Command Set (5.17.2.22).
        0x1c if cntid == view.cntlid || cntid == 0xffff => page[0] = 1 << CSI_NVM,
        _ => return Err(invalid_field),
    }
    Ok(page)
}

/// The namespace of a valid NSID, None if it is inactive (5.17.2.1). There is no namespace management, so FFFFFFFFh
/// does not name capabilities in common.
fn namespace<'a>(view: &View<'a>, nsid: u32) -> Result<Option<&'a Namespace>, Status> {
    if (1..=MAX_NAMESPACES).contains(&nsid) {
        Ok(view.namespaces.get(nsid).map(AsRef::as_ref))
    } else {
        Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr())
    }
}

/// Active namespaces with an identifier above `nsid`, ascending (5.17.2.2).
fn namespace_list(page: &mut Page, view: &View<'_>, nsid: u32) -> Result<(), Status> {
    if nsid >= NSID_ALL - 1 {
        return Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr());
    }
    let above = view.namespaces.iter().map(|namespace| namespace.nsid()).filter(|&other| other > nsid);
    for (at, nsid) in above.take(LIST_ENTRIES).enumerate() {
        put(page, at * 4, &nsid.to_le_bytes());
    }
    Ok(())
}

fn put(page: &mut Page, offset: usize, bytes: &[u8]) {
    page[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Text as the specification has it: left justified, cut to the field, padded with spaces.
pub fn put_ascii(field: &mut [u8], text: &str) {
    field.fill(b' ');
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
}

/// Microseconds, as much as the field holds.
fn microseconds(duration: std::time::Duration) -> u32 {
    duration.as_micros().try_into().unwrap_or(u32::MAX)
}

/// Identify Controller, Figure 275.
fn identify_controller(page: &mut Page, view: &View<'_>) {
    let config = view.subsystem.config();
    put(page, 0, &view.vid.to_le_bytes());
    put(page, 2, &view.ssvid.to_le_bytes());
    put_ascii(&mut page[4..24], &config.serial);
    put_ascii(&mut page[24..64], &config.model);
    put_ascii(&mut page[64..72], &config.firmware);
    page[72] = features::ARBITRATION_BURST;
    // IEEE, bytes 73 to 75, stays 0: nobody has registered an OUI for this controller.
    // CMIC bit 1: the subsystem may have several controllers.
    page[76] = u8::from(view.subsystem.is_shared()) << 1;
    // MDTS, in units of CAP.MPSMIN (4 KiB) as a power of two.
    page[77] = (MAX_TRANSFER / 4096).ilog2() as u8;
    put(page, 78, &view.cntlid.to_le_bytes());
    put(page, 80, &Vs::V2_0.into_bits().to_le_bytes());
    // RTD3R: an enable takes less than a unit of CAP.TO, 500 ms. RTD3E: shutdown waits for backends that long.
    put(page, 84, &500_000_u32.to_le_bytes());
    put(page, 88, &microseconds(SHUTDOWN_LIMIT).to_le_bytes());
    // OAES bit 8: Attached Namespace Attribute Notices.
    put(page, 92, &(1_u32 << 8).to_le_bytes());
    // CTRATT bit 0: 128-bit Host Identifier.
    put(page, 96, &1_u32.to_le_bytes());
    // CNTRLTYPE: I/O controller.
    page[111] = 1;
    // OACS bit 8: Doorbell Buffer Config.
    put(page, 256, &(1_u16 << 8).to_le_bytes());
    // ACL and AERL, 0's based.
    page[258] = (ABORT_LIMIT - 1) as u8;
    page[259] = (events::REQUEST_LIMIT - 1) as u8;
    // FRMW: one slot (bits 3:1), and it is read only (bit 0).
    page[260] = 1 << 1 | 1;
    // LPA: Commands Supported and Effects (1), offsets (2), Supported Log Pages, Feature Identifiers and NVMe-MI
    // Commands Supported and Effects (5).
    page[261] = 1 << 1 | 1 << 2 | 1 << 5;
    // ELPE, 0's based. NPSS, byte 263: power state 0 only, 0's based.
    page[262] = (error_log::ENTRIES - 1) as u8;
    put(page, 266, &features::WARNING_TEMPERATURE.to_le_bytes());
    put(page, 268, &features::CRITICAL_TEMPERATURE.to_le_bytes());
    // KAS, in units of 100 ms.
    put(page, 320, &((features::KEEP_ALIVE_GRANULARITY / 100) as u16).to_le_bytes());
    // SQES and CQES: required and maximum entry size, as powers of two.
    page[512] = Sqe::SIZE_LOG2 << 4 | Sqe::SIZE_LOG2;
    page[513] = Cqe::SIZE_LOG2 << 4 | Cqe::SIZE_LOG2;
    // MAXCMD: a queue of n entries holds n - 1 commands.
    put(page, 514, &((view.limits.entries - 1).min(0xffff) as u16).to_le_bytes());
    put(page, 516, &MAX_NAMESPACES.to_le_bytes());
    // ONCS: Compare (0), Dataset Management (2), Write Zeroes (3), Save and Select (4), Timestamp (6).
    put(page, 520, &(1_u16 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6).to_le_bytes());
    // FUSES: Compare and Write.
    put(page, 522, &1_u16.to_le_bytes());
    // VWC: present (0); Flush takes NSID FFFFFFFFh (2:1).
    page[525] = 0b110 | u8::from(view.vwc);
    // AWUN and AWUPF, 0's based, stay 0: one logical block is written atomically. ACWU is of fused commands.
    put(page, 532, &((ATOMIC_COMPARE_WRITE_BLOCKS - 1) as u16).to_le_bytes());
    // SGLS: supported without alignment (1:0), Bit Bucket (16), SGLs longer than the data (18).
    put(page, 536, &(1_u32 | 1 << 16 | 1 << 18).to_le_bytes());
    put(page, 540, &MAX_NAMESPACES.to_le_bytes());
    // SUBNQN: zero terminated; a name has at most 223 bytes.
    put(page, 768, view.subsystem.nqn().as_bytes());
}

/// What byte offsets differ in but bits do not, between the structures of CNS 00h and 08h.
struct Common {
    nmic: u8,
    nsattr: u8,
}

impl Common {
    fn of(namespace: &Namespace, view: &View<'_>) -> Self {
        Self {
            // NMIC bit 0: may be attached to several controllers, as every namespace of a shared subsystem is.
            nmic: u8::from(view.subsystem.is_shared()),
            // NSATTR bit 0: currently write protected.
            nsattr: u8::from(namespace.read_only()),
        }
    }
}

/// Identify Namespace of the NVM Command Set, NVM Command Set 1.1, Figure 114.
fn identify_namespace(page: &mut Page, namespace: &Namespace, view: &View<'_>) {
    let (common, shift, features) =
        (Common::of(namespace, view), namespace.block_shift(), namespace.features());
    // NSZE, NCAP, NUSE: backends tell nothing of blocks that are not allocated.
    for offset in [0, 8, 16] {
        put(page, offset, &namespace.blocks().to_le_bytes());
    }
    // NSFEAT bit 4: NPWG, NPWA, NPDG, NPDA and NOWS are defined.
    page[24] = 1 << 4;
    // NLBAF, FLBAS, MC, DPC and DPS stay 0: one format, in use, without metadata and protection information.
    page[30] = common.nmic;
    // DLFEAT: deallocated blocks read 0 (2:0), Write Zeroes can deallocate (3).
    page[33] = u8::from(features.discarded_reads_zero) | u8::from(features.discard) << 3;
    // NVMCAP, in bytes.
    put(page, 48, &(namespace.blocks() << shift).to_le_bytes());
    let geometry = namespace.backend().geometry();
    // 0's based numbers of logical blocks; what is smaller than a block is a block.
    let blocks_z = |bytes: u32| ((bytes >> shift).saturating_sub(1).min(0xffff) as u16).to_le_bytes();
    for offset in [64, 66, 68, 70] {
        put(page, offset, &blocks_z(geometry.physical_block));
    }
    put(page, 72, &blocks_z(geometry.optimal_io.max(geometry.physical_block)));
    page[99] = common.nsattr;
    put(page, 104, &namespace.ids().nguid);
    put(page, 120, &namespace.ids().eui64);
    // LBAF0: LBADS in bits 23:16.
    put(page, 128, &(shift << 16).to_le_bytes());
}

/// I/O Command Set Independent Identify Namespace, Figure 280.
fn independent_namespace(page: &mut Page, namespace: &Namespace, view: &View<'_>) {
    let common = Common::of(namespace, view);
    page[1] = common.nmic;
    page[8] = common.nsattr;
    // NSTAT bit 0: the namespace is ready.
    page[14] = 1;
}

/// Namespace Identification Descriptors, Figure 277: type, length, two reserved bytes, identifier.
fn descriptors(page: &mut Page, namespace: &Namespace) {
    let ids = namespace.ids();
    let mut at = 0;
    for (kind, id) in [(1_u8, &ids.eui64[..]), (2, &ids.nguid), (3, &ids.uuid), (4, &[CSI_NVM])] {
        // An identifier of zeroes is none; the command set is always told.
        if kind == 4 || id.iter().any(|&byte| byte != 0) {
            put(page, at, &[kind, id.len() as u8]);
            put(page, at + 4, id);
            at += 4 + id.len();
        }
    }
}

#[cfg(test)]
mod tests;
