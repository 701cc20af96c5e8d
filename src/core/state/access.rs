//! What others ask the state.

use super::{Agent, Cursor, Handoff, Process, State, Task};
use crate::core::INBOX;
use crate::core::event::{Event, MessagePublished, RunRef};
use crate::core::fact::{TaskRun, Want};
use crate::core::spec::{Limits, Mode};
use crate::core::view::{MissionStateName, Receipt, ReceiptState};
use crate::ids::{
    AgentName, AgentUid, BlobHash, HandoffId, Seq, SubscriptionName, TaskId, Timestamp,
};
use std::collections::BTreeSet;

/// A snapshot that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Another version of the format: replay the log instead.
    #[error("snapshot format {0} is unknown")]
    Version(u32),
    /// Not a snapshot.
    #[error("snapshot is malformed")]
    Malformed(#[source] serde_json::Error),
}

impl State {
    /// The state before the first event.
    #[must_use]
    pub fn new() -> State {
        State {
            head: Seq(0),
            at: Timestamp(0),
            mission: super::Mission {
                name: None,
                state: MissionStateName::Running,
                configured: false,
                why: None,
                grace_ms: None,
                until: crate::core::spec::Until::Stopped,
                created: Timestamp(0),
                generation: crate::ids::Generation(0),
                started: Timestamp(0),
                tasks_created: 0,
                tasks_completed: 0,
                tasks_failed: 0,
                tasks_cancelled: 0,
            },
            roles: Default::default(),
            limits: Limits::default(),
            agents: Default::default(),
            gone: Default::default(),
            tasks: Default::default(),
            file_tasks: Default::default(),
            handoffs: Default::default(),
            checkpoints: Default::default(),
            keys: Default::default(),
            index: Default::default(),
        }
    }

    /// The last event's seq.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.head
    }

    /// The last event's time.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Whether an event of this kind and version can be applied.
    #[must_use]
    pub fn is_known(kind: &str, v: u16) -> bool {
        Event::KINDS.iter().any(|(known, version)| *known == kind && v <= *version)
    }

    /// The bounds in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The mission as a whole.
    #[must_use]
    pub fn mission(&self) -> &super::Mission {
        &self.mission
    }

    /// The agent of that name.
    #[must_use]
    pub fn uid(&self, name: &str) -> Option<AgentUid> {
        self.index.by_name.get(name).copied()
    }

    /// An agent; also one that was removed and whose process has not ended yet.
    #[must_use]
    pub fn agent(&self, uid: AgentUid) -> Option<&Agent> {
        self.agents.get(&uid)
    }

    /// All agents, also removed ones whose process has not ended yet.
    pub fn all_agents(&self) -> impl Iterator<Item = (AgentUid, &Agent)> {
        self.agents.iter().map(|(uid, agent)| (*uid, agent))
    }

    /// All tasks that are kept.
    pub fn tasks(&self) -> impl Iterator<Item = (&TaskId, &Task)> {
        self.tasks.iter()
    }

    /// A task that is kept.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// All handoffs that are kept, oldest first.
    pub fn handoffs(&self) -> impl DoubleEndedIterator<Item = (HandoffId, &Handoff)> {
        self.handoffs.iter().map(|(id, handoff)| (*id, handoff))
    }

    /// The name of an agent, also of a former one.
    #[must_use]
    pub fn name_of(&self, uid: AgentUid) -> Option<&AgentName> {
        self.agents
            .get(&uid)
            .map(|agent| &agent.spec.name)
            .or_else(|| self.gone.get(&uid).map(|gone| &gone.name))
    }

    /// How far a subscription of an agent is; none where it was never acknowledged on (it then begins
    /// at [`Agent::joined`]).
    #[must_use]
    pub fn cursor(&self, uid: AgentUid, subscription: &SubscriptionName) -> Option<&Cursor> {
        self.agents.get(&uid)?.inbox.cursors.get(subscription)
    }

    /// Whether the message at `seq` is for this agent.
    #[must_use]
    pub fn addressed(&self, seq: Seq, message: &MessagePublished, uid: AgentUid) -> bool {
        if message.to.is_empty() {
            let agent = self.agents.get(&uid);
            return agent.is_some_and(|a| a.spec.mode == Mode::Service && a.joined < seq);
        }
        message.to.iter().any(|addressee| addressee.0 == uid)
    }
}

impl Default for State {
    fn default() -> Self {
        State::new()
    }
}

