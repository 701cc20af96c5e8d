//! What the mission file says, as far as the state machine needs it. Commands, environments and
//! secrets are not here: they never enter the log.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::json::Json;
use crate::ids::{AgentName, Capability, MissionName, RoleName, TaskId};

/// One right. Every request needs one or none; `core::permission` is the only place that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Receive broadcasts and what is addressed to you.
    Read,
    /// Publish; write the board.
    Write,
    /// Own tasks; spawn.
    Execute,
    /// Move any task.
    Handoff,
    /// See every message and the log.
    Audit,
    /// Change roles, add and remove agents, cancel others' tasks.
    ManageRoles,
}

impl Permission {
    /// All six, in the order of the table of roles.
    pub const ALL: [Permission; 6] = [
        Permission::Read,
        Permission::Write,
        Permission::Execute,
        Permission::Handoff,
        Permission::Audit,
        Permission::ManageRoles,
    ];

    /// The permission as it is written in a mission file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::Read => "read",
            Permission::Write => "write",
            Permission::Execute => "execute",
            Permission::Handoff => "handoff",
            Permission::Audit => "audit",
            Permission::ManageRoles => "manage_roles",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A set of permissions; roles are compared by it, never by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Permissions(u8);

impl Permissions {
    /// No permission at all.
    pub const NONE: Permissions = Permissions(0);

    /// The set of these.
    #[must_use]
    pub fn of(permissions: &[Permission]) -> Self {
        Permissions(permissions.iter().fold(0, |bits, p| bits | (1 << *p as u8)))
    }

    /// Every permission: what the operator has.
    #[must_use]
    pub fn all() -> Self {
        Self::of(&Permission::ALL)
    }

    /// Whether `permission` is in the set.
    #[must_use]
    pub fn has(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u8) != 0
    }

    /// Whether every permission of this set is in `other`.
    #[must_use]
    pub fn is_subset(self, other: Permissions) -> bool {
        self.0 & !other.0 == 0
    }

    /// Those in the set, in the order of the table of roles.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |p| self.has(*p))
    }
}

impl Serialize for Permissions {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}
impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Permission>::deserialize(deserializer).map(|list| Self::of(&list))
    }
}

/// The four built-in roles and their permissions.
#[must_use]
pub fn builtin_roles() -> [(&'static str, Permissions); 4] {
    use Permission::{Audit, Execute, Read, Write};
    [
        ("lead", Permissions::all()),
        ("write", Permissions::of(&[Read, Write, Execute])),
        ("read", Permissions::of(&[Read])),
        ("audit", Permissions::of(&[Read, Audit])),
    ]
}

/// How long an agent's process is to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// As long as the mission.
    #[default]
    Service,
    /// One process per task.
    Task,
}

/// When an ended service is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartOn {
    /// Never.
    Never,
    /// After anything but exit code 0.
    #[default]
    OnFailure,
    /// After every end.
    Always,
}

/// Restarts with exponential backoff, capped within a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartSpec {
    /// When.
    pub on: RestartOn,
    /// At most this many restarts within `within_ms`; one more and the agent is given up.
    pub max: u32,
    /// The window, in milliseconds.
    pub within_ms: u64,
    /// The first delay, in milliseconds; it doubles with each restart in the window.
    pub backoff_ms: u64,
    /// The largest delay, in milliseconds.
    pub backoff_max_ms: u64,
}

impl Default for RestartSpec {
    fn default() -> Self {
        RestartSpec {
            on: RestartOn::OnFailure,
            max: 5,
            within_ms: 60_000,
            backoff_ms: 200,
            backoff_max_ms: 30_000,
        }
    }
}

/// What makes a service count as up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyWhen {
    /// Its program has been executed.
    #[default]
    Exec,
    /// It has said `hello` on the bus.
    Hello,
}

/// An agent, as far as the state machine needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// Its name.
    pub name: AgentName,
    /// Its role; must be a key of [`MissionSpec::roles`].
    pub role: RoleName,
    /// What it can do; a task that needs more can't be claimed by it.
    pub capabilities: Vec<Capability>,
    /// Service or task.
    pub mode: Mode,
    /// Isolation level: 0 stands for `none`.
    pub level: u8,
    /// Restarts.
    pub restart: RestartSpec,
    /// When it counts as up.
    pub ready: ReadyWhen,
    /// Milliseconds from the launch until it must be up.
    pub start_timeout_ms: u64,
    /// Milliseconds that one process may live; none for no bound.
    pub wall_ms: Option<u64>,
    /// Milliseconds without a heartbeat or any other request after which it is stopped as silent.
    pub silence_ms: Option<u64>,
    /// Milliseconds between SIGTERM and SIGKILL.
    pub grace_ms: u64,
    /// Whether it starts with the mission (a service) or takes tasks at once (task mode).
    pub autostart: bool,
    /// A digest of all that decides how its process runs (command, environment names, policy): a
    /// change of it restarts the agent. No secret enters it.
    pub launch_digest: String,
}

