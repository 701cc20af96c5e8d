//! What the outside sees of the state: the replies to requests. Log positions (`*_at`) tell where
//! content that the core does not keep can be read; whoever sends a view fills it in from the log.
//! Clients ignore fields they don't know, so a view may grow.

use serde::{Deserialize, Serialize};

use super::json::Json;
use super::spec::{Mode, Permissions};
use super::words::{MessageType, Phase};
use crate::ids::{
    AgentName, AgentUid, BlobHash, Capability, CheckpointId, Epoch, Generation, HandoffId,
    Incarnation, MessageId, MissionName, RoleName, Seq, TaskId, Timestamp,
};

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// The person at `missionctl`.
    Operator,
    /// missiond itself.
    Daemon,
    /// An agent.
    Agent(AgentName),
}

macro_rules! view {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }
    )*};
}

/// A task's state, without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the state table")]
pub enum TaskStateName {
    Pending,
    Assigned,
    Active,
    Completed,
    Failed,
    Cancelled,
}

/// A handoff's state, without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "the names are those of the state table; accepted is draining or quiesced"
)]
pub enum HandoffStateName {
    Requested,
    Draining,
    Quiesced,
    Completed,
    Rejected,
    Expired,
    Cancelled,
    Failed,
}

/// What an agent's process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentStateName {
    /// No process, and none is wanted now (task mode without a task, or not started).
    Idle,
    /// Waits for its restart; see `waits_for`.
    Waiting,
    /// Being launched, or launched and not yet ready.
    Starting,
    /// Up.
    Running,
    /// Being stopped.
    Stopping,
    /// A service that ended and is not to be restarted.
    Ended,
    /// Stopped by a request; only `agent.start` starts it again.
    Stopped,
    /// Given up after too many restarts, or a failed setup.
    Failed,
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Party::Operator => f.pad("operator"),
            Party::Daemon => f.pad("daemon"),
            Party::Agent(name) => f.pad(name.as_str()),
        }
    }
}
impl Serialize for Party {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Party {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        match &*text {
            "operator" => Ok(Party::Operator),
            "daemon" => Ok(Party::Daemon),
            name => AgentName::new(name).map(Party::Agent).map_err(serde::de::Error::custom),
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// The kernel has killed it, all of it, at the memory limit of the agent.
    OutOfMemory,
    /// It never ran: this step of its setup failed with this errno.
    SetupFailed {
        /// The step's name.
        step: String,
        /// The errno.
        errno: i32,
    },
    /// No report came: nobody knows. Never a success.
    Lost,
}

impl Exit {
    /// Whether it is an exit with code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Exit::Exited(0))
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Exited(code) => write!(f, "exit code {code}"),
            Exit::Signaled(signal) => write!(f, "signal {signal}"),
            Exit::OutOfMemory => f.write_str("out of memory"),
            Exit::SetupFailed { step, errno } => write!(f, "setup failed at {step}: errno {errno}"),
            Exit::Lost => f.write_str("lost: no report of its end"),
        }
    }
}

