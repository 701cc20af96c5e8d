//! What is asked of the planner.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Level;
use super::bpf::Instruction;
use super::grants::Grants;
use super::limits::Limits;
use super::sandbox::Network;

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

/// Where what an agent changes in a private workspace is kept. Both on one file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivateTree {
    /// For the changes.
    pub upper: PathBuf,
    /// For the kernel.
    pub work: PathBuf,
}

/// The agent's directories. All absolute and canonical; those that are given must exist.
///
/// At level 2 each appears at the same path as outside; `tmpdir` is not needed there.
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
    /// The directory of the task's file, which may hold the two above: read.
    pub task: Option<PathBuf>,
    /// The directory of the agent's own bus socket: read and connect.
    pub bus: Option<PathBuf>,
    /// The directory that holds `missionctl`: read and execute.
    pub missionctl: Option<PathBuf>,
    /// More directories to read and execute from.
    pub extra_read: Vec<PathBuf>,
    /// More directories to write.
    pub extra_write: Vec<PathBuf>,
    /// Level 2: where the changes to a private workspace go; the workspace itself stays as it is.
    pub private: Option<PrivateTree>,
    /// Level 2: writable directories in memory that are gone at the end; whatever the host has there
    /// isn't seen.
    pub memory: Vec<PathBuf>,
    /// Level 2: files (first) that are seen in the place of others inside writable directories.
    pub substitutes: Vec<(PathBuf, PathBuf)>,
    /// Level 2: what stays hidden, also inside directories that are granted. Wins over the two lists
    /// above; the agent's own directories below it stay visible.
    pub hidden: Vec<PathBuf>,
    /// Level 2: existing files and directories that stay read-only inside writable directories.
    pub protected: Vec<PathBuf>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanRequest {
    /// `none`, 1 or 2.
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
    /// What it reaches of the network. Level 1 can't keep an agent from it.
    pub network: Network,
    /// Level 2: what the machine is called inside, at most 64 bytes.
    pub hostname: String,
    /// Level 2: bytes of its private `/tmp`; [`DEFAULT_TMP`](super::limits::DEFAULT_TMP) if none.
    pub tmp_bytes: Option<u64>,
    /// Level 2: the compiled seccomp filter; the built-in one for `grants` if none.
    pub filter: Option<Arc<[Instruction]>>,
}
