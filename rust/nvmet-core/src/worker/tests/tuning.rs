//! Interrupts that are held back or not, and what the host sets about its queues.

use super::backend::TestBackend;
use super::rig::{Rig, read, subsystem};
use crate::worker::{Coalescing, Command, Event, Tuning};

/// Longer than any test.
const HOUR: u64 = 3_600_000_000_000;

fn rig() -> Rig {
    Rig::new([TestBackend::new() as _])
}

fn tune(rig: &mut Rig, change: impl FnOnce(&mut Tuning)) {
    let mut tuning = Tuning::DEFAULT;
    change(&mut tuning);
    let key = rig.guest.key();
    rig.obey(Command::Tune { key, tuning });
}

/// Commands are completed, and the worker goes on without a rest.
fn turn(rig: &mut Rig, commands: usize) -> u64 {
    rig.put_all(vec![read(1); commands]);
    rig.guest.ring(&mut rig.sq);
    assert_eq!(rig.worker.turn(), commands > 0);
    rig.guest.interrupts(1)
}

#[test]
fn a_host_that_is_behind_is_not_told_again_unless_the_worker_rests() {
    let mut rig = rig();
    assert_eq!(turn(&mut rig, 3), 1);
    assert_eq!(turn(&mut rig, 2), 0, "it will come by");
    // LocalWorker does before a rest what others do before a sleep.
    assert_eq!(turn(&mut rig, 0), 1);
    assert_eq!(turn(&mut rig, 0), 0);
    assert_eq!(rig.completions().len(), 5);
    assert_eq!(turn(&mut rig, 1), 1);
}

#[test]
fn a_head_short_of_what_was_posted_is_answered_in_the_same_turn() {
    let mut rig = rig();
    assert_eq!(turn(&mut rig, 1), 1);
    assert!(rig.next().is_some() && rig.next().is_none());
    assert_eq!(turn(&mut rig, 1), 0);
    // It had found nothing after the first one.
    rig.guest.ring_cq(&mut rig.cq);
    assert_eq!(turn(&mut rig, 1), 1);
}

#[test]
fn what_the_host_took_meanwhile_needs_no_interrupt() {
    let mut rig = rig();
    assert_eq!(turn(&mut rig, 1), 1);
    assert_eq!(turn(&mut rig, 1), 0);
    assert_eq!(rig.completions().len(), 2);
    assert_eq!(turn(&mut rig, 0), 0);
}

#[test]
fn coalescing_gathers_up_to_the_threshold_also_over_a_rest() {
    let mut rig = rig();
    tune(&mut rig, |tuning| tuning.coalescing = Some(Coalescing { threshold: 4, time: HOUR }));
    for _ in 0..3 {
        assert_eq!([turn(&mut rig, 1), turn(&mut rig, 0), turn(&mut rig, 2), turn(&mut rig, 0)], [0; 4]);
        assert_eq!(turn(&mut rig, 1), 1);
        assert_eq!(rig.completions().len(), 4);
        assert_eq!(turn(&mut rig, 9), 1);
        assert_eq!(rig.completions().len(), 9);
    }
    assert_eq!(turn(&mut rig, 1), 0);
    tune(&mut rig, |_| {});
    assert_eq!(rig.guest.interrupts(1), 1, "what was gathered when it was turned off");
}

#[test]
fn a_group_that_goes_to_another_worker_takes_no_interrupt_along() {
    for coalescing in [None, Some(Coalescing { threshold: 40, time: HOUR })] {
        let mut rig = rig();
        tune(&mut rig, |tuning| tuning.coalescing = coalescing);
        assert_eq!(turn(&mut rig, 2), u64::from(coalescing.is_none()));
        assert_eq!(turn(&mut rig, 3), 0);
        rig.worker.send(Command::Release { key: rig.guest.key(), cqid: 1 });
        assert!(rig.worker.turn());
        assert!(matches!(rig.guest.event(), Some(Event::Released { .. })));
        assert_eq!(rig.guest.interrupts(1), 1);
    }
}

#[test]
fn coalescing_is_over_when_its_time_is() {
    let mut rig = rig();
    tune(&mut rig, |tuning| tuning.coalescing = Some(Coalescing { threshold: 40, time: 1 }));
    for _ in 0..10 {
        let at_once = turn(&mut rig, 1);
        assert_eq!(at_once + turn(&mut rig, 0), 1);
        assert_eq!(rig.completions().len(), 1);
    }
}

#[test]
fn a_vector_can_be_exempt_from_coalescing_and_a_full_queue_is_at_its_threshold() {
    let mut rig = Rig::with(subsystem([TestBackend::new() as _]), 64, 4);
    let coalescing = Some(Coalescing { threshold: 200, time: HOUR });
    tune(&mut rig, |tuning| {
        tuning.coalescing = coalescing;
        tuning.uncoalesced.set(1, true);
    });
    assert_eq!(turn(&mut rig, 1), 1);
    assert_eq!(rig.completions().len(), 1);
    tune(&mut rig, |tuning| {
        tuning.coalescing = coalescing;
        tuning.uncoalesced.set(0, true);
    });
    assert_eq!(turn(&mut rig, 2), 0);
    assert_eq!(turn(&mut rig, 5), 1, "three completions are all that it has room for");
    assert_eq!(rig.completions().len(), 3);
}

#[test]
fn the_arbitration_burst_is_how_many_commands_a_queue_has_at_a_time() {
    for burst in [1, 2, 4, 16] {
        let mut rig = rig();
        tune(&mut rig, |tuning| tuning.arbitration_burst = burst as u32);
        let (mut second, add_sq) = rig.guest.add_sq(2, 1, 64);
        rig.obey(add_sq);
        for _ in 0..16 {
            rig.put(read(1));
            rig.guest.put(&mut second, read(1));
        }
        rig.guest.ring(&mut second);
        rig.run();
        let sqids: Vec<u16> = rig.completions().iter().map(|cqe| cqe.sqid).collect();
        let expected: Vec<u16> = (0..32).map(|at| if at / burst % 2 == 0 { 1 } else { 2 }).collect();
        assert!(sqids == expected, "{burst}: {sqids:?}");
    }
}
