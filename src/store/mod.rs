//! The durable log: append, scan, snapshots, blobs. Bytes only; what an event means is the core's.
//!
//! ```text
//!   append(batch) --> bounded queue --> store-writer: one transaction, one sync --> Notice::Durable
//!                                          |  asks                                 (or Failed, Fatal)
//!                                       store-fold: checkpoints off the writer's path
//!   Reader (any thread) ------------------ sees what is durable, never more
//! ```
//!
//! One SQLite file `mission.db` that a person can read with `sqlite3`, one thread that writes it.
//! Batches that wait are committed together, so a sync serves all of them; the next group collects
//! while it runs. Every event carries the hash of the one before.
//!
//! What it deliberately does not do: it knows no kinds, validates no JSON, keeps no time, needs no
//! async runtime (notices come through a plain function), and never opens `mission.db` but through
//! SQLite. SQL exists in this module only, so that a segment file could replace the bodies.
//!
//! With [`Durability::Disk`] a record that was reported [`Notice::Durable`] survives power loss;
//! with [`Durability::Process`] it survives the death of this process, not that of the machine.

pub mod beneath;
pub mod blobs;
mod chain;
mod checkpoint;
mod error;
mod headroom;
mod job;
mod lock;
mod maintenance;
mod open;
mod queue;
mod reader;
mod record;
mod room;
mod schema;
mod snapshot;
mod verify;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

pub use self::error::{
    AppendError, FatalError, Flaw, JobError, OpenError, ReadError, VerifyError, WriteError,
};
pub use self::open::Recovery;
pub use self::reader::{Page, Reader};
pub use self::record::{Hash, Head, NotAHash, Record, RecordRef};
pub use self::snapshot::{NewSnapshot, Snapshot};
pub use self::verify::verify;

use self::checkpoint::{Checkpointer, Watch};
use self::headroom::Headroom;
use self::job::{Job, Reply};
use self::lock::Lock;
use self::queue::{Bounds, Queue};
use self::room::Room;
use self::schema::Access;
use self::writer::{Progress, Writer};

/// Bytes that one batch may have.
pub const MAX_BATCH_BYTES: usize = 64 << 20;

/// What a durable record survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Power loss: SQLite's `synchronous=FULL`, one `fdatasync` of the log before a commit returns.
    #[default]
    Disk,
    /// The death of the process: `synchronous=NORMAL`. The log is synced only when it is folded
    /// into the file. Power loss can cost the last events, but not the file (`OFF` could).
    Process,
}

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// What a durable record survives.
    pub durability: Durability,
    /// Bytes that the log's file may grow to.
    pub size_limit: u64,
    /// Free bytes on the disk below which requests are refused. 0 turns the refusal off.
    pub headroom: u64,
    /// Bytes set aside on the disk for facts. 0 sets none aside.
    pub reserve: u64,
    /// Bytes of write-ahead log after which it is folded into the file, off the writer's path. At 8
    /// times as much the writer itself completes that; at 256 times as much it raises an alert.
    pub checkpoint_bytes: u64,
    /// Records that may wait for the writer.
    pub queue_records: usize,
    /// Bytes of records that may wait for the writer.
    pub queue_bytes: usize,
    /// The encoding of snapshots that the caller understands; others are passed over.
    pub snapshot_version: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Disk,
            size_limit: 4 << 30,
            headroom: 32 << 20,
            reserve: 8 << 20,
            checkpoint_bytes: 1 << 20,
            queue_records: 65_536,
            queue_bytes: 64 << 20,
            snapshot_version: 1,
        }
    }
}

/// Whether a batch may be refused for want of room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Somebody asked for it and can be told no.
    Request,
    /// It has happened: an exit, a timer, a verdict.
    Fact,
}

/// What the writer has to say, in the order in which it happened.
#[derive(Debug)]
pub enum Notice {
    /// Everything up to `head` is durable.
    Durable {
        /// The last durable event.
        head: Head,
    },
    /// Everything from `first_seq` on is known not to have been written. The queue is shut: drop the
    /// state, refold what is durable, then [`Store::resume`].
    Failed {
        /// The first event that was not written.
        first_seq: u64,
        /// Why.
        why: WriteError,
    },
    /// Nothing is known of what was written after the last [`Self::Durable`], and the writer has
    /// ended. Say nothing of it, stop, and let the next open decide.
    Fatal {
        /// What happened.
        why: FatalError,
    },
    /// Requests are refused for want of room from now on, or pass again.
    Headroom {
        /// Whether they are refused.
        low: bool,
        /// Bytes free on the disk.
        disk_free: u64,
        /// Bytes the log may still grow.
        log_free: u64,
    },
    /// The write-ahead log has grown past 256 times [`Options::checkpoint_bytes`] (256 MiB): an
    /// outside reader holds a transaction open.
    WalLarge {
        /// Its size.
        bytes: u64,
    },
}

/// Where notices go. Called on the writer's thread: it must be quick and must not block.
pub type Sink = Box<dyn Fn(Notice) + Send>;

/// An open log.
#[derive(Debug)]
pub struct Opened {
    /// Writes it.
    pub store: Store,
    /// Reads it.
    pub reader: Reader,
    /// Its last event.
    pub head: Head,
    /// The newest whole snapshot; replay begins after it.
    pub snapshot: Option<Snapshot>,
    /// What was found and done.
    pub recovery: Recovery,
}

