//! What comes out of the connections: requests with their tickets, refusals, ends.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::conn::{Conn, ConnId};
use super::frames::Frame;
use crate::core::denied::{Code, Denied};
use crate::core::head::Caller;
use crate::ids::{Key, Timestamp};
use crate::proto::{Call, Id, Method, encode};

/// The right and the duty to answer one request. Dropped without an answer, it answers `unavailable`.
#[derive(Debug)]
pub struct Ticket {
    conn: Arc<Conn>,
    id: Id,
    is_answered: bool,
    /// Gives back what the request was charged for.
    _permits: [OwnedSemaphorePermit; 2],
}

impl Ticket {
    pub(super) fn new(conn: Arc<Conn>, id: Id, permits: [OwnedSemaphorePermit; 2]) -> Self {
        Ticket { conn, id, is_answered: false, _permits: permits }
    }

    /// The connection that waits for the answer.
    #[must_use]
    pub fn conn(&self) -> ConnId {
        self.conn.id
    }

    /// Who asked.
    #[must_use]
    pub fn who(&self) -> Caller {
        self.conn.owner.who
    }

    /// Queues the answer; the connection, to be flushed, comes back.
    pub(super) fn answer<R: Serialize>(mut self, result: Result<&R, &Denied>) -> Arc<Conn> {
        let line = match result {
            Ok(result) => encode::reply(&self.id, result),
            Err(denied) => encode::refusal(Some(&self.id), denied),
        };
        if let Ok(line) = line {
            self.is_answered = true;
            self.conn.outbox.push(Frame::Own(line));
        }
        Arc::clone(&self.conn)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_answered {
            let denied = Denied::new(Code::Unavailable, "the daemon gave no answer: try again");
            self.conn.refuse(Some(&self.id), &denied);
        }
    }
}

/// A request.
#[derive(Debug)]
pub struct Inbound {
    /// To answer with.
    pub ticket: Ticket,
    /// Who asks, by the kernel's word.
    pub who: Caller,
    /// The process that connected.
    pub pid: u32,
    /// The method.
    pub method: Method,
    /// The method with its parameters.
    pub call: Call,
    /// The idempotency key.
    pub key: Option<Key>,
    /// When it arrived: the `now` of its decision.
    pub at: Timestamp,
}

/// What the daemon has to deal with.
#[derive(Debug)]
pub enum Arrival {
    /// Somebody asks for something, and more: what came in together, in order.
    Requests(Vec<Inbound>),
    /// A connection was refused; to be logged.
    Refused {
        /// Which socket: `control`, or the agent's name.
        socket: String,
        /// The process that connected; 0 if it could not be told.
        pid: u32,
        /// Why.
        reason: String,
        /// Further refusals at this socket since the last one that was reported.
        more: u64,
    },
    /// A connection has ended; its waits are over.
    Disconnected {
        /// Which.
        conn: ConnId,
        /// Whose.
        who: Caller,
    },
}

/// Something from a connection, to be given to [`super::Hub::take`].
#[derive(Debug)]
pub struct Input(pub(super) Kind);

/// What an input is.
#[derive(Debug)]
pub(super) enum Kind {
    /// A peer was let in.
    Opened(Arc<Conn>),
    /// It asks for something.
    Requests(Vec<Inbound>),
    /// It has read what it was sent, and the hub wanted to know.
    Room(ConnId),
    /// It is over.
    Closed(ConnId),
    /// A peer was not let in.
    Refused { socket: String, pid: u32, reason: String, more: u64 },
}

impl Input {
    pub(super) fn requests(inbound: Vec<Inbound>) -> Self {
        Input(Kind::Requests(inbound))
    }

    /// When it arrived, where that matters: of a request, of those that came together the first.
    #[must_use]
    pub fn arrived(&self) -> Option<Timestamp> {
        match &self.0 {
            Kind::Requests(inbound) => inbound.first().map(|inbound| inbound.at),
            Kind::Opened(_) | Kind::Room(_) | Kind::Closed(_) | Kind::Refused { .. } => None,
        }
    }

    pub(super) fn room(conn: ConnId) -> Self {
        Input(Kind::Room(conn))
    }

    pub(super) fn closed(conn: &Conn) -> Self {
        Input(Kind::Closed(conn.id))
    }
}

/// Inputs that no connection made, for tests of the loop.
#[cfg(test)]
pub(crate) mod by_hand {
    use tokio::net::UnixStream;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::bus::quota::Owner;
    use crate::sys::socket::Socket;

    /// A queue of inputs, and its other end.
    pub(crate) fn queue() -> (mpsc::Sender<Input>, Inputs) {
        let (send, receive) = mpsc::channel(1_024);
        (send, Inputs(receive))
    }

    /// A request of an operator who has left.
    pub(crate) async fn request(method: Method, call: Call, at: Timestamp) -> Input {
        let (stream, _gone) = UnixStream::pair().unwrap();
        let who = Caller::Operator;
        let socket = Socket::new(stream).unwrap();
        let conn = Conn::new(ConnId(1), Owner::new(who, None, 1), 1, socket);
        let permits = Arc::new(Semaphore::new(2));
        let permit = || async { Arc::clone(&permits).acquire_owned().await.unwrap() };
        let ticket = Ticket::new(conn, Id::Number(1), [permit().await, permit().await]);
        Input::requests(vec![Inbound { ticket, who, pid: 1, method, call, key: None, at }])
    }
}

/// Where inputs come from.
#[derive(Debug)]
pub struct Inputs(pub(super) mpsc::Receiver<Input>);

impl Inputs {
    /// The next input. Cancel-safe. None only when the hub and all connections are gone.
    pub async fn next(&mut self) -> Option<Input> {
        self.0.recv().await
    }

    /// How many inputs there are now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.len()
    }

    /// The next input, if there is one now: for batches.
    pub fn try_next(&mut self) -> Option<Input> {
        self.0.try_recv().ok()
    }
}
