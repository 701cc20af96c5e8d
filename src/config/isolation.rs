//! What an agent may do to the machine: its policy, with what its own section says over it.
//!
//! | key | policy | agent's section |
//! |---|---|---|
//! | `read`, `write`, `grants` | united | united |
//! | `limits`, `network` | | wins |
//! | `landlock` (whether it may be missing) | | the mission's `enforcement` wins |
//!
//! At level 1 an agent has a policy if one is named; at level 2 always; at `none` never. It
//! deliberately doesn't say what a kernel makes of all that: that is the planner's.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::policy::{PolicyPaths, policy_paths};
use super::raw;
use super::read::{At, Findings};
use super::scene::{Scene, at_least_one, keep_from_own_files};
use super::units::Bytes;
use super::words::Word;
use super::{Asked, raw::Number};
use crate::policy::bpf::Instruction;
use crate::policy::model::{DEFAULT_POLICY, Said, Syscalls};
use crate::policy::sandbox::Network;
use crate::policy::seccomp::native;
use crate::policy::{Enforcement, Grants, Level, Limits, Policy};

/// Processes and threads of an agent that asks for no other number.
const PIDS: u64 = 1024;

/// A path of the agent's section and where it stands.
pub(super) type Placed = (PathBuf, Range<usize>);

/// What comes out.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    pub(super) policy: Option<String>,
    pub(super) environment: Option<Vec<String>>,
    pub(super) network: Network,
    pub(super) enforcement: Enforcement,
    pub(super) read: Vec<PathBuf>,
    pub(super) write: Vec<PathBuf>,
    pub(super) hidden: Vec<PathBuf>,
    pub(super) protected: Vec<String>,
    pub(super) policy_files: Vec<PathBuf>,
    pub(super) grants: Grants,
    pub(super) filter: Option<Arc<[Instruction]>>,
    pub(super) limits: Limits,
    pub(super) wall_ms: Option<u64>,
    pub(super) tmp_bytes: Option<u64>,
    pub(super) asked: Asked,
}

/// Puts an agent's isolation together.
pub(super) fn isolation(
    raw: &raw::Agent,
    level: Level,
    read: &[Placed],
    write: &[Placed],
    scene: &Scene<'_>,
    findings: &mut Findings,
) -> Option<Isolation> {
    let mut asked = Asked::default();
    for (list, what) in [(read, "read"), (write, "write")] {
        for (path, span) in list {
            asked.note(format!("{what} {}", path.display()), &scene.origin(span));
        }
    }
    // The agent's own first: the first to ask stays.
    let own_limits = limits(raw, level, scene, &mut asked, findings);
    let network = raw.network.as_ref().map(|At { value: Word(network), span }| {
        asked.note("network", &scene.origin(span));
        if level < Level::Namespaces && *network == Network::None {
            findings.error_with_help(
                span,
                format!("level {level} can't keep an agent from the network"),
                "`isolation = 2` can",
            );
        }
        *network
    });
    let mut grants = Grants::default();
    for At { value: Word(grant), span } in raw.grants.iter().flatten() {
        grant.give(&mut grants);
        asked.note(format!("grant {grant:?}"), &scene.origin(span));
    }
    let paths = |list: &[Placed]| list.iter().map(|(path, _)| path.clone()).collect();
    let own = Isolation {
        network: network.unwrap_or(Network::Host),
        enforcement: scene.enforcement.unwrap_or_default(),
        read: paths(read),
        write: paths(write),
        grants,
        asked,
        ..own_limits
    };
    let Some(policy) = policy_of(raw, level, scene, findings)? else {
        let limits = Limits { pids: own.limits.pids.or(Some(PIDS)), ..own.limits };
        return Some(Isolation { limits, ..own });
    };
    let named = raw.policy.as_ref().or(scene.policy.as_ref());
    let span = named.map_or(0..0, |named| named.span.clone());
    let paths = policy_paths(&policy, scene.host, scene.workspace.as_deref());
    for said in &paths.write {
        let what = format!("a `write` path of policy \"{}\" ({})", policy.name, said.origin);
        keep_from_own_files(&said.value, &what, &span, scene.host, findings);
    }
    Some(over(own, &policy, paths, network, level, scene))
}

/// The policy of an agent; outer `None` for one that is wrong.
fn policy_of(
    raw: &raw::Agent,
    level: Level,
    scene: &Scene<'_>,
    findings: &mut Findings,
) -> Option<Option<Arc<Policy>>> {
    if level == Level::None {
        if let Some(name) = &raw.policy {
            findings.error_with_help(
                &name.span,
                "at level \"none\" there is no policy",
                "remove `policy`, or set `isolation` to 1 or 2",
            );
        }
        return Some(None);
    }
    match raw.policy.as_ref().or(scene.policy.as_ref()) {
        Some(name) => scene.policy(name, findings).map(Some),
        None if level >= Level::Namespaces => {
            let standard = At { value: DEFAULT_POLICY.to_owned(), span: 0..0 };
            scene.policy(&standard, findings).map(Some)
        }
        None => Some(None),
    }
}

