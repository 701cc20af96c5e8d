//! From a request and the host's facts to a plan, or a refusal.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Level;
use super::bpf::{BpfError, Instruction};
use super::landlock::{self, LandlockPlan};
use super::limits::{Limits, Rlimit, rlimits};
use super::seccomp;

/// How much of Landlock level 1 uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LandlockMode {
    /// Files are confined, and signals and abstract sockets scoped.
    #[default]
    Files,
    /// Only the scopes: an agent that mounts (an inner sandbox) needs this, since a domain that
    /// handles files forbids mount(2).
    ScopeOnly,
}

/// What happens if this kernel lacks Landlock or seccomp altogether.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    /// The plan is refused.
    #[default]
    Required,
    /// The plan goes without and says so in its gaps.
    BestEffort,
}

/// Things beyond the agent's own directories that a policy may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Open pseudo terminals. At level 1 this is `/dev/pts`, other terminals of the user included.
    pub pty: bool,
    /// `/dev/shm`, shared with every process of the user (Python's multiprocessing needs it).
    pub shared_memory: bool,
}

/// The agent's directories. All absolute and canonical; those that are given must exist.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Roots {
    /// `$HOME`, writable.
    pub home: Option<PathBuf>,
    /// `$TMPDIR`, writable.
    pub tmpdir: Option<PathBuf>,
    /// The mission's shared tree, writable by role.
    pub workspace: Option<PathBuf>,
    /// `$MISSION_CHECKPOINT_DIR`, writable.
    pub checkpoint: Option<PathBuf>,
    /// `$MISSION_HANDOFF_DIR`, writable: the files there are the agent's own copies.
    pub handoff: Option<PathBuf>,
    /// The directory of the agent's own bus socket: read and connect.
    pub bus: Option<PathBuf>,
    /// The directory that holds `missionctl`: read and execute.
    pub missionctl: Option<PathBuf>,
    /// More directories to read and execute from.
    pub extra_read: Vec<PathBuf>,
    /// More directories to write.
    pub extra_write: Vec<PathBuf>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanRequest {
    /// `none` or 1.
    pub level: Level,
    /// The role may write the workspace.
    pub workspace_write: bool,
    /// Directories.
    pub roots: Roots,
    /// How much of Landlock.
    pub landlock: LandlockMode,
    /// Whether Landlock and seccomp may be missing.
    pub enforcement: Enforcement,
    /// The lowest Landlock ABI the policy accepts; 0 leaves it to [`Enforcement`].
    pub landlock_min_abi: u32,
    /// Extra grants.
    pub grants: Grants,
    /// Resource limits.
    pub limits: Limits,
}

/// What this machine offers; `launch::host_facts` finds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// What a policy became: applied to the letter by the launcher, printed by `explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessPlan {
    /// The level it grants.
    pub level: Level,
    /// All capabilities are dropped. Only root has any, and with them Landlock would not hold: it
    /// doesn't stop a reboot, or a read of another's memory under CAP_PERFMON.
    pub drop_capabilities: bool,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// The Landlock domain, if any.
    pub landlock: Option<LandlockPlan>,
    /// The seccomp filter; empty for none.
    pub seccomp: Vec<Instruction>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// What this kernel can't enforce.
    pub gaps: Vec<Gap>,
}

