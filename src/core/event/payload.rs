//! The payloads, one struct per kind. Agents are named by uid: a name may be given again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::DecodeError;
use super::part::{
    Addressee, Advance, AfterEnd, HandoffEnd, KeptReply, RequeueWhy, RunRef, StopWhy,
};
use super::upcast::{UPCASTS, lift};
use crate::core::denied::Code;
use crate::core::request::{MessageType, Phase};
use crate::core::spec::{AgentSpec, Limits, Permissions, Until};
use crate::core::view::{Exit, FileRef};
use crate::ids::{
    AgentUid, Capability, CheckpointId, Epoch, Generation, HandoffId, Incarnation, Key, MessageId,
    MissionName, RoleName, Seq, SubscriptionName, TaskId, Timestamp,
};

macro_rules! events {
    ($($(#[$doc:meta])* $kind:literal $v:literal $name:ident {
        $($(#[$field_meta:meta])* $field:ident: $ty:ty,)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $name {
                $($(#[$field_meta])* pub $field: $ty,)*
            }

            impl From<$name> for Event {
                fn from(payload: $name) -> Event {
                    Event::$name(payload)
                }
            }
        )*

        /// What has happened.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $name($name),)*
        }

        impl Event {
            /// Every kind with its present version.
            pub const KINDS: &[(&str, u16)] = &[$(($kind, $v)),*];

            /// The kind as it stands in its column.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self { $(Event::$name(_) => $kind,)* }
            }

            /// The version of the kind's envelope.
            #[must_use]
            pub fn version(&self) -> u16 {
                match self { $(Event::$name(_) => $v,)* }
            }

            pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
                match self { $(Event::$name(payload) => serde_json::to_vec(payload),)* }
            }

            /// Reads an envelope by its kind and version.
            ///
            /// # Errors
            /// The kind or version is newer than this program, or the envelope is malformed.
            pub fn decode(kind: &str, v: u16, envelope: &[u8]) -> Result<Event, DecodeError> {
                match kind {
                    $($kind if v <= $v => {
                        let malformed =
                            |source| DecodeError::Malformed { kind: kind.to_owned(), source };
                        if v == $v {
                            let payload = serde_json::from_slice::<$name>(envelope);
                            return payload.map(Event::$name).map_err(malformed);
                        }
                        let lifted = lift(UPCASTS, kind, v, $v, envelope)?;
                        serde_json::from_slice::<$name>(&lifted).map(Event::$name).map_err(malformed)
                    })*
                    _ => Err(DecodeError::Newer { kind: kind.chars().take(80).collect(), v }),
                }
            }
        }
    };
}

events! {
    // mission

    /// A run of the daemon begins: whatever was alive in an earlier one is lost.
    "daemon_started" 1 DaemonStarted {
        /// Which run.
        generation: Generation,
        /// Milliseconds without a daemon; handoff deadlines are shifted by it.
        down_ms: u64,
    }
    /// The mission file was read: its mission part, as it now is.
    "mission_configured" 1 MissionConfigured {
        /// The mission's name.
        name: MissionName,
        /// When it ends by itself.
        until: Until,
        /// All roles.
        roles: BTreeMap<RoleName, Permissions>,
        /// The bounds.
        limits: Limits,
    }
    /// The mission is to stop.
    "mission_stopping" 1 MissionStopping {
        /// Why, for people.
        why: String,
        /// Milliseconds between SIGTERM and SIGKILL; each agent's own without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace_ms: Option<u64>,
    }
    /// No process of the mission is left.
    "mission_stopped" 1 MissionStopped {}

    // agents

    /// An agent joins; its uid is this event's seq.
    "agent_added" 1 AgentAdded {
        /// What the mission file says of it.
        spec: AgentSpec,
    }
    /// The mission file says something else of it now.
    "agent_changed" 1 AgentChanged {
        /// Which agent.
        agent: AgentUid,
        /// The new spec.
        spec: AgentSpec,
    }
    /// An agent leaves; its unacknowledged direct messages are dead.
    "agent_removed" 1 AgentRemoved {
        /// Which agent.
        agent: AgentUid,
        /// Why, for people.
        why: String,
    }
    /// An agent has another role.
    "agent_role_changed" 1 AgentRoleChanged {
        /// Which agent.
        agent: AgentUid,
        /// Its new role.
        role: RoleName,
    }
    /// What an agent says it is doing.
    "agent_phase_changed" 1 AgentPhaseChanged {
        /// Which agent.
        agent: AgentUid,
        /// Its phase.
        phase: Phase,
    }
    /// A stopped, ended, failed or waiting agent may start again at once.
    "agent_enabled" 1 AgentEnabled {
        /// Which agent.
        agent: AgentUid,
    }
    /// An agent without a process is not to start.
    "agent_disabled" 1 AgentDisabled {
        /// Which agent.
        agent: AgentUid,
    }
    /// The delay before a restart is over.
    "agent_rested" 1 AgentRested {
        /// Which agent.
        agent: AgentUid,
    }
    /// A process is about to be launched; durable before the launch.
    "agent_starting" 1 AgentStarting {
        /// Which agent.
        agent: AgentUid,
        /// Which start of it.
        incarnation: Incarnation,
        /// For which task (task mode).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunRef>,
        /// When it must be up.
        until: Timestamp,
    }
    /// The process waits before its exec for the handoff's completion.
    "agent_parked" 1 AgentParked {
        /// Which agent.
        agent: AgentUid,
        /// Which start of it.
        incarnation: Incarnation,
    }
    /// The program has been executed.
    "agent_started" 1 AgentStarted {
        /// Which agent.
        agent: AgentUid,
        /// Which start of it.
        incarnation: Incarnation,
        /// Its process id.
        pid: u32,
        /// Whether it is up by that.
        ready: bool,
        /// When it has lived for as long as it may.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wall: Option<Timestamp>,
    }
    /// The agent is up.
    "agent_ready" 1 AgentReady {
        /// Which agent.
        agent: AgentUid,
        /// Which start of it.
        incarnation: Incarnation,
    }
    /// The process is to be stopped.
    "agent_stopping" 1 AgentStopping {
        /// Which agent.
        agent: AgentUid,
        /// Which start of it.
        incarnation: Incarnation,
        /// Milliseconds between SIGTERM and SIGKILL.
        grace_ms: u64,
        /// Why.
        why: StopWhy,
    }
    /// The process has ended, and everything below it.
    "agent_ended" 1 AgentEnded {
        /// Which agent.
        agent: AgentUid,
        /// Which start of it.
        incarnation: Incarnation,
        /// How.
        exit: Exit,
        /// For which task it ran (task mode).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunRef>,
        /// Why it was being stopped, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stopped: Option<StopWhy>,
        /// What becomes of the agent.
        next: AfterEnd,
    }

    // messages

    /// A message; its content is this event's content.
    "message_published" 1 MessagePublished {
        /// Its type.
        r#type: MessageType,
        /// To whom; empty for all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        to: Vec<Addressee>,
        /// The task it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
        /// The message it answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<MessageId>,
        /// The content's bytes.
        bytes: u64,
    }
    /// What was acknowledged in a batch.
    "cursors_advanced" 1 CursorsAdvanced {
        /// By whom, how far.
        cursors: Vec<Advance>,
    }
    /// Messages that could not be dealt with and come again.
    "messages_nacked" 1 MessagesNacked {
        /// By whom.
        agent: AgentUid,
        /// On which subscription.
        subscription: SubscriptionName,
        /// Which.
        seqs: Vec<Seq>,
    }
    /// Messages that won't be delivered any more.
    "messages_dead" 1 MessagesDead {
        /// To whom.
        agent: AgentUid,
        /// On which subscription.
        subscription: SubscriptionName,
        /// Which.
        seqs: Vec<Seq>,
        /// Why.
        reason: String,
    }

    // tasks

    /// A task; its data is this event's content.
    "task_created" 1 TaskCreated {
        /// Its id.
        task: TaskId,
        /// One line for people.
        title: String,
        /// Tasks that must be completed before.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<TaskId>,
        /// For whom it is reserved.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reserved: Option<AgentUid>,
        /// What its owner must be able to do.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        needs: Vec<Capability>,
        /// When it fails.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
        /// How often an owner may end without completing it.
        max_attempts: u32,
        /// Whether it has data.
        data: bool,
        /// Whether it stands in the mission file.
        file: bool,
        /// The agent that created it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<AgentUid>,
    }
    /// A pending task is kept for an agent, or for nobody any more.
    "task_reserved" 1 TaskReserved {
        /// The task.
        task: TaskId,
        /// For whom.
        to: Option<AgentUid>,
    }
    /// A task has an owner; the epoch is this event's seq.
    "task_assigned" 1 TaskAssigned {
        /// The task.
        task: TaskId,
        /// The owner.
        to: AgentUid,
        /// Whether the owner took it itself.
        claimed: bool,
    }
    /// A task goes back in the queue; the epoch is this event's seq.
    "task_requeued" 1 TaskRequeued {
        /// The task.
        task: TaskId,
        /// Its owner, if it keeps one.
        to: Option<AgentUid>,
        /// Whether that counts as an attempt.
        counted: bool,
        /// Why.
        why: RequeueWhy,
    }
    /// The owner gave it back; the epoch is this event's seq.
    "task_released" 1 TaskReleased {
        /// The task.
        task: TaskId,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// The owner works on it.
    "task_started" 1 TaskStarted {
        /// The task.
        task: TaskId,
        /// Which start of the owner.
        incarnation: Incarnation,
    }
    /// How far it is.
    "task_progressed" 1 TaskProgressed {
        /// The task.
        task: TaskId,
        /// 0 to 100.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        progress: Option<u8>,
        /// One line for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    }
    /// A checkpoint; its id is this event's seq, its JSON this event's content.
    "checkpoint_saved" 1 CheckpointSaved {
        /// Of which task.
        task: TaskId,
        /// Who saved it.
        by: AgentUid,
        /// Under which epoch.
        epoch: Epoch,
        /// Whether it has JSON.
        json: bool,
        /// Its files.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<FileRef>,
    }
    /// Done; the result is this event's content.
    "task_completed" 1 TaskCompleted {
        /// The task.
        task: TaskId,
        /// Whether it has a result.
        result: bool,
        /// SHA-256 of the result, to recognise the same request again.
        digest: crate::ids::BlobHash,
    }
    /// Failed; what went wrong is this event's content.
    "task_failed" 1 TaskFailed {
        /// The task.
        task: TaskId,
        /// Whether it has a result.
        result: bool,
        /// SHA-256 of the result, to recognise the same request again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<crate::ids::BlobHash>,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Whether the owner's epoch ends with it: this event's seq is the new one.
        fence: bool,
    }
    /// Called off.
    "task_cancelled" 1 TaskCancelled {
        /// The task.
        task: TaskId,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Whether the owner's epoch ends with it: this event's seq is the new one.
        fence: bool,
    }
    /// A settled task is forgotten.
    "task_pruned" 1 TaskPruned {
        /// The task.
        task: TaskId,
    }

    // handoffs

    /// A handoff is asked for; its id is this event's seq.
    "handoff_requested" 1 HandoffRequested {
        /// The task.
        task: TaskId,
        /// Its owner.
        from: AgentUid,
        /// The one that is to own it.
        to: AgentUid,
        /// The agent that asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<AgentUid>,
        /// Milliseconds for each step; the mission's limits without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step_ms: Option<u64>,
        /// When it expires.
        until: Timestamp,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// The target takes it: the source drains.
    "handoff_accepted" 1 HandoffAccepted {
        /// The handoff.
        handoff: HandoffId,
        /// When the source's last checkpoint will do.
        until: Timestamp,
    }
    /// The source writes no more.
    "handoff_quiesced" 1 HandoffQuiesced {
        /// The handoff.
        handoff: HandoffId,
        /// What moves with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkpoint: Option<CheckpointId>,
        /// When it fails.
        until: Timestamp,
    }
    /// Ownership has moved; the epoch is this event's seq.
    "handoff_completed" 1 HandoffCompleted {
        /// The handoff.
        handoff: HandoffId,
        /// Which start of the target.
        incarnation: Incarnation,
    }
    /// It ended without completion.
    "handoff_ended" 1 HandoffEnded {
        /// The handoff.
        handoff: HandoffId,
        /// How.
        how: HandoffEnd,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// An ended handoff is forgotten.
    "handoff_pruned" 1 HandoffPruned {
        /// The handoff.
        handoff: HandoffId,
    }

    // around requests

    /// An idempotency key is used up, with the answer that it stands for.
    "key_used" 1 KeyUsed {
        /// The agent; none for the operator.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<AgentUid>,
        /// The method.
        method: String,
        /// The key.
        key: Key,
        /// SHA-256 of the parameters.
        digest: crate::ids::BlobHash,
        /// The answer.
        reply: KeptReply,
    }
    /// A request was refused; the actor asked.
    "request_denied" 1 RequestDenied {
        /// The method.
        method: String,
        /// The refusal's code.
        code: Code,
        /// The refusal's sentence.
        message: String,
    }
    /// So many more were refused within the minute, not logged one by one.
    "denials_counted" 1 DenialsCounted {
        /// The method, or the socket of refused peers.
        method: String,
        /// The refusals' code.
        code: Code,
        /// How many.
        count: u64,
    }
    /// A connection was not who its socket is for.
    "peer_refused" 1 PeerRefused {
        /// Which socket.
        socket: String,
        /// The peer's process id.
        pid: u32,
        /// Why.
        reason: String,
    }
    /// Somebody should look.
    "alert_raised" 1 AlertRaised {
        /// At what.
        text: String,
    }
}
