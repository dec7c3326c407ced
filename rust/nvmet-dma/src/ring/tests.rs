use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use super::*;
use crate::loopback::LoopbackMemory;
use crate::memory::{Direction, SegmentBuf};

const IOVA: u64 = LoopbackMemory::IOVA;

fn file() -> File {
    File::from(rustix::fs::memfd_create("ring-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap())
}

fn ring(file: &File, entries: u32) -> Ring {
    Ring::new(Arc::new(OwnedFd::from(file.try_clone().unwrap())), entries).unwrap()
}

/// The set of descriptors that a worker sleeps on.
struct Sleeper(OwnedFd);

impl Sleeper {
    fn new(ring: &Ring) -> Self {
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, ring, EventData::new_u64(1), EventFlags::IN).unwrap();
        Self(epoll)
    }

    /// Whether the descriptor is, or becomes, readable. Unlike `poll`, `epoll` does not look again when the time is
    /// over, so a wake-up that the kernel does not give is seen.
    fn is_woken(&self, seconds: i64) -> bool {
        let timeout = rustix::time::Timespec { tv_sec: seconds, tv_nsec: 0 };
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        loop {
            match epoll::wait(&self.0, &mut events, Some(&timeout)) {
                Ok(ready) => return ready == 1,
                Err(errno) => assert_eq!(errno, Errno::INTR),
            }
        }
    }
}

/// Sleeps as a worker does, unless it must not.
fn sleep(ring: &mut Ring) {
    let sleeper = Sleeper::new(ring);
    if !ring.prepare_sleep() {
        assert!(sleeper.is_woken(20), "the ring's descriptor never became readable");
    }
}

fn wait(ring: &mut Ring) -> Vec<(u64, i32, Option<AlignedBuf>)> {
    let mut done = Vec::new();
    while ring.in_flight() > 0 {
        ring.submit();
        sleep(ring);
        ring.reap(|tag, result, buf| done.push((tag, result, buf)));
    }
    done
}

#[test]
fn a_completion_that_comes_while_its_thread_sleeps_wakes_it() {
    let (pipe, writer) = rustix::pipe::pipe().unwrap();
    let mut ring = Ring::new(Arc::new(pipe), 2).unwrap();
    let guest = LoopbackMemory::new(4096).unwrap();
    let mut reader = guest.handle().reader();
    let mut room = SegmentBuf::new(1, 4096);
    let mut builder = room.begin(reader.snapshot(), Direction::ToGuest);
    builder.push(IOVA, 1).unwrap();
    ring.push(RingOp::Read { offset: u64::MAX, data: builder.finish() }, 3).unwrap();
    ring.submit();
    let other = std::thread::spawn(move || {
        // Usually after the sleep began; the test holds in either order.
        std::thread::sleep(Duration::from_millis(30));
        rustix::io::write(&writer, b"x").unwrap();
    });
    assert!(matches!(wait(&mut ring).as_slice(), [(3, 1, None)]));
    other.join().unwrap();
}

/// A ring on the reading end of a pipe, with one read in flight, and the writing end.
fn waiting_for_a_pipe() -> (Ring, OwnedFd) {
    let (pipe, writer) = rustix::pipe::pipe().unwrap();
    let mut ring = Ring::new(Arc::new(pipe), 4).unwrap();
    push_read(&mut ring, 1);
    ring.submit();
    (ring, writer)
}

fn push_read(ring: &mut Ring, tag: u64) {
    let buf = AlignedBuf::new(16).unwrap();
    ring.push(RingOp::ReadBuf { offset: u64::MAX, buf, len: 1 }, tag).unwrap();
}

fn reaped(ring: &mut Ring) -> usize {
    let mut count = 0;
    ring.reap(|_, result, _| {
        assert_eq!(result, 1);
        count += 1;
    });
    count
}

#[test]
fn a_completion_between_any_two_steps_of_going_to_sleep_is_not_missed() {
    for moment in 0..4 {
        let (mut ring, writer) = waiting_for_a_pipe();
        let complete = |now| {
            if now == moment {
                rustix::io::write(&writer, b"x").unwrap();
            }
        };
        complete(0);
        let sleeper = Sleeper::new(&ring);
        let early = reaped(&mut ring);
        complete(1);
        let stay = ring.prepare_sleep();
        complete(2);
        assert!(early > 0 || stay || moment == 3 || sleeper.is_woken(20), "moment {moment}");
        complete(3);
        assert!(early > 0 || stay || sleeper.is_woken(20), "moment {moment}");
        assert_eq!(early + reaped(&mut ring), 1, "moment {moment}");
    }
}

#[test]
fn a_sleep_after_a_wake_up_is_not_cut_short_by_it() {
    let (mut ring, writer) = waiting_for_a_pipe();
    let sleeper = Sleeper::new(&ring);
    for round in 0..3 {
        assert!(!ring.prepare_sleep(), "round {round}");
        assert!(!sleeper.is_woken(0), "round {round}");
        rustix::io::write(&writer, b"x").unwrap();
        assert!(sleeper.is_woken(20), "round {round}");
        assert_eq!(reaped(&mut ring), 1);
        // Nothing in flight: a worker that has nothing else to do sleeps.
        assert!(!ring.prepare_sleep(), "round {round}");
        assert!(!sleeper.is_woken(0), "round {round}");
        push_read(&mut ring, round);
        ring.submit();
    }
}

#[test]
fn a_ring_sleeps_and_wakes_while_another_thread_completes_at_any_time() {
    const ROUNDS: u64 = 20_000;
    let (mut ring, writer) = waiting_for_a_pipe();
    let sleeper = Sleeper::new(&ring);
    let (go, gone) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        for round in 0..ROUNDS {
            gone.recv().unwrap();
            for _ in 0..round % 512 {
                std::hint::spin_loop();
            }
            rustix::io::write(&writer, b"x").unwrap();
        }
    });
    for round in 0..ROUNDS {
        go.send(()).unwrap();
        while reaped(&mut ring) == 0 {
            if !ring.prepare_sleep() {
                assert!(sleeper.is_woken(20), "round {round}");
            }
        }
        push_read(&mut ring, round);
        ring.submit();
    }
    other.join().unwrap();
}

