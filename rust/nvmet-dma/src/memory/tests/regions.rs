//! Mapping and unmapping: what is accepted, what is refused and why.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, OFlags};

use super::{PAGE, copy_of, file, mapped, space};
use crate::error::DmaError;
use crate::memory::{Access, MAX_MAPPINGS, MAX_REGIONS};

const RW: Access = Access::READ_WRITE;

#[test]
fn ranges_that_are_empty_or_wrap_are_refused() {
    let fd = file(1, 1);
    let mut space = space();
    assert_eq!(space.map(0, 0, 0, RW, copy_of(&fd)), Err(DmaError::EmptyRegion { iova: 0 }));
    let iova = u64::MAX - 10;
    assert_eq!(space.map(iova, 12, 0, RW, None), Err(DmaError::RegionWraps { iova, size: 12 }));
    assert_eq!(space.map(iova, 11, 0, RW, None), Ok(()));
    for offset in [u64::MAX, i64::MAX as u64] {
        let refused = space.map(0, PAGE, offset, RW, copy_of(&fd));
        assert_eq!(refused, Err(DmaError::OffsetWraps { offset, size: PAGE }));
    }
    assert_eq!(space.len(), 1);
}

#[test]
fn overlaps_are_refused_and_identical_regions_accepted() {
    let (mut space, fd, _) = mapped(4 * PAGE, 4);
    let overlaps = [(4 * PAGE, PAGE), (7 * PAGE, 2 * PAGE), (PAGE, 4 * PAGE), (0, 64 * PAGE), (5 * PAGE, 1)];
    for (iova, size) in overlaps {
        assert_eq!(space.map(iova, size, 0, RW, None), Err(DmaError::Overlap { iova, size }), "{iova:#x}");
    }
    assert_eq!(DmaError::Overlap { iova: 0, size: 0 }.errno(), libc::EEXIST);
    let all = (4 * PAGE, 4 * PAGE);
    assert_eq!(space.map(all.0, all.1, 0, RW, copy_of(&fd)), Ok(()));
    assert_eq!(space.len(), 1);
    for (access, fd) in [(Access::READ, copy_of(&fd)), (RW, None), (RW, Some(file(7, 4)))] {
        assert!(matches!(space.map(all.0, all.1, 0, access, fd), Err(DmaError::Overlap { .. })));
    }
    assert_eq!(space.map(0, 4 * PAGE, 0, RW, None), Ok(()));
    assert_eq!(space.map(0, 4 * PAGE, 77, RW, None), Ok(()), "without a file the offset means nothing");
    assert_eq!(space.map(8 * PAGE, PAGE, 0, RW, None), Ok(()), "touching is not overlapping");
}

#[test]
fn only_an_exact_range_is_unmapped() {
    let (mut space, _fd, mut reader) = mapped(4 * PAGE, 4);
    for (iova, size) in [(4 * PAGE, PAGE), (5 * PAGE, 3 * PAGE), (0, 4 * PAGE), (4 * PAGE, 5 * PAGE)] {
        assert_eq!(space.unmap(iova, size).map(drop), Err(DmaError::NotFound { iova, size }));
    }
    assert_eq!(DmaError::NotFound { iova: 0, size: 0 }.errno(), libc::ENOENT);
    assert!(reader.snapshot().check(4 * PAGE, 4 * PAGE as usize, RW).is_ok());
    let retired = space.unmap(4 * PAGE, 4 * PAGE).expect("exact");
    assert!(!retired.is_done(), "the reader still has the old table");
    let gone = reader.snapshot().check(4 * PAGE, 1, RW);
    assert_eq!(gone, Err(DmaError::NotMapped { iova: 4 * PAGE }));
    assert!(retired.is_done());
}

#[test]
fn a_region_without_a_file_says_what_to_do() {
    let mut space = space();
    space.map(0, PAGE, 0, RW, None).expect("map");
    let error = space.handle().reader().snapshot().check(8, 1, RW).expect_err("no file");
    assert_eq!(error, DmaError::NotAccessible { iova: 8 });
    assert!(error.to_string().contains("share=on"), "{error}");
}

