use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const MICROSECOND: u64 = 1_000;

fn wait(until: u64) -> Decision {
    Decision::Wait { until }
}

/// A gate whose host has been announced so many completions and consumed none.
fn announced(count: u32) -> InterruptGate {
    let mut gate = InterruptGate::new(0);
    assert_eq!(gate.decide(count, count, || 0), Decision::Signal);
    gate
}

/// A gate whose host takes what no signal has announced.
fn polled() -> InterruptGate {
    let mut gate = announced(1);
    for at in 0..u64::from(TAKINGS.0) {
        assert_eq!(gate.decide(1, 2, || at * MICROSECOND), wait(at * MICROSECOND + GRACE));
        assert_eq!(gate.decide(0, 0, || at * MICROSECOND), Decision::Nothing);
        if at + 1 < u64::from(TAKINGS.0) {
            assert_eq!(gate.decide(1, 1, || at * MICROSECOND), Decision::Signal);
        }
    }
    gate
}

#[test]
fn a_batch_has_one_signal_and_nothing_new_has_none() {
    for batch in 1..=64 {
        let mut gate = InterruptGate::new(0);
        assert_eq!(gate.decide(0, 0, || 0), Decision::Nothing);
        assert_eq!(gate.decide(batch, batch, || 0), Decision::Signal);
        for now in [0, GRACE, 1_000 * GRACE] {
            assert_eq!(gate.decide(0, batch, || now), Decision::Nothing);
            assert_eq!(gate.before_sleep(0, batch, || now), Decision::Nothing);
        }
    }
}

#[test]
fn what_was_consumed_before_the_decision_needs_no_signal() {
    let mut gate = InterruptGate::new(0);
    assert_eq!(gate.decide(5, 0, || 0), Decision::Nothing);
    assert_eq!(gate.before_sleep(0, 0, || 0), Decision::Nothing);
}

#[test]
fn a_host_with_one_command_at_a_time_never_waits() {
    let mut gate = InterruptGate::new(0);
    for at in 0..100_000 {
        // It has written its head before it rings for the next command.
        assert_eq!(gate.decide(1, 1, || at * MICROSECOND), Decision::Signal);
    }
}

#[test]
fn a_host_that_is_behind_is_signalled_once_a_grace() {
    let mut gate = announced(4);
    assert_eq!(gate.decide(2, 6, || 100), wait(100 + GRACE));
    assert_eq!(gate.decide(2, 8, || 200), wait(100 + GRACE));
    assert_eq!(gate.decide(0, 6, || 300), wait(100 + GRACE), "on its way to what was announced");
    assert_eq!(gate.decide(0, 6, || 99 + GRACE), wait(100 + GRACE));
    assert_eq!(gate.decide(0, 6, || 100 + GRACE), Decision::Signal);
    assert_eq!(gate.decide(1, 7, || 200 + GRACE), wait(200 + 2 * GRACE));
    assert_eq!(gate.decide(0, 0, || 300 + GRACE), Decision::Nothing, "it took the last one unannounced");
}

#[test]
fn a_head_that_stops_short_of_what_was_posted_is_signalled_at_once() {
    // The host found nothing after entry 4, entry 5 was posted, the host wrote its head.
    let mut gate = announced(4);
    assert_eq!(gate.decide(1, 5, || 0), wait(GRACE));
    assert_eq!(gate.decide(0, 1, || 1), Decision::Signal);
    // The same with one that it took and one that it did not.
    let mut gate = announced(4);
    assert_eq!(gate.decide(2, 6, || 0), wait(GRACE));
    assert_eq!(gate.decide(0, 1, || 1), Decision::Signal);
}

#[test]
fn nothing_that_is_owed_outlasts_a_sleep() {
    let mut gate = announced(4);
    assert_eq!(gate.decide(1, 5, || 0), wait(GRACE));
    assert_eq!(gate.before_sleep(0, 5, || 1), Decision::Signal);
    assert_eq!(gate.before_sleep(0, 5, || 1), Decision::Nothing);
    let mut gate = polled();
    assert!(matches!(gate.decide(1, 1, || 0), Decision::Wait { .. }));
    assert_eq!(gate.before_sleep(0, 1, || 1), Decision::Signal);
}

