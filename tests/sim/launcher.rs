//! The fake launcher: it does what the state wants, takes its time, and reports as the real one would.

use std::collections::BTreeMap;

use missiond::core::fact::{Fact, TaskRun, Want};
use missiond::core::json::Json;
use missiond::core::state::State;
use missiond::core::view::Exit;
use missiond::ids::{AgentUid, Incarnation, TaskId, Timestamp};

use super::model::{Verdict, ensure};
use super::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Launching,
    Parked,
    Up,
    /// Told to end.
    Ending,
    /// Ended; the report is under way.
    Gone,
}

#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) incarnation: Incarnation,
    pub(crate) run: Option<TaskRun>,
    pub(crate) stage: Stage,
}

#[derive(Default)]
pub(crate) struct Launcher {
    pub(crate) processes: BTreeMap<AgentUid, Process>,
    /// What is known to have ended: nothing up to it is ever launched again.
    ended: BTreeMap<AgentUid, Incarnation>,
    /// Reports under way.
    pub(crate) reports: Vec<(Timestamp, Fact)>,
}

impl Launcher {
    /// Everything the daemon had is lost with it; the shims end their agents by themselves.
    pub(crate) fn lose_everything(&mut self) {
        self.processes.clear();
        self.reports.clear();
    }

    fn report(&mut self, at: Timestamp, fact: Fact) {
        self.reports.push((at, fact));
    }

    /// Takes the earliest report.
    pub(crate) fn next_report(&mut self) -> Option<(Timestamp, Fact)> {
        let at = (0..self.reports.len()).min_by_key(|at| self.reports[*at].0)?;
        let (time, fact) = self.reports.remove(at);
        if let Fact::AgentEnded { uid, incarnation, .. } = &fact {
            self.processes.remove(uid);
            self.ended.insert(*uid, *incarnation);
        }
        Some((time, fact))
    }

    /// Makes what is true what is wanted, by the durable state.
    pub(crate) fn reconcile(
        &mut self,
        random: &mut Random,
        state: &State,
        now: Timestamp,
    ) -> Verdict {
        let agents: Vec<AgentUid> = state.all_agents().map(|(uid, _)| uid).collect();
        for uid in &agents {
            self.follow(random, *uid, state.want(*uid), now)?;
        }
        let lost = self.processes.keys().find(|uid| !agents.contains(uid));
        ensure!(lost.is_none(), "agent {lost:?} is forgotten with a live process");
        Ok(())
    }

    fn follow(
        &mut self,
        random: &mut Random,
        uid: AgentUid,
        want: Want,
        now: Timestamp,
    ) -> Verdict {
        let over = self.ended.get(&uid).copied().unwrap_or_default();
        match (self.processes.get(&uid).cloned(), want) {
            (None, Want::Run { incarnation, run, parked }) if incarnation > over => {
                self.launch(random, uid, incarnation, run, parked, now);
            }
            // It was to be stopped before it was even launched.
            (None, Want::Stop { incarnation, .. }) if incarnation > over => {
                let exit = Exit::SetupFailed { step: "not launched".to_owned(), errno: 4 };
                self.report(now, ended(uid, incarnation, exit));
                let process = Process { incarnation, run: None, stage: Stage::Gone };
                self.processes.insert(uid, process);
            }
            (None, _) => {}
            (Some(process), Want::Run { incarnation, run, parked }) => {
                ensure!(
                    process.incarnation >= incarnation,
                    "agent {uid}: start {incarnation} is wanted while {} lives",
                    process.incarnation
                );
                if process.stage == Stage::Parked && !parked {
                    self.go(uid, run, now)?;
                }
            }
            (Some(process), Want::Stop { incarnation, grace_ms, .. }) => {
                let current = process.incarnation == incarnation;
                if current && !matches!(process.stage, Stage::Ending | Stage::Gone) {
                    // Its answer to SIGTERM: it ends in time, whatever its code, or is killed.
                    let codes = [Exit::Exited(0), Exit::Exited(1), Exit::Signaled(15)];
                    let (after, exit) = match random.below(5) {
                        0 => (grace_ms, Exit::Signaled(9)),
                        _ => (random.below(grace_ms + 1), random.pick(&codes).unwrap().clone()),
                    };
                    let left = (random.percent(50) && process.run.is_some()).then(checkpoint);
                    self.set(uid, Stage::Ending);
                    self.end(uid, incarnation, exit, None, left, now.plus_ms(after));
                }
            }
            (Some(process), Want::Nothing) => ensure!(
                process.stage == Stage::Gone,
                "agent {uid}: nobody wants start {}, which lives",
                process.incarnation
            ),
        }
        Ok(())
    }

    fn set(&mut self, uid: AgentUid, stage: Stage) {
        if let Some(process) = self.processes.get_mut(&uid) {
            process.stage = stage;
        }
    }

