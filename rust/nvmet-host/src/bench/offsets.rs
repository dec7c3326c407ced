//! Which I/O comes next: sequential, random with repetition, or every one once in a scattered order.

use super::{config::Range, rng::Rng};

/// A source of I/O numbers in a [`Range`].
#[derive(Debug, Clone)]
pub(crate) enum Offsets {
    /// From first to last, and again.
    Sequential { range: Range, next: u64 },
    /// Any, with repetition.
    Random { range: Range, rng: Rng },
}

impl Offsets {
    pub(crate) const fn sequential(range: Range) -> Self {
        Self::Sequential { range, next: 0 }
    }

    pub(crate) const fn random(range: Range, seed: u64) -> Self {
        Self::Random { range, rng: Rng::new(seed) }
    }

    /// The number of the next I/O.
    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        match self {
            Self::Sequential { range, next } => {
                let at = range.first + *next;
                *next = if *next + 1 >= range.count { 0 } else { *next + 1 };
                at
            }
            Self::Random { range, rng } => range.first + rng.below(range.count),
        }
    }
}

/// Every I/O of a range exactly once: in order, or in steps of a stride that has no divisor in common with the count.
#[derive(Debug, Clone)]
pub(crate) struct Once {
    range: Range,
    stride: u64,
    at: u64,
    left: u64,
}

impl Once {
    /// In order, or scattered by `seed`.
    pub(crate) fn new(range: Range, scatter: Option<u64>) -> Self {
        let (mut stride, mut at) = (1, 0);
        if let Some(seed) = scatter
            && range.count > 2
        {
            let mut rng = Rng::new(seed);
            at = rng.below(range.count);
            stride = 1 + rng.below(range.count - 1);
            while greatest_common_divisor(stride, range.count) != 1 {
                stride = stride % (range.count - 1) + 1;
            }
        }
        Self { range, stride, at, left: range.count }
    }
}

impl Iterator for Once {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let now = self.range.first + self.at;
        self.at = ((u128::from(self.at) + u128::from(self.stride)) % u128::from(self.range.count)) as u64;
        Some(now)
    }
}

const fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn once_meets_every_io_of_the_range_exactly_once(
            first in 0u64..1 << 40, count in 0u64..3000, scatter in any::<Option<u64>>(),
        ) {
            let mut all: Vec<u64> = Once::new(Range { first, count }, scatter).collect();
            if scatter.is_none() {
                prop_assert!(all.is_sorted());
            }
            all.sort_unstable();
            prop_assert_eq!(all, (first..first + count).collect::<Vec<_>>());
        }

        #[test]
        fn offsets_stay_in_their_range(first in 0u64..1 << 40, count in 1u64..100, seed: u64) {
            let range = Range { first, count };
            for mut source in [Offsets::sequential(range), Offsets::random(range, seed)] {
                for _ in 0..300 {
                    prop_assert!((first..first + count).contains(&source.next()));
                }
            }
        }
    }
}
