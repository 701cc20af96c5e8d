//! Messages that are not logged: handed out to whoever listens and has room, with nothing promised.

use super::frames::{self, SharedFrame};
use super::hub::Hub;
use super::mailbox::{Mailbox, Whose};
use super::pump::may_receive;
use crate::core::head::Ephemeral;
use crate::core::spec::Mode;
use crate::core::state::State;
use crate::core::view::MessageView;
use crate::ids::{SubscriptionName, Timestamp};
use crate::proto::encode;

/// The frames of some messages for subscriptions of one name, as far as somebody wanted them.
struct Encoded {
    name: SubscriptionName,
    frames: Vec<Option<SharedFrame>>,
}

impl Encoded {
    /// Encodes what is wanted and is not encoded yet, side by side.
    fn add(&mut self, messages: &[MessageView], wanted: &[usize]) {
        let is_missing = |at: &&usize| self.frames.get(**at).is_some_and(Option::is_none);
        let missing: Vec<usize> = wanted.iter().filter(is_missing).copied().collect();
        let views = missing.iter().filter_map(|at| messages.get(*at));
        let frames = frames::encode(views, |line, view| {
            // Content is JSON already, so this does not fail; if it did, the line would be empty.
            let _ = encode::append_message(line, &self.name, view, false, true);
        });
        for (at, frame) in missing.into_iter().zip(frames) {
            if let Some(slot) = self.frames.get_mut(at) {
                *slot = Some(frame);
            }
        }
    }
}

/// As its readers get it.
fn view(at: Timestamp, ephemeral: &Ephemeral) -> MessageView {
    MessageView {
        id: None,
        seq: ephemeral.after,
        r#type: ephemeral.r#type.clone(),
        from: ephemeral.from.clone(),
        to: ephemeral.to.iter().map(|addressee| addressee.1.clone()).collect(),
        at,
        task: ephemeral.task.clone(),
        reply_to: ephemeral.reply_to,
        content: ephemeral.content.clone(),
    }
}

/// Which of the messages a mailbox is to get.
fn wanted(mailbox: &Mailbox, messages: &[Box<Ephemeral>], state: &State) -> Vec<usize> {
    let Some(consumer) = &mailbox.consumer else { return Vec::new() };
    let passes = |message: &Ephemeral| consumer.takes(&message.r#type);
    let all = messages.iter().enumerate().filter(|(_, message)| passes(message));
    match mailbox.whose {
        Whose::OperatorTail => all.map(|(at, _)| at).collect(),
        Whose::Agent(uid) | Whose::AgentTail(uid) => {
            let Some(agent) = state.agent(uid).filter(|_| may_receive(state, uid)) else {
                return Vec::new();
            };
            let is_for = |message: &Ephemeral| match message.to.is_empty() {
                true => agent.spec.mode == Mode::Service,
                false => message.to.iter().any(|to| to.0 == uid),
            };
            all.filter(|(_, message)| is_for(message)).map(|(at, _)| at).collect()
        }
    }
}

impl Hub {
    /// Hands out messages that are not logged, in order.
    pub fn ephemeral(&mut self, messages: &[Box<Ephemeral>], state: &State) {
        let at = (self.clock())();
        let mut views = Vec::new();
        let mut encoded: Vec<Encoded> = Vec::new();
        for mailbox in self.mailboxes.values() {
            let wanted = wanted(mailbox, messages, state);
            let Some(consumer) = mailbox.consumer.as_ref().filter(|_| !wanted.is_empty()) else {
                continue;
            };
            if views.is_empty() {
                views = messages.iter().map(|message| view(at, message)).collect();
            }
            let known = encoded.iter().position(|encoded| encoded.name == mailbox.name);
            let known = known.unwrap_or_else(|| {
                let frames = vec![None; messages.len()];
                encoded.push(Encoded { name: mailbox.name.clone(), frames });
                encoded.len() - 1
            });
            let Some(of_name) = encoded.get_mut(known) else { continue };
            of_name.add(&views, &wanted);
            let frames = wanted.iter().filter_map(|at| of_name.frames.get(*at)?.as_ref());
            if consumer.conn.outbox.push_ephemeral(frames) {
                self.dirty.mark(&consumer.conn);
            }
        }
    }
}
