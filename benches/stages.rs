//! Where the time of one command goes: each stage of a 4 KiB Read on a null namespace by itself, in batches of
//! [`BATCH`], on the same memory layout as `whole`, the entire way. Each figure is the time of one command.
//!
//! What `whole` takes beyond the sum of the other stages is the worker's own book-keeping.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nvmet_benches::{BatchTimer, ENTRIES, Layout, Local, NAMESPACE, TRANSFER, null};
use nvmet_block::{IoQueue, Op};
use nvmet_core::io::decode::{IoCommand, decode};
use nvmet_core::io::execute::{Context, Request, issue};
use nvmet_core::io::prp;
use nvmet_core::namespace::{Namespace, NamespaceConfig};
use nvmet_core::queue::{
    CQE_SIZE, CompletionQueue, CompletionQueueState, DOORBELL_PAGE_SIZE, Doorbells, SQE_SIZE,
    SubmissionQueue, SubmissionQueueState, register_index,
};
use nvmet_core::stats::{Batch, Stats};
use nvmet_dma::{Direction, DmaReader, DoorbellPage, LoopbackMemory, SegmentBuf};
use nvmet_spec::command::{NvmOpcode, Sqe};
use zerocopy::IntoBytes;

/// Commands of a batch.
const BATCH: u32 = 32;
const CQ: usize = ENTRIES as usize * SQE_SIZE;
const DATA: usize = CQ + ENTRIES as usize * CQE_SIZE;

/// The rings of one queue pair, and what the stages need beside them.
struct Rig {
    memory: LoopbackMemory,
    reader: DmaReader,
    page: Arc<DoorbellPage>,
    doorbells: Doorbells,
    sq: SubmissionQueue,
    cq: CompletionQueue,
    head: u32,
    phase: bool,
}

impl Rig {
    fn new() -> Self {
        let memory = LoopbackMemory::new(DATA + ENTRIES as usize * TRANSFER).expect("there is memory");
        for slot in 0..ENTRIES {
            memory
                .memory()
                .write_bytes(slot as usize * SQE_SIZE, read(slot).as_bytes())
                .expect("it is inside");
        }
        let page = Arc::new(DoorbellPage::new(DOORBELL_PAGE_SIZE).expect("there is memory"));
        let (base, entries) = (LoopbackMemory::IOVA, ENTRIES);
        let state = SubmissionQueueState { sqid: 1, cqid: 1, entries, base, head: 0, tail: 0 };
        let mut sq = SubmissionQueue::new(state);
        let mut cq = CompletionQueue::new(CompletionQueueState {
            cqid: 1,
            entries,
            base: base + CQ as u64,
            tail: 0,
            head: 0,
            phase: true,
            vector: None,
        });
        let mut reader = memory.handle().reader();
        sq.attach(reader.snapshot()).expect("it is mapped");
        cq.attach(reader.snapshot()).expect("it is mapped");
        let doorbells = Doorbells::new(Arc::clone(&page));
        Self { memory, reader, page, doorbells, sq, cq, head: 0, phase: true }
    }

    /// Lets the queue have a batch to fetch.
    fn refill(&mut self) {
        let tail = (self.sq.state().head + BATCH) % ENTRIES;
        assert!(self.sq.set_tail(tail));
    }

    /// The worker's completions of a batch.
    fn post(&mut self) {
        for cid in 0..BATCH as u16 {
            self.cq.post_success(1, 1, black_box(cid));
        }
    }

    /// What a guest does for a batch: the tail, the completions, the head.
    fn guest(&mut self) {
        let _ = self.page.store(register_index(1, false), self.head);
        for _ in 0..BATCH {
            let at = CQ + self.head as usize * CQE_SIZE;
            let cqe = self.memory.memory().read_cqe(at).expect("it is inside");
            assert_eq!(cqe[3] >> 16 & 1 == 1, self.phase);
            self.head += 1;
            if self.head == ENTRIES {
                (self.head, self.phase) = (0, !self.phase);
            }
        }
        let _ = self.page.store(register_index(1, true), self.head);
    }
}

fn read(slot: u32) -> Sqe {
    let mut sqe = Sqe::new(NvmOpcode::Read, slot as u16, 1);
    sqe.set_slba(u64::from(slot) * 8);
    sqe.cdw12 = 7;
    sqe.prp1 = LoopbackMemory::IOVA + (DATA + slot as usize * TRANSFER) as u64;
    sqe
}