#[test]
fn a_host_that_polls_is_not_signalled() {
    let mut gate = polled();
    for at in 1..100_000 {
        let now = at * MICROSECOND;
        assert_eq!(gate.decide(3, 3, || now), wait(now + GRACE));
        // It is never seen to have taken all.
        assert_eq!(gate.decide(2, 4, || now + 100), wait(now + 100 + GRACE));
        assert_eq!(gate.decide(0, 0, || now + 200), Decision::Nothing);
    }
}

#[test]
fn a_host_that_polls_no_more_waits_for_one_grace_once() {
    let mut gate = polled();
    assert_eq!(gate.decide(1, 1, || 0), wait(GRACE));
    assert_eq!(gate.decide(0, 1, || GRACE), Decision::Signal);
    let mut now = GRACE;
    for _ in 1..TAKINGS.0 * DISTRUST {
        // It takes one unannounced now and then, and none of its interrupts is late.
        now += MICROSECOND;
        assert_eq!(gate.decide(1, 1, || now), Decision::Signal);
        assert_eq!(gate.decide(1, 2, || now), wait(now + GRACE));
        assert_eq!(gate.decide(0, 0, || now), Decision::Nothing);
    }
    assert_eq!(gate.decide(1, 1, || now), Decision::Signal);
}

#[test]
fn a_host_that_writes_its_head_late_is_soon_not_taken_to_be_behind() {
    let mut gate = InterruptGate::new(0);
    let (mut now, mut late, mut unconsumed) = (0, 0, 0);
    for _ in 0..10_000 {
        unconsumed += 1;
        if let Decision::Wait { until } = gate.decide(1, unconsumed, || now) {
            late += 1;
            assert_eq!(gate.decide(0, unconsumed, || until), Decision::Signal);
            now = until;
        }
        now += 20 * MICROSECOND;
        // Every 64 completions it writes its head.
        unconsumed %= 64;
    }
    assert!(late <= 3 * EXPIRIES, "{late}");
}

#[test]
fn coalescing_signals_at_the_threshold_or_after_the_time() {
    let time = 200 * MICROSECOND;
    let coalesced = |room| {
        let mut gate = InterruptGate::new(0);
        gate.configure(Some(Coalescing { threshold: 4, time }), room);
        gate
    };
    // The threshold, in one batch and in several; what a signal announced counts no more.
    let mut gate = coalesced(63);
    assert_eq!(gate.decide(9, 9, || 0), Decision::Signal);
    assert_eq!(gate.decide(3, 12, || 10), wait(10 + time));
    assert_eq!(gate.decide(0, 12, || 20), wait(10 + time));
    assert_eq!(gate.decide(1, 13, || 30), Decision::Signal);
    // The time, since the first; also over a sleep.
    assert_eq!(gate.decide(1, 14, || 1_000), wait(1_000 + time));
    assert_eq!(gate.decide(1, 15, || 2_000), wait(1_000 + time));
    assert_eq!(gate.before_sleep(0, 15, || 3_000), wait(1_000 + time));
    assert_eq!(gate.before_sleep(0, 15, || 1_000 + time), Decision::Signal);
    // What the host has taken is not signalled.
    assert_eq!(gate.decide(1, 1, || 500_000), wait(500_000 + time));
    assert_eq!(gate.decide(0, 0, || 500_010), Decision::Nothing);
    assert_eq!(gate.decide(1, 1, || 500_020), wait(500_020 + time));
    // A queue that is full gets no more.
    assert_eq!(coalesced(2).decide(2, 2, || 0), Decision::Signal);
}

