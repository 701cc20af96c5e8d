//! The actors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error as _;
use std::io;

use super::{Order, Outcome, Preparation, Prepared, SetupFailure, Stage};
use crate::core::fact::{Fact, TaskRun, Want};
use crate::core::view;
use crate::ids::{AgentUid, Incarnation, Timestamp};
use crate::launch::{
    Command, Exit, LaunchError, LaunchSpec, Launcher, Pid, Received, Report, ShimHandle, SweepError,
};
use crate::sys::watch::Watch;

/// How long a shim may take to end its agent after the grace; then the shim itself is killed and the
/// daemon ends what was below it.
const STOP_SLACK_MS: u64 = 10_000;

/// Stands for the launcher where channels stand for agents, whose uids begin at 1.
const LAUNCHER: u64 = 0;

#[derive(Debug)]
struct Actor {
    incarnation: Incarnation,
    run: Option<TaskRun>,
    phase: Phase,
    /// It is being stopped; by then its shim has ended it, or is killed.
    stop_by: Option<Timestamp>,
    /// What it ends for on our side: told instead of how its process ended.
    failure: Option<view::Exit>,
}

#[derive(Debug)]
enum Phase {
    Preparing,
    Queued(Box<LaunchSpec>),
    Live {
        handle: Box<ShimHandle>,
        at: At,
        go: bool,
    },
    /// Its shim was lost; what it left is being ended.
    Sweeping,
    Collecting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Launching,
    Parked,
    Releasing,
    Running,
}

#[derive(Debug, PartialEq, Eq)]
enum Sweep {
    Idle,
    Wanted,
    /// For these; what is lost meanwhile needs another one.
    Running(BTreeSet<AgentUid>),
}

/// All actors, the launcher, and the poller of the shims' channels.
#[derive(Debug)]
pub struct Supervisor {
    launcher: Launcher,
    watch: Watch,
    actors: BTreeMap<AgentUid, Actor>,
    /// The newest start of each agent that was seen: none is launched twice.
    seen: BTreeMap<AgentUid, Incarnation>,
    queue: VecDeque<AgentUid>,
    sweep: Sweep,
}

impl Supervisor {
    /// Nobody runs yet. Needs a runtime; the launcher is older than that.
    ///
    /// # Errors
    /// No epoll instance can be had.
    pub fn new(launcher: Launcher) -> io::Result<Supervisor> {
        Ok(Supervisor {
            launcher,
            watch: Watch::new()?,
            actors: BTreeMap::new(),
            seen: BTreeMap::new(),
            queue: VecDeque::new(),
            sweep: Sweep::Idle,
        })
    }

    /// Waits until [`Supervisor::drain`] has something to do. Cancel-safe.
    ///
    /// # Errors
    /// The poller fails.
    pub async fn readable(&self) -> io::Result<()> {
        self.watch.readable().await
    }

