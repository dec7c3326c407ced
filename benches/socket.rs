//! End to end without Python: a target's worker and control thread on one side of a socket, an NVMe driver on the
//! other, `qdN` Reads of 4 KiB in flight on one queue. Each figure is the time of one command: at `qd1` its latency.
//!
//! `trapped` is the mode of QEMU and Cloud Hypervisor: doorbells are messages, made rare by Doorbell Buffer Config.
//! Two processors are needed; with fewer the scheduler is what is measured.

use std::path::Path;
use std::time::Duration;

use criterion::{Bencher, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use nvmet_benches::{DEPTHS, Load, null, ram, serve};
use nvmet_core::device::DoorbellMode;
use nvmet_core::target::{Target, TargetConfig};

/// Queue pairs of a guest with many processors, one of which works.
const MANY: u16 = 64;

fn measure(b: &mut Bencher<'_>, path: &Path, queues: u16, depth: u32) {
    let mut load = Load::attach(path, queues, depth as u16).expect("the target answers");
    // Idle queues are let go of after a thousand turns.
    load.run(u64::from(depth) * 2048).expect("the target lives");
    b.iter_custom(|commands| load.run(commands).expect("the target lives"));
}

fn socket(c: &mut Criterion) {
    let place = tempfile::tempdir().expect("there is a place for sockets");
    let mut group = c.benchmark_group("socket");
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
    for (doorbells, mode) in [("mapped", DoorbellMode::Mapped), ("trapped", DoorbellMode::Trapped)] {
        for (name, backend) in [("null", null()), ("ram", ram())] {
            let target = Target::start(TargetConfig::default()).expect("there are threads");
            let path = place.path().join(format!("{doorbells}-{name}"));
            serve(&target, &path, mode, backend).expect("there is a socket");
            for depth in DEPTHS {
                let id = BenchmarkId::new(format!("{doorbells}/{name}"), format!("qd{depth}"));
                group.bench_function(id, |b| measure(b, &path, 1, depth));
            }
            if name == "null" {
                let id = BenchmarkId::new(format!("{doorbells}/null_of_{MANY}_queues"), "qd1");
                group.bench_function(id, |b| measure(b, &path, MANY, 1));
            }
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = socket
}
criterion_main!(benches);
