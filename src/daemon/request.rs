//! What connections ask for.

use super::Daemon;
use super::answer::Output;
use super::collect::Stored;
use super::ground::Restore;
use crate::bus::{Arrival, Inbound, Input};
use crate::core::denied::{Code, Denied};
use crate::core::fact::Fact;
use crate::core::head::Caller;
use crate::core::request::{Ack, AgentRef, BusRight, CheckpointSave, Request};
use crate::core::spec::{Mode, Permission, Permissions, ReadyWhen};
use crate::core::state::{HandoffState, TaskState};
use crate::ids::{AgentName, AgentUid, Timestamp};
use crate::proto::Call;
use crate::proto::wire::SaveCheckpoint;

impl Daemon {
    pub(super) fn input(&mut self, now: Timestamp, input: Input) {
        match self.hub.take(now, input, self.pipeline.durable()) {
            Some(Arrival::Requests(inbound)) => {
                inbound.into_iter().for_each(|inbound| self.request(inbound));
            }
            Some(Arrival::Refused { socket, pid, reason, more }) => {
                let reason = match more {
                    0 => reason,
                    more => format!("{reason} (and {more} more before it)"),
                };
                self.tell(now, Fact::PeerRefused { socket, pid, reason });
            }
            Some(Arrival::Disconnected { .. }) | None => {}
        }
    }

    fn request(&mut self, inbound: Inbound) {
        if self.is_over() {
            return self.too_late(inbound);
        }
        let stops = matches!(inbound.call, Call::MissionStop(_));
        if inbound.method.takes_key() && !stops && !self.pipeline.admits_writes() {
            let text = "too little room is left on the disk for changes; reading goes on. \
                        Make room in the state directory and try again";
            let denied = Denied::new(Code::Unavailable, text);
            return self.hub.reply::<()>(inbound.ticket, Err(&denied));
        }
        if stops && (self.pipeline.is_degraded() || self.disk_low) {
            return self.stop_unwritten(inbound);
        }
        if let Some((agent, checkpoint)) = self.comes_with(&inbound) {
            return self.jobs.restore(inbound, agent, checkpoint);
        }
        self.decide(inbound);
    }

    /// What a service is to find in its handoff directory before it owns the task: nothing tells it
    /// of that, neither answer nor message, before the files are there.
    fn comes_with(&mut self, inbound: &Inbound) -> Option<(AgentName, Restore)> {
        let (Caller::Agent(uid), Call::Core(Request::HandoffComplete(asked))) =
            (&inbound.who, &inbound.call)
        else {
            return None;
        };
        let state = self.pipeline.head();
        let (agent, handoff) = (state.agent(*uid)?, state.handoffs.get(&asked.handoff)?);
        if handoff.to != *uid
            || handoff.state != HandoffState::Quiesced
            || agent.spec.mode != Mode::Service
        {
            return None;
        }
        let (name, task, id) = (agent.spec.name.clone(), handoff.task.clone(), handoff.checkpoint?);
        let restore = Restore::of(state, id)?;
        // A JSON that is decided and not yet written can't be read back.
        if restore.json_at.is_some_and(|at| at > self.pipeline.durable().head()) {
            return None;
        }
        self.restored.insert((*uid, task), id);
        Some((name, restore))
    }

    /// The checkpoint lies where its new owner looks for it, or can't.
    pub(super) fn restored(&mut self, inbound: Inbound, restored: Result<(), Denied>) {
        match restored {
            Ok(()) => self.decide(inbound),
            Err(denied) => self.hub.reply::<()>(inbound.ticket, Err(&denied)),
        }
    }

    fn decide(&mut self, inbound: Inbound) {
        let Inbound { ticket, who, pid, method, call, key, at } = inbound;
        let grant = |right| Request::Bus(right);
        let (request, output) = match call {
            Call::CheckpointSave(save) => {
                let inbound = Inbound { ticket, who, pid, method, call: Call::Heartbeat, key, at };
                return self.save(inbound, save);
            }
            Call::Core(request) => {
                let acked = if let Request::Ack(ack) = &request { Some(ack.clone()) } else { None };
                let step = self.pipeline.request(at, &who, key.as_ref(), request);
                if let Some(ephemeral) = step.ephemeral {
                    self.pipeline.park(step.after, Output::Ephemeral(ephemeral));
                }
                let reply = step.reply.unwrap_or_else(|| Err(silent()));
                let output = match (acked, &who, reply.is_ok()) {
                    (Some(ack), Caller::Agent(uid), true) => {
                        Output::Acked { ticket, uid: *uid, ack, reply }
                    }
                    _ => Output::Reply { ticket, who, method, reply, _pins: Vec::new() },
                };
                return self.pipeline.park(step.after, output);
            }
            Call::Hello(hello) => return self.hello(at, ticket, who, hello),
            Call::Heartbeat => (
                grant(BusRight::Greet),
                Output::Reply {
                    ticket,
                    who,
                    method,
                    reply: Ok(crate::core::view::Reply::Done),
                    _pins: Vec::new(),
                },
            ),
            Call::Subscribe(ask) => (grant(BusRight::Receive), Output::Subscribe { ticket, ask }),
            Call::Fetch(ask) => {
                let may_audit = self.permissions(&who).has(Permission::Audit);
                (grant(BusRight::Receive), Output::Fetch { ticket, ask, may_audit })
            }
            Call::AuditRead(ask) => (grant(BusRight::Audit), Output::Audit { ticket, ask }),
            Call::MissionStop(stop) => {
                let output = Output::Stop { ticket, grace_ms: stop.grace_ms };
                (Request::MissionStop(stop), output)
            }
        };
        let step = self.pipeline.request(at, &who, key.as_ref(), request);
        let output = match step.reply.unwrap_or_else(|| Err(silent())) {
            Ok(_) => output,
            Err(denied) => output.refused(denied),
        };
        self.pipeline.park(step.after, output);
    }

