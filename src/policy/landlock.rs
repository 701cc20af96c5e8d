//! Landlock rules (landlock(7)): which rights a domain handles and which directories get them.
//!
//! Access bits come from `include/uapi/linux/landlock.h`; each says since which ABI it exists. A
//! plan holds only bits that the kernel of its [`HostFacts`] knows, so that the
//! child can demand every one of them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::grants::Grants;
use super::host::{DEVICES, HostFacts};
use super::request::{LandlockMode, PlanRequest};
use super::sandbox::{Access, Network, Node};
use super::verdict::{Gap, PlanError};

/// Run a file.
pub const EXECUTE: u64 = 1 << 0;
/// Open a file for writing.
pub const WRITE_FILE: u64 = 1 << 1;
/// Open a file for reading.
pub const READ_FILE: u64 = 1 << 2;
/// List a directory.
pub const READ_DIR: u64 = 1 << 3;
/// Remove or rename a directory.
pub const REMOVE_DIR: u64 = 1 << 4;
/// Unlink or rename a file.
pub const REMOVE_FILE: u64 = 1 << 5;
/// Make a character device.
pub const MAKE_CHAR: u64 = 1 << 6;
/// Make a directory.
pub const MAKE_DIR: u64 = 1 << 7;
/// Make a regular file.
pub const MAKE_REG: u64 = 1 << 8;
/// Bind a Unix socket.
pub const MAKE_SOCK: u64 = 1 << 9;
/// Make a named pipe.
pub const MAKE_FIFO: u64 = 1 << 10;
/// Make a block device.
pub const MAKE_BLOCK: u64 = 1 << 11;
/// Make a symbolic link.
pub const MAKE_SYM: u64 = 1 << 12;
/// Link or rename between directories; ABI 2 (without it that is always refused).
pub const REFER: u64 = 1 << 13;
/// Truncate; ABI 3 (before it can't be denied).
pub const TRUNCATE: u64 = 1 << 14;
/// ioctl on devices; ABI 5.
pub const IOCTL_DEV: u64 = 1 << 15;
/// Connect to a Unix socket by its path; ABI 9.
pub const RESOLVE_UNIX: u64 = 1 << 16;

/// Scope: abstract Unix sockets of outside; ABI 6.
pub const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
/// Scope: signals to processes outside; ABI 6.
pub const SCOPE_SIGNAL: u64 = 1 << 1;

const READ: u64 = EXECUTE | READ_FILE | READ_DIR;
/// No devices: an agent that may make none needs no rule about them.
const WRITE: u64 = READ
    | WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_SYM
    | REFER
    | TRUNCATE
    | RESOLVE_UNIX;
const DEVICE: u64 = READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV;

/// Rights that the domain handles when files are confined: all that this ABI has.
#[must_use]
pub const fn handled(abi: u32) -> u64 {
    let mut bits = (1 << 13) - 1;
    if abi >= 2 {
        bits |= REFER;
    }
    if abi >= 3 {
        bits |= TRUNCATE;
    }
    if abi >= 5 {
        bits |= IOCTL_DEV;
    }
    if abi >= 9 {
        bits |= RESOLVE_UNIX;
    }
    bits
}

/// Directories every program may read: the system, not `/home`, `/root`, `/tmp`, `/var`, `/run`.
///
/// Those in `/run` hold what `/etc/resolv.conf` points to, the one in `/var` what `/etc/ssl` does on
/// some systems.
pub const SYSTEM: [&str; 18] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix/store",
    "/gnu/store",
    "/snap",
    "/proc",
    "/sys",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/var/lib/ca-certificates",
];

/// One rule: `access` on everything beneath `path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathRule {
    /// A directory (or a device node), absolute.
    pub path: PathBuf,
    /// `LANDLOCK_ACCESS_FS_*` bits.
    pub access: u64,
    /// Skipped if the path doesn't exist. Only for the system's own directories, which also may be
    /// symbolic links; every other path must be there and hold no symbolic link.
    pub system: bool,
}

