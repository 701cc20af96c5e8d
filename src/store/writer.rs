//! The thread that writes: group commit, and what may be said after it.
//!
//! ```text
//!   take everything that waits -> BEGIN IMMEDIATE -> INSERT .. -> COMMIT (one sync)
//!     ok, and the files are still ours -> Durable
//!     ok, but a file was replaced      -> Fatal
//!     INSERT failed, or COMMIT: full   -> ROLLBACK -> Failed, the queue is emptied and shut
//!     COMMIT failed otherwise          -> Fatal
//! ```
//!
//! A failure is *determinate* when the transaction is known to be gone. Any other error of a COMMIT
//! is not: after a failed sync the row is invisible here and may be back after the next open. Then
//! nothing is said, nothing is retried (a second `fsync` succeeds without having written), and the
//! thread ends; only reopening the log can tell what it holds.

use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, Statement, params};

use super::chain::{Hasher, Salts, seal};
use super::checkpoint::{Checkpointer, Watch, restart};
use super::error::{FatalError, JobError, WriteError, describe};
use super::headroom::Headroom;
use super::job::Job;
use super::maintenance;
use super::queue::{Batch, Queue, Work};
use super::record::{Hash, Head};
use super::room::Room;
use super::schema::{self, Frames, PAGE, SEGMENT, sql_seq};
use super::snapshot;
use super::{Class, Notice, Sink};

/// Bytes of records in one transaction. More would only make the first of them wait.
const GROUP_BYTES: usize = 4 << 20;
/// Pages written after which the file's size is asked for again.
const MEASURE_PAGES: u64 = 256;
/// The log is completed by the writer when it is this many times as long as it should get.
const RESTART_TIMES: u64 = 8;
/// Nothing but a transaction that somebody holds open lets it grow so many times as long.
const ALERT_TIMES: u64 = 256;

/// All that the thread starts with.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) room: Arc<Room>,
    pub(super) sink: Sink,
    pub(super) head: Head,
    pub(super) watch: Watch,
    pub(super) headroom: Headroom,
    pub(super) checkpointer: Checkpointer,
    /// Bytes the log may grow to.
    pub(super) size_limit: u64,
    /// Bytes beyond the limit that only facts may take.
    pub(super) overdraft: u64,
    /// Bytes of log after which a checkpoint is asked for.
    pub(super) checkpoint_bytes: u64,
    pub(super) progress: Progress,
}

/// What the thread keeps count of.
#[derive(Default)]
pub(super) struct Progress {
    hasher: Hasher,
    salts: Salts,
    /// Pages written since the last checkpoint was asked for; an estimate.
    pages: u64,
    /// Pages of the file that held something when that was last asked.
    used: u64,
    /// Pages written since then.
    unmeasured: u64,
    /// The checkpointer has been asked and has not answered.
    checkpointing: bool,
    /// The write-ahead log was reported as large.
    alerted: bool,
    /// Facts have been given the overdraft.
    overdrawn: bool,
}

/// Makes SQLite overwrite what is deleted. Not always on: pruning would write all that it frees.
const SCRUB: &str = "PRAGMA secure_delete = ON";
const NO_SCRUB: &str = "PRAGMA secure_delete = OFF";

impl Progress {
    fn wrote(&mut self, bytes: u64) {
        // The page that the rows go to, and one above it.
        let pages = bytes / PAGE + 2;
        self.pages += pages;
        self.unmeasured += pages;
    }
}

struct Statements<'a> {
    begin: Statement<'a>,
    insert: Statement<'a>,
    segment: Statement<'a>,
    commit: Statement<'a>,
    pages: Statement<'a>,
}

impl<'a> Statements<'a> {
    fn prepare(conn: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            begin: conn.prepare("BEGIN IMMEDIATE")?,
            insert: conn
                .prepare("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?,
            segment: conn.prepare("INSERT INTO segments VALUES (?1, ?2, ?3)")?,
            commit: conn.prepare("COMMIT")?,
            pages: conn.prepare(schema::USED_PAGES)?,
        })
    }
}

/// How a transaction can end badly.
enum Bad {
    /// It is known to be gone.
    Determinate(WriteError),
    /// Nothing is known.
    Unknown(FatalError),
}

