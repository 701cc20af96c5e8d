//! What the planner is asked for an agent: the same for the daemon, which starts it, and for
//! `missiond explain`, which only says what would be started.

use std::path::{Path, PathBuf};

use super::AgentLaunch;
use super::dirs::{AgentDirs, Dirs};
use crate::ids::{AgentName, TaskId};
use crate::policy::{PlanRequest, Roots};

/// Directories of one task of a task-mode agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskDirs {
    /// Holds the task file; the agent only reads it.
    pub root: PathBuf,
    /// `$MISSION_CHECKPOINT_DIR`.
    pub checkpoint: PathBuf,
    /// `$MISSION_HANDOFF_DIR`.
    pub handoff: PathBuf,
}

impl TaskDirs {
    /// Those of a task.
    #[must_use]
    pub fn of(own: &AgentDirs, task: &TaskId) -> Self {
        let root = own.task(task);
        Self { checkpoint: root.join("checkpoint"), handoff: root.join("handoff"), root }
    }
}

/// The directories of an agent, for the planner. What is protected in them is found on the disk, later.
#[must_use]
pub fn roots(
    launch: &AgentLaunch,
    workspace: &Path,
    dirs: &Dirs,
    own: &AgentDirs,
    task: Option<&TaskDirs>,
    missionctl: Option<&Path>,
) -> Roots {
    // Where all missions of the user have their sockets, logs and homes: only what is this agent's own
    // of it is visible, whatever directory around it is granted.
    let missions = [dirs.runtime(), dirs.state()].into_iter().filter_map(Path::parent);
    Roots {
        home: Some(own.home()),
        tmpdir: Some(own.tmp()),
        workspace: Some(workspace.to_owned()),
        checkpoint: Some(task.map_or_else(|| own.checkpoint(), |task| task.checkpoint.clone())),
        handoff: Some(task.map_or_else(|| own.handoff(), |task| task.handoff.clone())),
        task: task.map(|task| task.root.clone()),
        bus: Some(own.bus().to_owned()),
        missionctl: missionctl.map(Path::to_owned),
        extra_read: launch.read.clone(),
        extra_write: launch.write.clone(),
        hidden: launch.hidden.iter().cloned().chain(missions.map(Path::to_owned)).collect(),
        // What is found on the disk is added where agents are started.
        private: None,
        substitutes: Vec::new(),
        protected: Vec::new(),
        memory: Vec::new(),
    }
}

/// Everything that the planner is asked for an agent. `can_write` is what its role says now.
#[must_use]
pub fn request(
    launch: &AgentLaunch,
    agent: &AgentName,
    can_write: bool,
    roots: Roots,
) -> PlanRequest {
    PlanRequest {
        level: launch.level,
        workspace_write: can_write,
        roots,
        landlock: launch.landlock,
        enforcement: launch.enforcement,
        landlock_min_abi: 0,
        grants: launch.grants,
        limits: launch.limits,
        network: launch.network,
        hostname: agent.to_string(),
        tmp_bytes: launch.tmp_bytes,
        filter: launch.filter.clone(),
    }
}
