//! Any sequence of requests and facts keeps the invariants.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod core_world;

use core_world::{World, agent, json, mission, name, task, task_id};
use missiond::core::fact::Fact;
use missiond::core::head::Caller;
use missiond::core::request::*;
use missiond::core::spec::{MissionSpec, Mode, Permission, Permissions, RestartOn, Until};
use missiond::core::state::State;
use missiond::core::view::{Exit, Reply};
use missiond::ids::{
    AgentUid, Epoch, HandoffId, Incarnation, Key, RoleName, Seq, SubscriptionName, Timestamp,
};
use proptest::prelude::*;

const AGENTS: [&str; 6] = ["lead", "w1", "w2", "t1", "t2", "eye"];
const TASKS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// One input, in small numbers that name what is there by the time it comes.
#[derive(Debug, Clone)]
enum Op {
    Ask { who: usize, what: u8, x: usize, y: usize, z: usize, epoch: bool, key: u8 },
    Launch(usize),
    LaunchAll,
    End { who: usize, exit: u8, saves: bool },
    Stale { who: usize, what: u8 },
    Silent(usize),
    Wait(u32),
    Seal,
    Restart { config: u8, down: u32 },
    StopRequested,
}

fn op() -> impl Strategy<Value = Op> {
    let ask = |what: std::ops::Range<u8>| {
        (0..7usize, what, 0..6usize, 0..6usize, 0..6usize, prop::bool::weighted(0.85), 0..12u8)
            .prop_map(|(who, what, x, y, z, epoch, key)| Op::Ask { who, what, x, y, z, epoch, key })
    };
    prop_oneof![
        20 => ask(0..27),
        // Handoffs, and the work that is handed over.
        12 => ask(14..21),
        8 => ask(8..12),
        12 => (0..6usize).prop_map(Op::Launch),
        8 => Just(Op::LaunchAll),
        5 => (0..6usize, 0..4u8, any::<bool>()).prop_map(|(who, exit, saves)| Op::End { who, exit, saves }),
        1 => (0..6usize, 0..4u8).prop_map(|(who, what)| Op::Stale { who, what }),
        1 => (0..6usize).prop_map(Op::Silent),
        6 => prop_oneof![12 => 0..2_000u32, 2 => Just(61_000), 1 => Just(90_000_000)].prop_map(Op::Wait),
        3 => Just(Op::Seal),
        1 => (0..4u8, 0..100_000u32).prop_map(|(config, down)| Op::Restart { config, down }),
        1 => prop::bool::weighted(0.1).prop_map(|stop| if stop { Op::StopRequested } else { Op::Seal }),
    ]
}

/// One of four files that differ in agents, roles, limits and tasks.
fn file(which: u8) -> MissionSpec {
    let mut agents = vec![
        agent("lead", "lead", Mode::Service),
        agent("w1", "write", Mode::Service),
        agent("w2", "write", Mode::Service),
        agent("t1", "write", Mode::Task),
        agent("t2", "worker", Mode::Task),
        agent("eye", "audit", Mode::Service),
    ];
    agents[3].restart.on = if which == 3 { RestartOn::Never } else { RestartOn::OnFailure };
    agents[2].wall_ms = Some(50_000);
    agents[2].restart.max = 2;
    if which == 0 {
        // The one that others are compared with: all of them do all they can.
        agents[5].role = RoleName::new("write").unwrap();
    }
    if which == 1 {
        agents.remove(1);
        agents[3].launch_digest = "another".to_owned();
    }
    if which == 2 {
        agents[1].role = RoleName::new("read").unwrap();
        agents[4].autostart = false;
    }
    let mut tasks = vec![task("a", &[], Some("t1")), task("b", &["a"], Some("w1"))];
    tasks[0].max_attempts = 2;
    tasks[1].timeout_ms = Some(120_000);
    if which >= 2 {
        tasks.push(task("f", &["b"], None));
    }
    let mut spec = mission(agents, tasks);
    let worker = Permissions::of(&[Permission::Execute, Permission::Write]);
    spec.roles.insert(RoleName::new("worker").unwrap(), worker);
    spec.limits.inbox_messages = 5;
    spec.limits.max_tasks = 5;
    spec.limits.max_handoffs = 3;
    spec.limits.keep_checkpoints = 2;
    spec.limits.max_nacks = 2;
    spec.limits.keys_per_agent = 3;
    spec.limits.keep_finished_ms = 200_000;
    spec.limits.denials_per_minute = 2;
    spec.until = if which == 3 { Until::Settled } else { Until::Stopped };
    spec
}

