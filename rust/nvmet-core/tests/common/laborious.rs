//! A backend that keeps its worker busy, and says which workers these were.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use nvmet_block::{Backend, BackendError, Features, Geometry, IoError, IoQueue, Op, RamBackend, Submitted};

/// Threads that have carried operations out.
pub type Workers = Arc<Mutex<HashSet<ThreadId>>>;

/// Memory that takes all of a thread's time for some operations, and notes whose.
pub struct Laborious {
    ram: RamBackend,
    hard: fn(&Op<'_>) -> bool,
    workers: Workers,
}

impl Laborious {
    /// Of `size` bytes; `hard` says which operations take time.
    pub fn new(size: u64, hard: fn(&Op<'_>) -> bool) -> (Arc<Self>, Workers) {
        let workers = Workers::default();
        let ram = RamBackend::new(size, false).unwrap();
        (Arc::new(Self { ram, hard, workers: Arc::clone(&workers) }), workers)
    }
}

impl Backend for Laborious {
    fn geometry(&self) -> Geometry {
        self.ram.geometry()
    }

    fn features(&self) -> Features {
        self.ram.features()
    }

    fn open_queue(&self, depth: u32) -> Result<Box<dyn IoQueue>, BackendError> {
        let (ram, workers) = (self.ram.open_queue(depth)?, Arc::clone(&self.workers));
        Ok(Box::new(LaboriousQueue { ram, hard: self.hard, workers }))
    }

    fn sync(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn describe(&self) -> String {
        "laborious".to_owned()
    }
}

struct LaboriousQueue {
    ram: Box<dyn IoQueue>,
    hard: fn(&Op<'_>) -> bool,
    workers: Workers,
}

impl IoQueue for LaboriousQueue {
    fn submit(&mut self, tag: u64, op: Op<'_>) -> Submitted {
        if (self.hard)(&op) {
            self.workers.lock().unwrap().insert(std::thread::current().id());
            let until = Instant::now() + Duration::from_micros(200);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        self.ram.submit(tag, op)
    }

    fn kick(&mut self) {
        self.ram.kick();
    }

    fn reap(&mut self, done: &mut dyn FnMut(u64, Result<(), IoError>)) {
        self.ram.reap(done);
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        self.ram.ready()
    }

    fn in_flight(&self) -> usize {
        self.ram.in_flight()
    }

    fn cancel(&mut self, tag: u64) {
        self.ram.cancel(tag);
    }
}