/// What the agent's section says, over its policy.
fn over(
    own: Isolation,
    policy: &Policy,
    paths: PolicyPaths,
    network: Option<Network>,
    level: Level,
    scene: &Scene<'_>,
) -> Isolation {
    let mut all = own;
    let asked = &mut all.asked;
    let mut add = |list: &mut Vec<PathBuf>, said: Vec<Said<PathBuf>>, what: &str| {
        for Said { value, origin } in said {
            // Landlock's rules at level 1 are about directories.
            if level < Level::Namespaces && !value.is_dir() {
                continue;
            }
            asked.note(format!("{what} {}", value.display()), &origin);
            if !list.contains(&value) {
                list.push(value);
            }
        }
    };
    add(&mut all.read, paths.read, "read");
    add(&mut all.write, paths.write, "write");
    add(&mut all.hidden, paths.hidden, "hidden");
    all.policy_files.clone_from(&policy.files);
    for name in &policy.protected {
        asked.note(format!("protected {}", name.value), &name.origin);
        all.protected.push(name.value.clone());
    }
    for name in &policy.environment {
        asked.note(format!("environment {}", name.value), &name.origin);
    }
    all.environment = Some(policy.environment.iter().map(|name| name.value.clone()).collect());
    for grant in &policy.grants {
        grant.value.give(&mut all.grants);
        asked.note(format!("grant {:?}", grant.value), &grant.origin);
    }
    if let Some(said) = &policy.network {
        asked.note("network", &said.origin);
    }
    // A policy that says nothing about the network gives none, where that can be.
    let silent = if level >= Level::Namespaces { Network::None } else { Network::Host };
    all.network =
        network.unwrap_or_else(|| policy.network.as_ref().map_or(silent, |said| said.value));
    if let Some(said) = &policy.landlock {
        asked.note("landlock", &said.origin);
        all.enforcement = scene.enforcement.unwrap_or(said.value);
    }
    if let Some(said) = &policy.syscalls {
        asked.note("syscalls", &said.origin);
        if let Syscalls::File { profile, .. } = &said.value
            && level >= Level::Namespaces
        {
            // One that can't be compiled was refused when it was read.
            let compiled = native().and_then(|arch| {
                let profile = profile.as_ref().clone().with_grants(all.grants).ok()?;
                profile.compile(&arch).ok()
            });
            all.filter = compiled.map(Into::into);
        }
    }
    let mut pick = |key: &str, own: Option<u64>, said: &Option<Said<u64>>| {
        if let Some(said) = said {
            asked.note(format!("limits.{key}"), &said.origin);
        }
        own.or(said.as_ref().map(|said| said.value))
    };
    let said = &policy.limits;
    all.limits = Limits {
        memory: pick("memory", all.limits.memory, &said.memory),
        pids: pick("pids", all.limits.pids, &said.pids).or(Some(PIDS)),
        nofile: pick("nofile", all.limits.nofile, &said.nofile),
        file_size: pick("fsize", all.limits.file_size, &said.file_size),
        cpu_seconds: pick("cpu_time", all.limits.cpu_seconds, &said.cpu_seconds),
        cpu_milli: all.limits.cpu_milli.or(said.cpu_milli.as_ref().map(|said| said.value)),
    };
    all.wall_ms = pick("wall", all.wall_ms, &said.wall_ms);
    all.tmp_bytes = pick("tmp", all.tmp_bytes, &said.tmp);
    if let Some(said) = &said.cpu_milli {
        asked.note("limits.cpu", &said.origin);
    }
    all.policy = Some(policy.name.clone());
    all
}

/// The limits of the agent's section.
fn limits(
    raw: &raw::Agent,
    level: Level,
    scene: &Scene<'_>,
    asked: &mut Asked,
    findings: &mut Findings,
) -> Isolation {
    let Some(raw) = &raw.limits else { return Isolation::default() };
    let mut note = |key: &str, span: &Range<usize>| {
        asked.note(format!("limits.{key}"), &scene.origin(span));
    };
    let mut bytes = |key: &str, at: &Option<At<Bytes>>, findings: &mut Findings| {
        let At { value: Bytes(bytes), span } = at.as_ref()?;
        at_least_one(key, *bytes, span, findings);
        note(key, span);
        Some(*bytes)
    };
    let memory = bytes("memory", &raw.memory, findings);
    let file_size = bytes("fsize", &raw.fsize, findings);
    let tmp_bytes = bytes("tmp", &raw.tmp, findings);
    if let Some(at) = raw.tmp.as_ref().filter(|_| level < Level::Namespaces) {
        findings.error_with_help(
            &at.span,
            format!("at level {level} there is no private /tmp that `tmp` could bound"),
            "`isolation = 2` has one",
        );
    }
    let mut count = |key: &str, at: &Option<At<u64>>, findings: &mut Findings| {
        let At { value, span } = at.as_ref()?;
        at_least_one(key, *value, span, findings);
        note(key, span);
        Some(*value)
    };
    let pids = count("pids", &raw.pids, findings);
    let nofile = count("nofile", &raw.nofile, findings);
    let cpu_seconds = raw.cpu_time.as_ref().map(|at| {
        if at.value.0 < 1_000 {
            findings.error(&at.span, "`cpu_time` must be at least 1s");
        }
        note("cpu_time", &at.span);
        at.value.0.div_ceil(1_000)
    });
    let cpu_milli = raw.cpu.as_ref().map(|At { value: Number(milli), span }| {
        note("cpu", span);
        *milli
    });
    let wall_ms = raw.wall.as_ref().map(|at| {
        at_least_one("wall", at.value.0, &at.span, findings);
        note("wall", &at.span);
        at.value.0
    });
    Isolation {
        limits: Limits { memory, pids, nofile, file_size, cpu_seconds, cpu_milli },
        wall_ms,
        tmp_bytes,
        ..Isolation::default()
    }
}
