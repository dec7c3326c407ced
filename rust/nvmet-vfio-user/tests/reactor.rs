//! Many devices, hostile clients: what goes wrong on one connection stays there.

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use nvmet_vfio_user::client::{Client, ClientError, ClientOptions};
use nvmet_vfio_user::listener::Listener;
use nvmet_vfio_user::reactor::{ReactorError, ReactorOptions};
use nvmet_vfio_user::wire::{self, Header, command};
use zerocopy::{FromBytes, IntoBytes};

fn works(peer: &mut Peer) {
    let (header, body) = peer.call(command::REGION_READ, &access(BAR0, 0, 4, &[]));
    assert_eq!((header.errno, &body[16..]), (0, &[0, 1, 2, 3][..]));
}

#[test]
fn a_second_client_is_closed_at_once_and_the_first_goes_on() {
    let served = Served::new();
    let _device = served.add("one", |toy| toy);
    let mut first = Peer::ready(&served.path("one"));
    for _ in 0..40 {
        assert!(Peer::connect(&served.path("one")).rest().is_empty());
    }
    works(&mut first);
}

#[test]
fn the_next_client_is_served_as_soon_as_the_last_has_left() {
    let served = Served::new();
    let device = served.add("one", |toy| toy);
    for _ in 0..200 {
        let mut peer = Peer::ready(&served.path("one"));
        works(&mut peer);
        // Nothing is waited for: the next connection may be seen before the end of this one.
        peer.send(&message(9, command::REGION_WRITE, wire::flags::NO_REPLY, &write(BAR0, NOTE, &[7])));
    }
    eventually(&device, |toy| toy.client.is_none());
    let log = device.call(|toy| toy.log.lock().unwrap().clone()).unwrap();
    assert_eq!(log, ["attached", "write [7]", "detached"].repeat(200), "posted writes are not lost");
}

#[test]
fn the_next_client_waits_until_the_device_has_let_go_of_the_last() {
    let served = Served::new();
    let device = served.add("one", |mut toy| {
        toy.slow_detach = true;
        toy
    });
    drop(Peer::ready(&served.path("one")));
    eventually(&device, |toy| toy.pending);
    let mut next = Peer::connect(&served.path("one"));
    next.send(&version(QEMU_JSON));
    assert!(device.call(|toy| toy.client.is_none()).unwrap());
    device.call(|toy| toy.slow_detach = false).unwrap();
    device.call(Toy::finish).unwrap();
    next.reply();
    works(&mut next);
}

#[test]
fn while_an_operation_is_pending_nothing_else_is_handled_and_order_is_kept() {
    let served = Served::new();
    let device = served.add("one", |mut toy| {
        toy.slow_unmap = true;
        toy
    });
    let mut peer = Peer::ready(&served.path("one"));
    let map = wire::DmaMap { argsz: 32, flags: 3, offset: 0, addr: 0, size: 0x1000 };
    assert_eq!(peer.call(command::DMA_MAP, map.as_bytes()).0.errno, 0);
    let unmap = wire::DmaUnmap { argsz: 24, flags: 0, addr: 0, size: 0x1000 };
    peer.send(&message(20, command::DMA_UNMAP, 0, unmap.as_bytes()));
    peer.send(&message(21, command::REGION_WRITE, wire::flags::NO_REPLY, &write(BAR0, NOTE, &[1])));
    eventually(&device, |toy| toy.pending);
    assert_eq!(device.call(|toy| toy.log.lock().unwrap().len()).unwrap(), 1);
    device.call(Toy::finish).unwrap();
    let (header, body) = peer.reply();
    assert_eq!((header.id, header.command, body.as_slice()), (20, command::DMA_UNMAP, unmap.as_bytes()));
    works(&mut peer);
    assert_eq!(device.call(|toy| toy.log.lock().unwrap().len()).unwrap(), 2);
}

