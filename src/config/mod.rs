//! `mission.toml`, from its text to a checked [`Mission`].
//!
//! ```text
//! source (bytes -> text) -> toml (text -> tree) -> raw (tree -> sections) -> check -> Mission
//!        `-------------------------`----------------------`-----------------`--> ConfigError
//! ```
//!
//! A file that is wrong in three places is answered with three problems, each with its line, its
//! column and what was probably meant. It deliberately starts nothing, makes no directory, and reads
//! no secret: [`secrets`] does that when an agent starts.

mod agents;
mod check;
pub mod commands;
mod digest;
pub mod dirs;
mod isolation;
pub mod launching;
pub mod policy;
mod problem;
mod program;
mod raw;
mod read;
mod scene;
pub mod secrets;
mod source;
mod tasks;
mod units;
mod variables;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::problem::Problem;
pub use self::secrets::SecretSource;
pub use self::source::MAX_FILE;
use crate::core::spec::MissionSpec;
use crate::ids::AgentName;
use crate::policy::bpf::Instruction;
use crate::policy::sandbox::Network;
use crate::policy::{Enforcement, Grants, LandlockMode, Level, Limits, Origin};

/// A checked mission: everything the daemon needs to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mission {
    /// What the state machine needs of it.
    pub spec: MissionSpec,
    /// The mission file, absolute.
    pub file: PathBuf,
    /// The shared tree: absolute, without symbolic links, an existing directory.
    pub workspace: PathBuf,
    /// When a change counts as durable.
    pub durability: Durability,
    /// Bytes that the log may take on disk.
    pub store_bytes: u64,
    /// Bytes that the files of checkpoints may take on disk.
    pub blob_bytes: u64,
    /// How to start each agent of `spec`.
    pub agents: BTreeMap<AgentName, AgentLaunch>,
    /// What is allowed but unwise.
    pub warnings: Vec<Problem>,
}

/// When a change counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once the disk has it: it survives a power cut.
    #[default]
    Disk,
    /// Once the kernel has it: it survives the end of the daemon, not of the machine.
    Process,
}

/// What an agent writes when it writes the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkspaceMode {
    /// The workspace.
    #[default]
    Shared,
    /// A copy of its own, from which a person takes changes back.
    Private,
}

/// How to start an agent. Holds no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentLaunch {
    /// Program and arguments. A program with a `/` is absolute; another is in the `PATH` of
    /// the agent's environment.
    pub command: Vec<String>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    /// Isolation level; in this version `none`, 1 or 2.
    pub level: Level,
    /// Name of the policy that this was made of, if there is one.
    pub policy: Option<String>,
    /// Whether its role may write the workspace.
    pub workspace_write: bool,
    /// What it writes then.
    pub workspace_mode: WorkspaceMode,
    /// The files that its policy was read from.
    pub policy_files: Vec<PathBuf>,
    /// Whether the level may be granted in part.
    pub enforcement: Enforcement,
    /// Environment variables with their values. Their names never begin with `MISSION_`.
    pub env: BTreeMap<String, String>,
    /// Names of variables passed on from the daemon's environment.
    pub env_pass: Vec<String>,
    /// Names of variables that pass because of the policy, `*` at the end for the rest of a name; the
    /// standard ones if there is no policy.
    pub environment: Option<Vec<String>>,
    /// Names of variables, and where their values come from.
    pub secrets: BTreeMap<String, SecretSource>,
    /// How much of Landlock.
    pub landlock: LandlockMode,
    /// More paths to read and run programs from: absolute, without symbolic links. Directories, but
    /// for what a policy says at level 2.
    pub read: Vec<PathBuf>,
    /// More paths to write: likewise.
    pub write: Vec<PathBuf>,
    /// Level 2: paths that are never visible.
    pub hidden: Vec<PathBuf>,
    /// Level 2: names at the root of each writable tree that stay read-only, there or not; a
    /// directory's ends in `/`.
    pub protected: Vec<String>,
    /// What it reaches of the network.
    pub network: Network,
    /// Extra grants.
    pub grants: Grants,
    /// Level 2: the seccomp filter, where it isn't the built-in one.
    pub filter: Option<Arc<[Instruction]>>,
    /// Resource limits.
    pub limits: Limits,
    /// Level 2: bytes of the private `/tmp`.
    pub tmp_bytes: Option<u64>,
    /// Its logs.
    pub log: LogLimits,
    /// Which line asked for what, for `missiond explain`.
    pub asked: Asked,
}

/// Which line asked for what: `read /data`, `limits.memory`, `network`, ...
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked(BTreeMap<String, Origin>);

impl Asked {
    /// Notes where something was asked for; the first to ask stays.
    pub fn note(&mut self, what: impl Into<String>, origin: &Origin) {
        self.0.entry(what.into()).or_insert_with(|| origin.clone());
    }