view! {
    /// A stored file of a checkpoint.
    FileRef {
        /// Relative path, as the successor finds it under `$MISSION_HANDOFF_DIR`.
        path: String,
        /// Where its content is stored.
        hash: BlobHash,
        /// Bytes.
        size: u64,
        /// Permission bits, of 0o777.
        mode: u32,
    }

    /// Why something stands still, and until when (invariant 8).
    Wait {
        /// What it waits for: a fragment such as `handoff h-3: accept by reviewer`.
        what: String,
        /// When the wait ends by itself; none where it ends only by what it waits for.
        until: Option<Timestamp>,
    }

    /// An agent.
    AgentView {
        /// Its name.
        name: AgentName,
        /// Which agent of that name.
        uid: AgentUid,
        /// Its role.
        role: RoleName,
        /// The role's permissions.
        permissions: Permissions,
        /// What it can do.
        capabilities: Vec<Capability>,
        /// Service or task.
        mode: Mode,
        /// Isolation level; 0 stands for `none`.
        level: u8,
        /// What its process is doing.
        state: AgentStateName,
        /// Since when.
        since: Timestamp,
        /// What it says it is doing.
        phase: Phase,
        /// Its process id, while it lives.
        pid: Option<u32>,
        /// The current or last start.
        incarnation: Incarnation,
        /// Restarts since the mission began.
        restarts: u32,
        /// How its last process ended.
        last_exit: Option<Exit>,
        /// The tasks it owns that are not settled.
        tasks: Vec<TaskId>,
        /// The latest checkpoint of one of these.
        checkpoint: Option<CheckpointId>,
        /// When it was last heard of on the bus (not logged; filled in by the daemon).
        heard: Option<Timestamp>,
        /// Unacknowledged direct messages.
        inbox: u32,
        /// What it waits for.
        waits_for: Option<Wait>,
        /// What its isolation could not enforce on this machine (filled in by the daemon).
        #[serde(default)]
        gaps: Vec<String>,
    }

    /// A task.
    TaskView {
        /// Its id.
        id: TaskId,
        /// One line for people.
        title: String,
        /// Its state.
        state: TaskStateName,
        /// Who owns it, or owned it when it was settled.
        owner: Option<AgentName>,
        /// For whom it is reserved until its dependencies are completed.
        reserved: Option<AgentName>,
        /// The owner's fencing token: the owner names it in every write.
        epoch: Epoch,
        /// 0 to 100.
        progress: u8,
        /// The owner's last note.
        note: Option<String>,
        /// Tasks that must be completed before.
        after: Vec<TaskId>,
        /// What its owner must be able to do.
        needs: Vec<Capability>,
        /// When it fails.
        deadline: Option<Timestamp>,
        /// Ends of an owner without completion that counted.
        attempts: u32,
        /// How many may count.
        max_attempts: u32,
        /// The latest checkpoint.
        checkpoint: Option<CheckpointId>,
        /// The open handoff.
        handoff: Option<HandoffId>,
        /// Why it failed or was cancelled.
        reason: Option<String>,
        /// Created.
        created: Timestamp,
        /// First started.
        started: Option<Timestamp>,
        /// Settled.
        settled: Option<Timestamp>,
        /// Who created it.
        by: Party,
        /// What it waits for.
        waits_for: Option<Wait>,
        /// Where its data stands in the log.
        data_at: Option<Seq>,
        /// Its data; filled in from the log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<Json>,
        /// Where its result stands in the log.
        result_at: Option<Seq>,
        /// Its result; filled in from the log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Json>,
    }

    /// A checkpoint.
    CheckpointView {
        /// Its id.
        id: CheckpointId,
        /// Of which task.
        task: TaskId,
        /// Who saved it.
        by: AgentName,
        /// Under which epoch.
        epoch: Epoch,
        /// When.
        at: Timestamp,
        /// Its files.
        files: Vec<FileRef>,
        /// Where its JSON stands in the log.
        json_at: Option<Seq>,
        /// Its JSON; filled in from the log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        json: Option<Json>,
    }

    /// A handoff.
    HandoffView {
        /// Its id.
        id: HandoffId,
        /// The task.
        task: TaskId,
        /// From whom.
        from: AgentName,
        /// To whom.
        to: AgentName,
        /// Its state.
        state: HandoffStateName,
        /// Who asked for it.
        by: Party,
        /// When.
        requested: Timestamp,
        /// When the present step times out; none when it has ended.
        until: Option<Timestamp>,
        /// The checkpoint that moves with it.
        checkpoint: Option<CheckpointId>,
        /// The new owner's epoch, once completed.
        epoch: Option<Epoch>,
        /// Why it was asked for, or why it ended.
        reason: Option<String>,
        /// What it waits for.
        waits_for: Option<Wait>,
    }

    /// A message as a reader gets it.
    MessageView {
        /// Its id; none for an ephemeral one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<MessageId>,
        /// Its position in the log, what `ack` names; for an ephemeral one, the head that it follows.
        seq: Seq,
        /// Its type.
        r#type: MessageType,
        /// Who sent it, by the kernel's word.
        from: Party,
        /// To whom; empty for all.
        to: Vec<AgentName>,
        /// When.
        at: Timestamp,
        /// The task it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
        /// The message it answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<MessageId>,
        /// What it says.
        content: Json,
    }

    /// What became of a message at one of its addressees.
    Receipt {
        /// The addressee.
        to: AgentName,
        /// How far it is.
        state: ReceiptState,
        /// Why it is dead.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }

    /// What `publish` answers.
    Published {
        /// The new message; none for an ephemeral one.
        id: Option<MessageId>,
        /// Its position in the log; for an ephemeral one, the head that it follows.
        seq: Seq,
    }

    /// What `ack` answers.
    Acked {
        /// Everything up to here is acknowledged.
        upto: Seq,
    }

    /// The mission as a whole.
    MissionView {
        /// Its name.
        name: MissionName,
        /// What it is doing.
        state: MissionStateName,
        /// When it was first started.
        created: Timestamp,
        /// Which run of the daemon.
        generation: Generation,
        /// When this run began.
        started: Timestamp,
        /// The daemon's process id (filled in by the daemon).
        #[serde(default)]
        pid: u32,
        /// Where logs, blobs and the database are (filled in by the daemon).
        #[serde(default)]
        state_dir: String,
        /// The last event.
        head: Seq,
        /// All agents, by name.
        agents: Vec<AgentView>,
        /// All tasks that are kept, oldest first.
        tasks: Vec<TaskView>,
        /// The open handoffs, oldest first.
        handoffs: Vec<HandoffView>,
        /// What is wrong now, in words (filled in by the daemon: disk full, a reader holds the WAL).
        #[serde(default)]
        alerts: Vec<String>,
    }
}

/// A receipt's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the delivery rules")]
pub enum ReceiptState {
    Accepted,
    Delivered,
    Acked,
    Dead,
}

/// What a mission is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum MissionStateName {
    Running,
    Stopping,
    Stopped,
}

/// The answer to a request that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the view of the same name")]
pub enum Reply {
    /// Nothing more to say.
    Done,
    Published(Published),
    Acked(Acked),
    Task(Box<TaskView>),
    Tasks(Vec<TaskView>),
    Checkpoint(Box<CheckpointView>),
    Handoff(Box<HandoffView>),
    Handoffs(Vec<HandoffView>),
    Agent(Box<AgentView>),
    Agents(Vec<AgentView>),
    Mission(Box<MissionView>),
}
