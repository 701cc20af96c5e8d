//! What the supervisor asks for, and what becomes of it.

use super::Daemon;
use super::ground::Restore;
use super::jobs::Done;
use super::lanes;
use super::prepare::{Launch, Task};
use super::trace;
use crate::bus::{Anchor, ProcessId};
use crate::core::event::Event as Logged;
use crate::core::fact::{Fact, TaskRun, Want};
use crate::core::head::Caller;
use crate::core::spec::Permission;
use crate::core::state::{Process, State};
use crate::ids::{AgentUid, Timestamp};
use crate::supervise::{Order, Outcome, Preparation, SetupFailure, Stage};

impl Daemon {
    pub(super) fn order(&mut self, now: Timestamp, order: Order) {
        match order {
            Order::Prepare(preparation) => self.prepare(now, preparation),
            Order::Adopt { uid, shim } => {
                let process = ProcessId { pid: shim.pid, start: shim.start };
                self.hub.set_anchor(uid, Anchor::Process(process));
            }
            Order::Retire { uid, .. } => self.hub.set_anchor(uid, Anchor::None),
            Order::Tell(fact) => {
                if let Fact::AgentEnded { uid, .. } = &fact {
                    self.unprotect(*uid);
                }
                self.tell(now, fact);
            }
            Order::Collect(outcome) => {
                let state = self.pipeline.durable();
                let limits = *state.limits();
                match state.name_of(outcome.uid).cloned() {
                    Some(name) => {
                        let around = self.agents.get(&outcome.uid);
                        let span = around.and_then(|around| around.span.clone());
                        let span = span.unwrap_or_else(tracing::Span::none);
                        self.jobs.collect(name, outcome, limits, span);
                    }
                    None => self.ended(now, outcome, None, None),
                }
            }
            Order::Sweep { known } => self.jobs.sweep(known),
        }
    }

    fn prepare(&mut self, now: Timestamp, preparation: Preparation) {
        let Preparation { uid, incarnation, ref run, stage } = preparation;
        match launch_of(self.pipeline.durable(), &preparation) {
            Some(launch) => {
                if run.is_none() {
                    for checkpoint in &launch.restore {
                        let place = (uid, checkpoint.task.clone());
                        self.restored.insert(place, checkpoint.id);
                    }
                }
                let around = self.agents.entry(uid).or_default();
                // A process that is released is known already.
                if stage != Stage::Release {
                    self.hub.set_anchor(uid, Anchor::Pending);
                    let task = launch.task.as_ref().map(|task| &task.id);
                    around.span =
                        Some(trace::agent(&launch.agent, &launch.role, launch.level, task));
                }
                let span = around.span.clone().unwrap_or_else(tracing::Span::none);
                self.jobs.prepare(uid, launch, span);
            }
            None => {
                let step = format!("{stage:?}: the agent or its task is gone");
                let mut orders = Vec::new();
                let failure = Err(SetupFailure { step, errno: 0 });
                self.supervisor.prepared(uid, incarnation, failure, &mut orders);
                self.carry_out(now, orders);
            }
        }
    }

