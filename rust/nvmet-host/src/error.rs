//! What can go wrong between this host and a drive. Every text says what, where, and what to do.

use crate::bench::ConfigError;
use nvmet_dma::DmaError;
use nvmet_spec::{command::Cqe, status::Status};
use std::{io, path::PathBuf, time::Duration};
use thiserror::Error;

/// An error of this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// There is no socket of that name.
    #[error("{}: no such socket; is the target running, and is this the path it printed?", .path.display())]
    SocketMissing {
        /// The path that was tried.
        path: PathBuf,
    },
    /// The socket file is there, but nobody listens on it.
    #[error("{}: nobody listens on this socket; the target that made it is gone, start it again", .path.display())]
    SocketRefused {
        /// The path that was tried.
        path: PathBuf,
    },
    /// Any other failure to connect.
    #[error("{}: cannot connect: {source}", .path.display())]
    Connect {
        /// The path that was tried.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The server closed the connection before it said a word.
    #[error("{}: the server closed the connection at once; another client (a VM?) is attached to this drive", .path.display())]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// What answers is no vfio-user server, or one of another version.
    #[error("{}: this is not a vfio-user server that we understand: {detail}", .path.display())]
    NotVfioUser {
        /// The socket.
        path: PathBuf,
        /// What it did.
        detail: String,
    },
    /// The device behind the socket is not an NVMe controller.
    #[error(
        "{}: the device {vendor:04x}:{device:04x} has class {class:06x}, not 010802 (NVMe); give the socket of a drive",
        .path.display()
    )]
    NotNvme {
        /// The socket.
        path: PathBuf,
        /// PCI vendor ID.
        vendor: u16,
        /// PCI device ID.
        device: u16,
        /// PCI class code, programming interface in the low byte.
        class: u32,
    },
    /// The device lacks something that this host needs.
    #[error("the device cannot be used: {0}")]
    Unsupported(String),
    /// The connection broke, or a request on it failed.
    #[error("{what}: {detail}")]
    Connection {
        /// What was asked of the server.
        what: &'static str,
        /// What happened.
        detail: String,
    },
    /// Nothing came in time.
    #[error("no answer within {:.1} s while waiting for {what}; the target may be stuck or stopped", .after.as_secs_f64())]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long, in all.
        after: Duration,
    },
    /// CSTS.CFS is set, or the registers read as all ones (Base §3.1.3.6).
    #[error(
        "the controller reports a fatal status (CSTS {csts:#010x}); look at the target's log, then reset it"
    )]
    Fatal {
        /// CSTS as it was read.
        csts: u32,
    },
    /// A command ended with an error status.
    #[error("{command}: {status}")]
    Command {
        /// The command's name in the spec.
        command: &'static str,
        /// Its status.
        status: Status,
        /// Command specific result, DW0 of the entry.
        dw0: u32,
    },
    /// A completion for a command that is not in flight.
    #[error("the controller completed command {cid:#06x} of queue {sqid}, which is not in flight")]
    UnexpectedCompletion {
        /// CID of the entry.
        cid: u16,
        /// SQID of the entry.
        sqid: u16,
    },
    /// All entries of the submission queue are in use.
    #[error("submission queue {sqid} is full; poll for completions first")]
    QueueFull {
        /// The queue.
        sqid: u16,
    },
    /// No room is left in host memory.
    #[error("host memory has no run of {wanted} bytes left ({free} bytes are free); attach with more memory")]
    OutOfMemory {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes free, in all runs together.
        free: usize,
    },
    /// A range outside of its buffer.
    #[error("{len} bytes at {offset} are outside of a buffer of {size} bytes")]
    OutOfBuffer {
        /// Offset asked for, in bytes.
        offset: usize,
        /// Bytes asked for.
        len: usize,
        /// Size of the buffer, in bytes.
        size: usize,
    },
    /// The drive was detached, here or by another thread.
    #[error("the drive is detached; attach to its socket again")]
    Detached,
    /// The command was in flight when the controller was reset.
    #[error("the controller was reset before the command completed; send it again")]
    Reset,
    /// Memory could not be had from the kernel.
    #[error("cannot {what} of {bytes} bytes: {detail}")]
    Memory {
        /// What was tried.
        what: &'static str,
        /// How many bytes.
        bytes: usize,
        /// Why not.
        detail: String,
    },
    /// Shared memory could not be reached.
    #[error(transparent)]
    Dma(#[from] DmaError),
    /// An interrupt's eventfd failed.
    #[error("eventfd of an interrupt: {0}")]
    Eventfd(io::Error),
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Argument(String),
    /// A benchmark configuration that cannot be run.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The thread of a job could not be started.
    #[error("cannot start the thread of job {job}: {source}")]
    Thread {
        /// The job.
        job: u32,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A job could not be pinned.
    #[error("cannot pin a job to CPU {cpu}: {source}; is the CPU online and allowed for this process?")]
    Pin {
        /// The CPU.
        cpu: usize,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl HostError {
    /// An [`Argument`](Self::Argument) error.
    pub(crate) fn argument(text: impl Into<String>) -> Self {
        Self::Argument(text.into())
    }

    /// A [`Command`](Self::Command) error for `completion`.
    #[cold]
    pub(crate) fn command(command: &'static str, completion: Cqe) -> Self {
        Self::Command { command, status: completion.status(), dw0: completion.dw0 }
    }
}
