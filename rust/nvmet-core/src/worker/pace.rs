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
const NAP: (Duration, Duration) = (Duration::from_micros(20), Duration::from_millis(8));
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
    /// All gaps together.
    idle: Duration,
    idle_since: Option<Instant>,
    turns: u32,
}

impl Pace {
    pub fn new(mode: WaitMode) -> Self {
        Self { mode, expected: Duration::ZERO, idle: Duration::ZERO, idle_since: None, turns: 0 }
    }

    /// After a turn with work.
    pub fn worked(&mut self, now: impl FnOnce() -> Instant) {
        self.turns = 0;
        if let Some(since) = self.idle_since.take() {
            let gap = now().saturating_duration_since(since);
            self.idle += gap;
            self.learn(gap);
        }
    }

    /// The time that was spent without work, up to the last turn with some.
    pub fn idle(&self) -> Duration {
        self.idle
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
            return Rest::Spin;
        }
        // It sleeps; if that brings nothing it sleeps on after a single turn.
        self.turns = TURNS_PER_LOOK - 1;
        if polled { Rest::Nap((idle / NAP_PART).clamp(NAP.0, NAP.1)) } else { Rest::Sleep }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets gaps of a length come until the worker has learned them; how long it spins in the next one.
    fn learned(mode: WaitMode, gap: Duration) -> Duration {
        let mut pace = Pace::new(mode);
        let mut now = Instant::now();
        for _ in 0..100 {
            pace.rest(true, false, || now);
            now += gap;
            pace.worked(|| now);
        }
        pace.budget()
    }

    fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn short_gaps_are_spun_over_and_long_ones_slept_over() {
        for gap in [1, 10, 40] {
            assert!(learned(WaitMode::Adaptive, micros(gap)) > micros(gap), "{gap}");
        }
        for gap in [100, 1000, 1_000_000] {
            assert!(learned(WaitMode::Adaptive, micros(gap)) <= LEAST, "{gap}");
        }
    }

    #[test]
    fn one_long_gap_is_forgotten() {
        let mut pace = Pace::new(WaitMode::Adaptive);
        pace.learn(Duration::from_secs(10));
        assert!(pace.budget() > micros(50).min(WORTH_SPINNING) - SLACK);
        for _ in 0..20 {
            pace.learn(micros(5));
        }
        assert!(pace.budget() >= micros(10) && pace.budget() < micros(30));
    }

    #[test]
    fn the_modes_are_what_they_are_called() {
        let now = Instant::now();
        let later = |n| now + micros(n);
        let mut event = Pace::new(WaitMode::Event);
        assert_eq!(event.rest(true, false, || now), Rest::Sleep);
        assert_eq!(event.rest(true, false, || now), Rest::Sleep);
        let mut poll = Pace::new(WaitMode::Poll);
        for n in 0..100 {
            assert_eq!(poll.rest(true, false, || later(n * 1_000_000)), Rest::Spin);
        }
        assert_eq!(poll.rest(false, false, || now), Rest::Sleep, "there is nobody to poll for");
    }

    #[test]
    fn naps_grow_with_the_gap_to_a_limit() {
        let (mut pace, now) = (Pace::new(WaitMode::Adaptive), Instant::now());
        let mut nap = |idle: Duration| {
            (0..TURNS_PER_LOOK).map(|_| pace.rest(true, true, || now + idle)).find(|rest| *rest != Rest::Spin)
        };
        assert_eq!(nap(Duration::ZERO), None);
        assert_eq!(nap(micros(800)), Some(Rest::Nap(micros(100))));
        assert_eq!(nap(Duration::from_millis(16)), Some(Rest::Nap(Duration::from_millis(2))));
        assert_eq!(nap(Duration::from_secs(9)), Some(Rest::Nap(NAP.1)));
    }
}
