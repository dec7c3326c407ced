//! What an I/O command is: decoding, its data pointer, its execution on a namespace.
//!
//! Knows commands and guest memory. Must not know which thread it runs on nor how a completion travels.

pub mod decode;
pub mod execute;
pub mod prp;
pub mod sgl;
mod status;

pub use status::{dma_status, io_status};