    pub(super) fn permissions(&self, who: &Caller) -> Permissions {
        match who {
            Caller::Operator => Permissions::all(),
            Caller::Agent(uid) => self.pipeline.head().permissions(*uid),
        }
    }

    fn hello(
        &mut self,
        at: Timestamp,
        ticket: crate::bus::Ticket,
        who: Caller,
        hello: crate::proto::wire::Hello,
    ) {
        let greeted = self.pipeline.request(at, &who, None, Request::Bus(BusRight::Greet));
        let mut after = greeted.after;
        let output = match greeted.reply.unwrap_or_else(|| Err(silent())) {
            Err(denied) => Output::Refused { ticket, denied },
            Ok(_) => {
                let mut agent = None;
                if let Caller::Agent(uid) = who {
                    let own = Request::AgentGet(AgentRef { agent: None });
                    let step = self.pipeline.request(at, &who, None, own);
                    after = step.after;
                    if let Some(Ok(crate::core::view::Reply::Agent(view))) = step.reply {
                        agent = Some(view);
                    }
                    self.greeted(at, uid);
                }
                Output::Hello { ticket, who, hello, agent }
            }
        };
        self.pipeline.park(after, output);
    }

    /// An agent that is to say `hello` before it counts as up has done so.
    fn greeted(&mut self, now: Timestamp, uid: AgentUid) {
        let Some(agent) = self.pipeline.head().agent(uid) else { return };
        if agent.spec.ready == ReadyWhen::Hello {
            let incarnation = agent.incarnation;
            self.tell(now, Fact::AgentReady { uid, incarnation });
        }
    }

    /// `checkpoint.save`: the files are stored before the core is asked.
    fn save(&mut self, inbound: Inbound, save: SaveCheckpoint) {
        let state = self.pipeline.head();
        // Only for the owner: others are refused before a byte is copied.
        let owner = match (&inbound.who, state.tasks.get(&save.task)) {
            (Caller::Agent(uid), Some(task)) if task.epoch == save.epoch => match &task.state {
                TaskState::Assigned { owner } | TaskState::Active { owner, .. } => owner == uid,
                TaskState::Pending | TaskState::Settled(_) => false,
            },
            _ => false,
        };
        let agent = match &inbound.who {
            Caller::Agent(uid) if owner => state.agent(*uid),
            Caller::Agent(_) | Caller::Operator => None,
        };
        let limits = *state.limits();
        match agent {
            // Of a task-mode agent something may lie in its checkpoint directory, too.
            Some(agent) if !save.files.is_empty() || agent.spec.mode == Mode::Task => {
                let name = agent.spec.name.clone();
                self.jobs.store(name, inbound, save, limits);
            }
            _ => {
                let now = inbound.at;
                self.stored(now, (inbound, save), Ok(Stored::default()));
            }
        }
    }

    /// The files of a checkpoint are stored, or can't be.
    pub(super) fn stored(
        &mut self,
        now: Timestamp,
        (inbound, save): (Inbound, SaveCheckpoint),
        stored: Result<Stored, Denied>,
    ) {
        let Inbound { ticket, who, method, key, .. } = inbound;
        let stored = match stored {
            Ok(stored) => stored,
            Err(denied) => {
                if denied.code == Code::Limit {
                    self.blobs_may_go();
                }
                let after = self.pipeline.head().head();
                return self.pipeline.park(after, Output::Refused { ticket, denied });
            }
        };
        let SaveCheckpoint { task, epoch, json, .. } = save;
        let Stored { files, pins, beside } = stored;
        let of = task.clone();
        let request = Request::CheckpointSave(CheckpointSave { task, epoch, json, files });
        let step = self.pipeline.request(now, &who, key.as_ref(), request);
        let reply = step.reply.unwrap_or_else(|| Err(silent()));
        if let (Caller::Agent(uid), Some(beside), Ok(_)) = (who, beside, &reply) {
            self.saved.insert((uid, of), beside);
        }
        self.pipeline.park(step.after, Output::Reply { ticket, who, method, reply, _pins: pins });
    }

    /// Holds blobs until everything that was decided so far is durable.
    pub(super) fn pin(&mut self, stored: Stored) {
        if !stored.pins.is_empty() {
            let after = self.pipeline.head().head();
            self.pipeline.park(after, Output::Pins { _pins: stored.pins });
        }
    }

    /// A cursor has moved by itself.
    pub(super) fn advance(&mut self, now: Timestamp, uid: AgentUid, ack: Ack) {
        let who = Caller::Agent(uid);
        // Refused only where the agent is gone; then so is its cursor.
        let _step = self.pipeline.request(now, &who, None, Request::Ack(ack));
    }
}

/// The core answers every request; should it not, the caller isn't left waiting.
fn silent() -> Denied {
    Denied::new(Code::Unavailable, "the request had no answer")
}
