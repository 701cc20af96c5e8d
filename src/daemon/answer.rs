//! What goes out once it is durable.

use super::Daemon;
use super::ground::Restore;
use crate::bus::Ticket;
use crate::core::denied::{Code, Denied};
use crate::core::event::Event as Kind;
use crate::core::head::{Caller, Ephemeral};
use crate::core::request::Ack;
use crate::core::spec::{Mode, Permissions};
use crate::core::view::{AgentView, MissionStateName, Party, Reply};
use crate::ids::{AgentName, AgentUid, CheckpointId, TaskId, Timestamp};
use crate::proto::Method;
use crate::proto::wire::{AuditRead, Empty, Fetch, Hello, Subscribe};
use crate::store::blobs::Blob;

/// Something that waits for the disk.
#[derive(Debug)]
pub(super) enum Output {
    /// An answer.
    Reply {
        ticket: Ticket,
        who: Caller,
        method: Method,
        reply: Result<Reply, Denied>,
        /// Blobs that nothing durable names yet.
        _pins: Vec<Blob>,
    },
    /// A refusal.
    Refused {
        ticket: Ticket,
        denied: Denied,
    },
    /// The answer to `hello`.
    Hello {
        ticket: Ticket,
        who: Caller,
        hello: Hello,
        agent: Option<Box<AgentView>>,
    },
    /// An `ack` that the hub is to know of.
    Acked {
        ticket: Ticket,
        uid: AgentUid,
        ack: Ack,
        reply: Result<Reply, Denied>,
    },
    /// What the hub carries out.
    Subscribe {
        ticket: Ticket,
        ask: Subscribe,
    },
    Fetch {
        ticket: Ticket,
        ask: Fetch,
        may_audit: bool,
    },
    Audit {
        ticket: Ticket,
        ask: AuditRead,
    },
    Ephemeral(Box<Ephemeral>),
    /// `mission.stop`, answered when everything has ended.
    Stop {
        ticket: Ticket,
        grace_ms: Option<u64>,
    },
    /// Nothing to say; lets blobs go.
    Pins {
        _pins: Vec<Blob>,
    },
}

impl Output {
    /// The refusal in its place.
    pub(super) fn refused(self, denied: Denied) -> Output {
        match self {
            Output::Reply { ticket, .. }
            | Output::Refused { ticket, .. }
            | Output::Hello { ticket, .. }
            | Output::Acked { ticket, .. }
            | Output::Subscribe { ticket, .. }
            | Output::Fetch { ticket, .. }
            | Output::Audit { ticket, .. }
            | Output::Stop { ticket, .. } => Output::Refused { ticket, denied },
            nothing @ (Output::Ephemeral(_) | Output::Pins { .. }) => nothing,
        }
    }
}

impl Daemon {
    /// Hands out what is durable; whether there was anything.
    pub(super) fn release(&mut self, now: Timestamp) -> bool {
        let released = self.pipeline.release();
        if released.events.is_empty() && released.touched.is_empty() && released.outputs.is_empty()
        {
            return false;
        }
        if self.dead.is_some() {
            // Nobody is told anything that may not be so.
            return true;
        }
        if !released.events.is_empty() {
            self.hub.deliver(now, &released.events, self.pipeline.durable());
        }
        for event in &released.events {
            self.follow_agents(now, event);
            self.follow_readiness(&event.event);
            self.show(event);
            if let Kind::MissionStopping(stopping) = &event.event {
                // By the order of the log, not by what came in one batch: what was up before is up.
                self.say_ready();
                self.begin_stop(now, &stopping.why, stopping.grace_ms);
            } else if let Kind::TaskPruned(pruned) = &event.event {
                self.restored.retain(|(_, task), _| *task != pruned.task);
                self.blobs_may_go();
            }
        }
        for uid in released.touched {
            self.want(now, uid);
        }
        self.emit_all(now, released.outputs);
        true
    }

    /// In order, but that messages which are not logged go out together, before the answers between
    /// them: their readers wait longer than who sent them.
    fn emit_all(&mut self, now: Timestamp, outputs: Vec<Output>) {
        let (mut ephemerals, mut answers) = (Vec::new(), Vec::new());
        for output in outputs {
            if let Output::Ephemeral(message) = output {
                ephemerals.push(message);
            } else if !ephemerals.is_empty() && matches!(output, Output::Reply { .. }) {
                answers.push(output);
            } else {
                self.emit_ephemerals(now, &mut ephemerals, &mut answers);
                self.emit(now, output);
            }
        }
        self.emit_ephemerals(now, &mut ephemerals, &mut answers);
    }

