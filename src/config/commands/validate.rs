//! `missiond validate`: checks a file and says in a few lines what it would start.

use std::fmt::Write;
use std::path::Path;

use super::CommandError;
use crate::config::problem::printable;
use crate::config::{Durability, Host, Mission, load_for};
use crate::core::spec::{Mode, Until};

/// Checks a mission file for this host and sums it up. Warnings come after the summary.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn validate(file: &Path, host: &Host) -> Result<String, CommandError> {
    let mission = load_for(file, host)?;
    Ok(summary(&mission))
}

fn summary(mission: &Mission) -> String {
    let spec = &mission.spec;
    let mut text = format!("ok: {} is mission `{}`\n", mission.file.display(), spec.name);
    let until = match spec.until {
        Until::Settled => "ends when every task is settled",
        Until::Stopped => "runs until it is stopped",
    };
    let durability = match mission.durability {
        Durability::Disk => "durable on disk",
        Durability::Process => "durable in the kernel's memory only",
    };
    let mut line = |name: &str, rest: String| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "  {name:<10} {rest}");
    };
    line("workspace", mission.workspace.display().to_string());
    line("mission", format!("{until}, {durability}"));
    for agent in &spec.agents {
        let mode = match agent.mode {
            Mode::Service => "service",
            Mode::Task => "one process per task",
        };
        let command = mission.agents.get(&agent.name).map(|launch| one_line(&launch.command));
        let command = command.unwrap_or_default();
        let (name, role) = (&agent.name, &agent.role);
        let level = crate::policy::Level::from_number(agent.level).unwrap_or_default();
        line("agent", format!("{name}: {role}, level {level}, {mode}: {command}"));
    }
    let assigned = spec.tasks.iter().filter(|task| task.assign.is_some()).count();
    line("tasks", format!("{}, {assigned} of them assigned", spec.tasks.len()));
    for warning in &mission.warnings {
        let _ = write!(text, "\n{warning}\n");
    }
    text
}

/// A command, shortened to a line's end.
fn one_line(command: &[String]) -> String {
    const MOST: usize = 60;
    let words: Vec<&str> = command.iter().flat_map(|word| word.split_whitespace()).collect();
    let line = words.join(" ");
    let mut shown: String = printable(&line).chars().take(MOST).collect();
    if shown.len() < line.len() {
        shown.push_str(" ...");
    }
    shown
}
