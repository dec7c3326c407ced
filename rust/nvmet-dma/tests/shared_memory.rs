//! The doorbell page, shared host memory, the arena, buffers and event counters, as other crates use them.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nvmet_dma::{
    AlignedBuf, Arena, Direction, DmaError, DoorbellPage, EventFd, LoopbackMemory, MappedArea, SegmentBuf,
    SharedMemory,
};
use rustix::fs::{MemfdFlags, OFlags};

const BASE: u64 = LoopbackMemory::IOVA;

#[test]
fn a_peer_and_we_see_the_same_doorbells() {
    let page = DoorbellPage::new(100).expect("page");
    assert_eq!(page.len() % 4096, 0);
    let peer = MappedArea::new(page.fd(), 0, page.len()).expect("map");
    peer.store_u32(8, 77).expect("store");
    assert_eq!(page.load(2), Ok(77));
    page.store(3, 0x0403_0201).expect("store");
    let mut bytes = [0; 4];
    peer.read_bytes(12, &mut bytes).expect("read");
    assert_eq!(bytes, [1, 2, 3, 4]);
    page.write_bytes(16, &[5, 0, 0, 0]).expect("aligned");
    page.write_bytes(21, &[6, 7]).expect("unaligned");
    page.read_bytes(16, &mut bytes).expect("read");
    assert_eq!((bytes, page.load(5)), ([5, 0, 0, 0], Ok(0x0007_0600)));
    page.zero();
    assert_eq!(peer.load_u32(8), Ok(0));
    for index in [page.len() / 4, usize::MAX / 4, usize::MAX] {
        assert!(page.load(index).is_err() && page.store(index, 0).is_err(), "{index}");
    }
    assert!(page.write_bytes(page.len() - 3, &[0; 4]).is_err());
}

#[test]
fn a_peer_cannot_resize_the_doorbell_page() {
    let page = DoorbellPage::new(4096).expect("page");
    for size in [0, 4096 * 16] {
        assert!(rustix::fs::ftruncate(page.fd(), size).is_err(), "{size}");
    }
    assert!(DoorbellPage::new(0).is_err());
}

#[test]
fn an_area_must_lie_inside_of_its_file() {
    let memory = SharedMemory::new(8192).expect("memory");
    assert!(MappedArea::new(memory.fd(), 4096, 4096).is_ok());
    for (offset, len) in [(4096, 4097), (8192, 1), (u64::MAX, 2), (512, 512), (0, 0)] {
        assert!(MappedArea::new(memory.fd(), offset, len).is_err(), "{offset} {len}");
    }
    let null = File::open("/dev/null").expect("open");
    assert!(MappedArea::new(null.as_fd(), 0, 4096).is_err());
}

#[test]
fn accesses_outside_of_shared_memory_are_refused() {
    let memory = SharedMemory::new(4096).expect("memory");
    assert_eq!(memory.load_u32(4092), Ok(0));
    for offset in [4093, 4096, usize::MAX - 3] {
        assert!(memory.load_u32(offset).is_err() && memory.read_cqe(offset).is_err(), "{offset}");
        assert!(memory.write_bytes(offset, &[0; 4]).is_err());
        assert!(memory.read_bytes(offset, &mut [0; 4]).is_err());
    }
    assert!(memory.read_cqe(4084).is_err());
    assert!(matches!(memory.store_u32(2, 0), Err(DmaError::Misaligned { at: 2 })));
}

#[test]
fn an_entry_with_a_new_phase_is_whole() {
    let guest = LoopbackMemory::new(4096).expect("memory");
    let handle = guest.handle();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut reader = handle.reader();
            let access = nvmet_dma::Access::READ_WRITE;
            let ring = reader.snapshot().window(BASE, 4096, access).expect("window");
            for round in 1..=10_000_u32 {
                // As a queue does: an entry is written again only when the host has consumed it.
                ring.write_cqe(0, [round; 4]).expect("write");
                while ring.load_u32(64).expect("head") != round && !stop.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            }
        });
        for round in 1..=10_000_u32 {
            let entry = loop {
                let entry = guest.memory().read_cqe(0).expect("read");
                if entry[3] == round {
                    break entry;
                }
                thread::yield_now();
            };
            if entry != [round; 4] {
                stop.store(true, Ordering::Relaxed);
            }
            assert_eq!(entry, [round; 4]);
            guest.memory().store_u32(64, round).expect("store");
        }
    });
}

