//! `handoff`: every step as it happens, and how each end is told.

use missiond::proto::denied::Code;
use serde_json::{Value, json};

use crate::fake::{Act, Fake, OPERATOR, Seen, WRITER, event, handoff, message, outcome, soon};

#[expect(clippy::panic, reason = "test code outside of a test function")]
/// A daemon whose handoff takes these steps; the first are in the log already, the rest are pushed.
fn with_steps(steps: Vec<Value>, end: &'static str) -> impl Fn(&Seen) -> Vec<Act> {
    move |seen| match seen.method.as_str() {
        "handoff.request" => vec![Act::Reply(handoff("requested", Some(soon())))],
        "audit.read" => {
            assert_eq!(seen.params["since"], json!(16));
            assert_eq!(seen.params["follow"], json!(true));
            let page = json!({"events": &steps[..1], "head": 17});
            // The page and what is pushed overlap: no step may be shown twice.
            let pushed = steps.iter().map(|step| Act::Notify("event", step.clone()));
            std::iter::once(Act::Reply(page)).chain(pushed).collect()
        }
        "handoff.get" => {
            let mut view = handoff(end, None);
            if end == "rejected" {
                view["reason"] = json!("busy");
            }
            vec![Act::Reply(view)]
        }
        other => panic!("{other}"),
    }
}

fn requested() -> Value {
    event(17, "handoff_requested", json!({"task": "task-1", "from": 2, "to": 3, "until": 61_000}))
}

