//! missiond: a privilege-free supervisor that lets a team of AI agents work on one machine without
//! being able to hurt it.
//!
//! A *mission* is a team of agents (any programs) that work on one thing. `missiond start` runs each
//! as a child process, joins them on a durable bus over Unix sockets, where what an agent may do
//! follows from its *role*, and moves half-done work between them. An operator steers with
//! `missionctl`. This page is the map of the house.
//!
//! # The one loop
//!
//! ```text
//!  agents, missionctl --line--> bus: identity, quotas --> proto: Call --.
//!  shims --report--> supervise --------------------------> Fact --------+--> core: decide -> events
//!  clock ------------------------------------------------> tick --------'      |         | apply
//!                                                                            store      state
//!                                                                       append, sync     |
//!                                                                              |     what is wanted
//!                                    replies, deliveries, effects <--- durable-'         |
//!                                            |                                           v
//!                                           bus                       supervise -> launch -> shim -> agent
//! ```
//!
//! Every change is an event in one log. A request is decided and applied at once on a *speculative*
//! head, so that requests pipeline; whatever would show it outside (a reply, also of a read or a
//! refusal; a message; a start) waits until its events are on disk.
//!
//! # Invariants, and where they live
//!
//! 1. **Acknowledged means durable.** `daemon::commit` releases an output when `durable >= after`;
//!    nothing else answers.
//! 2. **One owner.** [`core::table`] is the table of what can happen to a task; ownership changes only
//!    with a new epoch, and [`core`] refuses a former one as `stale`.
//! 3. **The kernel says who speaks.** `bus::identity` asks [`sys::peer`] for the peer's ancestry; a
//!    message has no `from` to forge.
//! 4. **Isolation is granted in full or the launch fails.** [`policy::plan()`] refuses; the payload's
//!    steps in [`launch`] stop at the first that fails. What is `best-effort` and missing is a gap that
//!    `status` shows.
//! 5. **A child is never stronger than its parent.** No agent can start another one in this version.
//! 6. **Nothing survives stop.** A shim reports an end only when its subtree is empty; the daemon then
//!    sweeps its own descendants before it says so.
//! 7. **Nothing is unbounded.** [`core::spec::Limits`] and the quotas of [`bus`], each with a key of the
//!    mission file and a typed refusal.
//! 8. **Everything stuck says what it waits for**: `waits_for` in the [views](core::view).
//! 9. **One log.** [`store`] keeps it, hash-chained; bus, audit and replay are views of it.
//! 10. **No privilege.** No setuid, no capability, no daemon as root.
//!
//! # Floors
//!
//! A room uses only rooms below its own; `cargo xtask tidy` checks it, and that nothing goes in circles.
//!
//! | floor | rooms |
//! |---|---|
//! | programs | `bin/missiond`, `bin/missionctl` |
//! | sides | [`daemon`] (wires it, the loop), [`ctl`] (missionctl) |
//! | wire | [`bus`] (connections, delivery), [`client`], [`doctor`] (what this machine gives), [`run`] (one command without a mission) |
//! | services | [`store`] (the log, blobs), [`config`] (mission.toml), [`proto`] (frames), [`supervise`] (one actor per agent) |
//! | engines | [`core`] (the state machine), [`launch`] (launcher, shim, payload), [`workspace`] (what agents write) |
//! | ground | [`policy`] (what becomes enforced), [`sys`] (system calls), [`ids`], `console`, `escape`, `table` (what people read) |
//!
//! What is absent is as much part of it:
//!
//! - [`core`], [`policy`] and [`proto`] know no file, clock, socket, environment or randomness: time and
//!   ids are arguments. That is why a simulator can run a hundred thousand missions in a test.
//! - `unsafe` stands in [`sys`] only.
//! - The daemon never forks: a single-threaded launcher does, before and beside it.
//! - [`ctl`] knows the protocol and where sockets are, not the daemon, its store or its system calls.
//! - SQL stands in [`store`] only, and nothing but SQLite ever opens `mission.db`.
//! - Nothing polls: an idle daemon with a thousand agents doesn't wake up.
//!
//! # Processes
//!
//! ```text
//! missiond -- launcher            a tiny zygote, exec'd before any thread exists
//!    `------- shim per agent      subreaper: every descendant stays below it
//!                `-- (init)       level 2: first process of the agent's namespaces
//!                     `-- payload the agent's own program
//! ```
//!
//! A shim is the daemon's child, whoever forked it; when the daemon dies, each shim sees its channel
//! close and ends its agent within a second.

pub mod bus;
pub mod client;
pub mod config;
mod console;
pub mod core;
pub mod ctl;
pub mod daemon;
pub mod doctor;
mod escape;
pub mod ids;
pub mod launch;
pub mod policy;
pub mod proto;
pub mod run;
pub mod store;
pub mod supervise;
pub mod sys;
mod table;
pub mod workspace;
