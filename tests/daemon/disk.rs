//! A full disk: changes are refused, reading goes on, what has happened is written all the same, and
//! it recovers by itself. On a small tmpfs in namespaces of its own.

use std::process::Command;

use crate::mission::{self, Bench, Daemon, MISSIOND, Operator};
use missiond::client::ClientError;
use missiond::core::denied::Code;
use missiond::core::view::{AgentView, Published};
use missiond::proto::Method;
use missiond::proto::wire::MissionStop;
use serde_json::json;

/// `filler` fills the disk and frees it, as it is told through a pipe; `mortal` ends when it is told.
const MISSION: &str = r#"
isolation = "none"
until = "stopped"
[agents.filler]
role = "write"
command = ["sh", "-c", '''
while read -r order < "$MISSION_WORKSPACE/orders"; do
    case $order in
    fill) dd if=/dev/zero of="$XDG_STATE_HOME/filler" bs=64k 2>/dev/null; echo full ;;
    free) rm "$XDG_STATE_HOME/filler"; echo free ;;
    esac > "$MISSION_WORKSPACE/answers"
done
''']
[agents.mortal]
role = "write"
restart = { on = "never" }
command = ["sh", "-c", 'read -r order < "$MISSION_WORKSPACE/end"; exit 5']
"#;

/// Skips without user namespaces; else a mission whose state is on a tmpfs of this size.
fn on_small_disk(test: &str, size: &str) -> Option<(Bench, Daemon)> {
    let probe =
        Command::new("unshare").args(["-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let why = match &probe {
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let present = probe.is_ok_and(|output| output.status.success());
    if crate::support::skip(
        test,
        "userns",
        present,
        &format!("no tmpfs in a user namespace: {why}"),
    ) {
        return None;
    }
    let bench = Bench::new(MISSION);
    for name in ["orders", "answers", "end"] {
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        nix::unistd::mkfifo(&bench.path("ws").join(name), mode).unwrap();
    }
    let script = format!(
        "mount -t tmpfs -o size={size} none \"$XDG_STATE_HOME\" && exec {MISSIOND} start mission.toml"
    );
    let mut command = bench.command("unshare");
    command.args(["-Urm", "sh", "-c", &script]);
    let mut daemon = Daemon::spawn(command);
    daemon.line(&["filler", "runs"]);
    Some((bench, daemon))
}

fn order(bench: &Bench, order: &str) {
    std::fs::write(bench.path("ws/orders"), format!("{order}\n")).unwrap();
    let answer = mission::read(&bench.path("ws/answers"));
    assert_eq!(answer.trim(), if order == "fill" { "full" } else { "free" });
}

async fn publish(operator: &Operator, bytes: usize) -> Result<Published, ClientError> {
    let ask = json!({"type": "custom.x", "to": ["filler"], "content": "x".repeat(bytes)});
    operator.client.call(Method::Publish, &ask).await
}

/// Publishes until that is refused for want of room.
async fn until_refused(operator: &Operator) {
    for _ in 0..1_000 {
        match publish(operator, 100_000).await {
            Ok(_) => {}
            Err(ClientError::Refused(denied)) => {
                assert_eq!(denied.code, Code::Unavailable, "{}", denied.message);
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("100 MB were taken on a full disk");
}

#[tokio::test]
async fn on_a_full_disk_changes_are_refused_reads_go_on_and_it_recovers() {
    let test = "on_a_full_disk_changes_are_refused_reads_go_on_and_it_recovers";
    let Some((bench, mut daemon)) = on_small_disk(test, "96m") else { return };
    let mut operator = bench.operator().await;
    operator.follow().await;
    let first = publish(&operator, 10).await.unwrap();
    order(&bench, "fill");
    until_refused(&operator).await;
    daemon.line(&["little room is left"]);
    // Reading goes on, and says what is wrong.
    let status = operator.status().await;
    assert!(status.alerts.iter().any(|alert| alert.contains("room")), "{:?}", status.alerts);
    let fetched: serde_json::Value =
        operator.call(Method::Fetch, json!({"seqs": [first.seq]})).await;
    assert_eq!(fetched["messages"].as_array().unwrap().len(), 1);
    let refused = operator.refused(Method::AgentStop, json!({"agent": "mortal"})).await;
    assert_eq!(refused.0, Code::Unavailable);
    // What happens is written all the same.
    std::fs::write(bench.path("ws/end"), "now\n").unwrap();
    operator.event("agent_ended", mission::holds("\"exited\":5")).await;
    // With room it goes on by itself; the first request makes it look.
    order(&bench, "free");
    if publish(&operator, 10).await.is_err() {
        daemon.line(&["there is room again"]);
        publish(&operator, 10).await.unwrap();
    }
    let mortal: AgentView = operator.call(Method::AgentStart, json!({"agent": "mortal"})).await;
    assert_eq!(mortal.name.as_str(), "mortal");
    operator.event("agent_started", mission::holds("\"incarnation\":2")).await;
    let _end: serde_json::Value = operator.call(Method::MissionStop, MissionStop::default()).await;
    daemon.ends_with(0);
}

#[tokio::test]
async fn stop_works_on_a_full_disk() {
    let test = "stop_works_on_a_full_disk";
    let Some((bench, daemon)) = on_small_disk(test, "96m") else { return };
    let operator = bench.operator().await;
    order(&bench, "fill");
    until_refused(&operator).await;
    let pids: Vec<u32> = operator.status().await.agents.iter().filter_map(|a| a.pid).collect();
    assert_eq!(pids.len(), 2);
    let _end: serde_json::Value = operator.call(Method::MissionStop, MissionStop::default()).await;
    for pid in pids {
        assert!(missiond::sys::procfs::stat(pid).is_err(), "process {pid} is left");
    }
    daemon.ends_with(0);
}
