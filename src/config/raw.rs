//! The sections of a mission file as they are written. What they mean together is checked in
//! `check`; the doc comments here are what an editor shows (they become the JSON Schema).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::read::{At, Findings, Named, Read, Value, leaf, section};
use super::units::{Bytes, Millis};
use super::words::{Id, Word};
use super::{Durability, WorkspaceMode};
use crate::core::spec::{Mode, Permission, ReadyWhen, RestartOn, Until};
use crate::ids::{Capability, MissionName, RoleName, TaskId};
use crate::policy::sandbox::Network;
use crate::policy::{Enforcement, Grant, LandlockMode, Level};

section! {
    /// A team of agents that work on one thing.
    File {
        /// What the mission is.
        required mission: At<Mission>,
        /// More roles beside lead, write, read and audit.
        optional roles: Named<Role>,
        /// Bounds of the mission. Each has a default.
        optional limits: Limits,
        /// The agents, each a program.
        required agents: At<Named<At<Agent>>>,
        /// Tasks that exist from the start; more can be created later.
        optional tasks: Vec<At<Task>>,
    }
}

section! {
    /// What the mission is.
    Mission {
        /// Names the mission and its directories: a-z, 0-9 and -.
        required name: At<Id<MissionName>>,
        /// The shared tree, relative to this file: writable for roles with `write`, read-only for others.
        optional workspace: At<String>,
        /// The isolation level of agents that don't say their own: "none", 1 or 2 in this version.
        optional isolation: At<Level>,
        /// The policy of agents that don't name their own: "minimal", "coding", "service", a name in ~/.config/missiond/policies, or "./FILE.toml". At level 2 it is "coding" by default.
        optional policy: At<String>,
        /// When it ends by itself: "settled" (every task is) or "stopped" (never by itself).
        optional until: Word<Until>,
        /// "disk": acknowledged work survives a power cut; "process": it survives a crash of the daemon.
        optional durability: Word<Durability>,
        /// "shared": agents write the workspace itself. "private": each writes a copy of its own, and `missionctl workspace accept` takes changes back. Needs level 2.
        optional workspace_mode: At<Word<WorkspaceMode>>,
        /// Whether a kernel without Landlock or seccomp is refused ("required") or reported ("best-effort").
        optional enforcement: Word<Enforcement>,
    }
}

section! {
    /// A role is a set of permissions.
    Role {
        /// Of read, write, execute, handoff, audit, manage_roles.
        required permissions: Vec<Word<Permission>>,
    }
}

section! {
    /// Bounds of the mission. Each has a default.
    Limits {
        /// Agents at one time.
        optional max_agents: At<u32>,
        /// Tasks that are not pruned.
        optional max_tasks: At<u32>,
        /// Handoffs that are kept; beyond it the oldest ended ones go before their time.
        optional max_handoffs: At<u32>,
        /// Checkpoints kept of one task, the newest.
        optional keep_checkpoints: At<u32>,
        /// Named subscriptions of one agent.
        optional subscriptions: At<u32>,
        /// One message's content, a task's data or result, or a checkpoint's JSON.
        optional max_content: At<Bytes>,
        /// Unacknowledged direct messages for one agent.
        optional inbox_messages: At<u32>,
        /// Size of the unacknowledged direct messages for one agent.
        optional inbox_bytes: At<Bytes>,
        /// Files in one checkpoint.
        optional checkpoint_files: At<u32>,
        /// Size of all files of one checkpoint.
        optional checkpoint_bytes: At<Bytes>,
        /// How long an unanswered message stays before it is dead.
        optional message_ttl: At<Millis>,
        /// Negative acknowledgements after which a message is dead.
        optional max_nacks: At<u32>,
        /// How long a requested handoff waits for its answer.
        optional handoff_request: At<Millis>,
        /// How long an accepted handoff waits for the source's checkpoint.
        optional handoff_drain: At<Millis>,
        /// How long a quiesced handoff waits for its completion.
        optional handoff_complete: At<Millis>,
        /// How long finished tasks and handoffs are kept.
        optional keep_finished: At<Millis>,
        /// Idempotency keys kept per agent.
        optional keys_per_agent: At<u32>,
        /// Size of the idempotency keys and their answers kept per agent.
        optional key_bytes: At<Bytes>,
        /// How long an idempotency key is kept.
        optional key_ttl: At<Millis>,
        /// Denials logged one by one per agent, method and code in a minute; more are counted.
        optional denials_per_minute: At<u32>,
        /// Requests per second of one agent, over all its connections.
        optional requests_per_second: At<u32>,
        /// Connections of one agent at one time.
        optional connections: At<u32>,
        /// Size of the log on disk; at this size old events are pruned, or requests refused.
        optional store_bytes: At<Bytes>,
        /// Size of all files of checkpoints on disk; equal files count once. At this size a checkpoint with files is refused.
        optional blob_bytes: At<Bytes>,
    }
}