    fn launch(
        &mut self,
        random: &mut Random,
        uid: AgentUid,
        incarnation: Incarnation,
        run: Option<TaskRun>,
        parked: bool,
        now: Timestamp,
    ) {
        let stage = Stage::Launching;
        self.processes.insert(uid, Process { incarnation, run, stage });
        let at = now.plus_ms(1 + random.below(40));
        match random.below(20) {
            0 => {
                let exit = Exit::SetupFailed { step: "exec".to_owned(), errno: 2 };
                self.end(uid, incarnation, exit, None, None, at);
            }
            // It hangs until somebody stops it.
            1 => {}
            _ if parked => self.report(at, Fact::AgentParked { uid, incarnation }),
            _ => {
                self.report(at, Fact::AgentStarted { uid, incarnation, pid: 100 });
                if random.percent(80) {
                    let at = at.plus_ms(random.below(100));
                    self.report(at, Fact::AgentReady { uid, incarnation });
                }
            }
        }
    }

    /// The parked process may run its program.
    fn go(&mut self, uid: AgentUid, run: Option<TaskRun>, now: Timestamp) -> Verdict {
        let Some(process) = self.processes.get_mut(&uid) else { return Ok(()) };
        process.run = run;
        process.stage = Stage::Launching;
        let incarnation = process.incarnation;
        self.report(now.plus_ms(1), Fact::AgentStarted { uid, incarnation, pid: 101 });
        Ok(())
    }

    /// What the report of a start means for the process.
    pub(crate) fn arrived(&mut self, fact: &Fact) -> Verdict {
        match fact {
            Fact::AgentParked { uid, incarnation } if self.is_launching(*uid, *incarnation) => {
                self.set(*uid, Stage::Parked);
            }
            Fact::AgentStarted { uid, incarnation, .. } => {
                if !self.is_launching(*uid, *incarnation) {
                    return Ok(());
                }
                self.set(*uid, Stage::Up);
                let task = self.processes.get(uid).and_then(|p| p.run.clone()).map(|run| run.task);
                let Some(task) = task else { return Ok(()) };
                let workers = self.workers(&task);
                ensure!(workers.len() == 1, "task {task} is run by {workers:?} at once");
            }
            _ => {}
        }
        Ok(())
    }

    fn is_launching(&self, uid: AgentUid, incarnation: Incarnation) -> bool {
        let process = self.processes.get(&uid);
        process.is_some_and(|p| p.incarnation == incarnation && p.stage == Stage::Launching)
    }

    /// Who has a process that works on a task and has not been told to end.
    fn workers(&self, task: &TaskId) -> Vec<AgentUid> {
        let works = |process: &Process| {
            process.stage == Stage::Up && process.run.as_ref().is_some_and(|run| run.task == *task)
        };
        self.processes.iter().filter(|(_, p)| works(p)).map(|(uid, _)| *uid).collect()
    }

    /// A running program ends by itself.
    pub(crate) fn ends_by_itself(&mut self, random: &mut Random, uid: AgentUid, now: Timestamp) {
        let Some(process) = self.processes.get(&uid) else { return };
        let (incarnation, is_task) = (process.incarnation, process.run.is_some());
        let good = if is_task { 65 } else { 30 };
        let exit = if random.percent(good) {
            Exit::Exited(0)
        } else {
            let bad = [Exit::Exited(1), Exit::Signaled(11), Exit::Signaled(9), Exit::Lost];
            random.pick(&bad).unwrap().clone()
        };
        let output = (is_task && random.percent(80)).then(|| Json::parse("\"done\"").unwrap());
        let left = (is_task && random.percent(40)).then(checkpoint);
        self.set(uid, Stage::Gone);
        self.end(uid, incarnation, exit, output, left, now.plus_ms(random.below(20)));
    }

    fn end(
        &mut self,
        uid: AgentUid,
        incarnation: Incarnation,
        exit: Exit,
        output: Option<Json>,
        left: Option<Json>,
        at: Timestamp,
    ) {
        let checkpoint = left.map(|json| (Some(json), Vec::new()));
        // What it had reported before and is still under way came earlier in its channel.
        let late = self.reports.iter().filter(|(_, fact)| subject(fact) == Some(uid));
        let at = late.map(|(time, _)| *time).max().map_or(at, |time| time.max(at));
        self.report(at, Fact::AgentEnded { uid, incarnation, exit, output, checkpoint });
    }
}

fn subject(fact: &Fact) -> Option<AgentUid> {
    match fact {
        Fact::AgentParked { uid, .. }
        | Fact::AgentStarted { uid, .. }
        | Fact::AgentReady { uid, .. }
        | Fact::AgentEnded { uid, .. }
        | Fact::AgentSilent { uid, .. } => Some(*uid),
        Fact::DaemonStarted { .. }
        | Fact::Configured(_)
        | Fact::PeerRefused { .. }
        | Fact::Alert { .. }
        | Fact::StopRequested { .. } => None,
    }
}

fn ended(uid: AgentUid, incarnation: Incarnation, exit: Exit) -> Fact {
    Fact::AgentEnded { uid, incarnation, exit, output: None, checkpoint: None }
}

fn checkpoint() -> Json {
    Json::parse("{\"left\":1}").unwrap()
}
