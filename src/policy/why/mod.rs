//! Why something was refused: from what was tried to the rule of a plan, and the line that would allow
//! it.
//!
//! ```text
//! trace (exact), or words of an error message (a guess)
//!          `--> attempt, errno --> plan --> Blame { rule, remedy }, or "not the policy"
//! ```
//!
//! A plan says what is granted, so a refusal is the policy's only where the plan doesn't grant what was
//! tried; otherwise it is the file's own permissions, or the file really isn't there. What only the
//! host can say, whether a path exists outside of the sandbox, comes in as an argument.
//!
//! It deliberately looks at nothing, and never proposes to give a protected place away.

mod call;
mod message;

use std::fmt;
use std::path::{Component, Path, PathBuf};

use super::landlock::{self, LandlockPlan};
use super::sandbox::{Access, Node, SandboxPlan};
use super::{Level, ProcessPlan};

pub use call::{Call, call_name, filtered};
pub use message::{Mention, Symptom, mentions};

/// What was tried on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attempt {
    /// Open for reading, list, look at.
    Read,
    /// Run it.
    Execute,
    /// Change it, or make, remove or rename it.
    Write,
}

/// A refusal that comes from the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// What the plan says, in a few words.
    pub rule: Rule,
    /// What would allow it.
    pub remedy: Remedy,
}

/// The part of a plan that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// It isn't in the sandbox, but outside there is one.
    NotThere,
    /// It is there to be read only.
    ReadOnly(PathBuf),
    /// Hidden by the policy.
    Hidden(PathBuf),
    /// Protected: it, or what it is in, could run programs on the host later.
    Protected(PathBuf),
    /// A directory that holds something protected can't be renamed or removed.
    Pinned(PathBuf),
    /// No Landlock rule grants it.
    NotGranted,
    /// The size of a private file system.
    Full {
        /// Where.
        place: PathBuf,
        /// Most bytes in it.
        bytes: u64,
    },
    /// No network.
    NoNetwork,
    /// The seccomp filter.
    SystemCall(&'static str),
    /// A resource limit.
    Limit(&'static str),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere => f.write_str("not in the sandbox"),
            Self::ReadOnly(place) => write!(f, "{} is read-only", place.display()),
            Self::Hidden(place) => write!(f, "{} is hidden", place.display()),
            Self::Protected(place) => write!(f, "{} is protected", place.display()),
            Self::Pinned(place) => {
                write!(f, "{} holds something protected and stays in its place", place.display())
            }
            Self::NotGranted => f.write_str("no directory of the policy grants it"),
            Self::Full { place, bytes } => {
                write!(f, "{} is limited to {} MiB", place.display(), bytes >> 20)
            }
            Self::NoNetwork => f.write_str("there is no network"),
            Self::SystemCall(name) => write!(f, "the system call {name} is filtered"),
            Self::Limit(name) => write!(f, "the limit `{name}`"),
        }
    }
}

/// What would allow it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// Read a path.
    Read(PathBuf),
    /// Write a path.
    Write(PathBuf),
    /// The host's network.
    Network,
    /// A named grant.
    Grant(&'static str),
    /// A larger limit, by its key.
    Limit(&'static str),
    /// Nothing that this policy language has.
    None,
}

impl Remedy {
    /// As an option of `missiond run`.
    #[must_use]
    pub fn option(&self) -> Option<String> {
        match self {
            Self::Read(path) => Some(format!("--ro {}", quoted(path))),
            Self::Write(path) => Some(format!("--rw {}", quoted(path))),
            Self::Network => Some("--net host".into()),
            Self::Grant(_) | Self::Limit(_) | Self::None => None,
        }
    }

    /// As a line of `[agents.NAME]` in mission.toml, or of a policy file.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let list = |key: &str, path: &Path| format!("{key} = [{:?}]", path.display().to_string());
        match self {
            Self::Read(path) => Some(list("read", path)),
            Self::Write(path) => Some(list("write", path)),
            Self::Network => Some("network = \"host\"".into()),
            Self::Grant(name) => Some(format!("grants = [\"{name}\"]")),
            Self::Limit(name) => Some(format!("limits = {{ {name} = .. }}")),
            Self::None => None,
        }
    }
}

/// For a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%,:=".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Why an attempt on a path (absolute, as it is called inside) failed with `errno`; `None` if the
/// policy has nothing to do with it. `outside` says whether the host has something at that path.
#[must_use]
pub fn path(
    plan: &ProcessPlan,
    path: &Path,
    attempt: Attempt,
    errno: i32,
    outside: bool,
) -> Option<Blame> {
    let path = normal(path);
    match (&plan.sandbox, &plan.landlock) {
        (Some(sandbox), _) => in_sandbox(sandbox, &path, attempt, errno, outside),
        (None, Some(domain)) if plan.level >= Level::Process => {
            by_landlock(domain, &path, attempt, errno)
        }
        (None, _) => None,
    }
}

/// Why something about the network failed; `None` where the policy gives the host's.
#[must_use]
pub fn network(plan: &ProcessPlan) -> Option<Blame> {
    let sandbox = plan.sandbox.as_ref()?;
    (sandbox.network == super::sandbox::Network::None)
        .then_some(Blame { rule: Rule::NoNetwork, remedy: Remedy::Network })
}

