//! The bus: other people's doors, more than the role gives, and input that is none.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code outside of a test function"
)]

use std::time::Duration;

use serde_json::{Value, json};

use crate::bus::code;
use crate::deed::Deed;
use crate::puppet::Puppet;
use crate::stage::{Daemon, Stage, under_load};

pub(crate) fn doors_of_others_are_shut(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "lead", "");
    let mut victim = stage.agent("b", "write", "");
    let mut daemon = stage.start();
    let ready = agent.ready();
    victim.ready();
    let (control, other) = (stage.control(), stage.socket("b"));
    let link = stage.path("ws/link");
    agent.text(&Deed::Symlink(other.clone(), link.clone()));
    let attack = [
        ("publish", json!({"type": "alert", "content": "in the name of another"})),
        ("task.create", json!({"id": "stolen", "title": "x"})),
        ("mission.stop", json!({})),
    ];
    for socket in [&control, &other, &link] {
        let answers = agent.ask_at(socket, &attack);
        assert_eq!(answers.len(), 1, "{}: {answers:?}", socket.display());
        assert_eq!(code(&answers[0]), "denied", "{}: {answers:?}", socket.display());
        // Nor by a process that was forked away.
        let calls = attack.iter().map(|(m, p)| ((*m).to_owned(), p.clone())).collect();
        let ask = Deed::Ask { socket: Some(socket.clone()), calls };
        let told = agent.text(&Deed::Orphan(Box::new(ask)));
        let answers: Vec<Value> = serde_json::from_str(&told).unwrap();
        assert_eq!((answers.len(), code(&answers[0])), (1, "denied"), "{told}");
    }
    // The program that speaks for operators is no way either.
    let stopped = agent.text(&Deed::Sh(format!(
        "unset MISSION_SOCKET; XDG_RUNTIME_DIR={} missionctl -m demo stop; echo code $?",
        stage.path("run").display()
    )));
    assert!(stopped.contains("code 4"), "{stopped}");
    for (door, why) in [("control", "belongs to the mission"), ("b", "does not descend")] {
        let event = stage.event("peer_refused", |event| {
            event["data"]["socket"] == door && event["data"]["pid"] == ready.pid
        });
        assert!(event["data"]["reason"].as_str().unwrap().contains(why), "{event}");
    }
    let kinds: Vec<String> =
        stage.operator().events().iter().map(|e| e["kind"].as_str().unwrap().to_owned()).collect();
    for kind in ["message_published", "task_created", "mission_stopping"] {
        assert!(!kinds.iter().any(|k| k == kind), "{kind} happened: {kinds:?}");
    }
    // Its own door is open.
    agent.is_served_within(crate::stage::DEADLINE);
    victim.is_served_within(crate::stage::DEADLINE);
    daemon.stop();
}

