//! Real worker threads: sleep and wake, and two of them on one namespace.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvmet_block::Backend;
use nvmet_spec::command::{Cqe, Sqe};
use nvmet_spec::status::Status;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::backend::TestBackend;
use super::fused::pair;
use super::rig::{Cq, DEADLINE, Guest, Sq, read, subsystem};
use crate::subsystem::Subsystem;
use crate::worker::{Command, Event, WorkerConfig, WorkerPool};

struct Threaded {
    guest: Guest,
    sq: Sq,
    cq: Cq,
}

impl Threaded {
    /// Queue pair `qid`; its worker is that of the pool's choice.
    fn new(pool: &WorkerPool, subsystem: Arc<Subsystem>, qid: u16, mode: Mode, entries: u32) -> Self {
        let mut guest = Guest::new(subsystem);
        let (cq, add_cq) = guest.add_cq(qid, entries);
        let (sq, add_sq) = guest.add_sq(qid, qid, 64);
        let worker = pool.for_queue(guest.key(), qid);
        worker.send(guest.attach(mode == Mode::Mapped));
        if mode == Mode::Shadow {
            worker.send(guest.set_shadow());
            assert!(matches!(guest.events.recv_timeout(DEADLINE), Ok(Event::ShadowSet)));
            // As the control thread seeds it when a queue is created.
            for offset in [0, 4] {
                let event_idx = if offset == 4 { 0xffff } else { 0 };
                let at = super::rig::EVENT_IDX + usize::from(qid) * 8 + offset;
                guest.memory.memory().store_u32(at, event_idx).unwrap();
            }
        }
        worker.send(add_cq);
        worker.send(add_sq);
        Self { guest, sq, cq }
    }

    fn submit(&mut self, pool: &WorkerPool, commands: impl IntoIterator<Item = Sqe>, mode: Mode) {
        for sqe in commands {
            self.guest.put(&mut self.sq, sqe);
        }
        if self.guest.ring(&mut self.sq) && mode != Mode::Mapped {
            pool.for_queue(self.guest.key(), self.sq.qid).ring(&self.guest.link, self.sq.qid);
        }
    }

    /// Waits as an interrupt handler does.
    fn wait(&mut self, pool: &WorkerPool, mode: Mode) -> Cqe {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(cqe) = self.guest.next(&mut self.cq) {
                if self.guest.ring_cq(&mut self.cq) && mode != Mode::Mapped {
                    pool.for_queue(self.guest.key(), self.cq.qid).ring(&self.guest.link, self.cq.qid);
                }
                return cqe;
            }
            let irq = self.guest.irq(self.cq.qid);
            let mut fds = [PollFd::from_borrowed_fd(irq.as_fd(), PollFlags::IN)];
            let left = Timespec::try_from(end - Instant::now()).unwrap();
            assert_ne!(poll(&mut fds, Some(&left)).unwrap(), 0, "a wake-up or an interrupt was lost");
            irq.drain().unwrap();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Trapped,
    Shadow,
    Mapped,
}

fn pool(workers: usize) -> WorkerPool {
    WorkerPool::start(vec![WorkerConfig::default(); workers]).unwrap()
}

/// Idles for about the time in which a worker decides to sleep: the moment that matters is hit before, in and after.
fn idle(round: u32) {
    let until = Instant::now() + Duration::from_micros(u64::from(round * 7 % 60));
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

fn ping_pong(mode: Mode, rounds: u32) {
    let pool = pool(1);
    let mut threaded = Threaded::new(&pool, subsystem([TestBackend::new() as _]), 1, mode, 64);
    for round in 0..rounds {
        threaded.submit(&pool, [read(1)], mode);
        assert!(threaded.wait(&pool, mode).status().is_success());
        idle(round);
    }
}

#[test]
fn no_wake_up_is_lost_with_trapped_doorbells() {
    ping_pong(Mode::Trapped, 4000);
}

#[test]
fn no_wake_up_is_lost_with_shadow_doorbells() {
    ping_pong(Mode::Shadow, 4000);
}

#[test]
fn mapped_doorbells_need_no_wake_up() {
    ping_pong(Mode::Mapped, 500);
}

#[test]
fn no_wake_up_is_lost_when_the_completion_queue_is_full() {
    for mode in [Mode::Trapped, Mode::Shadow] {
        let pool = pool(1);
        let mut threaded = Threaded::new(&pool, subsystem([TestBackend::new() as _]), 1, mode, 2);
        for round in 0..600 {
            threaded.submit(&pool, [read(1); 5], mode);
            for _ in 0..5 {
                assert!(threaded.wait(&pool, mode).status().is_success());
                idle(round);
            }
        }
    }
}

#[test]
fn a_backend_that_completes_later_wakes_its_worker() {
    let (pool, backend) = (pool(1), TestBackend::held(2));
    let mut threaded = Threaded::new(&pool, subsystem([backend.clone() as _]), 1, Mode::Trapped, 64);
    threaded.submit(&pool, [read(1); 20], Mode::Trapped);
    // The order comes behind the commands, so they are fetched when it is answered.
    let key = threaded.guest.key();
    pool.for_queue(key, 1).send(Command::Abort { key, sqid: 1, cid: 0xfff0, token: 0 });
    assert!(matches!(
        threaded.guest.events.recv_timeout(DEADLINE),
        Ok(Event::Aborted { aborted: false, .. })
    ));
    backend.release();
    for _ in 0..20 {
        assert!(threaded.wait(&pool, Mode::Trapped).status().is_success());
    }
}

#[test]
fn fused_pairs_of_two_workers_never_lose_an_update() {
    const ROUNDS: u64 = 300;
    let (pool, backend) = (pool(2), TestBackend::new());
    let subsystem = subsystem([backend.clone() as Arc<dyn Backend>]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (pool, subsystem) = (&pool, subsystem.clone());
            // Neighbouring keys: one controller for each worker.
            let mut threaded = Threaded::new(pool, subsystem, 1, Mode::Trapped, 64);
            scope.spawn(move || {
                let (mut seen, mut done) = (0_u64, 0);
                while done < ROUNDS {
                    for (offset, value) in [(0, seen), (0x4000, seen + 1)] {
                        let at = super::rig::DATA + offset;
                        threaded.guest.memory.memory().write_bytes(at, &value.to_le_bytes()).unwrap();
                    }
                    threaded.submit(pool, pair(1), Mode::Trapped);
                    let compare = threaded.wait(pool, Mode::Trapped).status();
                    let write = threaded.wait(pool, Mode::Trapped).status();
                    assert_eq!(compare.is_success(), write.is_success());
                    if compare.is_success() {
                        (seen, done) = (seen + 1, done + 1);
                    } else {
                        assert!(compare.is(Status::COMPARE_FAILURE), "{compare}");
                        let mut read = read(1);
                        read.set_slba(8);
                        threaded.submit(pool, [read], Mode::Trapped);
                        assert!(threaded.wait(pool, Mode::Trapped).status().is_success());
                        let bytes = threaded.guest.data(0, 8).try_into().unwrap();
                        seen = u64::from_le_bytes(bytes);
                    }
                }
            });
        }
    });
    assert_eq!(backend.bytes(8 * 512, 8), (2 * ROUNDS).to_le_bytes());
}

#[test]
fn a_pool_stops_with_commands_in_flight() {
    let (pool, backend) = (pool(2), TestBackend::held(4));
    let mut threaded = Threaded::new(&pool, subsystem([backend.clone() as _]), 1, Mode::Trapped, 64);
    threaded.submit(&pool, [read(1); 20], Mode::Trapped);
    drop(pool);
    assert_eq!(backend.open_queues(), 0);
}
