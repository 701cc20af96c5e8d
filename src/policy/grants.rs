//! What most programs don't need, and a policy may give by name.

use serde::{Deserialize, Serialize};

/// Things beyond the agent's own directories that a policy may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Open pseudo terminals. At level 1 this is `/dev/pts`, other terminals of the user included.
    pub pty: bool,
    /// `/dev/shm`, shared with every process of the user (Python's multiprocessing needs it). At
    /// level 2 an agent has terminals and a `/dev/shm` of its own without a grant.
    pub shared_memory: bool,
    /// Trace its own processes: `ptrace` and its kin. Level 2.
    pub ptrace: bool,
    /// Make namespaces of its own, for a sandbox inside. Level 2.
    pub userns: bool,
    /// `io_uring`. Level 2.
    pub io_uring: bool,
    /// `perf_event_open`. Level 2.
    pub perf: bool,
}
