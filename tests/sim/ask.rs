//! Random requests: mostly what an agent or a person would ask for, now and then nonsense.

use missiond::core::head::Caller;
use missiond::core::request::{
    Ack, AgentPhase, AgentRef, AgentRole, AgentStop, BusRight, CheckpointGet, CheckpointSave,
    HandoffList, HandoffRef, HandoffRefuse, HandoffRequest, MessageType, Phase, Publish, Request,
    TaskAssign, TaskCancel, TaskClaim, TaskGet, TaskList, TaskRelease, TaskSettle, TaskUpdate,
};
use missiond::core::view::FileRef;
use missiond::ids::{
    AgentName, AgentUid, BlobHash, Epoch, HandoffId, Seq, SubscriptionName, TaskId,
};

use super::model::{Model, Stage, Stand};
use super::random::Random;
use super::spec::{self, AGENTS, ROLES};

/// What is asked for, before its details.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Publish,
    Ack,
    Create,
    Assign,
    Claim,
    Update,
    Complete,
    Fail,
    Release,
    Cancel,
    Save,
    Handoff,
    Accept,
    Reject,
    Finish,
    CallOff,
    Start,
    Stop,
    Restart,
    Role,
    Phase,
    Read,
}

const KINDS: &[(u64, Kind)] = &[
    (12, Kind::Publish),
    (8, Kind::Ack),
    (5, Kind::Create),
    (5, Kind::Assign),
    (8, Kind::Claim),
    (10, Kind::Update),
    (5, Kind::Complete),
    (2, Kind::Fail),
    (2, Kind::Release),
    (1, Kind::Cancel),
    (6, Kind::Save),
    (10, Kind::Handoff),
    (14, Kind::Accept),
    (1, Kind::Reject),
    (12, Kind::Finish),
    (1, Kind::CallOff),
    (2, Kind::Start),
    (1, Kind::Stop),
    (1, Kind::Restart),
    (2, Kind::Role),
    (2, Kind::Phase),
    (5, Kind::Read),
];

/// Who asks, and for what. `callers` are the agents with a process, which alone can speak.
pub(crate) fn request(
    random: &mut Random,
    model: &Model,
    callers: &[AgentUid],
) -> (Caller, Request) {
    let kind = random.weighted(KINDS);
    let mut asker = Asker { random, model };
    let who = match asker.fitting(kind, callers) {
        Some(uid) if !asker.random.percent(15) => Caller::Agent(uid),
        _ => match asker.random.pick(callers) {
            Some(uid) if asker.random.percent(60) => Caller::Agent(*uid),
            _ => Caller::Operator,
        },
    };
    let request = asker.build(kind, who);
    (who, request)
}

struct Asker<'a> {
    random: &'a mut Random,
    model: &'a Model,
}