fn request(state: &State, what: u8, x: usize, y: usize, z: usize, right: bool) -> Request {
    let (one, other, id) = (name(AGENTS[x]), name(AGENTS[y]), task_id(TASKS[z]));
    let current = state.task(&id).map_or(Epoch(0), |task| task.epoch);
    let epoch = if right { current } else { Epoch(current.0.wrapping_sub(1)) };
    let result = (x > 2).then(|| json("[1]"));
    let handoff = state.handoffs().map(|(id, _)| id).nth_back(y % 3).unwrap_or(HandoffId(Seq(1)));
    let by_id = HandoffRef { handoff };
    let refuse = HandoffRefuse { handoff, reason: None };
    let target = AgentRef { agent: (z > 0).then_some(one.clone()) };
    match what {
        0 | 1 => Request::Publish(Publish {
            r#type: MessageType::StatusUpdate,
            to: if z > 3 { vec![] } else { vec![one, other] },
            content: json(r#"{"x":1}"#),
            task: None,
            reply_to: None,
            ephemeral: z == 2,
        }),
        2 | 3 => Request::Ack(Ack {
            subscription: SubscriptionName::new(if z == 5 { "other" } else { "inbox" }).unwrap(),
            upto: (x > 3).then(|| Seq(state.head().0.saturating_sub(y as u64))),
            seqs: if x < 3 {
                vec![Seq(state.head().0.saturating_sub(2 * y as u64))]
            } else {
                vec![]
            },
            nack: if z < 2 { vec![Seq(state.head().0.saturating_sub(y as u64))] } else { vec![] },
        }),
        4 => {
            let mut spec = task(TASKS[z], &[], None);
            if x != z && y.is_multiple_of(2) {
                spec.after.push(task_id(TASKS[x]));
            }
            spec.assign = (y > 3).then_some(one);
            spec.timeout_ms = (y == 1).then_some(70_000);
            Request::TaskCreate(Box::new(spec))
        }
        5 | 6 => Request::TaskAssign(TaskAssign { task: id, to: one }),
        7 => Request::TaskClaim(TaskClaim { task: (y > 2).then_some(id) }),
        8 | 9 => Request::TaskUpdate(TaskUpdate {
            task: id,
            epoch,
            progress: (x > 0).then_some(u8::try_from(x * 10).unwrap()),
            note: None,
        }),
        10 => Request::TaskComplete(TaskSettle { task: id, epoch, result }),
        11 => Request::TaskFail(TaskSettle { task: id, epoch, result }),
        12 => Request::TaskRelease(TaskRelease { task: id, epoch, reason: None }),
        13 => Request::TaskCancel(TaskCancel { task: id, reason: None }),
        14 => {
            Request::CheckpointSave(CheckpointSave { task: id, epoch, json: result, files: vec![] })
        }
        15 | 16 => {
            let owner = state.task(&id).and_then(|task| task.owner());
            let owner = owner.and_then(|uid| state.name_of(uid)).filter(|_| right).cloned();
            let (from, timeout_ms) = (owner.unwrap_or(one), (z == 3).then_some(500));
            Request::HandoffRequest(HandoffRequest {
                from,
                to: other,
                task: id,
                timeout_ms,
                reason: None,
            })
        }
        17 => Request::HandoffAccept(by_id),
        18 => Request::HandoffComplete(by_id),
        19 => Request::HandoffReject(refuse),
        20 => Request::HandoffCancel(refuse),
        21 => Request::AgentStart(target),
        22 => Request::AgentStop(AgentStop { agent: target.agent, grace_ms: None }),
        23 => Request::AgentRestart(target),
        24 => {
            let role =
                RoleName::new(["write", "read", "lead", "audit", "worker", "no"][y]).unwrap();
            Request::AgentRole(AgentRole { agent: one, role })
        }
        25 => Request::AgentPhase(AgentPhase { phase: [Phase::Ready, Phase::Planning][y % 2] }),
        _ => Request::MissionStatus,
    }
}

fn epoch_of(request: &Request) -> Option<(missiond::ids::TaskId, Epoch)> {
    match request {
        Request::TaskUpdate(p) => Some((p.task.clone(), p.epoch)),
        Request::TaskComplete(p) | Request::TaskFail(p) => Some((p.task.clone(), p.epoch)),
        Request::TaskRelease(p) => Some((p.task.clone(), p.epoch)),
        Request::CheckpointSave(p) => Some((p.task.clone(), p.epoch)),
        _ => None,
    }
}

fn who_is(world: &World, who: usize) -> Option<AgentUid> {
    AGENTS.get(who).and_then(|name| world.state().uid(name))
}

fn ask(world: &mut World, who: usize, key: u8, request: Request) {
    let caller = match who_is(world, who) {
        Some(uid) => Caller::Agent(uid),
        None => Caller::Operator,
    };
    let key = (key < 2).then(|| Key::new(&format!("k{key}")).unwrap());
    // What is due and what waits for the end of the batch comes first, to tell it from the request's.
    world.seal();
    world.tick();
    let stale = epoch_of(&request)
        .filter(|(id, epoch)| world.state().task(id).is_none_or(|task| task.epoch != *epoch));
    let known = key.is_some();
    let step = world.ask(caller, key.as_ref(), request.clone());
    match step.reply.as_ref().expect("every request has a reply") {
        Err(denied) => {
            let kinds: Vec<_> = step.events.iter().map(|event| event.kind()).collect();
            assert!(
                kinds.iter().all(|kind| *kind == "request_denied"),
                "{request:?} was refused ({denied}) and changed something: {kinds:?}"
            );
        }
        Ok(reply) => {
            // A kept answer to the same key is no write.
            assert!(stale.is_none() || (known && step.events.is_empty()), "{stale:?} wrote");
            let reads = request.is_read();
            assert!(!reads || step.events.is_empty(), "a read made {:?}", step.events);
            if known && !reads && !matches!(reply, Reply::Acked(_)) && step.ephemeral.is_none() {
                let again = world.ask(caller, key.as_ref(), request);
                assert_eq!(again.reply.as_ref(), Some(&Ok(reply.clone())), "another answer");
                assert!(again.events.is_empty(), "a repeated key did something");
            }
        }
    }
}

fn play(world: &mut World, op: Op) {
    match op {
        Op::Ask { who, what, x, y, z, epoch, key } => {
            let request = request(world.state(), what, x, y, z, epoch);
            let request = match request {
                // Somebody who can ask for a handoff does, more often than chance would have it.
                Request::HandoffRequest(p) if epoch => {
                    ask(world, 0, 9, Request::HandoffRequest(p));
                    return;
                }
                other => other,
            };
            // An owner asks more often than chance would have it.
            let owner = epoch_of(&request).and_then(|(id, _)| world.state().task(&id)?.owner());
            let owner = owner.and_then(|uid| {
                AGENTS.iter().position(|name| world.state().uid(name) == Some(uid))
            });
            let target = match &request {
                Request::HandoffAccept(p) | Request::HandoffComplete(p) => {
                    let all = world.state().handoffs().find(|(id, _)| *id == p.handoff);
                    let to = all.map(|(_, handoff)| handoff.to);
                    AGENTS.iter().position(|n| to.is_some() && world.state().uid(n) == to)
                }
                _ => None,
            };
            let who = if epoch { owner.or(target).unwrap_or(who) } else { who };
            ask(world, who, key, request);
        }
        Op::Launch(who) => {
            if let Some(uid) = who_is(world, who) {
                world.launch(uid);
            }
        }
        Op::End { who, exit, saves } => {
            let Some(uid) = who_is(world, who) else { return };
            let incarnation = world.state().agent(uid).map_or(Incarnation(0), |a| a.incarnation);
            let exit = match exit {
                0 => Exit::Exited(0),
                1 => Exit::Exited(3),
                2 => Exit::Lost,
                _ => Exit::SetupFailed { step: "landlock".to_owned(), errno: 1 },
            };
            let checkpoint = saves.then(|| (Some(json("{}")), vec![]));
            let output = saves.then(|| json("7"));
            world.fact(Fact::AgentEnded { uid, incarnation, exit, output, checkpoint });
        }
        Op::Stale { who, what } => {
            let Some(uid) = who_is(world, who) else { return };
            let incarnation = world.state().agent(uid).map_or(0, |agent| agent.incarnation.0);
            let incarnation = Incarnation(incarnation.wrapping_sub(1));
            let step = world.fact(match what {
                0 => Fact::AgentStarted { uid, incarnation, pid: 1 },
                1 => Fact::AgentParked { uid, incarnation },
                2 => Fact::AgentReady { uid, incarnation },
                _ => Fact::AgentSilent { uid, incarnation },
            });
            let kinds = step.events.iter().map(|event| event.kind());
            assert!(!kinds.clone().any(|kind| kind == "agent_started"), "a former start counts");
        }
        Op::Silent(who) => {
            let Some(uid) = who_is(world, who) else { return };
            let incarnation = world.state().agent(uid).map_or(Incarnation(0), |a| a.incarnation);
            world.fact(Fact::AgentSilent { uid, incarnation });
        }
        Op::Wait(ms) => {
            world.wait(u64::from(ms));
            world.tick();
            let due = world.head.next_deadline();
            assert!(due.is_none_or(|due| due > world.now), "something is due and not done");
        }
        Op::LaunchAll => world.launch_all(),
        Op::Seal => _ = world.seal(),
        Op::Restart { config, down } => {
            // Only what is in the log survives.
            world.seal();
            world.head = missiond::core::head::Head::from_state(world.follower.clone());
            world.wait(u64::from(down));
            world.fact(Fact::DaemonStarted { last_alive: None });
            world.fact(Fact::Configured(Box::new(file(config))));
        }
        Op::StopRequested => {
            world.fact(Fact::StopRequested { why: "a signal".to_owned() });
            world.launch_all();
        }
    }
}

/// How many sequences are tried; `MISSIOND_CASES` says otherwise.
fn cases() -> u32 {
    std::env::var("MISSIOND_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_inputs_keeps_the_invariants(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::started(file(0));
        world.launch_all();
        for op in ops {
            play(&mut world, op);
        }
        world.seal();
        let replayed = world.replayed();
        prop_assert_eq!(replayed.digest().unwrap(), world.state().digest().unwrap());
        let again = State::from_snapshot(&replayed.snapshot().unwrap()).unwrap();
        prop_assert!(again == *world.state(), "a snapshot gives another state");
        // Whatever happened: it can be stopped.
        world.fact(Fact::StopRequested { why: "the end".to_owned() });
        world.launch_all();
        let state = world.state().mission().state;
        prop_assert_eq!(state, missiond::core::view::MissionStateName::Stopped);
    }
}

#[test]
fn an_unknown_kind_or_a_newer_version_is_refused() {
    let mut state = State::new();
    let (seq, at) = (Seq(1), Timestamp(1));
    let newer = state.replay(seq, at, "mission_stopped", 2, "daemon", b"{}").unwrap_err();
    assert!(newer.to_string().contains("newer"), "{newer}");
    let unknown = state.replay(seq, at, "board_set", 1, "daemon", b"{}").unwrap_err();
    assert!(unknown.to_string().contains("board_set"), "{unknown}");
    assert!(state == State::new(), "a refused event changed the state");
    assert!(State::is_known("mission_stopped", 1) && !State::is_known("mission_stopped", 2));
}

/// Once a daemon waited for ever: an `ack` of nothing promised an event that no seal ever made.
#[test]
fn every_reply_is_released_by_an_event_that_comes() {
    let mut world = World::started(file(0));
    world.launch_all();
    let ack = |upto, nack: Vec<Seq>| {
        let subscription = SubscriptionName::new("inbox").unwrap();
        Request::Ack(Ack { subscription, upto, seqs: vec![], nack })
    };
    for request in [ack(None, vec![]), ack(Some(Seq(1)), vec![]), ack(None, vec![Seq(3)])] {
        let step = world.as_agent("w1", request.clone());
        world.seal();
        assert!(step.after <= world.state().head(), "{request:?} waits for ever");
    }
}
