//! A queue with guest memory of its own, driven as a worker does: submit, kick, sleep, reap.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nvmet_dma::{Direction, DmaReader, LoopbackMemory, SegmentBuf};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use super::{Options, Stop};
use crate::backend::Backend;
use crate::error::IoError;
use crate::queue::{IoQueue, Op, Submitted};

/// Bytes of guest memory.
pub(crate) const GUEST: usize = 8 << 20;
const MAX_SEGMENTS: usize = 4096;

/// Ranges of guest memory: offset and length.
pub(crate) type Places = Vec<(usize, usize)>;

/// An operation, with its guest memory by place.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Read { offset: u64, places: Places },
    Write { offset: u64, places: Places, fua: bool },
    Compare { offset: u64, places: Places },
    WriteZeroes { offset: u64, len: u64, deallocate: bool, fua: bool },
    Deallocate { offset: u64, len: u64 },
    Flush,
}

/// A queue and guest memory.
pub(crate) struct Rig {
    guest: LoopbackMemory,
    reader: DmaReader,
    room: SegmentBuf,
    queue: Box<dyn IoQueue>,
    epoll: Option<OwnedFd>,
    done: BTreeMap<u64, Result<(), IoError>>,
    twice: Option<u64>,
    patience: Duration,
    next_tag: u64,
}

impl Rig {
    pub(crate) fn new(backend: &dyn Backend, options: &Options) -> Result<Self, Stop> {
        let system = |what: &str, error: &dyn std::fmt::Display| Stop::fail(format!("{what}: {error}"));
        let guest = LoopbackMemory::new(GUEST).map_err(|error| system("no guest memory", &error))?;
        let queue = backend.open_queue(options.depth).map_err(|error| system("no queue", &error))?;
        let epoll = match queue.ready() {
            None => None,
            Some(fd) => {
                let epoll =
                    epoll::create(CreateFlags::CLOEXEC).map_err(|error| system("no epoll", &error))?;
                epoll::add(&epoll, fd, EventData::new_u64(0), EventFlags::IN)
                    .map_err(|error| system("ready() cannot be waited for with epoll", &error))?;
                Some(epoll)
            }
        };
        Ok(Self {
            reader: guest.handle().reader(),
            guest,
            room: SegmentBuf::new(MAX_SEGMENTS, GUEST),
            queue,
            epoll,
            done: BTreeMap::new(),
            twice: None,
            patience: options.patience,
            next_tag: 1 << 40,
        })
    }

    pub(crate) fn queue(&mut self) -> &mut dyn IoQueue {
        self.queue.as_mut()
    }

    /// Unmaps all guest memory. Whether nobody holds it any more.
    pub(crate) fn unmap(&mut self) -> bool {
        let retired = self.guest.space().unmap_all();
        self.reader.snapshot();
        retired.is_done()
    }

    pub(crate) fn put(&self, at: usize, bytes: &[u8]) -> Result<(), Stop> {
        self.guest.memory().write_bytes(at, bytes).map_err(|error| Stop::fail(error.to_string()))
    }

    pub(crate) fn get(&self, at: usize, len: usize) -> Result<Vec<u8>, Stop> {
        let mut bytes = vec![0; len];
        self.guest.memory().read_bytes(at, &mut bytes).map_err(|error| Stop::fail(error.to_string()))?;
        Ok(bytes)
    }

