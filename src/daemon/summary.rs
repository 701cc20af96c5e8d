//! What was done by whom, when it is over: a table on standard output, and the exit code.

use std::fmt::Write as _;

use super::progress::seconds;
use super::screen::clean;
use crate::core::spec::Until;
use crate::core::state::{HandoffState, State, Task, TaskState};
use crate::core::view::TaskStateName;
use crate::ids::{Seq, TaskId, Timestamp};
use crate::store::Reader;
use crate::table::{Cell, Column, elastic, fixed, table};

/// How a mission came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All its tasks are completed; also where it had none, and was stopped.
    Good,
    /// A task is open: a mission that is stopped before its end has not done what it was started for, and
    /// `missiond start` goes on with it.
    Open,
    /// A task has failed or was cancelled.
    Bad,
}

/// How a start came out.
#[derive(Debug)]
pub(super) struct Started {
    /// All is well, or not.
    pub verdict: Verdict,
    /// What was done by whom.
    pub summary: String,
    /// Nothing was started: it had all been done before.
    pub was_over: bool,
}

/// Judges by the tasks.
pub(super) fn verdict(state: &State) -> Verdict {
    let mission = state.mission();
    if mission.tasks_completed == mission.tasks_created {
        Verdict::Good
    } else if mission.tasks_completed.saturating_add(state.index.open_tasks)
        == mission.tasks_created
    {
        Verdict::Open
    } else {
        Verdict::Bad
    }
}

/// Whether there were tasks and every one is settled.
pub(super) fn is_settled(state: &State) -> bool {
    state.mission().tasks_created > 0 && state.index.open_tasks == 0
}

/// Whether nothing is left to do for a mission that ends by itself.
pub(super) fn is_finished(state: &State, spec: &crate::core::spec::MissionSpec) -> bool {
    let known = |id: &TaskId| state.tasks.contains_key(id) || state.file_tasks.contains_key(id);
    spec.until == Until::Settled
        && is_settled(state)
        && spec.tasks.iter().all(|task| known(&task.id))
}

/// Columns where standard output is no terminal: results may be long.
const WIDTH: usize = 100;

/// The width of the terminal that the summary goes to.
pub(super) fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(WIDTH)
}

