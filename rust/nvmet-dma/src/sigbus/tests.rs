//! Tests of the guard. What ends in death runs in a child: this test binary again, told by a variable what to do.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use rustix::fs::MemfdFlags;

use super::*;
use crate::error::DmaError;
use crate::mapping::{Mapping, page_size};
use crate::memory::{Access, Direction, DmaSpace, SegmentBuf};
use crate::{Arena, MappedArea};

const ROLE: &str = "NVMET_SIGBUS_ROLE";

fn file(pages: usize) -> OwnedFd {
    let fd = rustix::fs::memfd_create("nvmet-sigbus", MemfdFlags::CLOEXEC).expect("memfd");
    rustix::fs::ftruncate(&fd, (pages * page_size()) as u64).expect("grow");
    fd
}

fn truncate(fd: &OwnedFd, pages: usize) {
    rustix::fs::ftruncate(fd, (pages * page_size()) as u64).expect("truncate");
}

#[test]
fn memory_that_vanishes_poisons_its_controller_and_no_other() {
    let page = page_size() as u64;
    let (fd, other_fd) = (file(4), file(1));
    let (mut space, mut other) = (DmaSpace::new(|| {}), DmaSpace::new(|| {}));
    space.map(0, 4 * page, 0, Access::READ_WRITE, Some(fd.try_clone().expect("dup"))).expect("map");
    other.map(0, page, 0, Access::READ_WRITE, Some(other_fd)).expect("map");
    let (mut reader, mut other_reader) = (space.handle().reader(), other.handle().reader());
    let ring = reader.snapshot().window(3 * page, 4096, Access::READ_WRITE).expect("window");
    reader.snapshot().write_bytes(page - 2, &[7; 4]).expect("write");
    assert!(!reader.snapshot().is_poisoned());
    truncate(&fd, 1);

    let mut bytes = [9; 4];
    let mut buf = SegmentBuf::new(4, 65536);
    let mut segments = buf.begin(reader.snapshot(), Direction::FromGuest);
    segments.push(page - 2, 4).expect("push");
    assert_eq!(segments.finish().read_to(0, &mut bytes), Err(DmaError::Poisoned));
    assert_eq!(bytes, [7, 7, 0, 0], "what is left is the guest's, what is gone is zero");
    assert!(reader.snapshot().is_poisoned() && space.is_poisoned());

    let mut segments = buf.begin(reader.snapshot(), Direction::ToGuest);
    segments.push(2 * page, 4096).expect("push");
    assert_eq!(segments.finish().write_from(0, &[1; 4096]), Ok(()));
    assert_eq!(ring.write_cqe(0, [1; 4]), Ok(()));
    assert_eq!(ring.read_entry64(0), Err(DmaError::Poisoned));
    assert_eq!(ring.load_u32(64), Err(DmaError::Poisoned));
    let mut segments = buf.begin(reader.snapshot(), Direction::FromGuest);
    segments.push(page, 4096).expect("push");
    assert_eq!(Arena::new(4096, false).expect("arena").write(0, &segments.finish()), Err(DmaError::Poisoned));

    assert!(!other_reader.snapshot().is_poisoned() && !other.is_poisoned());
    assert_eq!(other_reader.snapshot().read_bytes(0, &mut bytes), Ok(()));

    drop(space.clear());
    assert!(!space.is_poisoned() && !reader.snapshot().is_poisoned());
    space.map(0, page, 0, Access::READ_WRITE, Some(fd)).expect("map");
    assert_eq!(reader.snapshot().read_bytes(page - 2, &mut bytes[..2]), Ok(()));
    assert_eq!(bytes[..2], [7, 7]);
}

#[test]
fn a_mapping_that_loses_many_pages_is_replaced_at_once() {
    let pages = 4 * MAX_SINGLE_PAGES as usize;
    let fd = file(pages);
    let mut space = DmaSpace::new(|| {});
    let size = (pages * page_size()) as u64;
    space.map(0, size, 0, Access::READ_WRITE, Some(fd.try_clone().expect("dup"))).expect("map");
    truncate(&fd, 0);
    let mut reader = space.handle().reader();
    for page in (0..pages).step_by(2) {
        let touched = reader.snapshot().write_bytes((page * page_size()) as u64, &[1]);
        assert_eq!(touched, Ok(()));
    }
    let mappings = std::fs::read_to_string("/proc/self/maps").expect("maps");
    // Had each been replaced alone, every second page would be a mapping of its own until the last.
    let base = reader.snapshot().first_mapping().expect("mapped").addr();
    let start = format!("{base:x}-");
    let whole = mappings.lines().any(|line| line.starts_with(&start) && !line.contains("memfd"));
    assert!(whole, "{mappings}");
}

