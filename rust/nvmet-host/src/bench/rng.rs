//! A fast, deterministic pseudo random generator for offsets and patterns. Not for secrets.

/// xorshift128+ seeded by SplitMix64: the same seed gives the same sequence on every machine.
#[derive(Debug, Clone)]
pub struct Rng {
    s0: u64,
    s1: u64,
}

/// One step of SplitMix64: spreads any 64-bit value, zero included, over all bits.
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// A generator for `seed`; every seed is good.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let s0 = mix(seed);
        // `| 1`: the state must not be all zero.
        Self { s0, s1: mix(s0) | 1 }
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let mut t = self.s0;
        let s = self.s1;
        self.s0 = s;
        t ^= t << 23;
        t ^= t >> 18;
        t ^= s ^ (s >> 5);
        self.s1 = t;
        t.wrapping_add(s)
    }

    /// A value in `0..bound`; 0 when `bound` is 0. The bias of the multiply method is below `bound / 2^64`.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_sequence_and_another_one_does_not() {
        let take = |seed| {
            let mut rng = Rng::new(seed);
            (0..16).map(|_| rng.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(take(0), take(0));
        assert_ne!(take(0), take(1));
    }

    #[test]
    fn below_reaches_every_value_and_never_the_bound() {
        let mut rng = Rng::new(7);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[rng.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
    }
}
