//! Queues go to the worker that has time, while they are in use, and nothing is lost on the way.

mod common;

use std::time::Instant;

use common::guest::{Guest, LIMIT, page_io};
use common::laborious::Laborious;
use common::{namespace, serve_with};
use nvmet_core::device::DoorbellMode;
use nvmet_spec::command::NvmOpcode;
use nvmet_spec::registers::Doorbell;

#[test]
fn of_two_busy_queues_of_one_worker_the_idle_worker_gets_one_and_both_go_on() {
    const DEPTH: u32 = 16;
    let (backend, workers) = Laborious::new(16 << 20, |_| true);
    let served = serve_with(2, vec![namespace(backend, 512)], |config| {
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
