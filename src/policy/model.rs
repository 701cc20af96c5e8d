//! A policy: what somebody wrote about what agents may do, and where each item was written.
//!
//! A file may inherit another one; [`Policy::over`] puts the two together. Lists are added to, all else
//! is replaced, so a file that wants less than its parent inherits a smaller one. Paths hold variables
//! until [`PathBases::expand`] replaces them for one agent.
//!
//! Reading files, and TOML, is `config`'s: this only knows what they mean.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::grants::Grants;
use super::request::Enforcement;
use super::sandbox::Network;

/// The policies that are built in, by name.
pub const PRESETS: [(&str, &str); 3] = [
    ("minimal", include_str!("../../policies/minimal.toml")),
    ("coding", include_str!("../../policies/coding.toml")),
    ("service", include_str!("../../policies/service.toml")),
];

/// Files that may inherit one another in a row.
pub const MAX_INHERITED: usize = 8;

/// The policy of agents at level 2 whose mission names none.
pub const DEFAULT_POLICY: &str = "coding";

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The file, as people call it; `coding (built in)` for a preset.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Something that was asked for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said<T> {
    /// What.
    pub value: T,
    /// Where.
    pub origin: Origin,
}

/// One thing of [`Grants`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// Pseudo terminals (level 1).
    Pty,
    /// `/dev/shm` (level 1).
    SharedMemory,
    /// Tracing own processes.
    Ptrace,
    /// Own namespaces.
    Userns,
    /// `io_uring`.
    IoUring,
    /// Performance counters.
    Perf,
}

impl Grant {
    /// Each with its word.
    pub const ALL: [(&'static str, Self); 6] = [
        ("pty", Self::Pty),
        ("shared_memory", Self::SharedMemory),
        ("ptrace", Self::Ptrace),
        ("userns", Self::Userns),
        ("io_uring", Self::IoUring),
        ("perf", Self::Perf),
    ];

    /// Gives it.
    pub fn give(self, grants: &mut Grants) {
        *match self {
            Self::Pty => &mut grants.pty,
            Self::SharedMemory => &mut grants.shared_memory,
            Self::Ptrace => &mut grants.ptrace,
            Self::Userns => &mut grants.userns,
            Self::IoUring => &mut grants.io_uring,
            Self::Perf => &mut grants.perf,
        } = true;
    }
}

/// The numbers of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyLimits {
    /// Bytes of memory.
    pub memory: Option<Said<u64>>,
    /// Processes and threads.
    pub pids: Option<Said<u64>>,
    /// Thousandths of a processor.
    pub cpu_milli: Option<Said<u32>>,
    /// Seconds of processor time of each process.
    pub cpu_seconds: Option<Said<u64>>,
    /// Open files of each process.
    pub nofile: Option<Said<u64>>,
    /// Bytes of the largest file.
    pub file_size: Option<Said<u64>>,
    /// Milliseconds that a process may live.
    pub wall_ms: Option<Said<u64>>,
    /// Bytes of the private `/tmp`.
    pub tmp: Option<Said<u64>>,
}

/// What agents may do, as one file or a row of files say it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The file's name, or the preset's.
    pub name: String,
    /// The files that it was read from, with those that it inherits and its syscalls.
    pub files: Vec<PathBuf>,
    /// Paths to read, with variables.
    pub read: Vec<Said<String>>,
    /// Paths to write, with variables.
    pub write: Vec<Said<String>>,
    /// Paths that are never visible, with variables.
    pub hidden: Vec<Said<String>>,
    /// Names at the root of each writable tree that stay read-only.
    pub protected: Vec<Said<String>>,
    /// Names of variables that pass; `*` at the end stands for the rest of a name.
    pub environment: Vec<Said<String>>,
    /// The network.
    pub network: Option<Said<Network>>,
    /// The seccomp profile's text; none for the built-in one.
    pub syscalls: Option<Said<Syscalls>>,
    /// Extra grants.
    pub grants: Vec<Said<Grant>>,
    /// Whether Landlock may be missing.
    pub landlock: Option<Said<Enforcement>>,
    /// Limits.
    pub limits: PolicyLimits,
}

/// Which seccomp profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Syscalls {
    /// The built-in one.
    Default,
    /// One of the user's.
    File {
        /// Where it was read.
        path: PathBuf,
        /// The profile.
        profile: Arc<super::seccomp::Profile>,
    },
}

