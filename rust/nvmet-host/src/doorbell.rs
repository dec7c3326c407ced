//! Doorbells: shadowed in host memory, mapped, or trapped by a posted register write.
//!
//! Registers: PCIe §3.1.2. Shadow doorbells and EventIdx: Base §5.8, "Doorbell Buffer Config command".

use crate::{HostError, memory::DmaBuffer, transport::Transport};
use nvmet_dma::MappedArea;
use nvmet_spec::registers::{self, DOORBELL_BASE};
use std::sync::{
    Arc,
    atomic::{Ordering, fence},
};

/// Shadow doorbell page and EventIdx page of a controller: Doorbell Buffer Config's PRP1 and PRP2.
#[derive(Debug, Clone)]
pub(crate) struct ShadowPages {
    pub(crate) shadow: Arc<DmaBuffer>,
    pub(crate) event_idx: Arc<DmaBuffer>,
}

/// One doorbell, with the cheapest way to ring it that the controller offers.
#[derive(Debug)]
pub(crate) struct Doorbell {
    transport: Arc<Transport>,
    /// Offset in BAR0.
    offset: u64,
    mapped: Option<Arc<MappedArea>>,
    /// Offset inside of the mapped area.
    mapped_at: usize,
    shadow: Option<(ShadowPages, usize)>,
    /// What the shadow holds.
    last: u32,
    /// Ring the register as well, always.
    both: bool,
}

/// Whether the controller wants a real doorbell write after its shadow moved from `old` to `new` (Base §5.8): it does when EventIdx is among the values passed over. All modulo 2^16.
#[inline]
pub(crate) const fn need_event(event_idx: u16, new: u16, old: u16) -> bool {
    let behind_new = new.wrapping_sub(event_idx).wrapping_sub(1);
    behind_new < new.wrapping_sub(old)
}

impl Doorbell {
    pub(crate) fn new(transport: Arc<Transport>, which: registers::Doorbell, dstrd: u8) -> Self {
        let offset = which.offset(dstrd);
        let (mapped, mapped_at) = match transport.mapped_doorbell(offset) {
            Some((area, at)) => (Some(area), at),
            None => (None, 0),
        };
        Self { transport, offset, mapped, mapped_at, shadow: None, last: 0, both: false }
    }

    /// Starts to use the shadow pages, where `value`, which the register was told last, is put. Queues beyond the end
    /// of the page go on with the register.
    ///
    /// `both` rings the register at every turn as well: controllers differ in whether they look at the shadow of the
    /// admin queue, so drivers do that for it.
    pub(crate) fn use_shadow(
        &mut self,
        pages: &ShadowPages,
        value: u32,
        both: bool,
    ) -> Result<(), HostError> {
        self.both = both;
        let slot = (self.offset - DOORBELL_BASE) as usize;
        if slot + 4 <= pages.shadow.len() {
            pages.shadow.store_u32(slot, value)?;
            // A stale EventIdx could keep the first ring from the controller; it writes its own when it has seen that.
            if !both {
                pages.event_idx.store_u32(slot, value)?;
            }
            self.shadow = Some((pages.clone(), slot));
            self.last = value;
        }
        Ok(())
    }

    /// Puts `value` into the shadow page without using it yet.
    pub(crate) fn announce(&self, pages: &ShadowPages, value: u32) -> Result<(), HostError> {
        let slot = (self.offset - DOORBELL_BASE) as usize;
        if slot + 4 <= pages.shadow.len() { pages.shadow.store_u32(slot, value) } else { Ok(()) }
    }

    /// Publishes `value`: everything written to memory before is visible to the controller when it sees it.
    #[inline]
    pub(crate) fn ring(&mut self, value: u32) -> Result<(), HostError> {
        if let Some((pages, slot)) = &self.shadow {
            let old = self.last;
            self.last = value;
            pages.shadow.store_u32(*slot, value)?;
            // The controller writes EventIdx, then reads the shadow; we do the opposite. Without a full barrier
            // between, both could see the old value and both sleep.
            fence(Ordering::SeqCst);
            let event_idx = pages.event_idx.load_u32(*slot)?;
            if !self.both && !need_event(event_idx as u16, value as u16, old as u16) {
                return Ok(());
            }
        }
        self.ring_register(value)
    }

    /// Writes the doorbell register itself, any value.
    #[inline]
    pub(crate) fn ring_register(&self, value: u32) -> Result<(), HostError> {
        match &self.mapped {
            Some(area) => Ok(area.store_u32(self.mapped_at, value)?),
            None => self.transport.post_doorbell(self.offset, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The rule by counting: walk from `old` to `new` and look whether EventIdx is left behind.
        #[test]
        fn an_event_is_needed_exactly_when_event_idx_is_passed(event_idx: u16, old: u16, step in 0u16..3000) {
            let passed = (0..step).any(|i| old.wrapping_add(i) == event_idx);
            prop_assert_eq!(need_event(event_idx, old.wrapping_add(step), old), passed);
        }
    }
}
