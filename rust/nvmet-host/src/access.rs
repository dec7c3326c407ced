//! What a drive lets its owner see and touch: registers, regions, limits.

use crate::{Drive, HostError, PciIdentity, info::ControllerInfo};
use nvmet_spec::registers::Cap;

/// What the controller allows for I/O queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// I/O queue pairs that may exist at a time (Number of Queues, Base §5.27.1.5).
    pub max_queues: u16,
    /// Entries of a queue (CAP.MQES).
    pub max_entries: u32,
}

impl Drive {
    /// Reads a 32-bit register of BAR0.
    ///
    /// # Errors
    /// A lost connection.
    pub fn reg32(&self, offset: u64) -> Result<u32, HostError> {
        self.transport.reg32(offset)
    }

    /// Reads a 64-bit register of BAR0.
    ///
    /// # Errors
    /// A lost connection.
    pub fn reg64(&self, offset: u64) -> Result<u64, HostError> {
        self.transport.reg64(offset)
    }

    /// Writes a 32-bit register of BAR0 and waits until the device has it.
    ///
    /// # Errors
    /// A lost connection.
    pub fn set_reg32(&self, offset: u64, value: u32) -> Result<(), HostError> {
        self.transport.set_reg32(offset, value)
    }

    /// Writes a 64-bit register of BAR0 and waits until the device has it.
    ///
    /// # Errors
    /// A lost connection.
    pub fn set_reg64(&self, offset: u64, value: u64) -> Result<(), HostError> {
        self.transport.set_reg64(offset, value)
    }

    /// Reads any region, by message: configuration space is region 7.
    ///
    /// # Errors
    /// A lost connection; the server refuses.
    pub fn region_read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), HostError> {
        self.transport.read(region, offset, data)
    }

    /// Writes any region, by message.
    ///
    /// # Errors
    /// A lost connection; the server refuses.
    pub fn region_write(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), HostError> {
        self.transport.write(region, offset, data)
    }

    /// DEVICE_RESET: the controller is disabled afterwards; [`enable`](Self::enable) brings it back.
    ///
    /// # Errors
    /// A lost connection; the server refuses.
    pub fn device_reset(&mut self) -> Result<(), HostError> {
        self.transport.reset()
    }

    /// CAP.
    #[must_use]
    pub const fn cap(&self) -> Cap {
        self.cap
    }

    /// PCI identity of the device.
    #[must_use]
    pub fn pci(&self) -> PciIdentity {
        self.transport.identity()
    }

    /// What Identify said about the controller when it was enabled.
    #[must_use]
    pub const fn controller(&self) -> &ControllerInfo {
        &self.controller
    }

    /// What the controller allows for I/O queues.
    #[must_use]
    pub fn queue_limits(&self) -> QueueLimits {
        QueueLimits { max_queues: self.max_queues, max_entries: self.cap.mqes() }
    }

    /// Memory page size in bytes (CC.MPS).
    #[must_use]
    pub const fn page_size(&self) -> u64 {
        self.config.page_size
    }

    /// Most bytes that one command may carry (MDTS, Base §5.17.2.1).
    #[must_use]
    pub fn max_transfer(&self) -> u64 {
        let unit = 1u64 << (12 + u32::from(self.cap.mpsmin()));
        match self.controller.mdts {
            0 => u64::MAX,
            mdts => unit.checked_shl(u32::from(mdts)).unwrap_or(u64::MAX),
        }
    }

    /// How doorbells are rung: "shadow", "mapped" or "trapped".
    #[must_use]
    pub fn doorbell_mode(&self) -> &'static str {
        if self.shadow.is_some() {
            "shadow"
        } else if self.transport.has_mapped_doorbells() {
            "mapped"
        } else {
            "trapped"
        }
    }
}
