//! How long a worker without work looks for more before it sleeps.
//!
//! Knows time and a mode, nothing of queues.

use std::time::{Duration, Instant};

use super::mailbox::WaitMode;

/// Gaps up to this are worth spinning over: less than it takes a guest to ring, and a sleeping thread to run again.
const WORTH_SPINNING: Duration = Duration::from_micros(50);
/// The budget while gaps are longer than that.
const LEAST: Duration = Duration::from_micros(4);
/// What an expected gap is exceeded by.
const SLACK: Duration = Duration::from_micros(4);
/// A new gap moves the expectation by this part of the difference.
const WEIGHT: u32 = 8;
/// Looks at the clock are this many turns apart: one costs about as much as a turn without work.
const TURNS_PER_LOOK: u32 = 8;
/// The shortest and the longest nap while a client's mapped doorbells have to be polled.
const NAP: (Duration, Duration) = (Duration::from_micros(20), Duration::from_millis(4));
/// A nap is this part of the time that nothing has happened for, so it adds as much to a gap at most.
const NAP_PART: u32 = 8;

/// What to do after a turn without work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Look again.
    Spin,
    /// Sleep until woken.
    Sleep,
    /// Sleep, but not longer than this: nobody wakes the worker for mapped doorbells.
    Nap(Duration),
}

/// The pace of one worker.
#[derive(Debug)]
pub struct Pace {
    mode: WaitMode,
    /// The gap that is expected, from those of the past.
    expected: Duration,
    idle_since: Option<Instant>,
    turns: u32,
}

impl Pace {
    pub fn new(mode: WaitMode) -> Self {
        Self { mode, expected: Duration::ZERO, idle_since: None, turns: 0 }
    }

    /// After a turn with work.
    pub fn worked(&mut self, now: impl FnOnce() -> Instant) {
        self.turns = 0;
        if let Some(since) = self.idle_since.take() {
            self.learn(now().saturating_duration_since(since));
        }
    }

    fn learn(&mut self, gap: Duration) {
        // However long it was: some short ones in a row are enough to trust in them again.
        let gap = gap.min(4 * WORTH_SPINNING);
        self.expected = (self.expected * (WEIGHT - 1) + gap) / WEIGHT;
    }

    /// How long to spin in a gap that has just begun.
    fn budget(&self) -> Duration {
        match self.mode {
            WaitMode::Poll => Duration::MAX,
            WaitMode::Event => Duration::ZERO,
            WaitMode::Adaptive if self.expected <= WORTH_SPINNING => {
                (2 * self.expected + SLACK).min(WORTH_SPINNING)
            }
            WaitMode::Adaptive => LEAST,
        }
    }

    /// After a turn without work. `attached`: there are queues; `polled`: some of them can only be polled.
    pub fn rest(&mut self, attached: bool, polled: bool, now: impl FnOnce() -> Instant) -> Rest {
        if !attached {
            return Rest::Sleep;
        }
        self.turns += 1;
        if self.idle_since.is_some() && !self.turns.is_multiple_of(TURNS_PER_LOOK) {
            return if self.mode == WaitMode::Event && !polled { Rest::Sleep } else { Rest::Spin };
        }
        let now = now();
        let idle = now.saturating_duration_since(*self.idle_since.get_or_insert(now));
        if idle < self.budget() {
            Rest::Spin
        } else if polled {
            Rest::Nap((idle / NAP_PART).clamp(NAP.0, NAP.1))
        } else {
            Rest::Sleep
        }
    }
}
