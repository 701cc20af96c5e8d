//! The hub's part in delivery: fan-out of what became durable, ephemerals, parts of the log, ends.

use std::sync::Arc;

use super::conn::ConnId;
use super::follow;
use super::hub::Hub;
use super::inbound::Ticket;
use super::log::{LogPage, ReadId};
use super::mailbox::Whose;
use super::pump::{FETCH_BYTES, Turn};
use super::reads::{MailboxId, Purpose};
use super::recent::Message;
use super::subscribe::note;
use crate::core::denied::{Code, Denied};
use crate::core::event::{Event, Logged};
use crate::core::head::Caller;
use crate::core::request::Ack;
use crate::core::spec::Permission;
use crate::core::state::State;
use crate::core::view::{Party, ReceiptState};
use crate::ids::{AgentUid, Seq, Timestamp};
use crate::proto::wire::{Fetched, FetchedMessage};

fn may_audit(state: &State, who: Caller) -> bool {
    match who {
        Caller::Operator => true,
        Caller::Agent(uid) => state.permissions(uid).has(Permission::Audit),
    }
}

fn is_broadcast(event: &Logged) -> bool {
    matches!(&event.event, Event::MessagePublished(published) if published.to.is_empty())
}

impl Hub {
    /// Learns of events that have just become durable, in order, with their contents.
    pub fn deliver(&mut self, now: Timestamp, events: &[Logged], state: &State) {
        let mut rest = events;
        while let Some(event) = rest.first() {
            // Broadcasts that follow on each other go to each mailbox together.
            let broadcasts = rest.iter().take_while(|event| is_broadcast(event)).count();
            let (these, others) = rest.split_at(broadcasts.max(1));
            rest = others;
            for event in these {
                self.head = event.seq;
                let mut frame = None;
                for follower in self.followers.values_mut() {
                    follower.arrive(&mut self.dirty, event, &mut frame);
                }
            }
            if let Event::MessagePublished(published) = &event.event {
                let messages: Vec<_> = these.iter().filter_map(Message::of).collect();
                for message in &messages {
                    self.recent.push(Arc::clone(message));
                }
                if published.to.is_empty() {
                    self.arrive_at_all(now, &messages, state);
                } else {
                    let to = published.to.iter().map(|addressee| addressee.0);
                    self.arrive_at(now, to, &messages, state);
                }
            } else if let Event::MessagesDead(dead) = &event.event {
                let agent = self.agents.get(&dead.agent);
                let id = agent.and_then(|a| a.mailboxes.get(&dead.subscription)).copied();
                if let Some(id) = id {
                    self.with_mailbox(now, id, state, |turn, mailbox| {
                        mailbox.dead(&dead.seqs);
                        turn.pump(id, mailbox);
                    });
                }
            } else if matches!(
                event.event,
                Event::AgentRoleChanged(_) | Event::MissionConfigured(_)
            ) {
                // Who may receive has changed.
                self.pump_all(now, state);
                self.end_followers(state);
            }
        }
        for follower in self.followers.values_mut() {
            follower.catch_up(now, &mut self.reads, self.head);
        }
    }

    /// Ends the connections that follow the log and may not any more.
    fn end_followers(&mut self, state: &State) {
        let over = self.followers.extract_if(.., |_, f| !may_audit(state, f.conn.owner.who));
        for (_, follower) in over.collect::<Vec<_>>() {
            let denied =
                Denied::new(Code::Denied, "your role no longer has the permission `audit`");
            follower.conn.refuse(None, &denied);
            follower.conn.hang_up();
        }
    }

    fn pump_all(&mut self, now: Timestamp, state: &State) {
        let ids: Vec<_> = self.mailboxes.keys().copied().collect();
        for id in ids {
            self.pump(now, id, state);
        }
    }

    fn arrive_at_all(&mut self, now: Timestamp, messages: &[Arc<Message>], state: &State) {
        let mut turn = Turn {
            now,
            head: self.head,
            state,
            recent: &self.recent,
            dirty: &mut self.dirty,
            reads: &mut self.reads,
        };
        for (id, mailbox) in &mut self.mailboxes {
            turn.arrive(*id, mailbox, messages);
            note(&mut self.due, *id, mailbox);
        }
    }

