//! The seeded simulator of the core. See [`world`].

pub(crate) mod ask;
pub(crate) mod launcher;
pub(crate) mod model;
pub(crate) mod random;
mod rest;
pub(crate) mod spec;
pub(crate) mod world;

use std::collections::BTreeSet;

use model::Verdict;
use world::{Sabotage, World};

/// Random inputs of one seed.
const STEPS: u64 = 70;

/// Runs one seed without the steps in `skipped`.
fn run(seed: u64, sabotage: Sabotage, skipped: &BTreeSet<u64>, traced: bool) -> (Verdict, World) {
    let mut world = World::new(seed, sabotage, traced);
    let verdict = (0..STEPS)
        .filter(|number| !skipped.contains(number))
        .try_for_each(|number| world.step(number))
        .and_then(|()| world.drain());
    (verdict, world)
}

/// Runs one seed.
pub(crate) fn check(seed: u64, sabotage: Sabotage) -> Verdict {
    run(seed, sabotage, &BTreeSet::new(), false).0
}

/// The kinds of events that a seed comes by, and how its mission fared.
pub(crate) fn kinds(seed: u64) -> BTreeSet<&'static str> {
    run(seed, Sabotage::None, &BTreeSet::new(), false).1.kinds()
}

/// The shortest run of a failing seed that still fails in the same way, as text.
pub(crate) fn explain(seed: u64, sabotage: Sabotage, why: &str) -> String {
    let shape = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let mut skipped = BTreeSet::new();
    for size in [16, 8, 4, 2, 1, 1] {
        for first in (0..STEPS).step_by(usize::try_from(size).unwrap_or(1)) {
            let mut more = skipped.clone();
            more.extend(first..first + size);
            let verdict = run(seed, sabotage, &more, false).0;
            if verdict.is_err_and(|other| shape(&other) == shape(why)) {
                skipped = more;
            }
        }
    }
    let (verdict, world) = run(seed, sabotage, &skipped, true);
    let lines = world.trace.unwrap_or_default();
    format!(
        "seed {seed}: {why}\nMISSIOND_SIM_SEED={seed} runs it again; without what has no part in it:\n{}\n{verdict:?}",
        lines.join("\n")
    )
}