section! {
    /// A program on the mission's bus.
    Agent {
        /// lead, write, read, audit, or one of `[roles]`.
        required role: At<Id<RoleName>>,
        /// The program and its arguments. A program with a / is relative to this file, else it is looked for in PATH.
        required command: At<Vec<At<String>>>,
        /// What it can do; a task that needs more can't be claimed by it.
        optional capabilities: Vec<Id<Capability>>,
        /// "service": one process for as long as the mission. "task": one process per task, task on stdin, result on stdout.
        optional mode: Word<Mode>,
        /// Its own isolation level.
        optional isolation: At<Level>,
        /// Its own policy.
        optional policy: At<String>,
        /// What it reaches of the network, whatever its policy says: "none" (level 2) or "host".
        optional network: At<Word<Network>>,
        /// Its own way to write the workspace: "shared" or "private".
        optional workspace_mode: At<Word<WorkspaceMode>>,
        /// When an ended service is started again.
        optional restart: Restart,
        /// When a service counts as up: "exec" (it runs) or "hello" (it has spoken on the bus).
        optional ready: Word<ReadyWhen>,
        /// How long it may take to be up.
        optional start_timeout: At<Millis>,
        /// How long it may be silent on the bus before it is stopped.
        optional silence: At<Millis>,
        /// How long it has between SIGTERM and SIGKILL.
        optional grace: At<Millis>,
        /// Whether it starts with the mission.
        optional autostart: bool,
        /// Environment variables. Not for secrets.
        optional env: Named<EnvValue>,
        /// Environment variables that are passed on from missiond's own environment.
        optional env_pass: Vec<At<String>>,
        /// Environment variables whose values come from elsewhere and are never shown.
        optional secrets: Named<At<SecretEntry>>,
        /// Working directory, relative to this file; the workspace by default.
        optional cwd: At<String>,
        /// What its processes may use.
        optional limits: AgentLimits,
        /// How much of Landlock level 1 uses: "files", or "scope" for agents that sandbox their own children.
        optional landlock: Word<LandlockMode>,
        /// More directories that it may read and run programs from.
        optional read: Vec<At<String>>,
        /// More directories that it may write.
        optional write: Vec<At<String>>,
        /// Things that most programs don't need: at level 1 "pty", "shared_memory"; at level 2 "ptrace", "userns", "io_uring", "perf".
        optional grants: Vec<At<Word<Grant>>>,
        /// How much of its output is kept.
        optional log: Log,
    }
}

section! {
    /// When an ended service is started again, in full.
    RestartTable {
        /// "never", "failure" or "always".
        required on: Word<RestartOn>,
        /// At most this many restarts within the window.
        optional max: u32,
        /// The window.
        optional within: At<Millis>,
        /// The first delay; it doubles with each restart in the window.
        optional backoff: At<Millis>,
        /// The largest delay.
        optional backoff_max: At<Millis>,
    }
}

section! {
    /// What its processes may use.
    AgentLimits {
        /// Private writable memory of each process.
        optional memory: At<Bytes>,
        /// Processes and threads.
        optional pids: At<u64>,
        /// Share of processors, such as 1.5. Enforced where a cgroup is delegated to the user.
        optional cpu: At<Number>,
        /// Processor time of each process.
        optional cpu_time: At<Millis>,
        /// Open files of each process.
        optional nofile: At<u64>,
        /// The largest file it may write.
        optional fsize: At<Bytes>,
        /// How long one process may live.
        optional wall: At<Millis>,
        /// Size of its private /tmp and /dev/shm, each. Needs level 2.
        optional tmp: At<Bytes>,
    }
}

