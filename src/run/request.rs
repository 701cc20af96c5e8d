//! From the command line to what is asked of the planner.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cli::{Args, Net};
use super::home::Throwaway;
use super::protect::{ProtectError, Protection, protect};
use crate::config::{self, ConfigError, Host};
use crate::policy::bpf::Instruction;
use crate::policy::model::{Policy, PolicyLimits, Said, Syscalls};
use crate::policy::sandbox::Network;
use crate::policy::seccomp::native;
use crate::policy::{
    EnvironmentError, EnvironmentRequest, Grants, Level, Limits, PlanRequest, Roots, environment,
};

/// Directories that are the system's, or the sandbox's own: never a workspace, though one can stand in
/// them.
const NO_WORKSPACE: [&str; 17] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root",
    "/run", "/sbin", "/sys", "/tmp", "/usr", "/var",
];

/// Why a request can't be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("level 3 needs a mission")]
    Container,
    #[error("level 1 can't keep a command from the network")]
    NetworkAtLevel1,
    #[error("cannot find the current directory")]
    Cwd(#[source] io::Error),
    #[error(transparent)]
    Policy(#[from] ConfigError),
    #[error("cannot tell whose command this is")]
    Host(#[source] crate::config::dirs::DirsError),
    #[error("policy `{0}` limits the time, which only a mission keeps")]
    Wall(String),
    #[error("the seccomp profile of policy `{0}` can't be used on this machine")]
    Profile(String),
    #[error("cannot use {} for {option}", path.display())]
    Path {
        option: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0} isn't valid UTF-8")]
    NotText(&'static str),
    #[error("cannot make the environment")]
    Environment(#[from] EnvironmentError),
    #[error("cannot protect what is in the writable directories")]
    Protect(#[from] ProtectError),
    #[error("cannot make a home directory")]
    Home(#[source] io::Error),
}

impl RequestError {
    /// What to do about it.
    pub(super) fn help(&self) -> Option<&'static str> {
        match self {
            Self::Container => {
                Some("containers belong to missions: `isolation = 3` in mission.toml")
            }
            Self::NetworkAtLevel1 => Some("use --level 2, or --net host"),
            Self::Wall(_) => Some("use timeout(1) for a single command"),
            Self::Policy(_)
            | Self::Host(_)
            | Self::Profile(_)
            | Self::Cwd(_)
            | Self::Path { .. }
            | Self::NotText(_)
            | Self::Environment(_)
            | Self::Protect(_)
            | Self::Home(_) => None,
        }
    }
}

/// All that a run needs beside its plan.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) request: PlanRequest,
    pub(super) argv: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) cwd: PathBuf,
    /// What can't be protected in the writable directories, as sentences.
    pub(super) gaps: Vec<String>,
    _protection: Protection,
    /// Removed when this goes.
    _home: Option<Throwaway>,
}

/// Turns arguments into a request.
///
/// # Errors
/// What can't be had.
pub(super) fn prepare(args: &Args) -> Result<Prepared, RequestError> {
    let level = Level::from_number(args.level).unwrap_or(Level::Namespaces);
    if level == Level::Container {
        return Err(RequestError::Container);
    }
    let cwd = std::env::current_dir().map_err(RequestError::Cwd)?;
    let write = canonical("--rw", &args.rw)?;
    let read = canonical("--ro", &args.ro)?;
    let person = std::env::var_os("HOME").map(PathBuf::from).and_then(|home| {
        let home = home.canonicalize().ok()?;
        (home.is_absolute() && home != Path::new("/")).then_some(home)
    });
    // Whoever stands in the system or at home didn't mean to give it away as a whole.
    let is_home = person.as_ref().is_some_and(|home| home.starts_with(&cwd));
    let is_workspace = !is_home && !NO_WORKSPACE.iter().any(|dir| cwd == Path::new(dir));
    let workspace = (is_workspace && !write.iter().any(|dir| cwd.starts_with(dir)))
        .then(|| cwd.clone())
        .filter(|_| !read.contains(&cwd));

    let host = Host::current().map_err(RequestError::Host)?;
    let policy = config::policy::policy(&args.policy, &cwd, &host)?;
    if policy.limits.wall_ms.is_some() {
        return Err(RequestError::Wall(policy.name));
    }
    let network = match (args.net, &policy.network) {
        (Some(Net::None), _) if level < Level::Namespaces => {
            return Err(RequestError::NetworkAtLevel1);
        }
        (Some(Net::Host), _) => Network::Host,
        (Some(Net::None), _) => Network::None,
        (None, Some(said)) if level >= Level::Namespaces => said.value,
        (None, _) if level >= Level::Namespaces => Network::None,
        (None, _) => Network::Host,
    };
    let paths = config::policy::policy_paths(&policy, &host, workspace.as_deref());
    let (mut read, mut write) = (read, write);
    add(&mut read, paths.read, level);
    add(&mut write, paths.write, level);
    let hidden = paths.hidden.into_iter().map(|said| said.value).collect();
    let mut roots =
        Roots { workspace, extra_read: read, extra_write: write, hidden, ..Roots::default() };
    let given = |home: &Path| {
        let mut given = roots.extra_write.iter().chain(&roots.extra_read).chain(&roots.workspace);
        given.any(|dir| home.starts_with(dir))
    };
    let (home, throwaway) = match person {
        Some(home) if given(&home) => (home, None),
        _ if level < Level::Namespaces => {
            let made = Throwaway::new().map_err(RequestError::Home)?;
            roots.home = Some(made.path().to_owned());
            (made.path().to_owned(), Some(made))
        }
        Some(home) => {
            roots.memory.push(home.clone());
            (home, None)
        }
        None => (PathBuf::from("/tmp"), None),
    };
    let argv =
        args.command.iter().map(|word| text("an argument", word)).collect::<Result<_, _>>()?;
    let allowed: Vec<String> = policy.environment.iter().map(|name| name.value.clone()).collect();
    let environment = variables(args, level, &home, &allowed)?;
    let (protection, gaps) = match level {
        Level::Namespaces => {
            let names = policy.protected.iter().map(|name| name.value.clone()).collect();
            protect(&mut roots, names)?
        }
        Level::None | Level::Process | Level::Container => (Protection::default(), Vec::new()),
    };
    let mut grants = Grants::default();
    for grant in &policy.grants {
        grant.value.give(&mut grants);
    }
    let request = PlanRequest {
        level,
        workspace_write: true,
        roots,
        enforcement: policy.landlock.as_ref().map(|said| said.value).unwrap_or_default(),
        grants,
        limits: limits(&policy.limits),
        tmp_bytes: policy.limits.tmp.as_ref().map(|said| said.value),
        filter: filter(&policy, level, grants)?,
        network,
        hostname: "sandbox".into(),
        ..PlanRequest::default()
    };
    // Inside there is what the plan says: a directory that isn't part of it can't be stood in.
    Ok(Prepared {
        request,
        argv,
        environment,
        cwd,
        gaps,
        _protection: protection,
        _home: throwaway,
    })
}

/// What a policy gives, as far as the level can.
fn add(list: &mut Vec<PathBuf>, said: Vec<Said<PathBuf>>, level: Level) {
    for Said { value, .. } in said {
        // Landlock's rules at level 1 are about directories.
        if (level >= Level::Namespaces || value.is_dir()) && !list.contains(&value) {
            list.push(value);
        }
    }
}

fn limits(said: &PolicyLimits) -> Limits {
    let value = |said: &Option<Said<u64>>| said.as_ref().map(|said| said.value);
    Limits {
        memory: value(&said.memory),
        pids: value(&said.pids),
        nofile: value(&said.nofile),
        file_size: value(&said.file_size),
        cpu_seconds: value(&said.cpu_seconds),
        cpu_milli: said.cpu_milli.as_ref().map(|said| said.value),
    }
}

/// The filter of a policy with a profile of its own.
fn filter(
    policy: &Policy,
    level: Level,
    grants: Grants,
) -> Result<Option<Arc<[Instruction]>>, RequestError> {
    let Some(Said { value: Syscalls::File { profile, .. }, .. }) = &policy.syscalls else {
        return Ok(None);
    };
    if level < Level::Namespaces {
        return Ok(None);
    }
    let compiled = native()
        .and_then(|arch| profile.as_ref().clone().with_grants(grants).ok()?.compile(&arch).ok());
    match compiled {
        Some(filter) => Ok(Some(filter.into())),
        None => Err(RequestError::Profile(policy.name.clone())),
    }
}

fn canonical(option: &'static str, paths: &[PathBuf]) -> Result<Vec<PathBuf>, RequestError> {
    let canonical = |path: &PathBuf| {
        let failed = |source| RequestError::Path { option, path: path.clone(), source };
        path.canonicalize().map_err(failed)
    };
    paths.iter().map(canonical).collect()
}

fn variables(
    args: &Args,
    level: Level,
    home: &Path,
    allowed: &[String],
) -> Result<Vec<(String, String)>, RequestError> {
    let text = |word: &OsStr| text("a variable", word);
    let mut declared = Vec::new();
    for variable in &args.env {
        let bytes = variable.as_bytes();
        match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let (name, value) = bytes.split_at(at);
                let value = value.get(1..).unwrap_or_default();
                declared.push((text(OsStr::from_bytes(name))?, text(OsStr::from_bytes(value))?));
            }
            None => {
                if let Some(value) = std::env::var_os(variable) {
                    declared.push((text(variable)?, text(&value)?));
                }
            }
        }
    }
    let host: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Ok(environment(&EnvironmentRequest {
        level,
        host: &host,
        home: Some(home),
        tmpdir: Some(home),
        allowed: Some(allowed),
        declared: &declared,
        mission: &[],
        missionctl_dir: None,
        workspace: None,
    })?)
}

fn text(what: &'static str, word: &OsStr) -> Result<String, RequestError> {
    word.to_str().map(str::to_owned).ok_or(RequestError::NotText(what))
}
