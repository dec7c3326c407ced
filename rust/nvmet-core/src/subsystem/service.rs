//! The thread that carries out what has to be kept: reservations, their persistence, write protection.
//!
//! These commands write files and wait for other controllers' commands, which neither a worker nor the control thread
//! may do. One at a time and in the order in which they come, so a change is seen by everybody before it is answered:
//! the map is published, then those who lose something are told, and last the answer goes to who asked.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};

use nvmet_block::{Backend, IoError};
use nvmet_spec::feature::WriteProtectionState;
use nvmet_spec::reservation::{AcquireAction, ChangePtpl};
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
    /// Reservation Persistence (feature 83h).
    Persist(bool),
    /// The same of all namespaces with these [ids](Namespace::id) that can do it, with NSID FFFFFFFFh.
    PersistAll(Vec<u64>, bool),
    /// Namespace Write Protection Config (feature 84h).
    Protect(WriteProtectionState),
    /// The operator's Clear.
    Clear,
}

impl Wish {
    /// Whether it may have to wait for other commands.
    fn may_fence(&self) -> bool {
        let abort = AcquireAction::PreemptAndAbort;
        match self {
            Self::Reserve(Command::Acquire { action, .. }) => *action == abort,
            Self::Protect(state) => *state != WriteProtectionState::None,
            _ => false,
        }
    }
}

type Tell = Box<dyn FnOnce(Result<Vec<u8>, Status>) + Send>;

/// Who is told of the data of the answer, or of the status that says why there is none. One that is dropped says Internal
/// Error: nobody waits for an answer that got lost.
pub struct Reply(Option<Tell>);

impl Reply {
    /// `tell` is called once, on any thread.
    pub fn new(tell: impl FnOnce(Result<Vec<u8>, Status>) + Send + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }

    fn give(mut self, result: Result<Vec<u8>, Status>) {
        if let Some(tell) = self.0.take() {
            tell(result);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(Err(Status::INTERNAL_ERROR));
        }
    }
}

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
    /// Dead if nobody wants it any more: what a host has aborted, or reset its controller since, is not begun. None:
    /// it is wanted.
    pub wanted: Option<Weak<()>>,
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

/// Who is told what.
type Answer = (Reply, Result<Vec<u8>, Status>);

/// What is done when the commands of a fence have ended.
type AfterFence = Box<dyn FnOnce(&mut Clerk) + Send>;

/// Fences that may wait on one namespace: every command that they wait for knows of every one of them.
const MAX_FENCES: usize = 16;

