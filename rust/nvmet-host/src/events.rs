//! Asynchronous events (Base §5.2): requests that are kept outstanding, and what they report.

use crate::{Drive, HostError};
use nvmet_spec::command::{AdminOpcode, Cqe, Sqe};

/// First CID of event requests: above those of blocking commands.
const FIRST_CID: u16 = 0xC000;

/// What the controller reports (Base §5.2.1: DW0 of the completion).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct AsyncEvent {
    /// Asynchronous Event Type: 0 error, 1 SMART / health, 2 notice, 6 I/O command set, 7 vendor.
    pub event_type: u8,
    /// Asynchronous Event Information.
    pub info: u8,
    /// Log Page Identifier to read, which re-enables events of the type.
    pub log_page: u8,
}

impl AsyncEvent {
    const fn from_dw0(dw0: u32) -> Self {
        Self { event_type: (dw0 & 7) as u8, info: (dw0 >> 8) as u8, log_page: (dw0 >> 16) as u8 }
    }
}

impl Drive {
    /// Keeps `count` Asynchronous Event Requests outstanding, at most as many as the controller's limit (AERL).
    ///
    /// # Errors
    /// [`HostError::QueueFull`]; a lost connection.
    pub fn arm_events(&mut self, count: u16) -> Result<(), HostError> {
        let count = count.min(u16::from(self.controller.aerl_z) + 1);
        while self.events_armed < count {
            self.send_event_request(FIRST_CID + self.events_armed)?;
            self.events_armed += 1;
        }
        self.admin.ring()
    }

    /// Takes the events that were reported since the last call, and sends a new request for each. Never blocks.
    ///
    /// # Errors
    /// [`HostError::Command`] when a request was refused; a lost connection.
    pub fn poll_events(&mut self) -> Result<Vec<AsyncEvent>, HostError> {
        let Self { admin, stray, .. } = self;
        admin.poll(|_, completion| stray.push(completion))?;
        self.take_events()
    }

    /// The events among the completions of the admin queue that were taken already.
    pub(crate) fn take_events(&mut self) -> Result<Vec<AsyncEvent>, HostError> {
        let mut events = Vec::new();
        for completion in std::mem::take(&mut self.stray) {
            if !self.is_event(completion) {
                tracing::debug!(
                    cid = completion.cid,
                    "a completion of the admin queue that nobody waits for"
                );
                continue;
            }
            if !completion.status().is_success() {
                self.events_armed = 0;
                return Err(HostError::command(AdminOpcode::AsyncEventRequest.name(), completion));
            }
            events.push(AsyncEvent::from_dw0(completion.dw0));
            self.send_event_request(completion.cid)?;
        }
        self.admin.ring()?;
        Ok(events)
    }

    fn is_event(&self, completion: Cqe) -> bool {
        (FIRST_CID..FIRST_CID + self.events_armed).contains(&completion.cid)
    }

    fn send_event_request(&mut self, cid: u16) -> Result<(), HostError> {
        self.admin.submit(&Sqe::new(AdminOpcode::AsyncEventRequest, cid, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_decoded_from_its_dword() {
        let event = AsyncEvent::from_dw0(0x0004_0002);
        assert_eq!(event, AsyncEvent { event_type: 2, info: 0, log_page: 4 });
        assert_eq!(AsyncEvent::from_dw0(0x0001_0100).info, 1);
    }
}
