//! Preempting a reservation or registrations (Base §8.19.7).
//!
//! May know: the state. Must not know: how commands of the losers are ended.

use nvmet_spec::reservation::ReservationType;
use nvmet_spec::status::Status;

use super::HostId;
use super::command::INVALID_FIELD;
use super::state::{CONFLICT, Held, Notice, NoticeKind, Outcome, State};

/// Who is unregistered, and who holds the reservation then.
enum Plan {
    /// Registrants with this key; the reservation goes only if its last holder does.
    Key(u64),
    /// Registrants with this key but the issuer, who takes the reservation over.
    TakeFromKey(u64),
    /// Every registrant but the issuer, who takes the reservation over.
    TakeFromAll,
}

impl State {
    /// Preempt of a registrant whose current key is right.
    ///
    /// Where implementations differ, this is §8.19.7: PRKEY counts for a holder as well, so that it can preempt
    /// others (Linux only ever changes its type); a holder that preempts itself unregisters the others that have its
    /// key (neither Linux nor SPDK); 0h that is not allowed is Invalid Field (SPDK: Reservation Conflict).
    pub(super) fn preempt(
        &mut self,
        host: &HostId,
        rtype: ReservationType,
        prkey: u64,
    ) -> Result<Outcome, Status> {
        let plan = match self.held {
            Held::By(_, holder) if self.registrants.get(&holder) == Some(&prkey) => Plan::TakeFromKey(prkey),
            Held::By(..) if prkey == 0 => return Err(INVALID_FIELD),
            Held::ByAll(_) if prkey == 0 => Plan::TakeFromAll,
            Held::Nothing | Held::By(..) | Held::ByAll(_) => Plan::Key(prkey),
        };
        let leaves = |(&registrant, &key): (&HostId, &u64)| {
            let leaves = match plan {
                Plan::Key(prkey) => key == prkey,
                Plan::TakeFromKey(prkey) => key == prkey && registrant != *host,
                Plan::TakeFromAll => registrant != *host,
            };
            leaves.then_some(registrant)
        };
        let leaving: Vec<HostId> = self.registrants.iter().filter_map(leaves).collect();
        if leaving.is_empty() && matches!(plan, Plan::Key(_)) {
            // The specification says so for All Registrants only and is silent on the rest. Here it is the same for
            // all, as in Linux and SCSI: whoever preempts nobody came too late and has to know. SPDK succeeds.
            return Err(CONFLICT);
        }
        let before = self.held.rtype();
        for host in &leaving {
            self.unregister(host);
        }
        if matches!(plan, Plan::TakeFromKey(_) | Plan::TakeFromAll) {
            self.held = Held::acquired(rtype, *host);
        }
        self.count_generation();
        let mut notices: Vec<Notice> = leaving
            .iter()
            .filter(|&leaver| leaver != host)
            .map(|&host| Notice { host, kind: NoticeKind::RegistrationPreempted })
            .collect();
        // Only if the type changes: who stays registered and finds the same type has lost nothing. SPDK always tells.
        if self.held.rtype() != before {
            notices.extend(self.notices(Some(host), NoticeKind::ReservationReleased));
            notices.sort_unstable_by_key(|notice| notice.host);
        }
        Ok(Outcome { changed: true, notices, abort: Vec::new() })
    }
}
