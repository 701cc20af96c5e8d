//! Every pair of the two state tables, on a real head: the matrices below are the tables of the
//! specification, written down a second time as what can be seen from outside.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod core_world;

use core_world::{World, agent, json, mission, name, task, task_id};
use missiond::core::fact::Fact;
use missiond::core::head::{Caller, Step};
use missiond::core::json::Json;
use missiond::core::request::*;
use missiond::core::spec::{MissionSpec, Mode, RestartOn};
use missiond::core::table::{handoff, task};
use missiond::core::view::Exit;
use missiond::ids::{Epoch, HandoffId, RoleName, Seq};

/// lead, w1 and w2 are services that may own tasks; w1 is restarted whatever happens. `x` is the task.
fn spec(max_attempts: u32, after: &[&str], assign: Option<&str>) -> MissionSpec {
    let mut agents = vec![
        agent("lead", "lead", Mode::Service),
        agent("w1", "write", Mode::Service),
        agent("w2", "write", Mode::Service),
        agent("reader", "read", Mode::Service),
    ];
    agents[1].restart.on = RestartOn::Always;
    let mut x = task("x", after, assign);
    x.max_attempts = max_attempts;
    x.timeout_ms = Some(1_000_000);
    mission(agents, vec![task("dep", &[], Some("lead")), x])
}

fn epoch(world: &World) -> Epoch {
    world.state().task(&task_id("x")).unwrap().epoch
}

fn update(world: &mut World, who: &str, epoch: Epoch) -> Step {
    let (task, progress, note) = (task_id("x"), None, None);
    world.as_agent(who, Request::TaskUpdate(TaskUpdate { task, epoch, progress, note }))
}

fn settle(epoch: Epoch, result: Option<Json>) -> TaskSettle {
    TaskSettle { task: task_id("x"), epoch, result }
}

fn save(world: &mut World, who: &str) -> Step {
    let (task, epoch, json) = (task_id("x"), epoch(world), Some(json("1")));
    world
        .as_agent(who, Request::CheckpointSave(CheckpointSave { task, epoch, json, files: vec![] }))
}

/// A world whose task `x` is in that column; w1 owns it where it has an owner.
fn task_world(column: &str) -> World {
    let (max, after, assign): (u32, &[&str], Option<&str>) = match column {
        "pending" | "cancelled" => (3, &[], None),
        "waiting" => (3, &["dep"], Some("w1")),
        "last attempt" => (1, &[], Some("w1")),
        _ => (3, &[], Some("w1")),
    };
    let mut world = World::started(spec(max, after, assign));
    world.launch_all();
    let of_task = epoch(&world);
    match column {
        "active" | "last attempt" => _ = update(&mut world, "w1", of_task),
        "completed" => {
            let done = settle(of_task, Some(json("1")));
            world.as_agent("w1", Request::TaskComplete(done));
        }
        "cancelled" => {
            let (task, reason) = (task_id("x"), None);
            world.as_operator(Request::TaskCancel(TaskCancel { task, reason }));
        }
        "assigned quiesced" => _ = quiesce(&mut world),
        "active quiesced" => {
            update(&mut world, "w1", of_task);
            quiesce(&mut world);
        }
        _ => {}
    }
    world
}

/// Hands `x` from w1 to w2 as far as quiesced, by the deadline of the drain.
fn quiesce(world: &mut World) -> HandoffId {
    let id = hand(world);
    world.as_agent("w2", Request::HandoffAccept(HandoffRef { handoff: id }));
    world.wait(60_000);
    world.tick();
    id
}

fn hand(world: &mut World) -> HandoffId {
    world.as_operator(ask_for("w1", "w2"));
    world.state().handoffs().last().expect("a handoff").0
}

fn ask_for(from: &str, to: &str) -> Request {
    let (from, to, task) = (name(from), name(to), task_id("x"));
    Request::HandoffRequest(HandoffRequest { from, to, task, timeout_ms: None, reason: None })
}

