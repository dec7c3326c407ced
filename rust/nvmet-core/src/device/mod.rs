//! The NVMe device as a vfio-user server sees it: PCI function, BARs, interrupts, DMA map.
//!
//! Turns messages into calls on the PCI function and the controller. The only module that knows vfio-user.

mod server_backend;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvmet_dma::{Access, DmaError, DmaSpace, EventFd, Retired};
use nvmet_vfio_user::{
    ClientInfo, Device, DeviceInfo, DmaMap, DmaUnmap, Errno, IrqAction, IrqData, IrqFlags, IrqInfo, Outcome,
    RegionFlags, RegionInfo, RegionMmap, SetIrqs,
};

pub use self::server_backend::StandaloneDevice;
use crate::controller::{Controller, ControllerLimits, ControllerSetup, HostIdentity, Lifetime};
use crate::error::TargetError;
use crate::irq::{IrqError, Vectors};
use crate::pci::msix::{self, MsixTable};
use crate::pci::{Effects, PciConfig, PciFunction, PciIds, PowerState, Reset, device_serial_number};
use crate::stats::Batch;
use crate::subsystem::Subsystem;
use crate::subsystem::ana::AnaStates;
use crate::worker::WorkerPool;

/// Regions of a VFIO PCI device: BAR0 to BAR5, ROM, config space, VGA.
const BAR0: u32 = 0;
const BAR4: u32 = 4;
const BAR5: u32 = 5;
const CONFIG: u32 = 7;
const REGIONS: u32 = 9;
/// Interrupt types of a VFIO PCI device: INTx, MSI, MSI-X, ERR, REQ.
const MSIX: u32 = 2;
const ERR: u32 = 3;
const IRQS: u32 = 5;

/// BAR0: registers, a page of doorbells, and up to the 16 KiB that Windows takes for granted.
const BAR0_SIZE: u64 = 0x4000;
const CONFIG_SIZE: u64 = 0x1000;
/// The doorbell page in BAR0.
const DOORBELLS: (u64, u64) = (0x1000, 0x1000);
/// Clients give up waiting for an answer after 5 s (QEMU).
const ANSWER_LIMIT: Duration = Duration::from_secs(4);

/// How doorbells reach the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DoorbellMode {
    /// `Mapped` for clients that cannot do without (SPDK's initiator), `Trapped` for the others.
    #[default]
    Auto,
    /// Every doorbell register write is a message; Doorbell Buffer Config makes them rare.
    Trapped,
    /// The client maps the doorbell page, and the device polls it.
    Mapped,
}

/// What a device is to be like.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// Queues and their size.
    pub limits: ControllerLimits,
    /// PCI identity.
    pub ids: PciIds,
    /// How doorbells reach the device.
    pub doorbells: DoorbellMode,
    /// Whose controller it is.
    pub host: HostIdentity,
    /// Where it is reached, for people: what warnings call the guest by.
    pub place: String,
    /// The Controller Identifier wanted; None: any.
    pub cntlid: Option<u16>,
    /// The states that ANA groups begin in.
    pub ana: AnaStates,
    /// What SMART counted before this process.
    pub lifetime: Lifetime,
}

/// What a device tells its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// A client has connected and negotiated.
    Attached,
    /// The client is gone and nothing of it is left.
    Detached,
}

/// An operation whose answer waits.
enum Pending {
    /// DMA_UNMAP: until nothing refers to the removed ranges.
    Unmap(Retired),
    /// FLR or DEVICE_RESET: until workers have let go of the queues.
    Reset,
    /// The client left: until both.
    Detach(Retired),
}

/// An NVMe controller as a PCI function.
pub struct NvmeDevice {
    pci: PciFunction,
    msix: MsixTable,
    controller: Controller,
    dma: DmaSpace,
    vectors: Arc<Vectors>,
    mode: DoorbellMode,
    /// The doorbell page, if the client may map it.
    mapped: Option<Arc<OwnedFd>>,
    pending: Option<(Pending, Instant)>,
    events: Box<dyn Fn(ClientEvent) + Send>,
}

