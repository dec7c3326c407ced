//! One worker's queue on a file: every operation is a task, every task has at most one step on the ring.
//!
//! May know: tasks, the ring, the pool of bounce buffers. Must not know: how the file was opened.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nvmet_dma::ring::{MAX_ENTRIES, MAX_SEGMENTS, MAX_TRANSFER, PushError, Ring, RingError, RingOp};
use nvmet_dma::{AlignedBuf, Direction as Dma, Segments};

use super::Shared;
use super::cached::Cached;
use super::task::{Bounce, PIECE, Progress, Task, Work, fits_fallocate, zero_work};
use crate::bounds::Bounds;
use crate::error::{Direction, IoError};
use crate::queue::{IoQueue, Op, Submitted};

/// Bounce buffers of one queue: tasks beyond them wait for one.
const MAX_BUFFERS: usize = 32;

/// A queue of a [`FileBackend`](super::FileBackend).
#[derive(Debug)]
pub(super) struct FileQueue {
    ring: Ring,
    /// For direct transfers without FUA, which is all that a ring that polls its device can do.
    polled: Option<Ring>,
    /// Most operations in flight.
    depth: u32,
    /// As many as were ever in flight together.
    tasks: Vec<Task>,
    free: Vec<u32>,
    /// Tasks whose next step is to be started.
    again: Vec<u32>,
    /// Tasks that wait for a buffer.
    waiting: VecDeque<u32>,
    pool: Pool,
    bounds: Bounds,
    cached: Cached,
    shared: Arc<Shared>,
}

/// Bounce buffers; made when first needed, then kept.
#[derive(Debug, Default)]
struct Pool {
    idle: Vec<AlignedBuf>,
    made: usize,
}

impl Pool {
    /// `None` if all are in use.
    fn take(&mut self) -> Option<AlignedBuf> {
        if let Some(buf) = self.idle.pop() {
            return Some(buf);
        }
        if self.made >= MAX_BUFFERS {
            return None;
        }
        let buf = AlignedBuf::new(PIECE).ok()?;
        self.made += 1;
        Some(buf)
    }

    fn all_idle(&self) -> bool {
        self.idle.len() == self.made
    }
}

/// What became of the start of a task's step.
enum Started {
    Running,
    /// It waits for a buffer.
    Waiting,
    Failed(IoError),
}

impl FileQueue {
    pub(super) fn new(shared: Arc<Shared>, depth: u32) -> Result<Self, RingError> {
        let depth = depth.clamp(1, MAX_ENTRIES);
        let mut ring = Ring::new(Arc::clone(&shared.fd), depth)?;
        let mut polled =
            if shared.iopoll { Some(Ring::polled(Arc::clone(&shared.fd), depth)?) } else { None };
        // Through the page cache the kernel copies: it needs no pages of the guest's.
        if shared.fixed_buffers && shared.limits.direct.is_some() {
            polled.as_mut().unwrap_or(&mut ring).register_memory();
        }
        Ok(Self {
            ring,
            polled,
            depth,
            tasks: Vec::new(),
            free: Vec::new(),
            again: Vec::new(),
            waiting: VecDeque::new(),
            pool: Pool::default(),
            bounds: Bounds::new(&shared.geometry),
            cached: Cached::new(shared.limits.direct.is_none()),
            shared,
        })
    }

    /// Whether the kernel can move the data by itself.
    #[inline]
    fn is_direct(&self, data: &Segments<'_>) -> bool {
        data.count() <= MAX_SEGMENTS
            && data.len() <= MAX_TRANSFER
            && self.shared.limits.direct.is_none_or(|direct| data.is_aligned(direct.segment))
    }

    #[inline]
    fn transfer(&mut self, tag: u64, op: RingOp<'_>, work: Work) -> Submitted {
        let Some(index) = self.vacant() else { return Submitted::Full };
        let ring = match (&mut self.polled, &op) {
            (Some(polled), RingOp::Read { .. } | RingOp::Write { dsync: false, .. }) => polled,
            _ => &mut self.ring,
        };
        match ring.push(op, u64::from(index)) {
            Ok(()) => {
                self.occupy(index, tag, work);
                Submitted::Pending
            }
            Err(error) => refused(error),
        }
    }

    /// A task on top of the free list; `None` if as many as may be are in flight.
    #[inline]
    fn vacant(&mut self) -> Option<u32> {
        match self.free.last() {
            Some(&index) => Some(index),
            None => self.grow(),
        }
    }

