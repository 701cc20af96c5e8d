//! `tail`, `events -f`, `logs -f`: what comes is shown at once, nothing twice, nothing is touched.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fake::{Act, Fake, OPERATOR, Running, agent, delivery, event, outcome};

#[test]
fn tail_shows_messages_as_they_come_and_acknowledges_none() {
    let fake = Fake::new(&OPERATOR, |seen| {
        assert_eq!(seen.method, "subscribe");
        assert_eq!(seen.params["subscription"], json!("tail"));
        assert_eq!(seen.params["types"], json!(["alert"]));
        let mut tick = delivery(17, "writer", "alert", json!({"n": 1}));
        tick["ephemeral"] = json!(true);
        tick["message"]["id"] = json!(null);
        vec![Act::Reply(json!({"position": 3})), Act::Notify("message", tick)]
    });
    let mut running =
        Running::new(&mut fake.operator(&["tail", "--type", "alert", "--from", "writer"]));
    let line = running.line();
    assert!(line.ends_with("-  writer -> writer  alert  (ephemeral)  {\"n\":1}"), "{line}");
    fake.notify("message", &delivery(18, "planner", "alert", json!("not asked for")));
    fake.notify("message", &delivery(19, "writer", "alert", json!("look")));
    assert!(running.line().ends_with("look"));
    running.stop();
    assert_eq!(fake.seen().len(), 1);
}

#[test]
fn events_are_shown_once_with_the_names_of_agents() {
    let assigned =
        |seq| event(seq, "task_assigned", json!({"task": "t", "to": 3, "claimed": false}));
    let added = event(19, "agent_added", json!({"spec": {"name": "late", "role": "write"}}));
    let fake = Fake::new(&OPERATOR, move |seen| match seen.method.as_str() {
        "agent.list" => vec![Act::Reply(json!([agent("writer")]))],
        "audit.read" if seen.params["follow"] == json!(true) => {
            assert_eq!(seen.params["since"], json!(17));
            let page = json!({"events": [assigned(18)], "head": 18});
            let mut requeued =
                event(20, "task_requeued", json!({"task": "t", "to": 19, "counted": true}));
            requeued["content"] = json!({"why": "a \u{1b}[1m"});
            let pushed = [assigned(18), added.clone(), requeued];
            std::iter::once(Act::Reply(page))
                .chain(pushed.into_iter().map(|event| Act::Notify("event", event)))
                .collect()
        }
        "audit.read" => {
            let since = seen.params["since"].as_u64().unwrap();
            let events: Vec<Value> = (since < 17).then(|| assigned(17)).into_iter().collect();
            vec![Act::Reply(json!({"events": events, "head": 17}))]
        }
        other => panic!("{other}"),
    });
    let mut running = Running::new(fake.operator(&["events", "-f"]).env("TZ", "UTC"));
    let lines: Vec<String> = (0..4).map(|_| running.line()).collect();
    running.stop();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    1970-01-01 00:00:01      17  task_assigned  daemon  task=t to=writer
    1970-01-01 00:00:01      18  task_assigned  daemon  task=t to=writer
    1970-01-01 00:00:01      19  agent_added  daemon  spec=name:late,role:write
    1970-01-01 00:00:01      20  task_requeued  daemon  counted=true task=t to=late {"why":"a \u001b[1m"}
    "#);
}

