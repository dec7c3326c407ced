//! Retiring: an unmapped region is out of use when the last snapshot that knew it is gone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use super::{PAGE, byte_at, copy_of, file, mapped};
use crate::memory::{Access, DmaReader, DmaSpace};

const RW: Access = Access::READ_WRITE;

#[test]
fn without_readers_an_unmap_is_done_at_once() {
    let (mut space, _fd, reader) = mapped(0, 1);
    drop(reader);
    assert!(space.unmap(0, PAGE).expect("unmap").is_done());
}

#[test]
fn a_pin_of_any_earlier_table_holds_an_unmap_back() {
    let (mut space, fd, mut reader) = mapped(0, 1);
    let pin = reader.snapshot().clone();
    space.map(PAGE, PAGE, 0, RW, copy_of(&fd)).expect("map");
    reader.snapshot();
    let retired = space.unmap(0, PAGE).expect("unmap");
    reader.snapshot();
    assert!(!retired.is_done());
    let mut byte = [0];
    pin.read_bytes(9, &mut byte).expect("what is pinned stays readable");
    assert_eq!(byte[0], byte_at(7, 9));
    drop(pin);
    assert!(retired.is_done());
}

#[test]
fn a_window_holds_an_unmap_back_until_it_is_bound_anew() {
    let (mut space, fd, mut reader) = mapped(0, 1);
    space.map(PAGE, PAGE, 0, RW, copy_of(&fd)).expect("map");
    let mut ring = reader.snapshot().window(PAGE, 4096, RW).expect("window");
    let retired = space.unmap(0, PAGE).expect("unmap");
    ring.rebind(reader.snapshot()).expect("still mapped");
    assert_eq!(ring.generation(), reader.snapshot().generation());
    assert!(retired.is_done());
    let retired = space.unmap(PAGE, PAGE).expect("unmap");
    assert!(ring.rebind(reader.snapshot()).is_err());
    assert!(!retired.is_done());
    drop(ring);
    assert!(retired.is_done());
}

#[test]
fn the_control_thread_is_told_when_a_worker_lets_go() {
    let (told, telling) = mpsc::channel();
    let mut space = DmaSpace::new(move || told.send(()).unwrap_or_default());
    space.map(0, PAGE, 0, RW, Some(file(7, 1))).expect("map");
    let handle = space.handle();
    let (ready, is_ready) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let worker = thread::spawn(move || {
        let mut reader = handle.reader();
        let pin = reader.snapshot().clone();
        ready.send(()).expect("send");
        may_go.recv().expect("recv");
        let mut byte = [0];
        pin.read_bytes(5, &mut byte).expect("pinned");
        drop(pin);
        reader.snapshot();
        byte[0]
    });
    is_ready.recv().expect("recv");
    let retired = space.unmap(0, PAGE).expect("unmap");
    while telling.try_recv().is_ok() {}
    assert!(!retired.is_done());
    go.send(()).expect("send");
    telling.recv().expect("told");
    assert!(retired.is_done());
    assert_eq!(worker.join().expect("join"), byte_at(7, 5));
}

#[test]
fn readers_see_every_change_while_regions_come_and_go() {
    let fd = file(7, 2);
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let mut space = DmaSpace::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    space.map(0, PAGE, 0, RW, copy_of(&fd)).expect("map");
    let stop = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut reader = DmaReader::new(&space.handle());
                let mut seen = 0;
                while stop.load(Ordering::Relaxed) == 0 {
                    let snapshot = reader.snapshot().clone();
                    assert!(snapshot.generation() >= seen);
                    seen = snapshot.generation();
                    let mut bytes = [0; 64];
                    snapshot.read_bytes(100, &mut bytes).expect("always mapped");
                    assert_eq!(bytes[0], byte_at(7, 100));
                    if snapshot.read_bytes(PAGE, &mut bytes).is_ok() {
                        assert_eq!(bytes[1], byte_at(7, PAGE + 1));
                    }
                }
            });
        }
        // A second space of the same thread does not disturb the first one's readers.
        let mut other = DmaSpace::new(|| {});
        for _ in 0..500 {
            other.map(PAGE, PAGE, PAGE, RW, copy_of(&fd)).expect("map");
            drop(other.unmap(PAGE, PAGE).expect("unmap"));
        }
        stop.store(1, Ordering::Relaxed);
    });
    let mut reader = space.handle().reader();
    for round in 0..100 {
        space.map(PAGE, PAGE, PAGE, RW, copy_of(&fd)).expect("map");
        assert!(reader.is_stale());
        assert!(reader.snapshot().check(PAGE, 1, RW).is_ok());
        drop(space.unmap(PAGE, PAGE).expect("unmap"));
        assert!(reader.snapshot().check(PAGE, 1, RW).is_err(), "round {round}");
    }
    assert!(told.load(Ordering::Relaxed) >= 200);
}
