//! One subscription: which messages its readers have, which they are to get, which come again.
//!
//! ```text
//!              offer             pushed to the consumer
//!   (the log) -------> Ready ----------------------------> Pushed
//!                       | ^                                   |
//!               fetched | | 30 s, backoff, consumer gone      |
//!                       v |                                   |
//!              Fetched, Hidden <-- nack ----------------------+--> acknowledged: forgotten
//! ```
//!
//! The window holds what was looked at and not acknowledged, in the order of the log. The durable
//! cursor is the core's; here is only what may be lost with the daemon. Pure but for the connection
//! that is pushed to; time is an argument.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::conn::Conn;
use super::inbound::Ticket;
use super::log::ReadId;
use super::recent::Message;
use crate::core::request::{Ack, MessageType};
use crate::core::state::Cursor;
use crate::ids::{AgentUid, Seq, SubscriptionName, Timestamp};

/// Messages that are looked at and not acknowledged, at most.
pub(super) const WINDOW: usize = 1_024;

/// Bytes of them, unless it is one alone.
pub(super) const WINDOW_BYTES: usize = 2 << 20;

/// How long a fetched message is hidden from other fetches.
pub(super) const VISIBILITY_MS: u64 = 30_000;

/// How long a message rests after its first negative acknowledgement; it doubles with each.
const BACKOFF_MS: u64 = 1_000;

/// The longest rest.
const BACKOFF_MAX_MS: u64 = 60_000;

/// How long cursors that filters moved may wait to be told to the core, in milliseconds.
const ADVANCE_MS: u64 = 1_000;

/// Or how many skipped messages.
const ADVANCE_SKIPS: u32 = 64;

/// Whose messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// An agent's, at its durable cursor.
    Agent(AgentUid),
    /// An agent's from now on, without a cursor.
    AgentTail(AgentUid),
    /// All of them from now on, without a cursor.
    OperatorTail,
}

impl Whose {
    pub(super) fn has_cursor(self) -> bool {
        matches!(self, Whose::Agent(_))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Ready,
    Pushed,
    /// Fetched or resting until then.
    Away(Timestamp),
}

#[derive(Debug)]
struct Item {
    message: Arc<Message>,
    deliveries: u32,
    nacks: u32,
    stage: Stage,
}

/// The connection that messages are pushed to.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) conn: Arc<Conn>,
    pub(super) credit: u32,
    pub(super) types: Vec<MessageType>,
    /// Pushed and not acknowledged.
    pub(super) in_flight: u32,
}

/// A `fetch` that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) limit: usize,
    pub(super) types: Vec<MessageType>,
    pub(super) peek: bool,
    /// When it is answered with nothing.
    pub(super) until: Timestamp,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) whose: Whose,
    pub(super) name: SubscriptionName,
    window: VecDeque<Item>,
    window_bytes: usize,
    /// A message did not fit; until one is acknowledged, none is read.
    is_full: bool,
    /// Items that are ready.
    ready: usize,
    /// When items that are away come back.
    timers: BTreeSet<(Timestamp, Seq)>,
    /// Everything up to here was looked at. In a live mailbox, the head counts as well.
    pub(super) read_upto: Seq,
    /// New messages come here at once; otherwise they are read from the log later.
    pub(super) is_live: bool,
    /// Delivered up to here at least once.
    delivered_upto: Seq,
    pub(super) consumer: Option<Consumer>,
    pub(super) waiting: Vec<Waiting>,
    /// A read of the log that is under way.
    pub(super) reading: Option<ReadId>,
    /// When to ask the log again after it failed.
    pub(super) retry: Option<Timestamp>,
    /// The core knows that everything up to here is acknowledged.
    acked_upto: Seq,
    /// Messages skipped by filters that the core doesn't know of.
    skipped: u32,
    /// When the core is to be told.
    advance: Option<Timestamp>,
    /// Under which the hub has noted its next deadline.
    pub(super) noted: Option<Timestamp>,
}

