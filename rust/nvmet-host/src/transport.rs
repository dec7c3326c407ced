//! The connection to the server: PCI configuration, BAR0 registers, memory maps, interrupts.
//!
//! The one place that talks to the socket. Everything goes through a mutex, so queues on other threads can ring trapped
//! doorbells; mapped doorbells bypass it.

use crate::{
    ClientProfile, DoorbellPolicy, HostConfig, HostError,
    pci::{self, PciIdentity},
};
use nvmet_dma::{EventFd, MappedArea, SharedMemory};
use nvmet_spec::pci::{Command, MsixCapability, MsixControl, capability, header::COMMAND};
use nvmet_spec::registers::{self, Csts, DOORBELL_BASE};
use nvmet_vfio_user::Errno;
use nvmet_vfio_user::client::{Client, ClientError, ClientOptions, MapRange, Profile};
use nvmet_vfio_user::wire::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
};
use std::{
    mem::offset_of,
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// An MSI-X vector's eventfd.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    eventfd: Arc<EventFd>,
}

impl Interrupt {
    pub(crate) fn eventfd(&self) -> &EventFd {
        &self.eventfd
    }

    /// Waits until the vector fires or `timeout` is over, whichever comes first, and takes the event.
    pub(crate) fn wait(&self, timeout: Duration) -> Result<(), HostError> {
        wait_any(std::slice::from_ref(self), timeout)
    }
}

/// What a thread sleeps on that waits for several queues.
#[derive(Debug)]
pub(crate) enum Bell {
    /// The queues' interrupts.
    Interrupts(Vec<Interrupt>),
    /// There are none: a nap, longer each time.
    Nap(Duration),
}

impl Bell {
    const FIRST_NAP: Duration = Duration::from_micros(20);
    const LONGEST_NAP: Duration = Duration::from_millis(1);

    /// The bell of the queues that use `vectors`; naps where one of them is not armed.
    pub(crate) fn of(transport: &Transport, vectors: &[u16]) -> Self {
        let all: Option<Vec<_>> = vectors.iter().map(|&vector| transport.interrupt(vector)).collect();
        all.map_or(Self::Nap(Self::FIRST_NAP), Self::Interrupts)
    }

    /// Sleeps until it may be worth a look, at most for `timeout`, and takes the events.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<(), HostError> {
        match self {
            Self::Interrupts(interrupts) => wait_any(interrupts, timeout),
            Self::Nap(nap) => {
                std::thread::sleep(timeout.min(*nap));
                *nap = (*nap * 2).min(Self::LONGEST_NAP);
                Ok(())
            }
        }
    }
}

/// Waits until one of `interrupts` fires or `timeout` is over, and takes the events of all.
fn wait_any(interrupts: &[Interrupt], timeout: Duration) -> Result<(), HostError> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    let mut fds: Vec<_> = interrupts.iter().map(|one| PollFd::new(&*one.eventfd, PollFlags::IN)).collect();
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(HostError::Eventfd(errno.into())),
    }
    interrupts.iter().try_for_each(|one| one.eventfd.drain().map(drop).map_err(HostError::Eventfd))
}

/// A doorbell page that the server lets us map.
#[derive(Debug)]
struct MappedDoorbells {
    area: Arc<MappedArea>,
    /// Offset of the area in BAR0.
    offset: u64,
}

/// An attached client and what it found.
#[derive(Debug)]
pub(crate) struct Transport {
    /// `None` once closed.
    client: Mutex<Option<Client>>,
    identity: PciIdentity,
    doorbells: Option<MappedDoorbells>,
    interrupts: Vec<Interrupt>,
}

impl Transport {
    /// Connects to `path`, checks that an NVMe controller answers, enables bus mastering, maps doorbells if offered and
    /// wanted, and arms `config.vectors` interrupts.
    pub(crate) fn attach(path: &Path, config: &HostConfig) -> Result<Self, HostError> {
        let path = socket_of(path);
        let mut client = connect(&path, config)?;
        let mut header = [0; pci::HEADER_BYTES];
        let space = VFIO_PCI_CONFIG_REGION_INDEX;
        client.region_read(space, 0, &mut header).map_err(failed("reading configuration space"))?;
        let identity = pci::identify(&header, &path)?;
        enable_function(&mut client, &header)?;
        let doorbells = match config.doorbells {
            DoorbellPolicy::Registers | DoorbellPolicy::Shadow => None,
            DoorbellPolicy::Auto | DoorbellPolicy::NoShadow | DoorbellPolicy::Mapped => {
                map_doorbells(&mut client)?
            }
        };
        let interrupts = arm(&mut client, &header, config.vectors)?;
        Ok(Self { client: Mutex::new(Some(client)), identity, doorbells, interrupts })
    }