    /// Where something was asked for.
    #[must_use]
    pub fn origin(&self, what: &str) -> Option<&Origin> {
        self.0.get(what)
    }
}

/// Shows names of variables, no values.
impl fmt::Debug for AgentLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentLaunch")
            .field("command", &self.command)
            .field("cwd", &self.cwd)
            .field("level", &self.level)
            .field("policy", &self.policy)
            .field("network", &self.network)
            .field("workspace_write", &self.workspace_write)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("env_pass", &self.env_pass)
            .field("secrets", &self.secrets)
            .field("landlock", &self.landlock)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// How much of an agent's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// Bytes at which a file is rotated.
    pub max_bytes: u64,
    /// Older files kept of each stream.
    pub keep: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        LogLimits { max_bytes: 10 << 20, keep: 3 }
    }
}

/// Why there is no mission. Its text is complete: position, source line, help, for each problem.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be opened or read.
    #[error(
        "error: cannot read mission file {}\n  cause: {}{}",
        file.display(), source::cause(source), unreadable_help(source)
    )]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory.
    #[error("error: {} is a directory, not a mission file{}", file.display(), directory_help(file))]
    Directory {
        /// The directory.
        file: PathBuf,
    },
    /// It is a pipe, a device or a socket.
    #[error("error: {} is not a regular file", file.display())]
    NotRegular {
        /// The file.
        file: PathBuf,
    },
    /// It is larger than [`MAX_FILE`].
    #[error(
        "error: {} has {size} bytes; a mission file has at most {MAX_FILE}\n  help: \
         large inputs belong into files of the workspace, named in a task's `data`",
        file.display()
    )]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// Its size in bytes, or as much as was read of it.
        size: u64,
    },
    /// This user has no place for a mission's state.
    #[error("error: {0}\n  help: set HOME or XDG_STATE_HOME")]
    NoHome(#[from] dirs::DirsError),
    /// A policy that a command names can't be found.
    #[error("error: {message}\n  help: {help}")]
    Policy {
        /// What is wrong.
        message: String,
        /// What to do.
        help: String,
    },
    /// Its content is wrong.
    #[error("{}", list(problems))]
    Invalid {
        /// What is wrong, in the order of the file; warnings are among them.
        problems: Vec<Problem>,
    },
}

fn unreadable_help(source: &io::Error) -> &'static str {
    let missing = source.kind() == io::ErrorKind::NotFound;
    if missing { "\n  help: `missiond init` writes a first one" } else { "" }
}

fn directory_help(file: &Path) -> String {
    let inside = file.join("mission.toml");
    if inside.is_file() {
        format!("\n  help: did you mean {}?", inside.display())
    } else {
        String::new()
    }
}

fn list(problems: &[Problem]) -> String {
    let mut text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let errors = problems.iter().filter(|problem| !problem.warning).count();
    if errors > 1 {
        text.push(format!("error: {errors} errors"));
    }
    text.join("\n\n")
}

/// What of this process and machine a mission file is checked against.
#[derive(Debug, Clone)]
pub struct Host {
    /// Where missions live.
    pub places: dirs::Places,
    /// The `PATH` that agents get, without the directory of `missionctl`.
    pub path: Option<String>,
    /// The directory of `missionctl`, which stands first in it.
    pub missionctl_dir: Option<PathBuf>,
    /// The home of whoever runs this: `~/` in policies.
    pub home: Option<PathBuf>,
    /// Where policies are found by name.
    pub policies: Option<PathBuf>,
}

impl Host {
    /// This process: its environment and the directory of its executable.
    ///
    /// # Errors
    /// The environment names no place for state.
    pub fn current() -> Result<Self, dirs::DirsError> {
        let executable = std::env::current_exe().ok();
        let absolute = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let home = absolute("HOME");
        let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        Ok(Host {
            places: dirs::Places::from_environment(|name| std::env::var_os(name))?,
            path: std::env::var("PATH").ok(),
            missionctl_dir: executable.and_then(|file| file.parent().map(Path::to_path_buf)),
            home,
            policies: config.map(|config| config.join("missiond/policies")),
        })
    }
}

/// Loads and checks a mission file for this process.
///
/// # Errors
/// Everything that is wrong with it; see [`ConfigError`].
pub fn load(file: &Path) -> Result<Mission, ConfigError> {
    load_for(file, &Host::current()?)
}

/// The same for a given host.
///
/// # Errors
/// As [`load`].
pub fn load_for(file: &Path, host: &Host) -> Result<Mission, ConfigError> {
    let text = source::read(file)?;
    let unreadable = |source| ConfigError::Unreadable { file: file.to_path_buf(), source };
    let absolute = std::path::absolute(file).map_err(unreadable)?;
    check::mission(file, absolute, &text, host)
}