#[test]
fn the_whole_log_is_read_page_by_page() {
    let fake = Fake::new(&OPERATOR, |seen| {
        let since = seen.params["since"].as_u64().unwrap();
        let events: Vec<Value> = (since + 1..=2_500.min(since + 1_000))
            .map(|seq| json!({"seq": seq, "at": 1, "kind": "k", "actor": "daemon", "data": {}}))
            .collect();
        vec![Act::Reply(json!({"events": events, "head": 2_500}))]
    });
    let (code, stdout, _) = outcome(&mut fake.operator(&["events", "--since", "0", "-o", "jsonl"]));
    assert_eq!((code, stdout.lines().count()), (0, 2_500));
    let (_, stdout, _) = outcome(&mut fake.operator(&["events", "--since", "2490", "-o", "json"]));
    let list: Vec<Value> = serde_json::from_str(&stdout).unwrap();
    assert_eq!(list.len(), 10);
    let (_, stdout, _) = outcome(&mut fake.operator(&["events", "-n", "700", "-o", "jsonl"]));
    assert_eq!(stdout.lines().count(), 700);
    assert!(stdout.starts_with("{\"seq\":1801,"), "{}", stdout.lines().next().unwrap());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let fake = Fake::new(&OPERATOR, |_| {
        let events: Vec<Value> = (1..=900)
            .map(|seq| json!({"seq": seq, "at": 1, "kind": "k", "actor": "daemon", "data": {"x": "y".repeat(900)}}))
            .collect();
        vec![Act::Reply(json!({"events": events, "head": 900}))]
    });
    let mut running = Running::new(&mut fake.operator(&["events", "-n", "900", "-o", "jsonl"]));
    running.line();
    let (code, stderr) = running.end();
    assert_eq!((code, stderr.as_str()), (0, ""));
}

#[test]
fn a_stream_whose_daemon_goes_for_good_ends_with_69() {
    let fake = Fake::new(&OPERATOR, |_| vec![Act::Reply(json!({"position": 3}))]);
    let running = Running::new(&mut fake.operator(&["tail"]));
    fake.wait_for("subscribe");
    fake.hang_up(true);
    let (code, stderr) = running.end();
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.contains("no daemon answers now"), "{stderr}");
}

#[test]
fn logs_are_followed_over_a_rotation_until_the_daemon_ends() {
    let root = tempfile::tempdir().unwrap();
    let logs = root.path().join("agents/writer/log");
    std::fs::create_dir_all(&logs).unwrap();
    let write = |name: &str, text: &str| {
        let mut file =
            std::fs::File::options().append(true).create(true).open(logs.join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    write("stdout.log.1", "one\ntwo\n");
    write("stdout.log", "three\n");
    write("stderr.log", "oh \x1b[31mno\n");
    let state_dir = root.path().to_owned();
    let fake = Fake::new(&OPERATOR, move |_| {
        vec![Act::Reply(json!({
            "name": "m", "state": "running", "created": 1, "generation": 1, "started": 1, "pid": 1,
            "state_dir": state_dir, "head": 1, "agents": [agent("writer")], "tasks": [], "handoffs": [],
        }))]
    });
    let (code, stdout, _) = outcome(&mut fake.operator(&["logs", "writer", "-n", "2"]));
    assert_eq!((code, stdout.as_str()), (0, "out| two\nout| three\nerr| oh \x1b[31mno\n"));
    let (_, stdout, _) = outcome(&mut fake.operator(&["logs", "writer", "--stdout", "-n", "all"]));
    assert_eq!(stdout, "one\ntwo\nthree\n");
    let (_, stdout, _) =
        outcome(&mut fake.operator(&["logs", "writer", "--stderr", "-o", "jsonl"]));
    let line: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(line, json!({"stream": "stderr", "line": "oh \u{1b}[31mno"}));
    let (code, _, stderr) = outcome(&mut fake.operator(&["logs", "nobody"]));
    assert_eq!(code, 3, "{stderr}");

    let mut command = fake.operator(&["logs", "writer", "-f", "--stdout", "-n", "1"]);
    let mut running = Running::new(command.stdin(Stdio::null()));
    assert_eq!(running.line(), "three");
    write("stdout.log", "four\nfi");
    assert_eq!(running.line(), "four");
    write("stdout.log", "ve\n");
    std::fs::rename(logs.join("stdout.log"), logs.join("stdout.log.1")).unwrap();
    write("stdout.log", "six\nseven");
    assert_eq!([running.line(), running.line()], ["five", "six"]);
    fake.hang_up(true);
    assert_eq!(running.line(), "seven", "a last line without an end is shown at the end");
    let (code, stderr) = running.end();
    assert_eq!((code, stderr.as_str()), (0, "the daemon has gone: the log ends here\n"));
}
