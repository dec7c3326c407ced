//! An NVM subsystem: what its controllers have in common (NVMe Base 2.0, 3.1).
//!
//! Owns the namespaces and hands out controller identifiers. Controllers read the namespaces as an immutable map and
//! are told when there is a new one. Must not know queues or workers.

pub mod ana;
mod changes;
mod health;
mod map;
mod members;
mod service;
mod view;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use nvmet_block::Backend;

use self::ana::AnaStates;
pub use self::health::Health;
pub use self::map::{NamespaceMap, Slot};
use self::members::Joined;
pub use self::members::{Hold, HostIdentity, Member, Who};
use self::service::Service;
pub use self::service::{Job, Reply, Wish};
pub use self::view::{Gate, Seen, View};
use crate::error::TargetError;
use crate::namespace::{MAX_NAMESPACES, Namespace, NamespaceConfig};
use crate::reservation::HostId;

/// The highest Controller Identifier: FFF0h and above are reserved (NVMe Base 2.0, Figure 275).
pub const MAX_CNTLID: u16 = 0xffef;

/// What a subsystem is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsystemConfig {
    /// NVMe Qualified Name, 1 to 223 bytes, beginning with `nqn.`; None: derived from the serial number.
    pub nqn: Option<String>,
    /// Serial number, 1 to 20 printable ASCII characters.
    pub serial: String,
    /// Model number, 1 to 40 printable ASCII characters.
    pub model: String,
    /// Firmware revision, 1 to 8 printable ASCII characters.
    pub firmware: String,
    /// Controller Identifiers that controllers get, 1 to [`MAX_CNTLID`]: the first and the last one.
    pub cntlids: (u16, u16),
    /// Whether hosts are told that there may be several controllers (CMIC, NMIC, ANA); None: when there are.
    pub shared: Option<bool>,
    /// NVM Subsystem Reset (NSSR): whether a host may reset the controllers of all hosts, or (false) nobody may; None:
    /// those of its own host.
    pub subsystem_reset: Option<bool>,
    /// IEEE OUI Identifier (IEEE), 24 bits; 0: none.
    pub ieee_oui: u32,
}

impl SubsystemConfig {
    /// A subsystem with this serial number, whose NQN is made of it.
    pub fn new(serial: impl Into<String>) -> Self {
        Self {
            nqn: None,
            serial: serial.into(),
            model: "nvmet-vdev".to_owned(),
            firmware: "1".to_owned(),
            cntlids: (1, MAX_CNTLID),
            shared: None,
            subsystem_reset: None,
            ieee_oui: 0,
        }
    }

    fn check(&self) -> Result<(), TargetError> {
        for (what, value, max) in
            [("serial", &self.serial, 20), ("model", &self.model, 40), ("firmware", &self.firmware, 8)]
        {
            if value.is_empty() || value.len() > max || !value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
                return Err(TargetError::config(
                    what,
                    format!("{value:?}"),
                    format!("use 1 to {max} printable ASCII characters"),
                ));
            }
        }
        if let Some(nqn) = &self.nqn
            && (nqn.is_empty() || nqn.len() > 223 || nqn.chars().any(char::is_control))
        {
            return Err(TargetError::config(
                "nqn",
                format!("{nqn:?}"),
                "use 1 to 223 bytes without control characters, best nqn.2014-08.org.nvmexpress:uuid:UUID",
            ));
        }
        let (first, last) = self.cntlids;
        if first == 0 || first > last || last > MAX_CNTLID {
            return Err(TargetError::config(
                "cntlid range",
                format!("{first} to {last}"),
                format!("use 1 to {MAX_CNTLID}, the smaller one first"),
            ));
        }
        if self.ieee_oui >> 24 != 0 {
            return Err(TargetError::config("ieee oui", format!("{:#x}", self.ieee_oui), "use 24 bits"));
        }
        Ok(())
    }
}

struct State {
    next_cntlid: u16,
    members: Vec<Joined>,
    /// What controllers that are gone have left in workers, by host, each with a number.
    remains: Vec<(u64, HostId, Arc<dyn Member>)>,
    next_remains: u64,
    /// NSIDs of namespaces that are being made.
    reserved: BTreeSet<u32>,
}

/// An NVM subsystem.
pub struct Subsystem {
    config: SubsystemConfig,
    nqn: String,
    map: ArcSwap<NamespaceMap>,
    /// Rises with every map, after it is there.
    version: AtomicU64,
    health: ArcSwap<Health>,
    state: Mutex<State>,
    /// It had several controllers at some time: hosts may have seen that.
    was_shared: AtomicBool,
    /// The thread that carries out what has to be kept; started when there is something.
    service: Service,
}

