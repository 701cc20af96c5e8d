//! A typed async client of the bus, for `missionctl`, adapters, tests and agents written in Rust.
//!
//! It knows the protocol and nothing of the daemon. It says `hello` by itself, matches replies to
//! calls, and hands on notifications in order. Reconnecting is the caller's business: a call whose
//! reply was lost is repeated with the same idempotency key.
//!
//! One task reads the socket. Notifications go through a bounded channel: when nobody takes them,
//! reading stops, and with it the replies, so that neither side piles up memory. A subscriber's credit
//! (at most 1,024) keeps well below that bound; who follows the log must keep taking its events.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::ids::Key;
use crate::proto::denied::Denied;
use crate::proto::encode::{self, CodecError};
use crate::proto::wire::{Hello, HelloReply};
use crate::proto::{FEATURES, Incoming, MAX_REPLY_LINE, Method, Notification, VERSION};
use crate::sys::watch::Watch;

/// How long a call waits for its reply unless told otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long connecting and `hello` may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Notifications that wait to be taken; more stop the reading.
const NOTIFICATIONS: usize = 2_048;

/// The largest `operator.key` that is read, in bytes.
const MAX_KEY_FILE: u64 = 4_096;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no daemon listens on {}", path.display())]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What connecting said.
        #[source]
        source: io::Error,
    },
    /// The server belongs to another user.
    #[error("the server on {} belongs to uid {uid}, not to you", path.display())]
    NotOurs {
        /// The socket.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// The daemon refused the request.
    #[error("{0}")]
    Refused(Denied),
    /// The socket failed.
    #[error("talk to the daemon")]
    Io(#[source] io::Error),
    /// The connection ended before the reply; whether the request was carried out is not known.
    #[error("the daemon closed the connection")]
    Closed,
    /// The server does not speak this protocol.
    #[error("{what}")]
    Protocol {
        /// What was wrong.
        what: &'static str,
        /// The parser's word.
        #[source]
        source: CodecError,
    },
    /// No reply in time; whether the request was carried out is not known.
    #[error("no reply to {method} within {} s", after.as_secs_f32())]
    Timeout {
        /// The method.
        method: Method,
        /// How long it waited.
        after: Duration,
    },
}

type Answer = Result<Box<RawValue>, Denied>;

/// What the reader task and the calls share.
#[derive(Default)]
struct Pending {
    calls: HashMap<u64, oneshot::Sender<Answer>>,
    next_id: u64,
    /// The server's last word: it refused the connection as such.
    farewell: Option<Denied>,
    is_closed: bool,
}

#[derive(Clone, Default)]
struct SharedPending(Arc<Mutex<Pending>>);

impl SharedPending {
    fn with<T>(&self, change: impl FnOnce(&mut Pending) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connection to the daemon. Calls may overlap; dropping it closes the connection.
pub struct Client {
    link: Link,
    hello: HelloReply,
}

/// The connection before and after `hello`.
struct Link {
    pending: SharedPending,
    requests: mpsc::Sender<Vec<u8>>,
    tasks: [tokio::task::AbortHandle; 2],
}

/// The notifications of one connection, in the order in which they came.
pub struct Notifications(mpsc::Receiver<Notification>);

impl Notifications {
    /// The next notification; none when the connection has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Notification> {
        self.0.recv().await
    }
}

impl Client {
    /// Connects to a socket of our own daemon and says `hello`. Next to a control socket, an
    /// `operator.key` is read and shown, for an operator who runs under `no_new_privs`.
    ///
    /// # Errors
    /// Nobody listens, the server is another user's, it refuses us, or it does not answer in time.
    pub async fn connect(path: &Path) -> Result<(Client, Notifications), ClientError> {
        Self::connect_as(path, &format!("missiond-client {}", env!("CARGO_PKG_VERSION"))).await
    }

    /// [`Client::connect`] under a name of one's own, which the daemon's log shows.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub async fn connect_as(
        path: &Path,
        name: &str,
    ) -> Result<(Client, Notifications), ClientError> {
        let late = ClientError::Timeout { method: Method::Hello, after: CONNECT_TIMEOUT };
        timeout(CONNECT_TIMEOUT, Self::connect_now(path, name)).await.unwrap_or(Err(late))
    }

    async fn connect_now(path: &Path, name: &str) -> Result<(Client, Notifications), ClientError> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| ClientError::NoDaemon { path: path.to_owned(), source })?;
        let uid = stream.peer_cred().map_err(ClientError::Io)?.uid();
        if uid != nix::unistd::Uid::effective().as_raw() {
            return Err(ClientError::NotOurs { path: path.to_owned(), uid });
        }
        let hello = Hello {
            version: VERSION,
            client: Some(name.to_owned()),
            features: FEATURES.iter().map(|f| (*f).to_owned()).collect(),
            operator_key: operator_key(path),
        };
        Self::over(stream, &hello).await
    }

    /// Says `hello` over a connected stream whose server is known to be ours.
    ///
    /// # Errors
    /// As for [`Client::connect`], but for what concerns the path.
    pub async fn over(
        stream: UnixStream,
        hello: &Hello,
    ) -> Result<(Client, Notifications), ClientError> {
        let (read, write) = stream.into_split();
        let pending = SharedPending::default();
        let (requests, queue) = mpsc::channel(64);
        let (deliver, notifications) = mpsc::channel(NOTIFICATIONS);
        let reader = tokio::spawn(read_all(read, pending.clone(), deliver));
        let writer = tokio::spawn(write_all(write, queue));
        let tasks = [reader.abort_handle(), writer.abort_handle()];
        let link = Link { pending, requests, tasks };
        let hello = link.call(Method::Hello, hello, None, CONNECT_TIMEOUT).await?;
        Ok((Client { link, hello }, Notifications(notifications)))
    }

    /// Waits for the end of the daemon's process, not only of its connection: once this is over, its
    /// locks are free and another daemon can take the mission. Cancel-safe. Needs to be able to name
    /// the process (not from a pid namespace of one's own); otherwise it is over at once.
    pub async fn wait_for_exit(&self) {
        let Ok(process) = crate::sys::process::pidfd(self.hello.pid) else { return };
        let Ok(watch) = Watch::new() else { return };
        // Readable once it has ended (pidfd_open(2)); there is nothing else to learn.
        if watch.readable_of(&process, 0).is_ok() {
            let _ended = watch.readable().await;
        }
    }

    /// What the daemon answered to `hello`.
    #[must_use]
    pub fn hello(&self) -> &HelloReply {
        &self.hello
    }

    /// Calls a method and waits for its reply, at most [`CALL_TIMEOUT`]. When cancelled, the request
    /// may or may not be carried out.
    ///
    /// # Errors
    /// The daemon refuses, or there is no (understandable) reply.
    pub async fn call<P: Serialize, R: DeserializeOwned>(
        &self,
        method: Method,
        params: &P,
    ) -> Result<R, ClientError> {
        self.call_within(method, params, None, CALL_TIMEOUT).await
    }

    /// [`Client::call`] with an idempotency key: repeated with the same key, it is carried out once.
    ///
    /// # Errors
    /// As for [`Client::call`].
    pub async fn call_with_key<P: Serialize, R: DeserializeOwned>(
        &self,
        method: Method,
        params: &P,
        key: Option<&Key>,
    ) -> Result<R, ClientError> {
        self.call_within(method, params, key, CALL_TIMEOUT).await
    }

    /// [`Client::call_with_key`] with a bound of one's own, for what takes long by design: a `fetch`
    /// that waits, `mission.stop`.
    ///
    /// # Errors
    /// As for [`Client::call`].
    pub async fn call_within<P: Serialize, R: DeserializeOwned>(
        &self,
        method: Method,
        params: &P,
        key: Option<&Key>,
        after: Duration,
    ) -> Result<R, ClientError> {
        self.link.call(method, params, key, after).await
    }
}

