//! A toy device, a thread that serves it, and a peer that speaks bytes.

#![expect(dead_code, reason = "every test binary uses another part of this")]

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nvmet_vfio_user::listener::Listener;
use nvmet_vfio_user::reactor::{DeviceHandle, Reactor, ReactorHandle, ReactorOptions, Waker};
use nvmet_vfio_user::wire::{HEADER_SIZE, Header, command, flags};
use nvmet_vfio_user::*;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use zerocopy::{FromBytes, IntoBytes};

pub const BAR0: u32 = 0;
pub const CONFIG: u32 = 7;
pub const MSIX: u32 = 2;
pub const VECTORS: u32 = 64;

/// Writing here stays pending until [`Toy::finish`].
pub const SLOW: u64 = 0x20;
/// Writing here panics.
pub const BUG: u64 = 0x30;
/// Writing here takes note of the value.
pub const NOTE: u64 = 0x40;

/// A device with a BAR, a config space and MSI-X, which notes what happens to it.
pub struct Toy {
    pub waker: Waker,
    pub bar: Vec<u8>,
    pub config: Vec<u8>,
    pub doorbells: Option<Arc<OwnedFd>>,
    pub maps: BTreeMap<u64, DmaMap>,
    pub eventfds: Vec<Option<OwnedFd>>,
    pub pending: bool,
    pub slow_detach: bool,
    pub slow_unmap: bool,
    pub panic_on_detach: bool,
    pub finish_at: Option<Instant>,
    pub log: Log,
    pub client: Option<ClientInfo>,
}

pub type Log = Arc<Mutex<Vec<String>>>;

impl Toy {
    pub fn new(waker: Waker) -> Self {
        Self {
            waker,
            bar: (0..0x4000).map(|i| i as u8).collect(),
            config: (0..4096).map(|i| (i ^ 0x5a) as u8).collect(),
            doorbells: None,
            maps: BTreeMap::new(),
            eventfds: (0..VECTORS).map(|_| None).collect(),
            pending: false,
            slow_detach: false,
            slow_unmap: false,
            panic_on_detach: false,
            finish_at: None,
            log: Log::default(),
            client: None,
        }
    }

    pub fn with_doorbells(mut self) -> Self {
        let file = rustix::fs::memfd_create("doorbells", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 0x4000).unwrap();
        self.doorbells = Some(Arc::new(file));
        self
    }

    /// The pending operation has finished.
    pub fn finish(&mut self) {
        self.pending = false;
        self.waker.wake();
    }

    pub fn note(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }

    fn slow(&mut self, slow: bool) -> Outcome {
        self.pending |= slow;
        if slow { Outcome::Pending } else { Outcome::Done }
    }
}

impl Device for Toy {
    fn info(&self) -> DeviceInfo {
        DeviceInfo { num_regions: 9, num_irqs: 5, resettable: false }
    }

    fn region_info(&self, index: u32) -> RegionInfo {
        let size = match index {
            BAR0 => 0x4000,
            CONFIG => 4096,
            _ => return RegionInfo::default(),
        };
        let mmap = self.doorbells.clone().filter(|_| index == BAR0).map(|fd| RegionMmap {
            fd,
            file_offset: 0,
            offset: 0x1000,
            size: 0x1000,
        });
        RegionInfo { size, flags: RegionFlags { read: true, write: true }, mmap }
    }

    fn irq_info(&self, index: u32) -> IrqInfo {
        let count = match index {
            MSIX => VECTORS,
            3 => 1,
            _ => return IrqInfo::default(),
        };
        IrqInfo { count, flags: IrqFlags { eventfd: true, ..Default::default() } }
    }

    fn attached(&mut self, client: &ClientInfo) {
        self.client = Some(client.clone());
        self.note("attached");
    }

