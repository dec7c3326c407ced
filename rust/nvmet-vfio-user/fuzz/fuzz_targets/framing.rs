//! A stream in pieces: wherever it is split, the same messages come out.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nvmet_vfio_user::framing::{Frame, Framer};

/// The messages of a stream, and whether it went on to its end.
fn messages(mut stream: &[u8], pieces: &[u8]) -> (Vec<(u16, Vec<u8>)>, bool) {
    let (mut framer, mut messages) = (Framer::default(), Vec::new());
    let mut pieces = pieces.iter().map(|&piece| usize::from(piece) + 1).cycle();
    while !stream.is_empty() {
        let (space, _) = framer.space();
        assert!(!space.is_empty());
        let count = pieces.next().unwrap_or(usize::MAX).min(space.len()).min(stream.len());
        space[..count].copy_from_slice(&stream[..count]);
        stream = &stream[count..];
        match framer.advance(count) {
            Frame::Partial => assert!(framer.message().is_none()),
            Frame::Complete => {
                let (header, body, _) = framer.message().expect("a complete message");
                messages.push((header.command, body.to_vec()));
                framer.next();
            }
            Frame::Lost(..) => return (messages, false),
        }
    }
    (messages, true)
}

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (pieces, stream) = input;
    assert_eq!(messages(stream, &pieces), messages(stream, &[]));
});
