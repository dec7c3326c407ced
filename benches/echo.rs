//! How far the device is from what the machine can do: two threads and shared memory.
//!
//! `floor` is nothing but that: one thread writes 64 bytes and a tail, the other sees it, copies them once, and
//! answers with 16 bytes whose last dword says that they are new. `worker` is the same between a guest and a worker
//! thread that serves a null namespace through a mapped doorbell page. Each figure is the time of one entry; compare
//! them within one run.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nvmet_benches::{BatchTimer, DEPTHS, ENTRIES, Guest, null, wait};
use nvmet_core::worker::{WorkerConfig, WorkerPool};
use nvmet_dma::SharedMemory;

const TAIL: usize = 0;
const REQUESTS: usize = 0x1000;
const ANSWERS: usize = 0x1_0000;

/// Answers every entry with its number, until told to stop.
fn answer(memory: &SharedMemory, stop: &AtomicBool) {
    let (mut head, mut idle) = (0_u32, 0);
    while !stop.load(Ordering::Relaxed) {
        let tail = memory.load_u32(TAIL).expect("it is inside");
        if tail == head {
            wait(&mut idle);
            continue;
        }
        while head != tail {
            let slot = (head % ENTRIES) as usize;
            let mut entry = [0; 64];
            memory.read_bytes(REQUESTS + slot * 64, &mut entry).expect("it is inside");
            head = head.wrapping_add(1);
            memory.write_bytes(ANSWERS + slot * 16, &entry[..12]).expect("it is inside");
            memory.store_u32(ANSWERS + slot * 16 + 12, head).expect("it is inside");
        }
    }
}

fn floor(c: &mut Criterion) {
    let memory = SharedMemory::new(0x1_0000 + ENTRIES as usize * 16).expect("there is memory");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| answer(&memory, &stop));
        let mut group = c.benchmark_group("echo_floor");
        group.throughput(Throughput::Elements(1));
        let mut tail = 0_u32;
        for depth in DEPTHS {
            group.bench_function(BenchmarkId::from_parameter(format!("qd{depth}")), |b| {
                b.iter_custom(|entries| {
                    BatchTimer::new(entries, depth).time(|| {
                        let first = tail;
                        for _ in 0..depth {
                            let at = REQUESTS + (tail % ENTRIES) as usize * 64;
                            memory.write_bytes(at, &[tail as u8; 64]).expect("it is inside");
                            tail = tail.wrapping_add(1);
                        }
                        memory.store_u32(TAIL, tail).expect("it is inside");
                        for number in 0..depth {
                            let expected = first.wrapping_add(number);
                            let at = ANSWERS + (expected % ENTRIES) as usize * 16;
                            let mut idle = 0;
                            while memory.load_u32(at + 12).expect("it is inside") != expected.wrapping_add(1)
                            {
                                wait(&mut idle);
                            }
                            black_box(memory.read_cqe(at).expect("it is inside"));
                        }
                    })
                });
            });
        }
        group.finish();
        stop.store(true, Ordering::Relaxed);
    });
}

fn worker(c: &mut Criterion) {
    let pool = WorkerPool::start(vec![WorkerConfig::default()]).expect("there are threads");
    let mut guest = Guest::new(null());
    let handle = pool.for_queue(guest.key(), 1);
    guest.commands(true).into_iter().for_each(|command| handle.send(command));
    let mut group = c.benchmark_group("echo_worker");
    group.throughput(Throughput::Elements(1));
    for depth in DEPTHS {
        group.bench_function(BenchmarkId::from_parameter(format!("qd{depth}")), |b| {
            b.iter_custom(|entries| {
                BatchTimer::new(entries, depth).time(|| {
                    (0..depth).for_each(|_| guest.put());
                    let _ = guest.ring();
                    let (mut done, mut idle) = (0, 0);
                    while done < depth {
                        match guest.reap() {
                            0 => wait(&mut idle),
                            some => done += some,
                        }
                    }
                })
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500));
    targets = floor, worker
}
criterion_main!(benches);