#[test]
fn a_client_that_leaves_while_its_operation_is_pending_makes_room() {
    let served = Served::new();
    let device = served.add("one", |toy| toy);
    for _ in 0..20 {
        let peer = Peer::ready(&served.path("one"));
        peer.send(&message(20, command::REGION_WRITE, 0, &write(BAR0, SLOW, &[1])));
        eventually(&device, |toy| toy.pending);
        drop(peer);
        works(&mut Peer::ready(&served.path("one")));
    }
}

#[test]
fn a_worker_thread_can_finish_a_pending_operation() {
    let served = Served::new();
    let device = served.add("one", |toy| toy);
    let mut peer = Peer::ready(&served.path("one"));
    let waker = device.call(|toy| toy.waker.clone()).unwrap();
    for _ in 0..100 {
        peer.send(&message(20, command::REGION_WRITE, 0, &write(BAR0, SLOW, &[1])));
        eventually(&device, |toy| toy.pending);
        device.call(|toy| toy.pending = false).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| waker.wake());
        });
        assert_eq!(peer.reply().0.id, 20);
    }
}

#[test]
fn a_deadline_alone_finishes_a_pending_operation() {
    let served = Served::new();
    let device = served.add("one", |toy| toy);
    let mut peer = Peer::ready(&served.path("one"));
    for _ in 0..5 {
        let at = Instant::now() + Duration::from_millis(20);
        device.call(move |toy| toy.finish_at = Some(at)).unwrap();
        peer.send(&message(20, command::REGION_WRITE, 0, &write(BAR0, SLOW, &[1])));
        assert_eq!(peer.reply().0.id, 20);
        assert!(Instant::now() >= at);
    }
}

#[test]
fn a_panic_closes_one_connection_and_the_device_goes_on() {
    let served = Served::new();
    let device = served.add("one", |toy| toy);
    let _other = served.add("other", |toy| toy);
    let mut other = Peer::ready(&served.path("other"));
    let mut peer = Peer::ready(&served.path("one"));
    peer.send(&message(1, command::REGION_WRITE, 0, &write(BAR0, BUG, &[1])));
    assert!(peer.rest().is_empty());
    works(&mut other);
    works(&mut Peer::ready(&served.path("one")));

    let mut peer = Peer::ready(&served.path("one"));
    let outcome = device.call(|_| panic!("a bug that the test asked for"));
    assert!(matches!(outcome, Err(ReactorError::Panicked)));
    assert!(peer.rest().is_empty());
    works(&mut Peer::ready(&served.path("one")));
}

#[test]
fn a_device_that_panics_while_it_lets_go_is_served_no_more() {
    let served = Served::new();
    let device = served.add("one", |mut toy| {
        toy.panic_on_detach = true;
        toy
    });
    let mut peer = Peer::ready(&served.path("one"));
    peer.0.shutdown(Shutdown::Write).unwrap();
    peer.rest();
    assert!(matches!(device.call(|_| ()), Err(ReactorError::NoDevice)));
    assert!(!served.path("one").exists());
    assert!(device.remove().is_ok());
}

type Trick<'a> = (&'a str, &'a dyn Fn(&Peer));

