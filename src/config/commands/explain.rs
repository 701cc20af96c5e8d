//! `missiond explain`: what an agent would be started with, item by item, before anything runs.

use std::path::Path;

use serde::Serialize;

use super::CommandError;
use crate::config::dirs::AgentDirs;
use crate::config::{AgentLaunch, Host, Mission, WorkspaceMode, launching, load_for};
use crate::core::spec::{AgentSpec, Mode};
use crate::ids::TaskId;
use crate::launch::host_facts;
use crate::policy::explain::{Row, Told, explain as rows_of};
use crate::policy::{EnvironmentRequest, PrivateTree, environment, model, plan, seccomp};
use crate::table::{self, Cell, Paint};

/// How an explanation is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A table as wide as this, if there is a width to keep to.
    Table {
        /// Columns of the terminal.
        width: Option<usize>,
        /// Colours are wanted.
        colours: bool,
    },
    /// JSON.
    Json,
}

#[derive(Serialize)]
struct Explanation<'a> {
    mission: &'a str,
    agent: &'a str,
    role: &'a str,
    level: u8,
    policy: Option<&'a str>,
    rows: Vec<Row>,
}

/// Explains the plan of one agent on this machine.
///
/// # Errors
/// The file is wrong, it has no such agent, or this machine can't give what it asks for.
pub fn explain(
    file: &Path,
    agent: &str,
    host: &Host,
    variables: &[(String, String)],
    shape: Shape,
) -> Result<String, CommandError> {
    let mission = load_for(file, host)?;
    let found = mission.spec.agents.iter().find(|spec| spec.name.as_str() == agent);
    let launch = found.and_then(|spec| mission.agents.get(&spec.name));
    let (Some(spec), Some(launch)) = (found, launch) else {
        let names: Vec<&str> = mission.spec.agents.iter().map(|spec| spec.name.as_str()).collect();
        return Err(CommandError::NotFound(format!(
            "no agent `{agent}` in {}; there are {}",
            mission.file.display(),
            names.join(", ")
        )));
    };
    let rows = explained(&mission, spec, launch, host, variables)?;
    match shape {
        Shape::Json => {
            let explanation = Explanation {
                mission: mission.spec.name.as_str(),
                agent,
                role: spec.role.as_str(),
                level: spec.level,
                policy: launch.policy.as_deref(),
                rows,
            };
            Ok(serde_json::to_string_pretty(&explanation)? + "\n")
        }
        Shape::Table { width, colours } => Ok(shown(&rows, width, colours)),
    }
}

fn explained(
    mission: &Mission,
    spec: &AgentSpec,
    launch: &AgentLaunch,
    host: &Host,
    variables: &[(String, String)],
) -> Result<Vec<Row>, CommandError> {
    let dirs = host.places.of(&mission.spec.name);
    let own: AgentDirs = dirs.agent(&spec.name);
    // A task's directories have its name; any will do to show what they are.
    let task = match spec.mode {
        Mode::Service => None,
        Mode::Task => TaskId::new("TASK").ok().map(|task| launching::TaskDirs::of(&own, &task)),
    };
    let missionctl = host.missionctl_dir.as_deref();
    let mut roots =
        launching::roots(launch, &mission.workspace, &dirs, &own, task.as_ref(), missionctl);
    if launch.workspace_mode == WorkspaceMode::Private {
        let (upper, work) = (own.private().join("upper"), own.private().join("work"));
        roots.private = Some(PrivateTree { upper, work });
    }
    let facts = host_facts().map_err(|source| CommandError::Io {
        what: "look at",
        path: "/proc".into(),
        source,
    })?;
    let request = launching::request(launch, &spec.name, launch.workspace_write, roots);
    let refused = |error: &dyn std::error::Error| {
        let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
        CommandError::Refused(format!("agent `{}` can't be isolated: {error}{cause}", spec.name))
    };
    let plan = plan(&request, &facts).map_err(|error| refused(&error))?;

    let declared: Vec<(String, String)> = launch
        .env
        .keys()
        .chain(launch.secrets.keys())
        .chain(launch.env_pass.iter().filter(|name| variables.iter().any(|(n, _)| n == *name)))
        .map(|name| (name.clone(), String::new()))
        .collect();
    let names = environment(&EnvironmentRequest {
        level: launch.level,
        allowed: launch.environment.as_deref(),
        host: variables,
        home: Some(&own.home()),
        tmpdir: Some(&own.tmp()),
        declared: &declared,
        mission: &[],
        missionctl_dir: missionctl,
        workspace: Some(&mission.workspace),
    })
    .map_err(|error| refused(&error))?;
    let mut names: Vec<String> = names.into_iter().map(|(name, _)| name).collect();
    names.push("MISSION_*".into());

    let asked = |what: &str| match what.strip_prefix("environment ") {
        None => launch.asked.origin(what).map(ToString::to_string),
        Some(name) => asked_variable(launch, name),
    };
    let roots = &request.roots;
    let known = |path: &Path| {
        let is = |known: &Option<std::path::PathBuf>| known.as_deref() == Some(path);
        let named = [
            (&roots.home, "its home"),
            (&roots.checkpoint, "its checkpoints"),
            (&roots.handoff, "files handed to it"),
            (&roots.bus, "the mission's bus"),
            (&roots.missionctl, "missionctl"),
            (&roots.task, "its task"),
        ];
        let own = named.iter().find(|(known, _)| is(known)).map(|(_, what)| (*what).to_owned());
        let workspace = || format!("the workspace, by role {}", spec.role);
        own.or_else(|| is(&roots.workspace).then(workspace))
    };
    let native = seccomp::native();
    let told = Told { environment: &names, asked: &asked, known: &known, arch: native.as_ref() };
    Ok(rows_of(&plan, &told))
}

/// Why the agent has a variable.
fn asked_variable(launch: &AgentLaunch, name: &str) -> Option<String> {
    if launch.secrets.contains_key(name) {
        return Some("the agent's `secrets`".into());
    }
    if launch.env.contains_key(name) {
        return Some("the agent's `env`".into());
    }
    if launch.env_pass.iter().any(|passed| passed == name) {
        return Some("the agent's `env_pass`".into());
    }
    match &launch.environment {
        Some(allowed) => {
            let by = allowed.iter().find(|allowed| model::passes(&[allowed], name))?;
            launch.asked.origin(&format!("environment {by}")).map(ToString::to_string)
        }
        None => (name.starts_with("LC_") || crate::policy::environment::ALLOWED.contains(&name))
            .then(|| "the standard list".to_owned()),
    }
}

fn shown(rows: &[Row], width: Option<usize>, colours: bool) -> String {
    // The names of hundreds of calls are for JSON.
    let short = |row: &Row| {
        let is_long = row.part == "syscalls" && row.what.ends_with("allowed");
        if is_long { String::new() } else { row.value.clone() }
    };
    let columns = [
        table::fixed("PART"),
        table::elastic("WHAT"),
        table::elastic("VALUE"),
        table::elastic("BECAUSE OF"),
    ];
    let cells: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            let paint = if row.enforced { Paint::Plain } else { Paint::Yellow };
            [row.part.to_owned(), row.what.clone(), short(row), row.because.clone()]
                .map(|text| Cell::new(crate::escape::line(&text), paint))
                .into()
        })
        .collect();
    table::table(&columns, &cells, width, colours)
}
