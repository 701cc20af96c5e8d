//! One simulated mission: the core's head, a store that fails in every way a store can, a clock that
//! only moves when it is told to, and the checks after each input.
//!
//! ```text
//! input -> Head -> events, reply ---(batch)---> commit -+-> ok: follow, release, reconcile
//!                                                       +-> full: head = what is durable, facts again
//!                                                       '-> unknown, kill: the daemon dies, restart
//! ```

use std::collections::{BTreeMap, BTreeSet};

use missiond::core::denied::Denied;
use missiond::core::event::{Event, Logged};
use missiond::core::fact::Fact;
use missiond::core::head::{Caller, Head, Step};
use missiond::core::json::Json;
use missiond::core::request::Request;
use missiond::core::spec::MissionSpec;
use missiond::core::state::State;
use missiond::core::view::Reply;
use missiond::ids::{AgentUid, Incarnation, Key, Seq, SubscriptionName, Timestamp};

use super::ask;
use super::launcher::{Launcher, Stage};
use super::model::{Model, Verdict, ensure};
use super::random::Random;
use super::spec;

/// A row of the log.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) logged: Logged,
    envelope: Vec<u8>,
}

/// A reply that waits for its events to be durable.
struct Parked {
    after: Seq,
    who: Caller,
    key: Option<Key>,
    request: Request,
    reply: Result<Reply, Denied>,
    at: Timestamp,
}

/// A keyed request and what was answered, if the answer got out.
#[derive(Clone)]
struct Asked {
    who: Caller,
    key: Key,
    request: Request,
    answer: Option<Reply>,
    at: Timestamp,
}

/// How a commit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Full,
    UnknownKept,
    UnknownLost,
    KillBefore,
    KillAfter,
}

/// A fault of the daemon that the checks must see; for the tests of the simulator itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    /// A batch is acknowledged and not stored.
    LoseBatch,
    /// A restart forgets the last durable event.
    LoseLastRow,
    /// Idempotency keys are not handed to the core.
    DropKeys,
    /// Reports of ended processes are lost.
    LoseEnds,
    /// Due deadlines are not looked at.
    NoTicks,
}

