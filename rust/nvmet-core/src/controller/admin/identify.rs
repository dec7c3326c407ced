//! Identify data structures (NVMe Base 2.0, 5.17; NVM Command Set 1.1, 4.1.5).
//!
//! Says what the controller and its namespaces are, and nothing that is not true of them: a field that is not written
//! is 0, "not supported" or "not reported". Must not know memory, queues or threads.

use std::time::Duration;

use nvmet_spec::command::{Cqe, NSID_ALL, Sqe};
use nvmet_spec::identify::{
    Anacap, Cmic, ControllerType, Ctratt, DeallocatedRead, Dlfeat, EntrySizes, FlushAll, Frmw, Fuses,
    IDENTIFY_SIZE, IdentifyController, IdentifyIndependentNamespace, IdentifyIoCommandSets,
    IdentifyNamespace, IoCommandSetVector, LbaFormat, Lpa, NAMESPACE_LIST_ENTRIES, NamespaceDescriptor,
    NamespaceDescriptorList, Nmic, Nsattr, Nsfeat, Nstat, NvmIdentifyController, NvmIdentifyNamespace, Nwpc,
    Oacs, Oaes, Oncs, Rescap, SglSupport, Sgls, Vwc, ascii_field, cns, csi as command_set,
};
use nvmet_spec::registers::Vs;
use nvmet_spec::status::Status;
use zerocopy::{Immutable, IntoBytes};

use super::super::{ControllerLimits, MAX_TRANSFER, SHUTDOWN_LIMIT};
use super::queue_commands::ABORT_LIMIT;
use super::{error_log, events, features};
use crate::namespace::{ATOMIC_COMPARE_WRITE_BLOCKS, MAX_ANA_GROUPS, MAX_NAMESPACES, Namespace};
use crate::subsystem::{Seen, Subsystem, View as Seeing, Who};

/// Words of a Controller List: its length and 2047 identifiers.
const CONTROLLER_LIST_WORDS: usize = IDENTIFY_SIZE / 2;

/// ANATT in seconds: how long a group stays in the change state at most.
const ANA_TRANSITION_LIMIT: u8 = 10;

/// How long an enable takes at most, and so a resume: a unit of CAP.TO.
const RESUME_LIMIT: Duration = Duration::from_millis(500);

/// What Identify tells of.
#[derive(Debug)]
pub struct View<'a> {
    /// The subsystem.
    pub subsystem: &'a Subsystem,
    /// Its namespaces as the host knows them.
    pub namespaces: &'a Seeing,
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

type Page = Box<[u8; IDENTIFY_SIZE]>;

/// The Identify data structure that `cns` names.
///
/// # Errors
///
/// Invalid Field for a structure that is not supported, Invalid Namespace or Format, Invalid I/O Command Set.
pub fn identify(view: &View<'_>, cns: u8, cntid: u16, csi: u8, nsid: u32) -> Result<Page, Status> {
    let nvm = csi == command_set::NVM;
    Ok(match cns {
        cns::NAMESPACE => match namespace(view, nsid)? {
            Some(seen) => page(&identify_namespace(seen, view)),
            None => page(&IdentifyNamespace::default()),
        },
        cns::CONTROLLER => page(&identify_controller(view)),
        cns::ACTIVE_NAMESPACES => page(&namespace_list(view, nsid)?),
        cns::NAMESPACE_DESCRIPTORS => {
            // Not a zero page as for the others: the descriptors are those of an active namespace (5.17.2.3).
            let seen = namespace(view, nsid)?.ok_or(Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr())?;
            page(descriptors(seen.namespace()).as_bytes())
        }
        // Namespaces are of the NVM Command Set, without metadata and protection information.
        cns::CSI_NAMESPACE => match namespace(view, nsid)? {
            Some(_) if !nvm => return Err(Status::INVALID_IO_COMMAND_SET.with_dnr()),
            _ => page(&NvmIdentifyNamespace::default()),
        },
        // No command is limited in its size, but by MDTS.
        cns::CSI_CONTROLLER if nvm => page(&NvmIdentifyController::default()),
        cns::CSI_ACTIVE_NAMESPACES if nvm => page(&namespace_list(view, nsid)?),
        cns::INDEPENDENT_NAMESPACE => match namespace(view, nsid)? {
            Some(seen) => page(&independent_namespace(seen, view)),
            None => page(&IdentifyIndependentNamespace::default()),
        },
        cns::NAMESPACE_CONTROLLERS => {
            let seen = namespace(view, nsid)?.ok_or(Status::INVALID_FIELD.with_dnr())?;
            page(&controller_list(view, cntid, |who| seen.slot.is_attached_to(&who.host.nqn)))
        }
        cns::CONTROLLERS => page(&controller_list(view, cntid, |_| true)),
        // CNTID FFFFh is the controller that is asked, too (5.17.2.21).
        cns::IO_COMMAND_SETS if cntid == view.cntlid || cntid == 0xffff => {
            let mut sets = IdentifyIoCommandSets::default();
            sets.combinations[0] = IoCommandSetVector::new().with_nvm(true);
            page(&sets)
        }
        _ => return Err(Status::INVALID_FIELD.with_dnr()),
    })
}