#[test]
fn slots_are_made_as_they_are_needed_and_operations_in_flight_survive_it() {
    let file = file();
    let bytes: Vec<u8> = (0..=255).collect();
    file.write_all_at(&bytes, 0).unwrap();
    let (pipe, writer) = rustix::pipe::pipe().unwrap();
    let mut ring = Ring::new(Arc::new(pipe), 1024).unwrap();
    assert_eq!(ring.slots.len(), 0);
    for tag in 0..700 {
        push_read(&mut ring, tag);
    }
    assert_eq!((ring.in_flight(), ring.slots.len()), (700, 700));
    ring.submit();
    rustix::io::write(&writer, &[7; 700]).unwrap();
    let mut done = wait(&mut ring);
    done.sort_unstable_by_key(|(tag, ..)| *tag);
    assert!(done.iter().map(|(tag, ..)| *tag).eq(0..700));
    assert!(done.iter().all(|(_, result, buf)| *result == 1 && buf.as_ref().is_some_and(|buf| buf[0] == 7)));
    push_read(&mut ring, 1);
    assert_eq!(ring.slots.len(), 700);
}

#[test]
fn guest_memory_goes_out_and_comes_back() {
    let file = file();
    let mut ring = ring(&file, 8);
    let guest = LoopbackMemory::new(1 << 20).unwrap();
    let pattern: Vec<u8> = (0..20_000u32).map(|n| (n * 7 % 251) as u8).collect();
    guest.memory().write_bytes(0, &pattern).unwrap();
    let mut reader = guest.handle().reader();
    let mut room = SegmentBuf::new(16, 1 << 20);
    let mut builder = room.begin(reader.snapshot(), Direction::FromGuest);
    builder.push(IOVA, 20_000).unwrap();
    ring.push(RingOp::Write { offset: 3, data: builder.finish(), dsync: true }, 11).unwrap();
    let done = wait(&mut ring);
    assert!(matches!(done.as_slice(), [(11, 20_000, None)]), "{done:?}");

    // Three ranges, backwards in memory.
    let mut builder = room.begin(reader.snapshot(), Direction::ToGuest);
    builder.push(IOVA + 0x40_000, 7_000).unwrap();
    builder.push(IOVA + 0x30_000, 1).unwrap();
    builder.push(IOVA + 0x20_000, 12_999).unwrap();
    ring.push(RingOp::Read { offset: 3, data: builder.finish() }, 12).unwrap();
    assert!(matches!(wait(&mut ring).as_slice(), [(12, 20_000, None)]));
    let mut back = vec![0; 20_000];
    guest.memory().read_bytes(0x40_000, &mut back[..7_000]).unwrap();
    guest.memory().read_bytes(0x30_000, &mut back[7_000..7_001]).unwrap();
    guest.memory().read_bytes(0x20_000, &mut back[7_001..]).unwrap();
    assert_eq!(back, pattern);
}

