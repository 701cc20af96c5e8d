//! What the handoff events do.

use crate::core::event::{
    HandoffAccepted, HandoffCompleted, HandoffEnded, HandoffQuiesced, HandoffRequested, Logged,
};
use crate::core::state::{Handoff, HandoffState, Process, State, TaskState};
use crate::ids::{Epoch, HandoffId};

impl State {
    pub(super) fn on_handoff_requested(&mut self, logged: &Logged, e: &HandoffRequested) {
        let id = HandoffId(logged.seq);
        let handoff = Handoff {
            task: e.task.clone(),
            from: e.from,
            to: e.to,
            by: logged.actor.clone(),
            by_uid: e.by,
            requested: logged.at,
            step_ms: e.step_ms,
            state: HandoffState::Requested,
            until: Some(e.until),
            checkpoint: None,
            epoch: None,
            reason: e.reason.clone(),
            ended: None,
        };
        self.insert_handoff(id, handoff);
        self.edit_task(&e.task, |task| task.handoff = Some(id));
    }

    pub(super) fn on_handoff_accepted(&mut self, e: &HandoffAccepted) {
        self.edit_handoff(e.handoff, |handoff| {
            handoff.state = HandoffState::Draining;
            handoff.until = Some(e.until);
        });
    }

    pub(super) fn on_handoff_quiesced(&mut self, e: &HandoffQuiesced) {
        self.edit_handoff(e.handoff, |handoff| {
            handoff.state = HandoffState::Quiesced;
            handoff.checkpoint = e.checkpoint;
            handoff.until = Some(e.until);
        });
    }

    pub(super) fn on_handoff_completed(&mut self, logged: &Logged, e: &HandoffCompleted) {
        let Some(handoff) = self.handoffs.get(&e.handoff) else { return };
        let (task, to) = (handoff.task.clone(), handoff.to);
        self.edit_handoff(e.handoff, |handoff| {
            handoff.state = HandoffState::Completed;
            handoff.until = None;
            handoff.epoch = Some(Epoch(logged.seq.0));
            handoff.ended = Some(logged.at);
        });
        self.edit_task(&task, |task| {
            task.state = TaskState::Active { owner: to, incarnation: e.incarnation };
            task.epoch = Epoch(logged.seq.0);
            task.handoff = None;
            task.started.get_or_insert(logged.at);
        });
        self.edit_agent(to, |agent| {
            if let Process::Starting { run: Some(run), parked, .. } = &mut agent.process
                && run.handoff == Some(e.handoff)
            {
                *parked = None;
            }
        });
    }

    pub(super) fn on_handoff_ended(&mut self, logged: &Logged, e: &HandoffEnded) {
        let Some(task) = self.handoffs.get(&e.handoff).map(|handoff| handoff.task.clone()) else {
            return;
        };
        self.edit_handoff(e.handoff, |handoff| {
            handoff.state = HandoffState::Ended(e.how);
            handoff.until = None;
            handoff.ended = Some(logged.at);
            if e.reason.is_some() {
                handoff.reason.clone_from(&e.reason);
            }
        });
        self.edit_task(&task, |task| {
            if task.handoff == Some(e.handoff) {
                task.handoff = None;
            }
        });
    }

    pub(super) fn on_handoff_pruned(&mut self, id: HandoffId) {
        self.remove_handoff(id);
    }
}
