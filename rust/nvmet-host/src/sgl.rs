//! Scatter gather lists (Base §4.1.2).
//!
//! Knows descriptors and addresses only. [`SglBuilder`] collects elements and lays them out as SGL1 of a command plus
//! as many segments as needed.

use nvmet_spec::sgl::{SglDescriptor, SglType};

/// Bytes of one SGL descriptor.
pub const SGL_DESCRIPTOR_BYTES: u64 = 16;

/// Collects the elements of a transfer.
#[derive(Debug, Clone, Default)]
pub struct SglBuilder {
    elements: Vec<SglDescriptor>,
}

impl SglBuilder {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `length` bytes of data at `address`.
    #[must_use]
    pub fn data(self, address: u64, length: u32) -> Self {
        self.raw(SglDescriptor::new(SglType::DataBlock, address, length))
    }

    /// Skips `length` bytes of a read.
    #[must_use]
    pub fn bit_bucket(self, length: u32) -> Self {
        self.raw(SglDescriptor::new(SglType::BitBucket, 0, length))
    }

    /// Adds any descriptor, legal or not.
    #[must_use]
    pub fn raw(mut self, descriptor: SglDescriptor) -> Self {
        self.elements.push(descriptor);
        self
    }

    /// Bytes of segment memory that [`layout`](Self::layout) needs.
    #[must_use]
    pub fn segment_bytes(&self, per_segment: usize) -> usize {
        let n = self.elements.len();
        if n <= 1 {
            return 0;
        }
        let segments = self.segment_count(per_segment);
        (n + segments - 1) * SGL_DESCRIPTOR_BYTES as usize
    }

    fn segment_count(&self, per_segment: usize) -> usize {
        // Every segment but the last spends one descriptor on the pointer to the next.
        let (n, per) = (self.elements.len(), per_segment.max(2));
        if n <= per { 1 } else { 1 + (n - per).div_ceil(per - 1) }
    }

    /// Lays the list out and returns SGL1 for the command.
    ///
    /// One element stands in SGL1 itself; more go to segments of at most `per_segment` (at least 2) descriptors, one
    /// after the other from `address` on. `write` is called with the address and the bytes of every descriptor.
    pub fn layout(
        &self,
        address: u64,
        per_segment: usize,
        mut write: impl FnMut(u64, [u8; 16]),
    ) -> SglDescriptor {
        if let [only] = self.elements[..] {
            return only;
        }
        let per = per_segment.max(2);
        let (mut left, mut at) = (&self.elements[..], address);
        let pointer = |left: usize, at: u64| {
            let bytes = (left.min(per) as u64 * SGL_DESCRIPTOR_BYTES) as u32;
            if left <= per {
                SglDescriptor::new(SglType::LastSegment, at, bytes)
            } else {
                SglDescriptor::new(SglType::Segment, at, bytes)
            }
        };
        let first = pointer(left.len(), at);
        loop {
            let last = left.len() <= per;
            let (now, later) = left.split_at(if last { left.len() } else { per - 1 });
            for descriptor in now {
                write(at, zerocopy::transmute!(*descriptor));
                at += SGL_DESCRIPTOR_BYTES;
            }
            if last {
                return first;
            }
            let next = at + SGL_DESCRIPTOR_BYTES;
            write(at, zerocopy::transmute!(pointer(later.len(), next)));
            (left, at) = (later, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn a_walk_through_the_segments_meets_every_element_in_order(n in 0usize..200, per in 2usize..20) {
            let list = (0..n).fold(SglBuilder::new(), |list, i| {
                if i % 5 == 4 { list.bit_bucket(i as u32) } else { list.data(i as u64 * 4096, 512) }
            });
            let mut memory: HashMap<u64, SglDescriptor> = HashMap::new();
            let mut next = list.layout(0x1000, per, |at, b| {
                assert!(memory.insert(at, zerocopy::transmute!(b)).is_none());
            });
            prop_assert_eq!(memory.len() * 16, list.segment_bytes(per));
            let mut seen = Vec::new();
            if n == 1 {
                seen.push(next);
            } else {
                'segments: loop {
                    let (at, count) = (next.address, u64::from(next.length / 16));
                    prop_assert!(count <= per as u64);
                    let last = next.kind() == SglType::LastSegment;
                    for i in 0..count {
                        let descriptor = memory[&(at + i * 16)];
                        if !last && i + 1 == count {
                            next = descriptor;
                            continue 'segments;
                        }
                        seen.push(descriptor);
                    }
                    prop_assert!(last);
                    break;
                }
            }
            prop_assert_eq!(seen, list.elements);
        }
    }
}
