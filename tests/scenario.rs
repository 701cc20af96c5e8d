//! Runs the scenario files of `tests/scenario/`: inputs with their times, the events or refusals that are
//! expected of each, and the states after it. A file reads from top to bottom like a story:
//!
//! ```toml
//! [[step]]
//! at = 100                       # milliseconds since the start
//! by = "w1"                      # who asks: an agent or "operator" ...
//! ask = "task.update"            # ... for what ...
//! params = { task = "a", epoch = "@epoch:a" }
//! expect = ["task_started", "task_progressed"]    # exactly these events, in this order
//! refused = "stale"              # or this refusal ...
//! says = "former"                # ... with this in its sentence
//! reply = { state = "active" }   # or this in the reply
//! state = { "task a" = "active w1", "agent w1" = "running", "handoff" = "draining", mission = "running" }
//! waits = { "task a" = "accept by `w2`" }
//! fact = "ended"                 # instead of `ask`: a fact about agent `of`, or the daemon
//! ```
//!
//! Values: `@epoch:TASK`, `@handoff` (the latest), `@checkpoint:TASK`, `@head`, `@NAME` (kept by `save`).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod core_world;

use std::collections::BTreeMap;
use std::fmt::Write;

use core_world::{World, agent, json, mission, task_id};
use missiond::core::event::Event;
use missiond::core::fact::Fact;
use missiond::core::head::{Caller, Step as CoreStep};
use missiond::core::request::*;
use missiond::core::spec::{
    AgentSpec, Limits, MissionSpec, Mode, Permission, Permissions, ReadyWhen, RestartSpec,
    TaskSpec, Until,
};
use missiond::core::view::{Exit, FileRef, Reply};
use missiond::ids::{BlobHash, Capability, Incarnation, Key, RoleName};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    #[serde(default = "stopped")]
    until: Until,
    #[serde(default)]
    limits: toml::Table,
    #[serde(default)]
    roles: BTreeMap<RoleName, Vec<Permission>>,
    agents: Vec<AgentLine>,
    #[serde(default)]
    tasks: Vec<TaskSpec>,
    step: Vec<Line>,
}