section! {
    /// What agents may do to the machine.
    PolicyFile {
        /// The policy that this one adds to: a preset, a name, or a file relative to this one.
        optional inherits: At<String>,
        /// Paths to read and run programs from: /, ~/ or $WORKSPACE first.
        optional read: Vec<At<String>>,
        /// Paths to write.
        optional write: Vec<At<String>>,
        /// Paths that are never visible.
        optional hidden: Vec<At<String>>,
        /// Names at the root of each writable tree that stay read-only; a directory's ends in /.
        optional protected: Vec<At<String>>,
        /// Names of variables that pass from missiond's environment; a * at the end stands for the rest.
        optional environment: Vec<At<String>>,
        /// "none" or "host".
        optional network: At<Word<Network>>,
        /// "default", or a seccomp profile in OCI format, relative to this file.
        optional syscalls: At<String>,
        /// "ptrace", "userns", "io_uring", "perf"; at level 1 "pty", "shared_memory".
        optional grants: Vec<At<Word<Grant>>>,
        /// "required" or "best-effort".
        optional landlock: At<Word<Enforcement>>,
        /// What processes may use.
        optional limits: PolicyLimits,
    }
}

section! {
    /// What processes may use, for a policy.
    PolicyLimits {
        /// Private writable memory of each process, or of the agent where a cgroup can be had.
        optional memory: At<Bytes>,
        /// Processes and threads.
        optional pids: At<u64>,
        /// Share of processors, such as 1.5.
        optional cpu: At<Number>,
        /// Processor time of each process.
        optional cpu_time: At<Millis>,
        /// Open files of each process.
        optional nofile: At<u64>,
        /// The largest file.
        optional fsize: At<Bytes>,
        /// How long a process may live.
        optional wall: At<Millis>,
        /// Size of the private /tmp and /dev/shm, each.
        optional tmp: At<Bytes>,
    }
}

section! {
    /// Where a secret comes from: exactly one of these.
    Secret {
        /// A variable of missiond's own environment.
        optional env: At<String>,
        /// A file, relative to this one; its content without the last line break.
        optional file: At<String>,
    }
}

section! {
    /// How much of its output is kept.
    Log {
        /// Size at which a log file is rotated.
        optional max: At<Bytes>,
        /// Older files that are kept of each stream.
        optional keep: u32,
    }
}

section! {
    /// A piece of work.
    Task {
        /// Its id, once in the mission.
        required id: At<Id<TaskId>>,
        /// One line for people.
        optional title: String,
        /// The agent that is to have it; without, whoever matches may claim it.
        optional assign: At<String>,
        /// Tasks that must be completed before.
        optional after: Vec<At<String>>,
        /// What its owner must be able to do.
        optional needs: Vec<Id<Capability>>,
        /// How long from the start of the mission until it fails.
        optional timeout: At<Millis>,
        /// How often an owner may end without completing it before it fails.
        optional max_attempts: At<u32>,
        /// What it is about: given to its owner as JSON.
        optional data: At<Data>,
    }
}

/// `restart = "never"`, or a table.
#[derive(Debug, Clone)]
pub(super) enum Restart {
    /// Only when.
    When(RestartOn),
    /// In full.
    Full(RestartTable),
}

impl Read for Restart {
    const EXPECTED: &'static str = "a string or a table";

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => {
                Some(Restart::Full(RestartTable::of(table, value.span(), path, findings)))
            }
            DeValue::String(_) => {
                Word::read(value, path, findings).map(|Word(when)| Restart::When(when))
            }
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                super::read::wrong_type::<Self>(value, path, findings);
                None
            }
        }
    }
}

impl JsonSchema for Restart {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Restart".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let when = generator.subschema_for::<Word<RestartOn>>();
        let full = generator.subschema_for::<RestartTable>();
        json_schema!({ "anyOf": [when, full] })
    }
}

/// A value of `env`: a string that no message shows.
#[derive(Debug, Clone)]
pub(super) struct EnvValue(pub(super) String);

impl Read for EnvValue {
    const EXPECTED: &'static str = "a string";
    const CONFIDENTIAL: bool = true;

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        String::read(value, path, findings).map(EnvValue)
    }

    fn mask(value: &Value<'_>, findings: &mut Findings) {
        findings.masked.push(value.span());
    }
}

