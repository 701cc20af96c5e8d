//! The `[[tasks]]` of a file: ids, references, and no circles.

use std::collections::BTreeMap;

use super::agents::Agents;
use super::problem::nearest;
use super::raw;
use super::read::{At, Findings};
use super::scene::at_least_one;
use crate::core::json::Json;
use crate::core::spec::{Limits, TaskSpec};
use crate::ids::{AgentName, Capability, TaskId};

/// Checks all tasks; none where one of them is wrong.
pub(super) fn tasks(
    raw: Vec<At<raw::Task>>,
    agents: &Agents,
    limits: &Limits,
    findings: &mut Findings,
) -> Option<Vec<TaskSpec>> {
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, task) in raw.iter().enumerate() {
        let Some(id) = &task.value.id else { continue };
        if index.contains_key(id.value.0.as_str()) {
            findings.error_with_help(
                &id.span,
                format!("task `{}` is there twice", id.value.0),
                "an id names one task",
            );
            continue;
        }
        index.insert(id.value.0.as_str(), at);
    }
    if raw.len() > limits.max_tasks as usize {
        let span = raw.get(limits.max_tasks as usize).map_or(0..0, |task| task.span.clone());
        let (count, most) = (raw.len(), limits.max_tasks);
        findings.error_with_help(
            &span,
            format!("{count} tasks are more than `max_tasks` = {most}"),
            "raise `max_tasks` in [limits]",
        );
    }
    references(&raw, &index, findings);
    circles(&raw, &index, findings);
    let specs = raw.iter().map(|task| spec(&task.value, agents, limits, findings));
    // Every task is checked before the first wrong one ends it.
    specs.collect::<Vec<_>>().into_iter().collect()
}

fn references(raw: &[At<raw::Task>], index: &BTreeMap<&str, usize>, findings: &mut Findings) {
    for after in raw.iter().flat_map(|task| task.value.after.iter().flatten()) {
        if index.contains_key(after.value.as_str()) {
            continue;
        }
        let help = nearest(&after.value, index.keys().copied()).map_or_else(
            || "`after` names ids of other [[tasks]]".to_owned(),
            |meant| format!("did you mean \"{meant}\"?"),
        );
        findings.error_with_help(
            &after.span,
            format!("no task has the id \"{}\"", after.value),
            help,
        );
    }
}

/// Names each circle of `after` once, in full. A walk in depth with its own stack: a file can hold a
/// chain of tens of thousands of tasks.
fn circles(raw: &[At<raw::Task>], index: &BTreeMap<&str, usize>, findings: &mut Findings) {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        OnPath,
        Done,
    }
    let edges = |at: usize| raw.get(at).and_then(|task| task.value.after.as_deref()).unwrap_or(&[]);
    let mut marks = vec![Mark::New; raw.len()];
    for start in 0..raw.len() {
        if marks[start] != Mark::New {
            continue;
        }
        let mut path = vec![(start, 0)];
        marks[start] = Mark::OnPath;
        while let Some((at, next)) = path.last_mut() {
            let Some(after) = edges(*at).get(*next) else {
                marks[*at] = Mark::Done;
                path.pop();
                continue;
            };
            *next += 1;
            let Some(&target) = index.get(after.value.as_str()) else { continue };
            match marks[target] {
                Mark::Done => {}
                Mark::New => {
                    marks[target] = Mark::OnPath;
                    path.push((target, 0));
                }
                Mark::OnPath => {
                    let from = path.iter().position(|(at, _)| *at == target).unwrap_or(0);
                    let name = |at: usize| {
                        let id = raw.get(at).and_then(|task| task.value.id.as_ref());
                        id.map_or("?", |id| id.value.0.as_str())
                    };
                    let mut circle: Vec<&str> =
                        path.iter().skip(from).map(|(at, _)| name(*at)).collect();
                    circle.push(name(target));
                    findings.error_with_help(
                        &after.span,
                        format!("tasks wait for each other: {}", circle.join(" after ")),
                        "none of them could ever start; take one `after` away",
                    );
                }
            }
        }
    }
}

fn spec(
    raw: &raw::Task,
    agents: &Agents,
    limits: &Limits,
    findings: &mut Findings,
) -> Option<TaskSpec> {
    let assign = raw.assign.as_ref().and_then(|name| assignee(name, agents, findings));
    let needs: Vec<Capability> =
        raw.needs.iter().flatten().map(|capability| capability.0.clone()).collect();
    if let (None, Some(id)) = (&raw.assign, &raw.id)
        && !agents.somebody_can(&needs)
    {
        let (what, help) = if needs.is_empty() {
            (String::new(), "give an agent a role with `execute`: lead or write")
        } else {
            let needs: Vec<&str> = needs.iter().map(AsRef::as_ref).collect();
            (format!(" with {}", needs.join(", ")), "`needs` is matched against `capabilities`")
        };
        findings.warning(
            &id.span,
            format!("nobody can claim task `{}`: no agent with `execute`{what}", id.value.0),
            help,
        );
    }
    if let Some(attempts) = &raw.max_attempts {
        at_least_one("max_attempts", attempts.value.into(), &attempts.span, findings);
    }
    if let Some(timeout) = &raw.timeout {
        at_least_one("timeout", timeout.value.0, &timeout.span, findings);
    }
    let mut data = None;
    if let Some(at) = &raw.data {
        let json = Json::of(&at.value.0).ok()?;
        if json.len() as u64 > limits.max_content {
            findings.error_with_help(
                &at.span,
                format!(
                    "`data` has {} bytes of JSON, {} is the most",
                    json.len(),
                    limits.max_content
                ),
                "put it into a file and name that, or raise `max_content` in [limits]",
            );
        }
        data = Some(json);
    }
    let id = raw.id.as_ref()?.value.0.clone();
    let after = raw.after.iter().flatten().map(|at| TaskId::new(&at.value).ok());
    Some(TaskSpec {
        title: raw.title.clone().unwrap_or_else(|| id.to_string()),
        after: after.collect::<Option<_>>()?,
        assign,
        needs,
        timeout_ms: raw.timeout.as_ref().map(|at| at.value.0),
        max_attempts: raw.max_attempts.as_ref().map_or(3, |at| at.value),
        data,
        id,
    })
}

fn assignee(name: &At<String>, agents: &Agents, findings: &mut Findings) -> Option<AgentName> {
    match agents.may_execute(&name.value) {
        Some(Some(false)) => findings.error_with_help(
            &name.span,
            format!("agent `{}` can't own tasks: its role lacks `execute`", name.value),
            "assign it to an agent with the role lead or write",
        ),
        Some(Some(true) | None) => {}
        None => {
            let help = nearest(&name.value, agents.names()).map_or_else(
                || format!("the agents are {}", agents.names().collect::<Vec<_>>().join(", ")),
                |meant| format!("did you mean \"{meant}\"?"),
            );
            findings.error_with_help(
                &name.span,
                format!("no agent is named \"{}\"", name.value),
                help,
            );
        }
    }
    AgentName::new(&name.value).ok()
}
