//! What follows from what happens to tasks.

use crate::core::batch::Batch;
use crate::core::event::{
    RequeueWhy, StopWhy, TaskAssigned, TaskCancelled, TaskFailed, TaskRequeued, TaskReserved,
};
use crate::core::spec::Mode;
use crate::core::state::{Process, TaskState};
use crate::core::table;
use crate::core::table::task::{Effect, Guard, Row, look_up};
use crate::core::view::TaskStateName;
use crate::ids::{AgentUid, TaskId};

impl Batch<'_> {
    pub(super) fn after_created(&mut self, id: &TaskId) {
        let Some(task) = self.state.tasks.get(id) else { return };
        // One that ended badly before, or (in a file) one that there isn't.
        let bad = task.open.iter().find(|dependency| match self.state.tasks.get(*dependency) {
            Some(of) => of.is_settled(),
            None => true,
        });
        match bad.cloned() {
            Some(dependency) => self.cancel_dependent(id, &dependency),
            None => self.free(id),
        }
    }

    /// Gives a pending task whose dependencies are met to whom it is for.
    pub(super) fn free(&mut self, id: &TaskId) {
        let Some(task) = self.state.tasks.get(id) else { return };
        if task.state != TaskState::Pending || !task.open.is_empty() {
            return;
        }
        match task.reserved {
            Some(to) if self.state.executes(to) => {
                self.emit(TaskAssigned { task: id.clone(), to, claimed: false });
            }
            Some(_) => _ = self.emit(TaskReserved { task: id.clone(), to: None }),
            None => self.offer(id),
        }
    }

    /// Lets the first idle task-mode agent that matches claim a task: it has no bus code to ask with.
    fn offer(&mut self, id: &TaskId) {
        if !self.state.is_running() {
            return;
        }
        let Some(task) = self.state.tasks.get(id) else { return };
        let agent = self.state.agents.iter().find(|(uid, agent)| {
            agent.spec.mode == Mode::Task
                && agent.process == Process::Idle
                && !agent.removed
                && self.state.executes(**uid)
                && !self.state.index.owned.contains_key(uid)
                && !self.state.index.incoming.contains_key(uid)
                && task.fits(agent)
        });
        if let Some((to, _)) = agent.map(|(uid, agent)| (*uid, agent)) {
            self.emit(TaskAssigned { task: id.clone(), to, claimed: true });
        }
    }

    pub(super) fn after_assigned(&mut self, id: &TaskId) {
        self.end_handoff_of(id, "the task was assigned to another");
        self.stop_strays(id);
        let Some(owner) = self.state.tasks.get(id).and_then(|task| task.owner()) else { return };
        self.tell_assigned(id, owner);
        self.poke(owner);
    }

    pub(super) fn after_requeued(&mut self, id: &TaskId) {
        let Some(task) = self.state.tasks.get(id) else { return };
        if let Some(owner) = task.owner() {
            self.tell_assigned(id, owner);
            self.poke(owner);
        } else {
            self.end_handoff_of(id, "the task has no owner any more");
            self.stop_strays(id);
            self.free(id);
        }
    }

    pub(super) fn after_settled(&mut self, id: &TaskId, stop: bool) {
        if let Some((h, _)) = self.state.tasks.get(id).and_then(|t| self.state.handoff_of(t)) {
            let row = match stop {
                true => table::handoff::Row::TaskEnds,
                false => table::handoff::Row::SourceSettles,
            };
            self.handoff_row(h, row, "its task is settled");
        }
        if stop {
            self.stop_strays(id);
        }
        let Some(task) = self.state.tasks.get(id) else { return };
        let TaskState::Settled(settled) = &task.state else { return };
        let completed = settled.how == TaskStateName::Completed;
        let dependents = self.state.index.dependents.get(id).cloned().unwrap_or_default();
        for dependent in dependents {
            if completed {
                self.free(&dependent);
            } else {
                self.cancel_dependent(&dependent, id);
            }
        }
        self.tell_settled(id);
        self.check_settled();
    }

    fn cancel_dependent(&mut self, id: &TaskId, dependency: &TaskId) {
        let Some(task) = self.state.tasks.get(id) else { return };
        if look_up(Row::DependencyEnded, task.column(), |_| false) == Effect::Cancel {
            let reason = match self.state.tasks.get(dependency).map(|of| of.state_name()) {
                Some(TaskStateName::Failed) => format!("dependency `{dependency}` failed"),
                Some(TaskStateName::Cancelled) => {
                    format!("dependency `{dependency}` was cancelled")
                }
                Some(
                    TaskStateName::Pending
                    | TaskStateName::Assigned
                    | TaskStateName::Active
                    | TaskStateName::Completed,
                )
                | None => format!("dependency `{dependency}` is not there"),
            };
            self.emit(TaskCancelled { task: id.clone(), reason: Some(reason), fence: false });
        }
    }

    fn end_handoff_of(&mut self, id: &TaskId, why: &str) {
        if let Some((h, _)) = self.state.tasks.get(id).and_then(|t| self.state.handoff_of(t)) {
            self.handoff_row(h, table::handoff::Row::TaskEnds, why);
        }
    }

    /// Stops task-mode processes that work on a task which is not theirs any more.
    pub(super) fn stop_strays(&mut self, id: &TaskId) {
        let owner = self.state.tasks.get(id).and_then(|task| task.owner());
        let strays: Vec<AgentUid> = self
            .state
            .index
            .live
            .iter()
            .filter(|uid| Some(**uid) != owner)
            .filter(|uid| {
                let run = self.state.agents.get(uid).and_then(|agent| agent.run());
                // A parked one follows its handoff.
                run.is_some_and(|run| {
                    run.task == *id
                        && !run.handoff.is_some_and(|h| {
                            self.state.handoffs.get(&h).is_some_and(|handoff| handoff.is_open())
                        })
                })
            })
            .copied()
            .collect();
        for uid in strays {
            self.stop(uid, StopWhy::TaskEnded);
        }
    }

    /// What the task table says happens to a task by itself.
    pub(crate) fn task_row(&mut self, id: &TaskId, row: Row, why: RequeueWhy) {
        let Some(task) = self.state.tasks.get(id) else { return };
        let over = task.attempts + 1 >= task.max_attempts;
        let (owner, max) = (task.owner(), task.max_attempts);
        let effect = look_up(row, task.column(), |guard| guard == Guard::OverMax && over);
        let task = id.clone();
        let fail = |reason: String, fence| TaskFailed {
            task: id.clone(),
            result: false,
            digest: None,
            reason: Some(reason),
            fence,
        };
        match effect {
            Effect::Requeue => self.emit(TaskRequeued { task, to: owner, counted: false, why }),
            Effect::RequeueCounted => {
                self.emit(TaskRequeued { task, to: owner, counted: true, why })
            }
            Effect::Pend => self.emit(TaskRequeued { task, to: None, counted: false, why }),
            Effect::PendCounted => self.emit(TaskRequeued { task, to: None, counted: true, why }),
            Effect::Unreserve => self.emit(TaskReserved { task, to: None }),
            Effect::FailAttempts => {
                self.emit(fail(format!("its owner ended {max} times without completing it"), false))
            }
            Effect::Fail => self.emit(fail("its deadline has passed".to_owned(), false)),
            Effect::FailOwned => self.emit(fail("its deadline has passed".to_owned(), true)),
            Effect::Never
            | Effect::Keep
            | Effect::Ok
            | Effect::Conflict
            | Effect::HandOff
            | Effect::Stale
            | Effect::Reserve
            | Effect::Assign
            | Effect::Start
            | Effect::Settle
            | Effect::Release
            | Effect::Cancel
            | Effect::CancelOwned
            | Effect::HandOver => return,
        };
    }
}