    /// Whether no process is left, and none is being made ready.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actors.is_empty() && self.sweep == Sweep::Idle
    }

    /// The agents that have a process, or are about to.
    pub fn busy(&self) -> impl Iterator<Item = AgentUid> {
        self.actors.keys().copied()
    }

    /// The launcher's process.
    #[must_use]
    pub fn launcher(&self) -> Pid {
        self.launcher.pid()
    }

    /// Brings an agent's process nearer to what is wanted.
    pub fn wanted(&mut self, now: Timestamp, uid: AgentUid, want: Want, out: &mut Vec<Order>) {
        match want {
            Want::Nothing => self.stop(now, uid, 0, out),
            Want::Run { incarnation, run, parked } => {
                self.run(now, uid, incarnation, run, parked, out)
            }
            Want::Stop { incarnation, grace_ms, .. } => {
                if self.actors.get(&uid).is_some_and(|actor| actor.incarnation == incarnation) {
                    self.stop(now, uid, grace_ms, out);
                } else if self.first_seen(uid, incarnation) {
                    out.push(cancelled(uid, incarnation));
                }
            }
        }
    }

    fn first_seen(&mut self, uid: AgentUid, incarnation: Incarnation) -> bool {
        let seen = self.seen.entry(uid).or_default();
        let first = incarnation > *seen;
        *seen = incarnation.max(*seen);
        first
    }

    fn run(
        &mut self,
        now: Timestamp,
        uid: AgentUid,
        incarnation: Incarnation,
        run: Option<TaskRun>,
        parked: bool,
        out: &mut Vec<Order>,
    ) {
        let Some(actor) = self.actors.get_mut(&uid) else {
            if self.first_seen(uid, incarnation) {
                let stage = Stage::Launch { parked };
                out.push(Order::Prepare(Preparation { uid, incarnation, run: run.clone(), stage }));
                let actor = Actor {
                    incarnation,
                    run,
                    phase: Phase::Preparing,
                    stop_by: None,
                    failure: None,
                };
                self.actors.insert(uid, actor);
            }
            return;
        };
        if actor.incarnation != incarnation {
            // The new start comes when this one is gone.
            return self.stop(now, uid, 0, out);
        }
        if !parked && actor.run != run {
            actor.run = run;
        }
        if let Phase::Live { at, go, .. } = &mut actor.phase
            && !parked
        {
            *go = true;
            if *at == At::Parked {
                *at = At::Releasing;
                out.push(actor.release(uid));
            }
        }
    }

    /// Stops an agent's process whatever is wanted; a second call can only shorten the grace.
    pub fn stop(&mut self, now: Timestamp, uid: AgentUid, grace_ms: u64, out: &mut Vec<Order>) {
        let Some(actor) = self.actors.get_mut(&uid) else { return };
        let by = now.plus_ms(grace_ms).plus_ms(STOP_SLACK_MS);
        if actor.stop_by.is_some_and(|earlier| earlier <= by) {
            return;
        }
        actor.stop_by = Some(by);
        match &actor.phase {
            // Told when the preparation is back.
            Phase::Preparing | Phase::Collecting | Phase::Sweeping => {}
            Phase::Queued(_) => {
                let incarnation = actor.incarnation;
                self.actors.remove(&uid);
                self.queue.retain(|queued| *queued != uid);
                out.push(cancelled(uid, incarnation));
            }
            // A shim that is gone says so on the channel.
            Phase::Live { handle, .. } => {
                let _gone = handle.send(Command::Stop { grace_ms });
            }
        }
    }

    /// A preparation is done, well or badly.
    pub fn prepared(
        &mut self,
        uid: AgentUid,
        incarnation: Incarnation,
        result: Result<Prepared, SetupFailure>,
        out: &mut Vec<Order>,
    ) {
        let Some(actor) = self.actors.get_mut(&uid).filter(|a| a.incarnation == incarnation) else {
            return;
        };
        match (result, &actor.phase) {
            (Ok(Prepared::Launch(spec)), Phase::Preparing) => {
                if actor.stop_by.is_some() {
                    self.actors.remove(&uid);
                    out.push(cancelled(uid, incarnation));
                } else {
                    actor.phase = Phase::Queued(spec);
                    self.queue.push_back(uid);
                    self.pump(out);
                }
            }
            (Ok(Prepared::Release { environment, stdin }), Phase::Live { handle, .. }) => {
                if let Err(error) = handle.release(&environment, stdin.as_deref()) {
                    let errno = error.raw_os_error().unwrap_or(0);
                    actor.give_up(SetupFailure { step: "release it to its exec".into(), errno });
                }
            }
            (Err(failure), Phase::Preparing) => {
                self.actors.remove(&uid);
                out.push(setup_failed(uid, incarnation, failure.step, failure.errno));
            }
            (Err(failure), Phase::Live { .. }) => actor.give_up(failure),
            _ => {}
        }
    }

    /// Launches what waits, as far as the launcher takes it.
    fn pump(&mut self, out: &mut Vec<Order>) {
        self.launch(out);
        self.begin_sweep(out);
    }

    fn launch(&mut self, out: &mut Vec<Order>) {
        // A sweep ends every shim that it doesn't know, so none may be born during one.
        while self.sweep == Sweep::Idle
            && let Some(uid) = self.queue.pop_front()
        {
            let Some(actor) = self.actors.get_mut(&uid) else { continue };
            let Phase::Queued(spec) = &actor.phase else { continue };
            match self.launcher.launch(spec) {
                Ok(handle) => {
                    if let Err(error) = self.watch.readable_of(&handle, uid.0) {
                        // Nothing would be heard of it. The channel closes here: a shim that is not
                        // born yet ends before it forks, and what one has started is swept.
                        let errno = error.raw_os_error().unwrap_or(0);
                        let step = "watch the shim".to_owned();
                        actor.failure = Some(view::Exit::SetupFailed { step, errno });
                        actor.phase = Phase::Sweeping;
                        self.sweep = Sweep::Wanted;
                        return;
                    }
                    let handle = Box::new(handle);
                    actor.phase = Phase::Live { handle, at: At::Launching, go: false };
                }
                Err(LaunchError::Busy) => {
                    self.queue.push_front(uid);
                    // Should even that fail, the next event tries again.
                    let _unwatched = self.watch.writable_once(&self.launcher, LAUNCHER);
                    return;
                }
                Err(error) => {
                    let incarnation = actor.incarnation;
                    self.actors.remove(&uid);
                    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
                    let errno = cause.and_then(io::Error::raw_os_error).unwrap_or(0);
                    out.push(setup_failed(uid, incarnation, error.to_string(), errno));
                }
            }
        }
    }

    /// Reads everything that shims have to say; without waiting. Whoever meets an unknown process
    /// calls this first: the report that names its shim is there before it can run.
    ///
    /// # Errors
    /// The poller fails.
    pub fn drain(&mut self, out: &mut Vec<Order>) -> io::Result<()> {
        loop {
            let ready = self.watch.take()?;
            if ready.is_empty() {
                break;
            }
            for uid in ready {
                if uid != LAUNCHER {
                    self.read(AgentUid(uid), out);
                }
            }
        }
        self.pump(out);
        Ok(())
    }

    fn read(&mut self, uid: AgentUid, out: &mut Vec<Order>) {
        loop {
            let Some(actor) = self.actors.get_mut(&uid) else { return };
            let incarnation = actor.incarnation;
            let Phase::Live { handle, at, go } = &mut actor.phase else { return };
            let report = match handle.recv() {
                Ok(Received::Report(report)) => report,
                Ok(Received::Nothing) => return,
                // Talking nonsense is as good as being gone: closing the channel ends its agent.
                Ok(Received::Closed) | Err(_) => return self.ended(uid, None, out),
            };
            match report {
                Report::Forked { shim } => out.push(Order::Adopt { uid, shim }),
                Report::Parked { .. } => {
                    *at = At::Parked;
                    out.push(Order::Tell(Fact::AgentParked { uid, incarnation }));
                    if *go {
                        *at = At::Releasing;
                        out.push(actor.release(uid));
                    }
                }
                Report::Started { payload } => {
                    *at = At::Running;
                    let pid = payload.pid;
                    out.push(Order::Tell(Fact::AgentStarted { uid, incarnation, pid }));
                }
                Report::Unkillable { pids } => {
                    let text = format!(
                        "processes {pids:?} of an agent run as another user and can't be killed"
                    );
                    out.push(Order::Tell(Fact::Alert { text }));
                }
                Report::Detached { places } => {
                    let text = format!(
                        "{places}: replaced or removed on the host, which took the protection off; \
                         the agent was stopped"
                    );
                    out.push(Order::Tell(Fact::Alert { text }));
                }
                Report::SetupFailed { .. } => return self.ended(uid, None, out),
                Report::Ended(ended) => {
                    let stdout = ended.stdout.unwrap_or_default();
                    return self.ended(uid, Some((stdout, ended.stdout_truncated)), out);
                }
            }
        }
    }

    /// The channel has said its last.
    fn ended(&mut self, uid: AgentUid, stdout: Option<(Vec<u8>, bool)>, out: &mut Vec<Order>) {
        let Some(actor) = self.actors.get_mut(&uid) else { return };
        let Phase::Live { handle, .. } = &actor.phase else { return };
        if let Some(shim) = handle.shim() {
            out.push(Order::Retire { uid, shim });
        }
        match handle.exit().unwrap_or(Exit::Lost) {
            Exit::Lost => {
                // Should the shim live after all: what is below it is found only from there.
                let _gone = handle.kill();
                actor.phase = Phase::Sweeping;
                if self.sweep == Sweep::Idle {
                    self.sweep = Sweep::Wanted;
                }
            }
            exit @ (Exit::Exited(_)
            | Exit::Signaled(_)
            | Exit::OutOfMemory
            | Exit::SetupFailed { .. }) => {
                self.over(uid, view_of(exit), stdout.unwrap_or_default(), out);
            }
        }
    }

    /// No process is left.
    fn over(
        &mut self,
        uid: AgentUid,
        exit: view::Exit,
        (stdout, truncated): (Vec<u8>, bool),
        out: &mut Vec<Order>,
    ) {
        let Some(actor) = self.actors.get_mut(&uid) else { return };
        let incarnation = actor.incarnation;
        let exit = actor.failure.take().unwrap_or(exit);
        if let Some(run) = actor.run.clone() {
            actor.phase = Phase::Collecting;
            out.push(Order::Collect(Outcome { uid, incarnation, run, exit, stdout, truncated }));
        } else {
            self.actors.remove(&uid);
            out.push(Order::Tell(Fact::AgentEnded {
                uid,
                incarnation,
                exit,
                output: None,
                checkpoint: None,
            }));
        }
    }

    /// What a process left was collected, and the core is told.
    pub fn collected(&mut self, uid: AgentUid, incarnation: Incarnation) {
        if self.actors.get(&uid).is_some_and(|actor| actor.incarnation == incarnation) {
            self.actors.remove(&uid);
        }
    }

    fn begin_sweep(&mut self, out: &mut Vec<Order>) {
        let born = self.actors.values().all(|actor| match &actor.phase {
            Phase::Live { handle, .. } => handle.shim().is_some(),
            Phase::Preparing | Phase::Queued(_) | Phase::Sweeping | Phase::Collecting => true,
        });
        // A shim that has not reported yet isn't known, and would be swept away.
        if self.sweep != Sweep::Wanted || !born {
            return;
        }
        let lost = self.actors.iter().filter(|(_, a)| matches!(a.phase, Phase::Sweeping));
        self.sweep = Sweep::Running(lost.map(|(uid, _)| *uid).collect());
        out.push(Order::Sweep { known: self.known() });
    }

    /// The processes that a sweep leaves alone: the launcher and the living shims.
    #[must_use]
    pub fn known(&self) -> BTreeSet<Pid> {
        let shims = self.actors.values().filter_map(|actor| match &actor.phase {
            Phase::Live { handle, .. } => handle.shim().map(|shim| shim.pid),
            Phase::Preparing | Phase::Queued(_) | Phase::Sweeping | Phase::Collecting => None,
        });
        shims.chain([self.launcher.pid()]).collect()
    }

    /// A sweep is done.
    pub fn swept(&mut self, result: Result<usize, SweepError>, out: &mut Vec<Order>) {
        let Sweep::Running(uids) = std::mem::replace(&mut self.sweep, Sweep::Idle) else { return };
        if let Err(error) = result {
            out.push(Order::Tell(Fact::Alert { text: error.to_string() }));
        }
        for uid in uids {
            self.over(uid, view::Exit::Lost, (Vec::new(), false), out);
        }
        if self.actors.values().any(|actor| matches!(actor.phase, Phase::Sweeping)) {
            self.sweep = Sweep::Wanted;
        }
        // A sweep that is wanted again comes before what waits to be launched.
        self.begin_sweep(out);
        self.pump(out);
    }

    /// When [`Supervisor::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.actors.values().filter_map(|actor| actor.stop_by).min()
    }

    /// Kills shims that have not ended their agents in time.
    pub fn tick(&mut self, now: Timestamp) {
        for actor in self.actors.values_mut() {
            if let Some(by) = &mut actor.stop_by
                && *by <= now
            {
                // Its channel closes then; until it does, no more than once in a while.
                *by = now.plus_ms(STOP_SLACK_MS);
                if let Phase::Live { handle, .. } = &actor.phase {
                    let _gone = handle.kill();
                }
            }
        }
    }
}