    /// Takes the outcome of slow work.
    pub(super) fn done(&mut self, now: Timestamp, outcome: lanes::Outcome<Done>) {
        let lanes::Outcome { lane, done } = outcome;
        self.jobs.finished(lane);
        let mut orders = Vec::new();
        match done {
            Done::Prepared { uid, incarnation, result } => {
                let result = result.map(|ready| {
                    let around = self.agents.entry(uid).or_default();
                    if !ready.gaps.is_empty() {
                        around.gaps = ready.gaps;
                    }
                    if ready.protection.is_some() {
                        around.protection = ready.protection;
                    }
                    ready.prepared
                });
                self.supervisor.prepared(uid, incarnation, result, &mut orders);
            }
            Done::Collected { outcome, output, mut left } => {
                let saved = self.saved.remove(&(outcome.uid, outcome.run.task.clone()));
                self.saved.retain(|(uid, _), _| *uid != outcome.uid);
                left.forget_older_than(saved);
                for text in &left.complaints {
                    self.tell(now, Fact::Alert { text: text.clone() });
                }
                let checkpoint =
                    (!left.is_empty()).then(|| (left.json.clone(), left.stored.files.clone()));
                self.ended(now, *outcome, output, checkpoint);
                // Until the fact is durable nothing but these pins holds the blobs.
                self.pin(left.stored);
            }
            Done::Unprotected(alerts) => {
                for text in alerts {
                    self.tell(now, Fact::Alert { text });
                }
            }
            Done::Swept(result) => {
                if self.stopping.as_ref().is_some_and(|stopping| stopping.sweeping) {
                    self.verified(now, result);
                } else {
                    self.supervisor.swept(result, &mut orders);
                }
            }
            Done::Page(id, page) => self.hub.feed(now, id, page, self.pipeline.durable()),
            Done::Answer(ticket, reply) => {
                if let (Err(_), Caller::Agent(asker)) = (&reply, ticket.who()) {
                    // What could not be restored is not there: the next answer tries again.
                    self.restored.retain(|(uid, _), _| *uid != asker);
                }
                self.send(ticket, reply);
            }
            Done::Restored(inbound, restored) => self.restored(*inbound, restored),
            Done::Stored(asked, stored) => self.stored(now, *asked, stored),
            Done::Marked(result) => {
                if let Err(error) = result {
                    tracing::warn!(%error, "cannot mark that the daemon lives");
                }
            }
            Done::Collapsed(result) => {
                self.jobs.collapsed();
                if let Err(text) = result {
                    self.tell(now, Fact::Alert { text: format!("blobs: {text}") });
                }
            }
        }
        self.carry_out(now, orders);
    }

    fn ended(
        &mut self,
        now: Timestamp,
        outcome: Outcome,
        output: Option<crate::core::json::Json>,
        checkpoint: Option<(Option<crate::core::json::Json>, Vec<crate::core::view::FileRef>)>,
    ) {
        let Outcome { uid, incarnation, exit, .. } = outcome;
        self.supervisor.collected(uid, incarnation);
        self.unprotect(uid);
        self.tell(now, Fact::AgentEnded { uid, incarnation, exit, output, checkpoint });
    }

    /// Looks after the trees that an agent wrote, once no process of it is left.
    fn unprotect(&mut self, uid: AgentUid) {
        let protection = self.agents.get_mut(&uid).and_then(|around| around.protection.take());
        if let Some(protection) = protection {
            self.jobs.unprotect(*protection);
        }
    }

    /// Brings processes nearer to what the durable state wants.
    pub(super) fn want(&mut self, now: Timestamp, uid: AgentUid) {
        if self.dead.is_some() {
            return;
        }
        let want = self.pipeline.durable().want(uid);
        // A stop that could not be written is one all the same.
        if self.stopping.is_some() && matches!(want, Want::Run { .. }) {
            return;
        }
        let mut orders = Vec::new();
        self.supervisor.wanted(now, uid, want, &mut orders);
        self.carry_out(now, orders);
    }

    /// Sockets come and go with agents, before their first start.
    pub(super) fn follow_agents(&mut self, now: Timestamp, event: &crate::core::event::Logged) {
        self.trace(&event.event);
        if let Logged::AgentAdded(_) = &event.event {
            self.listen(now, AgentUid(event.seq.0));
        } else if let Logged::AgentRemoved(removed) = &event.event {
            self.hub.remove_agent(removed.agent);
            self.agents.remove(&removed.agent);
            self.restored.retain(|(uid, _), _| *uid != removed.agent);
        } else if let Logged::AgentReady(_) | Logged::AgentStarted(_) = &event.event {
            self.silence = Some(now);
        } else if let Logged::MissionConfigured(configured) = &event.event {
            self.hub.set_limits(&configured.limits);
        }
    }

