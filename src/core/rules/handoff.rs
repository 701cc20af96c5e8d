//! What follows from what happens to handoffs. For a task-mode agent the daemon plays its part: it
//! accepts when there is a slot, stops the source for its checkpoint, parks the target before its exec.

use crate::core::batch::Batch;
use crate::core::event::{
    HandoffEnd, HandoffEnded, HandoffPruned, HandoffQuiesced, RequeueWhy, StopWhy, TaskRequeued,
};
use crate::core::spec::Mode;
use crate::core::state::{HandoffState, TaskState};
use crate::core::table::handoff::{Column, Effect, Row, look_up};
use crate::ids::{HandoffId, TaskId};

impl Batch<'_> {
    pub(super) fn after_requested(&mut self, task: &TaskId) {
        while self.state.handoffs.len() > self.state.limits.max_handoffs as usize {
            let Some(handoff) = self.state.index.ended.first().copied() else { break };
            self.emit(HandoffPruned { handoff });
        }
        let Some((id, handoff)) =
            self.state.tasks.get(task).and_then(|task| self.state.handoff_of(task))
        else {
            return;
        };
        let to = handoff.to;
        self.tell_requested(id);
        self.poke(to);
    }

    pub(super) fn after_accepted(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoffs.get(&id) else { return };
        let (from, task) = (handoff.from, handoff.task.clone());
        let Some(source) = self.state.agents.get(&from) else {
            return self.quiesce(id);
        };
        let works = match source.spec.mode {
            Mode::Service => source.is_live(),
            Mode::Task => source.run().is_some_and(|run| run.task == task),
        };
        if !works {
            self.quiesce(id);
        } else if source.spec.mode == Mode::Task {
            self.stop(from, StopWhy::Handoff);
        } else {
            self.tell_draining(id);
        }
    }

    pub(super) fn after_checkpoint(&mut self, task: &TaskId) {
        let handoff = self.state.tasks.get(task).and_then(|task| self.state.handoff_of(task));
        if let Some((id, handoff)) = handoff
            && handoff.state == HandoffState::Draining
        {
            self.quiesce(id);
        }
    }

    /// The source writes no more; its last checkpoint is the one that moves.
    pub(crate) fn quiesce(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoffs.get(&id) else { return };
        if handoff.state != HandoffState::Draining {
            return;
        }
        let last = self.state.tasks.get(&handoff.task).and_then(|task| task.checkpoints.back());
        let ms = handoff.step_ms.unwrap_or(self.state.limits.handoff_complete_ms);
        let (checkpoint, until) = (last.copied(), self.now.plus_ms(ms));
        self.emit(HandoffQuiesced { handoff: id, checkpoint, until });
    }

    pub(super) fn after_quiesced(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoffs.get(&id) else { return };
        let to = handoff.to;
        self.tell_quiesced(id);
        self.poke(to);
    }

    pub(super) fn after_completed(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoffs.get(&id) else { return };
        let (from, task) = (handoff.from, handoff.task.clone());
        self.tell_handoff_over(id);
        self.stop_strays(&task);
        self.poke(from);
    }

    pub(super) fn after_handoff_ended(&mut self, e: &HandoffEnded) {
        let Some(handoff) = self.state.handoffs.get(&e.handoff) else { return };
        let (from, to, task) = (handoff.from, handoff.to, handoff.task.clone());
        self.tell_handoff_over(e.handoff);
        let parked = self.state.agents.get(&to).and_then(|agent| agent.run());
        if parked.is_some_and(|run| run.handoff == Some(e.handoff)) {
            self.stop(to, StopWhy::Handoff);
        }
        self.resume_source(&task, from);
        self.poke(to);
    }

    /// After a bad end: the source goes on, or its next start does, or nobody owns the task.
    fn resume_source(&mut self, id: &TaskId, from: crate::ids::AgentUid) {
        let Some(task) = self.state.tasks.get(id).filter(|task| task.owner() == Some(from)) else {
            return;
        };
        let why = RequeueWhy::HandoffEnded;
        let held = matches!(task.state, TaskState::Active { incarnation, .. }
            if self.state.live_incarnation(from) != Some(incarnation));
        if self.state.is_gone(from) {
            let effect = look_up(Row::BadEndSourceGone, Column::Requested, |_| false);
            if effect == Effect::PendTask {
                self.emit(TaskRequeued { task: id.clone(), to: None, counted: false, why });
            }
        } else if held {
            self.emit(TaskRequeued { task: id.clone(), to: Some(from), counted: false, why });
        } else {
            self.poke(from);
        }
    }

    /// The present step has taken too long.
    pub(crate) fn handoff_timeout(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoffs.get(&id) else { return };
        let to = self.state.called(handoff.to);
        let task_mode = !self.state.is_service(handoff.to);
        match handoff.state {
            // The deadline of the drain: the last checkpoint will do.
            HandoffState::Draining => self.quiesce(id),
            HandoffState::Requested if task_mode => {
                self.handoff_row(id, Row::Timeout, &format!("{to} had no free slot in time"));
            }
            HandoffState::Requested => {
                self.handoff_row(id, Row::Timeout, &format!("{to} did not answer in time"));
            }
            HandoffState::Quiesced => {
                self.handoff_row(id, Row::Timeout, &format!("{to} did not complete it in time"));
            }
            HandoffState::Completed | HandoffState::Ended(_) => {}
        }
    }

    /// A target is lost: what it was to take over stays where it is.
    pub(crate) fn fail_incoming(&mut self, id: HandoffId, why: &str) {
        let Some(handoff) = self.state.handoffs.get(&id) else { return };
        if look_up(Row::TargetLost, handoff.column(), |_| false) == Effect::Fail {
            let reason = Some(why.to_owned());
            self.emit(HandoffEnded { handoff: id, how: HandoffEnd::Failed, reason });
        }
    }
}
