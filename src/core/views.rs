//! The state as others see it. What only the log or the daemon knows is left empty for them.

use super::event::HandoffEnd;
use super::state::{Handoff, HandoffState, Process, State, Task, TaskState};
use super::view::{
    AgentStateName, AgentView, CheckpointView, HandoffStateName, HandoffView, MissionView,
    TaskStateName, TaskView,
};
use crate::ids::{AgentName, AgentUid, CheckpointId, HandoffId, Seq, TaskId};

impl Task {
    /// Its state, without data.
    #[must_use]
    pub fn state_name(&self) -> TaskStateName {
        match &self.state {
            TaskState::Pending => TaskStateName::Pending,
            TaskState::Assigned { .. } => TaskStateName::Assigned,
            TaskState::Active { .. } => TaskStateName::Active,
            TaskState::Settled(settled) => settled.how,
        }
    }
}

impl Handoff {
    /// Its state, without data.
    #[must_use]
    pub fn state_name(&self) -> HandoffStateName {
        match self.state {
            HandoffState::Requested => HandoffStateName::Requested,
            HandoffState::Draining => HandoffStateName::Draining,
            HandoffState::Quiesced => HandoffStateName::Quiesced,
            HandoffState::Completed => HandoffStateName::Completed,
            HandoffState::Ended(HandoffEnd::Rejected) => HandoffStateName::Rejected,
            HandoffState::Ended(HandoffEnd::Expired) => HandoffStateName::Expired,
            HandoffState::Ended(HandoffEnd::Cancelled) => HandoffStateName::Cancelled,
            HandoffState::Ended(HandoffEnd::Failed) => HandoffStateName::Failed,
        }
    }
}

impl Process {
    /// What the process is doing, without data.
    #[must_use]
    pub fn state_name(&self) -> AgentStateName {
        match self {
            Process::Idle => AgentStateName::Idle,
            Process::Waiting { .. } => AgentStateName::Waiting,
            Process::Starting { .. } => AgentStateName::Starting,
            Process::Running { .. } => AgentStateName::Running,
            Process::Stopping { .. } => AgentStateName::Stopping,
            Process::Ended => AgentStateName::Ended,
            Process::Stopped => AgentStateName::Stopped,
            Process::Failed { .. } => AgentStateName::Failed,
        }
    }

    /// Its process id, while there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self {
            Process::Starting { pid, .. } | Process::Stopping { pid, .. } => *pid,
            Process::Running { pid, .. } => Some(*pid),
            Process::Idle
            | Process::Waiting { .. }
            | Process::Ended
            | Process::Stopped
            | Process::Failed { .. } => None,
        }
    }
}

impl State {
    fn view_name(&self, uid: AgentUid) -> Option<AgentName> {
        self.name_of(uid).cloned()
    }

    /// An agent.
    #[must_use]
    pub fn agent_view(&self, uid: AgentUid) -> Option<AgentView> {
        let agent = self.agents.get(&uid)?;
        let tasks = self.tasks_owned(uid);
        let latest = |id: &TaskId| self.tasks.get(id).and_then(|task| task.checkpoints.back());
        Some(AgentView {
            name: agent.spec.name.clone(),
            uid,
            role: agent.role.clone(),
            permissions: self.permissions(uid),
            capabilities: agent.spec.capabilities.clone(),
            mode: agent.spec.mode,
            level: agent.spec.level,
            state: agent.process.state_name(),
            since: agent.since,
            phase: agent.phase,
            pid: agent.process.pid(),
            incarnation: agent.incarnation,
            restarts: agent.restarts,
            last_exit: agent.last_exit.clone(),
            checkpoint: tasks.iter().filter_map(latest).max().copied(),
            tasks,
            heard: None,
            inbox: u32::try_from(agent.inbox.held.len()).unwrap_or(u32::MAX),
            waits_for: self.agent_waits(uid),
            gaps: Vec::new(),
        })
    }

    /// A task.
    #[must_use]
    pub fn task_view(&self, id: &TaskId) -> Option<TaskView> {
        let task = self.tasks.get(id)?;
        let settled = match &task.state {
            TaskState::Settled(settled) => Some(settled),
            TaskState::Pending | TaskState::Assigned { .. } | TaskState::Active { .. } => None,
        };
        let owner = settled.map_or_else(|| task.owner(), |settled| settled.owner);
        Some(TaskView {
            id: id.clone(),
            title: task.title.clone(),
            state: task.state_name(),
            owner: owner.and_then(|uid| self.view_name(uid)),
            reserved: task.reserved.and_then(|uid| self.view_name(uid)),
            epoch: task.epoch,
            progress: task.progress,
            note: task.note.clone(),
            after: task.after.clone(),
            needs: task.needs.clone(),
            deadline: task.deadline,
            attempts: task.attempts,
            max_attempts: task.max_attempts,
            checkpoint: task.checkpoints.back().copied(),
            handoff: task.handoff,
            reason: settled.and_then(|settled| settled.reason.clone()),
            created: task.created,
            started: task.started,
            settled: settled.map(|settled| settled.at),
            by: task.by.clone(),
            waits_for: self.task_waits(task),
            data_at: task.has_data.then_some(task.created_at),
            data: None,
            result_at: settled.and_then(|settled| settled.result_at),
            result: None,
        })
    }

    /// A checkpoint that is kept.
    #[must_use]
    pub fn checkpoint_view(&self, id: CheckpointId) -> Option<CheckpointView> {
        let checkpoint = self.checkpoints.get(&id)?;
        Some(CheckpointView {
            id,
            task: checkpoint.task.clone(),
            by: self.view_name(checkpoint.by)?,
            epoch: checkpoint.epoch,
            at: checkpoint.at,
            files: checkpoint.files.clone(),
            json_at: checkpoint.json.then_some::<Seq>(id.0),
            json: None,
        })
    }

    /// A handoff that is kept.
    #[must_use]
    pub fn handoff_view(&self, id: HandoffId) -> Option<HandoffView> {
        let handoff = self.handoffs.get(&id)?;
        Some(HandoffView {
            id,
            task: handoff.task.clone(),
            from: self.view_name(handoff.from)?,
            to: self.view_name(handoff.to)?,
            state: handoff.state_name(),
            by: handoff.by.clone(),
            requested: handoff.requested,
            until: handoff.until,
            checkpoint: handoff.checkpoint,
            epoch: handoff.epoch,
            reason: handoff.reason.clone(),
            waits_for: self.handoff_waits(id, handoff),
        })
    }

    /// All agents, by name.
    #[must_use]
    pub fn agent_views(&self) -> Vec<AgentView> {
        self.index.by_name.values().filter_map(|uid| self.agent_view(*uid)).collect()
    }

    /// The mission as a whole.
    #[must_use]
    pub fn mission_view(&self) -> Option<MissionView> {
        let mut tasks: Vec<_> = self.tasks.iter().map(|(id, task)| (task.created_at, id)).collect();
        tasks.sort();
        let open = self.handoffs.iter().filter(|(_, handoff)| handoff.is_open());
        Some(MissionView {
            name: self.mission.name.clone()?,
            state: self.mission.state,
            created: self.mission.created,
            generation: self.mission.generation,
            started: self.mission.started,
            pid: 0,
            state_dir: String::new(),
            head: self.head,
            agents: self.agent_views(),
            tasks: tasks.into_iter().filter_map(|(_, id)| self.task_view(id)).collect(),
            handoffs: open.filter_map(|(id, _)| self.handoff_view(*id)).collect(),
            alerts: Vec::new(),
        })
    }
}
