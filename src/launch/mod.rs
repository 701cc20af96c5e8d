//! Starts agents and makes sure that they end.
//!
//! ```text
//! daemon ---- Launcher ----> launcher  (zygote: one thread, exec'd before any other exists)
//!    |                          | fork, CLONE_PARENT
//!    |--- ShimHandle ------> shim      (subreaper, sole waiter, holds logs and lock)
//!                               | fork
//!                            payload   (steps in order, then exec)
//!
//! level 2:                      | clone3, new namespaces
//!                            init      (makes the world; reaps orphans; its end is everybody's)
//!                               | fork, memory borrowed until the exec
//!                            payload
//! ```
//!
//! The daemon never forks. It sends a [`LaunchSpec`] in a sealed memfd to the launcher, which forks a
//! shim and forgets it: the shim is the *daemon's* child, reports over a socketpair of its own, and
//! lives on when the launcher dies.
//!
//! ```text
//! shim:  locking -> setting up -> (parked) -> running -> stopping -> killing -> verified empty
//!           |            |           |           `---- payload exits ----^          |
//!           `------------`-----------`--> SetupFailed                             Ended
//!
//! the channel closes (the daemon died) in any state: killing, without a grace
//! ```
//!
//! The order of reports is fixed: `Forked`, then `Parked` if asked for, then `Started` or
//! `SetupFailed`, then `Ended`. `Forked` is in the channel before the payload can run a single
//! instruction, so that whoever meets a process with an unknown shim only has to read the channels.
//! `Ended` comes after the whole subtree was seen to be gone (ECHILD for a subreaper); whatever the
//! payload leaves behind when it exits is killed first. A channel that closes without `Ended` or
//! `SetupFailed` is [`Exit::Lost`], and [`sweep`] then ends what is left.
//!
//! At level 2 the shim's child is an init, and the payload is named by what it says of itself from
//! inside: the same reports, commands and ends. [`run_once`] does without launcher and shim.
//!
//! Where this user has a part of the control groups ([`cgroup`]), the payload is forked into one of its
//! own, which bounds the agent as a whole and can be killed as a whole.
//!
//! This module has no runtime: descriptors are non-blocking where the daemon waits on them, and the
//! daemon brings the waiting. It deliberately makes no policy: a [`ProcessPlan`] comes in complete.

mod capture;
pub mod cgroup;
mod detached;
mod handle;
mod host;
mod hunt;
mod launcher;
mod lock;
mod log;
mod message;
mod network;
mod once;
mod payload;
mod reap;
mod shim;
mod spec;
mod status;
mod trace;
mod tree;
mod world;
mod zygote;

pub use crate::policy::ProcessPlan;
pub use crate::sys::process::{Pid, Usage};
pub use handle::{Received, ShimHandle};
pub use host::{host_facts, host_facts_for};
pub use launcher::{LaunchError, Launcher};
pub use message::{Command, Ended, Exit, Process, Report, Step};
pub use once::{Ran, RunSpec, run_once, run_traced};
pub use reap::{Reaped, SweepError, become_supervisor, reap, sweep};
pub use spec::{LaunchSpec, LogSpec};
pub use trace::{Failed, Subject, Target};
pub use world::{Level2, probe_level_2};
pub use zygote::run_if_launcher;
