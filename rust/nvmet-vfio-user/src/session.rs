//! What one client may do and what it is answered: messages in, replies out, free of I/O.
//!
//! A session begins with VERSION and ends when its connection does. It calls the device and keeps the one reply that
//! waits for a pending operation.
//!
//! # Clients that cannot read errors
//!
//! Cloud Hypervisor's client waits for the full structure of a reply whatever its flags say, so an error reply to a
//! region access, DEVICE_GET_INFO, DEVICE_GET_IRQ_INFO or DMA_UNMAP stops a virtual CPU for ever. Therefore, to
//! everybody: whatever well-formed access lies outside a region succeeds, reads as ones and writes nothing; absent
//! regions and interrupts are described as empty. DMA_UNMAP of what is not mapped succeeds for a client that is not
//! known to read errors, because what it wants holds; any other failure to unmap closes its connection, because
//! success would be a lie that lets the device write into memory that the client believes to be its own.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use zerocopy::IntoBytes;

use crate::caps;
use crate::decode::{IrqSelector, Request, decode};
use crate::device::{ClientInfo, Device, DeviceInfo, DmaMap, IrqData, IrqInfo, Outcome, RegionInfo, SetIrqs};
use crate::wire::{self, Header};
use crate::{Errno, encode};

/// Most regions and interrupt types that are asked of a device; clients refuse more.
const MAX_INDEXES: u32 = 100;

/// A reply on its way.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fd: Option<Arc<OwnedFd>>,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The reply is ready.
    Reply,
    /// The client wants no reply.
    Silent,
    /// The device goes on; [`Session::resume`] when it is done.
    Pending,
    /// The reply, if any, is ready; close when it is sent.
    Close(&'static str),
}

#[derive(Debug)]
struct Pending {
    header: Header,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Reset,
    Write(wire::RegionAccess),
    Unmap(wire::DmaUnmap),
    Multi { entries: std::vec::IntoIter<wire::MultiWrite>, count: u64 },
}

/// One client's session.
#[derive(Debug, Default)]
pub(crate) struct Session {
    client: Option<ClientInfo>,
    info: Option<DeviceInfo>,
    regions: Vec<RegionInfo>,
    irqs: Vec<IrqInfo>,
    pending: Option<Pending>,
}

