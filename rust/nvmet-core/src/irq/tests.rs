use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};

use proptest::prelude::*;

use super::*;

/// The client's end of an eventfd, and the one that it sends us.
fn pair() -> (EventFd, EventFd) {
    let client = EventFd::new().expect("eventfd");
    let sent = client.try_clone().expect("dup");
    (client, sent)
}

/// Takes what the eventfd has counted.
fn take(client: &EventFd) -> u64 {
    client.drain().expect("read")
}

#[test]
fn a_signal_reaches_the_eventfd_of_its_vector_only() {
    let vectors = Vectors::new(3);
    let (clients, sent): (Vec<_>, Vec<_>) = (0..3).map(|_| pair()).unzip();
    vectors.assign(0, sent).expect("in range");
    vectors.signal(1);
    vectors.signal(1);
    assert_eq!(clients.iter().map(take).collect::<Vec<_>>(), [0, 2, 0]);
    assert_eq!((vectors.signals(0), vectors.signals(1), vectors.total_signals()), (0, 2, 2));
    assert_eq!(vectors.pending_word(0), 0);
}

#[test]
fn a_signal_without_an_eventfd_is_pending_until_there_is_one() {
    let vectors = Vectors::new(70);
    vectors.signal(69);
    vectors.signal(69);
    assert_eq!((vectors.pending_word(0), vectors.pending_word(1), vectors.pending_word(2)), (0, 1 << 5, 0));
    let (client, sent) = pair();
    vectors.assign(69, vec![sent]).expect("in range");
    assert_eq!(take(&client), 1, "once, however often it was signalled");
    assert_eq!(vectors.pending_word(1), 0);
}

#[test]
fn switching_all_off_and_on_again_loses_nothing() {
    let vectors = Vectors::new(2);
    let (old, sent) = pair();
    vectors.assign(0, vec![sent]).expect("in range");
    vectors.disable_all();
    vectors.signal(0);
    let (new, sent) = pair();
    vectors.assign(0, vec![sent]).expect("in range");
    assert_eq!((take(&old), take(&new)), (0, 1));
}

#[test]
fn a_repointed_vector_fires_the_new_eventfd() {
    let vectors = Vectors::new(1);
    let (old, sent) = pair();
    vectors.assign(0, vec![sent]).expect("in range");
    let (new, sent) = pair();
    vectors.assign(0, vec![sent]).expect("in range");
    vectors.signal(0);
    assert_eq!((take(&old), take(&new)), (0, 1));
    vectors.deassign(0, 1).expect("in range");
    vectors.signal(0);
    assert_eq!(take(&new), 0);
    assert_eq!(vectors.pending_word(0), 1);
}

#[test]
fn a_reset_forgets_what_is_pending() {
    let vectors = Vectors::new(1);
    vectors.signal(0);
    vectors.clear_pending();
    let (client, sent) = pair();
    vectors.assign(0, vec![sent]).expect("in range");
    assert_eq!(take(&client), 0);
}

#[test]
fn a_range_that_ends_behind_the_last_vector_changes_nothing() {
    let vectors = Vectors::new(4);
    let (clients, sent): (Vec<_>, Vec<_>) = (0..2).map(|_| pair()).unzip();
    assert_eq!(vectors.assign(3, sent), Err(IrqError::OutOfRange { start: 3, count: 2, vectors: 4 }));
    for (start, count) in [(0, 5), (4, 1), (5, 0), (u32::MAX, 1), (1, u32::MAX)] {
        assert!(vectors.deassign(start, count).is_err());
        assert!(vectors.trigger(start, count).is_err());
    }
    assert!(vectors.trigger_where(3, &[true, true]).is_err());
    assert!(vectors.deassign(4, 0).is_ok(), "nothing, at the end");
    vectors.signal(4);
    vectors.signal(u16::MAX);
    assert_eq!((vectors.total_signals(), vectors.signals(4)), (0, 0));
    assert_eq!(clients.iter().map(take).sum::<u64>(), 0);
}

#[test]
fn a_trigger_fires_now() {
    let vectors = Vectors::new(4);
    let (clients, sent): (Vec<_>, Vec<_>) = (0..4).map(|_| pair()).unzip();
    vectors.assign(0, sent).expect("in range");
    vectors.trigger(1, 2).expect("in range");
    vectors.trigger_where(2, &[true, false]).expect("in range");
    assert_eq!(clients.iter().map(take).collect::<Vec<_>>(), [0, 1, 2, 0]);
}

#[test]
fn release_drops_every_eventfd() {
    let vectors = Vectors::new(2);
    let (_client, sent) = pair();
    vectors.assign(1, vec![sent]).expect("in range");
    let (_err_client, sent) = pair();
    vectors.assign_err(Some(sent));
    let weak = [&vectors.vectors[1], &vectors.err]
        .map(|vector| Arc::downgrade(vector.eventfd.load().as_ref().expect("assigned")));
    vectors.release();
    assert!(weak.iter().all(|eventfd| eventfd.upgrade().is_none()));
}

#[test]
fn err_is_apart_from_the_vectors() {
    let vectors = Vectors::new(1);
    let (client, sent) = pair();
    vectors.assign_err(Some(sent));
    vectors.disable_all();
    vectors.signal_err();
    assert_eq!(take(&client), 1);
    vectors.assign_err(None);
    vectors.signal_err();
    assert_eq!(take(&client), 0);
    assert_eq!(vectors.total_signals(), 0);
}

