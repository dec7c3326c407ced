//! What the operator changes about a subsystem while hosts use it.
//!
//! Each change is a new map that everybody takes over; none waits for a controller but [`Subsystem::drain`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nvmet_spec::log::AnaState;
use nvmet_spec::status::Status;

use super::{Health, Hold, Job, NamespaceMap, Reply, Slot, State, Subsystem, Wish, no_namespace};
use crate::error::TargetError;
use crate::namespace::check_ana_group;

impl Subsystem {
    fn change(&self, nsid: u32, change: impl FnOnce(&mut NamespaceMap) -> bool) -> Result<(), TargetError> {
        let state = self.lock();
        let mut map = NamespaceMap::clone(&self.map.load());
        if map.slot(nsid).is_none() {
            return Err(no_namespace(nsid));
        }
        if change(&mut map) {
            self.publish(&state, map);
        }
        Ok(())
    }

    fn change_slot(&self, nsid: u32, change: impl FnOnce(&mut Slot)) -> Result<(), TargetError> {
        self.change(nsid, |map| map.slot_mut(nsid).map(change).is_some())
    }

    /// As [`change_slot`](Self::change_slot), for what hosts see other members of an ANA group after.
    fn change_members(&self, nsid: u32, change: impl FnOnce(&mut Slot)) -> Result<(), TargetError> {
        self.change(nsid, |map| {
            let Some(slot) = map.slot_mut(nsid) else { return false };
            change(slot);
            let group = slot.ana_group;
            map.count_ana_change(group);
            true
        })
    }

    /// [Removes](Self::remove_namespace) a namespace, and waits until neither controllers nor workers have it any more;
    /// false if some do after `limit`.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if there is none with this NSID.
    pub fn remove_and_wait(&self, nsid: u32, limit: Duration) -> Result<bool, TargetError> {
        /// Nobody is told of the last one that lets go; who asks has time.
        const STEP: Duration = Duration::from_millis(1);
        let gone = self.map.load().get(nsid).ok_or_else(|| no_namespace(nsid))?.gone();
        self.remove_namespace(nsid)?;
        let deadline = Instant::now() + limit;
        while !gone.load(Ordering::Acquire) {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(STEP);
        }
        Ok(true)
    }

    /// Shows a namespace to hosts, or hides it from them; they are told. I/O in flight completes as it will.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if there is none with this NSID.
    pub fn set_enabled(&self, nsid: u32, enabled: bool) -> Result<(), TargetError> {
        self.change_members(nsid, |slot| slot.enabled = enabled)
    }

    /// Write protects a namespace for good, or no more; hosts are told. What a host has set (feature 84h) stays as it
    /// is. Writes in flight complete as they will.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if there is none with this NSID.
    pub fn protect(&self, nsid: u32, locked: bool) -> Result<(), TargetError> {
        self.change_slot(nsid, |slot| slot.locked = locked)
    }

    /// Attaches a namespace to the controllers of the hosts with these NQNs, and of no others (None: to all).
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if there is none with this NSID.
    pub fn attach_to(&self, nsid: u32, hosts: Option<Arc<[String]>>) -> Result<(), TargetError> {
        self.change_members(nsid, |slot| slot.hosts = hosts)
    }

    /// Puts a namespace into another ANA group; hosts are told.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] for a group out of range, or if there is none with this NSID.
    pub fn set_ana_group(&self, nsid: u32, group: u32) -> Result<(), TargetError> {
        check_ana_group(group)?;
        self.change(nsid, |map| {
            let Some(slot) = map.slot_mut(nsid) else { return false };
            let before = std::mem::replace(&mut slot.ana_group, group);
            if before == group {
                return false;
            }
            map.count_ana_change(before);
            map.count_ana_change(group);
            true
        })
    }

    /// Puts an ANA group into another state on one controller, whose host is told.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] for a group out of range, a state that does not exist, or no such controller.
    pub fn set_ana_state(&self, cntlid: u16, group: u32, ana: AnaState) -> Result<(), TargetError> {
        check_ana_group(group)?;
        if let AnaState::Reserved(bits) = ana {
            return Err(TargetError::config("ana state", bits, "use one that there is"));
        }
        let state = self.lock();
        let mut map = NamespaceMap::clone(&self.map.load());
        let Some(states) = map.ana.get_mut(&cntlid) else {
            return Err(TargetError::config("cntlid", cntlid, "there is no such controller"));
        };
        if Arc::make_mut(states).set(group, ana) {
            map.count_ana_change(group);
        }
        self.publish(&state, map);
        Ok(())
    }