/// A Landlock domain, ready to be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandlockPlan {
    /// `handled_access_fs`.
    pub handled: u64,
    /// `scoped`.
    pub scoped: u64,
    /// What is granted of the handled rights.
    pub rules: Vec<PathRule>,
}

/// The domain for a request on this host. `host.landlock_abi` is 1 or more.
pub(super) fn domain(
    request: &PlanRequest,
    host: &HostFacts,
    gaps: &mut Vec<Gap>,
) -> Result<LandlockPlan, PlanError> {
    let abi = host.landlock_abi;
    let scoped = if abi >= 6 {
        SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL
    } else {
        gaps.push(Gap::SignalsOpen { abi });
        0
    };
    match request.landlock {
        LandlockMode::ScopeOnly => {
            // The kernel refuses a ruleset that handles nothing. Making block devices takes a
            // capability anyway, so handling it costs a program nothing and still gives the domain
            // that keeps ptrace and /proc/PID/{mem,environ,fd} of others shut.
            let handled = if scoped == 0 { MAKE_BLOCK } else { 0 };
            Ok(LandlockPlan { handled, scoped, rules: Vec::new() })
        }
        LandlockMode::Files => {
            let handled = handled(abi);
            if abi < 3 {
                gaps.push(Gap::TruncateOpen { abi });
            }
            if abi < 9 {
                gaps.push(Gap::UnixSocketsOpen { abi });
            }
            let mut rules = rules(request, request.grants)?;
            for rule in &mut rules {
                rule.access &= handled;
            }
            Ok(LandlockPlan { handled, scoped, rules })
        }
    }
}

/// The domain of level 2: rules name paths of the sandbox's own tree, and say once more what its
/// mounts say. None where there is nothing left for it to do.
///
/// The tree already holds only what the agent may see, so one rule reads all of it; what the mounts
/// can't tell apart is which device nodes and sockets may be used, and `/proc`, which is mounted
/// writable and here isn't.
pub(super) fn sandbox_domain(
    request: &PlanRequest,
    tree: &[Node],
    host: &HostFacts,
    gaps: &mut Vec<Gap>,
) -> Option<LandlockPlan> {
    let abi = host.landlock_abi;
    let scoped = if abi >= 6 { SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL } else { 0 };
    if scoped == 0 && request.network == Network::Host {
        gaps.push(Gap::AbstractSocketsOpen { abi });
    }
    // An agent that makes namespaces wants to mount in them, which a domain with files forbids.
    if request.landlock == LandlockMode::ScopeOnly || request.grants.userns {
        return (scoped != 0).then(|| LandlockPlan { handled: 0, scoped, rules: Vec::new() });
    }
    let handled = handled(abi);
    let mut rules = vec![PathRule { path: "/".into(), access: READ, system: false }];
    let mut add = |path: &Path, access, system| {
        let granted = |rule: &PathRule| path.starts_with(&rule.path) && access & !rule.access == 0;
        if !rules.iter().any(granted) {
            rules.push(PathRule { path: path.to_path_buf(), access, system });
        }
    };
    for node in tree {
        match node {
            Node::Bind { target, access: Access::Write, .. } | Node::Overlay { target, .. } => {
                add(target, WRITE, false);
            }
            Node::Bind { target, access: Access::Device, .. } => add(target, DEVICE, true),
            Node::Devpts { target } => add(target, DEVICE | READ_DIR, false),
            Node::Tmpfs { target, writable: true, .. } => add(target, WRITE, false),
            Node::Bind { access: Access::Read, .. }
            | Node::Tmpfs { .. }
            | Node::Pin { .. }
            | Node::Protect { .. }
            | Node::Hide { .. }
            | Node::Symlink { .. }
            | Node::Directory { .. }
            | Node::File { .. }
            | Node::Proc { .. } => {}
        }
    }
    if let Some(bus) = &request.roots.bus {
        add(bus, READ | RESOLVE_UNIX, false);
    }
    for rule in &mut rules {
        rule.access &= handled;
    }
    Some(LandlockPlan { handled, scoped, rules })
}

