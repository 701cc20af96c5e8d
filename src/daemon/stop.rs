//! The end: every process ends, that is verified, and only then anybody is told so.
//!
//! ```text
//! begun --(no actor is left)--> sweeping --(nothing was found)--> verified --(all durable)--> exit
//! ```
//!
//! Stopping writes if it can and works without a write if it can't: on a full disk the agents are
//! stopped all the same, and the next start finds in the log that they were lost.

use super::answer::Output;
use super::summary::{self, Started};
use super::{Daemon, RunError};
use crate::bus::{Inbound, Ticket};
use crate::core::denied::{Code, Denied};
use crate::core::fact::Fact;
use crate::core::head::Caller;
use crate::core::spec::Permission;
use crate::core::state::State;
use crate::ids::{Seq, Timestamp};
use crate::launch::SweepError;
use crate::launch::cgroup::Cgroups;
use crate::proto::Call;
use crate::proto::wire::Empty;
use crate::store::{FatalError, NewSnapshot};

/// Events after which another snapshot is made.
const SNAPSHOT_EVENTS: u64 = 250_000;
/// The encoding of snapshots.
pub(super) const SNAPSHOT_VERSION: u32 = 1;

/// A stop under way.
#[derive(Debug, Default)]
pub(super) struct Stopping {
    /// Asked to be told.
    waiting: Vec<Ticket>,
    /// The last look for processes is under way.
    pub(super) sweeping: bool,
    /// Its outcome.
    verified: Option<Result<(), SweepError>>,
    /// How many signals asked for it.
    signals: u32,
    /// Milliseconds that agents are given, where somebody said so; the shortest counts.
    grace_ms: Option<u64>,
}

impl Daemon {
    /// The mission is to stop: nobody has to ask twice.
    pub(super) fn begin_stop(&mut self, now: Timestamp, why: &str, grace_ms: Option<u64>) {
        if self.stopping.is_none() {
            self.stopping = Some(Stopping::default());
            self.manager.stopping();
            self.manager.status(format!("stopping: {why}"));
        }
        if let Some(stopping) = &mut self.stopping {
            stopping.grace_ms = [stopping.grace_ms, grace_ms].into_iter().flatten().min();
        }
        self.stop_agents(now);
    }

    /// Stops all agents, each with the grace that was asked for, or its own.
    fn stop_agents(&mut self, now: Timestamp) {
        let grace_ms = self.stopping.as_ref().and_then(|stopping| stopping.grace_ms);
        let state = self.pipeline.durable();
        let own = |uid| state.agent(uid).map_or(0, |agent| agent.spec.grace_ms);
        let all: Vec<_> = self.supervisor.busy().map(|uid| (uid, own(uid))).collect();
        let mut orders = Vec::new();
        for (uid, own) in all {
            self.supervisor.stop(now, uid, grace_ms.unwrap_or(own), &mut orders);
        }
        self.carry_out(now, orders);
    }

    /// SIGTERM, SIGINT or SIGHUP: the first asks, the second has no patience.
    pub(super) fn signalled(&mut self, now: Timestamp, name: &str) {
        let again = self.stopping.as_ref().is_some_and(|stopping| stopping.signals > 0);
        if !again {
            self.screen
                .note(&format!("{name}: stopping all agents; once more to kill them at once"));
            let why = name.to_owned();
            self.tell(now, Fact::StopRequested { why: why.clone() });
            self.begin_stop(now, &why, None);
        } else {
            self.begin_stop(now, name, Some(0));
        }
        if let Some(stopping) = &mut self.stopping {
            stopping.signals += 1;
        }
    }