/// Something that the level would want and this kernel or set-up doesn't give, in a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Gap {
    /// No Landlock at all.
    #[error(
        "no Landlock in this kernel: files, signals and memory of the user's other processes are \
         open to the agent"
    )]
    NoLandlock,
    /// No seccomp filters.
    #[error(
        "no seccomp filters in this kernel: the agent can change limits and priorities of the \
         user's other processes"
    )]
    NoSeccomp,
    /// Landlock before ABI 6.
    #[error(
        "Landlock ABI {abi} (Linux before 6.12): the agent can signal the user's other processes \
         and use abstract sockets"
    )]
    SignalsOpen {
        /// The kernel's ABI.
        abi: u32,
    },
    /// Landlock before ABI 3.
    #[error("Landlock ABI {abi} (Linux before 6.2): the agent can truncate files outside")]
    TruncateOpen {
        /// The kernel's ABI.
        abi: u32,
    },
    /// Landlock before ABI 9.
    #[error(
        "Landlock ABI {abi} (Linux before 7.1): the agent can talk to services of the user through \
         Unix sockets, and ask them to run something outside"
    )]
    UnixSocketsOpen {
        /// The kernel's ABI.
        abi: u32,
    },
    /// `RLIMIT_NPROC` counts the whole user.
    #[error("the pids limit counts all processes of the user, not only this agent's")]
    PidsPerUser,
    /// `RLIMIT_NPROC` doesn't bind root.
    #[error("the pids limit has no effect for root")]
    PidsAsRoot,
    /// `RLIMIT_DATA` is per process.
    #[error("the memory limit holds for each process, not for the agent as a whole")]
    MemoryPerProcess,
    /// `RLIMIT_CPU` is per process.
    #[error("the processor time limit holds for each process, not for the agent as a whole")]
    CpuPerProcess,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// This planner knows `none` and 1.
    #[error("isolation level {0} can't run as a plain process")]
    Level(Level),
    /// The kernel lacks what the policy requires.
    #[error("level 1 requires {what}, which this kernel doesn't offer")]
    Missing {
        /// The facility.
        what: &'static str,
    },
    /// The kernel's Landlock is older than the policy accepts.
    #[error("the policy requires Landlock ABI {wanted}, this kernel has {present}")]
    LandlockAbi {
        /// The policy's minimum.
        wanted: u32,
        /// The kernel's.
        present: u32,
    },
    /// A limit above what may be given.
    #[error("limit {limit} = {asked} is above {most}, half of missiond's own limit")]
    LimitTooHigh {
        /// Name of the limit.
        limit: &'static str,
        /// What was asked for.
        asked: u64,
        /// What is possible.
        most: u64,
    },
    /// A path that isn't absolute, is `/`, or holds `.` or `..`.
    #[error("path {path} is not an absolute, resolved directory below /")]
    UncleanPath {
        /// The path.
        path: PathBuf,
    },
    /// A read-only workspace inside a writable directory can't be kept read-only.
    #[error("workspace {workspace} is read-only for this role but lies in writable {writable}")]
    WorkspaceBelowWritable {
        /// The workspace.
        workspace: PathBuf,
        /// The writable directory around it.
        writable: PathBuf,
    },
    /// The seccomp filter can't be encoded.
    #[error("cannot assemble the seccomp filter")]
    Filter(#[from] BpfError),
}

/// Decides what a policy becomes on this host.
///
/// # Errors
/// When something that the policy requires can't be granted in full. Nothing is lowered silently.
pub fn plan(request: &PlanRequest, host: &HostFacts) -> Result<ProcessPlan, PlanError> {
    match request.level {
        Level::None => Ok(ProcessPlan {
            level: Level::None,
            drop_capabilities: false,
            no_new_privs: false,
            landlock: None,
            seccomp: Vec::new(),
            rlimits: Vec::new(),
            gaps: Vec::new(),
        }),
        Level::Process => level_1(request, host),
        Level::Namespaces | Level::Container => Err(PlanError::Level(request.level)),
    }
}

fn level_1(request: &PlanRequest, host: &HostFacts) -> Result<ProcessPlan, PlanError> {
    let mut gaps = Vec::new();
    if host.landlock_abi < request.landlock_min_abi {
        return Err(PlanError::LandlockAbi {
            wanted: request.landlock_min_abi,
            present: host.landlock_abi,
        });
    }
    let missing = |what, gap, gaps: &mut Vec<Gap>| match request.enforcement {
        Enforcement::Required => Err(PlanError::Missing { what }),
        Enforcement::BestEffort => {
            gaps.push(gap);
            Ok(())
        }
    };
    let landlock = if host.landlock_abi == 0 {
        missing("Landlock", Gap::NoLandlock, &mut gaps)?;
        None
    } else {
        Some(landlock::domain(request, host, &mut gaps)?)
    };
    let seccomp = match seccomp::native() {
        Some(arch) if host.seccomp => seccomp::level_1(&arch)?,
        Some(_) | None => {
            missing("seccomp filters", Gap::NoSeccomp, &mut gaps)?;
            Vec::new()
        }
    };
    let rlimits = rlimits(&request.limits, host, &mut gaps)?;
    Ok(ProcessPlan {
        level: Level::Process,
        drop_capabilities: true,
        no_new_privs: true,
        landlock,
        seccomp,
        rlimits,
        gaps,
    })
}
