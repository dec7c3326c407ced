//! What SMART / Health Information says that is not counted: figures that the operator sets (NVMe Base 2.0, 5.16.1.3).
//!
//! Plain data. There are no sensors, so they are sane until somebody who knows better says otherwise.

use nvmet_spec::log::CriticalWarning;

use crate::error::TargetError;

/// The figures of a subsystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Composite Temperature in kelvins.
    pub temperature: u16,
    /// Available Spare in percent, 0 to 100.
    pub spare: u8,
    /// Available Spare Threshold in percent, 0 to 100.
    pub spare_threshold: u8,
    /// Percentage Used, 0 to 255.
    pub percentage_used: u8,
    /// The reliability is degraded: Critical Warning bit 2.
    pub reliability_degraded: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            temperature: 313,
            spare: 100,
            spare_threshold: 10,
            percentage_used: 0,
            reliability_degraded: false,
        }
    }
}

impl Health {
    /// Checks the ranges.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] naming the figure that cannot be.
    pub fn check(&self) -> Result<(), TargetError> {
        for (what, value) in [("spare", self.spare), ("spare threshold", self.spare_threshold)] {
            if value > 100 {
                return Err(TargetError::config(what, value, "use 0 to 100 percent"));
            }
        }
        Ok(())
    }

    /// Critical Warning, without the bit of the temperature, whose thresholds are the host's.
    pub fn warning(&self) -> CriticalWarning {
        CriticalWarning::new()
            .with_spare(self.spare < self.spare_threshold)
            .with_reliability(self.reliability_degraded)
    }
}
