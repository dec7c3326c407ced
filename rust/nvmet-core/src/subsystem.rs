//! An NVM subsystem: what its controllers have in common (NVMe Base 2.0, 3.1).
//!
//! Owns the namespaces and hands out controller identifiers. Controllers read the namespaces as an immutable map and
//! are told when there is a new one. Must not know queues or threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use nvmet_block::Backend;

use crate::error::TargetError;
use crate::namespace::{MAX_NAMESPACES, Namespace, NamespaceConfig};

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
}

impl SubsystemConfig {
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
            && (!nqn.starts_with("nqn.") || nqn.len() > 223 || nqn.contains('\0'))
        {
            return Err(TargetError::config(
                "nqn",
                format!("{nqn:?}"),
                "use at most 223 bytes that begin with nqn.",
            ));
        }
        Ok(())
    }
}

/// The namespaces of a subsystem at one moment.
#[derive(Debug, Default)]
pub struct NamespaceMap {
    slots: Vec<Option<Arc<Namespace>>>,
}

impl NamespaceMap {
    /// The namespace of an NSID, if it is active.
    pub fn get(&self, nsid: u32) -> Option<&Arc<Namespace>> {
        self.slots.get(nsid.checked_sub(1)? as usize)?.as_ref()
    }

    /// The active namespaces by ascending NSID.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Namespace>> {
        self.slots.iter().flatten()
    }

    /// The NSIDs whose namespace is not the same in `other`, ascending.
    pub fn changed_from(&self, other: &NamespaceMap) -> Vec<u32> {
        let uid = |map: &NamespaceMap, nsid| map.get(nsid).map(|ns| ns.uid());
        let last = self.slots.len().max(other.slots.len()) as u32;
        (1..=last).filter(|&nsid| uid(self, nsid) != uid(other, nsid)).collect()
    }

    fn with(&self, nsid: u32, namespace: Option<Arc<Namespace>>) -> Self {
        let mut slots = self.slots.clone();
        let index = nsid as usize - 1;
        if slots.len() <= index {
            slots.resize(index + 1, None);
        }
        slots[index] = namespace;
        Self { slots }
    }
}

type Listener = Box<dyn Fn() + Send + Sync>;

struct State {
    next_cntlid: u16,
    listeners: Vec<(u16, Listener)>,
}

/// An NVM subsystem.
pub struct Subsystem {
    config: SubsystemConfig,
    nqn: String,
    namespaces: ArcSwap<NamespaceMap>,
    state: Mutex<State>,
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
        Ok(Self {
            config,
            nqn,
            namespaces: ArcSwap::default(),
            state: Mutex::new(State { next_cntlid: 1, listeners: Vec::new() }),
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
        self.namespaces.load_full()
    }

    /// Whether `map` is still the latest. One atomic load.
    pub fn is_current(&self, map: &Arc<NamespaceMap>) -> bool {
        Arc::ptr_eq(&self.namespaces.load(), map)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(state: &State) {
        for (_, listener) in &state.listeners {
            listener();
        }
    }

    /// Adds a namespace and tells the controllers. Returns its NSID.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if the NSID is taken or out of range, or for what [`Namespace::new`] refuses.
    pub fn add_namespace(&self, config: NamespaceConfig) -> Result<u32, TargetError> {
        let state = self.lock();
        let map = self.namespaces.load();
        let range = 1..=MAX_NAMESPACES;
        let nsid = match config.nsid {
            Some(nsid) if !range.contains(&nsid) => {
                return Err(TargetError::config("nsid", nsid, format!("use 1 to {MAX_NAMESPACES}")));
            }
            Some(nsid) if map.get(nsid).is_some() => {
                return Err(TargetError::config("nsid", nsid, "it is taken: choose another one"));
            }
            Some(nsid) => nsid,
            None => range.clone().find(|&nsid| map.get(nsid).is_none()).ok_or_else(|| {
                TargetError::config("nsid", "none is free", format!("a subsystem has {MAX_NAMESPACES}"))
            })?,
        };
        let namespace = Arc::new(Namespace::new(nsid, config)?);
        self.namespaces.store(Arc::new(map.with(nsid, Some(namespace))));
        Self::publish(&state);
        Ok(nsid)
    }

    /// Removes a namespace and tells the controllers. I/O in flight completes as it will.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] if there is none with this NSID.
    pub fn remove_namespace(&self, nsid: u32) -> Result<(), TargetError> {
        let state = self.lock();
        let map = self.namespaces.load();
        if map.get(nsid).is_none() {
            return Err(TargetError::config("nsid", nsid, "there is no such namespace"));
        }
        self.namespaces.store(Arc::new(map.with(nsid, None)));
        Self::publish(&state);
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
            let mut map = None;
            // Not under the lock: a backend that asks for this may have it.
            for namespace in seen.iter().filter(|namespace| Arc::ptr_eq(namespace.backend(), backend)) {
                if let Some(resized) = namespace.resized()? {
                    let before: &NamespaceMap = map.as_ref().unwrap_or(&seen);
                    map = Some(before.with(namespace.nsid(), Some(Arc::new(resized))));
                }
            }
            let Some(map) = map else { return Ok(()) };
            let state = self.lock();
            if self.is_current(&seen) {
                self.namespaces.store(Arc::new(map));
                Self::publish(&state);
                return Ok(());
            }
        }
    }

    /// Gives out a controller identifier; `on_change` is called, from any thread, when the namespaces changed.
    ///
    /// # Errors
    ///
    /// [`TargetError::Config`] when all identifiers are in use.
    pub fn join(&self, on_change: impl Fn() + Send + Sync + 'static) -> Result<u16, TargetError> {
        /// CNTLID FFF0h and above are reserved (NVMe Base 2.0, Figure 275).
        const LAST: u16 = 0xffef;
        let mut state = self.lock();
        let taken = |state: &State, id| state.listeners.iter().any(|&(other, _)| other == id);
        let first = state.next_cntlid;
        let cntlid = (first..=LAST).chain(1..first).find(|&id| !taken(&state, id)).ok_or_else(|| {
            TargetError::config("controllers", LAST, "the subsystem has no identifier left")
        })?;
        state.next_cntlid = if cntlid == LAST { 1 } else { cntlid + 1 };
        state.listeners.push((cntlid, Box::new(on_change)));
        Ok(cntlid)
    }

    /// Whether several controllers belong to it at the moment.
    pub fn is_shared(&self) -> bool {
        self.lock().listeners.len() > 1
    }

    /// Gives a controller identifier back.
    pub fn leave(&self, cntlid: u16) {
        self.lock().listeners.retain(|&(id, _)| id != cntlid);
    }
}
