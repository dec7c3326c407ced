//! Guest memory that goes and comes back under live queues.

use nvmet_dma::Access;

use super::backend::TestBackend;
use super::rig::{BASE, MEMORY, Rig, read};
use crate::worker::{Command, Event};

fn unmap(rig: &mut Rig) {
    let retired = rig.guest.memory.space().unmap_all();
    let key = rig.guest.key();
    rig.obey(Command::Refresh { key });
    assert!(retired.is_done(), "the worker has let go");
}

fn map(rig: &mut Rig, from: u64) {
    let fd = rig.guest.memory.memory().fd().try_clone_to_owned().unwrap();
    let size = MEMORY as u64 - from;
    rig.guest.memory.space().map(BASE + from, size, from, Access::READ_WRITE, Some(fd)).unwrap();
    let key = rig.guest.key();
    rig.obey(Command::Refresh { key });
}

#[test]
fn queues_rest_while_their_memory_is_away() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    assert!(rig.one(read(1)).status().is_success());
    unmap(&mut rig);
    rig.put(read(1));
    rig.run();
    assert_eq!(rig.completions().len(), 0);
    map(&mut rig, 0);
    assert_eq!(rig.completions().len(), 1);
    assert_eq!(rig.guest.interrupts(1), 2);
}

#[test]
fn completions_of_the_time_without_memory_come_with_an_interrupt() {
    let backend = TestBackend::held(8);
    let mut rig = Rig::new([backend.clone() as _]);
    rig.put_all([read(1); 3]);
    rig.run();
    // The test backend has moved the data already and holds no memory, so the worker alone decides.
    unmap(&mut rig);
    backend.release();
    rig.settle();
    assert_eq!((rig.completions().len(), rig.guest.interrupts(1)), (0, 0));
    map(&mut rig, 0);
    assert_eq!((rig.completions().len(), rig.guest.interrupts(1)), (3, 1));
    assert!(rig.one(read(1)).status().is_success());
}

#[test]
fn memory_that_comes_back_unannounced_still_brings_the_interrupt() {
    let backend = TestBackend::held(8);
    let mut rig = Rig::new([backend.clone() as _]);
    rig.put(read(1));
    rig.run();
    unmap(&mut rig);
    backend.release();
    rig.settle();
    let fd = rig.guest.memory.memory().fd().try_clone_to_owned().unwrap();
    rig.guest.memory.space().map(BASE, MEMORY as u64, 0, Access::READ_WRITE, Some(fd)).unwrap();
    rig.settle();
    assert_eq!((rig.completions().len(), rig.guest.interrupts(1)), (1, 1));
}

#[test]
fn shadow_doorbells_out_of_reach_are_not_replaced_by_older_registers() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let command = rig.guest.set_shadow();
    rig.obey(command);
    assert!(matches!(rig.guest.event(), Some(Event::ShadowSet)));
    for _ in 0..20 {
        assert!(rig.one(read(1)).status().is_success());
    }
    unmap(&mut rig);
    // The queues are back, the shadow buffers are not; the registers hold what was rung last.
    map(&mut rig, 0x2000);
    rig.put(read(1));
    rig.run();
    assert_eq!(rig.completions().len(), 0, "no command is fetched twice");
    unmap(&mut rig);
    map(&mut rig, 0);
    assert_eq!(rig.completions().len(), 1);
}

#[test]
fn nothing_is_fetched_while_the_shadow_buffers_cannot_be_reached() {
    let mut rig = Rig::new([TestBackend::new() as _]);
    let key = rig.guest.key();
    rig.obey(Command::SetShadow { key, doorbells: BASE - 4096, event_idx: BASE });
    assert!(matches!(rig.guest.event(), Some(Event::ShadowSet)));
    rig.put(read(1));
    rig.run();
    assert_eq!(rig.completions().len(), 0, "the registers are no truth any more");
}
