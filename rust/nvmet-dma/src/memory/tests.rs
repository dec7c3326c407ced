//! Tests of guest memory: files are memfds whose bytes are a function of file and offset.

mod model;
mod regions;
mod retire;
mod transfers;
mod windows;

use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;

use super::{Access, DmaReader, DmaSpace};

const PAGE: u64 = 4096;

/// The byte at an offset of a file that [`file`] made.
fn byte_at(seed: u8, offset: u64) -> u8 {
    (offset as u8).wrapping_mul(31) ^ ((offset >> 8) as u8).wrapping_mul(17) ^ seed
}

/// A memfd of so many pages.
fn file(seed: u8, pages: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("nvmet-test", MemfdFlags::CLOEXEC).expect("memfd");
    let bytes: Vec<u8> = (0..pages * PAGE).map(|offset| byte_at(seed, offset)).collect();
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::pwrite(&fd, &bytes[written..], written as u64).expect("pwrite");
    }
    fd
}

fn copy_of(fd: &OwnedFd) -> Option<OwnedFd> {
    Some(fd.try_clone().expect("dup"))
}

fn space() -> DmaSpace {
    DmaSpace::new(|| {})
}

/// A space with one file of so many pages, mapped at `iova` for reading and writing, and a reader.
fn mapped(iova: u64, pages: u64) -> (DmaSpace, OwnedFd, DmaReader) {
    let fd = file(7, pages);
    let mut space = space();
    space.map(iova, pages * PAGE, 0, Access::READ_WRITE, copy_of(&fd)).expect("map");
    let reader = space.handle().reader();
    (space, fd, reader)
}

/// What a memfd holds at an offset.
fn bytes_of(fd: &OwnedFd, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    assert_eq!(rustix::io::pread(fd, &mut bytes, offset).expect("pread"), len);
    bytes
}
