//! One worker's queue on a delegate: it copies data between guest memory and frames, and keeps count.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nvmet_dma::Segments;
use nvmet_dma::ring::Held;

use super::consumer::Inbox;
use super::request::{Home, Kind, Request};
use super::slab::Slab;
use super::watchdog::Watchdog;
use crate::bounds::Bounds;
use crate::error::IoError;
use crate::queue::{IoQueue, Op, Submitted};

/// An operation that the worker waits for.
#[derive(Debug, Default)]
struct Slot {
    tag: u64,
    /// None while the slot is free.
    request: Option<Arc<Request>>,
    /// Where a read's data goes.
    held: Held,
}

/// A queue of a [`Delegate`](super::Delegate).
#[derive(Debug)]
pub struct DelegateQueue {
    inbox: Arc<Inbox>,
    watchdog: Option<Arc<Watchdog>>,
    bounds: Bounds,
    has_flush: bool,
    has_discard: bool,
    slab: Arc<Slab>,
    home: Arc<Home>,
    depth: usize,
    /// As many as were ever in flight together.
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Submitted since the last kick.
    batch: Vec<Arc<Request>>,
    /// Ended by this side.
    ended: Vec<(u32, IoError)>,
    done: Vec<(u32, Result<(), IoError>)>,
}

impl DelegateQueue {
    pub fn new(
        inbox: Arc<Inbox>,
        watchdog: Option<Arc<Watchdog>>,
        bounds: Bounds,
        (has_flush, has_discard): (bool, bool),
        slab: Arc<Slab>,
        depth: u32,
    ) -> std::io::Result<Self> {
        Ok(Self {
            inbox,
            watchdog,
            bounds,
            has_flush,
            has_discard,
            slab,
            home: Home::new()?,
            depth: depth.max(1) as usize,
            slots: Vec::new(),
            free: Vec::new(),
            batch: Vec::new(),
            ended: Vec::new(),
            done: Vec::new(),
        })
    }

    /// Whether the consumer has to see it; if not, it is done.
    fn concerns_consumer(&self, op: &Op<'_>) -> bool {
        match op {
            Op::Read { data, .. } | Op::Write { data, .. } | Op::Compare { data, .. } => !data.is_empty(),
            Op::WriteZeroes { len, .. } => *len > 0,
            Op::Deallocate { len, .. } => self.has_discard && *len > 0,
            Op::Flush => self.has_flush,
        }
    }

    /// A request with the data that `op` carries, or what to answer instead.
    fn request(&mut self, slot: u32, op: &Op<'_>) -> Result<Request, Submitted> {
        let home = &self.home;
        Ok(match *op {
            Op::Read { offset, ref data } => {
                let mut request = Request::new(Kind::Read, offset, data.len() as u64, slot, home);
                request.frames = Some(self.frames(data)?);
                request
            }
            Op::Write { offset, ref data, fua } => {
                let mut request = Request::new(Kind::Write, offset, data.len() as u64, slot, home);
                request.frames = Some(self.filled(data)?);
                request.fua = fua;
                request
            }
            Op::Compare { offset, ref data } => {
                let mut request = Request::new(Kind::Compare, offset, data.len() as u64, slot, home);
                request.frames = Some(self.filled(data)?);
                request
            }
            Op::WriteZeroes { offset, len, deallocate, fua } => {
                let mut request = Request::new(Kind::WriteZeroes, offset, len, slot, home);
                (request.may_discard, request.fua) = (deallocate, fua);
                request
            }
            Op::Deallocate { offset, len } => Request::new(Kind::Deallocate, offset, len, slot, home),
            Op::Flush => Request::new(Kind::Flush, 0, 0, slot, home),
        })
    }

    fn frames(&self, data: &Segments<'_>) -> Result<Arc<super::Frames>, Submitted> {
        self.slab.take(data.len()).ok_or_else(|| {
            if self.in_flight() > 0 {
                Submitted::Full
            } else {
                // Whoever was given up holds all of it, or it is larger than the slab.
                Submitted::Done(Err(IoError::Retry))
            }
        })
    }

