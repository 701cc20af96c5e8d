//! The fold: what each event does to the state. Nothing is checked here; an event that names what is
//! no more does nothing.

mod agent;
mod handoff;
mod index;
mod keys;
mod message;
mod task;

use super::event::{DecodeError, Event, Logged};
use super::state::{KeyRecord, State};
use super::view::MissionStateName;
use crate::ids::{AgentUid, Seq, Timestamp};

impl State {
    /// Takes in an event. Never fails: what has happened has happened.
    pub fn apply(&mut self, logged: &Logged) {
        self.head = logged.seq;
        self.at = logged.at;
        match &logged.event {
            Event::MessagePublished(e) => self.on_published(logged, e),
            Event::CursorsAdvanced(e) => self.on_cursors(e),
            Event::MessagesNacked(e) => self.on_nacked(e),
            Event::MessagesDead(e) => self.on_dead(e),

            Event::DaemonStarted(e) => {
                if self.mission.generation.0 == 0 {
                    self.mission.created = logged.at;
                }
                self.mission.generation = e.generation;
                self.mission.started = logged.at;
                self.mission.state = MissionStateName::Running;
                self.mission.configured = false;
                self.mission.why = None;
                self.mission.grace_ms = None;
                for handoff in self.handoffs.values_mut() {
                    handoff.until = handoff.until.map(|until| until.plus_ms(e.down_ms));
                }
                self.rebuild_index();
            }
            Event::MissionConfigured(e) => {
                self.mission.name = Some(e.name.clone());
                self.mission.until = e.until;
                self.mission.configured = true;
                self.roles.clone_from(&e.roles);
                self.limits = e.limits;
                self.rebuild_index();
            }
            Event::MissionStopping(e) => {
                self.mission.state = MissionStateName::Stopping;
                self.mission.why = Some(e.why.clone());
                self.mission.grace_ms = e.grace_ms;
            }
            Event::MissionStopped(_) => self.mission.state = MissionStateName::Stopped,

            Event::AgentAdded(e) => self.on_agent_added(logged, e),
            Event::AgentChanged(e) => self.on_agent_changed(logged, e),
            Event::AgentRemoved(e) => self.on_agent_removed(e.agent),
            Event::AgentRoleChanged(e) => {
                if let Some(agent) = self.agents.get_mut(&e.agent) {
                    agent.role = e.role.clone();
                }
            }
            Event::AgentPhaseChanged(e) => {
                if let Some(agent) = self.agents.get_mut(&e.agent) {
                    agent.phase = e.phase;
                }
            }
            Event::AgentEnabled(e) => self.on_agent_enabled(logged, e.agent),
            Event::AgentDisabled(e) => self.on_agent_disabled(logged, e.agent),
            Event::AgentRested(e) => self.on_agent_rested(logged, e.agent),
            Event::AgentStarting(e) => self.on_agent_starting(logged, e),
            Event::AgentParked(e) => self.on_agent_parked(e),
            Event::AgentStarted(e) => self.on_agent_started(logged, e),
            Event::AgentReady(e) => self.on_agent_ready(logged, e),
            Event::AgentStopping(e) => self.on_agent_stopping(logged, e),
            Event::AgentEnded(e) => self.on_agent_ended(logged, e),

            Event::TaskCreated(e) => self.on_task_created(logged, e),
            Event::TaskReserved(e) => self.edit_task(&e.task, |task| task.reserved = e.to),
            Event::TaskAssigned(e) => self.on_task_assigned(logged, e),
            Event::TaskRequeued(e) => self.on_task_requeued(logged, e),
            Event::TaskReleased(e) => self.on_task_released(logged, e),
            Event::TaskStarted(e) => self.on_task_started(logged, e),
            Event::TaskProgressed(e) => self.on_task_progressed(e),
            Event::CheckpointSaved(e) => self.on_checkpoint(logged, e),
            Event::TaskCompleted(e) => self.on_task_completed(logged, e),
            Event::TaskFailed(e) => self.on_task_failed(logged, e),
            Event::TaskCancelled(e) => self.on_task_cancelled(logged, e),
            Event::TaskPruned(e) => self.on_task_pruned(&e.task),

            Event::HandoffRequested(e) => self.on_handoff_requested(logged, e),
            Event::HandoffAccepted(e) => self.on_handoff_accepted(e),
            Event::HandoffQuiesced(e) => self.on_handoff_quiesced(e),
            Event::HandoffCompleted(e) => self.on_handoff_completed(logged, e),
            Event::HandoffEnded(e) => self.on_handoff_ended(logged, e),
            Event::HandoffPruned(e) => self.on_handoff_pruned(e.handoff),

            Event::KeyUsed(e) => {
                let who = e.agent.unwrap_or(AgentUid(0));
                let record = KeyRecord { digest: e.digest, at: logged.at, reply: e.reply.clone() };
                self.keys.entry(who).or_default().insert(&self.limits, e, record);
            }
            Event::RequestDenied(_)
            | Event::DenialsCounted(_)
            | Event::PeerRefused(_)
            | Event::AlertRaised(_) => {}
        }
    }

    /// Reads an event from its columns and applies it.
    ///
    /// # Errors
    /// See [`Logged::decode`].
    pub fn replay(
        &mut self,
        seq: Seq,
        at: Timestamp,
        kind: &str,
        v: u16,
        actor: &str,
        envelope: &[u8],
    ) -> Result<(), DecodeError> {
        self.apply(&Logged::decode(seq, at, kind, v, actor, envelope)?);
        Ok(())
    }
}
