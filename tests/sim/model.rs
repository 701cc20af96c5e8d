//! A second, much simpler reading of the log: who is there, who owns what under which epoch, which
//! handoff is open. It says what the core must never do, and shares no code with it.

#![expect(clippy::wildcard_enum_match_arm, reason = "what it does not look at can't be wrong")]

use std::collections::{BTreeMap, BTreeSet};

use missiond::core::event::{Addressee, AfterEnd, Event, Logged};
use missiond::core::spec::{Mode, Permission, Permissions};
use missiond::core::view::Party;
use missiond::ids::{
    AgentName, AgentUid, CheckpointId, Epoch, HandoffId, Incarnation, Key, RoleName, Seq, TaskId,
};

/// What a check has to say.
pub(crate) type Verdict = Result<(), String>;

/// Fails with a sentence unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
pub(crate) use ensure;

#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) name: AgentName,
    pub(crate) role: RoleName,
    /// The role that the mission file gives.
    pub(crate) written: RoleName,
    pub(crate) mode: Mode,
    pub(crate) removed: bool,
    pub(crate) joined: Seq,
    /// The last start, and whether its process may live.
    pub(crate) incarnation: Incarnation,
    pub(crate) alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stand {
    Pending,
    Assigned,
    Active,
    Settled,
}

#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) stand: Stand,
    pub(crate) owner: Option<AgentUid>,
    pub(crate) epoch: Epoch,
    pub(crate) after: Vec<TaskId>,
    pub(crate) handoff: Option<HandoffId>,
    pub(crate) completed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Requested,
    Accepted,
    Quiesced,
    Completed,
    Ended,
}

#[derive(Debug, Clone)]
pub(crate) struct Handoff {
    pub(crate) task: TaskId,
    pub(crate) from: AgentUid,
    pub(crate) to: AgentUid,
    pub(crate) stage: Stage,
}

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) seq: Seq,
    pub(crate) to: Vec<Addressee>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) roles: BTreeMap<RoleName, Permissions>,
    pub(crate) agents: BTreeMap<AgentUid, Agent>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) handoffs: BTreeMap<HandoffId, Handoff>,
    pub(crate) checkpoints: Vec<(CheckpointId, TaskId)>,
    pub(crate) messages: Vec<Message>,
    pub(crate) dead: BTreeSet<(AgentUid, Seq)>,
    pub(crate) keys: BTreeMap<(Option<AgentUid>, String, Key), u32>,
    pub(crate) stopping: bool,
    pub(crate) stopped: bool,
    pub(crate) head: Seq,
}

impl Model {
    pub(crate) fn uid(&self, name: &AgentName) -> Option<AgentUid> {
        self.present().find(|(_, agent)| agent.name == *name).map(|(uid, _)| uid)
    }

    pub(crate) fn present(&self) -> impl Iterator<Item = (AgentUid, &Agent)> {
        self.agents.iter().filter(|(_, a)| !a.removed).map(|(uid, agent)| (*uid, agent))
    }

    pub(crate) fn may(&self, uid: AgentUid, permission: Permission) -> bool {
        self.agents.get(&uid).is_some_and(|agent| {
            !agent.removed && self.roles.get(&agent.role).is_some_and(|set| set.has(permission))
        })
    }

    fn agent(&mut self, uid: AgentUid) -> Result<&mut Agent, String> {
        self.agents.get_mut(&uid).ok_or_else(|| format!("no agent {uid}"))
    }

    fn open(&mut self, id: &TaskId) -> Result<&mut Task, String> {
        let task = self.tasks.get_mut(id).ok_or_else(|| format!("no task {id}"))?;
        ensure!(task.stand != Stand::Settled, "task {id} is settled");
        Ok(task)
    }

    fn handoff(&mut self, id: HandoffId, now: &[Stage]) -> Result<&mut Handoff, String> {
        let handoff = self.handoffs.get_mut(&id).ok_or_else(|| format!("no handoff {id}"))?;
        ensure!(now.contains(&handoff.stage), "handoff {id} is {:?}", handoff.stage);
        Ok(handoff)
    }