/// The thread's own.
struct Clerk {
    messages: Receiver<Message>,
    /// For fences, which outlive this.
    sender: Sender<Message>,
    /// By token: [id](Namespace::id) of the namespace, and how to go on.
    waiting: HashMap<u64, (u64, AfterFence)>,
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
                    return;
                }
            }
        }
        if let Some(sender) = service.as_ref() {
            // A job that nobody takes is answered by being dropped.
            let _ = sender.send(Message::Job(job));
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
                    if let Some((_, go_on)) = self.waiting.remove(&token) {
                        go_on(&mut self);
                    }
                }
                Message::Job(job) => {
                    let Some(subsystem) = subsystem.upgrade() else { break };
                    // A panic is a bug, and the end of one command: it is answered by being dropped.
                    let answer = catch_unwind(AssertUnwindSafe(|| self.carry_out(&subsystem, job)));
                    // Whoever hears the answer may end the subsystem, and use its files again.
                    drop(subsystem);
                    if let Ok(Some((reply, result))) = answer {
                        reply.give(result);
                    }
                }
            }
        }
    }

    /// Does it; returns the answer, if it does not have to wait.
    fn carry_out(&mut self, subsystem: &Subsystem, job: Job) -> Option<Answer> {
        let Job { nsid, id, host, wish, wanted, reply } = job;
        if wanted.is_some_and(|wanted| wanted.strong_count() == 0) {
            return Some((reply, Err(Status::ABORT_REQUESTED)));
        }
        let map = subsystem.namespaces();
        if let Wish::PersistAll(ids, persist) = wish {
            let able =
                map.iter().filter(|namespace| ids.contains(&namespace.id()) && namespace.keeper().persists());
            let all = able.map(|namespace| set_persistence(namespace, persist));
            return Some((reply, all.fold(Ok(()), Result::and).map(|()| Vec::new())));
        }
        let found = map.get(nsid).filter(|namespace| id.is_none_or(|id| namespace.id() == id));
        let Some(namespace) = found else {
            return Some((reply, Err(Status::NAMESPACE_NOT_READY)));
        };
        let keeper = namespace.keeper();
        if wish.may_fence()
            && self.waiting.values().filter(|(id, _)| *id == namespace.id()).count() >= MAX_FENCES
        {
            // Without Do Not Retry: some of them will end.
            return Some((reply, Err(Status::INTERNAL_ERROR)));
        }
        let outcome = match wish {
            Wish::Report(extended) => return Some((reply, subsystem.report(namespace, extended))),
            Wish::Persist(persist) => {
                return Some((reply, set_persistence(namespace, persist).map(|()| Vec::new())));
            }
            Wish::PersistAll(..) => return Some((reply, Err(Status::INTERNAL_ERROR))),
            Wish::Protect(state) => return self.protect(subsystem, namespace, state, reply),
            Wish::Reserve(command) => {
                if !keeper.persists() && matches!(command, Command::Register { cptpl: ChangePtpl::Set, .. }) {
                    warn_of_no_file(nsid);
                }
                keeper.change(|kept| kept.reservations.execute(&host, &command, keeper.persists()))
            }
            Wish::Clear => keeper.change(|kept| Ok(kept.reservations.clear_by_operator())),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(status) => return Some((reply, Err(status))),
        };
        subsystem.tell_of(namespace, &outcome);
        if outcome.abort.is_empty() {
            return Some((reply, Ok(Vec::new())));
        }
        // Preempt and Abort completes when the commands of the losers have ended (NVMe Base 2.0, 8.19.7).
        let hold = self.when_fenced(namespace.id(), move |_| reply.give(Ok(Vec::new())));
        let aborted = Some(Status::ABORTED_PREEMPT_AND_ABORT);
        subsystem.fence(namespace.id(), aborted, &hold, |host| outcome.abort.contains(host));
        None
    }

    /// Something that whoever must end first holds; `go_on` runs when the last one has let go.
    fn when_fenced(&mut self, namespace: u64, go_on: impl FnOnce(&mut Self) + Send + 'static) -> Arc<Hold> {
        let (token, sender) = (self.next, self.sender.clone());
        self.next += 1;
        self.waiting.insert(token, (namespace, Box::new(go_on)));
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
    ) -> Option<Answer> {
        let changed = namespace.keeper().change(|kept| {
            if kept.protection == WriteProtectionState::UntilPowerCycle && kept.protection != protection {
                return Err(Status::FEATURE_NOT_CHANGEABLE.with_dnr());
            }
            kept.protection = protection;
            Ok(())
        });
        if let Err(status) = changed {
            return Some((reply, Err(status)));
        }
        subsystem.change_latest(namespace, |map, nsid| {
            let Some(slot) = map.slot_mut(nsid) else { return false };
            std::mem::replace(&mut slot.protection, protection) != protection
        });
        if protection == WriteProtectionState::None {
            return Some((reply, Ok(Vec::new())));
        }
        let (backend, id) = (Arc::clone(namespace.backend()), namespace.id());
        let hold = self.when_fenced(id, move |clerk| clerk.sync_apart(id, backend, reply));
        subsystem.fence(id, None, &hold, |_| true);
        None
    }

    /// Syncs on a thread of its own: a backend that hangs is not to keep the hosts of other namespaces waiting, nor one
    /// that panics to end them.
    fn sync_apart(&mut self, namespace: u64, backend: Arc<dyn Backend>, reply: Reply) {
        // It counts among the fences until it is over.
        let over = self.when_fenced(namespace, |_| {});
        let (sender, work) = channel::<(Arc<dyn Backend>, Reply)>();
        let thread = std::thread::Builder::new().name("nvmet-sync".to_owned()).spawn(move || {
            if let Err(error) = thread::prepare(None) {
                tracing::warn!("{error}");
            }
            let Ok((backend, reply)) = work.recv() else { return };
            let synced = catch_unwind(AssertUnwindSafe(|| backend.sync()));
            drop(backend);
            let synced = synced.unwrap_or_else(|_| {
                tracing::error!("a backend panicked when it was to sync");
                Err(IoError::Media(nvmet_block::Direction::Write))
            });
            reply.give(synced.map(|()| Vec::new()).map_err(|_| Status::WRITE_FAULT));
            drop(over);
        });
        match thread {
            Ok(_) => {
                // The thread waits for exactly this.
                let _ = sender.send((backend, reply));
            }
            Err(error) => {
                tracing::error!("{}", TargetError::system("start a thread", error));
                reply.give(Err(Status::INTERNAL_ERROR));
            }
        }
    }
}

fn set_persistence(namespace: &Namespace, persist: bool) -> Result<(), Status> {
    if !namespace.keeper().persists() {
        return if persist { Err(Status::INVALID_FIELD.with_dnr()) } else { Ok(()) };
    }
    namespace.keeper().change(|kept| {
        kept.reservations.set_ptpl(persist);
        Ok(())
    })
}

/// Linux's own pr_register always wants reservations to persist, and is refused without a file for them.
fn warn_of_no_file(nsid: u32) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            "a guest wants reservations on namespace {nsid} to persist through power loss, and there is no file for them: \
             give the target a state directory (state_dir, --state-dir)"
        );
    });
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

    /// The data structure without EDS has room for Host Identifiers of 64 bits alone (NVMe Base 2.0, 7.5).
    fn report(&self, namespace: &Namespace, extended: bool) -> Result<Vec<u8>, Status> {
        let controllers: Vec<(u16, HostId)> =
            self.controllers().into_iter().map(|who| (who.cntlid, who.host.id)).collect();
        namespace.keeper().read(|kept| {
            let short = |host: &HostId| host[8..].iter().all(|&byte| byte == 0);
            if !extended && !kept.reservations.registrants().all(|registrant| short(&registrant.host)) {
                return Err(Status::HOST_ID_INCONSISTENT_FORMAT.with_dnr());
            }
            Ok(kept.reservations.report(extended, &controllers))
        })
    }
}
