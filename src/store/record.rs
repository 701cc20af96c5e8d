//! What the log keeps: records, hashes, heads. Plain values, no SQL.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// One event as the log keeps it. All text is shared, so that fanning a record out copies nothing.
///
/// `envelope` is what the core folds; `content` is opaque to it and may be erased later
/// (see [`Store::erase`](super::Store::erase)) without breaking the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position in the log, from 1, without gaps.
    pub seq: u64,
    /// When it happened, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The event's kind, e.g. `MessagePublished`.
    pub kind: Arc<str>,
    /// Version of the kind's encoding.
    pub v: u16,
    /// Who caused it; empty for the daemon itself.
    pub actor: Arc<str>,
    /// JSON text, what the fold needs.
    pub envelope: Arc<str>,
    /// JSON text that the fold never reads; `None` also once it was erased.
    pub content: Option<Arc<str>>,
}

impl Record {
    /// Bytes of text in the record, the measure of every bound on queues and batches.
    #[must_use]
    pub fn size(&self) -> usize {
        const FIXED: usize = 64;
        FIXED
            + self.kind.len()
            + self.actor.len()
            + self.envelope.len()
            + self.content.as_ref().map_or(0, |content| content.len())
    }

    pub(super) fn borrowed(&self) -> RecordRef<'_> {
        RecordRef {
            seq: self.seq,
            at_ms: self.at_ms,
            kind: &self.kind,
            v: self.v,
            actor: &self.actor,
            envelope: &self.envelope,
            content: self.content.as_deref(),
        }
    }
}

/// A record that is only looked at while the log is read; see [`Record`] for the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Position in the log.
    pub seq: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The event's kind.
    pub kind: &'a str,
    /// Version of the kind's encoding.
    pub v: u16,
    /// Who caused it.
    pub actor: &'a str,
    /// JSON text, what the fold needs.
    pub envelope: &'a str,
    /// JSON text that the fold never reads. [`Reader::fold`](super::Reader::fold) leaves it out.
    pub content: Option<&'a str>,
}

/// A SHA-256 digest. Shown and parsed as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash before the first record.
    pub const GENESIS: Self = Self([0; 32]);

    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 in 64 lower-case hex digits")]
pub struct NotAHash;

impl FromStr for Hash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(NotAHash),
        };
        let text = text.as_bytes();
        if text.len() != 64 {
            return Err(NotAHash);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(hash))
    }
}

/// A point in the log: the last record up to there, and the chain's hash with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Seq of the last record; 0 for an empty log.
    pub seq: u64,
    /// The chain's hash up to and with that record.
    pub hash: Hash,
}

impl Head {
    /// The head of an empty log.
    pub const EMPTY: Self = Self { seq: 0, hash: Hash::GENESIS };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_shown_and_parsed_as_lower_case_hex() {
        let hash = Hash(std::array::from_fn(|i| u8::try_from(i * 7).unwrap()));
        let text = hash.to_string();
        assert_eq!(text.len(), 64);
        assert_eq!(text.parse(), Ok(hash));
        for bad in ["", "00", &text.to_uppercase(), &text.replace('0', "g"), &format!("{text}0")] {
            assert_eq!(bad.parse::<Hash>(), Err(NotAHash), "{bad}");
        }
    }
}