impl std::fmt::Debug for Subsystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subsystem").field("nqn", &self.nqn).finish_non_exhaustive()
    }
}

impl Subsystem {
    /// A subsystem without namespaces.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] for a name that the Identify Controller data structure cannot carry.
    pub fn new(config: SubsystemConfig) -> Result<Self, TargetError> {
        config.check()?;
        let nqn = config.nqn.clone().unwrap_or_else(|| {
            let serial: String =
                config.serial.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            format!("nqn.2025-01.io.nvmet-vdev:{}", serial.to_ascii_lowercase())
        });
        let mut map = NamespaceMap::default();
        map.shared = config.shared == Some(true);
        let next_cntlid = config.cntlids.0;
        Ok(Self {
            config,
            nqn,
            map: ArcSwap::from_pointee(map),
            version: AtomicU64::new(1),
            health: ArcSwap::default(),
            state: Mutex::new(State {
                next_cntlid,
                members: Vec::new(),
                remains: Vec::new(),
                next_remains: 0,
                reserved: BTreeSet::new(),
            }),
            was_shared: AtomicBool::new(false),
            service: Service::default(),
        })
    }

    /// Serial number, model and firmware revision.
    pub fn config(&self) -> &SubsystemConfig {
        &self.config
    }

    /// NVM Subsystem NVMe Qualified Name.
    pub fn nqn(&self) -> &str {
        &self.nqn
    }

    /// The namespaces now.
    pub fn namespaces(&self) -> Arc<NamespaceMap> {
        self.map.load_full()
    }