impl JsonSchema for EnvValue {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "EnvValue".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

/// An entry of `secrets`. What isn't the name of a source may be the secret itself.
#[derive(Debug, Clone)]
pub(super) struct SecretEntry(pub(super) Secret);

impl Read for SecretEntry {
    const EXPECTED: &'static str = "a table";
    const CONFIDENTIAL: bool = true;

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        if let DeValue::Table(table) = value.get_ref() {
            return Some(SecretEntry(Secret::of(table, value.span(), path, findings)));
        }
        findings.error_with_help(
            &value.span(),
            format!("{} must say where the secret comes from, not what it is", leaf(path)),
            "write { env = \"NAME\" } or { file = \"PATH\" }",
        );
        None
    }

    fn mask(value: &Value<'_>, findings: &mut Findings) {
        let DeValue::Table(table) = value.get_ref() else {
            return findings.masked.push(value.span());
        };
        let hidden =
            table.iter().filter(|(key, _)| !["env", "file"].contains(&key.get_ref().as_ref()));
        findings.masked.extend(hidden.map(|(_, value)| value.span()));
    }
}

impl JsonSchema for SecretEntry {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "SecretEntry".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Secret>()
    }
}

/// A number with or without a fraction, above 0, in thousandths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(pub(super) u32);

/// The largest number of processors that a share is of.
const MOST_PROCESSORS: f64 = 100_000.0;

impl Read for Number {
    const EXPECTED: &'static str = "a number";

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        let number: Option<f64> = match value.get_ref() {
            DeValue::Float(digits) => digits.as_str().parse().ok(),
            DeValue::Integer(digits) => {
                i32::from_str_radix(digits.as_str(), digits.radix()).ok().map(f64::from)
            }
            DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => {
                super::read::wrong_type::<Self>(value, path, findings);
                return None;
            }
        };
        let number = number.filter(|number| (0.001..=MOST_PROCESSORS).contains(number));
        if number.is_none() {
            let message = format!("{} must be from 0.001 to {MOST_PROCESSORS}", leaf(path));
            findings.error(&value.span(), message);
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 100,000,000, checked above")]
        let milli = |number: f64| (number * 1000.0).round() as u32;
        number.map(|number| Number(milli(number)))
    }
}

impl JsonSchema for Number {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Number".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "exclusiveMinimum": 0 })
    }
}

/// Any TOML value, as JSON.
#[derive(Debug, Clone)]
pub(super) struct Data(pub(super) serde_json::Value);

/// As deep as a message may be.
const MOST_DEPTH: usize = 64;

impl Read for Data {
    const EXPECTED: &'static str = "any value";

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        json(value, path, 1, findings).map(Data)
    }
}

fn json(
    value: &Value<'_>,
    path: &str,
    depth: usize,
    findings: &mut Findings,
) -> Option<serde_json::Value> {
    if depth > MOST_DEPTH {
        let message = format!("`{path}` is more than {MOST_DEPTH} levels deep");
        findings.error(&value.span(), message);
        return None;
    }
    let number = |read: Option<serde_json::Number>, findings: &mut Findings| {
        if read.is_none() {
            findings.error(&value.span(), "JSON has no such number");
        }
        read.map(serde_json::Value::Number)
    };
    match value.get_ref() {
        DeValue::String(text) => Some(serde_json::Value::String(text.to_string())),
        DeValue::Boolean(read) => Some(serde_json::Value::Bool(*read)),
        DeValue::Datetime(date) => Some(serde_json::Value::String(date.to_string())),
        DeValue::Integer(digits) => {
            let read = i64::from_str_radix(digits.as_str(), digits.radix());
            number(read.ok().map(serde_json::Number::from), findings)
        }
        DeValue::Float(digits) => {
            let read = digits.as_str().parse().ok().and_then(serde_json::Number::from_f64);
            number(read, findings)
        }
        DeValue::Array(items) => items
            .iter()
            .map(|item| json(item, path, depth + 1, findings))
            .collect::<Option<_>>()
            .map(serde_json::Value::Array),
        DeValue::Table(table) => table
            .iter()
            .map(|(key, item)| {
                Some((key.get_ref().to_string(), json(item, path, depth + 1, findings)?))
            })
            .collect::<Option<_>>()
            .map(serde_json::Value::Object),
    }
}

impl JsonSchema for Data {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Data".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({})
    }
}