    fn detached(&mut self) -> Outcome {
        assert!(!self.panic_on_detach, "a bug that the test asked for");
        self.client = None;
        self.maps.clear();
        self.eventfds.fill_with(|| None);
        self.pending = false;
        self.note("detached");
        self.slow(self.slow_detach)
    }

    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        let memory = if region == BAR0 { &self.bar } else { &self.config };
        data.copy_from_slice(&memory[offset as usize..][..data.len()]);
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Outcome {
        let memory = if region == BAR0 { &mut self.bar } else { &mut self.config };
        memory[offset as usize..][..data.len()].copy_from_slice(data);
        match (region, offset) {
            (BAR0, BUG) => panic!("a bug that the test asked for"),
            (BAR0, SLOW) => return self.slow(true),
            (BAR0, NOTE) => self.note(format!("write {data:?}")),
            _ => {}
        }
        Outcome::Done
    }

    fn dma_map(&mut self, map: DmaMap) -> Result<(), Errno> {
        if self.maps.contains_key(&map.addr) {
            return Err(Errno::EXIST);
        }
        self.maps.insert(map.addr, map);
        Ok(())
    }

    fn dma_unmap(&mut self, range: DmaUnmap) -> Result<Outcome, Errno> {
        match range {
            DmaUnmap::All => self.maps.clear(),
            DmaUnmap::Range { addr, size } => match self.maps.get(&addr) {
                None => return Err(Errno::NOENT),
                Some(map) if map.size != size => return Err(Errno::INVAL),
                Some(_) => drop(self.maps.remove(&addr)),
            },
        }
        Ok(self.slow(self.slow_unmap))
    }

    fn set_irqs(&mut self, irqs: SetIrqs) -> Result<(), Errno> {
        if irqs.index != MSIX || irqs.action != IrqAction::Trigger {
            return Err(Errno::INVAL);
        }
        let range = irqs.start as usize..(irqs.start + irqs.count) as usize;
        match irqs.data {
            IrqData::Eventfd(fds) if fds.is_empty() => self.eventfds[range].fill_with(|| None),
            IrqData::Eventfd(fds) => range.zip(fds).for_each(|(i, fd)| self.eventfds[i] = Some(fd)),
            IrqData::None if irqs.count == 0 => self.eventfds.fill_with(|| None),
            IrqData::None => range.for_each(|i| self.fire(i)),
            IrqData::Bool(which) => {
                range.zip(which).filter(|(_, fire)| *fire).for_each(|(i, _)| self.fire(i));
            }
        }
        Ok(())
    }

    fn reset(&mut self) -> Outcome {
        self.note("reset");
        Outcome::Done
    }

    fn poll(&mut self, now: Instant) -> Outcome {
        if self.finish_at.take_if(|at| *at <= now).is_some() {
            self.pending = false;
        }
        if self.pending { Outcome::Pending } else { Outcome::Done }
    }

    fn deadline(&self) -> Option<Instant> {
        self.finish_at
    }
}

impl Toy {
    pub fn fire(&self, vector: usize) {
        if let Some(eventfd) = &self.eventfds[vector] {
            rustix::io::write(eventfd, &1u64.to_ne_bytes()).unwrap();
        }
    }
}