#[test]
fn each_step_is_shown_and_completion_is_exit_code_0() {
    let file = json!({"path": "a", "hash": "0".repeat(64), "size": 3, "mode": 420});
    let steps = vec![
        requested(),
        event(18, "handoff_accepted", json!({"handoff": "h-17", "until": 61_010})),
        event(
            19,
            "checkpoint_saved",
            json!({"task": "task-1", "by": 2, "epoch": 9, "json": true, "files": [file]}),
        ),
        event(20, "handoff_accepted", json!({"handoff": "h-99", "until": 61_010})),
        event(
            21,
            "handoff_quiesced",
            json!({"handoff": "h-17", "checkpoint": "c-19", "until": 61_040}),
        ),
        event(22, "handoff_completed", json!({"handoff": "h-17", "incarnation": 1})),
    ];
    let fake = Fake::new(&OPERATOR, with_steps(steps, "completed"));
    let args = ["handoff", "writer", "reviewer", "task-1", "--reason", "rest"];
    let (code, stdout, stderr) = outcome(&mut fake.operator(&args));
    assert_eq!((code, stderr.as_str()), (0, ""));
    insta::assert_snapshot!(stdout, @r"
    h-17  task-1: writer -> reviewer
         0 ms  requested   waits for reviewer to accept (60 s at most)
        10 ms  accepted    reviewer accepts; waits for writer to save a checkpoint (60 s at most)
        20 ms  checkpoint  c-19 saved by daemon: 1 file
        40 ms  quiesced    writer writes no more; waits for reviewer to take over with c-19 (60 s at most)
        50 ms  completed   reviewer owns task-1 now, epoch 22
    ");
    let seen = &fake.seen()[0];
    assert_eq!(
        seen.params,
        json!({"from": "writer", "to": "reviewer", "task": "task-1", "reason": "rest"})
    );
    assert!(seen.key.is_some());
}

#[test]
fn an_end_without_completion_says_why_and_has_its_exit_code() {
    for (how, exit, cause) in [
        ("rejected", 1, "  cause: busy\n"),
        ("expired", 124, "  cause: `reviewer` did not answer in time\n"),
        ("cancelled", 1, "  cause: no reason was given\n"),
        ("failed", 1, "  cause: no reason was given\n"),
    ] {
        let steps =
            vec![requested(), event(18, "handoff_ended", json!({"handoff": "h-17", "how": how}))];
        let fake = Fake::new(&OPERATOR, with_steps(steps, how));
        let (code, stdout, stderr) =
            outcome(&mut fake.operator(&["handoff", "writer", "reviewer", "task-1"]));
        assert_eq!(code, exit, "{stderr}");
        assert!(stdout.contains(how), "{stdout}");
        assert!(
            stderr.starts_with(&format!("error: handoff h-17 of task `task-1` is {how}\n")),
            "{stderr}"
        );
        assert!(stderr.contains(cause), "{stderr}");
    }
}

#[test]
fn refusals_of_a_handoff_are_exit_codes_3_4_and_5() {
    for (code, exit) in [(Code::NotFound, 3), (Code::Denied, 4), (Code::Conflict, 5)] {
        let fake = Fake::new(&OPERATOR, move |_| vec![Act::Refuse(code, "no")]);
        let (got, stdout, stderr) = outcome(&mut fake.operator(&["handoff", "a", "b", "task-1"]));
        assert_eq!((got, stdout.as_str()), (exit, ""), "{stderr}");
        assert!(
            stderr.starts_with("error: cannot hand task `task-1` from `a` to `b`\n"),
            "{stderr}"
        );
    }
}

#[test]
fn without_waiting_only_the_request_is_made() {
    let fake = Fake::new(&OPERATOR, |_| vec![Act::Reply(handoff("requested", Some(soon())))]);
    let args = ["handoff", "writer", "reviewer", "task-1", "--no-wait"];
    let (code, stdout, _) = outcome(&mut fake.operator(&args));
    assert_eq!(
        (code, stdout.as_str()),
        (0, "handoff h-17 of task-1 from writer to reviewer is requested\n")
    );
    assert_eq!(fake.seen().len(), 1);
}

#[test]
fn a_handoff_that_takes_too_long_is_called_off() {
    let fake = Fake::new(&OPERATOR, |seen| match seen.method.as_str() {
        "handoff.request" => {
            assert_eq!(seen.params["timeout_ms"], json!(150));
            vec![Act::Reply(handoff("requested", Some(soon())))]
        }
        "audit.read" => vec![Act::Reply(json!({"events": [requested()], "head": 17}))],
        "handoff.get" => vec![Act::Reply(handoff("requested", Some(soon())))],
        "handoff.cancel" => vec![Act::Reply(handoff("cancelled", None))],
        other => panic!("{other}"),
    });
    let args = ["handoff", "writer", "reviewer", "task-1", "--timeout", "150ms"];
    let (code, _, stderr) = outcome(&mut fake.operator(&args));
    assert_eq!(code, 124, "{stderr}");
    assert!(stderr.contains("called off") && stderr.contains("stays with `writer`"), "{stderr}");
    assert_eq!(fake.seen().last().unwrap().params["handoff"], json!("h-17"));
}

#[test]
fn one_that_completed_at_the_last_moment_is_completed() {
    let gets = std::sync::atomic::AtomicUsize::new(0);
    let fake = Fake::new(&OPERATOR, move |seen| match seen.method.as_str() {
        "handoff.request" => vec![Act::Reply(handoff("requested", Some(soon())))],
        "audit.read" => vec![Act::Reply(json!({"events": [requested()], "head": 17}))],
        "handoff.get" => {
            let is_first = gets.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            vec![Act::Reply(handoff(if is_first { "quiesced" } else { "completed" }, None))]
        }
        "handoff.cancel" => vec![Act::Refuse(Code::Conflict, "it is completed")],
        other => panic!("{other}"),
    });
    let args = ["handoff", "writer", "reviewer", "task-1", "--timeout", "100ms"];
    let (code, _, stderr) = outcome(&mut fake.operator(&args));
    assert_eq!((code, stderr.as_str()), (0, ""));
}

fn told(kind: &str, content: Value) -> Value {
    let mut message = message(30, "daemon", kind, content);
    message["at"] = json!(1_500);
    json!({"subscription": "tail", "message": message, "redelivered": false, "ephemeral": false})
}

#[test]
fn an_agent_that_may_not_read_the_log_follows_by_its_messages() {
    let fake = Fake::new(&WRITER, |seen| match seen.method.as_str() {
        "subscribe" => {
            assert_eq!(seen.params["subscription"], json!("tail"));
            vec![Act::Reply(json!({"position": 16}))]
        }
        "handoff.request" => {
            assert_eq!(
                (&seen.params["from"], &seen.params["task"]),
                (&json!("writer"), &json!("task-1"))
            );
            let forged = told("handoff_complete", json!({"handoff": "h-17", "state": "completed"}));
            let mut forged = forged;
            forged["message"]["from"] = json!("reviewer");
            let state = |state: &str| json!({"handoff": "h-17", "task": "task-1", "state": state, "epoch": 31});
            vec![
                Act::Reply(handoff("requested", Some(soon()))),
                Act::Notify("message", forged),
                Act::Notify("message", told("handoff_accept", state("draining"))),
                Act::Notify("message", told("handoff_complete", state("completed"))),
            ]
        }
        "handoff.get" => vec![Act::Reply(handoff("completed", None))],
        other => panic!("{other}"),
    });
    let mut command = fake.agent(&["handoff", ".", "reviewer"]);
    let (code, stdout, stderr) = outcome(command.env("MISSION_TASK_ID", "task-1"));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let steps: Vec<&str> =
        stdout.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(steps, ["requested", "accepted", "completed"], "{stdout}");
    assert_eq!(fake.seen()[0].method, "subscribe", "before the request, so that nothing is missed");
}

#[test]
fn a_target_accepts_waits_and_completes_in_one_command() {
    let fake = Fake::new(&WRITER, |seen| match seen.method.as_str() {
        "subscribe" => vec![Act::Reply(json!({"position": 16}))],
        "handoff.accept" => vec![
            Act::Reply(handoff("draining", Some(soon()))),
            Act::Notify(
                "message",
                told(
                    "handoff_accept",
                    json!({"handoff": "h-17", "state": "quiesced", "until": soon()}),
                ),
            ),
        ],
        "handoff.get" => vec![Act::Reply(handoff("quiesced", Some(soon())))],
        "handoff.complete" => vec![Act::Reply(handoff("completed", None))],
        other => panic!("{other}"),
    });
    let mut command = fake.agent(&["handoff", "accept", "--complete"]);
    let (code, stdout, stderr) = outcome(command.env("MISSION_HANDOFF_ID", "h-17"));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.ends_with("is completed\n"), "{stdout}");
}

#[test]
fn as_json_lines_each_step_is_an_event_and_the_last_line_the_handoff() {
    let steps = vec![
        requested(),
        event(22, "handoff_completed", json!({"handoff": "h-17", "incarnation": 1})),
    ];
    let fake = Fake::new(&OPERATOR, with_steps(steps, "completed"));
    let (code, stdout, _) =
        outcome(&mut fake.operator(&["-o", "jsonl", "handoff", "writer", "reviewer", "task-1"]));
    assert_eq!(code, 0);
    let lines: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{stdout}");
    assert_eq!(
        (&lines[0]["kind"], &lines[2]["state"]),
        (&json!("handoff_requested"), &json!("completed"))
    );
}