    /// Waits until no command that was fetched before this call is on its way on a namespace. Those that have not
    /// ended after `limit` are aborted (Namespace Not Ready), and waited for for as long again; false if backends do not even let go of them
    /// then. Commands that come meanwhile are not waited for: hide the namespace first.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if there is none with this NSID.
    pub fn drain(&self, nsid: u32, limit: Duration) -> Result<bool, TargetError> {
        let id = self.map.load().get(nsid).ok_or_else(|| no_namespace(nsid))?.id();
        let done = [None, Some(Status::NAMESPACE_NOT_READY)].into_iter().any(|end| {
            let (tell, told) = channel();
            let hold = Hold::new(move || {
                // Whoever waited may have given up.
                let _ = tell.send(());
            });
            self.fence(id, end, &hold, |_| true);
            drop(hold);
            told.recv_timeout(limit).is_ok()
        });
        Ok(done)
    }

    /// The operator's Clear: the reservation is released and all hosts are unregistered, which are told.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if there is no namespace with this NSID, [`TargetError::System`] if the state file cannot be
    /// written, [`TargetError::Deadline`] after `limit`.
    pub fn clear_reservation(self: &Arc<Self>, nsid: u32, limit: Duration) -> Result<(), TargetError> {
        if self.map.load().get(nsid).is_none() {
            return Err(no_namespace(nsid));
        }
        let (tell, told) = channel();
        let reply = Reply::new(move |result| {
            // Whoever waited may have given up.
            let _ = tell.send(result);
        });
        self.submit(Job { nsid, id: None, host: [0; 16], wish: Wish::Clear, wanted: None, reply });
        match told.recv_timeout(limit) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => {
                Err(TargetError::system("clear the reservation", std::io::Error::other(status.to_string())))
            }
            Err(_) => {
                let what = "clearing the reservation".to_owned();
                Err(TargetError::Deadline { what, seconds: limit.as_secs_f64() })
            }
        }
    }

    /// Has the controllers whose host is `chosen` hold `hold`; see [`Member::fence`](super::Member::fence).
    pub(super) fn fence(
        &self,
        namespace: u64,
        end: Option<Status>,
        hold: &Arc<Hold>,
        chosen: impl Fn(&[u8; 16]) -> bool,
    ) {
        let state: &State = &self.lock();
        for joined in state.members.iter().filter(|joined| chosen(&joined.who.host.id)) {
            if let Some(member) = &joined.member {
                member.fence(namespace, end, hold);
            }
        }
        for (_, _, remains) in state.remains.iter().filter(|(_, host, _)| chosen(host)) {
            remains.fence(namespace, end, hold);
        }
    }

    /// What SMART / Health Information says beyond counters.
    pub fn health(&self) -> Arc<Health> {
        self.health.load_full()
    }

    /// Says something else from now on; hosts are told if that crosses a threshold.
    ///
    /// # Errors
    ///
    /// Those of [`Health::check`].
    pub fn set_health(&self, health: Health) -> Result<(), TargetError> {
        health.check()?;
        self.health.store(Arc::new(health));
        Self::tell(&self.lock());
        Ok(())
    }

    /// NVM Subsystem Reset, done by the host of controller `cntlid`: of all other controllers where that is allowed,
    /// else of those of the same host (NVMe Base 2.0, 3.7.1).
    pub fn reset(&self, cntlid: u16) {
        let everybody = self.config.subsystem_reset == Some(true);
        let state = self.lock();
        let Some(own) = state.members.iter().find(|joined| joined.who.cntlid == cntlid) else { return };
        let hit = |host: &[u8; 16]| everybody || *host == own.who.host.id;
        let others = state.members.iter().filter(|joined| joined.who.cntlid != cntlid);
        let members = others.filter(|joined| hit(&joined.who.host.id));
        members.filter_map(|joined| joined.member.as_ref()).for_each(|member| member.subsystem_reset());
    }
}
