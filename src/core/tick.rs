//! Time: what is due, in the order (deadline, id). Time comes in as an argument.

use super::INBOX;
use super::batch::Batch;
use super::event::{AgentRested, HandoffPruned, MessagesDead, RequeueWhy, StopWhy, TaskPruned};
use super::state::{Due, Process, State};
use super::table::task::Row;
use crate::ids::{AgentUid, Seq, SubscriptionName, Timestamp};

/// The most messages that die by one event.
const DEAD_AT_ONCE: usize = 1_000;

impl State {
    /// When the next task, handoff, restart or timeout is due; messages that die of age not included.
    pub(crate) fn first_due(&self) -> Option<Timestamp> {
        self.index.due.first().map(|(at, _)| *at)
    }

    /// When the oldest unacknowledged direct message is too old. Looks at every agent.
    pub(crate) fn first_dead(&self) -> Option<Timestamp> {
        let ttl = self.limits.message_ttl_ms;
        let held = self.agents.values().filter_map(|agent| agent.inbox.held.first_key_value());
        held.map(|(_, held)| held.at.plus_ms(ttl)).min()
    }
}

impl Batch<'_> {
    /// Does everything that is due, with its consequences.
    pub(crate) fn do_due(&mut self) {
        let mut last: Option<(Timestamp, Due)> = None;
        while let Some(first) = self.state.index.due.first() {
            // An item that is still first after it was done would come again for ever.
            if first.0 > self.now || last.as_ref() == Some(first) {
                break;
            }
            let (at, due) = first.clone();
            match &due {
                Due::Task(id) => {
                    // No requeue comes of a deadline.
                    self.task_row(id, Row::Deadline, RequeueWhy::OwnerGone);
                }
                Due::Handoff(id) => self.handoff_timeout(*id),
                Due::Agent(uid) => self.agent_due(*uid),
                Due::PruneTask(id) => _ = self.emit(TaskPruned { task: id.clone() }),
                Due::PruneHandoff(id) => _ = self.emit(HandoffPruned { handoff: *id }),
            }
            self.settle();
            last = Some((at, due));
        }
    }

    fn agent_due(&mut self, uid: AgentUid) {
        let Some(agent) = self.state.agents.get(&uid) else { return };
        match agent.process {
            Process::Waiting { .. } => _ = self.emit(AgentRested { agent: uid }),
            Process::Starting { .. } => self.stop(uid, StopWhy::StartTimeout),
            Process::Running { .. } => self.stop(uid, StopWhy::WallTimeout),
            Process::Idle
            | Process::Stopping { .. }
            | Process::Ended
            | Process::Stopped
            | Process::Failed { .. } => {}
        }
    }

    /// Lets the direct messages die that are too old.
    pub(crate) fn expire_messages(&mut self, inbox: &SubscriptionName) {
        debug_assert_eq!(inbox.as_str(), INBOX);
        let ttl = self.state.limits.message_ttl_ms;
        for agent in self.agents() {
            while let Some(of) = self.state.agents.get(&agent) {
                let old = of.inbox.held.iter().take(DEAD_AT_ONCE);
                let old = old.take_while(|(_, held)| held.at.plus_ms(ttl) <= self.now);
                let seqs: Vec<Seq> = old.map(|(seq, _)| *seq).collect();
                if seqs.is_empty() {
                    break;
                }
                let reason = "not acknowledged in time (limits.message_ttl)".to_owned();
                let subscription = inbox.clone();
                self.emit(MessagesDead { agent, subscription, seqs, reason });
            }
        }
    }
}
