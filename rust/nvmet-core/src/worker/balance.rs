//! Who has too much to do, and which group somebody else should have.
//!
//! Each worker measures its own load, a window at a time and only while it is busy, and shows it to the others. One that
//! is overloaded proposes to move a group; the control thread, which knows where each queue is, has it done
//! ([`moves`](super::moves)). Nobody wakes for this: an idle worker's last word grows old, and then it counts as idle.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long load is measured before it is judged.
const WINDOW: Duration = Duration::from_millis(10);
/// What was shown longer ago says that the worker has been idle since.
const STALE: Duration = Duration::from_millis(30);
/// From this load on, in thousandths of a window, a worker gives away what it can.
const TOO_MUCH: u32 = 900;
/// A move has to make the busiest worker this much less busy.
const MARGIN: u32 = 100;
/// Windows for which a group stays where it is after a proposal.
const SETTLE: u32 = 20;

/// The loads of all workers of a pool.
#[derive(Debug)]
pub struct Board {
    began: Instant,
    /// Milliseconds since `began` in bits 63:32, thousandths of a window below.
    loads: Box<[Load]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Load(AtomicU64);

impl Board {
    pub fn new(workers: usize) -> Self {
        let loads = std::iter::repeat_with(Load::default).take(workers).collect();
        Self { began: Instant::now(), loads }
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_millis() as u64
    }

    fn show(&self, worker: usize, load: u32, now: Instant) {
        if let Some(place) = self.loads.get(worker) {
            place.0.store(self.millis(now) << 32 | u64::from(load), Ordering::Relaxed);
        }
    }

    /// The least busy worker but `me`, and its load.
    fn idlest(&self, me: usize, now: Instant) -> Option<(usize, u32)> {
        let now = self.millis(now);
        let load = |shown: u64| {
            let fresh = shown != 0 && now.saturating_sub(shown >> 32) < STALE.as_millis() as u64;
            if fresh { shown as u32 } else { 0 }
        };
        let others = self.loads.iter().enumerate().filter(|(worker, _)| *worker != me);
        others
            .map(|(worker, place)| (worker, load(place.0.load(Ordering::Relaxed))))
            .min_by_key(|(_, load)| *load)
    }
}

/// One worker's measuring.
#[derive(Debug, Default)]
pub struct Meter {
    window: Option<(Instant, Duration)>,
    cooldown: u32,
}

impl Meter {
    /// Looks whether a window is over; `idle` is the time that the worker has been without work since it began. Shows
    /// its load, and says where work could go and how much of it, in thousandths of a window: more than this would make
    /// the other worker as busy.
    pub fn look(&mut self, board: &Board, me: usize, idle: Duration, now: Instant) -> Option<Verdict> {
        let (began, idle_then) = *self.window.get_or_insert((now, idle));
        let passed = now.saturating_duration_since(began);
        if passed < WINDOW {
            return None;
        }
        self.window = Some((now, idle));
        let idle = idle.saturating_sub(idle_then).min(passed);
        let load = ((passed - idle).as_micros() * 1000 / passed.as_micros().max(1)) as u32;
        board.show(me, load, now);
        self.cooldown = self.cooldown.saturating_sub(1);
        let spare = match board.idlest(me, now) {
            Some((to, other)) if load >= TOO_MUCH && self.cooldown == 0 && other + MARGIN < load => {
                Some((to, load - other - MARGIN))
            }
            _ => None,
        };
        Some(Verdict { load, spare })
    }

    /// A group was proposed: others wait until the effect shows.
    pub fn proposed(&mut self) {
        self.cooldown = SETTLE;
    }
}

/// What a window has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The worker's load in thousandths.
    pub load: u32,
    /// Who has time, and the most that is worth giving it.
    pub spare: Option<(usize, u32)>,
}

impl Verdict {
    /// Which of several groups to move, by the work that each of them had: the one whose part of the load comes
    /// closest to half of the difference, and less than all of it.
    pub fn choose(&self, work: impl Iterator<Item = (usize, u64)> + Clone) -> Option<(usize, usize)> {
        let (to, most) = self.spare?;
        let total: u64 = work.clone().map(|(_, done)| done).sum();
        let part = |done: u64| (u64::from(self.load) * done).checked_div(total).unwrap_or(0) as u32;
        let candidates = work.filter(|&(_, done)| done > 0 && part(done) < most);
        let best = candidates.min_by_key(|&(_, done)| part(done).abs_diff(most / 2))?;
        Some((best.0, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn verdict(mine: u32, others: &[u32], age: Duration) -> Option<Verdict> {
        let board = Board::new(others.len() + 1);
        let start = board.began + 100 * MS;
        for (at, load) in others.iter().enumerate() {
            board.show(at + 1, *load, start);
        }
        let mut meter = Meter::default();
        let now = start + age;
        assert_eq!(meter.look(&board, 0, Duration::ZERO, now - 10 * MS), None, "the window begins");
        meter.look(&board, 0, 10 * MS * (1000 - mine) / 1000, now)
    }

    #[test]
    fn an_overloaded_worker_finds_the_idlest_one() {
        assert_eq!(verdict(1000, &[500, 200, 700], MS).unwrap().spare, Some((2, 700)));
    }

    #[test]
    fn a_worker_with_time_left_keeps_what_it_has() {
        assert_eq!(verdict(800, &[0], MS), Some(Verdict { load: 800, spare: None }));
    }

    #[test]
    fn between_busy_workers_nothing_moves() {
        assert_eq!(verdict(1000, &[950, 930], MS).unwrap().spare, None);
    }

    #[test]
    fn a_load_that_was_shown_long_ago_is_over() {
        assert_eq!(verdict(1000, &[1000], 40 * MS).unwrap().spare, Some((1, 900)));
    }

    #[test]
    fn one_group_alone_is_not_moved_and_of_two_the_fitting_one_is() {
        let verdict = Verdict { load: 1000, spare: Some((1, 900)) };
        let choose = |work: &[(usize, u64)]| verdict.choose(work.iter().copied());
        assert_eq!(choose(&[(4, 100)]), None, "it would be as busy there");
        assert_eq!(choose(&[(4, 100), (5, 0)]), None);
        assert_eq!(choose(&[(4, 600), (5, 400)]), Some((5, 1)));
        assert_eq!(choose(&[(4, 800), (5, 190), (6, 10)]), Some((5, 1)));
    }

    #[test]
    fn after_a_proposal_the_next_one_waits() {
        let board = Board::new(2);
        let mut meter = Meter::default();
        let at = |window: u32| board.began + 10 * MS * window + MS;
        meter.look(&board, 0, Duration::ZERO, at(0));
        assert!(meter.look(&board, 0, Duration::ZERO, at(1)).unwrap().spare.is_some());
        meter.proposed();
        for window in 2..SETTLE + 1 {
            assert_eq!(meter.look(&board, 0, Duration::ZERO, at(window)).unwrap().spare, None);
        }
        assert!(meter.look(&board, 0, Duration::ZERO, at(SETTLE + 1)).unwrap().spare.is_some());
    }
}