/// What an input did to `x`: its refusal, `ok` for nothing, or the new state with what changed.
fn task_outcome(world: &mut World, input: &dyn Fn(&mut World) -> Option<Step>) -> String {
    let before = world.state().task(&task_id("x")).unwrap().clone();
    let step = input(world);
    if let Some(Some(Err(denied))) = step.as_ref().map(|step| &step.reply) {
        return denied.code.to_string();
    }
    let after = world.state().task(&task_id("x")).unwrap().clone();
    if before == after {
        return "ok".to_owned();
    }
    let view = world.state().task_view(&task_id("x")).unwrap();
    let mut text = format!("{:?}", view.state).to_lowercase();
    if let Some(owner) = view.owner {
        text += &format!(" {owner}");
    }
    if let Some(reserved) = view.reserved {
        text += &format!(" for {reserved}");
    }
    if before.reserved.is_some() && after.reserved.is_none() && after.owner().is_none() {
        text += " unreserved";
    }
    if before.epoch != after.epoch {
        text += " e+";
    }
    if after.attempts > before.attempts {
        text += " attempt+1";
    }
    text
}

type Input = (&'static str, Box<dyn Fn(&mut World) -> Option<Step>>);

fn input(name: &'static str, act: impl Fn(&mut World) -> Option<Step> + 'static) -> Input {
    (name, Box::new(act))
}

fn assign(to: &'static str) -> impl Fn(&mut World) -> Option<Step> {
    move |world| {
        let (task, to) = (task_id("x"), name(to));
        Some(world.as_agent("lead", Request::TaskAssign(TaskAssign { task, to })))
    }
}

fn claim(by: &'static str) -> impl Fn(&mut World) -> Option<Step> {
    move |world| {
        let task = Some(task_id("x"));
        Some(world.as_agent(by, Request::TaskClaim(TaskClaim { task })))
    }
}

fn end(world: &mut World, who: &str) {
    let uid = world.uid(who);
    world.end(uid, Exit::Signaled(9));
}

fn role(world: &mut World, who: &str, role: &str) -> Step {
    let (agent, role) = (name(who), RoleName::new(role).unwrap());
    world.as_operator(Request::AgentRole(AgentRole { agent, role }))
}

fn stop_agent(world: &mut World, who: &str) {
    let (agent, grace_ms) = (Some(name(who)), None);
    world.as_operator(Request::AgentStop(AgentStop { agent, grace_ms }));
    let uid = world.uid(who);
    world.launch(uid);
}

fn remove(world: &mut World, who: &str) {
    let mut spec = spec(3, &[], None);
    spec.agents.retain(|agent| agent.name != name(who));
    world.fact(Fact::Configured(Box::new(spec)));
}

#[test]
fn every_pair_of_the_task_table() {
    let complete = |result: &'static str| {
        move |world: &mut World| {
            let of_task = settle(epoch(world), Some(json(result)));
            Some(world.as_agent("w1", Request::TaskComplete(of_task)))
        }
    };
    let inputs = [
        input("assign to w2", assign("w2")),
        input("assign to w1", assign("w1")),
        input("assign to one without execute", assign("reader")),
        input("claim by w2", claim("w2")),
        input("claim by w1", claim("w1")),
        input("start by w1", |w| {
            let of_task = epoch(w);
            Some(update(w, "w1", of_task))
        }),
        input("checkpoint by w1", |w| Some(save(w, "w1"))),
        input("write under a former epoch", |w| {
            let of_task = Epoch(epoch(w).0 + 1_000);
            Some(update(w, "w1", of_task))
        }),
        input("complete by w1", complete("1")),
        input("complete by w1, another result", complete("2")),
        input("fail by w1", |w| {
            let of_task = settle(epoch(w), None);
            Some(w.as_agent("w1", Request::TaskFail(of_task)))
        }),
        input("release by w1", |w| {
            let (task, epoch, reason) = (task_id("x"), epoch(w), None);
            Some(w.as_agent("w1", Request::TaskRelease(TaskRelease { task, epoch, reason })))
        }),
        input("cancel", |w| {
            let (task, reason) = (task_id("x"), None);
            Some(w.as_operator(Request::TaskCancel(TaskCancel { task, reason })))
        }),
        input("owner exits, will restart", |w| {
            end(w, "w1");
            None
        }),
        input("owner gone", |w| {
            stop_agent(w, "w1");
            None
        }),
        input("owner removed", |w| {
            remove(w, "w1");
            None
        }),
        input("owner loses execute", |w| Some(role(w, "w1", "read"))),
        input("deadline", |w| {
            w.wait(1_000_001);
            w.tick();
            None
        }),
        input("dependency failed", |w| {
            let dep = w.state().task(&task_id("dep")).unwrap().epoch;
            let of_dep = TaskSettle { task: task_id("dep"), epoch: dep, result: None };
            w.as_agent("lead", Request::TaskFail(of_dep));
            None
        }),
        input("handoff completes", |w| {
            if w.state().task(&task_id("x")).unwrap().owner().is_some() {
                let open = w.state().handoffs().last().map(|(id, _)| id);
                let handoff = open.unwrap_or_else(|| quiesce(w));
                w.as_agent("w2", Request::HandoffComplete(HandoffRef { handoff }));
            }
            None
        }),
        input("daemon restart", |w| {
            w.fact(Fact::DaemonStarted { last_alive: None });
            None
        }),
        input("mission stop", |w| {
            w.fact(Fact::StopRequested { why: String::new() });
            w.launch_all();
            None
        }),
    ];
    let columns = [
        "pending",
        "waiting",
        "assigned",
        "active",
        "last attempt",
        "assigned quiesced",
        "active quiesced",
        "completed",
        "cancelled",
    ];
    // What `every change of owner ends its open handoff` and `owner gone yields to an open handoff` mean
    // stands in the quiesced columns.
    #[rustfmt::skip]
    let expected = [
        // pending           waiting (for w1)      assigned(w1)                active(w1)                  last attempt                assigned quiesced           active quiesced             completed       cancelled
        ["assigned w2 e+",   "pending for w2",     "assigned w2 e+",           "conflict",                 "conflict",                 "assigned w2 e+",           "conflict",                 "conflict",     "conflict"],
        ["assigned w1 e+",   "ok",                 "ok",                       "ok",                       "ok",                       "ok",                       "ok",                       "conflict",     "conflict"],
        ["denied",           "denied",             "denied",                   "denied",                   "denied",                   "denied",                   "denied",                   "denied",       "denied"],
        ["assigned w2 e+",   "conflict",           "conflict",                 "conflict",                 "conflict",                 "conflict",                 "conflict",                 "conflict",     "conflict"],
        ["assigned w1 e+",   "conflict",           "ok",                       "ok",                       "ok",                       "ok",                       "ok",                       "conflict",     "conflict"],
        ["conflict",         "conflict",           "active w1",                "ok",                       "ok",                       "conflict",                 "conflict",                 "stale",        "stale"],
        ["conflict",         "conflict",           "active w1",                "active w1",                "active w1",                "conflict",                 "conflict",                 "stale",        "stale"],
        ["stale",            "stale",              "stale",                    "stale",                    "stale",                    "stale",                    "stale",                    "stale",        "stale"],
        ["conflict",         "conflict",           "completed w1",             "completed w1",             "completed w1",             "conflict",                 "conflict",                 "ok",           "conflict"],
        ["conflict",         "conflict",           "completed w1",             "completed w1",             "completed w1",             "conflict",                 "conflict",                 "conflict",     "conflict"],
        ["conflict",         "conflict",           "failed w1",                "failed w1",                "failed w1",                "conflict",                 "conflict",                 "conflict",     "conflict"],
        ["conflict",         "conflict",           "pending e+",               "pending e+",               "pending e+",               "conflict",                 "conflict",                 "conflict",     "conflict"],
        ["cancelled",        "cancelled unreserved", "cancelled w1 e+",        "cancelled w1 e+",          "cancelled w1 e+",          "cancelled w1 e+",          "cancelled w1 e+",          "conflict",     "ok"],
        ["ok",               "ok",                 "assigned w1 e+",           "assigned w1 e+ attempt+1", "failed w1",                "ok",                       "ok",                       "ok",           "ok"],
        ["ok",               "pending unreserved", "pending e+",               "pending e+ attempt+1",     "failed w1",                "ok",                       "ok",                       "ok",           "ok"],
        ["ok",               "pending unreserved", "pending e+",               "pending e+ attempt+1",     "failed w1",                "ok",                       "ok",                       "ok",           "ok"],
        ["ok",               "pending unreserved", "pending e+",               "pending e+ attempt+1",     "failed w1",                "ok",                       "ok",                       "ok",           "ok"],
        ["failed",           "failed unreserved",  "failed w1 e+",             "failed w1 e+",             "failed w1 e+",             "failed w1 e+",             "failed w1 e+",             "ok",           "ok"],
        ["ok",               "cancelled unreserved", "ok",                     "ok",                       "ok",                       "ok",                       "ok",                       "ok",           "ok"],
        ["ok",               "ok",                 "active w2 e+",             "active w2 e+",             "active w2 e+",             "active w2 e+",             "active w2 e+",             "ok",           "ok"],
        ["ok",               "ok",                 "assigned w1 e+",           "assigned w1 e+",           "assigned w1 e+",           "assigned w1 e+",           "assigned w1 e+",           "ok",           "ok"],
        ["ok",               "ok",                 "ok",                       "assigned w1 e+",           "assigned w1 e+",           "assigned w1",              "assigned w1 e+",           "ok",           "ok"],
    ];
    let mut wrong = Vec::new();
    for ((what, act), row) in inputs.iter().zip(expected) {
        for (column, expected) in columns.iter().zip(row) {
            let got = task_outcome(&mut task_world(column), act.as_ref());
            if got != expected {
                wrong.push(format!("{what} x {column}: expected `{expected}`, got `{got}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A world with a handoff of `x` from w1 to w2 in that column.
fn handoff_world(column: &str) -> World {
    let mut world = task_world("active");
    save(&mut world, "w1");
    if column == "none" {
        return world;
    }
    let handoff = hand(&mut world);
    let by_id = HandoffRef { handoff };
    let refuse = HandoffRefuse { handoff, reason: None };
    if matches!(column, "draining" | "quiesced" | "completed" | "failed") {
        world.as_agent("w2", Request::HandoffAccept(by_id.clone()));
    }
    match column {
        "quiesced" => _ = save(&mut world, "w1"),
        "completed" => {
            save(&mut world, "w1");
            world.as_agent("w2", Request::HandoffComplete(by_id));
        }
        "rejected" => _ = world.as_agent("w2", Request::HandoffReject(refuse)),
        "cancelled" => _ = world.as_operator(Request::HandoffCancel(refuse)),
        "expired" => {
            world.wait(60_000);
            world.tick();
        }
        "failed" => {
            end(&mut world, "w2");
            world.wait(1_000);
            world.tick();
            world.launch_all();
        }
        _ => {}
    }
    world
}

fn handoff_outcome(world: &mut World, input: &dyn Fn(&mut World) -> Option<Step>) -> String {
    let standing = |world: &World| {
        let last = world.state().handoffs().last().map(|(id, _)| id);
        let state = last.map(|id| world.state().handoff_view(id).unwrap().state);
        let task = world.state().task_view(&task_id("x")).unwrap();
        let owner = task.owner.map(|owner| format!(" {owner}")).unwrap_or_default();
        let task = format!("{:?}{owner}", task.state).to_lowercase();
        (last, state.map_or(String::new(), |s| format!("{s:?}").to_lowercase()), task)
    };
    let before = standing(world);
    let step = input(world);
    if let Some(Some(Err(denied))) = step.as_ref().map(|step| &step.reply) {
        return denied.code.to_string();
    }
    let after = standing(world);
    if before == after {
        return "ok".to_owned();
    }
    let mut text = after.1;
    if before.0 != after.0 {
        text = format!("new {text}");
    } else if before.1 == text {
        text = "keep".to_owned();
    }
    if before.2 != after.2 {
        text += &format!(", {}", after.2);
    }
    text
}

#[test]
fn every_pair_of_the_handoff_table() {
    fn last(world: &World) -> HandoffId {
        world.state().handoffs().last().map_or(HandoffId(Seq(999)), |(id, _)| id)
    }
    fn by(who: &'static str, act: fn(HandoffId) -> Request) -> impl Fn(&mut World) -> Option<Step> {
        move |world| {
            let request = act(last(world));
            let caller = match who {
                "operator" => Caller::Operator,
                name => Caller::Agent(world.uid(name)),
            };
            Some(world.ask(caller, None, request))
        }
    }
    let accept = |handoff| Request::HandoffAccept(HandoffRef { handoff });
    let complete = |handoff| Request::HandoffComplete(HandoffRef { handoff });
    let reject = |handoff| Request::HandoffReject(HandoffRefuse { handoff, reason: None });
    let cancel = |handoff| Request::HandoffCancel(HandoffRefuse { handoff, reason: None });
    let inputs = [
        input("request w1 -> w2", |w| Some(w.as_operator(ask_for("w1", "w2")))),
        input("request w1 -> lead", |w| Some(w.as_operator(ask_for("w1", "lead")))),
        input("request w1 -> w1", |w| Some(w.as_operator(ask_for("w1", "w1")))),
        input("request w1 -> reader", |w| Some(w.as_operator(ask_for("w1", "reader")))),
        input("accept by w2", by("w2", accept)),
        input("reject by w2", by("w2", reject)),
        input("complete by w2", by("w2", complete)),
        input("accept by another", by("w1", accept)),
        input("reject by another", by("operator", reject)),
        input("complete by another", by("lead", complete)),
        input("cancel by the operator", by("operator", cancel)),
        input("cancel by the source", by("w1", cancel)),
        input("source completes", |w| {
            let of_task = settle(epoch(w), Some(json("1")));
            Some(w.as_agent("w1", Request::TaskComplete(of_task)))
        }),
        input("source dies", |w| {
            end(w, "w1");
            None
        }),
        input("target dies", |w| {
            end(w, "w2");
            None
        }),
        input("target removed", |w| {
            remove(w, "w2");
            None
        }),
        input("target loses execute", |w| Some(role(w, "w2", "read"))),
        input("source removed", |w| {
            remove(w, "w1");
            None
        }),
        input("source loses execute", |w| Some(role(w, "w1", "read"))),
        input("task cancelled", |w| {
            let (task, reason) = (task_id("x"), None);
            Some(w.as_operator(Request::TaskCancel(TaskCancel { task, reason })))
        }),
        input("timeout", |w| {
            w.wait(60_000);
            w.tick();
            None
        }),
        input("daemon restart", |w| {
            w.fact(Fact::DaemonStarted { last_alive: None });
            None
        }),
        input("mission stop", |w| {
            w.fact(Fact::StopRequested { why: String::new() });
            None
        }),
        input("ended badly and source gone", |w| {
            stop_agent(w, "w1");
            let open = w.state().handoffs().last().filter(|(_, h)| h.is_open()).map(|(id, _)| id);
            if let Some(id) = open {
                let refuse = HandoffRefuse { handoff: id, reason: None };
                w.as_operator(Request::HandoffCancel(refuse));
            }
            None
        }),
    ];
    let columns = [
        "none",
        "requested",
        "draining",
        "quiesced",
        "completed",
        "rejected",
        "cancelled",
        "expired",
        "failed",
    ];
    #[rustfmt::skip]
    let expected = [
        // none                       requested                    draining                     quiesced                     completed            rejected             cancelled            expired              failed
        ["new requested",             "ok",                        "ok",                        "ok",                        "conflict",          "new requested",     "new requested",     "new requested",     "new requested"],
        ["new requested",             "conflict",                  "conflict",                  "conflict",                  "conflict",          "new requested",     "new requested",     "new requested",     "new requested"],
        ["invalid",                   "invalid",                   "invalid",                   "invalid",                   "invalid",           "invalid",           "invalid",           "invalid",           "invalid"],
        ["conflict",                  "conflict",                  "conflict",                  "conflict",                  "conflict",          "conflict",          "conflict",          "conflict",          "conflict"],
        ["not_found",                 "draining",                  "ok",                        "ok",                        "conflict",          "conflict",          "conflict",          "conflict",          "conflict"],
        ["not_found",                 "rejected",                  "rejected",                  "rejected",                  "conflict",          "conflict",          "conflict",          "conflict",          "conflict"],
        ["not_found",                 "conflict",                  "conflict",                  "completed, active w2",      "ok",                "conflict",          "conflict",          "conflict",          "conflict"],
        ["not_found",                 "denied",                    "denied",                    "denied",                    "denied",            "denied",            "denied",            "denied",            "denied"],
        ["not_found",                 "denied",                    "denied",                    "denied",                    "denied",            "denied",            "denied",            "denied",            "denied"],
        ["not_found",                 "denied",                    "denied",                    "denied",                    "denied",            "denied",            "denied",            "denied",            "denied"],
        ["not_found",                 "cancelled",                 "cancelled",                 "cancelled",                 "conflict",          "conflict",          "ok",                "conflict",          "conflict"],
        ["not_found",                 "cancelled",                 "cancelled",                 "cancelled",                 "conflict",          "conflict",          "ok",                "conflict",          "conflict"],
        ["keep, completed w1",           "cancelled, completed w1",   "cancelled, completed w1",   "conflict",                  "denied",            "keep, completed w1", "keep, completed w1", "keep, completed w1", "keep, completed w1"],
        ["keep, assigned w1",         "keep, assigned w1",         "quiesced",                  "ok",                        "ok",                "keep, assigned w1", "keep, assigned w1", "keep, assigned w1", "keep, assigned w1"],
        ["ok",                        "failed",                    "failed",                    "failed",                    "keep, assigned w2", "ok",                "ok",                "ok",                "ok"],
        ["ok",                        "failed",                    "failed",                    "failed",                    "keep, pending",     "ok",                "ok",                "ok",                "ok"],
        ["ok",                        "failed",                    "failed",                    "failed",                    "keep, pending",     "ok",                "ok",                "ok",                "ok"],
        ["keep, pending",             "ok",                        "quiesced",                  "ok",                        "ok",                "keep, pending",     "keep, pending",     "keep, pending",     "keep, pending"],
        ["keep, pending",             "ok",                        "quiesced",                  "ok",                        "ok",                "keep, pending",     "keep, pending",     "keep, pending",     "keep, pending"],
        ["keep, cancelled w1",           "cancelled, cancelled w1",   "cancelled, cancelled w1",   "cancelled, cancelled w1",   "keep, cancelled w2", "keep, cancelled w1", "keep, cancelled w1", "keep, cancelled w1", "keep, cancelled w1"],
        ["ok",                        "expired",                   "quiesced",                  "failed",                    "ok",                "ok",                "ok",                "ok",                "ok"],
        ["keep, assigned w1",         "keep, assigned w1",         "failed, assigned w1",       "failed, assigned w1",       "keep, assigned w2", "keep, assigned w1", "keep, assigned w1", "keep, assigned w1", "keep, assigned w1"],
        ["ok",                        "cancelled",                 "cancelled",                 "cancelled",                 "ok",                "ok",                "ok",                "ok",                "ok"],
        ["keep, pending",             "cancelled, pending",        "cancelled, pending",        "cancelled, pending",        "ok",                "keep, pending",     "keep, pending",     "keep, pending",     "keep, pending"],
    ];
    let mut wrong = Vec::new();
    for ((what, act), row) in inputs.iter().zip(expected) {
        for (column, expected) in columns.iter().zip(row) {
            let got = handoff_outcome(&mut handoff_world(column), act.as_ref());
            if got != expected {
                wrong.push(format!("{what} x {column}: expected `{expected}`, got `{got}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_tables_are_whole() {
    for (i, (row, cells)) in task::TABLE.iter().enumerate() {
        assert_eq!(*row as usize, i, "rows stand in their order");
        assert_eq!(task::Row::ALL[i], *row);
        for (column, cell) in task::Column::ALL.into_iter().zip(cells) {
            assert_eq!(task::cell(*row, column), *cell);
            let last = cell.last().map(|(guard, _)| *guard);
            assert_eq!(last, Some(task::Guard::Always), "{row:?} x {column:?} leaves a case open");
        }
    }
    for (i, (row, cells)) in handoff::TABLE.iter().enumerate() {
        assert_eq!(*row as usize, i, "rows stand in their order");
        assert_eq!(handoff::Row::ALL[i], *row);
        for (column, cell) in handoff::Column::ALL.into_iter().zip(cells) {
            assert_eq!(handoff::cell(*row, column), *cell);
            let last = cell.last().map(|(guard, _)| *guard);
            assert_eq!(
                last,
                Some(handoff::Guard::Always),
                "{row:?} x {column:?} leaves a case open"
            );
        }
    }
}
