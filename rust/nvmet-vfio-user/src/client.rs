//! A vfio-user client: for hosts that drive a device from user space, and for tests.
//!
//! Unlike simpler clients it reads whatever arrives by its header, so an error reply is an [`ClientError::Refused`]
//! and not a wait for ever; every exchange has a deadline. One command is outstanding at a time. A client whose
//! exchange failed half-way is out of step with the server and refuses to go on.

mod exchange;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zerocopy::{FromBytes, IntoBytes};

use crate::Errno;
use crate::caps::{self, CapsError, PeerCaps};
use crate::device::{DeviceInfo, IrqAction, IrqFlags, IrqInfo, RegionFlags};
use crate::wire::{self, command};
use exchange::Exchange;

/// How a client presents itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// With capabilities, as QEMU does.
    Capabilities,
    /// With version numbers only, as SPDK's initiator does. Servers offer such a client mapped doorbells.
    Bare,
}

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// How it presents itself.
    pub profile: Profile,
    /// How long one exchange may take.
    pub timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { profile: Profile::Capabilities, timeout: Duration::from_secs(5) }
    }
}

/// Why the client did not get what it wanted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no server.
    #[error("cannot connect to {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server answered with an error. The connection goes on.
    #[error("the server refused command {command}: {errno}")]
    Refused {
        /// Number of the command.
        command: u16,
        /// What it said.
        errno: Errno,
    },
    /// No answer in time.
    #[error("no answer to command {0} in time")]
    Timeout(u16),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Socket(Errno),
    /// The server said something that is not vfio-user.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// The server's capabilities cannot be read.
    #[error(transparent)]
    Capabilities(#[from] CapsError),
    /// The request cannot be put into a message.
    #[error("invalid request: {0}")]
    Invalid(&'static str),
    /// An earlier exchange failed half-way.
    #[error("the connection is out of step since an earlier error; connect anew")]
    OutOfStep,
}

/// A region as the server describes it.
#[derive(Debug)]
pub struct ClientRegion {
    /// Bytes, 0 if absent.
    pub size: u64,
    /// Allowed accesses by message.
    pub flags: RegionFlags,
    /// Offset of the region in `fd`.
    pub file_offset: u64,
    /// The parts that can be mapped: `(offset in the region, bytes)`.
    pub areas: Vec<(u64, u64)>,
    /// The file to map, if any part can be.
    pub fd: Option<OwnedFd>,
}

/// A range of memory to make known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRange {
    /// First I/O virtual address.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// Offset in the file.
    pub offset: u64,
    /// The device may read.
    pub readable: bool,
    /// The device may write.
    pub writable: bool,
}

/// A connection to a vfio-user server.
#[derive(Debug)]
pub struct Client {
    exchange: Exchange,
    server: PeerCaps,
}