/// Rights in words, the usual sets by one word.
#[must_use]
pub fn words(access: u64) -> String {
    let sets = [
        (READ, "read"),
        (WRITE & !READ & !RESOLVE_UNIX, "write"),
        (RESOLVE_UNIX, "connect"),
        (DEVICE & !READ_FILE & !WRITE_FILE & !TRUNCATE, "control"),
    ];
    let single = [
        (EXECUTE, "run"),
        (READ_FILE, "read files"),
        (READ_DIR, "list"),
        (WRITE_FILE, "write files"),
        (TRUNCATE, "truncate"),
        (REFER, "move"),
        (MAKE_BLOCK, "make block devices"),
        (MAKE_CHAR, "make devices"),
    ];
    let mut rest = access;
    let mut words = Vec::new();
    for (bits, word) in sets.into_iter().chain(single) {
        if rest & bits == bits {
            words.push(word.to_owned());
            rest &= !bits;
        }
    }
    if rest != 0 {
        words.push(format!("{rest:#x}"));
    }
    words.join(", ")
}

fn rules(request: &PlanRequest, grants: Grants) -> Result<Vec<PathRule>, PlanError> {
    let system = |path: &str, access| PathRule { path: path.into(), access, system: true };
    let mut rules: Vec<PathRule> = SYSTEM.iter().map(|path| system(path, READ)).collect();
    rules.push(system("/dev", READ_DIR));
    rules.extend(DEVICES.iter().map(|path| system(path, DEVICE)));
    if grants.pty {
        rules.push(system("/dev/ptmx", DEVICE));
        rules.push(system("/dev/pts", DEVICE | READ_DIR));
    }
    if grants.shared_memory {
        rules.push(system("/dev/shm", WRITE));
    }

    let roots = &request.roots;
    let write = writable(request);
    for path in write.iter().copied().chain(readable(request)).chain(roots.bus.as_deref()) {
        if !clean(path) {
            return Err(PlanError::UncleanPath { path: path.to_path_buf() });
        }
    }
    if !request.workspace_write
        && let Some(workspace) = &roots.workspace
        && let Some(above) = write.iter().find(|path| workspace.starts_with(path))
    {
        // Landlock's grants add up along a path: a writable directory above would void the role.
        return Err(PlanError::WorkspaceBelowWritable {
            workspace: workspace.clone(),
            writable: above.to_path_buf(),
        });
    }
    let mut own = |path: &Path, access| {
        rules.push(PathRule { path: path.to_path_buf(), access, system: false });
    };
    for path in readable(request) {
        own(path, READ);
    }
    if let Some(bus) = &roots.bus {
        own(bus, READ | RESOLVE_UNIX);
    }
    for path in write {
        own(path, WRITE);
    }
    Ok(rules)
}

fn writable(request: &PlanRequest) -> Vec<&Path> {
    let roots = &request.roots;
    let workspace = roots.workspace.as_ref().filter(|_| request.workspace_write);
    [&roots.home, &roots.tmpdir, &roots.checkpoint, &roots.handoff]
        .into_iter()
        .flatten()
        .chain(workspace)
        .chain(&roots.extra_write)
        .map(PathBuf::as_path)
        .collect()
}

fn readable(request: &PlanRequest) -> Vec<&Path> {
    let roots = &request.roots;
    let workspace = roots.workspace.as_ref().filter(|_| !request.workspace_write);
    workspace
        .into_iter()
        .chain(&roots.task)
        .chain(&roots.missionctl)
        .chain(&roots.extra_read)
        .map(PathBuf::as_path)
        .collect()
}

/// Absolute, not `/`, and without `.` or `..`.
pub(super) fn clean(path: &Path) -> bool {
    use std::path::Component;
    path.is_absolute()
        && path.components().count() > 1
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}
