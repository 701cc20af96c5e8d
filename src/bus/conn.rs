//! A connection, as the hub and its tasks share it: what goes out, what is unanswered, whether the
//! peer is still there.

use std::future::Future;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Semaphore;

use super::frames::Frame;
use super::outbox::{Flushed, Outbox};
use super::quota::Owner;
use crate::core::denied::Denied;
use crate::proto::{Id, MAX_OUTSTANDING, Rejected, encode};
use crate::sys::socket::Socket;

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
    pub(super) socket: Arc<Socket>,
    /// Permits are unanswered requests.
    pub(super) outstanding: Arc<Semaphore>,
}

impl Conn {
    pub(super) fn new(id: ConnId, owner: Arc<Owner>, pid: u32, socket: Socket) -> Arc<Self> {
        let socket = Arc::new(socket);
        let outbox = Outbox::new(Arc::clone(&socket), Arc::clone(&owner));
        let outstanding = Arc::new(Semaphore::new(MAX_OUTSTANDING));
        let is_dirty = AtomicBool::new(false);
        Arc::new(Conn { id, owner, pid, outbox, is_dirty, socket, outstanding })
    }

    /// Writes a refusal from outside the hub's turn.
    pub(super) fn refuse(&self, id: Option<&Id>, denied: &Denied) {
        self.send_now(encode::refusal(id, denied).unwrap_or_default());
    }

    /// Ends the connection after what it asked for is answered and what is queued is written.
    pub(super) fn hang_up(&self) {
        self.outbox.flush();
        self.socket.shut_down(Shutdown::Read);
    }

    pub(super) fn reject(&self, rejected: &Rejected) {
        self.send_now(encode::rejection(rejected).unwrap_or_default());
    }

    fn send_now(&self, line: Vec<u8>) {
        self.outbox.push(Frame::Own(line));
        self.outbox.flush();
    }
}

/// Waits for `event`, but not for a peer that has gone meanwhile: then none.
pub(super) async fn unless_gone<T>(conn: &Conn, event: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        happened = event => Some(happened),
        () = conn.socket.hung_up() => None,
    }
}

/// Waits until the queue is written.
pub(super) async fn written(conn: &Conn) {
    while !conn.outbox.is_empty() {
        match conn.outbox.drain() {
            Flushed::Blocked => {
                if conn.socket.writable().await.is_err() {
                    return;
                }
            }
            Flushed::All | Flushed::Closed => return,
        }
    }
}
