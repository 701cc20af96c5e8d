//! Reading the log. Only durable events are ever seen: SQLite shows a commit to other connections
//! after its sync, and one whose sync failed not at all.

use std::collections::HashSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::error::{ReadError, VerifyError};
use super::record::{Head, Record, RecordRef};
use super::schema::{self, Access, ROWS, seq_of, sql_seq};
use super::snapshot::{self, Snapshot};
use super::verify::walk;

/// Bytes of one page, exceeded by its last event: so that large contents don't pile up.
const PAGE_BYTES: usize = 4 << 20;
/// Events looked at for one page, when a filter passes few of them.
const LOOKED_AT: u64 = 64_000;
/// Idle connections that are kept.
const IDLE: usize = 8;

/// A handle for reading; clones share a small pool of connections. Every call blocks for file
/// reads, so call it from a thread that may.
#[derive(Debug, Clone)]
pub struct Reader {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    /// Never read from, and open for as long as anything can be read. Without it, the connection
    /// that comes first after the writer has died would recover the write-ahead log, and show the
    /// events whose sync failed.
    _anchor: Mutex<Connection>,
}

/// A part of the log.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The events, in order.
    pub records: Vec<Record>,
    /// Where to go on: the seq after the last event that was looked at.
    pub next_seq: u64,
    /// Whether the log's end was reached.
    pub at_end: bool,
}

impl Reader {
    pub(super) fn new(dir: &Path) -> rusqlite::Result<Self> {
        let path = schema::db_path(dir);
        let anchor = schema::connect(&path, Access::Read)?;
        // SQLite opens the log with the first use.
        schema::floor(&anchor)?;
        let pool = Pool { path, idle: Mutex::default(), _anchor: Mutex::new(anchor) };
        Ok(Self { pool: Arc::new(pool) })
    }

    /// The last durable event.
    ///
    /// # Errors
    /// [`ReadError::Sqlite`].
    pub fn head(&self) -> Result<Head, ReadError> {
        self.with(schema::head)
    }

    /// The last pruned event: the log begins with the one after it.
    ///
    /// # Errors
    /// [`ReadError::Sqlite`].
    pub fn floor(&self) -> Result<Head, ReadError> {
        self.with(schema::floor)
    }

    /// One event, `None` if it is not durable (yet) or was pruned.
    ///
    /// # Errors
    /// [`ReadError::Sqlite`].
    pub fn get(&self, seq: u64) -> Result<Option<Record>, ReadError> {
        self.with(|conn| {
            let mut select = conn.prepare(&select("seq = ?1"))?;
            let mut names = Names::default();
            select.query_row([sql_seq(seq)], |row| record(row, &mut names)).optional()
        })
    }

    /// Up to `limit` (at most 1,000) events from `from_seq` on, of the given `kinds` or of all when
    /// that is empty, and no more once they hold 4 MiB. Follow [`Page::next_seq`]: with a filter a
    /// page can be empty before the end.
    ///
    /// # Errors
    /// [`ReadError::Sqlite`].
    pub fn scan(&self, from_seq: u64, limit: usize, kinds: &[&str]) -> Result<Page, ReadError> {
        self.with(|conn| {
            let mut select = conn.prepare(&select("seq >= ?1 ORDER BY seq LIMIT ?2"))?;
            let mut names = Names::default();
            let mut page = Page { next_seq: from_seq, ..Page::default() };
            let limit = limit.clamp(1, 1000);
            let mut bytes = 0;
            while page.records.len() < limit
                && bytes < PAGE_BYTES
                && page.next_seq - from_seq < LOOKED_AT
            {
                let want = if kinds.is_empty() {
                    i64::try_from(limit - page.records.len()).unwrap_or(ROWS).min(ROWS)
                } else {
                    ROWS
                };
                let mut seen = 0;
                let mut rows = select.query([sql_seq(page.next_seq), want])?;
                while page.records.len() < limit
                    && bytes < PAGE_BYTES
                    && let Some(row) = rows.next()?
                {
                    seen += 1;
                    page.next_seq = seq_of(row, 0)? + 1;
                    if kinds.is_empty() || kinds.contains(&row.get_ref(2)?.as_str()?) {
                        let record = record(row, &mut names)?;
                        bytes += record.size();
                        page.records.push(record);
                    }
                }
                if seen < want && page.records.len() < limit && bytes < PAGE_BYTES {
                    page.at_end = true;
                    break;
                }
            }
            Ok(page)
        })
    }

