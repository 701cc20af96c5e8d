//! From the command line to what is asked of the planner.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::cli::{Args, Net};
use super::home::Throwaway;
use super::protect::{ProtectError, Protection, protect};
use crate::policy::sandbox::Network;
use crate::policy::{EnvironmentError, EnvironmentRequest, Level, PlanRequest, Roots, environment};

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
    #[error("no policy is named `{0}`")]
    Policy(String),
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
            Self::Policy(_) => Some("the presets are minimal, coding and service"),
            Self::Cwd(_)
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
    let network = match args.net {
        Some(Net::None) if level < Level::Namespaces => return Err(RequestError::NetworkAtLevel1),
        Some(Net::Host) => Network::Host,
        Some(Net::None) => Network::None,
        None if level < Level::Namespaces => Network::Host,
        None => Network::None,
    };
    if args.policy != "coding" {
        return Err(RequestError::Policy(args.policy.clone()));
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

    let mut roots = Roots { workspace, extra_read: read, extra_write: write, ..Roots::default() };
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
    let tmpdir = home.clone();
    let argv =
        args.command.iter().map(|word| text("an argument", word)).collect::<Result<_, _>>()?;
    let environment = variables(args, level, &home, &tmpdir)?;
    let (protection, gaps) = match level {
        Level::Namespaces => protect(&mut roots)?,
        Level::None | Level::Process | Level::Container => (Protection::default(), Vec::new()),
    };
    let request = PlanRequest {
        level,
        workspace_write: true,
        roots,
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
    tmpdir: &Path,
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
        tmpdir: Some(tmpdir),
        declared: &declared,
        mission: &[],
        missionctl_dir: None,
        workspace: None,
    })?)
}

fn text(what: &'static str, word: &OsStr) -> Result<String, RequestError> {
    word.to_str().map(str::to_owned).ok_or(RequestError::NotText(what))
}
