//! `missionctl` against the real daemon: shell scripts that are agents by it alone, and an operator.

#[path = "support/mission.rs"]
#[expect(dead_code, reason = "missionctl's tests look at its output, not at the daemon's")]
mod mission;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use mission::{Bench, Daemon, MISSIONCTL};
use serde_json::{Value, json};

/// The lines of a running `missionctl`; it is ended with the test.
struct Stream {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

#[expect(clippy::unwrap_used, reason = "test code outside of a test function")]
impl Stream {
    fn new(bench: &Bench, args: &[&str]) -> Stream {
        let mut command = Command::new("timeout");
        let inherited = bench.command(MISSIONCTL);
        for (name, value) in inherited.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(["60", MISSIONCTL, "-m", "demo"]).args(args).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Stream { child, lines }
    }

    /// The next line that holds `part`.
    fn line(&mut self, part: &str) -> String {
        self.lines.by_ref().map(Result::unwrap).find(|line| line.contains(part)).unwrap()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // `timeout` hands SIGTERM on; a kill would leave its child behind.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        let _reaped = self.child.wait();
    }
}

/// Runs a line for the operator that must succeed; its output.
fn ok(bench: &Bench, line: &str) -> String {
    let args: Vec<&str> = line.split_whitespace().collect();
    let (code, stdout, stderr) = bench.ctl(&args);
    assert_eq!(code, 0, "missionctl {line}: {stdout}{stderr}");
    stdout
}

/// Runs a line for the operator and returns its exit code and errors.
fn refused(bench: &Bench, line: &str) -> (i32, String) {
    let args: Vec<&str> = line.split_whitespace().collect();
    let (code, stdout, stderr) = bench.ctl(&args);
    assert_eq!(stdout, "", "missionctl {line}");
    (code, stderr)
}

#[expect(clippy::unwrap_used, reason = "test code outside of a test function")]
fn json_of(bench: &Bench, line: &str) -> Value {
    serde_json::from_str(&ok(bench, &format!("-o json {line}"))).unwrap()
}

/// Two agents of nothing but shell and `missionctl`. The first works on the half, saves it when it is
/// asked to, and hands it on; the second resumes from what it finds.
const TEAM: &str = r#"
isolation = 1
[agents.first]
role = "write"
command = ["sh", "-c", "exec missionctl inbox --each -- sh -c \"$STEP\""]
env = { STEP = '''
case $MISSION_MESSAGE_TYPE in
task_assign)
    missionctl task update --progress 50 --note "half by $MISSION_AGENT" ;;
handoff_accept)
    echo "lines 1 to 512" > "$MISSION_HOME/part.txt"
    cd "$MISSION_HOME" && missionctl checkpoint save --epoch current --json '{"line": 512}' --file part.txt ;;
esac''' }
[agents.second]
role = "write"
command = ["sh", "-c", "exec missionctl inbox --each -- sh -c \"$STEP\""]
env = { STEP = '''
case $MISSION_MESSAGE_TYPE in
handoff_request)
    missionctl handoff accept --complete ;;
handoff_complete)
    cd "$MISSION_HANDOFF_DIR/$MISSION_TASK_ID"
    missionctl task update --progress 90
    { cat part.txt; cat checkpoint.json; } | missionctl task complete --text - ;;
esac''' }
[[tasks]]
id = "t1"
title = "read it all"
assign = "first"
"#;

#[test]
fn shell_scripts_hand_a_task_on_with_its_checkpoint_and_complete_it() {
    let bench = Bench::new(TEAM);
    let mut daemon = bench.start(&[]);
    daemon.line(&["t1", "50 %"]);
    let steps = ok(&bench, "handoff first second t1");
    let words: Vec<&str> =
        steps.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(words, ["requested", "accepted", "checkpoint", "quiesced", "completed"], "{steps}");
    // All tasks are settled then, and the mission ends by itself.
    let summary = daemon.ends_with(0);
    assert!(summary.contains("t1"), "{summary}");
    let log = bench.log("second", "stderr");
    assert_eq!(log, "", "{}", bench.log("second", "stdout"));
}

#[test]
fn the_result_holds_what_the_first_left_behind() {
    let bench = Bench::new(&format!("until = \"stopped\"\n{TEAM}"));
    let mut daemon = bench.start(&[]);
    daemon.line(&["t1", "50 %"]);
    ok(&bench, "handoff first second t1");
    let mut events = Stream::new(&bench, &["events", "-f", "--kind", "task_completed"]);
    events.line("task_completed");
    let task = json_of(&bench, "task get t1");
    assert_eq!((&task["state"], &task["owner"]), (&json!("completed"), &json!("second")));
    let result = task["result"].as_str().unwrap_or_default();
    assert!(result.starts_with("lines 1 to 512\n") && result.contains("512"), "{task}");
    let checkpoint = json_of(&bench, "checkpoint get t1");
    assert_eq!((&checkpoint["by"], &checkpoint["json"]), (&json!("first"), &json!({"line": 512})));
    // Every message was acknowledged by the success of its command.
    for message in json_of(&bench, "messages").as_array().map(Vec::as_slice).unwrap_or_default() {
        for receipt in message["receipts"].as_array().map(Vec::as_slice).unwrap_or_default() {
            assert!(
                ["acked", "delivered"].contains(&receipt["state"].as_str().unwrap_or("")),
                "{message}"
            );
        }
    }
    assert_eq!(ok(&bench, "stop"), "mission demo is stopped: nothing is left\n");
    daemon.ends_with(0);
}

/// Agents that do nothing by themselves, and one that may do nothing.
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
command = ["sh", "-c", '''
missionctl handoff a b t1 --no-wait; echo "handoff: $?"
missionctl send x; echo "send: $?"
missionctl task claim; echo "claim: $?"
missionctl events; echo "events: $?"
missionctl agent get nobody; echo "get: $?"
missionctl agent phase ready; echo "phase: $?"
missionctl agent heartbeat; echo "heartbeat: $?"
missionctl -m other status; echo "other: $?"
missionctl custom; echo "usage: $?"
exec sleep 600''']
[[tasks]]
id = "t1"
title = "first"
assign = "a"
[[tasks]]
id = "t2"
title = "second"
after = ["t1"]
"#;

#[test]
fn what_a_role_lacks_is_exit_code_4_inside_the_agent() {
    let bench = Bench::new(IDLE);
    let daemon = bench.start(&[]);
    let daemon = started(daemon);
    let mut log = Stream::new(&bench, &["logs", "reader", "-f", "--stdout", "-n", "all"]);
    for line in [
        "handoff: 4",
        "send: 4",
        "claim: 4",
        "events: 4",
        "get: 3",
        "phase: 0",
        "heartbeat: 0",
        "other: 69",
        "usage: 2",
    ] {
        log.line(line);
    }
    let errors = bench.log("reader", "stderr");
    assert!(errors.contains("error: cannot hand task `t1` from `a` to `b`\n  cause: "), "{errors}");
    assert_eq!(json_of(&bench, "agent get reader")["phase"], json!("READY"));
    drop(daemon);
}

/// Waits until the daemon takes requests.
fn started(mut daemon: Daemon) -> Daemon {
    daemon.line(&["a ", "runs"]);
    daemon
}

#[test]
fn exit_codes_3_4_and_5_of_an_operators_writes() {
    let bench = Bench::new(IDLE);
    let _daemon = started(bench.start(&[]));
    for (line, code) in [
        ("handoff a nobody t1", 3),
        ("handoff nobody b t1", 3),
        ("handoff a b t9", 3),
        ("handoff b a t1", 5),
        ("handoff a b t2", 5),
        ("handoff a a t1", 2),
        ("assign reader t2", 4),
        ("assign a t9", 3),
        ("task get t9", 3),
        ("task create t1", 5),
        ("task complete t1 --epoch 3", 5),
        ("checkpoint get t1", 3),
        ("handoff get h-9", 3),
        ("handoff accept h-9", 3),
        ("agent role a king", 3),
        ("agent stop nobody", 3),
        ("send --to nobody x", 3),
        ("logs nobody", 3),
        ("events --kind task_create", 2),
        ("inbox", 2),
        ("ack 3", 2),
    ] {
        let (got, stderr) = refused(&bench, line);
        assert_eq!(got, code, "missionctl {line}: {stderr}");
        assert_eq!(stderr.lines().count(), 3, "missionctl {line}: {stderr}");
    }
    // Nobody answers: it expires, and the task stays where it was.
    let (code, stdout, stderr) = bench.ctl(&["handoff", "a", "b", "t1", "--timeout", "300ms"]);
    assert_eq!((code, stdout.contains("requested")), (124, true), "{stdout}{stderr}");
    assert_eq!(json_of(&bench, "task get t1")["owner"], json!("a"));
}

#[test]
fn the_mission_is_found_by_its_file_by_being_the_only_one_and_by_name() {
    let bench = Bench::new(IDLE);
    let _daemon = started(bench.start(&[]));
    let run = |dir: &str, args: &[&str]| {
        let output = bench
            .command(MISSIONCTL)
            .current_dir(bench.path(dir))
            .args(args)
            .output()
            .map_err(|e| e.to_string());
        output.map(|output| output.status.code())
    };
    for dir in ["ws", "."] {
        assert_eq!(run(dir, &["task", "list"]), Ok(Some(0)), "{dir}");
    }
    let elsewhere = bench.command(MISSIONCTL).current_dir("/").args(["task", "list"]).status();
    assert_eq!(elsewhere.map(|status| status.code()).map_err(|e| e.to_string()), Ok(Some(0)));
    assert_eq!(run("ws", &["-m", "other", "task", "list"]), Ok(Some(69)));
    ok(&bench, "stop --grace 1s");
    assert_eq!(run("ws", &["task", "list"]), Ok(Some(69)));
}

#[test]
fn streams_show_what_comes_and_agents_go_down_and_up() {
    let bench = Bench::new(IDLE);
    let daemon = started(bench.start(&[]));
    let mut events = Stream::new(&bench, &["events", "-f"]);
    events.line("mission_configured");
    let mut tail = Stream::new(&bench, &["tail", "-o", "jsonl"]);
    // Whoever subscribes is there when the answer to a later request of the same kind is.
    let sent = loop_until_seen(&bench, &mut tail);
    assert_eq!(sent["message"]["content"], json!("tick"));
    assert_eq!(sent["ephemeral"], json!(true));
    assert!(ok(&bench, "send --to a --type alert durable").starts_with("m-"));
    events.line("message_published");
    let told: Value = serde_json::from_str(&tail.line("durable")).unwrap_or_default();
    assert_eq!(told["message"]["from"], json!("operator"));

    assert!(ok(&bench, "stop a --grace 1s").starts_with("a is "));
    events.line("agent_ended");
    assert!(ok(&bench, "ps a").contains("stopped"));
    ok(&bench, "start");
    events.line("agent_started");
    assert!(ok(&bench, "ps a").contains("running"));
    assert!(ok(&bench, "status").contains("mission demo  running"));
    assert!(ok(&bench, "task create t3 --after t1 --assign b").contains("pending"));
    assert!(ok(&bench, "task cancel t3 --reason enough").contains("cancelled"));
    events.line("task_cancelled");
    ok(&bench, "stop --grace 1s");
    events.line("mission_stopp");
    // Not everything was completed.
    daemon.ends_with(1);
}

/// Sends ephemeral ticks until one is seen: what went before the subscription is gone, by design.
#[expect(clippy::unwrap_used, reason = "test code outside of a test function")]
fn loop_until_seen(bench: &Bench, tail: &mut Stream) -> Value {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
                ok(bench, "send --ephemeral --type status_update tick");
            }
        });
        let line = tail.line("tick");
        drop(stop);
        serde_json::from_str(&line).unwrap()
    })
}