impl Actor {
    /// Ends a process that can't be released: it would wait for its exec until its time is up.
    fn give_up(&mut self, failure: SetupFailure) {
        let Phase::Live { handle, .. } = &self.phase else { return };
        if handle.send(Command::Stop { grace_ms: 0 }).is_err() {
            // Then its channel closes, unless it has already.
            let _gone = handle.kill();
        }
        let SetupFailure { step, errno } = failure;
        self.failure = Some(view::Exit::SetupFailed { step, errno });
    }

    fn release(&self, uid: AgentUid) -> Order {
        let (incarnation, run) = (self.incarnation, self.run.clone());
        Order::Prepare(Preparation { uid, incarnation, run, stage: Stage::Release })
    }
}

fn view_of(exit: Exit) -> view::Exit {
    match exit {
        Exit::Exited(code) => view::Exit::Exited(code),
        Exit::Signaled(signal) => view::Exit::Signaled(signal),
        Exit::OutOfMemory => view::Exit::OutOfMemory,
        Exit::SetupFailed { step, errno, detail } => {
            let step =
                if detail.is_empty() { step.to_string() } else { format!("{step} {detail}") };
            view::Exit::SetupFailed { step, errno }
        }
        Exit::Lost => view::Exit::Lost,
    }
}

fn setup_failed(uid: AgentUid, incarnation: Incarnation, step: String, errno: i32) -> Order {
    let exit = view::Exit::SetupFailed { step, errno };
    Order::Tell(Fact::AgentEnded { uid, incarnation, exit, output: None, checkpoint: None })
}

fn cancelled(uid: AgentUid, incarnation: Incarnation) -> Order {
    setup_failed(uid, incarnation, "launch: called off".into(), libc::ECANCELED)
}
