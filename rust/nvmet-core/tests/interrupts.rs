//! Hosts that look at a completion queue only after its interrupt: none may wait for ever, whatever the depth, the
//! batch, the doorbells and Interrupt Coalescing are.

mod common;

use std::os::fd::AsFd;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use common::guest::{DATA, Guest, IOVA, LIMIT, Ring, page_io};
use common::{Served, namespace, ram, serve_with};
use nvmet_core::device::DoorbellMode;
use nvmet_dma::EventFd;
use nvmet_host::SqeExt;
use nvmet_spec::command::{AdminOpcode, GetFeaturesCdw10, NvmOpcode, SetFeaturesCdw10, Sqe};
use nvmet_spec::feature::{Arbitration, FeatureId, InterruptCoalescing, InterruptVectorConfig, Select};
use nvmet_spec::registers::Doorbell;
use nvmet_spec::status::Status;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const MSIX: u32 = 2;
/// Entries of submission queues; completion queues have as many, or few.
const ENTRIES: u32 = 128;
const SHADOW: u64 = DATA + 0x10_0000;
const EVENT_IDX: u64 = DATA + 0x10_1000;
/// Aggregation Time is in units of this.
const UNIT: Duration = Duration::from_micros(100);

/// A guest with an eventfd for each vector.
struct Host {
    guest: Guest,
    irqs: Vec<EventFd>,
    shadow: bool,
    rings: Vec<Pair>,
}

/// A queue pair and what is outstanding on it.
struct Pair {
    ring: Ring,
    vector: u16,
    outstanding: u32,
    rung: u32,
    freed: u32,
}

fn served(workers: u16) -> Served {
    serve_with(workers, vec![namespace(ram(1 << 20), 512)], |config| {
        config.doorbells = DoorbellMode::Trapped;
    })
}

impl Host {
    fn new(served: &Served, shadow: bool) -> Self {
        let mut guest = Guest::connect(&served.socket);
        let irqs: Vec<EventFd> = (0..4).map(|_| EventFd::new().unwrap()).collect();
        guest.client.set_irq_eventfds(MSIX, 0, &irqs).unwrap();
        guest.enable();
        if shadow {
            let config = Sqe::new(AdminOpcode::DoorbellBufferConfig, 0, 0);
            guest.ok(Sqe { prp1: IOVA + SHADOW, prp2: IOVA + EVENT_IDX, ..config });
        }
        Self { guest, irqs, shadow, rings: Vec::new() }
    }

    fn create(&mut self, qid: u16, cq_entries: u32, vector: u16) {
        let ring = Ring::new(qid, ENTRIES, cq_entries);
        self.guest.memory.fill(ring.sq as usize, 0x8_0000, 0).unwrap();
        let mut create = Guest::create_cq(&ring);
        create.cdw11 |= u32::from(vector) << 16 | 0b10;
        self.guest.ok(create);
        self.guest.ok(Guest::create_sq(&ring));
        self.rings.push(Pair { ring, vector, outstanding: 0, rung: 0, freed: 0 });
    }

    fn set(&mut self, fid: FeatureId, value: u32) {
        let cdw10 = SetFeaturesCdw10::new().with_fid(fid.into()).into_bits();
        self.guest.ok(Sqe::new(AdminOpcode::SetFeatures, 0, 0).with_cdw10(cdw10).with_cdw11(value));
    }

    fn get(&mut self, fid: FeatureId, select: Select, cdw11: u32) -> u32 {
        let cdw10 = GetFeaturesCdw10::new().with_fid(fid.into()).with_sel(select).into_bits();
        self.guest.ok(Sqe::new(AdminOpcode::GetFeatures, 0, 0).with_cdw10(cdw10).with_cdw11(cdw11)).dw0
    }

    fn coalesce(&mut self, threshold: u32, time: u8) {
        let value = InterruptCoalescing::new().with_thr_z((threshold - 1) as u8).with_time(time);
        self.set(FeatureId::InterruptCoalescing, value.into_bits());
    }

    /// Writes a doorbell as a driver with shadow doorbells does, or one without.
    fn doorbell(&mut self, doorbell: Doorbell, old: u32, new: u32) {
        if self.shadow {
            let offset = doorbell.offset(0) - 0x1000;
            self.guest.memory.store_u32((SHADOW + offset) as usize, new).unwrap();
            fence(Ordering::SeqCst);
            let event_idx = self.guest.memory.load_u32((EVENT_IDX + offset) as usize).unwrap();
            if (new.wrapping_sub(event_idx).wrapping_sub(1) as u16) >= (new.wrapping_sub(old) as u16) {
                return;
            }
        }
        self.guest.doorbell(doorbell, new);
    }

