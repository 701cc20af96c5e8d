//! What the parts of a mission file are checked against, and the checks that several parts share.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::policy::{self, Refused};
pub(super) use super::read::at_least_one;
use super::read::{At, Findings};
use super::words::Word;
use super::{Host, Problem, WorkspaceMode, dirs, source};
use crate::core::spec::Permissions;
use crate::ids::{MissionName, RoleName};
use crate::policy::{Enforcement, Level, Origin, Policy};

/// What the parts are checked against.
pub(super) struct Scene<'a> {
    pub(super) host: &'a Host,
    /// The directory of the mission file; relative paths start here.
    pub(super) base: PathBuf,
    pub(super) name: Option<MissionName>,
    pub(super) workspace: Option<PathBuf>,
    pub(super) level: Option<Level>,
    /// What agents write that don't say so themselves.
    pub(super) workspace_mode: Option<At<Word<WorkspaceMode>>>,
    /// What the mission says about kernels that lack something.
    pub(super) enforcement: Option<Enforcement>,
    /// The mission file, as origins call it, and its text.
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
    /// The policy that the mission names.
    pub(super) policy: Option<At<String>>,
    /// Policies that were loaded, and what is wrong with them.
    pub(super) policies: RefCell<Policies>,
    /// The permissions of each role; none where its definition is wrong.
    pub(super) roles: BTreeMap<RoleName, Option<Permissions>>,
}

/// Policies by name; none for one that is wrong, whose problems are listed once.
#[derive(Default)]
pub(super) struct Policies {
    pub(super) loaded: BTreeMap<String, Option<Arc<Policy>>>,
    pub(super) problems: Vec<Problem>,
}

impl Scene<'_> {
    /// The policy of a name; what is wrong with it is reported where it is named first.
    pub(super) fn policy(&self, name: &At<String>, findings: &mut Findings) -> Option<Arc<Policy>> {
        let mut policies = self.policies.borrow_mut();
        if let Some(known) = policies.loaded.get(&name.value) {
            return known.clone();
        }
        let policy = match policy::load(&name.value, &self.base, self.host) {
            Ok(policy) => Some(Arc::new(policy)),
            Err(Refused::Nowhere { message, help }) => {
                findings.error_with_help(&name.span, message, help);
                None
            }
            Err(Refused::Problems(problems)) => {
                policies.problems.extend(problems);
                None
            }
        };
        policies.loaded.insert(name.value.clone(), policy.clone());
        policy
    }

    /// The line of a place in the mission file.
    pub(super) fn origin(&self, span: &Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Origin { file: self.file.to_string_lossy().into(), line }
    }
}

/// A level that this version grants.
pub(super) fn level(at: &At<Level>, findings: &mut Findings) -> Option<Level> {
    let level = at.value;
    if level <= Level::Namespaces {
        return Some(level);
    }
    findings.error_with_help(
        &at.span,
        format!("isolation level {level} is not in this version"),
        "a level is granted in full or not at all; this version has \"none\", 1 and 2",
    );
    None
}

/// An existing directory, absolute and without symbolic links.
pub(super) fn directory(
    base: &Path,
    path: &At<String>,
    what: &str,
    findings: &mut Findings,
) -> Option<PathBuf> {
    let named = base.join(&path.value);
    let problem = match named.canonicalize() {
        Err(error) => {
            let help = if path.value.starts_with('~') {
                "`~` is not expanded here: write the whole path"
            } else {
                "relative paths start at the directory of the mission file"
            };
            let message = format!("{what} {}: {}", named.display(), source::cause(&error));
            findings.error_with_help(&path.span, message, help);
            return None;
        }
        Ok(found) if !found.is_dir() => format!("{what} {} is not a directory", named.display()),
        Ok(found) if found.parent().is_none() => format!("{what} can't be the root directory"),
        Ok(found) if found.to_str().is_none() => {
            format!("{what} {} is not valid UTF-8", found.display())
        }
        Ok(found) => return Some(found),
    };
    findings.error(&path.span, problem);
    None
}

/// Refuses a directory for agents that holds missiond's own files: they could rewrite the log.
pub(super) fn keep_from_own_files(
    directory: &Path,
    what: &str,
    span: &Range<usize>,
    host: &Host,
    findings: &mut Findings,
) {
    for own in host.places.bases() {
        if own.starts_with(directory) || directory.starts_with(own) {
            findings.error_with_help(
                span,
                format!("{what} and missiond's own files in {} overlap", own.display()),
                "agents could change the mission's log; choose a directory of its own",
            );
        }
    }
}

/// Reports a path that doesn't fit into a socket address.
pub(super) fn socket_path(path: &Path, what: &str, span: &Range<usize>, findings: &mut Findings) {
    let length = path.as_os_str().len();
    if length <= dirs::MAX_SOCKET_PATH {
        return;
    }
    findings.error_with_help(
        span,
        format!(
            "the path of {what} has {length} bytes, {} is the most: {}",
            dirs::MAX_SOCKET_PATH,
            path.display()
        ),
        "shorten the name, or set XDG_RUNTIME_DIR to a shorter directory",
    );
}