impl Writer {
    /// Writes until the queue ends or the outcome of a write is unknown.
    pub(super) fn run(mut self, conn: &Connection) {
        let Err(why) = self.serve(conn) else {
            // In order: all is durable, so the log is folded into the file and emptied. Failing
            // that costs the next open some time and nothing else.
            if let Err(error) = schema::checkpoint(conn, "TRUNCATE") {
                tracing::warn!(%error, "cannot empty the write-ahead log");
            }
            return;
        };
        let text: Arc<str> = describe(&why).into();
        tracing::error!(why = %text, "the log can no longer be written");
        self.queue.die(&text);
        (self.sink)(Notice::Fatal { why });
    }

    fn serve(&mut self, conn: &Connection) -> Result<(), FatalError> {
        let prepared = Statements::prepare(conn);
        let mut sql = prepared.map_err(|source| FatalError::Connection { source })?;
        self.measure(&mut sql, true);
        loop {
            match self.queue.take(GROUP_BYTES) {
                Work::Group(group) => self.write(conn, &mut sql, &group)?,
                Work::Job(job) => self.job(conn, job)?,
                // Its last word may be that a sync failed: then nothing more may be synced.
                Work::End if self.checkpointer.stop() => continue,
                Work::End => return Ok(()),
            }
            self.measure(&mut sql, false);
            self.ask_for_checkpoint();
        }
    }

    /// Commits a group, and says what came of it.
    fn write(
        &mut self,
        conn: &Connection,
        sql: &mut Statements<'_>,
        group: &[Batch],
    ) -> Result<(), FatalError> {
        let mut outcome = self.transact(conn, sql, group);
        if let Err(Bad::Determinate(why)) = &outcome
            && group.iter().any(|batch| batch.class == Class::Fact)
            && self.make_room(conn, why)
        {
            outcome = self.transact(conn, sql, group);
        }
        match outcome {
            Ok(head) => {
                self.head = head;
                self.queue.committed(head);
                (self.sink)(Notice::Durable { head });
                Ok(())
            }
            Err(Bad::Determinate(why)) => {
                // First the gate, then the word: nothing decided on the failed state slips in.
                self.queue.rewind();
                (self.sink)(Notice::Failed { first_seq: self.head.seq + 1, why });
                Ok(())
            }
            Err(Bad::Unknown(why)) => Err(why),
        }
    }