#[test]
fn access_is_what_the_client_allowed() {
    let mut space = space();
    let fd = file(1, 3);
    space.map(0, PAGE, 0, Access::READ, copy_of(&fd)).expect("map");
    space.map(PAGE, PAGE, PAGE, Access::WRITE, copy_of(&fd)).expect("map");
    space.map(2 * PAGE, PAGE, 0, Access { read: false, write: false }, copy_of(&fd)).expect("map");
    let mut reader = space.handle().reader();
    let snapshot = reader.snapshot();
    assert!(snapshot.check(0, 4096, Access::READ).is_ok());
    assert!(snapshot.check(PAGE, 4096, Access::WRITE).is_ok());
    for (iova, access) in [(0, Access::WRITE), (PAGE, Access::READ), (2 * PAGE, Access::READ), (0, RW)] {
        let refused = snapshot.check(iova, 1, access);
        assert!(matches!(refused, Err(DmaError::AccessDenied { iova: at, .. }) if at == iova), "{iova:#x}");
    }
    let across = snapshot.check(0, 4097, Access::READ);
    assert!(matches!(across, Err(DmaError::AccessDenied { iova: PAGE, .. })));
    assert_eq!(snapshot.write_bytes(0, &[1]).map_err(|error| error.errno()), Err(libc::EACCES));
}

#[test]
fn descriptors_that_are_no_memory_are_refused() {
    let mut space = space();
    let mut refused = |fd: OwnedFd, access| space.map(0, PAGE, 0, access, Some(fd)).expect_err("refused");
    let null = File::open("/dev/null").expect("open").into();
    assert!(matches!(refused(null, Access::READ), DmaError::NotMappable { .. }));
    let (pipe, _other) = rustix::pipe::pipe().expect("pipe");
    assert!(matches!(refused(pipe, Access::READ), DmaError::NotMappable { .. }));
    let dir = tempfile::tempdir().expect("tempdir");
    let directory = File::open(dir.path()).expect("open").into();
    assert!(matches!(refused(directory, Access::READ), DmaError::NotMappable { .. }));

    let path = dir.path().join("memory");
    std::fs::write(&path, vec![0; 8192]).expect("write");
    let read_only: OwnedFd = File::open(&path).expect("open").into();
    assert!(matches!(refused(read_only.try_clone().expect("dup"), RW), DmaError::NotMappable { .. }));
    let write_only = File::options().write(true).open(&path).expect("open").into();
    assert!(matches!(refused(write_only, Access::WRITE), DmaError::NotMappable { .. }));
    let path_only = rustix::fs::open(&path, OFlags::PATH, rustix::fs::Mode::empty()).expect("open");
    assert!(matches!(refused(path_only, Access::READ), DmaError::NotMappable { .. }));
    assert_eq!(space.map(0, PAGE, 0, Access::READ, Some(read_only)), Ok(()));
}

#[test]
fn a_file_that_is_too_short_is_refused() {
    let mut space = space();
    let refused = space.map(0, 2 * PAGE, PAGE, RW, Some(file(1, 2)));
    assert_eq!(refused, Err(DmaError::FileTooShort { offset: PAGE, size: 2 * PAGE, file_size: 2 * PAGE }));
    assert_eq!(space.map(0, PAGE, PAGE, RW, Some(file(1, 2))), Ok(()));
}

#[test]
fn regions_of_one_file_share_a_mapping_until_they_need_more_of_it() {
    let (mut space, fd, mut reader) = mapped(0, 2);
    space.map(16 * PAGE, PAGE, PAGE, RW, copy_of(&fd)).expect("map");
    assert_eq!(reader.snapshot().mapping_count(), 1);
    space.map(32 * PAGE, PAGE, PAGE, Access::READ, copy_of(&fd)).expect("map");
    assert_eq!(reader.snapshot().mapping_count(), 2, "reading only is mapped for reading only");
    rustix::fs::ftruncate(&fd, 3 * PAGE).expect("grow");
    space.map(48 * PAGE, PAGE, 2 * PAGE, RW, copy_of(&fd)).expect("map");
    assert_eq!(reader.snapshot().mapping_count(), 3);
    drop(space.unmap(0, 2 * PAGE).expect("unmap"));
    assert_eq!(reader.snapshot().mapping_count(), 3);
    drop(space.unmap(16 * PAGE, PAGE).expect("unmap"));
    assert_eq!(reader.snapshot().mapping_count(), 2, "the last region of a mapping takes it along");
}

