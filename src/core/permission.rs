//! Who may do what: the one place where permissions are consulted. A request needs a right, or to come
//! from the one whose own thing it is about; the table below says which. What the *state* allows is
//! decided after, by the state tables.

use super::caller::Caller;
use super::denied::{Code, Denied};
use super::request::{BusRight, Request};
use super::spec::{Permission, Permissions};
use super::state::State;
use crate::ids::AgentUid;

use Permission::{Audit, Execute, Handoff, ManageRoles, Read, Write};

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing: everyone may.
    Nothing,
    /// One of these.
    Any(&'static [Permission]),
    /// `execute` if it is about the caller's own task, else this.
    OwnTaskOr(Permission),
    /// Nothing if it is about the caller itself or its own, else one of these.
    OwnOr(&'static [Permission]),
}

/// The table: request -> right.
fn need(request: &Request) -> Need {
    match request {
        Request::Publish(_) | Request::TaskCreate(_) => Need::Any(&[Write]),
        Request::Ack(_) | Request::AgentPhase(_) => Need::Nothing,
        Request::TaskClaim(_)
        | Request::TaskUpdate(_)
        | Request::TaskComplete(_)
        | Request::TaskFail(_)
        | Request::TaskRelease(_)
        | Request::CheckpointSave(_)
        | Request::HandoffAccept(_)
        | Request::HandoffComplete(_) => Need::Any(&[Execute]),
        Request::TaskAssign(_) => Need::Any(&[Handoff]),
        Request::TaskCancel(_) => Need::OwnOr(&[ManageRoles]),
        Request::HandoffRequest(_) => Need::OwnTaskOr(Handoff),
        // Only the target may; the handoff table says so.
        Request::HandoffReject(_) => Need::Nothing,
        // Only requester, source and operator may.
        Request::HandoffCancel(_) => Need::OwnOr(&[]),
        Request::TaskGet(_)
        | Request::TaskList(_)
        | Request::CheckpointGet(_)
        | Request::HandoffGet(_)
        | Request::HandoffList(_) => Need::Any(&[Read, Execute, Audit]),
        Request::AgentGet(_) => Need::OwnOr(&[Read, Audit]),
        Request::AgentList | Request::MissionStatus => Need::Any(&[Read, Audit]),
        Request::AgentStart(_) | Request::AgentStop(_) | Request::AgentRestart(_) => {
            Need::OwnOr(&[ManageRoles])
        }
        Request::AgentRole(_) | Request::MissionStop(_) => Need::Any(&[ManageRoles]),
        Request::Bus(BusRight::Greet) => Need::Nothing,
        Request::Bus(BusRight::Receive) => Need::Any(&[Read]),
        Request::Bus(BusRight::Audit) => Need::Any(&[Audit]),
    }
}

/// Whether the request is about the caller's own: its task, its handoff, itself.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only the requests with `Own` needs are asked for"
)]
fn is_own(state: &State, caller: AgentUid, request: &Request) -> bool {
    let named = |name: &Option<crate::ids::AgentName>| match name {
        None => true,
        Some(name) => state.uid(name.as_str()) == Some(caller),
    };
    match request {
        Request::TaskCancel(p) => state
            .tasks
            .get(&p.task)
            .is_some_and(|task| task.owner() == Some(caller) || task.by_uid == Some(caller)),
        Request::HandoffRequest(p) => {
            state.uid(p.from.as_str()) == Some(caller)
                && state.tasks.get(&p.task).is_some_and(|task| task.owner() == Some(caller))
        }
        Request::HandoffCancel(p) => state
            .handoffs
            .get(&p.handoff)
            .is_none_or(|handoff| handoff.from == caller || handoff.by_uid == Some(caller)),
        Request::AgentGet(p) | Request::AgentStart(p) | Request::AgentRestart(p) => named(&p.agent),
        Request::AgentStop(p) => named(&p.agent),
        _ => false,
    }
}

/// Refuses an agent that is no more.
pub(crate) fn check_caller(state: &State, who: Caller) -> Result<(), Denied> {
    let Caller::Agent(caller) = who else { return Ok(()) };
    if state.agents.get(&caller).is_some_and(|agent| !agent.removed) {
        return Ok(());
    }
    let name = state.called(caller);
    Err(Denied::new(Code::Denied, format!("{name} is no longer in this mission")))
}

/// Refuses what the caller has no right to. The operator has every right.
pub(crate) fn check(state: &State, who: Caller, request: &Request) -> Result<(), Denied> {
    check_caller(state, who)?;
    let Caller::Agent(caller) = who else { return Ok(()) };
    let Some(agent) = state.agents.get(&caller) else { return Ok(()) };
    let has = state.permissions(caller);
    let allowed = match need(request) {
        Need::Nothing => true,
        Need::Any(of) => of.iter().any(|p| has.has(*p)),
        Need::OwnTaskOr(other) => {
            has.has(other) || (has.has(Execute) && is_own(state, caller, request))
        }
        Need::OwnOr(of) => of.iter().any(|p| has.has(*p)) || is_own(state, caller, request),
    };
    if !allowed {
        let (role, method) = (&agent.role, request.method());
        let lacks = match need(request) {
            Need::Any(of) | Need::OwnOr(of) if !of.is_empty() => {
                let names: Vec<_> = of.iter().map(|p| format!("`{p}`")).collect();
                format!("role `{role}` lacks {}", names.join(" or "))
            }
            Need::OwnTaskOr(of) => format!("role `{role}` lacks `{of}` and it is not its own task"),
            Need::Nothing | Need::Any(_) | Need::OwnOr(_) => {
                "only the requester, the source and the operator may".to_owned()
            }
        };
        let name = &agent.spec.name;
        return Err(Denied::new(Code::Denied, format!("{method} by `{name}`: {lacks}")));
    }
    within_own(state, caller, has, request)
}

/// Nobody gives away more than they have: not a role, not a task.
fn within_own(
    state: &State,
    caller: AgentUid,
    has: Permissions,
    request: &Request,
) -> Result<(), Denied> {
    if let Request::AgentRole(p) = request {
        let new = state.roles.get(&p.role).copied().unwrap_or_default();
        let old = state.uid(p.agent.as_str()).map(|uid| state.permissions(uid)).unwrap_or_default();
        if !new.is_subset(has) || !old.is_subset(has) {
            let text = format!(
                "agent.role of `{}` to `{}`: a role with more permissions than the caller's own",
                p.agent, p.role
            );
            return Err(Denied::new(Code::Denied, text));
        }
    }
    if let Request::TaskCreate(spec) = request
        && let Some(to) = &spec.assign
        && state.uid(to.as_str()) != Some(caller)
        && !has.has(Handoff)
    {
        let text = format!("task.create for `{to}`: assigning to another needs `handoff`");
        return Err(Denied::new(Code::Denied, text));
    }
    Ok(())
}

/// Whether an agent is told how tasks end and what went wrong.
pub(crate) fn is_lead(state: &State, uid: AgentUid) -> bool {
    state.permissions(uid).has(ManageRoles)
}
