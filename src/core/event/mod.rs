//! What has happened: the events of the log, past tense.
//!
//! An event is an *envelope* (what [`State::apply`](crate::core::state::State::apply) needs, a small JSON object)
//! and, for some kinds, *content* (opaque JSON that `apply` never reads). Kind and version stand beside
//! the envelope in columns of their own; nothing here is a tagged enum. An older version of a kind is
//! lifted by [`upcast`]; a newer kind or version is refused, so that an old program never guesses.
//!
//! Never events: heartbeats, connects, reads, deliveries, metrics, ephemeral messages.

mod part;
mod payload;
pub mod upcast;

pub use part::*;
pub use payload::*;

use super::json::Json;
use super::view::Party;
use crate::ids::{Seq, Timestamp};

/// Why a stored event can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The log was written by a newer program.
    #[error("event kind `{kind}` version {v} is unknown: the log is from a newer version")]
    Newer {
        /// The kind as stored.
        kind: String,
        /// Its version as stored.
        v: u16,
    },
    /// The envelope isn't what the kind says.
    #[error("envelope of a `{kind}` event is malformed")]
    Malformed {
        /// The kind as stored.
        kind: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The actor is neither `operator` nor `daemon` nor an agent's name.
    #[error("`{0}` is not the actor of an event")]
    Actor(String),
}

/// An event at its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its position.
    pub seq: Seq,
    /// When; never below the one before.
    pub at: Timestamp,
    /// Who caused it.
    pub actor: Party,
    /// What happened.
    pub event: Event,
    /// The opaque part: a message's content, a task's data or result, a checkpoint's JSON.
    pub content: Option<Json>,
}

impl Logged {
    /// The kind as it stands in its column.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.event.kind()
    }

    /// The version of the kind's envelope.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.event.version()
    }

    /// The envelope: one JSON object.
    ///
    /// # Errors
    /// Never with the events of this module; the type of `serde_json` says otherwise.
    pub fn envelope(&self) -> Result<Vec<u8>, serde_json::Error> {
        self.event.encode()
    }

    /// Reads an event back from its columns; `content` stays behind, `apply` doesn't need it.
    ///
    /// # Errors
    /// A newer kind or version, or an envelope or actor that isn't one.
    pub fn decode(
        seq: Seq,
        at: Timestamp,
        kind: &str,
        v: u16,
        actor: &str,
        envelope: &[u8],
    ) -> Result<Logged, DecodeError> {
        let actor = match actor {
            "operator" => Party::Operator,
            "daemon" => Party::Daemon,
            name => match crate::ids::AgentName::new(name) {
                Ok(name) => Party::Agent(name),
                Err(_) => return Err(DecodeError::Actor(name.chars().take(80).collect())),
            },
        };
        Ok(Logged { seq, at, actor, event: Event::decode(kind, v, envelope)?, content: None })
    }
}