#[test]
fn a_sparse_file_of_monstrous_size_costs_only_the_region() {
    let fd = file(1, 4);
    rustix::fs::ftruncate(&fd, 1 << 60).expect("grow");
    let mut space = space();
    space.map(0, PAGE, 3 * PAGE, RW, copy_of(&fd)).expect("map");
    let far = (1 << 60) - PAGE;
    space.map(PAGE, PAGE, far, RW, copy_of(&fd)).expect("map");
    let mut reader = space.handle().reader();
    assert_eq!(reader.snapshot().read_bytes(0, &mut [0; 8192]), Ok(()));
    let refused = space.map(1 << 62, 1 << 59, 0, RW, copy_of(&fd));
    assert!(matches!(refused, Err(DmaError::TooMuchMapped { .. })), "{refused:?}");
}

#[test]
fn the_number_of_regions_and_of_mappings_is_bounded() {
    let mut space = space();
    for index in 0..MAX_MAPPINGS as u64 {
        space.map(index * PAGE, PAGE, 0, RW, Some(file(0, 1))).expect("map");
    }
    let iova = MAX_MAPPINGS as u64 * PAGE;
    let refused = space.map(iova, PAGE, 0, RW, Some(file(0, 1)));
    assert!(matches!(refused, Err(DmaError::TooMuchMapped { .. })), "{refused:?}");
    assert_eq!(space.map(iova, PAGE, 0, RW, None), Ok(()));
    let limit = MAX_REGIONS;
    assert_eq!(DmaError::TooManyRegions { limit }.errno(), libc::ENOSPC);
}

#[test]
fn a_map_keeps_no_descriptor_and_an_unmap_no_mapping() {
    let name = format!("nvmet-leak-{}", std::process::id());
    let fd = rustix::fs::memfd_create(&name, MemfdFlags::CLOEXEC).expect("memfd");
    rustix::fs::ftruncate(&fd, 4 * PAGE).expect("grow");
    let mut space = space();
    space.map(0, PAGE, 0, RW, copy_of(&fd)).expect("map");
    assert!(space.map(0, 2 * PAGE, 0, RW, copy_of(&fd)).is_err());
    space.map(0, PAGE, 0, RW, copy_of(&fd)).expect("the same again");
    space.map(PAGE, PAGE, 2 * PAGE, RW, Some(fd)).expect("map");
    let open = std::fs::read_dir("/proc/self/fd")
        .expect("fds")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| link.to_string_lossy().contains(&name));
    assert_eq!(open.count(), 0);
    let is_mapped = || std::fs::read_to_string("/proc/self/maps").expect("maps").contains(&name);
    assert!(is_mapped());
    drop(space.unmap(0, PAGE).expect("unmap"));
    assert!(is_mapped());
    drop(space.clear());
    assert!(!is_mapped());
}

#[test]
fn the_memory_goes_with_the_space_and_its_readers() {
    let (space, fd, mut reader) = mapped(0, 1);
    drop(space);
    assert_eq!(reader.snapshot().check(0, 1, RW), Err(DmaError::NotMapped { iova: 0 }));
    drop(fd);
}

#[test]
fn an_offset_inside_of_a_huge_page_is_mapped() {
    let fd = match rustix::fs::memfd_create("nvmet-huge", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB) {
        Ok(fd) if rustix::fs::ftruncate(&fd, 4 << 20).is_ok() => fd,
        _ => return eprintln!("NOT TESTED: this kernel has no hugetlb memfd"),
    };
    let mut space = space();
    space.map(0, 2 << 20, 0x3000, RW, Some(fd)).expect("map");
    let mut reader = space.handle().reader();
    let snapshot = reader.snapshot();
    snapshot.write_bytes(0x1000, &[1; 16]).expect("write");
    let mut back = [0; 16];
    match snapshot.read_bytes(0x1000, &mut back) {
        Ok(()) => assert_eq!(back, [1; 16]),
        Err(error) => {
            // No huge page is reserved: a shortage is the same SIGBUS as a truncated file, for a page of this size.
            assert_eq!(error, DmaError::Poisoned);
            eprintln!("TESTED IN PART: no huge pages are reserved");
        }
    }
}
