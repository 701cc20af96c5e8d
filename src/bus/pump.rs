//! Moves messages: out of the log or the latest ones into a mailbox's window, and on to whoever waits.

use std::sync::Arc;

use super::frames::Frame;
use super::log::{LogPage, ReadWhat};
use super::mailbox::{Mailbox, Waiting, Whose};
use super::reads::{Dirty, MailboxId, Purpose, Reads};
use super::recent::{self, Message, Recent};
use crate::core::denied::{Code, Denied};
use crate::core::spec::Permission;
use crate::core::state::State;
use crate::ids::{AgentUid, Seq, Timestamp};
use crate::proto::encode;
use crate::proto::wire::{Fetched, FetchedMessage, Lagged};

/// Messages of one read of the log, and bytes of their contents.
const PAGE: usize = 64;
/// See [`PAGE`].
const PAGE_BYTES: usize = 4 << 20;

/// Bytes of contents in one answer to `fetch`.
pub(super) const FETCH_BYTES: usize = 1 << 20;

/// How long to wait after a failed read of the log, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// What a mailbox needs of the hub for one turn.
pub(super) struct Turn<'a> {
    pub(super) now: Timestamp,
    pub(super) head: Seq,
    pub(super) state: &'a State,
    pub(super) recent: &'a Recent,
    pub(super) dirty: &'a mut Dirty,
    pub(super) reads: &'a mut Reads,
}

/// Whether an agent may receive now: asked at every reading.
pub(super) fn may_receive(state: &State, uid: AgentUid) -> bool {
    state.permissions(uid).has(Permission::Read)
}

