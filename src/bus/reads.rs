//! What a turn of the hub leaves to be done: connections to write to, parts of the log to read.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::conn::{Conn, ConnId};
use super::inbound::Ticket;
use super::log::{LogRead, ReadId, ReadWhat};
use crate::core::denied::Denied;

/// A mailbox; never handed out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MailboxId(pub(super) u64);

/// Connections with something to write.
#[derive(Debug, Default)]
pub(super) struct Dirty(Vec<Arc<Conn>>);

impl Dirty {
    pub(super) fn mark(&mut self, conn: &Arc<Conn>) {
        if !conn.is_dirty.swap(true, Ordering::Relaxed) {
            self.0.push(Arc::clone(conn));
        }
    }

    pub(super) fn flush(&mut self) {
        for conn in self.0.drain(..) {
            conn.is_dirty.store(false, Ordering::Relaxed);
            conn.outbox.flush();
        }
    }

    pub(super) fn answer<R: serde::Serialize>(
        &mut self,
        ticket: Ticket,
        result: Result<&R, &Denied>,
    ) {
        let conn = ticket.answer(result);
        self.mark(&conn);
    }
}

/// What a read of the log is for.
#[derive(Debug)]
pub(super) enum Purpose {
    Mailbox(MailboxId),
    Follower(ConnId),
    Audit(Box<AuditWait>),
    /// A `fetch` by seqs; `all` where the caller may see every message.
    Seqs {
        ticket: Ticket,
        all: bool,
    },
}

/// Reads of the log: to be asked for, and under way.
#[derive(Debug, Default)]
pub(super) struct Reads {
    next: u64,
    pub(super) asked: Vec<LogRead>,
    pub(super) pending: HashMap<ReadId, Purpose>,
}

impl Reads {
    pub(super) fn ask(&mut self, what: ReadWhat, purpose: Purpose) -> ReadId {
        self.next += 1;
        let id = ReadId(self.next);
        self.asked.push(LogRead { id, what });
        self.pending.insert(id, purpose);
        id
    }
}

/// An `audit.read` whose page is being read.
#[derive(Debug)]
pub(super) struct AuditWait {
    pub(super) conn: Arc<Conn>,
    pub(super) ticket: Ticket,
    pub(super) kinds: Vec<String>,
    pub(super) follow: bool,
}