#[test]
fn whoever_breaks_a_rule_loses_its_own_connection_and_nothing_else() {
    let served = Served::new();
    let device = served.add("bad", |toy| toy);
    let _other = served.add("good", |toy| toy);
    let mut good = Peer::ready(&served.path("good"));
    let header = |size, flags| Header { id: 3, command: 4, size, flags, errno: 0 };
    let fds: Vec<OwnedFd> = (0..40).map(|_| eventfd()).collect();
    let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
    let tricks: [Trick<'_>; 7] = [
        ("too small", &|peer| peer.send(header(15, 0).as_bytes())),
        ("too large", &|peer| peer.send(header(u32::MAX, 0).as_bytes())),
        ("a reply", &|peer| peer.send(header(16, 1).as_bytes())),
        ("garbage", &|peer| peer.send(&[0xa5; 4096])),
        ("half a header", &|peer| {
            peer.send(&[0; 9]);
            peer.0.shutdown(Shutdown::Write).unwrap();
        }),
        ("half a message", &|peer| {
            peer.send(&message(1, 10, 0, &[0; 100])[..50]);
            peer.0.shutdown(Shutdown::Write).unwrap();
        }),
        ("too many file descriptors", &|peer| peer.send_fds(&message(1, 13, 0, &[]), &borrowed)),
    ];
    for (name, trick) in tricks {
        let mut peer = Peer::ready(&served.path("bad"));
        trick(&peer);
        let rest = peer.rest();
        assert!(rest.len() <= 16, "{name}: at most an error reply");
        eventually(&device, |toy| toy.client.is_none());
        works(&mut good);
    }
    works(&mut Peer::ready(&served.path("bad")));
}

#[test]
fn a_size_that_loses_the_boundary_is_answered_before_the_end() {
    let served = Served::new();
    let _device = served.add("bad", |toy| toy);
    let mut peer = Peer::ready(&served.path("bad"));
    peer.send(Header { id: 3, command: 9, size: 1 << 30, flags: 0, errno: 0 }.as_bytes());
    let header = Header::read_from_bytes(&peer.rest()).unwrap();
    assert_eq!((header.id, header.command, header.flags, header.errno), (3, 9, 0x21, 22));
}

#[test]
fn a_client_that_stalls_does_not_hold_up_another_device() {
    let served = Served::new();
    let stalled_device = served.add("stalled", |toy| toy);
    let _device = served.add("good", |toy| toy);
    let mut good = Peer::ready(&served.path("good"));

    // In the middle of a message.
    let mut stalled = Peer::ready(&served.path("stalled"));
    let slow = message(8, command::REGION_WRITE, 0, &write(BAR0, NOTE, &[5; 64]));
    stalled.send(&slow[..30]);
    works(&mut good);
    stalled.send(&slow[30..]);
    assert_eq!(stalled.reply().0.errno, 0);

    // Without reading its replies, until the server can send no more and stops to read.
    let read = message(8, command::REGION_READ, 0, &access(CONFIG, 0, 4096, &[]));
    stalled.0.set_nonblocking(true).unwrap();
    let mut sent = 0usize;
    let mut idle = 0;
    while idle < 3 {
        match stalled.0.write(&read[sent % read.len()..]) {
            Ok(count) => {
                sent += count;
                idle = 0;
            }
            Err(_) => {
                // Two rounds through the control thread: it had its turn and took nothing.
                stalled_device.call(|_| ()).unwrap();
                works(&mut good);
                idle += 1;
            }
        }
    }
    for _ in 0..100 {
        works(&mut good);
    }
    // It reads on: every whole command is answered, in order and in full.
    stalled.0.set_nonblocking(false).unwrap();
    let mut answered = vec![0; sent / read.len() * (32 + 4096)];
    std::io::Read::read_exact(&mut stalled.0, &mut answered).unwrap();
    for reply in answered.chunks(32 + 4096) {
        assert_eq!(Header::read_from_prefix(reply).unwrap().0.size, 32 + 4096);
    }
}

#[test]
fn a_client_that_never_says_version_is_dropped() {
    let served =
        Served::with(ReactorOptions { handshake_timeout: Duration::from_millis(50), ..Default::default() });
    let _device = served.add("one", |toy| toy);
    let mut silent = Peer::connect(&served.path("one"));
    assert!(silent.rest().is_empty());
    // Who has said VERSION stays, however long.
    let mut peer = Peer::ready(&served.path("one"));
    let until = Instant::now() + Duration::from_millis(150);
    while Instant::now() < until {
        works(&mut peer);
    }
}

