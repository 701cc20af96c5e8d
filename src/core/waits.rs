//! Everything stuck says what it waits for, and until when (invariant 8).

use super::event::StopWhy;
use super::spec::Mode;
use super::state::{Agent, Handoff, HandoffState, Process, State, Task, TaskState};
use super::view::{Exit, Wait};
use crate::ids::{AgentUid, HandoffId, Timestamp};

fn wait(what: impl Into<String>, until: Option<Timestamp>) -> Option<Wait> {
    Some(Wait { what: what.into(), until })
}

fn list<T: std::fmt::Display>(all: impl IntoIterator<Item = T>) -> String {
    let mut all: Vec<String> = all.into_iter().map(|one| format!("`{one}`")).collect();
    let more = all.len().saturating_sub(3);
    all.truncate(3);
    let named = all.join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

impl State {
    pub(crate) fn task_waits(&self, task: &Task) -> Option<Wait> {
        if let Some((id, handoff)) = self.handoff_of(task) {
            return self.handoff_waits(id, handoff).map(|of_handoff| Wait {
                what: format!("handoff {id}: {}", of_handoff.what),
                until: of_handoff.until,
            });
        }
        match &task.state {
            TaskState::Settled(_) => None,
            TaskState::Pending if !task.open.is_empty() => {
                wait(format!("completion of {}", list(&task.open)), task.deadline)
            }
            TaskState::Pending => {
                let fits = |(uid, agent): (&AgentUid, &Agent)| {
                    !agent.removed && self.executes(*uid) && task.fits(agent)
                };
                let needs = match task.needs.is_empty() {
                    true => String::new(),
                    false => format!(" with {}", list(&task.needs)),
                };
                if self.agents.iter().any(fits) {
                    wait(format!("a claim by an agent{needs}, or task.assign"), task.deadline)
                } else {
                    wait(format!("task.assign: there is no agent{needs}"), task.deadline)
                }
            }
            TaskState::Assigned { owner } => self.owner_waits(task, *owner),
            TaskState::Active { owner, incarnation } => {
                // At work; unless its owner is between two starts.
                if self.live_incarnation(*owner) == Some(*incarnation) {
                    return None;
                }
                self.owner_waits(task, *owner)
            }
        }
    }

    fn owner_waits(&self, task: &Task, owner: AgentUid) -> Option<Wait> {
        let name = self.called(owner);
        let Some(agent) = self.agents.get(&owner) else {
            return wait(format!("task.assign: {name} is gone"), task.deadline);
        };
        match &agent.process {
            Process::Running { .. } if agent.spec.mode == Mode::Service => {
                wait(format!("{name} to begin (task.update)"), task.deadline)
            }
            Process::Running { run, .. } | Process::Stopping { run, .. } => {
                let now = run.as_ref().map(|run| format!(": it runs `{}`", run.task));
                wait(format!("a free slot of {name}{}", now.unwrap_or_default()), task.deadline)
            }
            Process::Idle
            | Process::Waiting { .. }
            | Process::Starting { .. }
            | Process::Ended
            | Process::Stopped
            | Process::Failed { .. } => {
                let of_agent = self.agent_waits(owner);
                let until = of_agent.as_ref().and_then(|of_agent| of_agent.until).or(task.deadline);
                let what = of_agent.map_or_else(|| "its start".to_owned(), |wait| wait.what);
                wait(format!("{name}: {what}"), until)
            }
        }
    }

    pub(crate) fn agent_waits(&self, uid: AgentUid) -> Option<Wait> {
        let agent = self.agents.get(&uid)?;
        let exit = || match &agent.last_exit {
            Some(exit) => exit.to_string(),
            None => Exit::Lost.to_string(),
        };
        match &agent.process {
            Process::Running { .. } => None,
            Process::Idle if !self.is_running() => wait("the mission to run", None),
            Process::Idle => match agent.spec.mode {
                Mode::Service => wait("its start", None),
                Mode::Task => {
                    let mut incoming = self.index.incoming.get(&uid).into_iter().flatten();
                    let accepted = incoming.find_map(|id| {
                        let handoff = self.handoffs.get(id)?;
                        handoff.is_accepted().then_some((id, handoff))
                    });
                    match accepted {
                        Some((id, handoff)) => {
                            let what = self.handoff_waits(*id, handoff)?.what;
                            wait(format!("handoff {id}: {what}"), handoff.until)
                        }
                        None => wait("a task", None),
                    }
                }
            },
            Process::Waiting { until } => wait(format!("restart after {}", exit()), Some(*until)),
            Process::Starting { until, parked: Some(true), run, .. } => {
                let id = run.as_ref().and_then(|run| run.handoff);
                let what = id.map_or_else(String::new, |id| format!("handoff {id}: "));
                wait(format!("{what}completion before its exec"), Some(*until))
            }
            Process::Starting { until, pid: None, .. } => wait("its launch", Some(*until)),
            Process::Starting { until, .. } => wait("its hello on the bus", Some(*until)),
            Process::Stopping { grace_ms, why, .. } => {
                let why = match why {
                    StopWhy::Request => "stopped by request",
                    StopWhy::Restart | StopWhy::Changed => "to be restarted",
                    StopWhy::Handoff => "stopped for a handoff",
                    StopWhy::TaskEnded => "its task is not its own any more",
                    StopWhy::StartTimeout => "was not up in time",
                    StopWhy::WallTimeout => "ran for too long",
                    StopWhy::Silent => "was silent for too long",
                    StopWhy::Removed => "removed",
                    StopWhy::Mission => "the mission stops",
                };
                let until = agent.since.plus_ms(*grace_ms);
                wait(format!("the end of its processes ({why}; SIGKILL after)"), Some(until))
            }
            Process::Ended => wait(format!("agent.start: it ended ({})", exit()), None),
            Process::Stopped => wait("agent.start: it was stopped", None),
            Process::Failed { reason } => wait(format!("agent.start: given up ({reason})"), None),
        }
    }

    pub(crate) fn handoff_waits(&self, _id: HandoffId, handoff: &Handoff) -> Option<Wait> {
        let (from, to) = (self.called(handoff.from), self.called(handoff.to));
        let run = |uid: AgentUid| self.agents.get(&uid).and_then(|agent| agent.run());
        let what = match handoff.state {
            HandoffState::Requested if self.is_service(handoff.to) => format!("accept by {to}"),
            HandoffState::Requested => match run(handoff.to) {
                Some(run) => format!("a free slot of {to}: it runs `{}`", run.task),
                None => match self.agent_waits(handoff.to) {
                    Some(of_target) => {
                        format!("a free slot of {to}: it waits for {}", of_target.what)
                    }
                    None => format!("a free slot of {to}"),
                },
            },
            HandoffState::Draining if self.is_service(handoff.from) => {
                format!("a checkpoint by {from}")
            }
            HandoffState::Draining => format!("the end of the process of {from}"),
            HandoffState::Quiesced if self.is_service(handoff.to) => format!("complete by {to}"),
            HandoffState::Quiesced => format!("the start of {to}"),
            HandoffState::Completed | HandoffState::Ended(_) => return None,
        };
        wait(what, handoff.until)
    }
}
