//! What comes out of the connections: requests with their tickets, refusals, ends.

use tokio::sync::mpsc;

use crate::core::head::Caller;
use crate::ids::{Key, Timestamp};
use crate::proto::{Call, Id, Method};

/// A connection; never handed out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(super) u64);

/// The right and the duty to answer one request. Dropped without an answer, it answers `unavailable`.
#[derive(Debug)]
pub struct Ticket {
    pub(super) conn: ConnId,
    pub(super) id: Id,
}

impl Ticket {
    /// The connection that waits for the answer.
    #[must_use]
    pub fn conn(&self) -> ConnId {
        self.conn
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
    /// Somebody asks for something.
    Request(Box<Inbound>),
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
pub struct Input(pub(super) Arrival);

/// Where inputs come from.
#[derive(Debug)]
pub struct Inputs(pub(super) mpsc::Receiver<Input>);

impl Inputs {
    /// The next input. Cancel-safe. None only when the hub is gone.
    pub async fn next(&mut self) -> Option<Input> {
        self.0.recv().await
    }

    /// The next input, if there is one now: for batches.
    pub fn try_next(&mut self) -> Option<Input> {
        self.0.try_recv().ok()
    }
}
