//! Parameters and results that exist on the wire only: what the bus deals with itself, above the core.

use serde::{Deserialize, Serialize};

use super::{FEATURES, VERSION};
use crate::core::denied::{Code, Denied};
use crate::core::json::Json;
use crate::core::request::MessageType;
pub use crate::core::request::MissionStop;
use crate::core::spec::Permissions;
use crate::core::view::{AgentView, MessageView, Party, Receipt};
use crate::ids::{Epoch, MissionName, Seq, SubscriptionName, TaskId, Timestamp};

fn inbox() -> SubscriptionName {
    crate::core::inbox_name()
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// `hello`: the first call on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The newest version of the protocol that the client speaks.
    pub version: u32,
    /// Which program it is, for people: `missionctl 0.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// What it would like beyond the version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// The content of `operator.key` in the mission's runtime directory: an operator who runs under
    /// `no_new_privs` shows by it that it can read that directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_key: Option<String>,
}

/// What `hello` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// The version that both speak.
    pub version: u32,
    /// The features that both have.
    pub features: Vec<String>,
    /// The mission.
    pub mission: MissionName,
    /// Who the caller is, by the kernel's word.
    pub you: Party,
    /// What the caller may do.
    pub permissions: Permissions,
    /// The caller as an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentView>,
    /// The daemon's process id.
    pub pid: u32,
}

impl Hello {
    /// What both sides speak: the version, and the common features.
    ///
    /// # Errors
    /// `invalid` where the client is older than the oldest version that is still spoken.
    pub fn negotiate(&self) -> Result<(u32, Vec<String>), Denied> {
        if self.version < 1 {
            return Err(Denied::new(
                Code::Invalid,
                format!(
                    "protocol version {} is unknown: this daemon speaks 1 to {VERSION}",
                    self.version
                ),
            ));
        }
        let common = FEATURES.iter().filter(|f| self.features.iter().any(|own| own == *f));
        Ok((self.version.min(VERSION), common.map(|f| (*f).to_owned()).collect()))
    }
}

/// `subscribe`: messages come as notifications from the cursor on, at most `credit` unacknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// Which of the agent's cursors; it is made at the first use. `tail` has none: it begins now and
    /// needs no acknowledgement.
    #[serde(default = "inbox")]
    pub subscription: SubscriptionName,
    /// Only these types; empty for all. What is skipped counts as acknowledged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<MessageType>,
    /// How many messages may be unacknowledged at a time, 1 to 1,024.
    #[serde(default = "default_credit")]
    pub credit: u32,
    /// Takes the subscription from whoever consumes it now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub takeover: bool,
}

fn default_credit() -> u32 {
    256
}

/// The largest credit: a cursor remembers at most this many ranges above it.
pub const MAX_CREDIT: u32 = 1_024;

impl Default for Subscribe {
    fn default() -> Self {
        Subscribe {
            subscription: inbox(),
            types: Vec::new(),
            credit: default_credit(),
            takeover: false,
        }
    }
}

/// What `subscribe` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// Everything up to here was acknowledged before.
    pub position: Seq,
}

/// `fetch`: takes messages from a subscription, or with `seqs` looks at any of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// Which of the agent's cursors.
    #[serde(default = "inbox")]
    pub subscription: SubscriptionName,
    /// At most this many messages, 1 to 1,000.
    #[serde(default = "default_limit")]
    pub limit: u32,
    /// Milliseconds to wait for the first one, at most 600,000.
    #[serde(default)]
    pub wait_ms: u64,
    /// Only looks: nothing is hidden from other fetches, nothing counts as delivered.
    #[serde(default, skip_serializing_if = "is_false")]
    pub peek: bool,
    /// Only these types; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<MessageType>,
    /// Exactly these messages with their receipts: for their sender, `audit`, or the operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seqs: Vec<Seq>,
}

fn default_limit() -> u32 {
    100
}

/// The longest that a `fetch` waits, in milliseconds.
pub const MAX_WAIT_MS: u64 = 600_000;

impl Default for Fetch {
    fn default() -> Self {
        Fetch {
            subscription: inbox(),
            limit: default_limit(),
            wait_ms: 0,
            peek: false,
            types: Vec::new(),
            seqs: Vec::new(),
        }
    }
}

/// What `fetch` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// The messages, oldest first.
    pub messages: Vec<FetchedMessage>,
    /// Everything up to here has been looked at: the last message, or the head of the log.
    pub upto: Seq,
}

/// One message of a [`Fetched`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedMessage {
    /// The message.
    pub message: MessageView,
    /// Whether it was delivered before and not acknowledged.
    #[serde(default, skip_serializing_if = "is_false")]
    pub redelivered: bool,
    /// What became of it; only where `seqs` were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receipts: Vec<Receipt>,
}

/// `checkpoint.save` as it is asked for: the files are paths still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveCheckpoint {
    /// The task.
    pub task: TaskId,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// What a successor needs to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Json>,
    /// Files, relative to (or absolute below) the agent's workspace, home or checkpoint directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

/// `audit.read`: the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRead {
    /// From the event after this one on; from the oldest that is kept without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Seq>,
    /// At most this many events, 1 to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only events of these kinds; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Afterwards, every later event comes as a notification `event`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub follow: bool,
}

/// The most events that one `audit.read` answers, and what it answers unless told otherwise.
pub const MAX_AUDIT: u32 = 1_000;

/// What `audit.read` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// The events, oldest first.
    pub events: Vec<EventView>,
    /// The last durable event of the log.
    pub head: Seq,
}

/// An event as a reader of the log gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Its position.
    pub seq: Seq,
    /// When it happened.
    pub at: Timestamp,
    /// What happened: `task_assigned`, ...
    pub kind: String,
    /// Who did it.
    pub actor: Party,
    /// What the state machine needs to know of it.
    pub data: Json,
    /// What only people and agents read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Json>,
}

/// The parameters of methods that have none; also the result of those that have nothing to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// The params of the notification `message`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The subscription that it came by.
    pub subscription: SubscriptionName,
    /// The message; an ephemeral one has no id, and its `seq` is that of the head that it follows.
    pub message: MessageView,
    /// Whether it was delivered before and not acknowledged.
    #[serde(default)]
    pub redelivered: bool,
    /// Whether it is not in the log: it can't be acknowledged and will not come again.
    #[serde(default)]
    pub ephemeral: bool,
}

/// The params of the notification `lagged`: what the subscription can't get any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lagged {
    /// The subscription; none for `audit.read` with `follow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<SubscriptionName>,
    /// The first that is missing.
    pub from: Seq,
    /// The last that is missing.
    pub to: Seq,
}
