//! Words that requests, events and views share: the types of messages, the phases of agents.

use serde::{Deserialize, Serialize};

use crate::ids::SubscriptionName;

/// What kind of message it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageType {
    /// You own this task now.
    TaskAssign,
    /// News of a task.
    TaskUpdate,
    /// A task is settled.
    TaskComplete,
    /// Will you take this task over?
    HandoffRequest,
    /// The target has accepted; the source is to save a checkpoint.
    HandoffAccept,
    /// Ownership has moved.
    HandoffComplete,
    /// What the sender is doing.
    StatusUpdate,
    /// Somebody should look.
    Alert,
    /// To all.
    Broadcast,
    /// `custom.<name>`; the name obeys the rule of [`SubscriptionName`].
    Custom(SubscriptionName),
}

/// What an agent says it is doing (its *state* is what its process is doing).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Phase {
    /// It has not said anything yet.
    #[default]
    Init,
    /// It waits for work.
    Ready,
    /// It decides what to do.
    Planning,
    /// It works.
    Executing,
    /// It checks its work.
    Validating,
    /// It is done.
    Complete,
    /// It gave up.
    Failed,
}

impl MessageType {
    const NAMED: [(&'static str, MessageType); 9] = [
        ("task_assign", MessageType::TaskAssign),
        ("task_update", MessageType::TaskUpdate),
        ("task_complete", MessageType::TaskComplete),
        ("handoff_request", MessageType::HandoffRequest),
        ("handoff_accept", MessageType::HandoffAccept),
        ("handoff_complete", MessageType::HandoffComplete),
        ("status_update", MessageType::StatusUpdate),
        ("alert", MessageType::Alert),
        ("broadcast", MessageType::Broadcast),
    ];
}

impl std::fmt::Display for MessageType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let MessageType::Custom(name) = self {
            if f.width().is_none() && f.precision().is_none() {
                f.write_str("custom.")?;
                return f.write_str(name.as_str());
            }
            return f.pad(&format!("custom.{name}"));
        }
        let named = MessageType::NAMED.iter().find(|(_, t)| t == self);
        f.pad(named.map_or("broadcast", |(name, _)| name))
    }
}

impl std::str::FromStr for MessageType {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("custom.") {
            return SubscriptionName::new(name)
                .map(MessageType::Custom)
                .map_err(|error| error.to_string());
        }
        let named = MessageType::NAMED.iter().find(|(name, _)| *name == text);
        named.map(|(_, t)| t.clone()).ok_or_else(|| {
            let names: Vec<_> = MessageType::NAMED.iter().map(|(name, _)| *name).collect();
            let text: String = text.chars().take(40).flat_map(char::escape_debug).collect();
            format!("unknown message type `{text}`: one of {}, custom.<name>", names.join(", "))
        })
    }
}

impl Serialize for MessageType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for MessageType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = MessageType;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<MessageType, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}
