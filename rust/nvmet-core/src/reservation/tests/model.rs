//! Random commands by several hosts, against a second reading of §8.19: arrays in place of maps, one flat function for
//! each command, nothing shared with the code.

use proptest::prelude::*;

use super::*;

const HOSTS: usize = 5;

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    /// By host; 0: not registered.
    keys: [u64; HOSTS],
    /// RTYPE, 0 without a reservation.
    rtype: u8,
    /// Who acquired a reservation of types 1 to 4.
    owner: usize,
    generation: u32,
    ptpl: bool,
}

/// By host: the kind of its notice, or 0; whether its commands are aborted.
type Effects = ([u8; HOSTS], [bool; HOSTS]);

const NOTHING: Effects = ([0; HOSTS], [false; HOSTS]);

impl Model {
    fn holds(&self, host: usize) -> bool {
        match self.rtype {
            0 => false,
            1..=4 => self.owner == host,
            _ => self.keys[host] != 0,
        }
    }

    /// After registrations have gone: so may the reservation.
    fn settle(&mut self) {
        if !(0..HOSTS).any(|host| self.keys[host] != 0 && self.holds(host)) {
            self.rtype = 0;
        }
    }

    fn register(
        &mut self,
        me: usize,
        action: u8,
        iekey: bool,
        cptpl: u8,
        crkey: u64,
        nrkey: u64,
    ) -> Result<Effects, Status> {
        let mine = self.keys[me];
        let mut effects = NOTHING;
        let adds = action == 0 || (action == 2 && iekey && mine == 0);
        if adds && mine != 0 && mine != nrkey {
            return Err(CONFLICT);
        }
        if !adds && (mine == 0 || (!iekey && mine != crkey)) {
            return Err(CONFLICT);
        }
        if action != 1 && nrkey == 0 {
            return Err(INVALID_FIELD);
        }
        if action == 1 {
            let rtype = self.rtype;
            self.keys[me] = 0;
            self.settle();
            if (rtype == 3 || rtype == 4) && self.rtype == 0 {
                for host in 0..HOSTS {
                    if self.keys[host] != 0 {
                        effects.0[host] = 2;
                    }
                }
            }
        } else {
            self.keys[me] = nrkey;
        }
        self.ptpl = [self.ptpl, false, true][usize::from(cptpl)];
        self.generation = self.generation.wrapping_add(1);
        Ok(effects)
    }

    fn acquire(&mut self, me: usize, rtype: u8) -> Result<Effects, Status> {
        if self.rtype == 0 {
            (self.rtype, self.owner) = (rtype, me);
        } else if self.rtype != rtype || !self.holds(me) {
            return Err(CONFLICT);
        }
        Ok(NOTHING)
    }

