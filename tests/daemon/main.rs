//! The whole daemon: real processes, sockets and logs, as whoever runs the tests.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail loudly too")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the daemon's tests need no process of their own")]
mod support;

#[path = "../support/mission.rs"]
mod mission;

mod checkpoint;
mod disk;
mod handoff;
mod identity;
mod life;
mod limits;
mod restart;
mod service;
mod stop;
mod trace;
