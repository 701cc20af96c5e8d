//! The one table of methods: name, whether it takes an idempotency key, parameters, what it does.
//! Parsing, the nearest name to a misspelt one and the documentation all come from it.

use serde::de::DeserializeOwned;

use super::wire::{
    AuditRead, Empty, Fetch, Hello, MAX_AUDIT, MAX_CREDIT, MAX_WAIT_MS, MissionStop,
    SaveCheckpoint, Subscribe,
};
use super::{fault, request};
use crate::core::event::Event;
use crate::core::request::Request;
use crate::core::spec::TaskSpec;

/// A request with its parameters: what the bus deals with itself, or a [`Request`] to the core.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the method of the same name; see its parameters")]
pub enum Call {
    Hello(Hello),
    Subscribe(Subscribe),
    Fetch(Fetch),
    Heartbeat,
    CheckpointSave(SaveCheckpoint),
    AuditRead(AuditRead),
    MissionStop(MissionStop),
    /// Everything that the core decides alone.
    Core(Request),
}

/// Whether carrying out a method changes the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Reads,
    Writes,
}

struct Row {
    method: Method,
    name: &'static str,
    effect: Effect,
    summary: &'static str,
    parse: fn(&str) -> Result<Call, String>,
}

macro_rules! methods {
    ($($method:ident $name:literal $effect:ident ($params:ty) $summary:literal => $call:expr;)*) => {
        /// A method of the bus.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Method {
            $(#[doc = concat!("`", $name, "`: ", $summary, ".")] $method,)*
        }

        static TABLE: &[Row] = &[$(Row {
            method: Method::$method,
            name: $name,
            effect: Effect::$effect,
            summary: $summary,
            parse: |json| {
                let call: fn($params) -> Result<Call, String> = $call;
                call(params::<$params>(json)?)
            },
        },)*];
    };
}

