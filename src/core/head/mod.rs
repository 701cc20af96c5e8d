//! The speculative head: the state that decisions are made on, ahead of what is durable.

use std::collections::BTreeSet;

use super::denied::{Code, Denied};
use super::event::{Addressee, Logged};
use super::fact::Fact;
use super::json::Json;
use super::request::{MessageType, Request};
use super::state::State;
use super::view::{Party, Reply};
use crate::ids::{AgentUid, Key, MessageId, Seq, TaskId, Timestamp};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Caller {
    /// The person at `missionctl`.
    Operator,
    /// An agent, by the kernel's word.
    Agent(AgentUid),
}

/// A message that is not logged: to be handed out once `after` is durable, with nothing promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ephemeral {
    /// Who sent it.
    pub from: Party,
    /// Its type.
    pub r#type: MessageType,
    /// To whom; empty for all.
    pub to: Vec<Addressee>,
    /// The task it is about.
    pub task: Option<TaskId>,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// What it says.
    pub content: Json,
    /// The last event before it.
    pub after: Seq,
}

/// What came of one input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// The new events, in order, already applied.
    pub events: Vec<Logged>,
    /// The answer, to a request.
    pub reply: Option<Result<Reply, Denied>>,
    /// Outputs may leave once this is durable.
    pub after: Seq,
    /// Whose [`Want`](super::fact::Want) may have changed.
    pub touched: BTreeSet<AgentUid>,
    /// An ephemeral message to hand out.
    pub ephemeral: Option<Box<Ephemeral>>,
}

/// The head.
#[derive(Debug, Clone)]
pub struct Head {
    state: State,
}

impl Head {
    /// A head over an empty log.
    #[must_use]
    pub fn new() -> Head {
        Head::from_state(State::new())
    }

    /// A head over what is durable.
    #[must_use]
    pub fn from_state(state: State) -> Head {
        Head { state }
    }

    /// Carries out or refuses a request.
    pub fn request(
        &mut self,
        _now: Timestamp,
        _who: &Caller,
        _key: Option<&Key>,
        _request: Request,
    ) -> Step {
        let denied = Denied::new(Code::Unavailable, "the core is being built");
        Step { reply: Some(Err(denied)), ..Step::default() }
    }

    /// Takes in a fact.
    pub fn fact(&mut self, _now: Timestamp, _fact: Fact) -> Step {
        Step::default()
    }

    /// Does what is due.
    pub fn tick(&mut self, _now: Timestamp) -> Step {
        Step::default()
    }

    /// Ends a batch: one event for all acknowledgements, the latest progress of each task. Its events
    /// belong in the same transaction as those of the steps before.
    pub fn seal(&mut self, _now: Timestamp) -> Step {
        Step::default()
    }

    /// When [`Head::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        None
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }
}

impl Default for Head {
    fn default() -> Self {
        Head::new()
    }
}
