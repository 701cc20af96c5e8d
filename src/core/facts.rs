//! Taking in facts. A fact is never refused; one about a former incarnation says nothing new.

use super::batch::Batch;
use super::decide::task::{created, result_digest};
use super::event::{
    AfterEnd, AgentAdded, AgentChanged, AgentEnabled, AgentEnded, AgentParked, AgentReady,
    AgentRemoved, AgentStarted, AlertRaised, CheckpointSaved, DaemonStarted, HandoffCompleted,
    MissionConfigured, MissionStopping, RunRef, StopWhy, TaskCompleted, TaskFailed, TaskStarted,
};
use super::fact::Fact;
use super::json::Json;
use super::spec::{AgentSpec, MissionSpec, Mode, ReadyWhen, RestartOn};
use super::state::{Agent, HandoffState, Process, State, TaskState};
use super::table::handoff::Row;
use super::view::{Exit, FileRef, MissionStateName, Party};
use crate::ids::{AgentName, AgentUid, Epoch, Generation, Incarnation, TaskId, Timestamp};

impl Batch<'_> {
    /// Takes in a fact, with its consequences. Refused peers are counted above, by the head.
    pub(crate) fn fact(&mut self, fact: Fact) {
        match fact {
            Fact::DaemonStarted { last_alive } => self.daemon_started(last_alive),
            Fact::Configured(spec) => self.configured(*spec),
            Fact::AgentParked { uid, incarnation } => self.parked(uid, incarnation),
            Fact::AgentStarted { uid, incarnation, pid } => self.started(uid, incarnation, pid),
            Fact::AgentReady { uid, incarnation } => {
                if let Some(agent) = self.live(uid, incarnation)
                    && matches!(agent.process, Process::Starting { parked: None, hello: false, .. })
                {
                    self.emit(AgentReady { agent: uid, incarnation });
                }
            }
            Fact::AgentEnded { uid, incarnation, exit, output, checkpoint } => {
                if self.live(uid, incarnation).is_some() {
                    self.ended(uid, incarnation, exit, output, checkpoint);
                }
            }
            Fact::AgentSilent { uid, incarnation } => {
                if self.live(uid, incarnation).is_some() {
                    self.stop(uid, StopWhy::Silent);
                }
            }
            Fact::Alert { text } => _ = self.emit(AlertRaised { text }),
            Fact::StopRequested { why } => {
                if self.state.mission.state == MissionStateName::Running {
                    self.emit(MissionStopping { why, grace_ms: None });
                }
            }
            Fact::PeerRefused { socket, pid, reason } => {
                self.emit(super::event::PeerRefused { socket, pid, reason });
            }
        }
        self.settle();
    }

    fn live(&self, uid: AgentUid, incarnation: Incarnation) -> Option<&Agent> {
        let agent = self.state.agents.get(&uid)?;
        (agent.is_live() && agent.incarnation == incarnation).then_some(agent)
    }

    fn daemon_started(&mut self, last_alive: Option<Timestamp>) {
        let was_stopped = self.state.mission.state == MissionStateName::Stopped;
        let generation = Generation(self.state.mission.generation.0 + 1);
        let alive = last_alive.unwrap_or(self.state.at).max(self.state.at);
        // Nothing was down before the first start.
        let first = generation.0 == 1;
        let down_ms = if first { 0 } else { self.now.since_ms(alive) };
        self.emit(DaemonStarted { generation, down_ms });
        let open: Vec<_> = self.state.handoffs.keys().copied().collect();
        for id in open {
            self.handoff_row(id, Row::DaemonRestart, "the daemon was restarted");
        }
        self.settle();
        for uid in self.agents() {
            let Some(agent) = self.state.agents.get(&uid) else { continue };
            if agent.is_live() {
                let incarnation = agent.incarnation;
                let (run, stopped) = (agent.run().cloned(), stopping(agent));
                let next = match stopped {
                    Some(StopWhy::Request) => AfterEnd::Stopped,
                    Some(_) | None => AfterEnd::Idle,
                };
                let exit = Exit::Lost;
                self.emit(AgentEnded { agent: uid, incarnation, exit, run, stopped, next });
                self.settle();
            } else if matches!(agent.process, Process::Failed { .. })
                || (was_stopped && agent.process == Process::Ended)
            {
                self.emit(AgentEnabled { agent: uid });
            }
        }
    }

    fn configured(&mut self, spec: MissionSpec) {
        let MissionSpec { name, until, roles, limits, agents, tasks } = spec;
        self.emit(MissionConfigured { name, until, roles, limits });
        let named: Vec<AgentName> = agents.iter().map(|agent| agent.name.clone()).collect();
        for agent in self.agents() {
            let Some(of) = self.state.agents.get(&agent) else { continue };
            if !of.removed && !named.contains(&of.spec.name) {
                let why = "not in the mission file any more".to_owned();
                self.emit(AgentRemoved { agent, why });
            }
        }
        let mut restart = Vec::new();
        for spec in agents {
            match self.state.index.by_name.get(&spec.name).copied() {
                None => _ = self.emit(AgentAdded { spec }),
                Some(uid) => {
                    let Some(of) = self.state.agents.get(&uid) else { continue };
                    if of.spec != spec {
                        if launches_differently(&of.spec, &spec) {
                            restart.push((uid, of.incarnation));
                        }
                        self.emit(AgentChanged { agent: uid, spec });
                    }
                }
            }
        }
        for spec in tasks {
            if self.state.tasks.contains_key(&spec.id)
                || self.state.file_tasks.contains_key(&spec.id)
            {
                continue;
            }
            let reserved = spec.assign.as_ref().and_then(|name| self.state.uid(name.as_str()));
            let (event, content) = created(spec, self.now, reserved, None, true);
            self.emit_as(Party::Daemon, event, content);
        }
        self.settle();
        for (uid, incarnation) in restart {
            // A start that came after the change is as the file says.
            if self.live(uid, incarnation).is_some() {
                self.stop(uid, StopWhy::Changed);
            }
        }
        self.check_settled();
        self.settle();
        for uid in self.agents() {
            self.poke(uid);
            self.settle();
        }
    }

    fn parked(&mut self, uid: AgentUid, incarnation: Incarnation) {
        let Some(agent) = self.live(uid, incarnation) else { return };
        let Process::Starting { run: Some(run), parked: Some(false), .. } = &agent.process else {
            return;
        };
        let Some(id) = run.handoff else { return };
        self.emit(AgentParked { agent: uid, incarnation });
        let quiesced =
            self.state.handoffs.get(&id).is_some_and(|h| h.state == HandoffState::Quiesced);
        if quiesced {
            self.emit(HandoffCompleted { handoff: id, incarnation });
        }
    }

    fn started(&mut self, uid: AgentUid, incarnation: Incarnation, pid: u32) {
        let Some(agent) = self.live(uid, incarnation) else { return };
        let Process::Starting { run, pid: None, hello, .. } = &agent.process else { return };
        let run = run.clone();
        let ready = *hello || agent.spec.mode == Mode::Task || agent.spec.ready == ReadyWhen::Exec;
        let wall = agent.spec.wall_ms.map(|ms| self.now.plus_ms(ms));
        self.emit(AgentStarted { agent: uid, incarnation, pid, ready, wall });
        if let Some(RunRef { task, handoff: None }) = run
            && self.assigned_to(&task, uid)
        {
            self.emit(TaskStarted { task, incarnation });
        }
    }

    fn assigned_to(&self, task: &TaskId, uid: AgentUid) -> bool {
        let state = self.state.tasks.get(task).map(|task| &task.state);
        state == Some(&TaskState::Assigned { owner: uid })
    }

    /// The epoch of a task that this start of the agent works on.
    fn working_epoch(
        &self,
        task: &TaskId,
        uid: AgentUid,
        incarnation: Incarnation,
    ) -> Option<Epoch> {
        let task = self.state.tasks.get(task)?;
        (task.state == TaskState::Active { owner: uid, incarnation }).then_some(task.epoch)
    }

    fn ended(
        &mut self,
        uid: AgentUid,
        incarnation: Incarnation,
        exit: Exit,
        output: Option<Json>,
        checkpoint: Option<(Option<Json>, Vec<FileRef>)>,
    ) {
        let Some(agent) = self.live(uid, incarnation) else { return };
        let (run, stopped) = (agent.run().cloned(), stopping(agent));
        let spec = agent.spec.clone();
        let next = next(self.state, agent, &exit, stopped, self.now);
        let of_agent = Party::Agent(spec.name.clone());
        if let (Some(run), Mode::Task) = (&run, spec.mode)
            && let Some(epoch) = self.working_epoch(&run.task, uid, incarnation)
        {
            let quiesced =
                self.state.tasks.get(&run.task).is_some_and(|task| self.state.is_quiesced(task));
            let success = exit.is_success() && stopped.is_none();
            if let Some((json, files)) = checkpoint
                && !quiesced
                && !success
            {
                let (task, by, has_json) = (run.task.clone(), uid, json.is_some());
                let event = CheckpointSaved { task, by, epoch, json: has_json, files };
                self.emit_as(of_agent.clone(), event.into(), json);
                self.settle();
            }
            let given_up = match stopped {
                None | Some(StopWhy::Silent | StopWhy::WallTimeout | StopWhy::StartTimeout) => {
                    spec.restart.on == RestartOn::Never && !matches!(exit, Exit::SetupFailed { .. })
                }
                Some(
                    StopWhy::Request
                    | StopWhy::Restart
                    | StopWhy::Changed
                    | StopWhy::Handoff
                    | StopWhy::TaskEnded
                    | StopWhy::Removed
                    | StopWhy::Mission,
                ) => false,
            };
            let (task, digest) = (run.task.clone(), result_digest(output.as_ref()));
            let result = output.is_some();
            if quiesced {
                // Its writes have ended: the task goes on with the target.
            } else if success {
                let event = TaskCompleted { task, result, digest };
                self.emit_as(of_agent, event.into(), output);
            } else if given_up {
                let (digest, reason) = (Some(digest), Some(exit.to_string()));
                let event = TaskFailed { task, result, digest, reason, fence: false };
                self.emit_as(of_agent, event.into(), output);
            }
        }
        self.emit(AgentEnded { agent: uid, incarnation, exit, run, stopped, next });
    }
}