    /// Hands every event from `from_seq` to the end to `apply`, without its content, and returns
    /// the last one's seq. This is the fast way to rebuild state: nothing is copied.
    ///
    /// # Errors
    /// [`ReadError::Stopped`] with what `apply` returned, or [`ReadError::Sqlite`].
    pub fn fold<E: Into<Box<dyn Error + Send + Sync>>>(
        &self,
        from_seq: u64,
        mut apply: impl FnMut(RecordRef<'_>) -> Result<(), E>,
    ) -> Result<u64, ReadError> {
        self.with_result(|conn| {
            let mut select = conn.prepare(
                "SELECT seq, at, kind, v, actor, envelope FROM events
                 WHERE seq >= ?1 ORDER BY seq LIMIT ?2",
            )?;
            let mut next = from_seq;
            loop {
                let before = next;
                let mut rows = select.query([sql_seq(next), ROWS])?;
                while let Some(row) = rows.next()? {
                    let record = borrowed(row, None)?;
                    let seq = record.seq;
                    apply(record).map_err(|why| ReadError::Stopped { seq, why: why.into() })?;
                    next = seq + 1;
                }
                if next == before {
                    return Ok(next.saturating_sub(1));
                }
            }
        })
    }

    /// The newest whole snapshot whose state has the encoding `version`.
    ///
    /// # Errors
    /// [`ReadError::Sqlite`].
    pub fn latest_snapshot(&self, version: u32) -> Result<Option<Snapshot>, ReadError> {
        self.with(|conn| snapshot::newest(conn, version)).map(|(snapshot, _)| snapshot)
    }

    /// Verifies the chain after `from`, the floor or a snapshot's head, to the end.
    ///
    /// # Errors
    /// As [`verify`](super::verify()).
    pub fn verify(&self, from: Head) -> Result<Head, VerifyError> {
        let conn = self.take()?;
        let head = walk(&conn, from, &|_, _| true);
        self.give_back(conn);
        head
    }

    fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        self.with_result(|conn| read(conn).map_err(ReadError::from))
    }

    fn with_result<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let conn = self.take()?;
        let value = read(&conn)?;
        // A connection that failed is not used again.
        self.give_back(conn);
        Ok(value)
    }

    fn take(&self) -> rusqlite::Result<Connection> {
        let idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| schema::connect(&self.pool.path, Access::Read), Ok)
    }

    fn give_back(&self, conn: Connection) {
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(conn);
        }
    }
}

/// Names that come again in every row, shared.
#[derive(Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

fn select(condition: &str) -> String {
    format!("SELECT seq, at, kind, v, actor, envelope, content FROM events WHERE {condition}")
}

fn borrowed<'a>(row: &'a Row<'_>, content: Option<usize>) -> rusqlite::Result<RecordRef<'a>> {
    Ok(RecordRef {
        seq: seq_of(row, 0)?,
        at_ms: row.get(1)?,
        kind: row.get_ref(2)?.as_str()?,
        v: row.get(3)?,
        actor: row.get_ref(4)?.as_str()?,
        envelope: row.get_ref(5)?.as_str()?,
        content: match content {
            Some(column) => row.get_ref(column)?.as_str_or_null()?,
            None => None,
        },
    })
}

fn record(row: &Row<'_>, names: &mut Names) -> rusqlite::Result<Record> {
    let row = borrowed(row, Some(6))?;
    Ok(Record {
        seq: row.seq,
        at_ms: row.at_ms,
        kind: names.share(row.kind),
        v: row.v,
        actor: names.share(row.actor),
        envelope: row.envelope.into(),
        content: row.content.map(Into::into),
    })
}
