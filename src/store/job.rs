//! What the writer does besides appending, and how its outcome gets back.

use super::error::{AppendError, JobError};
use super::schema::Frames;
use super::snapshot::NewSnapshot;

/// What the writer does besides appending.
pub(super) enum Job {
    /// Keeps a snapshot.
    Snapshot(NewSnapshot, Reply<()>),
    /// Deletes events below a seq, a part at a time; carries how many so far.
    Prune { below: u64, deleted: u64, done: Reply<u64> },
    /// Erases the content of events.
    Erase(Vec<u64>, Reply<()>),
    /// The checkpointer has come to an end of its round.
    Checkpointed(rusqlite::Result<Frames>),
    /// Looks whether there is room again.
    Measure,
}

impl Job {
    /// Answers a job that was not taken.
    pub(super) fn refuse(self, why: AppendError) {
        let error = JobError::Refused(why);
        match self {
            Self::Snapshot(_, done) | Self::Erase(_, done) => done.send(Err(error)),
            Self::Prune { done, .. } => done.send(Err(error)),
            Self::Checkpointed(_) | Self::Measure => {}
        }
    }
}

/// Called exactly once with a job's outcome, also when the job is dropped.
pub(super) struct Reply<T>(Option<Done<T>>);

type Done<T> = Box<dyn FnOnce(Result<T, JobError>) + Send>;

impl<T> Reply<T> {
    pub(super) fn new(done: impl FnOnce(Result<T, JobError>) + Send + 'static) -> Self {
        Self(Some(Box::new(done)))
    }

    pub(super) fn send(mut self, outcome: Result<T, JobError>) {
        if let Some(done) = self.0.take() {
            done(outcome);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(JobError::Abandoned));
        }
    }
}