    fn with<T>(
        &self,
        what: &'static str,
        exchange: impl FnOnce(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, HostError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        match client.as_mut() {
            Some(client) => exchange(client).map_err(failed(what)),
            None => Err(HostError::Connection { what, detail: "the drive is detached".into() }),
        }
    }

    /// Closes the connection now, whoever else still holds this transport.
    pub(crate) fn close(&self) {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    pub(crate) fn identity(&self) -> PciIdentity {
        self.identity
    }

    pub(crate) fn has_mapped_doorbells(&self) -> bool {
        self.doorbells.is_some()
    }

    /// Number of armed vectors.
    pub(crate) fn vectors(&self) -> u16 {
        u16::try_from(self.interrupts.len()).unwrap_or(u16::MAX)
    }

    /// The eventfd of `vector`.
    pub(crate) fn interrupt(&self, vector: u16) -> Option<Interrupt> {
        self.interrupts.get(usize::from(vector)).cloned()
    }

    /// Reads region `region`.
    pub(crate) fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), HostError> {
        self.with("reading a register", |client| client.region_read(region, offset, data))
    }

    /// Writes region `region` and waits for the reply.
    pub(crate) fn write(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), HostError> {
        self.with("writing a register", |client| client.region_write(region, offset, data))
    }

    /// Reads 4 bytes of BAR0.
    pub(crate) fn reg32(&self, offset: u64) -> Result<u32, HostError> {
        let mut bytes = [0; 4];
        self.read(VFIO_PCI_BAR0_REGION_INDEX, offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads 8 bytes of BAR0.
    pub(crate) fn reg64(&self, offset: u64) -> Result<u64, HostError> {
        let mut bytes = [0; 8];
        self.read(VFIO_PCI_BAR0_REGION_INDEX, offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes 4 bytes of BAR0.
    pub(crate) fn set_reg32(&self, offset: u64, value: u32) -> Result<(), HostError> {
        self.write(VFIO_PCI_BAR0_REGION_INDEX, offset, &value.to_le_bytes())
    }

    /// Writes 8 bytes of BAR0.
    pub(crate) fn set_reg64(&self, offset: u64, value: u64) -> Result<(), HostError> {
        self.write(VFIO_PCI_BAR0_REGION_INDEX, offset, &value.to_le_bytes())
    }

    /// Writes a doorbell by message, without waiting for the server.
    pub(crate) fn post_doorbell(&self, offset: u64, value: u32) -> Result<(), HostError> {
        self.with("ringing a doorbell", |client| {
            client.region_write_posted(VFIO_PCI_BAR0_REGION_INDEX, offset, &value.to_le_bytes())
        })
    }

    /// The mapped page that holds the doorbell at `offset` of BAR0, and where in it.
    pub(crate) fn mapped_doorbell(&self, offset: u64) -> Option<(Arc<MappedArea>, usize)> {
        let page = self.doorbells.as_ref()?;
        let at = usize::try_from(offset.checked_sub(page.offset)?).ok()?;
        (at.checked_add(4)? <= page.area.len()).then(|| (Arc::clone(&page.area), at))
    }

    /// Asks whether the controller is alive: it answers, and says neither CFS nor all ones.
    pub(crate) fn check_health(&self) -> Result<(), HostError> {
        let csts = self.reg32(registers::CSTS)?;
        if csts == u32::MAX || Csts::from_bits(csts).cfs() {
            return Err(HostError::Fatal { csts });
        }
        Ok(())
    }

    /// DMA_MAP of a whole memfd, readable and writable.
    pub(crate) fn dma_map(&self, memory: &SharedMemory, iova: u64) -> Result<(), HostError> {
        let range =
            MapRange { addr: iova, size: memory.len() as u64, offset: 0, readable: true, writable: true };
        self.with("mapping host memory (DMA_MAP)", |client| client.dma_map(range, Some(memory.fd())))
    }

    /// DMA_UNMAP.
    pub(crate) fn dma_unmap(&self, iova: u64, size: u64) -> Result<(), HostError> {
        self.with("unmapping host memory (DMA_UNMAP)", |client| client.dma_unmap(iova, size))
    }

    /// DEVICE_RESET.
    pub(crate) fn reset(&self) -> Result<(), HostError> {
        self.with("resetting the device (DEVICE_RESET)", Client::reset)
    }
}

/// A directory stands for the socket `cntrl` in it, as SPDK's target makes it.
fn socket_of(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("cntrl") } else { path.to_owned() }
}

fn connect(path: &Path, config: &HostConfig) -> Result<Client, HostError> {
    let stream = connect_socket(path, config.timeout)?;
    let profile = match config.profile {
        ClientProfile::Json => Profile::Capabilities,
        ClientProfile::Bare => Profile::Bare,
    };
    let options = ClientOptions { profile, timeout: config.timeout };
    Client::from_stream(stream, options).map_err(|error| match error {
        ClientError::Closed | ClientError::Socket(Errno::PIPE | Errno::CONNRESET) => {
            HostError::Busy { path: path.to_owned() }
        }
        ClientError::Timeout(_) => HostError::Timeout { what: "the server's version", after: config.timeout },
        other => HostError::NotVfioUser { path: path.to_owned(), detail: other.to_string() },
    })
}

/// Connects without ever waiting in the kernel: a server that accepts nobody leaves a full queue, and `connect` would
/// wait in it for ever.
fn connect_socket(path: &Path, timeout: Duration) -> Result<UnixStream, HostError> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let refused = |source: Errno| match source {
        Errno::NOENT => HostError::SocketMissing { path: path.to_owned() },
        Errno::CONNREFUSED => HostError::SocketRefused { path: path.to_owned() },
        Errno::AGAIN => HostError::Timeout { what: "the server to accept the connection", after: timeout },
        other => HostError::Connect { path: path.to_owned(), source: other.into() },
    };
    let address = SocketAddrUnix::new(path).map_err(refused)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(refused)?;
    let deadline = Instant::now() + timeout;
    loop {
        match connect(&socket, &address) {
            Ok(()) => break,
            // There is no event for room in the queue of a listener.
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(refused(errno)),
        }
    }
    let stream = UnixStream::from(socket);
    let blocking = stream.set_nonblocking(false);
    blocking.map_err(|source| HostError::Connect { path: path.to_owned(), source })?;
    Ok(stream)
}

/// Turns a client's error into ours, saying what was tried.
fn failed(what: &'static str) -> impl FnOnce(ClientError) -> HostError {
    move |error| {
        let detail = match error {
            ClientError::Closed => {
                "the server closed the connection; is the target still running?".to_owned()
            }
            ClientError::Timeout(_) => "no answer in time; the target may be stuck or stopped".to_owned(),
            other => other.to_string(),
        };
        HostError::Connection { what, detail }
    }
}

/// Sets Memory Space Enable and Bus Master Enable.
fn enable_function(client: &mut Client, header: &[u8]) -> Result<(), HostError> {
    let command =
        Command::from_bits(pci::word(header, COMMAND)).with_memory_space(true).with_bus_master(true);
    client
        .region_write(VFIO_PCI_CONFIG_REGION_INDEX, COMMAND as u64, &command.into_bits().to_le_bytes())
        .map_err(failed("enabling bus mastering"))
}

/// Maps the part of BAR0 that begins with the doorbells, if the server offers it.
fn map_doorbells(client: &mut Client) -> Result<Option<MappedDoorbells>, HostError> {
    let region = client.region_info(VFIO_PCI_BAR0_REGION_INDEX).map_err(failed("asking about BAR0"))?;
    if region.size < DOORBELL_BASE + 8 {
        return Err(HostError::Unsupported(format!(
            "BAR0 has {} bytes, too few for the registers and the admin doorbells",
            region.size
        )));
    }
    let Some(fd) = region.fd else { return Ok(None) };
    // Without a list of areas all of the region can be mapped.
    let areas = if region.areas.is_empty() { vec![(0, region.size)] } else { region.areas };
    let holds_doorbells = |&(offset, size): &(u64, u64)| {
        offset <= DOORBELL_BASE && offset.checked_add(size).is_some_and(|end| end >= DOORBELL_BASE + 8)
    };
    let Some((offset, size)) = areas.into_iter().find(holds_doorbells) else { return Ok(None) };
    let bytes = usize::try_from(size.min(region.size)).unwrap_or(usize::MAX);
    let at = region.file_offset.saturating_add(offset);
    let area = MappedArea::new(fd.as_fd(), at, bytes).map_err(|error| HostError::Memory {
        what: "map doorbells",
        bytes,
        detail: error.to_string(),
    })?;
    Ok(Some(MappedDoorbells { area: Arc::new(area), offset }))
}

/// Arms the first `vectors` MSI-X vectors with eventfds and sets MSI-X Enable.
fn arm(client: &mut Client, header: &[u8], vectors: u16) -> Result<Vec<Interrupt>, HostError> {
    if vectors == 0 {
        return Ok(Vec::new());
    }
    let index = VFIO_PCI_MSIX_IRQ_INDEX;
    let info = client.irq_info(index).map_err(failed("asking about interrupts"))?;
    if info.count < u32::from(vectors) {
        return Err(HostError::Unsupported(format!(
            "it has {} MSI-X vectors, {vectors} were asked for; ask for fewer, or for none to poll",
            info.count
        )));
    }
    let mut interrupts = Vec::with_capacity(usize::from(vectors));
    for _ in 0..vectors {
        interrupts.push(Interrupt { eventfd: Arc::new(EventFd::new().map_err(HostError::Eventfd)?) });
    }
    let eventfds: Vec<&EventFd> = interrupts.iter().map(Interrupt::eventfd).collect();
    client.set_irq_eventfds(index, 0, &eventfds).map_err(failed("arming interrupts"))?;
    let config = VFIO_PCI_CONFIG_REGION_INDEX;
    let mut read = |offset| {
        let mut bytes = [0; 2];
        client.region_read(config, offset, &mut bytes).map_err(failed("reading a PCI capability"))?;
        Ok(u16::from_le_bytes(bytes))
    };
    if let Some(capability) = pci::find_capability(header, capability::MSIX, &mut read)? {
        let at = capability + offset_of!(MsixCapability, control) as u64;
        let control = MsixControl::from_bits(read(at)?).with_enable(true).with_function_mask(false);
        client
            .region_write(config, at, &control.into_bits().to_le_bytes())
            .map_err(failed("enabling MSI-X"))?;
    }
    Ok(interrupts)
}
