//! The device behind the `vfio_user` crate's own `Server`: the same device, another protocol implementation.
//!
//! That server waits for every call, and nobody would poll the device between two messages. So the device lives on a
//! thread of its own, which does, and calls are sent there.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use nvmet_vfio_user::{ClientInfo, Device, DmaMap, DmaUnmap, Errno, IrqAction, IrqData, Outcome, SetIrqs};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, vfio_region_info,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend, ServerRegion};

use super::{DeviceConfig, NvmeDevice};
use crate::error::TargetError;
use crate::subsystem::Subsystem;
use crate::worker::WorkerPool;

enum Message {
    Wake,
    Call(Box<dyn FnOnce(&mut NvmeDevice) -> Outcome + Send>, Sender<()>),
}

/// An [`NvmeDevice`] for `vfio_user::Server`. Doorbells are trapped.
pub struct StandaloneDevice {
    messages: Sender<Message>,
    regions: Vec<ServerRegion>,
    irqs: Vec<IrqInfo>,
}

impl StandaloneDevice {
    /// Makes the device on a thread of its own, which ends with this.
    ///
    /// # Errors
    ///
    /// Those of [`NvmeDevice::new`], and [`TargetError::System`] if the thread cannot be started.
    pub fn new(
        config: DeviceConfig,
        subsystem: Arc<Subsystem>,
        pool: Arc<WorkerPool>,
    ) -> Result<Self, TargetError> {
        let (messages, inbox) = channel();
        let (made, result) = channel();
        let waker = messages.clone();
        let wake = move || {
            // A device that is gone needs no waking.
            let _ = waker.send(Message::Wake);
        };
        std::thread::Builder::new()
            .name("nvmet-alone".to_owned())
            .spawn(move || match NvmeDevice::new(config, subsystem, pool, wake, |_| {}) {
                Ok(mut device) => {
                    device.attached(&CLIENT);
                    let _ = made.send(Ok(describe(&device)));
                    serve(&mut device, &inbox);
                }
                Err(error) => {
                    let _ = made.send(Err(error));
                }
            })
            .map_err(|error| TargetError::system("start a thread", error))?;
        let (regions, irqs) = result.recv().unwrap_or(Err(TargetError::ShutDown))?;
        Ok(Self { messages, regions, irqs })
    }

    /// The regions, as `vfio_user::Server` wants them.
    pub fn regions(&self) -> Vec<ServerRegion> {
        self.regions.clone()
    }

    /// The interrupt types, as `vfio_user::Server` wants them.
    pub fn irqs(&self) -> Vec<IrqInfo> {
        self.irqs.iter().map(|irq| IrqInfo { index: irq.index, flags: irq.flags, count: irq.count }).collect()
    }

    /// Whether an access lies inside of its region, which the device takes for granted.
    fn contains(&self, region: u32, offset: u64, len: usize) -> bool {
        let size = self.regions.get(region as usize).map_or(0, |region| region.region_info.size);
        len > 0 && offset.checked_add(len as u64).is_some_and(|end| end <= size)
    }

    /// Calls into the device and waits until the operation is over.
    fn call<R: Send + 'static>(
        &self,
        call: impl FnOnce(&mut NvmeDevice) -> (R, Outcome) + Send + 'static,
    ) -> std::io::Result<R> {
        let (done, over) = channel();
        let (give, result) = channel();
        let call = move |device: &mut NvmeDevice| {
            let (value, outcome) = call(device);
            // The receiver waits below.
            let _ = give.send(value);
            outcome
        };
        let gone = || std::io::Error::from(Errno::NODEV);
        self.messages.send(Message::Call(Box::new(call), done)).map_err(|_| gone())?;
        let value = result.recv().map_err(|_| gone())?;
        over.recv().map_err(|_| gone())?;
        Ok(value)
    }
}

/// What the crate's server would know of its client: little.
const CLIENT: ClientInfo =
    ClientInfo { json: true, reads_errors: false, minor: 0, max_msg_fds: 1, max_data_xfer_size: 1 << 20 };

fn describe(device: &NvmeDevice) -> (Vec<ServerRegion>, Vec<IrqInfo>) {
    let info = device.info();
    let region = |index| {
        let info = device.region_info(index);
        let region_info = vfio_region_info {
            argsz: size_of::<vfio_region_info>() as u32,
            flags: u32::from(info.flags.read) | u32::from(info.flags.write) << 1,
            index,
            size: info.size,
            ..Default::default()
        };
        ServerRegion { region_info, sparse_areas: Vec::new(), mmap_fd: None }
    };
    let irq = |index| {
        let info = device.irq_info(index);
        IrqInfo { index, flags: u32::from(info.flags.eventfd), count: info.count }
    };
    ((0..info.num_regions).map(region).collect(), (0..info.num_irqs).map(irq).collect())
}

fn serve(device: &mut NvmeDevice, inbox: &Receiver<Message>) {
    let mut waiting: Option<Sender<()>> = None;
    loop {
        let now = Instant::now();
        let message = match device.deadline() {
            Some(deadline) => inbox.recv_timeout(deadline.saturating_duration_since(now)),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let outcome = match message {
            Ok(Message::Call(call, done)) => {
                waiting = Some(done);
                call(device)
            }
            Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => device.poll(Instant::now()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if outcome == Outcome::Done
            && let Some(done) = waiting.take()
        {
            // A caller that is gone needs no answer.
            let _ = done.send(());
        }
    }
}

impl ServerBackend for StandaloneDevice {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> std::io::Result<()> {
        // As from no device.
        data.fill(0xff);
        if !self.contains(region, offset, data.len()) {
            return Ok(());
        }
        let mut read = data.to_vec();
        let read = self.call(move |device| {
            device.region_read(region, offset, &mut read);
            (read, Outcome::Done)
        })?;
        data.copy_from_slice(&read);
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> std::io::Result<()> {
        if !self.contains(region, offset, data.len()) {
            return Ok(());
        }
        let data = data.to_vec();
        self.call(move |device| ((), device.region_write(region, offset, &data)))
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
        Ok(self.call(move |device| (device.dma_map(map), Outcome::Done))??)
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> std::io::Result<()> {
        let range = if flags.contains(DmaUnmapFlags::UNMAP_ALL) {
            DmaUnmap::All
        } else {
            DmaUnmap::Range { addr: address, size }
        };
        let result = self.call(move |device| match device.dma_unmap(range) {
            Ok(outcome) => (Ok(()), outcome),
            Err(errno) => (Err(errno), Outcome::Done),
        });
        Ok(result??)
    }

    fn reset(&mut self) -> std::io::Result<()> {
        self.call(|device| ((), device.reset()))
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> std::io::Result<()> {
        if flags & VFIO_IRQ_SET_ACTION_TRIGGER == 0 {
            return Err(Errno::INVAL.into());
        }
        let data = match flags & (VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_DATA_EVENTFD) {
            VFIO_IRQ_SET_DATA_NONE => IrqData::None,
            VFIO_IRQ_SET_DATA_EVENTFD => IrqData::Eventfd(fds.into_iter().map(Into::into).collect()),
            _ => return Err(Errno::INVAL.into()),
        };
        let irqs = SetIrqs { index, start, count, action: IrqAction::Trigger, data };
        Ok(self.call(move |device| (device.set_irqs(irqs), Outcome::Done))??)
    }
}