#[test]
fn a_buffer_comes_back_with_its_result() {
    let file = file();
    file.write_all_at(b"0123456789", 0).unwrap();
    let mut ring = ring(&file, 2);
    let op = RingOp::ReadBuf { offset: 4, buf: AlignedBuf::new(4096).unwrap(), len: 4096 };
    ring.push(op, 1).unwrap();
    let mut done = wait(&mut ring);
    let Some((1, 6, Some(mut buf))) = done.pop() else { panic!("{done:?}") };
    assert_eq!(&buf[..7], b"456789\0");
    buf[..3].copy_from_slice(b"abc");
    ring.push(RingOp::WriteBuf { offset: 10, buf, len: 3, dsync: false }, 2).unwrap();
    assert!(matches!(wait(&mut ring).as_slice(), [(2, 3, Some(_))]));
    let mut tail = [0; 4];
    file.read_exact_at(&mut tail, 9).unwrap();
    assert_eq!(&tail, b"9abc");
}

#[test]
fn a_read_that_the_kernel_cuts_short_is_continued_and_ends_with_the_file() {
    let file = file();
    file.write_all_at(&[7; 10_000], 0).unwrap();
    let mut ring = ring(&file, 2);
    let guest = LoopbackMemory::new(1 << 16).unwrap();
    let mut reader = guest.handle().reader();
    let mut room = SegmentBuf::new(16, 1 << 16);
    let mut builder = room.begin(reader.snapshot(), Direction::ToGuest);
    builder.push(IOVA, 0x2000).unwrap();
    builder.push(IOVA + 0x8000, 0x4000).unwrap();
    ring.push(RingOp::Read { offset: 0, data: builder.finish() }, 5).unwrap();
    assert!(matches!(wait(&mut ring).as_slice(), [(5, 10_000, None)]));
}

#[test]
fn a_slot_goes_on_where_the_kernel_stopped() {
    let guest = LoopbackMemory::new(1 << 16).unwrap();
    let mut reader = guest.handle().reader();
    let mut room = SegmentBuf::new(16, 1 << 16);
    let mut builder = room.begin(reader.snapshot(), Direction::ToGuest);
    builder.push(IOVA, 100).unwrap();
    builder.push(IOVA + 0x1000, 100).unwrap();
    let mut slot = Slot::default();
    slot.load(RingOp::Read { offset: 0, data: builder.finish() }, 9, None).unwrap();
    assert!(slot.advance(40));
    assert!(slot.advance(60));
    assert!(slot.advance(1));
    assert!(!slot.advance(99));
    assert_eq!(slot.finish(99).1, 200);
    assert_eq!(slot.tag(), None);
}

#[test]
fn sync_and_fallocate_work_and_errors_are_negative_errno() {
    let file = file();
    file.write_all_at(&[7; 8192], 0).unwrap();
    let mut ring = ring(&file, 4);
    let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    ring.push(RingOp::Fallocate { mode: punch, offset: 0, len: 4096 }, 1).unwrap();
    ring.push(RingOp::Fsync, 2).unwrap();
    ring.push(RingOp::Fallocate { mode: punch, offset: 0, len: 0 }, 3).unwrap();
    let mut done: Vec<_> = wait(&mut ring).into_iter().map(|(tag, result, _)| (tag, result)).collect();
    done.sort_unstable();
    assert_eq!(done, [(1, 0), (2, 0), (3, -libc::EINVAL)]);
    let mut bytes = [1; 4096];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [0; 4096]);
}

#[test]
fn a_full_ring_takes_nothing_until_something_is_reaped() {
    let file = file();
    let mut ring = ring(&file, 3);
    for tag in 0..3 {
        ring.push(RingOp::Fsync, tag).unwrap();
    }
    assert_eq!(ring.push(RingOp::Fsync, 9), Err(PushError::Full));
    assert_eq!(wait(&mut ring).len(), 3);
    ring.push(RingOp::Fsync, 9).unwrap();
    assert_eq!(wait(&mut ring).len(), 1);
}

