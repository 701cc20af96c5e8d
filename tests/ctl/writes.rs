//! What writes carry: keys, task and epoch; and what becomes of them when the connection breaks.

use missiond::proto::denied::Code;
use serde_json::{Value, json};

use crate::fake::{
    Act, Fake, OPERATOR, Running, WRITER, agent, outcome, outcome_with_input, path, task,
};

fn published() -> Vec<Act> {
    vec![Act::Reply(json!({"id": "m-5", "seq": 5}))]
}

#[test]
fn a_message_goes_out_with_its_type_task_and_key() {
    let fake = Fake::new(&WRITER, |_| published());
    let send = |args: &[&str]| {
        let args: Vec<&str> = ["send"].iter().chain(args).copied().collect();
        let mut command = fake.agent(&args);
        command.env("MISSION_TASK_ID", "task-1").env("MISSION_TASK_EPOCH", "9");
        let (code, stdout, stderr) = outcome_with_input(&mut command, "from stdin\n\n");
        assert_eq!((code, stderr.as_str()), (0, ""));
        (stdout, fake.seen().last().unwrap().clone())
    };
    let (stdout, seen) = send(&["hello"]);
    assert_eq!(stdout, "m-5\n");
    assert_eq!(seen.params, json!({"type": "broadcast", "content": "hello", "task": "task-1"}));
    assert!(seen.key.unwrap().starts_with("ctl-"));
    let (_, seen) =
        send(&["--to", "a", "--to", "b", "--json", r#"{"n": 1.50}"#, "--reply-to", "m-3"]);
    assert_eq!(seen.params["type"], json!("custom.message"));
    assert_eq!(seen.params["to"], json!(["a", "b"]));
    assert_eq!(seen.params["content"], json!({"n": 1.5}));
    assert_eq!(seen.params["reply_to"], json!("m-3"));
    let (_, seen) = send(&["--key", "step-7", "--type", "custom.tick", "--ephemeral", "-"]);
    assert_eq!(seen.key.as_deref(), Some("step-7"));
    assert_eq!(seen.params["content"], json!("from stdin"));
    assert_eq!(seen.params["ephemeral"], json!(true));
}

#[test]
fn a_write_of_the_owner_carries_task_and_epoch_of_the_environment() {
    let fake = Fake::new(&WRITER, |_| vec![Act::Reply(task("task-1", "active", 9))]);
    let run = |args: &[&str]| {
        let mut command = fake.agent(args);
        command.env("MISSION_TASK_ID", "task-1").env("MISSION_TASK_EPOCH", "9");
        outcome(&mut command)
    };
    for (args, method, rest) in [
        (&["task", "update", "--progress", "40"][..], "task.update", json!({"progress": 40})),
        (&["task", "complete", "--text", "done"], "task.complete", json!({"result": "done"})),
        (&["task", "fail", "--reason", "no"], "task.fail", json!({"result": "no"})),
        (&["task", "release", "--reason", "no"], "task.release", json!({"reason": "no"})),
    ] {
        let (code, stdout, stderr) = run(args);
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
        assert!(stdout.starts_with("task task-1 is "), "{stdout}");
        let seen = fake.seen().pop().unwrap();
        let mut expected = rest;
        expected["task"] = json!("task-1");
        expected["epoch"] = json!(9);
        assert_eq!((seen.method.as_str(), seen.params), (method, expected));
        assert!(seen.key.is_some());
    }
    // Another task than the environment's: its epoch is not that one's.
    let (code, _, stderr) = run(&["task", "update", "task-2"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--epoch"), "{stderr}");
    let before = fake.seen().len();
    assert_eq!(run(&["task", "update", "task-2", "--epoch", "3"]).0, 0);
    assert_eq!(fake.seen().last().unwrap().params["epoch"], json!(3));
    assert_eq!(run(&["task", "update", "task-2", "--epoch", "current"]).0, 0);
    let methods: Vec<String> =
        fake.seen()[before..].iter().map(|seen| seen.method.clone()).collect();
    assert_eq!(methods, ["task.update", "task.get", "task.update"]);
}

#[test]
fn a_claim_can_be_evaluated_by_a_shell() {
    let fake = Fake::new(&WRITER, |_| vec![Act::Reply(task("task-1", "assigned", 12))]);
    let (code, stdout, _) = outcome(&mut fake.agent(&["task", "claim", "--export"]));
    assert_eq!(
        (code, stdout.as_str()),
        (0, "export MISSION_TASK_ID=task-1 MISSION_TASK_EPOCH=12\n")
    );
    assert_eq!(fake.seen()[0].params, json!({}));
}

#[test]
fn a_checkpoint_names_its_files_absolutely() {
    let fake = Fake::new(&WRITER, |_| {
        vec![Act::Reply(json!({"id": "c-8", "task": "t", "by": "writer", "epoch": 4, "at": 1,
            "files": [], "json_at": null}))]
    });
    let args = [
        "checkpoint",
        "save",
        "--task",
        "t",
        "--epoch",
        "4",
        "--file",
        "./a/b",
        "--file",
        "/x",
        "--json",
        "-",
    ];
    let (code, stdout, stderr) = outcome_with_input(&mut fake.agent(&args), "{\"line\": 3}\n");
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "c-8\n", ""));
    let here = std::fs::canonicalize(fake.dir.path()).unwrap();
    assert_eq!(
        fake.seen()[0].params,
        json!({"task": "t", "epoch": 4, "json": {"line": 3}, "files": [path(&here, "a/b"), "/x"]})
    );
}

#[test]
fn a_created_task_carries_all_that_was_said() {
    let fake = Fake::new(&OPERATOR, |_| vec![Act::Reply(task("lint", "pending", 0))]);
    let args = [
        "task",
        "create",
        "lint",
        "--after",
        "build",
        "--needs",
        "rust",
        "--assign",
        "writer",
        "--timeout",
        "1m30s",
        "--data",
        "{\"x\":1}",
    ];
    let (code, _, stderr) = outcome(&mut fake.operator(&args));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(
        fake.seen()[0].params,
        json!({"id": "lint", "title": "lint", "after": ["build"], "assign": "writer",
            "needs": ["rust"], "timeout_ms": 90_000, "max_attempts": 3, "data": {"x": 1}})
    );
}

#[test]
fn a_write_whose_reply_was_lost_is_repeated_with_its_key() {
    let fake = Fake::new(&WRITER, |seen| match seen.connection {
        1 => vec![Act::HangUp],
        _ => published(),
    });
    let (code, stdout, stderr) = outcome(&mut fake.agent(&["send", "once"]));
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "m-5\n", ""));
    let seen = fake.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].key.is_some());
    assert_eq!(seen[0].key, seen[1].key);
    assert_eq!(seen[0].params, seen[1].params);
}

