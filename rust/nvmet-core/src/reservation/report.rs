//! The Reservation Status data structures (Base §7.5).
//!
//! May know: the state, which controllers there are. Must not know: how much of it a host asked for.

use nvmet_spec::reservation::{
    REPORT_EXTENDED_HEADER, RegisteredController, RegisteredControllerExtended, ReportHeader,
    ReservationStatus,
};
use zerocopy::{FromZeros, IntoBytes};

use super::HostId;
use super::state::{Registrant, State};

/// CNTLID of a registered host that has no controller now.
const NO_CONTROLLER: u16 = 0xffff;

impl State {
    /// The whole data structure: an entry for each controller of a registered host, ascending by host and controller,
    /// and one with CNTLID FFFFh for a registered host without a controller, which could not be seen otherwise.
    ///
    /// `controllers` are all that can reach the namespace, with their hosts. The basic structure has the first eight
    /// bytes of a Host Identifier, which is all of it only if it has 64 bits; else a host has to ask for the extended.
    pub fn report(&self, extended: bool, controllers: &[(u16, HostId)]) -> Vec<u8> {
        let mut controllers: Vec<_> = controllers.iter().map(|&(cntlid, host)| (host, cntlid)).collect();
        controllers.sort_unstable();
        let mut entries = Vec::with_capacity(controllers.len().max(self.registrants.len()));
        for registrant in self.registrants() {
            let first = controllers.partition_point(|(host, _)| *host < registrant.host);
            let before = entries.len();
            let own = controllers[first..].iter().take_while(|(host, _)| *host == registrant.host);
            entries.extend(own.map(|&(_, cntlid)| (cntlid, registrant)));
            if entries.len() == before {
                entries.push((NO_CONTROLLER, registrant));
            }
        }
        // More cannot be said, and more controllers there cannot be.
        entries.truncate(u16::MAX.into());

        let (header_len, entry_len) = if extended {
            (REPORT_EXTENDED_HEADER, size_of::<RegisteredControllerExtended>())
        } else {
            (size_of::<ReportHeader>(), size_of::<RegisteredController>())
        };
        let mut bytes = Vec::with_capacity(header_len + entries.len() * entry_len);
        bytes.extend_from_slice(self.header(entries.len() as u16).as_bytes());
        bytes.resize(header_len, 0);
        for (cntlid, registrant) in entries {
            if extended {
                bytes.extend_from_slice(extended_entry(cntlid, &registrant).as_bytes());
            } else {
                bytes.extend_from_slice(entry(cntlid, &registrant).as_bytes());
            }
        }
        bytes
    }

    fn header(&self, regctl: u16) -> ReportHeader {
        ReportHeader {
            generation: self.generation,
            rtype: self.held.rtype().into_bits(),
            regctl: regctl.to_le_bytes(),
            ptpls: self.ptpl.into(),
            ..ReportHeader::new_zeroed()
        }
    }
}

fn entry(cntlid: u16, registrant: &Registrant) -> RegisteredController {
    let (low, _) = registrant.host.split_at(8);
    let mut hostid = [0; 8];
    hostid.copy_from_slice(low);
    RegisteredController {
        cntlid,
        rcsts: ReservationStatus::new().with_holder(registrant.holder),
        hostid: u64::from_ne_bytes(hostid),
        rkey: registrant.key,
        ..RegisteredController::new_zeroed()
    }
}

fn extended_entry(cntlid: u16, registrant: &Registrant) -> RegisteredControllerExtended {
    RegisteredControllerExtended {
        cntlid,
        rcsts: ReservationStatus::new().with_holder(registrant.holder),
        rkey: registrant.key,
        hostid: registrant.host,
        ..RegisteredControllerExtended::new_zeroed()
    }
}
