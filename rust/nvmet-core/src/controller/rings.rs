//! Notices a guest that rings its I/O doorbells by message and never sets up shadow doorbells (NVMe Base 2.0, 5.8).
//!
//! Plain data on the control thread, asked where a doorbell has arrived as a message: the slow path already. It knows
//! counts; what is said, and to whom, is the caller's.

/// Rings after which an operating system counts as one that does without shadow doorbells. Linux sets them up before
/// its first I/O, so any number would do for it.
const OF_A_SYSTEM: u32 = 1_000;
/// The same while no completion queue interrupts: firmware polls (SeaBIOS, OVMF). A boot loader reads kernel and initial
/// RAM disk through its driver, 32 KiB or so at a time with two rings for each: some hundred megabytes.
const OF_FIRMWARE: u32 = 20_000;

/// Counts the rings of one client's guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingWatch {
    rings: u32,
    told: bool,
}

impl RingWatch {
    /// Another ring of an I/O queue; `interrupts`: the host takes them. True once for each client: when it is time to
    /// say so.
    pub fn rang(&mut self, interrupts: bool) -> bool {
        self.rings = self.rings.saturating_add(1);
        let limit = if interrupts { OF_A_SYSTEM } else { OF_FIRMWARE };
        !self.told && self.rings >= limit && {
            self.told = true;
            true
        }
    }

    /// Rings since the queues were made.
    pub fn rings(&self) -> u32 {
        self.rings
    }

    /// The controller was reset: whoever drives it now begins anew.
    pub fn reset(&mut self) {
        self.rings = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_told(watch: &mut RingWatch, interrupts: bool, rings: u32) -> Option<u32> {
        (1..=rings).find(|_| watch.rang(interrupts))
    }

    #[test]
    fn a_system_is_told_of_once_and_early() {
        let mut watch = RingWatch::default();
        assert_eq!(first_told(&mut watch, true, 5_000), Some(1_000));
        assert_eq!(first_told(&mut watch, true, 50_000), None);
        watch.reset();
        assert_eq!(first_told(&mut watch, true, 50_000), None, "it is the same client");
    }

    #[test]
    fn firmware_that_loads_a_large_system_is_not_told_of() {
        let mut watch = RingWatch::default();
        assert_eq!(first_told(&mut watch, false, 19_999), None);
        watch.reset();
        assert_eq!(first_told(&mut watch, true, 999), None, "the system after it begins at 0");
        watch.reset();
        assert_eq!(first_told(&mut watch, false, 50_000), Some(20_000), "a system that polls is found, too");
    }
}
