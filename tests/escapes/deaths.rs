//! Deaths: of the daemon at any moment, and of an agent's own shim; and what could stop the next start.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "test code outside of a test function"
)]

use std::os::fd::AsFd;
use std::time::Duration;

use missiond::sys::{clock, process};
use serde_json::{Value, json};

use crate::deed::Deed;
use crate::puppet::Puppet;
use crate::stage::{
    DEADLINE, Daemon, Stage, ends_within, listing, nothing_lives_within, under_load,
};
use crate::support::skip;

/// How long anything of a mission may outlive its daemon, on a quiet machine.
const SURVIVAL: Duration = Duration::from_secs(1);

/// A moment below `limit`, another one each time.
fn moment(limit: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish() % 1000;
    limit.mul_f64(f64::from(u32::try_from(random).unwrap()) / 1000.0)
}

/// Kills the daemon once `after` is over, and waits until nothing of it lives.
fn kill_after(daemon: &mut Daemon, after: Duration) -> Duration {
    assert!(!ends_within(daemon.pid(), after), "the daemon ended by itself");
    daemon.kill();
    let limit = under_load(SURVIVAL);
    match nothing_lives_within(limit) {
        Ok(took) => took,
        Err(left) => panic!("{limit:?} after the daemon's death these live: {left:?}"),
    }
}

pub(crate) fn nothing_outlives_a_killed_daemon(_: &str) {
    const ROUNDS: usize = 8;
    let mut worst = Duration::ZERO;
    for _ in 0..ROUNDS {
        let mut stage = Stage::new();
        let mut agents = [stage.agent("a", "lead", ""), stage.agent("b", "write", "")];
        let mut daemon = stage.start();
        agents.iter_mut().for_each(|agent| {
            agent.ready();
        });
        // Killed while they fork away, or shortly after: no answer is waited for.
        agents.iter_mut().for_each(|agent| agent.begin(&Deed::Scatter(10)));
        worst = worst.max(kill_after(&mut daemon, moment(Duration::from_millis(200))));
    }
    println!(
        "NOTE {ROUNDS} rounds, the last process was gone {worst:.0?} after the daemon at the latest"
    );
}

/// Names that are there after a run, without those of logs.
fn remains(stage: &Stage) -> Vec<String> {
    let mut all: Vec<String> = ["state", "run", "ws"]
        .into_iter()
        .flat_map(|name| {
            let files = listing(&stage.path(name));
            files.into_iter().map(move |file| format!("{name}/{file}"))
        })
        .collect();
    all.retain(|name| !name.contains("/log/"));
    all
}

/// Four agents that are being set up at the same time.
fn four() -> (Stage, Vec<Puppet>) {
    let mut stage = Stage::new();
    let agents = ["a", "b", "c"].map(|name| stage.agent(name, "write", "")).into();
    stage.more(
        "[agents.t]\nrole = \"write\"\nmode = \"task\"\ncommand = [\"sleep\", \"1000\"]\n\
         [[tasks]]\nid = \"t1\"\ntitle = \"first\"\nassign = \"t\"\nmax_attempts = 1000\n",
    );
    (stage, agents)
}

/// Runs it until all agents are up; how long it took until they were.
fn once_up(stage: &Stage, agents: &mut [Puppet]) -> (Daemon, Duration) {
    let start = clock::since_boot();
    let daemon = stage.start();
    agents.iter_mut().for_each(|agent| {
        agent.ready();
    });
    (daemon, clock::since_boot() - start)
}

/// Runs it once more, in order; how many launches were begun and executed in all its runs.
fn launches(stage: &Stage, agents: &mut [Puppet]) -> (usize, usize) {
    let (mut daemon, _) = once_up(stage, agents);
    let events = stage.operator().events();
    let count = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
    let counts = (count("agent_starting"), count("agent_started"));
    daemon.stop();
    counts
}

pub(crate) fn a_daemon_killed_during_setup_leaves_nothing(_: &str) {
    const ROUNDS: usize = 100;
    let (untouched, mut agents) = four();
    let (mut daemon, setup) = once_up(&untouched, &mut agents);
    daemon.stop();
    let expected = remains(&untouched);

    let temporary = || listing_of_temp();
    let before = temporary();
    let (stage, held) = four();
    let mut worst = Duration::ZERO;
    for _ in 0..ROUNDS {
        let mut daemon = stage.start();
        worst = worst.max(kill_after(&mut daemon, moment(setup)));
    }
    // The next start clears up; what it leaves is what one leaves that was never disturbed.
    drop(held);
    let (stage, mut agents) = again(stage);
    let (begun, executed) = launches(&stage, &mut agents);
    assert!(begun > executed, "no start was interrupted: {begun} begun, {executed} executed");
    let mut left = remains(&stage);
    left.retain(|name| !expected.contains(name));
    assert_eq!(left, Vec::<String>::new(), "files that an undisturbed mission doesn't have");
    let mut after = temporary();
    after.retain(|name| !before.contains(name) && !name.starts_with("esc"));
    after.retain(|name| name.contains("missiond"));
    assert_eq!(after, Vec::<String>::new(), "in the temporary directory");
    println!(
        "NOTE {ROUNDS} rounds, {begun} launches begun, {executed} executed, all gone {worst:.0?} after the \
         daemon at the latest"
    );
}

