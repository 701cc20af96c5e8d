//! A half-finished task moves from one agent to another, with its files and its JSON.

use crate::mission::{self, Bench, Daemon, Operator, holds};
use missiond::core::denied::Code;
use missiond::core::view::{AgentStateName, HandoffStateName, TaskStateName};
use missiond::proto::Method;
use nix::sys::signal::Signal;
use serde_json::json;

/// Two services: `a` works and saves when it is asked to, `b` takes over and reads what it finds.
const SERVICES: &str = r#"
isolation = 1
until = "stopped"
[agents.a]
role = "write"
command = ["sh", "-c", '''
missionctl -o jsonl inbox --follow | while read -r line; do
    case $line in
    *'"type":"task_assign"'*)
        missionctl ack "$(echo "$line" | sed 's/.*"seq":\([0-9]*\).*/\1/')"
        missionctl task update t1 --epoch current --progress 10 ;;
    *'"type":"handoff_accept"'*)
        missionctl ack "$(echo "$line" | sed 's/.*"seq":\([0-9]*\).*/\1/')"
        echo "from a" > "$MISSION_WORKSPACE/part.txt"
        missionctl checkpoint save --task t1 --epoch current --json '{"line": 17}' --file part.txt ;;
    *) missionctl ack "$(echo "$line" | sed 's/.*"seq":\([0-9]*\).*/\1/')" ;;
    esac
done
''']
[agents.b]
role = "write"
command = ["sh", "-c", '''
missionctl -o jsonl inbox --follow | while read -r line; do
    missionctl ack "$(echo "$line" | sed 's/.*"seq":\([0-9]*\).*/\1/')"
    case $line in
    *'"type":"handoff_request"'*) missionctl handoff accept --complete "$(echo "$line" | sed 's/.*"handoff":"\(h-[0-9]*\)".*/\1/')" ;;
    esac
done
''']
[agents.reader]
role = "read"
command = ["sleep", "600"]
[[tasks]]
id = "t1"
title = "first"
assign = "a"
"#;

/// Three services that do nothing by themselves: the test plays the operator.
const IDLE: &str = r#"
isolation = 1
until = "stopped"
[agents.a]
role = "write"
command = ["sleep", "600"]
[agents.b]
role = "write"
command = ["sleep", "600"]
[agents.reader]
role = "read"
command = ["sleep", "600"]
[[tasks]]
id = "t1"
title = "first"
assign = "a"
[[tasks]]
id = "t2"
title = "second"
assign = "b"
"#;

async fn up(bench: &Bench) -> (Daemon, Operator) {
    let mut daemon = bench.start(&[]);
    daemon.line(&["mission", "started"]);
    let mut operator = bench.operator().await;
    operator.follow().await;
    (daemon, operator)
}

/// Stops a mission whose task is open.
fn stop(daemon: Daemon) {
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(1);
}

