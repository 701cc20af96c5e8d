//! Policy files: from a name to a [`Policy`], with everything that it inherits.
//!
//! ```text
//! "coding", "./mine.toml" --find--> text --section--> layer --over--> Policy
//!                              ^                        | inherits
//!                              `------------------------'
//! ```
//!
//! A name is a preset, or `NAME.toml` in `$XDG_CONFIG_HOME/missiond/policies`; something with a `/` in it
//! is a file, relative to the one that names it. Presets come first, so that `coding` means the same
//! everywhere. What a policy's paths and numbers become for one agent is the module `isolation`'s.
//!
//! It deliberately doesn't say what a policy means: that is [`crate::policy`]'s.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::problem::{nearest, place};
use super::raw::{Number, PolicyFile, PolicyLimits};
use super::read::{At, Findings, at_least_one};
use super::units::{Bytes, Millis};
use super::words::Word;
use super::{ConfigError, Host, Problem, source};
use crate::policy::model::{
    self, MAX_INHERITED, Origin, PRESETS, PathBases, Policy, Said, Syscalls, check_protected,
};
use crate::policy::seccomp::Profile;

/// Why a policy can't be had.
#[derive(Debug)]
pub(super) enum Refused {
    /// There is none of that name; to be told where the name stands.
    Nowhere {
        /// What is wrong.
        message: String,
        /// What to do.
        help: String,
    },
    /// Its file, or one that it inherits, is wrong.
    Problems(Vec<Problem>),
}

impl From<Refused> for ConfigError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Nowhere { message, help } => ConfigError::Policy { message, help },
            Refused::Problems(problems) => ConfigError::Invalid { problems },
        }
    }
}

/// A policy's text, and where it came from.
struct Found {
    text: Cow<'static, str>,
    /// As problems and origins call it.
    file: PathBuf,
    /// Where its relative paths start; none for a preset.
    base: Option<PathBuf>,
}

/// Loads a policy by its name, or by its path from `base`.
pub(super) fn load(name: &str, base: &Path, host: &Host) -> Result<Policy, Refused> {
    load_after(name, Some(base), host, &mut Vec::new())
}

fn load_after(
    name: &str,
    base: Option<&Path>,
    host: &Host,
    before: &mut Vec<PathBuf>,
) -> Result<Policy, Refused> {
    let found = find(name, base, host)?;
    if before.contains(&found.file) {
        let row: Vec<String> = before.iter().map(|file| file.display().to_string()).collect();
        return Err(Refused::Nowhere {
            message: format!("policy \"{name}\" inherits itself: {}", row.join(" -> ")),
            help: "a policy can't be its own parent".into(),
        });
    }
    if before.len() > MAX_INHERITED {
        return Err(Refused::Nowhere {
            message: format!("more than {MAX_INHERITED} policies inherit one another"),
            help: "put some of them together".into(),
        });
    }
    before.push(found.file.clone());

    let text: &str = &found.text;
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(Refused::Problems(source::syntax(&found.file, text, &errors)));
    }
    let mut findings = Findings::default();
    let raw = PolicyFile::of(document.get_ref(), 0..0, "policy", &mut findings);
    let inherits = raw.inherits.clone();
    let own = Layer { found: &found, findings: &mut findings }.policy(name, raw);
    let mut problems = Vec::new();
    let parent = match inherits {
        None => Some(Policy::default()),
        Some(parent) => match load_after(&parent.value, found.base.as_deref(), host, before) {
            Ok(policy) => Some(policy),
            Err(Refused::Nowhere { message, help }) => {
                findings.error_with_help(&parent.span, message, help);
                None
            }
            Err(Refused::Problems(others)) => {
                problems.extend(others);
                None
            }
        },
    };
    problems.extend(place(&found.file, text, findings.list, &findings.masked));
    match parent {
        Some(parent) if problems.is_empty() => Ok(own.over(parent)),
        Some(_) | None => Err(Refused::Problems(problems)),
    }
}

