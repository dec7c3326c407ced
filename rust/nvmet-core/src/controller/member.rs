//! A controller as its subsystem knows it: passes the word to the control thread and to the workers.

use std::sync::{Arc, Weak};

use nvmet_spec::status::Status;

use crate::reservation::NoticeKind;
use crate::subsystem::{Hold, Member};
use crate::worker::{Command, Event, Link, WorkerPool};

/// A controller's way to hear of its subsystem.
pub struct Membership {
    link: Arc<Link>,
    pool: Arc<WorkerPool>,
}

impl Membership {
    pub fn new(link: &Arc<Link>, pool: &Arc<WorkerPool>) -> Self {
        Self { link: Arc::clone(link), pool: Arc::clone(pool) }
    }
}

impl Member for Membership {
    fn changed(&self) {
        self.link.rouse();
    }

    fn notify(&self, nsid: u32, kind: NoticeKind) {
        self.link.tell(Event::Notice { nsid, kind });
    }

    fn fence(&self, namespace: u64, end: Option<Status>, hold: &Arc<Hold>) {
        for worker in self.pool.iter() {
            worker.send(Command::Fence { key: self.link.key, namespace, end, hold: Arc::clone(hold) });
        }
    }

    fn subsystem_reset(&self) {
        self.link.tell(Event::SubsystemReset);
    }
}

/// What a controller that is gone has left in workers: commands that their backends have not let go of.
pub struct Remains {
    key: u64,
    /// The workers' end is the commands' end.
    pool: Weak<WorkerPool>,
}

impl Remains {
    pub fn new(link: &Link, pool: &Arc<WorkerPool>) -> Self {
        Self { key: link.key, pool: Arc::downgrade(pool) }
    }
}

impl Member for Remains {
    fn changed(&self) {}

    fn notify(&self, _nsid: u32, _kind: NoticeKind) {}

    fn fence(&self, namespace: u64, end: Option<Status>, hold: &Arc<Hold>) {
        for worker in self.pool.upgrade().iter().flat_map(|pool| pool.iter()) {
            worker.send(Command::Fence { key: self.key, namespace, end, hold: Arc::clone(hold) });
        }
    }

    fn subsystem_reset(&self) {}
}
