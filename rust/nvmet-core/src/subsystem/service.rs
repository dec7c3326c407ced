//! The thread that carries out what has to be kept: reservations, their persistence, write protection.
//!
//! These commands write files and wait for other controllers' commands, which neither a worker nor the control thread
//! may do. One at a time and in the order in which they come, so a change is seen by everybody before it is answered:
//! the map is published, then those who lose something are told, and last the answer goes to who asked.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nvmet_spec::command::NSID_ALL;
use nvmet_spec::feature::WriteProtectionState;
use nvmet_spec::status::Status;

use super::{Hold, NamespaceMap, Subsystem};
use crate::error::TargetError;
use crate::namespace::Namespace;
use crate::reservation::{Command, HostId, Outcome};
use crate::thread;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Reservation Register, Acquire or Release.
    Reserve(Command),
    /// Reservation Report; the flag asks for the extended data structure.
    Report(bool),
    /// Reservation Persistence (feature 83h), of all namespaces that have it with NSID FFFFFFFFh.
    Persist(bool),
    /// Namespace Write Protection Config (feature 84h).
    Protect(WriteProtectionState),
    /// The operator's Clear.
    Clear,
}

/// Called with the data of the answer, or the status that says why there is none.
pub type Reply = Box<dyn FnOnce(Result<Vec<u8>, Status>) + Send>;

/// A wish, and who has it.
pub struct Job {
    /// The namespace.
    pub nsid: u32,
    /// Its [id](Namespace::id), if another one that has got its NSID meanwhile would be the wrong one.
    pub id: Option<u64>,
    /// The host that asks.
    pub host: HostId,
    /// What for.
    pub wish: Wish,
    /// Who is told.
    pub reply: Reply,
}

enum Message {
    Job(Job),
    /// The commands of a fence have ended.
    Fenced(u64),
    /// The subsystem is gone.
    Stop,
}

/// The way to the thread.
#[derive(Default)]
pub struct Service(Mutex<Option<Sender<Message>>>);

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(sender) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // A thread that has ended already needs no telling.
            let _ = sender.send(Message::Stop);
        }
    }
}

/// What is done when the commands of a fence have ended.
type AfterFence = Box<dyn FnOnce() + Send>;

/// The thread's own.
struct Clerk {
    messages: Receiver<Message>,
    /// For fences, which outlive this.
    sender: Sender<Message>,
    waiting: HashMap<u64, AfterFence>,
    next: u64,
}

impl Subsystem {
    /// Has something done that is kept. The reply comes from another thread, after everybody has heard of the change.
    pub fn submit(self: &Arc<Self>, job: Job) {
        let mut service = self.service.0.lock().unwrap_or_else(PoisonError::into_inner);
        if service.is_none() {
            match start(Arc::downgrade(self)) {
                Ok(sender) => *service = Some(sender),
                Err(error) => {
                    tracing::error!("{error}; a reservation command failed");
                    return (job.reply)(Err(Status::INTERNAL_ERROR));
                }
            }
        }
        if let Some(sender) = service.as_ref()
            && let Err(error) = sender.send(Message::Job(job))
            && let Message::Job(job) = error.0
        {
            (job.reply)(Err(Status::INTERNAL_ERROR));
        }
    }
}

fn start(subsystem: Weak<Subsystem>) -> Result<Sender<Message>, TargetError> {
    let (sender, messages) = channel();
    let clerk = Clerk { messages, sender: sender.clone(), waiting: HashMap::new(), next: 0 };
    std::thread::Builder::new()
        .name("nvmet-resv".to_owned())
        .spawn(move || {
            if let Err(error) = thread::prepare(None) {
                tracing::warn!("{error}");
            }
            clerk.run(&subsystem);
        })
        .map_err(|error| TargetError::system("start a thread", error))?;
    Ok(sender)
}

impl Clerk {
    fn run(mut self, subsystem: &Weak<Subsystem>) {
        while let Ok(message) = self.messages.recv() {
            match message {
                Message::Stop => break,
                Message::Fenced(token) => {
                    if let Some(go_on) = self.waiting.remove(&token) {
                        go_on();
                    }
                }
                Message::Job(job) => {
                    let Some(subsystem) = subsystem.upgrade() else { break };
                    self.carry_out(&subsystem, job);
                }
            }
        }
    }

