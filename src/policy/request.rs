//! What is asked of the planner.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Level;
use super::limits::Limits;

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