fn stopped() -> Until {
    Until::Stopped
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentLine {
    name: String,
    role: String,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    capabilities: Vec<Capability>,
    restart: Option<RestartSpec>,
    #[serde(default)]
    ready: ReadyWhen,
    wall_ms: Option<u64>,
    autostart: Option<bool>,
    launch_digest: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: u64,
    by: Option<String>,
    ask: Option<String>,
    #[serde(default)]
    params: toml::Table,
    key: Option<String>,
    fact: Option<String>,
    of: Option<String>,
    exit: Option<String>,
    output: Option<String>,
    saves: Option<String>,
    #[serde(default)]
    launch: bool,
    #[serde(default)]
    tick: bool,
    #[serde(default)]
    seal: bool,
    /// For `fact = "configured"`: what the file says now.
    agents: Option<Vec<AgentLine>>,
    tasks: Option<Vec<TaskSpec>>,
    expect: Option<Vec<String>>,
    refused: Option<String>,
    says: Option<String>,
    reply: Option<toml::Value>,
    #[serde(default)]
    state: BTreeMap<String, String>,
    #[serde(default)]
    waits: BTreeMap<String, String>,
    #[serde(default)]
    save: BTreeMap<String, String>,
    /// The next thing that is due, in milliseconds since the start.
    due: Option<u64>,
}

const START: i64 = 1_000_000;

struct Play {
    world: World,
    scenario: Scenario,
    saved: BTreeMap<String, Value>,
}

impl Play {
    fn spec(&self, agents: &[AgentLine], tasks: &[TaskSpec]) -> MissionSpec {
        let agents = agents.iter().map(|line| self.agent(line)).collect();
        let mut spec = mission(agents, tasks.to_vec());
        spec.until = self.scenario.until;
        for (role, permissions) in &self.scenario.roles {
            spec.roles.insert(role.clone(), Permissions::of(permissions));
        }
        let limits = serde_json::to_string(&self.scenario.limits).unwrap();
        spec.limits = serde_json::from_str::<Limits>(&limits).expect("limits");
        spec
    }

    fn agent(&self, line: &AgentLine) -> AgentSpec {
        let mut spec = agent(&line.name, &line.role, line.mode);
        spec.capabilities.clone_from(&line.capabilities);
        spec.restart = line.restart.unwrap_or(spec.restart);
        spec.ready = line.ready;
        spec.wall_ms = line.wall_ms;
        spec.autostart = line.autostart.unwrap_or(true);
        spec.launch_digest = line.launch_digest.clone().unwrap_or_default();
        spec
    }

    fn value(&self, text: &str) -> Value {
        let state = self.world.state();
        if let Some(id) = text.strip_prefix("@epoch:") {
            let task = state.task(&task_id(id)).unwrap_or_else(|| panic!("no task {id}"));
            return serde_json::json!(task.epoch);
        }
        if let Some(id) = text.strip_prefix("@checkpoint:") {
            let task = state.task(&task_id(id)).unwrap_or_else(|| panic!("no task {id}"));
            return serde_json::json!(task.checkpoints.back());
        }
        match text {
            "@handoff" => serde_json::json!(state.handoffs().last().map(|(id, _)| id)),
            "@head" => serde_json::json!(state.head()),
            _ => match text.strip_prefix('@') {
                Some(name) => self.saved.get(name).unwrap_or_else(|| panic!("no {text}")).clone(),
                None => Value::String(text.to_owned()),
            },
        }
    }

    fn resolve(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.value(text),
            Value::Array(all) => all.iter().map(|one| self.resolve(one)).collect(),
            Value::Object(all) => {
                all.iter().map(|(key, one)| (key.clone(), self.resolve(one))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn fact(&self, kind: &str, line: &Line) -> Fact {
        let uid = line.of.as_deref().map(|name| {
            let mut all = self.world.state().all_agents();
            let found = all.find(|(_, agent)| agent.spec.name.as_str() == name);
            found.unwrap_or_else(|| panic!("no agent {name}"))
        });
        let (uid, incarnation) =
            uid.map_or((Default::default(), Incarnation(0)), |(uid, a)| (uid, a.incarnation));
        match kind {
            "daemon" => Fact::DaemonStarted { last_alive: None },
            "configured" => {
                let agents = line.agents.as_ref().unwrap_or(&self.scenario.agents);
                let tasks = line.tasks.as_ref().unwrap_or(&self.scenario.tasks);
                Fact::Configured(Box::new(self.spec(agents, tasks)))
            }
            "parked" => Fact::AgentParked { uid, incarnation },
            "started" => Fact::AgentStarted { uid, incarnation, pid: 7 },
            "ready" => Fact::AgentReady { uid, incarnation },
            "silent" => Fact::AgentSilent { uid, incarnation },
            "stop" => Fact::StopRequested { why: "asked".to_owned() },
            "alert" => Fact::Alert { text: "look".to_owned() },
            "peer" => {
                let (socket, reason) = ("control".to_owned(), "below a shim".to_owned());
                Fact::PeerRefused { socket, pid: 9, reason }
            }
            "ended" => {
                let text = line.exit.as_deref().unwrap_or("code 0");
                let number =
                    || text.split(' ').nth(1).expect("a number").parse().expect("a number");
                let exit = match text.split(' ').next() {
                    Some("code") => Exit::Exited(number()),
                    Some("signal") => Exit::Signaled(number()),
                    Some("setup") => {
                        Exit::SetupFailed { step: "landlock".to_owned(), errno: number() }
                    }
                    _ => Exit::Lost,
                };
                let output = line.output.as_deref().map(json);
                let file = |path: &str| FileRef {
                    path: path.to_owned(),
                    hash: BlobHash([7; 32]),
                    size: 3,
                    mode: 0o644,
                };
                let checkpoint =
                    line.saves.as_deref().map(|path| (Some(json("{}")), vec![file(path)]));
                Fact::AgentEnded { uid, incarnation, exit, output, checkpoint }
            }
            _ => panic!("no fact {kind}"),
        }
    }

    fn play(&mut self, line: &Line) {
        let at = missiond::ids::Timestamp(START + i64::try_from(line.at).unwrap());
        assert!(at >= self.world.now, "steps are in the order of their times");
        self.world.now = at;
        let step = self.input(line);
        match (&line.refused, step.reply.as_ref()) {
            (Some(code), Some(Err(denied))) => {
                assert_eq!(denied.code.as_str(), code, "{denied}");
                let says = line.says.as_deref().unwrap_or_default();
                assert!(denied.message.contains(says), "`{denied}` does not say `{says}`");
            }
            (Some(code), reply) => panic!("not refused as {code}: {reply:?}"),
            (None, Some(Err(denied))) => panic!("refused as {}: {denied}", denied.code),
            (None, Some(Ok(_)) | None) => {}
        }
        if let Some(expected) = &line.expect {
            let got: Vec<String> = step.events.iter().map(|logged| shown(&logged.event)).collect();
            let same = got.len() == expected.len()
                && got.iter().zip(expected).all(|(got, expected)| {
                    expected.split(' ').all(|part| got.split(' ').any(|of| of == part))
                });
            assert!(same, "expected {expected:#?}\ngot {got:#?}");
        }
        if let Some(expected) = &line.reply {
            let expected = self.resolve(&serde_json::to_value(expected).unwrap());
            let got = reply_json(step.reply.expect("a reply").as_ref().expect("no refusal"));
            holds(&expected, &got, "reply");
        }
        for (of, expected) in &line.state {
            assert_eq!(self.standing(of), *expected, "state of {of}");
        }
        for (of, expected) in &line.waits {
            let wait = self.wait(of);
            assert!(wait.contains(expected), "{of} waits for `{wait}`, not for `{expected}`");
        }
        for (name, value) in &line.save {
            let value = self.value(value);
            self.saved.insert(name.clone(), value);
        }
        if let Some(due) = line.due {
            let got = self.world.head.next_deadline().map(|due| due.0 - START);
            assert_eq!(got, Some(i64::try_from(due).unwrap()), "the next deadline");
        }
    }

    fn input(&mut self, line: &Line) -> CoreStep {
        if line.launch {
            self.world.launch_all();
            return CoreStep::default();
        }
        if line.tick {
            return self.world.tick();
        }
        if line.seal {
            return self.world.seal();
        }
        if let Some(kind) = &line.fact {
            let fact = self.fact(kind, line);
            if let Fact::DaemonStarted { .. } = fact {
                // A new daemon knows what is in the log, no more.
                let state = self.world.follower.clone();
                self.world.head = missiond::core::head::Head::from_state(state);
            }
            return self.world.fact(fact);
        }
        let method = line.ask.as_deref().expect("a step asks, tells, launches, ticks or seals");
        let params = self.resolve(&serde_json::to_value(&line.params).unwrap());
        let request = request(method, &params);
        let caller = match line.by.as_deref() {
            Some("operator") | None => Caller::Operator,
            Some(name) => Caller::Agent(self.world.uid(name)),
        };
        let key = line.key.as_deref().map(|key| Key::new(key).unwrap());
        self.world.ask(caller, key.as_ref(), request)
    }

    fn standing(&self, of: &str) -> String {
        let state = self.world.state();
        let name_of = |name: Option<missiond::ids::AgentName>| name.map(|n| format!(" {n}"));
        if let Some(id) = of.strip_prefix("task ") {
            let Some(view) = state.task_view(&task_id(id)) else { return "gone".to_owned() };
            let owner = name_of(view.owner).unwrap_or_default();
            return format!("{}{owner}", serde_name(&view.state));
        }
        if let Some(name) = of.strip_prefix("agent ") {
            let Some(uid) = state.uid(name) else { return "gone".to_owned() };
            return serde_name(&state.agent_view(uid).unwrap().state);
        }
        if let Some(name) = of.strip_prefix("inbox ") {
            return state.agent_view(self.world.uid(name)).unwrap().inbox.to_string();
        }
        if let Some(id) = of.strip_prefix("attempts ") {
            return state.task(&task_id(id)).unwrap().attempts.to_string();
        }
        match of {
            "handoff" => {
                let (id, _) = state.handoffs().last().expect("a handoff");
                serde_name(&state.handoff_view(id).unwrap().state)
            }
            "mission" => serde_name(&state.mission().state),
            _ => panic!("no state of {of}"),
        }
    }

    fn wait(&self, of: &str) -> String {
        let state = self.world.state();
        let wait = match of.split_once(' ') {
            Some(("task", id)) => state.task_view(&task_id(id)).unwrap().waits_for,
            Some(("agent", name)) => state.agent_view(self.world.uid(name)).unwrap().waits_for,
            _ => {
                let (id, _) = state.handoffs().last().expect("a handoff");
                state.handoff_view(id).unwrap().waits_for
            }
        };
        wait.map_or_else(|| "nothing".to_owned(), |wait| wait.what)
    }
}

fn serde_name<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
}

/// An event as `kind field=value ...`, without spaces in values.
fn shown(event: &Event) -> String {
    let row = missiond::core::event::Logged {
        seq: Default::default(),
        at: Default::default(),
        actor: missiond::core::view::Party::Daemon,
        event: event.clone(),
        content: None,
    };
    let envelope: Value = serde_json::from_slice(&row.envelope().unwrap()).unwrap();
    let mut text = event.kind().to_owned();
    for (key, value) in envelope.as_object().unwrap() {
        let value = match value {
            Value::String(text) => text.replace(' ', "_"),
            other => other.to_string().replace(' ', "_"),
        };
        let _ = write!(text, " {key}={value}");
    }
    text
}

fn reply_json(reply: &Reply) -> Value {
    let value = match reply {
        Reply::Done => Ok(Value::Null),
        Reply::Published(view) => serde_json::to_value(view),
        Reply::Acked(view) => serde_json::to_value(view),
        Reply::Task(view) => serde_json::to_value(view),
        Reply::Tasks(view) => serde_json::to_value(view),
        Reply::Checkpoint(view) => serde_json::to_value(view),
        Reply::Handoff(view) => serde_json::to_value(view),
        Reply::Handoffs(view) => serde_json::to_value(view),
        Reply::Agent(view) => serde_json::to_value(view),
        Reply::Agents(view) => serde_json::to_value(view),
        Reply::Mission(view) => serde_json::to_value(view),
    };
    value.unwrap()
}

/// Everything that `expected` names is so in `got`.
fn holds(expected: &Value, got: &Value, path: &str) {
    match (expected, got) {
        (Value::Object(expected), Value::Object(got)) => {
            for (key, value) in expected {
                holds(value, got.get(key).unwrap_or(&Value::Null), &format!("{path}.{key}"));
            }
        }
        (Value::Array(expected), Value::Array(got)) => {
            assert_eq!(expected.len(), got.len(), "{path}: {got:?}");
            for (i, (expected, got)) in expected.iter().zip(got).enumerate() {
                holds(expected, got, &format!("{path}[{i}]"));
            }
        }
        _ => assert_eq!(expected, got, "{path}"),
    }
}

fn request(method: &str, params: &Value) -> Request {
    fn of<T: DeserializeOwned>(params: &Value) -> T {
        serde_json::from_str(&params.to_string()).unwrap_or_else(|e| panic!("{params}: {e}"))
    }
    let p = params;
    match method {
        "publish" => Request::Publish(of(p)),
        "ack" => Request::Ack(of(p)),
        "task.create" => Request::TaskCreate(Box::new(of(p))),
        "task.assign" => Request::TaskAssign(of(p)),
        "task.claim" => Request::TaskClaim(of(p)),
        "task.update" => Request::TaskUpdate(of(p)),
        "task.complete" => Request::TaskComplete(of(p)),
        "task.fail" => Request::TaskFail(of(p)),
        "task.release" => Request::TaskRelease(of(p)),
        "task.cancel" => Request::TaskCancel(of(p)),
        "task.get" => Request::TaskGet(of(p)),
        "task.list" => Request::TaskList(of(p)),
        "checkpoint.save" => Request::CheckpointSave(of(p)),
        "checkpoint.get" => Request::CheckpointGet(of(p)),
        "handoff.request" => Request::HandoffRequest(of(p)),
        "handoff.accept" => Request::HandoffAccept(of(p)),
        "handoff.reject" => Request::HandoffReject(of(p)),
        "handoff.complete" => Request::HandoffComplete(of(p)),
        "handoff.cancel" => Request::HandoffCancel(of(p)),
        "handoff.get" => Request::HandoffGet(of(p)),
        "handoff.list" => Request::HandoffList(of(p)),
        "agent.list" => Request::AgentList,
        "agent.get" => Request::AgentGet(of(p)),
        "agent.start" => Request::AgentStart(of(p)),
        "agent.stop" => Request::AgentStop(of(p)),
        "agent.restart" => Request::AgentRestart(of(p)),
        "agent.role" => Request::AgentRole(of(p)),
        "agent.phase" => Request::AgentPhase(of(p)),
        "mission.status" => Request::MissionStatus,
        "mission.stop" => Request::MissionStop(of(p)),
        "audit.read" => Request::Bus(BusRight::Audit),
        "fetch" => Request::Bus(BusRight::Receive),
        _ => panic!("no method {method}"),
    }
}

fn run(file: &str) {
    let path = format!("{}/tests/scenario/{file}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let scenario: Scenario =
        toml::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut world = World::new();
    world.now = missiond::ids::Timestamp(START);
    let mut play = Play { world, scenario, saved: BTreeMap::new() };
    play.world.fact(Fact::DaemonStarted { last_alive: None });
    let spec = play.spec(&play.scenario.agents, &play.scenario.tasks);
    play.world.fact(Fact::Configured(Box::new(spec)));
    for (i, line) in play.scenario.step.clone().iter().enumerate() {
        let what = line.ask.as_ref().or(line.fact.as_ref()).map_or("step", String::as_str);
        println!("{file} step {} at {}: {what}", i + 1, line.at);
        play.play(line);
    }
    play.world.seal();
    let digest = play.world.replayed().digest().unwrap();
    assert_eq!(digest, play.world.state().digest().unwrap(), "the log gives another state");
    if let Ok(release) = std::env::var("MISSIOND_GOLDEN") {
        let dir = format!("{}/tests/golden/{release}", env!("CARGO_MANIFEST_DIR"));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(format!("{dir}/{file}.jsonl"), core_world::golden(&play.world)).unwrap();
    }
}

macro_rules! scenarios {
    ($($file:ident)*) => {
        $(#[test] fn $file() { run(stringify!($file)); })*

        #[test]
        fn every_scenario_file_is_run() {
            let dir = format!("{}/tests/scenario", env!("CARGO_MANIFEST_DIR"));
            let mut found: Vec<String> = std::fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            found.sort();
            let mut known = vec![$(concat!(stringify!($file), ".toml")),*];
            known.sort_unstable();
            assert_eq!(found, known);
        }
    };
}

scenarios! {
    a_task_from_creation_to_its_result
    a_former_owner_writes_no_more
    dependencies_free_and_cancel
    claims_follow_capabilities
    a_handoff_between_services
    a_handoff_that_ends_badly
    a_handoff_outlives_its_source
    a_handoff_between_task_agents
    a_busy_target_is_waited_for
    restarts_back_off_and_give_up
    attempts_run_out
    roles_permit_and_refuse
    a_full_inbox_refuses_the_sender
    a_key_is_carried_out_once
    stopping_leaves_nothing
    the_daemon_is_restarted
    the_file_is_changed
    transient_launch_failures_are_tried_again
    deadlines_and_pruning
    settled_missions_end
}
