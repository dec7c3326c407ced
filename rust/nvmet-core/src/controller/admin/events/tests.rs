use proptest::prelude::*;

use super::*;

const TYPES: [EventType; 3] = [EventType::Error, EventType::SmartHealth, EventType::Notice];

fn event(kind: usize, information: u8) -> AsyncEvent {
    AsyncEvent::new().with_event_type(TYPES[kind]).with_information(information)
}

#[test]
fn requests_beyond_the_limit_are_refused() {
    let mut events = AsyncEvents::new();
    for cid in 0..REQUEST_LIMIT as u16 {
        events.request(cid).unwrap();
    }
    assert!(events.request(9).unwrap_err().is(Status::AER_LIMIT_EXCEEDED));
}

#[test]
fn an_event_waits_for_a_request_and_a_request_for_an_event() {
    let mut events = AsyncEvents::new();
    events.raise(event(0, 1));
    assert_eq!(events.next(), None);
    events.request(7).unwrap();
    assert_eq!(events.next(), Some((7, event(0, 1).into_bits())));
    events.request(8).unwrap();
    assert_eq!(events.next(), None);
    events.raise(event(1, 0));
    assert_eq!(events.next(), Some((8, event(1, 0).into_bits())));
}

#[test]
fn a_second_event_of_a_type_waits_until_the_log_was_read() {
    let mut events = AsyncEvents::new();
    for cid in 1..=3 {
        events.request(cid).unwrap();
    }
    events.raise(event(2, 0));
    assert!(events.next().is_some());
    // Guests lose the second hot removal if this is dropped.
    events.raise(event(2, 0));
    events.raise(event(2, 0));
    assert_eq!(events.next(), None);
    events.clear(EventType::Error);
    assert_eq!(events.next(), None);
    events.clear(EventType::Notice);
    assert_eq!(events.next(), Some((2, event(2, 0).into_bits())));
    events.clear(EventType::Notice);
    assert_eq!(events.next(), None, "duplicates were merged");
}

#[test]
fn an_aborted_request_is_gone() {
    let mut events = AsyncEvents::new();
    events.request(1).unwrap();
    events.request(2).unwrap();
    assert!(events.abort(1));
    assert!(!events.abort(1));
    events.raise(event(0, 0));
    assert_eq!(events.next().map(|(cid, _)| cid), Some(2));
}

#[test]
fn a_reset_forgets_everything() {
    let mut events = AsyncEvents::new();
    events.request(1).unwrap();
    events.request(2).unwrap();
    events.raise(event(0, 0));
    events.next();
    events.raise(event(1, 0));
    events.reset();
    assert_eq!(events, AsyncEvents::new());
}

#[derive(Clone, Debug)]
enum Step {
    Request(u16),
    Raise(usize, u8),
    Clear(usize),
    Next,
    Abort(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6_u16).prop_map(Step::Request),
        (0..3_usize, 0..3_u8).prop_map(|(kind, information)| Step::Raise(kind, information)),
        (0..3_usize).prop_map(Step::Clear),
        Just(Step::Next),
        (0..6_u16).prop_map(Step::Abort),
    ]
}

proptest! {
    /// Against a model that keeps the history and works the answer out from it.
    #[test]
    fn every_sequence_agrees_with_a_naive_model(steps in prop::collection::vec(step(), 0..80)) {
        let mut events = AsyncEvents::new();
        let mut requests: Vec<u16> = Vec::new();
        let mut waiting: Vec<(usize, u8)> = Vec::new();
        let mut masked = [false; 3];
        for step in steps {
            match step {
                Step::Request(cid) => {
                    let fits = requests.len() < 4;
                    prop_assert_eq!(events.request(cid).is_ok(), fits);
                    if fits {
                        requests.push(cid);
                    }
                }
                Step::Raise(kind, information) => {
                    events.raise(event(kind, information));
                    waiting.push((kind, information));
                }
                Step::Clear(kind) => {
                    events.clear(TYPES[kind]);
                    masked[kind] = false;
                }
                Step::Next => {
                    let told = waiting.iter().copied().find(|&(kind, _)| !masked[kind]);
                    let expected = match (told, requests.first().copied()) {
                        (Some((kind, information)), Some(cid)) => {
                            requests.remove(0);
                            waiting.retain(|&other| other != (kind, information));
                            masked[kind] = true;
                            Some((cid, event(kind, information).into_bits()))
                        }
                        _ => None,
                    };
                    prop_assert_eq!(events.next(), expected);
                }
                Step::Abort(cid) => {
                    let found = requests.iter().position(|&other| other == cid);
                    prop_assert_eq!(events.abort(cid), found.is_some());
                    if let Some(at) = found {
                        requests.remove(at);
                    }
                }
            }
        }
    }
}
