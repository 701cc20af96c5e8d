//! Messages as the hub holds them, and the latest ones: a reader that is only a little behind needs
//! no read of the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::core::event::{Event, Logged, MessagePublished};
use crate::core::json::Json;
use crate::core::view::MessageView;
use crate::ids::{MessageId, Seq, SubscriptionName};
use crate::proto::encode;

/// Messages that are kept.
const MESSAGES: usize = 4_096;

/// Bytes of their contents that are kept.
const BYTES: usize = 4 << 20;

/// Frames of a message that are kept, each for another name of a subscription.
const FRAMES: usize = 4;

/// A message, shared by all who are to get it, with the frames that most of them get.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) view: MessageView,
    /// Whether it is in the log.
    pub(super) ephemeral: bool,
    event: Option<MessagePublished>,
    frames: Mutex<Vec<(SubscriptionName, Arc<[u8]>)>>,
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
        let event = Some(event.clone());
        Some(Arc::new(Message { view, ephemeral: false, event, frames: Mutex::default() }))
    }

    /// A message that is not in the log.
    pub(super) fn ephemeral(view: MessageView) -> Message {
        Message { view, ephemeral: true, event: None, frames: Mutex::default() }
    }

    pub(super) fn seq(&self) -> Seq {
        self.view.seq
    }

    /// What it weighs.
    pub(super) fn bytes(&self) -> usize {
        self.view.content.len() + 256
    }

    /// The event that it came from; none for an ephemeral one.
    pub(super) fn event(&self) -> Option<&MessagePublished> {
        self.event.as_ref()
    }

    /// The notification for a subscription: encoded once for all first deliveries to subscriptions
    /// of that name.
    pub(super) fn frame(&self, subscription: &SubscriptionName, redelivered: bool) -> Arc<[u8]> {
        let encode = || -> Arc<[u8]> {
            let line = encode::message(subscription, &self.view, redelivered, self.ephemeral);
            Arc::from(line.unwrap_or_default())
        };
        if redelivered {
            return encode();
        }
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = frames.iter().find(|(name, _)| name == subscription) {
            return Arc::clone(frame);
        }
        let frame = encode();
        if frames.len() < FRAMES {
            frames.push((subscription.clone(), Arc::clone(&frame)));
        }
        frame
    }
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
