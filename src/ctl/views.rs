//! How agents, tasks, handoffs, checkpoints and the mission look to a person. Pure: views in, text out.

use serde::Serialize;

use super::out::Look;
use super::pretty;
use crate::proto::spec::Permissions;
use crate::proto::view::{
    AgentStateName, AgentView, CheckpointView, HandoffStateName, HandoffView, MissionStateName,
    MissionView, Receipt, ReceiptState, TaskStateName, TaskView, Wait,
};
use crate::table::{Cell, Column, Paint, elastic, fixed, number};

/// A unit variant's name on the wire.
pub(crate) fn name<T: Serialize>(value: &T) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    json.trim_matches('"').to_owned()
}

fn agent_paint(state: AgentStateName) -> Paint {
    match state {
        AgentStateName::Running => Paint::Green,
        AgentStateName::Waiting | AgentStateName::Starting | AgentStateName::Stopping => {
            Paint::Yellow
        }
        AgentStateName::Idle | AgentStateName::Ended | AgentStateName::Stopped => Paint::Dim,
        AgentStateName::Failed => Paint::Red,
    }
}

fn task_paint(state: TaskStateName) -> Paint {
    match state {
        TaskStateName::Pending => Paint::Yellow,
        TaskStateName::Assigned => Paint::Plain,
        TaskStateName::Active => Paint::Cyan,
        TaskStateName::Completed => Paint::Green,
        TaskStateName::Failed => Paint::Red,
        TaskStateName::Cancelled => Paint::Dim,
    }
}

/// The colour of a handoff's state.
pub(crate) fn handoff_paint(state: HandoffStateName) -> Paint {
    match state {
        HandoffStateName::Requested | HandoffStateName::Draining | HandoffStateName::Quiesced => {
            Paint::Yellow
        }
        HandoffStateName::Completed => Paint::Green,
        HandoffStateName::Rejected | HandoffStateName::Expired | HandoffStateName::Failed => {
            Paint::Red
        }
        HandoffStateName::Cancelled => Paint::Dim,
    }
}

/// What is waited for, and until when.
pub(crate) fn wait(look: &Look, wait: Option<&Wait>) -> String {
    let Some(wait) = wait else { return String::new() };
    let what = look.text(&wait.what);
    match wait.until {
        Some(until) => format!("{what}, {}", look.clock().left(until)),
        None => what,
    }
}

fn joined<T: ToString>(items: &[T], separator: &str) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(separator)
}

fn level(agent: &AgentView) -> String {
    if agent.level == 0 { "none".to_owned() } else { agent.level.to_string() }
}

fn permissions(permissions: Permissions) -> String {
    joined(&permissions.iter().collect::<Vec<_>>(), " ")
}

/// All agents: who they are and what they do.
pub(crate) fn agents(look: &Look, agents: &[AgentView]) -> String {
    const COLUMNS: [Column; 9] = [
        fixed("AGENT"),
        fixed("ROLE"),
        fixed("STATE"),
        fixed("PHASE"),
        fixed("LEVEL"),
        elastic("TASKS"),
        number("INBOX"),
        number("SINCE"),
        elastic("WAITS FOR"),
    ];
    let row = |agent: &AgentView| -> Vec<Cell> {
        vec![
            Cell::new(agent.name.as_str(), Paint::Bold),
            agent.role.as_str().into(),
            Cell::new(name(&agent.state), agent_paint(agent.state)),
            name(&agent.phase).into(),
            level(agent).into(),
            joined(&agent.tasks, " ").into(),
            match agent.inbox {
                0 => Cell::default(),
                some => some.to_string().into(),
            },
            look.clock().age(agent.since).into(),
            Cell::new(wait(look, agent.waits_for.as_ref()), Paint::Yellow),
        ]
    };
    look.table(&COLUMNS, &agents.iter().map(row).collect::<Vec<_>>(), "no agents")
}

