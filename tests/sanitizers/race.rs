//! Two threads that race. Not a test: `make sanitize` runs it first, and goes on only if ThreadSanitizer reports it.

use std::cell::UnsafeCell;
use std::thread;

struct Shared(UnsafeCell<u64>);

// SAFETY: none; that is what is to be found.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared(UnsafeCell::new(0));

fn add() {
    for _ in 0..1000 {
        // SAFETY: as above.
        unsafe { *SHARED.0.get() += 1 };
    }
}

fn main() {
    let other = thread::spawn(add);
    add();
    other.join().expect("join");
}
