//! Asynchronous events: which are told, when, and with which Asynchronous Event Request (NVMe Base 2.0, 5.2).
//!
//! Plain data. Which events the host wants to hear of is for the caller to decide before it raises one.

use std::collections::VecDeque;

use nvmet_spec::aer::{AsyncEvent, EventType};
use nvmet_spec::status::Status;

/// Asynchronous Event Request commands that may be outstanding: Identify Controller AERL, one-based.
pub const REQUEST_LIMIT: usize = 4;

/// Events that wait and requests that wait for events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AsyncEvents {
    /// Command identifiers, oldest first.
    requests: VecDeque<u16>,
    /// Events that were not told, oldest first, none twice.
    waiting: VecDeque<AsyncEvent>,
    /// Types that were told and whose log page the host has not read.
    masked: Vec<EventType>,
}

impl AsyncEvents {
    /// Nothing has happened and nobody has asked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Controller Level Reset: requests, events and masks are gone.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Takes an Asynchronous Event Request command.
    ///
    /// # Errors
    ///
    /// Asynchronous Event Request Limit Exceeded.
    pub fn request(&mut self, cid: u16) -> Result<(), Status> {
        if self.requests.len() == REQUEST_LIMIT {
            return Err(Status::AER_LIMIT_EXCEEDED.with_dnr());
        }
        self.requests.push_back(cid);
        Ok(())
    }

    /// Notes an event. One that waits already is not noted twice; one of a masked type waits.
    pub fn raise(&mut self, event: AsyncEvent) {
        if !self.waiting.contains(&event) {
            self.waiting.push_back(event);
        }
    }

    /// The host has read the log page of the type: its events may be told again.
    pub fn clear(&mut self, event_type: EventType) {
        self.masked.retain(|&masked| masked != event_type);
    }

    /// The next request to complete, with Dword 0 of its completion. Its type is masked from here on.
    pub fn next(&mut self) -> Option<(u16, u32)> {
        if self.requests.is_empty() {
            return None;
        }
        let at = self.waiting.iter().position(|event| !self.masked.contains(&event.event_type()))?;
        let event = self.waiting.remove(at)?;
        self.masked.push(event.event_type());
        Some((self.requests.pop_front()?, event.into_bits()))
    }

    /// Forgets the oldest outstanding request with this command identifier; whether there was one.
    pub fn abort(&mut self, cid: u16) -> bool {
        let found = self.requests.iter().position(|&request| request == cid);
        found.and_then(|at| self.requests.remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests;
