//! The Error Information log page: the last errors, newest first (NVMe Base 2.0, 5.16.1.2).
//!
//! Plain data. Lives as long as the controller: no reset clears it, only the end of the process.

use std::collections::VecDeque;

use nvmet_spec::command::{CID_NONE, CqeStatus};
use nvmet_spec::status::Status;

use crate::queue::InvalidDoorbell;
use crate::worker::CommandFailure;

/// Entries of the log page: Identify Controller ELPE, one-based.
pub const ENTRIES: usize = 64;
/// SQID of an error that is not a command's, and Parameter Error Location of one that no field is to blame for.
const NONE: u16 = 0xffff;

/// An Error Information log entry, Figure 206.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    error_count: u64,
    sqid: u16,
    cid: u16,
    status: Status,
    lba: u64,
    nsid: u32,
}

impl Entry {
    const SIZE: usize = 64;

    fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        // The Phase Tag in bit 0 of the Status Field stays 0.
        let status = CqeStatus::new().with_status(self.status).into_bits();
        bytes[0..8].copy_from_slice(&self.error_count.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.sqid.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.cid.to_le_bytes());
        bytes[12..14].copy_from_slice(&status.to_le_bytes());
        bytes[14..16].copy_from_slice(&NONE.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lba.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.nsid.to_le_bytes());
        bytes
    }
}

/// The errors of a controller since it was made.
#[derive(Clone, Debug, Default)]
pub struct ErrorLog {
    /// Newest first.
    entries: VecDeque<Entry>,
    count: u64,
}

impl ErrorLog {
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
        self.push(Entry { error_count: 0, sqid, cid, status, lba, nsid });
    }

    /// Notes a doorbell written with nonsense. It is not a command's error, so the status is the one that fits best.
    pub fn add_doorbell(&mut self, invalid: InvalidDoorbell) {
        let status = match invalid {
            InvalidDoorbell::Register { .. } => Status::INVALID_QUEUE_ID,
            InvalidDoorbell::Value { .. } => Status::INVALID_FIELD,
        };
        self.push(Entry { error_count: 0, sqid: NONE, cid: CID_NONE, status, lba: 0, nsid: 0 });
    }

    fn push(&mut self, entry: Entry) {
        self.count = self.count.saturating_add(1);
        self.entries.truncate(ENTRIES - 1);
        self.entries.push_front(Entry { error_count: self.count, ..entry });
    }

    /// The log page: all entries, unused ones zero.
    pub fn page(&self) -> Vec<u8> {
        let mut page: Vec<u8> = self.entries.iter().flat_map(|entry| entry.to_bytes()).collect();
        page.resize(ENTRIES * Entry::SIZE, 0);
        page
    }
}

#[cfg(test)]
mod tests;