/// Reads its inbox in the three ways there are.
const READERS: &str = r#"
isolation = 1
until = "stopped"
[agents.each]
role = "write"
command = ["sh", "-c", "missionctl inbox --each -n 2 -- sh -c \"$STEP\"; echo \"ended: $?\"; exec sleep 600"]
env = { STEP = '''
echo "again=$MISSION_MESSAGE_AGAIN from=$MISSION_MESSAGE_FROM"
test -n "$MISSION_MESSAGE_AGAIN"''' }
[agents.follow]
role = "write"
command = ["sh", "-c", '''
missionctl -o jsonl inbox --follow -n 2 | while read -r line; do
    echo "$line" | sed 's/.*"content":\("[a-z]*"\).*/got \1/'
    missionctl inbox | sed 's/.*  /peek /'
    missionctl ack "$(echo "$line" | sed 's/.*"seq":\([0-9]*\).*/\1/')"
done
missionctl inbox; echo "left: $?"
exec sleep 600''']
[agents.claimer]
role = "write"
command = ["sh", "-c", '''
eval "$(missionctl task claim --export)" && missionctl task update --progress 5 && missionctl task complete --result '{"by": "claim"}'
missionctl task claim; echo "nothing to claim: $?"
exec sleep 600''']
[[tasks]]
id = "free"
title = "whoever wants it"
"#;

