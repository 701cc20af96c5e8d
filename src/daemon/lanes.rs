//! Threads for slow work, in lanes: what waits in one never waits for another.
//!
//! ```text
//!  Agents  ||||||||   prepare a start, collect what a process left
//!  Sweeps  |          end what is left: a stop never waits behind anything
//!  Reads   ||||       parts of the log, contents of replies
//!  Files   ||         checkpoints in and out, the collection of blobs
//! ```
//!
//! Each job is asked for by somebody who is bounded elsewhere (a request, an agent's start or end, a
//! reader of the log), so what waits is bounded, too. Threads end when there has been nothing to do for
//! a while: an idle daemon has none of them. Nothing here knows what a job does.

use std::collections::VecDeque;

use tokio::sync::mpsc;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Starts and ends of agents.
    Agents,
    /// The end of what is left.
    Sweeps,
    /// The log.
    Reads,
    /// Checkpoints and blobs.
    Files,
}

impl Lane {
    const ALL: [Lane; 4] = [Lane::Agents, Lane::Sweeps, Lane::Reads, Lane::Files];

    /// Jobs of the lane that run at once.
    const fn threads(self) -> usize {
        match self {
            // A start may wait for the end of a former one.
            Lane::Agents => 8,
            Lane::Sweeps => 1,
            Lane::Reads => 4,
            Lane::Files => 2,
        }
    }
}

/// Threads of all lanes together.
pub(super) const THREADS: usize =
    Lane::Agents.threads() + Lane::Sweeps.threads() + Lane::Reads.threads() + Lane::Files.threads();

type Job<T> = Box<dyn FnOnce() -> T + Send>;

struct Line<T> {
    running: usize,
    waiting: VecDeque<Job<T>>,
}

/// What a job came to.
#[derive(Debug)]
pub(super) struct Outcome<T> {
    /// To be given to [`Lanes::finished`].
    pub lane: Lane,
    /// What it gave.
    pub done: T,
}

/// All lanes. Needs a runtime with [`THREADS`] blocking threads to spare.
pub(super) struct Lanes<T> {
    done: mpsc::UnboundedSender<Outcome<T>>,
    lines: [Line<T>; Lane::ALL.len()],
}

impl<T> std::fmt::Debug for Lanes<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lanes")
    }
}

impl<T: Send + 'static> Lanes<T> {
    /// Outcomes go to the receiver that comes with it.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Outcome<T>>) {
        let (done, outcomes) = mpsc::unbounded_channel();
        let lines = Lane::ALL.map(|_| Line { running: 0, waiting: VecDeque::new() });
        (Lanes { done, lines }, outcomes)
    }

    /// Runs a job when its lane is free.
    pub(super) fn run(&mut self, lane: Lane, job: impl FnOnce() -> T + Send + 'static) {
        self.line(lane).waiting.push_back(Box::new(job));
        self.go_on(lane);
    }

    /// One outcome of the lane was taken.
    pub(super) fn finished(&mut self, lane: Lane) {
        let line = self.line(lane);
        line.running = line.running.saturating_sub(1);
        self.go_on(lane);
    }

    /// Whether no job runs or waits.
    pub(super) fn is_idle(&self) -> bool {
        self.lines.iter().all(|line| line.running == 0 && line.waiting.is_empty())
    }

    fn line(&mut self, lane: Lane) -> &mut Line<T> {
        let [agents, sweeps, reads, files] = &mut self.lines;
        match lane {
            Lane::Agents => agents,
            Lane::Sweeps => sweeps,
            Lane::Reads => reads,
            Lane::Files => files,
        }
    }

    fn go_on(&mut self, lane: Lane) {
        let done = self.done.clone();
        let line = self.line(lane);
        while line.running < lane.threads()
            && let Some(job) = line.waiting.pop_front()
        {
            line.running += 1;
            let done = done.clone();
            tokio::task::spawn_blocking(move || {
                // The loop ends only after its jobs, or with the process.
                let _nobody_listens = done.send(Outcome { lane, done: job() });
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(THREADS)
            .build()
            .unwrap()
    }

    /// A job that ends when the sender is dropped.
    fn held() -> (Sender<()>, impl FnOnce() -> Lane + Send) {
        let (hold, held): (_, Receiver<()>) = channel();
        (hold, move || {
            let _ended = held.recv_timeout(DEADLINE);
            Lane::Reads
        })
    }

    #[test]
    fn reads_that_hang_keep_nobody_from_being_started_or_ended() {
        runtime().block_on(async {
            let (mut lanes, mut outcomes) = Lanes::new();
            let mut holds = Vec::new();
            for _ in 0..10 * THREADS {
                let (hold, job) = held();
                holds.push(hold);
                lanes.run(Lane::Reads, job);
            }
            for lane in [Lane::Agents, Lane::Sweeps, Lane::Files] {
                lanes.run(lane, move || lane);
                let next = tokio::time::timeout(DEADLINE, outcomes.recv()).await;
                assert_eq!(next.unwrap().unwrap().lane, lane);
                lanes.finished(lane);
            }
            assert!(!lanes.is_idle());
        });
    }

    #[test]
    fn what_waits_in_a_lane_runs_when_its_turn_comes() {
        runtime().block_on(async {
            let (mut lanes, mut outcomes) = Lanes::new();
            for number in 0..100 {
                lanes.run(Lane::Sweeps, move || number);
            }
            for number in 0..100 {
                let next = tokio::time::timeout(DEADLINE, outcomes.recv()).await;
                let next = next.unwrap().unwrap();
                assert_eq!(next.done, number);
                lanes.finished(next.lane);
            }
            assert!(lanes.is_idle());
        });
    }
}
