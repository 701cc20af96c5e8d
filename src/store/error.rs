//! What can go wrong with the log, one enum for each thing that was asked for.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a log cannot be opened. Nothing in it has been changed or overwritten.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the log in `{}` is in use{}", dir.display(), by(*pid))]
    Locked {
        /// The state directory.
        dir: PathBuf,
        /// The process, if it is known.
        pid: Option<i32>,
    },
    /// A newer missiond wrote events or a layout that this one does not know.
    #[error("the log was written by a newer missiond: {what}")]
    NewerVersion {
        /// What is not known.
        what: String,
    },
    /// The log is damaged. It is left as it is.
    #[error("the log is damaged{}: {what}", at(*seq))]
    Corrupt {
        /// The first event that is not as it was written, if it is known.
        seq: Option<u64>,
        /// What is wrong with it.
        what: String,
    },
    /// The directory cannot be written.
    #[error("`{}` cannot be written", path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk is full, the reserve included.
    #[error("no space is left for the log in `{}`", dir.display())]
    Full {
        /// The state directory.
        dir: PathBuf,
    },
    /// Others could change the log, or we cannot.
    #[error("`{}` must belong to the user and be writable by nobody else: owner {uid}, mode {mode:o}", path.display())]
    BadPermissions {
        /// The directory or file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// A file is there that missiond did not make.
    #[error("`{}` is not a missiond log", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The file system cannot hold the log.
    #[error("the file system of `{}` supports no write-ahead log (shared memory mappings)", dir.display())]
    Unsupported {
        /// The state directory.
        dir: PathBuf,
    },
    /// A file could not be used.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// SQLite failed.
    #[error("cannot open the log in `{}`", dir.display())]
    Sqlite {
        /// The state directory.
        dir: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
}

fn by(pid: Option<i32>) -> String {
    pid.map_or_else(|| " by another process".to_owned(), |pid| format!(" by process {pid}"))
}

fn at(seq: Option<u64>) -> String {
    seq.map_or_else(String::new, |seq| format!(" at event {seq}"))
}

/// Why a batch was not queued. Nothing of it will be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Too much waits for the disk already.
    #[error("too much waits for the disk")]
    QueueFull,
    /// The batch alone is larger than what may be written at once.
    #[error("a batch of {bytes} bytes is too large")]
    TooLarge {
        /// The batch's size.
        bytes: usize,
    },
    /// Too little room is left for requests; facts still pass.
    #[error("too little disk space is left")]
    LowSpace,
    /// An earlier batch failed ([`Notice::Failed`](super::Notice::Failed)); refold, then
    /// [`Store::resume`](super::Store::resume).
    #[error("an earlier batch failed and the state must be refolded")]
    Rewound,
    /// The seqs do not continue the log.
    #[error("event {got} does not follow; {expected} does")]
    OutOfSequence {
        /// The seq that comes next.
        expected: u64,
        /// The seq that came.
        got: u64,
    },
    /// There is nothing in the batch.
    #[error("the batch is empty")]
    Empty,
    /// The store is closing.
    #[error("the log is closing")]
    Closed,
    /// A write ended with an unknown outcome ([`Notice::Fatal`](super::Notice::Fatal)).
    #[error("the log can no longer be written: {why}")]
    Dead {
        /// What happened, with its causes.
        why: Arc<str>,
    },
}

/// Why a batch that was queued is known not to have been written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No room on the disk.
    #[error("no space is left on the disk")]
    DiskFull,
    /// The log has reached its limit.
    #[error("the log has reached its limit of {limit} bytes")]
    SizeLimit {
        /// [`Options::size_limit`](super::Options::size_limit).
        limit: u64,
    },
    /// SQLite refused, and took the transaction back.
    #[error("the event could not be inserted")]
    Sqlite {
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// No random bytes for a salt.
    #[error("no random bytes: {why}")]
    Random {
        /// What the system said.
        why: String,
    },
}

impl WriteError {
    pub(super) fn salt(error: getrandom::Error) -> Self {
        Self::Random { why: error.to_string() }
    }
}

/// Why nothing can be said about what was written. The process must end; opening the log again
/// decides what it holds.
#[derive(Debug, thiserror::Error)]
pub enum FatalError {
    /// A commit failed after it may have reached the disk.
    #[error("a commit failed with an unknown outcome")]
    Commit {
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// A failed transaction could not be taken back.
    #[error("a failed transaction could not be rolled back")]
    Rollback {
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// Folding the write-ahead log into the file failed.
    #[error("the write-ahead log could not be folded into the log")]
    Checkpoint {
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The writing connection could not be set up.
    #[error("the writing connection failed")]
    Connection {
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// A file of the log was replaced while it was open.
    #[error("`{}` was replaced while it was open", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// A file of the log was deleted while it was open.
    #[error("`{}` vanished while it was open", path.display())]
    Vanished {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process has written to the log.
    #[error("the log ends with event {found} instead of {expected}")]
    WrongHead {
        /// The event that was written last.
        expected: u64,
        /// The event that is last.
        found: u64,
    },
}

/// Why a snapshot, an erasure or a pruning was not done. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The head of a snapshot is not one of this log.
    #[error("event {seq} does not have the hash that the snapshot names")]
    UnknownHead {
        /// The snapshot's event.
        seq: u64,
    },
    /// There is no such event (any more).
    #[error("there is no event {seq}")]
    NoSuchEvent {
        /// The event asked for.
        seq: u64,
    },
    /// The store takes no more work.
    #[error("the log takes no more work: {0}")]
    Refused(#[source] AppendError),
    /// The store ended before it came to this.
    #[error("the log was closed before that was done")]
    Abandoned,
    /// SQLite failed.
    #[error("the log could not be changed")]
    Sqlite {
        /// What SQLite said.
        #[from]
        source: rusqlite::Error,
    },
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// SQLite failed.
    #[error("the log could not be read")]
    Sqlite {
        /// What SQLite said.
        #[from]
        source: rusqlite::Error,
    },
    /// Whoever was handed the records wanted no more of them.
    #[error("reading stopped at event {seq}")]
    Stopped {
        /// The event at which it stopped.
        seq: u64,
        /// Why.
        #[source]
        why: Box<dyn Error + Send + Sync>,
    },
}

/// Why a log does not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// An event is not as it was written.
    #[error("event {seq} {flaw}")]
    Broken {
        /// The first such event.
        seq: u64,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// An event is of a kind or version that is not known.
    #[error("event {seq} is of kind {kind} version {v}")]
    Newer {
        /// The event.
        seq: u64,
        /// Its kind.
        kind: String,
        /// The version of its encoding.
        v: u16,
    },
    /// The file is not a log of missiond.
    #[error("not a missiond log")]
    NotOurs,
    /// SQLite failed.
    #[error("the log could not be read")]
    Sqlite {
        /// What SQLite said.
        #[from]
        source: rusqlite::Error,
    },
}

/// What is wrong with an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// It was changed, moved, or follows another event than it did.
    #[error("was changed: its hash does not match")]
    Altered,
    /// It ends a segment whose recorded hash is another, or is missing.
    #[error("does not match the recorded end of its segment")]
    Segment,
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

/// An error with its causes, on one line.
pub(super) fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