pub(crate) struct World {
    pub(super) seed: u64,
    pub(crate) now: Timestamp,
    pub(super) spec: MissionSpec,
    pub(super) head: Head,
    pub(super) model: Model,
    pub(super) rows: Vec<Row>,
    pub(super) follower: State,
    pub(super) durable: Model,
    batch: Vec<Logged>,
    facts: Vec<Fact>,
    parked: Vec<Parked>,
    pub(super) launcher: Launcher,
    asked: Vec<Asked>,
    /// Acknowledged by whom, as asked for: what a cursor may cover.
    pub(super) acked: BTreeSet<(AgentUid, SubscriptionName, Seq)>,
    pub(super) acked_upto: BTreeMap<(AgentUid, SubscriptionName), Seq>,
    /// What was promised to a client: this row says this.
    pub(super) promised: Vec<(Seq, Json)>,
    released: Seq,
    sabotage: Sabotage,
    faults: bool,
    pub(super) counter: u64,
    pub(crate) trace: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, sabotage: Sabotage, traced: bool) -> World {
        let mut random = Random::new(seed, u64::MAX);
        World {
            seed,
            now: Timestamp(1_000_000),
            spec: spec::mission(&mut random),
            head: Head::new(),
            model: Model::default(),
            rows: Vec::new(),
            follower: State::new(),
            durable: Model::default(),
            batch: Vec::new(),
            facts: Vec::new(),
            parked: Vec::new(),
            launcher: Launcher::default(),
            asked: Vec::new(),
            acked: BTreeSet::new(),
            acked_upto: BTreeMap::new(),
            promised: Vec::new(),
            released: Seq(0),
            sabotage,
            faults: true,
            counter: 0,
            trace: traced.then(Vec::new),
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now.0 - 1_000_000;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:>6} ms  {}", line()));
        }
    }

    /// Takes in what the head did.
    pub(super) fn take(&mut self, step: &Step) -> Verdict {
        for logged in &step.events {
            self.note(|| format!("    {} {:?}", logged.seq, logged.event));
            self.model.apply(logged).map_err(|why| format!("event {}: {why}", logged.seq))?;
            self.batch.push(logged.clone());
        }
        let last = step.events.last().map_or(Seq(0), |logged| logged.seq);
        ensure!(step.after >= last, "outputs after {} with an event {last}", step.after);
        let head = self.head.state().head();
        ensure!(head == self.model.head, "the head is {head}, the last event {}", self.model.head);
        self.model.settled_step()
    }

    fn tick(&mut self) -> Verdict {
        if self.sabotage == Sabotage::NoTicks {
            return Ok(());
        }
        let step = self.head.tick(self.now);
        self.take(&step)?;
        let next = self.head.next_deadline();
        ensure!(next.is_none_or(|at| at > self.now), "a deadline is due after its tick");
        Ok(())
    }

    fn fact(&mut self, fact: Fact) -> Verdict {
        // Nothing is due before the new run of the daemon has begun.
        if !matches!(fact, Fact::DaemonStarted { .. }) {
            self.tick()?;
        }
        self.note(|| format!("fact {fact:?}"));
        self.launcher.arrived(&fact)?;
        self.facts.push(fact.clone());
        let step = self.head.fact(self.now, fact);
        ensure!(step.reply.is_none(), "a fact is answered");
        self.take(&step)
    }

    fn request(&mut self, who: Caller, key: Option<Key>, request: Request) -> Verdict {
        self.tick()?;
        let before = self.model.clone();
        let handed = key.as_ref().filter(|_| self.sabotage != Sabotage::DropKeys);
        let step = self.head.request(self.now, &who, handed, request.clone());
        let reply = step.reply.clone().ok_or("a request is not answered")?;
        self.note(|| {
            let answer = reply.as_ref().map_or_else(|no| format!("{no:?}"), |_| "ok".to_owned());
            format!("{who:?} {key:?} {request:?} -> {answer}")
        });
        self.take(&step)?;
        let head = self.head.state().head();
        ensure!(step.after >= head, "an answer after {} on a state of {head}", step.after);
        match &reply {
            Err(denied) => {
                // What others had asked for before may be written on the way.
                let changed = step.events.iter().find(|logged| {
                    !matches!(
                        logged.event,
                        Event::RequestDenied(_)
                            | Event::DenialsCounted(_)
                            | Event::CursorsAdvanced(_)
                            | Event::TaskProgressed(_)
                    )
                });
                ensure!(changed.is_none(), "refused, but {changed:?}");
                ensure!(!denied.message.is_empty(), "refused without a word");
            }
            Ok(_) => self.check_owner(&before, who, &request, key.is_some(), &step)?,
        }
        if let (Request::Ack(ack), Caller::Agent(uid), Ok(_)) = (&request, who, &reply) {
            self.remember_ack(uid, ack);
        }
        if let Some(key) = &key {
            self.check_key(who, key, &request, &reply, &step)?;
        }
        let after = step.after;
        let at = self.now;
        self.parked.push(Parked { after, who, key, request, reply, at });
        Ok(())
    }

    /// A write that went through came from the owner, under its epoch.
    fn check_owner(
        &self,
        before: &Model,
        who: Caller,
        request: &Request,
        is_keyed: bool,
        step: &Step,
    ) -> Verdict {
        let (task, epoch) = match request {
            Request::TaskUpdate(r) => (&r.task, r.epoch),
            Request::TaskComplete(r) | Request::TaskFail(r) => (&r.task, r.epoch),
            Request::TaskRelease(r) => (&r.task, r.epoch),
            Request::CheckpointSave(r) => (&r.task, r.epoch),
            _ => return Ok(()),
        };
        // The same request again is answered again and changes nothing.
        let repeats = is_keyed || !matches!(request, Request::TaskUpdate(_));
        let old = step.events.is_empty() && repeats;
        let Some(known) = before.tasks.get(task).filter(|_| !old) else { return Ok(()) };
        // The operator may do what the owner may, if it knows the epoch.
        let is_owner = match who {
            Caller::Agent(uid) => known.owner == Some(uid),
            Caller::Operator => known.owner.is_some(),
        };
        ensure!(
            is_owner && known.epoch == epoch,
            "{who:?} wrote to {task} under {epoch}, owned by {:?} under {}",
            known.owner,
            known.epoch
        );
        Ok(())
    }

    fn remember_ack(&mut self, uid: AgentUid, ack: &missiond::core::request::Ack) {
        let name = &ack.subscription;
        let all = ack.seqs.iter().chain(&ack.nack);
        self.acked.extend(all.map(|seq| (uid, name.clone(), *seq)));
        if let Some(upto) = ack.upto {
            let mark = self.acked_upto.entry((uid, name.clone())).or_default();
            *mark = upto.max(*mark);
        }
    }

    /// The same key with the same request is carried out once.
    fn check_key(
        &mut self,
        who: Caller,
        key: &Key,
        request: &Request,
        reply: &Result<Reply, Denied>,
        step: &Step,
    ) -> Verdict {
        let same = self.asked.iter().rposition(|asked| asked.who == who && asked.key == *key);
        let Some(asked) = same.map(|at| self.asked[at].clone()) else {
            let (key, request) = (key.clone(), request.clone());
            self.asked.push(Asked { who, key, request, answer: None, at: self.now });
            return Ok(());
        };
        let Some(answer) = asked.answer.filter(|_| asked.request == *request) else {
            return Ok(());
        };
        let fresh = self.now.since_ms(asked.at) < self.spec.limits.key_ttl_ms;
        let limit = usize::try_from(self.spec.limits.keys_per_agent).unwrap();
        let kept = self.asked.iter().filter(|a| a.who == who && a.at >= asked.at).count() < limit;
        if fresh && kept {
            ensure!(reply.as_ref() == Ok(&answer), "{key}: first {answer:?}, then {reply:?}");
            ensure!(step.events.is_empty(), "{key} was carried out twice");
        }
        Ok(())
    }

    /// One random input.
    pub(crate) fn step(&mut self, number: u64) -> Verdict {
        let mut random = Random::new(self.seed, number);
        if self.rows.is_empty() && self.batch.is_empty() {
            return self.start(&mut random);
        }
        match random.below(100) {
            0..48 => self.ask(&mut random)?,
            48..68 => self.hear(&mut random)?,
            68..76 => self.let_end(&mut random),
            76..84 => self.pass(&mut random)?,
            84..85 => self.odd_fact(&mut random)?,
            _ => self.commit(&mut random)?,
        }
        if self.batch.len() > 40 { self.commit(&mut random) } else { Ok(()) }
    }

    fn start(&mut self, random: &mut Random) -> Verdict {
        let last_alive = (!self.rows.is_empty()).then_some(self.now);
        self.now = self.now.plus_ms(1 + random.below(2_000));
        if !self.rows.is_empty() && random.percent(25) {
            self.edit_spec(random);
        }
        self.fact(Fact::DaemonStarted { last_alive })?;
        self.fact(Fact::Configured(Box::new(self.spec.clone())))?;
        self.commit(random)
    }

    /// The person edits the mission file between two runs.
    fn edit_spec(&mut self, random: &mut Random) {
        match random.below(4) {
            0 if self.spec.agents.len() > 1 => drop(self.spec.agents.pop()),
            1 => {
                let used = |name: &str| self.spec.agents.iter().any(|a| a.name.as_str() == name);
                if let Some(name) = spec::AGENTS.into_iter().find(|name| !used(name)) {
                    self.spec.agents.push(spec::agent(random, name));
                }
            }
            2 => {
                if let Some(agent) = self.spec.agents.first_mut() {
                    *agent = spec::agent(random, agent.name.as_str());
                }
            }
            _ => {
                let number = u64::try_from(self.spec.tasks.len()).unwrap() + 1;
                self.spec.tasks.push(spec::task(random, number));
            }
        }
    }

    fn callers(&self) -> Vec<AgentUid> {
        let up = |uid: &AgentUid| {
            let process = self.launcher.processes.get(uid);
            process.is_some_and(|p| matches!(p.stage, Stage::Up | Stage::Ending))
        };
        self.model.agents.keys().copied().filter(up).collect()
    }

    fn ask(&mut self, random: &mut Random) -> Verdict {
        if random.percent(8)
            && let Some(again) = random.pick(&self.asked).cloned()
            && self.may_ask(again.who)
        {
            return self.request(again.who, Some(again.key), again.request);
        }
        let (who, request) = ask::request(random, &self.model, &self.callers());
        let key = (!is_repeatable(&request) && random.percent(25)).then(|| {
            self.counter += 1;
            Key::new(&format!("k{}", self.counter)).unwrap()
        });
        self.request(who, key, request)
    }

    fn may_ask(&self, who: Caller) -> bool {
        match who {
            Caller::Operator => true,
            Caller::Agent(uid) => self.callers().contains(&uid),
        }
    }

    /// A report arrives.
    fn hear(&mut self, random: &mut Random) -> Verdict {
        let Some((at, fact)) = self.launcher.next_report() else { return self.pass(random) };
        self.now = self.now.max(at);
        if self.sabotage == Sabotage::LoseEnds && matches!(fact, Fact::AgentEnded { .. }) {
            return Ok(());
        }
        self.fact(fact)
    }

    fn let_end(&mut self, random: &mut Random) {
        let up = self.launcher.processes.iter().filter(|(_, p)| p.stage == Stage::Up);
        let up: Vec<AgentUid> = up.map(|(uid, _)| *uid).collect();
        if let Some(uid) = random.pick(&up) {
            self.launcher.ends_by_itself(random, *uid, self.now);
            self.note(|| format!("the process of {uid} ends by itself"));
        }
    }

    /// Time passes, now and then to exactly the next deadline.
    fn pass(&mut self, random: &mut Random) -> Verdict {
        let next = self.head.next_deadline();
        self.now = match next {
            Some(at) if random.percent(40) && at.since_ms(self.now) < 10_000 => self.now.max(at),
            _ => self.now.plus_ms(1 + random.below(400)),
        };
        self.note(|| "time passes".to_owned());
        self.tick()
    }

    /// What happens rarely, and reports about processes that are gone.
    fn odd_fact(&mut self, random: &mut Random) -> Verdict {
        let agents: Vec<_> =
            self.model.agents.iter().map(|(uid, a)| (*uid, a.incarnation)).collect();
        let Some((uid, last)) = random.pick(&agents).copied() else { return Ok(()) };
        let incarnation = Incarnation(last.0.saturating_sub(random.below(2)));
        let fact = match random.below(6) {
            0 | 1 => Fact::AgentReady { uid, incarnation },
            2 | 3 => Fact::AgentSilent { uid, incarnation },
            4 => Fact::Alert { text: "look".to_owned() },
            _ => Fact::PeerRefused {
                socket: "control".to_owned(),
                pid: 7,
                reason: "not the operator".to_owned(),
            },
        };
        self.fact(fact)
    }

    fn outcome(&self, random: &mut Random) -> Outcome {
        if !self.faults {
            return Outcome::Ok;
        }
        match random.below(100) {
            0..3 => Outcome::Full,
            3 => Outcome::UnknownKept,
            4 => Outcome::UnknownLost,
            5 => Outcome::KillBefore,
            6 => Outcome::KillAfter,
            _ => Outcome::Ok,
        }
    }

    pub(super) fn commit(&mut self, random: &mut Random) -> Verdict {
        let step = self.head.seal(self.now);
        self.take(&step)?;
        let outcome = self.outcome(random);
        self.note(|| format!("commit: {outcome:?}"));
        match outcome {
            Outcome::Ok => {
                self.store()?;
                self.release()?;
                self.launcher.reconcile(random, &self.follower, self.now)
            }
            Outcome::Full => self.full(),
            Outcome::UnknownKept | Outcome::KillAfter => {
                self.store()?;
                self.restart(random)
            }
            Outcome::UnknownLost | Outcome::KillBefore => self.restart(random),
        }
    }

    fn store(&mut self) -> Verdict {
        let lost = self.sabotage == Sabotage::LoseBatch && self.rows.len() > 30;
        for logged in std::mem::take(&mut self.batch) {
            if lost {
                continue;
            }
            let envelope = logged.envelope().map_err(|error| error.to_string())?;
            let actor = logged.actor.to_string();
            self.follower
                .replay(logged.seq, logged.at, logged.kind(), logged.version(), &actor, &envelope)
                .map_err(|error| format!("replay of {}: {error}", logged.seq))?;
            self.durable.apply(&logged)?;
            self.rows.push(Row { logged, envelope });
        }
        self.facts.clear();
        Ok(())
    }

    /// Whatever is durable may be told.
    fn release(&mut self) -> Verdict {
        let durable = self.follower.head();
        for parked in std::mem::take(&mut self.parked) {
            ensure!(
                parked.after <= durable,
                "an answer after {} is stuck: everything up to {durable} is durable",
                parked.after
            );
            let Ok(reply) = parked.reply else { continue };
            self.released = self.released.max(parked.after);
            if let (Reply::Published(published), Request::Publish(publish)) =
                (&reply, &parked.request)
                && published.id.is_some()
            {
                self.promised.push((published.seq, publish.content.clone()));
            }
            let Some(key) = parked.key else { continue };
            let same = |asked: &&mut Asked| asked.who == parked.who && asked.key == key;
            if let Some(asked) = self.asked.iter_mut().rfind(same)
                && asked.request == parked.request
                && asked.answer.is_none()
            {
                asked.answer = Some(reply);
                asked.at = parked.at;
            }
        }
        Ok(())
    }

    /// No room: what was asked for is refused, what has happened is said again.
    fn full(&mut self) -> Verdict {
        self.parked.clear();
        self.batch.clear();
        self.head = Head::from_state(self.follower.clone());
        self.model = self.durable.clone();
        for fact in std::mem::take(&mut self.facts) {
            self.fact(fact)?;
        }
        // Facts have room of their own.
        let step = self.head.seal(self.now);
        self.take(&step)?;
        self.store()?;
        self.launcher.reconcile(
            &mut Random::new(self.seed, self.now.0.unsigned_abs()),
            &self.follower,
            self.now,
        )
    }

    fn restart(&mut self, random: &mut Random) -> Verdict {
        self.parked.clear();
        self.batch.clear();
        self.facts.clear();
        if self.sabotage == Sabotage::LoseLastRow {
            self.rows.pop();
        }
        let mut state = self.replayed(random)?;
        let (ours, theirs) = (digest(&state)?, digest(&self.follower)?);
        ensure!(ours == theirs, "the state after replay is not the state before");
        let head = state.head();
        ensure!(head >= self.released, "released up to {}, replayed to {head}", self.released);
        std::mem::swap(&mut self.follower, &mut state);
        self.head = Head::from_state(self.follower.clone());
        self.model = self.durable.clone();
        self.launcher.lose_everything();
        self.start(random)
    }

    /// The state from the log, sometimes from a snapshot on the way.
    fn replayed(&self, random: &mut Random) -> Result<State, String> {
        let mut state = State::new();
        let snapshot = random.percent(40).then(|| random.below(self.rows.len() as u64 + 1));
        for (at, row) in (0_u64..).zip(&self.rows) {
            if snapshot == Some(at) {
                let bytes = state.snapshot().map_err(|error| error.to_string())?;
                state = State::from_snapshot(&bytes).map_err(|error| error.to_string())?;
            }
            let Logged { seq, at, actor, .. } = &row.logged;
            let (kind, v) = (row.logged.kind(), row.logged.version());
            state
                .replay(*seq, *at, kind, v, &actor.to_string(), &row.envelope)
                .map_err(|error| format!("replay of {seq}: {error}"))?;
        }
        Ok(state)
    }

    /// The end: no more faults, nobody asks for anything; all that waits must come to its end.
    pub(crate) fn drain(&mut self) -> Verdict {
        self.faults = false;
        let mut random = Random::new(self.seed, u64::MAX - 1);
        self.commit(&mut random)?;
        self.run_down(&mut random)?;
        self.check_rest()?;
        self.fact(Fact::StopRequested { why: "the end".to_owned() })?;
        self.commit(&mut random)?;
        self.run_down(&mut random)?;
        self.commit(&mut random)?;
        let left: Vec<_> = self.launcher.processes.keys().collect();
        ensure!(left.is_empty(), "stopped, but {left:?} have processes");
        ensure!(self.model.stopped, "the mission does not stop");
        self.check_promises()
    }

    /// Lets reports arrive and deadlines pass until nothing moves within ten minutes.
    fn run_down(&mut self, random: &mut Random) -> Verdict {
        let horizon = self.now.plus_ms(600_000);
        for _ in 0..600 {
            let up = self.launcher.processes.iter();
            let busy: Vec<AgentUid> = up
                .filter(|(_, p)| p.stage == Stage::Up && p.run.is_some())
                .map(|(u, _)| *u)
                .collect();
            for uid in busy {
                self.launcher.ends_by_itself(random, uid, self.now);
            }
            let report = self.launcher.reports.iter().map(|(at, _)| *at).min();
            let deadline = self.head.next_deadline().filter(|at| *at <= horizon);
            let Some(next) = report.into_iter().chain(deadline).min() else { return Ok(()) };
            self.now = self.now.max(next);
            if report == Some(next) {
                self.hear(random)?
            } else {
                self.tick()?
            }
            self.commit(random)?;
        }
        Err("it never comes to rest".to_owned())
    }
}

pub(super) fn digest(state: &State) -> Result<[u8; 32], String> {
    state.digest().map_err(|error| error.to_string())
}

/// Reads, acknowledgements and ephemeral messages may come any number of times.
fn is_repeatable(request: &Request) -> bool {
    match request {
        Request::Ack(ack) => ack.nack.is_empty(),
        Request::Publish(publish) => publish.ephemeral,
        other => is_read(other),
    }
}

fn is_read(request: &Request) -> bool {
    matches!(
        request,
        Request::TaskGet(_)
            | Request::TaskList(_)
            | Request::CheckpointGet(_)
            | Request::HandoffGet(_)
            | Request::HandoffList(_)
            | Request::AgentList
            | Request::AgentGet(_)
            | Request::MissionStatus
            | Request::Bus(_)
    )
}