impl State {
    /// What is to be true of an agent's process.
    #[must_use]
    pub fn want(&self, uid: AgentUid) -> Want {
        let Some(agent) = self.agents.get(&uid) else { return Want::Nothing };
        let incarnation = agent.incarnation;
        match &agent.process {
            Process::Starting { run, parked, .. } => Want::Run {
                incarnation,
                run: run.as_ref().and_then(|run| self.task_run(run)),
                parked: parked.is_some(),
            },
            Process::Running { run, .. } => Want::Run {
                incarnation,
                run: run.as_ref().and_then(|run| self.task_run(run)),
                parked: false,
            },
            Process::Stopping { grace_ms, why, .. } => {
                Want::Stop { incarnation, grace_ms: *grace_ms, why: *why }
            }
            Process::Idle
            | Process::Waiting { .. }
            | Process::Ended
            | Process::Stopped
            | Process::Failed { .. } => Want::Nothing,
        }
    }

    fn task_run(&self, run: &RunRef) -> Option<TaskRun> {
        let task = self.tasks.get(&run.task)?;
        let handed = run.handoff.and_then(|id| self.handoffs.get(&id));
        Some(TaskRun {
            task: run.task.clone(),
            epoch: task.epoch,
            attempt: task.attempts + 1,
            checkpoint: handed
                .map_or_else(|| task.checkpoints.back().copied(), |handoff| handoff.checkpoint),
            handoff: run.handoff,
        })
    }

    /// What became of a message at each addressee: accepted, acked or dead. Who knows more of the
    /// delivery says `delivered` instead of accepted.
    #[must_use]
    pub fn receipts(&self, seq: Seq, message: &MessagePublished) -> Vec<Receipt> {
        if !message.to.is_empty() {
            let to = message.to.iter();
            return to.map(|to| self.receipt(seq, to.0, to.1.clone())).collect();
        }
        let readers = self.agents.iter().filter(|(uid, _)| self.addressed(seq, message, **uid));
        readers.map(|(uid, agent)| self.receipt(seq, *uid, agent.spec.name.clone())).collect()
    }

    fn receipt(&self, seq: Seq, uid: AgentUid, to: AgentName) -> Receipt {
        let removed = || (ReceiptState::Dead, Some("the agent was removed".to_owned()));
        let (state, reason) = match (self.agents.get(&uid), self.gone.get(&uid)) {
            (Some(agent), _) => {
                match (agent.inbox.dead.get(&seq), agent.inbox.cursors.get(INBOX)) {
                    (Some(reason), _) => (ReceiptState::Dead, Some(reason.clone())),
                    (None, Some(cursor)) if cursor.covers(seq) => (ReceiptState::Acked, None),
                    (None, _) if agent.removed => removed(),
                    (None, _) => (ReceiptState::Accepted, None),
                }
            }
            (None, Some(gone)) if gone.inbox.covers(seq) => (ReceiptState::Acked, None),
            (None, _) => removed(),
        };
        Receipt { to, state, reason }
    }

    /// The blobs that checkpoints still need.
    #[must_use]
    pub fn live_blobs(&self) -> BTreeSet<BlobHash> {
        self.checkpoints.values().flat_map(|c| c.files.iter().map(|f| f.hash)).collect()
    }

    /// The state as bytes; equal states have equal bytes.
    ///
    /// # Errors
    /// Never with the types of this module; the type of `serde_json` says otherwise.
    pub fn snapshot(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Snapshot { format: SNAPSHOT_FORMAT, state: self })
    }

    /// SHA-256 of the snapshot.
    ///
    /// # Errors
    /// See [`State::snapshot`].
    pub fn digest(&self) -> Result<[u8; 32], serde_json::Error> {
        use sha2::Digest;
        Ok(sha2::Sha256::digest(self.snapshot()?).into())
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// It is of another version (then replay the log), or none at all.
    pub fn from_snapshot(bytes: &[u8]) -> Result<State, SnapshotError> {
        let Format { format } = serde_json::from_slice(bytes).map_err(SnapshotError::Malformed)?;
        if format != SNAPSHOT_FORMAT {
            return Err(SnapshotError::Version(format));
        }
        let snapshot: Snapshot<State> =
            serde_json::from_slice(bytes).map_err(SnapshotError::Malformed)?;
        let mut state = snapshot.state;
        state.rebuild_index();
        Ok(state)
    }
}

/// The format of snapshots: a change of [`State`] that old bytes don't fit is a new one.
pub(crate) const SNAPSHOT_FORMAT: u32 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Snapshot<S> {
    format: u32,
    state: S,
}

#[derive(serde::Deserialize)]
struct Format {
    format: u32,
}