#[test]
fn segments_of_the_other_direction_and_long_buffers_are_refused() {
    let file = file();
    let mut ring = ring(&file, 1);
    let guest = LoopbackMemory::new(4096).unwrap();
    let mut reader = guest.handle().reader();
    let mut room = SegmentBuf::new(1, 4096);
    let mut builder = room.begin(reader.snapshot(), Direction::FromGuest);
    builder.push(IOVA, 4096).unwrap();
    let data = builder.finish();
    assert_eq!(ring.push(RingOp::Read { offset: 0, data }, 0), Err(PushError::WrongDirection));
    let buf = AlignedBuf::new(16).unwrap();
    assert_eq!(ring.push(RingOp::ReadBuf { offset: 0, buf, len: 17 }, 0), Err(PushError::TooLong));
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn an_operation_that_waits_is_cancelled() {
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    let mut ring = Ring::new(Arc::new(pipe), 2).unwrap();
    ring.push(RingOp::ReadBuf { offset: u64::MAX, buf: AlignedBuf::new(16).unwrap(), len: 16 }, 77).unwrap();
    ring.submit();
    ring.reap(|_, _, _| panic!("nothing was written to the pipe"));
    ring.cancel(78);
    ring.cancel(77);
    assert!(matches!(wait(&mut ring).as_slice(), [(77, result, Some(_))] if *result == -libc::ECANCELED));
}

#[test]
fn dropping_a_ring_ends_what_is_in_flight_and_lets_go_of_guest_memory() {
    let (pipe, writer) = rustix::pipe::pipe().unwrap();
    let guest = LoopbackMemory::new(4096).unwrap();
    let mut reader = guest.handle().reader();
    let mut room = SegmentBuf::new(1, 4096);
    let mut ring = Ring::new(Arc::new(pipe), 2).unwrap();
    let mut builder = room.begin(reader.snapshot(), Direction::ToGuest);
    builder.push(IOVA, 16).unwrap();
    ring.push(RingOp::Read { offset: u64::MAX, data: builder.finish() }, 1).unwrap();
    ring.submit();
    drop(ring);
    // Whether the pipe still has a reader depends on how far the kernel is with the ring itself.
    let _ = rustix::io::write(&writer, b"late");
    let mut bytes = [1; 16];
    guest.memory().read_bytes(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 16]);
}

#[test]
fn held_segments_give_back_the_same_memory() {
    let guest = LoopbackMemory::new(8192).unwrap();
    let mut held = Held::default();
    assert!(held.view().is_none());
    {
        let mut reader = guest.handle().reader();
        let mut room = SegmentBuf::new(2, 8192);
        let mut builder = room.begin(reader.snapshot(), Direction::ToGuest);
        builder.push(IOVA + 4096, 100).unwrap();
        builder.push(IOVA, 100).unwrap();
        held.hold(&builder.finish().skip(50).unwrap());
    }
    held.view().unwrap().write_from(49, b"xy").unwrap();
    let mut bytes = [0; 1];
    guest.memory().read_bytes(4096 + 99, &mut bytes).unwrap();
    assert_eq!(&bytes, b"x");
    guest.memory().read_bytes(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"y");
    held.release();
    assert!(held.view().is_none());
}

#[test]
fn the_file_stays_open_as_long_as_the_ring() {
    let file = file();
    file.write_all_at(b"abc", 0).unwrap();
    let mut ring = ring(&file, 1);
    drop(file);
    ring.push(RingOp::ReadBuf { offset: 0, buf: AlignedBuf::new(3).unwrap(), len: 3 }, 0).unwrap();
    assert!(matches!(wait(&mut ring).as_slice(), [(0, 3, Some(_))]));
    assert!(ring.file().as_fd().try_clone_to_owned().is_ok());
}

/// A ring on a file of zeroes that registers memory, and 8 MiB of guest memory.
fn registering() -> (Ring, LoopbackMemory) {
    let file = file();
    file.set_len(1 << 20).unwrap();
    let mut ring = ring(&file, 8);
    ring.register_memory();
    (ring, LoopbackMemory::new(8 << 20).unwrap())
}

