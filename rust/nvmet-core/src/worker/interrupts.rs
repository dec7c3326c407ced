//! When the interrupt of a completion queue is sent.
//!
//! One gate for each completion queue. The worker asks it once a batch, and it answers with at most one signal, and
//! never without a completion that no signal has announced yet. It holds a signal back
//!
//! * while **Interrupt Coalescing** gathers (NVMe Base 2.0, 5.27.1.6): until the Aggregation Threshold is reached or
//!   the Aggregation Time has passed since the first completion that no signal announced. Both are applied to each
//!   queue by itself, and then nothing else holds a signal back;
//! * while the **host is behind**: it has not consumed all that the last signal announced, so it will come by;
//! * while the **host polls**: time after time it took completions that no signal had announced.
//!
//! The last two are guesses, so they hold for [`GRACE`] at most, and never while the worker sleeps. A host may find the
//! queue empty, be overtaken by a completion, and then write its head: what the gate sees is a head that has come as
//! far as the last signal and completions beyond it, and that is signalled. A host that writes its head late is
//! not behind; it shows by the grace passing again and again. A host that only seemed to poll has its interrupt after
//! one grace, and it takes many times more to seem so again. A host with one command at a time that waits for
//! interrupts takes nothing unannounced and has written its head before its next command: it never waits.
//!
//! **Memory accesses.** The worker reads the head doorbell (its register or its shadow) before it asks, after the
//! batch's completions are written. No fence is needed in between, and no EventIdx has to be armed for the head: a head
//! that is seen late is seen in the next turn, as the worker does not sleep while a guess holds a signal back. What
//! coalescing holds back over a sleep has its time, and no write of the head makes it due earlier.
//!
//! Knows numbers of completions and nanoseconds; must not know queues, memory, threads or a clock.

use super::tuning::Coalescing;

/// How long a guess holds a signal back, in nanoseconds.
///
/// Longer than a host that looks takes to write its head (well below 1 µs if it polls, some µs from the eventfd to the
/// end of an interrupt handler), and shorter than a worker spins before it sleeps, so that guesses are judged.
pub const GRACE: u64 = 10_000;

/// Unannounced takings after which a host is taken to poll, at first and at most.
const TAKINGS: (u32, u32) = (32, 1 << 15);
/// By how much more takings it needs after each time that it was not so.
const DISTRUST: u32 = 32;
/// Graces that pass, without anything taken unannounced meanwhile, until a host is no longer taken to be behind.
const EXPIRIES: u32 = 32;
/// For how many batches then.
const RESPITE: u32 = 4096;

/// What is to be done about the interrupt of a completion queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Every completion was announced or consumed.
    Nothing,
    /// Send the interrupt, now.
    Signal,
    /// Ask again with each turn, and at the latest then.
    Wait {
        /// On the clock of `now`, in nanoseconds.
        until: u64,
    },
}

/// Decides on the interrupt of one completion queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InterruptGate {
    coalescing: Option<Coalescing>,
    /// Completions that a signal announced and that the host has not consumed.
    announced: u32,
    /// Those that came after it.
    owed: u32,
    /// Since when the owed ones wait.
    since: u64,
    /// Unannounced takings that count, up to `needed`: then the host polls.
    takings: u32,
    needed: u32,
    /// Graces that passed since the last unannounced taking.
    expiries: u32,
    /// Batches for which the host is not taken to be behind.
    respite: u32,
}

impl InterruptGate {
    /// For a queue with so many completions that were announced and are not consumed, without coalescing.
    pub fn new(announced: u32) -> Self {
        Self {
            coalescing: None,
            announced,
            owed: 0,
            since: 0,
            takings: 0,
            needed: TAKINGS.0,
            expiries: 0,
            respite: 0,
        }
    }

    /// Sets Interrupt Coalescing, for a queue with room for `room` completions: more do not come together, so a higher
    /// threshold is reached when it is full. Takes effect with the next question, which the worker has to ask.
    pub fn configure(&mut self, coalescing: Option<Coalescing>, room: u32) {
        self.coalescing = coalescing.map(|c| Coalescing { threshold: c.threshold.min(room.max(1)), ..c });
    }

    /// To be asked after a batch of `posted` completions, possibly none, of which and of earlier ones the host has left
    /// `unconsumed` according to its head. `now` reads a monotonic clock in nanoseconds, if that is needed.
    pub fn decide(&mut self, posted: u32, unconsumed: u32, now: impl FnOnce() -> u64) -> Decision {
        let news = self.follow(posted, unconsumed);
        if self.owed == 0 {
            return Decision::Nothing;
        }
        if let Some(coalescing) = self.coalescing {
            return self.coalesce(coalescing, news.all, now);
        }
        let behind = self.announced > 0 && self.respite == 0;
        self.respite = self.respite.saturating_sub(u32::from(posted > 0));
        if !behind && !self.polls() {
            return self.signal();
        }
        let now = now();
        if news.all || news.taken && self.polls() {
            // It looks: what is left has a grace of its own.
            self.since = now;
        }
        let until = self.since.saturating_add(GRACE);
        if now < until {
            return Decision::Wait { until };
        }
        self.expiries += 1;
        if self.expiries >= EXPIRIES {
            self.expiries = 0;
            self.respite = RESPITE;
        }
        self.signal()
    }

    /// To be asked before a sleep, with the head as read last: guesses end here. A [`Decision::Wait`] limits the sleep.
    pub fn before_sleep(&mut self, posted: u32, unconsumed: u32, now: impl FnOnce() -> u64) -> Decision {
        let news = self.follow(posted, unconsumed);
        match self.coalescing {
            _ if self.owed == 0 => Decision::Nothing,
            Some(coalescing) => self.coalesce(coalescing, news.all, now),
            None => self.signal(),
        }
    }

    /// Takes over what was posted and consumed.
    fn follow(&mut self, posted: u32, unconsumed: u32) -> News {
        let owed = self.owed;
        let consumed = (self.announced + owed + posted).saturating_sub(unconsumed);
        let taken = consumed.saturating_sub(self.announced);
        self.announced = self.announced.saturating_sub(consumed);
        self.owed = unconsumed.saturating_sub(self.announced);
        if taken > 0 {
            self.takings = self.takings.saturating_add(1).min(self.needed);
            self.expiries = 0;
        }
        News { taken: taken > 0, all: taken >= owed }
    }

    /// Whether the host is taken to poll.
    fn polls(&self) -> bool {
        self.takings >= self.needed
    }

    fn coalesce(&mut self, coalescing: Coalescing, all_new: bool, now: impl FnOnce() -> u64) -> Decision {
        if self.owed >= coalescing.threshold {
            return self.signal();
        }
        let now = now();
        if all_new {
            self.since = now;
        }
        let until = self.since.saturating_add(coalescing.time);
        if now >= until { self.signal() } else { Decision::Wait { until } }
    }

    fn signal(&mut self) -> Decision {
        if self.polls() {
            // Not so: it left some behind.
            self.takings = 0;
            self.needed = self.needed.saturating_mul(DISTRUST).min(TAKINGS.1);
        }
        self.announced += self.owed;
        self.owed = 0;
        Decision::Signal
    }
}

/// What has come to pass since the last question.
struct News {
    /// The host has taken completions that no signal had announced.
    taken: bool,
    /// None of those that are owed was so before.
    all: bool,
}

#[cfg(test)]
mod tests;
