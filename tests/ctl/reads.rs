//! What is shown, in which form, and the exit codes of refusals.

use missiond::proto::denied::Code;
use serde_json::{Value, json};

use crate::fake::{Act, Fake, OPERATOR, WRITER, agent, event, handoff, message, outcome, task};

fn mission() -> Value {
    let mut stuck = agent("reviewer");
    stuck["state"] = json!("waiting");
    stuck["waits_for"] = json!({"what": "restart after exit code 3", "until": null});
    stuck["gaps"] = json!(["memory limit: no cgroup"]);
    json!({
        "name": "m", "state": "running", "created": 1_000, "generation": 1, "started": 1_000,
        "pid": 77, "state_dir": "/s", "head": 41, "agents": [agent("writer"), stuck],
        "tasks": [task("task-1", "active", 9)], "handoffs": [handoff("requested", None)],
        "alerts": ["disk is full"],
    })
}

/// Ages depend on the present; their columns are wide enough for any.
fn ageless(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut words: Vec<String> = line.split("  ").map(str::to_owned).collect();
        for word in &mut words {
            let trimmed = word.trim();
            let number = trimmed.split(' ').next().unwrap_or_default();
            if trimmed.ends_with(" d") && number.parse::<u64>().is_ok() {
                *word = "AGE".to_owned();
            }
        }
        let line = words.iter().filter(|word| !word.is_empty()).map(|word| word.trim());
        out.push_str(&line.collect::<Vec<_>>().join("  "));
        out.push('\n');
    }
    out
}