#[tokio::test]
async fn a_task_moves_between_services_with_its_files_and_json() {
    let bench = Bench::new(SERVICES);
    let (daemon, mut operator) = up(&bench).await;
    operator.event("task_started", holds("t1")).await;
    let (code, stdout, stderr) = bench.ctl(&["handoff", "a", "b", "t1"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    operator.event("handoff_completed", |_| true).await;
    let task = operator.task("t1").await;
    assert_eq!(task.state, TaskStateName::Active);
    assert_eq!(task.owner.unwrap().as_str(), "b");
    let status = operator.status().await;
    let agent =
        |name: &str| status.agents.iter().find(|a| a.name.as_str() == name).unwrap().clone();
    assert!(agent("a").tasks.is_empty());
    assert_eq!(agent("b").tasks.len(), 1);
    let checkpoint: serde_json::Value =
        operator.call(Method::CheckpointGet, json!({"task": "t1"})).await;
    assert_eq!(checkpoint["json"]["line"], 17, "{checkpoint}");
    let dir = bench.state().join("agents/b/handoff/t1");
    assert_eq!(mission::read(&dir.join("part.txt")), "from a\n");
    assert_eq!(mission::read(&dir.join("checkpoint.json")), r#"{"line": 17}"#);
    stop(daemon);
}

/// From a service to a program without bus code, and on to another service.
#[tokio::test]
async fn a_task_moves_between_services_and_programs_that_know_no_bus() {
    let program = r#"
[agents.t]
role = "write"
mode = "task"
command = ["sh", "-c", '''
cat "$MISSION_HANDOFF_DIR/part.txt" "$MISSION_HANDOFF_DIR/checkpoint.json" > "$MISSION_CHECKPOINT_DIR/seen"
missionctl task update --progress 60
exec sleep 600
''']
"#;
    let bench = Bench::new(&format!("{SERVICES}{program}"));
    let (daemon, mut operator) = up(&bench).await;
    operator.event("task_started", holds("t1")).await;
    let (code, stdout, stderr) = bench.ctl(&["handoff", "a", "t", "t1"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    operator.event("task_progressed", holds("60")).await;
    let (code, stdout, stderr) = bench.ctl(&["handoff", "t", "b", "t1"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    let task = operator.task("t1").await;
    assert_eq!(task.owner.unwrap().as_str(), "b");
    let seen = mission::read(&bench.state().join("agents/b/handoff/t1/seen"));
    assert_eq!(seen, "from a\n{\"line\": 17}");
    stop(daemon);
}

#[tokio::test]
async fn a_task_moves_between_programs_that_know_no_bus() {
    let bench = Bench::new(
        r#"
isolation = 1
[agents.a]
role = "write"
mode = "task"
command = ["sh", "-c", '''
echo "lines 1 to 9" > "$MISSION_CHECKPOINT_DIR/done.txt"
mkdir "$MISSION_CHECKPOINT_DIR/sub" && printf x > "$MISSION_CHECKPOINT_DIR/sub/deep"
echo '{"next": 10}' > "$MISSION_CHECKPOINT_DIR/checkpoint.json"
echo ready > "$MISSION_WORKSPACE/ready"
missionctl task update --progress 50
sleep 600
''']
[agents.b]
role = "write"
mode = "task"
command = ["sh", "-c", '''
cat "$MISSION_HANDOFF_DIR/done.txt" "$MISSION_HANDOFF_DIR/sub/deep" "$MISSION_HANDOFF_DIR/checkpoint.json" >&2
cat
''']
[[tasks]]
id = "t1"
title = "first"
assign = "a"
data = { all = 20 }
"#,
    );
    let (daemon, mut operator) = up(&bench).await;
    operator.event("task_progressed", holds("50")).await;
    let (code, stdout, stderr) = bench.ctl(&["handoff", "a", "b", "t1"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    operator.event("task_completed", holds("t1")).await;
    let summary = daemon.ends_with(0);
    assert!(summary.contains("a, then b"), "{summary}");
    let stderr = bench.log("b", "stderr");
    assert!(stderr.contains("lines 1 to 9") && stderr.contains(r#"{"next": 10}"#), "{stderr}");
    let task: serde_json::Value = serde_json::from_str(&bench.log("b", "stdout")).unwrap();
    assert_eq!(task["checkpoint"]["json"]["next"], 10, "{task}");
    assert_eq!(task["data"]["all"], 20);
    let files: Vec<_> =
        task["checkpoint"]["files"].as_array().unwrap().iter().map(|f| f["path"].clone()).collect();
    assert_eq!(files, ["done.txt", "sub/deep"]);
}

#[tokio::test]
async fn what_is_not_allowed_unknown_or_not_the_sources_is_refused_with_its_exit_code() {
    let bench = Bench::new(IDLE);
    let (daemon, mut operator) = up(&bench).await;
    operator.event("agent_started", |_| true).await;
    let cases: [(&[&str], i32); 5] = [
        (&["handoff", "a", "reader", "t1", "--no-wait"], 5),
        (&["handoff", "a", "nobody", "t1", "--no-wait"], 3),
        (&["handoff", "a", "b", "no-such-task", "--no-wait"], 3),
        (&["handoff", "a", "b", "t2", "--no-wait"], 5),
        (&["assign", "reader", "t1"], 4),
    ];
    for (args, code) in cases {
        let (got, stdout, stderr) = bench.ctl(args);
        assert_eq!(got, code, "{args:?}: {stdout}{stderr}");
    }
    let refused = |from: &str, to: &str, task: &str| {
        let ask = json!({"from": from, "to": to, "task": task});
        operator.refused(Method::HandoffRequest, ask)
    };
    assert_eq!(refused("a", "reader", "t1").await.0, Code::Conflict);
    assert_eq!(refused("a", "nobody", "t1").await.0, Code::NotFound);
    assert_eq!(refused("a", "b", "t2").await.0, Code::Conflict);
    assert_eq!(refused("a", "a", "t1").await.0, Code::Invalid);
    // Nothing has changed.
    assert_eq!(operator.task("t1").await.owner.unwrap().as_str(), "a");
    stop(daemon);
}

#[tokio::test]
async fn a_read_agent_that_asks_for_a_handoff_is_denied_with_exit_code_4() {
    let bench = Bench::new(&IDLE.replace(
        "role = \"read\"\ncommand = [\"sleep\", \"600\"]",
        "role = \"read\"\ncommand = [\"sh\", \"-c\", \"missionctl handoff a b t1 --no-wait\"]\nrestart = { on = \"never\" }",
    ));
    let (daemon, mut operator) = up(&bench).await;
    let denied = operator.event("request_denied", holds("handoff.request")).await;
    assert_eq!(denied.actor.to_string(), "reader");
    operator.event("agent_ended", holds("\"exited\":4")).await;
    stop(daemon);
}

#[tokio::test]
async fn a_handoff_that_nobody_answers_expires_and_the_task_stays() {
    let bench = Bench::new(IDLE);
    let (daemon, mut operator) = up(&bench).await;
    operator.event("agent_started", |_| true).await;
    let ask = json!({"from": "a", "to": "b", "task": "t1", "timeout_ms": 50});
    let handoff: missiond::core::view::HandoffView =
        operator.call(Method::HandoffRequest, ask).await;
    assert_eq!(handoff.state, HandoffStateName::Requested);
    let ended = operator.event("handoff_ended", |_| true).await;
    assert!(ended.data.get().contains("expired"), "{}", ended.data.get());
    let task = operator.task("t1").await;
    assert_eq!((task.owner.unwrap().as_str(), task.handoff), ("a", None));
    stop(daemon);
}

#[tokio::test]
async fn a_source_that_dies_hands_over_its_last_checkpoint() {
    let bench = Bench::new(&SERVICES.replace(
        "*'\"type\":\"handoff_accept\"'*)",
        "*'\"type\":\"handoff_accept\"'*) kill -9 $$ ;;\n    *never*)",
    ).replace(
        "missionctl task update t1 --epoch current --progress 10 ;;",
        "echo early > \"$MISSION_WORKSPACE/part.txt\"; missionctl checkpoint save --task t1 --epoch current --json '{\"line\": 3}' --file part.txt ;;",
    ));
    let (daemon, mut operator) = up(&bench).await;
    operator.event("checkpoint_saved", holds("part.txt")).await;
    let (code, stdout, stderr) = bench.ctl(&["handoff", "a", "b", "t1"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    operator.event("handoff_completed", |_| true).await;
    assert_eq!(mission::read(&bench.state().join("agents/b/handoff/t1/part.txt")), "early\n");
    assert_eq!(
        operator.status().await.agents.iter().filter(|a| a.state == AgentStateName::Failed).count(),
        0
    );
    stop(daemon);
}