impl Client {
    /// Connects to the socket at `path` and negotiates the version.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn connect(path: impl AsRef<Path>, options: ClientOptions) -> Result<Self, ClientError> {
        let path = path.as_ref();
        let stream = UnixStream::connect(path)
            .map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
        Self::from_stream(stream, options)
    }

    /// Negotiates the version on a stream that is connected already.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn from_stream(stream: UnixStream, options: ClientOptions) -> Result<Self, ClientError> {
        let mut client =
            Self { exchange: Exchange::new(stream, options.timeout), server: PeerCaps::default() };
        let version = wire::Version { major: wire::VERSION_MAJOR, minor: wire::VERSION_MINOR };
        let json = match options.profile {
            Profile::Capabilities => caps::request(wire::SERVER_MAX_MSG_FDS),
            Profile::Bare => Vec::new(),
        };
        let (reply, _) = client.exchange.call(command::VERSION, &[version.as_bytes(), &json], &[])?;
        let (answer, data) = prefix::<wire::Version>(&reply)?;
        if answer.major != version.major || answer.minor > version.minor {
            return Err(ClientError::Protocol("a version that was not proposed"));
        }
        client.server = caps::parse(data)?;
        Ok(client)
    }

    /// What the server announced.
    pub fn server(&self) -> &PeerCaps {
        &self.server
    }

    /// DEVICE_GET_INFO.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn device_info(&mut self) -> Result<DeviceInfo, ClientError> {
        let ask = wire::DeviceInfo { argsz: size_of::<wire::DeviceInfo>() as u32, ..Default::default() };
        let (reply, _) = self.exchange.call(command::DEVICE_GET_INFO, &[ask.as_bytes()], &[])?;
        let (info, _) = prefix::<wire::DeviceInfo>(&reply)?;
        Ok(DeviceInfo {
            num_regions: info.num_regions,
            num_irqs: info.num_irqs,
            resettable: info.flags & wire::VFIO_DEVICE_FLAGS_RESET != 0,
        })
    }

    /// DEVICE_GET_REGION_INFO, with the parts that can be mapped and their file.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn region_info(&mut self, index: u32) -> Result<ClientRegion, ClientError> {
        let mut argsz = size_of::<wire::RegionInfo>() as u32;
        let mut asked = 0;
        let (info, reply, fd) = loop {
            let ask = wire::RegionInfo { argsz, index, ..Default::default() };
            let (reply, fds) = self.exchange.call(command::DEVICE_GET_REGION_INFO, &[ask.as_bytes()], &[])?;
            let (info, _) = prefix::<wire::RegionInfo>(&reply)?;
            asked += 1;
            if info.argsz <= argsz || asked == 2 {
                break (info, reply, fds.into_iter().next());
            }
            argsz = info.argsz;
        };
        Ok(ClientRegion {
            size: info.size,
            flags: RegionFlags {
                read: info.flags & wire::VFIO_REGION_INFO_FLAG_READ != 0,
                write: info.flags & wire::VFIO_REGION_INFO_FLAG_WRITE != 0,
            },
            file_offset: info.offset,
            areas: sparse_areas(&info, &reply)?,
            fd: fd.filter(|_| info.flags & wire::VFIO_REGION_INFO_FLAG_MMAP != 0),
        })
    }

    /// DEVICE_GET_IRQ_INFO.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn irq_info(&mut self, index: u32) -> Result<IrqInfo, ClientError> {
        let ask = wire::IrqInfo { argsz: size_of::<wire::IrqInfo>() as u32, index, ..Default::default() };
        let (reply, _) = self.exchange.call(command::DEVICE_GET_IRQ_INFO, &[ask.as_bytes()], &[])?;
        let (info, _) = prefix::<wire::IrqInfo>(&reply)?;
        Ok(IrqInfo {
            count: info.count,
            flags: IrqFlags {
                eventfd: info.flags & wire::VFIO_IRQ_INFO_EVENTFD != 0,
                maskable: info.flags & wire::VFIO_IRQ_INFO_MASKABLE != 0,
                automasked: info.flags & wire::VFIO_IRQ_INFO_AUTOMASKED != 0,
                noresize: info.flags & wire::VFIO_IRQ_INFO_NORESIZE != 0,
            },
        })
    }

    /// REGION_READ of `data.len()` bytes.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), ClientError> {
        let access = self.access(region, offset, data.len())?;
        let (reply, _) = self.exchange.call(command::REGION_READ, &[access.as_bytes()], &[])?;
        let (answer, read) = prefix::<wire::RegionAccess>(&reply)?;
        if answer.count != access.count || read.len() != data.len() {
            return Err(ClientError::Protocol("a read of another length"));
        }
        data.copy_from_slice(read);
        Ok(())
    }

    /// REGION_WRITE; when this returns, the device has taken it.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), ClientError> {
        let access = self.access(region, offset, data.len())?;
        self.exchange.call(command::REGION_WRITE, &[access.as_bytes(), data], &[])?;
        Ok(())
    }

    /// REGION_WRITE that is not answered. A later command is handled after it.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`] but `Refused`.
    pub fn region_write_posted(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), ClientError> {
        let access = self.access(region, offset, data.len())?;
        self.exchange.post(command::REGION_WRITE, &[access.as_bytes(), data])
    }

    /// DMA_MAP, with the file that holds the memory.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn dma_map(&mut self, range: MapRange, fd: Option<BorrowedFd<'_>>) -> Result<(), ClientError> {
        let read = if range.readable { wire::dma_map_flags::READ } else { 0 };
        let write = if range.writable { wire::dma_map_flags::WRITE } else { 0 };
        let map = wire::DmaMap {
            argsz: size_of::<wire::DmaMap>() as u32,
            flags: read | write,
            offset: range.offset,
            addr: range.addr,
            size: range.size,
        };
        self.exchange.call(command::DMA_MAP, &[map.as_bytes()], fd.as_slice())?;
        Ok(())
    }

    /// DMA_UNMAP of exactly one range that was mapped.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn dma_unmap(&mut self, addr: u64, size: u64) -> Result<(), ClientError> {
        self.unmap(0, addr, size)
    }

    /// DMA_UNMAP of everything.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn dma_unmap_all(&mut self) -> Result<(), ClientError> {
        self.unmap(wire::dma_unmap_flags::ALL, 0, 0)
    }

    /// Assigns one eventfd a vector, in as many messages as the server's `max_msg_fds` makes necessary.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; if a message in the middle is refused, those before it stay in force.
    pub fn set_irq_eventfds(
        &mut self,
        index: u32,
        start: u32,
        eventfds: &[impl AsFd],
    ) -> Result<(), ClientError> {
        let fds: Vec<BorrowedFd<'_>> = eventfds.iter().map(AsFd::as_fd).collect();
        let most = self.server.max_msg_fds.min(wire::ACCEPTED_MSG_FDS as u32).max(1) as usize;
        let mut first = start;
        for chunk in fds.chunks(most) {
            let flags = wire::VFIO_IRQ_SET_DATA_EVENTFD | wire::VFIO_IRQ_SET_ACTION_TRIGGER;
            self.set_irqs(flags, index, first, chunk.len() as u32, chunk)?;
            first =
                first.checked_add(chunk.len() as u32).ok_or(ClientError::Invalid("vector numbers wrap"))?;
        }
        Ok(())
    }

    /// Takes the eventfds of some vectors away.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn clear_irq_eventfds(&mut self, index: u32, start: u32, count: u32) -> Result<(), ClientError> {
        let flags = wire::VFIO_IRQ_SET_DATA_EVENTFD | wire::VFIO_IRQ_SET_ACTION_TRIGGER;
        self.set_irqs(flags, index, start, count, &[])
    }

    /// Disables all vectors of a type.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn disable_irqs(&mut self, index: u32) -> Result<(), ClientError> {
        self.act_on_irqs(index, 0, 0, IrqAction::Trigger)
    }

    /// Masks, unmasks or fires some vectors.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn act_on_irqs(
        &mut self,
        index: u32,
        start: u32,
        count: u32,
        action: IrqAction,
    ) -> Result<(), ClientError> {
        let action = match action {
            IrqAction::Mask => wire::VFIO_IRQ_SET_ACTION_MASK,
            IrqAction::Unmask => wire::VFIO_IRQ_SET_ACTION_UNMASK,
            IrqAction::Trigger => wire::VFIO_IRQ_SET_ACTION_TRIGGER,
        };
        self.set_irqs(wire::VFIO_IRQ_SET_DATA_NONE | action, index, start, count, &[])
    }

    /// DEVICE_RESET.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn reset(&mut self) -> Result<(), ClientError> {
        self.exchange.call(command::DEVICE_RESET, &[], &[])?;
        Ok(())
    }

    /// Any command with any body: gives the body of the reply and the file descriptors that came with it.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub fn raw(
        &mut self,
        command: u16,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Vec<u8>, Vec<OwnedFd>), ClientError> {
        self.exchange.call(command, &[body], fds)
    }

    fn access(&self, region: u32, offset: u64, len: usize) -> Result<wire::RegionAccess, ClientError> {
        let most = self.server.max_data_xfer_size.min(wire::DEFAULT_MAX_DATA_XFER_SIZE);
        match u32::try_from(len) {
            Ok(count) if count <= most => Ok(wire::RegionAccess { offset, region, count }),
            _ => Err(ClientError::Invalid("more data than the server takes in one message")),
        }
    }

    fn unmap(&mut self, flags: u32, addr: u64, size: u64) -> Result<(), ClientError> {
        let unmap = wire::DmaUnmap { argsz: size_of::<wire::DmaUnmap>() as u32, flags, addr, size };
        self.exchange.call(command::DMA_UNMAP, &[unmap.as_bytes()], &[])?;
        Ok(())
    }

    fn set_irqs(
        &mut self,
        flags: u32,
        index: u32,
        start: u32,
        count: u32,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ClientError> {
        let set = wire::IrqSet { argsz: size_of::<wire::IrqSet>() as u32, flags, index, start, count };
        self.exchange.call(command::DEVICE_SET_IRQS, &[set.as_bytes()], fds)?;
        Ok(())
    }
}