impl Consumer {
    /// Whether its filter lets a type of message through.
    pub(super) fn takes(&self, r#type: &MessageType) -> bool {
        self.types.is_empty() || self.types.contains(r#type)
    }
}

fn passes(types: &[MessageType], message: &Message) -> bool {
    types.is_empty() || types.contains(message.r#type())
}

impl Mailbox {
    pub(super) fn new(whose: Whose, name: SubscriptionName, acked_upto: Seq) -> Self {
        Mailbox {
            whose,
            name,
            window: VecDeque::new(),
            window_bytes: 0,
            is_full: false,
            ready: 0,
            timers: BTreeSet::new(),
            read_upto: acked_upto,
            is_live: false,
            delivered_upto: Seq(0),
            consumer: None,
            waiting: Vec::new(),
            reading: None,
            retry: None,
            acked_upto,
            skipped: 0,
            advance: None,
            noted: None,
        }
    }

    /// Whether anybody wants messages now.
    pub(super) fn is_wanted(&self) -> bool {
        self.consumer.is_some() || !self.waiting.is_empty()
    }

    /// Whether nothing would be lost by forgetting it: nobody is there, nothing was delivered.
    pub(super) fn is_idle(&self) -> bool {
        let is_untouched = |item: &Item| item.deliveries == 0 && item.nacks == 0;
        !self.is_wanted() && self.advance.is_none() && self.window.iter().all(is_untouched)
    }

    /// Whether the window has room for a message. Once it has not, it is full until something in it
    /// is acknowledged.
    pub(super) fn has_room(&mut self, bytes: usize) -> bool {
        let has_room = self.window.len() < WINDOW && self.window_bytes + bytes <= WINDOW_BYTES;
        self.is_full = !has_room && !self.window.is_empty();
        !self.is_full
    }

    /// Whether the window can't take in the next message.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Takes in the next message of the log for this mailbox; there must be room.
    pub(super) fn offer(&mut self, message: Arc<Message>) {
        self.read_upto = self.read_upto.max(message.seq());
        self.window_bytes += message.bytes();
        self.ready += 1;
        self.window.push_back(Item { message, deliveries: 0, nacks: 0, stage: Stage::Ready });
    }

    fn stage(&mut self, at: usize, stage: Stage) {
        let Some(item) = self.window.get_mut(at) else { return };
        let before = std::mem::replace(&mut item.stage, stage);
        let seq = item.message.seq();
        match before {
            Stage::Ready => self.ready -= 1,
            Stage::Pushed => {
                if let Some(consumer) = &mut self.consumer {
                    consumer.in_flight = consumer.in_flight.saturating_sub(1);
                }
            }
            Stage::Away(until) => {
                self.timers.remove(&(until, seq));
            }
        }
        match stage {
            Stage::Ready => self.ready += 1,
            Stage::Pushed => {
                if let Some(consumer) = &mut self.consumer {
                    consumer.in_flight += 1;
                }
            }
            Stage::Away(until) => {
                self.timers.insert((until, seq));
            }
        }
    }

    fn remove(&mut self, at: usize) {
        self.stage(at, Stage::Ready);
        if let Some(item) = self.window.remove(at) {
            self.ready -= 1;
            self.window_bytes -= item.message.bytes();
            self.is_full = false;
        }
    }

    fn find(&self, seq: Seq) -> Option<usize> {
        self.window.binary_search_by_key(&seq, |item| item.message.seq()).ok()
    }

    /// Pushes what the consumer may get. Says whether the socket was the limit.
    pub(super) fn push(&mut self, now: Timestamp) -> bool {
        let mut at = 0;
        while self.ready > 0 && at < self.window.len() {
            let Some(consumer) = &self.consumer else { return false };
            let item = &self.window[at];
            if item.stage != Stage::Ready {
                at += 1;
                continue;
            }
            if !passes(&consumer.types, &item.message) {
                self.skip(at, now);
                continue;
            }
            if consumer.in_flight >= consumer.credit {
                return false;
            }
            let frame = item.message.frame(&self.name, item.deliveries > 0);
            if !consumer.conn.outbox.push_shared(&frame) {
                consumer.conn.outbox.want_room();
                return true;
            }
            self.delivered_upto = self.delivered_upto.max(item.message.seq());
            if self.whose.has_cursor() {
                self.window[at].deliveries += 1;
                self.stage(at, Stage::Pushed);
                at += 1;
            } else {
                self.remove(at);
            }
        }
        false
    }

    /// Whether the consumer would take more than the window has ready.
    pub(super) fn wants_more(&self) -> bool {
        let consumer = &self.consumer;
        self.ready == 0 && consumer.as_ref().is_some_and(|c| c.in_flight < c.credit)
    }

    /// What a filter does not let through counts as acknowledged.
    fn skip(&mut self, at: usize, now: Timestamp) {
        self.remove(at);
        if self.whose.has_cursor() {
            self.skipped += 1;
            let due = if self.skipped >= ADVANCE_SKIPS { now } else { now.plus_ms(ADVANCE_MS) };
            self.advance = Some(self.advance.map_or(due, |at| at.min(due)));
        }
    }

    /// The messages that a fetch would get: how many, and whether its bound is reached.
    pub(super) fn count(&self, fetch: &Waiting, max_bytes: usize) -> (usize, bool) {
        let (mut count, mut bytes) = (0, 0);
        for item in &self.window {
            let is_there = fetch.peek || item.stage == Stage::Ready;
            if !is_there || !passes(&fetch.types, &item.message) {
                continue;
            }
            bytes += item.message.bytes();
            if count > 0 && bytes > max_bytes {
                return (count, true);
            }
            count += 1;
            if count >= fetch.limit {
                return (count, true);
            }
        }
        (count, self.is_full)
    }

    /// Takes `count` messages for a fetch; says of each whether it was delivered before.
    pub(super) fn take(
        &mut self,
        fetch: &Waiting,
        count: usize,
        now: Timestamp,
    ) -> Vec<(Arc<Message>, bool)> {
        let mut taken = Vec::with_capacity(count);
        let mut at = 0;
        while taken.len() < count && at < self.window.len() {
            let item = &mut self.window[at];
            let is_there = fetch.peek || item.stage == Stage::Ready;
            if !is_there {
                at += 1;
            } else if !passes(&fetch.types, &item.message) {
                if fetch.peek { at += 1 } else { self.skip(at, now) }
            } else {
                taken.push((Arc::clone(&item.message), item.deliveries > 0));
                if !fetch.peek {
                    item.deliveries += 1;
                    self.delivered_upto = self.delivered_upto.max(item.message.seq());
                    self.stage(at, Stage::Away(now.plus_ms(VISIBILITY_MS)));
                }
                at += 1;
            }
        }
        if !fetch.peek && count == 0 {
            self.skip_all(&fetch.types, now);
        }
        taken
    }

    /// What a fetch that found nothing has passed over.
    fn skip_all(&mut self, types: &[MessageType], now: Timestamp) {
        let mut at = 0;
        while at < self.window.len() {
            let item = &self.window[at];
            if item.stage == Stage::Ready && !passes(types, &item.message) {
                self.skip(at, now);
            } else {
                at += 1;
            }
        }
    }

    /// The core has carried out an acknowledgement. `core_upto` is its cursor after it.
    pub(super) fn acked(&mut self, now: Timestamp, ack: &Ack, core_upto: Seq) {
        if let Some(upto) = ack.upto {
            while self.window.front().is_some_and(|item| item.message.seq() <= upto) {
                self.remove(0);
            }
            self.read_upto = self.read_upto.max(upto);
        }
        for seq in &ack.seqs {
            if let Some(at) = self.find(*seq) {
                self.remove(at);
            }
        }
        for seq in &ack.nack {
            if let Some(at) = self.find(*seq) {
                let nacks = self.window[at].nacks;
                self.window[at].nacks += 1;
                let rest = BACKOFF_MS.saturating_mul(1 << nacks.min(16)).min(BACKOFF_MAX_MS);
                self.stage(at, Stage::Away(now.plus_ms(rest)));
            }
        }
        self.acked_upto = self.acked_upto.max(core_upto);
        if !ack.seqs.is_empty() {
            self.advance = Some(now);
        }
    }

    /// These messages won't be delivered any more.
    pub(super) fn dead(&mut self, seqs: &[Seq]) {
        for seq in seqs {
            if let Some(at) = self.find(*seq) {
                self.remove(at);
            }
        }
    }

    /// How far everything is acknowledged, when the core is to be told of it now.
    pub(super) fn take_advance(&mut self, now: Timestamp, head: Seq) -> Option<Seq> {
        if self.advance.is_none_or(|at| at > now) {
            return None;
        }
        self.advance = None;
        self.skipped = 0;
        let low = match self.window.front() {
            Some(item) => Seq(item.message.seq().0.saturating_sub(1)),
            None => self.looked_upto(head),
        };
        (low > self.acked_upto).then(|| {
            self.acked_upto = low;
            low
        })
    }

    /// The core can't be told now (the disk is full): later, without a busy wait.
    pub(super) fn postpone_advance(&mut self, now: Timestamp) {
        if self.advance.is_some_and(|at| at <= now) {
            self.advance = Some(now.plus_ms(ADVANCE_MS));
        }
    }

    /// Everything up to here was looked at.
    pub(super) fn looked_upto(&self, head: Seq) -> Seq {
        if self.is_live { self.read_upto.max(head) } else { self.read_upto }
    }

    /// What was pruned from the log before it was read; the cursor goes on after it.
    pub(super) fn overtaken(&mut self, now: Timestamp, floor: Seq) -> Option<(Seq, Seq)> {
        let from = self.read_upto.next();
        (floor >= from).then(|| {
            self.read_upto = floor;
            self.advance = Some(now);
            (from, floor)
        })
    }

    /// The consumer is gone: what it had is for the next one.
    pub(super) fn end_consumer(&mut self) -> Option<Consumer> {
        for at in 0..self.window.len() {
            if self.window[at].stage == Stage::Pushed {
                self.stage(at, Stage::Ready);
            }
        }
        self.consumer.take()
    }

    /// Begins anew at the core's cursor: acknowledgements were lost.
    pub(super) fn restart(&mut self, acked_upto: Seq) {
        self.window.clear();
        self.timers.clear();
        (self.window_bytes, self.ready, self.skipped) = (0, 0, 0);
        if let Some(consumer) = &mut self.consumer {
            consumer.in_flight = 0;
        }
        (self.read_upto, self.acked_upto, self.is_live) = (acked_upto, acked_upto, false);
        (self.reading, self.retry, self.advance) = (None, None, None);
        self.is_full = false;
    }

    /// Brings back what was away long enough.
    pub(super) fn wake(&mut self, now: Timestamp) {
        while let Some(&(until, seq)) = self.timers.first() {
            if until > now {
                return;
            }
            match self.find(seq) {
                Some(at) => self.stage(at, Stage::Ready),
                None => {
                    self.timers.pop_first();
                }
            }
        }
    }

    /// When there is something to do without any input.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        // Nobody needs a message back that nobody waits for; it is brought back when someone does.
        let timer = self.timers.first().map(|(until, _)| *until).filter(|_| self.is_wanted());
        // A read of the log comes first.
        let is_ready = self.reading.is_none() && self.retry.is_none();
        let waiting = self.waiting.iter().map(|fetch| fetch.until).min().filter(|_| is_ready);
        [timer, waiting, self.retry, self.advance].into_iter().flatten().min()
    }

    /// Whether a message was delivered in this run of the daemon.
    pub(super) fn is_delivered(&self, seq: Seq) -> bool {
        match self.find(seq) {
            Some(at) => self.window[at].deliveries > 0,
            None => seq <= self.delivered_upto,
        }
    }

    /// Whether the core's cursor has dealt with a message.
    pub(super) fn is_acked(cursor: Option<&Cursor>, seq: Seq) -> bool {
        cursor.is_some_and(|cursor| {
            let range = cursor.ranges.range(..=seq).next_back();
            seq <= cursor.acked_upto || range.is_some_and(|(_, end)| seq <= *end)
        })
    }
}
