//! A whole server: after VERSION any stream gets whole replies or the end of its connection.

#![no_main]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use nvmet_vfio_user::listener::Listener;
use nvmet_vfio_user::reactor::{Reactor, ReactorOptions};
use nvmet_vfio_user::*;

/// A device with one region and one interrupt type that takes everything.
struct Sink;

impl Device for Sink {
    fn info(&self) -> DeviceInfo {
        DeviceInfo { num_regions: 9, num_irqs: 5, resettable: true }
    }
    fn region_info(&self, index: u32) -> RegionInfo {
        let flags = RegionFlags { read: true, write: true };
        RegionInfo { size: if index == 0 { 0x4000 } else { 0 }, flags, mmap: None }
    }
    fn irq_info(&self, index: u32) -> IrqInfo {
        IrqInfo { count: if index == 2 { 32 } else { 0 }, ..Default::default() }
    }
    fn attached(&mut self, _client: &ClientInfo) {}
    fn detached(&mut self) -> Outcome {
        Outcome::Done
    }
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        assert!(region == 0 && offset + data.len() as u64 <= 0x4000);
    }
    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Outcome {
        assert!(region == 0 && !data.is_empty() && offset + data.len() as u64 <= 0x4000);
        Outcome::Done
    }
    fn dma_map(&mut self, map: DmaMap) -> Result<(), Errno> {
        assert!(map.size > 0 && map.addr.checked_add(map.size - 1).is_some());
        Ok(())
    }
    fn dma_unmap(&mut self, _range: DmaUnmap) -> Result<Outcome, Errno> {
        Ok(Outcome::Done)
    }
    fn set_irqs(&mut self, irqs: SetIrqs) -> Result<(), Errno> {
        assert!(irqs.start + irqs.count <= if irqs.index == 2 { 32 } else { 0 });
        Ok(())
    }
    fn reset(&mut self) -> Outcome {
        Outcome::Done
    }
    fn poll(&mut self, _now: Instant) -> Outcome {
        Outcome::Done
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

static SERVER: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let reactor = Reactor::new(ReactorOptions::default()).expect("a reactor");
    let handle = reactor.handle();
    thread::spawn(|| reactor.run());
    handle.add(Listener::bind(&path).expect("a listener"), |_| Sink).expect("a device");
    (directory, path)
});

const VERSION: [u8; 20] = [0, 0, 1, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

fuzz_target!(|stream: &[u8]| {
    // Less than a socket buffer, so that this side can send it all before it reads.
    let stream = &stream[..stream.len().min(16 << 10)];
    let mut socket = UnixStream::connect(&SERVER.1).expect("the server lives");
    let sent = socket.write_all(&VERSION).and_then(|()| socket.write_all(stream));
    let _ = sent.and_then(|()| socket.shutdown(Shutdown::Write));
    let mut replies = Vec::new();
    if socket.read_to_end(&mut replies).is_err() {
        return;
    }
    let mut rest = replies.as_slice();
    while !rest.is_empty() {
        let size = u32::from_ne_bytes(rest[4..8].try_into().expect("four bytes")) as usize;
        assert!(size >= 16 && rest[8] & 0xf == 1);
        rest = &rest[size..];
    }
});