impl NvmeDevice {
    /// A device of `subsystem` whose queues run on `pool`. `wake` has [`Device::poll`] called, from any
    /// thread; `events` hears of clients.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] for values out of range, [`TargetError::System`] for lack of resources.
    pub fn new(
        config: DeviceConfig,
        subsystem: Arc<Subsystem>,
        pool: Arc<WorkerPool>,
        wake: impl Fn() + Send + Sync + Clone + 'static,
        events: impl Fn(ClientEvent) + Send + 'static,
    ) -> Result<Self, TargetError> {
        config.limits.check()?;
        // One vector for each I/O queue and one for the admin queue.
        let vectors = config.limits.queues + 1;
        let pci_error =
            |error: crate::pci::PciError| TargetError::config("pci", error, "see the help for PCI ids");
        let pci = PciFunction::new(PciConfig {
            ids: config.ids,
            bar0_size: BAR0_SIZE,
            vectors,
            serial: Some(device_serial_number(&subsystem.config().serial)),
        })
        .map_err(pci_error)?;
        let msix = MsixTable::new(vectors).map_err(pci_error)?;
        let dma = DmaSpace::new(wake.clone());
        let vectors = Arc::new(Vectors::new(vectors));
        let DeviceConfig { limits, ids, host, place, cntlid, ana, lifetime, .. } = config;
        let pci_ids = (ids.vendor, ids.subsystem_vendor);
        let controller = Controller::new(
            ControllerSetup { limits, pci_ids, host, place, cntlid, ana, lifetime },
            subsystem,
            pool,
            dma.handle(),
            Arc::clone(&vectors),
            wake.clone(),
        )?;
        Ok(Self {
            pci,
            msix,
            controller,
            dma,
            vectors,
            mode: config.doorbells,
            mapped: None,
            pending: None,
            events: Box::new(events),
        })
    }

    /// Controller Identifier.
    pub fn cntlid(&self) -> u16 {
        self.controller.cntlid()
    }

    /// The host that the controller belongs to.
    pub fn host(&self) -> &HostIdentity {
        self.controller.host()
    }

    /// Counters of the I/O queues.
    pub fn stats(&self) -> Batch {
        self.controller.stats()
    }

    /// What SMART has counted over its life.
    pub fn lifetime(&mut self) -> Lifetime {
        self.controller.lifetime()
    }

    fn wait_for(&mut self, pending: Pending) -> Outcome {
        self.pending = Some((pending, Instant::now() + ANSWER_LIMIT));
        self.progress(Instant::now())
    }

    /// Whether the pending operation, if any, has come to its end.
    fn progress(&mut self, now: Instant) -> Outcome {
        let Some((pending, deadline)) = &self.pending else { return Outcome::Done };
        let over = match pending {
            Pending::Unmap(retired) => retired.is_done(),
            Pending::Reset => self.controller.is_quiet(),
            Pending::Detach(retired) => retired.is_done() && self.controller.is_quiet(),
        };
        if !over && now < *deadline {
            return Outcome::Pending;
        }
        if !over {
            // What a backend still has keeps its memory mapped; the controller stays failed until it is over.
            tracing::warn!("I/O did not end in time; its memory stays mapped until it does");
        }
        match self.pending.take() {
            Some((Pending::Reset, _)) => self.vectors.clear_pending(),
            Some((Pending::Detach(_), _)) => {
                self.vectors.clear_pending();
                (self.events)(ClientEvent::Detached);
            }
            Some((Pending::Unmap(_), _)) | None => {}
        }
        Outcome::Done
    }

