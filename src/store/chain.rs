//! The hash chain: what of a record is hashed, and how.
//!
//! ```text
//! hash(n) = SHA-256( domain | hash(n-1) | field... | seal )
//! field   = length as u64, little endian | bytes      (seq, at, kind, v, actor, envelope)
//! seal    = 0x00                                      without content
//!         | 0x01 | SHA-256( domain | salt | content ) with content
//! ```
//!
//! The chain holds only the *seal* of the content. Content that is erased together with its salt
//! leaves the seal behind, and the chain still verifies; without the random salt, short content
//! could be guessed from its seal.
//!
//! The chain shows damage: a flipped byte, a row that is missing, was changed or moved. It does not
//! stop a forger who can write the file and hashes everything anew, unless a head is kept elsewhere.

use sha2::{Digest, Sha256};

use super::record::{Hash, RecordRef};

const RECORD_DOMAIN: &[u8] = b"missiond log record 1\0";
const CONTENT_DOMAIN: &[u8] = b"missiond log content 1\0";

/// Random bytes hashed in front of a record's content.
pub(super) const SALT_LEN: usize = 16;

/// SHA-256 of bytes.
pub(super) fn digest(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}

/// The seal of `content`: all that stays of it in the chain.
pub(super) fn seal(salt: &[u8], content: &str) -> Hash {
    let mut sha = Sha256::new();
    sha.update(CONTENT_DOMAIN);
    sha.update(salt);
    sha.update(content.as_bytes());
    Hash(sha.finalize().into())
}

/// Hashes records, with one buffer for all of them.
#[derive(Default)]
pub(super) struct Hasher {
    bytes: Vec<u8>,
}

impl Hasher {
    /// The chain's hash after `record`, whose own content is passed as its `seal`.
    pub(super) fn next(&mut self, prev: Hash, record: &RecordRef<'_>, seal: Option<Hash>) -> Hash {
        self.bytes.clear();
        self.bytes.extend_from_slice(RECORD_DOMAIN);
        self.bytes.extend_from_slice(&prev.0);
        self.field(&record.seq.to_le_bytes());
        self.field(&record.at_ms.to_le_bytes());
        self.field(record.kind.as_bytes());
        self.field(&record.v.to_le_bytes());
        self.field(record.actor.as_bytes());
        self.field(record.envelope.as_bytes());
        match seal {
            None => self.bytes.push(0),
            Some(seal) => {
                self.bytes.push(1);
                self.bytes.extend_from_slice(&seal.0);
            }
        }
        digest(&self.bytes)
    }

    fn field(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(bytes);
    }
}

/// A supply of salts: one system call for many.
pub(super) struct Salts {
    pool: [u8; SALT_LEN * 64],
    used: usize,
}

impl Default for Salts {
    fn default() -> Self {
        let pool = [0; SALT_LEN * 64];
        Self { used: pool.len(), pool }
    }
}

impl Salts {
    pub(super) fn draw(&mut self) -> Result<[u8; SALT_LEN], getrandom::Error> {
        if self.used == self.pool.len() {
            getrandom::fill(&mut self.pool)?;
            self.used = 0;
        }
        let mut salt = [0; SALT_LEN];
        salt.copy_from_slice(&self.pool[self.used..self.used + SALT_LEN]);
        self.used += SALT_LEN;
        Ok(salt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: RecordRef<'_> = RecordRef {
        seq: 7,
        at_ms: -1,
        kind: "TaskAssigned",
        v: 2,
        actor: "lead",
        envelope: "{\"task\":\"t\"}",
        content: None,
    };

    fn hash(record: RecordRef<'_>) -> Hash {
        Hasher::default().next(Hash::GENESIS, &record, None)
    }

    #[test]
    fn every_field_is_part_of_the_hash() {
        let variants = [
            RECORD,
            RecordRef { seq: 8, ..RECORD },
            RecordRef { at_ms: 0, ..RECORD },
            RecordRef { kind: "TaskAssigne", ..RECORD },
            RecordRef { v: 3, ..RECORD },
            RecordRef { actor: "lea", ..RECORD },
            RecordRef { envelope: "{}", ..RECORD },
        ];
        let mut hashes: Vec<_> = variants.map(hash).into();
        hashes.push(Hasher::default().next(hash(RECORD), &RECORD, None));
        hashes.push(Hasher::default().next(Hash::GENESIS, &RECORD, Some(Hash::GENESIS)));
        let all = hashes.len();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), all);
    }

    #[test]
    fn bytes_cannot_move_from_one_field_to_the_next() {
        let one = hash(RecordRef { actor: "ab", envelope: "c", ..RECORD });
        let other = hash(RecordRef { actor: "a", envelope: "bc", ..RECORD });
        assert_ne!(one, other);
    }

    #[test]
    fn the_encoding_is_pinned() {
        // A change here breaks every log that exists: raise the domain's number instead.
        assert_eq!(
            hash(RECORD).to_string(),
            "2c067c79bbbe94f3ad7050248df895d3c4fb653ec15424597a92018be59157cc",
        );
        assert_eq!(
            seal(&[1; SALT_LEN], "{}").to_string(),
            "a213da7ea2b121a1b755a82f3c1290252d0ce7428bb5c74a04362fe39a4ecb18",
        );
    }

    #[test]
    fn salts_do_not_repeat_across_refills() {
        let mut salts = Salts::default();
        let mut drawn: Vec<_> = (0..200).map(|_| salts.draw().unwrap()).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 200);
    }
}
