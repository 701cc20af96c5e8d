//! The state: the fold of the log, and nothing else.
//!
//! [`State::apply`] never validates and never fails: what may happen was decided before, and what
//! has happened has happened. Everything is ordered, so that equal logs give equal bytes. Contents
//! (messages, data, results) are not here; positions in the log are.

mod access;
mod agent;
mod handoff;
mod inbox;
mod query;
mod task;

pub use access::SnapshotError;
pub use agent::{Agent, Gone, Process};
pub use handoff::{Handoff, HandoffState};
pub(crate) use inbox::MAX_RANGES;
pub use inbox::{Cursor, Held, Inbox};
pub use task::{Checkpoint, Settled, Task, TaskState};

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::event::KeptReply;
use super::spec::{Limits, Permissions, Until};
use super::view::{MissionStateName, TaskStateName};
use crate::ids::{
    AgentName, AgentUid, BlobHash, CheckpointId, Generation, HandoffId, Key, MissionName, RoleName,
    Seq, TaskId, Timestamp,
};

/// The mission as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mission {
    /// Its name; none before the first configuration.
    pub name: Option<MissionName>,
    /// What it is doing.
    pub state: MissionStateName,
    /// Whether this run of the daemon has read the mission file.
    pub configured: bool,
    /// Why it stops, while it does or did.
    pub why: Option<String>,
    /// Milliseconds of grace that the stop asked for.
    pub grace_ms: Option<u64>,
    /// When it ends by itself.
    pub until: Until,
    /// When it was first started.
    pub created: Timestamp,
    /// Which run of the daemon.
    pub generation: Generation,
    /// When this run began.
    pub started: Timestamp,
    /// Tasks ever created.
    pub tasks_created: u64,
    /// Tasks ever completed.
    pub tasks_completed: u64,
    /// Tasks ever failed.
    pub tasks_failed: u64,
    /// Tasks ever cancelled.
    pub tasks_cancelled: u64,
}

/// The answer to a keyed request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// SHA-256 of the parameters.
    pub digest: BlobHash,
    /// When it was given.
    pub at: Timestamp,
    /// The answer.
    pub reply: KeptReply,
}

/// The keys of one caller.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Keys {
    /// By method and key.
    pub by_key: BTreeMap<String, BTreeMap<Key, KeyRecord>>,
    /// In the order of their use.
    pub order: VecDeque<(Timestamp, String, Key)>,
    /// Their bytes, with the answers; follows from the rest, and is not in a snapshot.
    #[serde(skip)]
    pub bytes: u64,
}

impl KeyRecord {
    /// What it is charged for.
    pub(crate) fn bytes(&self, method: &str, key: &Key) -> u64 {
        (method.len() + key.as_str().len() + self.reply.view.len()) as u64
    }
}

/// What is due, and for whom; the order decides between equal deadlines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// A task's deadline.
    Task(TaskId),
    /// The present step of a handoff.
    Handoff(HandoffId),
    /// An agent's start or wall timeout, or the end of its rest.
    Agent(AgentUid),
    /// A settled task is forgotten.
    PruneTask(TaskId),
    /// An ended handoff is forgotten.
    PruneHandoff(HandoffId),
}

/// All that is known. See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub(crate) head: Seq,
    pub(crate) at: Timestamp,
    pub(crate) mission: Mission,
    pub(crate) roles: BTreeMap<RoleName, Permissions>,
    pub(crate) limits: Limits,
    pub(crate) agents: BTreeMap<AgentUid, Agent>,
    /// The names of agents that are no more; bounded by how many were ever added.
    pub(crate) gone: BTreeMap<AgentUid, Gone>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    /// How the forgotten tasks of the mission file ended, so that they aren't created again.
    pub(crate) file_tasks: BTreeMap<TaskId, TaskStateName>,
    pub(crate) handoffs: BTreeMap<HandoffId, Handoff>,
    pub(crate) checkpoints: BTreeMap<CheckpointId, Checkpoint>,
    /// Idempotency keys; uid 0 is the operator.
    pub(crate) keys: BTreeMap<AgentUid, Keys>,
    #[serde(skip)]
    pub(crate) index: Index,
}

/// What follows from the rest of the state, kept up to date for speed; not in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Index {
    pub(crate) by_name: BTreeMap<AgentName, AgentUid>,
    pub(crate) due: BTreeSet<(Timestamp, Due)>,
    /// Unsettled tasks by their owner.
    pub(crate) owned: BTreeMap<AgentUid, BTreeSet<TaskId>>,
    /// Pending tasks by what must be completed before them, done or not.
    pub(crate) dependents: BTreeMap<TaskId, BTreeSet<TaskId>>,
    /// Pending, unreserved tasks with all dependencies met, oldest first.
    pub(crate) claimable: BTreeSet<(Seq, TaskId)>,
    /// Pending tasks by whom they are reserved for.
    pub(crate) reserved: BTreeMap<AgentUid, BTreeSet<TaskId>>,
    /// Open handoffs by their target.
    pub(crate) incoming: BTreeMap<AgentUid, BTreeSet<HandoffId>>,
    /// Open handoffs by their source.
    pub(crate) outgoing: BTreeMap<AgentUid, BTreeSet<HandoffId>>,
    /// Ended handoffs, by their id.
    pub(crate) ended: BTreeSet<HandoffId>,
    /// Tasks that are not settled.
    pub(crate) open_tasks: u64,
    /// Agents with a process.
    pub(crate) live: BTreeSet<AgentUid>,
}