    fn transact(
        &mut self,
        conn: &Connection,
        sql: &mut Statements<'_>,
        group: &[Batch],
    ) -> Result<Head, Bad> {
        if let Err(source) = sql.begin.execute([]) {
            return Err(Bad::Determinate(self.write_error(conn, group, source)));
        }
        let head = self.insert(conn, sql, group).map_err(|why| self.roll_back(conn, why))?;
        if let Err(source) = sql.commit.execute([]) {
            return Err(match source.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => {
                    let why = self.write_error(conn, group, source);
                    self.roll_back(conn, why)
                }
                _ => Bad::Unknown(FatalError::Commit { source }),
            });
        }
        // A commit into files that were deleted or replaced under us is a commit into nothing.
        self.watch.check().map_err(Bad::Unknown)?;
        Ok(head)
    }

    fn insert(
        &mut self,
        conn: &Connection,
        sql: &mut Statements<'_>,
        group: &[Batch],
    ) -> Result<Head, WriteError> {
        let mut head = self.head;
        let mut bytes = 0;
        for record in group.iter().flat_map(|batch| &batch.records) {
            let content = record.content.as_deref();
            let salt = match content {
                Some(_) => Some(self.progress.salts.draw().map_err(WriteError::salt)?),
                None => None,
            };
            let sealed = salt.zip(content).map(|(salt, content)| seal(&salt, content));
            let hash = self.progress.hasher.next(head.hash, &record.borrowed(), sealed);
            let row = params![
                sql_seq(record.seq),
                record.at_ms,
                &*record.kind,
                record.v,
                &*record.actor,
                &*record.envelope,
                &hash.0[..],
                salt.as_ref().map(|salt| &salt[..]),
                content,
            ];
            sql.insert.execute(row).map_err(|source| self.write_error(conn, group, source))?;
            head = Head { seq: record.seq, hash };
            if head.seq.is_multiple_of(SEGMENT) {
                let Hash(hash) = &hash;
                let row = params![sql_seq(head.seq), sql_seq(head.seq - SEGMENT + 1), &hash[..]];
                sql.segment.execute(row).map_err(|source| self.write_error(conn, group, source))?;
            }
            bytes += record.size() as u64;
        }
        self.progress.wrote(bytes);
        Ok(head)
    }

    /// Takes the transaction back, and makes sure that it is gone.
    fn roll_back(&self, conn: &Connection, why: WriteError) -> Bad {
        // Some errors have rolled back by themselves.
        if !conn.is_autocommit()
            && let Err(source) = conn.execute_batch("ROLLBACK")
        {
            return Bad::Unknown(FatalError::Rollback { source });
        }
        match schema::head(conn) {
            Ok(head) if head == self.head => Bad::Determinate(why),
            Ok(head) => {
                Bad::Unknown(FatalError::WrongHead { expected: self.head.seq, found: head.seq })
            }
            Err(source) => Bad::Unknown(FatalError::Rollback { source }),
        }
    }

    /// Names an error of writing `group`.
    fn write_error(
        &self,
        conn: &Connection,
        group: &[Batch],
        source: rusqlite::Error,
    ) -> WriteError {
        let bytes = || group.iter().map(|batch| batch.bytes as u64).sum();
        match source.sqlite_error_code() {
            // SQLite says the same of both.
            Some(ErrorCode::DiskFull) if schema::beyond_limit(conn, bytes()) => {
                WriteError::SizeLimit { limit: self.size_limit }
            }
            Some(ErrorCode::DiskFull) => WriteError::DiskFull,
            _ => WriteError::Sqlite { source },
        }
    }

    /// Gives facts the room that was kept back for them. False when that was done before.
    fn make_room(&mut self, conn: &Connection, why: &WriteError) -> bool {
        match why {
            WriteError::DiskFull => self.headroom.spend(),
            WriteError::SizeLimit { .. } if !self.progress.overdrawn => {
                // The limit may have been lowered below what is there.
                let reached = self.size_limit.max(self.progress.used * PAGE);
                let limit = reached.saturating_add(self.overdraft);
                self.progress.overdrawn = schema::limit_pages(conn, limit).is_ok();
                self.progress.overdrawn
            }
            WriteError::SizeLimit { .. }
            | WriteError::Sqlite { .. }
            | WriteError::Random { .. } => false,
        }
    }

    /// Looks at the room that is left, and says so when that changes.
    fn measure(&mut self, sql: &mut Statements<'_>, exactly: bool) {
        let was_low = self.room.is_low();
        let progress = &mut self.progress;
        // Asking the file costs a read transaction: an estimate does while there is room.
        if exactly || was_low || progress.unmeasured >= MEASURE_PAGES {
            let pages = sql.pages.query_row([], |row| row.get::<_, i64>(0));
            progress.used = pages.ok().and_then(|pages| u64::try_from(pages).ok()).unwrap_or(0);
            progress.unmeasured = 0;
        }
        let log_free = self.size_limit.saturating_sub((progress.used + progress.unmeasured) * PAGE);
        let disk_free = Headroom::free(self.room.dir());
        self.headroom.refill(disk_free);
        // In a small log the mark must not be most of it.
        let log_low = log_free < self.room.mark().min(self.size_limit / 16);
        let low = log_low || self.headroom.is_low(disk_free, was_low);
        self.room.set(low, log_low);
        if low != was_low {
            (self.sink)(Notice::Headroom { low, disk_free, log_free });
        }
    }

    fn job(&mut self, conn: &Connection, job: Job) -> Result<(), FatalError> {
        match job {
            Job::Measure => {}
            Job::Checkpointed(outcome) => {
                self.progress.checkpointing = false;
                match outcome {
                    Ok(frames) => self.checkpointed(conn, frames)?,
                    Err(source) => self.checkpoint_failed(source)?,
                }
            }
            Job::Snapshot(snapshot, done) => {
                self.progress.wrote(snapshot.state.len() as u64);
                let outcome = self.maintain(conn, |conn| snapshot::keep(conn, &snapshot))?;
                done.send(outcome);
            }
            Job::Erase(seqs, done) => {
                let outcome = self.erase(conn, &seqs)?;
                done.send(outcome);
            }
            Job::Prune { below, deleted, done } => {
                match self.maintain(conn, |conn| maintenance::prune(conn, below))? {
                    Ok(0) => {
                        self.pruned(conn);
                        done.send(Ok(deleted));
                    }
                    // The next part goes to the end of the queue, behind the batches that wait.
                    Ok(more) => {
                        self.progress.wrote(more * 64);
                        let deleted = deleted + more;
                        self.queue.inner_job(Job::Prune { below, deleted, done });
                    }
                    Err(error) => done.send(Err(error)),
                }
            }
        }
        Ok(())
    }

    /// Erases content, also from free pages and, unless an outside reader holds it, from the
    /// write-ahead log.
    fn erase(
        &mut self,
        conn: &Connection,
        seqs: &[u64],
    ) -> Result<Result<(), JobError>, FatalError> {
        let scrub = |sql| conn.execute_batch(sql);
        if let Err(source) = scrub(SCRUB) {
            return Ok(Err(JobError::Sqlite { source }));
        }
        let outcome = self.maintain(conn, |conn| maintenance::erase(conn, seqs))?;
        scrub(NO_SCRUB).map_err(|source| FatalError::Connection { source })?;
        if outcome.is_ok()
            && let Err(source) = schema::checkpoint(conn, "TRUNCATE")
        {
            self.checkpoint_failed(source)?;
        }
        Ok(outcome)
    }

    /// Runs a change beside the log's own in a transaction, under the same rule for its COMMIT.
    fn maintain<T>(
        &mut self,
        conn: &Connection,
        change: impl FnOnce(&Connection) -> Result<T, JobError>,
    ) -> Result<Result<T, JobError>, FatalError> {
        if let Err(source) = conn.execute_batch("BEGIN IMMEDIATE") {
            return Ok(Err(JobError::Sqlite { source }));
        }
        let refused = match change(conn) {
            Ok(value) => match conn.execute_batch("COMMIT") {
                Ok(()) => {
                    self.watch.check()?;
                    return Ok(Ok(value));
                }
                Err(source) if source.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                    JobError::Sqlite { source }
                }
                Err(source) => return Err(FatalError::Commit { source }),
            },
            Err(error) => error,
        };
        if !conn.is_autocommit() {
            conn.execute_batch("ROLLBACK").map_err(|source| FatalError::Rollback { source })?;
        }
        Ok(Err(refused))
    }

    /// After pruning the pages are free again, and so is the overdraft.
    fn pruned(&mut self, conn: &Connection) {
        if self.progress.overdrawn && schema::limit_pages(conn, self.size_limit).is_ok() {
            self.progress.overdrawn = false;
        }
    }

    /// One at a time, so that the checkpointer is idle when the writer completes its work.
    fn ask_for_checkpoint(&mut self) {
        let due = self.progress.pages * PAGE >= self.checkpoint_bytes;
        if due && !self.progress.checkpointing && self.checkpointer.kick() {
            self.progress.checkpointing = true;
            self.progress.pages = 0;
        }
    }

    fn checkpointed(&mut self, conn: &Connection, frames: Frames) -> Result<(), FatalError> {
        let bytes = frames.log * PAGE;
        let mut held = false;
        if bytes >= RESTART_TIMES.saturating_mul(self.checkpoint_bytes) {
            match restart(conn) {
                Ok(frames) => held = frames.held,
                Err(source) => self.checkpoint_failed(source)?,
            }
        }
        let alert = held && bytes >= ALERT_TIMES.saturating_mul(self.checkpoint_bytes);
        if alert && !self.progress.alerted {
            (self.sink)(Notice::WalLarge { bytes });
        }
        self.progress.alerted = alert;
        Ok(())
    }

    /// A checkpoint that lacks room or is in another's way is tried again later. One that could not
    /// sync is not: pages that failed to reach the disk count as clean afterwards.
    fn checkpoint_failed(&mut self, source: rusqlite::Error) -> Result<(), FatalError> {
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                tracing::warn!(error = %source, "the write-ahead log could not be folded in");
                Ok(())
            }
            _ => Err(FatalError::Checkpoint { source }),
        }
    }
}
