//! A delegate whose consumer is a thread with a vector.

use std::sync::Mutex;
use std::thread::JoinHandle;

use super::*;
use crate::conformance::rig::{Request as Ask, Rig};
use crate::conformance::{self, Options};
use crate::queue::Submitted;

const SIZE: u64 = 1 << 20;

fn config() -> DelegateConfig {
    DelegateConfig {
        what: "vector".to_owned(),
        size: SIZE,
        block_size: 512,
        read_only: false,
        flush: true,
        discard: true,
        timeout: None,
    }
}

fn carry_out(disk: &Mutex<Vec<u8>>, request: &Request) {
    let mut disk = disk.lock().unwrap();
    let range = request.offset as usize..(request.offset + request.len) as usize;
    let frames = request.frames.as_ref();
    let result = match request.kind {
        Kind::Read => {
            let frames = frames.unwrap();
            frames.arena().write_bytes(frames.at(), &disk[range]).unwrap();
            Ok(())
        }
        Kind::Write => {
            let frames = frames.unwrap();
            frames.arena().read_bytes(frames.at(), &mut disk[range]).unwrap();
            Ok(())
        }
        Kind::Compare => {
            let frames = frames.unwrap();
            let mut wanted = vec![0; frames.len()];
            frames.arena().read_bytes(frames.at(), &mut wanted).unwrap();
            if disk[range] == wanted { Ok(()) } else { Err(IoError::CompareFailed) }
        }
        Kind::WriteZeroes | Kind::Deallocate => {
            disk[range].fill(0);
            Ok(())
        }
        Kind::Flush => Ok(()),
    };
    drop(disk);
    request.complete(result);
}

/// Carries out until the backend is dropped.
fn servant(consumer: Consumer, disk: &Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let disk = Arc::clone(disk);
    std::thread::spawn(move || {
        loop {
            let taken = consumer.take(16, true, None);
            taken.requests.iter().for_each(|request| carry_out(&disk, request));
            if taken.closed {
                return;
            }
        }
    })
}

fn disk() -> Arc<Mutex<Vec<u8>>> {
    Arc::new(Mutex::new(vec![0; SIZE as usize]))
}

fn rig(delegate: &Delegate) -> Rig {
    let options = Options { depth: 8, patience: Duration::from_secs(30), ..Options::default() };
    Rig::new(delegate, &options).unwrap()
}

fn read(offset: u64) -> Ask {
    Ask::Read { offset, places: vec![(0, 4096)] }
}

fn write(offset: u64) -> Ask {
    Ask::Write { offset, places: vec![(8192, 4096)], fua: false }
}

#[test]
fn it_passes_the_conformance_suite() {
    let cases = [(true, true, None), (false, false, None), (true, true, Some(Duration::from_secs(60)))];
    for (flush, discard, timeout) in cases {
        let disk = disk();
        let (delegate, consumer) =
            Delegate::new(DelegateConfig { flush, discard, timeout, ..config() }).unwrap();
        let threads = [servant(consumer.clone(), &disk), servant(consumer, &disk)];
        let report = conformance::run(&*delegate, Options::default());
        delegate.sync().unwrap();
        drop(delegate);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(report.passed(), "{report}");
    }
}

#[test]
fn what_needs_no_consumer_ends_without_one() {
    let config = DelegateConfig { flush: false, discard: false, ..config() };
    let (delegate, _consumer) = Delegate::new(config).unwrap();
    let mut rig = rig(&delegate);
    for ask in [Ask::Flush, Ask::Deallocate { offset: 0, len: 4096 }, Ask::Read { offset: 0, places: vec![] }]
    {
        assert_eq!(rig.submit(1, &ask).unwrap(), Submitted::Done(Ok(())), "{ask:?}");
    }
    delegate.sync().unwrap();
}

#[test]
fn a_cancelled_operation_ends_at_once_although_its_consumer_goes_on() {
    let (delegate, consumer) = Delegate::new(config()).unwrap();
    let mut rig = rig(&delegate);
    rig.put(0, &[7; 4096]).unwrap();
    rig.start(1, &read(0)).unwrap();
    rig.start(2, &read(4096)).unwrap();
    rig.queue().kick();
    let taken = consumer.take(1, false, None).requests;
    // One that a consumer has, and one that nobody has seen.
    rig.queue().cancel(1);
    rig.queue().cancel(2);
    rig.queue().cancel(77);
    let done = rig.finish().unwrap();
    assert_eq!(
        done.into_iter().collect::<Vec<_>>(),
        [(1, Err(IoError::Aborted)), (2, Err(IoError::Aborted))]
    );
    assert_eq!(consumer.waiting(), 0);
    let told = consumer.take(1, false, Some(Duration::ZERO));
    assert!(Arc::ptr_eq(&told.given_up[0], &taken[0]) && told.requests.is_empty());
    // Too late: it changes frames, and nothing else.
    let frames = taken[0].frames.clone().unwrap();
    frames.arena().write_bytes(frames.at(), &[9; 4096]).unwrap();
    assert!(!taken[0].complete(Ok(())));
    assert_eq!(rig.reap(), 0);
    assert_eq!(rig.get(0, 4096).unwrap(), [7; 4096]);
}