    /// Whether an event written in the name of an agent comes from the owner. The daemon may act for
    /// itself (deadlines, ends of processes), the operator and leads may cancel.
    fn by_owner(&self, logged: &Logged, id: &TaskId) -> Verdict {
        let Party::Agent(name) = &logged.actor else { return Ok(()) };
        let owner = self.tasks.get(id).and_then(|task| task.owner);
        let is_owner = owner.and_then(|uid| self.agents.get(&uid)).is_some_and(|a| a.name == *name);
        ensure!(is_owner, "{} of task {id} by {name}, who does not own it", logged.kind());
        Ok(())
    }

    /// Takes in an event, or says why it can't have happened.
    pub(crate) fn apply(&mut self, logged: &Logged) -> Verdict {
        ensure!(logged.seq == self.head.next(), "seq {} follows {}", logged.seq, self.head);
        self.head = logged.seq;
        let epoch = Epoch(logged.seq.0);
        match &logged.event {
            Event::DaemonStarted(_) => {
                self.stopping = false;
                self.stopped = false;
            }
            Event::MissionConfigured(e) => self.roles.clone_from(&e.roles),
            Event::MissionStopping(_) => self.stopping = true,
            Event::MissionStopped(_) => {
                let alive = self.agents.values().find(|agent| agent.alive);
                ensure!(alive.is_none(), "stopped while {:?} is alive", alive.map(|a| &a.name));
                self.stopped = true;
            }
            Event::AgentAdded(e) => {
                let twin = self.uid(&e.spec.name);
                ensure!(twin.is_none(), "a second agent is named {}", e.spec.name);
                let agent = Agent {
                    name: e.spec.name.clone(),
                    role: e.spec.role.clone(),
                    written: e.spec.role.clone(),
                    mode: e.spec.mode,
                    removed: false,
                    joined: logged.seq,
                    incarnation: Incarnation(0),
                    alive: false,
                };
                self.agents.insert(AgentUid(logged.seq.0), agent);
            }
            Event::AgentChanged(e) => {
                let agent = self.agent(e.agent)?;
                agent.mode = e.spec.mode;
                // A role given while the mission ran outlives an unchanged file.
                if agent.written != e.spec.role {
                    agent.role = e.spec.role.clone();
                }
                agent.written = e.spec.role.clone();
            }
            Event::AgentRemoved(e) => self.agent(e.agent)?.removed = true,
            Event::AgentRoleChanged(e) => self.agent(e.agent)?.role = e.role.clone(),
            Event::AgentStarting(e) => {
                ensure!(!self.stopping, "agent {} starts while the mission stops", e.agent);
                let agent = self.agent(e.agent)?;
                ensure!(!agent.removed, "removed agent {} starts", e.agent);
                ensure!(!agent.alive, "agent {} starts while it is alive", e.agent);
                ensure!(e.incarnation > agent.incarnation, "incarnation {} again", e.incarnation);
                agent.incarnation = e.incarnation;
                agent.alive = true;
            }
            Event::AgentParked(_)
            | Event::AgentStarted(_)
            | Event::AgentReady(_)
            | Event::AgentStopping(_) => self.alive(&logged.event)?,
            Event::AgentEnded(e) => {
                self.alive(&logged.event)?;
                let agent = self.agent(e.agent)?;
                agent.alive = false;
                let AfterEnd::Waiting(until) = e.next else { return Ok(()) };
                ensure!(until >= logged.at, "a restart is due before the end it follows");
            }
            Event::MessagePublished(e) => {
                self.messages.push(Message { seq: logged.seq, to: e.to.clone() });
            }
            Event::MessagesDead(e) => {
                self.dead.extend(e.seqs.iter().map(|seq| (e.agent, *seq)));
            }
            Event::KeyUsed(e) => {
                *self.keys.entry((e.agent, e.method.clone(), e.key.clone())).or_default() += 1;
            }
            _ => self.apply_work(logged, epoch)?,
        }
        Ok(())
    }

