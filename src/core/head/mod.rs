//! The speculative head: the state that decisions are made on, ahead of what is durable.

mod denials;
mod keys;

use std::collections::{BTreeMap, BTreeSet};

use denials::Denials;

use super::batch::Batch;
pub use super::caller::Caller;
use super::decide::message::ack as decide_ack;
use super::decide::{Answer, Decision, EphemeralDraft, decide, party};
use super::denied::{Code, Denied};
use super::event::{
    Addressee, Advance, CursorsAdvanced, Event, Logged, RequestDenied, TaskProgressed,
};
use super::fact::Fact;
use super::json::Json;
use super::permission;
use super::request::{Ack, MessageType, Request};
use super::state::{Cursor, State};
use super::view::{Acked, Party, Published, Reply};
use crate::ids::{
    AgentUid, CheckpointId, Epoch, HandoffId, Key, MessageId, Seq, SubscriptionName, TaskId,
    Timestamp,
};

/// A message that is not logged: to be handed out once `after` is durable, with nothing promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ephemeral {
    /// Who sent it.
    pub from: Party,
    /// Its type.
    pub r#type: MessageType,
    /// To whom; empty for all.
    pub to: Vec<Addressee>,
    /// The task it is about.
    pub task: Option<TaskId>,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// What it says.
    pub content: Json,
    /// The last event before it.
    pub after: Seq,
}

/// What came of one input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// The new events, in order, already applied.
    pub events: Vec<Logged>,
    /// The answer, to a request.
    pub reply: Option<Result<Reply, Denied>>,
    /// Outputs may leave once this is durable.
    pub after: Seq,
    /// Whose [`Want`](super::fact::Want) may have changed.
    pub touched: BTreeSet<AgentUid>,
    /// An ephemeral message to hand out.
    pub ephemeral: Option<Box<Ephemeral>>,
}

/// The head: the state that decisions are made on, and what waits for the end of the batch. Give it
/// inputs in the order of their arrival; append what each [`Step`] holds, refused requests' too.
#[derive(Debug, Clone)]
pub struct Head {
    state: State,
    inbox: SubscriptionName,
    /// Acknowledgements of this batch: the cursor as it will be, and what is to be logged.
    acks: BTreeMap<(AgentUid, SubscriptionName), (Cursor, Advance)>,
    /// The latest progress of this batch, by task, with the epoch it was reported under.
    progress: BTreeMap<TaskId, (Party, Epoch, TaskProgressed)>,
    denials: Denials,
    /// No direct message dies of age before this.
    dead_from: Option<Timestamp>,
}

impl Head {
    /// A head over an empty log.
    #[must_use]
    pub fn new() -> Head {
        Head::from_state(State::new())
    }

