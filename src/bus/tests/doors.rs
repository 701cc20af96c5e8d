//! Sockets and who is let in at them.

use super::*;
use crate::core::denied::Code;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::{Condvar, Mutex};

/// What a connection that is turned away is told.
async fn farewell(rig: &mut Rig, path: &std::path::Path) -> Value {
    let mut raw = Raw::connect(path).await;
    let line = rig.serve(raw.line()).await.expect("a last word");
    assert_eq!(rig.serve(raw.line()).await, None);
    line
}

#[tokio::test(start_paused = true)]
async fn a_stranger_at_an_agents_socket_is_refused_and_reported() {
    let mut rig = Rig::new();
    let uid = rig.uid("a");
    rig.hub.set_anchor(uid, Anchor::Process(ProcessId { pid: 777, start: 8 }));
    let path = rig.socket("a");
    let line = farewell(&mut rig, &path).await;
    assert_eq!(line["error"]["data"]["code"], "denied");
    assert_eq!(line["id"], Value::Null);
    let mut b = rig.connect("b").await;
    rig.serve(b.result("agent.heartbeat", json!({}))).await;
    assert_eq!(rig.arrivals, ["refused at a: the process does not descend from agent `a` (+0)"]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_at_the_control_socket_is_refused_and_floods_are_counted() {
    fn all_agents(_: &UnixStream) -> Result<Peer, PeerError> {
        let uid = nix::unistd::Uid::effective().as_raw();
        Ok(Peer { uid, no_new_privs: true, chain: vec![STRANGER, SHIM, DAEMON] })
    }
    let mut rig = Rig::with(Limits::default(), all_agents, None);
    let control = rig.control();
    for _ in 0..30 {
        let line = farewell(&mut rig, &control).await;
        assert_eq!(line["error"]["data"]["code"], "denied");
    }
    assert_eq!(rig.arrivals.len(), 10, "{:?}", rig.arrivals);
    assert!(rig.arrivals[0].contains("belongs to the mission (ancestor 777)"));
    rig.serve(tokio::time::sleep(Duration::from_secs(61))).await;
    farewell(&mut rig, &control).await;
    assert!(rig.arrivals[10].ends_with("(+20)"), "{:?}", rig.arrivals);
}

#[tokio::test(start_paused = true)]
async fn a_peer_waits_for_the_launch_of_its_agent() {
    let mut rig = Rig::new();
    let uid = rig.uid("b");
    rig.hub.set_anchor(uid, Anchor::Pending);
    let mut b = Raw::connect(&rig.socket("b")).await;
    rig.serve(b.ask("hello", json!({"version": 1}))).await;
    rig.serve(tokio::time::sleep(Duration::from_secs(2))).await;
    rig.hub.set_anchor(uid, Anchor::Process(SHIM));
    assert!(rig.serve(b.reply()).await["error"].is_null());
    // And not for ever.
    rig.hub.set_anchor(uid, Anchor::Pending);
    let path = rig.socket("b");
    let begin = rig.now();
    assert_eq!(farewell(&mut rig, &path).await["error"]["data"]["code"], "denied");
    assert!((5_000..5_200).contains(&rig.now().since_ms(begin)));
}

/// Peers were looked at on the loop's own thread: whoever's ancestors took the kernel long held up all.
#[tokio::test]
async fn while_a_peer_is_looked_at_everybody_else_is_served() {
    static LOOKING: tokio::sync::Notify = tokio::sync::Notify::const_new();
    static MAY_END: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    fn slow_at_b(stream: &UnixStream) -> Result<Peer, PeerError> {
        let address = stream.local_addr().map_err(PeerError::Socket)?;
        if address.as_pathname().unwrap().parent().unwrap().ends_with("b") {
            LOOKING.notify_one();
            let (may_end, changed) = &MAY_END;
            let waiting = may_end.lock().unwrap();
            let deadline = Duration::from_secs(20);
            let (may_end, _) = changed.wait_timeout_while(waiting, deadline, |end| !*end).unwrap();
            if !*may_end {
                return Err(PeerError::Socket(std::io::ErrorKind::TimedOut.into()));
            }
        }
        by_path(stream)
    }
    let mut rig = Rig::with(Limits::default(), slow_at_b, None);
    let mut a = rig.connect("a").await;
    let mut b = Raw::connect(&rig.socket("b")).await;
    rig.serve(LOOKING.notified()).await;
    rig.serve(a.result("agent.heartbeat", json!({}))).await;
    rig.connect("control").await;
    *MAY_END.0.lock().unwrap() = true;
    MAY_END.1.notify_all();
    rig.serve(b.result("hello", json!({"version": 1}))).await;
    assert!(!rig.arrivals.iter().any(|it| it.starts_with("refused")), "{:?}", rig.arrivals);
}

/// The kernel's word of a peer may be older than the end of its agent.
#[tokio::test]
async fn a_peer_of_an_agent_that_ended_while_it_was_looked_at_is_refused() {
    static LOOKING: tokio::sync::Notify = tokio::sync::Notify::const_new();
    static MAY_END: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    fn slow(stream: &UnixStream) -> Result<Peer, PeerError> {
        LOOKING.notify_one();
        let (may_end, changed) = &MAY_END;
        let waiting = may_end.lock().unwrap();
        let deadline = Duration::from_secs(20);
        drop(changed.wait_timeout_while(waiting, deadline, |end| !*end).unwrap());
        by_path(stream)
    }
    let mut rig = Rig::with(Limits::default(), slow, None);
    let mut b = Raw::connect(&rig.socket("b")).await;
    rig.serve(LOOKING.notified()).await;
    let uid = rig.uid("b");
    rig.hub.set_anchor(uid, Anchor::None);
    *MAY_END.0.lock().unwrap() = true;
    MAY_END.1.notify_all();
    let line = rig.serve(b.line()).await.expect("a last word");
    assert_eq!(line["error"]["data"]["code"], "denied");
    assert_eq!(rig.arrivals, ["refused at b: agent `b` has no process now (+0)"]);
}

#[tokio::test(start_paused = true)]
async fn an_operator_under_no_new_privs_shows_the_key() {
    fn orphan(_: &UnixStream) -> Result<Peer, PeerError> {
        let uid = nix::unistd::Uid::effective().as_raw();
        Ok(Peer { uid, no_new_privs: true, chain: vec![STRANGER] })
    }
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("operator.key");
    let mut rig = Rig::with(Limits::default(), orphan, Some(key.clone()));
    let control = rig.control();
    assert_eq!(farewell(&mut rig, &control).await["error"]["data"]["code"], "denied");
    std::fs::write(&key, "s3cret\n").unwrap();
    let mut wrong = Raw::connect(&control).await;
    let hello = json!({"version": 1, "operator_key": "other"});
    assert_eq!(rig.serve(wrong.refusal("hello", hello)).await, "denied");
    assert_eq!(rig.serve(wrong.line()).await, None);
    let mut right = Raw::connect(&control).await;
    rig.serve(right.result("hello", json!({"version": 1, "operator_key": "s3cret"}))).await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_connections_leave_memory_bounded_and_others_alone() {
    let mut rig = Rig::new();
    let mut c = rig.connect("c").await;
    let path = rig.socket("b");
    let flood = async {
        let mut open = Vec::new();
        for _ in 0..10_000 {
            // The kernel's queue may be full: that is its bound.
            if let Ok(stream) = UnixStream::connect(&path).await {
                open.push(stream);
            }
            if open.len() > 400 {
                open.remove(0);
            }
            tokio::task::yield_now().await;
        }
        open
    };
    let open = rig.serve(flood).await;
    assert!(rig.hub.connections() <= 33, "{}", rig.hub.connections());
    rig.serve(c.result("agent.heartbeat", json!({}))).await;
    rig.connect("control").await;
    drop(open);
    rig.serve(tokio::time::sleep(Duration::from_secs(60))).await;
    rig.connect("b").await;
}

#[tokio::test(start_paused = true)]
async fn the_connection_too_many_is_told_the_bound() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let mut rig = Rig::with(limits, by_path, None);
    let (_one, _two) = (rig.connect("b").await, rig.connect("b").await);
    let path = rig.socket("b");
    let line = farewell(&mut rig, &path).await;
    assert_eq!(line["error"]["data"]["code"], "limit");
    assert!(line["error"]["message"].as_str().unwrap().contains("limits.connections"));
    rig.connect("c").await;
}

#[tokio::test(start_paused = true)]
async fn sockets_are_for_their_owner_only() {
    let rig = Rig::new();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&rig.control()), 0o600);
    assert_eq!(mode(&rig.socket("a")), 0o600);
    assert_eq!(mode(rig.socket("a").parent().unwrap()), 0o700);
}

