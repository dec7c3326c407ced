//! From a command in the submission queue to its completion, on the caller's thread: the whole hot path, and neither
//! a scheduler nor a wake-up in it. Each figure is the time of one command.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nvmet_benches::{Guest, NAMESPACE};
use nvmet_block::{Backend, NullBackend, RamBackend};
use nvmet_core::worker::LocalWorker;

fn sqe_to_cqe(c: &mut Criterion) {
    let mut group = c.benchmark_group("sqe_to_cqe");
    group.throughput(Throughput::Elements(1));
    let null: Arc<dyn Backend> = Arc::new(NullBackend::new(NAMESPACE, false).expect("the size is good"));
    let ram: Arc<dyn Backend> = Arc::new(RamBackend::new(NAMESPACE, false).expect("there is memory"));
    for (name, backend) in [("null", null), ("ram_read_4k", ram)] {
        for depth in [1, 32, 128] {
            let mut guest = Guest::new(backend.clone());
            let mut worker = LocalWorker::new().expect("there are descriptors");
            guest.commands(true).into_iter().for_each(|command| worker.send(command));
            worker.turn();
            group.bench_function(BenchmarkId::new(name, format!("qd{depth}")), |b| {
                // Whole batches, but the time of one command.
                b.iter_custom(|commands| {
                    let batches = commands.div_ceil(u64::from(depth));
                    let mut spent = Duration::ZERO;
                    for _ in 0..batches {
                        (0..depth).for_each(|_| guest.put());
                        let start = Instant::now();
                        guest.ring();
                        let mut done = 0;
                        while done < depth {
                            black_box(worker.turn());
                            done += guest.reap();
                        }
                        spent += start.elapsed();
                    }
                    spent.mul_f64(commands as f64 / (batches * u64::from(depth)) as f64)
                });
            });
        }
    }
    group.finish();
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