    fn alive(&self, event: &Event) -> Verdict {
        let (uid, incarnation) = match event {
            Event::AgentParked(e) => (e.agent, e.incarnation),
            Event::AgentStarted(e) => (e.agent, e.incarnation),
            Event::AgentReady(e) => (e.agent, e.incarnation),
            Event::AgentStopping(e) => (e.agent, e.incarnation),
            Event::AgentEnded(e) => (e.agent, e.incarnation),
            _ => return Ok(()),
        };
        let agent = self.agents.get(&uid).ok_or_else(|| format!("no agent {uid}"))?;
        ensure!(
            agent.alive && agent.incarnation == incarnation,
            "{} of a start that is over",
            event.kind()
        );
        Ok(())
    }

    /// Tasks, checkpoints and handoffs.
    fn apply_work(&mut self, logged: &Logged, epoch: Epoch) -> Verdict {
        match &logged.event {
            Event::TaskCreated(e) => {
                ensure!(!self.tasks.contains_key(&e.task), "task {} twice", e.task);
                let task = Task {
                    stand: Stand::Pending,
                    owner: None,
                    epoch: Epoch(0),
                    after: e.after.clone(),
                    handoff: None,
                    completed: false,
                };
                self.tasks.insert(e.task.clone(), task);
            }
            Event::TaskAssigned(e) => {
                let waits = self.tasks.get(&e.task).into_iter().flat_map(|task| &task.after);
                let mut waits =
                    waits.filter(|id| self.tasks.get(*id).is_some_and(|t| !t.completed));
                let waits = waits.next().cloned();
                ensure!(waits.is_none(), "task {} has an owner before {waits:?} is done", e.task);
                ensure!(self.may(e.to, Permission::Execute), "task {}: {} can't own", e.task, e.to);
                let task = self.open(&e.task)?;
                ensure!(task.stand != Stand::Active, "task {} is active", e.task);
                (task.stand, task.owner, task.epoch) = (Stand::Assigned, Some(e.to), epoch);
            }
            Event::TaskRequeued(e) => {
                let task = self.open(&e.task)?;
                task.stand = if e.to.is_some() { Stand::Assigned } else { Stand::Pending };
                (task.owner, task.epoch) = (e.to, epoch);
            }
            Event::TaskReleased(e) => {
                self.by_owner(logged, &e.task)?;
                let task = self.open(&e.task)?;
                (task.stand, task.owner, task.epoch) = (Stand::Pending, None, epoch);
            }
            Event::TaskStarted(e) => {
                let task = self.open(&e.task)?;
                let owner = task.owner.ok_or_else(|| format!("task {} has no owner", e.task))?;
                task.stand = Stand::Active;
                let incarnation = self.agent(owner)?.incarnation;
                ensure!(incarnation == e.incarnation, "task {} of a former start", e.task);
            }
            Event::TaskProgressed(e) => {
                self.by_owner(logged, &e.task)?;
                let stand = self.open(&e.task)?.stand;
                ensure!(stand == Stand::Active, "progress of {}, which is {stand:?}", e.task);
            }
            Event::CheckpointSaved(e) => {
                self.by_owner(logged, &e.task)?;
                let task = self.open(&e.task)?;
                ensure!(task.owner == Some(e.by), "checkpoint of {} by {}", e.task, e.by);
                ensure!(task.epoch == e.epoch, "checkpoint of {} under {}", e.task, e.epoch);
                self.checkpoints.push((CheckpointId(logged.seq), e.task.clone()));
            }
            Event::TaskCompleted(e) => {
                self.by_owner(logged, &e.task)?;
                let task = self.open(&e.task)?;
                ensure!(task.owner.is_some(), "task {} is completed by nobody", e.task);
                (task.stand, task.completed) = (Stand::Settled, true);
            }
            Event::TaskFailed(e) => {
                self.by_owner(logged, &e.task)?;
                let task = self.open(&e.task)?;
                task.stand = Stand::Settled;
                if e.fence {
                    task.epoch = epoch;
                }
            }
            Event::TaskCancelled(e) => {
                let task = self.open(&e.task)?;
                task.stand = Stand::Settled;
                if e.fence {
                    task.epoch = epoch;
                }
            }
            Event::TaskPruned(e) => {
                let task = self.tasks.remove(&e.task);
                let settled = task.is_some_and(|task| task.stand == Stand::Settled);
                ensure!(settled, "task {} is forgotten before its end", e.task);
            }
            _ => self.apply_handoff(logged, epoch)?,
        }
        Ok(())
    }

