//! From a command in the submission queue to its completion, on the caller's thread: the whole hot path, and neither
//! a scheduler nor a wake-up in it. Each figure is the time of one command.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nvmet_benches::{BatchTimer, DEPTHS, DataQueue, Layout, Local, null, ram};
use nvmet_block::{Backend, RamBackend};

/// Much larger than any cache.
const LARGE: u64 = 1 << 30;

fn sqe_to_cqe(c: &mut Criterion) {
    let mut group = c.benchmark_group("sqe_to_cqe");
    group.throughput(Throughput::Elements(1));
    // Filled only if it is asked for: a filter may have left it out.
    let mut large = None;
    for name in ["null", "ram_read_4k", "ram_read_4k_1g"] {
        for depth in DEPTHS {
            group.bench_function(BenchmarkId::new(name, format!("qd{depth}")), |b| {
                let backend = match name {
                    "null" => null(),
                    "ram_read_4k" => ram(),
                    _ => Arc::clone(large.get_or_insert_with(filled)),
                };
                let layout = Layout { random: name.ends_with("1g"), ..Layout::default() };
                let mut local = Local::new(&backend, layout);
                b.iter_custom(|commands| {
                    BatchTimer::new(commands, depth).time_after(
                        &mut local,
                        |local| local.put(depth),
                        |local| local.serve(depth),
                    )
                });
            });
        }
    }
    group.finish();
}

/// Memory with content: every page is its own.
fn filled() -> Arc<dyn Backend> {
    let backend: Arc<dyn Backend> = Arc::new(RamBackend::new(LARGE, false).expect("there is memory"));
    DataQueue::open(backend.as_ref(), 1).expect("memory needs nothing").fill();
    backend
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500));
    targets = sqe_to_cqe
}
criterion_main!(benches);
