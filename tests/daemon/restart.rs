//! One daemon after another that was killed, or whose log could not be trusted any more.

use std::process::{Command, Stdio};

use crate::mission::{Bench, DEADLINE, Daemon, MISSIOND, await_end, holds, processes, read};
use missiond::client::ClientError;
use missiond::proto::Method;
use missiond::proto::wire::{AuditPage, AuditRead};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// Waits for a word, then looks what is in its checkpoint directory.
const SLOW_TO_DIE: &str = r#"
isolation = 1
[agents.worker]
role = "write"
mode = "task"
command = ["sh", "-c", '''
cd "$MISSION_WORKSPACE"
[ -e first ] && exit 0
touch first "$MISSION_CHECKPOINT_DIR/kept"
echo up > up
read -r order < order
ls "$MISSION_CHECKPOINT_DIR" > answer
''']
[[tasks]]
id = "t1"
title = "first"
assign = "worker"
"#;

/// A stopped process, which goes on at the end whatever becomes of the test.
struct Stopped(Pid);

impl Stopped {
    fn stop(pid: u32) -> Stopped {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have ended.
        let _gone = kill(self.0, Signal::SIGCONT);
    }
}

/// The next daemon prepared the directories of an agent while a former process of it was at work there.
#[tokio::test]
async fn a_start_touches_nothing_before_the_former_process_has_ended() {
    let bench = Bench::new(SLOW_TO_DIE);
    for name in ["up", "order", "answer"] {
        nix::unistd::mkfifo(&bench.path("ws").join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let first = bench.start(&[]);
    assert_eq!(read(&bench.path("ws/up")), "up\n");
    let status = bench.operator().await.status().await;
    let agent = status.agents.iter().find_map(|agent| agent.pid).unwrap();
    let shim = missiond::sys::procfs::stat(agent).unwrap().parent;
    let stopped = Stopped::stop(shim);
    first.signal(Signal::SIGKILL);
    drop(first);
    let mut second = bench.start(&[]);
    second.line(&["worker", "a former start still runs"]);
    std::fs::write(bench.path("ws/order"), "look\n").unwrap();
    assert_eq!(read(&bench.path("ws/answer")), "kept\n");
    drop(stopped);
    await_end(shim);
    let summary = second.ends_with(0);
    assert!(summary.contains("1 completed"), "{summary}");
}

/// A quiet hour before a kill was taken for an hour without a daemon.
#[tokio::test]
async fn a_daemon_counts_as_dead_from_its_last_mark_on_and_not_from_its_last_event() {
    let bench = Bench::new(
        "until = \"stopped\"\n[agents.a]\nrole = \"write\"\ncommand = [\"sleep\", \"600\"]\n",
    );
    let mut first = bench.start(&[]);
    first.line(&["a ", "runs (pid"]);
    first.signal(Signal::SIGKILL);
    drop(first);
    // As if it had lived until a moment ago.
    std::fs::write(bench.state().join("alive"), "99999999999999\n").unwrap();
    let mut second = bench.start(&[]);
    second.line(&["started, run 2"]);
    let mut operator = bench.operator().await;
    operator.follow().await;
    operator.event("daemon_started", holds("\"generation\":2,\"down_ms\":0")).await;
    second.signal(Signal::SIGTERM);
    second.ends_with(0);
}

const QUIET: &str = r#"
isolation = 1
until = "stopped"
[agents.quiet]
role = "write"
command = ["sleep", "600"]
"#;

/// Without strace that may inject faults: skipped.
fn skip_without_strace(test: &str) -> bool {
    let probe = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"])
        .stderr(Stdio::piped())
        .output();
    let why = match &probe {
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let present = probe.is_ok_and(|output| output.status.success());
    crate::support::skip(test, "strace", present, &why)
}

#[tokio::test]
async fn a_write_of_unknown_outcome_ends_the_daemon_in_silence_and_the_next_one_knows() {
    let test = "a_write_of_unknown_outcome_ends_the_daemon_in_silence_and_the_next_one_knows";
    if skip_without_strace(test) {
        return;
    }
    let bench = Bench::new(QUIET);
    let mut command = bench.command("strace");
    // Of each thread the 25th: the writer's, when the mission has long been up.
    command.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=fdatasync"]);
    command.args(["-e", "inject=fdatasync:error=EIO:when=25", MISSIOND, "start", "mission.toml"]);
    let mut daemon = Daemon::spawn(command);
    daemon.line(&["quiet", "runs"]);
    let operator = bench.operator().await;
    let mut acknowledged = Vec::new();
    let error = loop {
        assert!(acknowledged.len() < 100, "no fault was met");
        let ask = json!({"type": "custom.x", "content": acknowledged.len()});
        let sent = operator.client.call::<_, serde_json::Value>(Method::Publish, &ask);
        match tokio::time::timeout(DEADLINE, sent).await.unwrap() {
            Ok(published) => acknowledged.push(published["seq"].as_u64().unwrap()),
            Err(error) => break error,
        }
    };
    // Neither done nor refused: nobody can know.
    assert!(!matches!(error, ClientError::Refused(_)), "{error}");
    let (status, _, stderr) = daemon.end();
    assert_eq!(status.code(), Some(75), "{stderr}");
    assert!(stderr.contains("can't be trusted"), "{stderr}");
    assert!(processes(bench.path("ws").to_str().unwrap()).is_empty());

    let mut next = bench.start(&[]);
    next.line(&["quiet", "runs"]);
    let operator = bench.operator().await;
    let kinds = vec!["message_published".to_owned()];
    let ask = AuditRead { since: None, limit: Some(1000), kinds, follow: false };
    let page: AuditPage = operator.call(Method::AuditRead, ask).await;
    let of_ours = page.events.iter().filter(|event| event.data.get().contains("custom.x"));
    let there: Vec<u64> = of_ours.map(|event| event.seq.0).collect();
    assert!(there.starts_with(&acknowledged), "{acknowledged:?}, and then {there:?}");
    assert!(there.len() <= acknowledged.len() + 1, "{acknowledged:?}, and then {there:?}");
    next.signal(Signal::SIGTERM);
    next.ends_with(0);
}
