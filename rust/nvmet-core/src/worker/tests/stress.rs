//! A guest, a control thread and two workers that do anything in any order, one step at a time: no command, wake-up or
//! interrupt is lost, none comes twice, and no ring overflows.
//!
//! A worker that sleeps has no turn until somebody sends it a message or its backend wakes it, so a lost wake-up shows
//! as a world in which everybody sleeps and a command is outstanding.

use std::collections::BTreeMap;
use std::sync::Arc;

use nvmet_dma::memory::Access;

use super::backend::TestBackend;
use super::rig::{BASE, Cq, Guest, MEMORY, Sq, read, subsystem};
use crate::worker::{Command, Event, LocalWorker};

const SEEDS: u64 = 1000;
const STEPS: u32 = 600;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) % u64::from(n)) as u32
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

#[derive(Default)]
struct Moving {
    called_back: bool,
    orders: Vec<Command>,
}

struct Pair {
    cq: Cq,
    worker: usize,
    moving: Option<Moving>,
    interrupt: bool,
}

struct Queue {
    sq: Sq,
    cqid: u16,
    /// The last SQHD.
    head: u32,
    removing: bool,
    gone: bool,
}

struct World {
    random: Random,
    guest: Guest,
    backend: Arc<TestBackend>,
    workers: [LocalWorker; 2],
    asleep: [bool; 2],
    polled: bool,
    mapped: bool,
    running: bool,
    cqs: Vec<Pair>,
    sqs: Vec<Queue>,
    /// Commands by queue and identifier; false: its queue is gone, it may complete or not.
    outstanding: BTreeMap<(u16, u16), bool>,
    aborts: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let backend = TestBackend::held(3);
        backend.release();
        let guest = Guest::new(subsystem([backend.clone() as _]));
        let workers = [LocalWorker::new().unwrap(), LocalWorker::new().unwrap()];
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut world = Self {
            random,
            guest,
            backend,
            workers,
            asleep: [false; 2],
            polled: false,
            mapped: true,
            running: true,
            cqs: Vec::new(),
            sqs: Vec::new(),
            outstanding: BTreeMap::new(),
            aborts: 0,
        };
        world.enable();
        world
    }

    fn send(&mut self, worker: usize, command: Command) {
        self.workers[worker].send(command);
        self.asleep[worker] = false;
    }

    fn enable(&mut self) {
        self.polled = self.random.one_in(4);
        let shadow = self.random.one_in(2);
        self.guest.shadow = false;
        for worker in 0..2 {
            self.send(worker, self.guest.attach(self.polled));
        }
        if shadow {
            for worker in 0..2 {
                let set = self.guest.set_shadow();
                self.send(worker, set);
            }
        }
        for qid in 1..=3 {
            self.guest.wipe(qid);
            self.guest.seed(qid, false);
            self.guest.seed(qid, true);
        }
        for cqid in 1..=2 {
            let worker = usize::from(cqid) % 2;
            let (cq, command) = self.guest.add_cq(cqid, 2 + self.random.below(8));
            self.send(worker, command);
            self.cqs.push(Pair { cq, worker, moving: None, interrupt: false });
        }
        for (sqid, cqid) in [(1, 1), (2, 2), (3, 1)] {
            let (sq, command) = self.guest.add_sq(sqid, cqid, 2 + self.random.below(15));
            self.order(cqid, command);
            self.sqs.push(Queue { sq, cqid, head: 0, removing: false, gone: false });
        }
    }

    /// As the control thread does it.
    fn order(&mut self, cqid: u16, command: Command) {
        let key = self.guest.key();
        let pair = &mut self.cqs[usize::from(cqid) - 1];
        let worker = pair.worker;
        let Some(moving) = &mut pair.moving else { return self.send(worker, command) };
        moving.orders.push(command);
        if !std::mem::replace(&mut moving.called_back, true) {
            self.send(worker, Command::Keep { key, cqid });
        }
    }

    fn message(&mut self, cqid: u16, needed: bool) {
        if needed && !self.polled && self.guest.link.ring(cqid) {
            let worker = self.cqs[usize::from(cqid) - 1].worker;
            self.send(worker, Command::Rung { key: self.guest.key(), cqid });
        }
    }

    fn ring(&mut self, at: usize) {
        let queue = &mut self.sqs[at];
        if !queue.gone && !queue.removing && queue.sq.is_silent() {
            let (cqid, needed) = (queue.cqid, self.guest.ring(&mut queue.sq));
            self.message(cqid, needed);
        }
    }

    fn submit(&mut self, at: usize) {
        let queue = &mut self.sqs[at];
        if queue.removing || queue.gone || (queue.sq.tail + 1) % queue.sq.entries == queue.head {
            return;
        }
        let cid = self.guest.put(&mut queue.sq, read(1));
        self.outstanding.insert((queue.sq.qid, cid), true);
    }

    fn consume(&mut self, at: usize, most: u32) {
        self.cqs[at].interrupt |= self.guest.interrupts(at as u16 + 1) > 0;
        if most == u32::MAX {
            self.cqs[at].interrupt = false;
        }
        for count in 0..most {
            let Some(cqe) = self.guest.next(&mut self.cqs[at].cq) else { break };
            assert!(count < self.cqs[at].cq.entries, "the completion queue overflows");
            let known = self.outstanding.remove(&(cqe.sqid, cqe.cid));
            let known = known.unwrap_or_else(|| panic!("{cqe:?} completes what is not outstanding"));
            let queue = &mut self.sqs[usize::from(cqe.sqid) - 1];
            assert_eq!(queue.cqid, at as u16 + 1);
            if known {
                let entries = queue.sq.entries;
                let sqhd = u32::from(cqe.sqhd);
                let distance = |to: u32| (to + entries - queue.head) % entries;
                assert!(
                    sqhd < entries && distance(sqhd) <= distance(queue.sq.tail),
                    "{sqhd} is not submitted"
                );
                queue.head = sqhd;
            }
        }
        let needed = self.guest.ring_cq(&mut self.cqs[at].cq);
        self.message(at as u16 + 1, needed);
    }

    fn turn(&mut self, worker: usize) {
        if !self.asleep[worker] {
            // Nobody wakes it for mapped doorbells: it naps.
            self.asleep[worker] = self.workers[worker].doze() && !self.polled;
        }
    }

    fn hear(&mut self) -> bool {
        let Some(event) = self.guest.event() else { return false };
        let key = self.guest.key();
        match event {
            Event::Released { cq, sqs } => {
                let cqid = cq.cqid;
                let pair = &mut self.cqs[usize::from(cqid) - 1];
                let moving = pair.moving.take().unwrap();
                pair.worker = 1 - pair.worker;
                let worker = pair.worker;
                self.guest.link.heard_ring(cqid);
                self.send(worker, Command::AddCq { key, state: cq });
                sqs.into_iter().for_each(|state| self.send(worker, Command::AddSq { key, state }));
                moving.orders.into_iter().for_each(|order| self.send(worker, order));
            }
            Event::Kept { cqid } => {
                let pair = &mut self.cqs[usize::from(cqid) - 1];
                let (worker, moving) = (pair.worker, pair.moving.take().unwrap());
                moving.orders.into_iter().for_each(|order| self.send(worker, order));
            }
            Event::SqRemoved { sqid } => {
                let queue = &mut self.sqs[usize::from(sqid) - 1];
                assert!(queue.removing && !queue.gone);
                queue.gone = true;
                self.outstanding.range_mut((sqid, 0)..=(sqid, u16::MAX)).for_each(|(_, must)| *must = false);
            }
            Event::Aborted { .. } => self.aborts -= 1,
            Event::InvalidDoorbell(_) => self.guest.link.heard_of_invalid_doorbell(),
            Event::ShadowSet => {}
            other => panic!("{other:?}"),
        }
        true
    }

    fn refresh(&mut self) {
        (0..2).for_each(|worker| self.send(worker, Command::Refresh { key: self.guest.key() }));
    }

    fn set_mapped(&mut self, mapped: bool) {
        if std::mem::replace(&mut self.mapped, mapped) == mapped {
            return;
        }
        if mapped {
            let fd = self.guest.memory.memory().fd().try_clone_to_owned().unwrap();
            let space = self.guest.memory.space();
            space.map(BASE, MEMORY as u64, 0, Access::READ_WRITE, Some(fd)).unwrap();
        } else {
            // Whether it retires is asked elsewhere.
            let _ = self.guest.memory.space().unmap_all();
        }
        // Sometimes a worker finds out by itself first.
        if self.random.one_in(2) {
            let worker = self.random.below(2) as usize;
            self.turn(worker);
        }
        self.refresh();
    }

    fn set_running(&mut self, running: bool) {
        let before = std::mem::replace(&mut self.running, running);
        self.guest.link.set_running(running);
        if running && !before {
            self.refresh();
        }
    }

    fn remove(&mut self, at: usize) {
        let queue = &mut self.sqs[at];
        let (sqid, cqid) = (queue.sq.qid, queue.cqid);
        if queue.gone {
            // Its old completions have to be out of the way, or the model could not tell them from new ones.
            if !self.outstanding.keys().any(|&(other, _)| other == sqid) && self.mapped {
                self.guest.seed(sqid, false);
                let (sq, command) = self.guest.add_sq(sqid, cqid, 2 + self.random.below(15));
                self.sqs[at] = Queue { sq, cqid, head: 0, removing: false, gone: false };
                self.order(cqid, command);
            }
        } else if !std::mem::replace(&mut queue.removing, true) {
            self.order(cqid, Command::RemoveSq { key: self.guest.key(), sqid });
        }
    }

    fn abort(&mut self) {
        let nth = self.random.below(8) as usize;
        let Some((&(sqid, cid), _)) = self.outstanding.iter().nth(nth) else { return };
        let queue = &self.sqs[usize::from(sqid) - 1];
        if queue.removing || self.aborts == 4 {
            return;
        }
        self.aborts += 1;
        self.order(queue.cqid, Command::Abort { key: self.guest.key(), sqid, cid, token: 0 });
    }

    fn release(&mut self) {
        let at = self.random.below(2) as usize;
        if self.cqs[at].moving.is_none() {
            self.cqs[at].moving = Some(Moving::default());
            let worker = self.cqs[at].worker;
            self.send(worker, Command::Release { key: self.guest.key(), cqid: at as u16 + 1 });
        }
    }

    fn reset(&mut self) {
        let key = self.guest.key();
        self.set_running(false);
        (0..2).for_each(|worker| self.send(worker, Command::Quiesce { key }));
        let mut waiting = 2;
        for _ in 0..1000 {
            self.workers.iter_mut().for_each(|worker| {
                worker.turn();
            });
            while let Some(event) = self.guest.event() {
                waiting -= u32::from(matches!(event, Event::Quiesced));
            }
        }
        assert_eq!(waiting, 0, "a worker does not let go");
        self.cqs.clear();
        self.sqs.clear();
        self.outstanding.clear();
        self.aborts = 0;
        self.set_mapped(true);
        for vector in 1..=2 {
            self.guest.interrupts(vector);
        }
        self.set_running(true);
        self.enable();
    }

    fn step(&mut self) {
        let sq = self.random.below(3) as usize;
        let cq = self.random.below(2) as usize;
        match self.random.below(100) {
            0..20 => (0..1 + self.random.below(8)).for_each(|_| self.submit(sq)),
            20..35 => self.ring(sq),
            35..45 => self.consume(cq, u32::MAX),
            45..50 => {
                let most = self.random.below(4);
                self.consume(cq, most);
            }
            50..75 => self.turn(cq),
            75..82 => {
                self.hear();
            }
            82..85 => self.release(),
            85..88 => self.abort(),
            88 => self.remove(sq),
            89 => self.backend.hold(),
            90..92 => self.let_go(),
            92 => self.set_mapped(false),
            93..95 => self.set_mapped(true),
            95 => self.set_running(false),
            96 => self.set_running(true),
            97 if self.guest.shadow => {
                let value = self.random.below(3) * 30_000 + 20;
                let queue = &mut self.sqs[sq];
                if !queue.gone && !queue.removing {
                    let (cqid, needed) = (queue.cqid, self.guest.scribble(&mut queue.sq, value));
                    self.message(cqid, needed);
                }
            }
            98 if self.random.one_in(8) => self.reset(),
            _ => {}
        }
    }

    fn let_go(&mut self) {
        self.backend.release();
        self.asleep = [false; 2];
    }

    /// From here on the host waits for interrupts alone, and everybody else for whoever wakes them.
    fn end(&mut self) {
        self.set_mapped(true);
        self.set_running(true);
        self.let_go();
        // Nobody rings twice, so whoever was not heard stays so.
        (0..3).for_each(|sq| self.ring(sq));
        let slow = 1 + self.random.below(8);
        let must = |world: &Self| world.outstanding.values().filter(|&&must| must).count();
        for round in 0..100_000 {
            for worker in 0..2 {
                if !self.random.one_in(3) {
                    self.turn(worker);
                }
            }
            while !self.random.one_in(3) && self.hear() {}
            if round < 200 {
                let sq = self.random.below(3) as usize;
                (0..self.random.below(4)).for_each(|_| self.submit(sq));
                self.ring(sq);
                if self.random.one_in(16) {
                    self.release();
                }
            }
            for cq in 0..2 {
                self.cqs[cq].interrupt |= self.guest.interrupts(cq as u16 + 1) > 0;
                // Now at once, now long after everybody has fallen asleep.
                if self.cqs[cq].interrupt && self.random.one_in(slow) {
                    self.consume(cq, u32::MAX);
                }
            }
            let moving = self.cqs.iter().any(|pair| pair.moving.is_some());
            let removing = self.sqs.iter().any(|queue| queue.removing && !queue.gone);
            if round >= 200 && must(self) == 0 && !moving && !removing && self.aborts == 0 {
                return;
            }
        }
        panic!(
            "lost: {:?}, asleep {:?}, {} aborts, moving {:?}, polled {}, shadow {}",
            self.outstanding,
            self.asleep,
            self.aborts,
            self.cqs.iter().map(|pair| pair.moving.is_some()).collect::<Vec<_>>(),
            self.polled,
            self.guest.shadow
        );
    }
}

#[test]
fn whatever_happens_every_command_ends_once_and_is_told_of() {
    let seeds = std::env::var("NVMET_STRESS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    for seed in 1..=seeds {
        let run = || {
            let mut world = World::new(seed);
            for _ in 0..3 {
                (0..STEPS).for_each(|_| world.step());
                world.end();
            }
        };
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