    fn preempt(&mut self, me: usize, rtype: u8, prkey: u64, abort: bool) -> Result<Effects, Status> {
        let (before, keys) = (self.rtype, self.keys);
        let for_one = (1..=4).contains(&before);
        let from_owner = for_one && keys[self.owner] == prkey;
        let from_all = before >= 5 && prkey == 0;
        if for_one && !from_owner && prkey == 0 {
            return Err(INVALID_FIELD);
        }
        let takes = from_owner || from_all;
        let mut gone = 0;
        for (host, key) in keys.into_iter().enumerate() {
            let hit = key != 0 && (from_all || key == prkey) && !(takes && host == me);
            if hit {
                self.keys[host] = 0;
                gone += 1;
            }
        }
        if !takes && gone == 0 {
            return Err(CONFLICT);
        }
        if takes {
            (self.rtype, self.owner) = (rtype, me);
        } else {
            self.settle();
        }
        let mut effects = NOTHING;
        for host in (0..HOSTS).filter(|&host| host != me && keys[host] != 0) {
            if self.keys[host] == 0 {
                (effects.0[host], effects.1[host]) = (1, abort);
            } else if before != 0 && self.rtype != before {
                effects.0[host] = 2;
            }
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(effects)
    }

    fn release(&mut self, me: usize, rtype: u8) -> Result<Effects, Status> {
        let mut effects = NOTHING;
        if self.holds(me) {
            if rtype != self.rtype {
                return Err(INVALID_FIELD);
            }
            if rtype >= 3 {
                for host in (0..HOSTS).filter(|&host| host != me && self.keys[host] != 0) {
                    effects.0[host] = 2;
                }
            }
            self.rtype = 0;
        }
        Ok(effects)
    }

    fn clear(&mut self, me: Option<usize>) -> Effects {
        let mut effects = NOTHING;
        for host in (0..HOSTS).filter(|&host| Some(host) != me && self.keys[host] != 0) {
            effects.0[host] = 3;
        }
        (self.keys, self.rtype) = ([0; HOSTS], 0);
        self.generation = self.generation.wrapping_add(1);
        effects
    }

    fn execute(&mut self, step: &Step) -> Result<Effects, Status> {
        let me = step.host;
        match step.kind {
            Kind::Register { action, iekey, cptpl } => {
                if cptpl == 2 && !step.ptpl_supported {
                    return Err(INVALID_FIELD);
                }
                self.register(me, action, iekey, cptpl, step.crkey, step.key)
            }
            Kind::Operator => Ok(if self.keys == [0; HOSTS] { NOTHING } else { self.clear(None) }),
            Kind::Acquire { .. } | Kind::Release { .. }
                if self.keys[me] == 0 || self.keys[me] != step.crkey =>
            {
                Err(CONFLICT)
            }
            Kind::Acquire { action: 0, rtype } => self.acquire(me, rtype),
            Kind::Acquire { action, rtype } => self.preempt(me, rtype, step.key, action == 2),
            Kind::Release { action: 0, rtype } => self.release(me, rtype),
            Kind::Release { .. } => Ok(self.clear(Some(me))),
        }
    }

    fn check(&self, state: &State) {
        let registered: Vec<_> = (0..HOSTS)
            .filter(|&at| self.keys[at] != 0)
            .map(|at| Registrant { host: host(at as u8), key: self.keys[at], holder: self.holds(at) })
            .collect();
        assert_eq!(state.registrants().collect::<Vec<_>>(), registered);
        let owner = (1..=4).contains(&self.rtype).then(|| host(self.owner as u8));
        assert_eq!(state.holder(), owner);
        assert_eq!(
            (state.rtype().into_bits(), state.generation(), state.ptpl()),
            (self.rtype, self.generation, self.ptpl)
        );
        let snapshot = state.snapshot();
        for at in 0..=HOSTS {
            let registered = at < HOSTS && self.keys[at] != 0;
            let holds = at < HOSTS && self.holds(at);
            let expected = match self.rtype {
                0 => Access::Full,
                _ if holds => Access::Full,
                3 | 4 if registered => Access::Full,
                1 | 3 | 5 => Access::ReadOnly,
                _ => Access::None,
            };
            assert_eq!(snapshot.access(&host(at as u8)), expected);
            assert_eq!(snapshot.is_registrant(&host(at as u8)), registered);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Register { action: u8, iekey: bool, cptpl: u8 },
    Acquire { action: u8, rtype: u8 },
    Release { action: u8, rtype: u8 },
    Operator,
}

#[derive(Clone, Debug)]
struct Step {
    host: usize,
    kind: Kind,
    crkey: u64,
    /// NRKEY or PRKEY.
    key: u64,
    ptpl_supported: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        4 => (0..3u8, any::<bool>(), 0..3u8).prop_map(|(action, iekey, cptpl)| Kind::Register { action, iekey, cptpl }),
        5 => (0..3u8, 1..=6u8).prop_map(|(action, rtype)| Kind::Acquire { action, rtype }),
        2 => (prop_oneof![4 => Just(0u8), 1 => Just(1)], 0..=7u8)
            .prop_map(|(action, rtype)| Kind::Release { action, rtype }),
        1 => Just(Kind::Operator),
    ];
    (0..HOSTS, kind, prop_oneof![3 => Just(u64::MAX), 1 => 0..4u64], 0..4u64, prop::bool::weighted(0.9))
        .prop_map(|(host, kind, crkey, key, ptpl_supported)| Step { host, kind, crkey, key, ptpl_supported })
}

fn command(step: &Step) -> Option<Command> {
    let Step { crkey, key, .. } = *step;
    Some(match step.kind {
        Kind::Register { action, iekey, cptpl } => Command::Register {
            action: [RegisterAction::Register, RegisterAction::Unregister, RegisterAction::Replace]
                [usize::from(action)],
            iekey,
            cptpl: [ChangePtpl::NoChange, ChangePtpl::Clear, ChangePtpl::Set][usize::from(cptpl)],
            crkey,
            nrkey: key,
        },
        Kind::Acquire { action, rtype } => acquire(
            [AcquireAction::Acquire, AcquireAction::Preempt, AcquireAction::PreemptAndAbort]
                [usize::from(action)],
            ReservationType::from_bits(rtype),
            crkey,
            key,
        ),
        Kind::Release { action, rtype } => release(
            [ReleaseAction::Release, ReleaseAction::Clear][usize::from(action)],
            ReservationType::from_bits(rtype),
            crkey,
        ),
        Kind::Operator => return None,
    })
}

fn effects(outcome: &Outcome) -> Effects {
    let mut effects = NOTHING;
    for notice in &outcome.notices {
        let at = &mut effects.0[usize::from(notice.host[0])];
        assert_eq!(*at, 0, "one notice a host");
        *at = notice.kind as u8;
    }
    for host in &outcome.abort {
        effects.1[usize::from(host[0])] = true;
    }
    effects
}

fn identity() -> Identity {
    Identity { nqn: "nqn.2025-01.io.nvmet-vdev:model".into(), nsid: 1, uuid: [5; 16] }
}

proptest! {
    #[test]
    fn any_commands_of_several_hosts_do_what_a_second_reading_of_the_specification_says(
        generation in prop_oneof![Just(0u32), Just(u32::MAX - 3)],
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut state = State { generation, ..State::default() };
        let mut model = Model { generation, ..Model::default() };
        for mut step in steps {
            // Most of the time the right key.
            if step.crkey == u64::MAX {
                step.crkey = model.keys[step.host];
            }
            let before = state.clone();
            let expected = model.execute(&step);
            let result = match command(&step) {
                Some(command) => state.execute(&host(step.host as u8), &command, step.ptpl_supported),
                None => Ok(state.clear_by_operator()),
            };
            match &result {
                Ok(outcome) => {
                    prop_assert_eq!(outcome.changed, state != before, "{:?}", step);
                    prop_assert!(state.generation().wrapping_sub(before.generation()) <= 1);
                    if command(&step).is_some() {
                        prop_assert!(outcome.notices.iter().all(|notice| notice.host != host(step.host as u8)));
                    }
                }
                Err(_) => prop_assert_eq!(&state, &before, "{:?}", step),
            }
            prop_assert_eq!(result.as_ref().map(effects), expected.as_ref().map(|effects| *effects), "{:?}", step);
            model.check(&state);
            let saved = Saved { reservations: state.clone(), write_protected: step.key == 0 };
            let decoded = Saved::decode(&saved.encode(&identity()), &identity());
            prop_assert_eq!(decoded, Ok(saved.at_power_on()));
        }
    }
}