fn read_at(ring: &mut Ring, guest: &LoopbackMemory, offset: u64, times: usize) {
    let mut reader = guest.handle().reader();
    let mut room = SegmentBuf::new(4, 1 << 20);
    for _ in 0..times {
        let mut builder = room.begin(reader.snapshot(), Direction::ToGuest);
        builder.push(IOVA + offset, 4096).unwrap();
        ring.push(RingOp::Read { offset: 0, data: builder.finish() }, 1).unwrap();
        assert!(matches!(wait(ring).as_slice(), [(1, 4096, None)]));
    }
}

fn registered(ring: &Ring) -> usize {
    ring.fixed.as_ref().unwrap().count()
}

#[test]
fn memory_that_is_used_often_is_registered_and_carries_the_same_bytes() {
    let (mut ring, guest) = registering();
    read_at(&mut ring, &guest, 0, 60);
    assert_eq!(registered(&ring), 0);
    read_at(&mut ring, &guest, 0x3000, 20);
    assert_eq!(registered(&ring), 1);
    let pattern: Vec<u8> = (0..8192u32).map(|n| (n * 7 % 251) as u8).collect();
    guest.memory().write_bytes(0x5000, &pattern).unwrap();
    let mut reader = guest.handle().reader();
    let mut room = SegmentBuf::new(4, 1 << 20);
    let mut builder = room.begin(reader.snapshot(), Direction::FromGuest);
    builder.push(IOVA + 0x5000, 8192).unwrap();
    ring.push(RingOp::Write { offset: 100, data: builder.finish(), dsync: true }, 2).unwrap();
    assert!(ring.slots.iter().any(|slot| slot.buffer().is_some()));
    assert!(matches!(wait(&mut ring).as_slice(), [(2, 8192, None)]));
    let mut builder = room.begin(reader.snapshot(), Direction::ToGuest);
    builder.push(IOVA + 0x9000, 8192).unwrap();
    ring.push(RingOp::Read { offset: 100, data: builder.finish() }, 3).unwrap();
    assert!(matches!(wait(&mut ring).as_slice(), [(3, 8192, None)]));
    let mut back = vec![0; 8192];
    guest.memory().read_bytes(0x9000, &mut back).unwrap();
    assert_eq!(back, pattern);
}

#[test]
fn unmapped_memory_is_let_go_of_and_other_memory_stays_registered() {
    let (mut ring, mut gone) = registering();
    let stays = LoopbackMemory::new(8 << 20).unwrap();
    read_at(&mut ring, &gone, 0, 70);
    read_at(&mut ring, &stays, 0, 70);
    assert_eq!(registered(&ring), 2);
    ring.forget_memory(false);
    assert_eq!(registered(&ring), 2);
    let _ = gone.space().unmap(IOVA, 8 << 20).unwrap();
    ring.forget_memory(false);
    assert_eq!(registered(&ring), 1);
    ring.forget_memory(true);
    assert_eq!(registered(&ring), 0);
    read_at(&mut ring, &stays, 0, 70);
    assert_eq!(registered(&ring), 1);
}

#[test]
fn a_region_mapped_again_at_the_same_place_is_another_one() {
    let (mut ring, mut guest) = registering();
    read_at(&mut ring, &guest, 0, 70);
    let old = guest.handle().reader();
    let _ = guest.space().unmap(IOVA, 8 << 20).unwrap();
    let file = guest.memory().fd().try_clone_to_owned().unwrap();
    guest.space().map(IOVA, 8 << 20, 0, crate::memory::Access::READ_WRITE, Some(file)).unwrap();
    read_at(&mut ring, &guest, 0, 1);
    assert!(ring.slots.iter().all(|slot| slot.buffer().is_none()));
    drop(old);
}

