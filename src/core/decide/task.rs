//! What can be asked of tasks. The rows of the task table decide; this works out their guards.

use super::{Answer, Decision, check_content, check_line, check_running};
use crate::core::caller::Caller;
use crate::core::denied::{Code, Denied};
use crate::core::event::{
    CheckpointSaved, TaskAssigned, TaskCancelled, TaskCompleted, TaskCreated, TaskFailed,
    TaskProgressed, TaskReleased, TaskReserved, TaskStarted,
};
use crate::core::json::Json;
use crate::core::request::{
    CheckpointGet, CheckpointSave, TaskAssign, TaskCancel, TaskClaim, TaskList, TaskRelease,
    TaskSettle, TaskUpdate,
};
use crate::core::spec::TaskSpec;
use crate::core::state::{State, Task, TaskState};
use crate::core::table::task::{Effect, Guard, Row, look_up};
use crate::core::view::TaskStateName;
use crate::ids::{BlobHash, Epoch, TaskId, Timestamp};

/// The most dependencies or needs that one task may name.
const MAX_NAMED: usize = 256;

fn conflict<T>(text: String) -> Result<T, Denied> {
    Err(Denied::new(Code::Conflict, text))
}

/// The state a task is in, for a sentence.
fn standing(state: &State, task: &Task) -> String {
    match &task.state {
        TaskState::Pending if !task.open.is_empty() => "waits for its dependencies".to_owned(),
        TaskState::Pending => "has no owner".to_owned(),
        TaskState::Assigned { owner } => format!("is assigned to {}", state.called(*owner)),
        TaskState::Active { owner, .. } => {
            format!("is being worked on by {}", state.called(*owner))
        }
        TaskState::Settled(settled) => match settled.how {
            TaskStateName::Completed => "is completed".to_owned(),
            TaskStateName::Failed => "has failed".to_owned(),
            TaskStateName::Cancelled
            | TaskStateName::Pending
            | TaskStateName::Assigned
            | TaskStateName::Active => "is cancelled".to_owned(),
        },
    }
}

/// SHA-256 of a result, to recognise it again.
pub(crate) fn result_digest(result: Option<&Json>) -> BlobHash {
    use sha2::Digest;
    BlobHash(sha2::Sha256::digest(result.map_or("", |json| json.get())).into())
}

pub(super) fn create(
    state: &State,
    now: Timestamp,
    who: Caller,
    spec: TaskSpec,
) -> Result<Decision, Denied> {
    check_running(state, "task.create")?;
    let id = &spec.id;
    if state.tasks.contains_key(id) || state.file_tasks.contains_key(id) {
        return conflict(format!("task `{id}` exists already"));
    }
    let max = state.limits.max_tasks;
    if state.tasks.len() >= max as usize {
        let text = format!("a task more than {max} (limits.max_tasks)");
        return Err(Denied::new(Code::Limit, text));
    }
    check_line("a title", Some(&spec.title))?;
    check_content(state, "a task's data", spec.data.as_ref())?;
    if spec.max_attempts == 0 || spec.timeout_ms == Some(0) {
        let text = format!("task `{id}`: max_attempts and timeout_ms are at least 1");
        return Err(Denied::new(Code::Invalid, text));
    }
    if spec.after.len() > MAX_NAMED || spec.needs.len() > MAX_NAMED {
        let text = format!("task `{id}`: more than {MAX_NAMED} dependencies or needs");
        return Err(Denied::new(Code::Invalid, text));
    }
    for dependency in &spec.after {
        if let TaskState::Settled(settled) = &state.find_task(dependency)?.state
            && settled.how != TaskStateName::Completed
        {
            let text = format!("task `{id}` after `{dependency}`: that {:?}", settled.how);
            return conflict(text.to_lowercase());
        }
    }
    let reserved = match &spec.assign {
        Some(name) => {
            let to = state.resolve(name)?;
            check_executes(state, to)?;
            Some(to)
        }
        None => None,
    };
    let by = match who {
        Caller::Operator => None,
        Caller::Agent(uid) => Some(uid),
    };
    let answer = Answer::Task(id.clone());
    Ok(Decision { drafts: vec![created(spec, now, reserved, by, false)], answer })
}

