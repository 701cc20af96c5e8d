//! Publishing and acknowledging.

use super::{Answer, Decision, EphemeralDraft, check_content};
use crate::core::INBOX;
use crate::core::denied::{Code, Denied};
use crate::core::event::{Addressee, Advance, MessagePublished, MessagesDead, MessagesNacked};
use crate::core::request::{Ack, Publish};
use crate::core::state::{Agent, Cursor, MAX_RANGES, State};
use crate::ids::{AgentUid, Seq};

pub(super) fn publish(state: &State, p: Publish) -> Result<Decision, Denied> {
    check_content(state, "a message", Some(&p.content))?;
    let mut to: Vec<Addressee> = Vec::with_capacity(p.to.len());
    for name in p.to {
        let uid = state.resolve(&name)?;
        if !to.iter().any(|addressee| addressee.0 == uid) {
            to.push(Addressee(uid, name));
        }
    }
    if p.ephemeral {
        let (r#type, task, reply_to, content) = (p.r#type, p.task, p.reply_to, p.content);
        let draft = EphemeralDraft { r#type, to, task, reply_to, content };
        return Ok(Decision::nothing(Answer::Ephemeral(Box::new(draft))));
    }
    let bytes = p.content.len() as u64;
    for addressee in &to {
        if let Some(agent) = state.agents.get(&addressee.0) {
            check_inbox(state, agent, bytes)?;
        }
    }
    let event =
        MessagePublished { r#type: p.r#type, to, task: p.task, reply_to: p.reply_to, bytes };
    Ok(Decision { drafts: vec![(event.into(), Some(p.content))], answer: Answer::Published })
}

/// Refuses a direct message that an agent has no room for.
pub(crate) fn check_inbox(state: &State, agent: &Agent, bytes: u64) -> Result<(), Denied> {
    let (limits, inbox, name) = (&state.limits, &agent.inbox, &agent.spec.name);
    if inbox.held.len() >= limits.inbox_messages as usize {
        let max = limits.inbox_messages;
        let text = format!(
            "the inbox of `{name}` is full: {max} unacknowledged messages (limits.inbox_messages)"
        );
        return Err(Denied::new(Code::Limit, text));
    }
    if inbox.held_bytes + bytes > limits.inbox_bytes {
        let max = limits.inbox_bytes;
        let text = format!(
            "the inbox of `{name}` is full: {max} unacknowledged bytes (limits.inbox_bytes)"
        );
        return Err(Denied::new(Code::Limit, text));
    }
    Ok(())
}

/// What an acknowledgement comes to.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    /// How far the subscription then is.
    pub(crate) cursor: Cursor,
    /// What is to be logged at the end of the batch.
    pub(crate) advance: Advance,
    /// What is to be logged at once.
    pub(crate) nacked: Option<MessagesNacked>,
    /// What is not delivered any more.
    pub(crate) dead: Option<MessagesDead>,
}

/// Decides an acknowledgement on top of `pending`, the same subscription's earlier ones of this batch.
pub(crate) fn ack(
    state: &State,
    uid: AgentUid,
    p: Ack,
    pending: Option<&Cursor>,
) -> Result<Acknowledged, Denied> {
    let invalid = |text: String| Err(Denied::new(Code::Invalid, text));
    let Some(agent) = state.agents.get(&uid) else {
        return invalid("ack: only agents have subscriptions".to_owned());
    };
    let known = agent.inbox.cursors.get(&p.subscription);
    if known.is_none() && pending.is_none() && p.subscription.as_str() != INBOX {
        // The inbox itself is always there, and not counted.
        let named = agent.inbox.cursors.keys().filter(|name| name.as_str() != INBOX).count();
        let max = state.limits.subscriptions;
        if named >= max as usize {
            let text = format!("a subscription more than {max} (limits.subscriptions)");
            return Err(Denied::new(Code::Limit, text));
        }
    }
    let last = p.upto.iter().chain(&p.seqs).chain(&p.nack).max().copied().unwrap_or_default();
    if last > state.head {
        return invalid(format!("ack of {last}: the last event is {}", state.head));
    }
    let mut cursor = pending.or(known).cloned();
    let cursor_ref =
        cursor.get_or_insert_with(|| Cursor { acked_upto: agent.joined, ..Cursor::default() });
    if let Some(upto) = p.upto {
        cursor_ref.raise(upto);
    }
    for seq in &p.seqs {
        cursor_ref.add(*seq, *seq);
    }
    let nacks = agent.inbox.nacks.get(&p.subscription);
    let (mut again, mut dead) = (Vec::new(), Vec::new());
    for seq in p.nack {
        if cursor_ref.covers(seq) || again.contains(&seq) || dead.contains(&seq) {
            continue;
        }
        let before = nacks.and_then(|nacks| nacks.get(&seq)).copied().unwrap_or(0);
        if before + 1 >= state.limits.max_nacks {
            dead.push(seq);
        } else {
            again.push(seq);
        }
    }
    let fresh = again.iter().filter(|seq| nacks.is_none_or(|nacks| !nacks.contains_key(seq)));
    if cursor_ref.ranges.len() + dead.len() > MAX_RANGES
        || nacks.map_or(0, |nacks| nacks.len()) + fresh.count() > MAX_RANGES
    {
        let text = format!(
            "ack: more than {MAX_RANGES} ranges above {}; acknowledge that gap first",
            cursor_ref.acked_upto
        );
        return Err(Denied::new(Code::Limit, text));
    }
    let subscription = p.subscription;
    let nacked = (!again.is_empty()).then(|| MessagesNacked {
        agent: uid,
        subscription: subscription.clone(),
        seqs: again,
    });
    let dead = (!dead.is_empty()).then(|| MessagesDead {
        agent: uid,
        subscription: subscription.clone(),
        seqs: dead,
        reason: format!("not dealt with {} times (limits.max_nacks)", state.limits.max_nacks),
    });
    let mut ranges: Vec<(Seq, Seq)> = Vec::new();
    for seq in p.seqs {
        match ranges.last_mut() {
            Some((_, last)) if last.next() == seq => *last = seq,
            Some(_) | None => ranges.push((seq, seq)),
        }
    }
    Ok(Acknowledged {
        cursor: cursor.unwrap_or_default(),
        advance: Advance { agent: uid, subscription, upto: p.upto, ranges },
        nacked,
        dead,
    })
}