impl Link {
    async fn call<P: Serialize, R: DeserializeOwned>(
        &self,
        method: Method,
        params: &P,
        key: Option<&Key>,
        after: Duration,
    ) -> Result<R, ClientError> {
        let encode_error = |source| ClientError::Protocol { what: "encode a request", source };
        let (answer, reply) = oneshot::channel();
        let id = self.pending.with(|pending| {
            pending.next_id += 1;
            if !pending.is_closed {
                pending.calls.insert(pending.next_id, answer);
            }
            pending.next_id
        });
        let _forget = Forget { pending: &self.pending, id };
        let line = encode::request(id, method, params, key).map_err(encode_error)?;
        let exchange = async {
            // A closed queue shows as a dropped answer, too.
            let _ = self.requests.send(line).await;
            reply.await
        };
        let raw = match timeout(after, exchange).await {
            Err(_) => return Err(ClientError::Timeout { method, after }),
            Ok(Err(_)) => return Err(self.farewell()),
            Ok(Ok(Err(denied))) => return Err(ClientError::Refused(denied)),
            Ok(Ok(Ok(raw))) => raw,
        };
        serde_json::from_str(raw.get()).map_err(|error| ClientError::Protocol {
            what: "the daemon's reply is not what this version expects",
            source: CodecError::Decode(error),
        })
    }

