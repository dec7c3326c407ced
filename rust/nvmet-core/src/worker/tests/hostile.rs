//! Guests that write what makes no sense, and much of it.

use nvmet_spec::status::Status;

use super::backend::TestBackend;
use super::rig::{Guest, Rig, read, subsystem};
use crate::worker::{Command, Event};

#[test]
fn a_queue_that_was_armed_at_an_invalid_tail_goes_on() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let set = rig.guest.set_shadow();
    rig.obey(set);
    for garbage in [64, 60_000, 0xffff] {
        rig.guest.scribble(&mut rig.sq, garbage);
        rig.settle();
        assert!(rig.worker.doze(), "nothing to do");
        rig.put(read(1));
        assert!(rig.guest.ring(&mut rig.sq), "it is armed");
        rig.obey(Command::Rung { key: rig.guest.key(), cqid: 1 });
        assert_eq!(rig.completions().len(), 1);
    }
}

#[test]
fn invalid_doorbells_wait_for_the_control_thread_in_bounded_number() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let set = rig.guest.set_shadow();
    rig.obey(set);
    let flood = |rig: &mut Rig| {
        for round in 0..10_000 {
            rig.guest.scribble(&mut rig.sq, 1000 + round);
            rig.worker.turn();
        }
        let events = std::iter::from_fn(|| rig.guest.event());
        let told = events.filter(|event| matches!(event, Event::InvalidDoorbell(_))).count();
        (0..told).for_each(|_| rig.guest.link.heard_of_invalid_doorbell());
        told
    };
    for _ in 0..3 {
        let told = flood(&mut rig);
        assert!((1..=128).contains(&told), "{told}");
    }
    assert!(rig.one(read(1)).status().is_success());
}

#[test]
fn a_host_that_writes_without_ringing_keeps_nobody_awake() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let set = rig.guest.set_shadow();
    rig.obey(set);
    // Somebody else's client of the same worker maps its doorbells, so resting queues are looked at.
    let other = Guest::new(subsystem([TestBackend::new() as _]));
    rig.worker.send(other.attach(true));
    rig.settle();
    assert!(rig.worker.doze());
    rig.put(read(1));
    assert!(rig.guest.ring(&mut rig.sq), "armed: it has to ring, and does not");
    assert!(rig.worker.doze(), "else it would spin for ever, without looking at the queue");
    rig.obey(Command::Rung { key: rig.guest.key(), cqid: 1 });
    assert_eq!(rig.completions().len(), 1);
}

#[test]
fn of_two_aborts_of_a_waiting_command_none_waits_for_the_next_one_with_its_identifier() {
    let mut rig = Rig::with(subsystem([TestBackend::new() as _]), 8, 2);
    // The completion queue has room for the first one alone.
    let first = rig.put(read(1));
    let second = rig.put(read(1));
    rig.run();
    assert_eq!(rig.next().unwrap().cid, first);
    let key = rig.guest.key();
    for token in [1, 2] {
        rig.obey(Command::Abort { key, sqid: 1, cid: second, token });
    }
    assert!(matches!(rig.guest.event(), Some(Event::Aborted { token: 2, aborted: false })));
    rig.guest.ring_cq(&mut rig.cq);
    rig.settle();
    assert!(matches!(rig.guest.event(), Some(Event::Aborted { token: 1, aborted: true })));
    assert!(rig.completions()[0].status().is(Status::ABORT_REQUESTED));
    rig.guest.next_cid_is(second);
    assert!(rig.one(read(1)).status().is_success());
}
