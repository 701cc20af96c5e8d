//! The newtypes of every id, parsed once at the edge. The ground floor: known to all, knows nobody.
//!
//! Names that people choose ([`MissionName`], [`AgentName`], [`TaskId`]) are short, printable and safe
//! in a path; numbers are positions in the log ([`Seq`]) or derived from one, so that no id is ever
//! handed out twice and none depends on a clock.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}: {rule}")]
pub struct IdError {
    text: String,
    what: &'static str,
    rule: &'static str,
}

impl IdError {
    fn new(text: &str, what: &'static str, rule: &'static str) -> Self {
        let text = text.chars().take(80).flat_map(char::escape_debug).collect();
        IdError { text, what, rule }
    }
}

fn is_name(text: &str, max: usize, extra: &[char]) -> bool {
    let mut chars = text.chars();
    text.len() <= max
        && chars.next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || extra.contains(&c))
}

fn is_token(text: &str, max: usize) -> bool {
    let mut chars = text.chars();
    text.len() <= max
        && chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && chars.all(|c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            #[doc = concat!("Parses a ", $what, ": ", $rule, ".")]
            ///
            /// # Errors
            /// The text breaks that rule.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok($name(Arc::from(text)))
                } else {
                    Err(IdError::new(text, $what, $rule))
                }
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(
    /// The name of a mission; it names directories, so the rule is strict.
    MissionName, "mission name", "1 to 40 of a-z, 0-9 and -, not starting with -",
    |text| is_name(text, 40, &['-'])
);
text_id!(
    /// The name of an agent within its mission.
    AgentName, "agent name", "1 to 40 of a-z, 0-9, - and _, starting with a letter or digit",
    |text| is_name(text, 40, &['-', '_']) && text != "operator" && text != "daemon"
);
text_id!(
    /// The name of a role: one of the four built-in ones or a `[roles.NAME]`.
    RoleName, "role name", "1 to 40 of a-z, 0-9, - and _, starting with a letter or digit",
    |text| is_name(text, 40, &['-', '_'])
);
text_id!(
    /// The id of a task within its mission.
    TaskId, "task id", "1 to 64 of A-Z, a-z, 0-9, -, _ and ., starting with a letter or digit",
    |text| is_token(text, 64)
);
text_id!(
    /// What an agent can do, matched against what a task needs.
    Capability, "capability", "1 to 64 of A-Z, a-z, 0-9, -, _ and ., starting with a letter or digit",
    |text| is_token(text, 64)
);
text_id!(
    /// A caller's idempotency key: the same key with the same request is carried out once.
    Key, "idempotency key", "1 to 128 printable ASCII characters without spaces",
    |text| !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic())
);
text_id!(
    /// The name of a subscription of an agent; `inbox` unless said otherwise.
    SubscriptionName, "subscription name", "1 to 40 of a-z, 0-9, - and _",
    |text| is_name(text, 40, &['-', '_'])
);

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_id!(
    /// A position in the log: the first event is 1, and no number is skipped.
    Seq
);
number_id!(
    /// A fencing token: the [`Seq`] of the event that granted ownership. It only ever grows.
    Epoch
);
number_id!(
    /// Which agent, over renames of nobody and re-additions of the same name: the [`Seq`] of its adding.
    AgentUid
);
number_id!(
    /// Which start of an agent's process; 1 for the first, and it only ever grows.
    Incarnation
);
number_id!(
    /// Which run of the daemon over this log; 1 for the first.
    Generation
);

impl Seq {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

macro_rules! prefixed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Seq);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!(concat!($prefix, "{}"), self.0))
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($prefix)
                    .filter(|n| n.bytes().all(|b| b.is_ascii_digit()) && !n.starts_with('0'))
                    .and_then(|n| n.parse().ok())
                    .map(|n| $name(Seq(n)))
                    .ok_or_else(|| IdError::new(text, $what, $rule))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

prefixed_id!(
    /// A message on the bus, `m-` and the [`Seq`] of its publishing.
    MessageId, "m-", "message id", "m- and a number"
);
prefixed_id!(
    /// A handoff, `h-` and the [`Seq`] of its request.
    HandoffId, "h-", "handoff id", "h- and a number"
);
prefixed_id!(
    /// A checkpoint, `c-` and the [`Seq`] of its saving.
    CheckpointId, "c-", "checkpoint id", "c- and a number"
);

/// A point in time: milliseconds since 1970-01-01 UTC, by the daemon's clock that never goes back.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This time plus a duration given in milliseconds; stops at the largest time there is.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Timestamp {
        Timestamp(self.0.saturating_add_unsigned(ms))
    }

    /// Milliseconds from `earlier` to this time; 0 where `earlier` is later.
    #[must_use]
    pub fn since_ms(self, earlier: Timestamp) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

/// The SHA-256 of a blob, written as 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash(pub [u8; 32]);

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl FromStr for BlobHash {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError::new(text, "blob hash", "64 lowercase hexadecimal digits");
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(error());
        }
        let digit = |d: u8| match d {
            b'0'..=b'9' => Ok(d - b'0'),
            b'a'..=b'f' => Ok(d - b'a' + 10),
            _ => Err(error()),
        };
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(BlobHash(hash))
    }
}
impl Serialize for BlobHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for BlobHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mission_name_is_safe_as_a_directory() {
        for good in ["review", "a", "0-day", &"x".repeat(40)] {
            assert!(MissionName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-x", "..", "a/b", "A", "a b", "a\n", "é", &"x".repeat(41)] {
            assert!(MissionName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nobody_is_named_like_the_operator_or_the_daemon() {
        assert!(AgentName::new("operator").is_err() && AgentName::new("daemon").is_err());
        assert!(AgentName::new("operator-2").is_ok());
    }

    #[test]
    fn prefixed_ids_have_one_spelling() {
        assert_eq!("h-17".parse(), Ok(HandoffId(Seq(17))));
        assert_eq!(HandoffId(Seq(17)).to_string(), "h-17");
        for bad in ["h-", "h-017", "h-+1", "m-1", "17", "h-99999999999999999999999"] {
            assert!(bad.parse::<HandoffId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_blob_hash_reads_what_it_writes() {
        let hash = BlobHash(std::array::from_fn(|i| u8::try_from(i * 7 % 256).unwrap()));
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!("0".repeat(63).parse::<BlobHash>().is_err());
        assert!("G".repeat(64).parse::<BlobHash>().is_err());
    }

    #[test]
    fn an_error_shows_no_control_characters() {
        let error = TaskId::new("a\u{1b}[31m").unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
    }
}
