//! The `[agents]` of a file: who they are for the core, and how their processes are started.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::isolation::isolation;
use super::problem::nearest;
use super::program::{check_cwd, check_readable, program, warn_of_writable};
use super::raw::{self, Restart};
use super::read::{At, Findings, Named};
use super::scene::{Scene, at_least_one, directory, keep_from_own_files, level, socket_path};
use super::units::Millis;
use super::variables::variables;
use super::words::Word;
use super::{AgentLaunch, LogLimits, WorkspaceMode, digest};
use crate::core::spec::{self, AgentSpec, Mode, Permission, RestartSpec};
use crate::ids::{AgentName, Capability};
use crate::policy::{LandlockMode, Level};

/// All agents of the file, also those that are wrong.
pub(super) struct Agents(Vec<Agent>);

struct Agent {
    name: String,
    /// None where its role is wrong.
    executes: Option<bool>,
    capabilities: Vec<Capability>,
    built: Option<(AgentSpec, AgentLaunch)>,
}

impl Agents {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|agent| agent.name.as_str())
    }

    /// Whether an agent may own tasks: none where there is no such agent, `Some(None)` where nobody
    /// knows because its role is wrong.
    pub(super) fn may_execute(&self, name: &str) -> Option<Option<bool>> {
        self.0.iter().find(|agent| agent.name == name).map(|agent| agent.executes)
    }

    /// Whether an agent that may own tasks has all these capabilities.
    pub(super) fn somebody_can(&self, needs: &[Capability]) -> bool {
        self.0.iter().any(|agent| {
            agent.executes != Some(false)
                && needs.iter().all(|need| agent.capabilities.contains(need))
        })
    }

    pub(super) fn finish(self) -> Option<(Vec<AgentSpec>, BTreeMap<AgentName, AgentLaunch>)> {
        let built: Option<Vec<_>> = self.0.into_iter().map(|agent| agent.built).collect();
        let (specs, launches): (Vec<AgentSpec>, Vec<AgentLaunch>) = built?.into_iter().unzip();
        let names = specs.iter().map(|spec| spec.name.clone());
        let launches = names.zip(launches).collect();
        Some((specs, launches))
    }
}

/// Checks all agents.
pub(super) fn agents(
    raw: Option<At<Named<At<raw::Agent>>>>,
    scene: &Scene<'_>,
    limits: &spec::Limits,
    findings: &mut Findings,
) -> Agents {
    let Some(At { value: Named(raw), span }) = raw else { return Agents(Vec::new()) };
    if raw.is_empty() {
        findings.error_with_help(&span, "the mission has no agent", "add an [agents.NAME]");
    }
    if raw.len() > limits.max_agents as usize {
        let span = raw.get(limits.max_agents as usize).map_or(span, |(name, _)| name.span.clone());
        let (count, most) = (raw.len(), limits.max_agents);
        findings.error_with_help(
            &span,
            format!("{count} agents are more than `max_agents` = {most}"),
            "raise `max_agents` in [limits]",
        );
    }
    // Whether somebody may write the workspace decides what is safe in it.
    let writable = raw.iter().any(|(_, agent)| {
        let role = agent.as_ref().and_then(|agent| agent.value.role.as_ref());
        let permissions = role.and_then(|role| scene.roles.get(&role.value.0).copied().flatten());
        permissions.is_some_and(|permissions| permissions.has(Permission::Write))
    });
    let agents = raw.into_iter().map(|(name, agent)| one(&name, agent, writable, scene, findings));
    Agents(agents.collect())
}

