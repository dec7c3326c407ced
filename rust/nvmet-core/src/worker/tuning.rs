//! What Set Features changes about how a worker treats the queues of a controller.
//!
//! Plain data that the control thread sends. Knows units; must not know where the values come from.

/// Nanoseconds in a unit of the Aggregation Time: 100 µs.
const TIME_UNIT: u64 = 100_000;

/// Interrupt Coalescing that acts (NVMe Base 2.0, 5.27.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coalescing {
    /// Completions that are signalled together; 2 to 256.
    pub threshold: u32,
    /// How long the first of them may wait for the others, in nanoseconds; 100 000 to 25 500 000.
    pub time: u64,
}

impl Coalescing {
    /// Of an Aggregation Threshold, 1-based, and an Aggregation Time in units of 100 µs. A threshold of one completion
    /// and a time of 0 each turn coalescing off.
    pub fn new(threshold: u32, time: u8) -> Option<Self> {
        let time = u64::from(time) * TIME_UNIT;
        (threshold > 1 && time > 0).then_some(Self { threshold, time })
    }
}

const WORDS: usize = 8;

/// A set of interrupt vectors, of those that a controller can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VectorSet([u64; WORDS]);

impl VectorSet {
    /// Vectors that there can be.
    pub const LEN: u16 = WORDS as u16 * 64;

    /// Puts a vector in or takes it out. Vectors that no controller has are in no set.
    pub fn set(&mut self, vector: u16, member: bool) {
        if let Some(word) = self.0.get_mut(usize::from(vector / 64)) {
            let bit = 1 << (vector % 64);
            *word = if member { *word | bit } else { *word & !bit };
        }
    }

    /// Whether a vector is in the set.
    pub fn contains(&self, vector: u16) -> bool {
        self.0.get(usize::from(vector / 64)).is_some_and(|word| word >> (vector % 64) & 1 != 0)
    }
}

/// How a worker treats the queues of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Arbitration Burst: commands fetched from one submission queue before the next one has its turn; `u32::MAX` is no
    /// limit (NVMe Base 2.0, 3.4.4; 5.27.1.1).
    pub arbitration_burst: u32,
    /// Interrupt Coalescing of all vectors but `uncoalesced`; `None`: every batch is signalled at once.
    pub coalescing: Option<Coalescing>,
    /// Vectors with Coalescing Disable (NVMe Base 2.0, 5.27.1.7).
    pub uncoalesced: VectorSet,
}

impl Tuning {
    /// Until the control thread has said what the features are.
    pub const DEFAULT: Self =
        Self { arbitration_burst: 64, coalescing: None, uncoalesced: VectorSet([0; WORDS]) };

    /// The coalescing of the completion queues that use `vector`.
    pub fn coalescing_of(&self, vector: u16) -> Option<Coalescing> {
        self.coalescing.filter(|_| !self.uncoalesced.contains(vector))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_threshold_or_time_is_no_coalescing() {
        assert_eq!(Coalescing::new(1, 255), None);
        assert_eq!(Coalescing::new(256, 0), None);
        assert_eq!(Coalescing::new(2, 1), Some(Coalescing { threshold: 2, time: 100_000 }));
        assert_eq!(Coalescing::new(256, 255), Some(Coalescing { threshold: 256, time: 25_500_000 }));
    }

    #[test]
    fn every_vector_of_a_controller_is_switched_by_itself() {
        let coalescing = Coalescing::new(8, 1);
        let mut tuning = Tuning { coalescing, ..Tuning::DEFAULT };
        for vector in [0, 1, 63, 64, 300, VectorSet::LEN - 1] {
            tuning.uncoalesced.set(vector, true);
            for other in 0..VectorSet::LEN {
                assert_eq!(tuning.coalescing_of(other).is_none(), other == vector, "{vector} {other}");
            }
            tuning.uncoalesced.set(vector, false);
        }
        tuning.uncoalesced.set(u16::MAX, true);
        assert!(!tuning.uncoalesced.contains(u16::MAX));
    }
}
