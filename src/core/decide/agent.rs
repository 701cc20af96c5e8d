//! What can be asked of agents.

use super::{Answer, Decision, check_running};
use crate::core::caller::Caller;
use crate::core::denied::{Code, Denied};
use crate::core::event::{
    AgentDisabled, AgentEnabled, AgentPhaseChanged, AgentRoleChanged, AgentStopping, StopWhy,
};
use crate::core::request::{AgentPhase, AgentRef, AgentRole, AgentStop};
use crate::core::state::{Agent, Process, State};
use crate::ids::{AgentName, AgentUid};

/// The agent that is named, or the caller.
pub(super) fn named(
    state: &State,
    who: Caller,
    name: Option<&AgentName>,
) -> Result<AgentUid, Denied> {
    match (name, who) {
        (Some(name), _) => state.resolve(name),
        (None, Caller::Agent(uid)) => Ok(uid),
        (None, Caller::Operator) => Err(Denied::new(Code::Invalid, "which agent? name one")),
    }
}

fn find(state: &State, uid: AgentUid) -> Result<&Agent, Denied> {
    state.agents.get(&uid).ok_or_else(|| Denied::new(Code::NotFound, "no such agent"))
}

pub(super) fn start(state: &State, who: Caller, p: &AgentRef) -> Result<Decision, Denied> {
    check_running(state, "agent.start")?;
    let uid = named(state, who, p.agent.as_ref())?;
    let agent = find(state, uid)?;
    match agent.process {
        Process::Idle | Process::Starting { .. } | Process::Running { .. } => {
            Ok(Decision::nothing(Answer::Agent(uid)))
        }
        Process::Waiting { .. } | Process::Ended | Process::Stopped | Process::Failed { .. } => {
            Ok(Decision::one(AgentEnabled { agent: uid }, Answer::Agent(uid)))
        }
        Process::Stopping { .. } => {
            let text = format!("`{}` is being stopped: start it again after", agent.spec.name);
            Err(Denied::new(Code::Conflict, text))
        }
    }
}

pub(super) fn stop(state: &State, who: Caller, p: &AgentStop) -> Result<Decision, Denied> {
    let uid = named(state, who, p.agent.as_ref())?;
    let agent = find(state, uid)?;
    let answer = Answer::Agent(uid);
    match agent.process {
        Process::Stopped => Ok(Decision::nothing(answer)),
        Process::Stopping {
            why: StopWhy::Request | StopWhy::Removed | StopWhy::Mission, ..
        } => Ok(Decision::nothing(answer)),
        Process::Idle | Process::Waiting { .. } | Process::Ended | Process::Failed { .. } => {
            Ok(Decision::one(AgentDisabled { agent: uid }, answer))
        }
        Process::Starting { .. } | Process::Running { .. } | Process::Stopping { .. } => {
            let grace_ms = p.grace_ms.unwrap_or(agent.spec.grace_ms);
            let (incarnation, why) = (agent.incarnation, StopWhy::Request);
            Ok(Decision::one(AgentStopping { agent: uid, incarnation, grace_ms, why }, answer))
        }
    }
}

pub(super) fn restart(state: &State, who: Caller, p: &AgentRef) -> Result<Decision, Denied> {
    check_running(state, "agent.restart")?;
    let uid = named(state, who, p.agent.as_ref())?;
    let agent = find(state, uid)?;
    let answer = Answer::Agent(uid);
    match agent.process {
        Process::Stopping { why: StopWhy::Restart, .. } => Ok(Decision::nothing(answer)),
        Process::Stopping { .. } => {
            let text = format!("`{}` is being stopped: start it again after", agent.spec.name);
            Err(Denied::new(Code::Conflict, text))
        }
        Process::Starting { .. } | Process::Running { .. } => {
            let (grace_ms, incarnation) = (agent.spec.grace_ms, agent.incarnation);
            let why = StopWhy::Restart;
            Ok(Decision::one(AgentStopping { agent: uid, incarnation, grace_ms, why }, answer))
        }
        Process::Idle
        | Process::Waiting { .. }
        | Process::Ended
        | Process::Stopped
        | Process::Failed { .. } => Ok(Decision::one(AgentEnabled { agent: uid }, answer)),
    }
}

pub(super) fn role(state: &State, p: AgentRole) -> Result<Decision, Denied> {
    let uid = state.resolve(&p.agent)?;
    if !state.roles.contains_key(&p.role) {
        let known: Vec<_> = state.roles.keys().map(crate::ids::RoleName::as_str).collect();
        let text = format!("no role `{}`: one of {}", p.role, known.join(", "));
        return Err(Denied::new(Code::NotFound, text));
    }
    if find(state, uid)?.role == p.role {
        return Ok(Decision::nothing(Answer::Agent(uid)));
    }
    Ok(Decision::one(AgentRoleChanged { agent: uid, role: p.role }, Answer::Agent(uid)))
}

pub(super) fn phase(state: &State, who: Caller, p: &AgentPhase) -> Result<Decision, Denied> {
    let uid = named(state, who, None)?;
    if find(state, uid)?.phase == p.phase {
        return Ok(Decision::nothing(Answer::Agent(uid)));
    }
    let event = AgentPhaseChanged { agent: uid, phase: p.phase };
    Ok(Decision::one(event, Answer::Agent(uid)))
}
