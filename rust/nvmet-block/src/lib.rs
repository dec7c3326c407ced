//! Namespace backends: where a namespace's bytes live.
//!
//! A [`Backend`] is the shared control side (size, features, opening of queues); an [`IoQueue`] is one worker's data
//! side, asynchronous and lock-free from the worker's point of view. Both speak bytes, never logical blocks, and
//! know nothing of NVMe: a status is an [`IoError`], and the device says what that is in the guest's language.
//!
//! Here are [`mod@null`] (transfers nothing), [`mod@ram`] (sparse memory) and [`mod@file`] (regular file or block device through
//! `io_uring`). [`spec`] turns an operator's words (`ram:10G`, a path) into one of them. Every backend, also those of
//! users, passes [`conformance`].
//!
//! What it may know: files, memory, `nvmet-dma`. What it must not: NVMe, vfio-user, threads.
#![forbid(unsafe_code)]

pub mod backend;
mod bounds;
pub mod conformance;
pub mod delegate;
pub mod error;
pub mod file;
pub mod null;
pub mod queue;
pub mod ram;
mod size;
pub mod spec;

pub use backend::{Backend, Features, Geometry};
pub use error::{BackendError, Direction, IoError};
pub use file::FileBackend;
pub use null::NullBackend;
pub use queue::{IoQueue, Op, Submitted};
pub use ram::RamBackend;
pub use size::parse_size;
pub use spec::{BackendSpec, OpenOptions, open};