impl Asker<'_> {
    /// The agent whose turn this would be.
    fn fitting(&mut self, kind: Kind, callers: &[AgentUid]) -> Option<AgentUid> {
        let open = |stage: Stage| {
            let handoffs = self.model.handoffs.values();
            handoffs.filter(move |handoff| handoff.stage == stage).map(|handoff| handoff.to)
        };
        let candidates: Vec<AgentUid> = match kind {
            Kind::Update | Kind::Complete | Kind::Fail | Kind::Release | Kind::Save => {
                self.owned().iter().map(|(uid, _, _)| *uid).collect()
            }
            Kind::Accept | Kind::Reject => open(Stage::Requested).collect(),
            Kind::Finish => open(Stage::Quiesced).collect(),
            Kind::Handoff => self.owned().iter().map(|(uid, _, _)| *uid).collect(),
            _ => callers.to_vec(),
        };
        self.random.pick(&candidates).copied().filter(|uid| callers.contains(uid))
    }

    fn owned(&self) -> Vec<(AgentUid, TaskId, Epoch)> {
        let tasks = self.model.tasks.iter().filter(|(_, task)| task.stand != Stand::Settled);
        tasks
            .filter_map(|(id, task)| task.owner.map(|owner| (owner, id.clone(), task.epoch)))
            .collect()
    }

    /// A task to write to: the caller's own, or anything.
    fn target(&mut self, who: Caller) -> (TaskId, Epoch) {
        let mut owned = self.owned();
        if let Caller::Agent(uid) = who
            && !self.random.percent(10)
        {
            owned.retain(|(owner, _, _)| *owner == uid);
        }
        let (task, epoch) = match self.random.pick(&owned) {
            Some((_, task, epoch)) => (task.clone(), *epoch),
            None => (self.any_task(), Epoch(self.random.below(30))),
        };
        let epoch = if self.random.percent(8) { Epoch(epoch.0.saturating_sub(1)) } else { epoch };
        (task, epoch)
    }

    fn any_task(&mut self) -> TaskId {
        let known: Vec<_> = self.model.tasks.keys().cloned().collect();
        match self.random.pick(&known) {
            Some(task) if !self.random.percent(5) => task.clone(),
            _ => spec::task_id(self.random.below(12)),
        }
    }

    fn any_agent(&mut self) -> AgentName {
        let present: Vec<_> = self.model.present().map(|(_, agent)| agent.name.clone()).collect();
        match self.random.pick(&present) {
            Some(name) if !self.random.percent(4) => name.clone(),
            _ => spec::agent_name(self.random.pick(&AGENTS).unwrap()),
        }
    }

    fn any_handoff(&mut self, who: Caller, stage: Stage) -> HandoffId {
        let handoffs = self.model.handoffs.iter();
        let mine: Vec<_> = handoffs
            .filter(|(_, h)| h.stage == stage && Caller::Agent(h.to) == who)
            .map(|(id, _)| *id)
            .collect();
        let known: Vec<_> = self.model.handoffs.keys().copied().collect();
        let ids = if mine.is_empty() || self.random.percent(10) { known } else { mine };
        self.random.pick(&ids).copied().unwrap_or(HandoffId(Seq(1)))
    }

    fn reason(&mut self) -> Option<String> {
        self.random.percent(30).then(|| "because".to_owned())
    }

    fn build(&mut self, kind: Kind, who: Caller) -> Request {
        match kind {
            Kind::Publish => self.publish(),
            Kind::Ack => self.ack(who),
            Kind::Create => {
                let number = 5 + self.random.below(6);
                Request::TaskCreate(Box::new(spec::task(self.random, number)))
            }
            Kind::Assign => {
                Request::TaskAssign(TaskAssign { task: self.any_task(), to: self.any_agent() })
            }
            Kind::Claim => {
                let task = self.random.percent(40).then(|| self.any_task());
                Request::TaskClaim(TaskClaim { task })
            }
            Kind::Handoff => self.handoff(who),
            Kind::Accept => Request::HandoffAccept(HandoffRef {
                handoff: self.any_handoff(who, Stage::Requested),
            }),
            Kind::Reject => Request::HandoffReject(HandoffRefuse {
                handoff: self.any_handoff(who, Stage::Requested),
                reason: self.reason(),
            }),
            Kind::Finish => Request::HandoffComplete(HandoffRef {
                handoff: self.any_handoff(who, Stage::Quiesced),
            }),
            Kind::CallOff => Request::HandoffCancel(HandoffRefuse {
                handoff: self.any_handoff(who, Stage::Accepted),
                reason: self.reason(),
            }),
            Kind::Start => Request::AgentStart(AgentRef { agent: Some(self.any_agent()) }),
            Kind::Restart => Request::AgentRestart(AgentRef { agent: Some(self.any_agent()) }),
            Kind::Stop => {
                let grace_ms = self.random.percent(30).then_some(100);
                Request::AgentStop(AgentStop { agent: Some(self.any_agent()), grace_ms })
            }
            Kind::Role => Request::AgentRole(AgentRole {
                agent: self.any_agent(),
                role: spec::role(self.random.pick(&ROLES).unwrap()),
            }),
            Kind::Phase => {
                let phases = [Phase::Ready, Phase::Planning, Phase::Executing];
                let phase = *self.random.pick(&phases).unwrap();
                Request::AgentPhase(AgentPhase { phase })
            }
            Kind::Read => self.read(),
            Kind::Update
            | Kind::Complete
            | Kind::Fail
            | Kind::Release
            | Kind::Cancel
            | Kind::Save => self.write(kind, who),
        }
    }

    fn write(&mut self, kind: Kind, who: Caller) -> Request {
        let (task, epoch) = self.target(who);
        match kind {
            Kind::Complete => {
                let result = self.random.percent(70).then(|| spec::json(self.random));
                Request::TaskComplete(TaskSettle { task, epoch, result })
            }
            Kind::Fail => Request::TaskFail(TaskSettle { task, epoch, result: None }),
            Kind::Release => {
                Request::TaskRelease(TaskRelease { task, epoch, reason: self.reason() })
            }
            Kind::Cancel => Request::TaskCancel(TaskCancel { task, reason: self.reason() }),
            Kind::Save => {
                let file = FileRef {
                    path: "notes".to_owned(),
                    hash: BlobHash([u8::try_from(self.random.below(256)).unwrap(); 32]),
                    size: self.random.below(1_100),
                    mode: 0o644,
                };
                let files = if self.random.percent(30) { vec![file] } else { Vec::new() };
                let json = self.random.percent(80).then(|| spec::json(self.random));
                Request::CheckpointSave(CheckpointSave { task, epoch, json, files })
            }
            _ => {
                let progress = self.random.percent(80).then(|| self.random.below(102));
                let progress = progress.map(|number| u8::try_from(number).unwrap());
                let note = self.random.percent(20).then(|| "on it".to_owned());
                Request::TaskUpdate(TaskUpdate { task, epoch, progress, note })
            }
        }
    }

    fn publish(&mut self) -> Request {
        let count = self.random.weighted(&[(3, 0), (5, 1), (1, 2)]);
        let mut to: Vec<AgentName> = Vec::new();
        for _ in 0..count {
            to.push(self.any_agent());
        }
        Request::Publish(Publish {
            r#type: MessageType::StatusUpdate,
            to,
            content: spec::json(self.random),
            task: None,
            reply_to: None,
            ephemeral: self.random.percent(10),
        })
    }

    /// Acknowledges what may be in the caller's inbox.
    fn ack(&mut self, who: Caller) -> Request {
        let uid = match who {
            Caller::Agent(uid) => Some(uid),
            Caller::Operator => None,
        };
        let seqs: Vec<Seq> = self
            .model
            .messages
            .iter()
            .filter(|m| m.to.is_empty() || m.to.iter().any(|to| Some(to.0) == uid))
            .map(|message| message.seq)
            .collect();
        let mut any = || match self.random.pick(&seqs) {
            Some(seq) if !self.random.percent(5) => *seq,
            _ => Seq(self.random.below(self.model.head.0 + 3)),
        };
        let (first, second) = (any(), any());
        let name = if self.random.percent(15) { "other" } else { "inbox" };
        let mut ack = Ack {
            subscription: SubscriptionName::new(name).unwrap(),
            upto: None,
            seqs: Vec::new(),
            nack: Vec::new(),
        };
        match self.random.below(4) {
            0 => ack.upto = Some(first),
            1 => ack.seqs = vec![first, second],
            2 => ack.nack = vec![first],
            _ => ack.seqs = vec![first],
        }
        Request::Ack(ack)
    }

    fn handoff(&mut self, who: Caller) -> Request {
        let (task, _) = self.target(who);
        let owner = self.model.tasks.get(&task).and_then(|task| task.owner);
        let owner = owner.and_then(|uid| self.model.agents.get(&uid)).map(|a| a.name.clone());
        let from = match owner {
            Some(name) if !self.random.percent(5) => name,
            _ => self.any_agent(),
        };
        Request::HandoffRequest(HandoffRequest {
            from,
            to: self.any_agent(),
            task,
            timeout_ms: self.random.percent(20).then(|| 200 + self.random.below(2_000)),
            reason: self.reason(),
        })
    }

    fn read(&mut self) -> Request {
        match self.random.below(8) {
            0 => Request::TaskGet(TaskGet { task: self.any_task() }),
            1 => Request::TaskList(TaskList { state: None, owner: None }),
            2 => Request::AgentList,
            3 => Request::HandoffList(HandoffList { all: true }),
            4 => Request::CheckpointGet(CheckpointGet {
                task: Some(self.any_task()),
                checkpoint: None,
            }),
            5 => Request::AgentGet(AgentRef { agent: Some(self.any_agent()) }),
            6 => Request::Bus(*self.random.pick(&[BusRight::Receive, BusRight::Audit]).unwrap()),
            _ => Request::MissionStatus,
        }
    }
}
