//! What agents must not change in the trees that they write, and what comes back from private ones.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail loudly too")]

#[cfg(test)]
#[path = "workspace/kills.rs"]
mod kills;
#[cfg(test)]
#[path = "workspace/live.rs"]
mod live;
#[cfg(test)]
#[path = "support/mission.rs"]
#[expect(dead_code, reason = "these tests need only some of it")]
mod mission;
#[cfg(test)]
#[path = "support/mod.rs"]
#[expect(dead_code, reason = "these tests need only some of it")]
mod support;
