//! A mission's life: start, work, end, restart; exit codes; who may run it.

use std::process::Stdio;

use crate::mission::{Bench, DEADLINE, MISSIOND, await_end, holds, processes, read};
use missiond::core::view::{AgentStateName, TaskStateName};
use nix::sys::signal::Signal;

/// A lead that waits, and a worker that answers its task.
const PAIR: &str = r#"
isolation = 1
[agents.lead]
role = "lead"
command = ["sleep", "600"]
[agents.worker]
role = "write"
mode = "task"
command = ["sh", "-c", "cat; echo to the log >&2"]
"#;

fn with_task(body: &str) -> String {
    format!(
        "{body}\n[[tasks]]\nid = \"t1\"\ntitle = \"first\"\nassign = \"worker\"\ndata = {{ n = 7 }}\n"
    )
}

#[tokio::test]
async fn a_mission_ends_by_itself_when_its_tasks_are_settled_and_says_who_did_what() {
    let bench = Bench::new(&with_task(PAIR));
    let summary = bench.start(&[]).ends_with(0);
    assert!(summary.contains("tasks 1 completed"), "{summary}");
    assert!(
        summary.lines().any(|l| l.starts_with("t1") && l.contains("completed  worker")),
        "{summary}"
    );
    assert!(bench.log("worker", "stderr").contains("to the log"));
    // Standard input is the task file.
    let stdout = bench.log("worker", "stdout");
    let task: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (task["task"].as_str(), task["data"]["n"].as_i64()),
        (Some("t1"), Some(7)),
        "{stdout}"
    );
    assert_eq!(task["attempt"], 1);
    assert!(processes(bench.path("ws").to_str().unwrap()).is_empty());
}

#[tokio::test]
async fn a_finished_mission_is_not_begun_again_and_fresh_begins_it() {
    // Said of every run of the task, however short.
    const RAN: &str = "t1           completed";
    let bench = Bench::new(&with_task(PAIR));
    bench.start(&[]).ends_with(0);
    let (status, stdout, stderr) = bench.start(&[]).end();
    assert_eq!(status.code(), Some(0));
    assert!(stderr.contains("is over") && stderr.contains("--fresh"), "{stderr}");
    assert!(stdout.contains("tasks 1 completed"), "{stdout}");
    assert!(!stderr.contains(RAN), "{stderr}");
    let (status, _, stderr) = bench.start(&["--fresh"]).end();
    assert_eq!(status.code(), Some(0));
    assert!(stderr.contains(RAN), "{stderr}");
    // A task that the file has meanwhile makes it go on.
    let more =
        with_task(PAIR) + "[[tasks]]\nid = \"t2\"\ntitle = \"second\"\nassign = \"worker\"\n";
    bench.write(&more);
    let (status, stdout, stderr) = bench.start(&[]).end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stdout.contains("tasks 2 completed") && !stderr.contains(RAN), "{stdout}{stderr}");
}

#[tokio::test]
async fn a_failed_task_makes_the_exit_code_1() {
    let bench = Bench::new(
        r#"
isolation = 1
[agents.worker]
role = "write"
mode = "task"
command = ["sh", "-c", "exit 3"]
restart = { on = "failure", backoff = "1ms" }
[[tasks]]
id = "t1"
title = "first"
assign = "worker"
max_attempts = 2
"#,
    );
    let summary = bench.start(&[]).ends_with(1);
    assert!(summary.contains("1 failed") && summary.contains("exit code 3"), "{summary}");
}

#[tokio::test]
async fn a_wrong_file_is_exit_code_2_with_its_position() {
    let bench = Bench::new("isolation = 9\n");
    let (status, _, stderr) = bench.start(&[]).end();
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("mission.toml:4:"), "{stderr}");
}

#[tokio::test]
async fn a_second_start_is_refused_with_the_pid_of_the_first() {
    let bench = Bench::new(PAIR);
    let mut first = bench.start(&[]);
    first.line(&["lead", "runs"]);
    let pid = first.pid();
    let (status, _, stderr) = bench.start(&[]).end();
    assert_eq!(status.code(), Some(5), "{stderr}");
    assert!(stderr.contains(&format!("process {pid}")), "{stderr}");
    first.signal(Signal::SIGTERM);
    first.ends_with(0);
}