    fn arrive_at(
        &mut self,
        now: Timestamp,
        to: impl Iterator<Item = AgentUid>,
        messages: &[Arc<Message>],
        state: &State,
    ) {
        let named: Vec<MailboxId> = to
            .filter_map(|uid| self.agents.get(&uid))
            .flat_map(|agent| agent.mailboxes.values().copied())
            .chain(self.tails.values().copied())
            .collect();
        for id in named {
            self.with_mailbox(now, id, state, |turn, mailbox| turn.arrive(id, mailbox, messages));
        }
    }

    /// Cursors that moved by filters or by acknowledgements without gaps, to be told to the core as
    /// `ack`s of these agents. To be called in every turn, before the batch is sealed.
    pub fn advances(&mut self, now: Timestamp) -> Vec<(AgentUid, Ack)> {
        let due = self.due.range(..=(now, MailboxId(u64::MAX))).map(|(_, id)| *id);
        let due: Vec<MailboxId> = due.collect();
        self.ticks = 0;
        let mut advances = Vec::new();
        for id in due {
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { continue };
            let Whose::Agent(uid) = mailbox.whose else { continue };
            if let Some(upto) = mailbox.take_advance(now, self.head) {
                let subscription = mailbox.name.clone();
                let ack = Ack { subscription, upto: Some(upto), seqs: vec![], nack: vec![] };
                advances.push((uid, ack));
            }
            note(&mut self.due, id, mailbox);
        }
        advances
    }

    /// Takes in a part of the log that was asked for.
    pub fn feed(
        &mut self,
        now: Timestamp,
        id: ReadId,
        page: Result<LogPage, Denied>,
        state: &State,
    ) {
        match self.reads.pending.remove(&id) {
            Some(Purpose::Mailbox(mailbox_id)) => {
                self.with_mailbox(now, mailbox_id, state, |turn, mailbox| {
                    // Another read was begun since: this one is of an earlier life.
                    if mailbox.reading == Some(id) {
                        turn.feed(mailbox_id, mailbox, page);
                    }
                });
            }
            Some(Purpose::Follower(conn)) => {
                let Some(follower) = self.followers.get_mut(&conn) else { return };
                if follower.reading == Some(id) {
                    follower.feed(now, &mut self.dirty, page);
                    follower.catch_up(now, &mut self.reads, self.head);
                }
            }
            Some(Purpose::Audit(wait)) => {
                let page = page.and_then(|page| match may_audit(state, wait.conn.owner.who) {
                    true => Ok(page),
                    false => {
                        let text = "your role no longer has the permission `audit`";
                        Err(Denied::new(Code::Denied, text))
                    }
                });
                let conn = wait.conn.id;
                let follower = follow::answer(&mut self.dirty, *wait, page, self.head);
                if let Some(mut follower) = follower.filter(|_| self.links.contains_key(&conn)) {
                    follower.catch_up(now, &mut self.reads, self.head);
                    self.followers.insert(conn, follower);
                }
            }
            Some(Purpose::Seqs { ticket, all }) => {
                let fetched = page.and_then(|page| self.with_receipts(&page, &ticket, all, state));
                self.dirty.answer(ticket, fetched.as_ref());
            }
            None => {}
        }
    }

    fn with_receipts(
        &self,
        page: &LogPage,
        ticket: &Ticket,
        all: bool,
        state: &State,
    ) -> Result<Fetched, Denied> {
        let me = match ticket.who() {
            Caller::Agent(uid) => state.name_of(uid).cloned().map(Party::Agent),
            Caller::Operator => Some(Party::Operator),
        };
        let mut messages = Vec::new();
        let mut bytes = 0;
        for event in &page.events {
            let (Event::MessagePublished(published), Some(message)) =
                (&event.event, Message::of(event))
            else {
                let message = format!("event {} is no message", event.seq);
                return Err(Denied::new(Code::NotFound, message));
            };
            if !all && me.as_ref() != Some(&event.actor) {
                let message = format!(
                    "message {} was sent by {}: its receipts are for its sender and for `audit`",
                    event.seq, event.actor
                );
                return Err(Denied::new(Code::Denied, message));
            }
            bytes += message.bytes();
            if bytes > FETCH_BYTES && !messages.is_empty() {
                break;
            }
            let mut receipts = state.receipts(event.seq, published);
            for receipt in &mut receipts {
                let uid = published.to.iter().find(|to| to.1 == receipt.to).map(|to| to.0);
                let uid = uid.or_else(|| state.uid(receipt.to.as_str()));
                let is_delivered = uid.is_some_and(|uid| self.is_delivered(uid, event.seq));
                if receipt.state == ReceiptState::Accepted && is_delivered {
                    receipt.state = ReceiptState::Delivered;
                }
            }
            let message = message.view.clone();
            messages.push(FetchedMessage { message, redelivered: false, receipts });
        }
        if messages.is_empty() {
            return Err(Denied::new(
                Code::NotFound,
                "no such message: it never was, or was pruned",
            ));
        }
        Ok(Fetched { messages, upto: self.head })
    }