/// The event of a new task.
pub(crate) fn created(
    spec: TaskSpec,
    now: Timestamp,
    reserved: Option<crate::ids::AgentUid>,
    by: Option<crate::ids::AgentUid>,
    file: bool,
) -> super::Draft {
    let event = TaskCreated {
        task: spec.id,
        title: spec.title,
        after: spec.after,
        reserved,
        needs: spec.needs,
        deadline: spec.timeout_ms.map(|ms| now.plus_ms(ms)),
        max_attempts: spec.max_attempts,
        data: spec.data.is_some(),
        file,
        by,
    };
    (event.into(), spec.data)
}

fn check_executes(state: &State, to: crate::ids::AgentUid) -> Result<(), Denied> {
    if state.executes(to) {
        return Ok(());
    }
    let text = format!("{} may not own tasks: its role lacks `execute`", state.called(to));
    Err(Denied::new(Code::Denied, text))
}

pub(super) fn assign(state: &State, p: TaskAssign) -> Result<Decision, Denied> {
    check_running(state, "task.assign")?;
    let task = state.find_task(&p.task)?;
    let to = state.resolve(&p.to)?;
    check_executes(state, to)?;
    let effect = look_up(Row::Assign, task.column(), |guard| {
        (guard == Guard::DepsOpen && !task.open.is_empty())
            || (guard == Guard::Owns && task.owner() == Some(to))
    });
    let id = p.task;
    let answer = Answer::Task(id.clone());
    if effect == Effect::Ok {
        Ok(Decision::nothing(answer))
    } else if effect == Effect::Reserve {
        Ok(Decision::one(TaskReserved { task: id, to: Some(to) }, answer))
    } else if effect == Effect::Assign {
        Ok(Decision::one(TaskAssigned { task: id, to, claimed: false }, answer))
    } else if effect == Effect::HandOff {
        let by = standing(state, task);
        conflict(format!("task `{id}` {by}: hand it off instead (handoff.request)"))
    } else {
        conflict(format!("task `{id}` {}", standing(state, task)))
    }
}

pub(super) fn claim(state: &State, who: Caller, p: TaskClaim) -> Result<Decision, Denied> {
    check_running(state, "task.claim")?;
    let Caller::Agent(uid) = who else {
        let text = "task.claim: the operator owns no tasks; assign it to an agent";
        return Err(Denied::new(Code::Invalid, text));
    };
    let Some(agent) = state.agents.get(&uid) else {
        return Err(Denied::new(Code::NotFound, "no such agent"));
    };
    let id = match p.task {
        Some(id) => id,
        None => match state.first_claimable(|task| task.fits(agent)) {
            Some(id) => id,
            None => return Err(Denied::new(Code::NotFound, "no task that you could claim now")),
        },
    };
    let task = state.find_task(&id)?;
    let reserved = task.reserved.is_some_and(|other| other != uid);
    let effect = look_up(Row::Claim, task.column(), |guard| {
        (guard == Guard::Owns && task.owner() == Some(uid))
            || (guard == Guard::Claimable && task.open.is_empty() && !reserved && task.fits(agent))
    });
    let answer = Answer::Task(id.clone());
    if effect == Effect::Ok {
        Ok(Decision::nothing(answer))
    } else if effect == Effect::Assign {
        Ok(Decision::one(TaskAssigned { task: id, to: uid, claimed: true }, answer))
    } else if reserved {
        conflict(format!("task `{id}` is reserved for another agent"))
    } else if task.state == TaskState::Pending && task.open.is_empty() {
        conflict(format!("task `{id}` needs capabilities that you don't have"))
    } else {
        conflict(format!("task `{id}` {}", standing(state, task)))
    }
}

/// Refuses a write under another epoch than the owner's, or by another than the owner. The operator may
/// write for the owner.
fn check_writer(state: &State, who: Caller, id: &TaskId, epoch: Epoch) -> Result<(), Denied> {
    let task = state.find_task(id)?;
    if task.epoch != epoch {
        let text = format!(
            "epoch {epoch} of task `{id}` is a former one (now {}): the task {}",
            task.epoch,
            standing(state, task)
        );
        return Err(Denied::new(Code::Stale, text));
    }
    let owner = match &task.state {
        TaskState::Settled(settled) => settled.owner,
        TaskState::Pending | TaskState::Assigned { .. } | TaskState::Active { .. } => task.owner(),
    };
    match who {
        Caller::Agent(uid) if owner.is_some_and(|owner| owner != uid) => {
            let text = format!("task `{id}` {}, not to you", standing(state, task));
            Err(Denied::new(Code::Denied, text))
        }
        Caller::Agent(_) | Caller::Operator => Ok(()),
    }
}

