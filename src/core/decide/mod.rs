//! Decisions: a request on a state gives events, or a refusal that changes nothing. Pure, and complete
//! before anything happens: permission first, then the state tables, then the bounds.

mod agent;
pub(crate) mod handoff;
pub(crate) mod message;
pub(crate) mod task;

use super::caller::Caller;
use super::denied::{Code, Denied};
use super::event::{Event, MissionStopping};
use super::json::Json;
use super::permission;
use super::request::{MessageType, Request};
use super::state::State;
use super::view::Party;
use crate::core::event::Addressee;
use crate::ids::{AgentUid, CheckpointId, HandoffId, MessageId, TaskId, Timestamp};

/// An event to come, with its content.
pub(crate) type Draft = (Event, Option<Json>);

/// What the reply will show, once the events and their consequences are applied.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    /// The first event is the message.
    Published,
    Ephemeral(Box<EphemeralDraft>),
    Task(TaskId),
    Tasks(Vec<TaskId>),
    Checkpoint(CheckpointId),
    /// The last event is the checkpoint.
    NewCheckpoint,
    Handoff(HandoffId),
    /// The first event is the handoff.
    NewHandoff,
    Handoffs(Vec<HandoffId>),
    Agent(AgentUid),
    Agents,
    Mission,
}

/// A message that is not logged.
#[derive(Debug)]
pub(crate) struct EphemeralDraft {
    pub(crate) r#type: MessageType,
    pub(crate) to: Vec<Addressee>,
    pub(crate) task: Option<TaskId>,
    pub(crate) reply_to: Option<MessageId>,
    pub(crate) content: Json,
}

/// What is to happen.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) drafts: Vec<Draft>,
    pub(crate) answer: Answer,
}

impl Decision {
    fn nothing(answer: Answer) -> Self {
        Decision { drafts: Vec::new(), answer }
    }

    fn one(event: impl Into<Event>, answer: Answer) -> Self {
        Decision { drafts: vec![(event.into(), None)], answer }
    }
}

/// The longest title, note, reason, in bytes.
const MAX_LINE: usize = 1_000;

/// Who a caller is in the log.
pub(crate) fn party(state: &State, who: Caller) -> Party {
    match who {
        Caller::Operator => Party::Operator,
        Caller::Agent(uid) => match state.name_of(uid) {
            Some(name) => Party::Agent(name.clone()),
            None => Party::Daemon,
        },
    }
}

/// Decides a request. `Ack` is not among them: acknowledgements wait for the end of the batch, see
/// [`message::ack`].
pub(crate) fn decide(
    state: &State,
    now: Timestamp,
    who: Caller,
    request: Request,
) -> Result<Decision, Denied> {
    permission::check(state, who, &request)?;
    match request {
        Request::Publish(p) => message::publish(state, p),
        Request::Ack(_) => Ok(Decision::nothing(Answer::Done)),
        Request::TaskCreate(spec) => task::create(state, now, who, *spec),
        Request::TaskAssign(p) => task::assign(state, p),
        Request::TaskClaim(p) => task::claim(state, who, p),
        Request::TaskUpdate(p) => task::update(state, who, p),
        Request::TaskComplete(p) => task::settle(state, who, p, true),
        Request::TaskFail(p) => task::settle(state, who, p, false),
        Request::TaskRelease(p) => task::release(state, who, p),
        Request::TaskCancel(p) => task::cancel(state, p),
        Request::TaskGet(p) => {
            state.find_task(&p.task)?;
            Ok(Decision::nothing(Answer::Task(p.task)))
        }
        Request::TaskList(p) => task::list(state, &p),
        Request::CheckpointSave(p) => task::checkpoint(state, who, p),
        Request::CheckpointGet(p) => task::get_checkpoint(state, &p),
        Request::HandoffRequest(p) => handoff::request(state, now, who, p),
        Request::HandoffAccept(p) => handoff::accept(state, now, who, &p),
        Request::HandoffReject(p) => handoff::reject(state, who, p),
        Request::HandoffComplete(p) => handoff::complete(state, who, &p),
        Request::HandoffCancel(p) => handoff::cancel(state, p),
        Request::HandoffGet(p) => {
            state.find_handoff(p.handoff)?;
            Ok(Decision::nothing(Answer::Handoff(p.handoff)))
        }
        Request::HandoffList(p) => {
            let all = state.handoffs.iter().filter(|(_, h)| p.all || h.is_open());
            Ok(Decision::nothing(Answer::Handoffs(all.map(|(id, _)| *id).collect())))
        }
        Request::AgentList => Ok(Decision::nothing(Answer::Agents)),
        Request::AgentGet(p) => {
            Ok(Decision::nothing(Answer::Agent(agent::named(state, who, p.agent.as_ref())?)))
        }
        Request::AgentStart(p) => agent::start(state, who, &p),
        Request::AgentStop(p) => agent::stop(state, who, &p),
        Request::AgentRestart(p) => agent::restart(state, who, &p),
        Request::AgentRole(p) => agent::role(state, p),
        Request::AgentPhase(p) => agent::phase(state, who, &p),
        Request::MissionStatus => Ok(Decision::nothing(Answer::Mission)),
        Request::MissionStop(p) => {
            if state.mission.state != super::view::MissionStateName::Running {
                return Ok(Decision::nothing(Answer::Done));
            }
            let why = format!("stopped by {}", party(state, who));
            Ok(Decision::one(MissionStopping { why, grace_ms: p.grace_ms }, Answer::Done))
        }
        Request::Bus(_) => Ok(Decision::nothing(Answer::Done)),
    }
}

fn check_running(state: &State, what: &str) -> Result<(), Denied> {
    if state.is_running() {
        return Ok(());
    }
    let text = format!("{what}: the mission is not running; nothing new is begun");
    Err(Denied::new(Code::Unavailable, text))
}

fn check_line(what: &str, line: Option<&String>) -> Result<(), Denied> {
    match line {
        Some(line) if line.len() > MAX_LINE => {
            let text = format!("{what} of {} bytes: at most {MAX_LINE}", line.len());
            Err(Denied::new(Code::Invalid, text))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_content(state: &State, what: &str, content: Option<&Json>) -> Result<(), Denied> {
    let (bytes, max) = (content.map_or(0, Json::len) as u64, state.limits.max_content);
    if bytes <= max {
        return Ok(());
    }
    let text = format!("{what} of {bytes} bytes: at most {max} (limits.max_content)");
    Err(Denied::new(Code::Limit, text))
}
