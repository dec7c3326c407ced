//! The pattern that `verify` writes: every block proves where it belongs, which run wrote it, and that it is whole.
//!
//! A block is a header of 48 bytes (magic, namespace, LBA, generation, seed, checksum of the rest) and words derived
//! from the header. What comes back is therefore either exactly right or says itself what went wrong.

use super::rng::mix;
use std::fmt;

const MAGIC: u64 = u64::from_le_bytes(*b"nvmetVDv");
const HEADER_BYTES: usize = 48;

/// What one block is expected to say about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockId {
    /// Namespace identifier.
    pub nsid: u32,
    /// Logical block address.
    pub lba: u64,
    /// How often this run wrote the block: 1 for the first pass.
    pub generation: u64,
    /// The run: its seed.
    pub seed: u64,
}

/// What a block that is not right looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Zero bytes only: never written, deallocated, or lost.
    Zeroes,
    /// Not a block of this pattern at all; the first 8 bytes are given.
    Foreign([u8; 8]),
    /// A whole block of the pattern, but another one: wrong place, namespace, pass or run.
    Other(BlockId),
    /// The header is the right one, the content is not: the first wrong byte is at this offset.
    Damaged {
        /// Offset in the block, in bytes.
        offset: usize,
    },
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "namespace {} LBA {} generation {} seed {:#x}",
            self.nsid, self.lba, self.generation, self.seed
        )
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeroes => f.write_str("zeroes"),
            Self::Foreign(head) => write!(f, "foreign data, starting with {head:02x?}"),
            Self::Other(id) => write!(f, "the block of {id}"),
            Self::Damaged { offset } => write!(f, "the right header, but wrong data from byte {offset} on"),
        }
    }
}

/// Fills `block` (at least 48 bytes, a multiple of 8) with the pattern of `id`.
pub fn fill(block: &mut [u8], id: BlockId) {
    let header = [MAGIC, u64::from(id.nsid), id.lba, id.generation, id.seed, block_key(id)];
    let words = header.into_iter().chain(body(id));
    for (slot, word) in block.chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
}

/// Checks `block` against the pattern of `id`.
///
/// # Errors
/// What was found instead.
pub fn check(block: &[u8], id: BlockId) -> Result<(), Found> {
    let words = [MAGIC, u64::from(id.nsid), id.lba, id.generation, id.seed, block_key(id)];
    let expected = words.into_iter().chain(body(id));
    let wrong = block
        .chunks_exact(8)
        .zip(expected)
        .enumerate()
        .find(|(_, (have, want))| **have != want.to_le_bytes());
    let Some((index, (have, want))) = wrong else {
        return Ok(());
    };
    let byte = have.iter().zip(want.to_le_bytes()).take_while(|(a, b)| **a == *b).count();
    Err(diagnose(block, id, index * 8 + byte))
}

/// Says what a block is that should be `id` and differs from it first at `offset`.
fn diagnose(block: &[u8], id: BlockId, offset: usize) -> Found {
    if block.iter().all(|&byte| byte == 0) {
        return Found::Zeroes;
    }
    if offset >= HEADER_BYTES {
        return Found::Damaged { offset };
    }
    let word = |index: usize| {
        let bytes = block.get(index * 8..index * 8 + 8).and_then(|b| b.try_into().ok());
        u64::from_le_bytes(bytes.unwrap_or_default())
    };
    let claimed = BlockId { nsid: word(1) as u32, lba: word(2), generation: word(3), seed: word(4) };
    if word(0) != MAGIC || word(5) != block_key(claimed) {
        return Found::Foreign(word(0).to_le_bytes());
    }
    if claimed == id {
        return Found::Damaged { offset };
    }
    Found::Other(claimed)
}

/// A key of everything that names the block; doubles as the header's checksum.
const fn block_key(id: BlockId) -> u64 {
    let place = mix(id.lba ^ mix(id.nsid as u64));
    mix(place ^ mix(id.generation ^ mix(id.seed)))
}

/// The words after the header. A Weyl sequence through a multiply: any two blocks differ in nearly every word.
fn body(id: BlockId) -> impl Iterator<Item = u64> {
    let mut state = block_key(id);
    std::iter::from_fn(move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        Some((state ^ (state >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> impl Strategy<Value = BlockId> {
        (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(nsid, lba, generation, seed)| BlockId { nsid, lba, generation, seed })
    }

    proptest! {
        #[test]
        fn a_block_is_its_own_and_nobody_elses(a in id(), b in id(), shift in 0u32..4) {
            let mut block = vec![0; 512 << shift];
            fill(&mut block, a);
            prop_assert_eq!(check(&block, a), Ok(()));
            if a != b {
                prop_assert_eq!(check(&block, b), Err(Found::Other(a)));
            }
        }

        #[test]
        fn one_flipped_bit_is_found_where_it_is(a in id(), at in 0usize..4096, bit in 0u8..8) {
            let mut block = vec![0; 4096];
            fill(&mut block, a);
            block[at] ^= 1 << bit;
            match check(&block, a) {
                Err(Found::Damaged { offset }) => prop_assert_eq!(offset, at),
                Err(Found::Foreign(_)) => prop_assert!(at < HEADER_BYTES),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn lost_and_foreign_data_are_told_apart() {
        let id = BlockId { nsid: 1, lba: 0, generation: 1, seed: 0 };
        assert_eq!(check(&[0; 512], id), Err(Found::Zeroes));
        assert_eq!(check(&[0x5A; 512], id), Err(Found::Foreign([0x5A; 8])));
    }

    #[test]
    fn a_block_torn_in_the_middle_is_damaged() {
        let new = BlockId { nsid: 1, lba: 9, generation: 2, seed: 3 };
        let old = BlockId { generation: 1, ..new };
        let (mut block, mut stale) = ([0; 4096], [0; 4096]);
        fill(&mut block, new);
        fill(&mut stale, old);
        block[2048..].copy_from_slice(&stale[2048..]);
        assert_eq!(check(&block, new), Err(Found::Damaged { offset: 2048 }));
    }
}