methods! {
    Hello "hello" Reads (Hello) "says who you are and agrees on the version; the first call" =>
        |p| Ok(Call::Hello(p));
    Publish "publish" Writes (request::Publish) "sends a message to those named, or to all" =>
        |p| core(Request::Publish(p));
    Subscribe "subscribe" Reads (Subscribe) "has messages pushed as notifications" =>
        |p| within("credit", p.credit.into(), 1, MAX_CREDIT.into()).map(|()| Call::Subscribe(p));
    Fetch "fetch" Reads (Fetch) "takes, waits for or looks at messages" =>
        |p| checked_fetch(p).map(Call::Fetch);
    Ack "ack" Writes (request::Ack) "acknowledges messages, or has them come again" =>
        |p| core(Request::Ack(p));
    TaskCreate "task.create" Writes (TaskSpec) "adds a task" =>
        |p| core(Request::TaskCreate(Box::new(p)));
    TaskAssign "task.assign" Writes (request::TaskAssign) "gives a task to an agent" =>
        |p| core(Request::TaskAssign(p));
    TaskClaim "task.claim" Writes (request::TaskClaim) "takes an unassigned task" =>
        |p| core(Request::TaskClaim(p));
    TaskUpdate "task.update" Writes (request::TaskUpdate) "reports that work began, or how far it is" =>
        |p| core(Request::TaskUpdate(p));
    TaskComplete "task.complete" Writes (request::TaskSettle) "settles a task with its result" =>
        |p| core(Request::TaskComplete(p));
    TaskFail "task.fail" Writes (request::TaskSettle) "settles a task as failed" =>
        |p| core(Request::TaskFail(p));
    TaskRelease "task.release" Writes (request::TaskRelease) "gives a task back" =>
        |p| core(Request::TaskRelease(p));
    TaskCancel "task.cancel" Writes (request::TaskCancel) "ends a task for good" =>
        |p| core(Request::TaskCancel(p));
    TaskGet "task.get" Reads (request::TaskGet) "shows a task with its data and result" =>
        |p| core(Request::TaskGet(p));
    TaskList "task.list" Reads (request::TaskList) "lists tasks" =>
        |p| core(Request::TaskList(p));
    CheckpointSave "checkpoint.save" Writes (SaveCheckpoint) "keeps JSON and files for a successor" =>
        |p| Ok(Call::CheckpointSave(p));
    CheckpointGet "checkpoint.get" Reads (request::CheckpointGet) "shows a checkpoint" =>
        |p| core(Request::CheckpointGet(p));
    HandoffRequest "handoff.request" Writes (request::HandoffRequest) "asks an agent to take a task over" =>
        |p| core(Request::HandoffRequest(p));
    HandoffAccept "handoff.accept" Writes (request::HandoffRef) "the target agrees" =>
        |p| core(Request::HandoffAccept(p));
    HandoffReject "handoff.reject" Writes (request::HandoffRefuse) "the target refuses" =>
        |p| core(Request::HandoffReject(p));
    HandoffComplete "handoff.complete" Writes (request::HandoffRef) "the target takes ownership" =>
        |p| core(Request::HandoffComplete(p));
    HandoffCancel "handoff.cancel" Writes (request::HandoffRefuse) "calls a handoff off" =>
        |p| core(Request::HandoffCancel(p));
    HandoffGet "handoff.get" Reads (request::HandoffRef) "shows a handoff" =>
        |p| core(Request::HandoffGet(p));
    HandoffList "handoff.list" Reads (request::HandoffList) "lists handoffs" =>
        |p| core(Request::HandoffList(p));
    AgentList "agent.list" Reads (Empty) "lists agents" =>
        |Empty {}| core(Request::AgentList);
    AgentGet "agent.get" Reads (request::AgentRef) "shows an agent" =>
        |p| core(Request::AgentGet(p));
    AgentStart "agent.start" Writes (request::AgentRef) "starts a stopped agent" =>
        |p| core(Request::AgentStart(p));
    AgentStop "agent.stop" Writes (request::AgentStop) "stops an agent until it is started again" =>
        |p| core(Request::AgentStop(p));
    AgentRestart "agent.restart" Writes (request::AgentRef) "stops an agent and starts it again" =>
        |p| core(Request::AgentRestart(p));
    AgentRole "agent.role" Writes (request::AgentRole) "gives an agent another role" =>
        |p| core(Request::AgentRole(p));
    AgentPhase "agent.phase" Writes (request::AgentPhase) "says what the caller is doing" =>
        |p| core(Request::AgentPhase(p));
    AgentHeartbeat "agent.heartbeat" Reads (Empty) "says that the caller is alive" =>
        |Empty {}| Ok(Call::Heartbeat);
    AuditRead "audit.read" Reads (AuditRead) "reads the log, and follows it" =>
        |p| checked_audit(p).map(Call::AuditRead);
    MissionStatus "mission.status" Reads (Empty) "shows the whole mission" =>
        |Empty {}| core(Request::MissionStatus);
    MissionStop "mission.stop" Writes (MissionStop) "ends every agent, then the daemon" =>
        |p| Ok(Call::MissionStop(p));
}

fn params<T: DeserializeOwned>(json: &str) -> Result<T, String> {
    // A list would be taken for the fields in order: refused, so that there is one spelling.
    if !json.starts_with('{') {
        return Err("params: must be an object".to_owned());
    }
    serde_json::from_str(json).map_err(|error| fault::describe("params", json, &error))
}

#[expect(clippy::unnecessary_wraps, reason = "every row has the same shape")]
fn core(request: Request) -> Result<Call, String> {
    Ok(Call::Core(request))
}

fn within(field: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(format!("params.{field}: {value} is out of range: {min} to {max}"))
}

fn checked_audit(audit: AuditRead) -> Result<AuditRead, String> {
    if let Some(limit) = audit.limit {
        within("limit", limit.into(), 1, MAX_AUDIT.into())?;
    }
    let known = || Event::KINDS.iter().map(|(kind, _)| *kind);
    match audit.kinds.iter().find(|kind| !known().any(|known| known == *kind)) {
        None => Ok(audit),
        // A misspelt kind would else look like a log in which it never happened.
        Some(unknown) => {
            let unknown: String = unknown.chars().take(64).collect();
            let nearest = known()
                .map(|kind| (strsim::jaro_winkler(&unknown, kind), kind))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(score, _)| *score > 0.75)
                .map_or_else(String::new, |(_, kind)| format!("; the nearest is `{kind}`"));
            let unknown = fault::bounded(&unknown);
            Err(format!("params.kinds: there is no kind `{unknown}`{nearest}"))
        }
    }
}

