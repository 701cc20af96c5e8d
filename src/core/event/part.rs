//! What several payloads are made of.

use serde::{Deserialize, Serialize};

use crate::ids::{AgentName, AgentUid, HandoffId, Seq, SubscriptionName, TaskId, Timestamp};

/// An addressee, fixed when the message was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressee(
    /// Which agent.
    pub AgentUid,
    /// Its name at that time.
    pub AgentName,
);

/// How far one subscription has come in one batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advance {
    /// Whose.
    pub agent: AgentUid,
    /// Which of its subscriptions.
    pub subscription: SubscriptionName,
    /// Everything up to here is acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upto: Option<Seq>,
    /// These ranges, both ends included, as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<(Seq, Seq)>,
}

/// The task that a task-mode process is started for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRef {
    /// The task.
    pub task: TaskId,
    /// The handoff that brings it, if one does; the process is then parked before its exec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handoff: Option<HandoffId>,
}

/// Why a process is to be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopWhy {
    /// `agent.stop`.
    Request,
    /// `agent.restart`.
    Restart,
    /// Its launch has changed in the mission file.
    Changed,
    /// Its task moves to another agent, or the handoff that it was parked for ended.
    Handoff,
    /// Its task was cancelled or has failed by its deadline.
    TaskEnded,
    /// It was not up in time.
    StartTimeout,
    /// It ran for longer than it may.
    WallTimeout,
    /// Nothing was heard of it for too long.
    Silent,
    /// It was removed from the mission.
    Removed,
    /// The mission stops.
    Mission,
}

/// What becomes of an agent whose process has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterEnd {
    /// Nothing in particular: what is due next is decided at once.
    Idle,
    /// It is started again then.
    Waiting(Timestamp),
    /// It is not started again, by its restart policy.
    Ended,
    /// It stays down until `agent.start`.
    Stopped,
    /// It is given up, for this reason.
    Failed(String),
}

/// How a handoff ended without completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandoffEnd {
    /// The target does not want it.
    Rejected,
    /// The target did not answer in time.
    Expired,
    /// It was called off, or its task ended.
    Cancelled,
    /// A party was lost, or a later step took too long.
    Failed,
}

/// Why a task changed hands without anyone asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequeueWhy {
    /// Its owner's process ended and will be started again.
    OwnerExited,
    /// Its owner is gone: stopped, given up, removed, or without `execute`.
    OwnerGone,
    /// A handoff away from a former process of its owner ended badly.
    HandoffEnded,
    /// The daemon was restarted.
    DaemonRestart,
    /// The mission stops.
    MissionStop,
}

/// The answer that is kept with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptReply {
    /// Which kind of reply: `done`, `published`, `task`, `checkpoint`, `handoff`, `agent`, `mission`.
    pub kind: String,
    /// The view, as JSON.
    pub view: crate::core::json::Json,
}