#[test]
fn status_shows_what_waits_for_what_and_what_is_wrong() {
    let fake = Fake::new(&OPERATOR, |_| vec![Act::Reply(mission())]);
    let (code, stdout, stderr) = outcome(&mut fake.operator(&["status"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let head = stdout.lines().next().unwrap();
    assert!(
        head.starts_with("mission m  running  for ") && head.ends_with("pid 77, run 1, 41 events")
    );
    let rest: String = stdout.lines().skip(1).map(|line| format!("{line}\n")).collect();
    insta::assert_snapshot!(ageless(&rest), @r"
    alert: disk is full
    not enforced for reviewer: memory limit: no cgroup

    AGENT  ROLE  STATE  PHASE  LEVEL  TASKS  INBOX  SINCE  WAITS FOR
    writer  write  running  EXECUTING  1  task-1  2  AGE
    reviewer  write  waiting  EXECUTING  1  task-1  2  AGE  restart after exit code 3

    TASK  STATE  OWNER  DONE  TITLE
    task-1  active  writer  40%  fix the parser

    HANDOFF  TASK  FROM  TO  STATE
    h-17  task-1  writer  reviewer  requested
    ");
}

#[test]
fn json_is_the_answer_as_it_is_and_jsonl_an_item_a_line() {
    let raw = r#"[{"z":1.50,"id":"t","unknown":18446744073709551616}]"#;
    let fake = Fake::new(&OPERATOR, move |_| vec![Act::Reply(serde_json::from_str(raw).unwrap())]);
    let (_, stdout, _) = outcome(&mut fake.operator(&["task", "list", "-o", "jsonl"]));
    let item: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((stdout.lines().count(), &item["id"]), (1, &json!("t")));
    let (_, stdout, _) = outcome(&mut fake.operator(&["-o", "json", "task", "list"]));
    assert!(stdout.starts_with("[\n  {\n    ") && stdout.ends_with("\n  }\n]\n"), "{stdout}");
}

#[test]
fn details_have_exact_times_and_laid_out_json() {
    let fake = Fake::new(&OPERATOR, |_| {
        let mut task = task("task-1", "completed", 9);
        task["result"] = json!({"lines": [1, 2], "note": "ok"});
        task["note"] = json!("two\nlines");
        vec![Act::Reply(task)]
    });
    let (code, stdout, _) = outcome(fake.operator(&["task", "show", "task-1"]).env("TZ", "UTC"));
    assert_eq!(code, 0);
    insta::assert_snapshot!(stdout, @r#"
    task:     task-1
    title:    fix the parser
    state:    completed
    owner:    writer
    epoch:    9
    progress: 40%
    note:     two
              lines
    attempts: 0 of 3
    created:  1970-01-01T00:00:01.000+00:00 by operator
    result:   {
                "lines": [
                  1,
                  2
                ],
                "note": "ok"
              }
    "#);
}

#[test]
fn a_refusal_has_its_exit_code_and_three_lines() {
    for (code, exit) in [
        (Code::Denied, 4),
        (Code::NotFound, 3),
        (Code::Conflict, 5),
        (Code::Stale, 5),
        (Code::Limit, 75),
        (Code::Unavailable, 75),
        (Code::Invalid, 2),
        (Code::Timeout, 124),
    ] {
        let fake = Fake::new(&OPERATOR, move |_| vec![Act::Refuse(code, "not\u{1b} so")]);
        let (got, stdout, stderr) = outcome(&mut fake.operator(&["assign", "writer", "task-1"]));
        assert_eq!((got, stdout.as_str()), (exit, ""), "{stderr}");
        let lines: Vec<&str> = stderr.lines().collect();
        assert_eq!(lines.len(), 3, "{stderr}");
        assert_eq!(lines[0], "error: cannot assign task `task-1` to `writer`");
        assert_eq!(lines[1], format!("  cause: not\\x1b so ({code})"));
        assert!(lines[2].starts_with("  help:  "), "{stderr}");
    }
}

#[test]
fn processes_of_an_unknown_agent_are_not_found() {
    let fake = Fake::new(&OPERATOR, |_| vec![Act::Reply(json!([agent("writer")]))]);
    let (code, stdout, _) = outcome(&mut fake.operator(&["ps", "writer"]));
    assert_eq!(code, 0);
    insta::assert_snapshot!(ageless(&stdout), @r"
    AGENT  STATE  PID  LEVEL  MODE  START  RESTARTS  SINCE  LAST END
    writer  running  4242  1  service  2  1  AGE  exit code 3
    ");
    let (code, _, stderr) = outcome(&mut fake.operator(&["ps", "nobody"]));
    assert_eq!(code, 3, "{stderr}");
}

#[test]
fn the_last_messages_are_found_in_a_long_log_with_their_receipts() {
    let fake = Fake::new(&OPERATOR, |seen| match seen.method.as_str() {
        "audit.read" => {
            let since = seen.params["since"].as_u64().unwrap();
            let limit = seen.params["limit"].as_u64().unwrap();
            // Messages at 100, 200, .. 10,000; those of the writer at full thousands.
            let all = (1..=100).map(|n| n * 100).filter(|seq| *seq > since);
            let events = all.take(usize::try_from(limit).unwrap()).map(|seq| {
                let mut event =
                    event(seq, "message_published", json!({"type": "alert", "bytes": 3}));
                event["at"] = json!(1_000);
                event["actor"] = json!(if seq % 1_000 == 0 { "writer" } else { "daemon" });
                event
            });
            vec![Act::Reply(json!({"events": events.collect::<Vec<_>>(), "head": 10_000}))]
        }
        "fetch" => {
            let seqs = seen.params["seqs"].as_array().unwrap();
            let messages = seqs.iter().map(|seq| {
                let seq = seq.as_u64().unwrap();
                let receipts = json!([{"to": "b", "state": "acked"},
                    {"to": "c", "state": "dead", "reason": "5 nacks"}]);
                json!({"message": message(seq, "writer", "alert", json!("look")), "receipts": receipts})
            });
            vec![Act::Reply(json!({"messages": messages.collect::<Vec<_>>(), "upto": 10_000}))]
        }
        other => panic!("{other}"),
    });
    let args = ["messages", "-n", "3", "--from", "writer", "--type", "alert"];
    let (code, stdout, stderr) = outcome(fake.operator(&args).env("TZ", "UTC"));
    assert_eq!((code, stderr.as_str()), (0, ""));
    insta::assert_snapshot!(stdout, @r"
    1970-01-01 00:00:01  m-8000  writer -> writer  alert  look
        b acked, c dead (5 nacks)
    1970-01-01 00:00:01  m-9000  writer -> writer  alert  look
        b acked, c dead (5 nacks)
    1970-01-01 00:00:01  m-10000  writer -> writer  alert  look
        b acked, c dead (5 nacks)
    ");
}

#[test]
fn without_audit_messages_are_those_in_the_inbox() {
    let fake = Fake::new(&WRITER, |seen| {
        assert_eq!(seen.method, "fetch");
        assert_eq!(seen.params["peek"], json!(true));
        vec![Act::Reply(json!({"messages": [], "upto": 3}))]
    });
    let (code, stdout, stderr) = outcome(&mut fake.agent(&["messages", "-o", "json"]));
    assert_eq!((code, stdout.as_str()), (0, "[]\n"));
    assert!(stderr.contains("inbox"), "{stderr}");
}

#[test]
fn an_answer_of_another_version_is_no_crash() {
    let fake = Fake::new(&OPERATOR, |_| vec![Act::Reply(json!({"what": 1}))]);
    let (code, stdout, stderr) = outcome(&mut fake.operator(&["status"]));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("same version"), "{stderr}");
}