    /// A doorbell page that no earlier client has a mapping of.
    fn fresh_doorbell_page(&mut self) -> Option<Arc<OwnedFd>> {
        if !self.controller.is_quiet() {
            tracing::warn!("I/O of the last client has not ended: doorbells are not mapped for this one");
            return None;
        }
        let fd = self.controller.renew_doorbell_page().and_then(|()| {
            let fd = self.controller.doorbell_page().fd().try_clone_to_owned();
            fd.map_err(|error| TargetError::system("duplicate a descriptor", error))
        });
        fd.map(Arc::new).inspect_err(|error| tracing::error!("doorbells are not mapped: {error}")).ok()
    }

    fn begin_reset(&mut self, kind: Reset) {
        let effects = self.pci.reset(kind);
        self.msix.reset();
        self.controller.reset();
        self.apply_bus_master(effects);
    }

    /// DMA and interrupts need Bus Master Enable and D0.
    fn apply_bus_master(&mut self, effects: Effects) {
        if effects.bus_master.is_some() || effects.power_state.is_some() {
            let running = self.pci.bus_master() && self.pci.power_state() == PowerState::D0;
            self.controller.set_bus_master(running);
        }
    }

    /// A BAR answers in D0 only (PCIe Base 5.3.1.4.1). Memory Space Enable is the client's: SPDK's initiator
    /// never sets it.
    fn bars_answer(&self) -> bool {
        self.pci.power_state() == PowerState::D0
    }
}

impl Device for NvmeDevice {
    fn info(&self) -> DeviceInfo {
        DeviceInfo { num_regions: REGIONS, num_irqs: IRQS, resettable: true }
    }

    fn region_info(&self, index: u32) -> RegionInfo {
        let both = RegionFlags { read: true, write: true };
        match index {
            BAR0 => RegionInfo {
                size: BAR0_SIZE,
                flags: both,
                mmap: self.mapped.as_ref().map(|fd| RegionMmap {
                    fd: Arc::clone(fd),
                    file_offset: 0,
                    offset: DOORBELLS.0,
                    size: DOORBELLS.1,
                }),
            },
            BAR4 | BAR5 => RegionInfo { size: self.pci.bar_size(index as usize), flags: both, mmap: None },
            CONFIG => RegionInfo { size: CONFIG_SIZE, flags: both, mmap: None },
            _ => RegionInfo::default(),
        }
    }

    fn irq_info(&self, index: u32) -> IrqInfo {
        let flags = IrqFlags { eventfd: true, ..IrqFlags::default() };
        match index {
            MSIX => IrqInfo { count: self.vectors.len() as u32, flags },
            ERR => IrqInfo { count: 1, flags },
            _ => IrqInfo::default(),
        }
    }

    fn attached(&mut self, client: &ClientInfo) {
        let wanted = match self.mode {
            DoorbellMode::Auto => !client.json,
            DoorbellMode::Trapped => false,
            DoorbellMode::Mapped => true,
        };
        self.mapped = if wanted { self.fresh_doorbell_page() } else { None };
        self.controller.client_attached(self.mapped.is_some());
        // QEMU does not take pages from a guest that has a vfio-user device (ballooning), SPDK's hugepages stay. Others
        // may, and the kernel would go on with the old pages.
        self.dma.set_pinning(!client.json || client.reads_errors);
        tracing::info!(mapped_doorbells = self.mapped.is_some(), "client attached");
        (self.events)(ClientEvent::Attached);
    }

    fn detached(&mut self) -> Outcome {
        tracing::info!("client detached");
        self.controller.client_detached();
        self.begin_reset(Reset::Conventional);
        self.vectors.release();
        let retired = self.dma.clear();
        self.controller.memory_changed();
        self.wait_for(Pending::Detach(retired))
    }

    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        match region {
            CONFIG => self.pci.read(offset, data),
            BAR0 if self.bars_answer() => self.controller.read(offset, data),
            BAR4 if self.bars_answer() => self.msix.read(offset, data),
            BAR5 if self.bars_answer() => {
                msix::read_pba(offset, data, |word| self.vectors.pending_word(word));
            }
            _ => {}
        }
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Outcome {
        match region {
            CONFIG => {
                let effects = self.pci.write(offset, data);
                if effects.flr {
                    self.begin_reset(Reset::Function);
                    return self.wait_for(Pending::Reset);
                }
                self.apply_bus_master(effects);
            }
            BAR0 if self.bars_answer() => self.controller.write(offset, data),
            BAR4 if self.bars_answer() => self.msix.write(offset, data),
            _ => {}
        }
        Outcome::Done
    }

