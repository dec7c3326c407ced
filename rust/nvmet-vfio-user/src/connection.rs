//! One client's connection: the socket, the message that is arriving, the reply that is leaving.
//!
//! Never blocks. At most one message and one reply are held: while a reply cannot leave or an operation is pending,
//! nothing more is read, so a client that stops reading bounds what is kept for it.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::event::epoll::EventFlags;

use crate::device::{Device, Outcome};
use crate::framing::{Frame, Framer};
use crate::session::{Reply, Session, Step};
use crate::socket::{self, Received};
use crate::wire::flags;
use crate::{Errno, encode};

/// Messages handled before other connections get their turn.
const BUDGET: usize = 64;
/// Receives before other connections get their turn: bounds a client that sends byte by byte.
const RECEIVES: usize = 4 * BUDGET;
/// Reply buffers up to this size are kept between replies.
const KEPT_REPLY: usize = 16 << 10;

/// Whether the connection lives on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It does.
    Open,
    /// It must be dropped; why.
    Closed(Why),
}

/// Why a connection ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The client left between two messages.
    Left,
    /// The client broke a rule.
    Broken(&'static str),
    /// The socket failed.
    Socket(Errno),
}

pub(crate) struct Connection {
    socket: UnixStream,
    framer: Framer,
    session: Session,
    reply: Reply,
    sent: usize,
    /// Close with this reason once the reply has left.
    closing: Option<&'static str>,
}

impl Connection {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            framer: Framer::default(),
            session: Session::default(),
            reply: Reply::default(),
            sent: 0,
            closing: None,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.session.is_attached()
    }

    /// What the reactor should wait for. A hang-up is reported whatever is asked.
    pub(crate) fn interest(&self) -> EventFlags {
        if self.reply_is_waiting() {
            EventFlags::OUT
        } else if self.session.is_pending() {
            EventFlags::empty()
        } else {
            EventFlags::IN
        }
    }

    /// Whether the client has closed its end.
    pub(crate) fn peer_is_gone(&self) -> bool {
        socket::peer_is_gone(&self.socket)
    }

    /// Does what can be done now: sends what is left, then handles messages.
    pub(crate) fn service(&mut self, device: &mut dyn Device) -> Life {
        if self.session.is_pending() {
            // Woken without anything to read or send: the client hung up in the middle of an operation.
            return if self.peer_is_gone() { Life::Closed(Why::Left) } else { Life::Open };
        }
        self.run(device).map_or_else(Life::Closed, |()| Life::Open)
    }

    /// Asks the device how the pending operation is doing, and answers if it is done.
    pub(crate) fn poll_pending(&mut self, device: &mut dyn Device, now: std::time::Instant) -> Life {
        let outcome = device.poll(now);
        if !self.session.is_pending() || outcome == Outcome::Pending {
            return Life::Open;
        }
        let step = self.session.resume(device, &mut self.reply);
        self.after(step).and_then(|()| self.run(device)).map_or_else(Life::Closed, |()| Life::Open)
    }

    fn run(&mut self, device: &mut dyn Device) -> Result<(), Why> {
        let mut messages = 0;
        for _ in 0..RECEIVES {
            self.flush()?;
            if self.reply_is_waiting() || self.session.is_pending() || messages == BUDGET {
                break;
            }
            let (space, fds) = self.framer.space();
            let frame = match socket::receive(self.socket.as_fd(), space, fds).map_err(Why::Socket)? {
                Received::Bytes(count) => self.framer.advance(count),
                Received::WouldBlock => break,
                Received::Eof if self.framer.in_message() => return Err(Why::Broken("half a message")),
                Received::Eof => return Err(Why::Left),
            };
            match frame {
                Frame::Partial => {}
                Frame::Complete => {
                    messages += 1;
                    self.handle(device)?;
                }
                Frame::Lost(header, error) => {
                    tracing::warn!(%error, "a vfio-user client lost step");
                    if header.message_type() == flags::TYPE_COMMAND && !header.no_reply() {
                        encode::error(&mut self.reply.bytes, &header, Errno::INVAL);
                    }
                    self.closing = Some("a message whose end cannot be known");
                }
            }
        }
        Ok(())
    }

    fn handle(&mut self, device: &mut dyn Device) -> Result<(), Why> {
        let Some((header, body, fds)) = self.framer.message() else { return Ok(()) };
        let step = self.session.handle(device, &header, body, fds, &mut self.reply);
        self.framer.next();
        self.after(step)
    }

    fn after(&mut self, step: Step) -> Result<(), Why> {
        match step {
            Step::Reply | Step::Silent | Step::Pending => {}
            Step::Close(why) => self.closing = Some(why),
        }
        self.flush()
    }

    fn reply_is_waiting(&self) -> bool {
        self.sent < self.reply.bytes.len()
    }

    /// Sends what the socket takes: a whole reply with its file descriptor in one call, the rest of one later.
    fn flush(&mut self) -> Result<(), Why> {
        while let Some(rest) = self.reply.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let fd = self.reply.fd.as_ref().map(|fd| fd.as_fd());
            match socket::send(self.socket.as_fd(), rest, fd.as_slice()).map_err(Why::Socket)? {
                None => return Ok(()),
                Some(count) => {
                    self.sent += count;
                    self.reply.fd = None;
                }
            }
        }
        self.sent = 0;
        self.reply.fd = None;
        self.reply.bytes.clear();
        self.reply.bytes.shrink_to(KEPT_REPLY);
        match self.closing {
            Some(why) => Err(Why::Broken(why)),
            None => Ok(()),
        }
    }
}
