//! The file's layout, and how connections to it are made.
//!
//! Nothing else in the program may open `mission.db` or its `-wal` and `-shm`: closing *any* file
//! descriptor of a file drops the process's POSIX locks on it, and then an outside `sqlite3` takes
//! itself for the last user and deletes the write-ahead log under us
//! (<https://www.sqlite.org/howtocorrupt.html>, 2.2). `stat` is fine, it opens nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::Durability;
use super::record::{Hash, Head, NotAHash};

/// `PRAGMA application_id`: "MISD".
pub(super) const APPLICATION_ID: i32 = 0x4d49_5344;
/// `PRAGMA user_version`: the layout below.
pub(super) const SCHEMA_VERSION: i32 = 1;
/// Bytes of a page; SQLite's default, set so that arithmetic on it holds.
pub(super) const PAGE: u64 = 4096;

/// Records of a segment. Each full one leaves a row in `segments`.
pub(super) const SEGMENT: u64 = 65_536;

pub(super) const DDL: &str = "
CREATE TABLE events (
  seq      INTEGER PRIMARY KEY, -- without gaps
  at       INTEGER NOT NULL,    -- milliseconds since 1970
  kind     TEXT NOT NULL,
  v        INTEGER NOT NULL,    -- version of the kind's encoding
  actor    TEXT NOT NULL,       -- '' is the daemon
  envelope TEXT NOT NULL,       -- JSON, what the state is folded from
  hash     BLOB NOT NULL,       -- SHA-256 over the previous row's hash and this row
  salt     BLOB,                -- 16 random bytes hashed with content; once erased, that hash
  content  TEXT                 -- JSON
) STRICT;
CREATE TABLE segments (         -- one row for each full segment, kept when its events are pruned
  last     INTEGER PRIMARY KEY,
  first    INTEGER NOT NULL,
  hash     BLOB NOT NULL
) STRICT;
CREATE TABLE snapshots (
  seq      INTEGER PRIMARY KEY, -- the state after this event
  hash     BLOB NOT NULL,       -- that event's hash
  version  INTEGER NOT NULL,    -- of the state's encoding
  digest   BLOB NOT NULL,       -- SHA-256 of state
  state    BLOB NOT NULL
) STRICT;
CREATE TABLE floor (            -- one row: the last pruned event
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  seq      INTEGER NOT NULL,
  hash     BLOB NOT NULL
) STRICT;
INSERT INTO floor VALUES (1, 0, zeroblob(32));
";

/// Rows read in one transaction at most, so that no reader holds up a checkpoint for long.
pub(super) const ROWS: i64 = 1000;

/// Pages of the file that hold something.
pub(super) const USED_PAGES: &str = "SELECT page_count - freelist_count
     FROM pragma_page_count, pragma_freelist_count";

/// How long to wait while another holds the lock: an outside `sqlite3`, for a moment.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Makes the file when there is none.
    Create,
    /// Writes and checkpoints.
    Write,
    /// Reads only.
    Read,
}

/// The file in a mission's state directory.
pub(super) fn db_path(dir: &Path) -> PathBuf {
    dir.join("mission.db")
}

/// SQLite's write-ahead log beside it.
pub(super) fn wal_path(dir: &Path) -> PathBuf {
    dir.join("mission.db-wal")
}

/// Opens a connection. `path` must be free of symlinks.
pub(super) fn connect(path: &Path, access: Access) -> rusqlite::Result<Connection> {
    let mode = match access {
        Access::Create => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let conn = Connection::open_with_flags(path, flags)?;
    // Closing must never write: after a failed sync, what is in the log is for the next open to
    // decide. The orderly shutdown checkpoints by itself.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.busy_timeout(BUSY)?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    Ok(conn)
}

/// Sets what the writing connections share.
pub(super) fn set_durability(conn: &Connection, durability: Durability) -> rusqlite::Result<()> {
    conn.pragma_update(
        None,
        "synchronous",
        match durability {
            Durability::Disk => "FULL",
            Durability::Process => "NORMAL",
        },
    )
}

/// The last pruned record, [`Head::EMPTY`] when none was.
pub(super) fn floor(conn: &Connection) -> rusqlite::Result<Head> {
    conn.query_row("SELECT seq, hash FROM floor", [], |row| head_of(row, 0))
}

/// The last record, or the floor when there is none above it.
pub(super) fn head(conn: &Connection) -> rusqlite::Result<Head> {
    let newest = "SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1";
    match conn.query_row(newest, [], |row| head_of(row, 0)) {
        Err(rusqlite::Error::QueryReturnedNoRows) => floor(conn),
        other => other,
    }
}

/// Reads a seq and a hash from two neighbouring columns.
pub(super) fn head_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Head> {
    Ok(Head { seq: seq_of(row, column)?, hash: hash_of(row, column + 1)? })
}

/// Reads a hash.
pub(super) fn hash_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Hash> {
    Hash::from_slice(row.get_ref(column)?.as_blob()?).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Blob,
            Box::new(NotAHash),
        )
    })
}

/// Reads a seq.
pub(super) fn seq_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let seq: i64 = row.get(column)?;
    u64::try_from(seq).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, seq))
}

/// A seq as SQLite takes it. Seqs come from the log itself, so the bound is never met.
pub(super) fn sql_seq(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// Whether the file has the marks of a log of missiond.
pub(super) fn is_ours(conn: &Connection) -> rusqlite::Result<bool> {
    let id: i32 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    Ok(id == APPLICATION_ID)
}

/// Makes SQLite refuse to grow the file beyond `bytes`. It never shrinks what is there.
pub(super) fn limit_pages(conn: &Connection, bytes: u64) -> rusqlite::Result<()> {
    // The largest page count that SQLite takes.
    let pages = (bytes / PAGE).clamp(1, 0xffff_fffe);
    conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
}

/// Whether the file would have grown beyond its limit with `bytes` more.
pub(super) fn beyond_limit(conn: &Connection, bytes: u64) -> bool {
    let number = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    match (number("PRAGMA page_count"), number("PRAGMA max_page_count")) {
        (Ok(count), Ok(max)) => {
            // One page more for the table's inner nodes.
            let more = i64::try_from(bytes / PAGE).unwrap_or(i64::MAX).saturating_add(2);
            count.saturating_add(more) > max
        }
        _ => false,
    }
}

/// What a checkpoint has found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frames {
    /// Length of the write-ahead log, in pages.
    pub(super) log: u64,
    /// Somebody's reading was in the way.
    pub(super) held: bool,
}

/// Runs a checkpoint of the given mode. Another's reading only means that the rest is done later;
/// another's checkpoint is `SQLITE_BUSY`, since then nothing was synced.
pub(super) fn checkpoint(conn: &Connection, mode: &str) -> rusqlite::Result<Frames> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let (held, log): (bool, i64) =
        conn.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // SQLite says -1 when it did not get as far as to look.
    let log = u64::try_from(log).map_err(|_| {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        rusqlite::Error::SqliteFailure(busy, None)
    })?;
    Ok(Frames { log, held })
}