/// A data structure as bytes. All of them have the same size, which the wire types assert.
fn page(data: &(impl IntoBytes + Immutable + ?Sized)) -> Page {
    let mut page = Box::new([0; IDENTIFY_SIZE]);
    page.copy_from_slice(data.as_bytes());
    page
}

/// The namespace of a valid NSID, None if it is inactive (5.17.2.1). There is no namespace management, so FFFFFFFFh
/// does not name capabilities in common.
fn namespace<'a>(view: &View<'a>, nsid: u32) -> Result<Option<&'a Seen>, Status> {
    if (1..=MAX_NAMESPACES).contains(&nsid) {
        Ok(view.namespaces.get(nsid))
    } else {
        Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr())
    }
}

/// Active namespaces with an identifier above `nsid`, ascending (5.17.2.2).
fn namespace_list(view: &View<'_>, nsid: u32) -> Result<[u32; NAMESPACE_LIST_ENTRIES], Status> {
    if nsid >= NSID_ALL - 1 {
        return Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr());
    }
    let mut list = [0; NAMESPACE_LIST_ENTRIES];
    let above = view.namespaces.iter().map(|seen| seen.namespace().nsid()).filter(|&other| other > nsid);
    list.iter_mut().zip(above).for_each(|(entry, nsid)| *entry = nsid);
    Ok(list)
}

/// Controllers of the subsystem from identifier `first` on, ascending: their number, then the identifiers (5.17.2.12).
fn controller_list(
    view: &View<'_>,
    first: u16,
    chosen: impl Fn(&Who) -> bool,
) -> [u16; CONTROLLER_LIST_WORDS] {
    let controllers = view.subsystem.controllers();
    let mut ids: Vec<u16> = controllers.iter().filter(|who| chosen(who)).map(|who| who.cntlid).collect();
    ids.retain(|&id| id >= first);
    ids.sort_unstable();
    ids.truncate(CONTROLLER_LIST_WORDS - 1);
    let mut list = [0; CONTROLLER_LIST_WORDS];
    list[0] = ids.len() as u16;
    list[1..].iter_mut().zip(ids).for_each(|(entry, id)| *entry = id);
    list
}

/// Text that the subsystem has checked: it is printable and fits.
fn text<const N: usize>(text: &str) -> [u8; N] {
    ascii_field(text).unwrap_or([b' '; N])
}

fn microseconds(duration: Duration) -> u32 {
    duration.as_micros().try_into().unwrap_or(u32::MAX)
}

