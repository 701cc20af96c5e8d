//! What the daemon tells agents, as messages. Task-mode agents are told nothing: they have no bus code.
//! A full inbox is passed over; the state itself is the truth, the message only points at it.

use serde_json::{Value, json};

use crate::core::batch::Batch;
use crate::core::decide::message::check_inbox;
use crate::core::event::{Addressee, HandoffEnd, MessagePublished};
use crate::core::json::Json;
use crate::core::permission;
use crate::core::request::MessageType;
use crate::core::state::HandoffState;
use crate::core::view::Party;
use crate::ids::{AgentUid, HandoffId, TaskId};

impl Batch<'_> {
    fn tell(&mut self, to: &[AgentUid], kind: MessageType, task: Option<&TaskId>, text: &Value) {
        let Ok(content) = Json::of(text) else { return };
        let bytes = content.len() as u64;
        let mut addressees: Vec<Addressee> = Vec::with_capacity(to.len());
        for uid in to {
            let Some(agent) = self.state.agents.get(uid) else { continue };
            let reads = self.state.is_service(*uid) && !agent.removed;
            if reads
                && check_inbox(self.state, agent, bytes).is_ok()
                && !addressees.iter().any(|addressee| addressee.0 == *uid)
            {
                addressees.push(Addressee(*uid, agent.spec.name.clone()));
            }
        }
        if addressees.is_empty() {
            return;
        }
        let (to, task) = (addressees, task.cloned());
        let event = MessagePublished { r#type: kind, to, task, reply_to: None, bytes };
        self.emit_as(Party::Daemon, event.into(), Some(content));
    }

    fn leads(&self) -> Vec<AgentUid> {
        let agents = self.state.agents.keys();
        agents.filter(|uid| permission::is_lead(self.state, **uid)).copied().collect()
    }

    pub(super) fn tell_assigned(&mut self, id: &TaskId, owner: AgentUid) {
        let Some(task) = self.state.tasks.get(id) else { return };
        let mut text = json!({ "task": id, "epoch": task.epoch, "title": task.title });
        if let Some(checkpoint) = task.checkpoints.back() {
            text["checkpoint"] = json!(checkpoint);
        }
        self.tell(&[owner], MessageType::TaskAssign, Some(id), &text);
    }

    pub(super) fn tell_settled(&mut self, id: &TaskId) {
        let Some(task) = self.state.tasks.get(id) else { return };
        let crate::core::state::TaskState::Settled(settled) = &task.state else { return };
        let owner = settled.owner.and_then(|uid| self.state.name_of(uid));
        let mut text = json!({ "task": id, "state": settled.how, "owner": owner });
        if let Some(reason) = &settled.reason {
            text["reason"] = json!(reason);
        }
        let (by, owner) = (task.by_uid, settled.owner);
        let mut to = self.leads();
        to.extend(by);
        to.retain(|uid| Some(*uid) != owner);
        self.tell(&to, MessageType::TaskComplete, Some(id), &text);
    }

    pub(super) fn tell_requested(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoffs.get(&id) else { return };
        let from = self.state.name_of(handoff.from);
        let text = json!({
            "handoff": id, "task": handoff.task, "state": "requested",
            "from": from, "until": handoff.until,
        });
        let (to, task) = (handoff.to, handoff.task.clone());
        self.tell(&[to], MessageType::HandoffRequest, Some(&task), &text);
    }

    pub(super) fn tell_draining(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoffs.get(&id) else { return };
        let to = self.state.name_of(handoff.to);
        let text = json!({
            "handoff": id, "task": handoff.task, "state": "draining",
            "to": to, "until": handoff.until,
        });
        let (from, task) = (handoff.from, handoff.task.clone());
        self.tell(&[from], MessageType::HandoffAccept, Some(&task), &text);
    }

    pub(super) fn tell_quiesced(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoffs.get(&id) else { return };
        let from = self.state.name_of(handoff.from);
        let text = json!({
            "handoff": id, "task": handoff.task, "state": "quiesced",
            "from": from, "until": handoff.until, "checkpoint": handoff.checkpoint,
        });
        let (to, task) = (handoff.to, handoff.task.clone());
        self.tell(&[to], MessageType::HandoffAccept, Some(&task), &text);
    }

    pub(super) fn tell_handoff_over(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoffs.get(&id) else { return };
        let state = match handoff.state {
            HandoffState::Completed => "completed",
            HandoffState::Ended(HandoffEnd::Rejected) => "rejected",
            HandoffState::Ended(HandoffEnd::Expired) => "expired",
            HandoffState::Ended(HandoffEnd::Cancelled) => "cancelled",
            HandoffState::Ended(HandoffEnd::Failed) => "failed",
            HandoffState::Requested | HandoffState::Draining | HandoffState::Quiesced => return,
        };
        let mut text = json!({ "handoff": id, "task": handoff.task, "state": state });
        if let Some(epoch) = handoff.epoch {
            text["epoch"] = json!(epoch);
            text["checkpoint"] = json!(handoff.checkpoint);
        } else if let Some(reason) = &handoff.reason {
            text["reason"] = json!(reason);
        }
        let (both, task) = ([handoff.from, handoff.to], handoff.task.clone());
        self.tell(&both, MessageType::HandoffComplete, Some(&task), &text);
    }

    /// Tells the leads that somebody should look.
    pub(super) fn alert(&mut self, text: &str) {
        let leads = self.leads();
        self.tell(&leads, MessageType::Alert, None, &json!({ "text": text }));
    }
}
