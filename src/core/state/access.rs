//! What others ask the state.

use super::{Agent, Cursor, State};
use crate::core::event::{DecodeError, Event, Logged, MessagePublished};
use crate::core::fact::Want;
use crate::core::spec::{Limits, Mode};
use crate::core::view::{MissionStateName, Receipt};
use crate::ids::{AgentName, AgentUid, BlobHash, Seq, SubscriptionName, Timestamp};
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

    /// The name of an agent, also of a former one.
    #[must_use]
    pub fn name_of(&self, uid: AgentUid) -> Option<&AgentName> {
        self.agents.get(&uid).map(|agent| &agent.spec.name).or_else(|| self.gone.get(&uid))
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
    pub fn want(&self, _uid: AgentUid) -> Want {
        Want::Nothing
    }

    /// What became of a message at each addressee: accepted, acked or dead.
    #[must_use]
    pub fn receipts(&self, _seq: Seq, _message: &MessagePublished) -> Vec<Receipt> {
        Vec::new()
    }

    /// The blobs that checkpoints still need.
    #[must_use]
    pub fn live_blobs(&self) -> BTreeSet<BlobHash> {
        self.checkpoints.values().flat_map(|c| c.files.iter().map(|f| f.hash)).collect()
    }

    /// Takes in an event.
    pub fn apply(&mut self, logged: &Logged) {
        self.head = logged.seq;
        self.at = logged.at;
    }

    /// Reads an event from its columns and applies it.
    ///
    /// # Errors
    /// See [`Logged::decode`].
    pub fn replay(
        &mut self,
        seq: Seq,
        at: Timestamp,
        kind: &str,
        v: u16,
        actor: &str,
        envelope: &[u8],
    ) -> Result<(), DecodeError> {
        self.apply(&Logged::decode(seq, at, kind, v, actor, envelope)?);
        Ok(())
    }

    /// The state as bytes; equal states have equal bytes.
    ///
    /// # Errors
    /// Never with the types of this module; the type of `serde_json` says otherwise.
    pub fn snapshot(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
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
    /// It is of another version, or none at all.
    pub fn from_snapshot(bytes: &[u8]) -> Result<State, SnapshotError> {
        serde_json::from_slice(bytes).map_err(SnapshotError::Malformed)
    }
}