fn stages(c: &mut Criterion) {
    let mut group = c.benchmark_group("stage");
    group.throughput(Throughput::Elements(1));
    let mut rig = Rig::new();
    let commands: Vec<Sqe> = (0..BATCH).map(read).collect();

    // Once a batch, so a share of it a command.
    group.bench_function("poll", |b| {
        b.iter_custom(|n| {
            BatchTimer::new(n, BATCH).time(|| {
                let head = black_box(&rig.doorbells).cq_head(1).unwrap_or(0);
                black_box(rig.cq.set_head(head));
                let tail = black_box(&rig.doorbells).sq_tail(1).unwrap_or(0);
                black_box(rig.sq.set_tail(tail));
            })
        });
    });
    group.bench_function("fetch", |b| {
        let mut fetched = [(); BATCH as usize].map(|()| read(0));
        b.iter_custom(|n| {
            BatchTimer::new(n, BATCH).time_after(&mut rig, Rig::refill, |rig| {
                let count = rig.sq.peek_batch(&mut fetched);
                black_box(&fetched);
                (0..count).for_each(|_| rig.sq.advance());
            })
        });
    });
    group.bench_function("decode", |b| {
        b.iter_custom(|n| {
            BatchTimer::new(n, BATCH).time(|| {
                for sqe in black_box(&commands) {
                    let _ = black_box(decode(sqe));
                }
            })
        });
    });
    group.bench_function("prp", |b| {
        let mut segments = SegmentBuf::new(1024, 64 << 20);
        b.iter_custom(|n| {
            BatchTimer::new(n, BATCH).time(|| {
                for sqe in black_box(&commands) {
                    let snapshot = rig.reader.snapshot();
                    let mut builder = segments.begin(snapshot, Direction::ToGuest);
                    let mapped = prp::map(snapshot, &mut builder, 4096, sqe.prp1, sqe.prp2, TRANSFER as u64);
                    let _ = black_box(mapped);
                    black_box(builder.finish().count());
                }
            })
        });
    });
    backend(&mut group, &mut rig);
    checks(&mut group, &mut rig, &commands);
    group.bench_function("post", |b| {
        b.iter_custom(|n| {
            BatchTimer::new(n, BATCH).time(|| {
                rig.post();
                rig.cq.set_head(rig.cq.state().tail);
            })
        });
    });
    group.bench_function("counters", |b| {
        let stats = Stats::default();
        let shard = stats.shard();
        let batch = Batch {
            reads: BATCH.into(),
            completions: BATCH.into(),
            bytes_read: u64::from(BATCH) * TRANSFER as u64,
            ..Batch::default()
        };
        b.iter_custom(|n| BatchTimer::new(n, BATCH).time(|| shard.add(black_box(&batch))));
    });
    group.bench_function("guest", |b| {
        let mut rig = Rig::new();
        let prepare = |rig: &mut Rig| {
            rig.cq.set_head(rig.cq.state().tail);
            rig.post();
        };
        b.iter_custom(|n| BatchTimer::new(n, BATCH).time_after(&mut rig, prepare, Rig::guest));
    });
    turns(&mut group);
    group.finish();
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// The null backend's answer.
fn backend(group: &mut Group<'_>, rig: &mut Rig) {
    let mut queue = null().open_queue(BATCH).expect("it needs nothing");
    let mut segments = SegmentBuf::new(16, 1 << 20);
    let mut builder = segments.begin(rig.reader.snapshot(), Direction::ToGuest);
    builder.push(LoopbackMemory::IOVA + DATA as u64, TRANSFER).expect("it is mapped");
    let data = builder.finish();
    group.bench_function("backend", |b| {
        b.iter_custom(|n| {
            BatchTimer::new(n, BATCH).time(|| {
                let queue: &mut dyn IoQueue = black_box(queue.as_mut());
                for number in 0..u64::from(BATCH) {
                    let op = Op::Read { offset: black_box(number * TRANSFER as u64), data };
                    let _ = black_box(queue.submit(number, op));
                }
                queue.kick();
                queue.reap(&mut |_, _| {});
            })
        });
    });
}

/// From a decoded command to the backend's answer: the checks against the namespace, `prp` and `backend`.
fn checks(group: &mut Group<'_>, rig: &mut Rig, sqes: &[Sqe]) {
    let namespace = Namespace::new(1, NamespaceConfig::new(null())).expect("the namespace is good");
    let mut queue = null().open_queue(BATCH).expect("it needs nothing");
    let mut segments = SegmentBuf::new(1024, 64 << 20);
    let commands: Vec<(Sqe, IoCommand)> =
        sqes.iter().map(|sqe| (*sqe, decode(sqe).expect("it is a Read"))).collect();
    assert_eq!(namespace.blocks(), NAMESPACE / 512);
    group.bench_function("issue", |b| {
        b.iter_custom(|n| {
            BatchTimer::new(n, BATCH).time(|| {
                for (sqe, command) in black_box(&commands) {
                    let mut context = Context {
                        snapshot: rig.reader.snapshot(),
                        segments: &mut segments,
                        page_size: 4096,
                        max_transfer: 1 << 20,
                    };
                    let request = Request { command, sqe, tag: 1, skip: 0 };
                    black_box(issue(request, &namespace, queue.as_mut(), &mut context));
                }
            })
        });
    });
}

/// A turn that finds nothing, and a batch from its doorbell to its last completion.
fn turns(group: &mut Group<'_>) {
    let mut local = Local::new(&null(), Layout::default());
    group.bench_function("turn", |b| {
        b.iter_custom(|n| {
            BatchTimer::new(n, BATCH).time(|| {
                black_box(local.turn());
            })
        });
    });
    group.bench_function("whole", |b| {
        b.iter_custom(|n| {
            BatchTimer::new(n, BATCH).time_after(
                &mut local,
                |local| local.put(BATCH),
                |local| local.serve(BATCH),
            )
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = stages
}
criterion_main!(benches);
