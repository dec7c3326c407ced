//! The Error Information log page: the last errors, newest first (NVMe Base 2.0, 5.16.1.2).
//!
//! Plain data. Lives as long as the controller: no reset clears it. What it is at the end of a process can be given to
//! the next one.

use std::collections::VecDeque;

use nvmet_spec::command::{CID_NONE, CqeStatus};
use nvmet_spec::log::{ErrorInformation, ParameterErrorLocation};
use nvmet_spec::status::Status;
use zerocopy::{FromBytes, IntoBytes};

use crate::queue::InvalidDoorbell;
use crate::worker::CommandFailure;

/// Entries of the log page: Identify Controller ELPE, one-based.
pub const ENTRIES: usize = 64;
/// SQID of an error that is not a command's.
const NO_QUEUE: u16 = 0xffff;

/// The errors of a controller since it was made.
#[derive(Clone, Debug, Default)]
pub struct ErrorLog {
    /// Newest first.
    entries: VecDeque<ErrorInformation>,
    count: u64,
}

impl ErrorLog {
    /// The log of a controller that had `count` errors in an earlier process; `entries` are the last ones as
    /// [`entries`](Self::entries) gave them.
    pub fn restore(entries: &[u8], count: u64) -> Self {
        let entries = entries.chunks_exact(size_of::<ErrorInformation>()).take(ENTRIES);
        let entries = entries.filter_map(|bytes| ErrorInformation::read_from_bytes(bytes).ok()).collect();
        Self { entries, count }
    }

    /// The entries that there are, newest first, 64 bytes each.
    pub fn entries(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|entry| entry.as_bytes()).copied().collect()
    }

    /// Errors so far, those that are no longer in the log included.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Counts errors of which nothing else is known.
    pub fn add_dropped(&mut self, count: u64) {
        self.count = self.count.saturating_add(count);
    }

    /// Notes a command that completed with an error.
    pub fn add(&mut self, failure: &CommandFailure) {
        let &CommandFailure { sqid, cid, status, lba, nsid } = failure;
        self.push(sqid, cid, status, lba, nsid);
    }

    /// Notes a doorbell written with nonsense. It is not a command's error, so the status is the one that fits best.
    pub fn add_doorbell(&mut self, invalid: InvalidDoorbell) {
        let status = match invalid {
            InvalidDoorbell::Register { .. } => Status::INVALID_QUEUE_ID,
            InvalidDoorbell::Value { .. } => Status::INVALID_FIELD,
        };
        self.push(NO_QUEUE, CID_NONE, status, 0, 0);
    }

    fn push(&mut self, sqid: u16, cid: u16, status: Status, lba: u64, nsid: u32) {
        self.count = self.count.saturating_add(1);
        self.entries.truncate(ENTRIES - 1);
        self.entries.push_front(ErrorInformation {
            error_count: self.count,
            sqid,
            cid,
            status: CqeStatus::new().with_status(status),
            parameter_error_location: ParameterErrorLocation::NONE,
            lba,
            nsid,
            ..ErrorInformation::default()
        });
    }

    /// The log page: all entries, unused ones zero.
    pub fn page(&self) -> Vec<u8> {
        let mut page = self.entries();
        page.resize(ENTRIES * size_of::<ErrorInformation>(), 0);
        page
    }
}

#[cfg(test)]
mod tests;
