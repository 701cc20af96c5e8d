//! Sockets: making them, accepting on them, turning away whoever is too many or not who they should
//! be. One task per socket, so that a flood at one is nobody else's.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::conn::{Conn, ConnId};
use super::identity::{self, Reason, Standing};
use super::inbound::{Input, Kind};
use super::quota::{Bucket, Owner, SECOND};
use super::reader::{self, Clock, Reader};
use crate::core::denied::{Code, Denied};
use crate::proto::encode;
use crate::sys::peer::{Peer, PeerError, ProcessId};
use crate::sys::socket::Socket;

/// Peers that are looked at at once, each by a blocking thread of the runtime: what the kernel says of
/// a chain of ancestors is read from many files, and a loaded machine is slow at that.
pub const IDENTIFYING: usize = 4;

/// The longest path of a socket, in bytes (unix(7): `sun_path` has 108, one for the end).
const MAX_PATH: usize = 107;

/// New connections per second at one socket; beyond, the next ones wait in the kernel's queue.
const CONNECTS: u32 = 200;

/// How long a peer waits for the launch of its agent to be known.
const LAUNCH: Duration = Duration::from_secs(5);

/// How long accepting pauses when descriptors run out, unless a connection ends before.
const PAUSE: Duration = Duration::from_secs(1);

/// Connections that agents in all leave free for operators.
const FOR_OPERATORS: usize = 32;

/// Refusals that are reported one by one per minute and socket; more are counted.
const REFUSALS: u32 = 10;

/// What tells an agent's processes from others: they have this ancestor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// No process: everyone is refused.
    None,
    /// A launch is under way: peers wait a little for its outcome.
    Pending,
    /// The agent's shim (or, in a container, its first process).
    Process(ProcessId),
}

/// A socket that can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// `sun_path` has 108 bytes, one of them for the end (unix(7)).
    #[error(
        "socket path {} has {length} bytes, at most {MAX_PATH} are possible: use a shorter XDG_RUNTIME_DIR or mission name",
        path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Something else has that name.
    #[error("{} exists and is no socket of ours", path.display())]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// The directory is open to others.
    #[error("directory {} is not ours alone: its owner is uid {uid}, its mode {mode:o}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// The system's word.
    #[error("listen on {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Tells who is on the other side; the kernel does, but in tests.
pub(super) type Identify = fn(&UnixStream) -> Result<Peer, PeerError>;

/// The kernel's word.
pub(super) fn by_kernel(stream: &UnixStream) -> Result<Peer, PeerError> {
    Peer::of(stream.as_fd())
}

/// What all sockets share.
pub(super) struct Shared {
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) clock: Clock,
    pub(super) identify: Identify,
    /// Peers that may be looked at now.
    identifying: Arc<Semaphore>,
    pub(super) operator_key: Option<PathBuf>,
    /// The daemon, the launcher, the anchors of live agents.
    pub(super) of_mission: Mutex<Vec<ProcessId>>,
    /// Open connections.
    pub(super) open: AtomicUsize,
    /// How many may be.
    pub(super) limit: usize,
    /// A connection has ended.
    pub(super) ended: Notify,
    next_id: AtomicU64,
    uid: u32,
}

impl Shared {
    pub(super) fn new(
        inputs: mpsc::Sender<Input>,
        clock: Clock,
        identify: Identify,
        operator_key: Option<PathBuf>,
        limit: usize,
    ) -> Arc<Self> {
        Arc::new(Shared {
            inputs,
            clock,
            identify,
            identifying: Arc::new(Semaphore::new(IDENTIFYING)),
            operator_key,
            of_mission: Mutex::default(),
            open: AtomicUsize::new(0),
            limit,
            ended: Notify::new(),
            next_id: AtomicU64::new(1),
            uid: nix::unistd::Uid::effective().as_raw(),
        })
    }
}

/// Whose socket it is.
pub(super) enum Door {
    /// The operators'.
    Control,
    /// An agent's.
    Agent {
        /// Its name.
        name: String,
        /// What tells its processes from others.
        anchor: watch::Receiver<Anchor>,
    },
}

impl Door {
    fn name(&self) -> &str {
        match self {
            Door::Control => "control",
            Door::Agent { name, .. } => name,
        }
    }
}

