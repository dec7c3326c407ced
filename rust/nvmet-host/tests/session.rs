//! A session against a mock controller: commands of many threads, room, reset, detach, events, and what goes wrong.

#[expect(dead_code, reason = "faults that only the tests of the driver use")]
mod mock;

use mock::{Fault, Mock, Options};
use nvmet_host::{HostConfig, HostError, Outcome, Queue, Request, Session, SqeExt, Ticket, read_write};
use nvmet_spec::{
    command::{AdminOpcode, NvmOpcode, Sqe},
    status::Status,
};
use std::{
    thread,
    time::{Duration, Instant},
};

fn config(vectors: u16) -> HostConfig {
    HostConfig { timeout: Duration::from_secs(5), memory_bytes: 4 << 20, vectors, ..HostConfig::default() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn send(session: &Session, queue: Queue, entry: Sqe, out: &[u8], length: usize) -> Ticket {
    session.submit(queue, &[Request { entry, out, length }], soon()).unwrap()[0]
}

fn call(session: &Session, queue: Queue, entry: Sqe, out: &[u8], length: usize) -> Outcome {
    let ticket = send(session, queue, entry, out, length);
    session.wait(ticket, soon()).unwrap().unwrap()
}

fn flush() -> Sqe {
    Sqe::new(NvmOpcode::Flush, 0, 1)
}

#[test]
fn threads_share_a_session_with_interrupts_and_without() {
    for vectors in [0, 2] {
        let mock = Mock::new(Options::default());
        let session = Session::attach(&mock.path, config(vectors), 8).unwrap();
        thread::scope(|scope| {
            for thread in 0..4u64 {
                let session = &session;
                scope.spawn(move || {
                    for round in 0..100u64 {
                        let data = [(thread * 50 + round) as u8; 512];
                        let write = read_write(NvmOpcode::Write, 1, thread, 1);
                        assert!(call(session, Queue::Io, write, &data, 0).completion.status().is_success());
                        let read = read_write(NvmOpcode::Read, 1, thread, 1);
                        assert_eq!(call(session, Queue::Io, read, &[], 512).data, data);
                    }
                });
            }
        });
        session.detach().unwrap();
    }
}

#[test]
fn more_commands_than_fit_wait_for_room() {
    let mock = Mock::new(Options { null: true, ..Options::default() });
    let session = Session::attach(&mock.path, config(2), 3).unwrap();
    assert_eq!(session.limits().unwrap().depth, 3);
    // Their data does not fit at once either.
    let data = vec![1; 1 << 20];
    let all = vec![Request { entry: flush(), out: &data, length: 0 }; 50];
    let mut tickets = Vec::new();
    while tickets.len() < all.len() {
        let more = session.submit(Queue::Io, &all[tickets.len()..], soon()).unwrap();
        assert!((1..=3).contains(&more.len()));
        tickets.extend(more);
    }
    for ticket in tickets {
        assert!(session.wait(ticket, soon()).unwrap().unwrap().completion.status().is_success());
        assert!(matches!(session.wait(ticket, soon()), Err(HostError::Argument(_))));
    }
    let larger = vec![0; 5 << 20];
    let never = session.submit(Queue::Io, &[Request { entry: flush(), out: &larger, length: 0 }], soon());
    assert!(matches!(never, Err(HostError::OutOfMemory { .. })), "{never:?}");
}

#[test]
fn a_reset_ends_what_was_in_flight() {
    let mock = Mock::new(Options { fault: Fault::Silent, ..Options::default() });
    let session = Session::attach(&mock.path, config(2), 2).unwrap();
    let [lost, dropped] = [(); 2].map(|()| send(&session, Queue::Io, flush(), &[], 512));
    session.forget(dropped);
    let full = session.submit(Queue::Io, &[Request { entry: flush(), out: &[], length: 0 }], Instant::now());
    assert_eq!(full.unwrap(), []);
    assert_eq!(session.wait(lost, Instant::now()).unwrap(), None);
    assert!(!session.is_done(lost).unwrap());
    session.reset().unwrap();
    assert!(session.is_done(lost).unwrap());
    assert!(matches!(session.wait(lost, soon()), Err(HostError::Reset)));
    assert_eq!(session.abort(lost).unwrap(), None);
    mock.lock().options.fault = Fault::None;
    assert!(call(&session, Queue::Io, flush(), &[], 0).completion.status().is_success());
}

#[test]
fn whoever_waits_is_told_of_a_detach() {
    let mock = Mock::new(Options { fault: Fault::Silent, ..Options::default() });
    let session = Session::attach(&mock.path, config(2), 4).unwrap();
    let ticket = send(&session, Queue::Io, flush(), &[], 0);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| session.wait(ticket, soon()));
        session.detach().unwrap();
        assert!(matches!(waiter.join().unwrap(), Err(HostError::Detached)));
    });
    session.detach().unwrap();
    session.close();
    assert!(matches!(session.register(0, true), Err(HostError::Detached)));
    assert!(matches!(session.reset(), Err(HostError::Detached)));
}