#[test]
fn it_reconnects_once_and_no_more() {
    let fake = Fake::new(&WRITER, |_| vec![Act::HangUp]);
    let (code, _, stderr) = outcome(&mut fake.agent(&["send", "never"]));
    assert_eq!(code, 69, "{stderr}");
    assert_eq!(fake.seen().len(), 2);
}

#[test]
fn it_waits_for_a_daemon_that_comes_back() {
    let fake = Fake::new(&WRITER, |seen| if seen.connection == 1 { vec![] } else { published() });
    let socket = fake.socket();
    let running = Running::new(&mut fake.agent(&["send", "patience"]));
    fake.wait_for("publish");
    let aside = socket.with_extension("aside");
    std::fs::rename(&socket, &aside).unwrap();
    fake.hang_up(false);
    std::fs::rename(&aside, &socket).unwrap();
    let (code, stderr) = running.end();
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(fake.seen().len(), 2);
}

#[test]
fn of_several_agents_each_is_tried_and_the_first_failure_is_the_exit_code() {
    let fake = Fake::new(&OPERATOR, |seen| match seen.params["agent"].as_str() {
        Some("b") => vec![Act::Refuse(Code::NotFound, "no agent `b`")],
        Some(name) => vec![Act::Reply(agent(name))],
        None => panic!("{seen:?}"),
    });
    let (code, stdout, stderr) =
        outcome(&mut fake.operator(&["stop", "a", "b", "c", "--grace", "2s"]));
    assert_eq!((code, stdout.as_str()), (3, "a is running\nc is running\n"));
    assert!(stderr.starts_with("error: cannot stop agent `b`\n"), "{stderr}");
    let seen = fake.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0].params, json!({"agent": "a", "grace_ms": 2_000}));
    assert_ne!(seen[0].key, seen[1].key);
}

#[test]
fn start_without_names_starts_what_is_down() {
    let fake = Fake::new(&OPERATOR, |seen| match seen.method.as_str() {
        "agent.list" => {
            let with = |name: &str, state: &str, mode: &str| -> Value {
                let mut agent = agent(name);
                agent["state"] = json!(state);
                agent["mode"] = json!(mode);
                agent
            };
            vec![Act::Reply(json!([
                with("up", "running", "service"),
                with("down", "stopped", "service"),
                with("lost", "failed", "task"),
                with("free", "idle", "task"),
            ]))]
        }
        _ => vec![Act::Reply(agent(seen.params["agent"].as_str().unwrap()))],
    });
    assert_eq!(outcome(&mut fake.operator(&["start"])).0, 0);
    let started: Vec<Value> =
        fake.seen().iter().skip(1).map(|seen| seen.params["agent"].clone()).collect();
    assert_eq!(started, ["down", "lost"]);
}

#[test]
fn stop_succeeds_only_on_the_daemons_word_that_nothing_is_left() {
    let fake = Fake::new(&OPERATOR, |_| vec![Act::Reply(json!({})), Act::HangUp]);
    let (code, stdout, stderr) = outcome(&mut fake.operator(&["stop", "--grace", "3s"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, "mission m is stopped: nothing is left\n");
    assert_eq!(fake.seen()[0].params, json!({"grace_ms": 3_000}));

    let fake = Fake::new(&OPERATOR, |_| vec![Act::HangUp]);
    let (code, stdout, stderr) = outcome(&mut fake.operator(&["stop"]));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.starts_with("error: cannot say that nothing is left of mission `m`"),
        "{stderr}"
    );
    assert_eq!(fake.seen().len(), 1, "a new daemon is not stopped by an old word");

    let fake = Fake::new(&OPERATOR, |_| vec![]);
    let (code, _, stderr) = outcome(&mut fake.operator(&["stop", "--timeout", "100ms"]));
    assert_eq!(code, 124, "{stderr}");
}
