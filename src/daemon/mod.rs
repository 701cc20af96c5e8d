//! Wires it all: the one loop.
//!
//! ```text
//!   connections --Inputs--.            .-> Head (decide, apply) -> batch --> store --.
//!   shims ----------------+            |                                          durable
//!   threads (Done) -------+--> turn ---+                                             |
//!   signals, deadlines ---+            `<- wants, replies, pushes <- follower <------'
//!   the store's notices --'
//! ```
//!
//! One thread, one task: it sleeps until something comes, takes everything that is there, decides,
//! hands the batch to the store, and releases what has become durable meanwhile (`commit`). It never
//! waits for a disk, a lock or an agent: slow work goes to threads (`jobs`), processes to
//! [`supervise`](crate::supervise). Without input it doesn't wake up: the next wake-up is the nearest
//! deadline of core, hub, supervisor or service manager, by one timer that also runs while the machine
//! is suspended.
//!
//! It deliberately decides nothing about the mission (the core does) and speaks no protocol (the bus
//! does).
//!
//! ```text
//! starting --READY--> running --settled, mission.stop, a signal--> stopping --empty--> verified -> exit
//!                        |                                             ^
//!                        '--- a write of unknown outcome ---> dying ---'   (nothing more is said)
//! ```

mod alive;
mod answer;
pub mod cli;
mod clock;
mod collect;
mod commit;
mod detach;
mod former;
mod ground;
mod guards;
mod jobs;
mod lanes;
mod lock;
mod notify;
mod orders;
mod prepare;
mod progress;
mod request;
mod screen;
mod setup;
mod start;
mod stop;
mod summary;
#[cfg(test)]
mod tests;
mod trace;
mod workspace;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use self::alive::Alive;
use self::answer::Output;
use self::clock::Clock;
use self::collect::Fingerprint;
use self::commit::Pipeline;
use self::detach::Detached;
use self::ground::Shared;
use self::jobs::{Done, Jobs, Outcomes};
use self::lanes::Outcome;
use self::notify::ServiceManager;
use self::screen::Screen;
use self::stop::Stopping;
use crate::bus::{Hub, Input, Inputs};
use crate::core::fact::Fact;
use crate::ids::{AgentUid, CheckpointId, Seq, TaskId, Timestamp};
use crate::store::{FatalError, Notice};
use crate::supervise::{Order, Supervisor};
use crate::sys::timer::Timer;

/// Inputs taken in one turn; then what they caused goes out.
const TURN: usize = 1_024;