#[test]
fn frames_that_a_consumer_still_has_are_given_to_no_other_operation() {
    let (delegate, consumer) = Delegate::new(config()).unwrap();
    let mut rig = rig(&delegate);
    rig.start(1, &read(0)).unwrap();
    rig.queue().kick();
    let hangs = consumer.take(1, false, None).requests;
    rig.queue().cancel(1);
    rig.finish().unwrap();
    // The kernel may write to these for as long as it likes.
    let kept = hangs[0].frames.clone().unwrap();
    drop(hangs);
    drop(consumer.take(1, false, Some(Duration::ZERO)));
    rig.start(2, &read(0)).unwrap();
    rig.queue().kick();
    let next = consumer.take(1, false, None).requests;
    let frames = next[0].frames.clone().unwrap();
    assert!(frames.at().abs_diff(kept.at()) >= 4096);
    // What direct I/O asks for.
    assert!(frames.arena().as_ptr(frames.at(), 4096).unwrap().addr().get().is_multiple_of(4096));
    frames.arena().write_bytes(frames.at(), &[7; 4096]).unwrap();
    kept.arena().write_bytes(kept.at(), &[9; 4096]).unwrap();
    next[0].complete(Ok(()));
    rig.finish().unwrap();
    assert_eq!(rig.get(0, 4096).unwrap(), [7; 4096]);
    // It is there again when nobody has it.
    let at = kept.at();
    drop(kept);
    rig.start(3, &read(0)).unwrap();
    rig.queue().kick();
    let third = consumer.take(1, false, None).requests;
    assert_eq!(third[0].frames.as_ref().map(|frames| frames.at()), Some(at));
}

#[test]
fn guest_memory_is_let_go_of_while_a_consumer_hangs() {
    let (delegate, consumer) = Delegate::new(config()).unwrap();
    let mut rig = rig(&delegate);
    rig.start(1, &read(0)).unwrap();
    rig.queue().kick();
    let hangs = consumer.take(1, false, None);
    rig.queue().cancel(1);
    rig.finish().unwrap();
    assert!(rig.unmap());
    drop(hangs);
}

#[test]
fn what_takes_too_long_fails_and_may_be_tried_again() {
    let limit = Some(Duration::from_millis(20));
    let (delegate, consumer) = Delegate::new(DelegateConfig { timeout: limit, ..config() }).unwrap();
    let mut rig = rig(&delegate);
    rig.start(1, &read(0)).unwrap();
    rig.start(2, &write(0)).unwrap();
    rig.queue().kick();
    let hangs = consumer.take(1, false, None);
    let done = rig.finish().unwrap();
    assert_eq!(done.into_iter().collect::<Vec<_>>(), [(1, Err(IoError::Retry)), (2, Err(IoError::Retry))]);
    assert_eq!(delegate.sync(), Err(IoError::Retry));
    assert!(!hangs.requests[0].complete(Ok(())));
    assert_eq!(consumer.waiting(), 0);
}

#[test]
fn a_backend_that_has_ended_answers_so() {
    let (delegate, consumer) = Delegate::new(config()).unwrap();
    let mut rig = rig(&delegate);
    rig.start(1, &write(0)).unwrap();
    rig.start(2, &write(0)).unwrap();
    rig.queue().kick();
    let taken = consumer.take(1, false, None).requests;
    consumer.close();
    assert!(consumer.take(1, false, None).closed);
    rig.start(3, &write(0)).unwrap();
    rig.queue().kick();
    assert!(taken[0].complete(Ok(())));
    let done = rig.finish().unwrap();
    let gone = Err(IoError::Gone);
    assert_eq!(done.into_iter().collect::<Vec<_>>(), [(1, Ok(())), (2, gone), (3, gone)]);
    assert_eq!(delegate.sync(), Err(IoError::Gone));
}

#[test]
fn a_full_slab_makes_the_queue_full_until_something_ends() {
    let config = DelegateConfig { size: 1 << 30, ..config() };
    let (delegate, consumer) = Delegate::new(config).unwrap();
    let options = Options { depth: 1024, ..Options::default() };
    let mut rig = Rig::new(&*delegate, &options).unwrap();
    let large = Ask::Read { offset: 0, places: vec![(0, 4 << 20)] };
    let mut tags = 0;
    while rig.submit(tags, &large).unwrap() == Submitted::Pending {
        tags += 1;
    }
    // 64 MiB, of which rounding loses a part at most.
    assert!((12..=16).contains(&tags), "{tags}");
    rig.queue().kick();
    let taken = consumer.take(100, true, None).requests;
    taken[0].complete(Ok(()));
    drop(taken);
    assert_eq!(rig.reap(), 1);
    assert_eq!(rig.submit(tags, &large).unwrap(), Submitted::Pending);
}