fn listing_of_temp() -> Vec<String> {
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// The same stage with puppets that have heard nothing yet.
fn again(stage: Stage) -> (Stage, Vec<Puppet>) {
    let agents = ["a", "b", "c"].map(|name| {
        let rc = stage.path("rc").join(name);
        std::fs::remove_dir_all(&rc).unwrap();
        Puppet::new(name, &rc)
    });
    (stage, agents.into())
}

pub(crate) fn who_kills_its_shim_is_no_operator(name: &str) {
    // At `none` nothing keeps an agent from its shim, and it isn't under no_new_privs: the harder case.
    // At level 1 the kernel keeps it; there the shim is killed from outside, as if it did not.
    let free = without_a_shim(None);
    let abi = missiond::sys::landlock::abi();
    let why = "signals to the own shim are open before Landlock ABI 6";
    let kept = (!skip(name, "landlock", abi >= 6, why)).then_some(libc::EPERM);
    let confined = without_a_shim(Some(kept));
    println!("NOTE refused at the control socket: {free} at none, {confined} at level 1");
}

/// Rounds in which an agent's shim dies and its processes ask to stop the mission, until the daemon
/// has refused one; how many it refused. `level_1` holds the errno of its attempt to kill the shim.
fn without_a_shim(level_1: Option<Option<i32>>) -> usize {
    // The daemon is fast: it often ends them before they have said a word.
    const ROUNDS: usize = 20;
    let mut stage = Stage::new();
    let level = if level_1.is_some() { "isolation = 1\n" } else { "isolation = \"none\"\n" };
    let mut agent = stage.agent("a", "write", level);
    let mut witness = stage.agent("witness", "write", "");
    let mut daemon = stage.start();
    let mut ready = agent.ready();
    witness.ready();
    let mut operator = stage.operator();
    if let Some(Some(errno)) = level_1 {
        assert_eq!(agent.errno(&Deed::Kill(ready.shim, libc::SIGKILL)), errno);
    }
    let mut refused = 0;
    for round in 1..=ROUNDS {
        agent.begin(&Deed::OutliveShim { control: stage.control(), kill: level_1.is_none() });
        if level_1.is_some() {
            assert_eq!(agent.answer().errno, 0);
            let pidfd = process::pidfd(ready.shim).unwrap();
            process::signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
        }
        assert!(ends_within(ready.pid, DEADLINE), "the agent outlives its shim");
        // Its end is known, and that it was no good one.
        let lost = |event: &Value| event["data"].to_string().contains("lost");
        wait_for_count(&stage, "agent_ended", round, lost);
        refused = operator
            .events()
            .iter()
            .filter(|event| event["kind"] == "peer_refused" && event["data"]["socket"] == "control")
            .count();
        if refused > 0 {
            break;
        }
        agent.forget();
        operator.call("agent.start", &json!({"agent": "a"}));
        ready = agent.ready();
    }
    let told: Vec<String> = std::fs::read_dir(stage.path("ws"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert!(refused > 0, "no refusal at the control socket in {ROUNDS} rounds: {told:?}");
    assert!(told.iter().all(|text| !text.contains("\"result\"")), "{told:?}");
    assert!(daemon.is_alive());
    let events = operator.events();
    assert!(
        !events.iter().any(|event| event["kind"] == "mission_stopping"),
        "it stopped the mission"
    );
    witness.is_served_within(DEADLINE);
    daemon.stop();
    refused
}

/// Waits until the log holds so many events.
fn wait_for_count(stage: &Stage, kind: &str, count: usize, fits: impl Fn(&Value) -> bool) {
    let seen = std::cell::RefCell::new(std::collections::BTreeSet::new());
    stage.event(kind, |event| {
        if fits(event) {
            seen.borrow_mut().insert(event["seq"].as_u64());
        }
        seen.borrow().len() >= count
    });
}

pub(crate) fn a_flood_of_descriptors_in_flight_stops_no_start(_: &str) {
    let mut stage = Stage::new();
    let mut flooder = stage.agent("flooder", "write", "");
    let names = ["s0", "s1", "s2", "s3", "s4", "s5"];
    let mut later = names.map(|name| stage.agent(name, "write", "autostart = false\n"));
    let mut daemon = stage.start();
    flooder.ready();
    let said = flooder.text(&Deed::FloodInFlight);
    let (sent, errno) = said.split_once(' ').unwrap();
    assert_eq!(errno, libc::ETOOMANYREFS.to_string(), "the flood met no limit: {said}");
    // While they are in flight.
    let mut operator = stage.operator();
    for agent in &mut later {
        operator.call("agent.start", &json!({"agent": agent.name}));
        agent.ready();
        agent.is_served_within(DEADLINE);
    }
    for agent in &later {
        operator.call("agent.restart", &json!({"agent": agent.name}));
    }
    later.iter_mut().for_each(|agent| {
        agent.ready();
    });
    println!("NOTE {sent} descriptors in flight, {} starts", 2 * names.len());
    daemon.stop();
}
