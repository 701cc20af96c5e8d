//! What readers ask for: `subscribe`, `fetch`, `ack`, `audit.read`, and the mailboxes behind them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::conn::ConnId;
use super::follow;
use super::hub::Hub;
use super::inbound::Ticket;
use super::log::ReadWhat;
use super::mailbox::{Consumer, Mailbox, Waiting, Whose};
use super::pump::Turn;
use super::reads::{MailboxId, Purpose};
use crate::core::denied::{Code, Denied};
use crate::core::head::Caller;
use crate::core::request::Ack;
use crate::core::state::State;
use crate::ids::{AgentUid, Seq, SubscriptionName, Timestamp};
use crate::proto::wire::{AuditRead, Fetch, Subscribe, Subscribed};

/// The subscription without a cursor.
const TAIL: &str = "tail";

/// Notes when a mailbox has something to do next.
pub(super) fn note(
    due: &mut BTreeSet<(Timestamp, MailboxId)>,
    id: MailboxId,
    mailbox: &mut Mailbox,
) {
    let next = mailbox.next_deadline();
    if next == mailbox.noted {
        return;
    }
    if let Some(before) = std::mem::replace(&mut mailbox.noted, next) {
        due.remove(&(before, id));
    }
    if let Some(next) = next {
        due.insert((next, id));
    }
}