    fn dma_map(&mut self, map: DmaMap) -> Result<(), Errno> {
        let access = Access { read: map.readable, write: map.writable };
        let told = (map.addr, map.size, map.offset);
        self.dma.map(map.addr, map.size, map.offset, access, map.fd).map_err(|error| {
            tracing::warn!("DMA_MAP of {:#x}+{:#x} at file offset {:#x}: {error}", told.0, told.1, told.2);
            dma_errno(&error)
        })?;
        self.controller.memory_changed();
        Ok(())
    }

    fn dma_unmap(&mut self, range: DmaUnmap) -> Result<Outcome, Errno> {
        let retired = match range {
            DmaUnmap::All => self.dma.unmap_all(),
            DmaUnmap::Range { addr, size } => {
                self.dma.unmap(addr, size).map_err(|error| dma_errno(&error))?
            }
        };
        self.controller.memory_changed();
        Ok(self.wait_for(Pending::Unmap(retired)))
    }

    fn set_irqs(&mut self, irqs: SetIrqs) -> Result<(), Errno> {
        let SetIrqs { index, start, count, action, data } = irqs;
        if action != IrqAction::Trigger {
            // MSI-X is masked by the client, which emulates the table.
            return Err(Errno::INVAL);
        }
        let invalid = |_: IrqError| Errno::INVAL;
        match (index, data) {
            (MSIX, IrqData::Eventfd(fds)) if fds.is_empty() => {
                self.vectors.deassign(start, count).map_err(invalid)
            }
            (MSIX, IrqData::Eventfd(fds)) => self.vectors.assign(start, eventfds(fds)?).map_err(invalid),
            (MSIX, IrqData::None) if count == 0 => {
                self.vectors.disable_all();
                Ok(())
            }
            (MSIX, IrqData::None) => self.vectors.trigger(start, count).map_err(invalid),
            (MSIX, IrqData::Bool(which)) => self.vectors.trigger_where(start, &which).map_err(invalid),
            (ERR, IrqData::Eventfd(fds)) => {
                self.vectors.assign_err(eventfds(fds)?.pop());
                Ok(())
            }
            (ERR, IrqData::None) if count == 0 => {
                self.vectors.assign_err(None);
                Ok(())
            }
            (ERR, IrqData::None) => {
                self.vectors.signal_err();
                Ok(())
            }
            (ERR, IrqData::Bool(which)) => {
                which.into_iter().filter(|&fire| fire).for_each(|_| self.vectors.signal_err());
                Ok(())
            }
            _ => Err(Errno::INVAL),
        }
    }

    fn reset(&mut self) -> Outcome {
        self.begin_reset(Reset::Conventional);
        self.wait_for(Pending::Reset)
    }

    fn poll(&mut self, now: Instant) -> Outcome {
        self.controller.poll(now);
        self.progress(now)
    }

    fn deadline(&self) -> Option<Instant> {
        let pending = self.pending.as_ref().map(|(_, deadline)| *deadline);
        [pending, self.controller.deadline()].into_iter().flatten().min()
    }
}

fn eventfds(fds: Vec<OwnedFd>) -> Result<Vec<EventFd>, Errno> {
    fds.into_iter().map(|fd| EventFd::from_client(fd).map_err(|_| Errno::INVAL)).collect()
}

fn dma_errno(error: &DmaError) -> Errno {
    Errno::from_raw_os_error(error.errno())
}
