//! Registrants and reservation of a namespace, and what commands do to them (Base §8.19).
//!
//! May know: hosts, keys, types. Must not know: controllers, threads, files.
//!
//! Every command is checked before it changes anything, so that one that fails has changed nothing.

use std::collections::BTreeMap;

use nvmet_spec::reservation::{AcquireAction, ChangePtpl, RegisterAction, ReleaseAction, ReservationType};
use nvmet_spec::status::Status;

use super::command::{Command, INVALID_FIELD, can_be_acquired};
use super::{HostId, Snapshot};

pub(super) const CONFLICT: Status = Status::RESERVATION_CONFLICT.with_dnr();

/// The most hosts that can be registered with a namespace.
pub const MAX_REGISTRANTS: usize = 4096;

/// A reservation, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Held {
    #[default]
    Nothing,
    /// By one host, which is registered.
    By(ReservationType, HostId),
    /// By every registrant, of which there is one at least: the two All Registrants types.
    ByAll(ReservationType),
}

impl Held {
    /// The reservation of a type that a host acquires.
    pub(super) const fn acquired(rtype: ReservationType, host: HostId) -> Self {
        match rtype {
            ReservationType::WriteExclusiveAllRegistrants
            | ReservationType::ExclusiveAccessAllRegistrants => Self::ByAll(rtype),
            _ => Self::By(rtype, host),
        }
    }

    pub(super) const fn rtype(&self) -> ReservationType {
        match self {
            Self::Nothing => ReservationType::None,
            Self::By(rtype, _) | Self::ByAll(rtype) => *rtype,
        }
    }
}

/// A registered host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// The host.
    pub host: HostId,
    /// Its reservation key.
    pub key: u64,
    /// Whether it holds the reservation, alone or with all others.
    pub holder: bool,
}

/// What a host is told of (Base §5.16.1.24, Reservation Notification Log Page Type).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum NoticeKind {
    /// Its registration is gone.
    RegistrationPreempted = 1,
    /// The reservation was released.
    ReservationReleased = 2,
    /// Its registration and the reservation, if any, were cleared.
    ReservationPreempted = 3,
}

/// A notification for every controller of a host (Base §8.19.1); whether it is masked is the controller's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whom to tell.
    pub host: HostId,
    /// What.
    pub kind: NoticeKind,
}

/// What follows from a command that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the state is another one, if only by its generation: to be saved and published.
    pub changed: bool,
    /// Who is told of what, ascending by host; never the issuer.
    pub notices: Vec<Notice>,
    /// Whose commands Preempt and Abort ends, ascending; never the issuer's.
    pub abort: Vec<HostId>,
}

/// Registrants and reservation of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(super) generation: u32,
    pub(super) ptpl: bool,
    pub(super) held: Held,
    pub(super) registrants: BTreeMap<HostId, u64>,
}

impl State {
    /// Executes a command of a host. `ptpl_supported`: the namespace can keep its state over a power loss (RESCAP).
    ///
    /// # Errors
    ///
    /// The status to complete the command with; nothing has changed.
    pub fn execute(
        &mut self,
        host: &HostId,
        command: &Command,
        ptpl_supported: bool,
    ) -> Result<Outcome, Status> {
        match *command {
            Command::Register { cptpl: ChangePtpl::Reserved(_), .. } => Err(INVALID_FIELD),
            Command::Register { cptpl: ChangePtpl::Set, .. } if !ptpl_supported => Err(INVALID_FIELD),
            Command::Register { action, iekey, cptpl, crkey, nrkey } => {
                self.register(host, action, (!iekey).then_some(crkey), nrkey, cptpl)
            }
            Command::Acquire { rtype, .. } if !can_be_acquired(rtype) => Err(INVALID_FIELD),
            Command::Acquire { crkey, .. } | Command::Release { crkey, .. } if !self.has_key(host, crkey) => {
                Err(CONFLICT)
            }
            Command::Acquire { action: AcquireAction::Acquire, rtype, .. } => self.acquire(host, rtype),
            Command::Acquire { action: AcquireAction::Preempt, rtype, prkey, .. } => {
                self.preempt(host, rtype, prkey)
            }
            Command::Acquire { action: AcquireAction::PreemptAndAbort, rtype, prkey, .. } => {
                let mut outcome = self.preempt(host, rtype, prkey)?;
                let preempted = |notice: &&Notice| notice.kind == NoticeKind::RegistrationPreempted;
                outcome.abort = outcome.notices.iter().filter(preempted).map(|notice| notice.host).collect();
                Ok(outcome)
            }
            Command::Release { action: ReleaseAction::Release, rtype, .. } => self.release(host, rtype),
            Command::Release { action: ReleaseAction::Clear, .. } => Ok(self.clear(Some(host))),
            Command::Acquire { action: AcquireAction::Reserved(_), .. }
            | Command::Release { action: ReleaseAction::Reserved(_), .. } => Err(INVALID_FIELD),
        }
    }