impl Hub {
    /// Does something with a mailbox, with all that it needs of the hub; then notes its deadline.
    pub(super) fn with_mailbox<T>(
        &mut self,
        now: Timestamp,
        id: MailboxId,
        state: &State,
        act: impl FnOnce(&mut Turn<'_>, &mut Mailbox) -> T,
    ) -> Option<T> {
        let mailbox = self.mailboxes.get_mut(&id)?;
        let mut turn = Turn {
            now,
            head: self.head,
            state,
            recent: &self.recent,
            dirty: &mut self.dirty,
            reads: &mut self.reads,
        };
        let done = act(&mut turn, mailbox);
        note(&mut self.due, id, mailbox);
        Some(done)
    }

    pub(super) fn pump(&mut self, now: Timestamp, id: MailboxId, state: &State) {
        self.with_mailbox(now, id, state, |turn, mailbox| turn.pump(id, mailbox));
    }

    pub(super) fn forget_mailbox(&mut self, id: MailboxId) {
        let Some(mailbox) = self.mailboxes.remove(&id) else { return };
        if let Some(at) = mailbox.noted {
            self.due.remove(&(at, id));
        }
        if let Whose::Agent(uid) = mailbox.whose
            && let Some(agent) = self.agents.get_mut(&uid)
        {
            agent.mailboxes.remove(&mailbox.name);
        }
    }

    /// The mailbox of an agent's subscription, made if there is none.
    fn mailbox(
        &mut self,
        uid: AgentUid,
        name: &SubscriptionName,
        state: &State,
    ) -> Result<MailboxId, Denied> {
        let gone = || Denied::new(Code::NotFound, "the agent is no longer in the mission");
        let agent = self.agents.get(&uid).ok_or_else(gone)?;
        if let Some(id) = agent.mailboxes.get(name) {
            return Ok(*id);
        }
        let limit = usize::try_from(self.limits.subscriptions).unwrap_or(usize::MAX);
        if agent.mailboxes.len() >= limit {
            let is_idle = |id: &&MailboxId| self.mailboxes.get(id).is_none_or(Mailbox::is_idle);
            let Some(idle) = agent.mailboxes.values().find(is_idle).copied() else {
                let message = format!(
                    "{limit} subscriptions are in use: acknowledge or close one (limits.subscriptions)"
                );
                return Err(Denied::new(Code::Limit, message));
            };
            self.forget_mailbox(idle);
        }
        let joined = state.agent(uid).ok_or_else(gone)?.joined;
        let acked = state.cursor(uid, name).map_or(joined, |cursor| cursor.acked_upto);
        let id = self.add_mailbox(Mailbox::new(Whose::Agent(uid), name.clone(), acked));
        if let Some(agent) = self.agents.get_mut(&uid) {
            agent.mailboxes.insert(name.clone(), id);
        }
        Ok(id)
    }

    fn add_mailbox(&mut self, mailbox: Mailbox) -> MailboxId {
        self.next_mailbox += 1;
        let id = MailboxId(self.next_mailbox);
        self.mailboxes.insert(id, mailbox);
        id
    }

    /// Carries out `subscribe`, to which the core has consented.
    pub fn subscribe(&mut self, now: Timestamp, ticket: Ticket, ask: Subscribe, state: &State) {
        let is_tail = ask.subscription.as_str() == TAIL;
        let found = match ticket.who() {
            _ if is_tail => Ok(self.tail(&ticket)),
            Caller::Agent(uid) => self.mailbox(uid, &ask.subscription, state),
            Caller::Operator => Err(Denied::new(
                Code::Invalid,
                "an operator has no inbox: subscribe to `tail`, or follow with audit.read",
            )),
        };
        let id = match found {
            Ok(id) => id,
            Err(denied) => return self.dirty.answer::<()>(ticket, Err(&denied)),
        };
        let conn = ticket.conn();
        if let Err(denied) = self.make_room_for_consumer(id, conn, &ask) {
            return self.dirty.answer::<()>(ticket, Err(&denied));
        }
        let Some(link) = self.links.get_mut(&conn) else { return };
        let (Some(mailbox), conn) = (self.mailboxes.get_mut(&id), Arc::clone(&link.conn)) else {
            return;
        };
        link.mailboxes.insert(id);
        let credit = if is_tail { u32::MAX } else { ask.credit };
        mailbox.consumer = Some(Consumer { conn, credit, types: ask.types, in_flight: 0 });
        let position = match ticket.who() {
            Caller::Agent(uid) if !is_tail => {
                let cursor = state.cursor(uid, &ask.subscription);
                cursor.map_or(mailbox.read_upto, |cursor| cursor.acked_upto)
            }
            Caller::Agent(_) | Caller::Operator => self.head,
        };
        self.dirty.answer(ticket, Ok(&Subscribed { position }));
        self.pump(now, id, state);
    }

    /// The volatile mailbox of a connection.
    fn tail(&mut self, ticket: &Ticket) -> MailboxId {
        if let Some(id) = self.tails.get(&ticket.conn()) {
            return *id;
        }
        let whose = match ticket.who() {
            Caller::Operator => Whose::OperatorTail,
            Caller::Agent(uid) => Whose::AgentTail(uid),
        };
        let name = SubscriptionName::new(TAIL).unwrap_or_else(|_| crate::core::inbox_name());
        let mut mailbox = Mailbox::new(whose, name, self.head);
        mailbox.is_live = true;
        let id = self.add_mailbox(mailbox);
        self.tails.insert(ticket.conn(), id);
        id
    }

    /// One consumer at a time: another is named in the refusal, or sent away.
    fn make_room_for_consumer(
        &mut self,
        id: MailboxId,
        conn: ConnId,
        ask: &Subscribe,
    ) -> Result<(), Denied> {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return Ok(()) };
        let name = &ask.subscription;
        let other = mailbox.consumer.as_ref().filter(|consumer| consumer.conn.id != conn);
        let is_fetched = mailbox.waiting.iter().any(|fetch| !fetch.peek);
        if !ask.takeover {
            if let Some(consumer) = other {
                return Err(consumed(name, consumer.conn.pid));
            }
            if is_fetched {
                let message = format!("subscription `{name}` is being fetched from: take it over");
                return Err(Denied::new(Code::Conflict, message));
            }
        }
        let sent_away = other.is_some();
        let former = mailbox.end_consumer();
        let waiting = std::mem::take(&mut mailbox.waiting);
        let (peeks, fetches): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|fetch| fetch.peek);
        mailbox.waiting = peeks;
        let denied = Denied::new(Code::Conflict, format!("subscription `{name}` was taken over"));
        for fetch in fetches {
            self.dirty.answer::<()>(fetch.ticket, Err(&denied));
        }
        if let Some(former) = former.filter(|_| sent_away) {
            if let Some(link) = self.links.get_mut(&former.conn.id) {
                link.mailboxes.remove(&id);
            }
            former.conn.refuse(None, &denied);
            former.conn.hang_up();
        }
        Ok(())
    }

    /// Carries out `fetch`, to which the core has consented. `may_audit`: the caller may look at
    /// messages that are not its own.
    pub fn fetch(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        ask: Fetch,
        state: &State,
        may_audit: bool,
    ) {
        if !ask.seqs.is_empty() {
            let all = may_audit || ticket.who() == Caller::Operator;
            self.reads.ask(ReadWhat::Seqs(ask.seqs), Purpose::Seqs { ticket, all });
            return;
        }
        let Caller::Agent(uid) = ticket.who() else {
            let message = "an operator has no inbox: name messages by seqs, or use audit.read";
            return self.refuse(ticket, Code::Invalid, message);
        };
        if ask.subscription.as_str() == TAIL {
            let message = "`tail` has no cursor to fetch from: subscribe to it";
            return self.refuse(ticket, Code::Invalid, message);
        }
        let id = match self.mailbox(uid, &ask.subscription, state) {
            Ok(id) => id,
            Err(denied) => return self.dirty.answer::<()>(ticket, Err(&denied)),
        };
        let consumer = self.mailboxes.get(&id).and_then(|mailbox| mailbox.consumer.as_ref());
        if let Some(consumer) = consumer.filter(|_| !ask.peek) {
            let denied = consumed(&ask.subscription, consumer.conn.pid);
            return self.dirty.answer::<()>(ticket, Err(&denied));
        }
        if let Some(link) = self.links.get_mut(&ticket.conn()) {
            link.mailboxes.insert(id);
        }
        let waiting = Waiting {
            ticket,
            limit: usize::try_from(ask.limit).unwrap_or(usize::MAX),
            types: ask.types,
            peek: ask.peek,
            until: now.plus_ms(ask.wait_ms),
        };
        self.with_mailbox(now, id, state, |turn, mailbox| {
            mailbox.waiting.push(waiting);
            turn.pump(id, mailbox);
        });
    }

    /// Carries out `audit.read`, to which the core has consented.
    pub fn audit_read(&mut self, _now: Timestamp, ticket: Ticket, ask: AuditRead) {
        if let Some(link) = self.links.get(&ticket.conn()) {
            follow::ask(&mut self.reads, Arc::clone(&link.conn), ticket, ask);
        }
    }

    /// Learns of an `ack` that the core has carried out; `state` has it in it.
    pub fn acked(&mut self, now: Timestamp, uid: AgentUid, ack: &Ack, state: &State) {
        let Some(agent) = self.agents.get(&uid) else { return };
        let Some(id) = agent.mailboxes.get(&ack.subscription).copied() else { return };
        let cursor = state.cursor(uid, &ack.subscription);
        let upto = cursor.map_or(Seq(0), |cursor| cursor.acked_upto);
        self.with_mailbox(now, id, state, |turn, mailbox| {
            mailbox.acked(now, ack, upto);
            turn.pump(id, mailbox);
        });
    }
}

fn consumed(name: &SubscriptionName, pid: u32) -> Denied {
    let message = format!(
        "subscription `{name}` is consumed by process {pid}: stop that, or subscribe with takeover"
    );
    Denied::new(Code::Conflict, message)
}
