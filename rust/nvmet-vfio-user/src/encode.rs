//! Answer → message. Pure: every function builds one whole reply in a buffer.
//!
//! A reply echoes id and command of its request and is never larger than the request left room for.

use zerocopy::IntoBytes;

use crate::Errno;
use crate::device::{DeviceInfo, IrqInfo, RegionInfo};
use crate::wire::{self, Header, flags};

/// Puts a reply of `parts` into `out`.
pub fn reply(out: &mut Vec<u8>, to: &Header, parts: &[&[u8]]) {
    let size = wire::HEADER_SIZE + parts.iter().map(|part| part.len()).sum::<usize>();
    out.clear();
    out.extend_from_slice(reply_header(to, size).as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Puts an error reply, which is a header and nothing else, into `out`.
pub fn error(out: &mut Vec<u8>, to: &Header, errno: Errno) {
    let header = Header {
        flags: flags::TYPE_REPLY | flags::ERROR,
        errno: errno.raw_os_error().unsigned_abs(),
        ..reply_header(to, wire::HEADER_SIZE)
    };
    out.clear();
    out.extend_from_slice(header.as_bytes());
}

/// Puts the reply to REGION_READ into `out` and gives its data part, filled with 0xff, to be filled in.
pub fn region_read<'a>(out: &'a mut Vec<u8>, to: &Header, access: &wire::RegionAccess) -> &'a mut [u8] {
    const FIXED: usize = wire::HEADER_SIZE + size_of::<wire::RegionAccess>();
    let size = FIXED + access.count as usize;
    out.clear();
    out.reserve(size);
    out.extend_from_slice(reply_header(to, size).as_bytes());
    out.extend_from_slice(access.as_bytes());
    out.resize(size, 0xff);
    out.get_mut(FIXED..).unwrap_or_default()
}

/// Puts the reply to DEVICE_GET_INFO into `out`.
pub fn device_info(out: &mut Vec<u8>, to: &Header, info: &DeviceInfo) {
    let reset = if info.resettable { wire::VFIO_DEVICE_FLAGS_RESET } else { 0 };
    let body = wire::DeviceInfo {
        argsz: size_of::<wire::DeviceInfo>() as u32,
        flags: wire::VFIO_DEVICE_FLAGS_PCI | reset,
        num_regions: info.num_regions,
        num_irqs: info.num_irqs,
    };
    reply(out, to, &[body.as_bytes()]);
}

/// Puts the reply to DEVICE_GET_REGION_INFO into `out`. Says whether the region's file goes along.
///
/// If the capability does not fit `argsz`, the fixed part alone is sent, with the `argsz` that is needed and without
/// the CAPS flag (QEMU takes CAPS with offset 0 for an error); the client asks again. The file goes with the full
/// reply only. `can_send_fd` false leaves the mapping out: MMAP without a file makes clients fail.
pub fn region_info(
    out: &mut Vec<u8>,
    to: &Header,
    index: u32,
    argsz: u32,
    info: &RegionInfo,
    can_send_fd: bool,
) -> bool {
    const FIXED: u32 = size_of::<wire::RegionInfo>() as u32;
    const FULL: u32 = FIXED + size_of::<wire::SparseMmap>() as u32;
    let mut body = wire::RegionInfo { argsz: FIXED, index, size: info.size, ..Default::default() };
    if info.size > 0 {
        body.flags |= if info.flags.read { wire::VFIO_REGION_INFO_FLAG_READ } else { 0 };
        body.flags |= if info.flags.write { wire::VFIO_REGION_INFO_FLAG_WRITE } else { 0 };
    }
    let Some(mmap) = info.mmap.as_ref().filter(|_| can_send_fd && info.size > 0) else {
        reply(out, to, &[body.as_bytes()]);
        return false;
    };
    body.argsz = FULL;
    body.flags |= wire::VFIO_REGION_INFO_FLAG_MMAP;
    body.offset = mmap.file_offset;
    if argsz < FULL {
        reply(out, to, &[body.as_bytes()]);
        return false;
    }
    body.flags |= wire::VFIO_REGION_INFO_FLAG_CAPS;
    body.cap_offset = FIXED;
    let cap = wire::SparseMmap {
        cap: wire::CapHeader { id: wire::VFIO_REGION_INFO_CAP_SPARSE_MMAP as u16, version: 1, next: 0 },
        nr_areas: [1, 0],
        area: wire::SparseArea { offset: mmap.offset, size: mmap.size },
    };
    reply(out, to, &[body.as_bytes(), cap.as_bytes()]);
    true
}

