//! What can be asked of handoffs. The rows of the handoff table decide; this works out their guards.

use super::{Answer, Decision, check_line, check_running};
use crate::core::caller::Caller;
use crate::core::denied::{Code, Denied};
use crate::core::event::{
    HandoffAccepted, HandoffCompleted, HandoffEnd, HandoffEnded, HandoffRequested,
};
use crate::core::request::{HandoffRef, HandoffRefuse, HandoffRequest};
use crate::core::state::{Handoff, HandoffState, State};
use crate::core::table::handoff::{Column, Effect, Guard, Row, look_up};
use crate::ids::{HandoffId, Timestamp};

fn conflict<T>(text: String) -> Result<T, Denied> {
    Err(Denied::new(Code::Conflict, text))
}

fn standing(handoff: &Handoff) -> &'static str {
    match handoff.state {
        HandoffState::Requested => "is requested and not yet accepted",
        HandoffState::Draining => "waits for the source's checkpoint",
        HandoffState::Quiesced => "waits for its completion",
        HandoffState::Completed => "is completed",
        HandoffState::Ended(HandoffEnd::Rejected) => "was rejected",
        HandoffState::Ended(HandoffEnd::Expired) => "has expired",
        HandoffState::Ended(HandoffEnd::Cancelled) => "was cancelled",
        HandoffState::Ended(HandoffEnd::Failed) => "has failed",
    }
}

pub(super) fn request(
    state: &State,
    now: Timestamp,
    who: Caller,
    p: HandoffRequest,
) -> Result<Decision, Denied> {
    check_running(state, "handoff.request")?;
    check_line("a reason", p.reason.as_ref())?;
    if p.timeout_ms == Some(0) {
        return Err(Denied::new(Code::Invalid, "timeout_ms is at least 1"));
    }
    let task = state.find_task(&p.task)?;
    let (from, to) = (state.resolve(&p.from)?, state.resolve(&p.to)?);
    let open = state.handoff_of(task);
    let column = open.map_or(Column::None, |(_, handoff)| handoff.column());
    let owns = task.owner() == Some(from);
    let effect = look_up(Row::Request, column, |guard| {
        (guard == Guard::SameAgent && from == to)
            || (guard == Guard::Possible && owns && state.executes(to))
            || (guard == Guard::SamePair
                && open.is_some_and(|(_, handoff)| handoff.from == from && handoff.to == to))
    });
    let id = &p.task;
    if let (Effect::Ok, Some((h, _))) = (effect, open) {
        return Ok(Decision::nothing(Answer::Handoff(h)));
    }
    if effect == Effect::Invalid {
        let text = format!("handoff of `{id}` from `{}` to itself", p.from);
        return Err(Denied::new(Code::Invalid, text));
    }
    if let (Effect::ConflictNamingIt, Some((h, handoff))) = (effect, open) {
        return conflict(format!("task `{id}` has an open handoff: {h} {}", standing(handoff)));
    }
    if effect != Effect::Request {
        return if owns {
            conflict(format!("`{}` may not own tasks: its role lacks `execute`", p.to))
        } else {
            match task.owner() {
                Some(owner) => {
                    let owner = state.called(owner);
                    conflict(format!("task `{id}` is owned by {owner}, not by `{}`", p.from))
                }
                None => conflict(format!("task `{id}` is not owned by `{}`", p.from)),
            }
        };
    }
    let max = state.limits.max_handoffs as usize;
    if state.handoffs.len() - state.index.ended.len() >= max {
        let text = format!("an open handoff more than {max} (limits.max_handoffs)");
        return Err(Denied::new(Code::Limit, text));
    }
    let by = match who {
        Caller::Operator => None,
        Caller::Agent(uid) => Some(uid),
    };
    let until = now.plus_ms(p.timeout_ms.unwrap_or(state.limits.handoff_request_ms));
    let (task, step_ms, reason) = (p.task, p.timeout_ms, p.reason);
    let event = HandoffRequested { task, from, to, by, step_ms, until, reason };
    Ok(Decision::one(event, Answer::NewHandoff))
}

