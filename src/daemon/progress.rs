//! One line per event that a person would want to see.

use super::screen::Tone;
use super::{Daemon, Readiness};
use crate::core::event::{
    AfterEnd, AgentReady, AgentStarted, Event, HandoffEnd, Logged, RequeueWhy, StopWhy,
};
use crate::core::state::{Process, State, TaskState};
use crate::core::view::{Exit, Party};
use crate::ids::{AgentUid, HandoffId};

/// A line: whom or what it is about, what happened, how it looks.
type Line = (String, String, Tone);

impl Daemon {
    /// Shows an event that has just become durable.
    pub(super) fn show(&mut self, event: &Logged) {
        let state = self.pipeline.durable();
        if let Some((subject, text, tone)) = line(state, event) {
            self.screen.event(event.at, &subject, &text, tone);
        }
        if self.manager.is_listening() && self.stopping.is_none() && is_status(&event.event) {
            let status = status(self.pipeline.durable());
            self.manager.status(status);
        }
    }

    /// Takes note of what has come up.
    pub(super) fn follow_readiness(&mut self, event: &Event) {
        let up = if let Event::AgentStarted(AgentStarted { agent, ready: true, .. })
        | Event::AgentReady(AgentReady { agent, .. }) = event
        {
            *agent
        } else {
            if matches!(event, Event::MissionConfigured(_))
                && self.readiness == Readiness::Unconfigured
            {
                self.readiness = Readiness::Starting;
            }
            return;
        };
        self.agents.entry(up).or_default().was_up = true;
    }

    /// Tells whoever waits for it that everything is up; once. An agent that was up and has ended
    /// since does not take that back, however soon it was: the word must not depend on who is faster.
    pub(super) fn say_ready(&mut self) {
        if self.readiness != Readiness::Starting || self.stopping.is_some() {
            return;
        }
        let state = self.pipeline.durable();
        let mut failed = None;
        for (uid, agent) in state.all_agents() {
            if agent.spec.mode != crate::core::spec::Mode::Service
                || !agent.spec.autostart
                || self.agents.get(&uid).is_some_and(|around| around.was_up)
            {
                continue;
            }
            match &agent.process {
                Process::Running { .. } | Process::Ended | Process::Stopped => {}
                Process::Idle
                | Process::Waiting { .. }
                | Process::Starting { .. }
                | Process::Stopping { .. } => return,
                Process::Failed { reason } => {
                    failed =
                        Some(format!("agent `{}` can't be started: {reason}", agent.spec.name));
                }
            }
        }
        self.readiness = Readiness::Told;
        match failed {
            None => {
                let status = status(state);
                self.manager.status(status);
                self.manager.ready();
                self.detached.up(self.ground.mission.spec.name.as_str());
            }
            Some(why) => {
                self.manager.status(why.clone());
                self.detached.failed(&why);
            }
        }
    }
}

fn is_status(event: &Event) -> bool {
    matches!(
        event,
        Event::AgentStarted(_)
            | Event::AgentEnded(_)
            | Event::TaskCreated(_)
            | Event::TaskCompleted(_)
            | Event::TaskFailed(_)
            | Event::TaskCancelled(_)
    )
}

fn status(state: &State) -> String {
    let mission = state.mission();
    let running = state.index.live.len();
    let settled = mission.tasks_completed + mission.tasks_failed + mission.tasks_cancelled;
    format!("{running} agents run, {settled} of {} tasks are settled", mission.tasks_created)
}

fn name(state: &State, uid: AgentUid) -> String {
    state.name_of(uid).map_or_else(|| format!("agent {uid}"), ToString::to_string)
}

