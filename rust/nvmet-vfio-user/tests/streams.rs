//! Arbitrary streams, split anywhere: every command is answered once or the connection ends, nothing panics, and no
//! file descriptor is left behind. On its own, because it counts the file descriptors of the process.

mod common;

use std::io::Read;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

use common::*;
use nvmet_vfio_user::wire::{HEADER_SIZE, Header, command, flags};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

#[derive(Clone, Debug)]
struct Sent {
    bytes: Vec<u8>,
    fds: usize,
}

/// Bodies that begin with small numbers get deeper than noise does.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![0u32..64, Just(0x1000), Just(0x2000), Just(u32::MAX), any::<u32>()];
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        proptest::collection::vec(word, 0..20).prop_map(|words| words.as_bytes().to_vec()),
        (0u32..9, 0u64..0x5000, proptest::collection::vec(any::<u8>(), 0..64)).prop_map(
            |(region, offset, data)| {
                // The toy's slow and buggy offsets have tests of their own.
                let offset = if offset < 0x100 { offset + 0x100 } else { offset };
                write(region, offset, &data)
            }
        ),
    ]
}

fn well_framed() -> impl Strategy<Value = Sent> {
    let command =
        prop_oneof![1u16..20, Just(command::REGION_READ), Just(command::REGION_WRITE), any::<u16>()];
    (any::<u16>(), command, any::<bool>(), body(), 0usize..4).prop_map(
        |(id, command, no_reply, body, fds)| {
            let flags = if no_reply { flags::NO_REPLY } else { 0 };
            Sent { bytes: message(id, command, flags, &body), fds }
        },
    )
}

fn anything() -> impl Strategy<Value = Sent> {
    (proptest::collection::vec(any::<u8>(), 1..64), 0usize..4).prop_map(|(bytes, fds)| Sent { bytes, fds })
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Sends everything, in pieces, reads until the server closes or has answered all.
fn talk(peer: &mut Peer, stream: &[Sent], pieces: &[usize], fds: &[OwnedFd]) -> Vec<u8> {
    let mut pieces = pieces.iter().cycle();
    let mut receiver = peer.0.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        let _ = receiver.read_to_end(&mut received);
        received
    });
    'all: for sent in stream {
        let borrowed: Vec<_> = fds.iter().take(sent.fds).map(|fd| fd.as_fd()).collect();
        let (mut rest, mut borrowed) = (sent.bytes.as_slice(), borrowed.as_slice());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*pieces.next().unwrap()).min(rest.len()));
            if !try_send(&peer.0, piece, borrowed) {
                break 'all;
            }
            rest = after;
            borrowed = &[];
        }
    }
    let _ = peer.0.shutdown(Shutdown::Write);
    reader.join().unwrap()
}

fn try_send(
    socket: &std::os::unix::net::UnixStream,
    bytes: &[u8],
    fds: &[std::os::fd::BorrowedFd<'_>],
) -> bool {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); 256];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(socket, &[std::io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).is_ok()
}

fn split_replies(mut bytes: &[u8]) -> Vec<Header> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let (header, _) = Header::read_from_prefix(bytes).expect("a whole header");
        assert!(header.size as usize >= HEADER_SIZE && header.size as usize <= bytes.len(), "a whole reply");
        assert_eq!(header.message_type(), flags::TYPE_REPLY);
        bytes = &bytes[header.size as usize..];
        replies.push(header);
    }
    replies
}

#[test]
fn any_stream_is_answered_one_to_one_or_ends() {
    let served = Served::new();
    let device = served.add("any", Toy::with_doorbells);
    let path = served.path("any");
    let fds: Vec<OwnedFd> = (0..4).map(|_| eventfd()).collect();
    drop(Peer::ready(&path));
    eventually(&device, |toy| toy.client.is_none());
    let before = open_files();

    let framed = proptest::collection::vec(well_framed(), 1..30);
    let noise = proptest::collection::vec(prop_oneof![4 => well_framed(), 1 => anything()], 1..20);
    let pieces = proptest::collection::vec(1usize..80, 1..20);
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);

    runner
        .run(&(framed, pieces.clone()), |(stream, pieces)| {
            let mut peer = Peer::ready(&path);
            let received = talk(&mut peer, &stream, &pieces, &fds);
            drop(peer);
            let expected: Vec<_> = stream
                .iter()
                .map(|sent| Header::read_from_prefix(&sent.bytes).unwrap().0)
                .filter(|header| !header.no_reply())
                .map(|header| (header.id, header.command))
                .collect();
            let replies: Vec<_> = split_replies(&received).iter().map(|h| (h.id, h.command)).collect();
            prop_assert_eq!(replies, expected);
            eventually(&device, |toy| toy.client.is_none());
            prop_assert_eq!(open_files(), before);
            Ok(())
        })
        .unwrap();

    runner
        .run(&(noise, pieces, any::<bool>()), |(stream, pieces, version_first)| {
            let mut peer = if version_first { Peer::ready(&path) } else { Peer::connect(&path) };
            let received = talk(&mut peer, &stream, &pieces, &fds);
            drop(peer);
            split_replies(&received);
            // Whatever became of that client, the next one is served.
            Peer::ready(&path);
            eventually(&device, |toy| toy.client.is_none());
            prop_assert_eq!(open_files(), before);
            Ok(())
        })
        .unwrap();
}
