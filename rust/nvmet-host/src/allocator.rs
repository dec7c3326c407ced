//! A first-fit allocator of page runs: offsets only, no memory.

use std::collections::BTreeMap;

/// Hands out runs of whole pages from `0..size` and takes them back, joining neighbours.
#[derive(Debug)]
pub(crate) struct RunAllocator {
    page: usize,
    /// Free runs, start → length, in bytes, never adjacent to each other.
    free: BTreeMap<usize, usize>,
}

impl RunAllocator {
    /// An allocator of `size` bytes (rounded down to whole pages) in pages of `page` bytes.
    pub(crate) fn new(size: usize, page: usize) -> Self {
        let size = size / page * page;
        let free = if size == 0 { BTreeMap::new() } else { BTreeMap::from([(0, size)]) };
        Self { page, free }
    }

    /// Bytes that a request of `len` bytes takes: whole pages, at least one.
    pub(crate) fn rounded(&self, len: usize) -> Option<usize> {
        len.max(1).checked_next_multiple_of(self.page)
    }

    /// The start of a free run of at least `len` bytes whose start is a multiple of `align` (a power of two).
    pub(crate) fn allocate(&mut self, len: usize, align: usize) -> Option<usize> {
        let len = self.rounded(len)?;
        let align = align.max(self.page);
        let (run, run_len, start) = self.free.iter().find_map(|(&run, &run_len)| {
            let start = run.checked_next_multiple_of(align)?;
            (start.checked_add(len)? <= run + run_len).then_some((run, run_len, start))
        })?;
        self.free.remove(&run);
        if start > run {
            self.free.insert(run, start - run);
        }
        let (end, run_end) = (start + len, run + run_len);
        if run_end > end {
            self.free.insert(end, run_end - end);
        }
        Some(start)
    }

    /// Takes back a run that [`allocate`](Self::allocate) returned for the same `len`.
    pub(crate) fn release(&mut self, start: usize, len: usize) {
        let Some(mut len) = self.rounded(len) else { return };
        let mut start = start;
        if let Some(next) = self.free.remove(&(start + len)) {
            len += next;
        }
        if let Some((&before, &before_len)) = self.free.range(..start).next_back()
            && before + before_len == start
        {
            self.free.remove(&before);
            start = before;
            len += before_len;
        }
        self.free.insert(start, len);
    }

    /// Free bytes in all runs together.
    pub(crate) fn free_bytes(&self) -> usize {
        self.free.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_never_overlap_and_all_come_back(
            steps in proptest::collection::vec((any::<bool>(), 1usize..60_000, 0u32..4), 1..120),
        ) {
            let size = 1 << 20;
            let mut all = RunAllocator::new(size, 4096);
            let mut held: Vec<(usize, usize)> = Vec::new();
            for (take, len, shift) in steps {
                if take || held.is_empty() {
                    let align = 4096usize << shift;
                    if let Some(start) = all.allocate(len, align) {
                        prop_assert_eq!(start % align, 0);
                        prop_assert!(start + len <= size);
                        prop_assert!(held.iter().all(|&(s, l)| start + len <= s || s + l <= start));
                        held.push((start, len));
                    }
                } else {
                    let (start, len) = held.swap_remove(len % held.len());
                    all.release(start, len);
                }
            }
            for (start, len) in held.drain(..) {
                all.release(start, len);
            }
            prop_assert_eq!(all.free_bytes(), size);
            prop_assert_eq!(all.allocate(size, 4096), Some(0));
        }
    }
}
