//! The indexes: what follows from the rest of the state. Every change of a task, handoff or agent goes
//! through `edit_*`, which takes the old entries out and puts the new ones in.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::state::{Agent, Due, Handoff, Index, Keys, Process, State, Task, TaskState};
use crate::ids::{AgentUid, HandoffId, Seq, TaskId, Timestamp};

fn put<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: K, value: V) {
    map.entry(key).or_default().insert(value);
}

fn take<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

impl Index {
    fn due(&mut self, at: Option<Timestamp>, due: Due, add: bool) {
        let Some(at) = at else { return };
        if add {
            self.due.insert((at, due));
        } else {
            self.due.remove(&(at, due));
        }
    }

    fn task(&mut self, id: &TaskId, task: &Task, keep_ms: u64, add: bool) {
        let owner = match &task.state {
            TaskState::Settled(settled) => {
                let at = settled.at.plus_ms(keep_ms);
                self.due(Some(at), Due::PruneTask(id.clone()), add);
                return;
            }
            TaskState::Pending => None,
            TaskState::Assigned { owner } | TaskState::Active { owner, .. } => Some(*owner),
        };
        self.due(task.deadline, Due::Task(id.clone()), add);
        if add {
            self.open_tasks += 1;
        } else {
            self.open_tasks -= 1;
        }
        if let Some(owner) = owner {
            if add {
                put(&mut self.owned, owner, id.clone());
            } else {
                take(&mut self.owned, &owner, id);
            }
            return;
        }
        for dependency in &task.after {
            if add {
                put(&mut self.dependents, dependency.clone(), id.clone());
            } else {
                take(&mut self.dependents, dependency, id);
            }
        }
        match task.reserved {
            Some(agent) if add => put(&mut self.reserved, agent, id.clone()),
            Some(agent) => take(&mut self.reserved, &agent, id),
            None if !task.open.is_empty() => {}
            None if add => _ = self.claimable.insert((task.created_at, id.clone())),
            None => _ = self.claimable.remove(&(task.created_at, id.clone())),
        }
    }

    fn handoff(&mut self, id: HandoffId, handoff: &Handoff, keep_ms: u64, add: bool) {
        if !handoff.is_open() {
            let at = handoff.ended.map(|ended| ended.plus_ms(keep_ms));
            self.due(at, Due::PruneHandoff(id), add);
            if add {
                self.ended.insert(id);
            } else {
                self.ended.remove(&id);
            }
            return;
        }
        self.due(handoff.until, Due::Handoff(id), add);
        if add {
            put(&mut self.incoming, handoff.to, id);
            put(&mut self.outgoing, handoff.from, id);
        } else {
            take(&mut self.incoming, &handoff.to, &id);
            take(&mut self.outgoing, &handoff.from, &id);
        }
    }

    fn agent(&mut self, uid: AgentUid, agent: &Agent, add: bool) {
        let (due, live) = match &agent.process {
            Process::Waiting { until } => (Some(*until), false),
            Process::Starting { until, .. } => (Some(*until), true),
            Process::Running { wall, .. } => (*wall, true),
            Process::Stopping { .. } => (None, true),
            Process::Idle | Process::Ended | Process::Stopped | Process::Failed { .. } => {
                (None, false)
            }
        };
        self.due(due, Due::Agent(uid), add);
        if live && add {
            self.live.insert(uid);
        } else {
            self.live.remove(&uid);
        }
    }
}

impl State {
    /// Changes a task and the indexes with it.
    pub(super) fn edit_task(&mut self, id: &TaskId, change: impl FnOnce(&mut Task)) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let keep_ms = self.limits.keep_finished_ms;
        self.index.task(id, task, keep_ms, false);
        change(task);
        self.index.task(id, task, keep_ms, true);
    }

    pub(super) fn insert_task(&mut self, id: TaskId, task: Task) {
        self.index.task(&id, &task, self.limits.keep_finished_ms, true);
        self.tasks.insert(id, task);
    }

    pub(super) fn remove_task(&mut self, id: &TaskId) -> Option<Task> {
        let task = self.tasks.remove(id)?;
        self.index.task(id, &task, self.limits.keep_finished_ms, false);
        Some(task)
    }

    /// Changes a handoff and the indexes with it.
    pub(super) fn edit_handoff(&mut self, id: HandoffId, change: impl FnOnce(&mut Handoff)) {
        let Some(handoff) = self.handoffs.get_mut(&id) else { return };
        let keep_ms = self.limits.keep_finished_ms;
        self.index.handoff(id, handoff, keep_ms, false);
        change(handoff);
        self.index.handoff(id, handoff, keep_ms, true);
    }

    pub(super) fn insert_handoff(&mut self, id: HandoffId, handoff: Handoff) {
        self.index.handoff(id, &handoff, self.limits.keep_finished_ms, true);
        self.handoffs.insert(id, handoff);
    }

    pub(super) fn remove_handoff(&mut self, id: HandoffId) {
        if let Some(handoff) = self.handoffs.remove(&id) {
            self.index.handoff(id, &handoff, self.limits.keep_finished_ms, false);
        }
    }

    /// Changes an agent's process and the indexes with it.
    pub(super) fn edit_agent(&mut self, uid: AgentUid, change: impl FnOnce(&mut Agent)) {
        let Some(agent) = self.agents.get_mut(&uid) else { return };
        self.index.agent(uid, agent, false);
        change(agent);
        self.index.agent(uid, agent, true);
    }

    pub(super) fn insert_agent(&mut self, uid: AgentUid, agent: Agent) {
        self.index.agent(uid, &agent, true);
        self.index.by_name.insert(agent.spec.name.clone(), uid);
        self.agents.insert(uid, agent);
    }

    pub(super) fn remove_agent(&mut self, uid: AgentUid) -> Option<Agent> {
        let agent = self.agents.remove(&uid)?;
        self.index.agent(uid, &agent, false);
        if self.index.by_name.get(&agent.spec.name) == Some(&uid) {
            self.index.by_name.remove(&agent.spec.name);
        }
        Some(agent)
    }

    /// Builds the indexes anew: after a snapshot, and when a bound changes that they depend on.
    pub(in crate::core) fn rebuild_index(&mut self) {
        self.keys.values_mut().for_each(Keys::count);
        let mut index = Index::default();
        for (uid, agent) in &self.agents {
            index.agent(*uid, agent, true);
            if !agent.removed {
                index.by_name.insert(agent.spec.name.clone(), *uid);
            }
        }
        for (id, task) in &self.tasks {
            index.task(id, task, self.limits.keep_finished_ms, true);
        }
        for (id, handoff) in &self.handoffs {
            index.handoff(*id, handoff, self.limits.keep_finished_ms, true);
        }
        self.index = index;
    }

    /// The oldest pending task that `fits`, among those that are free to be claimed.
    pub(in crate::core) fn first_claimable(&self, fits: impl Fn(&Task) -> bool) -> Option<TaskId> {
        let mut free: std::collections::btree_set::Iter<'_, (Seq, TaskId)> =
            self.index.claimable.iter();
        free.find(|(_, id)| self.tasks.get(id).is_some_and(&fits)).map(|(_, id)| id.clone())
    }
}