#[test]
fn threads_that_fault_at_once_all_go_on() {
    let fd = file(64);
    let mut space = DmaSpace::new(|| {});
    let size = 64 * page_size() as u64;
    space.map(0, size, 0, Access::READ_WRITE, Some(fd.try_clone().expect("dup"))).expect("map");
    truncate(&fd, 0);
    let handle = space.handle();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut reader = handle.reader();
                let mut bytes = vec![0; size as usize];
                assert_eq!(reader.snapshot().read_bytes(0, &mut bytes), Err(DmaError::Poisoned));
            });
        }
    });
}

#[test]
fn an_area_of_a_peer_that_vanishes_is_seen() {
    let fd = file(2);
    let area = MappedArea::new(fd.as_fd(), page_size() as u64, 4096).expect("area");
    area.store_u32(0, 1).expect("store");
    assert!(!area.is_poisoned());
    truncate(&fd, 0);
    assert_eq!(area.load_u32(0), Ok(0));
    assert!(area.is_poisoned());
}

#[test]
fn entries_of_the_list_are_used_again() {
    let flag = Arc::new(AtomicBool::new(false));
    let mappings: Vec<Mapping> = (0..3 * CHUNK)
        .map(|_| {
            let flag = Some(Arc::clone(&flag));
            Mapping::of_file(file(1).as_fd(), 0, page_size(), true, page_size(), flag).expect("map")
        })
        .collect();
    drop(mappings);
    assert_eq!(Arc::strong_count(&flag), 1);
}

/// Runs this binary with one role in place of its tests.
fn child(role: &str) -> ExitStatus {
    let output = Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "sigbus::tests::role_of_a_child", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .output()
        .expect("run");
    output.status
}

/// Reads from a mapping that nobody watches, after its file was truncated.
fn fault_elsewhere() {
    let fd = file(1);
    let mapping = Mapping::of_file(fd.as_fd(), 0, page_size(), true, page_size(), None).expect("map");
    truncate(&fd, 0);
    let read = mapping.read_bytes(0, &mut [0; 8]);
    unreachable!("{read:?}");
}

extern "C" fn exit_42(_: c_int) {
    // SAFETY: allowed in a handler, never returns.
    unsafe { libc::_exit(42) }
}

extern "C" fn exit_43(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: allowed in a handler, never returns.
    unsafe { libc::_exit(43) }
}

fn handle_with(handler: usize, flags: c_int) {
    // SAFETY: all-zero bytes are a valid `sigaction`; the handlers above are of the type that the flags say.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
    }
}

/// Not a test by itself: what a child of the tests below does.
#[test]
fn role_of_a_child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "plain handler" => handle_with(exit_42 as *const () as usize, 0),
        "handler with info" => handle_with(exit_43 as *const () as usize, libc::SA_SIGINFO),
        "ignored" | "ignored, sent" => handle_with(libc::SIG_IGN, 0),
        "default" | "default, sent" => handle_with(libc::SIG_DFL, 0),
        _ => {}
    }
    install();
    if role.ends_with("sent") {
        // SAFETY: sends a signal to ourselves.
        unsafe { libc::raise(libc::SIGBUS) };
    } else {
        fault_elsewhere();
    }
}

#[test]
fn a_sigbus_elsewhere_still_kills() {
    // The first with the handler that Rust's runtime has installed.
    for role in ["fault", "default", "default, sent", "ignored"] {
        assert_eq!(child(role).signal(), Some(libc::SIGBUS), "{role}");
    }
    assert!(child("ignored, sent").success());
}

#[test]
fn a_sigbus_elsewhere_goes_to_the_earlier_handler() {
    assert_eq!(child("plain handler").code(), Some(42));
    assert_eq!(child("handler with info").code(), Some(43));
}