/// A reactor in a thread of its own.
pub struct Served {
    pub reactor: ReactorHandle,
    pub directory: tempfile::TempDir,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Served {
    pub fn new() -> Self {
        Self::with(ReactorOptions::default())
    }

    pub fn with(options: ReactorOptions) -> Self {
        let reactor = Reactor::new(options).unwrap();
        let handle = reactor.handle();
        let thread = thread::spawn(|| reactor.run());
        Self { reactor: handle, directory: tempfile::tempdir().unwrap(), thread: Some(thread) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn add(&self, name: &str, change: impl FnOnce(Toy) -> Toy + Send + 'static) -> DeviceHandle<Toy> {
        let listener = Listener::bind(self.path(name)).unwrap();
        self.reactor.add(listener, move |waker| change(Toy::new(waker))).unwrap()
    }

    pub fn stop(&mut self) {
        self.reactor.stop();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.thread.is_some() && !thread::panicking() {
            self.stop();
        }
    }
}

/// Calls into the device until `is` holds. Fails after half a minute, which nothing here takes.
pub fn eventually(device: &DeviceHandle<Toy>, is: impl Fn(&mut Toy) -> bool + Clone + Send + 'static) {
    let by = Instant::now() + Duration::from_secs(30);
    while !device.call(is.clone()).unwrap() {
        assert!(Instant::now() < by, "it never came to be");
        thread::yield_now();
    }
}

/// A peer that speaks bytes.
pub struct Peer(pub UnixStream);

impl Peer {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(stream)
    }

    /// Connected, with VERSION negotiated as QEMU does.
    pub fn ready(path: &Path) -> Self {
        let mut peer = Self::connect(path);
        peer.send(&version(QEMU_JSON));
        assert_eq!(peer.reply().0.flags, flags::TYPE_REPLY);
        peer
    }

    pub fn send(&self, bytes: &[u8]) {
        self.send_fds(bytes, &[]);
    }

    pub fn send_fds(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = vec![MaybeUninit::uninit(); 4096];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
        let sent =
            rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(sent, bytes.len());
    }

    /// One `recvmsg`, as SPDK and Cloud Hypervisor do: a reply that did not come in one piece is not whole.
    pub fn reply_with_fds(&mut self) -> (Header, Vec<u8>, Vec<OwnedFd>) {
        let mut bytes = vec![0; 8192];
        let mut space = [MaybeUninit::uninit(); 256];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let got = rustix::net::recvmsg(&self.0, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let mut fds = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(arrived) = part {
                fds.extend(arrived);
            }
        }
        let (header, body) = Header::read_from_prefix(&bytes[..got.bytes]).expect("the peer closed");
        assert_eq!(header.size as usize, got.bytes, "the reply came in one piece");
        (header, body.to_vec(), fds)
    }

    pub fn reply(&mut self) -> (Header, Vec<u8>) {
        let (header, body, _) = self.reply_with_fds();
        (header, body)
    }

    pub fn call(&mut self, command: u16, body: &[u8]) -> (Header, Vec<u8>) {
        self.send(&message(7, command, 0, body));
        let (header, body) = self.reply();
        assert_eq!((header.id, header.command), (7, command));
        (header, body)
    }

    /// Waits for the end of the connection; what arrives until then is given.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "no end in sight"),
        }
        bytes
    }
}

pub const QEMU_JSON: &[u8] =
    b"{\"capabilities\":{\"pgsizes\":4096,\"max_msg_fds\":16,\"max_dma_maps\":65535,\
    \"max_data_xfer_size\":1048576,\"migration\":{\"max_bitmap_size\":268435456,\"pgsize\":4096},\
    \"write_multiple\":true}}\0";

pub fn message(id: u16, command: u16, flags: u32, body: &[u8]) -> Vec<u8> {
    let size = (HEADER_SIZE + body.len()) as u32;
    [Header { id, command, size, flags, errno: 0 }.as_bytes(), body].concat()
}

pub fn version(json: &[u8]) -> Vec<u8> {
    message(1, command::VERSION, 0, &[&[0; 4], json].concat())
}

pub fn access(region: u32, offset: u64, count: u32, data: &[u8]) -> Vec<u8> {
    [wire::RegionAccess { offset, region, count }.as_bytes(), data].concat()
}

pub fn write(region: u32, offset: u64, data: &[u8]) -> Vec<u8> {
    access(region, offset, data.len() as u32, data)
}

pub fn eventfd() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC)
        .unwrap()
}

/// What an eventfd counted since it was last asked.
pub fn fired(eventfd: impl AsFd) -> u64 {
    let mut count = [0; 8];
    rustix::io::read(&eventfd, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
}

pub fn memory(size: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, size).unwrap();
    file
}
