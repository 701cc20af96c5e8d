//! Questions that decisions and rules ask.

use super::{Agent, Handoff, HandoffState, Process, State, Task, TaskState};
use crate::core::denied::{Code, Denied};
use crate::core::spec::{Mode, Permission, Permissions};
use crate::core::table;
use crate::core::view::MissionStateName;
use crate::ids::{AgentName, AgentUid, HandoffId, Incarnation, TaskId};

impl Task {
    /// Who owns it, while it is not settled.
    #[must_use]
    pub fn owner(&self) -> Option<AgentUid> {
        match &self.state {
            TaskState::Assigned { owner } | TaskState::Active { owner, .. } => Some(*owner),
            TaskState::Pending | TaskState::Settled(_) => None,
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self.state, TaskState::Settled(_))
    }

    pub(crate) fn column(&self) -> table::task::Column {
        match self.state {
            TaskState::Pending => table::task::Column::Pending,
            TaskState::Assigned { .. } => table::task::Column::Assigned,
            TaskState::Active { .. } => table::task::Column::Active,
            TaskState::Settled(_) => table::task::Column::Settled,
        }
    }

    pub(crate) fn fits(&self, agent: &Agent) -> bool {
        self.needs.iter().all(|need| agent.spec.capabilities.contains(need))
    }
}

impl Handoff {
    pub(crate) fn column(&self) -> table::handoff::Column {
        match self.state {
            HandoffState::Requested => table::handoff::Column::Requested,
            HandoffState::Draining | HandoffState::Quiesced => table::handoff::Column::Accepted,
            HandoffState::Completed | HandoffState::Ended(_) => table::handoff::Column::Ended,
        }
    }

    pub(crate) fn is_accepted(&self) -> bool {
        matches!(self.state, HandoffState::Draining | HandoffState::Quiesced)
    }
}

impl State {
    /// What an agent's role permits; nothing for one that is no more.
    #[must_use]
    pub fn permissions(&self, uid: AgentUid) -> Permissions {
        let agent = self.agents.get(&uid).filter(|agent| !agent.removed);
        agent.and_then(|agent| self.roles.get(&agent.role)).copied().unwrap_or_default()
    }

    /// Whether an agent may own tasks.
    pub(crate) fn executes(&self, uid: AgentUid) -> bool {
        self.permissions(uid).has(Permission::Execute)
    }

    /// Whether the agent's process has ended for good, as far as its tasks are concerned.
    pub(crate) fn is_gone(&self, uid: AgentUid) -> bool {
        let Some(agent) = self.agents.get(&uid) else { return true };
        let down = match agent.process {
            Process::Ended | Process::Stopped | Process::Failed { .. } => true,
            Process::Idle
            | Process::Waiting { .. }
            | Process::Starting { .. }
            | Process::Running { .. }
            | Process::Stopping { .. } => false,
        };
        down || agent.removed || !self.executes(uid)
    }

    pub(crate) fn live_incarnation(&self, uid: AgentUid) -> Option<Incarnation> {
        self.agents.get(&uid).filter(|agent| agent.is_live()).map(|agent| agent.incarnation)
    }

    pub(crate) fn is_service(&self, uid: AgentUid) -> bool {
        self.agents.get(&uid).is_some_and(|agent| agent.spec.mode == Mode::Service)
    }

    /// Whether work is handed out.
    pub(crate) fn is_running(&self) -> bool {
        self.mission.state == MissionStateName::Running && self.mission.configured
    }

    /// The open handoff of a task.
    pub(crate) fn handoff_of(&self, task: &Task) -> Option<(HandoffId, &Handoff)> {
        let id = task.handoff?;
        self.handoffs.get(&id).map(|handoff| (id, handoff))
    }

    pub(crate) fn is_quiesced(&self, task: &Task) -> bool {
        self.handoff_of(task).is_some_and(|(_, h)| h.state == HandoffState::Quiesced)
    }

    pub(crate) fn resolve(&self, name: &AgentName) -> Result<AgentUid, Denied> {
        self.index.by_name.get(name).copied().ok_or_else(|| {
            Denied::new(Code::NotFound, format!("no agent `{name}` in this mission"))
        })
    }

    pub(crate) fn find_task(&self, id: &TaskId) -> Result<&Task, Denied> {
        self.tasks
            .get(id)
            .ok_or_else(|| Denied::new(Code::NotFound, format!("no task `{id}` in this mission")))
    }

    pub(crate) fn find_handoff(&self, id: HandoffId) -> Result<&Handoff, Denied> {
        self.handoffs
            .get(&id)
            .ok_or_else(|| Denied::new(Code::NotFound, format!("no handoff `{id}`")))
    }

    /// An agent's name for a sentence.
    pub(crate) fn called(&self, uid: AgentUid) -> String {
        self.name_of(uid).map_or_else(|| format!("agent {uid}"), |name| format!("`{name}`"))
    }

    /// Whether the agent has a free slot for a task that is handed to it. Services always have one.
    pub(crate) fn has_slot(&self, uid: AgentUid) -> bool {
        let Some(agent) = self.agents.get(&uid) else { return false };
        agent.spec.mode == Mode::Service
            || (agent.process == Process::Idle && !self.slot_reserved(uid))
    }

    /// Whether an accepted handoff is on its way to this (task-mode) agent.
    pub(crate) fn slot_reserved(&self, uid: AgentUid) -> bool {
        let mut incoming = self.index.incoming.get(&uid).into_iter().flatten();
        incoming.any(|id| self.handoffs.get(id).is_some_and(Handoff::is_accepted))
    }

    pub(crate) fn tasks_owned(&self, uid: AgentUid) -> Vec<TaskId> {
        self.index.owned.get(&uid).into_iter().flatten().cloned().collect()
    }
}