    fn farewell(&self) -> ClientError {
        match self.pending.with(|pending| pending.farewell.clone()) {
            Some(denied) => ClientError::Refused(denied),
            None => ClientError::Closed,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

/// Forgets a call that nobody waits for any more.
struct Forget<'a> {
    pending: &'a SharedPending,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.pending.with(|pending| pending.calls.remove(&self.id));
    }
}

/// The key beside a control socket, where there is one that we may read.
fn operator_key(socket: &Path) -> Option<String> {
    if socket.file_name()? != "control.sock" {
        return None;
    }
    let path = socket.with_file_name("operator.key");
    let is_small = std::fs::metadata(&path).ok()?.len() <= MAX_KEY_FILE;
    if !is_small {
        return None;
    }
    Some(std::fs::read_to_string(&path).ok()?.trim().to_owned())
}

async fn write_all(mut socket: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(mut batch) = queue.recv().await {
        while batch.len() < 64 << 10 {
            let Ok(line) = queue.try_recv() else { break };
            batch.extend_from_slice(&line);
        }
        if socket.write_all(&batch).await.is_err() {
            // The reader sees the same end, and tells the calls.
            return;
        }
    }
}

async fn read_all(
    mut socket: OwnedReadHalf,
    pending: SharedPending,
    deliver: mpsc::Sender<Notification>,
) {
    let mut buffer: Vec<u8> = Vec::with_capacity(16 << 10);
    let mut searched = 0;
    'reading: while buffer.len() <= MAX_REPLY_LINE {
        match socket.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let mut start = 0;
        while let Some(length) = buffer[searched..].iter().position(|b| *b == b'\n') {
            let end = searched + length;
            // A server whose frames can't be read has nothing more to say to us.
            let Ok(incoming) = Incoming::decode(&buffer[start..end]) else { break 'reading };
            match incoming {
                Incoming::Reply { id: Some(id), result } => {
                    if let Some(call) = pending.with(|pending| pending.calls.remove(&id)) {
                        // Nobody waits any more: fine.
                        let _ = call.send(result);
                    }
                }
                Incoming::Reply { id: None, result } => {
                    pending.with(|pending| pending.farewell = result.err());
                }
                Incoming::Notification(notification) => {
                    // Taken by nobody, notifications are dropped; replies still matter.
                    let _ = deliver.send(notification).await;
                }
                Incoming::Unknown => {}
            }
            start = end + 1;
            searched = start;
        }
        buffer.drain(..start);
        searched = buffer.len();
    }
    pending.with(|pending| {
        pending.is_closed = true;
        pending.calls.clear();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::wire::{Empty, Lagged};
    use crate::proto::{self, Id, denied::Code};
    use tokio::io::{AsyncBufReadExt, BufReader};

    fn hello() -> Hello {
        Hello { version: 1, client: None, features: Vec::new(), operator_key: None }
    }

    fn hello_reply() -> HelloReply {
        HelloReply {
            version: 1,
            features: Vec::new(),
            mission: "m".parse().unwrap(),
            you: proto::view::Party::Operator,
            permissions: proto::spec::Permissions::all(),
            agent: None,
            pid: 1,
        }
    }

    /// Reads one request of the client.
    async fn request(server: &mut BufReader<UnixStream>) -> proto::Frame {
        let mut line = Vec::new();
        server.read_until(b'\n', &mut line).await.unwrap();
        proto::parse(&line).unwrap()
    }

    async fn greeted() -> (Client, Notifications, BufReader<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut server = BufReader::new(theirs);
        let answer = async {
            let frame = request(&mut server).await;
            let line = encode::reply(&frame.id, &hello_reply()).unwrap();
            server.write_all(&line).await.unwrap();
        };
        let hello = hello();
        let (client, ()) = tokio::join!(Client::over(ours, &hello), answer);
        let (client, notifications) = client.unwrap();
        (client, notifications, server)
    }

    #[tokio::test]
    async fn replies_find_their_calls_in_any_order() {
        let (client, mut notifications, mut server) = greeted().await;
        let serve = async {
            let (first, second) = (request(&mut server).await, request(&mut server).await);
            let lagged =
                Lagged { subscription: None, from: crate::ids::Seq(1), to: crate::ids::Seq(2) };
            let denied = Denied::new(Code::Conflict, "no");
            for line in [
                encode::lagged(&lagged).unwrap(),
                encode::refusal(Some(&second.id), &denied).unwrap(),
                encode::reply(&Id::Number(999), &Empty {}).unwrap(),
                encode::reply(&first.id, &Empty {}).unwrap(),
            ] {
                server.write_all(&line).await.unwrap();
            }
        };
        let first = client.call::<_, Empty>(Method::AgentHeartbeat, &Empty {});
        let second = client.call::<_, Empty>(Method::AgentHeartbeat, &Empty {});
        let (first, second, ()) = tokio::join!(first, second, serve);
        assert_eq!(first.unwrap(), Empty {});
        let Err(ClientError::Refused(denied)) = second else { panic!("{second:?}") };
        assert_eq!(denied.code, Code::Conflict);
        assert!(matches!(notifications.next().await, Some(Notification::Lagged(_))));
    }

    #[tokio::test]
    async fn the_servers_last_word_reaches_the_caller() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let line = encode::refusal(None, &Denied::new(Code::Denied, "not you")).unwrap();
        theirs.write_all(&line).await.unwrap();
        drop(theirs);
        let Err(ClientError::Refused(denied)) = Client::over(ours, &hello()).await.map(|_| ())
        else {
            panic!("refused")
        };
        assert_eq!(denied.message, "not you");
    }

    #[tokio::test]
    async fn a_closed_connection_ends_every_call_and_the_notifications() {
        let (client, mut notifications, server) = greeted().await;
        let call = client.call::<_, Empty>(Method::AgentHeartbeat, &Empty {});
        let (result, ()) = tokio::join!(call, async { drop(server) });
        assert!(matches!(result, Err(ClientError::Closed)), "{result:?}");
        assert!(notifications.next().await.is_none());
        let later = client.call::<_, Empty>(Method::AgentHeartbeat, &Empty {}).await;
        assert!(matches!(later, Err(ClientError::Closed)), "{later:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_a_timeout() {
        let (client, _notifications, _server) = greeted().await;
        let late = client.call::<_, Empty>(Method::AgentHeartbeat, &Empty {}).await;
        assert!(matches!(late, Err(ClientError::Timeout { after: CALL_TIMEOUT, .. })), "{late:?}");
        assert!(
            client.link.pending.with(|pending| pending.calls.is_empty()),
            "the call is forgotten"
        );
    }

    #[tokio::test]
    async fn a_missing_socket_is_no_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let result = Client::connect(&directory.path().join("control.sock")).await;
        assert!(matches!(result.map(|_| ()), Err(ClientError::NoDaemon { .. })));
    }
}
