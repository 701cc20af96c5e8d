//! What waits for the writer: a bounded queue that is also the gate.
//!
//! ```text
//!          append, jobs                    failed(first)
//!   Open ----------------> Open      Open ---------------> Rewound   all that waited is dropped
//!   Rewound --resume--> Open         any --fatal--> Dead   any --close--> Closing
//! ```
//!
//! After a failed batch everything that was queued behind it was decided on a state that never
//! came to be. So the queue is emptied and shut in the same step; it opens again when the caller
//! has refolded and says so. No batch can slip in between.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::job::Job;
use super::record::{Head, Record};
use super::{AppendError, Class};

/// Bounds of what may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// A batch that waits; it is written whole or not at all.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) class: Class,
    pub(super) bytes: usize,
}

/// One piece of work for the writer.
pub(super) enum Work {
    /// Batches to be committed together, in order.
    Group(Vec<Batch>),
    /// Something else that needs the writing connection.
    Job(Job),
    /// Nothing is left and nothing will come.
    End,
}

enum Entry {
    Batch(Batch),
    Job(Job),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Gate {
    Open,
    Rewound,
    Closing,
    Dead(Arc<str>),
}

struct State {
    gate: Gate,
    entries: VecDeque<Entry>,
    records: usize,
    bytes: usize,
    /// The seq that the next appended record must have.
    next_seq: u64,
    /// The last record that is durable.
    durable: Head,
}

pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    bounds: Bounds,
}

impl Queue {
    pub(super) fn new(durable: Head, bounds: Bounds) -> Self {
        Self {
            state: Mutex::new(State {
                gate: Gate::Open,
                entries: VecDeque::new(),
                records: 0,
                bytes: 0,
                next_seq: durable.seq + 1,
                durable,
            }),
            arrived: Condvar::new(),
            bounds,
        }
    }

    /// No code panics while it holds the lock, so a poisoned state is still a whole one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn append(&self, records: Vec<Record>, class: Class) -> Result<(), AppendError> {
        let mut state = self.lock();
        state.admit()?;
        let Some(last) = records.last().map(|record| record.seq) else {
            return Err(AppendError::Empty);
        };
        for (record, expected) in records.iter().zip(state.next_seq..) {
            if record.seq != expected {
                return Err(AppendError::OutOfSequence { expected, got: record.seq });
            }
        }
        let bytes: usize = records.iter().map(Record::size).sum();
        if bytes > super::MAX_BATCH_BYTES {
            return Err(AppendError::TooLarge { bytes });
        }
        // Facts may wait in twice the room of requests: they cannot be refused lightly.
        let share = if class == Class::Fact { 2 } else { 1 };
        if state.records + records.len() > self.bounds.records * share
            || state.bytes + bytes > self.bounds.bytes * share
        {
            return Err(AppendError::QueueFull);
        }
        state.records += records.len();
        state.bytes += bytes;
        state.next_seq = last + 1;
        state.entries.push_back(Entry::Batch(Batch { records, class, bytes }));
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Queues a job behind all that waits. Jobs are rare and each has a caller who waits for it.
    pub(super) fn job(&self, job: Job) -> Result<(), (Job, AppendError)> {
        const MAX_JOBS: usize = 64;
        let mut state = self.lock();
        let refusal = match &state.gate {
            Gate::Dead(why) => Some(AppendError::Dead { why: Arc::clone(why) }),
            Gate::Closing => Some(AppendError::Closed),
            Gate::Open | Gate::Rewound => {
                let jobs = state.entries.iter().filter(|e| matches!(e, Entry::Job(_))).count();
                (jobs >= MAX_JOBS).then_some(AppendError::QueueFull)
            }
        };
        if let Some(refusal) = refusal {
            return Err((job, refusal));
        }
        state.entries.push_back(Entry::Job(job));
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Queues a job whatever the gate and bounds say: a job's next part, a measurement.
    pub(super) fn inner_job(&self, job: Job) {
        self.lock().entries.push_back(Entry::Job(job));
        self.arrived.notify_one();
    }

    /// Queues a job before all that waits: news that the next write depends on.
    pub(super) fn urgent_job(&self, job: Job) {
        self.lock().entries.push_front(Entry::Job(job));
        self.arrived.notify_one();
    }

    /// Waits for work: every batch up to the next job, but no more than `bytes` at once.
    pub(super) fn take(&self, bytes: usize) -> Work {
        let mut state = self.lock();
        loop {
            if matches!(state.entries.front(), Some(Entry::Job(_)))
                && let Some(Entry::Job(job)) = state.entries.pop_front()
            {
                return Work::Job(job);
            }
            let group = state.next_group(bytes);
            if !group.is_empty() {
                return Work::Group(group);
            }
            if matches!(state.gate, Gate::Closing | Gate::Dead(_)) {
                return Work::End;
            }
            // Bounded by the store's own life: closing the store wakes it.
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn durable(&self) -> Head {
        self.lock().durable
    }

    pub(super) fn committed(&self, head: Head) {
        self.lock().durable = head;
    }

    /// Drops every waiting batch and shuts the gate until [`Self::resume`]. Jobs stay.
    pub(super) fn rewind(&self) {
        let mut state = self.lock();
        state.entries.retain(|entry| matches!(entry, Entry::Job(_)));
        (state.records, state.bytes) = (0, 0);
        if state.gate == Gate::Open {
            state.gate = Gate::Rewound;
        }
    }

    /// Opens the gate again after a failed batch.
    pub(super) fn resume(&self) -> Result<Head, AppendError> {
        let mut state = self.lock();
        if state.gate == Gate::Rewound {
            state.gate = Gate::Open;
            state.next_seq = state.durable.seq + 1;
        }
        state.admit().map(|()| state.durable)
    }

    /// Drops everything, for good.
    pub(super) fn die(&self, why: &Arc<str>) {
        let mut state = self.lock();
        state.gate = Gate::Dead(Arc::clone(why));
        let dropped = std::mem::take(&mut state.entries);
        drop(state);
        // Jobs answer their callers when they are dropped, which must not happen under the lock.
        drop(dropped);
    }

    /// Lets the writer end once everything that waits is written.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if !matches!(state.gate, Gate::Dead(_)) {
            state.gate = Gate::Closing;
        }
        drop(state);
        self.arrived.notify_one();
    }
}

impl State {
    fn admit(&self) -> Result<(), AppendError> {
        match &self.gate {
            Gate::Open => Ok(()),
            Gate::Rewound => Err(AppendError::Rewound),
            Gate::Closing => Err(AppendError::Closed),
            Gate::Dead(why) => Err(AppendError::Dead { why: Arc::clone(why) }),
        }
    }

    fn next_group(&mut self, bytes: usize) -> Vec<Batch> {
        let mut group = Vec::new();
        let mut taken = 0;
        while let Some(Entry::Batch(batch)) = self.entries.front()
            && (group.is_empty() || taken + batch.bytes <= bytes)
            && let Some(Entry::Batch(batch)) = self.entries.pop_front()
        {
            taken += batch.bytes;
            self.records -= batch.records.len();
            group.push(batch);
        }
        self.bytes -= taken;
        group
    }
}
