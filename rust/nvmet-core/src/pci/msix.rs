//! The memory behind BAR4 and BAR5: MSI-X Table and Pending Bit Array (PCIe Base 7.7.2).
//!
//! QEMU and Cloud Hypervisor emulate the table themselves and hand over eventfds, so nothing is ever sent
//! from what is stored here; it is kept because every other client, and each client's fallback path, may
//! access it. PBA reads do come to us from QEMU. What is pending is known to [`crate::irq`]; this file is
//! given it word by word.
//!
//! May know: the layout of a table entry. Must not know: eventfds, vfio-user, who signals.

use nvmet_spec::pci::{self, MsixEntry, VectorControl};
use zerocopy::IntoBytes;

use super::PciError;

/// Bytes of one MSI-X Table entry (PCIe Base 7.7.2).
pub const ENTRY_SIZE: usize = size_of::<MsixEntry>();

/// Smallest size of BAR4 and BAR5: a page, so that a client can map or trap each on its own.
const MIN_BAR_SIZE: u64 = 4096;

/// Most vectors a function can have (PCIe Base 7.7.2.2).
pub const MAX_VECTORS: u16 = pci::MSIX_MAX_VECTORS;

/// An entry after reset: zero, masked (PCIe Base 7.7.2.8).
const RESET: MsixEntry = MsixEntry { address: 0, data: 0, control: VectorControl::new().with_masked(true) };

/// The writable bits of an entry: the address is dword aligned, so its two low bits are zero (PCIe Base 7.7.2.5), and
/// Vector Control has no bit but the mask (7.7.2.8).
const ENTRY_WRITABLE: [u8; ENTRY_SIZE] = zerocopy::transmute!(MsixEntry {
    address: !0b11,
    data: !0,
    control: VectorControl::new().with_masked(true)
});

/// The MSI-X Table as the client sees it in BAR4: plain data, comparable and cloneable for save and restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MsixTable {
    entries: Vec<MsixEntry>,
}

impl MsixTable {
    /// A table of `vectors` entries as after reset: all masked.
    ///
    /// # Errors
    /// [`PciError::Vectors`] unless `vectors` is 1 to [`MAX_VECTORS`].
    pub fn new(vectors: u16) -> Result<Self, PciError> {
        check_vectors(vectors)?;
        Ok(Self { entries: vec![RESET; vectors.into()] })
    }

    /// Puts every entry back to its value after reset: zero, masked (PCIe Base 7.7.2.8).
    pub fn reset(&mut self) {
        self.entries.fill(RESET);
    }

    /// Number of vectors, 1 to [`MAX_VECTORS`].
    #[must_use]
    pub fn vectors(&self) -> u16 {
        self.entries.len() as u16
    }

    /// The entry of `vector`, if there is one.
    #[must_use]
    pub fn entry(&self, vector: u16) -> Option<MsixEntry> {
        self.entries.get(usize::from(vector)).copied()
    }

    /// Reads BAR4 from `offset`. What lies behind the last entry reads zero. Any size and alignment is
    /// served, though the specification asks for aligned dwords and qwords only (PCIe Base 7.7.2).
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some(bytes) = usize::try_from(offset).ok().and_then(|at| self.entries.as_bytes().get(at..))
        else {
            return;
        };
        for (to, from) in data.iter_mut().zip(bytes) {
            *to = *from;
        }
    }

    /// Writes BAR4 at `offset`. Read-only bits, and what lies behind the last entry, keep their value.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(start) = usize::try_from(offset) else { return };
        let Some(bytes) = self.entries.as_mut_bytes().get_mut(start..) else { return };
        for (at, (to, from)) in bytes.iter_mut().zip(data).enumerate() {
            let writable = ENTRY_WRITABLE[(start + at) % ENTRY_SIZE];
            *to = (*to & !writable) | (from & writable);
        }
    }
}

/// Reads BAR5, the Pending Bit Array, from `offset` (PCIe Base 7.7.2.9). `word` gives the pending bits of
/// vectors `64 * n` to `64 * n + 63`, and zero for vectors that do not exist. Writes to the PBA have no
/// effect, so there is no function for them.
pub fn read_pba(offset: u64, data: &mut [u8], word: impl Fn(usize) -> u64) {
    data.fill(0);
    let Ok(start) = usize::try_from(offset) else { return };
    let mut filled = 0;
    while filled < data.len() {
        let Some(at) = start.checked_add(filled).filter(|at| *at < usize::from(MAX_VECTORS) / 8) else {
            return;
        };
        let bytes = word(at / 8).to_le_bytes();
        for (to, from) in data[filled..].iter_mut().zip(&bytes[at % 8..]) {
            *to = *from;
        }
        filled += 8 - at % 8;
    }
}