pub(crate) fn a_role_is_not_exceeded(_: &str) {
    let mut stage = Stage::new();
    let mut lead = stage.agent("l", "lead", "");
    let mut writer = stage.agent("w", "write", "");
    let mut other = stage.agent("x", "write", "");
    let mut reader = stage.agent("r", "read", "");
    let mut auditor = stage.agent("au", "audit", "");
    stage.more("[[tasks]]\nid = \"t1\"\ntitle = \"first\"\nassign = \"x\"\n");
    stage.more("[[tasks]]\nid = \"t2\"\ntitle = \"second\"\n");
    let mut daemon = stage.start();
    for agent in [&mut lead, &mut writer, &mut other, &mut reader, &mut auditor] {
        agent.ready();
    }
    let secret = json!({"type": "alert", "to": ["x"], "content": "FOR-X-ALONE"});
    let sent = lead.ask("publish", &secret);
    let seq = sent["result"]["seq"].as_u64().unwrap();
    let task = other.ask("task.get", &json!({"task": "t1"}));
    let epoch = task["result"]["epoch"].clone();
    other.ask("task.update", &json!({"task": "t1", "epoch": epoch, "progress": 1}));
    let handoff = lead.ask("handoff.request", &json!({"from": "x", "to": "w", "task": "t1"}));
    let id = handoff["result"]["id"].clone();
    assert!(id.is_string(), "{handoff}");

    let publish = ("publish", json!({"type": "broadcast", "content": "x"}));
    let progress = json!({"type": "status_update", "content": "x", "ephemeral": true});
    let create = ("task.create", json!({"id": "t9", "title": "x"}));
    let assign = ("task.assign", json!({"task": "t2", "to": "w"}));
    let claim = ("task.claim", json!({"task": "t2"}));
    let cancel = ("task.cancel", json!({"task": "t1"}));
    let request = ("handoff.request", json!({"from": "x", "to": "l", "task": "t1"}));
    let accept = ("handoff.accept", json!({"handoff": id}));
    let reject = ("handoff.reject", json!({"handoff": id}));
    let complete = ("handoff.complete", json!({"handoff": id}));
    let withdraw = ("handoff.cancel", json!({"handoff": id}));
    let role = ("agent.role", json!({"agent": "r", "role": "lead"}));
    let stop = ("agent.stop", json!({"agent": "x"}));
    let restart = ("agent.restart", json!({"agent": "x"}));
    let end = ("mission.stop", json!({}));
    let audit = ("audit.read", json!({}));
    let follow = ("audit.read", json!({"follow": true}));
    let settle = ("task.complete", json!({"task": "t1", "epoch": epoch, "result": 1}));
    let save = ("checkpoint.save", json!({"task": "t1", "epoch": epoch, "json": 1}));

    let before = stage.operator().call("task.list", &json!({}));
    let beyond_all = [&role, &stop, &restart, &end];
    let of_reader = [
        &publish,
        &("publish", progress.clone()),
        &create,
        &assign,
        &claim,
        &cancel,
        &request,
        &accept,
        &reject,
        &complete,
        &withdraw,
        &audit,
        &follow,
        &settle,
        &save,
    ];
    let of_auditor = [
        &publish,
        &("publish", progress),
        &create,
        &assign,
        &claim,
        &cancel,
        &request,
        &accept,
        &reject,
        &complete,
        &withdraw,
        &settle,
        &save,
    ];
    let of_writer = [&assign, &cancel, &request, &audit, &follow];
    let mut refused = 0;
    let tries: [(&mut Puppet, Vec<&(&str, Value)>); 3] = [
        (&mut reader, [&of_reader[..], &beyond_all].concat()),
        (&mut auditor, [&of_auditor[..], &beyond_all].concat()),
        (&mut writer, [&of_writer[..], &beyond_all].concat()),
    ];
    for (agent, calls) in tries {
        for (method, params) in calls {
            let answer = agent.ask(method, params);
            assert_eq!(code(&answer), "denied", "{} {method} {params}: {answer}", agent.name);
            refused += 1;
        }
    }
    // Not the owner of the task: whatever the code, nothing is done.
    for (method, params) in [&settle, &save] {
        let answer = writer.ask(method, params);
        assert!(!code(&answer).is_empty(), "w {method}: {answer}");
    }
    // A third agent's direct messages, by every way of reading.
    for agent in [&mut reader, &mut writer] {
        let looks = [
            ("fetch", json!({"seqs": [seq]})),
            ("fetch", json!({"peek": true, "limit": 1000})),
            ("fetch", json!({"subscription": "tail-of-x", "peek": true, "limit": 1000})),
            ("subscribe", json!({"subscription": "tail"})),
            ("subscribe", json!({"subscription": "x"})),
        ];
        for (method, params) in looks {
            let answer = agent.ask(method, &params);
            assert!(
                !answer.to_string().contains("FOR-X-ALONE"),
                "{} {method} {params}",
                agent.name
            );
        }
    }
    let own = other.ask("fetch", &json!({"peek": true}));
    assert!(own.to_string().contains("FOR-X-ALONE"), "its addressee has it: {own}");

    let mut operator = stage.operator();
    assert_eq!(operator.call("task.list", &json!({})), before, "no task has changed");
    let events = operator.events();
    let denied =
        events.iter().filter(|e| e["kind"] == "request_denied" && e["data"]["code"] == "denied");
    assert!(denied.count() >= refused, "{refused} refusals are in the log");
    for agent in ["r", "au", "w"] {
        let told = |e: &&Value| {
            e["kind"] == "request_denied"
                && e["actor"].to_string().contains(&format!("\"{agent}\""))
        };
        assert!(events.iter().any(|e| told(&e)), "the log names {agent}");
    }
    let published = events.iter().filter(|e| e["kind"] == "message_published");
    let by = |name: &str| {
        published
            .clone()
            .filter(|e| e["actor"].to_string().contains(&format!("\"{name}\"")))
            .count()
    };
    assert_eq!((by("r"), by("au"), by("w"), by("l")), (0, 0, 0, 1));
    println!("NOTE {refused} requests denied");
    daemon.stop();
}

