//! A backend that keeps its data in memory and completes when it is told to.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nvmet_block::{Backend, BackendError, Features, Geometry, IoError, IoQueue, Op, Submitted};
use nvmet_dma::EventFd;

pub const SIZE: usize = 1 << 20;

#[derive(Default)]
struct State {
    data: Vec<u8>,
    /// Results are kept back.
    held: bool,
    flushes: usize,
    wakes: Vec<EventFd>,
}

pub struct TestBackend {
    state: Arc<Mutex<State>>,
    depth: usize,
    open: Arc<AtomicUsize>,
}

impl TestBackend {
    /// Completes at once.
    pub fn new() -> Arc<Self> {
        Self::with(usize::MAX, false)
    }

    /// Takes `depth` operations at a time and keeps their results until [`release`](Self::release).
    pub fn held(depth: usize) -> Arc<Self> {
        Self::with(depth, true)
    }

    fn with(depth: usize, held: bool) -> Arc<Self> {
        let state = State { data: vec![0; SIZE], held, ..State::default() };
        Arc::new(Self { state: Arc::new(Mutex::new(state)), depth, open: Arc::default() })
    }

    /// Lets go of all results, those to come too.
    pub fn release(&self) {
        let mut state = self.state.lock().unwrap();
        state.held = false;
        state.wakes.iter().for_each(|wake| wake.signal().unwrap());
    }

    /// Keeps the results of what is to come.
    pub fn hold(&self) {
        self.state.lock().unwrap().held = true;
    }

    pub fn flushes(&self) -> usize {
        self.state.lock().unwrap().flushes
    }

    /// Queues that are open.
    pub fn open_queues(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        self.state.lock().unwrap().data[offset..offset + len].to_vec()
    }
}

impl Backend for TestBackend {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: SIZE as u64,
            min_block: 512,
            preferred_block: 512,
            physical_block: 512,
            optimal_io: 0,
            read_only: false,
        }
    }

    fn features(&self) -> Features {
        Features { volatile_write_cache: true, stores_data: true, ..Features::default() }
    }

    fn open_queue(&self, _: u32) -> Result<Box<dyn IoQueue>, BackendError> {
        let wake = EventFd::new().unwrap();
        self.state.lock().unwrap().wakes.push(wake.try_clone().unwrap());
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(TestQueue {
            state: self.state.clone(),
            open: self.open.clone(),
            depth: self.depth,
            wake,
            pending: Vec::new(),
        }))
    }

    fn sync(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn describe(&self) -> String {
        "a test".into()
    }
}

struct TestQueue {
    state: Arc<Mutex<State>>,
    open: Arc<AtomicUsize>,
    depth: usize,
    wake: EventFd,
    pending: Vec<(u64, Result<(), IoError>)>,
}

impl Drop for TestQueue {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

fn carry_out(state: &mut State, op: Op<'_>) -> Result<(), IoError> {
    let data = &mut state.data;
    match op {
        Op::Read { offset, data: guest } => {
            let at = offset as usize;
            guest.write_from(0, &data[at..at + guest.len()]).map_err(|_| IoError::Internal)
        }
        Op::Write { offset, data: guest, .. } => {
            let at = offset as usize;
            guest.read_to(0, &mut data[at..at + guest.len()]).map_err(|_| IoError::Internal)
        }
        Op::Compare { offset, data: guest } => {
            let at = offset as usize;
            match guest.compare_with(0, &data[at..at + guest.len()]) {
                Ok(true) => Ok(()),
                Ok(false) => Err(IoError::CompareFailed),
                Err(_) => Err(IoError::Internal),
            }
        }
        Op::WriteZeroes { offset, len, .. } | Op::Deallocate { offset, len } => {
            data[offset as usize..(offset + len) as usize].fill(0);
            Ok(())
        }
        Op::Flush => {
            state.flushes += 1;
            Ok(())
        }
    }
}

impl IoQueue for TestQueue {
    fn submit(&mut self, tag: u64, op: Op<'_>) -> Submitted {
        assert!(self.pending.iter().all(|&(other, _)| other != tag), "a tag is in flight once");
        if self.pending.len() >= self.depth {
            return Submitted::Full;
        }
        let mut state = self.state.lock().unwrap();
        let result = carry_out(&mut state, op);
        if !state.held {
            return Submitted::Done(result);
        }
        self.pending.push((tag, result));
        Submitted::Pending
    }

    fn kick(&mut self) {}

    fn reap(&mut self, done: &mut dyn FnMut(u64, Result<(), IoError>)) {
        self.wake.drain().unwrap();
        let held = self.state.lock().unwrap().held;
        let over = |result: &Result<(), IoError>| !held || *result == Err(IoError::Aborted);
        for (tag, result) in self.pending.extract_if(.., |(_, result)| over(result)) {
            done(tag, result);
        }
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn in_flight(&self) -> usize {
        self.pending.len()
    }

    fn cancel(&mut self, tag: u64) {
        for (_, result) in self.pending.iter_mut().filter(|(other, _)| *other == tag) {
            *result = Err(IoError::Aborted);
            self.wake.signal().unwrap();
        }
    }
}