const ENOENT: i32 = 2;
const EPERM: i32 = 1;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EXDEV: i32 = 18;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

fn in_sandbox(
    sandbox: &SandboxPlan,
    path: &Path,
    attempt: Attempt,
    errno: i32,
    outside: bool,
) -> Option<Blame> {
    let path = &through_links(sandbox, path);
    let node = around(sandbox, path);
    let read_or_write = || match attempt {
        Attempt::Read | Attempt::Execute => Remedy::Read(path.clone()),
        Attempt::Write => Remedy::Write(path.clone()),
    };
    let target = node.map(|node| node.target().to_path_buf()).unwrap_or_default();
    let blame = |rule, remedy| Some(Blame { rule, remedy });
    match (node, errno) {
        // Nothing of the host is here: the root, or a file system of the sandbox's own.
        (None | Some(Node::Tmpfs { .. } | Node::Directory { .. }), ENOENT) if outside => {
            blame(Rule::NotThere, read_or_write())
        }
        (None | Some(Node::Directory { .. }), EROFS | EACCES) if attempt == Attempt::Write => {
            blame(Rule::ReadOnly("/".into()), read_or_write())
        }
        (Some(Node::Tmpfs { bytes, .. }), ENOSPC) => {
            blame(Rule::Full { place: target, bytes: *bytes }, Remedy::Limit("tmp"))
        }
        (Some(Node::Tmpfs { writable: false, .. }), EROFS | EACCES) => {
            blame(Rule::Hidden(target), Remedy::None)
        }
        (Some(Node::Bind { access: Access::Read, .. }), EROFS | EACCES)
            if attempt == Attempt::Write =>
        {
            // The system's own directories are nobody's to write.
            let system = SYSTEM.iter().any(|system| target.starts_with(system));
            let remedy = if system { Remedy::None } else { Remedy::Write(target.clone()) };
            blame(Rule::ReadOnly(target), remedy)
        }
        (Some(Node::Protect { .. }), EROFS | EACCES | EBUSY | EPERM)
            if attempt == Attempt::Write =>
        {
            blame(Rule::Protected(target), Remedy::None)
        }
        (Some(Node::Pin { .. }), EBUSY) => blame(Rule::Pinned(target), Remedy::None),
        (Some(Node::Protect { .. } | Node::Pin { .. }), EXDEV) => {
            blame(Rule::Pinned(target), Remedy::None)
        }
        (Some(Node::Hide { .. }), ENOENT | EACCES | EROFS | EPERM) => {
            blame(Rule::Hidden(target), Remedy::None)
        }
        _ => None,
    }
}

const SYSTEM: [&str; 6] = ["/usr", "/etc", "/opt", "/nix", "/gnu", "/sys"];

fn by_landlock(domain: &LandlockPlan, path: &Path, attempt: Attempt, errno: i32) -> Option<Blame> {
    if errno != EACCES && errno != EXDEV {
        return None;
    }
    let wanted = match attempt {
        Attempt::Read => landlock::READ_FILE,
        Attempt::Execute => landlock::EXECUTE,
        Attempt::Write => landlock::WRITE_FILE | landlock::MAKE_REG | landlock::REMOVE_FILE,
    };
    // Rules add up along a path.
    let granted = domain
        .rules
        .iter()
        .filter(|rule| path.starts_with(&rule.path))
        .fold(0, |granted, rule| granted | rule.access);
    if wanted & domain.handled & !granted == 0 {
        return None;
    }
    // A rule is about a directory and all that is beneath it.
    let directory = path.parent().filter(|parent| *parent != Path::new("/")).unwrap_or(path);
    let remedy = match attempt {
        Attempt::Read | Attempt::Execute => Remedy::Read(directory.to_path_buf()),
        Attempt::Write if SYSTEM.iter().any(|system| path.starts_with(system)) => Remedy::None,
        Attempt::Write => Remedy::Write(directory.to_path_buf()),
    };
    Some(Blame { rule: Rule::NotGranted, remedy })
}

/// The deepest node at or above a path.
fn around<'a>(sandbox: &'a SandboxPlan, path: &Path) -> Option<&'a Node> {
    let above = sandbox.tree.iter().filter(|node| path.starts_with(node.target()));
    // Of two at one place the later lies on top.
    above.max_by_key(|node| node.target().components().count())
}

/// Follows the links of the tree itself (`/bin` to `/usr/bin`).
fn through_links(sandbox: &SandboxPlan, path: &Path) -> PathBuf {
    const MOST: usize = 8;
    let mut path = path.to_path_buf();
    for _ in 0..MOST {
        let Some(Node::Symlink { target, to }) = around(sandbox, &path) else { break };
        let rest = path.strip_prefix(target).unwrap_or(Path::new(""));
        let base = target.parent().unwrap_or(Path::new("/"));
        path = normal(&base.join(to).join(rest));
    }
    path
}

/// Without `.` and `..`, by the words alone.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            part @ (Component::Prefix(_) | Component::RootDir | Component::Normal(_)) => {
                normal.push(part);
            }
        }
    }
    normal
}

#[cfg(test)]
mod tests;