#[test]
fn an_arena_moves_data_to_and_from_a_guest() {
    let guest = LoopbackMemory::new(64 * 1024).expect("memory");
    let mut reader = guest.handle().reader();
    let arena = Arena::new(1_000_003, true).expect("arena");
    let mut buf = SegmentBuf::new(8, 1 << 20);
    let data: Vec<u8> = (0..10_000_u32).map(|index| (index % 251) as u8).collect();
    guest.memory().write_bytes(0, &data).expect("write");

    let mut segments = buf.begin(reader.snapshot(), Direction::FromGuest);
    segments.push(BASE + 5_000, 5_000).expect("push");
    segments.push(BASE, 5_000).expect("push");
    let segments = segments.finish();
    assert_eq!(arena.read(0, &segments), Err(DmaError::WrongDirection));
    arena.write(990_003, &segments).expect("write");
    assert_eq!(arena.compare(990_003, &segments), Ok(true));
    assert_eq!(arena.compare(990_002, &segments), Ok(false));
    for offset in [990_004, u64::MAX] {
        assert!(matches!(arena.write(offset, &segments), Err(DmaError::OutOfBounds { .. })));
    }
    let mut back = vec![0; 10_000];
    arena.read_bytes(990_003, &mut back).expect("read");
    assert_eq!((&back[..5_000], &back[5_000..]), (&data[5_000..], &data[..5_000]));

    let mut segments = buf.begin(reader.snapshot(), Direction::ToGuest);
    segments.push(BASE + 30_001, 1_000).expect("push");
    segments.push_bit_bucket(3_000).expect("push");
    segments.push(BASE + 20_000, 1_000).expect("push");
    let segments = segments.finish();
    assert_eq!(arena.write(0, &segments), Err(DmaError::WrongDirection));
    arena.read(990_003, &segments).expect("read");
    guest.memory().read_bytes(30_001, &mut back[..1_000]).expect("read");
    guest.memory().read_bytes(20_000, &mut back[1_000..2_000]).expect("read");
    assert_eq!((&back[..1_000], &back[1_000..2_000]), (&data[5_000..6_000], &data[9_000..]));
}

#[test]
fn zeroing_takes_exactly_its_range() {
    let arena = Arena::new(40_000, false).expect("arena");
    for (offset, len) in
        [(0, 40_000), (1, 4095), (4096, 4096), (4000, 200), (5, 30_000), (4096, 0), (39_999, 1)]
    {
        arena.write_bytes(0, &vec![1; 40_000]).expect("write");
        arena.zero(offset, len).expect("zero");
        let mut bytes = vec![9; 40_000];
        arena.read_bytes(0, &mut bytes).expect("read");
        let zeros = bytes.iter().filter(|byte| **byte == 0).count();
        assert_eq!(zeros as u64, len, "{offset} {len}");
        let range = offset as usize..(offset + len) as usize;
        assert!(bytes[range].iter().all(|byte| *byte == 0), "{offset} {len}");
    }
    assert!(arena.zero(1, 40_000).is_err() && arena.zero(u64::MAX, 1).is_err());
}

#[test]
fn an_arena_larger_than_memory_is_sparse_and_one_that_cannot_be_is_an_error() {
    let arena = Arena::new(1 << 42, false).expect("4 TiB of nothing");
    arena.write_bytes((1 << 42) - 3, &[1, 2, 3]).expect("write");
    let mut bytes = [9; 4];
    arena.read_bytes((1 << 42) - 4, &mut bytes).expect("read");
    assert_eq!(bytes, [0, 1, 2, 3]);
    for size in [0, 1 << 50, u64::MAX] {
        assert!(Arena::new(size, false).is_err(), "{size}");
    }
}

#[test]
fn threads_share_an_arena() {
    let arena = Arena::new(1 << 20, false).expect("arena");
    thread::scope(|scope| {
        for number in 0..4_u8 {
            let arena = &arena;
            scope.spawn(move || {
                for round in 0..200_u64 {
                    let at = u64::from(number) * (1 << 18) + round * 1024;
                    arena.write_bytes(at, &[number + 1; 1024]).expect("write");
                    arena.zero(at, 512).expect("zero");
                    let mut bytes = [9; 1024];
                    arena.read_bytes(at, &mut bytes).expect("read");
                    assert_eq!(bytes[511..513], [0, number + 1]);
                }
            });
        }
    });
}

#[test]
fn a_buffer_is_page_aligned_and_zeroed() {
    for len in [1, 511, 4096, 1 << 20] {
        let mut buf = AlignedBuf::new(len).expect("buffer");
        assert_eq!((buf.len(), buf.as_ptr().addr() % 4096), (len, 0));
        assert!(buf.iter().all(|byte| *byte == 0));
        buf.fill(3);
        assert_eq!(thread::spawn(move || buf[len - 1]).join().expect("join"), 3);
    }
    assert!(AlignedBuf::new(0).expect("buffer").is_empty());
    assert!(AlignedBuf::new(usize::MAX).is_err());
}

#[test]
fn only_an_eventfd_is_an_eventfd() {
    let memory = rustix::fs::memfd_create("anon_inode:[eventfd]", MemfdFlags::CLOEXEC).expect("memfd");
    let (pipe, _end) = rustix::pipe::pipe().expect("pipe");
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).expect("epoll");
    let null = File::open("/dev/null").expect("open").into();
    for fd in [memory, pipe, epoll, null] {
        let error = EventFd::from_client(fd).expect_err("not an eventfd");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

#[test]
fn a_full_counter_of_a_client_does_not_block() {
    let blocking = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).expect("eventfd");
    let theirs: OwnedFd = blocking.try_clone().expect("dup");
    let ours = EventFd::from_client(blocking).expect("an eventfd");
    assert!(rustix::fs::fcntl_getfl(&theirs).expect("flags").contains(OFlags::NONBLOCK));
    rustix::io::write(&theirs, &(u64::MAX - 1).to_ne_bytes()).expect("fill");
    ours.signal().expect("pending already");
    assert_eq!(ours.drain().expect("drain"), u64::MAX - 1);
    assert_eq!(ours.drain().expect("drain"), 0);
    ours.signal().expect("signal");
    ours.try_clone().expect("dup").signal().expect("signal");
    assert_eq!(ours.drain().expect("drain"), 2);
}