/// How long another agent may wait while one misbehaves, on a quiet machine.
const MEANWHILE: Duration = Duration::from_secs(3);
/// What bad input may cost the daemon, in KiB of resident memory at the most.
const GROWTH_KIB: u64 = 64 << 10;

pub(crate) fn bad_input_ends_its_connection_and_nobody_elses(_: &str) {
    let mut stage = Stage::new();
    let mut bad = stage.agent("bad", "write", "");
    let mut silent = stage.agent("silent", "write", "");
    let mut good = stage.agent("good", "write", "");
    let mut daemon = stage.start();
    for agent in [&mut bad, &mut silent, &mut good] {
        agent.ready();
    }
    good.is_served_within(under_load(MEANWHILE));
    let before_kib = daemon.memory_kib("VmRSS");

    // Half a frame, and then nothing: it is given up, while all the rest goes on.
    silent.begin(&Deed::Stream {
        head: br#"{"jsonrpc":"2.0","id":1,"method":"#.to_vec(),
        fill: Vec::new(),
        times: 0,
        tail: Vec::new(),
    });
    wrong_requests(&mut bad);
    good.is_served_within(under_load(MEANWHILE));
    wrong_bytes(&mut bad, &mut good);
    assert_eq!(bad.text(&Deed::PassDescriptors), "dropped");
    good.is_served_within(under_load(MEANWHILE));

    bad.begin(&Deed::Connect(10_000));
    for _ in 0..5 {
        good.is_served_within(under_load(MEANWHILE));
    }
    stage.operator().call("mission.status", &json!({}));
    let connected = bad.answer();
    assert_eq!(connected.errno, 0, "{}", connected.text);
    good.is_served_within(under_load(MEANWHILE));

    let half = silent.answer();
    let half: Value = serde_json::from_str(&half.text).unwrap();
    assert_eq!(half["hung_up"], true, "{half}");
    bounded(&daemon, before_kib);
    // Nobody has spoken in another's name.
    let events = stage.operator().events();
    assert!(!events.iter().any(|event| event["kind"] == "message_published"), "{events:?}");
    println!("NOTE 10,000 connections of an agent: {}", connected.text);
    daemon.stop();
}

fn bounded(daemon: &Daemon, before_kib: u64) {
    let most_kib = daemon.memory_kib("VmHWM");
    assert!(
        most_kib <= before_kib + GROWTH_KIB,
        "the daemon took {most_kib} KiB, before {before_kib} KiB"
    );
    println!("NOTE the daemon took {most_kib} KiB at most, {before_kib} KiB before");
}