/// Why the daemon ended before its mission did.
#[derive(Debug, thiserror::Error)]
enum RunError {
    /// Whether the last events are on disk is unknown; the next start looks.
    #[error("the log can't be trusted any more; all agents were stopped, the next start decides")]
    Log(#[source] FatalError),
    /// The log takes nothing more.
    #[error("the log can't be written any more; all agents were stopped")]
    Closed,
    /// Processes of the mission are left.
    #[error("could not end every process of the mission")]
    Left(#[source] crate::launch::SweepError),
    /// The poller or the signals fail.
    #[error("cannot wait for events")]
    Wait(#[source] std::io::Error),
}

/// What is known of an agent beside the core.
#[derive(Debug, Default)]
struct Around {
    /// What its isolation can't enforce here.
    gaps: Vec<String>,
    /// The socket is there.
    listening: bool,
    /// What is said of its present start.
    span: Option<tracing::Span>,
    /// It has been up since this daemon started, whatever became of it.
    was_up: bool,
    /// What protects the trees that it writes.
    protection: Option<Box<guards::Protection>>,
}

/// How far the word is that everything is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// The mission file is not durable: what the log says of agents is of an earlier run.
    Unconfigured,
    /// Agents are being started.
    Starting,
    /// The word was given, or it is too late for it.
    Told,
}

/// The daemon of one mission.
struct Daemon {
    clock: Arc<Clock>,
    ground: Shared,
    pipeline: Pipeline<Output>,
    notices: mpsc::UnboundedReceiver<Notice>,
    hub: Hub,
    supervisor: Supervisor,
    /// The launcher that the hub knows of.
    launcher: crate::launch::Pid,
    jobs: Jobs,
    manager: ServiceManager,
    screen: Screen,
    detached: Detached,
    agents: BTreeMap<AgentUid, Around>,
    /// Checkpoints that lie in a service's handoff directory.
    restored: BTreeMap<(AgentUid, TaskId), CheckpointId>,
    stopping: Option<Stopping>,
    readiness: Readiness,
    /// The shims were listened to in this turn.
    shims_drained: bool,
    /// When an agent may have been silent for too long; none while nobody has such a limit.
    silence: Option<Timestamp>,
    /// When a mark of our life is due.
    alive: Alive,
    /// What lay in the checkpoint directories of task-mode agents when they saved a checkpoint
    /// themselves.
    saved: BTreeMap<(AgentUid, TaskId), Fingerprint>,
    /// The head of the log as the store last reported it.
    head: crate::store::Head,
    /// The last snapshot.
    snapshot: Seq,
    /// What is wrong now.
    disk_low: bool,
    wal_large: Option<u64>,
    dead: Option<FatalError>,
}

struct Sources {
    inputs: Inputs,
    outcomes: Outcomes,
    timer: Timer,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    child: Signal,
}

impl Sources {
    fn new(inputs: Inputs, outcomes: Outcomes) -> std::io::Result<Self> {
        Ok(Sources {
            inputs,
            outcomes,
            timer: Timer::new()?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            child: signal(SignalKind::child())?,
        })
    }
}

/// One thing that woke the loop.
enum Event {
    Notice(Notice),
    Shims(std::io::Result<()>),
    Done(Box<Outcome<Done>>),
    Child,
    Signal(&'static str),
    Input(Input),
    Due(std::io::Result<()>),
}

impl Daemon {
    /// Runs until the mission has ended and nothing of it is left.
    async fn run(mut self, mut sources: Sources) -> Result<Daemon, RunError> {
        loop {
            self.turn_end()?;
            self.shims_drained = false;
            if let Some(outcome) = self.finished() {
                return outcome.map(|()| self);
            }
            let wake = self.next_deadline().map(|at| self.clock.since_boot_at(at));
            sources.timer.set(wake).map_err(RunError::Wait)?;
            let has_room = self.pipeline.has_room();
            let event = tokio::select! {
                biased;
                Some(notice) = self.notices.recv() => Event::Notice(notice),
                ready = self.supervisor.readable() => Event::Shims(ready),
                Some(done) = sources.outcomes.recv() => Event::Done(Box::new(done)),
                Some(()) = sources.child.recv() => Event::Child,
                Some(()) = sources.terminate.recv() => Event::Signal("SIGTERM"),
                Some(()) = sources.interrupt.recv() => Event::Signal("SIGINT"),
                Some(()) = sources.hangup.recv() => Event::Signal("SIGHUP"),
                due = sources.timer.expired() => Event::Due(due),
                Some(input) = sources.inputs.next(), if has_room => Event::Input(input),
                else => return Err(RunError::Closed),
            };
            self.turn(&mut sources, event)?;
        }
    }

    /// Takes what woke the loop, and what else is there.
    fn turn(&mut self, sources: &mut Sources, event: Event) -> Result<(), RunError> {
        let now = self.clock.now();
        self.manager.tick(now);
        if !matches!(event, Event::Input(_))
            && self.pipeline.next_deadline().is_some_and(|due| due <= now)
        {
            self.take_older(sources)?;
        }
        self.take(event)?;
        self.take_more(sources)
    }

    /// What came in before something was due counts before it (CORE 20): also where the pipeline is
    /// full, which the bounded queue of inputs can overfill by no more than itself.
    fn take_older(&mut self, sources: &mut Sources) -> Result<(), RunError> {
        for _ in 0..sources.inputs.waiting() {
            let Some(input) = sources.inputs.try_next() else { break };
            self.take(Event::Input(input))?;
            if self.pipeline.wants_flush() {
                self.flush(self.clock.now())?;
            }
        }
        Ok(())
    }

    /// Takes what else is there now, so that one sync serves it all.
    fn take_more(&mut self, sources: &mut Sources) -> Result<(), RunError> {
        while let Ok(notice) = self.notices.try_recv() {
            self.take(Event::Notice(notice))?;
        }
        while let Ok(done) = sources.outcomes.try_recv() {
            self.take(Event::Done(Box::new(done)))?;
        }
        for _ in 0..TURN {
            if !self.pipeline.has_room() || self.pipeline.wants_flush() {
                break;
            }
            let Some(input) = sources.inputs.try_next() else { break };
            self.take(Event::Input(input))?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<(), RunError> {
        let now = self.clock.now();
        match event {
            Event::Notice(notice) => self.notice(now, notice),
            Event::Shims(ready) => {
                ready.map_err(RunError::Wait)?;
                self.drain_shims(now)?;
            }
            Event::Done(done) => self.done(now, *done),
            Event::Child => {
                // Shims were heard of on their channels; this only lets their ids go.
                crate::launch::reap().map_err(RunError::Wait)?;
            }
            Event::Signal(name) => self.signalled(now, name),
            Event::Input(input) => {
                // What is heard meanwhile may fire nothing that was due after it came in.
                let now = input.arrived().map_or(now, |at| at.min(now));
                // Whoever connects may be below a shim that has not been heard of yet. Once a turn
                // is enough: no input comes in while it lasts.
                if !std::mem::replace(&mut self.shims_drained, true) {
                    self.drain_shims(now)?;
                }
                self.input(now, input);
            }
            Event::Due(due) => {
                due.map_err(RunError::Wait)?;
                self.due(now);
            }
        }
        Ok(())
    }

    fn due(&mut self, now: Timestamp) {
        self.pipeline.tick(now);
        self.hub.tick(now, self.pipeline.durable());
        self.supervisor.tick(now);
        self.check_silence(now);
    }

    /// A mark that we live, for as long as somebody's deadline stands still when we don't.
    fn keep_mark(&mut self, now: Timestamp) {
        let is_needed = !self.pipeline.durable().index.incoming.is_empty();
        if self.alive.is_due(now, is_needed) {
            self.jobs.mark(now);
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let all = [
            self.pipeline.next_deadline(),
            self.hub.next_deadline(),
            self.supervisor.next_deadline(),
            self.silence,
            self.alive.next(),
            self.manager.next_deadline(),
        ];
        all.into_iter().flatten().min()
    }

    /// Ends a batch, and releases what is durable.
    fn turn_end(&mut self) -> Result<(), RunError> {
        let now = self.clock.now();
        if !self.pipeline.is_degraded() {
            for (uid, ack) in self.hub.advances(now) {
                self.advance(now, uid, ack);
            }
        }
        self.flush(now)?;
        // What is released can cause more of it: a want that can't be met is a fact.
        while self.release(now) {
            self.flush(now)?;
        }
        for read in self.hub.reads() {
            self.jobs.read(read);
        }
        self.after_turn(now);
        self.keep_mark(now);
        self.hub.flush();
        Ok(())
    }

    fn flush(&mut self, now: Timestamp) -> Result<(), RunError> {
        if self.dead.is_some() {
            return Ok(());
        }
        match self.pipeline.flush(now) {
            Ok(lost) => {
                if let Some(lost) = lost {
                    self.lose(now, lost, "the log has no room");
                    // Acknowledgements may be among what was lost.
                    self.hub.resync(now, self.pipeline.head());
                }
                Ok(())
            }
            // Why is in the notice that comes with it.
            Err(_) => Ok(()),
        }
    }

    fn notice(&mut self, now: Timestamp, notice: Notice) {
        match notice {
            Notice::Durable { head } => {
                self.head = head;
                self.pipeline.committed(head);
            }
            Notice::Failed { first_seq, why } => {
                let text = why.to_string();
                match self.pipeline.failed(now, Seq(first_seq)) {
                    Ok(lost) => self.lose(now, lost, &text),
                    Err(_) => self.screen.warn(&format!("the log can't be written: {text}")),
                }
                self.hub.resync(now, self.pipeline.head());
            }
            Notice::Fatal { why } => self.die(now, why),
            Notice::Headroom { low, disk_free, .. } => {
                if low != self.disk_low {
                    self.disk_low = low;
                    let what = if low { "little room is left" } else { "there is room again" };
                    self.screen.warn(&format!("{what} on the disk ({} MiB free)", disk_free >> 20));
                }
                if !low {
                    self.pipeline.retry_facts(now);
                }
            }
            Notice::WalLarge { bytes } => {
                self.wal_large = Some(bytes);
                let text = format!(
                    "the write-ahead log has {} MiB: another program keeps mission.db open",
                    bytes >> 20
                );
                self.tell(now, Fact::Alert { text });
            }
        }
    }

    fn tell(&mut self, now: Timestamp, fact: Fact) {
        self.pipeline.fact(now, fact);
    }

    fn drain_shims(&mut self, now: Timestamp) -> Result<(), RunError> {
        let mut orders = Vec::new();
        self.supervisor.drain(&mut orders).map_err(RunError::Wait)?;
        self.carry_out(now, orders);
        Ok(())
    }

    fn carry_out(&mut self, now: Timestamp, orders: Vec<Order>) {
        for order in orders {
            self.order(now, order);
        }
        self.follow_launcher();
    }

    /// A new launcher is no operator either.
    fn follow_launcher(&mut self) {
        let pid = self.supervisor.launcher();
        if pid != self.launcher
            && let Ok(process) = crate::sys::peer::process_id(pid)
        {
            self.launcher = pid;
            self.hub.forbid(process);
        }
    }
}
