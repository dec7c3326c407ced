//! A backend with a gate: while it is closed, operations stay where they are.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nvmet_block::{Backend, BackendError, Features, Geometry, IoError, IoQueue, Op, RamBackend, Submitted};
use nvmet_dma::{EventFd, Snapshot};

/// What was asked of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Read,
    Write { fua: bool },
    WriteZeroes { fua: bool },
    Flush,
    Other,
}

#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    /// Cancelling has no effect, as with a device that hangs.
    stubborn: AtomicBool,
    held: AtomicUsize,
    /// Operations that a queue holds at most while the gate is closed, if that is limited; it has no room for more.
    room: AtomicUsize,
    /// What [`Backend::sync`] does: [`SYNC_WAITS`] or [`SYNC_PANICS`].
    sync: AtomicU8,
    open_queues: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    queues: Mutex<Vec<EventFd>>,
}

pub const SYNC_WORKS: u8 = 0;
/// It returns when it works again.
pub const SYNC_WAITS: u8 = 1;
pub const SYNC_PANICS: u8 = 2;

/// Memory behind a gate, with a volatile write cache.
pub struct Gate {
    ram: RamBackend,
    size: AtomicU64,
    shared: Arc<Shared>,
}

impl Gate {
    pub fn new(size: u64) -> Arc<Self> {
        let ram = RamBackend::new(size, false).unwrap();
        Arc::new(Self { ram, size: size.into(), shared: Arc::default() })
    }

    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
    }

    /// As [`close`](Self::close), and a queue has no room for more than so many operations.
    pub fn close_with_room(&self, room: usize) {
        self.shared.room.store(room + 1, Ordering::SeqCst);
        self.close();
    }

    pub fn set_sync(&self, sync: u8) {
        self.shared.sync.store(sync, Ordering::SeqCst);
    }

    /// As [`close`](Self::close), and cancelling does not help.
    pub fn close_for_good(&self) {
        self.shared.stubborn.store(true, Ordering::SeqCst);
        self.close();
    }

    pub fn open(&self) {
        self.shared.closed.store(false, Ordering::SeqCst);
        for queue in self.shared.queues.lock().unwrap().iter() {
            queue.signal().unwrap();
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
    }

    /// Waits until exactly so many queues are open.
    pub fn wait_queues(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.shared.open_queues.load(Ordering::SeqCst) != count {
            let open = self.shared.open_queues.load(Ordering::SeqCst);
            assert!(Instant::now() < deadline, "{open} queues are open");
            std::thread::yield_now();
        }
    }

    /// Waits until exactly so many operations wait at the gate.
    pub fn wait_held(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.shared.held.load(Ordering::SeqCst) != count {
            assert!(Instant::now() < deadline, "{} operations wait", self.shared.held.load(Ordering::SeqCst));
            std::thread::yield_now();
        }
    }
}

impl Backend for Gate {
    fn geometry(&self) -> Geometry {
        Geometry { size: self.size.load(Ordering::SeqCst), ..self.ram.geometry() }
    }

    /// Up to the size that it had at first.
    fn resize(&self, size: u64) -> Result<(), BackendError> {
        if size > self.ram.geometry().size {
            return self.ram.resize(size);
        }
        self.size.store(size, Ordering::SeqCst);
        Ok(())
    }

    fn features(&self) -> Features {
        Features { volatile_write_cache: true, ..self.ram.features() }
    }

    fn open_queue(&self, depth: u32) -> Result<Box<dyn IoQueue>, BackendError> {
        let ready = EventFd::new().unwrap();
        self.shared.queues.lock().unwrap().push(ready.try_clone().unwrap());
        self.shared.open_queues.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(GateQueue {
            ram: self.ram.open_queue(depth)?,
            shared: Arc::clone(&self.shared),
            ready,
            held: Vec::new(),
            cancelled: Vec::new(),
        }))
    }

    fn sync(&self) -> Result<(), IoError> {
        loop {
            match self.shared.sync.load(Ordering::SeqCst) {
                SYNC_WAITS => std::thread::yield_now(),
                SYNC_PANICS => panic!("as it is told"),
                _ => return Ok(()),
            }
        }
    }

    fn describe(&self) -> String {
        "gate".to_owned()
    }
}

struct GateQueue {
    ram: Box<dyn IoQueue>,
    shared: Arc<Shared>,
    ready: EventFd,
    /// Tags, and what keeps their guest memory mapped.
    held: Vec<(u64, Option<Snapshot>)>,
    cancelled: Vec<u64>,
}

impl IoQueue for GateQueue {
    fn submit(&mut self, tag: u64, op: Op<'_>) -> Submitted {
        let (seen, memory) = match &op {
            Op::Read { data, .. } => (Seen::Read, Some(data.snapshot().clone())),
            Op::Write { data, fua, .. } => (Seen::Write { fua: *fua }, Some(data.snapshot().clone())),
            Op::WriteZeroes { fua, .. } => (Seen::WriteZeroes { fua: *fua }, None),
            Op::Flush => (Seen::Flush, None),
            Op::Compare { data, .. } => (Seen::Other, Some(data.snapshot().clone())),
            Op::Deallocate { .. } => (Seen::Other, None),
        };
        let room = self.shared.room.load(Ordering::SeqCst);
        if self.shared.closed.load(Ordering::SeqCst) && room > 0 && self.held.len() >= room - 1 {
            return Submitted::Full;
        }
        self.shared.seen.lock().unwrap().push(seen);
        if !self.shared.closed.load(Ordering::SeqCst) {
            return self.ram.submit(tag, op);
        }
        self.held.push((tag, memory));
        self.shared.held.fetch_add(1, Ordering::SeqCst);
        Submitted::Pending
    }

    fn kick(&mut self) {}

    fn reap(&mut self, done: &mut dyn FnMut(u64, Result<(), IoError>)) {
        let _ = self.ready.drain();
        let open = !self.shared.closed.load(Ordering::SeqCst);
        let cancelled = std::mem::take(&mut self.cancelled);
        for (tag, _) in self.held.extract_if(.., |(tag, _)| open || cancelled.contains(tag)) {
            self.shared.held.fetch_sub(1, Ordering::SeqCst);
            done(tag, if open { Ok(()) } else { Err(IoError::Aborted) });
        }
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ready.as_fd())
    }

    fn in_flight(&self) -> usize {
        self.held.len()
    }

    fn cancel(&mut self, tag: u64) {
        if !self.shared.stubborn.load(Ordering::SeqCst) {
            self.cancelled.push(tag);
            self.ready.signal().unwrap();
        }
    }
}

impl Drop for GateQueue {
    fn drop(&mut self) {
        self.shared.held.fetch_sub(self.held.len(), Ordering::SeqCst);
        self.shared.open_queues.fetch_sub(1, Ordering::SeqCst);
    }
}