/// The beginning of the work on an assigned task, by the start of the owner that the write comes from.
fn starting(state: &State, id: &TaskId) -> Result<Option<super::Draft>, Denied> {
    let TaskState::Assigned { owner } = state.find_task(id)?.state else { return Ok(None) };
    let Some(incarnation) = state.live_incarnation(owner) else {
        let owner = state.called(owner);
        return conflict(format!("task `{id}` is assigned to {owner}, which has no process"));
    };
    Ok(Some((TaskStarted { task: id.clone(), incarnation }.into(), None)))
}

/// Refuses what the owner may not do now, by the table.
fn write(
    state: &State,
    who: Caller,
    row: Row,
    id: &TaskId,
    epoch: Epoch,
) -> Result<Effect, Denied> {
    check_writer(state, who, id, epoch)?;
    let task = state.find_task(id)?;
    let quiesced = state.is_quiesced(task);
    let effect = look_up(row, task.column(), |guard| guard == Guard::Quiesced && quiesced);
    if effect == Effect::Stale {
        let text = format!("task `{id}` {}", standing(state, task));
        return Err(Denied::new(Code::Stale, text));
    }
    if effect == Effect::Conflict {
        return match (quiesced, task.handoff) {
            (true, Some(h)) => {
                conflict(format!("task `{id}` is being handed over ({h}): write no more"))
            }
            (true, None) | (false, _) => conflict(format!("task `{id}` {}", standing(state, task))),
        };
    }
    Ok(effect)
}

pub(super) fn update(state: &State, who: Caller, p: TaskUpdate) -> Result<Decision, Denied> {
    if p.progress.is_some_and(|progress| progress > 100) {
        return Err(Denied::new(Code::Invalid, "progress is 0 to 100"));
    }
    check_line("a note", p.note.as_ref())?;
    write(state, who, Row::Work, &p.task, p.epoch)?;
    let mut drafts = Vec::with_capacity(2);
    drafts.extend(starting(state, &p.task)?);
    let answer = Answer::Task(p.task.clone());
    if p.progress.is_some() || p.note.is_some() {
        let event = TaskProgressed { task: p.task, progress: p.progress, note: p.note };
        drafts.push((event.into(), None));
    }
    Ok(Decision { drafts, answer })
}

pub(super) fn checkpoint(
    state: &State,
    who: Caller,
    p: CheckpointSave,
) -> Result<Decision, Denied> {
    check_content(state, "a checkpoint's JSON", p.json.as_ref())?;
    let (max, max_bytes) = (state.limits.checkpoint_files, state.limits.checkpoint_bytes);
    if p.files.len() > max as usize {
        let text = format!(
            "a checkpoint of {} files: at most {max} (limits.checkpoint_files)",
            p.files.len()
        );
        return Err(Denied::new(Code::Limit, text));
    }
    let bytes = p.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.size));
    if bytes > max_bytes {
        let text =
            format!("a checkpoint of {bytes} bytes: at most {max_bytes} (limits.checkpoint_bytes)");
        return Err(Denied::new(Code::Limit, text));
    }
    write(state, who, Row::Work, &p.task, p.epoch)?;
    let task = state.find_task(&p.task)?;
    let Some(owner) = task.owner() else {
        return conflict(format!("task `{}` {}", p.task, standing(state, task)));
    };
    let mut drafts = Vec::with_capacity(2);
    drafts.extend(starting(state, &p.task)?);
    let event = CheckpointSaved {
        task: p.task,
        by: owner,
        epoch: p.epoch,
        json: p.json.is_some(),
        files: p.files,
    };
    drafts.push((event.into(), p.json));
    Ok(Decision { drafts, answer: Answer::NewCheckpoint })
}

