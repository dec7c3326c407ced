//! The parts of the hot path, one by one.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use nvmet_core::io::decode::decode;
use nvmet_core::io::{prp, sgl};
use nvmet_core::queue::{CompletionQueue, CompletionQueueState};
use nvmet_dma::{Access, Direction, DmaSpace, LoopbackMemory, SegmentBuf, SharedMemory};
use nvmet_host::bench::Rng;
use nvmet_spec::command::{NvmOpcode, Sqe};
use nvmet_spec::sgl::{SglDescriptor, SglType};
use zerocopy::IntoBytes;

const BASE: u64 = LoopbackMemory::IOVA;
const PAGE: u64 = 4096;
const LIST: u64 = 2 << 20;

fn memory() -> LoopbackMemory {
    LoopbackMemory::new(4 << 20).expect("there is memory")
}

/// Data pages with gaps, so that none are joined.
fn data(index: u64) -> u64 {
    BASE + index * 2 * PAGE
}

fn prp_walk(c: &mut Criterion) {
    let mut group = c.benchmark_group("prp_walk");
    let memory = memory();
    let list: Vec<u64> = (1..256).map(data).collect();
    memory.memory().write_bytes(LIST as usize, list.as_bytes()).expect("it is inside");
    let (mut reader, mut buf) = (memory.handle().reader(), SegmentBuf::new(1024, 64 << 20));
    for entries in [1, 2, 32, 256] {
        let prp2 = if entries == 2 { data(1) } else { BASE + LIST };
        group.bench_function(BenchmarkId::from_parameter(entries), |b| {
            b.iter(|| {
                let snapshot = reader.snapshot();
                let mut builder = buf.begin(snapshot, Direction::FromGuest);
                let walked = prp::map(snapshot, &mut builder, PAGE, data(0), black_box(prp2), entries * PAGE);
                assert!(walked.is_ok());
                black_box(builder.finish().count())
            });
        });
    }
    group.finish();
}

fn sgl_walk(c: &mut Criterion) {
    let mut group = c.benchmark_group("sgl_walk");
    let memory = memory();
    let list: Vec<SglDescriptor> =
        (0..256).map(|index| SglDescriptor::new(SglType::DataBlock, data(index), PAGE as u32)).collect();
    memory.memory().write_bytes(LIST as usize, list.as_bytes()).expect("it is inside");
    let (mut reader, mut buf) = (memory.handle().reader(), SegmentBuf::new(1024, 64 << 20));
    for entries in [1_u32, 2, 32, 256] {
        let first = match entries {
            1 => SglDescriptor::new(SglType::DataBlock, data(0), PAGE as u32),
            _ => SglDescriptor::new(SglType::LastSegment, BASE + LIST, entries * 16),
        };
        let len = u64::from(entries) * PAGE;
        group.bench_function(BenchmarkId::from_parameter(entries), |b| {
            b.iter(|| {
                let snapshot = reader.snapshot();
                let mut builder = buf.begin(snapshot, Direction::FromGuest);
                assert!(sgl::map(snapshot, &mut builder, black_box(&first), len, false).is_ok());
                black_box(builder.finish().count())
            });
        });
    }
    group.finish();
}

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (name, opcode) in
        [("read", NvmOpcode::Read), ("write", NvmOpcode::Write), ("flush", NvmOpcode::Flush)]
    {
        let sqe = Sqe::new(opcode, 1, 1);
        group.bench_function(name, |b| b.iter(|| decode(black_box(&sqe))));
    }
    group.finish();
}

fn cqe_post(c: &mut Criterion) {
    let memory = memory();
    let mut queue = CompletionQueue::new(CompletionQueueState {
        cqid: 1,
        entries: 1024,
        base: BASE,
        tail: 0,
        head: 0,
        phase: true,
        vector: None,
    });
    queue.attach(memory.handle().reader().snapshot()).expect("it is in memory");
    c.bench_function("cqe_post", |b| {
        b.iter(|| {
            if let Some(permit) = queue.reserve() {
                queue.post(permit, 0, 0, 1, 1, black_box(1), 0);
            }
            queue.set_head(queue.state().tail)
        });
    });
}

/// One page of guest memory to a segment, at random addresses over so many regions.
fn dma_lookup(c: &mut Criterion) {
    const REGION: u64 = 1 << 20;
    const ADDRESSES: usize = 4096;
    let mut group = c.benchmark_group("dma_lookup");
    for regions in [1_u64, 8, 128] {
        let memory = SharedMemory::new((regions * REGION) as usize).expect("there is memory");
        let mut space = DmaSpace::new(|| {});
        // A gap after each: neighbours would not be one region to a guest either.
        let base = |region: u64| BASE + region * 2 * REGION;
        for region in 0..regions {
            let fd = memory.fd().try_clone_to_owned().expect("there are descriptors");
            space.map(base(region), REGION, region * REGION, Access::READ_WRITE, Some(fd)).expect("it fits");
        }
        let mut rng = Rng::new(regions);
        let addresses: Vec<u64> =
            (0..ADDRESSES).map(|_| base(rng.below(regions)) + rng.below(REGION / PAGE) * PAGE).collect();
        let (mut reader, mut buf) = (space.handle().reader(), SegmentBuf::new(16, 1 << 20));
        let mut at = 0;
        group.bench_function(BenchmarkId::from_parameter(regions), |b| {
            b.iter(|| {
                at = (at + 1) % ADDRESSES;
                let mut builder = buf.begin(reader.snapshot(), Direction::ToGuest);
                assert!(builder.push(addresses[at], PAGE as usize).is_ok());
                black_box(builder.finish().count())
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700));
    targets = prp_walk, sgl_walk, decoding, cqe_post, dma_lookup
}
criterion_main!(benches);
