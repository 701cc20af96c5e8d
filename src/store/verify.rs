//! Walking the chain.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row};

use super::chain::{Hasher, SALT_LEN, seal};
use super::error::{Flaw, VerifyError};
use super::record::{Hash, Head, RecordRef};
use super::schema::{self, Access, ROWS, SEGMENT, hash_of, seq_of, sql_seq};

/// Verifies the whole log in the state directory `dir` and returns its head. It only reads, through
/// SQLite, a thousand events at a time; the mission may be running.
///
/// # Errors
/// [`VerifyError::Broken`] names the first event that is not as it was written.
pub fn verify(dir: &Path) -> Result<Head, VerifyError> {
    let dir = dir.canonicalize().map_err(|_| VerifyError::NotOurs)?;
    let conn = schema::connect(&schema::db_path(&dir), Access::Read)?;
    if !schema::is_ours(&conn)? {
        return Err(VerifyError::NotOurs);
    }
    let floor = schema::floor(&conn)?;
    walk(&conn, floor, &|_, _| true)
}

/// Verifies every event after `from` and that none is missing at the end.
pub(super) fn walk(
    conn: &Connection,
    from: Head,
    known: &dyn Fn(&str, u16) -> bool,
) -> Result<Head, VerifyError> {
    let mut events = conn.prepare(
        "SELECT seq, at, kind, v, actor, envelope, hash, salt, content FROM events
         WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut hasher = Hasher::default();
    let mut head = from;
    loop {
        let before = head.seq;
        let mut rows = events.query([sql_seq(head.seq), ROWS])?;
        loop {
            let next = head.seq + 1;
            let unreadable = |error| unreadable(next, error);
            let Some(row) = rows.next().map_err(unreadable)? else { break };
            let found = seq_of(row, 0).map_err(unreadable)?;
            if found != next {
                return Err(broken(next, Flaw::Missing));
            }
            head = link(&mut hasher, head, row, known)?;
            if next.is_multiple_of(SEGMENT) && segment_end(conn, next)? != Some(head.hash) {
                return Err(broken(next, Flaw::Segment));
            }
        }
        drop(rows);
        if head.seq == before {
            break;
        }
    }
    // Heads that were written down tell of a tail that is gone.
    let promised: Option<i64> = conn.query_row(
        "SELECT max(seq) FROM (SELECT max(seq) AS seq FROM snapshots UNION ALL
                               SELECT max(last) FROM segments)",
        [],
        |row| row.get(0),
    )?;
    if promised.is_some_and(|seq| seq > sql_seq(head.seq)) {
        return Err(broken(head.seq + 1, Flaw::Missing));
    }
    Ok(head)
}

fn link(
    hasher: &mut Hasher,
    head: Head,
    row: &Row<'_>,
    known: &dyn Fn(&str, u16) -> bool,
) -> Result<Head, VerifyError> {
    let seq = head.seq + 1;
    let read = || -> rusqlite::Result<_> {
        let content = row.get_ref(8)?.as_str_or_null()?;
        let record = RecordRef {
            seq,
            at_ms: row.get(1)?,
            kind: row.get_ref(2)?.as_str()?,
            v: row.get(3)?,
            actor: row.get_ref(4)?.as_str()?,
            envelope: row.get_ref(5)?.as_str()?,
            content,
        };
        Ok((record, hash_of(row, 6)?, row.get_ref(7)?.as_blob_or_null()?))
    };
    let (record, hash, salt) = read().map_err(|error| unreadable(seq, error))?;
    let sealed = match (salt, record.content) {
        (None, None) => None,
        (Some(salt), Some(content)) if salt.len() == SALT_LEN => Some(seal(salt, content)),
        (Some(left), None) => match Hash::from_slice(left) {
            Some(left) => Some(left),
            None => return Err(broken(seq, Flaw::Altered)),
        },
        (None | Some(_), Some(_)) => return Err(broken(seq, Flaw::Altered)),
    };
    if hasher.next(head.hash, &record, sealed) != hash {
        return Err(broken(seq, Flaw::Altered));
    }
    // Only now: a damaged kind is damage, not a newer version.
    if !known(record.kind, record.v) {
        return Err(VerifyError::Newer { seq, kind: record.kind.to_owned(), v: record.v });
    }
    Ok(Head { seq, hash })
}

fn segment_end(conn: &Connection, last: u64) -> Result<Option<Hash>, VerifyError> {
    let hash =
        conn.query_row("SELECT hash FROM segments WHERE last = ?1", [sql_seq(last)], |row| {
            hash_of(row, 0)
        });
    hash.optional().map_err(|error| unreadable(last, error))
}

fn broken(seq: u64, flaw: Flaw) -> VerifyError {
    VerifyError::Broken { seq, flaw }
}

/// Tells damage at `seq` from a failure to read at all.
fn unreadable(seq: u64, source: rusqlite::Error) -> VerifyError {
    match source.sqlite_error_code() {
        None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            broken(seq, Flaw::Unreadable(source.to_string()))
        }
        Some(_) => VerifyError::Sqlite { source },
    }
}