fn checked_fetch(fetch: Fetch) -> Result<Fetch, String> {
    within("limit", fetch.limit.into(), 1, MAX_AUDIT.into())?;
    within("wait_ms", fetch.wait_ms, 0, MAX_WAIT_MS)?;
    let asked = u64::try_from(fetch.seqs.len()).unwrap_or(u64::MAX);
    within("seqs (their number)", asked, 0, MAX_AUDIT.into())?;
    if fetch.seqs.is_empty() || (fetch.wait_ms == 0 && fetch.types.is_empty()) {
        return Ok(fetch);
    }
    Err("params.seqs: does not go with wait_ms or types".to_owned())
}

impl Method {
    /// All methods, in the order of the table.
    pub fn all() -> impl Iterator<Item = Method> {
        TABLE.iter().map(|row| row.method)
    }

    /// The method of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Method> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.method)
    }

    /// The known method whose name is most like `name`; none where nothing is alike.
    #[must_use]
    pub fn nearest(name: &str) -> Option<Method> {
        let name: String = name.chars().take(64).collect();
        let alike = |row: &Row| strsim::jaro_winkler(&name, row.name);
        TABLE
            .iter()
            .map(|row| (alike(row), row.method))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(score, _)| *score > 0.75)
            .map(|(_, method)| method)
    }

    fn row(self) -> &'static Row {
        // The table is in the order of the enum: both come from one macro.
        &TABLE[self as usize]
    }

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What it does, for documentation: a fragment.
    #[must_use]
    pub fn summary(self) -> &'static str {
        self.row().summary
    }

    /// Whether it changes the state, and so takes an idempotency key.
    #[must_use]
    pub fn takes_key(self) -> bool {
        self.row().effect == Effect::Writes
    }

    /// Parses its parameters.
    ///
    /// # Errors
    /// They aren't what the method takes; the text names the field.
    pub fn parse(self, params: &str) -> Result<Call, String> {
        (self.row().parse)(params)
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_name() {
        for method in Method::all() {
            assert_eq!(Method::from_name(method.name()), Some(method));
            assert_eq!(method.row().method, method);
        }
        assert_eq!(Method::all().count(), 35);
    }

    #[test]
    fn a_misspelt_method_has_a_neighbour_and_nonsense_has_none() {
        assert_eq!(Method::nearest("task.asign"), Some(Method::TaskAssign));
        assert_eq!(Method::nearest("handof.accept"), Some(Method::HandoffAccept));
        assert_eq!(Method::nearest("Publish"), Some(Method::Publish));
        assert_eq!(Method::nearest("xyzzy"), None);
        assert_eq!(Method::nearest(&"task.".repeat(100_000)), Method::nearest(&"task.".repeat(20)));
    }

    #[test]
    fn a_method_without_parameters_takes_none() {
        assert_eq!(Method::AgentList.parse("{}"), Ok(Call::Core(Request::AgentList)));
        let fault = Method::AgentList.parse(r#"{"x":1}"#).unwrap_err();
        assert!(fault.starts_with("params.x: unknown field `x`"), "{fault}");
        assert_eq!(Method::AgentList.parse("[]").unwrap_err(), "params: must be an object");
    }

    #[test]
    fn bounds_of_parameters_are_checked() {
        for bad in [r#"{"credit":0}"#, r#"{"credit":1025}"#] {
            assert!(
                Method::Subscribe.parse(bad).unwrap_err().starts_with("params.credit"),
                "{bad}"
            );
        }
        assert!(Method::Fetch.parse(r#"{"limit":0}"#).is_err());
        assert!(Method::Fetch.parse(r#"{"wait_ms":600001}"#).is_err());
        assert!(Method::Fetch.parse(r#"{"seqs":[1],"wait_ms":5}"#).is_err());
        assert!(Method::AuditRead.parse(r#"{"limit":1001}"#).is_err());
        assert!(Method::AuditRead.parse("{}").is_ok());
        assert!(Method::AuditRead.parse(r#"{"kinds":["task_created"]}"#).is_ok());
        assert_eq!(
            Method::AuditRead.parse(r#"{"kinds":["task_create"]}"#).unwrap_err(),
            "params.kinds: there is no kind `task_create`; the nearest is `task_created`"
        );
    }
}