/// All agents: their processes.
pub(crate) fn processes(look: &Look, agents: &[AgentView]) -> String {
    const COLUMNS: [Column; 10] = [
        fixed("AGENT"),
        fixed("STATE"),
        number("PID"),
        fixed("LEVEL"),
        fixed("MODE"),
        number("START"),
        number("RESTARTS"),
        number("SINCE"),
        number("HEARD"),
        elastic("LAST END"),
    ];
    let row = |agent: &AgentView| -> Vec<Cell> {
        vec![
            Cell::new(agent.name.as_str(), Paint::Bold),
            Cell::new(name(&agent.state), agent_paint(agent.state)),
            agent.pid.map_or_else(String::new, |pid| pid.to_string()).into(),
            level(agent).into(),
            name(&agent.mode).into(),
            agent.incarnation.to_string().into(),
            agent.restarts.to_string().into(),
            look.clock().age(agent.since).into(),
            agent.heard.map_or_else(String::new, |heard| look.clock().age(heard)).into(),
            agent.last_exit.as_ref().map_or_else(Cell::default, |exit| {
                let paint = if exit.is_success() { Paint::Dim } else { Paint::Red };
                Cell::new(look.text(&exit.to_string()), paint)
            }),
        ]
    };
    look.table(&COLUMNS, &agents.iter().map(row).collect::<Vec<_>>(), "no agents")
}

/// One agent in full.
pub(crate) fn agent(look: &Look, agent: &AgentView) -> String {
    let clock = look.clock();
    look.details(&[
        ("agent", Cell::new(agent.name.as_str(), Paint::Bold)),
        ("uid", agent.uid.to_string().into()),
        ("role", agent.role.as_str().into()),
        ("permissions", permissions(agent.permissions).into()),
        ("capabilities", joined(&agent.capabilities, " ").into()),
        ("mode", name(&agent.mode).into()),
        ("level", level(agent).into()),
        ("not enforced", Cell::new(look.lines(&agent.gaps.join("\n")), Paint::Yellow)),
        ("state", Cell::new(name(&agent.state), agent_paint(agent.state))),
        ("since", clock.full(agent.since).into()),
        ("waits for", Cell::new(wait(look, agent.waits_for.as_ref()), Paint::Yellow)),
        ("phase", name(&agent.phase).into()),
        ("pid", agent.pid.map_or_else(String::new, |pid| pid.to_string()).into()),
        ("start", agent.incarnation.to_string().into()),
        ("restarts", agent.restarts.to_string().into()),
        (
            "last end",
            agent.last_exit.as_ref().map_or_else(String::new, |e| look.text(&e.to_string())).into(),
        ),
        ("heard", agent.heard.map_or_else(String::new, |heard| clock.full(heard)).into()),
        ("tasks", joined(&agent.tasks, " ").into()),
        ("checkpoint", agent.checkpoint.map_or_else(String::new, |id| id.to_string()).into()),
        ("inbox", agent.inbox.to_string().into()),
    ])
}

/// All tasks.
pub(crate) fn tasks(look: &Look, tasks: &[TaskView]) -> String {
    const COLUMNS: [Column; 7] = [
        fixed("TASK"),
        fixed("STATE"),
        fixed("OWNER"),
        number("DONE"),
        elastic("TITLE"),
        elastic("NOTE"),
        elastic("WAITS FOR"),
    ];
    let row = |task: &TaskView| -> Vec<Cell> {
        let note = task.reason.as_ref().or(task.note.as_ref());
        vec![
            Cell::new(task.id.as_str(), Paint::Bold),
            Cell::new(name(&task.state), task_paint(task.state)),
            match (&task.owner, &task.reserved) {
                (Some(owner), _) => owner.as_str().into(),
                (None, Some(reserved)) => Cell::new(format!("({reserved})"), Paint::Dim),
                (None, None) => Cell::default(),
            },
            match task.progress {
                _ if task.state == TaskStateName::Completed => "100%".to_owned(),
                0 => String::new(),
                progress => format!("{progress}%"),
            }
            .into(),
            look.text(&task.title).into(),
            note.map_or_else(String::new, |note| look.text(note)).into(),
            Cell::new(wait(look, task.waits_for.as_ref()), Paint::Yellow),
        ]
    };
    look.table(&COLUMNS, &tasks.iter().map(row).collect::<Vec<_>>(), "no tasks")
}