fn because(reason: Option<&String>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

fn line(state: &State, logged: &Logged) -> Option<Line> {
    let agent = |uid: AgentUid, text: String, tone| Some((name(state, uid), text, tone));
    let task = |id: &crate::ids::TaskId, text: String, tone| Some((id.to_string(), text, tone));
    match &logged.event {
        Event::DaemonStarted(e) => {
            let text = format!("started, run {}", e.generation);
            Some(("mission".into(), text, Tone::Faint))
        }
        Event::MissionStopping(e) => {
            Some(("mission".into(), format!("stopping: {}", e.why), Tone::Plain))
        }
        Event::MissionStopped(_) => Some(("mission".into(), "stopped".into(), Tone::Faint)),
        Event::AgentRemoved(e) => agent(e.agent, format!("removed: {}", e.why), Tone::Plain),
        Event::AgentRoleChanged(e) => agent(e.agent, format!("is {} now", e.role), Tone::Plain),
        Event::AgentPhaseChanged(e) => {
            agent(e.agent, format!("{:?}", e.phase).to_lowercase(), Tone::Faint)
        }
        Event::AgentStarted(e) => {
            let process = state.agent(e.agent).map(|agent| &agent.process);
            let run = if let Some(
                Process::Starting { run: Some(run), .. } | Process::Running { run: Some(run), .. },
            ) = process
            {
                Some(format!(" on {}", run.task))
            } else {
                None
            };
            let text = format!("runs{} (pid {})", run.unwrap_or_default(), e.pid);
            agent(e.agent, text, Tone::Plain)
        }
        Event::AgentStopping(e) => {
            agent(e.agent, format!("stopping: {}", stop_why(e.why)), Tone::Plain)
        }
        Event::AgentEnded(e) => {
            let (next, bad) = match &e.next {
                AfterEnd::Idle | AfterEnd::Ended => (String::new(), false),
                AfterEnd::Waiting(until) => {
                    let delay = until.since_ms(logged.at);
                    (format!("; starts again in {}", seconds(delay)), true)
                }
                AfterEnd::Stopped => ("; stays down".into(), false),
                AfterEnd::Failed(why) => (format!("; given up: {why}"), true),
            };
            let how = match &e.exit {
                Exit::SetupFailed { step, errno } if *errno != 0 => {
                    let errno = nix::errno::Errno::from_raw(*errno);
                    format!("not started: {step}: {} ({errno:?})", errno.desc().to_lowercase())
                }
                Exit::SetupFailed { step, .. } => format!("not started: {step}"),
                exit @ (Exit::Exited(_) | Exit::Signaled(_) | Exit::OutOfMemory | Exit::Lost) => {
                    format!("ended: {exit}")
                }
            };
            let tone = if bad { Tone::Bad } else { Tone::Faint };
            agent(e.agent, format!("{how}{next}"), tone)
        }
        Event::TaskCreated(e) => task(&e.task, format!("created: {}", e.title), Tone::Faint),
        Event::TaskAssigned(e) => {
            let how = if e.claimed { "claimed by" } else { "assigned to" };
            task(&e.task, format!("{how} {}", name(state, e.to)), Tone::Plain)
        }
        Event::TaskRequeued(e) => {
            let to = e.to.map_or_else(|| "nobody".to_owned(), |uid| name(state, uid));
            let why = match e.why {
                RequeueWhy::OwnerExited => "its owner ended",
                RequeueWhy::OwnerGone => "its owner is gone",
                RequeueWhy::HandoffEnded => "its handoff ended",
                RequeueWhy::DaemonRestart => "missiond was restarted",
                RequeueWhy::MissionStop => "the mission stops",
            };
            task(&e.task, format!("goes back to {to}: {why}"), Tone::Plain)
        }
        Event::TaskReleased(e) => {
            task(&e.task, format!("given back{}", because(e.reason.as_ref())), Tone::Plain)
        }
        Event::TaskProgressed(e) => {
            let progress = e.progress.map(|progress| format!("{progress} %"));
            let note = e.note.clone();
            let parts: Vec<String> = [progress, note].into_iter().flatten().collect();
            task(&e.task, parts.join(", "), Tone::Faint)
        }
        Event::CheckpointSaved(e) => {
            let files = match e.files.len() {
                0 => String::new(),
                1 => " with 1 file".to_owned(),
                n => format!(" with {n} files"),
            };
            task(
                &e.task,
                format!("checkpoint c-{}{files} by {}", logged.seq, name(state, e.by)),
                Tone::Faint,
            )
        }
        Event::TaskCompleted(e) => {
            let by = match &logged.actor {
                Party::Agent(name) => format!(" by {name}"),
                Party::Operator | Party::Daemon => owner(state, &e.task),
            };
            task(&e.task, format!("completed{by}"), Tone::Good)
        }
        Event::TaskFailed(e) => {
            task(&e.task, format!("failed{}", because(e.reason.as_ref())), Tone::Bad)
        }
        Event::TaskCancelled(e) => {
            task(&e.task, format!("cancelled{}", because(e.reason.as_ref())), Tone::Bad)
        }
        Event::HandoffRequested(e) => {
            let (from, to) = (name(state, e.from), name(state, e.to));
            task(
                &e.task,
                format!("handoff h-{} from {from} to {to} requested", logged.seq),
                Tone::Plain,
            )
        }
        Event::HandoffAccepted(e) => handoff(state, e.handoff, "accepted", Tone::Plain),
        Event::HandoffQuiesced(_) => None,
        Event::HandoffCompleted(e) => handoff(state, e.handoff, "completed", Tone::Good),
        Event::HandoffEnded(e) => {
            let how = match e.how {
                HandoffEnd::Rejected => "rejected",
                HandoffEnd::Expired => "expired",
                HandoffEnd::Cancelled => "cancelled",
                HandoffEnd::Failed => "failed",
            };
            handoff(state, e.handoff, &format!("{how}{}", because(e.reason.as_ref())), Tone::Bad)
        }
        Event::RequestDenied(e) => {
            let text = format!("{} refused ({}): {}", e.method, e.code, e.message);
            Some((logged.actor.to_string(), text, Tone::Faint))
        }
        Event::PeerRefused(e) => {
            let text = format!("process {} refused at {}: {}", e.pid, e.socket, e.reason);
            Some(("bus".into(), text, Tone::Bad))
        }
        Event::AlertRaised(e) => Some(("alert".into(), e.text.clone(), Tone::Bad)),
        Event::MissionConfigured(_)
        | Event::AgentAdded(_)
        | Event::AgentChanged(_)
        | Event::AgentEnabled(_)
        | Event::AgentDisabled(_)
        | Event::AgentRested(_)
        | Event::AgentStarting(_)
        | Event::AgentParked(_)
        | Event::AgentReady(_)
        | Event::MessagePublished(_)
        | Event::CursorsAdvanced(_)
        | Event::MessagesNacked(_)
        | Event::MessagesDead(_)
        | Event::TaskReserved(_)
        | Event::TaskStarted(_)
        | Event::TaskPruned(_)
        | Event::HandoffPruned(_)
        | Event::KeyUsed(_)
        | Event::DenialsCounted(_) => None,
    }
}

fn owner(state: &State, task: &crate::ids::TaskId) -> String {
    let state_of = state.tasks.get(task).map(|task| &task.state);
    let owner = if let Some(TaskState::Settled(settled)) = state_of { settled.owner } else { None };
    owner.map_or_else(String::new, |uid| format!(" by {}", name(state, uid)))
}

fn handoff(state: &State, id: HandoffId, text: &str, tone: Tone) -> Option<Line> {
    let handoff = state.handoffs.get(&id)?;
    let (from, to) = (name(state, handoff.from), name(state, handoff.to));
    Some((handoff.task.to_string(), format!("handoff {id} from {from} to {to} {text}"), tone))
}

fn stop_why(why: StopWhy) -> &'static str {
    match why {
        StopWhy::Request => "asked to",
        StopWhy::Restart => "restart",
        StopWhy::Changed => "its part of the mission file has changed",
        StopWhy::Handoff => "its task moves",
        StopWhy::TaskEnded => "its task has ended",
        StopWhy::StartTimeout => "was not up in time",
        StopWhy::WallTimeout => "ran for as long as it may",
        StopWhy::Silent => "was silent for too long",
        StopWhy::Removed => "removed",
        StopWhy::Mission => "the mission stops",
    }
}

/// A duration for people.
pub(super) fn seconds(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..10_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        10_000..600_000 => format!("{} s", ms / 1_000),
        _ => format!("{} min", ms / 60_000),
    }
}