fn one(
    name: &At<String>,
    raw: Option<At<raw::Agent>>,
    writable: bool,
    scene: &Scene<'_>,
    findings: &mut Findings,
) -> Agent {
    let id =
        AgentName::new(&name.value).map_err(|error| findings.error(&name.span, error.to_string()));
    if let (Ok(id), Some(mission)) = (&id, &scene.name) {
        let socket = scene.host.places.of(mission).agent_socket(id);
        socket_path(&socket, &format!("agent `{id}`'s socket"), &name.span, findings);
    }
    let Some(At { value: raw, span }) = raw else {
        let name = name.value.clone();
        return Agent { name, executes: None, capabilities: Vec::new(), built: None };
    };
    let permissions = raw.role.as_ref().and_then(|role| {
        let found = scene.roles.get(&role.value.0);
        if found.is_none() {
            let names = || scene.roles.keys().map(AsRef::as_ref);
            let help = nearest(role.value.0.as_str(), names()).map_or_else(
                || format!("the roles are {}", names().collect::<Vec<_>>().join(", ")),
                |meant| format!("did you mean \"{meant}\"?"),
            );
            findings.error_with_help(
                &role.span,
                format!("no role is named \"{}\"", role.value.0),
                help,
            );
        }
        found.copied().flatten()
    });
    let capabilities: Vec<Capability> =
        raw.capabilities.iter().flatten().map(|capability| capability.0.clone()).collect();
    let level = match &raw.isolation {
        Some(at) => level(at, findings),
        None => scene.level,
    };
    let launch = launch(&raw, level, writable, scene, findings);
    let built = id.ok().zip(level).zip(launch.zip(permissions)).zip(raw.role.as_ref());
    let built = built.map(|(((id, level), ((launch, wall_ms), permissions)), role)| {
        let launch = AgentLaunch { workspace_write: permissions.has(Permission::Write), ..launch };
        if !launch.workspace_write {
            keep_read_only(&raw, scene, findings);
        }
        let spec = AgentSpec {
            name: id,
            role: role.value.0.clone(),
            capabilities: capabilities.clone(),
            mode: raw.mode.map_or(Mode::default(), |Word(mode)| mode),
            level: level.number(),
            restart: restart(raw.restart.as_ref(), &span, findings),
            ready: raw.ready.map_or_else(Default::default, |Word(ready)| ready),
            start_timeout_ms: time("start_timeout", raw.start_timeout.as_ref(), findings)
                .unwrap_or(10_000),
            wall_ms,
            silence_ms: time("silence", raw.silence.as_ref(), findings),
            grace_ms: raw.grace.as_ref().map_or(5_000, |at| at.value.0),
            autostart: raw.autostart.unwrap_or(true),
            launch_digest: digest::of(&launch),
        };
        (spec, launch)
    });
    Agent {
        name: name.value.clone(),
        executes: permissions.map(|permissions| permissions.has(Permission::Execute)),
        capabilities,
        built,
    }
}

fn time(key: &str, at: Option<&At<Millis>>, findings: &mut Findings) -> Option<u64> {
    let At { value: Millis(ms), span } = at?;
    at_least_one(key, *ms, span, findings);
    Some(*ms)
}

fn restart(raw: Option<&Restart>, span: &Range<usize>, findings: &mut Findings) -> RestartSpec {
    let standard = RestartSpec::default();
    match raw {
        None => standard,
        Some(Restart::When(on)) => RestartSpec { on: *on, ..standard },
        Some(Restart::Full(table)) => {
            let ms =
                |at: &Option<At<Millis>>, standard| at.as_ref().map_or(standard, |at| at.value.0);
            let backoff_ms = ms(&table.backoff, standard.backoff_ms);
            let backoff_max_ms = ms(&table.backoff_max, standard.backoff_max_ms.max(backoff_ms));
            if backoff_ms > backoff_max_ms {
                let span = table.backoff_max.as_ref().map_or(span, |at| &at.span);
                findings.error(span, "`backoff_max` is less than `backoff`");
            }
            RestartSpec {
                on: table.on.map_or(standard.on, |Word(on)| on),
                max: table.max.unwrap_or(standard.max),
                within_ms: ms(&table.within, standard.within_ms),
                backoff_ms,
                backoff_max_ms,
            }
        }
    }
}

