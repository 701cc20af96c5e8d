//! `missiond explain`: what an agent would get, and which line asked for it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code outside of a test function")]

use std::fs;
use std::path::PathBuf;

use missiond::config::Host;
use missiond::config::commands::{CommandError, Shape, explain};
use missiond::config::dirs::Places;
use serde_json::Value;
use tempfile::TempDir;

struct Ground {
    root: TempDir,
}

const MISSION: &str = r#"
[mission]
name = "m"
workspace = "ws"
isolation = 2
enforcement = "best-effort"

[agents.writer]
role = "write"
command = ["true"]
network = "host"
read = ["tools"]
env = { GREETING = "a value that is nobody's business" }
limits = { cpu = 1.5, nofile = 100 }

[agents.reader]
role = "read"
command = ["true"]
mode = "task"
policy = "./mine.toml"

[agents.plain]
role = "write"
command = ["true"]
isolation = 1
"#;

impl Ground {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["ws", "tools"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("mission.toml"), MISSION).unwrap();
        let policy =
            "inherits = \"minimal\"\n\nenvironment = [\"GREET*\"]\nsyscalls = \"all.json\"\n";
        fs::write(root.path().join("mine.toml"), policy).unwrap();
        let all = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}"#;
        fs::write(root.path().join("all.json"), all).unwrap();
        Ground { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    fn explain(&self, agent: &str, shape: Shape) -> Result<String, CommandError> {
        let state = self.path("state");
        let places = Places::from_environment(|name| match name {
            "XDG_RUNTIME_DIR" => Some("/run/user/7".into()),
            "XDG_STATE_HOME" => Some(state.clone().into()),
            _ => None,
        });
        let host = Host {
            places: places.unwrap(),
            path: Some("/usr/bin:/bin".into()),
            missionctl_dir: None,
            home: None,
            policies: None,
        };
        let variables: Vec<(String, String)> =
            [("PATH", "/usr/bin"), ("GREETED", "yes"), ("TERM", "xterm"), ("LD_PRELOAD", "x")]
                .map(|(name, value)| (name.into(), value.into()))
                .into();
        explain(&self.path("mission.toml"), agent, &host, &variables, shape)
    }

    fn rows(&self, agent: &str) -> Vec<Value> {
        let text = self.explain(agent, Shape::Json).unwrap();
        let explanation: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(explanation["agent"], agent);
        explanation["rows"].as_array().unwrap().clone()
    }
}

/// The row of a part and what.
fn row<'a>(rows: &'a [Value], part: &str, what: &str) -> Option<&'a Value> {
    rows.iter().find(|row| row["part"] == part && row["what"] == what)
}

fn because<'a>(rows: &'a [Value], part: &str, what: &str) -> &'a str {
    let found = row(rows, part, what).unwrap_or_else(|| panic!("no {part} {what} in {rows:#?}"));
    found["because"].as_str().unwrap()
}

#[test]
fn each_item_names_the_line_that_asked_for_it() {
    let ground = Ground::new();
    let rows = ground.rows("writer");
    let tools = ground.path("tools");
    assert!(because(&rows, "mount", tools.to_str().unwrap()).ends_with("mission.toml:12"));
    assert!(because(&rows, "network", "network").ends_with("mission.toml:11"));
    assert!(because(&rows, "limit", "open files of each process").ends_with("mission.toml:14"));
    assert!(because(&rows, "mount", "/tmp").starts_with("coding (built in):"));
    assert!(because(&rows, "environment", "PATH").starts_with("minimal (built in):"));
    assert_eq!(because(&rows, "environment", "GREETING"), "the agent's `env`");
    let workspace = ground.path("ws");
    let workspace = row(&rows, "mount", workspace.to_str().unwrap()).unwrap();
    assert_eq!(workspace["value"], "read, write");
    assert_eq!(workspace["because"], "the workspace, by role write");
    assert!(row(&rows, "environment", "LD_PRELOAD").is_none());
}

#[test]
fn what_is_not_enforced_here_is_said() {
    let ground = Ground::new();
    let rows = ground.rows("writer");
    let gaps: Vec<&str> = rows
        .iter()
        .filter(|row| row["enforced"] == false)
        .map(|row| row["what"].as_str().unwrap())
        .collect();
    // Cgroups are the daemon's to find; without them a share of processors is nothing.
    assert!(gaps.iter().any(|gap| gap.contains("share of processors")), "{gaps:?}");
}

#[test]
fn a_policy_of_ones_own_is_told_line_by_line() {
    let ground = Ground::new();
    let rows = ground.rows("reader");
    let workspace = ground.path("ws");
    let workspace = row(&rows, "mount", workspace.to_str().unwrap()).unwrap();
    assert_eq!(workspace["value"], "read");
    assert!(because(&rows, "environment", "GREETED").ends_with("mine.toml:3"));
    let calls: Vec<&Value> = rows.iter().filter(|row| row["part"] == "syscalls").collect();
    if !calls.is_empty() {
        assert_eq!(calls.len(), 1, "all of them are allowed");
        assert!(calls[0]["because"].as_str().unwrap().ends_with("mine.toml:4"));
        assert!(calls[0]["value"].as_str().unwrap().contains("io_uring_setup"));
    }
}

#[test]
fn the_built_in_filter_is_told_call_by_call() {
    let rows = Ground::new().rows("writer");
    let calls = |part: &str| {
        let row = rows
            .iter()
            .find(|row| row["part"] == "syscalls" && row["what"].as_str().unwrap().ends_with(part));
        row.map(|row| row["value"].as_str().unwrap().split(' ').collect::<Vec<_>>())
    };
    let Some(allowed) = calls("allowed") else {
        println!("SKIP the_built_in_filter_is_told_call_by_call: no seccomp here");
        return;
    };
    assert!(allowed.contains(&"openat") && !allowed.contains(&"mount"));
    assert!(calls("by arguments").unwrap().contains(&"ioctl"));
    assert!(calls("errno 1").unwrap().contains(&"mount"));
    assert!(calls("errno 38").unwrap().contains(&"clone3"));
}

#[test]
fn level_1_has_no_mounts_and_the_table_no_values_of_variables() {
    let ground = Ground::new();
    let rows = ground.rows("plain");
    assert!(rows.iter().all(|row| row["part"] != "mount"));
    let table =
        ground.explain("writer", Shape::Table { width: Some(100), colours: false }).unwrap();
    assert!(table.starts_with("PART"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 100));
    assert!(table.contains("GREETING") && !table.contains("nobody's business"));
}

#[test]
fn an_agent_that_is_not_there_is_not_found() {
    let error = Ground::new().explain("ghost", Shape::Json).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(
        error.to_string().contains("there are plain, reader, writer")
            || error.to_string().contains("writer, reader, plain"),
        "{error}"
    );
}
