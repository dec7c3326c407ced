//! The device behind the `vfio_user` crate's own `Server`: the same device, another protocol implementation.
//!
//! That server has one thread and waits for every call, so operations that are pending are waited for here, and a
//! thread polls the device when its workers want it to.

use std::fs::File;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use nvmet_vfio_user::{
    ClientInfo, Device, DmaMap, DmaUnmap, Errno, IrqAction, IrqData, Outcome, SetIrqs,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend, ServerRegion};

use super::{DeviceConfig, NvmeDevice};
use crate::error::TargetError;
use crate::subsystem::Subsystem;
use crate::worker::WorkerPool;

/// `VFIO_IRQ_SET_*` of the message's flags.
const DATA_NONE: u32 = 1;
const DATA_EVENTFD: u32 = 4;
const ACTION_TRIGGER: u32 = 32;
/// How often a pending operation is looked at if nothing wakes it.
const PATIENCE: Duration = Duration::from_millis(100);

/// An [`NvmeDevice`] for `vfio_user::Server`.
pub struct StandaloneDevice {
    device: Arc<Mutex<NvmeDevice>>,
    progress: Receiver<()>,
}

impl StandaloneDevice {
    /// Makes the device and the thread that polls it; the thread ends with the device.
    ///
    /// # Errors
    ///
    /// Those of [`NvmeDevice::new`], and [`TargetError::System`] if the thread cannot be started.
    pub fn new(config: DeviceConfig, subsystem: Arc<Subsystem>, pool: Arc<WorkerPool>) -> Result<Self, TargetError> {
        let (wake, woken) = channel();
        let wake = move || {
            // Without a receiver there is no device either.
            let _ = wake.send(());
        };
        let mut device = NvmeDevice::new(config, subsystem, pool, wake, |_| {})?;
        device.attached(&ClientInfo {
            json: true,
            reads_errors: false,
            minor: 0,
            max_msg_fds: 1,
            max_data_xfer_size: 1 << 20,
            pid: None,
        });
        let device = Arc::new(Mutex::new(device));
        let (tell, progress) = channel();
        let weak = Arc::downgrade(&device);
        std::thread::Builder::new()
            .name("nvmet-poll".to_owned())
            .spawn(move || poll(&weak, &woken, &tell))
            .map_err(|error| TargetError::system("start a thread", error))?;
        Ok(Self { device, progress })
    }

    /// The regions, as `vfio_user::Server` wants them.
    pub fn regions(&self) -> Vec<ServerRegion> {
        let device = self.lock();
        (0..device.info().num_regions)
            .map(|index| {
                let info = device.region_info(index);
                let flags = u32::from(info.flags.read) | u32::from(info.flags.write) << 1;
                let region_info = vfio_bindings::bindings::vfio::vfio_region_info {
                    argsz: size_of::<vfio_bindings::bindings::vfio::vfio_region_info>() as u32,
                    flags,
                    index,
                    size: info.size,
                    ..Default::default()
                };
                ServerRegion { region_info, sparse_areas: Vec::new(), mmap_fd: None }
            })
            .collect()
    }

    /// The interrupt types, as `vfio_user::Server` wants them.
    pub fn irqs(&self) -> Vec<IrqInfo> {
        let device = self.lock();
        (0..device.info().num_irqs)
            .map(|index| {
                let info = device.irq_info(index);
                IrqInfo { index, flags: u32::from(info.flags.eventfd), count: info.count }
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, NvmeDevice> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, outcome: Outcome) {
        let mut outcome = outcome;
        while outcome == Outcome::Pending {
            let _ = self.progress.recv_timeout(PATIENCE);
            outcome = self.lock().poll(Instant::now());
        }
    }
}

fn poll(device: &Weak<Mutex<NvmeDevice>>, woken: &Receiver<()>, tell: &Sender<()>) {
    loop {
        match woken.recv_timeout(PATIENCE) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(device) = device.upgrade() else { return };
        let outcome = device.lock().unwrap_or_else(PoisonError::into_inner).poll(Instant::now());
        if outcome == Outcome::Done && tell.send(()).is_err() {
            return;
        }
    }
}

fn io_error(errno: Errno) -> std::io::Error {
    errno.into()
}

impl ServerBackend for StandaloneDevice {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> std::io::Result<()> {
        data.fill(0xff);
        self.lock().region_read(region, offset, data);
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let outcome = self.lock().region_write(region, offset, data);
        self.wait(outcome);
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> std::io::Result<()> {
        let map = DmaMap {
            addr: address,
            size,
            offset,
            readable: flags.contains(DmaMapFlags::READ),
            writable: flags.contains(DmaMapFlags::WRITE),
            fd: fd.map(Into::into),
        };
        self.lock().dma_map(map).map_err(io_error)
    }

    fn dma_unmap(&mut self, _flags: DmaUnmapFlags, address: u64, size: u64) -> std::io::Result<()> {
        let outcome = self.lock().dma_unmap(DmaUnmap::Range { addr: address, size }).map_err(io_error)?;
        self.wait(outcome);
        Ok(())
    }

    fn reset(&mut self) -> std::io::Result<()> {
        let outcome = self.lock().reset();
        self.wait(outcome);
        Ok(())
    }

    fn set_irqs(&mut self, index: u32, flags: u32, start: u32, count: u32, fds: Vec<File>) -> std::io::Result<()> {
        if flags & ACTION_TRIGGER == 0 {
            return Err(io_error(Errno::INVAL));
        }
        let data = match flags & (DATA_NONE | DATA_EVENTFD) {
            DATA_NONE => IrqData::None,
            DATA_EVENTFD => IrqData::Eventfd(fds.into_iter().map(Into::into).collect()),
            _ => return Err(io_error(Errno::INVAL)),
        };
        let irqs = SetIrqs { index, start, count, action: IrqAction::Trigger, data };
        self.lock().set_irqs(irqs).map_err(io_error)
    }
}
