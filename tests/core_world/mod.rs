//! A head with a log: every event goes through its encoded form into a second state that has to stay
//! equal. And what must hold of every state.
#![expect(dead_code, reason = "each test program uses its part of this module")]

use std::collections::BTreeMap;

use missiond::core::event::Logged;
use missiond::core::fact::{Fact, Want};
use missiond::core::head::{Caller, Head, Step};
use missiond::core::json::Json;
use missiond::core::request::Request;
use missiond::core::spec::{
    AgentSpec, Limits, MissionSpec, Mode, ReadyWhen, RestartSpec, TaskSpec, Until, builtin_roles,
};
use missiond::core::state::{HandoffState, Process, State, TaskState};
use missiond::core::view::{AgentStateName, Exit, MissionStateName};
use missiond::ids::{
    AgentName, AgentUid, Epoch, Incarnation, Key, MissionName, RoleName, Seq, TaskId, Timestamp,
};

pub(crate) fn name(text: &str) -> AgentName {
    AgentName::new(text).unwrap()
}

pub(crate) fn task_id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

pub(crate) fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

pub(crate) fn agent(name: &str, role: &str, mode: Mode) -> AgentSpec {
    AgentSpec {
        name: self::name(name),
        role: RoleName::new(role).unwrap(),
        capabilities: vec![],
        mode,
        level: 1,
        restart: RestartSpec::default(),
        ready: ReadyWhen::Exec,
        start_timeout_ms: 10_000,
        wall_ms: None,
        silence_ms: None,
        grace_ms: 5_000,
        autostart: true,
        launch_digest: String::new(),
    }
}

pub(crate) fn task(id: &str, after: &[&str], assign: Option<&str>) -> TaskSpec {
    TaskSpec {
        id: task_id(id),
        title: format!("do {id}"),
        after: after.iter().map(|id| task_id(id)).collect(),
        assign: assign.map(name),
        needs: vec![],
        timeout_ms: None,
        max_attempts: 3,
        data: None,
    }
}

pub(crate) fn mission(agents: Vec<AgentSpec>, tasks: Vec<TaskSpec>) -> MissionSpec {
    let roles = builtin_roles().into_iter();
    MissionSpec {
        name: MissionName::new("test").unwrap(),
        until: Until::Stopped,
        roles: roles.map(|(name, p)| (RoleName::new(name).unwrap(), p)).collect(),
        limits: Limits::default(),
        agents,
        tasks,
    }
}

/// A stored event: its columns.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) seq: Seq,
    pub(crate) at: Timestamp,
    pub(crate) kind: String,
    pub(crate) v: u16,
    pub(crate) actor: String,
    pub(crate) envelope: Vec<u8>,
}

impl Row {
    pub(crate) fn of(logged: &Logged) -> Row {
        Row {
            seq: logged.seq,
            at: logged.at,
            kind: logged.kind().to_owned(),
            v: logged.version(),
            actor: logged.actor.to_string(),
            envelope: logged.envelope().unwrap(),
        }
    }

    pub(crate) fn apply(&self, state: &mut State) {
        let (seq, at, v) = (self.seq, self.at, self.v);
        state.replay(seq, at, &self.kind, v, &self.actor, &self.envelope).unwrap();
    }
}

/// A log as text: a line per event, and a last one with the digest of the state that it gives.
pub(crate) fn golden(world: &World) -> String {
    let mut text = String::new();
    for row in &world.rows {
        let line = serde_json::json!([row.seq, row.at, row.kind, row.v, row.actor]);
        let envelope = std::str::from_utf8(&row.envelope).unwrap();
        text += &format!("{{\"row\":{line},\"envelope\":{envelope}}}\n");
    }
    let digest = missiond::ids::BlobHash(world.state().digest().unwrap());
    text + &format!("{{\"digest\":\"{digest}\"}}\n")
}

/// A head, its log, and the state that the log gives.
pub(crate) struct World {
    pub(crate) head: Head,
    pub(crate) follower: State,
    pub(crate) rows: Vec<Row>,
    pub(crate) now: Timestamp,
    /// Who owned which task under which epoch.
    pub(crate) owners: BTreeMap<(TaskId, Epoch), AgentUid>,
}

impl World {
    pub(crate) fn new() -> World {
        World {
            head: Head::new(),
            follower: State::new(),
            rows: Vec::new(),
            now: Timestamp(1_000_000),
            owners: BTreeMap::new(),
        }
    }

