//! Where a message begins and ends: the receiving state machine, free of I/O.
//!
//! A message is taken in two steps, the header and then exactly the rest, because one larger receive could join the
//! bytes of a message without file descriptors to the next one's file descriptors.

use std::os::fd::OwnedFd;

use crate::decode::{self, HeaderError};
use crate::wire::{HEADER_SIZE, Header};

/// Bodies up to this size keep their buffer between messages; a larger one is given back.
const KEPT_BODY: usize = 16 << 10;

/// Collects one message after the other.
#[derive(Debug, Default)]
pub struct Framer {
    head: [u8; HEADER_SIZE],
    filled: usize,
    header: Option<Header>,
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// What [`Framer::advance`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// More bytes are needed.
    Partial,
    /// A message is complete: see [`Framer::message`], then call [`Framer::next`].
    Complete,
    /// The boundary of the next message is lost. The header is what an error reply answers to.
    Lost(Header, HeaderError),
}

impl Framer {
    /// Where the next bytes go, never empty and never past the end of the message, and where the file descriptors
    /// go that come with them.
    pub fn space(&mut self) -> (&mut [u8], &mut Vec<OwnedFd>) {
        let Self { head, filled, header, body, fds } = self;
        let buffer = if header.is_some() { body.as_mut_slice() } else { head.as_mut_slice() };
        (buffer.get_mut(*filled..).unwrap_or_default(), fds)
    }

    /// `count` bytes were put into [`space`](Self::space).
    pub fn advance(&mut self, count: usize) -> Frame {
        self.filled += count;
        if self.header.is_none() {
            if self.filled < HEADER_SIZE {
                return Frame::Partial;
            }
            let (header, size) = decode::header(&self.head);
            match size {
                Err(error) => return Frame::Lost(header, error),
                Ok(size) => self.body.resize(size, 0),
            }
            self.header = Some(header);
            self.filled = 0;
        }
        if self.filled < self.body.len() { Frame::Partial } else { Frame::Complete }
    }

    /// The complete message; takes its file descriptors. `None` if there is no complete message.
    pub fn message(&mut self) -> Option<(Header, &[u8], Vec<OwnedFd>)> {
        let header = self.header.filter(|_| self.filled == self.body.len())?;
        Some((header, &self.body, std::mem::take(&mut self.fds)))
    }

    /// Begins the next message.
    pub fn next(&mut self) {
        self.header = None;
        self.filled = 0;
        self.fds.clear();
        self.body.clear();
        self.body.shrink_to(KEPT_BODY);
    }

    /// Whether part of a message has arrived.
    pub fn in_message(&self) -> bool {
        self.header.is_some() || self.filled > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    fn message(id: u16, body: &[u8]) -> Vec<u8> {
        let size = (HEADER_SIZE + body.len()) as u32;
        let mut bytes = Header { id, command: 10, size, ..Default::default() }.as_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_wherever_the_stream_is_split(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 1..8),
            splits in proptest::collection::vec(1usize..50, 1..40),
        ) {
            let stream: Vec<u8> = bodies.iter().enumerate().flat_map(|(id, b)| message(id as u16, b)).collect();
            let mut framer = Framer::default();
            let (mut rest, mut splits, mut seen) = (stream.as_slice(), splits.iter().cycle(), Vec::new());
            while !rest.is_empty() {
                let (space, _) = framer.space();
                prop_assert!(!space.is_empty());
                let count = (*splits.next().unwrap()).min(space.len()).min(rest.len());
                space[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                if framer.advance(count) == Frame::Complete {
                    seen.push(framer.message().unwrap().1.to_vec());
                    framer.next();
                }
            }
            prop_assert_eq!(seen, bodies);
            prop_assert!(!framer.in_message());
        }
    }
}
