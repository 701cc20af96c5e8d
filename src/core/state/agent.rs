//! An agent and what its process is doing.
//!
//! ```text
//!           .-> Waiting -(rested)-.
//!           |                     v
//! Starting -+-> Running -> ... -> Idle -> Starting
//!    |      '-> Stopping --(ended)--^
//!    '---------------(ended)--> Ended | Stopped | Failed --(enabled)--> Idle
//! ```

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Cursor, Inbox};
use crate::core::event::{RunRef, StopWhy};
use crate::core::request::Phase;
use crate::core::spec::AgentSpec;
use crate::core::view::Exit;
use crate::ids::{AgentName, Incarnation, RoleName, Seq, Timestamp};

/// What an agent's process is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Process {
    /// None; a service is started as soon as the mission runs, a task agent when it has a task.
    Idle,
    /// None until then.
    Waiting {
        /// The end of the delay.
        until: Timestamp,
    },
    /// Launched, or about to be, and not yet up.
    Starting {
        /// When it must be up.
        until: Timestamp,
        /// For which task.
        run: Option<RunRef>,
        /// Whether it is to wait before its exec, and then whether it does so.
        parked: Option<bool>,
        /// Its process id, once executed.
        pid: Option<u32>,
        /// When it has lived for as long as it may.
        wall: Option<Timestamp>,
        /// Whether it has said hello: that may be heard of before its exec is.
        hello: bool,
    },
    /// Up.
    Running {
        /// For which task.
        run: Option<RunRef>,
        /// Its process id.
        pid: u32,
        /// When it has lived for as long as it may.
        wall: Option<Timestamp>,
    },
    /// To be ended.
    Stopping {
        /// For which task it ran.
        run: Option<RunRef>,
        /// Its process id, if it came so far.
        pid: Option<u32>,
        /// Milliseconds between SIGTERM and SIGKILL.
        grace_ms: u64,
        /// Why.
        why: StopWhy,
    },
    /// A service that is not started again.
    Ended,
    /// Down until `agent.start`.
    Stopped,
    /// Given up.
    Failed {
        /// Why.
        reason: String,
    },
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// What the mission file says of it.
    pub spec: AgentSpec,
    /// Its role now.
    pub role: RoleName,
    /// Broadcasts after this are for it.
    pub joined: Seq,
    /// What its process is doing.
    pub process: Process,
    /// Since when.
    pub since: Timestamp,
    /// The current or last start; 0 before the first.
    pub incarnation: Incarnation,
    /// Removed from the mission; kept only until its process has ended.
    pub removed: bool,
    /// What it says it is doing.
    pub phase: Phase,
    /// Restarts since the mission began.
    pub restarts: u32,
    /// The latest restarts, for the window.
    pub recent: VecDeque<Timestamp>,
    /// How its last process ended.
    pub last_exit: Option<Exit>,
    /// Its messages.
    pub inbox: Inbox,
}

/// What is kept of an agent that is no more: its uid is never given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Its name.
    pub name: AgentName,
    /// What it had acknowledged.
    pub inbox: Cursor,
}

impl Agent {
    /// Whether it has a process, or is about to have one.
    #[must_use]
    pub fn is_live(&self) -> bool {
        match self.process {
            Process::Starting { .. } | Process::Running { .. } | Process::Stopping { .. } => true,
            Process::Idle
            | Process::Waiting { .. }
            | Process::Ended
            | Process::Stopped
            | Process::Failed { .. } => false,
        }
    }

    /// The task that its process runs for (task mode).
    #[must_use]
    pub fn run(&self) -> Option<&RunRef> {
        match &self.process {
            Process::Starting { run, .. }
            | Process::Running { run, .. }
            | Process::Stopping { run, .. } => run.as_ref(),
            Process::Idle
            | Process::Waiting { .. }
            | Process::Ended
            | Process::Stopped
            | Process::Failed { .. } => None,
        }
    }
}