/// The effect of `row` when `who` asks for it; those of the target are denied to others.
fn answer_of(state: &State, who: Caller, row: Row, id: HandoffId) -> Result<Effect, Denied> {
    let handoff = state.find_handoff(id)?;
    let row = if who == Caller::Agent(handoff.to) { row } else { Row::ByAnother };
    let effect = look_up(row, handoff.column(), |guard| {
        (guard == Guard::NoSlot && !state.has_slot(handoff.to))
            || (guard == Guard::Quiesced && handoff.state == HandoffState::Quiesced)
            || (guard == Guard::Completed && handoff.state == HandoffState::Completed)
    });
    if effect == Effect::Denied {
        let text = format!("only {} may answer {id}", state.called(handoff.to));
        return Err(Denied::new(Code::Denied, text));
    }
    if effect == Effect::Conflict {
        return conflict(format!("{id} {}", standing(handoff)));
    }
    Ok(effect)
}

pub(super) fn accept(
    state: &State,
    now: Timestamp,
    who: Caller,
    p: &HandoffRef,
) -> Result<Decision, Denied> {
    let effect = answer_of(state, who, Row::Accept, p.handoff)?;
    let answer = Answer::Handoff(p.handoff);
    if effect != Effect::Accept {
        return Ok(Decision::nothing(answer));
    }
    check_running(state, "handoff.accept")?;
    Ok(Decision::one(accepted(state, now, p.handoff)?, answer))
}

/// The event of an acceptance, whoever gives it.
pub(crate) fn accepted(
    state: &State,
    now: Timestamp,
    id: HandoffId,
) -> Result<HandoffAccepted, Denied> {
    let step_ms = state.find_handoff(id)?.step_ms;
    let until = now.plus_ms(step_ms.unwrap_or(state.limits.handoff_drain_ms));
    Ok(HandoffAccepted { handoff: id, until })
}

pub(super) fn reject(state: &State, who: Caller, p: HandoffRefuse) -> Result<Decision, Denied> {
    check_line("a reason", p.reason.as_ref())?;
    answer_of(state, who, Row::Reject, p.handoff)?;
    let (handoff, how, reason) = (p.handoff, HandoffEnd::Rejected, p.reason);
    Ok(Decision::one(HandoffEnded { handoff, how, reason }, Answer::Handoff(handoff)))
}

pub(super) fn complete(state: &State, who: Caller, p: &HandoffRef) -> Result<Decision, Denied> {
    let effect = answer_of(state, who, Row::Complete, p.handoff)?;
    let answer = Answer::Handoff(p.handoff);
    if effect != Effect::Complete {
        return Ok(Decision::nothing(answer));
    }
    let to = state.find_handoff(p.handoff)?.to;
    let Some(incarnation) = state.live_incarnation(to) else {
        return conflict(format!("{} has no process", state.called(to)));
    };
    Ok(Decision::one(HandoffCompleted { handoff: p.handoff, incarnation }, answer))
}

pub(super) fn cancel(state: &State, p: HandoffRefuse) -> Result<Decision, Denied> {
    check_line("a reason", p.reason.as_ref())?;
    let handoff = state.find_handoff(p.handoff)?;
    let cancelled = handoff.state == HandoffState::Ended(HandoffEnd::Cancelled);
    let effect =
        look_up(Row::Cancel, handoff.column(), |guard| guard == Guard::Cancelled && cancelled);
    let answer = Answer::Handoff(p.handoff);
    if effect == Effect::Ok {
        Ok(Decision::nothing(answer))
    } else if effect == Effect::Cancel {
        let (id, how, reason) = (p.handoff, HandoffEnd::Cancelled, p.reason);
        Ok(Decision::one(HandoffEnded { handoff: id, how, reason }, answer))
    } else {
        conflict(format!("{} {}", p.handoff, standing(handoff)))
    }
}