#[tokio::test]
async fn sigterm_ends_every_process_also_one_that_forked_away() {
    let bench = Bench::new(
        r#"
isolation = 1
[agents.fork]
role = "write"
command = ["sh", "-c", "setsid sh -c 'sleep 600 & echo forked; wait' & wait"]
"#,
    );
    let mut daemon = bench.start(&[]);
    daemon.line(&["fork", "runs"]);
    let mut operator = bench.operator().await;
    operator.follow().await;
    operator.event("agent_started", holds("pid")).await;
    daemon.signal(Signal::SIGTERM);
    let (status, _, stderr) = daemon.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("SIGTERM"), "{stderr}");
    assert!(processes(bench.path("ws").to_str().unwrap()).is_empty());
}

#[tokio::test]
async fn the_second_interrupt_has_no_patience() {
    let bench = Bench::new(
        r#"
isolation = 1
[agents.deaf]
role = "write"
command = ["sh", "-c", "trap '' TERM INT; echo deaf > $MISSION_WORKSPACE/deaf; while :; do sleep 600; done"]
grace = "10m"
"#,
    );
    let mut daemon = bench.start(&[]);
    daemon.line(&["deaf", "runs"]);
    daemon.signal(Signal::SIGINT);
    daemon.line(&["deaf", "stopping"]);
    daemon.signal(Signal::SIGINT);
    let summary = daemon.ends_with(0);
    assert!(summary.contains("signal"), "{summary}");
    assert!(processes(bench.path("ws").to_str().unwrap()).is_empty());
}

