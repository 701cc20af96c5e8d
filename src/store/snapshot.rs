//! States kept beside the events, so that a replay need not begin at the first one.

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

use super::chain::digest;
use super::error::JobError;
use super::record::{Hash, Head};
use super::schema::{self, head_of, sql_seq};

/// Snapshots that are kept.
const KEPT: i64 = 2;

/// A state to keep.
#[derive(Debug, Clone)]
pub struct NewSnapshot {
    /// The event after which it was the state, with the chain's hash there.
    pub head: Head,
    /// Version of the state's encoding.
    pub version: u32,
    /// The state, opaque.
    pub state: Vec<u8>,
}

/// A state that was kept, and is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The event after which it was the state.
    pub head: Head,
    /// Version of the state's encoding.
    pub version: u32,
    /// SHA-256 of the state.
    pub digest: Hash,
    /// The state.
    pub state: Vec<u8>,
}

/// Keeps a snapshot and drops all but the two newest.
pub(super) fn keep(conn: &Connection, new: &NewSnapshot) -> Result<(), JobError> {
    let Head { seq, hash } = new.head;
    if hash_at(conn, seq)? != Some(hash) {
        return Err(JobError::UnknownHead { seq });
    }
    conn.execute(
        "INSERT OR REPLACE INTO snapshots VALUES (?1, ?2, ?3, ?4, ?5)",
        params![sql_seq(seq), &hash.0[..], new.version, &digest(&new.state).0[..], &new.state],
    )?;
    conn.execute(
        "DELETE FROM snapshots WHERE seq NOT IN
           (SELECT seq FROM snapshots ORDER BY seq DESC LIMIT ?1)",
        [KEPT],
    )?;
    Ok(())
}

/// The newest snapshot of `version` that is whole, and the seqs of newer ones that are damaged.
pub(super) fn newest(
    conn: &Connection,
    version: u32,
) -> rusqlite::Result<(Option<Snapshot>, Vec<u64>)> {
    let mut seqs =
        conn.prepare("SELECT seq FROM snapshots WHERE version = ?1 ORDER BY seq DESC")?;
    let seqs: Vec<u64> =
        seqs.query_map([version], |row| schema::seq_of(row, 0))?.collect::<Result<_, _>>()?;
    let mut damaged = Vec::new();
    for seq in seqs {
        match load(conn, seq) {
            Ok(snapshot)
                if digest(&snapshot.state) == snapshot.digest
                    && hash_at(conn, seq)? == Some(snapshot.head.hash) =>
            {
                return Ok((Some(snapshot), damaged));
            }
            Ok(_) => damaged.push(seq),
            Err(error) if is_damage(&error) => damaged.push(seq),
            Err(error) => return Err(error),
        }
    }
    Ok((None, damaged))
}

fn load(conn: &Connection, seq: u64) -> rusqlite::Result<Snapshot> {
    conn.query_row(
        "SELECT seq, hash, version, digest, state FROM snapshots WHERE seq = ?1",
        [sql_seq(seq)],
        |row| {
            Ok(Snapshot {
                head: head_of(row, 0)?,
                version: row.get(2)?,
                digest: schema::hash_of(row, 3)?,
                state: row.get(4)?,
            })
        },
    )
}

/// The hash of an event, also of the last pruned one and of the empty log.
fn hash_at(conn: &Connection, seq: u64) -> rusqlite::Result<Option<Hash>> {
    let floor = schema::floor(conn)?;
    if floor.seq == seq {
        return Ok(Some(floor.hash));
    }
    conn.query_row("SELECT hash FROM events WHERE seq = ?1", [sql_seq(seq)], |row| {
        schema::hash_of(row, 0)
    })
    .optional()
}

/// Whether an error means that bytes are not what they were.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => code == ErrorCode::DatabaseCorrupt,
        // A value of another type or length than was written.
        None => true,
    }
}