    fn filled(&self, data: &Segments<'_>) -> Result<Arc<super::Frames>, Submitted> {
        let frames = self.frames(data)?;
        match frames.arena().write(frames.at(), data) {
            Ok(()) => Ok(frames),
            // The ranges are ours, so it is the guest's memory that went away.
            Err(_) => Err(Submitted::Done(Err(IoError::Internal))),
        }
    }

    /// Where the data of a read that succeeded goes.
    fn deliver(slot: &Slot) -> Result<(), IoError> {
        let (Some(request), Some(to)) = (&slot.request, slot.held.view()) else { return Ok(()) };
        let Some(frames) = &request.frames else { return Ok(()) };
        frames.arena().read(frames.at(), &to).map_err(|_| IoError::Internal)
    }

    fn report(
        slots: &mut [Slot],
        free: &mut Vec<u32>,
        at: u32,
        result: Result<(), IoError>,
        done: &mut dyn FnMut(u64, Result<(), IoError>),
    ) {
        let slot = &mut slots[at as usize];
        let result = result.and_then(|()| Self::deliver(slot));
        slot.request = None;
        slot.held.release();
        free.push(at);
        done(slot.tag, result);
    }
}

impl IoQueue for DelegateQueue {
    fn submit(&mut self, tag: u64, op: Op<'_>) -> Submitted {
        if let Err(error) = self.bounds.check(&op) {
            return Submitted::Done(Err(error));
        }
        if !self.concerns_consumer(&op) {
            return Submitted::Done(Ok(()));
        }
        if self.in_flight() >= self.depth {
            return Submitted::Full;
        }
        let at = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        let request = match self.request(at, &op) {
            Ok(request) => Arc::new(request),
            Err(answer) => return answer,
        };
        if self.free.pop().is_none() {
            self.slots.push(Slot::default());
        }
        let slot = &mut self.slots[at as usize];
        if let Op::Read { ref data, .. } = op {
            slot.held.hold(data);
        }
        slot.tag = tag;
        slot.request = Some(Arc::clone(&request));
        self.batch.push(request);
        Submitted::Pending
    }

    fn kick(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if let Some(watchdog) = &self.watchdog {
            watchdog.watch(&self.batch);
        }
        if !self.inbox.put(&mut self.batch) {
            for request in self.batch.drain(..) {
                request.complete(Err(IoError::Gone));
            }
        }
    }

    fn reap(&mut self, done: &mut dyn FnMut(u64, Result<(), IoError>)) {
        for (at, error) in self.ended.drain(..) {
            Self::report(&mut self.slots, &mut self.free, at, Err(error), done);
        }
        self.home.collect(&mut self.done);
        for (at, result) in self.done.drain(..) {
            Self::report(&mut self.slots, &mut self.free, at, result, done);
        }
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        Some(self.home.ready().as_fd())
    }

    fn prepare_sleep(&mut self) -> bool {
        self.home.arm() | !self.ended.is_empty()
    }

    fn wants_cpu(&self) -> bool {
        self.in_flight() > 0
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn cancel(&mut self, tag: u64) {
        let found = |slot: &Slot| slot.tag == tag && slot.request.is_some();
        let Some(at) = self.slots.iter().position(found) else { return };
        let Some(request) = &self.slots[at].request else { return };
        // Else it is on its way here, with its own result.
        let Some(was_taken) = request.end() else { return };
        self.batch.retain(|other| !Arc::ptr_eq(other, request));
        self.inbox.withdraw(request, was_taken);
        self.ended.push((at as u32, IoError::Aborted));
    }
}

impl Drop for DelegateQueue {
    fn drop(&mut self) {
        for request in self.slots.iter().filter_map(|slot| slot.request.as_ref()) {
            if request.end() == Some(true) {
                self.inbox.give_up(request);
            }
        }
        self.inbox.forget_ended();
    }
}