impl Policy {
    /// This policy as it stands on the one that it inherits.
    #[must_use]
    pub fn over(self, parent: Policy) -> Policy {
        let list = |mut parent: Vec<Said<String>>, own: Vec<Said<String>>| {
            for item in own {
                // What both ask for was asked for by the nearer one.
                parent.retain(|other| other.value != item.value);
                parent.push(item);
            }
            parent
        };
        let mut grants = parent.grants;
        grants.retain(|grant| self.grants.iter().all(|own| own.value != grant.value));
        grants.extend(self.grants);
        let (own, above) = (self.limits, parent.limits);
        Policy {
            name: self.name,
            files: parent.files.into_iter().chain(self.files).collect(),
            read: list(parent.read, self.read),
            write: list(parent.write, self.write),
            hidden: list(parent.hidden, self.hidden),
            protected: list(parent.protected, self.protected),
            environment: list(parent.environment, self.environment),
            network: self.network.or(parent.network),
            syscalls: self.syscalls.or(parent.syscalls),
            grants,
            landlock: self.landlock.or(parent.landlock),
            limits: PolicyLimits {
                memory: own.memory.or(above.memory),
                pids: own.pids.or(above.pids),
                cpu_milli: own.cpu_milli.or(above.cpu_milli),
                cpu_seconds: own.cpu_seconds.or(above.cpu_seconds),
                nofile: own.nofile.or(above.nofile),
                file_size: own.file_size.or(above.file_size),
                wall_ms: own.wall_ms.or(above.wall_ms),
                tmp: own.tmp.or(above.tmp),
            },
        }
    }

    /// Its grants together.
    #[must_use]
    pub fn granted(&self) -> Grants {
        let mut grants = Grants::default();
        self.grants.iter().for_each(|grant| grant.value.give(&mut grants));
        grants
    }
}

/// Why a path of a policy can't be used. Completes "path `X` ...".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It begins with something else.
    #[error("must begin with /, ~/ or $WORKSPACE")]
    Start,
    /// It has `..` in it.
    #[error("can't have .. in it")]
    Parent,
    /// It is the root directory.
    #[error("can't be the root directory")]
    Root,
    /// It is a name with `/` at its beginning, or `..` in it, or nothing.
    #[error("must be a name inside of a tree, such as .mcp.json or .github/workflows/")]
    Name,
}

/// What the variables of paths stand for. One that is missing makes its paths go away: they can't be
/// there.
#[derive(Debug, Clone, Copy, Default)]
pub struct PathBases<'a> {
    /// `~/`: the home of whoever runs missiond.
    pub home: Option<&'a Path>,
    /// `$WORKSPACE`.
    pub workspace: Option<&'a Path>,
}

impl PathBases<'_> {
    /// The path that a text means; `None` if what it starts at doesn't exist here.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn expand(&self, text: &str) -> Result<Option<PathBuf>, PathError> {
        let after = |prefix: &str| {
            let rest = text.strip_prefix(prefix)?;
            if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
        };
        let (base, rest) = if let Some(rest) = after("~") {
            (self.home, rest)
        } else if let Some(rest) = after("$WORKSPACE") {
            (self.workspace, rest)
        } else if let Some(rest) = text.strip_prefix('/') {
            (Some(Path::new("/")), rest)
        } else {
            return Err(PathError::Start);
        };
        let mut path = PathBuf::new();
        for part in Path::new(rest).components() {
            match part {
                Component::Normal(name) => path.push(name),
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(PathError::Parent),
            }
        }
        if path.as_os_str().is_empty() && text.starts_with('/') {
            return Err(PathError::Root);
        }
        Ok(base.map(|base| if path.as_os_str().is_empty() { base.into() } else { base.join(path) }))
    }
}

/// Checks a name of `protected`.
///
/// # Errors
/// It is absolute, empty, or leads out of the tree.
pub fn check_protected(name: &str) -> Result<(), PathError> {
    let path = Path::new(name.strip_suffix('/').unwrap_or(name));
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    if inside && path.components().next().is_some() { Ok(()) } else { Err(PathError::Name) }
}

/// Whether a list of names with `*` at their ends lets a variable pass.
#[must_use]
pub fn passes<T: AsRef<str>>(allowed: &[T], name: &str) -> bool {
    allowed.iter().any(|allowed| match allowed.as_ref().strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => allowed.as_ref() == name,
    })
}
