//! From sections to a [`Mission`]: what the parts of a file mean together.
//!
//! Everything that can be checked is checked, whatever was wrong before it; only what depends on a
//! missing part is left out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::problem::place;
use super::raw;
use super::read::{At, Findings, Named};
use super::scene::{Scene, at_least_one, directory, keep_from_own_files, level, socket_path};
use super::units::{Bytes, Millis};
use super::words::Word;
use super::{ConfigError, Durability, Host, Mission, Problem, agents, source, tasks};
use crate::core::spec::{Limits, MissionSpec, Permission, Permissions, Until, builtin_roles};
use crate::ids::RoleName;
use crate::policy::Level;

/// Bytes of log that a mission may have by default.
const STORE_BYTES: u64 = 4 << 30;
/// Bytes of checkpoints' files that a mission may have by default.
const BLOB_BYTES: u64 = 16 << 30;

/// Checks a whole text.
pub(super) fn mission(
    file: &Path,
    absolute: PathBuf,
    text: &str,
    host: &Host,
) -> Result<Mission, ConfigError> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(ConfigError::Invalid { problems: source::syntax(file, text, &errors) });
    }
    let mut findings = Findings::default();
    let raw = raw::File::of(document.get_ref(), 0..0, "", &mut findings);
    let mut others = Vec::new();
    let built = build(raw, (file, text), absolute, host, &mut findings, &mut others);
    let mut problems = place(file, text, findings.list, &findings.masked);
    problems.extend(others);
    match built {
        Some(mission) if problems.iter().all(|problem| problem.warning) => {
            Ok(Mission { warnings: problems, ..mission })
        }
        Some(_) | None => Err(ConfigError::Invalid { problems }),
    }
}

/// `others` are problems of other files than this one.
fn build(
    raw: raw::File,
    (named, text): (&Path, &str),
    file: PathBuf,
    host: &Host,
    findings: &mut Findings,
    others: &mut Vec<Problem>,
) -> Option<Mission> {
    let base = file.parent().map(Path::to_path_buf).unwrap_or_default();
    let raw_limits = raw.limits.unwrap_or_default();
    let store_bytes = raw_limits.store_bytes.as_ref().map_or(STORE_BYTES, |at| at.value.0);
    let blob_bytes = raw_limits.blob_bytes.as_ref().map_or(BLOB_BYTES, |at| at.value.0);
    let limits = limits(raw_limits, findings);
    let roles = roles(raw.roles.unwrap_or_default(), findings);
    let workspace = raw.mission.as_ref().and_then(|mission| {
        // Without the key it is the directory of the file.
        let beside = At { value: ".".into(), span: mission.span.clone() };
        let path = mission.value.workspace.as_ref().unwrap_or(&beside);
        let found = directory(&base, path, "workspace", findings)?;
        keep_from_own_files(&found, "the workspace", &path.span, host, findings);
        Some(found)
    });
    let head = raw.mission.map(|mission| mission.value).unwrap_or_default();
    let scene = Scene {
        host,
        base,
        name: head.name.as_ref().map(|name| name.value.0.clone()),
        workspace,
        level: match &head.isolation {
            Some(at) => level(at, findings),
            None => Some(Level::Process),
        },
        workspace_mode: head.workspace_mode,
        enforcement: head.enforcement.map(|Word(word)| word),
        file: named,
        text,
        policy: head.policy,
        policies: RefCell::default(),
        roles,
    };
    if let Some(name) = &head.name {
        let socket = host.places.of(&name.value.0).control_socket();
        socket_path(&socket, "the control socket", &name.span, findings);
    }
    let agents = agents::agents(raw.agents, &scene, &limits, findings);
    if let Some(name) = &scene.policy {
        // Also where every agent has its own: what is written is checked.
        scene.policy(name, findings);
    }
    others.append(&mut scene.policies.borrow_mut().problems);
    let tasks = tasks::tasks(raw.tasks.unwrap_or_default(), &agents, &limits, findings);
    let mut roles = BTreeMap::new();
    for (name, permissions) in scene.roles {
        roles.insert(name, permissions?);
    }
    let (specs, launches) = agents.finish()?;
    Some(Mission {
        spec: MissionSpec {
            name: scene.name?,
            until: head.until.map_or(Until::default(), |Word(word)| word),
            roles,
            limits,
            agents: specs,
            tasks: tasks?,
        },
        file,
        workspace: scene.workspace?,
        durability: head.durability.map_or(Durability::default(), |Word(word)| word),
        store_bytes,
        blob_bytes,
        agents: launches,
        warnings: Vec::new(),
    })
}