/// The tables, `columns` wide. What the core doesn't keep comes from the log.
pub(super) fn render(state: &State, log: &Reader, now: Timestamp, columns: usize) -> String {
    let mission = state.mission();
    let name = mission.name.as_ref().map_or("", |name| name.as_str());
    let mut out = String::new();
    let mut parts = vec![format!("{} completed", mission.tasks_completed)];
    if mission.tasks_failed > 0 {
        parts.push(format!("{} failed", mission.tasks_failed));
    }
    if mission.tasks_cancelled > 0 {
        parts.push(format!("{} cancelled", mission.tasks_cancelled));
    }
    if state.index.open_tasks > 0 {
        parts.push(format!("{} open", state.index.open_tasks));
    }
    let took = seconds(now.since_ms(mission.started));
    let _infallible = writeln!(out, "mission {name}: tasks {}, in {took}", parts.join(", "));

    let mut tasks: Vec<_> = state.tasks.iter().collect();
    tasks.sort_by_key(|(_, task)| task.created_at);
    let rows: Vec<_> = tasks.into_iter().map(|(id, task)| row(state, log, id, task)).collect();
    if !rows.is_empty() {
        out.push('\n');
        out.push_str(&table(&TASKS, &rows, Some(columns), false));
    }
    let rows: Vec<_> = state
        .all_agents()
        .map(|(uid, agent)| {
            let done = state.tasks.values().filter(|task| match &task.state {
                TaskState::Settled(settled) => {
                    settled.owner == Some(uid) && settled.how == TaskStateName::Completed
                }
                TaskState::Pending | TaskState::Assigned { .. } | TaskState::Active { .. } => false,
            });
            let last = agent.last_exit.as_ref().map(|exit| clean(&exit.to_string()));
            [
                agent.spec.name.to_string(),
                agent.role.to_string(),
                done.count().to_string(),
                agent.restarts.to_string(),
                last.unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .map(|cells| cells.map(Cell::from).to_vec())
        .collect();
    out.push('\n');
    out.push_str(&table(&AGENTS, &rows, Some(columns), false));
    out
}

const TASKS: [Column; 5] =
    [fixed("TASK"), fixed("STATE"), elastic("BY"), fixed("TOOK"), elastic("RESULT")];
const AGENTS: [Column; 5] =
    [fixed("AGENT"), fixed("ROLE"), fixed("TASKS"), fixed("RESTARTS"), elastic("LAST EXIT")];

fn row(state: &State, log: &Reader, id: &TaskId, task: &Task) -> Vec<Cell> {
    let (how, settled) = match &task.state {
        TaskState::Pending => ("pending", None),
        TaskState::Assigned { .. } => ("assigned", None),
        TaskState::Active { .. } => ("active", None),
        TaskState::Settled(settled) => (state_name(settled.how), Some(settled)),
    };
    let took = settled.and_then(|settled| {
        let from = task.started.or_else(|| granted(log, task))?;
        Some(seconds(settled.at.since_ms(from)))
    });
    let result = settled.map(|settled| match &settled.reason {
        Some(reason) => in_short(reason),
        None => settled.result_at.and_then(|at| result(log, at)).unwrap_or_default(),
    });
    let took = took.unwrap_or_else(|| "-".to_owned());
    let cells = [id.to_string(), how.to_owned(), workers(state, id), took];
    cells.into_iter().chain([result.unwrap_or_default()]).map(Cell::from).collect()
}

/// When its last owner got a task, which may be settled without ever having been started.
fn granted(log: &Reader, task: &Task) -> Option<Timestamp> {
    let record = log.get(task.epoch.0).ok().flatten()?;
    // Whatever ends a task against its owner is fenced off by an epoch of its own.
    let ends = ["task_completed", "task_failed", "task_cancelled"].contains(&&*record.kind);
    (!ends).then_some(Timestamp(record.at_ms))
}

/// A result on one line; none where the log has been pruned.
fn result(log: &Reader, at: Seq) -> Option<String> {
    let content = log.get(at.0).ok().flatten()?.content?;
    Some(match serde_json::from_str::<String>(&content) {
        Ok(text) => in_short(&text),
        Err(_) => in_short(&content),
    })
}

/// The words of a text on one line, as far as they may fit.
fn in_short(text: &str) -> String {
    clean(&text.split_whitespace().take(100).collect::<Vec<_>>().join(" "))
}

/// Who worked on a task: those who handed it over, and its last owner.
fn workers(state: &State, id: &TaskId) -> String {
    let mut names = Vec::new();
    let handoffs = state.handoffs.values();
    for handoff in handoffs.filter(|h| h.task == *id && h.state == HandoffState::Completed) {
        names.push(handoff.from);
    }
    let owner = state.tasks.get(id).and_then(|task| match &task.state {
        TaskState::Settled(settled) => settled.owner,
        TaskState::Assigned { owner } | TaskState::Active { owner, .. } => Some(*owner),
        TaskState::Pending => None,
    });
    names.extend(owner);
    let names: Vec<_> = names.into_iter().filter_map(|uid| state.name_of(uid)).collect();
    if names.is_empty() {
        return "-".to_owned();
    }
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", then ")
}

fn state_name(state: TaskStateName) -> &'static str {
    match state {
        TaskStateName::Pending => "pending",
        TaskStateName::Assigned => "assigned",
        TaskStateName::Active => "active",
        TaskStateName::Completed => "completed",
        TaskStateName::Failed => "failed",
        TaskStateName::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_one_line_that_a_terminal_does_not_obey() {
        assert_eq!(in_short("\n two\t words\r\n \u{1b}[31m\n"), "two words \\x1b[31m");
        assert!(in_short(&"x".repeat(1 << 20)).len() < 500);
    }

    #[test]
    fn a_mission_without_tasks_is_not_settled() {
        assert!(!is_settled(&State::new()));
        assert_eq!(verdict(&State::new()), Verdict::Good);
    }
}
