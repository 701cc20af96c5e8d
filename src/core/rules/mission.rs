//! The mission as a whole: its configuration, its end.

use crate::core::batch::Batch;
use crate::core::event::{
    AgentStopping, HandoffEnd, HandoffEnded, MissionStopped, MissionStopping, StopWhy,
};
use crate::core::spec::Until;
use crate::core::state::Process;
use crate::core::table::handoff::{Effect, Row, look_up};
use crate::core::view::MissionStateName;
use crate::ids::{AgentUid, HandoffId};

impl Batch<'_> {
    pub(super) fn after_configured(&mut self) {
        for uid in self.agents() {
            self.check_rights(uid);
        }
    }

    /// Ends the mission when it is to end by itself and every task is settled.
    pub(crate) fn check_settled(&mut self) {
        let mission = &self.state.mission;
        if self.state.is_running()
            && mission.until == Until::Settled
            && mission.tasks_created > 0
            && self.state.index.open_tasks == 0
        {
            let why = "every task is settled".to_owned();
            self.emit(MissionStopping { why, grace_ms: None });
        }
    }

    pub(super) fn after_stopping(&mut self) {
        let open = self.state.handoffs.iter().filter(|(_, handoff)| handoff.is_open());
        let open: Vec<HandoffId> = open.map(|(id, _)| *id).collect();
        for id in open {
            self.handoff_row(id, Row::MissionStop, "the mission stops");
        }
        for uid in self.agents() {
            self.stop(uid, StopWhy::Mission);
        }
        self.check_stopped();
    }

    pub(super) fn check_stopped(&mut self) {
        let stopping = self.state.mission.state == MissionStateName::Stopping;
        if stopping && self.state.index.live.is_empty() {
            self.emit(MissionStopped {});
        }
    }

    pub(crate) fn agents(&self) -> Vec<AgentUid> {
        self.state.agents.keys().copied().collect()
    }

    /// Stops an agent's process, unless it has none or is being stopped already.
    pub(crate) fn stop(&mut self, agent: AgentUid, why: StopWhy) {
        let Some(of) = self.state.agents.get(&agent) else { return };
        if !of.is_live() || matches!(of.process, Process::Stopping { .. }) {
            return;
        }
        let asked = self.state.mission.grace_ms.filter(|_| why == StopWhy::Mission);
        let grace_ms = asked.unwrap_or(of.spec.grace_ms);
        let incarnation = of.incarnation;
        self.emit(AgentStopping { agent, incarnation, grace_ms, why });
    }

    /// What the handoff table says happens to an open handoff by itself.
    pub(crate) fn handoff_row(&mut self, id: HandoffId, row: Row, why: &str) {
        let Some(handoff) = self.state.handoffs.get(&id) else { return };
        let effect = look_up(row, handoff.column(), |_| false);
        let how = match effect {
            Effect::Cancel => HandoffEnd::Cancelled,
            Effect::Fail | Effect::FailRequeue => HandoffEnd::Failed,
            Effect::Expire => HandoffEnd::Expired,
            Effect::Quiesce => {
                self.quiesce(id);
                return;
            }
            Effect::Never
            | Effect::Keep
            | Effect::KeepTaskHeld
            | Effect::Ok
            | Effect::Conflict
            | Effect::ConflictNamingIt
            | Effect::NotFound
            | Effect::Denied
            | Effect::Invalid
            | Effect::Request
            | Effect::Wait
            | Effect::Accept
            | Effect::Reject
            | Effect::Complete
            | Effect::PendTask
            | Effect::TaskTable => return,
        };
        self.emit(HandoffEnded { handoff: id, how, reason: Some(why.to_owned()) });
    }
}
