//! Messages as the hub holds them, and the latest ones: a reader that is only a little behind needs
//! no read of the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::frames::{self, SharedFrame};
use crate::core::event::{Event, Logged, MessagePublished};
use crate::core::json::Json;
use crate::core::request::MessageType;
use crate::core::view::MessageView;
use crate::ids::{MessageId, Seq, SubscriptionName};
use crate::proto::encode;

/// Messages that are kept.
const MESSAGES: usize = 4_096;

/// Bytes of their contents that are kept.
const BYTES: usize = 4 << 20;

/// Frames of a message that are kept, each for another name of a subscription.
const FRAMES: usize = 4;

/// A message of the log, shared by all who are to get it, with the frames that most of them get.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) view: MessageView,
    event: MessagePublished,
    frames: Mutex<Vec<(SubscriptionName, SharedFrame)>>,
}

impl Message {
    /// The message of an event; none of another kind.
    pub(super) fn of(logged: &Logged) -> Option<Arc<Message>> {
        let Event::MessagePublished(event) = &logged.event else { return None };
        let view = MessageView {
            id: Some(MessageId(logged.seq)),
            seq: logged.seq,
            r#type: event.r#type.clone(),
            from: logged.actor.clone(),
            to: event.to.iter().map(|addressee| addressee.1.clone()).collect(),
            at: logged.at,
            task: event.task.clone(),
            reply_to: event.reply_to,
            // Content can have been erased from the log since.
            content: logged.content.clone().or_else(|| Json::parse("null").ok())?,
        };
        Some(Arc::new(Message { view, event: event.clone(), frames: Mutex::default() }))
    }

    pub(super) fn seq(&self) -> Seq {
        self.view.seq
    }

    pub(super) fn r#type(&self) -> &MessageType {
        &self.view.r#type
    }

    /// The position before it.
    pub(super) fn before(&self) -> Seq {
        Seq(self.view.seq.0.saturating_sub(1))
    }

    /// What it weighs.
    pub(super) fn bytes(&self) -> usize {
        self.view.content.len() + 256
    }

    /// The event that it came from.
    pub(super) fn event(&self) -> &MessagePublished {
        &self.event
    }

    /// The notification for a subscription: encoded once for all first deliveries to subscriptions
    /// of that name.
    pub(super) fn frame(&self, subscription: &SubscriptionName, redelivered: bool) -> SharedFrame {
        if !redelivered && let Some(frame) = self.frame_of(subscription) {
            return frame;
        }
        let mut frames = encode([self], subscription, redelivered);
        match frames.pop() {
            Some(frame) if redelivered => frame,
            Some(frame) => {
                self.keep(subscription, &frame);
                frame
            }
            None => SharedFrame::default(),
        }
    }

    fn frame_of(&self, subscription: &SubscriptionName) -> Option<SharedFrame> {
        let frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        frames.iter().find(|(name, _)| name == subscription).map(|(_, frame)| frame.clone())
    }

    fn keep(&self, subscription: &SubscriptionName, frame: &SharedFrame) {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() < FRAMES {
            frames.push((subscription.clone(), frame.clone()));
        }
    }
}

/// Encodes what is not encoded yet for subscriptions of a name, side by side.
pub(super) fn prepare(messages: &[&Arc<Message>], subscription: &SubscriptionName) {
    // Another mailbox of that name had them prepared; mostly all of them.
    let is_there = |at: Option<&&Arc<Message>>| {
        at.is_none_or(|message| message.frame_of(subscription).is_some())
    };
    if is_there(messages.first()) && is_there(messages.last()) {
        return;
    }
    let missing: Vec<&Message> = messages
        .iter()
        .map(|message| &***message)
        .filter(|message| message.frame_of(subscription).is_none())
        .collect();
    let frames = encode(missing.iter().copied(), subscription, false);
    for (message, frame) in missing.into_iter().zip(frames) {
        message.keep(subscription, &frame);
    }
}

fn encode<'a>(
    messages: impl IntoIterator<Item = &'a Message>,
    subscription: &SubscriptionName,
    redelivered: bool,
) -> Vec<SharedFrame> {
    frames::encode(messages, |line, message| {
        // Content is JSON already, so this does not fail; if it did, the line would be empty.
        let _ = encode::append_message(line, subscription, &message.view, redelivered, false);
    })
}

/// The latest messages, without a gap.
#[derive(Debug, Default)]
pub(super) struct Recent {
    messages: VecDeque<Arc<Message>>,
    bytes: usize,
    /// Every message after this one is here.
    after: Seq,
}

impl Recent {
    /// Begins anew after a position.
    pub(super) fn begin(&mut self, after: Seq) {
        *self = Recent { after, ..Recent::default() };
    }

    pub(super) fn push(&mut self, message: Arc<Message>) {
        self.bytes += message.bytes();
        self.messages.push_back(message);
        while self.messages.len() > MESSAGES || self.bytes > BYTES {
            let Some(old) = self.messages.pop_front() else { break };
            self.bytes -= old.bytes();
            self.after = old.seq();
        }
    }

    /// The messages after `seq`; none where some of them are no longer here.
    pub(super) fn after(&self, seq: Seq) -> Option<impl Iterator<Item = &Arc<Message>>> {
        let begin = self.messages.partition_point(|message| message.seq() <= seq);
        (seq >= self.after).then(|| self.messages.range(begin..))
    }
}