    #[cold]
    fn grow(&mut self) -> Option<u32> {
        let index = self.tasks.len() as u32;
        if index >= self.depth {
            return None;
        }
        self.tasks.push(Task::new());
        // Room for all of them: what `reap` puts there is not more.
        self.free.reserve(self.tasks.len());
        self.again.reserve(self.tasks.len() - self.again.len());
        self.waiting.reserve(self.tasks.len() - self.waiting.len());
        self.free.push(index);
        Some(index)
    }

    #[inline]
    fn occupy(&mut self, index: u32, tag: u64, work: Work) {
        self.free.pop();
        if let Some(task) = self.tasks.get_mut(index as usize) {
            task.tag = tag;
            task.active = true;
            task.cancelled = false;
            task.work = work;
        }
    }

    /// Takes a task of steps, with the guest memory that it needs.
    fn steps(&mut self, tag: u64, work: Work, data: Option<&Segments<'_>>) -> Submitted {
        let Some(index) = self.vacant() else { return Submitted::Full };
        self.occupy(index, tag, work);
        if let (Some(task), Some(data)) = (self.tasks.get_mut(index as usize), data) {
            task.held.hold(data);
        }
        self.mark_punch(index);
        match self.start(index) {
            Started::Running => Submitted::Pending,
            Started::Waiting => {
                self.waiting.push_back(index);
                Submitted::Pending
            }
            Started::Failed(error) => {
                self.release(index);
                Submitted::Done(Err(error))
            }
        }
    }

    /// Nobody is to reach for pages of a memory file that are about to go.
    fn mark_punch(&mut self, index: u32) {
        if let (Some(memory), Some(task)) = (&self.shared.memory, self.tasks.get_mut(index as usize))
            && let Work::Punch { offset, len, .. } = task.work
        {
            task.punching = Some(memory.punching(offset, len));
        }
    }

    fn bounce(&mut self, tag: u64, kind: Bounce, offset: u64, data: &Segments<'_>) -> Submitted {
        let wanted = if kind == Bounce::Read { Dma::ToGuest } else { Dma::FromGuest };
        if data.direction() != wanted {
            return Submitted::Done(Err(IoError::Invalid));
        }
        self.steps(tag, Work::Bounced { kind, offset, len: data.len(), done: 0 }, Some(data))
    }

    fn deallocate(&mut self, tag: u64, offset: u64, len: u64) -> Submitted {
        let zeroes = self.shared.features.discarded_reads_zero;
        if self.shared.can_punch() && fits_fallocate(&self.shared, offset, len) {
            self.steps(tag, Work::Punch { offset, len, zeroes, fua: false }, None)
        } else if zeroes {
            self.steps(tag, zero_work(&self.shared, offset, len, false), None)
        } else {
            Submitted::Done(Ok(()))
        }
    }

    fn write_zeroes(&mut self, tag: u64, offset: u64, len: u64, deallocate: bool, fua: bool) -> Submitted {
        let punch = deallocate && self.shared.can_punch() && fits_fallocate(&self.shared, offset, len);
        let work = if punch {
            Work::Punch { offset, len, zeroes: true, fua }
        } else {
            zero_work(&self.shared, offset, len, fua)
        };
        self.steps(tag, work, None)
    }

    /// Puts a task's next step on the ring.
    fn start(&mut self, index: u32) -> Started {
        let Some(task) = self.tasks.get_mut(index as usize) else {
            return Started::Failed(IoError::Internal);
        };
        if task.cancelled {
            return Started::Failed(IoError::Aborted);
        }
        if task.needs_buffer() && task.buf.is_none() {
            task.buf = self.pool.take();
            if task.buf.is_none() {
                // Nobody would wake it if nobody has a buffer: then there is no memory.
                return if self.pool.all_idle() { Started::Failed(IoError::Retry) } else { Started::Waiting };
            }
        }
        let took_buffer = task.needs_buffer();
        let started = match task.step() {
            Ok(op) => self.ring.push(op, u64::from(index)).map_err(|_| IoError::Retry),
            Err(error) => Err(error),
        };
        match started {
            Ok(()) => Started::Running,
            Err(error) => {
                if took_buffer {
                    self.pool.made -= 1;
                }
                Started::Failed(error)
            }
        }
    }

    /// Frees a task. Returns its tag.
    fn release(&mut self, index: u32) -> u64 {
        let Some(task) = self.tasks.get_mut(index as usize) else { return 0 };
        task.active = false;
        task.held.release();
        task.punching = None;
        self.pool.idle.extend(task.buf.take());
        self.free.push(index);
        task.tag
    }

