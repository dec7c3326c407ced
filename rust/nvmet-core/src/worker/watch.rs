//! The doorbells of a host that cannot be heard, as they were last looked at.
//!
//! A client that maps its doorbells writes them without a message. To look at hundreds of resting queues one by one takes
//! a handful of cache lines each; their doorbells lie side by side, and a copy of them shows in one comparison whether
//! any of them moved. Knows doorbells; must not know what their values mean.

use crate::queue::Doorbells;

/// Bytes of the doorbells of one queue identifier: a tail and a head.
const PAIR: usize = 8;
/// Bytes that are compared at a time: the doorbells of 64 queues.
const PIECE: usize = 64 * PAIR;

/// A copy of doorbells.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Vec<u8>,
    next: usize,
}

impl Watch {
    /// Watches the doorbells of all queues up to `qid`.
    pub fn include(&mut self, qid: u16) {
        let len = (usize::from(qid) + 1) * PAIR;
        if self.seen.len() < len {
            // No doorbell has this value, so the first look finds news.
            self.seen.resize(len, 0xff);
        }
    }

    /// Looks at the next piece; whether anything in it has moved since it was looked at.
    pub fn look(&mut self, doorbells: &Doorbells) -> bool {
        let pieces = self.seen.len().div_ceil(PIECE);
        let Some(piece) = self.next.checked_rem(pieces) else { return false };
        self.next = piece + 1;
        self.look_at(doorbells, piece)
    }

    /// Looks at all of them.
    pub fn look_at_all(&mut self, doorbells: &Doorbells) -> bool {
        let mut moved = false;
        for piece in 0..self.seen.len().div_ceil(PIECE) {
            moved |= self.look_at(doorbells, piece);
        }
        moved
    }

    fn look_at(&mut self, doorbells: &Doorbells, piece: usize) -> bool {
        let mut now = [0; PIECE];
        let Some(seen) = self.seen.chunks_mut(PIECE).nth(piece) else { return false };
        let now = &mut now[..seen.len()];
        if !doorbells.read(piece * PIECE, now) || now == seen {
            return false;
        }
        seen.copy_from_slice(now);
        true
    }

    /// Whether any has moved, without taking note of it.
    pub fn differs(&self, doorbells: &Doorbells) -> bool {
        let mut now = [0; PIECE];
        self.seen.chunks(PIECE).enumerate().any(|(piece, seen)| {
            let now = &mut now[..seen.len()];
            doorbells.read(piece * PIECE, now) && now != seen
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nvmet_dma::DoorbellPage;

    use super::*;
    use crate::queue::{DOORBELL_PAGE_SIZE, register_index};

    #[test]
    fn every_move_is_found_once_wherever_it_is() {
        let page = Arc::new(DoorbellPage::new(DOORBELL_PAGE_SIZE).unwrap());
        let doorbells = Doorbells::new(Arc::clone(&page));
        let mut watch = Watch::default();
        assert!(!watch.look_at_all(&doorbells), "there is nothing to watch");
        watch.include(511);
        assert!(watch.look_at_all(&doorbells));
        assert!(!watch.look_at_all(&doorbells));
        for qid in [1, 63, 64, 200, 511] {
            for completion in [false, true] {
                page.store(register_index(qid, completion), 5).unwrap();
                assert!(watch.differs(&doorbells) && watch.differs(&doorbells));
                assert!(watch.look_at_all(&doorbells));
                assert!(!watch.differs(&doorbells));
                page.store(register_index(qid, completion), 6).unwrap();
                assert_eq!((0..8).filter(|_| watch.look(&doorbells)).count(), 1, "{qid} {completion}");
            }
        }
    }

    #[test]
    fn queues_that_come_later_are_watched_from_then_on() {
        let page = Arc::new(DoorbellPage::new(DOORBELL_PAGE_SIZE).unwrap());
        let doorbells = Doorbells::new(Arc::clone(&page));
        let mut watch = Watch::default();
        watch.include(1);
        watch.look_at_all(&doorbells);
        page.store(register_index(2, false), 1).unwrap();
        assert!(!watch.look_at_all(&doorbells));
        watch.include(2);
        watch.include(1);
        assert!(watch.look_at_all(&doorbells));
    }
}