/// The writing side of an open log. Dropping it writes what waits, and closes it.
pub struct Store {
    queue: Arc<Queue>,
    room: Arc<Room>,
    thread: Option<JoinHandle<()>>,
    // Last, so that the lock outlives the writer.
    _lock: Lock,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("durable", &self.queue.durable()).finish_non_exhaustive()
    }
}

/// The right to a state directory without its log being open.
#[derive(Debug)]
pub struct Held {
    _lock: Lock,
}

/// Holds a state directory that nobody has opened, so that it can be put aside.
///
/// # Errors
/// [`OpenError::Locked`] while a log in it is open, [`OpenError::ReadOnly`], [`OpenError::Io`].
pub fn hold(dir: &Path) -> Result<Held, OpenError> {
    Ok(Held { _lock: open::take_lock(dir)? })
}

impl Store {
    /// Opens the log in the state directory `dir`, making both if need be. It verifies the chain
    /// from the newest snapshot on, so it can take seconds on a long log. `known` says whether a
    /// kind of event in a version can be read.
    ///
    /// # Errors
    /// See [`OpenError`]; the log is left as it was.
    pub fn open(
        dir: &Path,
        options: &Options,
        known: &dyn Fn(&str, u16) -> bool,
        sink: Sink,
    ) -> Result<Opened, OpenError> {
        let checked = open::check(dir, options, known)?;
        let open::Checked { conn, lock, dir, head, snapshot, recovery } = checked;
        let io = |what| {
            let path = schema::db_path(&dir);
            move |source| OpenError::Io { what, path, source }
        };
        let bounds = Bounds { records: options.queue_records, bytes: options.queue_bytes };
        let queue = Arc::new(Queue::new(head, bounds));
        let room = Arc::new(Room::new(&dir, options.headroom));
        let second = schema::connect(&schema::db_path(&dir), Access::Write)
            .and_then(|conn| schema::set_durability(&conn, options.durability).map(|()| conn))
            .map_err(|source| OpenError::Sqlite { dir: dir.clone(), source })?;
        let reader =
            Reader::new(&dir).map_err(|source| OpenError::Sqlite { dir: dir.clone(), source })?;
        let writer = Writer {
            queue: Arc::clone(&queue),
            room: Arc::clone(&room),
            sink,
            head,
            watch: Watch::new(&dir).map_err(io("find"))?,
            headroom: Headroom::new(&dir, options.reserve, options.headroom),
            checkpointer: Checkpointer::start(second, Arc::clone(&queue))
                .map_err(io("start a thread for"))?,
            size_limit: options.size_limit,
            overdraft: options.reserve,
            checkpoint_bytes: options.checkpoint_bytes,
            progress: Progress::default(),
        };
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(&conn))
            .map_err(io("start a thread for"))?;
        let store = Self { queue, room, thread: Some(thread), _lock: lock };
        Ok(Opened { store, reader, head, snapshot, recovery })
    }

    /// Queues a batch, to be written whole or not at all, and returns at once. Its outcome comes as
    /// a [`Notice`]. Seqs must continue those of the batch before.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing of the batch will be written.
    pub fn append(&self, batch: Vec<Record>, class: Class) -> Result<(), AppendError> {
        if class == Class::Request && self.room.is_low() {
            if self.room.may_have_recovered() {
                self.queue.inner_job(Job::Measure);
            }
            return Err(AppendError::LowSpace);
        }
        self.queue.append(batch, class)
    }

    /// Takes batches again after [`Notice::Failed`], once the state is that of the returned head.
    ///
    /// # Errors
    /// [`AppendError::Dead`] or [`AppendError::Closed`].
    pub fn resume(&self) -> Result<Head, AppendError> {
        self.queue.resume()
    }

    /// The last durable event.
    #[must_use]
    pub fn durable(&self) -> Head {
        self.queue.durable()
    }

    /// Whether requests are refused for want of room.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.room.is_low()
    }

    /// Keeps a snapshot, and drops all but the two newest. Its head must be durable. `done` is
    /// called on the writer's thread, or here when the store takes no more work.
    pub fn save_snapshot(
        &self,
        snapshot: NewSnapshot,
        done: impl FnOnce(Result<(), JobError>) + Send + 'static,
    ) {
        self.submit(Job::Snapshot(snapshot, Reply::new(done)));
    }

    /// Deletes the events of whole segments (65,536 events) below `below`, as far as they also lie
    /// below the oldest kept snapshot, a part at a time between batches. `done` gets their number.
    pub fn prune(&self, below: u64, done: impl FnOnce(Result<u64, JobError>) + Send + 'static) {
        self.submit(Job::Prune { below, deleted: 0, done: Reply::new(done) });
    }

    /// Erases the content of events from the file. The chain still verifies. What a snapshot's state
    /// holds of it is the caller's to replace. What an outside reader
    /// holds in the write-ahead log is overwritten when it lets go.
    pub fn erase(&self, seqs: Vec<u64>, done: impl FnOnce(Result<(), JobError>) + Send + 'static) {
        self.submit(Job::Erase(seqs, Reply::new(done)));
    }

    /// Writes what waits, folds the write-ahead log into the file, and closes the log. Blocks until
    /// that is done, and returns the last durable event.
    pub fn close(mut self) -> Head {
        self.end();
        self.queue.durable()
    }

    fn submit(&self, job: Job) {
        if let Err((job, why)) = self.queue.job(job) {
            job.refuse(why);
        }
    }

    fn end(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // The writer does not panic; if it did, what it said before stands.
            let _ended = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.end();
    }
}
