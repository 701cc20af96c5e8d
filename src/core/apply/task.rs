//! What the task events do.

use std::collections::{BTreeSet, VecDeque};

use crate::core::event::{
    CheckpointSaved, Logged, TaskAssigned, TaskCancelled, TaskCompleted, TaskCreated, TaskFailed,
    TaskProgressed, TaskReleased, TaskRequeued, TaskStarted,
};
use crate::core::state::{Checkpoint, Settled, State, Task, TaskState};
use crate::core::view::TaskStateName;
use crate::ids::{BlobHash, CheckpointId, Epoch, Seq, TaskId};

/// How a task is settled, whoever does it.
struct Verdict<'a> {
    task: &'a TaskId,
    how: TaskStateName,
    result: bool,
    digest: Option<BlobHash>,
    reason: Option<&'a String>,
    fence: bool,
}

impl State {
    pub(super) fn on_task_created(&mut self, logged: &Logged, e: &TaskCreated) {
        // A dependency that isn't there may still come: the file's tasks are created one by one.
        let open: BTreeSet<TaskId> = e
            .after
            .iter()
            .filter(|id| match (self.tasks.get(*id), self.file_tasks.get(*id)) {
                (Some(task), _) => {
                    !matches!(&task.state, TaskState::Settled(s) if s.how == TaskStateName::Completed)
                }
                (None, Some(how)) => *how != TaskStateName::Completed,
                (None, None) => true,
            })
            .cloned()
            .collect();
        self.mission.tasks_created += 1;
        let task = Task {
            title: e.title.clone(),
            by: logged.actor.clone(),
            by_uid: e.by,
            created: logged.at,
            created_at: logged.seq,
            has_data: e.data,
            file: e.file,
            after: e.after.clone(),
            open,
            needs: e.needs.clone(),
            reserved: e.reserved,
            deadline: e.deadline,
            attempts: 0,
            max_attempts: e.max_attempts,
            state: TaskState::Pending,
            epoch: Epoch(0),
            progress: 0,
            note: None,
            started: None,
            checkpoints: VecDeque::new(),
            handoff: None,
        };
        self.insert_task(e.task.clone(), task);
    }

    pub(super) fn on_task_assigned(&mut self, logged: &Logged, e: &TaskAssigned) {
        self.edit_task(&e.task, |task| {
            task.state = TaskState::Assigned { owner: e.to };
            task.epoch = Epoch(logged.seq.0);
            task.reserved = None;
        });
    }

    pub(super) fn on_task_requeued(&mut self, logged: &Logged, e: &TaskRequeued) {
        self.edit_task(&e.task, |task| {
            task.state = match e.to {
                Some(owner) => TaskState::Assigned { owner },
                None => TaskState::Pending,
            };
            task.epoch = Epoch(logged.seq.0);
            task.attempts += u32::from(e.counted);
        });
    }

    pub(super) fn on_task_released(&mut self, logged: &Logged, e: &TaskReleased) {
        self.edit_task(&e.task, |task| {
            task.state = TaskState::Pending;
            task.epoch = Epoch(logged.seq.0);
        });
    }

    pub(super) fn on_task_started(&mut self, logged: &Logged, e: &TaskStarted) {
        self.edit_task(&e.task, |task| {
            if let TaskState::Assigned { owner } = task.state {
                task.state = TaskState::Active { owner, incarnation: e.incarnation };
            }
            task.started.get_or_insert(logged.at);
        });
    }

    pub(super) fn on_task_progressed(&mut self, e: &TaskProgressed) {
        // Nothing that an index depends on.
        let Some(task) = self.tasks.get_mut(&e.task) else { return };
        if let Some(progress) = e.progress {
            task.progress = progress;
        }
        if e.note.is_some() {
            task.note.clone_from(&e.note);
        }
    }

    pub(super) fn on_checkpoint(&mut self, logged: &Logged, e: &CheckpointSaved) {
        let keep = (self.limits.keep_checkpoints as usize).max(1);
        let Some(task) = self.tasks.get_mut(&e.task) else { return };
        let id = CheckpointId(logged.seq);
        task.checkpoints.push_back(id);
        while task.checkpoints.len() > keep {
            if let Some(old) = task.checkpoints.pop_front() {
                self.checkpoints.remove(&old);
            }
        }
        let checkpoint = Checkpoint {
            task: e.task.clone(),
            by: e.by,
            epoch: e.epoch,
            at: logged.at,
            json: e.json,
            files: e.files.clone(),
        };
        self.checkpoints.insert(id, checkpoint);
    }

    pub(super) fn on_task_completed(&mut self, logged: &Logged, e: &TaskCompleted) {
        self.mission.tasks_completed += 1;
        self.settle_task(
            logged,
            &Verdict {
                task: &e.task,
                how: TaskStateName::Completed,
                result: e.result,
                digest: Some(e.digest),
                reason: None,
                fence: false,
            },
        );
        if let Some(task) = self.tasks.get_mut(&e.task) {
            task.progress = 100;
        }
        let freed = self.index.dependents.get(&e.task).cloned().unwrap_or_default();
        for id in freed {
            self.edit_task(&id, |task| _ = task.open.remove(&e.task));
        }
    }

    pub(super) fn on_task_failed(&mut self, logged: &Logged, e: &TaskFailed) {
        self.mission.tasks_failed += 1;
        self.settle_task(
            logged,
            &Verdict {
                task: &e.task,
                how: TaskStateName::Failed,
                result: e.result,
                digest: e.digest,
                reason: e.reason.as_ref(),
                fence: e.fence,
            },
        );
    }

    pub(super) fn on_task_cancelled(&mut self, logged: &Logged, e: &TaskCancelled) {
        self.mission.tasks_cancelled += 1;
        self.settle_task(
            logged,
            &Verdict {
                task: &e.task,
                how: TaskStateName::Cancelled,
                result: false,
                digest: None,
                reason: e.reason.as_ref(),
                fence: e.fence,
            },
        );
    }

    fn settle_task(&mut self, logged: &Logged, verdict: &Verdict<'_>) {
        self.edit_task(verdict.task, |task| {
            let owner = match &task.state {
                TaskState::Assigned { owner } | TaskState::Active { owner, .. } => Some(*owner),
                TaskState::Pending => None,
                TaskState::Settled(settled) => settled.owner,
            };
            if verdict.fence {
                task.epoch = Epoch(logged.seq.0);
            }
            task.state = TaskState::Settled(Settled {
                how: verdict.how,
                owner,
                at: logged.at,
                result_at: verdict.result.then_some::<Seq>(logged.seq),
                digest: verdict.digest,
                reason: verdict.reason.cloned(),
            });
            task.reserved = None;
        });
    }

    pub(super) fn on_task_pruned(&mut self, id: &TaskId) {
        let Some(task) = self.remove_task(id) else { return };
        for checkpoint in &task.checkpoints {
            self.checkpoints.remove(checkpoint);
        }
        if let (true, TaskState::Settled(settled)) = (task.file, &task.state) {
            self.file_tasks.insert(id.clone(), settled.how);
        }
    }
}