    /// Submits `count` commands with one doorbell.
    fn submit(&mut self, at: usize, count: u32) {
        for cid in 0..count {
            self.guest.push(&mut self.rings[at].ring, &page_io(NvmOpcode::Read, cid as u16));
        }
        let pair = &mut self.rings[at];
        pair.outstanding += count;
        let (old, new) = (std::mem::replace(&mut pair.rung, pair.ring.tail), pair.ring.tail);
        let doorbell = Doorbell::SqTail(pair.ring.sqid);
        self.doorbell(doorbell, old, new);
    }

    /// Sleeps until the interrupt of a vector comes, then takes what is there and writes each head once.
    fn wait(&mut self, vector: u16) -> u32 {
        let irq = &self.irqs[usize::from(vector)];
        let mut fds = [PollFd::from_borrowed_fd(irq.as_fd(), PollFlags::IN)];
        let ready = poll(&mut fds, Some(&Timespec::try_from(LIMIT).unwrap())).unwrap();
        let outstanding: Vec<u32> = self.rings.iter().map(|pair| pair.outstanding).collect();
        assert_eq!(ready, 1, "no interrupt on vector {vector}; {outstanding:?} outstanding");
        irq.drain().unwrap();
        let mut taken = 0;
        for at in 0..self.rings.len() {
            if self.rings[at].vector == vector {
                taken += self.take(at);
            }
        }
        taken
    }

    fn take(&mut self, at: usize) -> u32 {
        let pair = &mut self.rings[at];
        let mut count = 0;
        while let Some(cqe) = self.guest.peek(&mut pair.ring) {
            assert_eq!(cqe.status(), Status::SUCCESS);
            count += 1;
        }
        pair.outstanding -= count;
        if count > 0 {
            let (old, new) = (std::mem::replace(&mut pair.freed, pair.ring.head), pair.ring.head);
            let doorbell = Doorbell::CqHead(pair.ring.cqid);
            self.doorbell(doorbell, old, new);
        }
        count
    }

    /// Keeps `depth` commands going on every queue, refilled as soon as `batch` of them are missing.
    fn run(&mut self, depth: u32, batch: u32, interrupts: u32) {
        let vectors: Vec<u16> = self.rings.iter().map(|pair| pair.vector).collect();
        for _ in 0..interrupts {
            for at in 0..self.rings.len() {
                let missing = depth - self.rings[at].outstanding;
                if missing >= batch {
                    self.submit(at, missing);
                }
            }
            for (at, &vector) in vectors.iter().enumerate() {
                if self.rings[at].outstanding > 0 {
                    self.wait(vector);
                }
            }
        }
        self.drain();
    }

    fn drain(&mut self) {
        for at in 0..self.rings.len() {
            while self.rings[at].outstanding > 0 {
                self.wait(self.rings[at].vector);
            }
        }
    }
}

fn every_depth_and_batch(host: &mut Host) {
    for depth in 1..=64_u32 {
        for batch in [1, depth.div_ceil(2), depth] {
            host.run(depth, batch, 8);
        }
    }
}

#[test]
fn no_depth_or_batch_stalls_a_host_that_waits_for_interrupts() {
    for shadow in [false, true] {
        let served = served(1);
        let mut host = Host::new(&served, shadow);
        host.create(1, ENTRIES, 1);
        every_depth_and_batch(&mut host);
    }
}

#[test]
fn nor_with_less_room_for_completions_than_commands() {
    for (shadow, cq_entries) in [(false, 2), (false, 5), (true, 2), (true, 5), (true, 33)] {
        let served = served(1);
        let mut host = Host::new(&served, shadow);
        host.create(1, cq_entries, 1);
        for depth in [1, 2, 4, 5, 31, 32, 33, 64] {
            host.run(depth, depth.div_ceil(2), 16);
        }
        host.coalesce(8, 1);
        host.run(64, 20, 16);
    }
}

#[test]
fn nor_with_coalescing() {
    for shadow in [false, true] {
        let served = served(1);
        let mut host = Host::new(&served, shadow);
        host.create(1, ENTRIES, 1);
        host.coalesce(8, 1);
        every_depth_and_batch(&mut host);
        for (threshold, time) in [(2, 1), (256, 1), (64, 2), (1, 255), (256, 0)] {
            host.coalesce(threshold, time);
            for depth in [1, 2, 3, 63, 64] {
                host.run(depth, depth, 8);
            }
        }
    }
}