#[tokio::test(start_paused = true)]
async fn a_dead_daemons_socket_is_taken_over_and_a_file_is_not() {
    let mut rig = Rig::new();
    let directory = rig.directory.path().join("agents").join("x");
    let path = directory.join("bus.sock");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).unwrap();
    drop(StdListener::bind(&path).unwrap());
    let name = "x".parse().unwrap();
    rig.hub.listen_agent(AgentUid(99), &name, &path).unwrap();
    rig.hub.remove_agent(AgentUid(99));
    assert!(!path.exists(), "a closed socket leaves no file");
    std::fs::write(&path, "precious").unwrap();
    let error = rig.hub.listen_agent(AgentUid(99), &name, &path).unwrap_err();
    assert!(matches!(error, ListenError::Taken { .. }), "{error}");
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = rig.hub.listen_agent(AgentUid(99), &name, &path).unwrap_err();
    assert!(matches!(error, ListenError::Directory { mode: 0o755, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_too_long_is_named_with_its_length() {
    let mut rig = Rig::new();
    let path = rig.directory.path().join("y".repeat(100));
    let error = rig.hub.listen_control(&path).unwrap_err();
    let length = path.as_os_str().len();
    assert!(matches!(&error, ListenError::TooLong { length: l, .. } if *l == length), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_removed_agent_is_hung_up_on() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    rig.serve(b.ask("fetch", json!({"wait_ms": 600_000}))).await;
    rig.serve(tokio::time::sleep(Duration::from_millis(10))).await;
    let uid = rig.uid("b");
    rig.hub.remove_agent(uid);
    let mut lines = Vec::new();
    while let Some(line) = rig.serve(b.line()).await {
        lines.push(line["error"]["data"]["code"].as_str().unwrap().to_owned());
    }
    assert_eq!(lines, ["unavailable", "denied"]);
    assert_eq!(rig.hub.next_deadline(), None);
}

#[tokio::test(start_paused = true)]
async fn closing_writes_what_is_queued_and_removes_the_sockets() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    rig.hold = true;
    rig.serve(b.ask("agent.heartbeat", json!({}))).await;
    rig.serve(tokio::time::sleep(Duration::from_millis(10))).await;
    for inbound in std::mem::take(&mut rig.held) {
        rig.hub.reply(inbound.ticket, Ok(&Empty {}));
    }
    let (control, socket) = (rig.control(), rig.socket("b"));
    rig.hub.close().await;
    assert!(b.reply().await["error"].is_null());
    assert_eq!(b.line().await, None);
    assert!(!control.exists() && !socket.exists());
}

#[tokio::test(start_paused = true)]
async fn the_client_speaks_with_the_hub() {
    use crate::client::{Client, ClientError};
    use crate::core::view::Published;
    use crate::ids::Key;
    use crate::proto::wire::{Subscribe, Subscribed};
    use crate::proto::{Method, Notification};
    let mut rig = Rig::new();
    let (path, control) = (rig.socket("a"), rig.control());
    let talk = async {
        let (client, mut notifications) = Client::connect(&path).await.unwrap();
        assert_eq!(client.hello().you.to_string(), "a");
        let _: Subscribed = client.call(Method::Subscribe, &Subscribe::default()).await.unwrap();
        let publish = serde_json::json!({"type": "alert", "to": ["a"], "content": [1, 2.50]});
        let key = Key::new("k").unwrap();
        let first: Published =
            client.call_with_key(Method::Publish, &publish, Some(&key)).await.unwrap();
        let Some(Notification::Message(delivery)) = notifications.next().await else {
            panic!("a message")
        };
        assert_eq!(delivery.message.id, first.id);
        assert_eq!(delivery.message.content.get(), "[1,2.5]");
        let bad = client.call::<_, Published>(Method::Publish, &serde_json::json!({})).await;
        let Err(ClientError::Refused(denied)) = bad else { panic!("{bad:?}") };
        assert_eq!(denied.code, Code::Invalid);
        let (operator, _) = Client::connect(&control).await.unwrap();
        assert_eq!(operator.hello().you.to_string(), "operator");
        let unknown = serde_json::json!({"task": "nope"});
        let bad = operator.call::<_, Empty>(Method::TaskGet, &unknown).await;
        let Err(ClientError::Refused(denied)) = bad else { panic!("{bad:?}") };
        assert_eq!(denied.code, Code::NotFound);
    };
    rig.serve(talk).await;
}