    /// The version of the map, never 0: if it is what it was, so is the map. One atomic load.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether `map` is still the latest.
    pub fn is_current(&self, map: &Arc<NamespaceMap>) -> bool {
        Arc::ptr_eq(&self.map.load(), map)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `map` what everybody sees, and says so.
    fn publish(&self, state: &State, map: NamespaceMap) {
        self.map.store(Arc::new(map));
        self.version.fetch_add(1, Ordering::Release);
        Self::tell(state);
    }

    fn tell(state: &State) {
        state.members.iter().filter_map(|joined| joined.member.as_ref()).for_each(|member| member.changed());
    }

    /// Adds a namespace and tells the controllers. Returns its NSID.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if the NSID is taken or out of range, or for what [`Namespace::new`] refuses.
    pub fn add_namespace(&self, config: NamespaceConfig) -> Result<u32, TargetError> {
        let nsid = self.reserve_nsid(config.nsid)?;
        let (enabled, ana_group, hosts) = (config.enabled, config.ana_group, config.hosts.clone());
        // Not under the lock: files are opened.
        let namespace = Namespace::open(&self.nqn, nsid, config);
        let mut state = self.lock();
        state.reserved.remove(&nsid);
        let namespace = Arc::new(namespace?);
        let (protection, reservation) =
            namespace.keeper().read(|kept| (kept.protection, Arc::new(kept.reservations.snapshot())));
        let slot = Slot { namespace, enabled, locked: false, protection, ana_group, hosts, reservation };
        let mut map = NamespaceMap::clone(&self.map.load());
        map.set(nsid, Some(slot));
        map.count_ana_change(ana_group);
        self.publish(&state, map);
        Ok(nsid)
    }

    /// Keeps an NSID for a namespace that is being made.
    fn reserve_nsid(&self, wanted: Option<u32>) -> Result<u32, TargetError> {
        let mut state = self.lock();
        let map = self.map.load();
        let taken = |nsid: u32| map.get(nsid).is_some() || state.reserved.contains(&nsid);
        let mut range = 1..=MAX_NAMESPACES;
        let nsid = match wanted {
            Some(nsid) if !range.contains(&nsid) => {
                return Err(TargetError::config("nsid", nsid, format!("use 1 to {MAX_NAMESPACES}")));
            }
            Some(nsid) if taken(nsid) => {
                return Err(TargetError::config("nsid", nsid, "it is taken: choose another one"));
            }
            Some(nsid) => nsid,
            None => range.find(|&nsid| !taken(nsid)).ok_or_else(|| {
                TargetError::config("nsid", "none is free", format!("a subsystem has {MAX_NAMESPACES}"))
            })?,
        };
        state.reserved.insert(nsid);
        Ok(nsid)
    }

    /// Removes a namespace and tells the controllers. I/O in flight completes as it will.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if there is none with this NSID.
    pub fn remove_namespace(&self, nsid: u32) -> Result<(), TargetError> {
        let state = self.lock();
        let map = self.map.load();
        let group = map.slot(nsid).ok_or_else(|| no_namespace(nsid))?.ana_group;
        let mut next = NamespaceMap::clone(&map);
        next.set(nsid, None);
        next.count_ana_change(group);
        self.publish(&state, next);
        Ok(())
    }

    /// Whether every namespace on `backend` could have `size` bytes.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if not.
    pub fn check_size(&self, backend: &Arc<dyn Backend>, size: u64) -> Result<(), TargetError> {
        self.namespaces()
            .iter()
            .filter(|namespace| Arc::ptr_eq(namespace.backend(), backend))
            .try_for_each(|namespace| namespace.check_size(size))
    }

    /// Gives every namespace on `backend` the size that the backend has now, and tells the controllers. I/O in flight
    /// completes as it will; what reaches behind a smaller end is refused from now on.
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::resized`], for the first namespace that cannot have that size; it keeps the one it had.
    pub fn backend_resized(&self, backend: &Arc<dyn Backend>) -> Result<(), TargetError> {
        loop {
            let seen = self.namespaces();
            let mut map = NamespaceMap::clone(&seen);
            let mut any = false;
            // Not under the lock: a backend that asks for this may have it.
            for namespace in seen.iter().filter(|namespace| Arc::ptr_eq(namespace.backend(), backend)) {
                if let Some(resized) = namespace.resized()?
                    && let Some(slot) = map.slot_mut(namespace.nsid())
                {
                    slot.namespace = Arc::new(resized);
                    any = true;
                }
            }
            if !any {
                return Ok(());
            }
            let state = self.lock();
            if self.is_current(&seen) {
                self.publish(&state, map);
                return Ok(());
            }
        }
    }

    /// Takes a controller of `host` in, and gives it an identifier: `wanted`, else the next one of the range. Its
    /// ANA groups are in the states `ana`. It hears of nothing before it [enters](Self::enter).
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] when all identifiers are in use, or the one that is wanted, or it is out of range.
    pub fn join(&self, wanted: Option<u16>, host: &HostIdentity, ana: AnaStates) -> Result<u16, TargetError> {
        let (first, last) = self.config.cntlids;
        let mut state = self.lock();
        let taken = |state: &State, id| state.members.iter().any(|other| other.who.cntlid == id);
        let cntlid = match wanted {
            Some(id) if !(first..=last).contains(&id) => {
                return Err(TargetError::config(
                    "cntlid",
                    id,
                    format!("use {first} to {last}, the range of the subsystem"),
                ));
            }
            Some(id) if taken(&state, id) => {
                return Err(TargetError::config(
                    "cntlid",
                    id,
                    "another controller has it: choose another one",
                ));
            }
            Some(id) => id,
            None => {
                let next = state.next_cntlid;
                let free = (next..=last).chain(first..next).find(|&id| !taken(&state, id));
                let cntlid = free.ok_or_else(|| {
                    TargetError::config(
                        "controllers",
                        last - first + 1,
                        "the subsystem has no identifier left",
                    )
                })?;
                state.next_cntlid = if cntlid == last { first } else { cntlid + 1 };
                cntlid
            }
        };
        let who = Who { cntlid, host: host.clone() };
        state.members.push(Joined { who, member: None });
        if state.members.len() > 1 {
            self.was_shared.store(true, Ordering::Relaxed);
        }
        let mut map = NamespaceMap::clone(&self.map.load());
        map.ana.insert(cntlid, Arc::new(ana));
        map.shared = self.is_shared();
        self.publish(&state, map);
        Ok(cntlid)
    }

    /// From now on `member` is told what concerns the controller.
    pub fn enter(&self, cntlid: u16, member: Arc<dyn Member>) {
        let mut state = self.lock();
        if let Some(joined) = state.members.iter_mut().find(|joined| joined.who.cntlid == cntlid) {
            joined.member = Some(member);
        }
    }

    /// Whether hosts are told that several controllers may belong to it.
    pub fn is_shared(&self) -> bool {
        self.config.shared.unwrap_or_else(|| self.was_shared.load(Ordering::Relaxed))
    }

    /// The controllers that belong to it at the moment, in the order in which they came.
    pub fn controllers(&self) -> Vec<Who> {
        self.lock().members.iter().map(|joined| joined.who.clone()).collect()
    }

    /// Gives a controller identifier back. Registrations of its host stay.
    pub fn leave(&self, cntlid: u16) {
        let mut state = self.lock();
        state.members.retain(|joined| joined.who.cntlid != cntlid);
        let mut map = NamespaceMap::clone(&self.map.load());
        map.ana.remove(&cntlid);
        self.publish(&state, map);
    }
}

fn no_namespace(nsid: u32) -> TargetError {
    TargetError::config("nsid", nsid, "there is no such namespace")
}

#[cfg(test)]
mod tests;
