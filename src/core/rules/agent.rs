//! What follows from what happens to agents: their tasks, their handoffs, their next start.

use crate::core::batch::Batch;
use crate::core::decide::handoff::accepted;
use crate::core::event::{
    AfterEnd, AgentEnded, AgentStarting, RequeueWhy, RunRef, StopWhy, TaskAssigned,
};
use crate::core::spec::Mode;
use crate::core::state::{HandoffState, Process, TaskState};
use crate::core::table::handoff;
use crate::core::table::task::Row;
use crate::core::view::MissionStateName;
use crate::ids::{AgentUid, HandoffId, Incarnation, TaskId};

impl Batch<'_> {
    fn outgoing(&self, uid: AgentUid) -> Vec<HandoffId> {
        self.state.index.outgoing.get(&uid).into_iter().flatten().copied().collect()
    }

    fn incoming(&self, uid: AgentUid) -> Vec<HandoffId> {
        self.state.index.incoming.get(&uid).into_iter().flatten().copied().collect()
    }

    /// A process has ended: handoffs first, because a task yields to its open handoff.
    pub(super) fn after_ended(&mut self, e: &AgentEnded) {
        let uid = e.agent;
        let restart = !self.state.mission.configured;
        let stopping = self.state.mission.state != MissionStateName::Running;
        if self.state.is_gone(uid) && !stopping {
            self.after_lost(uid);
        } else {
            let service = self.state.is_service(uid);
            if !restart {
                // A restart of the daemon has a row of its own: what was requested is kept.
                self.handoffs_after_end(e, service);
            }
            let (row, why) = if restart {
                (Row::DaemonRestart, RequeueWhy::DaemonRestart)
            } else if stopping {
                (Row::MissionStop, RequeueWhy::MissionStop)
            } else if e.stopped == Some(StopWhy::Handoff) {
                // It was stopped for a handoff that came to nothing: no attempt of its own.
                (Row::DaemonRestart, RequeueWhy::HandoffEnded)
            } else {
                (Row::OwnerExits, RequeueWhy::OwnerExited)
            };
            for id in self.state.tasks_owned(uid) {
                if self.concerned(&id, service || restart) {
                    self.task_row(&id, row, why);
                }
            }
        }
        if let AfterEnd::Failed(reason) = &e.next {
            let text = format!("{} is given up: {reason}", self.state.called(uid));
            self.alert(&text);
        }
        self.poke(uid);
        self.check_stopped();
    }

    fn handoffs_after_end(&mut self, e: &AgentEnded, service: bool) {
        for id in self.outgoing(e.agent) {
            self.handoff_row(id, handoff::Row::SourceDies, "its source has ended");
        }
        let parked = e.run.as_ref().and_then(|run| run.handoff);
        for id in self.incoming(e.agent) {
            if service || parked == Some(id) {
                self.fail_incoming(id, &format!("its target has ended: {}", e.exit));
            }
        }
    }

    /// Whether the end of its owner's process concerns a task: not while an accepted handoff holds it,
    /// and a task-mode agent's queue only where `all` says so.
    fn concerned(&self, id: &TaskId, all: bool) -> bool {
        self.state.tasks.get(id).is_some_and(|task| {
            let held = self.state.handoff_of(task).is_some_and(|(_, h)| h.is_accepted());
            !held && (all || matches!(task.state, TaskState::Active { .. }))
        })
    }

    /// An agent is gone for good, as far as its tasks are concerned.
    pub(super) fn after_lost(&mut self, uid: AgentUid) {
        let name = self.state.called(uid);
        for id in self.outgoing(uid) {
            self.handoff_row(id, handoff::Row::SourceLost, "its source is gone");
        }
        for id in self.incoming(uid) {
            self.fail_incoming(id, &format!("its target {name} is gone"));
        }
        for id in self.state.tasks_owned(uid) {
            // "Owner gone" yields to an open handoff.
            if self.state.tasks.get(&id).is_some_and(|task| task.handoff.is_none()) {
                self.task_row(&id, Row::OwnerGone, RequeueWhy::OwnerGone);
            }
        }
        let reserved: Vec<TaskId> =
            self.state.index.reserved.get(&uid).into_iter().flatten().cloned().collect();
        for id in reserved {
            self.task_row(&id, Row::OwnerGone, RequeueWhy::OwnerGone);
        }
    }

    pub(super) fn after_removed(&mut self, uid: AgentUid) {
        self.after_lost(uid);
        if let Some(agent) = self.state.agents.get(&uid)
            && agent.is_live()
        {
            // Also one that is being stopped for another reason.
            let (incarnation, grace_ms) = (agent.incarnation, agent.spec.grace_ms);
            let why = StopWhy::Removed;
            self.emit(crate::core::event::AgentStopping { agent: uid, incarnation, grace_ms, why });
        }
    }

    /// Takes tasks and handoffs from an agent that may not own them any more.
    pub(super) fn check_rights(&mut self, uid: AgentUid) {
        if !self.state.executes(uid) {
            self.after_lost(uid);
        }
    }

    /// Starts what an idle agent is to do now, if anything.
    pub(crate) fn poke(&mut self, uid: AgentUid) {
        if !self.state.is_running() {
            return;
        }
        let Some(agent) = self.state.agents.get(&uid) else { return };
        if agent.removed || agent.process != Process::Idle {
            return;
        }
        if agent.spec.mode == Mode::Service {
            return self.start(uid, None);
        }
        let incoming = self.incoming(uid);
        // The slot belongs to the handoff that was accepted.
        for id in &incoming {
            let Some(handoff) = self.state.handoffs.get(id) else { continue };
            match handoff.state {
                HandoffState::Quiesced => {
                    let run = RunRef { task: handoff.task.clone(), handoff: Some(*id) };
                    return self.start(uid, Some(run));
                }
                HandoffState::Draining => return,
                HandoffState::Requested | HandoffState::Completed | HandoffState::Ended(_) => {}
            }
        }
        if let Some(id) = incoming.first() {
            if let Ok(event) = accepted(self.state, self.now, *id) {
                self.emit(event);
            }
            return;
        }
        let mut own: Vec<_> = self
            .state
            .tasks_owned(uid)
            .into_iter()
            .filter_map(|id| self.state.tasks.get(&id).map(|task| (task.created_at, id, task)))
            .filter(|(_, _, task)| matches!(task.state, TaskState::Assigned { .. }))
            .filter(|(.., task)| !self.state.handoff_of(task).is_some_and(|(_, h)| h.is_accepted()))
            .map(|(at, id, _)| (at, id))
            .collect();
        own.sort();
        if let Some((_, task)) = own.into_iter().next() {
            return self.start(uid, Some(RunRef { task, handoff: None }));
        }
        let free = self.state.executes(uid) && !self.state.index.owned.contains_key(&uid);
        if free && let Some(task) = self.state.first_claimable(|task| task.fits(agent)) {
            self.emit(TaskAssigned { task, to: uid, claimed: true });
        }
    }

    fn start(&mut self, agent: AgentUid, run: Option<RunRef>) {
        let Some(of) = self.state.agents.get(&agent) else { return };
        let incarnation = Incarnation(of.incarnation.0 + 1);
        let until = self.now.plus_ms(of.spec.start_timeout_ms);
        self.emit(AgentStarting { agent, incarnation, run, until });
    }
}
