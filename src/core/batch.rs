//! A batch of events that belong together: a cause and its consequences, each applied as it is emitted.

use std::collections::BTreeSet;

use super::event::{Event, Logged};
use super::json::Json;
use super::state::State;
use super::view::Party;
use crate::ids::{AgentUid, Seq, Timestamp};

/// The state, and what has been emitted on it.
pub(crate) struct Batch<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) now: Timestamp,
    pub(crate) events: Vec<Logged>,
    /// How many of `events` have had their consequences worked out.
    pub(crate) settled: usize,
    pub(crate) touched: BTreeSet<AgentUid>,
}

impl<'a> Batch<'a> {
    /// A batch at `now`, or at the last event's time where that is later.
    pub(crate) fn new(state: &'a mut State, now: Timestamp) -> Self {
        let now = now.max(state.at);
        Batch { state, now, events: Vec::new(), settled: 0, touched: BTreeSet::new() }
    }

    /// An event of the daemon's.
    pub(crate) fn emit(&mut self, event: impl Into<Event>) -> Seq {
        self.emit_as(Party::Daemon, event.into(), None)
    }

    /// An event, its actor and its content.
    pub(crate) fn emit_as(&mut self, actor: Party, event: Event, content: Option<Json>) -> Seq {
        let seq = self.state.head.next();
        if let Some(uid) = self.process_of(seq, &event) {
            self.touched.insert(uid);
        }
        let logged = Logged { seq, at: self.now, actor, event, content };
        self.state.apply(&logged);
        self.events.push(logged);
        seq
    }

    /// The agent whose process is concerned.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most events concern no process")]
    fn process_of(&self, seq: Seq, event: &Event) -> Option<AgentUid> {
        match event {
            Event::AgentAdded(_) => Some(AgentUid(seq.0)),
            Event::AgentChanged(e) => Some(e.agent),
            Event::AgentRemoved(e) => Some(e.agent),
            Event::AgentEnabled(e) => Some(e.agent),
            Event::AgentDisabled(e) => Some(e.agent),
            Event::AgentRested(e) => Some(e.agent),
            Event::AgentStarting(e) => Some(e.agent),
            Event::AgentParked(e) => Some(e.agent),
            Event::AgentStarted(e) => Some(e.agent),
            Event::AgentReady(e) => Some(e.agent),
            Event::AgentStopping(e) => Some(e.agent),
            Event::AgentEnded(e) => Some(e.agent),
            Event::HandoffCompleted(e) => self.state.handoffs.get(&e.handoff).map(|h| h.to),
            _ => None,
        }
    }
}
