//! What was done by whom, when it is over: a table on standard output, and the exit code.

use std::fmt::Write as _;

use super::progress::seconds;
use super::screen::clean;
use crate::core::spec::Until;
use crate::core::state::{HandoffState, State, TaskState};
use crate::core::view::TaskStateName;
use crate::ids::{TaskId, Timestamp};

/// How a mission came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All its tasks are completed, or it was stopped and none has failed.
    Good,
    /// A task has failed, or was cancelled and everything else is settled.
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
    let over = is_settled(state);
    if mission.tasks_failed > 0 || (over && mission.tasks_cancelled > 0) {
        Verdict::Bad
    } else {
        Verdict::Good
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

/// The tables.
pub(super) fn render(state: &State, now: Timestamp) -> String {
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

    if !state.tasks.is_empty() {
        let mut rows = vec![["TASK", "STATE", "BY", "TOOK", "TITLE"].map(str::to_owned).to_vec()];
        let mut tasks: Vec<_> = state.tasks.iter().collect();
        tasks.sort_by_key(|(_, task)| task.created_at);
        for (id, task) in tasks {
            let (how, end) = match &task.state {
                TaskState::Pending => ("pending", None),
                TaskState::Assigned { .. } => ("assigned", None),
                TaskState::Active { .. } => ("active", None),
                TaskState::Settled(settled) => (state_name(settled.how), Some(settled.at)),
            };
            let took = match (task.started, end) {
                (Some(start), Some(end)) => seconds(end.since_ms(start)),
                _ => "-".to_owned(),
            };
            let title = clean(&task.title);
            rows.push(vec![id.to_string(), how.to_owned(), workers(state, id), took, title]);
        }
        table(&mut out, &rows);
    }
    let mut rows =
        vec![["AGENT", "ROLE", "TASKS", "RESTARTS", "LAST EXIT"].map(str::to_owned).to_vec()];
    for (uid, agent) in state.all_agents() {
        let done = state.tasks.values().filter(|task| match &task.state {
            TaskState::Settled(settled) => {
                settled.owner == Some(uid) && settled.how == TaskStateName::Completed
            }
            TaskState::Pending | TaskState::Assigned { .. } | TaskState::Active { .. } => false,
        });
        rows.push(vec![
            agent.spec.name.to_string(),
            agent.role.to_string(),
            done.count().to_string(),
            agent.restarts.to_string(),
            agent
                .last_exit
                .as_ref()
                .map_or_else(|| "-".to_owned(), |exit| clean(&exit.to_string())),
        ]);
    }
    table(&mut out, &rows);
    out
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

fn table(out: &mut String, rows: &[Vec<String>]) {
    out.push('\n');
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _infallible = write!(line, "{cell:<width$}  ");
        }
        let _infallible = writeln!(out, "{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let mut out = String::new();
        table(&mut out, &[vec!["A".into(), "BB".into()], vec!["long".into(), "x".into()]]);
        assert_eq!(out, "\nA     BB\nlong  x\n");
    }

    #[test]
    fn a_mission_without_tasks_is_not_settled() {
        assert!(!is_settled(&State::new()));
        assert_eq!(verdict(&State::new()), Verdict::Good);
    }
}
