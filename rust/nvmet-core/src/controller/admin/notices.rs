//! Reservation notifications of a controller: masks and the log page (NVMe Base 2.0, 5.16.1.24, 5.27.1.26, 8.19.2).
//!
//! Plain data. Who is notified of what is for the reservations to say.

use std::collections::{BTreeMap, VecDeque};

use nvmet_spec::feature::ReservationNotificationMask;
use nvmet_spec::log::ReservationNotification;

use crate::reservation::NoticeKind;

/// Log pages that wait for the host; the oldest make room.
const MAX_WAITING: usize = 64;

/// Notifications that the host has not read, and what it does not want to hear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservationNotices {
    /// Oldest first.
    waiting: VecDeque<ReservationNotification>,
    /// Log Page Count of the last one.
    count: u64,
    /// Masks by namespace.
    masks: BTreeMap<u32, ReservationNotificationMask>,
    /// Of all other namespaces.
    mask_all: ReservationNotificationMask,
}

impl ReservationNotices {
    /// Controller Level Reset: nothing waits and nothing is masked.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The mask of a namespace.
    pub fn mask(&self, nsid: u32) -> ReservationNotificationMask {
        self.masks.get(&nsid).copied().unwrap_or(self.mask_all)
    }

    /// Sets the mask of a namespace; None: of all.
    pub fn set_mask(&mut self, nsid: Option<u32>, mask: ReservationNotificationMask) {
        // Reserved bits are not kept.
        let mask = ReservationNotificationMask::new()
            .with_regpre(mask.regpre())
            .with_resrel(mask.resrel())
            .with_respre(mask.respre());
        match nsid {
            Some(nsid) => {
                self.masks.insert(nsid, mask);
            }
            None => {
                self.masks.clear();
                self.mask_all = mask;
            }
        }
    }

    /// Notes a notification, unless the host has masked its kind; whether there is one more log page.
    pub fn add(&mut self, nsid: u32, kind: NoticeKind) -> bool {
        let mask = self.mask(nsid);
        let masked = match kind {
            NoticeKind::RegistrationPreempted => mask.regpre(),
            NoticeKind::ReservationReleased => mask.resrel(),
            NoticeKind::ReservationPreempted => mask.respre(),
        };
        if masked {
            return false;
        }
        // 0 says that there is no notification.
        self.count = self.count.checked_add(1).unwrap_or(1);
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(ReservationNotification {
            log_page_count: self.count,
            kind: kind as u8,
            nsid,
            ..ReservationNotification::default()
        });
        true
    }

    /// The log page: the oldest notification, or an empty one.
    pub fn page(&self) -> ReservationNotification {
        let Some(oldest) = self.waiting.front() else { return ReservationNotification::default() };
        ReservationNotification { available: (self.waiting.len() - 1).min(0xff) as u8, ..*oldest }
    }

    /// The host has read the log page, which makes room for the next one; whether there is one.
    pub fn read(&mut self) -> bool {
        self.waiting.pop_front();
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(notices: &ReservationNotices) -> (u64, u8, u8, u32) {
        let page = notices.page();
        (page.log_page_count, page.kind, page.available, page.nsid)
    }

    #[test]
    fn notifications_are_read_one_by_one_oldest_first() {
        let mut notices = ReservationNotices::default();
        assert_eq!(fields(&notices), (0, 0, 0, 0));
        assert!(notices.add(3, NoticeKind::RegistrationPreempted));
        assert!(notices.add(4, NoticeKind::ReservationReleased));
        assert!(notices.add(5, NoticeKind::ReservationPreempted));
        assert_eq!(fields(&notices), (1, 1, 2, 3));
        assert!(notices.read());
        assert_eq!(fields(&notices), (2, 2, 1, 4));
        assert!(notices.read());
        assert_eq!(fields(&notices), (3, 3, 0, 5));
        assert!(!notices.read());
        assert_eq!(fields(&notices), (0, 0, 0, 0));
        assert!(!notices.read());
    }

    #[test]
    fn a_host_that_reads_nothing_keeps_the_latest() {
        let mut notices = ReservationNotices::default();
        for nsid in 1..=100 {
            notices.add(nsid, NoticeKind::ReservationReleased);
        }
        assert_eq!(fields(&notices), (37, 2, 63, 37));
    }

    #[test]
    fn masks_are_by_namespace_and_by_kind() {
        let mut notices = ReservationNotices::default();
        let mask = ReservationNotificationMask::new().with_resrel(true);
        notices.set_mask(Some(2), mask);
        assert!(notices.add(1, NoticeKind::ReservationReleased));
        assert!(!notices.add(2, NoticeKind::ReservationReleased));
        assert!(notices.add(2, NoticeKind::ReservationPreempted));
        notices.set_mask(None, ReservationNotificationMask::from_bits(0b1011));
        assert!(notices.add(2, NoticeKind::ReservationReleased), "the one of all takes its place");
        assert!(!notices.add(1, NoticeKind::RegistrationPreempted));
        assert_eq!(notices.mask(7).into_bits(), 0b1010, "reserved bits read 0");
    }
}
