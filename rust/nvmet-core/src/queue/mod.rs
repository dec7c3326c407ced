//! Submission and completion queues in guest memory, and their doorbells (NVMe Base 2.0, 3.3).
//!
//! Knows rings, indexes and phases. Must not know what a command means, nor which thread runs it.

mod completion;
mod doorbell;
mod submission;
#[cfg(test)]
mod tests;

pub use completion::{CompletionQueue, CompletionQueueState, Permit};
pub use doorbell::{DOORBELL_PAGE_SIZE, Doorbells, InvalidDoorbell, Shadow, register_index};
pub use submission::{SubmissionQueue, SubmissionQueueState};

/// Bytes of a submission queue entry.
pub const SQE_SIZE: usize = 64;
/// Bytes of a completion queue entry.
pub const CQE_SIZE: usize = 16;