#[test]
fn coalescing_that_is_turned_off_holds_nothing_back() {
    let mut gate = InterruptGate::new(0);
    gate.configure(Coalescing::new(256, 255), 63);
    assert!(matches!(gate.decide(1, 1, || 0), Decision::Wait { .. }));
    gate.configure(None, 63);
    assert_eq!(gate.decide(0, 1, || 1), Decision::Signal);
}

/// What a host does when it gets to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Habit {
    /// On an interrupt it takes all that is there, then writes its head, as Linux does.
    Interrupts,
    /// As before, but it keeps up to so many taken ones from its head.
    LateHead(u32),
    /// It takes one and writes its head, whether or not there was an interrupt.
    Polls,
}

/// A host and its completion queue. Counters do not wrap: rings are somebody else's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Host {
    habit: Habit,
    posted: u32,
    taken: u32,
    /// The doorbell.
    head: u32,
    /// The eventfd, and whether the vector is masked.
    interrupt: bool,
    masked: bool,
    /// In its handler.
    awake: bool,
}

impl Host {
    fn new(habit: Habit) -> Self {
        Self { habit, posted: 0, taken: 0, head: 0, interrupt: false, masked: false, awake: false }
    }

    fn unconsumed(&self) -> u32 {
        self.posted - self.head
    }

    /// One step, between any two of which anything may happen; false if there is nothing to do.
    fn step(&mut self) -> bool {
        if self.habit == Habit::Polls {
            let some = self.taken < self.posted;
            self.taken += u32::from(some);
            self.head = self.taken;
            return some;
        }
        if !self.awake {
            self.awake = self.interrupt && !self.masked;
            self.interrupt &= self.masked;
            return self.awake;
        }
        if self.taken < self.posted {
            self.taken += 1;
        } else {
            let kept = if let Habit::LateHead(most) = self.habit { most } else { 0 };
            if self.taken - self.head > kept {
                self.head = self.taken;
            }
            self.awake = false;
        }
        true
    }
}

/// A worker with one queue, as far as interrupts go.
struct Worker {
    gate: InterruptGate,
    host: Host,
    now: u64,
    /// Until when it may do something else.
    until: Option<u64>,
    /// When each completion was posted, and when the first one did that no signal has announced.
    since: Vec<u64>,
    announced: u32,
    /// When the host was last seen to take something.
    seen: (u32, u64),
    /// Completions at the last question, and since when one has been owed.
    known: u32,
    owed_since: u64,
}

impl Worker {
    fn new(habit: Habit) -> Self {
        Self {
            gate: InterruptGate::new(0),
            host: Host::new(habit),
            now: 0,
            until: None,
            since: Vec::new(),
            announced: 0,
            seen: (0, 0),
            known: 0,
            owed_since: 0,
        }
    }

    fn post(&mut self, count: u32) {
        self.host.posted += count;
        self.since.extend(std::iter::repeat_n(self.now, count as usize));
    }

    fn turn(&mut self, posted: u32, sleep: bool) {
        let unconsumed = self.host.unconsumed();
        if self.seen.0 != self.host.head {
            self.seen = (self.host.head, self.now);
        }
        let (before, coalescing) = (self.gate.clone(), self.gate.coalescing);
        let decision = if sleep {
            self.gate.before_sleep(posted, unconsumed, || self.now)
        } else {
            self.gate.decide(posted, unconsumed, || self.now)
        };
        // The first completion that was neither announced nor consumed.
        let first = self.announced.max(self.host.head);
        let owed = self.host.posted - first;
        if first >= self.known {
            self.owed_since = self.now;
        }
        self.known = self.host.posted;
        self.until = None;
        match decision {
            Decision::Nothing => assert_eq!(owed, 0, "{before:?}"),
            Decision::Signal => {
                assert_ne!(owed, 0, "nothing new: {before:?}");
                if let Some(coalescing) = coalescing {
                    let due = self.owed_since + coalescing.time;
                    assert!(owed >= coalescing.threshold || self.now >= due, "early: {before:?}");
                }
                self.announced = self.host.posted;
                self.host.interrupt = true;
            }
            Decision::Wait { until } => {
                assert!(until > self.now);
                let waits_since = self.since[first as usize];
                match coalescing {
                    Some(coalescing) => {
                        assert!(owed < coalescing.threshold && until <= waits_since + coalescing.time);
                    }
                    None => {
                        assert!(!sleep, "owed over a sleep: {before:?}");
                        assert!(until <= waits_since.max(self.seen.1) + GRACE);
                    }
                }
                self.until = Some(until);
            }
        }
    }

