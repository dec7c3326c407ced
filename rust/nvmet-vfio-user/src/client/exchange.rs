//! One command and its reply, against a deadline.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zerocopy::{FromBytes, IntoBytes};

use super::ClientError;
use crate::Errno;
use crate::socket::{self, Received};
use crate::wire::{HEADER_SIZE, Header, MAX_MESSAGE_SIZE, flags};

#[derive(Debug)]
pub(super) struct Exchange {
    socket: UnixStream,
    timeout: Duration,
    next_id: u16,
    in_step: bool,
}

impl Exchange {
    pub(super) fn new(socket: UnixStream, timeout: Duration) -> Self {
        Self { socket, timeout, next_id: 0, in_step: true }
    }

    /// Sends a command and gives the body of its reply.
    pub(super) fn call(
        &mut self,
        command: u16,
        parts: &[&[u8]],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Vec<u8>, Vec<OwnedFd>), ClientError> {
        self.guard(|this| {
            let by = this.deadline();
            let id = this.send(command, flags::TYPE_COMMAND, parts, fds, by)?;
            this.reply(command, id, by)
        })
    }

    /// Sends a command that gets no reply.
    pub(super) fn post(&mut self, command: u16, parts: &[&[u8]]) -> Result<(), ClientError> {
        self.guard(|this| {
            let by = this.deadline();
            this.send(command, flags::TYPE_COMMAND | flags::NO_REPLY, parts, &[], by).map(|_| ())
        })
    }

    /// After an exchange that failed for another reason than being refused, what arrives next is anybody's guess.
    fn guard<R>(
        &mut self,
        exchange: impl FnOnce(&mut Self) -> Result<R, ClientError>,
    ) -> Result<R, ClientError> {
        if !self.in_step {
            return Err(ClientError::OutOfStep);
        }
        let result = exchange(self);
        self.in_step = matches!(result, Ok(_) | Err(ClientError::Refused { .. } | ClientError::Invalid(_)));
        result
    }

    /// `None`: a timeout so long that it never comes.
    fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.timeout)
    }

    fn send(
        &mut self,
        command: u16,
        flags: u32,
        parts: &[&[u8]],
        fds: &[BorrowedFd<'_>],
        by: Option<Instant>,
    ) -> Result<u16, ClientError> {
        let size = HEADER_SIZE + parts.iter().map(|part| part.len()).sum::<usize>();
        let size = u32::try_from(size).ok().filter(|&size| size <= MAX_MESSAGE_SIZE);
        let size = size.ok_or(ClientError::Invalid("a message that is too large"))?;
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let header = Header { id, command, size, flags, errno: 0 };
        let message = [&[header.as_bytes()], parts].concat().concat();
        let (mut rest, mut fds) = (message.as_slice(), fds);
        while !rest.is_empty() {
            match socket::send(self.socket.as_fd(), rest, fds) {
                Ok(Some(count)) => {
                    rest = rest.get(count..).unwrap_or_default();
                    fds = &[];
                }
                Ok(None) => self.wait(PollFlags::OUT, command, by)?,
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ClientError::Closed),
                Err(Errno::TOOBIG) => {
                    return Err(ClientError::Invalid("more file descriptors than a message takes"));
                }
                Err(errno) => return Err(ClientError::Socket(errno)),
            }
        }
        Ok(id)
    }

    fn reply(
        &mut self,
        command: u16,
        id: u16,
        by: Option<Instant>,
    ) -> Result<(Vec<u8>, Vec<OwnedFd>), ClientError> {
        let mut fds = Vec::new();
        let mut head = [0; HEADER_SIZE];
        self.fill(&mut head, &mut fds, command, by)?;
        let header = Header::read_from_bytes(&head).map_err(|_| ClientError::Protocol("no header"))?;
        if header.message_type() != flags::TYPE_REPLY {
            return Err(ClientError::Protocol("a command where a reply is due"));
        }
        if (header.id, header.command) != (id, command) {
            return Err(ClientError::Protocol("a reply to another command"));
        }
        if header.size < HEADER_SIZE as u32 || header.size > MAX_MESSAGE_SIZE {
            return Err(ClientError::Protocol("a reply of an impossible size"));
        }
        let mut body = vec![0; header.size as usize - HEADER_SIZE];
        self.fill(&mut body, &mut fds, command, by)?;
        if header.flags & flags::ERROR != 0 {
            let errno = Errno::from_raw_os_error(i32::try_from(header.errno).unwrap_or(0));
            return Err(ClientError::Refused { command, errno });
        }
        Ok((body, fds))
    }

    fn fill(
        &self,
        buffer: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        command: u16,
        by: Option<Instant>,
    ) -> Result<(), ClientError> {
        let mut filled = 0;
        while let Some(space) = buffer.get_mut(filled..).filter(|space| !space.is_empty()) {
            match socket::receive(self.socket.as_fd(), space, fds).map_err(ClientError::Socket)? {
                Received::Bytes(count) => filled += count,
                Received::WouldBlock => self.wait(PollFlags::IN, command, by)?,
                Received::Eof => return Err(ClientError::Closed),
            }
        }
        Ok(())
    }

    fn wait(&self, what: PollFlags, command: u16, by: Option<Instant>) -> Result<(), ClientError> {
        let left = by.map(|by| by.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut [PollFd::new(&self.socket, what)], timeout.as_ref()) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => Err(ClientError::Timeout(command)),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(ClientError::Socket(errno)),
        }
    }
}
