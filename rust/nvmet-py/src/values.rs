//! Values of the target as Python has them: counters, health, ANA states, reservations.
//!
//! May know `nvmet-core`'s plain data. Must not know targets.

use std::collections::BTreeMap;

use nvmet_core::{
    namespace::Kept,
    stats::Batch,
    subsystem::{
        Health,
        ana::{AnaState, AnaStates},
    },
    target::Lifetime,
};
use pyo3::{prelude::*, types::PyDict};

use crate::error;

/// Counters by name.
pub type Counters = BTreeMap<String, u64>;

/// Counters as Python has them.
pub fn counters(batch: &Batch) -> Counters {
    [
        ("reads", batch.reads),
        ("writes", batch.writes),
        ("bytes_read", batch.bytes_read),
        ("bytes_written", batch.bytes_written),
        ("completions", batch.completions),
        ("errors", batch.errors),
        ("media_errors", batch.media_errors),
        ("interrupts", batch.interrupts),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Counters that Python kept; what is missing is 0.
pub fn batch(counters: &Counters) -> Batch {
    let of = |name| counters.get(name).copied().unwrap_or(0);
    Batch {
        reads: of("reads"),
        writes: of("writes"),
        bytes_read: of("bytes_read"),
        bytes_written: of("bytes_written"),
        completions: of("completions"),
        errors: of("errors"),
        media_errors: of("media_errors"),
        interrupts: of("interrupts"),
    }
}

/// What SMART counted over the life of a controller: counters, and the entries of its error log.
pub fn lifetime(life: &Lifetime) -> (Counters, Vec<u8>) {
    let mut all = counters(&life.stats);
    for (name, value) in [
        ("power_cycles", life.power_cycles),
        ("power_on_seconds", life.power_on_seconds),
        ("unsafe_shutdowns", life.unsafe_shutdowns),
        ("in_use", life.in_use.into()),
        ("error_log_entries", life.errors),
    ] {
        all.insert(name.to_owned(), value);
    }
    (all, life.error_log.clone())
}

/// The same, from what Python kept.
pub fn lifetime_of(counters: &Counters, error_log: Vec<u8>) -> Lifetime {
    let of = |name| counters.get(name).copied().unwrap_or(0);
    Lifetime {
        stats: batch(counters),
        power_cycles: of("power_cycles"),
        power_on_seconds: of("power_on_seconds"),
        in_use: false,
        unsafe_shutdowns: of("unsafe_shutdowns"),
        errors: of("error_log_entries"),
        error_log,
    }
}

/// The states of ANA groups, in nvmet's words.
pub fn ana(states: &AnaStates) -> BTreeMap<u32, &'static str> {
    states.iter().map(|(group, state)| (group, ana_word(state))).collect()
}

/// The same, from words.
pub fn ana_of(words: &BTreeMap<u32, String>) -> PyResult<AnaStates> {
    words.iter().map(|(&group, word)| Ok((group, ana_state(word)?))).collect()
}

/// The states of an ANA group, and nvmet's words for them.
const ANA_WORDS: [(&str, AnaState); 5] = [
    ("optimized", AnaState::Optimized),
    ("non-optimized", AnaState::NonOptimized),
    ("inaccessible", AnaState::Inaccessible),
    ("persistent-loss", AnaState::PersistentLoss),
    ("change", AnaState::Change),
];

fn ana_word(state: AnaState) -> &'static str {
    ANA_WORDS.iter().find(|(_, other)| *other == state).map_or("reserved", |(word, _)| word)
}

/// The state that one of nvmet's words is for.
pub fn ana_state(word: &str) -> PyResult<AnaState> {
    let found = ANA_WORDS.iter().find(|(other, _)| *other == word);
    found.map(|&(_, state)| state).ok_or_else(|| {
        let words = ANA_WORDS.map(|(word, _)| word).join(", ");
        error::config(format!("ana state: {word:?}; use one of {words}"))
    })
}

/// Figures of SMART by name.
pub fn health<'py>(py: Python<'py>, health: &Health) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("temperature", health.temperature)?;
    dict.set_item("spare", health.spare)?;
    dict.set_item("spare_threshold", health.spare_threshold)?;
    dict.set_item("percentage_used", health.percentage_used)?;
    dict.set_item("reliability_degraded", health.reliability_degraded)?;
    Ok(dict)
}

/// Who is registered with a namespace: host, key, whether it holds the reservation.
pub type Registrants = Vec<([u8; 16], u64, bool)>;

/// Generation, type (0: none), Persist Through Power Loss, and the registrants.
pub fn reservation(kept: &Kept) -> (u32, u8, bool, Registrants) {
    let state = &kept.reservations;
    let registrants =
        state.registrants().map(|registrant| (registrant.host, registrant.key, registrant.holder)).collect();
    (state.generation(), state.rtype().into_bits(), state.ptpl(), registrants)
}
