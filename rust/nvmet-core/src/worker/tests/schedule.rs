//! Which queues are looked at: none is forgotten, and idle ones cost nothing.

use super::backend::TestBackend;
use super::rig::{Cq, EVENT_IDX, Rig, Sq, read, subsystem};
use crate::worker::Command;

/// More busy turns than any group stays active for without work.
const LONG: u32 = 3000;

/// Queue pair 2 beside pair 1.
fn second(rig: &mut Rig) -> (Sq, Cq) {
    let (cq, add_cq) = rig.guest.add_cq(2, 64);
    let (sq, add_sq) = rig.guest.add_sq(2, 2, 64);
    rig.obey(add_cq);
    rig.obey(add_sq);
    (sq, cq)
}

fn keep_busy(rig: &mut Rig, turns: u32) {
    for _ in 0..turns {
        rig.put(read(1));
        rig.guest.ring(&mut rig.sq);
        rig.worker.turn();
        assert_eq!(rig.completions().len(), 1);
    }
}

#[test]
fn a_resting_queue_is_not_looked_at_before_it_is_rung() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let (mut sq, mut cq) = second(&mut rig);
    keep_busy(&mut rig, LONG);
    rig.guest.put(&mut sq, read(1));
    assert!(rig.guest.ring(&mut sq));
    keep_busy(&mut rig, 10);
    assert!(rig.guest.next(&mut cq).is_none(), "nobody has told the worker");
    let (key, link) = (rig.guest.key(), rig.guest.link.clone());
    assert!(link.ring(2));
    assert!(!link.ring(2), "it has not heard of the first one");
    rig.obey(Command::Rung { key, cqid: 2 });
    assert!(rig.guest.next(&mut cq).is_some());
    assert!(link.ring(2));
}

#[test]
fn a_resting_queue_has_its_host_ring() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let set = rig.guest.set_shadow();
    rig.obey(set);
    let (mut sq, mut cq) = second(&mut rig);
    keep_busy(&mut rig, LONG);
    rig.guest.put(&mut sq, read(1));
    assert!(rig.guest.ring(&mut sq), "EventIdx is armed");
    rig.obey(Command::Rung { key: rig.guest.key(), cqid: 2 });
    assert!(rig.guest.next(&mut cq).is_some());
    for _ in 0..500 {
        rig.guest.put(&mut sq, read(1));
        assert!(!rig.guest.ring(&mut sq), "it is polled now");
        rig.settle();
        assert!(rig.guest.next(&mut cq).is_some());
        rig.guest.ring_cq(&mut cq);
    }
}

#[test]
fn registers_that_were_rung_last_are_where_shadow_doorbells_begin() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    for _ in 0..5 {
        rig.one(read(1));
    }
    // The control thread has seeded the buffers with what the registers were then; the host has rung since.
    rig.guest.memory.memory().store_u32(8, 3).unwrap();
    rig.put(read(1));
    rig.guest.ring(&mut rig.sq);
    let set = rig.guest.set_shadow();
    rig.obey(set);
    assert_eq!(rig.completions().len(), 1, "what was rung is fetched, and nothing twice");
    assert!(rig.one(read(1)).status().is_success());
    // Once more, to other buffers: what counts are the shadow doorbells, not the old registers.
    let key = rig.guest.key();
    let at = |offset: u64| super::rig::BASE + offset;
    rig.obey(Command::SetShadow { key, doorbells: at(0x2000), event_idx: at(0x3000) });
    assert!(rig.completions().is_empty());
    assert_eq!(rig.guest.memory.memory().load_u32(0x2000 + 8).unwrap(), rig.sq.tail);
}

#[test]
fn a_busy_host_does_not_ring_once_a_lap() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let set = rig.guest.set_shadow();
    rig.obey(set);
    let mut rung = 0;
    for round in 0..2000 {
        for _ in 0..1 + round * 7 % 63 {
            rig.put(read(1));
            rung += u32::from(rig.guest.ring(&mut rig.sq));
        }
        rig.settle();
        while rig.next().is_some() {
            rung += u32::from(rig.guest.ring_cq(&mut rig.cq));
        }
        rig.worker.turn();
    }
    // The first one, and what a sudden burst costs.
    assert!(rung <= 20, "{rung} rings");
    let event_idx = rig.guest.memory.memory().load_u32(EVENT_IDX + 8).unwrap();
    assert_ne!(event_idx, rig.sq.tail);
}

#[test]
fn a_resting_queue_of_a_mapped_page_is_found_while_others_are_busy() {
    let mut rig = Rig::with(subsystem([TestBackend::new() as _]), 64, 64);
    // The same guest once more, as a client that maps its doorbells.
    let key = rig.guest.key();
    rig.obey(Command::Quiesce { key });
    rig.guest.event();
    let (cq, add_cq) = rig.guest.add_cq(1, 64);
    let (sq, add_sq) = rig.guest.add_sq(1, 1, 64);
    for command in [rig.guest.attach(true), add_cq, add_sq] {
        rig.worker.send(command);
    }
    rig.settle();
    rig.guest.memory.memory().fill(0x2_0000, 0x2_0000, 0).unwrap();
    (rig.sq, rig.cq) = (sq, cq);
    let mut others: Vec<(Sq, Cq)> = (2..10)
        .map(|qid| {
            let (cq, add_cq) = rig.guest.add_cq(qid, 64);
            let (sq, add_sq) = rig.guest.add_sq(qid, qid, 64);
            rig.obey(add_cq);
            rig.obey(add_sq);
            (sq, cq)
        })
        .collect();
    keep_busy(&mut rig, LONG);
    for (sq, _) in &mut others {
        rig.guest.put(sq, read(1));
        rig.guest.ring(sq);
    }
    keep_busy(&mut rig, 40);
    assert!(others.iter_mut().all(|(_, cq)| rig.guest.next(cq).is_some()));
}