/// Size in bytes of BAR4 for `vectors` entries: a power of two, at least a page.
pub(super) fn table_bar_size(vectors: u16) -> u64 {
    (u64::from(vectors) * ENTRY_SIZE as u64).next_power_of_two().max(MIN_BAR_SIZE)
}

/// Size in bytes of BAR5: [`MAX_VECTORS`] pending bits fit in a page.
pub(super) const PBA_BAR_SIZE: u64 = MIN_BAR_SIZE;

/// Refuses a vector count that the MSI-X capability cannot say.
pub(super) fn check_vectors(vectors: u16) -> Result<(), PciError> {
    if (1..=MAX_VECTORS).contains(&vectors) { Ok(()) } else { Err(PciError::Vectors { vectors }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(vectors: u16) -> MsixTable {
        MsixTable::new(vectors).expect("in range")
    }

    #[test]
    fn a_vector_count_out_of_range_is_refused() {
        for vectors in [0, MAX_VECTORS + 1, u16::MAX] {
            assert_eq!(MsixTable::new(vectors), Err(PciError::Vectors { vectors }));
        }
        assert_eq!(table(1).vectors(), 1);
        assert_eq!(table(MAX_VECTORS).vectors(), MAX_VECTORS);
    }

    #[test]
    fn every_entry_is_masked_after_reset() {
        let mut table = table(3);
        table.write(0, &[0; 48]);
        assert_eq!(table.entry(1), Some(MsixEntry::default()));
        table.reset();
        for vector in 0..3 {
            assert_eq!(table.entry(vector), Some(RESET));
        }
        assert_eq!(table.entry(3), None);
    }

    #[test]
    fn an_entry_keeps_its_reserved_bits_zero() {
        let mut table = table(2);
        table.write(16, &[0xff; 16]);
        assert_eq!(
            table.entry(1),
            Some(MsixEntry { address: 0xffff_ffff_ffff_fffc, data: 0xffff_ffff, control: RESET.control })
        );
        let mut control = [0; 4];
        table.read(28, &mut control);
        assert_eq!(u32::from_le_bytes(control), 1);
    }

    #[test]
    fn behind_the_table_reads_zero_and_swallows_writes() {
        let mut table = table(2);
        let before = table.clone();
        for offset in [32, 4096, u64::MAX] {
            table.write(offset, &[0xff; 8]);
            let mut data = [0xaa; 8];
            table.read(offset, &mut data);
            assert_eq!(data, [0; 8]);
        }
        assert_eq!(table, before);
    }

    #[test]
    fn the_bars_are_powers_of_two_and_hold_what_they_must() {
        assert_eq!(table_bar_size(1), 4096);
        assert_eq!(table_bar_size(256), 4096);
        assert_eq!(table_bar_size(257), 8192);
        assert_eq!(table_bar_size(MAX_VECTORS), 32768);
        assert!(u64::from(MAX_VECTORS) / 8 <= PBA_BAR_SIZE);
    }

    proptest! {
        #[test]
        fn reads_are_equal_at_any_split(
            writes in prop::collection::vec((0u64..80, prop::collection::vec(any::<u8>(), 1..9)), 0..20),
            split in 0usize..64,
        ) {
            let mut table = table(4);
            for (offset, data) in &writes {
                table.write(*offset, data);
            }
            let mut whole = [0; 64];
            table.read(0, &mut whole);
            let mut parts = [0; 64];
            let (low, high) = parts.split_at_mut(split);
            table.read(0, low);
            table.read(split as u64, high);
            prop_assert_eq!(whole, parts);
            for entry in whole.chunks_exact(ENTRY_SIZE) {
                for (byte, writable) in entry.iter().zip(ENTRY_WRITABLE) {
                    prop_assert_eq!(byte & !writable, 0);
                }
            }
        }

        #[test]
        fn a_pba_read_of_any_size_shows_each_vectors_bit(
            pending in any::<[u64; 4]>(), offset in 0u64..40, length in 0usize..80,
        ) {
            let mut data = vec![0xaa; length];
            read_pba(offset, &mut data, |word| pending.get(word).copied().unwrap_or(0));
            for (at, byte) in data.iter().enumerate() {
                for bit in 0..8 {
                    let vector = (offset as usize + at) * 8 + bit;
                    let want = pending.get(vector / 64).is_some_and(|word| word >> (vector % 64) & 1 == 1);
                    prop_assert_eq!(byte >> bit & 1 == 1, want);
                }
            }
        }
    }

    #[test]
    fn a_pba_read_far_outside_reads_zero() {
        for offset in [256, 4096, u64::MAX] {
            let mut data = [0xaa; 16];
            read_pba(offset, &mut data, |_| u64::MAX);
            assert_eq!(data, [0; 16]);
        }
    }
}
