//! Opening a log: everything is checked before anything is served.
//!
//! ```text
//!   directory -> lock -> is it ours, not newer -> fold the write-ahead log in
//!     -> quick_check -> newest whole snapshot -> chain from there -> serve
//! ```
//!
//! Whatever is wrong is named and left as it is.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::geteuid;
use rusqlite::{Connection, ErrorCode};

use super::Options;
use super::error::{Flaw, OpenError, VerifyError};
use super::headroom::Headroom;
use super::lock::{Lock, LockError};
use super::record::Head;
use super::schema::{self, Access};
use super::snapshot::{self, Snapshot};
use super::verify::walk;

/// What was found, and done, when the log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// There was no log before.
    pub created: bool,
    /// The pid of a former opener that did not end in order.
    pub stale_lock: Option<i32>,
    /// Pages that were still in the write-ahead log.
    pub wal_pages: u64,
    /// The chain was verified after this event: the newest whole snapshot's, or the last pruned.
    pub verified_from: u64,
    /// Snapshots that are damaged and were passed over.
    pub damaged_snapshots: Vec<u64>,
}

/// A log that was checked and is held.
pub(super) struct Checked {
    pub(super) conn: Connection,
    pub(super) lock: Lock,
    pub(super) dir: PathBuf,
    pub(super) head: Head,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) recovery: Recovery,
}

pub(super) fn check(
    dir: &Path,
    options: &Options,
    known: &dyn Fn(&str, u16) -> bool,
) -> Result<Checked, OpenError> {
    let dir = directory(dir)?;
    let attempt = || {
        let lock = take_lock(&dir)?;
        let opener = Opener { dir: &dir, options, known };
        opener.open(lock)
    };
    match attempt() {
        // What was kept back for facts also serves to open at all.
        Err(OpenError::Full { .. }) if Headroom::new(&dir, options.reserve, 0).spend() => attempt(),
        other => other,
    }
}

struct Opener<'a> {
    dir: &'a Path,
    options: &'a Options,
    known: &'a dyn Fn(&str, u16) -> bool,
}

impl Opener<'_> {
    fn open(&self, lock: Lock) -> Result<Checked, OpenError> {
        let path = schema::db_path(self.dir);
        let mut recovery = Recovery { stale_lock: lock.stale, ..Recovery::default() };
        self.check_files(&path)?;
        let sql = |source| self.classify(source);
        let conn = schema::connect(&path, Access::Create).map_err(sql)?;
        if conn.is_readonly("main").map_err(sql)? {
            return Err(bad_permissions(&path));
        }
        recovery.created = self.claim(&conn)?;
        schema::set_durability(&conn, self.options.durability).map_err(sql)?;
        // All writing is left to COMMIT, whose failures are told apart with care.
        conn.pragma_update(None, "cache_spill", false).map_err(sql)?;
        schema::limit_pages(&conn, self.options.size_limit).map_err(sql)?;
        // The number of pages is known only before they are folded in.
        recovery.wal_pages = schema::checkpoint(&conn, "NOOP").map_err(sql)?.log;
        match schema::checkpoint(&conn, "TRUNCATE") {
            // What is in the write-ahead log has been synced by now; it only stays there.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                tracing::warn!("no space is left to fold the write-ahead log in");
            }
            outcome => drop(outcome.map_err(sql)?),
        }
        let complaint = self.quick_check(&conn)?;
        let (snapshot, damaged) = if complaint.is_none() {
            snapshot::newest(&conn, self.options.snapshot_version).map_err(sql)?
        } else {
            (None, Vec::new())
        };
        recovery.damaged_snapshots = damaged;
        let from = match &snapshot {
            Some(snapshot) => snapshot.head,
            None => schema::floor(&conn).map_err(sql)?,
        };
        recovery.verified_from = from.seq;
        let walked = walk(&conn, from, self.known);
        if let Some(what) = complaint {
            let seq = match walked {
                Err(VerifyError::Broken { seq, .. }) => Some(seq),
                _ => None,
            };
            return Err(OpenError::Corrupt { seq, what });
        }
        let head = walked.map_err(|error| self.unverified(error))?;
        Ok(Checked { conn, lock, dir: self.dir.to_owned(), head, snapshot, recovery })
    }

    /// What can be told without SQLite. Nothing is opened here, only `stat` is used.
    fn check_files(&self, path: &Path) -> Result<(), OpenError> {
        let wal = fs::symlink_metadata(schema::wal_path(self.dir)).map_or(0, |meta| meta.len());
        let db = match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_file() => meta.len(),
            Ok(_) => return Err(OpenError::NotOurs { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => return Err(io_error("look at", path, source)),
        };
        // SQLite would throw the orphan away.
        if db == 0 && wal > 0 {
            let what = "mission.db is gone, but its write-ahead log is there".to_owned();
            return Err(OpenError::Corrupt { seq: None, what });
        }
        Ok(())
    }

    /// Makes the layout in an empty file; true if it did. Any other file must already have it.
    fn claim(&self, conn: &Connection) -> Result<bool, OpenError> {
        let sql = |source| self.classify(source);
        let number = |pragma: &str| conn.query_row(pragma, [], |row| row.get::<_, i32>(0));
        let tables = "SELECT count(*) FROM sqlite_schema";
        let empty =
            number(tables).map_err(sql)? == 0 && number("PRAGMA application_id").map_err(sql)? == 0;
        if !empty && !schema::is_ours(conn).map_err(sql)? {
            return Err(OpenError::NotOurs { path: schema::db_path(self.dir) });
        }
        let version = number("PRAGMA user_version").map_err(sql)?;
        if version > schema::SCHEMA_VERSION {
            let what = format!("layout {version}");
            return Err(OpenError::NewerVersion { what });
        }
        let mode: String =
            conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sql)?;
        if mode != "wal" {
            return Err(OpenError::Unsupported { dir: self.dir.to_owned() });
        }
        if empty {
            // One transaction: after a crash there is either all of it or still nothing.
            let make = format!(
                "BEGIN IMMEDIATE; {} PRAGMA application_id = {}; PRAGMA user_version = {}; COMMIT;",
                schema::DDL,
                schema::APPLICATION_ID,
                schema::SCHEMA_VERSION,
            );
            conn.execute_batch(&make).map_err(sql)?;
            sync_dir(self.dir)?;
        }
        Ok(empty)
    }

    fn quick_check(&self, conn: &Connection) -> Result<Option<String>, OpenError> {
        let answer = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        match answer {
            Ok(answer) if answer == "ok" => Ok(None),
            Ok(answer) => Ok(Some(answer.replace('\n', " "))),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
                Ok(Some(error.to_string()))
            }
            Err(error) => Err(self.classify(error)),
        }
    }

    fn unverified(&self, error: VerifyError) -> OpenError {
        match error {
            VerifyError::Broken { seq, flaw } => OpenError::Corrupt {
                seq: Some(seq),
                what: match flaw {
                    Flaw::Missing | Flaw::Altered | Flaw::Segment => format!("it {flaw}"),
                    Flaw::Unreadable(what) => what,
                },
            },
            VerifyError::Newer { seq, kind, v } => OpenError::NewerVersion {
                what: format!("event {seq} is of kind {kind} version {v}"),
            },
            VerifyError::NotOurs => OpenError::NotOurs { path: schema::db_path(self.dir) },
            VerifyError::Sqlite { source } => self.classify(source),
        }
    }

    /// Says what an SQLite error means to whoever wants the log open.
    fn classify(&self, source: rusqlite::Error) -> OpenError {
        let dir = self.dir.to_owned();
        let path = schema::db_path(self.dir);
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => OpenError::NotOurs { path },
            Some(ErrorCode::DatabaseCorrupt) => {
                OpenError::Corrupt { seq: None, what: source.to_string() }
            }
            Some(ErrorCode::DiskFull) => OpenError::Full { dir },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                OpenError::Locked { dir, pid: None }
            }
            // SQLite does not pass on why it could not make or grow a file.
            Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure)
                if Headroom::free(self.dir) == 0 =>
            {
                OpenError::Full { dir }
            }
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                let files = [path, schema::wal_path(self.dir)];
                let closed = files.iter().find(|path| {
                    fs::symlink_metadata(path).is_ok_and(|meta| {
                        meta.uid() != geteuid().as_raw() || meta.mode() & 0o600 != 0o600
                    })
                });
                match closed {
                    Some(path) => bad_permissions(path),
                    None => OpenError::Sqlite { dir, source },
                }
            }
            _ => OpenError::Sqlite { dir, source },
        }
    }
}