/// One task in full.
pub(crate) fn task(look: &Look, task: &TaskView) -> String {
    let clock = look.clock();
    let optional_time = |at: Option<_>| at.map_or_else(String::new, |at| clock.full(at));
    let text = |text: &Option<String>| text.as_deref().map_or_else(String::new, |t| look.lines(t));
    let json = |json: &Option<crate::proto::json::Json>| {
        json.as_ref().map_or_else(String::new, |json| look.lines(&pretty::pretty(json.get())))
    };
    look.details(&[
        ("task", Cell::new(task.id.as_str(), Paint::Bold)),
        ("title", look.text(&task.title).into()),
        ("state", Cell::new(name(&task.state), task_paint(task.state))),
        ("owner", task.owner.as_ref().map_or("", |owner| owner.as_str()).into()),
        ("reserved for", task.reserved.as_ref().map_or("", |agent| agent.as_str()).into()),
        ("epoch", task.epoch.to_string().into()),
        ("progress", format!("{}%", task.progress).into()),
        ("note", text(&task.note).into()),
        ("reason", text(&task.reason).into()),
        ("waits for", Cell::new(wait(look, task.waits_for.as_ref()), Paint::Yellow)),
        ("after", joined(&task.after, " ").into()),
        ("needs", joined(&task.needs, " ").into()),
        ("attempts", format!("{} of {}", task.attempts, task.max_attempts).into()),
        ("checkpoint", task.checkpoint.map_or_else(String::new, |id| id.to_string()).into()),
        ("handoff", task.handoff.map_or_else(String::new, |id| id.to_string()).into()),
        ("created", format!("{} by {}", clock.full(task.created), task.by).into()),
        ("deadline", optional_time(task.deadline).into()),
        ("started", optional_time(task.started).into()),
        ("settled", optional_time(task.settled).into()),
        ("data", json(&task.data).into()),
        ("result", json(&task.result).into()),
    ])
}

/// All handoffs.
pub(crate) fn handoffs(look: &Look, handoffs: &[HandoffView], none: &str) -> String {
    const COLUMNS: [Column; 7] = [
        fixed("HANDOFF"),
        fixed("TASK"),
        fixed("FROM"),
        fixed("TO"),
        fixed("STATE"),
        elastic("WAITS FOR"),
        elastic("REASON"),
    ];
    let row = |handoff: &HandoffView| -> Vec<Cell> {
        vec![
            Cell::new(handoff.id.to_string(), Paint::Bold),
            handoff.task.as_str().into(),
            handoff.from.as_str().into(),
            handoff.to.as_str().into(),
            Cell::new(name(&handoff.state), handoff_paint(handoff.state)),
            Cell::new(wait(look, handoff.waits_for.as_ref()), Paint::Yellow),
            handoff.reason.as_deref().map_or_else(String::new, |r| look.text(r)).into(),
        ]
    };
    look.table(&COLUMNS, &handoffs.iter().map(row).collect::<Vec<_>>(), none)
}

/// One handoff in full.
pub(crate) fn handoff(look: &Look, handoff: &HandoffView) -> String {
    let clock = look.clock();
    look.details(&[
        ("handoff", Cell::new(handoff.id.to_string(), Paint::Bold)),
        ("task", handoff.task.as_str().into()),
        ("from", handoff.from.as_str().into()),
        ("to", handoff.to.as_str().into()),
        ("state", Cell::new(name(&handoff.state), handoff_paint(handoff.state))),
        ("waits for", Cell::new(wait(look, handoff.waits_for.as_ref()), Paint::Yellow)),
        ("until", handoff.until.map_or_else(String::new, |until| clock.full(until)).into()),
        ("requested", format!("{} by {}", clock.full(handoff.requested), handoff.by).into()),
        ("checkpoint", handoff.checkpoint.map_or_else(String::new, |id| id.to_string()).into()),
        ("epoch", handoff.epoch.map_or_else(String::new, |epoch| epoch.to_string()).into()),
        ("reason", handoff.reason.as_deref().map_or_else(String::new, |r| look.lines(r)).into()),
    ])
}

