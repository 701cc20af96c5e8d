//! What the planner has to know about a machine.

use serde::{Deserialize, Serialize};

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