#[test]
fn a_failed_command_gets_its_message_again() {
    let bench = Bench::new(READERS);
    let mut daemon = bench.start(&[]);
    daemon.line(&["each ", "runs"]);
    let id = ok(&bench, "send --to each hello").trim().to_owned();
    let mut log = Stream::new(&bench, &["logs", "each", "-f", "--stdout", "-n", "all"]);
    assert_eq!(log.line("again="), "again= from=operator");
    assert_eq!(log.line("again="), "again=1 from=operator");
    log.line("ended: 0");
    let receipts = &json_of(&bench, &format!("messages {id}"))[0]["receipts"];
    assert_eq!(receipts, &json!([{"to": "each", "state": "acked"}]));
    assert!(
        bench.log("each", "stderr").contains(&format!("{id}: the command ended with exit code 1"))
    );
}

#[test]
fn following_goes_on_when_the_last_message_is_acknowledged() {
    let bench = Bench::new(READERS);
    let mut daemon = bench.start(&[]);
    daemon.line(&["follow ", "runs"]);
    ok(&bench, "send --to follow one");
    ok(&bench, "send --to follow two");
    let mut log = Stream::new(&bench, &["logs", "follow", "-f", "--stdout", "-n", "all"]);
    assert_eq!(log.line("got"), "got \"one\"");
    log.line("peek one");
    assert_eq!(log.line("got"), "got \"two\"");
    log.line("left: 0");
}

#[test]
fn a_shell_claims_and_completes_a_task() {
    let bench = Bench::new(READERS);
    let mut daemon = bench.start(&[]);
    daemon.line(&["free", "completed"]);
    let task = json_of(&bench, "task get free");
    assert_eq!((&task["owner"], &task["result"]), (&json!("claimer"), &json!({"by": "claim"})));
    let mut log = Stream::new(&bench, &["logs", "claimer", "-f", "--stdout", "-n", "all"]);
    let code = log.line("nothing to claim: ");
    assert!(code.ends_with(": 3") || code.ends_with(": 5"), "{code}");
}