fn stopping(agent: &Agent) -> Option<StopWhy> {
    match agent.process {
        Process::Stopping { why, .. } => Some(why),
        Process::Idle
        | Process::Waiting { .. }
        | Process::Starting { .. }
        | Process::Running { .. }
        | Process::Ended
        | Process::Stopped
        | Process::Failed { .. } => None,
    }
}

fn launches_differently(old: &AgentSpec, new: &AgentSpec) -> bool {
    old.launch_digest != new.launch_digest || old.mode != new.mode || old.level != new.level
}

/// Whether a launch failed for lack of something that others may give back: `EAGAIN`, `ENOMEM`, `ENFILE`,
/// `EMFILE`, `ENOBUFS`, `ETOOMANYREFS` (the user's descriptors in flight). Linux's numbers, as in the log.
fn may_pass(errno: i32) -> bool {
    matches!(errno, 11 | 12 | 23 | 24 | 105 | 109)
}

/// What becomes of an agent whose process has ended so.
fn next(
    state: &State,
    agent: &Agent,
    exit: &Exit,
    stopped: Option<StopWhy>,
    now: Timestamp,
) -> AfterEnd {
    let success = match stopped {
        Some(StopWhy::Request) => return AfterEnd::Stopped,
        Some(
            StopWhy::Restart
            | StopWhy::Changed
            | StopWhy::Handoff
            | StopWhy::TaskEnded
            | StopWhy::Removed
            | StopWhy::Mission,
        ) => return AfterEnd::Idle,
        Some(StopWhy::Silent | StopWhy::WallTimeout | StopWhy::StartTimeout) => false,
        None => exit.is_success(),
    };
    if state.mission.state != MissionStateName::Running {
        return AfterEnd::Idle;
    }
    let restart = agent.spec.restart;
    if let Exit::SetupFailed { errno, .. } = exit
        && (restart.on == RestartOn::Never || !may_pass(*errno))
    {
        return AfterEnd::Failed(exit.to_string());
    }
    let again = match (agent.spec.mode, restart.on) {
        (Mode::Task, _) if success => return AfterEnd::Idle,
        (Mode::Task, RestartOn::Never) => return AfterEnd::Idle,
        (Mode::Service, RestartOn::Never) => false,
        (_, RestartOn::OnFailure) => !success,
        (_, RestartOn::Always) => true,
    };
    if !again {
        return AfterEnd::Ended;
    }
    let within = |at: &&Timestamp| now.since_ms(**at) < restart.within_ms;
    let recent = u32::try_from(agent.recent.iter().filter(within).count()).unwrap_or(u32::MAX);
    if recent >= restart.max {
        return AfterEnd::Failed(format!(
            "{exit}, after {} restarts within {} s",
            restart.max,
            restart.within_ms.div_ceil(1_000)
        ));
    }
    let delay = restart.backoff_ms.saturating_mul(1u64.checked_shl(recent).unwrap_or(u64::MAX));
    AfterEnd::Waiting(now.plus_ms(delay.min(restart.backoff_max_ms)))
}
