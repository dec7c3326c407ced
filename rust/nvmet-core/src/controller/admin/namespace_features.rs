//! Features that are kept with a namespace: Reservation Notification Mask, Reservation Persistence, Namespace Write
//! Protection Config (NVMe Base 2.0, 5.27.1.26 to 5.27.1.28).
//!
//! What belongs to all controllers of the namespace is changed by the subsystem, and answered when everybody has heard
//! of it.

use std::sync::Arc;

use nvmet_spec::command::NSID_ALL;
use nvmet_spec::feature::{
    FeatureId, NamespaceWriteProtection, ReservationNotificationMask, ReservationPersistence, Select,
    WriteProtectionState,
};
use nvmet_spec::status::Status;

use super::super::Controller;
use super::super::admin_queue::Waiting;
use super::Answer;
use super::features::capabilities;
use crate::namespace::{Keeper, MAX_NAMESPACES};
use crate::subsystem::{Job, Reply, Seen, Wish};
use crate::worker::Event;

/// A feature that this module is about.
pub fn one_of_them(fid: u8) -> Option<FeatureId> {
    FeatureId::try_from(fid).ok().filter(|fid| {
        matches!(
            fid,
            FeatureId::ReservationNotificationMask
                | FeatureId::ReservationPersistence
                | FeatureId::NamespaceWriteProtection
        )
    })
}

impl Controller {
    /// Get Features.
    pub(super) fn get_namespace_feature(
        &self,
        fid: FeatureId,
        select: Select,
        nsid: u32,
    ) -> Result<u32, Status> {
        match select {
            Select::SupportedCapabilities => return Ok(capabilities(fid).into_bits()),
            Select::Reserved(_) => return Err(Status::INVALID_FIELD.with_dnr()),
            _ => {}
        }
        let seen = self.named(nsid)?;
        let keeper = seen.namespace().keeper();
        if fid != FeatureId::NamespaceWriteProtection {
            check_reservations(keeper)?;
        }
        if select != Select::Current {
            // Nothing is saveable, so the saved value is the default value (5.15).
            return Ok(0);
        }
        Ok(match fid {
            FeatureId::ReservationNotificationMask => self.admin.notices.mask(nsid).into_bits(),
            FeatureId::ReservationPersistence => {
                let ptpl = keeper.read(|kept| kept.reservations.ptpl());
                ReservationPersistence::new().with_ptpl(ptpl).into_bits()
            }
            _ => NamespaceWriteProtection::new().with_wps(protection(seen)).into_bits(),
        })
    }

    /// Set Features.
    pub(super) fn set_namespace_feature(&mut self, fid: FeatureId, nsid: u32, cdw11: u32) -> Answer {
        let wish = match fid {
            FeatureId::ReservationNotificationMask => {
                return Answer::Now(self.set_notification_mask(nsid, cdw11).map(|()| 0));
            }
            FeatureId::ReservationPersistence => self.persistence(nsid, cdw11),
            _ => self.write_protection(nsid, cdw11),
        };
        let id = self.admin.view.get(nsid).map(|seen| seen.namespace().id());
        match wish {
            Ok(wish) => self.ask_subsystem(nsid, id, wish),
            Err(status) => Answer::Now(Err(status)),
        }
    }

    fn ask_subsystem(&mut self, nsid: u32, id: Option<u64>, wish: Wish) -> Answer {
        let token = self.admin.next_token;
        self.admin.next_token = token.wrapping_add(1);
        let link = Arc::clone(&self.link);
        let reply = Reply::new(move |result| {
            link.tell(Event::Done { token, status: result.err().unwrap_or(Status::SUCCESS) });
        });
        let (host, wanted) = (self.link.who.host.id, Some(Arc::downgrade(&self.admin.life)));
        self.subsystem.submit(Job { nsid, id, host, wish, wanted, reply });
        Answer::Later(Waiting::Done(token))
    }

    /// The namespace that a feature is of: one that the host sees.
    fn named(&self, nsid: u32) -> Result<&Seen, Status> {
        self.admin.view.get(nsid).ok_or_else(|| {
            if (1..=MAX_NAMESPACES).contains(&nsid) {
                Status::INVALID_FIELD.with_dnr()
            } else {
                Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr()
            }
        })
    }

    fn set_notification_mask(&mut self, nsid: u32, cdw11: u32) -> Result<(), Status> {
        let mask = ReservationNotificationMask::from_bits(cdw11);
        if nsid == NSID_ALL {
            self.admin.notices.set_mask(None, mask);
            return Ok(());
        }
        check_reservations(self.named(nsid)?.namespace().keeper())?;
        self.admin.notices.set_mask(Some(nsid), mask);
        Ok(())
    }

    fn persistence(&self, nsid: u32, cdw11: u32) -> Result<Wish, Status> {
        let persist = ReservationPersistence::from_bits(cdw11).ptpl();
        if nsid == NSID_ALL {
            // Not of what other hosts alone see.
            let namespaces = self.admin.view.iter().map(Seen::namespace);
            let able = namespaces.filter(|namespace| namespace.keeper().takes_reservations());
            return Ok(Wish::PersistAll(able.map(|namespace| namespace.id()).collect(), persist));
        }
        check_reservations(self.named(nsid)?.namespace().keeper())?;
        Ok(Wish::Persist(persist))
    }

    fn write_protection(&self, nsid: u32, cdw11: u32) -> Result<Wish, Status> {
        let seen = self.named(nsid)?;
        let wanted = NamespaceWriteProtection::from_bits(cdw11).wps();
        match wanted {
            // Identify Controller NWPC: no permanent one.
            WriteProtectionState::Permanent | WriteProtectionState::Reserved(_) => {
                Err(Status::INVALID_FIELD.with_dnr())
            }
            // What the operator has protected no host opens.
            _ if locked(seen) => Err(Status::FEATURE_NOT_CHANGEABLE.with_dnr()),
            _ => Ok(Wish::Protect(wanted)),
        }
    }
}

fn locked(seen: &Seen) -> bool {
    seen.slot.locked || seen.namespace().read_only()
}

/// The state that hosts are told of.
fn protection(seen: &Seen) -> WriteProtectionState {
    match seen.slot.protection {
        WriteProtectionState::None if locked(seen) => WriteProtectionState::WriteProtect,
        state => state,
    }
}

/// There are no reservation features where there are no reservations (Identify Namespace RESCAP).
fn check_reservations(keeper: &Keeper) -> Result<(), Status> {
    if keeper.takes_reservations() { Ok(()) } else { Err(Status::INVALID_FIELD.with_dnr()) }
}
