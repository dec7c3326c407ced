//! The data side of each backend by itself: 4 KiB at random offsets, `qdN` in flight. Each figure is the time of one
//! operation: the inverse of the operations a second, not a latency.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use nvmet_benches::{DEPTHS, DataQueue, Place, TRANSFER, null, places};
use nvmet_block::{Backend, BackendSpec, OpenOptions, RamBackend, open};

/// Larger than the caches; a file is written once in full.
const SIZE: u64 = 256 << 20;
/// Depths of the reads; writes have those of [`DEPTHS`].
const READ_DEPTHS: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// A backend that is made when the first benchmark wants it: a filter may leave it out.
struct Lazy<'a> {
    name: String,
    make: Box<dyn Fn() -> Arc<dyn Backend> + 'a>,
    made: Option<Arc<dyn Backend>>,
}

impl<'a> Lazy<'a> {
    fn new(name: impl Into<String>, make: impl Fn() -> Arc<dyn Backend> + 'a) -> Self {
        Self { name: name.into(), make: Box::new(make), made: None }
    }

    fn get(&mut self) -> Arc<dyn Backend> {
        let made = self.made.get_or_insert_with(|| {
            let backend = (self.make)();
            if backend.features().stores_data {
                DataQueue::open(backend.as_ref(), 1).expect("it was tried").fill();
            }
            backend
        });
        Arc::clone(made)
    }
}

fn file(place: &Place) -> Arc<dyn Backend> {
    let path = place.path(&format!("{}.img", std::process::id()));
    let options = OpenOptions { create: (!path.exists()).then_some(SIZE), ..OpenOptions::default() };
    open(&BackendSpec::Path(path), options).expect("the file was tried")
}

/// Whether files can be served at a place: some systems forbid io_uring.
fn works(place: &Place) -> bool {
    let backend = file(place);
    match DataQueue::open(backend.as_ref(), 1) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("file_{} is left out: {error}", place.name);
            false
        }
    }
}

fn io_queue(c: &mut Criterion) {
    let places = places();
    let mut backends = vec![
        Lazy::new("null", null),
        Lazy::new("ram", || Arc::new(RamBackend::new(SIZE, false).expect("there is memory"))),
    ];
    for place in places.iter().filter(|place| works(place)) {
        backends.push(Lazy::new(format!("file_{}", place.name), || file(place)));
    }
    let mut group = c.benchmark_group("io_queue");
    group.throughput(Throughput::Bytes(TRANSFER as u64)).sampling_mode(SamplingMode::Flat);
    for backend in &mut backends {
        for (suffix, depths, write) in [("", &READ_DEPTHS[..], false), ("_write", &DEPTHS[..], true)] {
            let name = format!("{}{suffix}", backend.name);
            for &depth in depths {
                group.bench_function(BenchmarkId::new(&name, format!("qd{depth}")), |b| {
                    let mut queue = DataQueue::open(backend.get().as_ref(), depth).expect("it was tried");
                    b.iter_custom(|operations| queue.run(operations, write));
                });
            }
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = io_queue
}
criterion_main!(benches);