    /// Says what its agents do, in their spans.
    fn trace(&mut self, event: &Logged) {
        if let Logged::AgentStarted(started) = event {
            let span = self.agents.get(&started.agent).and_then(|around| around.span.as_ref());
            if let Some(span) = span {
                span.record("pid", started.pid);
                span.in_scope(|| tracing::info!("agent runs"));
            }
        } else if let Logged::AgentEnded(ended) = event {
            let around = self.agents.get_mut(&ended.agent);
            if let Some(span) = around.and_then(|around| around.span.take()) {
                span.in_scope(|| tracing::info!(exit = %ended.exit, "agent ended"));
            }
        }
    }

    /// Listens for an agent's processes; once.
    pub(super) fn listen(&mut self, now: Timestamp, uid: AgentUid) {
        let around = self.agents.entry(uid).or_default();
        if std::mem::replace(&mut around.listening, true) {
            return;
        }
        let Some(name) = self.pipeline.durable().name_of(uid).cloned() else { return };
        let dirs = self.ground.dirs.agent(&name);
        let failed = match dirs.prepare() {
            Ok(()) => {
                self.hub.listen_agent(uid, &name, &dirs.socket()).err().map(|e| e.to_string())
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = failed {
            self.tell(now, Fact::Alert { text: format!("{name} has no socket: {why}") });
        }
    }

    /// Tells the core of agents that were not heard of for as long as they may be silent. The limit is
    /// looked at when it can have passed for somebody, not at each message.
    pub(super) fn check_silence(&mut self, now: Timestamp) {
        if self.silence.is_none_or(|at| at > now) {
            return;
        }
        let mut next = None;
        let mut silent = Vec::new();
        for (uid, agent) in self.pipeline.durable().all_agents() {
            let (Some(limit), Process::Running { .. }) = (agent.spec.silence_ms, &agent.process)
            else {
                continue;
            };
            // Of an earlier start it may have been heard before.
            let heard = self.hub.heard(uid).map_or(agent.since, |heard| heard.max(agent.since));
            let limit = heard.plus_ms(limit);
            if limit <= now {
                silent.push((uid, agent.incarnation));
            } else {
                next = Some(next.map_or(limit, |earlier: Timestamp| earlier.min(limit)));
            }
        }
        self.silence = next;
        for (uid, incarnation) in silent {
            self.tell(now, Fact::AgentSilent { uid, incarnation });
        }
    }
}

fn launch_of(state: &State, preparation: &Preparation) -> Option<Launch> {
    let Preparation { uid, incarnation, run, stage } = preparation;
    let agent = state.agent(*uid)?;
    let task = match run {
        Some(run) => Some(task_of(state, run)?),
        None => None,
    };
    let own = |task: &crate::core::state::Task| {
        task.checkpoints.back().and_then(|id| Restore::of(state, *id))
    };
    let owned = state.index.owned.get(uid).into_iter().flatten();
    let restore = owned.filter_map(|id| state.tasks.get(id)).filter_map(own).collect();
    Some(Launch {
        agent: agent.spec.name.clone(),
        role: agent.role.clone(),
        level: agent.spec.level,
        // Not what the file says: the role may have been changed since.
        can_write: state.permissions(*uid).has(Permission::Write),
        incarnation: *incarnation,
        stage: *stage,
        task,
        restore,
        max_content: state.limits().max_content,
    })
}

fn task_of(state: &State, run: &TaskRun) -> Option<Task> {
    let task = state.tasks.get(&run.task)?;
    Some(Task {
        id: run.task.clone(),
        title: task.title.clone(),
        epoch: run.epoch,
        attempt: run.attempt,
        data_at: task.has_data.then_some(task.created_at),
        checkpoint: run.checkpoint.and_then(|id| Restore::of(state, id)),
    })
}
