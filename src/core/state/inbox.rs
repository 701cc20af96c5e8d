//! What an agent has acknowledged, and the direct messages that it has not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Seq, SubscriptionName, Timestamp};

/// The most acknowledged ranges that a cursor keeps above its low mark.
pub const MAX_RANGES: usize = 1_024;

/// How far one subscription is: everything up to a mark, and ranges above it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Everything up to and including this is dealt with.
    pub acked_upto: Seq,
    /// Dealt with above the mark: first to last of each range, ordered, never touching.
    pub ranges: BTreeMap<Seq, Seq>,
}

/// A direct message that was not yet acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its content's bytes.
    pub bytes: u64,
    /// When it was published.
    pub at: Timestamp,
}

/// An agent's messages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Inbox {
    /// By subscription.
    pub cursors: BTreeMap<SubscriptionName, Cursor>,
    /// Direct messages that the `inbox` subscription has not acknowledged.
    pub held: BTreeMap<Seq, Held>,
    /// The sum of their bytes.
    pub held_bytes: u64,
    /// How often which message was nacked, by subscription.
    pub nacks: BTreeMap<SubscriptionName, BTreeMap<Seq, u32>>,
    /// The latest dead messages and why.
    pub dead: BTreeMap<Seq, String>,
}