#[test]
fn memory_in_use_is_let_go_of_with_its_last_operation() {
    let (pipe, writer) = rustix::pipe::pipe().unwrap();
    let mut ring = Ring::new(Arc::new(pipe), 4).unwrap();
    ring.register_memory();
    let mut guest = LoopbackMemory::new(8 << 20).unwrap();
    let mut reader = guest.handle().reader();
    let mut room = SegmentBuf::new(1, 4096);
    let mut read = |ring: &mut Ring, snapshot: &crate::memory::Snapshot| {
        let mut builder = room.begin(snapshot, Direction::ToGuest);
        builder.push(IOVA, 1).unwrap();
        ring.push(RingOp::Read { offset: u64::MAX, data: builder.finish() }, 3).unwrap();
        ring.submit();
    };
    for _ in 0..70 {
        rustix::io::write(&writer, b"x").unwrap();
        read(&mut ring, reader.snapshot());
        wait(&mut ring);
    }
    assert_eq!(registered(&ring), 1);
    read(&mut ring, reader.snapshot());
    let _ = guest.space().unmap(IOVA, 8 << 20).unwrap();
    ring.forget_memory(false);
    assert_eq!(registered(&ring), 1);
    rustix::io::write(&writer, b"y").unwrap();
    wait(&mut ring);
    assert_eq!(registered(&ring), 0);
}

#[test]
fn memory_that_may_not_be_pinned_is_not_registered() {
    let (mut ring, mut guest) = registering();
    guest.space().set_pinning(false);
    let _ = guest.space().unmap(IOVA, 8 << 20).unwrap();
    let file = guest.memory().fd().try_clone_to_owned().unwrap();
    guest.space().map(IOVA, 8 << 20, 0, crate::memory::Access::READ_WRITE, Some(file)).unwrap();
    read_at(&mut ring, &guest, 0, 200);
    assert_eq!(registered(&ring), 0);
}

#[test]
fn a_range_over_two_chunks_and_a_transfer_of_two_ranges_go_unregistered() {
    let (mut ring, guest) = registering();
    let base = guest.handle().reader().snapshot().first_mapping().unwrap().as_ptr().addr();
    let edge = (base + 1).next_multiple_of(2 << 20) - base;
    read_at(&mut ring, &guest, edge as u64 - 2048, 200);
    assert_eq!(registered(&ring), 0);
}

#[test]
fn a_polled_ring_keeps_its_thread_awake_and_says_what_a_file_cannot_do() {
    let file = file();
    file.set_len(4096).unwrap();
    let mut ring = Ring::polled(Arc::new(OwnedFd::from(file)), 4).unwrap();
    assert!(!ring.prepare_sleep());
    let buf = AlignedBuf::new(4096).unwrap();
    ring.push(RingOp::ReadBuf { offset: 0, buf, len: 4096 }, 1).unwrap();
    assert!(ring.prepare_sleep());
    let mut done = Vec::new();
    while ring.in_flight() > 0 {
        ring.submit();
        ring.reap(|tag, result, _| done.push((tag, result)));
    }
    assert_eq!(done, [(1, -libc::EOPNOTSUPP)]);
    assert!(!ring.prepare_sleep());
}

#[test]
fn a_chunk_in_use_is_not_exchanged_for_another_and_one_out_of_use_is() {
    let (mut ring, guest) = registering();
    ring.fixed.as_mut().unwrap().set_limit(2);
    let base = guest.handle().reader().snapshot().first_mapping().unwrap().as_ptr().addr();
    let edge = ((base + 1).next_multiple_of(2 << 20) - base) as u64;
    let (busy, idle, new) = (edge, edge + (2 << 20), edge + (4 << 20));
    let is_registered = |ring: &mut Ring, offset| {
        read_at(ring, &guest, offset, 1);
        ring.slots.iter().any(|slot| slot.buffer().is_some())
    };
    read_at(&mut ring, &guest, busy, 70);
    read_at(&mut ring, &guest, idle, 70);
    assert_eq!(registered(&ring), 2);
    for _ in 0..8 {
        read_at(&mut ring, &guest, new, 64);
        read_at(&mut ring, &guest, busy, 1);
    }
    assert_eq!(registered(&ring), 2);
    assert!(is_registered(&mut ring, busy));
    assert!(is_registered(&mut ring, new));
    assert!(!is_registered(&mut ring, idle));
}

#[test]
fn after_a_refusal_everything_goes_on_unregistered() {
    let (mut ring, guest) = registering();
    ring.fixed.as_mut().unwrap().refuse(&std::io::Error::from_raw_os_error(libc::ENOMEM));
    read_at(&mut ring, &guest, 0, 200);
    assert_eq!(registered(&ring), 0);
    ring.fixed = Some(Fixed::new());
    ring.fixed.as_mut().unwrap().refuse(&std::io::Error::from_raw_os_error(libc::EFAULT));
    read_at(&mut ring, &guest, 0, 200);
    assert_eq!(registered(&ring), 1);
}