/// Well-formed JSON that is no request.
fn wrong_requests(bad: &mut Puppet) {
    let says = json!({"type": "broadcast", "content": "x", "from": "good"});
    let answer = bad.ask("publish", &says);
    assert_eq!(code(&answer), "invalid", "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("from"), "{answer}");
    for (method, params) in [
        ("publlsh", json!({})),
        ("", json!({})),
        ("x\u{0}y", json!({})),
        ("hello", json!({"version": 1, "you": "good"})),
        ("publish", json!({"type": "broadcast"})),
        ("publish", json!({"type": "nonsense", "content": 1})),
        ("publish", json!({"type": "broadcast", "content": 1, "to": "good"})),
        ("publish", json!({"type": "broadcast", "content": 1, "to": ["../good"]})),
        ("publish", json!(["broadcast", [], 1])),
        ("publish", json!("x")),
        ("ack", json!({"upto": -1})),
        ("ack", json!({"seqs": [1.5]})),
        ("task.update", json!({"task": "t", "epoch": 1e300})),
    ] {
        let answer = bad.ask(method, &params);
        assert!(answer["error"].is_object(), "{method} {params}: {answer}");
        assert!(["invalid", "not_found"].contains(&code(&answer)), "{method} {params}: {answer}");
    }
    // To somebody who isn't there.
    let lost = bad.ask("publish", &json!({"type": "alert", "content": 1, "to": ["nobody"]}));
    assert_eq!(code(&lost), "not_found", "{lost}");
}

/// What it is, and its bytes: once, repeated so many times, once.
type Bytes<'a> = (&'a str, &'a [u8], &'a [u8], usize, &'a [u8]);

/// Lines that are no JSON, or too much of it.
fn wrong_bytes(bad: &mut Puppet, good: &mut Puppet) {
    let publish =
        br#"{"jsonrpc":"2.0","id":1,"method":"publish","params":{"type":"broadcast","content":"#;
    let cases: [Bytes<'_>; 9] = [
        ("1 GiB", br#"{"jsonrpc":"2.0","id":1,"method":""#, b"a", 1 << 30, b"\"}\n"),
        ("1 GiB of nothing", b"", b" ", 1 << 30, b"\n"),
        ("deep content", publish, b"[", 400 << 10, b"1\n"),
        (
            "deep params",
            br#"{"jsonrpc":"2.0","id":1,"method":"publish","params":"#,
            b"{\"a\":",
            1 << 15,
            b"1\n",
        ),
        ("deep and even", publish, b"[[[[[[[[", 16, &[&[b']'; 128][..], b"}}\n"].concat()),
        (
            "invalid UTF-8",
            br#"{"jsonrpc":"2.0","id":1,"method":"a"#,
            b"\xff\xfe\x80\xc0\xaf",
            10,
            b"\"}\n",
        ),
        ("half a surrogate", publish, br#""\ud800""#, 1, b"}}\n"),
        ("NUL", b"\0\0\0\0\n", b"\0", 100, b"\n"),
        ("a batch", br#"[{"jsonrpc":"2.0","id":1,"method":"agent.list"}"#, b",1", 10, b"]\n"),
    ];
    for (name, head, fill, times, tail) in cases {
        let (head, fill, tail) = (head.to_vec(), fill.to_vec(), tail.to_vec());
        // Only the first answer counts; then it hangs up or waits for more, and so must not be waited for.
        bad.begin(&Deed::Stream { head, fill, times, tail: [tail, b"!\n".to_vec()].concat() });
        good.is_served_within(under_load(MEANWHILE));
        let answer = bad.text_of_begun();
        let told: Value = serde_json::from_str(&answer).unwrap();
        let refused = told["answer"]["error"].is_object() || told["hung_up"] == true;
        assert!(refused, "{name}: {answer}");
        assert!(told["answer"].get("result").is_none(), "{name}: {answer}");
        let written = told["written"].as_u64().unwrap();
        assert!(written < 8 << 20, "{name}: it took {written} bytes");
    }
}