    fn carry_out(&mut self, subsystem: &Subsystem, job: Job) {
        let Job { nsid, id, host, wish, reply } = job;
        let map = subsystem.namespaces();
        if nsid == NSID_ALL
            && let Wish::Persist(persist) = wish
        {
            let able = map.iter().filter(|namespace| namespace.keeper().persists());
            let all = able.map(|namespace| subsystem.set_persistence(namespace, persist));
            return reply(all.fold(Ok(()), Result::and).map(|()| Vec::new()));
        }
        let found = map.get(nsid).filter(|namespace| id.is_none_or(|id| namespace.id() == id));
        let Some(namespace) = found else {
            return reply(Err(Status::NAMESPACE_NOT_READY));
        };
        let outcome = match wish {
            Wish::Report(extended) => return reply(Ok(subsystem.report(namespace, extended))),
            Wish::Persist(persist) => {
                return reply(subsystem.set_persistence(namespace, persist).map(|()| Vec::new()));
            }
            Wish::Protect(state) => return self.protect(subsystem, namespace, state, reply),
            Wish::Reserve(command) => {
                let keeper = namespace.keeper();
                keeper.change(|kept| kept.reservations.execute(&host, &command, keeper.persists()))
            }
            Wish::Clear => namespace.keeper().change(|kept| Ok(kept.reservations.clear_by_operator())),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(status) => return reply(Err(status)),
        };
        subsystem.tell_of(namespace, &outcome);
        if outcome.abort.is_empty() {
            return reply(Ok(Vec::new()));
        }
        // Preempt and Abort completes when the commands of the losers have ended (NVMe Base 2.0, 8.19.7).
        let hold = self.when_fenced(move || reply(Ok(Vec::new())));
        subsystem.fence(namespace.id(), true, &hold, |host| outcome.abort.contains(host));
    }

    /// Something that whoever must end first holds; `go_on` runs when the last one has let go.
    fn when_fenced(&mut self, go_on: impl FnOnce() + Send + 'static) -> Arc<Hold> {
        let (token, sender) = (self.next, self.sender.clone());
        self.next += 1;
        self.waiting.insert(token, Box::new(go_on));
        // A thread that has ended waits for nothing.
        Hold::new(move || drop(sender.send(Message::Fenced(token))))
    }

    /// Feature 84h: from its completion on everything that was written is on the medium (NVMe Base 2.0, 8.12.1).
    fn protect(
        &mut self,
        subsystem: &Subsystem,
        namespace: &Arc<Namespace>,
        protection: WriteProtectionState,
        reply: Reply,
    ) {
        let changed = namespace.keeper().change(|kept| {
            if kept.protection == WriteProtectionState::UntilPowerCycle && kept.protection != protection {
                return Err(Status::FEATURE_NOT_CHANGEABLE.with_dnr());
            }
            kept.protection = protection;
            Ok(())
        });
        if let Err(status) = changed {
            return reply(Err(status));
        }
        subsystem.change_latest(namespace, |map, nsid| {
            let Some(slot) = map.slot_mut(nsid) else { return false };
            std::mem::replace(&mut slot.protection, protection) != protection
        });
        if protection == WriteProtectionState::None {
            return reply(Ok(Vec::new()));
        }
        let backend = Arc::clone(namespace.backend());
        let hold = self.when_fenced(move || {
            reply(backend.sync().map(|()| Vec::new()).map_err(|_| Status::WRITE_FAULT));
        });
        subsystem.fence(namespace.id(), false, &hold, |_| true);
    }
}

impl Subsystem {
    /// Changes the latest map, if it still has the namespace; `change` says whether it is another one then.
    fn change_latest(&self, namespace: &Namespace, change: impl FnOnce(&mut NamespaceMap, u32) -> bool) {
        let state = self.lock();
        let mut map = NamespaceMap::clone(&self.map.load());
        let nsid = namespace.nsid();
        let there = map.get(nsid).is_some_and(|other| other.id() == namespace.id());
        if there && change(&mut map, nsid) {
            self.publish(&state, map);
        }
    }

    /// Publishes what reservations say now, and tells hosts what they have lost.
    fn tell_of(&self, namespace: &Namespace, outcome: &Outcome) {
        let snapshot = namespace.keeper().read(|kept| kept.reservations.snapshot());
        self.change_latest(namespace, |map, nsid| {
            let Some(slot) = map.slot_mut(nsid) else { return false };
            if *slot.reservation == snapshot {
                return false;
            }
            slot.reservation = Arc::new(snapshot);
            true
        });
        let state = self.lock();
        for notice in &outcome.notices {
            for joined in state.members.iter().filter(|joined| joined.who.host.id == notice.host) {
                if let Some(member) = &joined.member {
                    member.notify(namespace.nsid(), notice.kind);
                }
            }
        }
    }

    fn set_persistence(&self, namespace: &Namespace, persist: bool) -> Result<(), Status> {
        if !namespace.keeper().persists() {
            return if persist { Err(Status::INVALID_FIELD.with_dnr()) } else { Ok(()) };
        }
        namespace.keeper().change(|kept| {
            kept.reservations.set_ptpl(persist);
            Ok(())
        })
    }

    fn report(&self, namespace: &Namespace, extended: bool) -> Vec<u8> {
        let controllers: Vec<(u16, HostId)> =
            self.controllers().into_iter().map(|who| (who.cntlid, who.host.id)).collect();
        namespace.keeper().read(|kept| kept.reservations.report(extended, &controllers))
    }
}
