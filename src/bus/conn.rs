//! A connection, as the hub and its tasks share it: what goes out, what is unanswered, whether the
//! peer is still there.

use std::future::Future;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::outbox::{Flushed, Frame, Outbox};
use super::quota::Owner;
use crate::core::denied::Denied;
use crate::proto::{Id, MAX_OUTSTANDING, Rejected, encode};

/// A connection; never handed out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(super) u64);

/// A connection, as the hub and its tasks share it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) owner: Arc<Owner>,
    pub(super) pid: u32,
    pub(super) outbox: Outbox,
    /// In the hub's list of connections to flush.
    pub(super) is_dirty: AtomicBool,
    pub(super) stream: Arc<UnixStream>,
    /// Permits are unanswered requests.
    pub(super) outstanding: Arc<Semaphore>,
}

impl Conn {
    pub(super) fn new(id: ConnId, owner: Arc<Owner>, pid: u32, stream: UnixStream) -> Arc<Self> {
        let stream = Arc::new(stream);
        let outbox = Outbox::new(Arc::clone(&stream), Arc::clone(&owner));
        let outstanding = Arc::new(Semaphore::new(MAX_OUTSTANDING));
        let is_dirty = AtomicBool::new(false);
        Arc::new(Conn { id, owner, pid, outbox, is_dirty, stream, outstanding })
    }

    /// Writes a refusal from outside the hub's turn.
    pub(super) fn refuse(&self, id: Option<&Id>, denied: &Denied) {
        self.send_now(encode::refusal(id, denied).unwrap_or_default());
    }

    /// Ends the connection after what it asked for is answered and what is queued is written.
    pub(super) fn hang_up(&self) {
        self.outbox.flush();
        // Reading ends; ENOTCONN: the peer was faster.
        let _ =
            nix::sys::socket::shutdown(self.stream.as_raw_fd(), nix::sys::socket::Shutdown::Read);
    }

    pub(super) fn reject(&self, rejected: &Rejected) {
        self.send_now(encode::rejection(rejected).unwrap_or_default());
    }

    fn send_now(&self, line: Vec<u8>) {
        self.outbox.push(Frame::Own(line));
        self.outbox.flush();
    }
}

/// Whether the peer has closed both directions.
pub(super) async fn is_hung_up(stream: &UnixStream) -> bool {
    let ready = stream.ready(Interest::READABLE | Interest::WRITABLE).await;
    ready.is_ok_and(|ready| ready.is_write_closed())
}

/// Waits for `event`, but not for a peer that has gone meanwhile: then none.
pub(super) async fn unless_gone<T>(conn: &Conn, event: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        happened = event => Some(happened),
        () = gone(&conn.stream) => None,
    }
}

/// Waits until the peer has closed both directions.
async fn gone(stream: &UnixStream) {
    // The mask of `PRIORITY` has the end of reading in it, and is not set by mere data.
    if stream.ready(Interest::PRIORITY).await.is_ok() {
        match stream.ready(Interest::WRITABLE).await {
            Ok(ready) if !ready.is_write_closed() => std::future::pending().await,
            Ok(_) | Err(_) => {}
        }
    }
}

/// Waits until the queue is written.
pub(super) async fn written(conn: &Conn) {
    while !conn.outbox.is_empty() {
        match conn.outbox.drain() {
            Flushed::Blocked => {
                if conn.stream.writable().await.is_err() {
                    return;
                }
            }
            Flushed::All | Flushed::Closed => return,
        }
    }
}