    /// Starts what the ring's results made ready.
    #[cold]
    fn go_on(&mut self, done: &mut dyn FnMut(u64, Result<(), IoError>)) {
        while let Some(index) = self.again.pop() {
            match self.start(index) {
                Started::Running => {}
                Started::Waiting => self.waiting.push_back(index),
                Started::Failed(error) => done(self.release(index), Err(error)),
            }
        }
        while let Some(index) = self.waiting.pop_front() {
            match self.start(index) {
                Started::Running => {}
                Started::Waiting => {
                    self.waiting.push_front(index);
                    break;
                }
                Started::Failed(error) => done(self.release(index), Err(error)),
            }
        }
        self.ring.submit();
    }
}

/// A push that did not work, before anything was taken.
#[cold]
fn refused(error: PushError) -> Submitted {
    match error {
        PushError::Full => Submitted::Full,
        PushError::WrongDirection => Submitted::Done(Err(IoError::Invalid)),
        PushError::TooLong | PushError::TooManySegments => Submitted::Done(Err(IoError::Internal)),
    }
}

impl IoQueue for FileQueue {
    #[inline]
    fn submit(&mut self, tag: u64, op: Op<'_>) -> Submitted {
        if let Err(error) = self.bounds.check(&op) {
            return Submitted::Done(Err(error));
        }
        if let Some(memory) = &self.shared.memory
            && let Some(result) = memory.run(&op)
        {
            return Submitted::Done(result);
        }
        if let Op::Read { offset, data } = &op
            && self.cached.read(self.shared.fd.as_fd(), *offset, data)
        {
            return Submitted::Done(Ok(()));
        }
        match op {
            Op::Read { data, .. } | Op::Write { data, .. } | Op::Compare { data, .. } if data.is_empty() => {
                Submitted::Done(Ok(()))
            }
            Op::WriteZeroes { len: 0, .. } | Op::Deallocate { len: 0, .. } => Submitted::Done(Ok(())),
            Op::Read { offset, data } if self.is_direct(&data) => {
                let work = Work::Direct { direction: Direction::Read, len: data.len() };
                self.transfer(tag, RingOp::Read { offset, data }, work)
            }
            Op::Write { offset, data, fua } if self.is_direct(&data) => {
                let work = Work::Direct { direction: Direction::Write, len: data.len() };
                self.transfer(tag, RingOp::Write { offset, data, dsync: fua }, work)
            }
            Op::Read { offset, data } => self.bounce(tag, Bounce::Read, offset, &data),
            Op::Write { offset, data, fua } => self.bounce(tag, Bounce::Write { fua }, offset, &data),
            Op::Compare { offset, data } => self.bounce(tag, Bounce::Compare, offset, &data),
            Op::WriteZeroes { offset, len, deallocate, fua } => {
                self.write_zeroes(tag, offset, len, deallocate, fua)
            }
            Op::Deallocate { offset, len } => self.deallocate(tag, offset, len),
            // Nothing can have been written through a read-only descriptor.
            Op::Flush if self.shared.geometry.read_only => Submitted::Done(Ok(())),
            Op::Flush => self.steps(tag, Work::Sync, None),
        }
    }

    #[inline]
    fn kick(&mut self) {
        self.cached.kicked();
        self.ring.submit();
        if let Some(polled) = &mut self.polled {
            polled.submit();
        }
    }

    #[inline]
    fn reap(&mut self, done: &mut dyn FnMut(u64, Result<(), IoError>)) {
        let Self { ring, polled, tasks, free, again, pool, shared, .. } = self;
        let mut over = |index: u64, result, buf| {
            let Some(task) = tasks.get_mut(index as usize) else { return };
            match task.advance(result, buf, shared) {
                Progress::Done(result) => {
                    task.active = false;
                    task.held.release();
                    task.punching = None;
                    pool.idle.extend(task.buf.take());
                    free.push(index as u32);
                    done(task.tag, result);
                }
                Progress::Again => again.push(index as u32),
            }
        };
        ring.reap(&mut over);
        if let Some(polled) = polled {
            polled.reap(&mut over);
        }
        if !self.again.is_empty() || !self.waiting.is_empty() {
            self.go_on(done);
        }
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.as_fd())
    }

    fn prepare_sleep(&mut self) -> bool {
        let polled = self.polled.as_mut().is_some_and(Ring::prepare_sleep);
        self.ring.prepare_sleep() | polled
    }

    fn forget_memory(&mut self, all: bool) {
        self.ring.forget_memory(all);
        if let Some(polled) = &mut self.polled {
            polled.forget_memory(all);
        }
    }

    #[inline]
    fn in_flight(&self) -> usize {
        self.tasks.len() - self.free.len()
    }

    fn cancel(&mut self, tag: u64) {
        let found = self.tasks.iter_mut().enumerate().find(|(_, task)| task.active && task.tag == tag);
        if let Some((index, task)) = found {
            // Between two steps it ends here, within one the kernel may end it.
            task.cancelled = true;
            self.ring.cancel(index as u64);
        }
    }
}
