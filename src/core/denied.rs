//! Why a request was refused: a stable code for programs, a sentence for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The stable codes of a refusal (`data.code` on the wire).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The role lacks the permission, or the peer is not who the socket is for.
    Denied,
    /// No such agent, task, handoff, message or checkpoint.
    NotFound,
    /// The state does not allow it now; the sentence says what stands in the way.
    Conflict,
    /// The epoch or token is a former one: somebody else owns it now.
    Stale,
    /// A bound was reached; the sentence names it and its configuration key.
    Limit,
    /// The request itself is wrong.
    Invalid,
    /// It did not happen in time.
    Timeout,
    /// The daemon can't do it now (full disk, stopping); trying again later may help.
    Unavailable,
}

impl Code {
    /// The code as it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Denied => "denied",
            Code::NotFound => "not_found",
            Code::Conflict => "conflict",
            Code::Stale => "stale",
            Code::Limit => "limit",
            Code::Invalid => "invalid",
            Code::Timeout => "timeout",
            Code::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A refusal. Nothing has changed when one is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Denied {
    /// For programs.
    pub code: Code,
    /// What was refused, on what, for whom, and what to do: a lowercase fragment.
    pub message: String,
}

impl Denied {
    /// A refusal with `code` and a sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Denied { code, message: message.into() }
    }
}