impl Session {
    /// Whether VERSION was negotiated, so the device knows of the client.
    pub(crate) fn is_attached(&self) -> bool {
        self.client.is_some()
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Handles one message. Nothing may be pending.
    pub(crate) fn handle(
        &mut self,
        device: &mut dyn Device,
        header: &Header,
        body: &[u8],
        fds: Vec<OwnedFd>,
        out: &mut Reply,
    ) -> Step {
        out.fd = None;
        let result = match &self.client {
            None => self.negotiate(device, header, body, out),
            Some(client) => {
                let max_data = client.max_data_xfer_size.min(wire::DEFAULT_MAX_DATA_XFER_SIZE);
                decode(header.command, body, fds.len(), max_data)
                    .and_then(|request| self.serve(device, header, request, fds, out))
            }
        };
        let step = match result {
            Ok(step) => step,
            Err(errno) => {
                encode::error(&mut out.bytes, header, errno);
                if self.is_attached() { Step::Reply } else { Step::Close("no version was negotiated") }
            }
        };
        self.finish(step, header, out)
    }

    /// Goes on with the pending operation, which the device has finished.
    pub(crate) fn resume(&mut self, device: &mut dyn Device, out: &mut Reply) -> Step {
        let Some(Pending { header, then }) = self.pending.take() else { return Step::Silent };
        out.fd = None;
        let step = match then {
            Then::Reset => empty(&header, out),
            Then::Write(access) => {
                encode::reply(&mut out.bytes, &header, &[access.as_bytes()]);
                Step::Reply
            }
            Then::Unmap(echo) => {
                encode::reply(&mut out.bytes, &header, &[echo.as_bytes()]);
                Step::Reply
            }
            Then::Multi { entries, count } => self.write_multi(device, &header, entries, count, out),
        };
        self.finish(step, &header, out)
    }

    /// A client that wants no reply gets none, not even an error.
    fn finish(&mut self, step: Step, header: &Header, out: &mut Reply) -> Step {
        if !header.no_reply() {
            return step;
        }
        out.bytes.clear();
        out.fd = None;
        if step == Step::Reply { Step::Silent } else { step }
    }

    /// The first message must be VERSION with a major version that both speak.
    fn negotiate(
        &mut self,
        device: &mut dyn Device,
        header: &Header,
        body: &[u8],
        out: &mut Reply,
    ) -> Result<Step, Errno> {
        let Request::Version { version, data } = decode(header.command, body, 0, 0)? else {
            return Err(Errno::INVAL);
        };
        if version.major != wire::VERSION_MAJOR {
            return Err(Errno::NOTSUP);
        }
        let peer = caps::parse(data).map_err(|error| {
            tracing::warn!(%error, "a vfio-user client sent capabilities that cannot be read");
            Errno::INVAL
        })?;
        let minor = version.minor.min(wire::VERSION_MINOR);
        let answer = wire::Version { major: wire::VERSION_MAJOR, minor };
        let json = caps::reply(if peer.json { data.len() } else { 0 });
        encode::reply(&mut out.bytes, header, &[answer.as_bytes(), &json]);
        let client = ClientInfo {
            json: peer.json,
            reads_errors: peer.reads_errors,
            minor: version.minor,
            max_msg_fds: peer.max_msg_fds,
            max_data_xfer_size: peer.max_data_xfer_size,
        };
        tracing::debug!(?client, "a vfio-user client has negotiated its version");
        // From here on the device must be told when the client leaves, even if it panics in this very call.
        self.client = Some(client.clone());
        device.attached(&client);
        let info = device.info();
        self.regions =
            (0..info.num_regions.min(MAX_INDEXES)).map(|index| device.region_info(index)).collect();
        self.irqs = (0..info.num_irqs.min(MAX_INDEXES)).map(|index| device.irq_info(index)).collect();
        self.info = Some(info);
        Ok(Step::Reply)
    }

    fn serve(
        &mut self,
        device: &mut dyn Device,
        header: &Header,
        request: Request<'_>,
        fds: Vec<OwnedFd>,
        out: &mut Reply,
    ) -> Result<Step, Errno> {
        let bytes = &mut out.bytes;
        match request {
            Request::Version { .. } => return Err(Errno::INVAL),
            Request::GetInfo => encode::device_info(bytes, header, &self.info.ok_or(Errno::INVAL)?),
            Request::GetRegionInfo { index, argsz } => {
                let region = self.regions.get(index as usize).ok_or(Errno::INVAL)?;
                let can_send_fd = self.client.as_ref().is_some_and(|client| client.max_msg_fds > 0);
                if encode::region_info(bytes, header, index, argsz, region, can_send_fd) {
                    out.fd = region.mmap.as_ref().map(|mmap| mmap.fd.clone());
                }
            }
            Request::GetRegionIoFds { index } => {
                self.regions.get(index as usize).ok_or(Errno::INVAL)?;
                encode::region_io_fds(bytes, header, index);
            }
            Request::GetIrqInfo { index } => {
                let irq = self.irqs.get(index as usize).ok_or(Errno::INVAL)?;
                encode::irq_info(bytes, header, index, irq);
            }
            Request::SetIrqs { set, action, data } => {
                let irq = self.irqs.get(set.index as usize).ok_or(Errno::INVAL)?;
                if set.start.checked_add(set.count).is_none_or(|end| end > irq.count) {
                    return Err(Errno::INVAL);
                }
                let data = match data {
                    IrqSelector::None => IrqData::None,
                    IrqSelector::Bool(bools) => IrqData::Bool(bools.iter().map(|&b| b != 0).collect()),
                    IrqSelector::Eventfd => IrqData::Eventfd(fds),
                };
                let wire::IrqSet { index, start, count, .. } = set;
                device.set_irqs(SetIrqs { index, start, count, action, data })?;
                return Ok(empty(header, out));
            }
            Request::RegionRead(access) => {
                let inside = self.contains(&access);
                let data = encode::region_read(bytes, header, &access);
                if inside {
                    device.region_read(access.region, access.offset, data);
                }
            }
            Request::RegionWrite { access, data } => {
                if self.write(device, &access, data) == Outcome::Pending {
                    return Ok(self.wait(header, Then::Write(access)));
                }
                encode::reply(bytes, header, &[access.as_bytes()]);
            }
            Request::RegionWriteMulti(entries) => {
                let count = entries.len() as u64;
                return Ok(self.write_multi(device, header, entries.into_iter(), count, out));
            }
            Request::DmaMap(map) => {
                device.dma_map(DmaMap {
                    addr: map.addr,
                    size: map.size,
                    offset: map.offset,
                    readable: map.flags & wire::dma_map_flags::READ != 0,
                    writable: map.flags & wire::dma_map_flags::WRITE != 0,
                    fd: fds.into_iter().next(),
                })?;
                return Ok(empty(header, out));
            }
            Request::DmaUnmap { echo, range } => match device.dma_unmap(range) {
                Ok(Outcome::Pending) => return Ok(self.wait(header, Then::Unmap(echo))),
                Ok(Outcome::Done) => encode::reply(bytes, header, &[echo.as_bytes()]),
                Err(errno) if self.client.as_ref().is_some_and(|client| client.reads_errors) => {
                    return Err(errno);
                }
                Err(Errno::NOENT) => encode::reply(bytes, header, &[echo.as_bytes()]),
                Err(_) => {
                    bytes.clear();
                    return Ok(Step::Close("memory could not be unmapped and the client cannot be told"));
                }
            },
            Request::Reset => {
                if device.reset() == Outcome::Pending {
                    return Ok(self.wait(header, Then::Reset));
                }
                return Ok(empty(header, out));
            }
        }
        Ok(Step::Reply)
    }

    fn wait(&mut self, header: &Header, then: Then) -> Step {
        self.pending = Some(Pending { header: *header, then });
        Step::Pending
    }

    fn contains(&self, access: &wire::RegionAccess) -> bool {
        let end = access.offset.checked_add(u64::from(access.count));
        let size = self.regions.get(access.region as usize).map_or(0, |region| region.size);
        access.count > 0 && end.is_some_and(|end| end <= size)
    }

    fn write(&self, device: &mut dyn Device, access: &wire::RegionAccess, data: &[u8]) -> Outcome {
        if self.contains(access) {
            device.region_write(access.region, access.offset, data)
        } else {
            Outcome::Done
        }
    }

    fn write_multi(
        &mut self,
        device: &mut dyn Device,
        header: &Header,
        mut entries: std::vec::IntoIter<wire::MultiWrite>,
        count: u64,
        out: &mut Reply,
    ) -> Step {
        while let Some(entry) = entries.next() {
            let data = entry.data.get(..entry.access.count as usize).unwrap_or_default();
            if self.write(device, &entry.access, data) == Outcome::Pending {
                return self.wait(header, Then::Multi { entries, count });
            }
        }
        encode::reply(&mut out.bytes, header, &[count.as_bytes()]);
        Step::Reply
    }
}

fn empty(header: &Header, out: &mut Reply) -> Step {
    encode::reply(&mut out.bytes, header, &[]);
    Step::Reply
}
