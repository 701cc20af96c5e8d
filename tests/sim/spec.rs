//! A random small mission: narrow limits and short deadlines, so that they are met.

use std::collections::BTreeMap;

use missiond::core::json::Json;
use missiond::core::spec::{
    AgentSpec, Limits, MissionSpec, Mode, Permission, Permissions, ReadyWhen, RestartOn,
    RestartSpec, TaskSpec, Until, builtin_roles,
};
use missiond::ids::{AgentName, Capability, MissionName, RoleName, TaskId};

use super::random::Random;

pub(crate) const AGENTS: [&str; 5] = ["ann", "bob", "cyd", "dan", "eve"];
pub(crate) const ROLES: [&str; 5] = ["lead", "write", "read", "audit", "mover"];

pub(crate) fn agent_name(text: &str) -> AgentName {
    AgentName::new(text).unwrap()
}
pub(crate) fn task_id(number: u64) -> TaskId {
    TaskId::new(&format!("t{number}")).unwrap()
}
pub(crate) fn role(text: &str) -> RoleName {
    RoleName::new(text).unwrap()
}

pub(crate) fn mission(random: &mut Random) -> MissionSpec {
    let mut roles: BTreeMap<RoleName, Permissions> =
        builtin_roles().into_iter().map(|(name, set)| (role(name), set)).collect();
    use Permission::{Execute, Handoff, Read};
    roles.insert(role("mover"), Permissions::of(&[Read, Execute, Handoff]));
    let count = 2 + random.below(3);
    let mut agents: Vec<_> = (0..).zip(AGENTS).take_while(|(at, _)| *at < count).collect();
    if random.percent(20) {
        agents.rotate_left(1);
    }
    MissionSpec {
        name: MissionName::new("sim").unwrap(),
        until: if random.percent(30) { Until::Settled } else { Until::Stopped },
        roles,
        limits: limits(random),
        agents: agents.iter().map(|(_, name)| agent(random, name)).collect(),
        tasks: (1..=1 + random.below(4)).map(|number| task(random, number)).collect(),
    }
}

fn limits(random: &mut Random) -> Limits {
    Limits {
        max_tasks: 8,
        max_content: 200,
        inbox_messages: 4,
        inbox_bytes: 300,
        checkpoint_files: 2,
        checkpoint_bytes: 1_000,
        message_ttl_ms: 20_000,
        max_nacks: 2,
        handoff_request_ms: 1_000 + random.below(3_000),
        handoff_drain_ms: 1_000 + random.below(3_000),
        handoff_complete_ms: 1_000 + random.below(3_000),
        keep_finished_ms: 15_000,
        keys_per_agent: 6,
        key_ttl_ms: 30_000,
        denials_per_minute: 3,
        subscriptions: 2,
        max_handoffs: 4,
        keep_checkpoints: 2,
        ..Limits::default()
    }
}

pub(crate) fn agent(random: &mut Random, name: &str) -> AgentSpec {
    let roles = [(3, "lead"), (8, "write"), (1, "read"), (1, "audit"), (3, "mover")];
    let on = [(4, RestartOn::OnFailure), (1, RestartOn::Never), (1, RestartOn::Always)];
    let is_task = random.percent(45);
    AgentSpec {
        name: agent_name(name),
        role: role(random.weighted(&roles)),
        capabilities: capabilities(random, 60),
        mode: if is_task { Mode::Task } else { Mode::Service },
        level: 1,
        restart: RestartSpec {
            on: random.weighted(&on),
            max: u32::try_from(random.below(4)).unwrap(),
            within_ms: 5_000,
            backoff_ms: 100,
            backoff_max_ms: 800,
        },
        ready: if random.percent(25) { ReadyWhen::Hello } else { ReadyWhen::Exec },
        start_timeout_ms: 500,
        wall_ms: random.percent(20).then_some(8_000),
        silence_ms: random.percent(20).then_some(3_000),
        grace_ms: 300,
        autostart: random.percent(85),
        launch_digest: format!("{}", random.below(2)),
    }
}

fn capabilities(random: &mut Random, percent: u64) -> Vec<Capability> {
    let all = ["parse", "plan"];
    let own = all.into_iter().filter(|_| random.percent(percent));
    own.map(|name| Capability::new(name).unwrap()).collect()
}

pub(crate) fn task(random: &mut Random, number: u64) -> TaskSpec {
    let after = (1..number).filter(|_| random.percent(25)).map(task_id).collect();
    let assign = random.percent(60).then(|| agent_name(random.pick(&AGENTS[..2]).unwrap()));
    TaskSpec {
        id: task_id(number),
        title: format!("task {number}"),
        after,
        assign,
        needs: capabilities(random, 15),
        timeout_ms: random.percent(15).then(|| 500 + random.below(8_000)),
        max_attempts: 1 + u32::try_from(random.below(3)).unwrap(),
        data: random.percent(30).then(|| json(random)),
    }
}

pub(crate) fn json(random: &mut Random) -> Json {
    Json::parse(&format!("{{\"n\":{}}}", random.below(1_000_000))).unwrap()
}