#[tokio::test]
async fn stop_answers_only_when_no_process_is_left() {
    let bench = Bench::new(PAIR);
    let mut daemon = bench.start(&[]);
    daemon.line(&["lead", "runs"]);
    let (code, _, stderr) = bench.ctl(&["stop"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(processes(bench.path("ws").to_str().unwrap()).iter().all(|pid| *pid == daemon.pid()));
    daemon.ends_with(0);
    assert!(!bench.runtime().join("control.sock").exists());
    let (code, _, _) = bench.ctl(&["status"]);
    assert_eq!(code, 69);
}

/// Saves a checkpoint on its first attempt and then waits for its end; finishes when it finds one.
const RESUMING: &str = r#"
isolation = 1
[agents.worker]
role = "write"
mode = "task"
command = ["sh", "-c", '''
if [ -f "$MISSION_HANDOFF_DIR/half.txt" ]; then
    cat "$MISSION_HANDOFF_DIR/half.txt"
else
    echo "first half" > "$MISSION_WORKSPACE/half.txt"
    missionctl checkpoint save --json '{"at": 50}' --file half.txt && sleep 600
fi
''']
[[tasks]]
id = "t1"
title = "first"
assign = "worker"
"#;

#[tokio::test]
async fn a_killed_daemon_leaves_no_process_and_its_successor_goes_on_from_the_checkpoint() {
    let bench = Bench::new(RESUMING);
    let mut first = bench.start(&[]);
    first.line(&["t1", "checkpoint", "with 1 file"]);
    let agents: Vec<u32> = {
        let operator = bench.operator().await;
        operator.status().await.agents.iter().filter_map(|agent| agent.pid).collect()
    };
    assert_eq!(agents.len(), 1);
    first.signal(Signal::SIGKILL);
    agents.into_iter().for_each(await_end);
    drop(first);

    let (status, stdout, stderr) = bench.start(&[]).end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("did not end in order"), "{stderr}");
    assert!(stdout.contains("tasks 1 completed"), "{stdout}");
    assert!(bench.log("worker", "stdout").contains("first half"));
    assert!(processes(bench.path("ws").to_str().unwrap()).is_empty());
}

#[tokio::test]
async fn a_stopped_mission_goes_on_where_it_was() {
    let bench = Bench::new(RESUMING);
    let mut first = bench.start(&[]);
    first.line(&["t1", "checkpoint", "with 1 file"]);
    first.signal(Signal::SIGTERM);
    // What it was started for is not done.
    let summary = first.ends_with(1);
    assert!(summary.contains("1 open"), "{summary}");
    let summary = bench.start(&[]).ends_with(0);
    assert!(summary.contains("tasks 1 completed"), "{summary}");
}

#[tokio::test]
async fn detach_returns_when_everything_is_up_and_the_mission_goes_on() {
    let bench = Bench::new(PAIR);
    let output = bench.command(MISSIOND).args(["start", "--detach"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let operator = bench.operator().await;
    let status = operator.status().await;
    let lead = status.agents.iter().find(|agent| agent.name.as_str() == "lead").unwrap();
    assert_eq!(lead.state, AgentStateName::Running);
    assert!(String::from_utf8_lossy(&output.stdout).contains(&status.pid.to_string()));
    drop(operator);
    assert_eq!(bench.ctl(&["stop"]).0, 0);
    await_end(status.pid);
    let log = read(&bench.state().join("daemon.log"));
    assert!(log.contains("lead") && log.contains("stopped"), "{log}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(stdout, format!("mission demo runs in the background (pid {})\n", status.pid));
}

/// An agent that crashed at once made `--detach` fail or succeed by who was faster.
#[tokio::test]
async fn detach_succeeds_whatever_becomes_of_an_agent_once_it_was_up() {
    let bench = Bench::new(
        r#"until = "stopped"
[agents.crashes]
role = "write"
command = ["false"]
restart = { on = "failure", max = 1, within = "60s" }
[agents.slow]
role = "write"
ready = "hello"
command = ["sh", "-c", "echo >up && read -r go <go && missionctl agent heartbeat && exec sleep 600"]
"#,
    );
    let [up, go] = ["ws/up", "ws/go"].map(|name| bench.path(name));
    for fifo in [&up, &go] {
        nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    }
    let mut command = bench.command(MISSIOND);
    command.args(["start", "--detach"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = command.spawn().unwrap();
    let there = tokio::task::spawn_blocking(move || std::fs::read(up));
    tokio::time::timeout(DEADLINE, there).await.unwrap().unwrap().unwrap();
    let mut operator = bench.operator().await;
    operator.follow().await;
    operator.event("agent_ended", holds("failed")).await;
    std::fs::write(&go, "go\n").unwrap();
    let output = start.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let complaints = stderr.lines().filter(|line| !line.contains("runs as root"));
    assert_eq!((output.status.code(), complaints.collect()), (Some(0), String::new()));
    let status = operator.status().await;
    let states: Vec<_> = status.agents.iter().map(|agent| agent.state).collect();
    assert_eq!(states, [AgentStateName::Failed, AgentStateName::Running]);
    drop(operator);
    assert_eq!(bench.ctl(&["stop"]).0, 0);
    await_end(status.pid);
}

#[tokio::test]
async fn detach_tells_what_could_not_be_started_and_the_mission_goes_on() {
    let bench =
        Bench::new("until = \"stopped\"\n[agents.x]\nrole = \"write\"\ncommand = [\"ws/tool\"]\n");
    std::fs::write(bench.path("ws/tool"), "#!/nowhere/at-all\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(bench.path("ws/tool"), mode).unwrap();
    let output = bench.command(MISSIOND).args(["start", "--detach"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: agent `x` can't be started: "), "{stderr}");
    assert!(stderr.contains("the mission goes on in the background"), "{stderr}");
    assert_eq!(bench.ctl(&["stop"]).0, 0);
}

#[tokio::test]
async fn a_task_can_be_created_assigned_and_read_back_with_data_and_result() {
    let bench = Bench::new(&format!("until = \"stopped\"\n{PAIR}"));
    let mut daemon = bench.start(&[]);
    daemon.line(&["lead", "runs"]);
    let mut operator = bench.operator().await;
    operator.follow().await;
    let spec =
        serde_json::json!({"id": "t9", "title": "nine", "assign": "worker", "data": {"k": [1]}});
    let _task: missiond::core::view::TaskView =
        operator.call(missiond::proto::Method::TaskCreate, spec).await;
    operator.event("task_completed", holds("t9")).await;
    let task = operator.task("t9").await;
    assert_eq!(task.state, TaskStateName::Completed);
    assert_eq!(task.data.unwrap().get(), r#"{"k":[1]}"#);
    let result: serde_json::Value = serde_json::from_str(task.result.unwrap().get()).unwrap();
    assert_eq!(result["data"]["k"][0], 1);
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
}