/// A task as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Its id.
    pub id: TaskId,
    /// One line for people.
    pub title: String,
    /// Tasks that must be completed before.
    #[serde(default)]
    pub after: Vec<TaskId>,
    /// Who is to have it; without, whoever matches may claim it.
    #[serde(default)]
    pub assign: Option<AgentName>,
    /// What its owner must be able to do.
    #[serde(default)]
    pub needs: Vec<Capability>,
    /// Milliseconds from its creation until it fails; none for no bound.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// How often an owner may end without completing it before it fails.
    #[serde(default = "default_attempts")]
    pub max_attempts: u32,
    /// What it is about: given to its owner as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
}

fn default_attempts() -> u32 {
    3
}

/// When the mission ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// When there are tasks and every one is settled.
    #[default]
    Settled,
    /// Only when it is stopped.
    Stopped,
}

/// The bounds of a mission (invariant 7). Each has a default and a key of the same name in `[limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Agents at one time.
    pub max_agents: u32,
    /// Tasks that are not pruned.
    pub max_tasks: u32,
    /// Bytes of one message's content, a task's data or result, or a checkpoint's JSON.
    pub max_content: u64,
    /// Unacknowledged direct messages for one agent.
    pub inbox_messages: u32,
    /// Bytes of unacknowledged direct messages for one agent.
    pub inbox_bytes: u64,
    /// Files in one checkpoint.
    pub checkpoint_files: u32,
    /// Bytes of all files of one checkpoint.
    pub checkpoint_bytes: u64,
    /// Milliseconds an unanswered message stays before it is dead.
    pub message_ttl_ms: u64,
    /// Negative acknowledgements after which a message is dead.
    pub max_nacks: u32,
    /// Milliseconds a requested handoff waits for its answer.
    pub handoff_request_ms: u64,
    /// Milliseconds an accepted handoff waits for the source's checkpoint.
    pub handoff_drain_ms: u64,
    /// Milliseconds a quiesced handoff waits for its completion.
    pub handoff_complete_ms: u64,
    /// Milliseconds finished tasks and handoffs are kept.
    pub keep_finished_ms: u64,
    /// Idempotency keys kept per agent.
    pub keys_per_agent: u32,
    /// Bytes of idempotency keys and their answers kept per agent; the newest one in any case.
    pub key_bytes: u64,
    /// Milliseconds an idempotency key is kept.
    pub key_ttl_ms: u64,
    /// Denials logged one by one per agent, method and code in a minute; more are counted.
    pub denials_per_minute: u32,
    /// Requests per second of one agent, over all its connections.
    pub requests_per_second: u32,
    /// Connections of one agent at one time.
    pub connections: u32,
    /// Named subscriptions of one agent.
    pub subscriptions: u32,
    /// Handoffs that are kept; beyond it the oldest ended ones go before their time.
    pub max_handoffs: u32,
    /// Checkpoints kept of one task, the newest.
    pub keep_checkpoints: u32,
}

impl Default for Limits {
    fn default() -> Self {
        const HOUR_MS: u64 = 3_600_000;
        Limits {
            max_agents: 64,
            max_tasks: 10_000,
            max_content: 512 << 10,
            inbox_messages: 10_000,
            inbox_bytes: 64 << 20,
            checkpoint_files: 1_000,
            checkpoint_bytes: 256 << 20,
            message_ttl_ms: 24 * HOUR_MS,
            max_nacks: 5,
            handoff_request_ms: 60_000,
            handoff_drain_ms: 60_000,
            handoff_complete_ms: 60_000,
            keep_finished_ms: 24 * HOUR_MS,
            keys_per_agent: 10_000,
            key_bytes: 16 << 20,
            key_ttl_ms: 24 * HOUR_MS,
            denials_per_minute: 10,
            requests_per_second: 20_000,
            connections: 32,
            subscriptions: 16,
            max_handoffs: 1_000,
            keep_checkpoints: 4,
        }
    }
}

/// The whole mission, as far as the state machine needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissionSpec {
    /// Its name.
    pub name: MissionName,
    /// When it ends by itself.
    pub until: Until,
    /// All roles there are, built-in ones included.
    pub roles: BTreeMap<RoleName, Permissions>,
    /// The bounds.
    pub limits: Limits,
    /// The agents.
    pub agents: Vec<AgentSpec>,
    /// The tasks of the file; more can be created later.
    pub tasks: Vec<TaskSpec>,
}