    /// A connection's peer has read what it was sent.
    pub(super) fn has_room(&mut self, now: Timestamp, conn: ConnId, state: &State) {
        if let Some(follower) = self.followers.get_mut(&conn) {
            follower.catch_up(now, &mut self.reads, self.head);
        }
        let Some(link) = self.links.get(&conn) else { return };
        let ids: Vec<_> = link.mailboxes.iter().copied().collect();
        for id in ids {
            self.pump(now, id, state);
        }
    }

    /// A connection is over: its waits are cancelled, what it was given is for the next one.
    pub(super) fn disconnected(&mut self, now: Timestamp, conn: ConnId, state: &State) {
        self.followers.remove(&conn);
        let Some(link) = self.links.remove(&conn) else { return };
        if let Some(tail) = self.tails.remove(&conn) {
            self.forget_mailbox(tail);
        }
        for id in link.mailboxes {
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { continue };
            if mailbox.consumer.as_ref().is_some_and(|consumer| consumer.conn.id == conn) {
                mailbox.end_consumer();
            }
            mailbox.waiting.retain(|fetch| fetch.ticket.conn() != conn);
            if mailbox.is_idle() {
                self.forget_mailbox(id);
            } else {
                self.pump(now, id, state);
            }
        }
    }

    /// Does what is due: messages that come again, waits that end.
    pub fn tick(&mut self, now: Timestamp, state: &State) {
        let due = self.due.range(..=(now, MailboxId(u64::MAX))).map(|(_, id)| *id);
        let due: Vec<MailboxId> = due.collect();
        self.ticks += 1;
        for id in due {
            // Two ticks, and nobody took the advances that are due.
            let is_left = self.ticks > 1;
            if let Some(mailbox) = self.mailboxes.get_mut(&id).filter(|_| is_left) {
                mailbox.postpone_advance(now);
            }
            self.pump(now, id, state);
        }
        for follower in self.followers.values_mut() {
            follower.catch_up(now, &mut self.reads, self.head);
        }
    }

    /// When [`Hub::tick`] or [`Hub::advances`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let mailbox = self.due.first().map(|(at, _)| *at);
        let follower = self.followers.values().filter_map(|follower| follower.retry).min();
        mailbox.into_iter().chain(follower).min()
    }

    /// Forgets what was acknowledged but is not: the head was folded again from what is durable.
    pub fn resync(&mut self, now: Timestamp, state: &State) {
        let ids: Vec<_> = self.mailboxes.keys().copied().collect();
        for id in ids {
            self.with_mailbox(now, id, state, |turn, mailbox| {
                if let Whose::Agent(uid) = mailbox.whose
                    && let Some(agent) = state.agent(uid)
                {
                    let cursor = state.cursor(uid, &mailbox.name);
                    mailbox.restart(cursor.map_or(agent.joined, |cursor| cursor.acked_upto));
                }
                turn.pump(id, mailbox);
            });
        }
    }

    /// Says nothing more on any connection: nothing that could be said is known to be so.
    pub fn fall_silent(&mut self) {
        for link in self.links.values() {
            link.conn.outbox.close();
        }
    }

    /// Whether a message was delivered to an agent's inbox in this run of the daemon.
    #[must_use]
    pub fn is_delivered(&self, uid: AgentUid, seq: Seq) -> bool {
        let inbox = crate::core::inbox_name();
        let id = self.agents.get(&uid).and_then(|agent| agent.mailboxes.get(&inbox));
        id.and_then(|id| self.mailboxes.get(id)).is_some_and(|m| m.is_delivered(seq))
    }
}
