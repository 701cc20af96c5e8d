//! What the core is told and can't refuse: facts. And what it wants done: [`Want`], a function of the
//! state for each agent, keyed by incarnation, so that carrying it out twice does no harm.

use super::event::StopWhy;
use super::json::Json;
use super::spec::MissionSpec;
use super::view::{Exit, FileRef};
use crate::ids::{AgentUid, CheckpointId, Epoch, HandoffId, Incarnation, TaskId, Timestamp};

/// Something that has happened, whether the core likes it or not.
#[derive(Debug, Clone)]
pub enum Fact {
    /// A run of the daemon begins over this log. Comes first, before [`Fact::Configured`].
    DaemonStarted {
        /// When the former daemon was last known to be alive; the last event's time without.
        last_alive: Option<Timestamp>,
    },
    /// The mission file was read and checked. Nothing starts before this.
    Configured(Box<MissionSpec>),
    /// The process is ready and waits before its exec (a launch with [`Want::Run`] `parked`).
    AgentParked {
        /// Which agent.
        uid: AgentUid,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// The program has been executed.
    AgentStarted {
        /// Which agent.
        uid: AgentUid,
        /// Which start of it.
        incarnation: Incarnation,
        /// Its process id.
        pid: u32,
    },
    /// It said `hello` (matters where [`super::spec::ReadyWhen::Hello`] is asked for).
    AgentReady {
        /// Which agent.
        uid: AgentUid,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// The process and everything below it is gone.
    AgentEnded {
        /// Which agent.
        uid: AgentUid,
        /// Which start of it.
        incarnation: Incarnation,
        /// How.
        exit: Exit,
        /// A task-mode program's result.
        output: Option<Json>,
        /// What a task-mode program left in its checkpoint directory, if anything.
        checkpoint: Option<(Option<Json>, Vec<FileRef>)>,
    },
    /// Nothing was heard of it for its silence limit.
    AgentSilent {
        /// Which agent.
        uid: AgentUid,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// A connection was not who its socket is for.
    PeerRefused {
        /// Which socket.
        socket: String,
        /// The peer's process id.
        pid: u32,
        /// Why.
        reason: String,
    },
    /// Somebody should look at this.
    Alert {
        /// At what.
        text: String,
    },
    /// The mission is to stop (a signal, the end of the disk).
    StopRequested {
        /// Why, for people.
        why: String,
    },
}

/// What is to be true of an agent's process now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// No process.
    Nothing,
    /// This start of it lives.
    Run {
        /// Which start.
        incarnation: Incarnation,
        /// For which task (task mode).
        run: Option<TaskRun>,
        /// Up to, and not including, its exec.
        parked: bool,
    },
    /// This start of it is to end: SIGTERM, the grace time, SIGKILL.
    Stop {
        /// Which start.
        incarnation: Incarnation,
        /// Milliseconds between SIGTERM and SIGKILL.
        grace_ms: u64,
        /// Why.
        why: StopWhy,
    },
}

/// The task that a task-mode process is started for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRun {
    /// The task.
    pub task: TaskId,
    /// The owner's epoch. While parked it is still the former owner's; after, it is the new one.
    pub epoch: Epoch,
    /// 1 for the first.
    pub attempt: u32,
    /// The checkpoint to restore.
    pub checkpoint: Option<CheckpointId>,
    /// The handoff that brings it.
    pub handoff: Option<HandoffId>,
}
