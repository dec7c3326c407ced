//! Message → typed request. Pure and total: any bytes give a request or an errno, nothing panics or allocates
//! without bound.
//!
//! What is refused here is what no reading of the protocol allows. Questions that need the device (does the region
//! exist, is the access inside it) are left to the connection.
//!
//! Commands that are refused: DMA_READ and DMA_WRITE (they go from server to client only), 14 (the old dirty page
//! command), DEVICE_FEATURE and MIG_DATA_* (no migration), unknown ones. REGION_WRITE_MULTI is understood because
//! QEMU 10.1 can send it unasked, but it is not advertised: there it would force every message through a queue.

use zerocopy::FromBytes;

use crate::Errno;
use crate::device::{DmaUnmap, IrqAction};
use crate::wire::{self, Header, command, dma_map_flags, dma_unmap_flags, flags};

/// A command that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// VERSION.
    Version {
        /// The proposed version.
        version: wire::Version,
        /// What follows: JSON or nothing.
        data: &'a [u8],
    },
    /// DMA_MAP; size is not 0, neither address nor offset wraps, at most one file descriptor came along.
    DmaMap(wire::DmaMap),
    /// DMA_UNMAP.
    DmaUnmap {
        /// The structure, which the reply echoes.
        echo: wire::DmaUnmap,
        /// What to unmap.
        range: DmaUnmap,
    },
    /// DEVICE_GET_INFO.
    GetInfo,
    /// DEVICE_GET_REGION_INFO.
    GetRegionInfo {
        /// Which region.
        index: u32,
        /// Room for the reply.
        argsz: u32,
    },
    /// DEVICE_GET_REGION_IO_FDS.
    GetRegionIoFds {
        /// Which region.
        index: u32,
    },
    /// DEVICE_GET_IRQ_INFO.
    GetIrqInfo {
        /// Which interrupt type.
        index: u32,
    },
    /// DEVICE_SET_IRQS.
    SetIrqs {
        /// Which vectors.
        set: wire::IrqSet,
        /// What to do.
        action: IrqAction,
        /// With what.
        data: IrqSelector<'a>,
    },
    /// REGION_READ; the count is within bounds.
    RegionRead(wire::RegionAccess),
    /// REGION_WRITE.
    RegionWrite {
        /// Where.
        access: wire::RegionAccess,
        /// Exactly `access.count` bytes.
        data: &'a [u8],
    },
    /// REGION_WRITE_MULTI; every count is at most 8.
    RegionWriteMulti(Vec<wire::MultiWrite>),
    /// DEVICE_RESET.
    Reset,
}

/// The data flag of SET_IRQS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqSelector<'a> {
    /// DATA_NONE.
    None,
    /// DATA_BOOL: one byte a vector.
    Bool(&'a [u8]),
    /// DATA_EVENTFD: the file descriptors came along, one a vector or none.
    Eventfd,
}

/// Why the connection cannot go on: the boundary of the next message is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The size is not one that a message can have.
    #[error("message of {0} bytes, {HEADER} to {MAX} are accepted", HEADER = wire::HEADER_SIZE, MAX = wire::MAX_MESSAGE_SIZE)]
    Size(u32),
    /// A reply or an unknown type arrived, though this side never sends a command.
    #[error("message of type {0}, only commands are accepted")]
    Type(u32),
}

/// Reads a header and checks what framing depends on.
///
/// # Errors
///
/// [`HeaderError`]; the connection must be closed.
pub fn header(bytes: &[u8; wire::HEADER_SIZE]) -> (Header, Result<usize, HeaderError>) {
    let header: Header = zerocopy::transmute!(*bytes);
    let body = if header.message_type() != flags::TYPE_COMMAND {
        Err(HeaderError::Type(header.message_type()))
    } else if header.size < wire::HEADER_SIZE as u32 || header.size > wire::MAX_MESSAGE_SIZE {
        Err(HeaderError::Size(header.size))
    } else {
        Ok(header.size as usize - wire::HEADER_SIZE)
    };
    (header, body)
}

/// Reads the body of a command that came with `fds` file descriptors. `max_data` bounds REGION_READ.
///
/// # Errors
///
/// The errno of the error reply: [`Errno::INVAL`] for what is malformed, [`Errno::NOTSUP`] for what is not served.
pub fn decode(command: u16, body: &[u8], fds: usize, max_data: u32) -> Result<Request<'_>, Errno> {
    Ok(match command {
        command::VERSION => {
            let (version, data) = fixed(body)?;
            Request::Version { version, data }
        }
        command::DMA_MAP => Request::DmaMap(dma_map(body, fds)?),
        command::DMA_UNMAP => dma_unmap(body)?,
        command::DEVICE_GET_INFO => {
            let (info, _) = fixed::<wire::DeviceInfo>(body)?;
            room::<wire::DeviceInfo>(info.argsz)?;
            Request::GetInfo
        }
        command::DEVICE_GET_REGION_INFO => {
            let (info, _) = fixed::<wire::RegionInfo>(body)?;
            room::<wire::RegionInfo>(info.argsz)?;
            Request::GetRegionInfo { index: info.index, argsz: info.argsz }
        }
        command::DEVICE_GET_REGION_IO_FDS => {
            let (info, _) = fixed::<wire::RegionIoFds>(body)?;
            room::<wire::RegionIoFds>(info.argsz)?;
            Request::GetRegionIoFds { index: info.index }
        }
        command::DEVICE_GET_IRQ_INFO => {
            let (info, _) = fixed::<wire::IrqInfo>(body)?;
            room::<wire::IrqInfo>(info.argsz)?;
            Request::GetIrqInfo { index: info.index }
        }
        command::DEVICE_SET_IRQS => set_irqs(body, fds)?,
        command::REGION_READ => {
            let (access, _) = fixed::<wire::RegionAccess>(body)?;
            if access.count > max_data {
                return Err(Errno::INVAL);
            }
            Request::RegionRead(access)
        }
        command::REGION_WRITE => {
            let (access, data) = fixed::<wire::RegionAccess>(body)?;
            if access.count as usize != data.len() {
                return Err(Errno::INVAL);
            }
            Request::RegionWrite { access, data }
        }
        command::REGION_WRITE_MULTI => Request::RegionWriteMulti(multi_writes(body)?),
        command::DEVICE_RESET => Request::Reset,
        _ => return Err(Errno::NOTSUP),
    })
}