fn prefix<T: FromBytes>(bytes: &[u8]) -> Result<(T, &[u8]), ClientError> {
    T::read_from_prefix(bytes).map_err(|_| ClientError::Protocol("a reply that is too short"))
}

/// Walks the capabilities of a region. Offsets count from the start of the reply's body and must grow.
fn sparse_areas(info: &wire::RegionInfo, reply: &[u8]) -> Result<Vec<(u64, u64)>, ClientError> {
    let mut areas = Vec::new();
    let (mut next, mut last) = (info.cap_offset, 0);
    if info.flags & wire::VFIO_REGION_INFO_FLAG_CAPS == 0 {
        return Ok(areas);
    }
    while next != 0 {
        if next <= last {
            return Err(ClientError::Protocol("capabilities that loop"));
        }
        last = next;
        let (cap, rest) = prefix::<wire::CapHeader>(reply.get(next as usize..).unwrap_or_default())?;
        next = cap.next;
        if u32::from(cap.id) != wire::VFIO_REGION_INFO_CAP_SPARSE_MMAP {
            continue;
        }
        let ([count, _], mut rest) = prefix::<[u32; 2]>(rest)?;
        for _ in 0..count {
            let (area, after) = prefix::<wire::SparseArea>(rest)?;
            areas.push((area.offset, area.size));
            rest = after;
        }
    }
    Ok(areas)
}

#[cfg(test)]
mod tests;
