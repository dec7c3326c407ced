//! Queues go to the worker that has time, while they are in use, and nothing is lost on the way.

mod common;

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use common::guest::{Guest, LIMIT, page_io};
use common::{namespace, serve_with};
use nvmet_block::{Backend, BackendError, Features, Geometry, IoError, IoQueue, Op, RamBackend, Submitted};
use nvmet_core::device::DoorbellMode;
use nvmet_spec::command::NvmOpcode;
use nvmet_spec::registers::Doorbell;

/// Memory that takes all of a thread's time, and notes whose.
struct Laborious {
    ram: RamBackend,
    workers: Arc<Mutex<HashSet<ThreadId>>>,
}

impl Backend for Laborious {
    fn geometry(&self) -> Geometry {
        self.ram.geometry()
    }

    fn features(&self) -> Features {
        self.ram.features()
    }

    fn open_queue(&self, depth: u32) -> Result<Box<dyn IoQueue>, BackendError> {
        Ok(Box::new(LaboriousQueue { ram: self.ram.open_queue(depth)?, workers: Arc::clone(&self.workers) }))
    }

    fn sync(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn describe(&self) -> String {
        "laborious".to_owned()
    }
}

struct LaboriousQueue {
    ram: Box<dyn IoQueue>,
    workers: Arc<Mutex<HashSet<ThreadId>>>,
}

impl IoQueue for LaboriousQueue {
    fn submit(&mut self, tag: u64, op: Op<'_>) -> Submitted {
        self.workers.lock().unwrap().insert(std::thread::current().id());
        let until = Instant::now() + Duration::from_micros(200);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        self.ram.submit(tag, op)
    }

    fn kick(&mut self) {
        self.ram.kick();
    }

    fn reap(&mut self, done: &mut dyn FnMut(u64, Result<(), IoError>)) {
        self.ram.reap(done);
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        self.ram.ready()
    }

    fn in_flight(&self) -> usize {
        self.ram.in_flight()
    }

    fn cancel(&mut self, tag: u64) {
        self.ram.cancel(tag);
    }
}

#[test]
fn of_two_busy_queues_of_one_worker_the_idle_worker_gets_one_and_both_go_on() {
    const DEPTH: u32 = 16;
    let workers = Arc::default();
    let backend = Laborious { ram: RamBackend::new(16 << 20, false).unwrap(), workers: Arc::clone(&workers) };
    let served = serve_with(2, vec![namespace(Arc::new(backend), 512)], |config| {
        config.doorbells = DoorbellMode::Trapped;
    });
    let mut guest = Guest::connect(&served.socket);
    guest.enable();
    // Every other queue begins on the same worker.
    let mut rings = [guest.create_pair(1), guest.create_pair(3)];
    let mut outstanding = [0_u32; 2];
    let mut after = 0;
    let end = Instant::now() + LIMIT;
    while after < 50 {
        for (ring, outstanding) in rings.iter_mut().zip(&mut outstanding) {
            while *outstanding < DEPTH {
                guest.push(ring, &page_io(NvmOpcode::Read, *outstanding as u16));
                *outstanding += 1;
            }
            guest.ring_tail(ring);
            while let Some(cqe) = guest.peek(ring) {
                assert!(cqe.status().is_success());
                *outstanding -= 1;
            }
            guest.doorbell(Doorbell::CqHead(ring.cqid), ring.head);
        }
        after += u32::from(workers.lock().unwrap().len() == 2);
        assert!(Instant::now() < end, "the queues stay with one worker");
    }
    // Queues that have moved are deleted where they are now.
    for ring in &mut rings {
        guest.ok(Guest::delete(nvmet_spec::command::AdminOpcode::DeleteIoSq, ring.sqid));
        guest.ok(Guest::delete(nvmet_spec::command::AdminOpcode::DeleteIoCq, ring.cqid));
    }
    guest.assert_alive();
}