fn find(name: &str, base: Option<&Path>, host: &Host) -> Result<Found, Refused> {
    if let Some((preset, text)) = PRESETS.iter().find(|(preset, _)| *preset == name) {
        let file = PathBuf::from(format!("{preset} (built in)"));
        return Ok(Found { text: Cow::Borrowed(text), file, base: None });
    }
    let by_path = name.contains('/') || name.ends_with(".toml");
    let file = match (by_path, base, &host.policies) {
        (true, Some(base), _) => base.join(name).components().collect(),
        (false, _, Some(directory)) => directory.join(format!("{name}.toml")),
        (true, None, _) | (false, _, None) => return Err(nowhere(name, None)),
    };
    match source::read(&file) {
        Ok(text) => {
            let base = file.parent().map(Path::to_path_buf);
            Ok(Found { text: Cow::Owned(text), file, base })
        }
        Err(ConfigError::Unreadable { source, .. }) => Err(nowhere(name, Some((&file, &source)))),
        Err(ConfigError::Invalid { problems }) => Err(Refused::Problems(problems)),
        Err(_) => Err(Refused::Nowhere {
            message: format!("policy {} is not a small regular file", file.display()),
            help: "a policy is a TOML file of a few lines".into(),
        }),
    }
}

fn nowhere(name: &str, tried: Option<(&Path, &std::io::Error)>) -> Refused {
    let presets = || PRESETS.iter().map(|(preset, _)| *preset);
    let message = match tried {
        Some((file, error)) => {
            format!("no policy \"{name}\": {}: {}", file.display(), source::cause(error))
        }
        None => format!("no policy \"{name}\""),
    };
    let help = nearest(name, presets()).map_or_else(
        || {
            let presets = presets().collect::<Vec<_>>().join(", ");
            format!("it is {presets}, a name in ~/.config/missiond/policies, or \"./FILE.toml\"")
        },
        |meant| format!("did you mean \"{meant}\"?"),
    );
    Refused::Nowhere { message, help }
}

/// One file, being read.
struct Layer<'a> {
    found: &'a Found,
    findings: &'a mut Findings,
}