pub(super) fn settle(
    state: &State,
    who: Caller,
    p: TaskSettle,
    completes: bool,
) -> Result<Decision, Denied> {
    check_content(state, "a result", p.result.as_ref())?;
    check_writer(state, who, &p.task, p.epoch)?;
    let task = state.find_task(&p.task)?;
    let digest = result_digest(p.result.as_ref());
    let quiesced = state.is_quiesced(task);
    let verdict = if completes { TaskStateName::Completed } else { TaskStateName::Failed };
    let same = matches!(&task.state, TaskState::Settled(settled)
        if settled.how == verdict && settled.digest == Some(digest));
    let effect = look_up(Row::Settle, task.column(), |guard| {
        (guard == Guard::Quiesced && quiesced) || (guard == Guard::Same && same)
    });
    let (id, answer) = (p.task.clone(), Answer::Task(p.task.clone()));
    if effect == Effect::Ok {
        return Ok(Decision::nothing(answer));
    }
    if effect != Effect::Settle {
        return match (quiesced, task.handoff) {
            (true, Some(h)) => conflict(format!("task `{id}` is being handed over ({h})")),
            (true, None) | (false, _) => conflict(format!("task `{id}` {}", standing(state, task))),
        };
    }
    let result = p.result.is_some();
    let event = if completes {
        TaskCompleted { task: id, result, digest }.into()
    } else {
        let (digest, reason) = (Some(digest), Some("reported by its owner".to_owned()));
        TaskFailed { task: id, result, digest, reason, fence: false }.into()
    };
    Ok(Decision { drafts: vec![(event, p.result)], answer })
}

pub(super) fn release(state: &State, who: Caller, p: TaskRelease) -> Result<Decision, Denied> {
    check_line("a reason", p.reason.as_ref())?;
    write(state, who, Row::Release, &p.task, p.epoch)?;
    let answer = Answer::Task(p.task.clone());
    Ok(Decision::one(TaskReleased { task: p.task, reason: p.reason }, answer))
}

pub(super) fn cancel(state: &State, p: TaskCancel) -> Result<Decision, Denied> {
    check_line("a reason", p.reason.as_ref())?;
    let task = state.find_task(&p.task)?;
    let cancelled =
        matches!(&task.state, TaskState::Settled(s) if s.how == TaskStateName::Cancelled);
    let effect =
        look_up(Row::Cancel, task.column(), |guard| guard == Guard::Cancelled && cancelled);
    let answer = Answer::Task(p.task.clone());
    if effect == Effect::Ok {
        Ok(Decision::nothing(answer))
    } else if effect == Effect::Cancel || effect == Effect::CancelOwned {
        let fence = effect == Effect::CancelOwned;
        Ok(Decision::one(TaskCancelled { task: p.task, reason: p.reason, fence }, answer))
    } else {
        conflict(format!("task `{}` {}", p.task, standing(state, task)))
    }
}

pub(super) fn list(state: &State, p: &TaskList) -> Result<Decision, Denied> {
    let owner = p.owner.as_ref().map(|name| state.resolve(name)).transpose()?;
    let mut tasks: Vec<_> = state
        .tasks
        .iter()
        .filter(|(_, task)| p.state.is_none_or(|wanted| task.state_name() == wanted))
        .filter(|(_, task)| owner.is_none() || task.owner() == owner)
        .map(|(id, task)| (task.created_at, id.clone()))
        .collect();
    tasks.sort();
    Ok(Decision::nothing(Answer::Tasks(tasks.into_iter().map(|(_, id)| id).collect())))
}

pub(super) fn get_checkpoint(state: &State, p: &CheckpointGet) -> Result<Decision, Denied> {
    let id = match (p.checkpoint, &p.task) {
        (Some(id), None) => id,
        (None, Some(task)) => match state.find_task(task)?.checkpoints.back() {
            Some(id) => *id,
            None => {
                let text = format!("task `{task}` has no checkpoint");
                return Err(Denied::new(Code::NotFound, text));
            }
        },
        (None, None) | (Some(_), Some(_)) => {
            let text = "checkpoint.get: name a task or a checkpoint";
            return Err(Denied::new(Code::Invalid, text));
        }
    };
    if !state.checkpoints.contains_key(&id) {
        let text = format!("no checkpoint `{id}` (limits.keep_checkpoints of a task are kept)");
        return Err(Denied::new(Code::NotFound, text));
    }
    Ok(Decision::nothing(Answer::Checkpoint(id)))
}