    /// A head over what is durable.
    #[must_use]
    pub fn from_state(state: State) -> Head {
        Head {
            dead_from: state.first_dead(),
            state,
            inbox: crate::core::inbox_name(),
            acks: BTreeMap::new(),
            progress: BTreeMap::new(),
            denials: Denials::default(),
        }
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When [`Head::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let all = [self.state.first_due(), self.dead_from, self.denials.first_due()];
        all.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Timestamp) -> Step {
        let mut step = Step::default();
        self.due(now, &mut step);
        self.finish(step)
    }

    /// Ends a batch: one event for all acknowledgements, the latest progress of each task. Its events
    /// belong in the same transaction as those of the steps before.
    pub fn seal(&mut self, now: Timestamp) -> Step {
        let mut step = Step::default();
        self.flush(now, &mut step);
        self.finish(step)
    }

    /// Takes in a fact. Facts are never refused; one about a former incarnation changes nothing.
    pub fn fact(&mut self, now: Timestamp, fact: Fact) -> Step {
        let mut step = Step::default();
        self.flush(now, &mut step);
        // Deadlines of handoffs are shifted by the downtime before anything is due.
        if !matches!(fact, Fact::DaemonStarted { .. }) {
            self.due(now, &mut step);
        }
        if let Fact::PeerRefused { socket, .. } = &fact {
            let max = self.state.limits.denials_per_minute;
            let now = now.max(self.state.at);
            if !self.denials.may_log(now, Party::Daemon, socket, Code::Denied, max) {
                return self.finish(step);
            }
        }
        let configured = matches!(fact, Fact::Configured(_));
        self.batch(now, &mut step, |batch| batch.fact(fact));
        if configured {
            self.dead_from = self.state.first_dead();
        }
        self.finish(step)
    }

    /// Carries out or refuses a request. Ticks first; refuses before anything is changed.
    pub fn request(
        &mut self,
        now: Timestamp,
        who: &Caller,
        key: Option<&Key>,
        request: Request,
    ) -> Step {
        let mut step = Step::default();
        let now = now.max(self.state.at);
        self.due(now, &mut step);
        let method = request.method();
        let reply = match self.answer(now, *who, key, request, &mut step) {
            Ok(reply) => Ok(reply),
            Err(denied) => {
                self.log_denial(now, *who, method, &denied, &mut step);
                Err(denied)
            }
        };
        step.reply = Some(reply);
        self.finish(step)
    }

    fn answer(
        &mut self,
        now: Timestamp,
        who: Caller,
        key: Option<&Key>,
        request: Request,
        step: &mut Step,
    ) -> Result<Reply, Denied> {
        if request.is_read() {
            // What was acknowledged or reported before is to be seen.
            self.flush(now, step);
        }
        // A key only where there is something to repeat: reads and mere acknowledgements are the same
        // however often they come, a nack counts.
        let key = key.filter(|_| {
            if let Request::Ack(ack) = &request {
                return !ack.nack.is_empty();
            }
            !request.is_read()
        });
        let used = match key {
            None => None,
            Some(key) => match keys::look_up(&self.state, now, who, key, &request)? {
                keys::Found::Again(reply) => return Ok(reply),
                keys::Found::New(used) => Some(used),
            },
        };
        if let Request::Ack(ack) = request {
            let reply = self.acknowledge(now, who, ack, step)?;
            if let Some(used) = used
                && let Some(event) = keys::used(used, &reply)
            {
                let party = party(&self.state, who);
                self.batch(now, step, |batch| _ = batch.emit_as(party, event.into(), None));
            }
            return Ok(reply);
        }
        let full = matches!(request, Request::Publish(_)) && !self.acks.is_empty();
        let again = if full { Some(request.clone()) } else { None };
        let decision = match (decide(&self.state, now, who, request), again) {
            (Err(denied), Some(request)) if denied.code == Code::Limit => {
                // There may be room once the acknowledgements of this batch count.
                self.flush(now, step);
                decide(&self.state, now, who, request)?
            }
            (decision, _) => decision?,
        };
        let Decision { mut drafts, answer } = decision;
        let party = party(&self.state, who);
        if let (None, Answer::Task(id), [(Event::TaskProgressed(_), _)]) =
            (key, &answer, drafts.as_slice())
            && let Some((Event::TaskProgressed(event), _)) = drafts.pop()
        {
            return self.progressed(party, id, event, step);
        }
        let head = self.state.head;
        self.batch(now, step, |batch| {
            for (event, content) in drafts {
                batch.emit_as(party.clone(), event, content);
            }
            batch.settle();
        });
        let reply = self.reply(head, party.clone(), answer, step)?;
        if let Some(used) = used
            && step.ephemeral.is_none()
            && let Some(event) = keys::used(used, &reply)
        {
            self.batch(now, step, |batch| _ = batch.emit_as(party, event.into(), None));
        }
        Ok(reply)
    }

    /// Progress-only updates keep the latest per task and batch.
    fn progressed(
        &mut self,
        party: Party,
        id: &TaskId,
        event: TaskProgressed,
        step: &mut Step,
    ) -> Result<Reply, Denied> {
        let task = self.state.find_task(id)?;
        let epoch = task.epoch;
        let kept = self.progress.entry(id.clone());
        let kept = kept.or_insert_with(|| (party.clone(), epoch, event.clone()));
        if kept.1 == epoch {
            kept.2.progress = event.progress.or(kept.2.progress);
            kept.2.note = event.note.or_else(|| kept.2.note.take());
            kept.0 = party;
        } else {
            *kept = (party, epoch, event);
        }
        let latest = kept.2.clone();
        step.after = self.state.head.next();
        let Some(mut view) = self.state.task_view(id) else { return Ok(Reply::Done) };
        view.progress = latest.progress.unwrap_or(view.progress);
        view.note = latest.note.or(view.note);
        Ok(Reply::Task(Box::new(view)))
    }

    fn acknowledge(
        &mut self,
        now: Timestamp,
        who: Caller,
        ack: Ack,
        step: &mut Step,
    ) -> Result<Reply, Denied> {
        permission::check_caller(&self.state, who)?;
        let Caller::Agent(uid) = who else {
            let text = "ack: the operator has no subscriptions; audit.read has no cursor";
            return Err(Denied::new(Code::Invalid, text));
        };
        if !ack.nack.is_empty() {
            // What comes again is counted on top of what was acknowledged.
            self.flush(now, step);
        }
        let id = (uid, ack.subscription.clone());
        let pending = self.acks.get(&id).map(|(cursor, _)| cursor);
        let done = decide_ack(&self.state, uid, ack, pending)?;
        let upto = done.cursor.acked_upto;
        let advance = done.advance;
        if advance.upto.is_some() || !advance.ranges.is_empty() {
            match self.acks.get_mut(&id) {
                Some((cursor, kept)) => {
                    *cursor = done.cursor;
                    kept.upto = kept.upto.max(advance.upto);
                    kept.ranges.extend(advance.ranges);
                }
                None => _ = self.acks.insert(id, (done.cursor, advance)),
            }
        }
        if done.nacked.is_some() || done.dead.is_some() {
            let party = party(&self.state, who);
            self.flush(now, step);
            self.batch(now, step, |batch| {
                if let Some(nacked) = done.nacked {
                    batch.emit_as(party.clone(), nacked.into(), None);
                }
                if let Some(dead) = done.dead {
                    batch.emit_as(party, dead.into(), None);
                }
            });
        } else if !self.acks.is_empty() {
            // Only then is there an event to come: an acknowledgement of nothing waits for nothing.
            step.after = self.state.head.next();
        }
        Ok(Reply::Acked(Acked { upto }))
    }

    /// The reply to what was decided, now that it has happened.
    fn reply(
        &self,
        before: Seq,
        party: Party,
        answer: Answer,
        step: &mut Step,
    ) -> Result<Reply, Denied> {
        let state = &self.state;
        let gone = || Denied::new(Code::NotFound, "it is not there any more");
        let first = before.next();
        Ok(match answer {
            Answer::Done => Reply::Done,
            Answer::Published => {
                Reply::Published(Published { id: Some(MessageId(first)), seq: first })
            }
            Answer::Ephemeral(draft) => {
                let EphemeralDraft { r#type, to, task, reply_to, content } = *draft;
                let after = state.head;
                step.ephemeral = Some(Box::new(Ephemeral {
                    from: party,
                    r#type,
                    to,
                    task,
                    reply_to,
                    content,
                    after,
                }));
                Reply::Published(Published { id: None, seq: after })
            }
            Answer::Task(id) => Reply::Task(Box::new(state.task_view(&id).ok_or_else(gone)?)),
            Answer::Tasks(ids) => {
                Reply::Tasks(ids.iter().filter_map(|id| state.task_view(id)).collect())
            }
            Answer::Checkpoint(id) => {
                Reply::Checkpoint(Box::new(state.checkpoint_view(id).ok_or_else(gone)?))
            }
            Answer::NewCheckpoint => {
                let of = |logged: &&Logged| matches!(logged.event, Event::CheckpointSaved(_));
                let saved = step.events.iter().filter(|logged| logged.seq > before).find(of);
                let id = CheckpointId(saved.map_or(first, |logged| logged.seq));
                Reply::Checkpoint(Box::new(state.checkpoint_view(id).ok_or_else(gone)?))
            }
            Answer::Handoff(id) => {
                Reply::Handoff(Box::new(state.handoff_view(id).ok_or_else(gone)?))
            }
            Answer::NewHandoff => {
                let view = state.handoff_view(HandoffId(first)).ok_or_else(gone)?;
                Reply::Handoff(Box::new(view))
            }
            Answer::Handoffs(ids) => {
                Reply::Handoffs(ids.iter().filter_map(|id| state.handoff_view(*id)).collect())
            }
            Answer::Agent(uid) => Reply::Agent(Box::new(state.agent_view(uid).ok_or_else(gone)?)),
            Answer::Agents => Reply::Agents(state.agent_views()),
            Answer::Mission => {
                let view = state.mission_view();
                let none = || Denied::new(Code::Unavailable, "the mission file is not read yet");
                Reply::Mission(Box::new(view.ok_or_else(none)?))
            }
        })
    }

    fn log_denial(
        &mut self,
        now: Timestamp,
        who: Caller,
        method: &str,
        denied: &Denied,
        step: &mut Step,
    ) {
        if denied.code == Code::Unavailable {
            return;
        }
        let party = party(&self.state, who);
        let max = self.state.limits.denials_per_minute;
        if self.denials.may_log(now, party.clone(), method, denied.code, max) {
            let (method, code) = (method.to_owned(), denied.code);
            let event = RequestDenied { method, code, message: denied.message.clone() };
            self.batch(now, step, |batch| _ = batch.emit_as(party, event.into(), None));
        }
    }

    fn due(&mut self, now: Timestamp, step: &mut Step) {
        // The hot path: three comparisons.
        if self.next_deadline().is_none_or(|due| due > now) {
            return;
        }
        self.flush(now, step);
        self.batch(now, step, |batch| batch.do_due());
        if self.dead_from.is_some_and(|from| from <= now) {
            let inbox = self.inbox.clone();
            self.batch(now, step, |batch| batch.expire_messages(&inbox));
            self.dead_from = self.state.first_dead();
        }
        for (party, event) in self.denials.due(now) {
            self.batch(now, step, |batch| _ = batch.emit_as(party, event.into(), None));
        }
    }

    fn flush(&mut self, now: Timestamp, step: &mut Step) {
        if self.acks.is_empty() && self.progress.is_empty() {
            return;
        }
        let acks = std::mem::take(&mut self.acks);
        let progress = std::mem::take(&mut self.progress);
        self.batch(now, step, |batch| {
            if !acks.is_empty() {
                let cursors = acks.into_values().map(|(_, advance)| advance).collect();
                batch.emit(CursorsAdvanced { cursors });
            }
            for (id, (party, epoch, event)) in progress {
                // What came after it in the batch counts more.
                let task = batch.state.tasks.get(&id);
                if task.is_some_and(|task| !task.is_settled() && task.epoch == epoch) {
                    batch.emit_as(party, event.into(), None);
                }
            }
        });
    }

    fn batch(&mut self, now: Timestamp, step: &mut Step, work: impl FnOnce(&mut Batch<'_>)) {
        let mut batch = Batch::new(&mut self.state, now);
        work(&mut batch);
        let Batch { events, mut touched, .. } = batch;
        // Kept as a lower bound, so that no publish looks at every agent.
        if self.dead_from.is_none()
            && let Some(logged) = events.iter().find(|logged| is_direct(logged))
        {
            self.dead_from = Some(logged.at.plus_ms(self.state.limits.message_ttl_ms));
        }
        if step.events.is_empty() {
            step.events = events;
        } else {
            step.events.extend(events);
        }
        step.touched.append(&mut touched);
    }

    fn finish(&self, mut step: Step) -> Step {
        step.after = step.after.max(self.state.head);
        step
    }
}

fn is_direct(logged: &Logged) -> bool {
    matches!(&logged.event, Event::MessagePublished(message) if !message.to.is_empty())
}

impl Default for Head {
    fn default() -> Self {
        Head::new()
    }
}