#[test]
fn nor_when_queues_share_a_vector_or_have_one_each() {
    for workers in [1, 2] {
        for vectors in [[1, 1, 2], [1, 2, 3], [0, 0, 0]] {
            let served = served(workers);
            let mut host = Host::new(&served, true);
            for (qid, vector) in (1..).zip(vectors) {
                host.create(qid, ENTRIES, vector);
            }
            for (threshold, time) in [(1, 0), (8, 1)] {
                host.coalesce(threshold, time);
                for depth in [1, 2, 7, 16, 33, 64] {
                    // The queues of one vector by its interrupt, whichever queue it is for.
                    host.run_shared(depth, 12);
                }
            }
        }
    }
}

impl Host {
    /// As [`run`](Self::run), for queues of which several have the same vector: an interrupt is any queue's.
    fn run_shared(&mut self, depth: u32, rounds: u32) {
        for _ in 0..rounds {
            for at in 0..self.rings.len() {
                self.submit(at, depth - self.rings[at].outstanding);
            }
            for vector in 0..4 {
                let waits = |host: &Self| {
                    host.rings.iter().any(|pair| pair.vector == vector && pair.outstanding > depth / 2)
                };
                while waits(self) {
                    self.wait(vector);
                }
            }
        }
        self.drain();
    }
}

#[test]
fn nor_when_coalescing_changes_under_load() {
    let served = served(1);
    let mut host = Host::new(&served, true);
    host.create(1, ENTRIES, 1);
    for round in 0..60u32 {
        host.submit(0, 1 + round % 40);
        let (threshold, time) = if round % 2 == 0 { (256, 20) } else { (1, 0) };
        host.coalesce(threshold, time);
        let exempt = InterruptVectorConfig::new().with_iv(1).with_cd(round % 3 == 0);
        host.set(FeatureId::InterruptVectorConfig, exempt.into_bits());
        host.drain();
    }
}

#[test]
fn coalescing_signals_neither_before_the_threshold_nor_before_the_time() {
    let served = served(1);
    let mut host = Host::new(&served, true);
    host.create(1, ENTRIES, 1);
    host.create(2, ENTRIES, 2);
    let uncoalesced = InterruptVectorConfig::new().with_iv(2).with_cd(true);
    host.set(FeatureId::InterruptVectorConfig, uncoalesced.into_bits());
    // 20 ms: far more than 16 commands take, as a rule.
    host.coalesce(16, 200);
    for round in 0..12 {
        let begin = Instant::now();
        let count = if round % 4 == 0 { 3 } else { 16 };
        host.submit(0, count);
        let mut taken = 0;
        while taken < count {
            taken += host.wait(1);
            assert!(taken >= 16 || begin.elapsed() >= 200 * UNIT, "{taken} after {:?}", begin.elapsed());
        }
        host.submit(1, 1);
        assert_eq!(host.wait(2), 1);
    }
}

#[test]
fn the_admin_queue_is_never_coalesced_and_a_reset_restores_the_defaults() {
    let served = served(1);
    let mut host = Host::new(&served, false);
    host.coalesce(256, 255);
    host.set(FeatureId::InterruptVectorConfig, 0);
    host.set(FeatureId::Arbitration, Arbitration::new().with_ab(2).into_bits());
    let features = [
        (FeatureId::Arbitration, 2, 6),
        (FeatureId::InterruptCoalescing, 0xffff, 0),
        (FeatureId::InterruptVectorConfig, 0, 1 << 16),
    ];
    for (fid, set, default) in features {
        for (select, value) in [(Select::Current, set), (Select::Default, default), (Select::Saved, default)]
        {
            assert_eq!(host.get(fid, select, 0), value, "{fid:?} {select:?}");
        }
    }
    let irq = &host.irqs[0];
    irq.drain().unwrap();
    let cid = host.guest.submit_admin(Sqe::new(AdminOpcode::KeepAlive, 0, 0));
    let mut fds = [PollFd::from_borrowed_fd(irq.as_fd(), PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&Timespec::try_from(LIMIT).unwrap())).unwrap(), 1);
    host.guest.wait_admin(cid);
    host.guest.disable();
    host.guest.enable();
    for (fid, _, default) in features {
        assert_eq!(host.get(fid, Select::Current, 0), default, "{fid:?}");
    }
    host.shadow = false;
    host.create(1, ENTRIES, 1);
    host.run(4, 4, 8);
}