    /// Submits once.
    pub(crate) fn submit(&mut self, tag: u64, request: &Request) -> Result<Submitted, Stop> {
        let (direction, places) = match request {
            Request::Read { places, .. } => (Direction::ToGuest, places.as_slice()),
            Request::Write { places, .. } | Request::Compare { places, .. } => {
                (Direction::FromGuest, places.as_slice())
            }
            _ => (Direction::FromGuest, &[][..]),
        };
        let mut builder = self.room.begin(self.reader.snapshot(), direction);
        for (at, len) in places {
            builder
                .push(LoopbackMemory::IOVA + *at as u64, *len)
                .map_err(|error| Stop::fail(format!("the check itself is wrong: {error}")))?;
        }
        let data = builder.finish();
        let op = match *request {
            Request::Read { offset, .. } => Op::Read { offset, data },
            Request::Write { offset, fua, .. } => Op::Write { offset, data, fua },
            Request::Compare { offset, .. } => Op::Compare { offset, data },
            Request::WriteZeroes { offset, len, deallocate, fua } => {
                Op::WriteZeroes { offset, len, deallocate, fua }
            }
            Request::Deallocate { offset, len } => Op::Deallocate { offset, len },
            Request::Flush => Op::Flush,
        };
        Ok(self.queue.submit(tag, op))
    }

    /// Submits, and makes room if the queue is full.
    pub(crate) fn start(&mut self, tag: u64, request: &Request) -> Result<(), Stop> {
        loop {
            match self.submit(tag, request)? {
                Submitted::Pending => return Ok(()),
                Submitted::Done(result) => {
                    self.done.insert(tag, result);
                    return Ok(());
                }
                Submitted::Full if self.queue.in_flight() == 0 => {
                    return Err(Stop::fail("a queue without anything in flight says it is full"));
                }
                Submitted::Full => {
                    self.queue.kick();
                    self.wait_some()?;
                }
            }
        }
    }

    /// Reaps until nothing is in flight. Everything that was done since the last call, by tag.
    pub(crate) fn finish(&mut self) -> Result<BTreeMap<u64, Result<(), IoError>>, Stop> {
        self.queue.kick();
        while self.queue.in_flight() > 0 {
            self.wait_some()?;
            self.queue.kick();
        }
        match self.twice.take() {
            Some(tag) => Err(Stop::fail(format!("tag {tag:#x} was reported twice"))),
            None => Ok(std::mem::take(&mut self.done)),
        }
    }

    /// One operation, from start to end.
    pub(crate) fn run(&mut self, request: &Request) -> Result<Result<(), IoError>, Stop> {
        self.next_tag += 1;
        let tag = self.next_tag;
        self.start(tag, request)?;
        self.finish()?.remove(&tag).ok_or_else(|| Stop::fail(format!("{request:?} was never reported")))
    }

    /// One operation that must succeed.
    pub(crate) fn must(&mut self, request: &Request) -> Result<(), Stop> {
        self.run(request)?.map_err(|error| Stop::fail(format!("{}: {error}", brief(request))))
    }

    pub(crate) fn reap(&mut self) -> usize {
        let Self { queue, done, twice, .. } = self;
        let mut count = 0;
        queue.reap(&mut |tag, result| {
            count += 1;
            if done.insert(tag, result).is_some() {
                *twice = Some(tag);
            }
        });
        count
    }

    /// Sleeps until something is done, and reaps it.
    fn wait_some(&mut self) -> Result<(), Stop> {
        let end = Instant::now() + self.patience;
        loop {
            if self.reap() > 0 {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Stop::fail("an operation did not end, or did not make ready() readable"));
            }
            if self.queue.prepare_sleep() {
                continue;
            }
            let Some(epoll) = &self.epoll else {
                return Err(Stop::fail("operations are in flight, but ready() is None"));
            };
            let timeout = rustix::time::Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
            match epoll::wait(epoll, &mut events, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Stop::fail(format!("epoll: {errno}"))),
            }
        }
    }
}

/// A request without its list of places.
pub(crate) fn brief(request: &Request) -> String {
    match request {
        Request::Read { offset, places } => format!("read at {offset} in {} segments", places.len()),
        Request::Write { offset, places, fua } => {
            format!("write at {offset} in {} segments, FUA {fua}", places.len())
        }
        Request::Compare { offset, places } => format!("compare at {offset} in {} segments", places.len()),
        other => format!("{other:?}"),
    }
}

/// A small generator of numbers (xorshift64*): the same seed, the same sequence.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `limit`, which is not zero.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}
