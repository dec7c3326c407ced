//! What idle queues cost a busy one: one queue pair works, on a worker that has `N` of them in all, 64 a controller.
//! Each figure is the time of one command; it should not grow with `N`.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nvmet_benches::{BatchTimer, Layout, Local, null};

/// Queue pairs of a controller.
const EACH: u16 = 64;

fn queues(c: &mut Criterion) {
    let mut group = c.benchmark_group("scale/queues");
    group.throughput(Throughput::Elements(1));
    let backend = null();
    for (doorbells, shadow) in [("mapped", false), ("shadow", true)] {
        for depth in [1, 32] {
            for total in [1_u16, 64, 512] {
                let name = BenchmarkId::new(format!("{doorbells}_qd{depth}"), total);
                group.bench_function(name, |b| {
                    let layout = Layout { queues: total.min(EACH), shadow, ..Layout::default() };
                    let others = vec![layout; usize::from(total.div_ceil(EACH)) - 1];
                    let mut local = Local::among(&backend, layout, &others);
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
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(700));
    targets = queues
}
criterion_main!(benches);
