//! Nothing unsynced is ever seen outside: decisions run ahead on one head, outputs wait for the disk.
//!
//! ```text
//!  request, fact, tick --> Head --events--> batch --flush--> store --Durable--> follower --> released
//!                            |                                 |                   |
//!                            '-- reply, after: seq ... parked -+-- after <= durable '-- wants, pushes
//!                                                              |
//!                                                           Failed: head = follower, lost outputs
//!                                                                   are refused, facts are told again
//! ```
//!
//! The follower is the fold of what is durable: effects and snapshots come from it, and after a
//! failure the head starts again there. Facts have happened whether they could be written or not:
//! those that were lost are told again once there is room, and time stands still for the core until
//! then. This module sends nothing itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::core::event::Logged;
use crate::core::fact::Fact;
use crate::core::head::{Caller, Head, Step};
use crate::core::request::Request;
use crate::core::state::State;
use crate::core::view::Party;
use crate::ids::{AgentUid, BlobHash, Key, Seq, Timestamp};
use crate::store::{self, AppendError, Class, Record, Store};

/// Events in flight above which no more requests are taken.
const MAX_IN_FLIGHT: usize = 32_768;
/// Bytes of content in one batch above which it is flushed.
const FLUSH_BYTES: usize = 4 << 20;
/// Facts that wait for room on the disk above which refused strangers are not among them.
const MAX_REFUSED_DEFERRED: usize = 1_024;
/// First delay before lost facts are told again; it doubles up to [`RETRY_MAX_MS`].
const RETRY_MS: u64 = 1_000;
const RETRY_MAX_MS: u64 = 60_000;

/// What came free.
#[derive(Debug)]
pub(super) struct Released<O> {
    /// Events that are durable now, in order.
    pub events: Vec<Logged>,
    /// Whose want may have changed.
    pub touched: BTreeSet<AgentUid>,
    /// Outputs that may leave, in order.
    pub outputs: Vec<O>,
}

/// Head, follower and store, and what waits between them.
pub(super) struct Pipeline<O> {
    head: Head,
    follower: State,
    store: Store,
    batch: Vec<Logged>,
    batch_bytes: usize,
    class: Class,
    /// Applied to the head, not yet to the follower; the batch's are at the end.
    pending: VecDeque<Logged>,
    parked: VecDeque<(Seq, O)>,
    touched: VecDeque<(Seq, BTreeSet<AgentUid>)>,
    facts: VecDeque<(Seq, Fact)>,
    deferred: VecDeque<Fact>,
    retry: Option<(Timestamp, u64)>,
    durable: Seq,
    kinds: BTreeMap<&'static str, Arc<str>>,
    actors: BTreeMap<Party, Arc<str>>,
}

impl<O> Pipeline<O> {
    /// Goes on from `state`, which is the fold of everything in `store`.
    pub(super) fn new(state: State, store: Store) -> Self {
        Pipeline {
            durable: state.head(),
            head: Head::from_state(state.clone()),
            follower: state,
            store,
            batch: Vec::new(),
            batch_bytes: 0,
            class: Class::Request,
            pending: VecDeque::new(),
            parked: VecDeque::new(),
            touched: VecDeque::new(),
            facts: VecDeque::new(),
            deferred: VecDeque::new(),
            retry: None,
            kinds: BTreeMap::new(),
            actors: BTreeMap::new(),
        }
    }

    /// The state that decisions are made on; never to be shown before it is durable.
    pub(super) fn head(&self) -> &State {
        self.head.state()
    }

    /// What is durable.
    pub(super) fn durable(&self) -> &State {
        &self.follower
    }

    /// The blobs that a checkpoint names: decided, durable, or in a fact that waits to be told again.
    pub(super) fn live_blobs(&self) -> BTreeSet<BlobHash> {
        let mut live = self.head().live_blobs();
        live.extend(self.follower.live_blobs());
        for fact in self.facts.iter().map(|(_, fact)| fact).chain(&self.deferred) {
            if let Fact::AgentEnded { checkpoint: Some((_, files)), .. } = fact {
                live.extend(files.iter().map(|file| file.hash));
            }
        }
        live
    }

