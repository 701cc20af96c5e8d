//! A task and its checkpoints.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::core::view::{FileRef, Party, TaskStateName};
use crate::ids::{
    AgentUid, BlobHash, Capability, CheckpointId, Epoch, HandoffId, Incarnation, Seq, TaskId,
    Timestamp,
};

/// What a task is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Nobody owns it.
    Pending,
    /// Owned, not begun.
    Assigned {
        /// By whom.
        owner: AgentUid,
    },
    /// Being worked on.
    Active {
        /// By whom.
        owner: AgentUid,
        /// By which start of it.
        incarnation: Incarnation,
    },
    /// Over.
    Settled(Settled),
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Completed, failed or cancelled.
    pub how: TaskStateName,
    /// Who owned it.
    pub owner: Option<AgentUid>,
    /// When.
    pub at: Timestamp,
    /// Where its result stands in the log.
    pub result_at: Option<Seq>,
    /// SHA-256 of the owner's result; none where the owner did not settle it.
    pub digest: Option<BlobHash>,
    /// Why.
    pub reason: Option<String>,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// One line for people.
    pub title: String,
    /// Who created it.
    pub by: Party,
    /// The agent that created it.
    pub by_uid: Option<AgentUid>,
    /// When.
    pub created: Timestamp,
    /// Where in the log.
    pub created_at: Seq,
    /// Whether it has data, at `created_at`.
    pub has_data: bool,
    /// Whether it stands in the mission file.
    pub file: bool,
    /// Tasks that must be completed before.
    pub after: Vec<TaskId>,
    /// Those of them that are not.
    pub open: BTreeSet<TaskId>,
    /// What its owner must be able to do.
    pub needs: Vec<Capability>,
    /// For whom it is reserved while it is pending.
    pub reserved: Option<AgentUid>,
    /// When it fails.
    pub deadline: Option<Timestamp>,
    /// Ends of an owner that counted.
    pub attempts: u32,
    /// How many may.
    pub max_attempts: u32,
    /// What it is doing.
    pub state: TaskState,
    /// The owner's fencing token; 0 before the first owner.
    pub epoch: Epoch,
    /// 0 to 100.
    pub progress: u8,
    /// The owner's last note.
    pub note: Option<String>,
    /// When it was first started.
    pub started: Option<Timestamp>,
    /// Its latest checkpoints, the newest last.
    pub checkpoints: VecDeque<CheckpointId>,
    /// Its open handoff.
    pub handoff: Option<HandoffId>,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Of which task.
    pub task: TaskId,
    /// Who saved it.
    pub by: AgentUid,
    /// Under which epoch.
    pub epoch: Epoch,
    /// When.
    pub at: Timestamp,
    /// Whether it has JSON, at its own seq.
    pub json: bool,
    /// Its files.
    pub files: Vec<FileRef>,
}
