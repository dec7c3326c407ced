//! What tests do to a save on its way: kill the process, or fail, in front of its Nth step; and which steps there were.

use std::cell::{Cell, RefCell};
use std::io;

use rustix::process::{Signal, getpid, kill_process};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill,
    Fail,
}

thread_local! {
    static FAULT: Cell<Option<(usize, Fault)>> = const { Cell::new(None) };
    static BEFORE_LOCK: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
    static STEPS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// From now on in this thread: the fault in front of step `number`, counted from 0.
pub(crate) fn arm(fault: Option<(usize, Fault)>) {
    FAULT.set(fault);
    STEPS.take();
}

/// The steps since [`arm`], the one that failed included.
pub(crate) fn steps() -> Vec<&'static str> {
    STEPS.with_borrow(Clone::clone)
}

/// Once, in this thread: what happens between the next open of a lock's file and the attempt to lock it.
pub(crate) fn before_lock(act: impl FnOnce() + 'static) {
    BEFORE_LOCK.set(Some(Box::new(act)));
}

pub(super) fn reach_lock() {
    if let Some(act) = BEFORE_LOCK.take() {
        act();
    }
}

pub(super) fn reach(name: &'static str) -> io::Result<()> {
    let number = STEPS.with_borrow_mut(|steps| {
        steps.push(name);
        steps.len() - 1
    });
    match FAULT.get() {
        Some((at, Fault::Kill)) if at == number => {
            kill_process(getpid(), Signal::KILL)?;
            loop {
                std::thread::park();
            }
        }
        Some((at, Fault::Fail)) if at == number => Err(io::Error::other(name)),
        _ => Ok(()),
    }
}