#[test]
fn a_bad_status_is_an_outcome_and_an_abort_is_a_command() {
    let mock = Mock::new(Options { fault: Fault::Silent, ..Options::default() });
    let session = Session::attach(&mock.path, config(2), 4).unwrap();
    let outcome = call(&session, Queue::Admin, Sqe::new(0x55u8, 0, 0), &[], 3);
    assert!(outcome.completion.status().is(Status::INVALID_OPCODE));
    assert_eq!(outcome.data, [0; 3]);
    let ticket = send(&session, Queue::Io, flush(), &[], 0);
    let abort = session.abort(ticket).unwrap().unwrap();
    // The mock knows no Abort.
    let outcome = session.wait(abort, soon()).unwrap().unwrap();
    assert!(outcome.completion.status().is(Status::INVALID_OPCODE));
}

#[test]
fn events_come_one_by_one_beside_commands() {
    let mock = Mock::new(Options::default());
    let session = Session::attach(&mock.path, config(2), 4).unwrap();
    assert_eq!(session.next_event(Instant::now()).unwrap(), None);
    for info in 0..5 {
        let identify = Sqe::new(AdminOpcode::Identify, 0, 0).with_cdw10(1);
        // Requests are taken in order, so one that was answered is behind this command.
        assert_eq!(call(&session, Queue::Admin, identify, &[], 4096).data.len(), 4096);
        mock.lock().raise(0x0004_0002 | info << 8);
        let event = session.next_event(soon()).unwrap().unwrap();
        assert_eq!((event.event_type, event.info, event.log_page), (2, info as u8, 4));
    }
}

#[test]
fn a_completion_that_belongs_to_nothing_is_an_error() {
    let mock = Mock::new(Options { fault: Fault::WrongCid, ..Options::default() });
    let session = Session::attach(&mock.path, config(2), 4).unwrap();
    let ticket = send(&session, Queue::Io, flush(), &[], 0);
    let error = session.wait(ticket, soon()).unwrap_err();
    assert!(matches!(error, HostError::UnexpectedCompletion { .. }), "{error}");
}

#[test]
fn a_fatal_status_and_a_server_that_goes_end_a_wait() {
    let mock = Mock::new(Options { fault: Fault::Fatal, ..Options::default() });
    let session = Session::attach(&mock.path, config(2), 4).unwrap();
    let ticket = send(&session, Queue::Io, flush(), &[], 0);
    assert!(matches!(session.wait(ticket, soon()), Err(HostError::Fatal { .. })));
    drop(mock);
    assert!(matches!(session.wait(ticket, soon()), Err(HostError::Connection { .. })));
}

#[test]
fn what_cannot_be_is_refused() {
    let mock = Mock::new(Options::default());
    assert!(matches!(Session::attach(&mock.path, config(2), 0), Err(HostError::Argument(_))));
    let session = Session::attach(&mock.path, config(0), 1).unwrap();
    assert!(matches!(Request::new(&[0; 63], &[], 0), Err(HostError::Argument(_))));
    assert!(matches!(session.set_register(0x14, 1 << 32, false), Err(HostError::Argument(_))));
    assert_eq!(session.register(8, false).unwrap(), 0x0002_0000);
}
