//! The seeded simulator: the core with a store that fails, a clock that jumps and a launcher that lies
//! about nothing but takes its time. `MISSIOND_SIM_SEED=n` runs one seed and shows what happened,
//! `MISSIOND_SIM_SEEDS=n` runs so many (default 100,000), from `MISSIOND_SIM_FROM` on.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "test code outside of a test function"
)]

mod sim;

use std::sync::atomic::{AtomicU64, Ordering};

use sim::world::Sabotage;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The first failing seed of these and why, on all processors.
fn first_failure(seeds: std::ops::Range<u64>, sabotage: Sabotage) -> Option<(u64, String)> {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(u64::MAX);
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end || failed.load(Ordering::Relaxed) < seed {
                    return None;
                }
                let verdict = std::panic::catch_unwind(|| sim::check(seed, sabotage));
                let verdict = verdict.unwrap_or_else(|_| Err("it panicked".to_owned()));
                if let Err(why) = verdict {
                    failed.fetch_min(seed, Ordering::Relaxed);
                    return Some((seed, why));
                }
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).min()
    })
}

#[test]
fn no_seed_breaks_the_core() {
    let seeds = match number("MISSIOND_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let from = number("MISSIOND_SIM_FROM").unwrap_or(0);
            from..from + number("MISSIOND_SIM_SEEDS").unwrap_or(100_000)
        }
    };
    if let Some((seed, why)) = first_failure(seeds, Sabotage::None) {
        panic!("{}", sim::explain(seed, Sabotage::None, &why));
    }
}

/// A simulation that never comes by a handoff says nothing about handoffs.
#[test]
fn the_seeds_come_by_every_kind_of_event() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..300 {
        for kind in sim::kinds(seed) {
            *seen.entry(kind).or_insert(0) += 1;
        }
    }
    println!("{seen:?}");
    let all = missiond::core::event::Event::KINDS.iter().map(|(kind, _)| *kind);
    let missing: Vec<_> = all.filter(|kind| !seen.contains_key(kind)).collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}

/// Each fault of a daemon is seen within a few hundred seeds, or the checks check nothing.
fn is_caught(sabotage: Sabotage) {
    let found = first_failure(0..2_000, sabotage);
    assert!(found.is_some(), "{sabotage:?} was not noticed");
}

#[test]
fn a_store_that_loses_what_it_acknowledged_is_caught() {
    is_caught(Sabotage::LoseBatch);
}

#[test]
fn a_restart_that_forgets_an_event_is_caught() {
    is_caught(Sabotage::LoseLastRow);
}

#[test]
fn a_daemon_that_ignores_idempotency_keys_is_caught() {
    is_caught(Sabotage::DropKeys);
}

#[test]
fn a_daemon_that_misses_the_end_of_a_process_is_caught() {
    is_caught(Sabotage::LoseEnds);
}

#[test]
fn a_daemon_that_misses_deadlines_is_caught() {
    is_caught(Sabotage::NoTicks);
}
