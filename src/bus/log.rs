//! What the hub wants from the log: it never reads itself, the daemon does so on a thread that may block.

use crate::core::event::Logged;
use crate::ids::Seq;

/// Names a read until it is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub(super) u64);

/// A part of the log that somebody is waiting for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRead {
    /// To be given back with the page.
    pub id: ReadId,
    /// Which part.
    pub what: ReadWhat,
}

/// Which part of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadWhat {
    /// At most `limit` events of these `kinds` (all, when empty) after a position.
    From {
        /// The last event that is not wanted.
        after: Seq,
        /// At most this many, 1 to 1,000.
        limit: usize,
        /// And no further event once their contents have this many bytes; one event at least.
        bytes: usize,
        /// Of these kinds; empty for all.
        kinds: Vec<String>,
    },
    /// These events, as far as they exist.
    Seqs(Vec<Seq>),
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPage {
    /// The events with their contents, in order.
    pub events: Vec<Logged>,
    /// Everything up to here was looked at; for a read that came to the end, the durable head.
    pub upto: Seq,
    /// The last event that was pruned; 0 where none was.
    pub floor: Seq,
}
