//! The environment an agent starts with.
//!
//! At level 1 it is built from an allow-list, so that what the daemon happens to carry
//! (`LD_PRELOAD`, `SSH_AUTH_SOCK`, tokens) never arrives; at `none` it is the daemon's own.

use std::collections::BTreeMap;
use std::path::Path;

use super::Level;
use super::model::passes;

/// Names that pass from the host at level 1; every `LC_*` does as well.
pub const ALLOWED: [&str; 7] = ["PATH", "LANG", "TERM", "TZ", "SHELL", "USER", "LOGNAME"];

/// `PATH` where neither the host nor the agent has one.
pub const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What an environment is made from, weakest first.
#[derive(Clone, Copy)]
pub struct EnvironmentRequest<'a> {
    /// Decides what passes from `host`.
    pub level: Level,
    /// What passes from `host` at level 1 and up, `*` at the end for the rest of a name; [`ALLOWED`]
    /// and every `LC_*` if none.
    pub allowed: Option<&'a [String]>,
    /// The daemon's own environment. Its `MISSION_*` never pass: they belong to another agent.
    pub host: &'a [(String, String)],
    /// The agent's `$HOME`; replaces the host's at level 1.
    pub home: Option<&'a Path>,
    /// The agent's `$TMPDIR`; replaces the host's at level 1. At level 2 it is `/tmp`.
    pub tmpdir: Option<&'a Path>,
    /// Names from `mission.toml`: variables and secrets. `MISSION_*` is reserved.
    pub declared: &'a [(String, String)],
    /// The `MISSION_*` variables.
    pub mission: &'a [(String, String)],
    /// First in `PATH`, on a path that no agent can write.
    pub missionctl_dir: Option<&'a Path>,
    /// No entry of `PATH` lies in here at level 1 and up: an agent could plant a program there.
    pub workspace: Option<&'a Path>,
}

/// Why an environment can't be made. Values are never part of a message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvironmentError {
    /// A declared name starts with `MISSION_`.
    #[error("environment variable {0} is reserved")]
    Reserved(String),
    /// An empty name, or one with `=` or a NUL byte.
    #[error("environment variable name {0:?} is not valid")]
    Name(String),
    /// A value with a NUL byte.
    #[error("the value of environment variable {0} holds a NUL byte")]
    Value(String),
    /// A path that isn't UTF-8.
    #[error("the path for {0} is not valid UTF-8")]
    Path(&'static str),
}

/// Makes the complete environment, sorted by name, each name once.
///
/// # Errors
/// For names and values that execve(2) can't carry, and reserved names.
pub fn environment(
    request: &EnvironmentRequest<'_>,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let scrubbed = request.level > Level::None;
    let mut all = BTreeMap::<String, String>::new();
    for (name, value) in request.host {
        let passes = !scrubbed
            || match request.allowed {
                Some(allowed) => passes(allowed, name),
                None => ALLOWED.contains(&name.as_str()) || name.starts_with("LC_"),
            };
        if passes && !reserved(name) && check(name, value).is_ok() {
            all.insert(name.clone(), value.clone());
        }
    }
    if scrubbed {
        // At level 2 /tmp is the agent's own.
        let own_tmp = (request.level >= Level::Namespaces).then_some(Path::new("/tmp"));
        for (name, path) in [("HOME", request.home), ("TMPDIR", own_tmp.or(request.tmpdir))] {
            if let Some(path) = path {
                all.insert(name.into(), text(name, path)?);
            }
        }
    }
    for (name, value) in request.declared {
        if reserved(name) {
            return Err(EnvironmentError::Reserved(name.clone()));
        }
        check(name, value)?;
        all.insert(name.clone(), value.clone());
    }
    for (name, value) in request.mission {
        check(name, value)?;
        all.insert(name.clone(), value.clone());
    }
    let path = search_path(request, scrubbed, all.get("PATH").map(String::as_str))?;
    all.insert("PATH".into(), path);
    Ok(all.into_iter().collect())
}

fn search_path(
    request: &EnvironmentRequest<'_>,
    scrubbed: bool,
    given: Option<&str>,
) -> Result<String, EnvironmentError> {
    let given = given.unwrap_or(DEFAULT_PATH).split(':').filter(|entry| {
        let path = Path::new(entry);
        !scrubbed
            || path.is_absolute()
                && !request.workspace.is_some_and(|workspace| path.starts_with(workspace))
    });
    let first = request.missionctl_dir.map(|dir| text("PATH", dir)).transpose()?;
    Ok(first.as_deref().into_iter().chain(given).collect::<Vec<_>>().join(":"))
}

fn reserved(name: &str) -> bool {
    name.starts_with("MISSION_")
}

fn check(name: &str, value: &str) -> Result<(), EnvironmentError> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(EnvironmentError::Name(name.into()));
    }
    if value.contains('\0') {
        return Err(EnvironmentError::Value(name.into()));
    }
    Ok(())
}

fn text(name: &'static str, path: &Path) -> Result<String, EnvironmentError> {
    path.to_str().map(str::to_owned).ok_or(EnvironmentError::Path(name))
}
