//! Bytes and file descriptors through a Unix stream socket, never blocking.
//!
//! Knows nothing of messages.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::Errno;
use crate::wire::ACCEPTED_MSG_FDS;

/// How a receive went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes arrived, at least one.
    Bytes(usize),
    /// Nothing there now.
    WouldBlock,
    /// The peer will send no more.
    Eof,
}

/// Receives into `buffer` (not empty), and adds file descriptors to `fds`. All of them are close-on-exec.
///
/// # Errors
///
/// [`Errno::TOOMANYREFS`] if the kernel dropped file descriptors: more than [`ACCEPTED_MSG_FDS`] came, or this
/// process has no room for them. Otherwise what recvmsg says.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(ACCEPTED_MSG_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Received::WouldBlock),
            Err(Errno::CONNRESET) => return Ok(Received::Eof),
            other => break other?,
        }
    };
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(arrived) = part {
            fds.extend(arrived);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) || fds.len() > ACCEPTED_MSG_FDS {
        return Err(Errno::TOOMANYREFS);
    }
    Ok(if message.bytes == 0 { Received::Eof } else { Received::Bytes(message.bytes) })
}

/// Sends as much of `bytes` as the socket takes, and `fds` with the first byte. `None`: it takes nothing now.
///
/// # Errors
///
/// What sendmsg says; [`Errno::PIPE`] if the peer is gone.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<Option<usize>, Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(ACCEPTED_MSG_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
        {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            other => return other.map(Some),
        }
    }
}

/// Whether the peer has closed its end (there may still be bytes to read).
pub(crate) fn peer_is_gone(socket: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&socket, PollFlags::RDHUP)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}
