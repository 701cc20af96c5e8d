//! Carries out what the core wants of each agent's process, and tells it what became of that.
//!
//! ```text
//!            Want::Run                 prepared            Forked .. Started
//! (nothing) -----------> Preparing ---------------> Queued ----> Launching ----> Running
//!     ^                      |                        |             |  | parked     |
//!     |                      |                        |             v  v   ^        |
//!     |                      |                        |          Parked -> Releasing|
//!     |                      v                        v             |               v
//!     '---- AgentEnded ---- failed or cancelled <-----'---- Ended, SetupFailed, channel closed
//!                                                              |           |
//!                                                          Collecting   Sweeping (lost)
//! ```
//!
//! One actor per agent, a plain state machine: [`Supervisor`] gets wants, what its shims report, and
//! the outcome of slow work, and answers with [`Order`]s. It does no slow work itself (directories,
//! secrets, checkpoints and sweeps are the daemon's, on threads that may block), decides nothing
//! about restarts and time limits (the core does), and knows no bus.
//!
//! What it wants done is keyed by incarnation: an incarnation is launched at most once, so that the same
//! want can come any number of times.

mod actor;

use std::collections::BTreeSet;

use crate::core::fact::{Fact, TaskRun};
use crate::core::view::Exit;
use crate::ids::{AgentUid, Incarnation};
use crate::launch::{LaunchSpec, Pid, Process};

pub use actor::Supervisor;

/// What the daemon is to do for an agent.
#[derive(Debug)]
pub enum Order {
    /// Get a launch (or a release) ready, then call [`Supervisor::prepared`].
    Prepare(Preparation),
    /// From now on, descendants of this shim are the agent.
    Adopt {
        /// The agent.
        uid: AgentUid,
        /// Its shim.
        shim: Process,
    },
    /// The shim is gone; its id may be used again.
    Retire {
        /// The agent.
        uid: AgentUid,
        /// Its former shim.
        shim: Process,
    },
    /// Tell the core.
    Tell(Fact),
    /// Collect what a task-mode process left, tell the core that it ended, then call
    /// [`Supervisor::collected`].
    Collect(Outcome),
    /// End every descendant that is neither in `known` nor below it, then call
    /// [`Supervisor::swept`].
    Sweep {
        /// The launcher and the living shims.
        known: BTreeSet<Pid>,
    },
}

/// What is to be made ready.
#[derive(Debug, Clone)]
pub struct Preparation {
    /// The agent.
    pub uid: AgentUid,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// For which task.
    pub run: Option<TaskRun>,
    /// What for.
    pub stage: Stage,
}

/// What something is made ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A launch.
    Launch {
        /// It is to wait before its exec.
        parked: bool,
    },
    /// The exec of a parked process.
    Release,
}

/// What was made ready.
#[derive(Debug)]
pub enum Prepared {
    /// A launch.
    Launch(Box<LaunchSpec>),
    /// What a parked process learns before its exec.
    Release {
        /// Variables that replace or join those of the launch.
        environment: Vec<(String, String)>,
        /// Standard input.
        stdin: Option<Vec<u8>>,
    },
}

/// Why it could not be made ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: errno {errno}")]
pub struct SetupFailure {
    /// What was being done, and on what; never a secret.
    pub step: String,
    /// Why, as errno; 0 where it isn't the kernel's answer.
    pub errno: i32,
}

/// The end of a task-mode process.
#[derive(Debug)]
pub struct Outcome {
    /// The agent.
    pub uid: AgentUid,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// What it ran for.
    pub run: TaskRun,
    /// How it ended.
    pub exit: Exit,
    /// The beginning of its standard output.
    pub stdout: Vec<u8>,
    /// It wrote more.
    pub truncated: bool,
}