fn roles(
    raw: Named<raw::Role>,
    findings: &mut Findings,
) -> BTreeMap<RoleName, Option<Permissions>> {
    let builtin = builtin_roles();
    let mut roles = BTreeMap::new();
    for (name, permissions) in builtin {
        if let Ok(name) = RoleName::new(name) {
            roles.insert(name, Some(permissions));
        }
    }
    for (name, role) in raw.0 {
        if builtin.iter().any(|(builtin, _)| *builtin == name.value) {
            findings.error_with_help(
                &name.span,
                format!("role `{}` is built in and can't be changed", name.value),
                "give the new role its own name",
            );
            continue;
        }
        match RoleName::new(&name.value) {
            Ok(id) => {
                let words = role.and_then(|role| role.permissions);
                let permissions = words.map(|words| {
                    Permissions::of(&words.iter().map(|Word(p)| *p).collect::<Vec<Permission>>())
                });
                roles.insert(id, permissions);
            }
            Err(error) => findings.error(&name.span, error.to_string()),
        }
    }
    roles
}

macro_rules! take_limits {
    ($raw:ident, $findings:ident, [$($numbers:ident),*], [$($bytes:ident),*], [$($times:ident: $key:ident),*]) => {{
        let standard = Limits::default();
        $(let $numbers = $raw.$numbers.map_or(standard.$numbers, |at| {
            at_least_one(stringify!($numbers), at.value.into(), &at.span, $findings);
            at.value
        });)*
        $(let $bytes = $raw.$bytes.map_or(standard.$bytes, |At { value: Bytes(bytes), span }| {
            at_least_one(stringify!($bytes), bytes, &span, $findings);
            bytes
        });)*
        $(let $times = $raw.$key.map_or(standard.$times, |At { value: Millis(ms), span }| {
            at_least_one(stringify!($key), ms, &span, $findings);
            ms
        });)*
        // Complete on purpose: a new bound of the core needs its key here.
        Limits {
            $($numbers,)* $($bytes,)* $($times,)*
            denials_per_minute: $raw.denials_per_minute.map_or(standard.denials_per_minute, |at| at.value),
        }
    }};
}

fn limits(raw: raw::Limits, findings: &mut Findings) -> Limits {
    if let Some(At { value: Bytes(bytes), span }) = &raw.store_bytes
        && *bytes < 1 << 20
    {
        findings.error(span, "`store_bytes` must be at least 1MiB");
    }
    if let Some(At { value: Bytes(0), span }) = &raw.blob_bytes {
        findings.error(span, "`blob_bytes` must be at least 1");
    }
    take_limits!(
        raw,
        findings,
        [
            max_agents,
            max_tasks,
            max_handoffs,
            keep_checkpoints,
            subscriptions,
            inbox_messages,
            checkpoint_files,
            max_nacks,
            keys_per_agent,
            requests_per_second,
            connections
        ],
        [max_content, inbox_bytes, checkpoint_bytes, key_bytes],
        [
            message_ttl_ms: message_ttl,
            handoff_request_ms: handoff_request,
            handoff_drain_ms: handoff_drain,
            handoff_complete_ms: handoff_complete,
            keep_finished_ms: keep_finished,
            key_ttl_ms: key_ttl
        ]
    )
}
