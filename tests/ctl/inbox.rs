//! `inbox` and `ack`: nothing is acknowledged before it has been dealt with, unless asked for.

use serde_json::{Value, json};

use crate::fake::{Act, Fake, Running, Seen, WRITER, delivery, message, outcome, path};

fn subscribed(pushed: Vec<Value>) -> Vec<Act> {
    let pushed = pushed.into_iter().map(|delivery| Act::Notify("message", delivery));
    std::iter::once(Act::Reply(json!({"position": 3}))).chain(pushed).collect()
}

fn acked() -> Vec<Act> {
    vec![Act::Reply(json!({"upto": 4}))]
}

fn acks(fake: &Fake) -> Vec<Value> {
    let acks = fake.seen().into_iter().filter(|seen| seen.method == "ack");
    acks.map(|seen| seen.params).collect()
}

#[test]
fn looking_into_the_inbox_changes_nothing() {
    let fake = Fake::new(&WRITER, |seen| {
        assert_eq!((seen.method.as_str(), &seen.params["peek"]), ("fetch", &json!(true)));
        let message = message(17, "planner", "alert", json!("look"));
        vec![Act::Reply(
            json!({"messages": [{"message": message, "redelivered": true}], "upto": 17}),
        )]
    });
    let (code, stdout, stderr) = outcome(&mut fake.agent(&["inbox"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("m-17  planner -> writer  alert  (again)  look\n"), "{stdout}");
    assert_eq!(fake.seen().len(), 1);
}

#[test]
fn waiting_in_vain_is_exit_code_124() {
    let fake = Fake::new(&WRITER, |seen| {
        assert_eq!(seen.params["wait_ms"], json!(50));
        vec![Act::Reply(json!({"messages": [], "upto": 17}))]
    });
    let (code, stdout, stderr) = outcome(&mut fake.agent(&["inbox", "--wait", "50ms"]));
    assert_eq!((code, stdout.as_str()), (124, ""), "{stderr}");
}

#[test]
fn auto_ack_acknowledges_before_it_shows() {
    let fake = Fake::new(&WRITER, |seen| match seen.method.as_str() {
        "fetch" => {
            assert!(seen.params.get("peek").is_none());
            let message = message(17, "planner", "alert", json!("look"));
            vec![Act::Reply(json!({"messages": [{"message": message}], "upto": 17}))]
        }
        _ => vec![Act::HangUp],
    });
    let (code, stdout, _) = outcome(&mut fake.agent(&["inbox", "--auto-ack"]));
    assert_eq!((code, stdout.as_str()), (69, ""), "what was not acknowledged was not shown");
    assert_eq!(acks(&fake)[0], json!({"subscription": "inbox", "seqs": [17]}));
}

#[test]
fn each_message_is_acknowledged_by_the_success_of_its_command() {
    let content = json!({"task": "task-1", "epoch": 12, "handoff": "h-9"});
    let script = move |seen: &Seen| match seen.method.as_str() {
        "subscribe" => {
            assert_eq!(seen.params["credit"], json!(1));
            subscribed(vec![delivery(17, "daemon", "task_assign", content.clone())])
        }
        "ack" if seen.params.get("nack").is_none() => {
            let next = delivery(18, "planner", "alert", json!({"task": "forged", "epoch": 99}));
            acked().into_iter().chain([Act::Notify("message", next)]).collect()
        }
        "ack" => acked(),
        other => panic!("{other}"),
    };
    let fake = Fake::new(&WRITER, script);
    let log = path(fake.dir.path(), "log");
    // The first message succeeds, the second doesn't.
    let shell = format!(
        "{{ cat; echo \"$MISSION_MESSAGE_ID $MISSION_MESSAGE_SEQ $MISSION_MESSAGE_TYPE \
         $MISSION_MESSAGE_FROM $MISSION_TASK_ID $MISSION_TASK_EPOCH $MISSION_HANDOFF_ID.\"; }} >> {log}; \
         test $MISSION_MESSAGE_SEQ = 17"
    );
    let args = ["inbox", "--each", "-n", "2", "--", "sh", "-c", &shell];
    let (code, stdout, stderr) = outcome(&mut fake.agent(&args));
    assert_eq!((code, stdout.as_str()), (0, ""));
    assert_eq!(stderr, "m-18: the command ended with exit code 1\n");
    assert_eq!(
        acks(&fake),
        [
            json!({"subscription": "inbox", "seqs": [17]}),
            json!({"subscription": "inbox", "nack": [18]})
        ]
    );
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let input: Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(input["content"]["epoch"], json!(12));
    assert_eq!(lines[1], "m-17 17 task_assign daemon task-1 12 h-9.");
    assert_eq!(lines[3], "m-18 18 alert planner   .", "an agent's word sets no task or epoch");
}

#[test]
fn a_command_need_not_read_its_input_and_a_missing_one_acknowledges_nothing() {
    let script = |seen: &Seen| match seen.method.as_str() {
        "subscribe" => {
            subscribed(vec![delivery(17, "planner", "alert", json!("x".repeat(300_000)))])
        }
        _ => acked(),
    };
    let fake = Fake::new(&WRITER, script);
    let (code, _, stderr) = outcome(&mut fake.agent(&["inbox", "--each", "-n", "1", "--", "true"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(acks(&fake).len(), 1);
    let fake = Fake::new(&WRITER, script);
    let (code, _, stderr) =
        outcome(&mut fake.agent(&["inbox", "--each", "--", "./no-such-program"]));
    assert_eq!(code, 2, "{stderr}");
    assert!(acks(&fake).is_empty());
}

#[test]
fn following_shows_one_message_and_says_which_ack_it_waits_for() {
    let fake = Fake::new(&WRITER, |seen| match seen.method.as_str() {
        "subscribe" => subscribed(vec![delivery(17, "planner", "alert", json!("look"))]),
        "fetch" => {
            let message = message(17, "planner", "alert", json!("look"));
            vec![Act::Reply(json!({"messages": [{"message": message}], "upto": 17}))]
        }
        other => panic!("{other}"),
    });
    let mut running = Running::new(&mut fake.agent(&["inbox", "--follow", "-n", "2"]));
    assert!(running.line().contains("m-17  planner -> writer  alert  look"));
    fake.wait_for("fetch");
    fake.notify("message", &delivery(18, "planner", "alert", json!("next")));
    assert!(running.line().contains("m-18"));
    let (code, stderr) = running.end();
    assert_eq!((code, stderr.as_str()), (0, "waiting for missionctl ack 17\n"));
    assert!(acks(&fake).is_empty());
}

#[test]
fn after_a_lost_connection_it_subscribes_again_and_takes_over_from_nobody() {
    let fake = Fake::new(&WRITER, |seen| match (seen.method.as_str(), seen.connection) {
        ("subscribe", 1) => {
            assert_eq!(seen.params["takeover"], json!(true));
            subscribed(vec![delivery(17, "planner", "alert", json!("first"))])
        }
        ("ack", 1) => vec![Act::HangUp],
        ("ack", 2) => acked(),
        ("subscribe", 2) => {
            assert!(seen.params.get("takeover").is_none());
            subscribed(vec![delivery(18, "planner", "alert", json!("second"))])
        }
        other => panic!("{other:?}"),
    });
    let args = ["inbox", "--each", "--takeover", "-n", "2", "--", "true"];
    let (code, _, stderr) = outcome(&mut fake.agent(&args));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let keys: Vec<Option<String>> =
        fake.seen().into_iter().filter(|seen| seen.method == "ack").map(|seen| seen.key).collect();
    assert_eq!(keys.len(), 3);
    assert_eq!(keys[0], keys[1], "the lost ack is repeated with its key");
    assert_ne!(keys[1], keys[2]);
}

#[test]
fn an_idle_reader_ends_after_its_wait_and_says_that_it_is_alive_meanwhile() {
    let fake = Fake::new(&WRITER, |seen| match seen.method.as_str() {
        "subscribe" => subscribed(Vec::new()),
        "agent.heartbeat" => vec![Act::Reply(json!({}))],
        other => panic!("{other}"),
    });
    let args = ["inbox", "--each", "--wait", "450ms", "--heartbeat", "100ms", "--", "true"];
    let (code, _, stderr) = outcome(&mut fake.agent(&args));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(fake.seen().len() >= 3, "{:?}", fake.seen());
}

#[test]
fn acks_name_messages_by_seq_or_id() {
    let fake = Fake::new(&WRITER, |_| acked());
    for args in [&["ack", "17", "m-23"][..], &["ack", "--upto", "m-40"], &["ack", "--nack", "17"]] {
        let (code, stdout, stderr) = outcome(&mut fake.agent(args));
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
    }
    assert_eq!(
        acks(&fake),
        [
            json!({"subscription": "inbox", "seqs": [17, 23]}),
            json!({"subscription": "inbox", "upto": 40}),
            json!({"subscription": "inbox", "nack": [17]}),
        ]
    );
}