/// Identify Controller, 5.17.2.1.
fn identify_controller(view: &View<'_>) -> IdentifyController {
    let config = view.subsystem.config();
    let mut subnqn = [0; 256];
    let shared = view.subsystem.is_shared();
    subnqn.iter_mut().zip(view.subsystem.nqn().bytes()).for_each(|(to, from)| *to = from);
    IdentifyController {
        vid: view.vid,
        ssvid: view.ssvid,
        sn: text(&config.serial),
        mn: text(&config.model),
        fr: text(&config.firmware),
        rab: features::ARBITRATION_BURST,
        ieee: ieee(config.ieee_oui),
        cmic: Cmic::new().with_multi_port(shared).with_multi_controller(shared).with_ana(shared),
        // In units of CAP.MPSMIN, 4 KiB.
        mdts: (MAX_TRANSFER / 4096).ilog2() as u8,
        cntlid: view.cntlid,
        ver: Vs::V2_0.into_bits(),
        rtd3r: microseconds(RESUME_LIMIT),
        rtd3e: microseconds(SHUTDOWN_LIMIT),
        oaes: Oaes::new().with_namespace_attribute(true).with_ana_change(shared),
        ctratt: Ctratt::new().with_host_id_128(true),
        cntrltype: ControllerType::Io as u8,
        oacs: Oacs::new().with_doorbell_buffer_config(true),
        acl_z: (ABORT_LIMIT - 1) as u8,
        aerl_z: (events::REQUEST_LIMIT - 1) as u8,
        frmw: Frmw::new().with_slots(1).with_slot1_read_only(true),
        lpa: Lpa::new()
            .with_smart_per_namespace(true)
            .with_command_effects(true)
            .with_extended_data(true)
            .with_supported_log_pages(true),
        elpe_z: (error_log::ENTRIES - 1) as u8,
        wctemp: features::WARNING_TEMPERATURE,
        cctemp: features::CRITICAL_TEMPERATURE,
        kas: (features::KEEP_ALIVE_GRANULARITY / 100) as u16,
        sqes: EntrySizes::new().with_required(Sqe::SIZE_LOG2).with_maximum(Sqe::SIZE_LOG2),
        cqes: EntrySizes::new().with_required(Cqe::SIZE_LOG2).with_maximum(Cqe::SIZE_LOG2),
        // A queue of n entries holds n - 1 commands.
        maxcmd: view.limits.entries.saturating_sub(1).min(0xffff) as u16,
        nn: MAX_NAMESPACES,
        mnan: MAX_NAMESPACES,
        oncs: Oncs::new()
            .with_compare(true)
            .with_dataset_management(true)
            .with_write_zeroes(true)
            .with_save_select(true)
            .with_reservations(true)
            .with_timestamp(true),
        fuses: Fuses::new().with_compare_and_write(true),
        vwc: Vwc::new().with_present(view.vwc).with_flush_all(FlushAll::Supported),
        nwpc: Nwpc::new().with_supported(true).with_until_power_cycle(true),
        anatt: if shared { ANA_TRANSITION_LIMIT } else { 0 },
        anacap: if shared { ana_capabilities() } else { Anacap::new() },
        anagrpmax: if shared { MAX_ANA_GROUPS } else { 0 },
        nanagrpid: if shared { MAX_ANA_GROUPS } else { 0 },
        // AWUN and AWUPF stay 0: one logical block is written atomically. This is of fused commands.
        acwu_z: (ATOMIC_COMPARE_WRITE_BLOCKS - 1) as u16,
        sgls: Sgls::new()
            .with_support(SglSupport::AnyAlignment)
            .with_bit_bucket(true)
            .with_longer_than_data(true),
        subnqn,
        ..IdentifyController::default()
    }
}

/// All states are reported, and a namespace may come into another group.
fn ana_capabilities() -> Anacap {
    Anacap::new()
        .with_optimized(true)
        .with_non_optimized(true)
        .with_inaccessible(true)
        .with_persistent_loss(true)
        .with_change(true)
}

/// IEEE OUI Identifier: the least significant byte first (5.17.2.1, Figure 275).
fn ieee(oui: u32) -> [u8; 3] {
    let [low, middle, high, _] = oui.to_le_bytes();
    [low, middle, high]
}

/// The ANA group of a namespace; 0 where groups are not reported.
fn ana_group(seen: &Seen, view: &View<'_>) -> u32 {
    if view.subsystem.is_shared() { seen.slot.ana_group } else { 0 }
}

