//! Time of one command, measured over whole batches.

use std::time::{Duration, Instant};

/// Turns without news after which a thread lets others run: there may be fewer processors than threads.
const PATIENCE: u32 = 2000;

/// Whole batches of `depth` commands for the number that criterion asks for, and the part of their time that belongs
/// to that number.
#[derive(Debug)]
pub struct BatchTimer {
    commands: u64,
    depth: u32,
}

impl BatchTimer {
    /// A run of at least `commands` commands, `depth` at a time.
    #[must_use]
    pub fn new(commands: u64, depth: u32) -> Self {
        Self { commands, depth }
    }

    fn batches(&self) -> u64 {
        self.commands.div_ceil(u64::from(self.depth))
    }

    fn share(&self, spent: Duration) -> Duration {
        spent.mul_f64(self.commands as f64 / (self.batches() * u64::from(self.depth)) as f64)
    }

    /// The time of `commands` commands, `batch` being one batch from its begin to its end.
    pub fn time(&self, mut batch: impl FnMut()) -> Duration {
        let start = Instant::now();
        (0..self.batches()).for_each(|_| batch());
        self.share(start.elapsed())
    }

    /// The same, where each batch needs something that is not measured.
    pub fn time_after<S>(
        &self,
        state: &mut S,
        mut prepare: impl FnMut(&mut S),
        mut batch: impl FnMut(&mut S),
    ) -> Duration {
        let mut spent = Duration::ZERO;
        for _ in 0..self.batches() {
            prepare(state);
            let start = Instant::now();
            batch(state);
            spent += start.elapsed();
        }
        self.share(spent)
    }
}

/// Waits a moment for another thread; `idle` counts the moments since there was news.
pub fn wait(idle: &mut u32) {
    *idle += 1;
    if idle.is_multiple_of(PATIENCE) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}
