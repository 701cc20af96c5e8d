//! Folding the write-ahead log into the file, off the writer's path; and watching both files.
//!
//! A second thread with its own connection does the bulk as `PASSIVE` checkpoints, which stop
//! nobody. When the log is long all the same, the writer completes it with a short `RESTART`, after
//! which the log is written from its start again.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, io};

use rusqlite::Connection;

use super::error::FatalError;
use super::job::Job;
use super::queue::Queue;
use super::schema::{self, Frames};

/// The thread that checkpoints.
pub(super) struct Checkpointer {
    kicks: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(conn: Connection, queue: Arc<Queue>) -> io::Result<Self> {
        // One kick may wait while another is served: it then sees all that was written meanwhile.
        let (kicks, kicked) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("store-fold".into()).spawn(move || {
            while kicked.recv().is_ok() {
                queue.urgent_job(Job::Checkpointed(schema::checkpoint(&conn, "PASSIVE")));
            }
        })?;
        Ok(Self { kicks: Some(kicks), thread: Some(thread) })
    }

    /// Asks for a checkpoint. False when one is already asked for.
    pub(super) fn kick(&self) -> bool {
        self.kicks.as_ref().is_some_and(|kicks| kicks.try_send(()).is_ok())
    }

    /// Lets the checkpoint under way end, and the thread with it. False when that was done before.
    pub(super) fn stop(&mut self) -> bool {
        self.kicks = None;
        // The thread does not panic; if it did, there is nothing left to stop.
        self.thread.take().map(JoinHandle::join).is_some()
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Completes the checkpoint on the writer's connection, unless somebody would have to be waited for.
pub(super) fn restart(conn: &Connection) -> rusqlite::Result<Frames> {
    conn.busy_timeout(Duration::ZERO)?;
    let outcome = schema::checkpoint(conn, "RESTART");
    conn.busy_timeout(schema::BUSY)?;
    outcome
}

/// The identity of the files that SQLite has open.
#[derive(Debug)]
pub(super) struct Watch {
    files: [(PathBuf, (u64, u64)); 2],
}

impl Watch {
    /// Remembers the files as they are now. Both must exist: SQLite has just opened them.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let seen = |path: PathBuf| -> io::Result<_> {
            let id = identity(&path)?;
            Ok((path, id))
        };
        Ok(Self { files: [seen(schema::db_path(dir))?, seen(schema::wal_path(dir))?] })
    }

    /// Checks that the paths still lead to the same files.
    pub(super) fn check(&self) -> Result<(), FatalError> {
        for (path, expected) in &self.files {
            match identity(path) {
                Ok(found) if found == *expected => {}
                Ok(_) => return Err(FatalError::Replaced { path: path.clone() }),
                Err(source) => return Err(FatalError::Vanished { path: path.clone(), source }),
            }
        }
        Ok(())
    }
}

/// `stat` opens nothing, so it costs no lock.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_or_vanished_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let wal = schema::wal_path(dir.path());
        fs::write(schema::db_path(dir.path()), "").unwrap();
        fs::write(&wal, "").unwrap();
        let watch = Watch::new(dir.path()).unwrap();
        assert!(watch.check().is_ok());
        let other = dir.path().join("other");
        fs::write(&other, "").unwrap();
        fs::rename(&other, &wal).unwrap();
        assert!(matches!(watch.check(), Err(FatalError::Replaced { path }) if path == wal));
        fs::remove_file(&wal).unwrap();
        assert!(matches!(watch.check(), Err(FatalError::Vanished { path, .. }) if path == wal));
    }
}
