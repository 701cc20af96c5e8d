//! What a plan can't give: gaps, which are told, and errors, which refuse it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Level;
use super::bpf::BpfError;
use super::seccomp::ProfileError;

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
    /// Level 2 on the host's network, with Landlock before ABI 6.
    #[error(
        "Landlock ABI {abi} (Linux before 6.12): on the host's network the agent can use abstract \
         sockets of other processes"
    )]
    AbstractSocketsOpen {
        /// The kernel's ABI; 0 for no Landlock.
        abi: u32,
    },
    /// Level 1 has no network of its own.
    #[error("level 1 can't keep an agent from the network; level 2 can")]
    NetworkOpen,
    /// Parts of the host's `/proc` are covered, so that the kernel allows no new one.
    #[error(
        "no /proc of its own, because parts of this machine's are covered (a container?): programs \
         that look at their own processes there fail"
    )]
    NoProc,
    /// A share of processors needs a cgroup.
    #[error("the share of processors isn't enforced: no cgroup is delegated to this user")]
    CpuShareOpen,
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
    /// This planner knows `none`, 1 and 2.
    #[error("isolation level {0} is a container's")]
    Level(Level),
    /// The kernel lacks what the policy requires.
    #[error("the policy requires {what}, which this kernel doesn't offer")]
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
    /// A path at a place that the sandbox makes itself, or below one that holds no directories.
    #[error(
        "path {path} is where a level-2 agent has {own} of its own; name a directory elsewhere"
    )]
    OwnPlace {
        /// The path.
        path: PathBuf,
        /// What is there in the sandbox.
        own: PathBuf,
    },
    /// The seccomp filter can't be encoded.
    #[error("cannot assemble the seccomp filter")]
    Filter(#[from] BpfError),
    /// The seccomp profile can't be read or compiled.
    #[error("cannot make the seccomp filter")]
    Profile(#[from] ProfileError),
}