/// A socket that is listened on; dropped, it is closed and its file removed.
pub(super) struct Listening {
    path: PathBuf,
    task: AbortHandle,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        // Gone already: fine.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes a socket and accepts on it. The caller holds the mission's lock, so a file that is there
/// is a dead daemon's.
pub(super) fn listen(
    path: &Path,
    door: Door,
    owner: Arc<Owner>,
    shared: Arc<Shared>,
) -> Result<Listening, ListenError> {
    let length = path.as_os_str().len();
    if length > MAX_PATH {
        return Err(ListenError::TooLong { path: path.to_owned(), length });
    }
    let io_error = |source| ListenError::Io { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        private_directory(directory, shared.uid)?;
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() && meta.uid() == shared.uid => {
            fs::remove_file(path).map_err(io_error)?;
        }
        Ok(_) => return Err(ListenError::Taken { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(error)),
    }
    // Until the mode is set, the directory keeps others away.
    let listener = UnixListener::bind(path).map_err(io_error)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(io_error)?;
    let accepting = Accepting { listener, door, owner, shared, refusals: Refusals::new() };
    let task = tokio::spawn(accepting.run()).abort_handle();
    Ok(Listening { path: path.to_owned(), task })
}

fn private_directory(directory: &Path, uid: u32) -> Result<(), ListenError> {
    let io_error = |source| ListenError::Io { path: directory.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_error(error)),
    }
    let meta = fs::symlink_metadata(directory).map_err(io_error)?;
    let mode = meta.mode() & 0o777;
    if meta.is_dir() && meta.uid() == uid && mode & 0o077 == 0 {
        return Ok(());
    }
    Err(ListenError::Directory { path: directory.to_owned(), uid: meta.uid(), mode })
}

struct Accepting {
    listener: UnixListener,
    door: Door,
    owner: Arc<Owner>,
    shared: Arc<Shared>,
    refusals: Refusals,
}

/// Which refusals are reported.
struct Refusals {
    bucket: Bucket,
    unreported: u64,
}

impl Refusals {
    fn new() -> Self {
        Refusals {
            bucket: Bucket::new(REFUSALS, Duration::from_secs(60), Instant::now()),
            unreported: 0,
        }
    }
}

/// What a look at a peer gave.
struct Seen {
    stream: UnixStream,
    peer: Result<Peer, (u32, Reason)>,
    has_key: bool,
}

/// A peer that is let in.
struct Admitted {
    pid: u32,
    standing: Standing,
}

impl Accepting {
    async fn run(mut self) {
        let mut connects = Bucket::new(CONNECTS, SECOND, Instant::now());
        loop {
            if let Err(wait) = connects.take(Instant::now()) {
                sleep(wait).await;
            }
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if self.admit(stream).await.is_none() {
                        return;
                    }
                }
                // The peer gave up: the next one.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // No descriptors or no memory: the socket stays readable, so wait for some.
                Err(error) => {
                    tracing::warn!(socket = self.door.name(), %error, "cannot accept");
                    let _ = timeout(PAUSE, self.shared.ended.notified()).await;
                }
            }
        }
    }

    /// Lets a peer in or turns it away; none when the hub is gone.
    async fn admit(&mut self, stream: UnixStream) -> Option<()> {
        if let Err(message) = self.has_room() {
            say(stream, &Denied::new(Code::Limit, message));
            return Some(());
        }
        let (stream, identified) = self.identify(stream).await?;
        match identified {
            Ok(admitted) => self.open(stream, &admitted).await,
            Err((pid, reason)) => {
                let reason = reason.to_string();
                say(stream, &Denied::new(Code::Denied, reason.as_str()));
                self.report(pid, reason).await
            }
        }
    }

    fn has_room(&self) -> Result<(), String> {
        let limit = self.owner.connection_limit.load(Ordering::Relaxed);
        let used = self.owner.connections.load(Ordering::Relaxed);
        if u32::try_from(used).unwrap_or(u32::MAX) >= limit {
            return Err(format!(
                "{limit} connections are open on this socket: close some (limits.connections)"
            ));
        }
        let reserved = match self.door {
            Door::Control => 0,
            Door::Agent { .. } => FOR_OPERATORS,
        };
        if self.shared.open.load(Ordering::Relaxed) + reserved >= self.shared.limit {
            return Err(format!("the daemon has {} connections: try again", self.shared.limit));
        }
        Ok(())
    }

    /// Who is on the other side; none when the runtime ends. The next peer waits: in order, and one
    /// socket never takes more than one thread.
    async fn identify(
        &mut self,
        stream: UnixStream,
    ) -> Option<(UnixStream, Result<Admitted, (u32, Reason)>)> {
        if let Door::Agent { anchor, .. } = &mut self.door {
            let settled = anchor.wait_for(|anchor| *anchor != Anchor::Pending);
            // Still pending, or gone: then it has no process.
            let _launched = timeout(LAUNCH, settled).await;
        }
        let seen = self.look_at(stream).await?;
        let identified = seen.peer.and_then(|peer| {
            let pid = peer.chain.first().map_or(0, |process| process.pid);
            let standing = self.standing(&peer, seen.has_key);
            standing.map(|standing| Admitted { pid, standing }).map_err(|reason| (pid, reason))
        });
        Some((seen.stream, identified))
    }

    async fn look_at(&self, stream: UnixStream) -> Option<Seen> {
        let permit = Arc::clone(&self.shared.identifying).acquire_owned().await.ok()?;
        let shared = Arc::clone(&self.shared);
        let at_control = matches!(self.door, Door::Control);
        let look = move || {
            let peer = (shared.identify)(&stream).map_err(|error| {
                let source = std::error::Error::source(&error);
                let cause = source.map_or(String::new(), |cause| format!(": {cause}"));
                (error.pid(), Reason::Unknown(format!("{error}{cause}")))
            });
            let has_key =
                at_control && shared.operator_key.as_ref().is_some_and(|key| key.exists());
            drop(permit);
            Seen { stream, peer, has_key }
        };
        tokio::task::spawn_blocking(look).await.ok()
    }

    /// What a peer is by what the mission knows now, after the kernel was asked.
    fn standing(&self, peer: &Peer, has_key: bool) -> Result<Standing, Reason> {
        let uid = self.shared.uid;
        match &self.door {
            Door::Agent { name, anchor } => {
                let anchor = match *anchor.borrow() {
                    Anchor::Process(process) => Some(process),
                    Anchor::None | Anchor::Pending => None,
                };
                identity::agent(peer, uid, name, anchor)?;
                Ok(Standing::Operator)
            }
            Door::Control => {
                let of_mission = self.shared.of_mission.lock();
                let of_mission = of_mission.unwrap_or_else(PoisonError::into_inner);
                identity::operator(peer, uid, &of_mission, has_key)
            }
        }
    }

    async fn open(&self, stream: UnixStream, admitted: &Admitted) -> Option<()> {
        let id = ConnId(self.shared.next_id.fetch_add(1, Ordering::Relaxed));
        let socket = match Socket::new(stream) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(socket = self.door.name(), %error, "cannot wait for a peer");
                return Some(());
            }
        };
        let conn = Conn::new(id, Arc::clone(&self.owner), admitted.pid, socket);
        self.owner.connections.fetch_add(1, Ordering::Relaxed);
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        let opened = Input(Kind::Opened(Arc::clone(&conn)));
        let is_taken = self.shared.inputs.send(opened).await.is_ok();
        let reader = Reader {
            inputs: self.shared.inputs.clone(),
            clock: Arc::clone(&self.shared.clock),
            key: match admitted.standing {
                Standing::Operator => None,
                Standing::NeedsKey => self.shared.operator_key.clone(),
            },
        };
        let (shared, owner) = (Arc::clone(&self.shared), Arc::clone(&self.owner));
        tokio::spawn(reader::write(Arc::clone(&conn), self.shared.inputs.clone()));
        tokio::spawn(async move {
            reader::run(conn, reader).await;
            owner.connections.fetch_sub(1, Ordering::Relaxed);
            shared.open.fetch_sub(1, Ordering::Relaxed);
            shared.ended.notify_waiters();
        });
        is_taken.then_some(())
    }

    async fn report(&mut self, pid: u32, reason: String) -> Option<()> {
        let refusals = &mut self.refusals;
        if refusals.bucket.take(Instant::now()).is_err() {
            refusals.unreported += 1;
            return Some(());
        }
        let more = std::mem::take(&mut refusals.unreported);
        let socket = self.door.name().to_owned();
        let refused = Input(Kind::Refused { socket, pid, reason, more });
        self.shared.inputs.send(refused).await.ok()
    }
}

/// Tells a peer why it is turned away: a fresh socket has room for a line. Then hangs up.
fn say(stream: UnixStream, denied: &Denied) {
    if let (Ok(mut stream), Ok(line)) = (stream.into_std(), encode::refusal(None, denied)) {
        // It has hung up already: nobody to tell.
        let _ = stream.write_all(&line);
    }
}