/// The reservations that a namespace takes; none where that is not enabled.
fn rescap(namespace: &Namespace) -> Rescap {
    let keeper = namespace.keeper();
    if !keeper.takes_reservations() {
        return Rescap::new();
    }
    Rescap::new()
        .with_ptpl(keeper.persists())
        .with_write_exclusive(true)
        .with_exclusive_access(true)
        .with_write_exclusive_registrants(true)
        .with_exclusive_access_registrants(true)
        .with_write_exclusive_all(true)
        .with_exclusive_access_all(true)
        .with_ignore_existing_key(true)
}

/// Every namespace of a subsystem may be attached to all of its controllers.
fn nmic(view: &View<'_>) -> Nmic {
    Nmic::new().with_shrns(view.subsystem.is_shared())
}

fn nsattr(seen: &Seen) -> Nsattr {
    Nsattr::new().with_write_protected(seen.slot.write_protected())
}

/// Identify Namespace of the NVM Command Set, NVM Command Set 1.1, 4.1.5.1.
fn identify_namespace(seen: &Seen, view: &View<'_>) -> IdentifyNamespace {
    let namespace = seen.namespace();
    let (shift, blocks, features) = (namespace.block_shift(), namespace.blocks(), namespace.features());
    let geometry = namespace.backend().geometry();
    // What is smaller than a logical block counts as one.
    let blocks_z = |bytes: u32| (bytes >> shift).saturating_sub(1).min(0xffff) as u16;
    let granularity_z = blocks_z(geometry.physical_block);
    let read =
        if features.discarded_reads_zero { DeallocatedRead::Zeroes } else { DeallocatedRead::NotReported };
    let mut data = IdentifyNamespace {
        nsze: blocks,
        ncap: blocks,
        // Backends tell nothing of blocks that are not allocated; nothing is told of a namespace that is out of reach.
        nuse: if seen.gate.any.is_none() { blocks } else { 0 },
        nsfeat: Nsfeat::new().with_optperf(true),
        // NLBAF and FLBAS stay 0: the format below is the only one, and in use.
        nmic: nmic(view),
        dlfeat: Dlfeat::new().with_read(read).with_write_zeroes_deallocate(features.discard),
        nvmcap: (u128::from(blocks) << shift).to_le_bytes(),
        npwg_z: granularity_z,
        npwa_z: granularity_z,
        npdg_z: granularity_z,
        npda_z: granularity_z,
        nows_z: blocks_z(geometry.optimal_io).max(granularity_z),
        nsattr: nsattr(seen),
        rescap: rescap(namespace),
        anagrpid: ana_group(seen, view),
        nguid: namespace.ids().nguid,
        eui64: namespace.ids().eui64,
        ..IdentifyNamespace::default()
    };
    data.lbaf[0] = LbaFormat::new().with_lbads(shift as u8);
    data
}

/// I/O Command Set Independent Identify Namespace, 5.17.2.8.
fn independent_namespace(seen: &Seen, view: &View<'_>) -> IdentifyIndependentNamespace {
    IdentifyIndependentNamespace {
        nmic: nmic(view),
        nsattr: nsattr(seen),
        rescap: rescap(seen.namespace()),
        anagrpid: ana_group(seen, view),
        nstat: Nstat::new().with_nrdy(true),
        ..IdentifyIndependentNamespace::default()
    }
}

/// Namespace Identification Descriptors, 5.17.2.3: the identifiers that the namespace has, and its command set.
fn descriptors(namespace: &Namespace) -> NamespaceDescriptorList {
    let ids = namespace.ids();
    let mut list = NamespaceDescriptorList::new();
    let eui64 = (ids.eui64 != [0; 8]).then_some(NamespaceDescriptor::Eui64(ids.eui64));
    let nguid = (ids.nguid != [0; 16]).then_some(NamespaceDescriptor::Nguid(ids.nguid));
    let uuid = (ids.uuid != [0; 16]).then_some(NamespaceDescriptor::Uuid(ids.uuid));
    let csi = Some(NamespaceDescriptor::Csi(command_set::NVM));
    for descriptor in [eui64, nguid, uuid, csi].into_iter().flatten() {
        // One of each always fits.
        list.push(descriptor);
    }
    list
}

#[cfg(test)]
mod tests;