/// Makes the directory if need be, and checks that it is ours alone.
fn directory(dir: &Path) -> Result<PathBuf, OpenError> {
    match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Ok(()) => {}
        Err(source) => return Err(unwritable(dir, source)),
    }
    // SQLite is told not to follow symlinks; those above the directory are the user's own.
    let dir = dir.canonicalize().map_err(|source| io_error("find", dir, source))?;
    let meta = fs::metadata(&dir).map_err(|source| io_error("look at", &dir, source))?;
    if meta.uid() != geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        return Err(bad_permissions(&dir));
    }
    Ok(dir)
}

pub(super) fn take_lock(dir: &Path) -> Result<Lock, OpenError> {
    Lock::take(dir).map_err(|error| match error {
        LockError::Held(pid) => OpenError::Locked { dir: dir.to_owned(), pid },
        LockError::Io(source) => unwritable(dir, source),
    })
}

/// Names a failure to make a file or directory.
fn unwritable(dir: &Path, source: io::Error) -> OpenError {
    let errno = Errno::from_raw(source.raw_os_error().unwrap_or(0));
    if matches!(errno, Errno::ENOSPC | Errno::EDQUOT) {
        OpenError::Full { dir: dir.to_owned() }
    } else if matches!(errno, Errno::EACCES | Errno::EPERM | Errno::EROFS) {
        OpenError::ReadOnly { path: dir.to_owned(), source }
    } else {
        io_error("make", dir, source)
    }
}

fn bad_permissions(path: &Path) -> OpenError {
    let (uid, mode) = fs::metadata(path).map_or((0, 0), |meta| (meta.uid(), meta.mode() & 0o7777));
    OpenError::BadPermissions { path: path.to_owned(), uid, mode }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { what, path: path.to_owned(), source }
}

/// Makes the names of new files durable, and the directory's own.
fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    for dir in [Some(dir), dir.parent()].into_iter().flatten() {
        match File::open(dir).and_then(|dir| dir.sync_all()) {
            Ok(()) => {}
            // A parent that cannot be read was not made by us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(source) => return Err(io_error("sync", dir, source)),
        }
    }
    Ok(())
}
