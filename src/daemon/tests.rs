//! The loop by hand: a daemon without agents, whose inputs and whose time are the test's.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;

use super::detach::Detached;
use super::guards::Guards;
use super::screen::Screen;
use super::start::{Parts, ground, open};
use super::{Daemon, Event, Sources};
use crate::bus::{Input, by_hand};
use crate::config::dirs::Places;
use crate::config::{Host, load_for};
use crate::core::state::TaskState;
use crate::core::view::TaskStateName;
use crate::ids::Timestamp;
use crate::launch::Launcher;
use crate::proto::{Method, parse};

const DEADLINE: Duration = Duration::from_secs(30);

struct Rig {
    daemon: Daemon,
    sources: Sources,
    inputs: Sender<Input>,
    _dir: tempfile::TempDir,
}

impl Rig {
    /// A daemon whose first events are durable.
    async fn new() -> Rig {
        let dir = tempfile::Builder::new().prefix("md").tempdir().unwrap();
        let file = dir.path().join("mission.toml");
        let text = "[mission]\nname = \"m\"\nworkspace = \"ws\"\nuntil = \"stopped\"\n\
                    [agents.a]\nrole = \"write\"\ncommand = [\"true\"]\nautostart = false\n";
        std::fs::write(&file, text).unwrap();
        let root = dir.path().to_owned();
        let places = Places::from_environment(|name| match name {
            "XDG_RUNTIME_DIR" => Some(root.join("run").into()),
            "XDG_STATE_HOME" => Some(root.join("state").into()),
            _ => None,
        });
        let host = Host {
            places: places.unwrap(),
            path: std::env::var("PATH").ok(),
            missionctl_dir: None,
            home: None,
            policies: None,
        };
        for name in ["run", "ws"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let mission = load_for(&file, &host).unwrap();
        let dirs = host.places.of(&mission.spec.name).prepare().unwrap();
        let (opened, notices, state) = open(&mission, &dirs).unwrap();
        let cgroups = Err("none in tests".into());
        let (guards, _) = Guards::open(dirs.state()).unwrap();
        let ground = Arc::new(ground(mission, dirs, &opened, cgroups, guards).unwrap());
        // No agent is ever started.
        let launcher = Launcher::spawn(Path::new("/bin/true")).unwrap();
        let (screen, detached) = (Screen::stderr(true), Detached::No);
        let parts =
            Parts { ground, opened, notices, state, launcher, screen, nofile: 256, detached };
        let (daemon, mut sources) = parts.begin().unwrap();
        let (inputs, queue) = by_hand::queue();
        sources.inputs = queue;
        let mut rig = Rig { daemon, sources, inputs, _dir: dir };
        rig.settle().await;
        rig
    }

    /// Turns until everything is durable and told, and no slow work is left.
    async fn settle(&mut self) {
        self.daemon.turn_end().unwrap();
        while !self.daemon.jobs.is_idle() {
            let done = tokio::time::timeout(DEADLINE, self.sources.outcomes.recv()).await;
            let done = Event::Done(Box::new(done.unwrap().unwrap()));
            self.daemon.turn(&mut self.sources, done).unwrap();
            self.daemon.turn_end().unwrap();
        }
        while !self.daemon.pipeline.is_idle() {
            let notice = tokio::time::timeout(DEADLINE, self.daemon.notices.recv()).await;
            let notice = Event::Notice(notice.unwrap().unwrap());
            self.daemon.turn(&mut self.sources, notice).unwrap();
            self.daemon.turn_end().unwrap();
        }
    }

    /// Has a request come in, without anybody taking it.
    async fn ask(&self, method: Method, params: Value, at: Timestamp) {
        let line =
            json!({"jsonrpc": "2.0", "id": 1, "method": method.to_string(), "params": params});
        let frame = parse(line.to_string().as_bytes()).unwrap();
        let input = by_hand::request(method, frame.call, at).await;
        assert!(self.inputs.try_send(input).is_ok());
    }

    fn now(&self) -> Timestamp {
        self.daemon.clock.now()
    }

    fn how(&self, task: &str) -> TaskStateName {
        match &self.daemon.pipeline.head().tasks[task].state {
            TaskState::Settled(settled) => settled.how,
            open @ (TaskState::Pending | TaskState::Assigned { .. } | TaskState::Active { .. }) => {
                panic!("{task} is {open:?}")
            }
        }
    }
}

/// More than is taken in one turn: what comes after it waits for the next.
async fn fill(rig: &Rig) {
    for _ in 0..12 {
        let content = "x".repeat(500_000);
        let ask = json!({"type": "custom.x", "content": content});
        rig.ask(Method::Publish, ask, rig.now()).await;
    }
}

/// A deadline fired while a request that had come in before it waited behind a full turn.
#[tokio::test]
async fn a_request_counts_before_a_deadline_that_came_after_it_however_much_is_before_it() {
    let mut rig = Rig::new().await;
    for task in ["early", "late"] {
        let spec = json!({"id": task, "title": task, "timeout_ms": 60_000});
        rig.ask(Method::TaskCreate, spec, rig.now()).await;
    }
    rig.daemon.take_more(&mut rig.sources).unwrap();
    rig.settle().await;
    let due = rig.daemon.pipeline.next_deadline().unwrap();
    fill(&rig).await;
    rig.ask(Method::TaskCancel, json!({"task": "early"}), Timestamp(due.0 - 1)).await;
    rig.daemon.clock.pass(120_000);
    rig.ask(Method::TaskCancel, json!({"task": "late"}), rig.now()).await;
    rig.daemon.turn(&mut rig.sources, Event::Due(Ok(()))).unwrap();
    rig.settle().await;
    assert_eq!(rig.how("early"), TaskStateName::Cancelled);
    assert_eq!(rig.how("late"), TaskStateName::Failed);
}

/// With something new to write in each turn a daemon whose agents had all ended never ended itself.
#[tokio::test]
async fn a_mission_that_is_over_ends_whoever_still_asks() {
    let mut rig = Rig::new().await;
    rig.daemon.begin_stop(rig.now(), "a test", None);
    // As if the last look for processes had found none.
    rig.daemon.verified(rig.now(), Ok(0));
    for _ in 0..100 {
        rig.ask(Method::Publish, json!({"type": "custom.x", "content": 1}), rig.now()).await;
        rig.daemon.take_more(&mut rig.sources).unwrap();
        rig.daemon.turn_end().unwrap();
        if let Some(outcome) = rig.daemon.finished() {
            return outcome.unwrap();
        }
    }
    panic!("it goes on for as long as somebody asks");
}
