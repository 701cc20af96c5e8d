//! What the message events do. The hot path of the log: no content, no scan over agents.

use crate::core::INBOX;
use crate::core::event::{CursorsAdvanced, Logged, MessagePublished, MessagesDead, MessagesNacked};
use crate::core::state::{Agent, Cursor, Held, Inbox, State};
use crate::ids::{Seq, SubscriptionName};

impl State {
    pub(super) fn on_published(&mut self, logged: &Logged, e: &MessagePublished) {
        for addressee in &e.to {
            if let Some(agent) = self.agents.get_mut(&addressee.0) {
                agent.inbox.held.insert(logged.seq, Held { bytes: e.bytes, at: logged.at });
                agent.inbox.held_bytes += e.bytes;
            }
        }
    }

    pub(super) fn on_cursors(&mut self, e: &CursorsAdvanced) {
        for advance in &e.cursors {
            let Some(agent) = self.agents.get_mut(&advance.agent) else { continue };
            let cursor = cursor_of(agent, &advance.subscription);
            if let Some(upto) = advance.upto {
                cursor.raise(upto);
            }
            for (first, last) in &advance.ranges {
                cursor.add(*first, *last);
            }
            let upto = cursor.acked_upto;
            let inbox = &mut agent.inbox;
            if let Some(nacks) = inbox.nacks.get_mut(&advance.subscription) {
                nacks.retain(|seq, _| {
                    *seq > upto && !advance.ranges.iter().any(|(a, b)| a <= seq && seq <= b)
                });
                if nacks.is_empty() {
                    inbox.nacks.remove(&advance.subscription);
                }
            }
            if advance.subscription.as_str() == INBOX {
                while inbox.held.first_key_value().is_some_and(|(seq, _)| *seq <= upto) {
                    if let Some((_, held)) = inbox.held.pop_first() {
                        inbox.held_bytes -= held.bytes;
                    }
                }
                for (first, last) in &advance.ranges {
                    inbox.let_go(*first, *last);
                }
            }
        }
    }

    pub(super) fn on_nacked(&mut self, e: &MessagesNacked) {
        let Some(agent) = self.agents.get_mut(&e.agent) else { return };
        let nacks = agent.inbox.nacks.entry(e.subscription.clone()).or_default();
        for seq in &e.seqs {
            *nacks.entry(*seq).or_default() += 1;
        }
    }

    pub(super) fn on_dead(&mut self, e: &MessagesDead) {
        let keep = self.limits.inbox_messages as usize;
        let Some(agent) = self.agents.get_mut(&e.agent) else { return };
        let cursor = cursor_of(agent, &e.subscription);
        for seq in &e.seqs {
            cursor.add(*seq, *seq);
        }
        cursor.fold();
        let inbox = &mut agent.inbox;
        for seq in &e.seqs {
            if e.subscription.as_str() == INBOX {
                inbox.let_go(*seq, *seq);
            }
            if let Some(nacks) = inbox.nacks.get_mut(&e.subscription) {
                nacks.remove(seq);
                if nacks.is_empty() {
                    inbox.nacks.remove(&e.subscription);
                }
            }
            inbox.dead.insert(*seq, e.reason.clone());
        }
        while inbox.dead.len() > keep {
            inbox.dead.pop_first();
        }
    }
}

fn cursor_of<'a>(agent: &'a mut Agent, subscription: &SubscriptionName) -> &'a mut Cursor {
    let joined = agent.joined;
    // Looked up first: an entry would clone the name each time.
    if !agent.inbox.cursors.contains_key(subscription) {
        let cursor = Cursor { acked_upto: joined, ..Cursor::default() };
        agent.inbox.cursors.insert(subscription.clone(), cursor);
    }
    agent.inbox.cursors.entry(subscription.clone()).or_default()
}

impl Inbox {
    /// The direct messages from `first` to `last` are dealt with.
    fn let_go(&mut self, first: Seq, last: Seq) {
        while let Some((seq, held)) = self.held.range(first..=last).next().map(|(s, h)| (*s, *h)) {
            self.held.remove(&seq);
            self.held_bytes -= held.bytes;
        }
    }
}