#[test]
fn a_batch_that_is_to_lie_together_has_one_arena() {
    let (delegate, consumer) = Delegate::new(config()).unwrap();
    let mut rigs = [rig(&delegate), rig(&delegate)];
    for round in 0..2 {
        for rig in &mut rigs {
            rig.start(round, &read(0)).unwrap();
            rig.queue().kick();
        }
    }
    let mut seen = 0;
    while seen < 4 {
        let taken = consumer.take(10, true, Some(Duration::ZERO)).requests;
        let arena = taken[0].frames.as_ref().unwrap().arena();
        assert!(taken.iter().all(|request| Arc::ptr_eq(request.frames.as_ref().unwrap().arena(), arena)));
        seen += taken.len();
    }
    assert_eq!(consumer.take(1, false, Some(Duration::ZERO)).requests.len(), 0);
}

#[test]
fn a_smaller_size_holds_at_once_and_a_larger_one_for_queues_opened_later() {
    let (delegate, consumer) = Delegate::new(config()).unwrap();
    let thread = servant(consumer, &disk());
    let mut old = rig(&delegate);
    delegate.set_size(SIZE / 2).unwrap();
    assert!(delegate.set_size(511).is_err() && delegate.set_size(0).is_err());
    assert_eq!(delegate.geometry().size, SIZE / 2);
    assert_eq!(old.run(&read(SIZE - 4096)).unwrap(), Err(IoError::OutOfRange));
    assert_eq!(old.run(&read(0)).unwrap(), Ok(()));
    delegate.set_size(2 * SIZE).unwrap();
    assert_eq!(old.run(&read(SIZE)).unwrap(), Err(IoError::OutOfRange));
    drop((old, delegate));
    thread.join().unwrap();
}

#[test]
fn what_waits_beyond_a_smaller_size_is_not_carried_out() {
    let (delegate, consumer) = Delegate::new(config()).unwrap();
    let mut rig = rig(&delegate);
    rig.start(1, &write(0)).unwrap();
    rig.start(2, &write(SIZE - 4096)).unwrap();
    rig.queue().kick();
    delegate.set_size(SIZE / 2).unwrap();
    let taken = consumer.take(8, false, None).requests;
    assert_eq!(taken.len(), 1);
    taken[0].complete(Ok(()));
    let done = rig.finish().unwrap();
    assert_eq!(done.into_iter().collect::<Vec<_>>(), [(1, Ok(())), (2, Err(IoError::OutOfRange))]);
}

#[test]
fn a_poke_brings_one_consumer_back() {
    let (_delegate, consumer) = Delegate::new(config()).unwrap();
    consumer.poke();
    let taken = consumer.take(1, false, None);
    assert!(taken.requests.is_empty() && !taken.closed);
    let sleeper = std::thread::spawn({
        let consumer = consumer.clone();
        move || consumer.take(1, false, None).closed
    });
    consumer.poke();
    assert!(!sleeper.join().unwrap());
}

#[test]
fn who_has_no_room_learns_of_what_was_given_up_and_of_the_end() {
    let (delegate, consumer) = Delegate::new(config()).unwrap();
    let mut rig = rig(&delegate);
    rig.start(1, &read(0)).unwrap();
    rig.start(2, &read(0)).unwrap();
    rig.queue().kick();
    let taken = consumer.take(1, false, None).requests;
    rig.queue().cancel(1);
    let told = consumer.take(0, false, Some(Duration::ZERO));
    assert!(told.requests.is_empty() && Arc::ptr_eq(&told.given_up[0], &taken[0]) && !told.closed);
    assert_eq!(consumer.waiting(), 1);
    consumer.close();
    assert!(consumer.take(0, false, None).closed);
    rig.finish().unwrap();
}

#[test]
fn a_flush_that_takes_too_long_is_given_up() {
    let limit = Some(Duration::from_millis(20));
    let (delegate, consumer) = Delegate::new(DelegateConfig { timeout: limit, ..config() }).unwrap();
    let hangs = std::thread::spawn(move || {
        let taken = consumer.take(1, false, None).requests;
        (consumer.take(1, false, None).given_up, taken)
    });
    assert_eq!(delegate.sync(), Err(IoError::Retry));
    let (given_up, taken) = hangs.join().unwrap();
    assert!(Arc::ptr_eq(&given_up[0], &taken[0]));
}

#[test]
fn what_has_ended_behind_one_that_hangs_is_not_watched() {
    let limit = Some(Duration::from_secs(3600));
    let (delegate, consumer) = Delegate::new(DelegateConfig { timeout: limit, ..config() }).unwrap();
    let mut rig = rig(&delegate);
    rig.start(1, &read(0)).unwrap();
    rig.queue().kick();
    let hangs = consumer.take(1, false, None);
    for _ in 0..20_000 {
        rig.start(2, &read(0)).unwrap();
        rig.queue().kick();
        assert!(consumer.take(1, false, None).requests[0].complete(Ok(())));
        assert_eq!(rig.reap(), 1);
    }
    assert!(delegate.watchdog.as_ref().unwrap().watched() < 10_000);
    drop(hangs);
}