/// One checkpoint in full.
pub(crate) fn checkpoint(look: &Look, checkpoint: &CheckpointView) -> String {
    let files = checkpoint.files.iter().map(|file| {
        format!("{}  {} bytes  {:o}  {}", look.text(&file.path), file.size, file.mode, file.hash)
    });
    let json = checkpoint.json.as_ref();
    look.details(&[
        ("checkpoint", Cell::new(checkpoint.id.to_string(), Paint::Bold)),
        ("task", checkpoint.task.as_str().into()),
        ("by", checkpoint.by.as_str().into()),
        ("epoch", checkpoint.epoch.to_string().into()),
        ("at", look.clock().full(checkpoint.at).into()),
        ("files", files.collect::<Vec<_>>().join("\n").into()),
        (
            "json",
            json.map_or_else(String::new, |json| look.lines(&pretty::pretty(json.get()))).into(),
        ),
    ])
}

/// What this machine can't enforce, each with the agents that it concerns.
fn gaps(agents: &[AgentView]) -> Vec<(&str, Vec<&str>)> {
    let mut gaps: Vec<(&str, Vec<&str>)> = Vec::new();
    for agent in agents {
        for gap in &agent.gaps {
            match gaps.iter_mut().find(|(known, _)| known == gap) {
                Some((_, names)) => names.push(agent.name.as_str()),
                None => gaps.push((gap, vec![agent.name.as_str()])),
            }
        }
    }
    gaps
}

/// The mission as a whole.
pub(crate) fn mission(look: &Look, mission: &MissionView) -> String {
    let clock = look.clock();
    let state = name(&mission.state);
    let paint = match mission.state {
        MissionStateName::Running => Paint::Green,
        MissionStateName::Stopping => Paint::Yellow,
        MissionStateName::Stopped => Paint::Dim,
    };
    let mut out = format!(
        "mission {}  {}  for {}, pid {}, run {}, {} events\n",
        look.paint(mission.name.as_str(), Paint::Bold),
        look.paint(&state, paint),
        clock.age(mission.started),
        mission.pid,
        mission.generation,
        mission.head,
    );
    for alert in &mission.alerts {
        out.push_str(&format!("{} {}\n", look.paint("alert:", Paint::Red), look.text(alert)));
    }
    for (gap, names) in gaps(&mission.agents) {
        let head = match names.len() {
            all if all == mission.agents.len() => "not enforced:".to_owned(),
            _ => format!("not enforced for {}:", names.join(", ")),
        };
        out.push_str(&format!("{} {}\n", look.paint(&head, Paint::Yellow), look.text(gap)));
    }
    out.push_str(&format!("\n{}", agents(look, &mission.agents)));
    if !mission.tasks.is_empty() {
        out.push_str(&format!("\n{}", tasks(look, &mission.tasks)));
    }
    if !mission.handoffs.is_empty() {
        out.push_str(&format!("\n{}", handoffs(look, &mission.handoffs, "")));
    }
    out
}

/// The receipts of a message: `b acked, c dead (5 nacks)`.
pub(crate) fn receipts(look: &Look, receipts: &[Receipt]) -> String {
    let one = |receipt: &Receipt| {
        let paint = match receipt.state {
            ReceiptState::Accepted => Paint::Yellow,
            ReceiptState::Delivered => Paint::Plain,
            ReceiptState::Acked => Paint::Green,
            ReceiptState::Dead => Paint::Red,
        };
        let state = look.paint(&name(&receipt.state), paint);
        match &receipt.reason {
            Some(reason) => format!("{} {state} ({})", receipt.to, look.text(reason)),
            None => format!("{} {state}", receipt.to),
        }
    };
    receipts.iter().map(one).collect::<Vec<_>>().join(", ")
}
