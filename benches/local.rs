//! Guests and a worker on one thread: the device code without a scheduler and without a wake-up.

use std::sync::Arc;

use nvmet_block::Backend;
use nvmet_core::worker::LocalWorker;

use crate::{Guest, Layout};

/// Commands, one by one, before anything is measured: a worker lets go of idle queues after a thousand turns.
const SETTLE: u32 = 2048;

/// A guest that is served by a worker on the caller's thread, and others that are silent.
pub struct Local {
    guest: Guest,
    _silent: Vec<Guest>,
    worker: LocalWorker,
}

impl Local {
    /// A guest with `layout`, alone, in the steady state.
    ///
    /// # Panics
    ///
    /// When the system gives no memory or descriptors.
    pub fn new(backend: &Arc<dyn Backend>, layout: Layout) -> Self {
        Self::among(backend, layout, &[])
    }

    /// A guest with `layout` among silent ones, in the steady state.
    ///
    /// # Panics
    ///
    /// When the system gives no memory or descriptors.
    pub fn among(backend: &Arc<dyn Backend>, layout: Layout, others: &[Layout]) -> Self {
        let worker = LocalWorker::new().expect("there are descriptors");
        let guest = |layout: &Layout| Guest::with(Arc::clone(backend), *layout);
        let (guest, silent) = (guest(&layout), others.iter().map(guest).collect::<Vec<_>>());
        for command in silent.iter().chain([&guest]).flat_map(|guest| guest.commands(!layout.shadow)) {
            worker.send(command);
        }
        let mut local = Self { guest, _silent: silent, worker };
        for _ in 0..SETTLE {
            local.put(1);
            local.serve(1);
        }
        local
    }

    /// Writes `depth` commands without ringing.
    pub fn put(&mut self, depth: u32) {
        (0..depth).for_each(|_| self.guest.put());
    }

    /// Rings, and drives the worker until `depth` commands are completed.
    pub fn serve(&mut self, depth: u32) {
        if let Some(rung) = self.guest.ring() {
            self.worker.send(rung);
        }
        let mut done = 0;
        while done < depth {
            self.turn();
            done += self.guest.reap();
        }
    }

    /// One turn of the worker. A function of its own, so that a profiler can tell the device from its guest.
    #[inline(never)]
    pub fn turn(&mut self) -> bool {
        self.worker.turn()
    }
}
