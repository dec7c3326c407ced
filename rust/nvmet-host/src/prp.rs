//! PRP entries and PRP lists (Base §4.1.1).
//!
//! Knows pages and addresses only. Lists are handed out as (address, entry) pairs, so the same code lays out a list
//! in our own memory and in a test's `Vec`.

/// Bytes of one PRP entry.
pub const PRP_ENTRY_BYTES: u64 = 8;

/// PRP1 and PRP2 of a command (Base §3.3.3.1: DPTR).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrpPair {
    /// PRP entry 1: the first data page, with an offset into it.
    pub prp1: u64,
    /// PRP entry 2: zero, the second data page, or the address of a PRP list.
    pub prp2: u64,
}

/// The PRP entries of a range that is contiguous in device addresses: the first one may start inside a page, all
/// others are page aligned.
///
/// `page` is the memory page size (CC.MPS) in bytes, a power of two. An empty range has no entries.
pub fn entries(iova: u64, len: usize, page: u64) -> impl Iterator<Item = u64> {
    let end = iova.saturating_add(len as u64);
    let mut next = iova;
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        let entry = next;
        next = (next & !(page - 1)).saturating_add(page);
        Some(entry)
    })
}

/// How many entries [`entries`] yields.
#[must_use]
pub fn entry_count(iova: u64, len: usize, page: u64) -> usize {
    if len == 0 {
        return 0;
    }
    ((iova & (page - 1)) + len as u64).div_ceil(page) as usize
}

/// Bytes of consecutive list memory that [`layout`] needs for `count` data entries when the list starts
/// `list_offset` bytes into a page. Zero when PRP1 and PRP2 suffice.
#[must_use]
pub fn list_bytes(count: usize, list_offset: u64, page: u64) -> usize {
    if count <= 2 {
        return 0;
    }
    let mut left = (count - 1) as u64;
    let mut bytes = 0;
    let mut room = (page - (list_offset & (page - 1))) / PRP_ENTRY_BYTES;
    while left > room {
        // The last slot of a page that does not end the list points to the next page.
        left -= room - 1;
        bytes += room * PRP_ENTRY_BYTES;
        room = page / PRP_ENTRY_BYTES;
    }
    (bytes + left * PRP_ENTRY_BYTES) as usize
}

/// Lays out `data` as PRP1, PRP2 and, for more than two entries, a PRP list at `list_iova` (8-byte aligned, may be
/// mid-page) that chains through consecutive pages.
///
/// `write` is called with the address and value of every list entry; [`list_bytes`] says how much room it needs.
pub fn layout(
    data: impl IntoIterator<Item = u64>,
    list_iova: u64,
    page: u64,
    mut write: impl FnMut(u64, u64),
) -> PrpPair {
    let mut data = data.into_iter();
    let Some(prp1) = data.next() else {
        return PrpPair::default();
    };
    let Some(second) = data.next() else {
        return PrpPair { prp1, prp2: 0 };
    };
    let Some(third) = data.next() else {
        return PrpPair { prp1, prp2: second };
    };
    let mut rest = [second, third].into_iter().chain(data).peekable();
    let mut at = list_iova;
    while let Some(entry) = rest.next() {
        let last_slot = (at & (page - 1)) == page - PRP_ENTRY_BYTES;
        if last_slot && rest.peek().is_some() {
            write(at, at + PRP_ENTRY_BYTES);
            at += PRP_ENTRY_BYTES;
        }
        write(at, entry);
        at += PRP_ENTRY_BYTES;
    }
    PrpPair { prp1, prp2: list_iova }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const PAGE: u64 = 4096;

    /// Reads a laid out command back the way a controller does (Base §4.1.1).
    fn walk(pair: PrpPair, len: usize, list: &HashMap<u64, u64>) -> Vec<(u64, u64)> {
        let mut left = len as u64;
        let mut out = Vec::new();
        let mut take = |addr: u64, left: &mut u64| {
            let n = (PAGE - (addr & (PAGE - 1))).min(*left);
            out.push((addr, n));
            *left -= n;
        };
        take(pair.prp1, &mut left);
        if left == 0 {
            return out;
        }
        if left <= PAGE {
            take(pair.prp2, &mut left);
            return out;
        }
        let mut at = pair.prp2;
        while left > 0 {
            let entry = list[&at];
            if at & (PAGE - 1) == PAGE - 8 && left > PAGE {
                assert_eq!(entry & (PAGE - 1), 0, "a chain pointer starts a page");
                at = entry;
            } else {
                assert_eq!(entry & (PAGE - 1), 0, "only PRP1 has an offset");
                take(entry, &mut left);
                at += 8;
            }
        }
        out
    }

    proptest! {
        #[test]
        fn a_controller_that_walks_the_list_finds_the_range(
            offset in 0u64..PAGE, len in 1usize..5_000_000, slot in 0u64..512,
        ) {
            let iova = 0x10_0000 + (offset & !3);
            let list_iova = 0x9000_0000 + slot * 8;
            let mut list = HashMap::new();
            let pair = layout(entries(iova, len, PAGE), list_iova, PAGE, |at, v| {
                assert!(list.insert(at, v).is_none());
            });
            let count = entry_count(iova, len, PAGE);
            prop_assert_eq!(count, entries(iova, len, PAGE).count());
            prop_assert_eq!(list.len() * 8, list_bytes(count, list_iova, PAGE));
            let mut at = iova;
            for (addr, n) in walk(pair, len, &list) {
                prop_assert_eq!(addr, at);
                at += n;
            }
            prop_assert_eq!(at, iova + len as u64);
        }
    }

    #[test]
    fn an_empty_transfer_has_no_pointers() {
        assert_eq!(layout(entries(0x1000, 0, PAGE), 0, PAGE, |_, _| {}), PrpPair::default());
        assert_eq!(entry_count(0x1008, 0, PAGE), 0);
    }

    #[test]
    fn a_list_in_the_last_slot_of_a_page_starts_with_a_chain_pointer() {
        let mut seen = Vec::new();
        let pair = layout([0x1000, 0x2000, 0x3000], 0xFF8, PAGE, |at, v| seen.push((at, v)));
        assert_eq!(pair, PrpPair { prp1: 0x1000, prp2: 0xFF8 });
        assert_eq!(seen, [(0xFF8, 0x1000), (0x1000, 0x2000), (0x1008, 0x3000)]);
    }
}
