//! Consequences: what follows from an event, in the same batch, until nothing more follows.
//!
//! A rule looks at the state after *all* events so far and emits through [`Batch::emit`]. It asks the
//! state tables for what happens to a task or a handoff; it never refuses.

mod agent;
mod handoff;
mod mission;
mod notify;
mod task;

use super::batch::Batch;
use super::event::Event;

impl Batch<'_> {
    /// Works out the consequences of everything emitted, and theirs.
    pub(crate) fn settle(&mut self) {
        while let Some(logged) = self.events.get(self.settled) {
            self.settled += 1;
            // The frequent ones without consequences first: a publish stops here.
            if matches!(
                logged.event,
                Event::MessagePublished(_) | Event::CursorsAdvanced(_) | Event::TaskProgressed(_)
            ) {
                continue;
            }
            let event = logged.event.clone();
            self.after(&event);
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other events have no consequences")]
    fn after(&mut self, event: &Event) {
        match event {
            Event::MissionConfigured(_) => self.after_configured(),
            Event::MissionStopping(_) => self.after_stopping(),

            Event::AgentAdded(_) => {}
            Event::AgentChanged(e) => {
                self.check_rights(e.agent);
                self.poke(e.agent);
            }
            Event::AgentRoleChanged(e) => {
                self.check_rights(e.agent);
                self.poke(e.agent);
            }
            Event::AgentRemoved(e) => self.after_removed(e.agent),
            Event::AgentEnabled(e) => self.poke(e.agent),
            Event::AgentRested(e) => self.poke(e.agent),
            Event::AgentDisabled(e) => self.after_lost(e.agent),
            Event::AgentEnded(e) => self.after_ended(e),

            Event::TaskCreated(e) => self.after_created(&e.task),
            Event::TaskReserved(e) => self.free(&e.task),
            Event::TaskAssigned(e) => self.after_assigned(&e.task),
            Event::TaskRequeued(e) => self.after_requeued(&e.task),
            Event::TaskReleased(e) => self.after_requeued(&e.task),
            Event::CheckpointSaved(e) => self.after_checkpoint(&e.task),
            Event::TaskCompleted(e) => self.after_settled(&e.task, false),
            Event::TaskFailed(e) => self.after_settled(&e.task, e.fence),
            Event::TaskCancelled(e) => self.after_settled(&e.task, true),

            Event::HandoffRequested(e) => self.after_requested(&e.task),
            Event::HandoffAccepted(e) => self.after_accepted(e.handoff),
            Event::HandoffQuiesced(e) => self.after_quiesced(e.handoff),
            Event::HandoffCompleted(e) => self.after_completed(e.handoff),
            Event::HandoffEnded(e) => self.after_handoff_ended(e),

            Event::AlertRaised(e) => self.alert(&e.text),
            _ => {}
        }
    }
}