    /// Nothing more comes. The worker sleeps as soon as it may; the host does what it does by itself.
    fn end(&mut self) {
        self.host.masked = false;
        self.turn(0, true);
        while let Some(until) = self.until {
            self.now = until;
            self.turn(0, true);
        }
        while self.host.step() {}
        assert_eq!(self.host.taken, self.host.posted, "left unannounced: {:?} {:?}", self.gate, self.host);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Post(u32),
    Turn,
    Sleep,
    Pass(u64),
    Host(u8),
    Mask(bool),
    Become(Habit),
}

fn any_habit() -> impl Strategy<Value = Habit> {
    prop_oneof![
        3 => Just(Habit::Interrupts),
        1 => (1..8_u32).prop_map(Habit::LateHead),
        2 => Just(Habit::Polls),
    ]
}

fn any_step(changes: bool) -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..=8_u32).prop_map(Step::Post),
        6 => Just(Step::Turn),
        1 => Just(Step::Sleep),
        3 => (0..3_000_u64).prop_map(Step::Pass),
        1 => (0..2 * GRACE).prop_map(Step::Pass),
        8 => (1..12_u8).prop_map(Step::Host),
        u32::from(changes) => any::<bool>().prop_map(Step::Mask),
        u32::from(changes) => any_habit().prop_map(Step::Become),
    ]
}

fn any_coalescing() -> impl Strategy<Value = Option<Coalescing>> {
    prop_oneof![Just(None), (1..=40_u32, 0..=2_u8).prop_map(|(thr, time)| Coalescing::new(thr, time))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn no_completion_stays_unannounced(
        habit in any_habit(), coalescing in any_coalescing(), entries in 2..=64_u32,
        steps in any::<bool>().prop_flat_map(|changes| prop::collection::vec(any_step(changes), 1..400)),
    ) {
        let mut worker = Worker::new(habit);
        worker.gate.configure(coalescing, entries - 1);
        for step in steps {
            match step {
                Step::Post(count) => {
                    let count = count.min(entries - 1 - worker.host.unconsumed());
                    worker.post(count);
                    worker.turn(count, false);
                }
                Step::Turn => worker.turn(0, false),
                Step::Sleep => worker.turn(0, true),
                Step::Pass(time) => {
                    // The worker keeps its appointments.
                    worker.now += time;
                    while let Some(until) = worker.until.filter(|&until| until <= worker.now) {
                        let now = std::mem::replace(&mut worker.now, until);
                        worker.turn(0, false);
                        worker.now = now;
                    }
                }
                Step::Host(steps) => (0..steps).for_each(|_| { worker.host.step(); }),
                Step::Mask(masked) => worker.host.masked = masked,
                Step::Become(habit) => {
                    // Who begins to wait for interrupts looks once more.
                    worker.host.habit = habit;
                    worker.host.awake = true;
                }
            }
        }
        worker.end();
    }

    #[test]
    fn a_host_that_waits_for_interrupts_is_served_at_every_depth(
        depth in 1..=64_u32, batch in 1..=64_u32, coalescing in any_coalescing(), handler in 1..80_usize,
    ) {
        let mut worker = Worker::new(Habit::Interrupts);
        worker.gate.configure(coalescing, 64);
        let (mut submitted, mut completed) = (0, 0);
        for _ in 0..400 {
            // It keeps `depth` commands going, of which the worker completes up to `batch` a turn.
            submitted = submitted.max(worker.host.taken + depth);
            let count = (submitted - completed).min(batch);
            worker.post(count);
            completed += count;
            worker.turn(count, false);
            worker.now += MICROSECOND;
            let ran = (0..handler).filter(|_| worker.host.step()).count();
            if count == 0 && ran == 0 {
                // Neither has anything to do but to wait.
                worker.turn(0, true);
                worker.now = worker.until.unwrap_or(worker.now);
                worker.turn(0, true);
                prop_assert!(worker.host.step() || worker.host.taken + depth > submitted, "a stall");
            }
        }
        worker.end();
    }
}

/// One state of a worker, its gate and a host, of which the model below visits all that there are.
#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    gate: InterruptGate,
    host: Host,
    now: u64,
    /// Posted and not yet told to the gate.
    fresh: u32,
    /// The head that the worker has read and not yet told to the gate.
    head: Option<u32>,
    until: Option<u64>,
    asleep: bool,
}