    /// As Clear does it, but nobody's command: every registrant is told. No change if nobody is registered.
    pub fn clear_by_operator(&mut self) -> Outcome {
        if self.registrants.is_empty() { Outcome::default() } else { self.clear(None) }
    }

    /// Whether reservations persist through a power loss (Reservation Persistence, Base §5.27.1.27).
    pub fn set_ptpl(&mut self, ptpl: bool) {
        self.ptpl = ptpl;
    }

    /// See [`State::set_ptpl`].
    pub fn ptpl(&self) -> bool {
        self.ptpl
    }

    /// What workers check commands against.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.held, self.registrants.keys().copied().collect())
    }

    /// What a power loss leaves of this: without PTPL nothing (Base §8.19, §5.27.1.27).
    #[must_use]
    pub fn at_power_on(&self) -> Self {
        if self.ptpl { self.clone() } else { Self::default() }
    }

    /// The registered hosts, ascending.
    pub fn registrants(&self) -> impl Iterator<Item = Registrant> {
        self.registrants.iter().map(|(&host, &key)| Registrant { host, key, holder: self.is_holder(&host) })
    }

    /// GEN: counts the commands that changed, or could have changed, who is registered (Base §7.5).
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The type of the reservation; [`ReservationType::None`] without one.
    pub fn rtype(&self) -> ReservationType {
        self.held.rtype()
    }

    /// The host that holds the reservation alone; None if there is none, or every registrant holds it.
    pub fn holder(&self) -> Option<HostId> {
        match self.held {
            Held::By(_, holder) => Some(holder),
            Held::Nothing | Held::ByAll(_) => None,
        }
    }

    /// Whether a host holds the reservation, alone or with every other registrant (Base §8.19.3).
    pub fn is_holder(&self, host: &HostId) -> bool {
        match self.held {
            Held::Nothing => false,
            Held::By(_, holder) => holder == *host,
            Held::ByAll(_) => self.registrants.contains_key(host),
        }
    }

    fn has_key(&self, host: &HostId, key: u64) -> bool {
        self.registrants.get(host) == Some(&key)
    }

    pub(super) fn count_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// A notice for every registrant but one.
    pub(super) fn notices(&self, but: Option<&HostId>, kind: NoticeKind) -> Vec<Notice> {
        let others = self.registrants.keys().filter(|&host| Some(host) != but);
        others.map(|&host| Notice { host, kind }).collect()
    }

    /// Takes a registration away, and with it the reservation if its last holder is gone (Base §8.19.4).
    pub(super) fn unregister(&mut self, host: &HostId) {
        let last_holder =
            self.is_holder(host) && (matches!(self.held, Held::By(..)) || self.registrants.len() == 1);
        self.registrants.remove(host);
        if last_holder {
            self.held = Held::Nothing;
        }
    }

    /// Reservation Register (Base §7.3, §8.19.2, §8.19.4); `crkey` None: it does not matter.
    fn register(
        &mut self,
        host: &HostId,
        action: RegisterAction,
        crkey: Option<u64>,
        nrkey: u64,
        cptpl: ChangePtpl,
    ) -> Result<Outcome, Status> {
        let registered = self.registrants.get(host).copied();
        let matches = registered.is_some_and(|key| crkey.is_none_or(|crkey| crkey == key));
        let mut outcome = Outcome { changed: true, ..Outcome::default() };
        match (action, registered) {
            // IEKEY is ignored here. The same key again is a success, and counts.
            (RegisterAction::Register, Some(key)) if key != nrkey => return Err(CONFLICT),
            (RegisterAction::Register, Some(_)) => {}
            (RegisterAction::Register, None) => self.add(host, nrkey)?,
            // "Without regard to its registration status": this registers. Linux refuses it, SPDK does not.
            (RegisterAction::Replace, None) if crkey.is_none() => self.add(host, nrkey)?,
            (RegisterAction::Replace | RegisterAction::Unregister, _) if !matches => return Err(CONFLICT),
            (RegisterAction::Replace, _) => {
                // The holder is known by its name, so it goes on to hold, and can be preempted by the new key.
                self.registrants.insert(*host, Self::usable(nrkey)?);
            }
            (RegisterAction::Unregister, _) => {
                let before = self.held;
                self.unregister(host);
                // To the others of a Registrants Only type alone: with All Registrants there are no others left.
                if self.held != before && is_registrants_only(before.rtype()) {
                    outcome.notices = self.notices(None, NoticeKind::ReservationReleased);
                }
            }
            (RegisterAction::Reserved(_), _) => return Err(INVALID_FIELD),
        }
        match cptpl {
            ChangePtpl::Set => self.ptpl = true,
            ChangePtpl::Clear => self.ptpl = false,
            ChangePtpl::NoChange | ChangePtpl::Reserved(_) => {}
        }
        self.count_generation();
        Ok(outcome)
    }

    /// A key of 0h is nobody's: as PRKEY it stands for everybody else, so its owner could not be preempted.
    fn usable(key: u64) -> Result<u64, Status> {
        if key == 0 { Err(INVALID_FIELD) } else { Ok(key) }
    }

    fn add(&mut self, host: &HostId, key: u64) -> Result<(), Status> {
        let key = Self::usable(key)?;
        if self.registrants.len() >= MAX_REGISTRANTS {
            // Without Do Not Retry: another host may leave.
            return Err(Status::INTERNAL_ERROR);
        }
        self.registrants.insert(*host, key);
        Ok(())
    }

    /// Acquire (Base §8.19.5).
    fn acquire(&mut self, host: &HostId, rtype: ReservationType) -> Result<Outcome, Status> {
        match self.held {
            Held::Nothing => {
                self.held = Held::acquired(rtype, *host);
                Ok(Outcome { changed: true, ..Outcome::default() })
            }
            // With All Registrants types every registrant is a holder; to Linux only the first one is.
            held if held.rtype() == rtype && self.is_holder(host) => Ok(Outcome::default()),
            _ => Err(CONFLICT),
        }
    }

    /// Release (Base §8.19.6).
    fn release(&mut self, host: &HostId, rtype: ReservationType) -> Result<Outcome, Status> {
        let held = self.held.rtype();
        if !self.is_holder(host) {
            // A registrant that holds nothing succeeds without effect, whatever the type; SPDK looks at the type first.
            return Ok(Outcome::default());
        }
        if held != rtype {
            // §7.4, RTYPE: Invalid Field; Linux says Reservation Conflict.
            return Err(INVALID_FIELD);
        }
        self.held = Held::Nothing;
        let tell = !matches!(held, ReservationType::WriteExclusive | ReservationType::ExclusiveAccess);
        let notices =
            if tell { self.notices(Some(host), NoticeKind::ReservationReleased) } else { Vec::new() };
        Ok(Outcome { changed: true, notices, abort: Vec::new() })
    }

    /// Clear (Base §8.19.8): told are those that lose their registration, whether or not something was held.
    fn clear(&mut self, issuer: Option<&HostId>) -> Outcome {
        let notices = self.notices(issuer, NoticeKind::ReservationPreempted);
        self.registrants.clear();
        self.held = Held::Nothing;
        self.count_generation();
        Outcome { changed: true, notices, abort: Vec::new() }
    }
}

const fn is_registrants_only(rtype: ReservationType) -> bool {
    matches!(
        rtype,
        ReservationType::WriteExclusiveRegistrantsOnly | ReservationType::ExclusiveAccessRegistrantsOnly
    )
}