/// The fixed part of a body and what follows it. A body may be longer than its structure: SPDK's is.
fn fixed<T: FromBytes>(body: &[u8]) -> Result<(T, &[u8]), Errno> {
    T::read_from_prefix(body).map_err(|_| Errno::INVAL)
}

/// `argsz` must leave room for the fixed part.
fn room<T>(argsz: u32) -> Result<(), Errno> {
    if (argsz as usize) < size_of::<T>() { Err(Errno::INVAL) } else { Ok(()) }
}

fn wraps(start: u64, size: u64) -> bool {
    size == 0 || start.checked_add(size - 1).is_none()
}

fn dma_map(body: &[u8], fds: usize) -> Result<wire::DmaMap, Errno> {
    let (map, _) = fixed::<wire::DmaMap>(body)?;
    room::<wire::DmaMap>(map.argsz)?;
    let access = dma_map_flags::READ | dma_map_flags::WRITE;
    let known = access | dma_map_flags::MMAP | dma_map_flags::FILE_IO;
    if map.flags & !known != 0 || map.flags & access == 0 {
        return Err(Errno::INVAL);
    }
    if fds > 1 || wraps(map.addr, map.size) || wraps(map.offset, map.size) {
        return Err(Errno::INVAL);
    }
    Ok(map)
}

/// A file descriptor may come along (SPDK sends one); the caller closes it.
fn dma_unmap(body: &[u8]) -> Result<Request<'_>, Errno> {
    let (echo, _) = fixed::<wire::DmaUnmap>(body)?;
    room::<wire::DmaUnmap>(echo.argsz)?;
    let range = match echo.flags {
        0 if !wraps(echo.addr, echo.size) => DmaUnmap::Range { addr: echo.addr, size: echo.size },
        dma_unmap_flags::ALL if echo.addr == 0 && echo.size == 0 => DmaUnmap::All,
        flags if flags & dma_unmap_flags::GET_DIRTY_BITMAP != 0 => return Err(Errno::NOTSUP),
        _ => return Err(Errno::INVAL),
    };
    Ok(Request::DmaUnmap { echo, range })
}

fn set_irqs(body: &[u8], fds: usize) -> Result<Request<'_>, Errno> {
    let (set, rest) = fixed::<wire::IrqSet>(body)?;
    room::<wire::IrqSet>(set.argsz)?;
    let count = set.count as usize;
    const ACTIONS: u32 =
        wire::VFIO_IRQ_SET_ACTION_MASK | wire::VFIO_IRQ_SET_ACTION_UNMASK | wire::VFIO_IRQ_SET_ACTION_TRIGGER;
    let action = match set.flags & ACTIONS {
        wire::VFIO_IRQ_SET_ACTION_MASK => IrqAction::Mask,
        wire::VFIO_IRQ_SET_ACTION_UNMASK => IrqAction::Unmask,
        wire::VFIO_IRQ_SET_ACTION_TRIGGER => IrqAction::Trigger,
        _ => return Err(Errno::INVAL),
    };
    let data = match set.flags & !ACTIONS {
        wire::VFIO_IRQ_SET_DATA_NONE => IrqSelector::None,
        wire::VFIO_IRQ_SET_DATA_BOOL if count > 0 => {
            IrqSelector::Bool(rest.get(..count).ok_or(Errno::INVAL)?)
        }
        wire::VFIO_IRQ_SET_DATA_EVENTFD if count > 0 && (fds == count || fds == 0) => IrqSelector::Eventfd,
        _ => return Err(Errno::INVAL),
    };
    Ok(Request::SetIrqs { set, action, data })
}

/// Entries are copied: they lie unaligned in the body. Their number is bounded by the body.
fn multi_writes(body: &[u8]) -> Result<Vec<wire::MultiWrite>, Errno> {
    const ENTRY: usize = size_of::<wire::MultiWrite>();
    let (count, rest) = fixed::<u64>(body)?;
    if !rest.len().is_multiple_of(ENTRY) || (rest.len() / ENTRY) as u64 != count {
        return Err(Errno::INVAL);
    }
    rest.chunks_exact(ENTRY)
        .map(|chunk| match fixed::<wire::MultiWrite>(chunk)? {
            (entry, _) if entry.access.count <= 8 => Ok(entry),
            _ => Err(Errno::INVAL),
        })
        .collect()
}

#[cfg(test)]
mod tests;