/// Completions in the model.
const MOST: u32 = 4;

impl World {
    fn ask(&self, sleep: bool) -> Self {
        let mut next = self.clone();
        let head = next.head.take().unwrap();
        let (posted, unconsumed) = (std::mem::take(&mut next.fresh), next.host.posted - head);
        let decision = if sleep {
            next.gate.before_sleep(posted, unconsumed, || next.now)
        } else {
            next.gate.decide(posted, unconsumed, || next.now)
        };
        next.until = None;
        match decision {
            Decision::Nothing => next.asleep = sleep,
            Decision::Signal => {
                next.host.interrupt = true;
                next.asleep = sleep;
            }
            Decision::Wait { until } => {
                next.until = Some(until);
                next.asleep = sleep;
            }
        }
        next
    }

    /// What may come next. A worker that sleeps without a limit is only woken by a command.
    fn next(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut host = self.clone();
        if host.host.step() {
            all.push(host);
        }
        if self.host.posted < MOST {
            // A command wakes it and is completed, be it after the head was read.
            let mut next = self.clone();
            (next.asleep, next.host.posted, next.fresh) = (false, self.host.posted + 1, self.fresh + 1);
            all.push(next);
        }
        if let Some(until) = self.until {
            all.push(Self { now: until.max(self.now), asleep: false, ..self.clone() });
        }
        if !self.asleep {
            match self.head {
                None => all.push(Self { head: Some(self.host.head), ..self.clone() }),
                Some(_) => all.extend([self.ask(false), self.ask(true)]),
            }
        }
        all
    }
}

/// Every interleaving of a host's looks at the queue and writes of its head with a worker's completions, reads of the
/// head, questions and sleeps.
#[test]
fn in_every_interleaving_with_sleep_the_host_gets_all() {
    for coalescing in [None, Coalescing::new(2, 1), Coalescing::new(3, 1)] {
        for (habit, takings) in [
            (Habit::Interrupts, 0),
            (Habit::Interrupts, TAKINGS.0),
            (Habit::LateHead(1), 0),
            (Habit::LateHead(2), TAKINGS.0),
            (Habit::Polls, TAKINGS.0),
        ] {
            let mut gate = InterruptGate { takings, ..InterruptGate::new(0) };
            gate.configure(coalescing, 7);
            let host = Host::new(habit);
            let world = World { gate, host, now: 0, fresh: 0, head: None, until: None, asleep: false };
            let (mut seen, mut open, mut ends) = (HashSet::from([world.clone()]), vec![world], 0);
            while let Some(world) = open.pop() {
                let host_done = !world.host.clone().step();
                if host_done && world.asleep && world.until.is_none() {
                    // Both wait for the other: nobody may have anything left.
                    ends += 1;
                    assert_eq!(world.host.taken, world.host.posted, "{:?} {:?}", world.gate, world.host);
                }
                open.extend(world.next().into_iter().filter(|next| seen.insert(next.clone())));
            }
            assert!(ends > 0);
        }
    }
}
