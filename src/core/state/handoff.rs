//! A handoff.
//!
//! ```text
//! requested -> draining -> quiesced -> completed
//!     |           |           |
//!     '-----------+-----------'--> rejected | expired | cancelled | failed
//! ```

use serde::{Deserialize, Serialize};

use crate::core::event::HandoffEnd;
use crate::core::view::Party;
use crate::ids::{AgentUid, CheckpointId, Epoch, TaskId, Timestamp};

/// How far a handoff is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandoffState {
    /// The target has not answered.
    Requested,
    /// Accepted: the source is to save a checkpoint.
    Draining,
    /// Accepted: the source writes no more, the target is to complete.
    Quiesced,
    /// Ownership has moved.
    Completed,
    /// It ended without.
    Ended(HandoffEnd),
}

/// A handoff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    /// The task.
    pub task: TaskId,
    /// Its owner.
    pub from: AgentUid,
    /// The one that is to own it.
    pub to: AgentUid,
    /// Who asked.
    pub by: Party,
    /// The agent that asked.
    pub by_uid: Option<AgentUid>,
    /// When.
    pub requested: Timestamp,
    /// Milliseconds for each step; the mission's limits without.
    pub step_ms: Option<u64>,
    /// How far it is.
    pub state: HandoffState,
    /// When the present step times out, while it is open.
    pub until: Option<Timestamp>,
    /// What moves with it.
    pub checkpoint: Option<CheckpointId>,
    /// The new owner's epoch.
    pub epoch: Option<Epoch>,
    /// Why it was asked for, or why it ended.
    pub reason: Option<String>,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

impl Handoff {
    /// Whether it has not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self.state {
            HandoffState::Requested | HandoffState::Draining | HandoffState::Quiesced => true,
            HandoffState::Completed | HandoffState::Ended(_) => false,
        }
    }
}
