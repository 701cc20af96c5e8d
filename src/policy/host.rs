//! What the planner has to know about a machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What this machine offers; `launch::host_facts` finds out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// 0 if the kernel has no Landlock or it is switched off.
    pub landlock_abi: u32,
    /// Seccomp filters can be loaded.
    pub seccomp: bool,
    /// Processes and threads that the user runs now. `RLIMIT_NPROC` counts the user as a whole, so a
    /// caller who starts several agents adds what the others may still start.
    pub uid_tasks: u64,
    /// The daemon's soft limit of open files.
    pub nofile_soft: u64,
    /// The daemon runs as root (or with CAP_SYS_RESOURCE).
    pub root: bool,
    /// What of [`SYSTEM_PLACES`], [`DEVICES`] and [`PROC_PLACES`] is there.
    pub system: Vec<SystemPlace>,
    /// A new pid namespace can have its own `/proc`. Where a container covers parts of `/proc`, the
    /// kernel refuses one that would show them (`mount_too_revealing`).
    pub fresh_proc: bool,
    /// A cgroup v2 subtree is ours to divide among agents.
    pub cgroup: bool,
}

/// Something of the system that agents see, as it is on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemPlace {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: PlaceKind,
    /// Only an agent on the host's network sees it.
    pub network: bool,
}

/// What stands at a [`SystemPlace`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A device node.
    Device,
    /// A symbolic link, and what it says (`/bin -> usr/bin`).
    Link(PathBuf),
}

/// The system as an agent at level 2 sees it, read-only, and whether it is only for agents on the
/// host's network. What isn't there is left out; what is a link stays one.
pub const SYSTEM_PLACES: [(&str, bool); 19] = [
    ("/usr", false),
    ("/bin", false),
    ("/sbin", false),
    ("/lib", false),
    ("/lib32", false),
    ("/lib64", false),
    ("/libx32", false),
    ("/etc", false),
    ("/opt", false),
    ("/nix/store", false),
    ("/nix/var/nix/profiles", false),
    ("/gnu/store", false),
    ("/run/current-system", false),
    ("/var/lib/ca-certificates", false),
    // How many processors there are: glibc, Python, node and cargo read it.
    ("/sys/devices/system/cpu", false),
    ("/run/systemd/resolve", true),
    ("/run/resolvconf", true),
    ("/run/NetworkManager", true),
    // Where `/etc/resolv.conf` really is, if it isn't below one of those; its path is found out.
    ("/etc/resolv.conf", true),
];

/// Device nodes every program may use.
pub const DEVICES: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// What is done to a part of `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// Can't be opened.
    Hidden,
    /// Can't be written.
    ReadOnly,
}

/// From whom a part of `/proc` must be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// Anybody may read it.
    Anybody,
    /// Its mode keeps out all but root, whose uid an agent of root still has.
    Root,
}

/// Parts of `/proc` that are about the machine, not about the agent's processes.
pub const PROC_PLACES: [(&str, Cover, Whom); 11] = [
    ("cmdline", Cover::Hidden, Whom::Anybody),
    ("kallsyms", Cover::Hidden, Whom::Anybody),
    ("keys", Cover::Hidden, Whom::Anybody),
    ("key-users", Cover::Hidden, Whom::Anybody),
    ("kcore", Cover::Hidden, Whom::Root),
    ("sysrq-trigger", Cover::Hidden, Whom::Root),
    ("timer_list", Cover::Hidden, Whom::Root),
    ("sys", Cover::ReadOnly, Whom::Root),
    ("irq", Cover::ReadOnly, Whom::Root),
    ("bus", Cover::ReadOnly, Whom::Root),
    ("fs", Cover::ReadOnly, Whom::Root),
];