    /// A world whose daemon has just read `spec`.
    pub(crate) fn started(spec: MissionSpec) -> World {
        let mut world = World::new();
        world.fact(Fact::DaemonStarted { last_alive: None });
        world.fact(Fact::Configured(Box::new(spec)));
        world
    }

    pub(crate) fn state(&self) -> &State {
        self.head.state()
    }

    pub(crate) fn uid(&self, name: &str) -> AgentUid {
        self.state().uid(name).unwrap_or_else(|| panic!("no agent {name}"))
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    fn take(&mut self, step: Step) -> Step {
        for logged in &step.events {
            assert_eq!(logged.seq, self.follower.head().next(), "no number is skipped");
            assert!(logged.at >= self.follower.at(), "time never goes back");
            let row = Row::of(logged);
            row.apply(&mut self.follower);
            self.rows.push(row);
        }
        assert!(self.follower == *self.head.state(), "the log gives another state");
        check(self.head.state());
        for (id, task) in self.head.state().tasks() {
            if let Some(owner) = task.owner() {
                let before = *self.owners.entry((id.clone(), task.epoch)).or_insert(owner);
                assert_eq!(before, owner, "two owners of `{id}` under epoch {}", task.epoch);
            }
        }
        step
    }

    pub(crate) fn fact(&mut self, fact: Fact) -> Step {
        let step = self.head.fact(self.now, fact);
        self.take(step)
    }

    pub(crate) fn tick(&mut self) -> Step {
        let step = self.head.tick(self.now);
        self.take(step)
    }

    pub(crate) fn seal(&mut self) -> Step {
        let step = self.head.seal(self.now);
        self.take(step)
    }

    pub(crate) fn ask(&mut self, who: Caller, key: Option<&Key>, request: Request) -> Step {
        let step = self.head.request(self.now, &who, key, request);
        self.take(step)
    }

    pub(crate) fn as_operator(&mut self, request: Request) -> Step {
        self.ask(Caller::Operator, None, request)
    }

    pub(crate) fn as_agent(&mut self, name: &str, request: Request) -> Step {
        let uid = self.uid(name);
        self.ask(Caller::Agent(uid), None, request)
    }

    /// The fake launcher: reports for one agent what its want asks for next.
    pub(crate) fn launch(&mut self, uid: AgentUid) -> bool {
        let Some(agent) = self.state().agent(uid) else { return false };
        let (process, incarnation) = (agent.process.clone(), agent.incarnation);
        match (self.state().want(uid), process) {
            (Want::Run { parked: true, .. }, Process::Starting { parked: Some(false), .. }) => {
                self.fact(Fact::AgentParked { uid, incarnation });
            }
            (Want::Run { parked: false, .. }, Process::Starting { pid: None, .. }) => {
                let pid = u32::try_from(uid.0 * 1_000 + incarnation.0).unwrap();
                self.fact(Fact::AgentStarted { uid, incarnation, pid });
            }
            (Want::Stop { .. }, _) => self.end(uid, Exit::Signaled(15)),
            _ => return false,
        }
        true
    }

    /// The launcher does all that is wanted.
    pub(crate) fn launch_all(&mut self) {
        for _ in 0..100 {
            let all: Vec<AgentUid> = self.state().all_agents().map(|(uid, _)| uid).collect();
            if !all.into_iter().any(|uid| self.launch(uid)) {
                return;
            }
        }
        panic!("the launcher never comes to rest");
    }

    /// The process of an agent ends.
    pub(crate) fn end(&mut self, uid: AgentUid, exit: Exit) {
        let incarnation = self.state().agent(uid).map(|agent| agent.incarnation);
        let incarnation = incarnation.unwrap_or(Incarnation(0));
        let (output, checkpoint) = (None, None);
        self.fact(Fact::AgentEnded { uid, incarnation, exit, output, checkpoint });
    }

    pub(crate) fn replayed(&self) -> State {
        let mut state = State::new();
        self.rows.iter().for_each(|row| row.apply(&mut state));
        state
    }
}

/// What holds of every state between two inputs: nothing is stuck without a deadline or a waker, and
/// everything that waits says so.
pub(crate) fn check(state: &State) {
    let running = state.mission().state == MissionStateName::Running && state.mission().configured;
    for (id, handoff) in state.handoffs().filter(|(_, handoff)| handoff.is_open()) {
        let view = state.handoff_view(id).expect("an open handoff has a view");
        assert!(handoff.until.is_some(), "{id} has no deadline");
        assert!(view.waits_for.is_some(), "{id} does not say what it waits for");
        let task = state.task(&handoff.task).expect("an open handoff has a task");
        assert_eq!(task.handoff, Some(id), "an open handoff is its task's");
        assert_eq!(task.owner(), Some(handoff.from), "{id}: the source owns the task");
        assert!(running || !state.mission().configured, "{id} outlives the mission's end");
        let target = state.agent(handoff.to).expect("the target is there");
        let idle = target.spec.mode == Mode::Task && target.process == Process::Idle && running;
        match handoff.state {
            HandoffState::Requested => assert!(
                !idle
                    || state
                        .handoffs()
                        .any(|(_, h)| h.to == handoff.to && h.state == HandoffState::Draining),
                "{id} is not accepted by an idle target"
            ),
            HandoffState::Draining => {
                let source = state.agent(handoff.from).expect("a draining source is there");
                assert!(source.is_live(), "{id} drains a source without a process");
            }
            HandoffState::Quiesced => assert!(!idle, "{id}: an idle target is not started"),
            HandoffState::Completed | HandoffState::Ended(_) => unreachable!(),
        }
    }
    let mut open_tasks = 0;
    for (id, task) in state.tasks() {
        let view = state.task_view(id).expect("a task has a view");
        match &task.state {
            TaskState::Settled(_) => {
                assert_eq!(task.handoff, None, "`{id}` is settled with an open handoff");
                continue;
            }
            TaskState::Pending => {
                assert_eq!(task.handoff, None, "`{id}` has no owner but an open handoff");
                assert!(view.waits_for.is_some(), "`{id}` does not say what it waits for");
                for dependency in &task.open {
                    let of = state.task(dependency).expect("an open dependency is there");
                    assert!(!of.is_settled(), "`{id}` waits for a settled task");
                }
                if task.open.is_empty() {
                    assert_eq!(task.reserved, None, "`{id}` is reserved and not assigned");
                }
            }
            TaskState::Assigned { .. } => {
                assert!(view.waits_for.is_some(), "`{id}` does not say what it waits for");
            }
            TaskState::Active { owner, incarnation } => {
                let agent = state.agent(*owner).filter(|agent| agent.is_live());
                let alive = agent.is_some_and(|agent| agent.incarnation == *incarnation);
                // Held for its handoff, or really at work.
                assert!(alive || task.handoff.is_some(), "`{id}` is active without a process");
            }
        }
        open_tasks += 1;
    }
    let mut live = 0;
    for (uid, agent) in state.all_agents() {
        let view = state.agent_view(uid).expect("an agent has a view");
        live += u32::from(agent.is_live());
        let up = view.state == AgentStateName::Running;
        assert!(up || view.waits_for.is_some(), "{} does not say what it waits for", view.name);
        if agent.process == Process::Idle && running {
            assert_eq!(agent.spec.mode, Mode::Task, "{} is not started", view.name);
            let mut own = state.tasks().filter(|(_, task)| {
                matches!(task.state, TaskState::Assigned { owner } if owner == uid)
                    && task.handoff.is_none()
            });
            let slot = !state.handoffs().any(|(_, h)| h.to == uid && h.is_open());
            assert!(!slot || own.next().is_none(), "{} is idle with a task", view.name);
        }
        if let Process::Starting { parked: Some(_), run, .. } = &agent.process {
            let id = run.as_ref().and_then(|run| run.handoff).expect("parked for a handoff");
            let open = state.handoffs().any(|(h, handoff)| h == id && handoff.is_open());
            assert!(open, "{} is parked for an ended handoff", view.name);
        }
        let held: u64 = agent.inbox.held.values().map(|held| held.bytes).sum();
        assert_eq!(held, agent.inbox.held_bytes, "bytes of {}'s inbox", view.name);
        assert!(agent.inbox.cursors.values().all(|cursor| cursor.ranges.len() <= 1_024));
    }
    let mission = state.mission();
    let ended = mission.tasks_completed + mission.tasks_failed + mission.tasks_cancelled;
    assert_eq!(mission.tasks_created, open_tasks + ended, "tasks are lost or counted twice");
    assert!(mission.state != MissionStateName::Stopping || live > 0, "nothing is left to stop");
    assert!(mission.state != MissionStateName::Stopped || live == 0, "stopped with processes");
}