impl Turn<'_> {
    /// Whether a message is addressed to a mailbox.
    fn is_for(&self, mailbox: &Mailbox, message: &Message) -> bool {
        match (mailbox.whose, message.event()) {
            (Whose::OperatorTail, _) => true,
            (Whose::Agent(uid) | Whose::AgentTail(uid), event) => {
                self.state.addressed(message.seq(), event, uid)
            }
        }
    }

    /// Whether a message of the log is for a mailbox, and not dealt with.
    fn is_open(&self, mailbox: &Mailbox, message: &Message) -> bool {
        let is_acked =
            |uid| Mailbox::is_acked(self.state.cursor(uid, &mailbox.name), message.seq());
        let is_acked = match mailbox.whose {
            Whose::Agent(uid) => is_acked(uid),
            Whose::AgentTail(_) | Whose::OperatorTail => false,
        };
        !is_acked && self.is_for(mailbox, message)
    }

    fn may_receive(&self, mailbox: &Mailbox) -> bool {
        match mailbox.whose {
            Whose::OperatorTail => true,
            Whose::Agent(uid) | Whose::AgentTail(uid) => may_receive(self.state, uid),
        }
    }

    /// Brings a mailbox forward as far as it goes now.
    pub(super) fn pump(&mut self, id: MailboxId, mailbox: &mut Mailbox) {
        mailbox.wake(self.now);
        if mailbox.retry.is_some_and(|at| at <= self.now) {
            mailbox.retry = None;
        }
        if !self.may_receive(mailbox) {
            // Denied in the middle: what waits is refused, what would be pushed stays in the log.
            let denied = Denied::new(Code::Denied, "your role no longer has the permission `read`");
            for fetch in mailbox.waiting.drain(..) {
                self.dirty.answer::<Fetched>(fetch.ticket, Err(&denied));
            }
            mailbox.is_live = false;
            return;
        }
        loop {
            let is_blocked = mailbox.push(self.now);
            if let Some(consumer) = &mailbox.consumer {
                self.dirty.mark(&consumer.conn);
            }
            let is_hungry = self.answer_waiting(mailbox) || mailbox.wants_more();
            let is_stuck = is_blocked || mailbox.is_full() || mailbox.is_live;
            if is_stuck || !is_hungry || mailbox.reading.is_some() || mailbox.retry.is_some() {
                return;
            }
            if !self.take_recent(mailbox) {
                let what = ReadWhat::From {
                    after: mailbox.read_upto,
                    limit: PAGE,
                    bytes: PAGE_BYTES,
                    kinds: vec!["message_published".to_owned()],
                };
                mailbox.reading = Some(self.reads.ask(what, Purpose::Mailbox(id)));
                return;
            }
        }
    }

    /// Takes in what is still here; false where the log has to be read.
    fn take_recent(&self, mailbox: &mut Mailbox) -> bool {
        let Some(messages) = self.recent.after(mailbox.read_upto) else { return false };
        for message in messages {
            if self.is_open(mailbox, message) {
                if !mailbox.has_room(message.bytes()) {
                    return true;
                }
                mailbox.offer(Arc::clone(message));
            } else {
                mailbox.read_upto = message.seq();
            }
        }
        mailbox.is_live = true;
        true
    }

    /// Takes in a page of the log.
    pub(super) fn feed(
        &mut self,
        id: MailboxId,
        mailbox: &mut Mailbox,
        page: Result<LogPage, Denied>,
    ) {
        mailbox.reading = None;
        match page {
            Ok(page) => {
                if let Some((from, to)) = mailbox.overtaken(self.now, page.floor) {
                    self.lagged(mailbox, from, to);
                }
                self.take_page(mailbox, &page);
            }
            Err(denied) => {
                for fetch in mailbox.waiting.drain(..) {
                    self.dirty.answer::<Fetched>(fetch.ticket, Err(&denied));
                }
                mailbox.retry = Some(self.now.plus_ms(RETRY_MS));
            }
        }
        self.pump(id, mailbox);
    }

    fn take_page(&self, mailbox: &mut Mailbox, page: &LogPage) {
        for message in page.events.iter().filter_map(Message::of) {
            if message.seq() <= mailbox.read_upto {
                continue;
            }
            if self.is_open(mailbox, &message) {
                if !mailbox.has_room(message.bytes()) {
                    return;
                }
                mailbox.offer(message);
            } else {
                mailbox.read_upto = message.seq();
            }
        }
        mailbox.read_upto = mailbox.read_upto.max(page.upto);
        mailbox.is_live = mailbox.read_upto >= self.head;
    }

    fn lagged(&mut self, mailbox: &Mailbox, from: Seq, to: Seq) {
        let Some(consumer) = &mailbox.consumer else { return };
        let subscription = Some(mailbox.name.clone());
        if let Ok(line) = encode::lagged(&Lagged { subscription, from, to }) {
            consumer.conn.outbox.push(Frame::Own(line));
            self.dirty.mark(&consumer.conn);
        }
    }

    /// Answers the fetches that can be answered; says whether one wants more of the log first.
    fn answer_waiting(&mut self, mailbox: &mut Mailbox) -> bool {
        let mut is_hungry = false;
        let mut at = 0;
        while at < mailbox.waiting.len() {
            let fetch = &mailbox.waiting[at];
            let (count, is_full) = mailbox.count(fetch, FETCH_BYTES);
            let is_all = is_full || mailbox.is_live;
            if is_all && (count > 0 || fetch.until <= self.now) {
                let fetch = mailbox.waiting.remove(at);
                self.answer_fetch(mailbox, fetch, count);
            } else {
                is_hungry |= !is_all;
                at += 1;
            }
        }
        is_hungry
    }

    fn answer_fetch(&mut self, mailbox: &mut Mailbox, fetch: Waiting, count: usize) {
        let taken = mailbox.take(&fetch, count, self.now);
        let is_cut = taken.len() >= fetch.limit;
        let last = taken.last().map(|(message, _)| message.seq()).filter(|_| is_cut);
        let upto = last.unwrap_or_else(|| mailbox.looked_upto(self.head));
        let messages = taken.into_iter().map(|(message, redelivered)| FetchedMessage {
            message: message.view.clone(),
            redelivered,
            receipts: Vec::new(),
        });
        let fetched = Fetched { messages: messages.collect(), upto };
        self.dirty.answer(fetch.ticket, Ok(&fetched));
    }

    /// New durable messages, without a gap, for a live mailbox.
    pub(super) fn arrive(
        &mut self,
        id: MailboxId,
        mailbox: &mut Mailbox,
        messages: &[Arc<Message>],
    ) {
        if !mailbox.is_live {
            return;
        }
        let mut offered: Vec<&Arc<Message>> = Vec::new();
        for message in messages {
            if message.seq() <= mailbox.read_upto || !self.is_for(mailbox, message) {
                continue;
            }
            if !offered.is_empty() && !mailbox.has_room(message.bytes()) {
                // What was offered may be on its way at once; nothing after it was looked at yet.
                let head = std::mem::replace(&mut self.head, message.before());
                self.hand_on(id, mailbox, &mut offered);
                self.head = head;
                if message.seq() <= mailbox.read_upto {
                    continue;
                }
            }
            if mailbox.is_live && mailbox.is_wanted() && mailbox.has_room(message.bytes()) {
                mailbox.offer(Arc::clone(message));
                offered.push(message);
            } else {
                // From here on it reads the log, when it wants more.
                mailbox.read_upto = message.before().max(mailbox.read_upto);
                mailbox.is_live = false;
                break;
            }
        }
        if !offered.is_empty() {
            self.hand_on(id, mailbox, &mut offered);
        }
    }

    fn hand_on(&mut self, id: MailboxId, mailbox: &mut Mailbox, offered: &mut Vec<&Arc<Message>>) {
        if let Some(consumer) = &mailbox.consumer {
            offered.retain(|message| consumer.takes(message.r#type()));
            recent::prepare(offered, &mailbox.name);
        }
        offered.clear();
        self.pump(id, mailbox);
    }
}
