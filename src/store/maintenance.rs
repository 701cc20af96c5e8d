//! What takes something away: erasing content, pruning events. Each call is one transaction of the
//! writer's and ends with it.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::chain::seal;
use super::error::JobError;
use super::schema::{self, SEGMENT, sql_seq};

/// Events deleted in one transaction, so that batches can be written in between.
const PRUNE_ROWS: u64 = 4096;

/// Erases the content of events, leaving its seal in place of the salt.
pub(super) fn erase(conn: &Connection, seqs: &[u64]) -> Result<(), JobError> {
    let mut select = conn.prepare("SELECT salt, content FROM events WHERE seq = ?1")?;
    let mut update = conn.prepare("UPDATE events SET salt = ?2, content = NULL WHERE seq = ?1")?;
    for &seq in seqs {
        let row = select.query_row([sql_seq(seq)], |row| {
            Ok((row.get::<_, Option<Vec<u8>>>(0)?, row.get::<_, Option<String>>(1)?))
        });
        match row.optional()? {
            None => return Err(JobError::NoSuchEvent { seq }),
            Some((Some(salt), Some(content))) => {
                let left = seal(&salt, &content);
                update.execute(params![sql_seq(seq), &left.0[..]])?;
            }
            // Without content, or erased before.
            Some(_) => {}
        }
    }
    Ok(())
}

/// Deletes the next events of whole segments that lie below `below` and below the oldest snapshot,
/// and returns how many; 0 when none is left to delete.
pub(super) fn prune(conn: &Connection, below: u64) -> Result<u64, JobError> {
    let floor = schema::floor(conn)?.seq;
    let oldest: Option<i64> =
        conn.query_row("SELECT min(seq) FROM snapshots", [], |row| row.get(0))?;
    let Some(oldest) = oldest.and_then(|seq| u64::try_from(seq).ok()) else {
        return Ok(0);
    };
    let target = below.saturating_sub(1).min(oldest) / SEGMENT * SEGMENT;
    let last = target.min(floor + PRUNE_ROWS);
    if last <= floor {
        return Ok(0);
    }
    // The hash of the last event that goes is where the chain of the rest begins.
    conn.execute(
        "UPDATE floor SET (seq, hash) = (SELECT seq, hash FROM events WHERE seq = ?1)",
        [sql_seq(last)],
    )?;
    conn.execute("DELETE FROM events WHERE seq <= ?1", [sql_seq(last)])?;
    Ok(last - floor)
}
