//! A small NVMe controller behind the workspace's vfio-user server: just enough for a host to be tested against, and
//! willing to misbehave. One thread polls all queues; data lies in a vector.

mod controller;

use controller::Controller;
use nvmet_dma::MappedArea;
use nvmet_vfio_user::{
    ClientInfo, Device, DeviceInfo, DmaMap, DmaUnmap, Errno, IrqAction, IrqData, IrqInfo, Outcome,
    RegionFlags, RegionInfo, RegionMmap, SetIrqs,
    listener::Listener,
    reactor::{Reactor, ReactorHandle, ReactorOptions},
};
use std::{
    os::fd::AsFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

/// What is wrong with the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    #[default]
    None,
    /// It is no NVMe controller at all.
    NoNvme,
    /// CSTS.RDY never comes.
    NeverReady,
    /// I/O commands are fetched and never completed.
    Silent,
    /// The first I/O command sets CSTS.CFS.
    Fatal,
    /// Reads of this LBA return a flipped bit.
    FlippedBit(u64),
    /// Writes to this LBA land one block further.
    Misplaced(u64),
    /// Completions carry a CID that nobody sent.
    WrongCid,
    /// Creating a submission queue fails.
    NoQueues,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub fault: Fault,
    /// Offer the doorbell page for mapping.
    pub mapped: bool,
    /// Support Doorbell Buffer Config.
    pub shadow: bool,
    /// I/O moves no data.
    pub null: bool,
}

/// A served controller; everything ends when it is dropped.
pub struct Mock {
    pub path: PathBuf,
    pub controller: Arc<Mutex<Controller>>,
    stop: Arc<AtomicBool>,
    reactor: ReactorHandle,
    threads: Vec<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Mock {
    pub fn new(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cntrl");
        let controller = Arc::new(Mutex::new(Controller::new(options)));
        let device = MockDevice { controller: Arc::clone(&controller) };
        let reactor = Reactor::new(ReactorOptions::default()).unwrap();
        let handle = reactor.handle();
        let stop = Arc::new(AtomicBool::new(false));
        let (polled, stopped) = (Arc::clone(&controller), Arc::clone(&stop));
        let threads = vec![
            thread::spawn(move || reactor.run().unwrap()),
            thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let busy = polled.lock().unwrap().process();
                    if !busy {
                        thread::yield_now();
                    }
                }
            }),
        ];
        handle.add(Listener::bind(&path).unwrap(), move |_| device).unwrap();
        Self { path, controller, stop, reactor: handle, threads, _directory: directory }
    }

    pub fn lock(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock().unwrap()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.reactor.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct MockDevice {
    controller: Arc<Mutex<Controller>>,
}

const BAR0: u32 = 0;
const CONFIG: u32 = 7;
const MSIX: u32 = 2;

impl MockDevice {
    fn lock(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock().unwrap()
    }
}

impl Device for MockDevice {
    fn info(&self) -> DeviceInfo {
        DeviceInfo { num_regions: 9, num_irqs: 5, resettable: true }
    }

    fn region_info(&self, index: u32) -> RegionInfo {
        let flags = RegionFlags { read: true, write: true };
        match index {
            BAR0 => {
                let controller = self.lock();
                let mmap = controller.options.mapped.then(|| RegionMmap {
                    fd: Arc::new(controller.page.fd().try_clone_to_owned().unwrap()),
                    file_offset: 0,
                    offset: 0x1000,
                    size: 0x1000,
                });
                RegionInfo { size: 0x4000, flags, mmap }
            }
            CONFIG => RegionInfo { size: 4096, flags, mmap: None },
            _ => RegionInfo::default(),
        }
    }

    fn irq_info(&self, index: u32) -> IrqInfo {
        IrqInfo { count: if index == MSIX { 8 } else { 0 }, ..IrqInfo::default() }
    }

    fn attached(&mut self, _: &ClientInfo) {}

    fn detached(&mut self) -> Outcome {
        let mut controller = self.lock();
        controller.memory.clear();
        controller.interrupts.clear();
        Outcome::Done
    }

    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        let controller = self.lock();
        match region {
            CONFIG => data.copy_from_slice(&controller.config[offset as usize..offset as usize + data.len()]),
            BAR0 => controller.read(offset, data),
            _ => {}
        }
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Outcome {
        if region == BAR0 {
            self.lock().write(offset, data);
        }
        Outcome::Done
    }

    fn dma_map(&mut self, map: DmaMap) -> Result<(), Errno> {
        let fd = map.fd.ok_or(Errno::INVAL)?;
        let area = MappedArea::new(fd.as_fd(), map.offset, map.size as usize).map_err(|_| Errno::INVAL)?;
        self.lock().memory.push((map.addr, area));
        Ok(())
    }

    fn dma_unmap(&mut self, range: DmaUnmap) -> Result<Outcome, Errno> {
        if let DmaUnmap::Range { addr, .. } = range {
            self.lock().memory.retain(|(iova, _)| *iova != addr);
        }
        Ok(Outcome::Done)
    }

    fn set_irqs(&mut self, irqs: SetIrqs) -> Result<(), Errno> {
        if let (IrqAction::Trigger, IrqData::Eventfd(fds)) = (irqs.action, irqs.data) {
            let fds = fds.into_iter().map(|fd| nvmet_dma::EventFd::from_client(fd).unwrap());
            self.lock().interrupts.extend(fds);
        }
        Ok(())
    }

    fn reset(&mut self) -> Outcome {
        self.lock().reset();
        Outcome::Done
    }

    fn poll(&mut self, _: Instant) -> Outcome {
        Outcome::Done
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }
}