#[test]
fn devices_come_and_go_while_others_are_served() {
    let served = Served::new();
    let _device = served.add("good", |toy| toy);
    let mut good = Peer::ready(&served.path("good"));
    for round in 0..20u8 {
        let device = served.add("guest", |toy| toy);
        let mut client = Client::connect(served.path("guest"), ClientOptions::default()).unwrap();
        client.region_write(BAR0, 0, &[round]).unwrap();
        let toy = device.remove_with(|toy| toy).unwrap();
        assert_eq!(toy.bar[0], round, "the device keeps its state");
        assert!(toy.client.is_none());
        assert!(matches!(client.reset(), Err(ClientError::Closed)));
        assert!(!served.path("guest").exists());
        assert!(matches!(device.call(|_| ()), Err(ReactorError::NoDevice)));
        assert!(matches!(device.remove(), Err(ReactorError::NoDevice)));
        works(&mut good);
    }
}

#[test]
fn a_device_is_given_back_when_it_has_let_go() {
    let served = Served::new();
    let device = served.add("one", |mut toy| {
        toy.slow_detach = true;
        toy
    });
    let waker = device.call(|toy| toy.waker.clone()).unwrap();
    let _peer = Peer::ready(&served.path("one"));
    let remover = device.clone();
    let removed = thread::spawn(move || remover.remove_with(|toy| toy));
    eventually(&device, |toy| toy.pending);
    assert!(!served.path("one").exists());
    device.call(Toy::finish).unwrap();
    waker.wake();
    assert!(!removed.join().unwrap().unwrap().pending);
}

#[test]
fn a_device_cannot_wait_for_its_own_thread() {
    let served = Served::new();
    let device = served.add("one", |toy| toy);
    let inner = device.clone();
    let outcome = device.call(move |_| inner.call(|_| ()).is_err()).unwrap();
    assert!(outcome);
}

#[test]
fn stopping_under_load_ends_every_connection_and_removes_every_socket() {
    let mut served = Served::new();
    let names = ["a", "b", "c"];
    let devices = names.map(|name| served.add(name, |toy| toy));
    let log = devices[0].call(|toy| toy.log.clone()).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for name in names {
            let path = served.path(name);
            let stop = &stop;
            scope.spawn(move || {
                let mut client = Client::connect(path, ClientOptions::default()).unwrap();
                let mut count = 0u32;
                while client.region_write(BAR0, 0x100, count.as_bytes()).is_ok() {
                    count += 1;
                    stop.store(count > 100, Ordering::Relaxed);
                }
                assert!(count > 0);
            });
        }
        while !stop.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        eventually(&devices[1], |toy| toy.client.is_some());
        eventually(&devices[2], |toy| toy.client.is_some());
        served.stop();
    });
    assert_eq!(log.lock().unwrap().last().unwrap(), "detached");
    assert_eq!(std::fs::read_dir(served.directory.path()).unwrap().count(), 0);
    assert!(matches!(devices[0].call(|_| ()), Err(ReactorError::Stopped)));
    let listener = Listener::bind(served.path("late")).unwrap();
    assert!(matches!(served.reactor.add(listener, Toy::new), Err(ReactorError::Stopped)));
    served.reactor.stop();
}

#[test]
fn stopping_does_not_wait_for_ever_for_a_device_that_does_not_let_go() {
    let options = ReactorOptions { stop_grace: Duration::from_millis(20), ..Default::default() };
    let mut served = Served::with(options);
    let _device = served.add("one", |mut toy| {
        toy.slow_detach = true;
        toy
    });
    let _peer = Peer::ready(&served.path("one"));
    served.stop();
    assert!(!served.path("one").exists());
}

#[test]
fn an_inherited_listener_is_served_too() {
    let served = Served::new();
    let path = served.path("inherited");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let listener = Listener::from_fd(socket.into()).unwrap();
    let device = served.reactor.add(listener, Toy::new).unwrap();
    works(&mut Peer::ready(&path));
    device.remove().unwrap();
    assert!(path.exists());
}
