//! The hand-shake between a worker that goes to sleep and whoever has work for it.
//!
//! The worker says that it sleeps, fences, looks once more at everything that could have changed, and only then waits.
//! Whoever changes something writes it, fences, and wakes the worker if it says that it sleeps. Of the two fences one
//! comes first in the single order of all such fences: either the worker sees the change, or the other side sees that
//! the worker sleeps.
//!
//! With shadow doorbells the other side is the guest, which decides by EventIdx whether it rings. The worker arms
//! EventIdx before the same fence, and the guest fences between its write and its look at EventIdx.
//!
//! Knows two threads and one flag, nothing of queues. `make model` runs its tests under every interleaving.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Whether a worker sleeps.
#[derive(Debug)]
pub struct Handshake {
    sleeping: AtomicBool,
}

impl Handshake {
    /// Of a worker that is awake.
    pub fn new() -> Self {
        Self { sleeping: AtomicBool::new(false) }
    }

    /// The worker is about to wait. What it reads from here on is what counts: only if that shows no work it may.
    pub fn announce_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The worker does not wait (any more).
    pub fn wake_up(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Called after a change was written: whether the caller has to wake the worker. Of several callers one has to.
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed)
    }
}

#[cfg(all(loom, test))]
mod model {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
    use loom::thread;

    use super::Handshake;

    /// What lies between a guest, the control thread and a worker.
    struct World {
        handshake: Handshake,
        /// A doorbell register, or its shadow in the guest's memory.
        tail: AtomicU32,
        event_idx: AtomicU32,
        /// The worker's eventfd.
        eventfd: AtomicBool,
    }

    impl World {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                handshake: Handshake::new(),
                tail: AtomicU32::new(0),
                event_idx: AtomicU32::new(u32::MAX),
                eventfd: AtomicBool::new(false),
            })
        }

        fn notify(&self) {
            if self.handshake.must_wake() {
                self.eventfd.store(true, Ordering::Release);
            }
        }

        /// One attempt to sleep; the tail that was seen if the worker stayed awake.
        fn try_to_sleep(&self, arm: bool) -> Option<u32> {
            if arm {
                self.event_idx.store(0, Ordering::Release);
            }
            self.handshake.announce_sleep();
            let tail = self.tail.load(Ordering::Acquire);
            if tail != 0 {
                self.handshake.wake_up();
            }
            (tail != 0).then_some(tail)
        }
    }

    #[test]
    fn a_register_write_is_seen_or_wakes() {
        loom::model(|| {
            let world = World::new();
            let control = {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    world.tail.store(1, Ordering::Release);
                    world.notify();
                })
            };
            let seen = world.try_to_sleep(false);
            control.join().unwrap();
            assert!(seen.is_some() || world.eventfd.load(Ordering::Acquire), "a lost wake-up");
        });
    }

    #[test]
    fn of_two_writers_neither_is_lost() {
        loom::model(|| {
            let world = World::new();
            let writers: Vec<_> = (0..2)
                .map(|_| {
                    let world = Arc::clone(&world);
                    thread::spawn(move || {
                        world.tail.fetch_add(1, Ordering::Release);
                        world.notify();
                    })
                })
                .collect();
            let seen = world.try_to_sleep(false);
            for writer in writers {
                writer.join().unwrap();
            }
            // Awake with one of two seen is fine: it looks again before it sleeps.
            assert!(seen.is_some() || world.eventfd.load(Ordering::Acquire), "a lost wake-up");
        });
    }

    #[test]
    fn a_shadow_write_is_seen_or_rings_and_wakes() {
        loom::model(|| {
            let world = World::new();
            let guest = {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    world.tail.store(1, Ordering::Release);
                    fence(Ordering::SeqCst);
                    // The tail went from 0 to 1: the guest rings if it passes EventIdx = 0. The ring is a message
                    // that the control thread turns into a notification; it happens after everything above.
                    if world.event_idx.load(Ordering::Acquire) == 0 {
                        world.notify();
                    }
                })
            };
            let seen = world.try_to_sleep(true);
            guest.join().unwrap();
            assert!(seen.is_some() || world.eventfd.load(Ordering::Acquire), "a lost wake-up");
        });
    }
}
