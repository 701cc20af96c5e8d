//! What can be asked for. These types are the parameters of the bus methods as they stand on the wire
//! (`proto` frames them); the same requests come from agents, the operator, MCP and the gateway.

use serde::{Deserialize, Serialize};

use super::json::Json;
use super::spec::TaskSpec;
pub use super::words::{MessageType, Phase};
use crate::ids::{
    AgentName, CheckpointId, Epoch, HandoffId, RoleName, Seq, SubscriptionName, TaskId,
};

/// Generates a struct of parameters: a person or an agent writes it, so unknown fields are errors.
macro_rules! params {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }
    )*};
}

params! {
    /// `publish`: a message for everyone or for those named.
    Publish {
        /// Its type.
        r#type: MessageType,
        /// To whom; empty for all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        to: Vec<AgentName>,
        /// What it says.
        content: Json,
        /// The task it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
        /// The message it answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<crate::ids::MessageId>,
        /// Not logged, nothing promised: for progress ticks and typing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ephemeral: bool,
    }

    /// `ack`: these messages are dealt with (or, with `nack`, are to come again).
    Ack {
        /// The subscription.
        #[serde(default = "inbox")]
        subscription: SubscriptionName,
        /// Everything up to and including this seq.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upto: Option<Seq>,
        /// These, one by one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        seqs: Vec<Seq>,
        /// These could not be dealt with: they come again, and after `max_nacks` are dead.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        nack: Vec<Seq>,
    }

    /// `task.assign`: gives a task that has not been started to an agent.
    TaskAssign {
        /// The task.
        task: TaskId,
        /// To whom.
        to: AgentName,
    }

    /// `task.claim`: takes an unassigned task, or with no id the first one that fits.
    TaskClaim {
        /// Which; without, the oldest that the caller may claim.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
    }

    /// `task.update`: the owner reports that it has begun, or how far it is.
    TaskUpdate {
        /// The task.
        task: TaskId,
        /// The owner's epoch.
        epoch: Epoch,
        /// 0 to 100.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        progress: Option<u8>,
        /// One line for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    }

    /// `task.complete` and `task.fail`: the owner settles the task.
    TaskSettle {
        /// The task.
        task: TaskId,
        /// The owner's epoch.
        epoch: Epoch,
        /// The result, or what went wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Json>,
    }

    /// `task.release`: the owner gives the task back.
    TaskRelease {
        /// The task.
        task: TaskId,
        /// The owner's epoch.
        epoch: Epoch,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }

    /// `task.cancel`: ends a task for good.
    TaskCancel {
        /// The task.
        task: TaskId,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }

    /// `task.get`.
    TaskGet {
        /// The task.
        task: TaskId,
    }

    /// `task.list`: all, or those in a state or of an owner.
    TaskList {
        /// Only this state: `pending`, `assigned`, `active`, `completed`, `failed`, `cancelled`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<super::view::TaskStateName>,
        /// Only this owner's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<AgentName>,
    }

    /// `checkpoint.save`, with its files already stored (the bus stores them before it asks the core).
    CheckpointSave {
        /// The task.
        task: TaskId,
        /// The owner's epoch.
        epoch: Epoch,
        /// What a successor needs to know.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        json: Option<Json>,
        /// The stored files.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<super::view::FileRef>,
    }

    /// `checkpoint.get`: a checkpoint by its id, or the latest of a task.
    CheckpointGet {
        /// The latest of this task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
        /// Exactly this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkpoint: Option<CheckpointId>,
    }

    /// `handoff.request`: asks `to` to take over `task`, which `from` owns.
    HandoffRequest {
        /// The owner.
        from: AgentName,
        /// The one that is to own it.
        to: AgentName,
        /// The task.
        task: TaskId,
        /// Milliseconds for each step; the mission's limits without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }

    /// `handoff.accept`, `handoff.complete`, `handoff.get`.
    HandoffRef {
        /// The handoff.
        handoff: HandoffId,
    }

    /// `handoff.reject`, `handoff.cancel`.
    HandoffRefuse {
        /// The handoff.
        handoff: HandoffId,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }

    /// `handoff.list`: the open ones, or all that are kept.
    HandoffList {
        /// Also the ended ones.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        all: bool,
    }

    /// `agent.get`, `agent.start`, `agent.restart`; without a name, the caller itself where that makes sense.
    AgentRef {
        /// The agent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<AgentName>,
    }

    /// `agent.stop`: SIGTERM, the grace time, SIGKILL; it stays down until `agent.start`.
    AgentStop {
        /// The agent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<AgentName>,
        /// Milliseconds between SIGTERM and SIGKILL; the agent's own without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace_ms: Option<u64>,
    }

    /// `agent.role`: gives an agent another role.
    AgentRole {
        /// The agent.
        agent: AgentName,
        /// Its new role.
        role: RoleName,
    }

    /// `agent.phase`: what the caller says it is doing.
    AgentPhase {
        /// The phase.
        phase: Phase,
    }
}

/// `mission.stop`: ends every agent, then the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissionStop {
    /// Milliseconds between SIGTERM and SIGKILL; each agent's own without. Of several stops the first is
    /// logged; later ones can only shorten it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

fn inbox() -> SubscriptionName {
    super::inbox_name()
}

/// A request to the core. What only the bus deals with (`hello`, `subscribe`, `fetch`, `audit.read`,
/// `agent.heartbeat`) is asked for its permission with [`Request::Bus`] and carried out above.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the method of the same name; see its parameters")]
pub enum Request {
    Publish(Publish),
    Ack(Ack),
    TaskCreate(Box<TaskSpec>),
    TaskAssign(TaskAssign),
    TaskClaim(TaskClaim),
    TaskUpdate(TaskUpdate),
    TaskComplete(TaskSettle),
    TaskFail(TaskSettle),
    TaskRelease(TaskRelease),
    TaskCancel(TaskCancel),
    TaskGet(TaskGet),
    TaskList(TaskList),
    CheckpointSave(CheckpointSave),
    CheckpointGet(CheckpointGet),
    HandoffRequest(HandoffRequest),
    HandoffAccept(HandoffRef),
    HandoffReject(HandoffRefuse),
    HandoffComplete(HandoffRef),
    HandoffCancel(HandoffRefuse),
    HandoffGet(HandoffRef),
    HandoffList(HandoffList),
    AgentList,
    AgentGet(AgentRef),
    AgentStart(AgentRef),
    AgentStop(AgentStop),
    AgentRestart(AgentRef),
    AgentRole(AgentRole),
    AgentPhase(AgentPhase),
    MissionStatus,
    MissionStop(MissionStop),
    /// Asks only whether the caller may: no events, the reply is [`super::view::Reply::Done`].
    Bus(BusRight),
}

/// What the bus asks the core's permission for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BusRight {
    /// `hello`, `agent.heartbeat`: everyone.
    Greet,
    /// `subscribe`, `fetch`: needs `read`.
    Receive,
    /// `audit.read`: needs `audit`.
    Audit,
}

impl Request {
    /// The method's name on the wire. What is asked with [`Request::Bus`] has several.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Request::Publish(_) => "publish",
            Request::Ack(_) => "ack",
            Request::TaskCreate(_) => "task.create",
            Request::TaskAssign(_) => "task.assign",
            Request::TaskClaim(_) => "task.claim",
            Request::TaskUpdate(_) => "task.update",
            Request::TaskComplete(_) => "task.complete",
            Request::TaskFail(_) => "task.fail",
            Request::TaskRelease(_) => "task.release",
            Request::TaskCancel(_) => "task.cancel",
            Request::TaskGet(_) => "task.get",
            Request::TaskList(_) => "task.list",
            Request::CheckpointSave(_) => "checkpoint.save",
            Request::CheckpointGet(_) => "checkpoint.get",
            Request::HandoffRequest(_) => "handoff.request",
            Request::HandoffAccept(_) => "handoff.accept",
            Request::HandoffReject(_) => "handoff.reject",
            Request::HandoffComplete(_) => "handoff.complete",
            Request::HandoffCancel(_) => "handoff.cancel",
            Request::HandoffGet(_) => "handoff.get",
            Request::HandoffList(_) => "handoff.list",
            Request::AgentList => "agent.list",
            Request::AgentGet(_) => "agent.get",
            Request::AgentStart(_) => "agent.start",
            Request::AgentStop(_) => "agent.stop",
            Request::AgentRestart(_) => "agent.restart",
            Request::AgentRole(_) => "agent.role",
            Request::AgentPhase(_) => "agent.phase",
            Request::MissionStatus => "mission.status",
            Request::MissionStop(_) => "mission.stop",
            Request::Bus(BusRight::Greet) => "hello",
            Request::Bus(BusRight::Receive) => "fetch",
            Request::Bus(BusRight::Audit) => "audit.read",
        }
    }

    /// Whether it only reads.
    #[must_use]
    pub fn is_read(&self) -> bool {
        match self {
            Request::TaskGet(_)
            | Request::TaskList(_)
            | Request::CheckpointGet(_)
            | Request::HandoffGet(_)
            | Request::HandoffList(_)
            | Request::AgentList
            | Request::AgentGet(_)
            | Request::MissionStatus
            | Request::Bus(_) => true,
            Request::Publish(_)
            | Request::Ack(_)
            | Request::TaskCreate(_)
            | Request::TaskAssign(_)
            | Request::TaskClaim(_)
            | Request::TaskUpdate(_)
            | Request::TaskComplete(_)
            | Request::TaskFail(_)
            | Request::TaskRelease(_)
            | Request::TaskCancel(_)
            | Request::CheckpointSave(_)
            | Request::HandoffRequest(_)
            | Request::HandoffAccept(_)
            | Request::HandoffReject(_)
            | Request::HandoffComplete(_)
            | Request::HandoffCancel(_)
            | Request::AgentStart(_)
            | Request::AgentStop(_)
            | Request::AgentRestart(_)
            | Request::AgentRole(_)
            | Request::AgentPhase(_)
            | Request::MissionStop(_) => false,
        }
    }

    /// The parameters as JSON, for the digest of an idempotency key.
    ///
    /// # Errors
    /// Never with these types; the type of `serde_json` says otherwise.
    pub fn params_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Request::Publish(p) => serde_json::to_vec(p),
            Request::Ack(p) => serde_json::to_vec(p),
            Request::TaskCreate(p) => serde_json::to_vec(p),
            Request::TaskAssign(p) => serde_json::to_vec(p),
            Request::TaskClaim(p) => serde_json::to_vec(p),
            Request::TaskUpdate(p) => serde_json::to_vec(p),
            Request::TaskComplete(p) | Request::TaskFail(p) => serde_json::to_vec(p),
            Request::TaskRelease(p) => serde_json::to_vec(p),
            Request::TaskCancel(p) => serde_json::to_vec(p),
            Request::TaskGet(p) => serde_json::to_vec(p),
            Request::TaskList(p) => serde_json::to_vec(p),
            Request::CheckpointSave(p) => serde_json::to_vec(p),
            Request::CheckpointGet(p) => serde_json::to_vec(p),
            Request::HandoffRequest(p) => serde_json::to_vec(p),
            Request::HandoffAccept(p) | Request::HandoffComplete(p) | Request::HandoffGet(p) => {
                serde_json::to_vec(p)
            }
            Request::HandoffReject(p) | Request::HandoffCancel(p) => serde_json::to_vec(p),
            Request::HandoffList(p) => serde_json::to_vec(p),
            Request::AgentGet(p) | Request::AgentStart(p) | Request::AgentRestart(p) => {
                serde_json::to_vec(p)
            }
            Request::AgentStop(p) => serde_json::to_vec(p),
            Request::AgentRole(p) => serde_json::to_vec(p),
            Request::AgentPhase(p) => serde_json::to_vec(p),
            Request::MissionStop(p) => serde_json::to_vec(p),
            Request::AgentList | Request::MissionStatus | Request::Bus(_) => Ok(b"{}".to_vec()),
        }
    }
}