fn launch(
    raw: &raw::Agent,
    level: Option<Level>,
    writable: bool,
    scene: &Scene<'_>,
    findings: &mut Findings,
) -> Option<(AgentLaunch, Option<u64>)> {
    let variables = variables(raw, scene, findings);
    let write = directories(raw.write.as_deref(), "`write` directory", scene, findings);
    for (directory, span) in write.iter().flatten() {
        keep_from_own_files(directory, "a `write` directory", span, scene.host, findings);
    }
    let read = directories(raw.read.as_deref(), "`read` directory", scene, findings);
    let cwd = match &raw.cwd {
        Some(path) => directory(&scene.base, path, "`cwd`", findings),
        None => scene.workspace.clone(),
    };
    let mode = raw.landlock.map_or_else(Default::default, |Word(mode)| mode);
    let isolation = level.and_then(|level| {
        let (read, write) = (read.as_deref()?, write.as_deref()?);
        isolation(raw, level, read, write, scene, findings)
    });
    let path = variables.env.get("PATH").map(String::as_str);
    let command = raw.command.as_ref().and_then(|command| {
        let program = program(command, path, level, scene, findings)?;
        if let (Some(level), Some(isolation)) = (level, &isolation)
            && (level == Level::Process && mode == LandlockMode::Files
                || level >= Level::Namespaces)
        {
            let extra = || isolation.read.iter().chain(&isolation.write).map(PathBuf::as_path);
            check_readable(&program, command, level, extra(), scene, findings);
            if let Some(cwd) = cwd.as_deref().filter(|_| level >= Level::Namespaces) {
                check_cwd(cwd, raw.cwd.as_ref(), extra(), scene, findings);
            }
        }
        if writable {
            warn_of_writable(&program, command, write.as_deref(), scene, findings);
        }
        let mut words: Vec<String> = command.value.iter().map(|word| word.value.clone()).collect();
        if let Some(first) = words.first_mut()
            && first.contains('/')
        {
            let shown = if level >= Some(Level::Namespaces) { seen(&program) } else { program };
            *first = shown.to_str()?.to_owned();
        }
        Some(words)
    });
    let log = raw.log.as_ref().map_or_else(LogLimits::default, |log| {
        let standard = LogLimits::default();
        let max_bytes = log.max.as_ref().map_or(standard.max_bytes, |at| {
            if at.value.0 < 4096 {
                findings.error(&at.span, "`max` must be at least 4KiB");
            }
            at.value.0
        });
        LogLimits { max_bytes, keep: log.keep.unwrap_or(standard.keep) }
    });
    let isolation = isolation?;
    let launch = AgentLaunch {
        command: command?,
        cwd: cwd?,
        level: level?,
        policy: isolation.policy,
        workspace_write: false,
        workspace_mode: workspace_mode(raw, level, scene, findings),
        enforcement: isolation.enforcement,
        env: variables.env,
        env_pass: variables.pass,
        environment: isolation.environment,
        secrets: variables.secrets,
        landlock: mode,
        read: isolation.read,
        write: isolation.write,
        hidden: isolation.hidden,
        protected: isolation.protected,
        policy_files: isolation.policy_files,
        network: isolation.network,
        grants: isolation.grants,
        filter: isolation.filter,
        limits: isolation.limits,
        tmp_bytes: isolation.tmp_bytes,
        log,
        asked: isolation.asked,
    };
    Some((launch, isolation.wall_ms))
}

/// A program's path without symbolic links in its directory, which is where level 2 shows it. The name
/// itself may be a link: some programs look at what they were called.
fn seen(program: &Path) -> PathBuf {
    let resolved = program.parent().and_then(|directory| directory.canonicalize().ok());
    match (resolved, program.file_name()) {
        (Some(directory), Some(name)) => directory.join(name),
        _ => program.to_path_buf(),
    }
}

/// What the agent writes: only a sandbox has a tree of its own.
fn workspace_mode(
    raw: &raw::Agent,
    level: Option<Level>,
    scene: &Scene<'_>,
    findings: &mut Findings,
) -> WorkspaceMode {
    let Some(At { value: Word(mode), span }) =
        raw.workspace_mode.as_ref().or(scene.workspace_mode.as_ref())
    else {
        return WorkspaceMode::default();
    };
    if *mode == WorkspaceMode::Private && level.is_some_and(|level| level < Level::Namespaces) {
        findings.error_with_help(
            span,
            "a private workspace needs isolation level 2",
            "set `isolation = 2` for these agents, or `workspace_mode = \"shared\"`",
        );
    }
    *mode
}

/// A workspace that the role only reads can't lie in a directory that the agent writes.
fn keep_read_only(raw: &raw::Agent, scene: &Scene<'_>, findings: &mut Findings) {
    let Some(workspace) = &scene.workspace else { return };
    for path in raw.write.iter().flatten() {
        let around = scene.base.join(&path.value).canonicalize();
        if around.is_ok_and(|around| workspace.starts_with(around)) {
            findings.error_with_help(
                &path.span,
                format!("the workspace lies in {}, and this role only reads it", path.value),
                "give it a role with `write`, or other directories",
            );
        }
    }
}

fn directories(
    raw: Option<&[At<String>]>,
    what: &str,
    scene: &Scene<'_>,
    findings: &mut Findings,
) -> Option<Vec<(PathBuf, Range<usize>)>> {
    let all: Vec<_> = raw
        .unwrap_or_default()
        .iter()
        .map(|path| {
            directory(&scene.base, path, what, findings).map(|dir| (dir, path.span.clone()))
        })
        .collect();
    all.into_iter().collect()
}
