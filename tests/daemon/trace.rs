//! What the daemon says to whoever looks for a fault.

use crate::mission::{Bench, MISSIOND, read};

const MISSION: &str = r#"
isolation = 1
[agents.worker]
role = "write"
mode = "task"
command = ["sh", "-c", 'echo "$TOKEN"; echo mumbling >&2']
secrets = { TOKEN = { env = "DEMO_TOKEN" } }
env = { COLOUR = "chartreuse" }
[[tasks]]
id = "t1"
title = "first"
assign = "worker"
data = { prompt = "tell nobody" }
"#;

fn bench(level: &str) -> Bench {
    let mut bench = Bench::new(MISSION);
    let variables = [("DEMO_TOKEN", "sesame-9317"), ("MISSIOND_LOG", level)];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    bench.variables.extend(variables);
    bench
}

#[test]
fn what_agents_do_is_traced_where_it_is_asked_for_and_no_secret_ever() {
    let (status, _, stderr) = bench("trace").start(&[]).end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let spans = "mission{id=demo}:task{id=t1}:agent{id=worker role=write level=1 pid=";
    for message in ["agent runs", "agent ended exit=exit code 0"] {
        let said = |line: &&str| line.contains(spans) && line.contains(message);
        assert!(stderr.lines().any(|line| said(&line)), "no {message} in:\n{stderr}");
    }
    for secret in ["sesame-9317", "chartreuse", "tell nobody", "mumbling"] {
        assert!(!stderr.contains(secret), "{secret} is in:\n{stderr}");
    }
    let (_, _, stderr) = bench("").start(&[]).end();
    assert!(!stderr.contains("agent runs"), "{stderr}");
}

#[test]
fn a_daemon_in_the_background_traces_into_its_log() {
    let bench = bench("info");
    let output = bench.command(MISSIOND).args(["start", "--detach"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    // Its lock is free when it has ended.
    let lock = std::fs::File::open(bench.runtime().join("lock")).unwrap();
    lock.lock_shared().unwrap();
    let log = read(&bench.state().join("daemon.log"));
    assert!(log.lines().any(|line| line.contains("INFO mission{id=demo}")), "{log}");
}

#[test]
fn a_level_that_is_none_is_refused() {
    let (status, _, stderr) = bench("loud").start(&[]).end();
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("MISSIOND_LOG=loud"), "{stderr}");
}
