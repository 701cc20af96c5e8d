//! What an agent has acknowledged, and the direct messages that it has not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Seq, SubscriptionName, Timestamp};

/// The most acknowledged ranges that a cursor keeps above its low mark.
pub(crate) const MAX_RANGES: usize = 1_024;

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

impl Cursor {
    /// Whether the message at `seq` is dealt with.
    #[must_use]
    pub fn covers(&self, seq: Seq) -> bool {
        seq <= self.acked_upto
            || self.ranges.range(..=seq).next_back().is_some_and(|(_, last)| seq <= *last)
    }

    /// Everything up to `upto` is dealt with.
    pub(crate) fn raise(&mut self, upto: Seq) {
        self.acked_upto = self.acked_upto.max(upto);
        self.join_low();
    }

    /// Everything from `first` to `last` is dealt with.
    pub(crate) fn add(&mut self, first: Seq, last: Seq) {
        if last <= self.acked_upto || last < first {
            return;
        }
        let (mut first, mut last) = (first, last);
        // The one range that may begin before and reach into or touch it, then those within or after.
        if let Some((a, b)) = self.ranges.range(..=first).next_back().map(|(a, b)| (*a, *b))
            && b.next() >= first
        {
            self.ranges.remove(&a);
            (first, last) = (a, last.max(b));
        }
        while let Some((a, b)) =
            self.ranges.range(first..=last.next()).next().map(|(a, b)| (*a, *b))
        {
            self.ranges.remove(&a);
            last = last.max(b);
        }
        self.ranges.insert(first, last);
        self.join_low();
    }

    /// Takes the ranges into the mark that it has reached.
    fn join_low(&mut self) {
        while let Some((first, last)) = self.ranges.first_key_value().map(|(a, b)| (*a, *b))
            && first <= self.acked_upto.next()
        {
            self.ranges.remove(&first);
            self.acked_upto = self.acked_upto.max(last);
        }
    }

    /// Gives up the lowest gaps until the ranges are no more than allowed. Only for what died of age:
    /// everything below it is older still.
    pub(crate) fn fold(&mut self) {
        while self.ranges.len() > MAX_RANGES {
            if let Some((_, last)) = self.ranges.pop_first() {
                self.acked_upto = last;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(cursor: &Cursor) -> Vec<(u64, u64)> {
        cursor.ranges.iter().map(|(a, b)| (a.0, b.0)).collect()
    }

    #[test]
    fn ranges_that_touch_become_one_and_reach_the_mark() {
        let mut cursor = Cursor { acked_upto: Seq(10), ..Cursor::default() };
        for seq in [20, 22, 30] {
            cursor.add(Seq(seq), Seq(seq));
        }
        assert_eq!(ranges(&cursor), [(20, 20), (22, 22), (30, 30)]);
        cursor.add(Seq(21), Seq(21));
        assert_eq!(ranges(&cursor), [(20, 22), (30, 30)]);
        cursor.add(Seq(12), Seq(19));
        assert_eq!(ranges(&cursor), [(12, 22), (30, 30)]);
        cursor.add(Seq(11), Seq(11));
        assert_eq!((cursor.acked_upto, ranges(&cursor)), (Seq(22), vec![(30, 30)]));
        cursor.raise(Seq(29));
        assert_eq!((cursor.acked_upto, ranges(&cursor)), (Seq(30), vec![]));
    }

    #[test]
    fn a_cursor_never_forgets_what_was_acknowledged() {
        let mut cursor = Cursor::default();
        let seqs = [9, 3, 4, 100, 50, 51, 49, 2, 1, 7];
        for seq in seqs {
            cursor.add(Seq(seq), Seq(seq));
            cursor.add(Seq(seq), Seq(seq));
        }
        for seq in 1..=110 {
            assert_eq!(cursor.covers(Seq(seq)), seqs.contains(&seq), "{seq}");
        }
        cursor.raise(Seq(5));
        assert!(cursor.covers(Seq(5)) && !cursor.covers(Seq(6)) && cursor.covers(Seq(7)));
    }
}