    fn apply_handoff(&mut self, logged: &Logged, epoch: Epoch) -> Verdict {
        match &logged.event {
            Event::HandoffRequested(e) => {
                ensure!(self.may(e.to, Permission::Execute), "handoff to {}, who can't own", e.to);
                ensure!(e.until >= logged.at, "a handoff that is over before it begins");
                let task = self.open(&e.task)?;
                ensure!(task.owner == Some(e.from), "handoff of {} from {}", e.task, e.from);
                ensure!(task.handoff.is_none(), "a second handoff of {}", e.task);
                let id = HandoffId(logged.seq);
                task.handoff = Some(id);
                let (task, from, to) = (e.task.clone(), e.from, e.to);
                self.handoffs.insert(id, Handoff { task, from, to, stage: Stage::Requested });
            }
            Event::HandoffAccepted(e) => {
                self.handoff(e.handoff, &[Stage::Requested])?.stage = Stage::Accepted;
            }
            Event::HandoffQuiesced(e) => {
                let id = e.handoff;
                let handoff = self.handoff(id, &[Stage::Requested, Stage::Accepted])?;
                handoff.stage = Stage::Quiesced;
            }
            Event::HandoffCompleted(e) => {
                let handoff = self.handoff(e.handoff, &[Stage::Quiesced])?;
                handoff.stage = Stage::Completed;
                let Handoff { task: id, from, to, .. } = handoff.clone();
                ensure!(self.may(to, Permission::Execute), "handoff {} to {to}", e.handoff);
                let task = self.open(&id)?;
                ensure!(task.owner.is_none_or(|owner| owner == from), "handoff from no owner");
                ensure!(task.handoff == Some(e.handoff), "handoff {} is not open", e.handoff);
                task.handoff = None;
                (task.stand, task.owner, task.epoch) = (Stand::Active, Some(to), epoch);
                let agent = self.agent(to)?;
                ensure!(agent.incarnation == e.incarnation, "a handoff to a former start");
            }
            Event::HandoffEnded(e) => {
                let open = [Stage::Requested, Stage::Accepted, Stage::Quiesced];
                let handoff = self.handoff(e.handoff, &open)?;
                handoff.stage = Stage::Ended;
                let id = handoff.task.clone();
                if let Some(task) = self.tasks.get_mut(&id) {
                    task.handoff = None;
                }
            }
            Event::HandoffPruned(e) => {
                let handoff = self.handoffs.remove(&e.handoff);
                let over = handoff.is_some_and(|handoff| handoff.stage >= Stage::Completed);
                ensure!(over, "handoff {} is forgotten before its end", e.handoff);
            }
            _ => {}
        }
        Ok(())
    }

    /// What holds whenever a step is over.
    pub(crate) fn settled_step(&self) -> Verdict {
        for (id, task) in &self.tasks {
            if task.stand == Stand::Settled {
                ensure!(task.handoff.is_none(), "task {id} is over, its handoff is open");
                continue;
            }
            match (task.stand, task.owner) {
                (Stand::Pending, None) => {}
                (Stand::Assigned | Stand::Active, Some(owner)) => {
                    // A task whose source is gone is held until its handoff has ended.
                    let held = task.handoff.is_some();
                    let good = self.may(owner, Permission::Execute);
                    ensure!(good || held, "task {id} is owned by {owner}, who can't own");
                }
                (stand, owner) => return Err(format!("task {id} is {stand:?} of {owner:?}")),
            }
        }
        for (id, handoff) in &self.handoffs {
            if handoff.stage >= Stage::Completed {
                continue;
            }
            let task = self.tasks.get(&handoff.task);
            let known = task.is_some_and(|task| task.handoff == Some(*id));
            ensure!(known, "handoff {id} is open, its task is not in it");
            let good = self.may(handoff.to, Permission::Execute);
            ensure!(good, "handoff {id} is open, {} can't own", handoff.to);
        }
        Ok(())
    }
}
