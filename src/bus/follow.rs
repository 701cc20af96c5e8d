//! `audit.read`: pages of the log, and following it. No cursor, no receipts: who follows and falls
//! behind reads the log until it has caught up.

use std::sync::Arc;

use super::conn::Conn;
use super::frames::{Frame, SharedFrame};
use super::inbound::Ticket;
use super::log::{LogPage, ReadId, ReadWhat};
use super::reads::{AuditWait, Dirty, Purpose, Reads};
use crate::core::denied::Denied;
use crate::core::event::Logged;
use crate::core::json::Json;
use crate::ids::{Seq, Timestamp};
use crate::proto::encode;
use crate::proto::wire::{AuditPage, AuditRead, EventView, Lagged, MAX_AUDIT};

/// Bytes of contents in one page.
const PAGE_BYTES: usize = 4 << 20;

/// Events of one read for a follower that fell behind.
const BEHIND: usize = 256;

/// How long to wait after a failed read of the log, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// The event as its readers get it.
pub(super) fn view(logged: &Logged) -> Option<EventView> {
    let envelope = String::from_utf8(logged.envelope().ok()?).ok()?;
    Some(EventView {
        seq: logged.seq,
        at: logged.at,
        kind: logged.kind().to_owned(),
        actor: logged.actor.clone(),
        data: Json::parse(&envelope).ok()?,
        content: logged.content.clone(),
    })
}

/// Asks for the page of an `audit.read`.
pub(super) fn ask(reads: &mut Reads, conn: Arc<Conn>, ticket: Ticket, ask: AuditRead) {
    let what = ReadWhat::From {
        after: ask.since.unwrap_or_default(),
        limit: usize::try_from(ask.limit.unwrap_or(MAX_AUDIT)).unwrap_or(usize::MAX),
        bytes: PAGE_BYTES,
        kinds: ask.kinds.clone(),
    };
    let wait = AuditWait { conn, ticket, kinds: ask.kinds, follow: ask.follow };
    reads.ask(what, Purpose::Audit(Box::new(wait)));
}

/// Answers an `audit.read`; who follows comes back.
pub(super) fn answer(
    dirty: &mut Dirty,
    wait: AuditWait,
    page: Result<LogPage, Denied>,
    head: Seq,
) -> Option<Follower> {
    let AuditWait { conn, ticket, kinds, follow } = wait;
    match page {
        Ok(page) => {
            let events = page.events.iter().filter_map(view).collect();
            dirty.answer(ticket, Ok(&AuditPage { events, head: head.max(page.upto) }));
            follow.then(|| Follower::new(conn, kinds, page.upto))
        }
        Err(denied) => {
            dirty.answer::<AuditPage>(ticket, Err(&denied));
            None
        }
    }
}

/// A connection that follows the log.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) conn: Arc<Conn>,
    kinds: Vec<String>,
    /// It has everything up to here.
    upto: Seq,
    /// New events are pushed at once.
    is_live: bool,
    pub(super) reading: Option<ReadId>,
    /// When to ask the log again after it failed.
    pub(super) retry: Option<Timestamp>,
}

impl Follower {
    fn new(conn: Arc<Conn>, kinds: Vec<String>, upto: Seq) -> Self {
        Follower { conn, kinds, upto, is_live: false, reading: None, retry: None }
    }

    fn is_wanted(&self, event: &Logged) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == event.kind())
    }

    /// A new durable event, with its frame if somebody has encoded it already.
    pub(super) fn arrive(
        &mut self,
        dirty: &mut Dirty,
        event: &Logged,
        frame: &mut Option<SharedFrame>,
    ) {
        if !self.is_live || event.seq <= self.upto {
            return;
        }
        if !self.is_wanted(event) {
            self.upto = event.seq;
            return;
        }
        if !self.conn.outbox.may_push() {
            self.is_live = false;
            self.conn.outbox.want_room();
            return;
        }
        if frame.is_none() {
            *frame = view(event).and_then(|view| encode::event(&view).ok()).map(SharedFrame::from);
        }
        if let Some(frame) = frame {
            self.conn.outbox.push(Frame::Shared(frame.clone()));
            dirty.mark(&self.conn);
        }
        self.upto = event.seq;
    }

    /// Asks the log for what is missing.
    pub(super) fn catch_up(&mut self, now: Timestamp, reads: &mut Reads, head: Seq) {
        if self.is_live || self.reading.is_some() || self.retry.is_some_and(|at| at > now) {
            return;
        }
        self.retry = None;
        if self.upto >= head {
            self.is_live = true;
            return;
        }
        if !self.conn.outbox.may_push() {
            self.conn.outbox.want_room();
            return;
        }
        let what = ReadWhat::From {
            after: self.upto,
            limit: BEHIND,
            bytes: PAGE_BYTES / 4,
            kinds: self.kinds.clone(),
        };
        self.reading = Some(reads.ask(what, Purpose::Follower(self.conn.id)));
    }

    /// Takes in a page of the log.
    pub(super) fn feed(
        &mut self,
        now: Timestamp,
        dirty: &mut Dirty,
        page: Result<LogPage, Denied>,
    ) {
        self.reading = None;
        let Ok(page) = page else {
            self.retry = Some(now.plus_ms(RETRY_MS));
            return;
        };
        if page.floor > self.upto {
            let lagged = Lagged { subscription: None, from: self.upto.next(), to: page.floor };
            if let Ok(line) = encode::lagged(&lagged) {
                self.conn.outbox.push(Frame::Own(line));
            }
            self.upto = page.floor;
        }
        dirty.mark(&self.conn);
        for event in &page.events {
            if event.seq <= self.upto {
                continue;
            }
            if !self.conn.outbox.may_push() {
                return;
            }
            let line = view(event).and_then(|view| encode::event(&view).ok());
            if let Some(line) = line {
                self.conn.outbox.push(Frame::Own(line));
            }
            self.upto = event.seq;
        }
        self.upto = self.upto.max(page.upto);
    }
}