    #[expect(clippy::vec_box, reason = "they come in boxes")]
    fn emit_ephemerals(
        &mut self,
        now: Timestamp,
        ephemerals: &mut Vec<Box<Ephemeral>>,
        answers: &mut Vec<Output>,
    ) {
        if !ephemerals.is_empty() {
            self.hub.ephemeral(ephemerals, self.pipeline.durable());
            ephemerals.clear();
        }
        for answer in answers.drain(..) {
            self.emit(now, answer);
        }
    }

    fn emit(&mut self, now: Timestamp, output: Output) {
        match output {
            Output::Reply { ticket, who, method, reply, .. } => {
                self.answer(ticket, &who, method, reply);
            }
            Output::Refused { ticket, denied } => self.hub.reply::<()>(ticket, Err(&denied)),
            Output::Hello { ticket, who, hello, agent } => self.greet(ticket, &who, &hello, agent),
            Output::Acked { ticket, uid, ack, reply } => {
                self.hub.acked(now, uid, &ack, self.pipeline.durable());
                self.send(ticket, reply);
            }
            Output::Subscribe { ticket, ask } => {
                self.hub.subscribe(now, ticket, ask, self.pipeline.durable());
            }
            Output::Fetch { ticket, ask, may_audit } => {
                self.hub.fetch(now, ticket, ask, self.pipeline.durable(), may_audit);
            }
            Output::Audit { ticket, ask } => self.hub.audit_read(now, ticket, ask),
            Output::Ephemeral(message) => self.hub.ephemeral(&[message], self.pipeline.durable()),
            Output::Stop { ticket, grace_ms } => self.stop_asked(now, ticket, grace_ms),
            Output::Pins { .. } => {}
        }
    }

    /// Refuses what waited for events that will never be.
    pub(super) fn lose(&mut self, now: Timestamp, lost: Vec<Output>, why: &str) {
        for output in lost {
            if let Output::Stop { ticket, grace_ms } = output {
                self.stop_asked(now, ticket, grace_ms);
                continue;
            }
            let denied = Denied::new(
                Code::Unavailable,
                format!("the change could not be written ({why}); nothing has changed, try again"),
            );
            if let Output::Refused { ticket, denied } = output.refused(denied) {
                self.hub.reply::<()>(ticket, Err(&denied));
            }
        }
    }

    /// Answers a request, after what the answer needs from the disk.
    fn answer(
        &mut self,
        ticket: Ticket,
        who: &Caller,
        method: Method,
        reply: Result<Reply, Denied>,
    ) {
        let reply = match reply {
            Ok(reply) => reply,
            refused @ Err(_) => return self.send(ticket, refused),
        };
        let restore = self.due_checkpoint(who, method, &reply);
        let fills = match (&reply, method) {
            (Reply::Task(task), Method::TaskGet | Method::TaskClaim) => {
                task.data_at.is_some() || task.result_at.is_some()
            }
            (Reply::Checkpoint(checkpoint), Method::CheckpointGet) => checkpoint.json_at.is_some(),
            _ => false,
        };
        if fills || restore.is_some() {
            self.jobs.answer(ticket, reply, restore);
        } else {
            self.send(ticket, Ok(reply));
        }
    }

    /// The checkpoint that a service finds in its handoff directory when it has this answer.
    fn due_checkpoint(
        &mut self,
        who: &Caller,
        method: Method,
        reply: &Reply,
    ) -> Option<(AgentName, Restore)> {
        let Caller::Agent(uid) = who else { return None };
        let (task, id): (&TaskId, CheckpointId) = match (method, reply) {
            (Method::TaskClaim, Reply::Task(task)) => (&task.id, task.checkpoint?),
            (Method::HandoffComplete, Reply::Handoff(handoff)) => {
                (&handoff.task, handoff.checkpoint?)
            }
            (Method::CheckpointGet, Reply::Checkpoint(view)) => (&view.task, view.id),
            _ => return None,
        };
        let state = self.pipeline.durable();
        let agent = state.agent(*uid)?;
        let owns = state.tasks.get(task).and_then(crate::core::state::Task::owner) == Some(*uid);
        if agent.spec.mode != Mode::Service || !owns {
            return None;
        }
        let restore = Restore::of(state, id)?;
        let name = agent.spec.name.clone();
        let there = self.restored.insert((*uid, task.clone()), id);
        (there != Some(id)).then_some((name, restore))
    }

