//! The launcher, shims and payloads on the real kernel, as whoever runs the tests.

#[path = "../support/mod.rs"]
mod support;

mod rig;

mod confinement;
mod deaths;
mod faults;
mod flood;
mod logs;
mod protection;
mod reports;
mod stage;
mod stopping;
mod tree;
mod world;