/// A worker that has loaded an eventfd and not yet written to it, made still.
#[test]
fn a_worker_that_is_still_at_the_old_eventfd_is_not_lost() {
    let vectors = Vectors::new(1);
    let (_old, sent) = pair();
    vectors.assign(0, vec![sent]).expect("in range");
    let (new, sent) = pair();
    {
        let _at_old = vectors.vectors[0].eventfd.load();
        vectors.assign(0, vec![sent]).expect("in range");
    }
    assert_eq!(take(&new), 1, "re-pointed");
    {
        let _at_new = vectors.vectors[0].eventfd.load();
        vectors.deassign(0, 1).expect("in range");
    }
    assert_eq!(vectors.pending_word(0), 1, "taken away");
}

/// Waits until `counter` has come to `value`; spinning, so that threads go on within nanoseconds of each
/// other.
fn wait_for(counter: &AtomicU32, value: u32) {
    for turn in 1_u32.. {
        if counter.load(Acquire) >= value {
            return;
        }
        // A machine with fewer free cores than threads needs the other thread to run.
        if turn.is_multiple_of(1024) { std::thread::yield_now() } else { std::hint::spin_loop() }
    }
}

/// Each round a worker signals once while the client gives the vector an eventfd, another one, or none. The
/// client looks at the old eventfd for the last time when its request has been answered, as KVM does. Then
/// the interrupt has come, or is pending if there is no eventfd.
#[test]
fn no_signal_is_lost_to_a_client_that_repoints_meanwhile() {
    const ROUNDS: u32 = 30_000;
    let vectors = Vectors::new(1);
    let (begun, signalled) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                wait_for(&begun, round);
                vectors.signal(0);
                signalled.store(round, Release);
            }
        });
        let mut current: Option<EventFd> = None;
        for round in 1..=ROUNDS {
            let next = (round % 3 != 0).then(pair);
            let (next, sent) = next.map_or((None, None), |(client, sent)| (Some(client), Some(sent)));
            begun.store(round, Release);
            // So that each side comes first at times, by little.
            for _ in 0..round / 3 % 64 {
                std::hint::spin_loop();
            }
            match sent {
                Some(sent) => vectors.assign(0, vec![sent]).expect("in range"),
                None => vectors.deassign(0, 1).expect("in range"),
            }
            let at_old = current.as_ref().map_or(0, take);
            wait_for(&signalled, round);
            let at_next = next.as_ref().map_or(vectors.pending_word(0), take);
            if at_old + at_next == 0 {
                // Lets the worker end first.
                begun.store(ROUNDS, Release);
                panic!("round {round}: the signal is lost");
            }
            vectors.clear_pending();
            current = next;
        }
    });
    assert_eq!(vectors.signals(0), u64::from(ROUNDS));
}

#[derive(Clone, Debug)]
enum Op {
    Signal(u16),
    Assign(u32, usize),
    Deassign(u32, u32),
    DisableAll,
    ClearPending,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u16..5).prop_map(Op::Signal),
        2 => (0u32..5, 0usize..4).prop_map(|(start, count)| Op::Assign(start, count)),
        2 => (0u32..5, 0u32..4).prop_map(|(start, count)| Op::Deassign(start, count)),
        1 => Just(Op::DisableAll),
        1 => Just(Op::ClearPending),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a model of a vector: the client's eventfd, if any, and whether a signal waits for one.
    #[test]
    fn any_sequence_delivers_or_remembers(ops in prop::collection::vec(op(), 1..60)) {
        const COUNT: usize = 4;
        let vectors = Vectors::new(COUNT as u16);
        let mut model: Vec<(Option<EventFd>, bool)> = (0..COUNT).map(|_| (None, false)).collect();
        for op in ops {
            let mut fired = [0_u64; COUNT];
            match op {
                Op::Signal(vector) => {
                    vectors.signal(vector);
                    if let Some((client, pending)) = model.get_mut(usize::from(vector)) {
                        *pending |= client.is_none();
                        fired[usize::from(vector)] = u64::from(client.is_some());
                    }
                }
                Op::Assign(start, count) => {
                    let (clients, sent): (Vec<_>, Vec<_>) = (0..count).map(|_| pair()).unzip();
                    let in_range = start as usize + count <= COUNT;
                    prop_assert_eq!(vectors.assign(start, sent).is_ok(), in_range);
                    for (at, client) in (start as usize..).zip(clients).filter(|_| in_range) {
                        fired[at] = u64::from(std::mem::take(&mut model[at].1));
                        model[at].0 = Some(client);
                    }
                }
                Op::Deassign(start, count) => {
                    let range = start as usize..start as usize + count as usize;
                    let taken = model.get_mut(range);
                    prop_assert_eq!(vectors.deassign(start, count).is_ok(), taken.is_some());
                    taken.into_iter().flatten().for_each(|(client, _)| *client = None);
                }
                Op::DisableAll => {
                    vectors.disable_all();
                    model.iter_mut().for_each(|(client, _)| *client = None);
                }
                Op::ClearPending => {
                    vectors.clear_pending();
                    model.iter_mut().for_each(|(_, pending)| *pending = false);
                }
            }
            for (at, (client, pending)) in model.iter().enumerate() {
                prop_assert_eq!(client.as_ref().map_or(0, take), fired[at]);
                prop_assert_eq!(vectors.pending_word(0) >> at & 1 == 1, *pending);
            }
        }
    }
}