    /// Sends an answer that is complete but for what only the daemon knows.
    pub(super) fn send(&mut self, ticket: Ticket, reply: Result<Reply, Denied>) {
        match reply {
            Err(denied) => self.hub.reply::<()>(ticket, Err(&denied)),
            Ok(Reply::Done) => self.hub.reply(ticket, Ok(&Empty {})),
            Ok(Reply::Published(published)) => self.hub.reply(ticket, Ok(&published)),
            Ok(Reply::Acked(acked)) => self.hub.reply(ticket, Ok(&acked)),
            Ok(Reply::Task(task)) => self.hub.reply(ticket, Ok(&*task)),
            Ok(Reply::Tasks(tasks)) => self.hub.reply(ticket, Ok(&tasks)),
            Ok(Reply::Checkpoint(checkpoint)) => self.hub.reply(ticket, Ok(&*checkpoint)),
            Ok(Reply::Handoff(handoff)) => self.hub.reply(ticket, Ok(&*handoff)),
            Ok(Reply::Handoffs(handoffs)) => self.hub.reply(ticket, Ok(&handoffs)),
            Ok(Reply::Agent(mut agent)) => {
                self.fill_agent(&mut agent);
                self.hub.reply(ticket, Ok(&*agent));
            }
            Ok(Reply::Agents(mut agents)) => {
                agents.iter_mut().for_each(|agent| self.fill_agent(agent));
                self.hub.reply(ticket, Ok(&agents));
            }
            Ok(Reply::Mission(mut mission)) => {
                mission.agents.iter_mut().for_each(|agent| self.fill_agent(agent));
                mission.pid = std::process::id();
                mission.state_dir = self.ground.dirs.state().display().to_string();
                mission.alerts = self.alerts();
                if self.stopping.is_some() && mission.state == MissionStateName::Running {
                    mission.state = MissionStateName::Stopping;
                }
                self.hub.reply(ticket, Ok(&*mission));
            }
        }
    }

    fn fill_agent(&self, agent: &mut AgentView) {
        agent.heard = self.hub.heard(agent.uid);
        if let Some(around) = self.agents.get(&agent.uid) {
            agent.gaps.clone_from(&around.gaps);
        }
    }

    fn alerts(&self) -> Vec<String> {
        let mut alerts = Vec::new();
        if self.disk_low || self.pipeline.is_degraded() {
            alerts.push("too little room on the disk: changes are refused".to_owned());
        }
        if let Some(bytes) = self.wal_large {
            alerts.push(format!(
                "another program keeps mission.db open: its write-ahead log has {} MiB",
                bytes >> 20
            ));
        }
        alerts
    }

    fn greet(
        &mut self,
        ticket: Ticket,
        who: &Caller,
        hello: &Hello,
        mut agent: Option<Box<AgentView>>,
    ) {
        if let Some(agent) = &mut agent {
            self.fill_agent(agent);
        }
        let you = match (who, &agent) {
            (Caller::Operator, _) => Party::Operator,
            (Caller::Agent(_), Some(agent)) => Party::Agent(agent.name.clone()),
            (Caller::Agent(uid), None) => match self.pipeline.durable().name_of(*uid) {
                Some(name) => Party::Agent(name.clone()),
                None => {
                    let denied = Denied::new(Code::Denied, "this agent is not in the mission");
                    return self.hub.reply::<()>(ticket, Err(&denied));
                }
            },
        };
        let mission = self.ground.mission.spec.name.clone();
        // Of what is durable: the head may be ahead of what anybody may know.
        let permissions = match who {
            Caller::Operator => Permissions::all(),
            Caller::Agent(uid) => self.pipeline.durable().permissions(*uid),
        };
        let agent = agent.map(|agent| *agent);
        let reply = crate::bus::hello_reply(hello, mission, you, permissions, agent);
        self.hub.reply(ticket, reply.as_ref());
    }
}
