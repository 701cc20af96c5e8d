//! Nothing is unbounded: silence, life, restarts, starts. And secrets stay secret.

use std::path::Path;

use crate::mission::{self, Bench, holds, processes};
use missiond::core::view::{AgentStateName, AgentView};
use missiond::proto::Method;
use nix::sys::signal::Signal;
use serde_json::json;

async fn agent(operator: &mission::Operator, name: &str) -> AgentView {
    operator.call(Method::AgentGet, json!({ "agent": name })).await
}

#[tokio::test]
async fn an_agent_that_is_silent_for_too_long_is_stopped_and_one_that_speaks_is_not() {
    let bench = Bench::new(
        r#"
isolation = 1
until = "stopped"
[agents.mute]
role = "write"
silence = "700ms"
restart = { on = "never" }
command = ["sleep", "600"]
[agents.talker]
role = "write"
silence = "5s"
command = ["sh", "-c", "missionctl inbox --follow"]
"#,
    );
    let mut daemon = bench.start(&[]);
    daemon.line(&["mission", "started"]);
    let mut operator = bench.operator().await;
    operator.follow().await;
    let stopping = operator.event("agent_stopping", |_| true).await;
    assert!(stopping.data.get().contains("silent"), "{}", stopping.data.get());
    operator.event("agent_ended", |_| true).await;
    assert_ne!(agent(&operator, "mute").await.state, AgentStateName::Running);
    assert_eq!(agent(&operator, "talker").await.state, AgentStateName::Running);
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
}

#[tokio::test]
async fn a_process_lives_no_longer_than_it_may() {
    let bench = Bench::new(
        r#"
isolation = 1
until = "stopped"
[agents.long]
role = "write"
restart = { on = "never" }
limits = { wall = "300ms" }
command = ["sleep", "600"]
"#,
    );
    let mut daemon = bench.start(&[]);
    daemon.line(&["long", "stopping", "as long as it may"]);
    daemon.line(&["long", "ended: signal 15"]);
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
}

#[tokio::test]
async fn an_agent_that_keeps_failing_is_given_up() {
    let bench = Bench::new(
        r#"
isolation = 1
until = "stopped"
[agents.sick]
role = "write"
restart = { on = "failure", max = 3, within = "60s", backoff = "1ms" }
command = ["sh", "-c", "exit 9"]
"#,
    );
    let mut daemon = bench.start(&[]);
    daemon.line(&["sick", "given up"]);
    let operator = bench.operator().await;
    let sick = agent(&operator, "sick").await;
    assert_eq!((sick.state, sick.restarts), (AgentStateName::Failed, 3));
    assert_eq!(
        daemon.seen.iter().filter(|line| line.contains("sick") && line.contains("runs")).count(),
        4
    );
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
}

#[tokio::test]
async fn an_agent_that_never_says_hello_was_not_up_in_time() {
    let bench = Bench::new(
        r#"
isolation = 1
until = "stopped"
[agents.mute]
role = "write"
ready = "hello"
start_timeout = "300ms"
restart = { on = "never" }
command = ["sleep", "600"]
[agents.polite]
role = "write"
ready = "hello"
command = ["sh", "-c", "missionctl inbox --follow"]
"#,
    );
    let mut daemon = bench.start(&[]);
    daemon.line(&["mission", "started"]);
    let mut operator = bench.operator().await;
    operator.follow().await;
    operator.event("agent_stopping", holds("start_timeout")).await;
    operator.event("agent_ready", |_| true).await;
    assert_eq!(agent(&operator, "polite").await.state, AgentStateName::Running);
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
}

#[tokio::test]
async fn a_program_that_is_not_there_says_so() {
    let bench = Bench::new(
        "until = \"stopped\"\n[agents.x]\nrole = \"write\"\nrestart = { on = \"never\" }\ncommand = [\"sh\", \"-c\", \"exec ./absent\"]\n",
    );
    let mut daemon = bench.start(&[]);
    daemon.line(&["x", "ended: exit code 127"]);
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
}

/// Every file below a directory.
fn files(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

#[tokio::test]
async fn a_secret_reaches_its_agent_and_nothing_else() {
    const SECRET: &str = "s3cr3t-47110815-value";
    let mut bench = Bench::new(
        r#"
isolation = 1
until = "stopped"
[agents.keeper]
role = "write"
secrets = { TOKEN = { env = "OUTER_TOKEN" }, OTHER = { file = "other.txt" } }
command = ["sh", "-c", '[ "$TOKEN" = "$OTHER" ] && [ -z "$OUTER_TOKEN" ] && missionctl agent phase READY; exec sleep 600']
[agents.other]
role = "write"
command = ["sh", "-c", "env; sleep 600"]
"#,
    );
    bench.variables.push(("OUTER_TOKEN".to_owned(), SECRET.to_owned()));
    std::fs::write(bench.path("other.txt"), format!("{SECRET}\n")).unwrap();
    let mut daemon = bench.start(&[]);
    daemon.line(&["keeper", "ready"]);
    let operator = bench.operator().await;
    let status = serde_json::to_string(&operator.status().await).unwrap();
    assert!(!status.contains(SECRET));
    let keeper = agent(&operator, "keeper").await.pid.unwrap();
    for pid in processes(bench.path("ws").to_str().unwrap()) {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&command).contains(SECRET), "ps shows it for {pid}");
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let has = String::from_utf8_lossy(&environment).contains(SECRET);
        let session =
            nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap())));
        let of_keeper = session.is_ok_and(|leader| u32::try_from(leader.as_raw()) == Ok(keeper));
        assert!(!has || of_keeper || pid == daemon.pid(), "process {pid} has it");
    }
    drop(operator);
    daemon.signal(Signal::SIGTERM);
    let (_, stdout, stderr) = daemon.end();
    assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET));
    let mut all = Vec::new();
    files(&bench.path("state"), &mut all);
    files(&bench.path("run"), &mut all);
    assert!(all.iter().any(|path| path.ends_with("mission.db")));
    for path in all {
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "{} holds the secret", path.display());
    }
}

#[tokio::test]
async fn a_secret_that_is_missing_is_named_and_not_shown() {
    let bench = Bench::new(
        "until = \"stopped\"\n[agents.x]\nrole = \"write\"\nrestart = { on = \"never\" }\nsecrets = { TOKEN = { env = \"NOT_SET_ANYWHERE\" } }\ncommand = [\"sleep\", \"600\"]\n",
    );
    let mut daemon = bench.start(&[]);
    daemon.line(&["x", "not started", "NOT_SET_ANYWHERE"]);
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
}