/// Puts the reply to DEVICE_GET_REGION_IO_FDS into `out`: there are none.
pub fn region_io_fds(out: &mut Vec<u8>, to: &Header, index: u32) {
    let argsz = size_of::<wire::RegionIoFds>() as u32;
    let body = wire::RegionIoFds { argsz, flags: 0, index, count: 0 };
    reply(out, to, &[body.as_bytes()]);
}

/// Puts the reply to DEVICE_GET_IRQ_INFO into `out`.
pub fn irq_info(out: &mut Vec<u8>, to: &Header, index: u32, info: &IrqInfo) {
    let bit = |set, flag| if set { flag } else { 0 };
    let body = wire::IrqInfo {
        argsz: size_of::<wire::IrqInfo>() as u32,
        flags: bit(info.flags.eventfd, wire::VFIO_IRQ_INFO_EVENTFD)
            | bit(info.flags.maskable, wire::VFIO_IRQ_INFO_MASKABLE)
            | bit(info.flags.automasked, wire::VFIO_IRQ_INFO_AUTOMASKED)
            | bit(info.flags.noresize, wire::VFIO_IRQ_INFO_NORESIZE),
        index,
        count: info.count,
    };
    reply(out, to, &[body.as_bytes()]);
}

fn reply_header(to: &Header, size: usize) -> Header {
    Header { id: to.id, command: to.command, size: size as u32, flags: flags::TYPE_REPLY, errno: 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zerocopy::FromBytes;

    use super::*;
    use crate::device::{RegionFlags, RegionMmap};

    const TO: Header = Header { id: 9, command: 5, size: 48, flags: 0, errno: 0 };

    fn mapped(size: u64) -> RegionInfo {
        let fd = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
        let mmap = Some(RegionMmap { fd, file_offset: 0x7000, offset: 0x1000, size: 0x1000 });
        RegionInfo { size, flags: RegionFlags { read: true, write: true }, mmap }
    }

    fn region(argsz: u32, info: &RegionInfo, can_send_fd: bool) -> (usize, wire::RegionInfo, bool) {
        let mut out = Vec::new();
        let with_fd = region_info(&mut out, &TO, 3, argsz, info, can_send_fd);
        let (header, body) = Header::read_from_prefix(&out).unwrap();
        assert_eq!((header.size as usize, header.id, header.flags), (out.len(), 9, flags::TYPE_REPLY));
        assert!(body.len() <= argsz as usize, "the room is never exceeded");
        (body.len(), wire::RegionInfo::read_from_prefix(body).unwrap().0, with_fd)
    }

    #[test]
    fn a_mapping_is_described_in_full_only_where_there_is_room() {
        let (len, info, with_fd) = region(63, &mapped(0x4000), true);
        assert_eq!((len, info.argsz, info.flags, info.cap_offset, with_fd), (32, 64, 7, 0, false));
        let (len, info, with_fd) = region(64, &mapped(0x4000), true);
        assert_eq!((len, info.argsz, info.flags, info.cap_offset, with_fd), (64, 64, 15, 32, true));
        assert_eq!((info.index, info.offset), (3, 0x7000));
    }

    #[test]
    fn there_is_no_mapping_without_a_file_or_a_region() {
        let (len, info, with_fd) = region(4064, &mapped(0x4000), false);
        assert_eq!((len, info.argsz, info.flags, with_fd), (32, 32, 3, false));
        let (len, info, with_fd) = region(4064, &mapped(0), true);
        assert_eq!((len, info.argsz, info.flags, info.size, with_fd), (32, 32, 0, 0, false));
    }

    #[test]
    fn an_error_is_a_header_and_nothing_else() {
        let mut out = vec![1; 500];
        error(&mut out, &TO, Errno::NOENT);
        let header = Header::read_from_bytes(&out).unwrap();
        assert_eq!(header, Header { id: 9, command: 5, size: 16, flags: 0x21, errno: 2 });
    }

    #[test]
    fn what_a_device_does_not_fill_in_reads_as_ones() {
        let mut out = vec![0; 500];
        let access = wire::RegionAccess { offset: 8, region: 0, count: 3 };
        region_read(&mut out, &TO, &access)[0] = 5;
        assert_eq!((out.len(), &out[32..]), (35, &[5, 0xff, 0xff][..]));
    }
}
