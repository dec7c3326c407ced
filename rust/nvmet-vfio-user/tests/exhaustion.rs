//! A process without file descriptors to spare. On its own, because the limit belongs to the whole process.

mod common;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::*;
use nvmet_vfio_user::wire::{self, command};
use zerocopy::IntoBytes;

#[test]
fn running_out_of_file_descriptors_loses_at_most_a_connection_and_passes() {
    let served = Served::new();
    let _device = served.add("one", |toy| toy);
    let _other = served.add("other", |toy| toy);
    let mut other = Peer::ready(&served.path("other"));
    let works = |peer: &mut Peer| assert_eq!(peer.call(command::DEVICE_RESET, &[]).0.errno, 0);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let small = rustix::process::Rlimit { current: Some(128), ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, small).unwrap();
    let guest = memory(0x1000);

    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    // Room for the client's end of the connection and not for the server's: it waits, the other is served.
    hoard.pop();
    let mut waiting = UnixStream::connect(served.path("one")).unwrap();
    waiting.write_all(&version(QEMU_JSON)).unwrap();
    works(&mut other);
    // A file descriptor that cannot be received ends the connection rather than being taken for none.
    let map = wire::DmaMap { argsz: 32, flags: 3, offset: 0, addr: 0, size: 0x1000 };
    other.send_fds(&message(1, command::DMA_MAP, 0, map.as_bytes()), &[guest.as_fd()]);
    assert!(other.rest().is_empty());

    drop(hoard);
    waiting.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut waiting = Peer(waiting);
    waiting.reply();
    works(&mut waiting);
    works(&mut Peer::ready(&served.path("other")));
}