    /// Nothing of the mission is left, and what it came to is being written: there is nothing to ask for
    /// any more, and whoever goes on asking must not keep it from its end.
    pub(super) fn is_over(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| stopping.verified.is_some())
    }

    /// Answers a request that comes after the end.
    pub(super) fn too_late(&mut self, inbound: Inbound) {
        let is_operator = matches!(inbound.who, Caller::Operator);
        match &mut self.stopping {
            Some(stopping) if is_operator && matches!(inbound.call, Call::MissionStop(_)) => {
                stopping.waiting.push(inbound.ticket);
            }
            _ => {
                let text = "the mission has ended, and so does its daemon: start it again";
                let denied = Denied::new(Code::Unavailable, text);
                self.hub.reply::<()>(inbound.ticket, Err(&denied));
            }
        }
    }

    /// `mission.stop` was granted; its answer waits for the end.
    pub(super) fn stop_asked(&mut self, now: Timestamp, ticket: Ticket, grace_ms: Option<u64>) {
        self.begin_stop(now, "mission.stop", grace_ms);
        if let Some(stopping) = &mut self.stopping {
            stopping.waiting.push(ticket);
        }
    }

    /// `mission.stop` where nothing can be written.
    pub(super) fn stop_unwritten(&mut self, inbound: Inbound) {
        let Inbound { ticket, who, call, at, .. } = inbound;
        let allowed = match &who {
            Caller::Operator => true,
            Caller::Agent(_) => self.permissions(&who).has(Permission::ManageRoles),
        };
        let Call::MissionStop(stop) = call else { return };
        if allowed {
            let why = format!("mission.stop by {}", self.called(&who));
            self.tell(at, Fact::StopRequested { why });
            self.stop_asked(at, ticket, stop.grace_ms);
        } else {
            let denied = Denied::new(Code::Denied, "mission.stop needs `manage_roles`");
            let after = self.pipeline.head().head();
            self.pipeline.park(after, Output::Refused { ticket, denied });
        }
    }

    fn called(&self, who: &Caller) -> String {
        match who {
            Caller::Operator => "operator".to_owned(),
            Caller::Agent(uid) => self
                .pipeline
                .durable()
                .name_of(*uid)
                .map_or_else(|| uid.to_string(), ToString::to_string),
        }
    }

    /// The last look for processes has an outcome.
    pub(super) fn verified(&mut self, now: Timestamp, result: Result<usize, SweepError>) {
        if let Ok(found @ 1..) = result {
            let text = format!("{found} processes were left below the daemon, and ended");
            self.tell(now, Fact::Alert { text });
        }
        if let Some(stopping) = &mut self.stopping {
            stopping.sweeping = false;
            stopping.verified = Some(result.map(|_| ()));
        }
    }

    /// What is looked at after each turn.
    pub(super) fn after_turn(&mut self, now: Timestamp) {
        self.keep_snapshot();
        self.say_ready();
        if let Some(stopping) = &mut self.stopping
            && self.supervisor.is_empty()
            && !stopping.sweeping
            && stopping.verified.is_none()
        {
            stopping.sweeping = true;
            let known = self.supervisor.known();
            self.jobs.sweep(known);
        }
        // What was still being prepared when the stop began.
        if self.stopping.is_some() && !self.supervisor.is_empty() {
            self.stop_agents(now);
        }
    }

    /// The outcome, once nothing is left to do.
    pub(super) fn finished(&mut self) -> Option<Result<(), RunError>> {
        let written = self.pipeline.is_idle() || self.pipeline.is_degraded() || self.dead.is_some();
        let stopping = self.stopping.as_mut()?;
        if !written || !self.supervisor.is_empty() || !self.jobs.is_idle() {
            return None;
        }
        let verified = stopping.verified.take()?;
        let waiting = std::mem::take(&mut stopping.waiting);
        let refusal = verified.as_ref().err().map(|error| {
            Denied::new(Code::Unavailable, format!("not everything could be ended: {error}"))
        });
        for ticket in waiting {
            match &refusal {
                None => self.hub.reply(ticket, Ok(&Empty {})),
                Some(denied) => self.hub.reply::<()>(ticket, Err(denied)),
            }
        }
        self.hub.flush();
        Some(match (self.dead.take(), verified) {
            (Some(why), _) => Err(RunError::Log(why)),
            (None, Err(error)) => Err(RunError::Left(error)),
            (None, Ok(())) => Ok(()),
        })
    }

    /// The log can't be trusted: nothing more is said or written, the agents end.
    pub(super) fn die(&mut self, now: Timestamp, why: FatalError) {
        self.screen.warn(&format!("the log can't be trusted any more: {why}"));
        self.dead = Some(why);
        // Also what waits is neither granted nor refused: it may have been written.
        self.hub.fall_silent();
        self.begin_stop(now, "the log can't be trusted any more", Some(0));
    }

    fn keep_snapshot(&mut self) {
        let state = self.pipeline.durable();
        if state.head().0 >= self.snapshot.0 + SNAPSHOT_EVENTS {
            self.snapshot = state.head();
            if let Some(snapshot) = snapshot_of(state, self.head) {
                // A snapshot that can't be kept only costs time at the next start.
                self.pipeline.store().save_snapshot(snapshot, |_| {});
            }
        }
    }

    /// Keeps a snapshot, ends connections and the log, and says what was done by whom.
    pub(super) async fn end(mut self) -> Started {
        // Of agents whose shim was killed; their processes are gone.
        let left = self.ground.cgroups.as_ref().map(Cgroups::clear).unwrap_or_default();
        for error in left {
            self.screen.warn(&error.in_full());
        }
        let state = self.pipeline.durable();
        let started = Started {
            verdict: summary::verdict(state),
            summary: summary::render(
                state,
                &self.ground.reader,
                self.clock.now(),
                summary::columns(),
            ),
            was_over: false,
        };
        if !self.pipeline.is_degraded()
            && let Some(snapshot) = snapshot_of(state, self.head)
        {
            self.pipeline.store().save_snapshot(snapshot, |_| {});
        }
        self.hub.close().await;
        self.pipeline.close();
        started
    }

    pub(super) fn blobs_may_go(&mut self) {
        // One at a time, whoever asks how often.
        if self.jobs.is_collapsing() {
            return;
        }
        // First this: a blob may be pinned now and named by the head a moment later.
        let begun = self.ground.blobs.begin_collection();
        self.jobs.collapse(begun, self.pipeline.live_blobs());
    }
}

/// A snapshot of the state after the log's head; none where the two differ.
fn snapshot_of(state: &State, head: crate::store::Head) -> Option<NewSnapshot> {
    if Seq(head.seq) != state.head() || head.seq == 0 {
        return None;
    }
    let bytes = state.snapshot().ok()?;
    Some(NewSnapshot { head, version: SNAPSHOT_VERSION, state: bytes })
}