    /// The store, for snapshots.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Whether more requests may be taken now.
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < MAX_IN_FLIGHT && self.parked.len() < MAX_IN_FLIGHT
    }

    /// Whether everything that happened is durable and was released.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.parked.is_empty() && self.touched.is_empty()
    }

    /// Whether facts wait for room on the disk.
    pub(super) fn is_degraded(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Whether requests that change something can be carried out; asking has the store look again
    /// whether there is room, so recovery needs no timer.
    pub(super) fn admits_writes(&self) -> bool {
        if self.store.is_low() {
            // An empty batch is never written; in want of room it is what makes the store measure.
            let _refused = self.store.append(Vec::new(), Class::Request);
        }
        !self.store.is_low() && !self.is_degraded()
    }

    /// Carries out or refuses a request. The reply, and what comes of it, is in the step; park it.
    pub(super) fn request(
        &mut self,
        now: Timestamp,
        who: &Caller,
        key: Option<&Key>,
        request: Request,
    ) -> Step {
        let mut step = self.head.request(now, who, key, request);
        self.absorb(&mut step);
        step
    }

    /// Tells the core that something has happened.
    pub(super) fn fact(&mut self, now: Timestamp, fact: Fact) {
        if self.is_degraded() {
            // Strangers can't make the queue grow for as long as the disk is full.
            let refused = matches!(fact, Fact::PeerRefused { .. });
            if !refused || self.deferred.len() < MAX_REFUSED_DEFERRED {
                self.deferred.push_back(fact);
            }
            return;
        }
        let mut step = self.head.fact(now, fact.clone());
        self.class = Class::Fact;
        if !step.events.is_empty() {
            self.facts.push_back((step.after, fact));
        }
        self.absorb(&mut step);
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Timestamp) {
        if self.retry.is_some_and(|(at, _)| at <= now) {
            self.retry_facts(now);
        }
        if !self.is_degraded() && self.head.next_deadline().is_some_and(|due| due <= now) {
            let mut step = self.head.tick(now);
            // Time can't be refused either.
            self.class = Class::Fact;
            self.absorb(&mut step);
        }
    }

    /// When [`Pipeline::tick`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        match self.retry {
            Some((at, _)) if self.is_degraded() => Some(at),
            _ => self.head.next_deadline(),
        }
    }

    /// Has an output wait until `after` is durable; it is released by the next
    /// [`Pipeline::release`].
    pub(super) fn park(&mut self, after: Seq, output: O) {
        // In order: an output never overtakes one that was made before it.
        let after = self.parked.back().map_or(after, |(last, _)| after.max(*last));
        self.parked.push_back((after, output));
    }

    fn absorb(&mut self, step: &mut Step) {
        if !step.touched.is_empty() {
            self.touched.push_back((step.after, std::mem::take(&mut step.touched)));
        }
        for logged in step.events.drain(..) {
            self.batch_bytes += logged.content.as_ref().map_or(0, |content| content.len());
            self.pending.push_back(logged.clone());
            self.batch.push(logged);
        }
    }

    /// Whether the batch is large enough to be flushed before more is taken.
    pub(super) fn wants_flush(&self) -> bool {
        self.batch_bytes >= FLUSH_BYTES || self.batch.len() >= MAX_IN_FLIGHT / 8
    }

    /// Ends the batch and hands it to the store. What the store refuses at once comes back: outputs
    /// that will never be released; the head was folded anew then.
    ///
    /// # Errors
    /// The store takes nothing any more.
    pub(super) fn flush(&mut self, now: Timestamp) -> Result<Option<Vec<O>>, AppendError> {
        let mut step = self.head.seal(now);
        self.absorb(&mut step);
        if self.batch.is_empty() {
            self.class = Class::Request;
            return Ok(None);
        }
        let first = self.batch.first().map_or(Seq(0), |logged| logged.seq);
        let class = std::mem::replace(&mut self.class, Class::Request);
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let records: Vec<Record> = batch.into_iter().map(|logged| self.record(logged)).collect();
        // Room ran out since these requests were let in: so this one batch is.
        let class = if self.store.is_low() { Class::Fact } else { class };
        match self.store.append(records, class) {
            Ok(()) => Ok(None),
            Err(error @ (AppendError::Dead { .. } | AppendError::Closed)) => Err(error),
            Err(
                AppendError::QueueFull
                | AppendError::TooLarge { .. }
                | AppendError::LowSpace
                | AppendError::Rewound
                | AppendError::OutOfSequence { .. }
                | AppendError::Empty,
            ) => Ok(Some(self.refold(now, first))),
        }
    }

    fn record(&mut self, logged: Logged) -> Record {
        let kind = logged.kind();
        let envelope = logged.envelope().map(String::from_utf8);
        Record {
            seq: logged.seq.0,
            at_ms: logged.at.0,
            kind: Arc::clone(self.kinds.entry(kind).or_insert_with(|| Arc::from(kind))),
            v: logged.version(),
            actor: match self.actors.get(&logged.actor) {
                Some(actor) => Arc::clone(actor),
                None => {
                    let text: Arc<str> = Arc::from(logged.actor.to_string());
                    self.actors.insert(logged.actor.clone(), Arc::clone(&text));
                    text
                }
            },
            // Events of ours always have a JSON form.
            envelope: envelope.ok().and_then(Result::ok).unwrap_or_default().into(),
            content: logged.content.as_ref().map(|content| Arc::from(content.get())),
        }
    }

    /// Learns that everything up to `head` is durable.
    pub(super) fn committed(&mut self, head: store::Head) {
        self.durable = Seq(head.seq).max(self.durable);
        while self.facts.front().is_some_and(|(last, _)| *last <= self.durable) {
            self.facts.pop_front();
        }
        self.retry = if self.is_degraded() { self.retry } else { None };
    }

    /// Hands out what may leave now.
    pub(super) fn release(&mut self) -> Released<O> {
        let durable = self.durable;
        let mut events = Vec::new();
        while self.pending.front().is_some_and(|logged| logged.seq <= durable)
            && let Some(logged) = self.pending.pop_front()
        {
            self.follower.apply(&logged);
            events.push(logged);
        }
        let mut touched = BTreeSet::new();
        while self.touched.front().is_some_and(|(after, _)| *after <= durable)
            && let Some((_, some)) = self.touched.pop_front()
        {
            touched.extend(some);
        }
        let mut outputs = Vec::new();
        while self.parked.front().is_some_and(|(after, _)| *after <= durable)
            && let Some((_, output)) = self.parked.pop_front()
        {
            outputs.push(output);
        }
        Released { events, touched, outputs }
    }

    /// Learns that everything from `first` on is known not to have been written. The outputs that
    /// waited for it come back, to be refused; the facts among it are told again later.
    ///
    /// # Errors
    /// The store takes nothing any more.
    pub(super) fn failed(&mut self, now: Timestamp, first: Seq) -> Result<Vec<O>, AppendError> {
        self.store.resume()?;
        Ok(self.refold(now, first))
    }

    fn refold(&mut self, now: Timestamp, first: Seq) -> Vec<O> {
        self.batch.clear();
        self.batch_bytes = 0;
        self.class = Class::Request;
        while self.pending.back().is_some_and(|logged| logged.seq >= first) {
            self.pending.pop_back();
        }
        let mut state = self.follower.clone();
        self.pending.iter().for_each(|logged| state.apply(logged));
        self.head = Head::from_state(state);
        let mut lost = Vec::new();
        while self.parked.back().is_some_and(|(after, _)| *after >= first)
            && let Some((_, output)) = self.parked.pop_back()
        {
            lost.push(output);
        }
        lost.reverse();
        self.touched.retain(|(after, _)| *after < first);
        let mut again = VecDeque::new();
        while self.facts.back().is_some_and(|(after, _)| *after >= first)
            && let Some((_, fact)) = self.facts.pop_back()
        {
            again.push_front(fact);
        }
        again.extend(self.deferred.drain(..));
        self.deferred = again;
        if self.is_degraded() {
            let delay = self.retry.map_or(RETRY_MS, |(_, last)| (last * 2).min(RETRY_MAX_MS));
            self.retry = Some((now.plus_ms(delay), delay));
        }
        lost
    }

    /// Tells the lost facts again: there may be room now.
    pub(super) fn retry_facts(&mut self, now: Timestamp) {
        for fact in std::mem::take(&mut self.deferred) {
            self.fact(now, fact);
        }
    }

    /// Ends the store, after all that waits is written.
    pub(super) fn close(self) -> store::Head {
        self.store.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::view::{Exit, FileRef};
    use crate::ids::Incarnation;

    fn pipeline(dir: &std::path::Path) -> Pipeline<()> {
        let options = store::Options { reserve: 0, headroom: 0, ..store::Options::default() };
        let opened = Store::open(dir, &options, &State::is_known, Box::new(|_| {})).unwrap();
        Pipeline::new(State::new(), opened.store)
    }

    fn ended(hash: BlobHash) -> Fact {
        let file = FileRef { path: "half".into(), hash, size: 4, mode: 0o600 };
        Fact::AgentEnded {
            uid: AgentUid(1),
            incarnation: Incarnation(1),
            exit: Exit::Lost,
            output: None,
            checkpoint: Some((None, vec![file])),
        }
    }

    /// On a full disk the pins of a process's last checkpoint went with the lost output, and a
    /// collection took its files before the fact that names them could be told again.
    #[test]
    fn blobs_of_a_fact_that_waits_for_room_are_live() {
        let dir = tempfile::tempdir().unwrap();
        let mut pipeline = pipeline(dir.path());
        let hash = BlobHash([7; 32]);
        pipeline.facts.push_back((Seq(1), ended(hash)));
        assert!(pipeline.live_blobs().contains(&hash));
        pipeline.refold(Timestamp(0), Seq(1));
        assert!(pipeline.is_degraded() && pipeline.live_blobs().contains(&hash));
    }

    #[test]
    fn strangers_do_not_fill_the_queue_of_facts_that_wait_for_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut pipeline = pipeline(dir.path());
        pipeline.deferred.push_back(Fact::Alert { text: "first".into() });
        for pid in 0..10_000 {
            let (socket, reason) = ("control".to_owned(), "no".to_owned());
            pipeline.fact(Timestamp(0), Fact::PeerRefused { socket, pid, reason });
        }
        assert_eq!(pipeline.deferred.len(), MAX_REFUSED_DEFERRED);
        pipeline.fact(Timestamp(0), ended(BlobHash([1; 32])));
        assert_eq!(pipeline.deferred.len(), MAX_REFUSED_DEFERRED + 1);
    }
}
