//! What agents must not change in the trees that they write, and what comes back from private ones.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

#[path = "workspace/kills.rs"]
mod kills;
#[path = "workspace/live.rs"]
mod live;
#[path = "support/mission.rs"]
#[expect(dead_code, reason = "these tests need only some of it")]
mod mission;
#[path = "support/mod.rs"]
#[expect(dead_code, reason = "these tests need only some of it")]
mod support;