impl Layer<'_> {
    fn policy(mut self, name: &str, raw: PolicyFile) -> Policy {
        let bases = PathBases { home: Some(Path::new("/")), workspace: Some(Path::new("/")) };
        let path = |text: &str| bases.expand(text).map(drop);
        let syscalls = raw.syscalls.and_then(|at| self.syscalls(&at));
        let beside = match syscalls.as_ref().map(|said| &said.value) {
            Some(Syscalls::File { path, .. }) => Some(path.clone()),
            Some(Syscalls::Default) | None => None,
        };
        // A preset is no file.
        let own = self.found.base.is_some().then(|| self.found.file.clone());
        Policy {
            name: name.to_owned(),
            files: own.into_iter().chain(beside).collect(),
            read: self.list(raw.read, path),
            write: self.list(raw.write, path),
            hidden: self.list(raw.hidden, path),
            protected: self.list(raw.protected, check_protected),
            environment: self.environment(raw.environment),
            network: raw.network.map(|At { value: Word(network), span }| self.said(network, &span)),
            syscalls,
            grants: raw
                .grants
                .into_iter()
                .flatten()
                .map(|At { value: Word(grant), span }| self.said(grant, &span))
                .collect(),
            landlock: raw.landlock.map(|At { value: Word(word), span }| self.said(word, &span)),
            limits: self.limits(raw.limits.unwrap_or_default()),
        }
    }

    fn said<T>(&self, value: T, span: &std::ops::Range<usize>) -> Said<T> {
        let before = self.found.text.get(..span.start).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let file: Arc<str> = self.found.file.to_string_lossy().into();
        Said { value, origin: Origin { file, line } }
    }

    fn list(
        &mut self,
        raw: Option<Vec<At<String>>>,
        check: impl Fn(&str) -> Result<(), model::PathError>,
    ) -> Vec<Said<String>> {
        let mut list = Vec::new();
        for At { value, span } in raw.into_iter().flatten() {
            match check(&value) {
                Ok(()) => list.push(self.said(value, &span)),
                Err(error) => self.findings.error(&span, format!("path \"{value}\" {error}")),
            }
        }
        list
    }

    fn environment(&mut self, raw: Option<Vec<At<String>>>) -> Vec<Said<String>> {
        let mut list = Vec::new();
        for At { value, span } in raw.into_iter().flatten() {
            let name = value.strip_suffix('*').unwrap_or(&value);
            let is_name = !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !name.starts_with(|c: char| c.is_ascii_digit());
            if !is_name {
                let message = format!("\"{value}\" can't be the name of a variable");
                let help = "a * may stand for the end of a name, not for all of it";
                self.findings.error_with_help(&span, message, help);
            } else if "MISSION_".starts_with(name) && value.ends_with('*')
                || name.starts_with("MISSION_")
            {
                self.findings.error(&span, "MISSION_ variables are set by missiond itself");
            } else {
                list.push(self.said(value, &span));
            }
        }
        list
    }

    fn syscalls(&mut self, at: &At<String>) -> Option<Said<Syscalls>> {
        if at.value == "default" {
            return Some(self.said(Syscalls::Default, &at.span));
        }
        let Some(base) = &self.found.base else {
            self.findings.error(&at.span, "a preset has no file beside it");
            return None;
        };
        let path: PathBuf = base.join(&at.value).components().collect();
        let shown = path.display().to_string();
        let text = match source::read(&path) {
            Ok(text) => text,
            Err(ConfigError::Unreadable { source, .. }) => {
                let message = format!("`syscalls` file {shown}: {}", source::cause(&source));
                let help =
                    "\"default\" is the built-in one; other paths start at this file's directory";
                self.findings.error_with_help(&at.span, message, help);
                return None;
            }
            Err(_) => {
                self.findings.error(&at.span, format!("{shown} is not a small file of UTF-8 text"));
                return None;
            }
        };
        match Profile::parse(&text) {
            Ok(profile) => {
                let profile = Arc::new(profile);
                Some(self.said(Syscalls::File { path, profile }, &at.span))
            }
            Err(error) => {
                let help = "the format is the one of Podman's and Docker's seccomp profiles";
                self.findings.error_with_help(&at.span, format!("{shown}: {error}"), help);
                None
            }
        }
    }

    fn limits(&mut self, raw: PolicyLimits) -> model::PolicyLimits {
        let mut above_0 = |key: &str, value: u64, span: &std::ops::Range<usize>| {
            at_least_one(key, value, span, self.findings);
        };
        let bytes = [("memory", &raw.memory), ("fsize", &raw.fsize), ("tmp", &raw.tmp)];
        for (key, at) in bytes.into_iter().filter_map(|(key, at)| Some((key, at.as_ref()?))) {
            above_0(key, at.value.0, &at.span);
        }
        for (key, at) in [("cpu_time", &raw.cpu_time), ("wall", &raw.wall)] {
            if let Some(at) = at {
                above_0(key, at.value.0, &at.span);
            }
        }
        for (key, at) in [("pids", &raw.pids), ("nofile", &raw.nofile)] {
            if let Some(at) = at {
                above_0(key, at.value, &at.span);
            }
        }
        let size = |at: Option<At<Bytes>>| at.map(|at| self.said(at.value.0, &at.span));
        let count = |at: Option<At<u64>>| at.map(|at| self.said(at.value, &at.span));
        let time = |at: Option<At<Millis>>| at.map(|at| self.said(at.value.0, &at.span));
        model::PolicyLimits {
            memory: size(raw.memory),
            pids: count(raw.pids),
            cpu_milli: raw.cpu.map(|At { value: Number(milli), span }| self.said(milli, &span)),
            cpu_seconds: time(raw.cpu_time)
                .map(|said| Said { value: said.value.div_ceil(1_000), origin: said.origin }),
            nofile: count(raw.nofile),
            file_size: size(raw.fsize),
            wall_ms: time(raw.wall),
            tmp: size(raw.tmp),
        }
    }
}

/// Loads a policy for a command that has no mission: by its name, or by its path from `base`.
///
/// # Errors
/// There is none, or it is wrong; the text says where.
pub fn policy(name: &str, base: &Path, host: &Host) -> Result<Policy, ConfigError> {
    Ok(load(name, base, host)?)
}

/// The paths of a policy for one workspace, as far as they exist: absolute, without symbolic links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyPaths {
    /// To read.
    pub read: Vec<Said<PathBuf>>,
    /// To write.
    pub write: Vec<Said<PathBuf>>,
    /// Never visible.
    pub hidden: Vec<Said<PathBuf>>,
}

/// Resolves the paths of a policy; what doesn't exist, or is the root directory, is left out.
#[must_use]
pub fn policy_paths(policy: &Policy, host: &Host, workspace: Option<&Path>) -> PolicyPaths {
    let bases = PathBases { home: host.home.as_deref(), workspace };
    let resolve = |list: &[Said<String>]| {
        list.iter()
            .filter_map(|said| {
                let path = bases.expand(&said.value).ok().flatten()?.canonicalize().ok()?;
                path.parent()?;
                Some(Said { value: path, origin: said.origin.clone() })
            })
            .collect()
    };
    PolicyPaths {
        read: resolve(&policy.read),
        write: resolve(&policy.write),
        hidden: resolve(&policy.hidden),
    }
}
