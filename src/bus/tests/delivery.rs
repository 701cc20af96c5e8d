//! Who gets which message when, and what comes again.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_message_reaches_those_it_is_for_in_order() {
    let mut rig = Rig::new();
    let (mut b, mut c) = (rig.connect("b").await, rig.connect("c").await);
    rig.serve(b.result("subscribe", json!({}))).await;
    rig.serve(c.result("subscribe", json!({}))).await;
    let first = rig.publish("a", &[], json!("to all")).0;
    let second = rig.publish("a", &["b"], json!({"only": "b"})).0;
    let third = rig.publish("a", &[], json!(3)).0;
    for seq in [first, second, third] {
        assert_eq!(rig.serve(b.message()).await, (seq, false));
    }
    for seq in [first, third] {
        assert_eq!(rig.serve(c.message()).await, (seq, false));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_acknowledged_comes_again_to_the_next_consumer() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    rig.serve(b.result("subscribe", json!({}))).await;
    let sent: Vec<_> = (0..3).map(|n| rig.publish("a", &["b"], json!(n)).0).collect();
    for seq in &sent {
        assert_eq!(rig.serve(b.message()).await, (*seq, false));
    }
    rig.serve(b.result("ack", json!({"upto": sent[0]}))).await;
    assert!(rig.hub.is_delivered(rig.uid("b"), Seq(sent[2])));
    drop(b);
    let mut b = rig.connect("b").await;
    let subscribed = rig.serve(b.result("subscribe", json!({}))).await;
    assert_eq!(subscribed["position"], sent[0]);
    assert_eq!(rig.serve(b.message()).await, (sent[1], true));
    assert_eq!(rig.serve(b.message()).await, (sent[2], true));
}

#[tokio::test(start_paused = true)]
async fn credit_holds_messages_back_until_an_ack() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    rig.serve(b.result("subscribe", json!({"credit": 1}))).await;
    let sent: Vec<_> = (0..3).map(|n| rig.publish("a", &["b"], json!(n)).0).collect();
    for seq in sent {
        assert_eq!(rig.serve(b.message()).await.0, seq);
        assert!(b.notifications.is_empty());
        rig.serve(b.result("agent.heartbeat", json!({}))).await;
        assert!(b.notifications.is_empty(), "nothing comes before the ack");
        rig.serve(b.result("ack", json!({"seqs": [seq]}))).await;
    }
    let cursor = rig.head.state().cursor(rig.uid("b"), &crate::core::inbox_name()).unwrap();
    assert!(cursor.ranges.is_empty(), "acks without a gap leave no ranges: {cursor:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_consumer_is_told_of_the_first_or_takes_over() {
    let mut rig = Rig::new();
    let (mut one, mut two) = (rig.connect("b").await, rig.connect("b").await);
    rig.serve(one.result("subscribe", json!({}))).await;
    let reply = rig.serve(two.call("subscribe", json!({}))).await;
    assert_eq!(reply["error"]["data"]["code"], "conflict");
    assert!(reply["error"]["message"].as_str().unwrap().contains("777"), "{reply}");
    assert_eq!(rig.serve(two.refusal("fetch", json!({}))).await, "conflict");
    let seq = rig.publish("a", &["b"], json!(1)).0;
    assert_eq!(rig.serve(one.message()).await, (seq, false));
    rig.serve(two.result("subscribe", json!({"takeover": true}))).await;
    assert_eq!(rig.serve(two.message()).await, (seq, true));
    let farewell = rig.serve(one.line()).await.unwrap();
    assert_eq!(farewell["error"]["data"]["code"], "conflict");
    assert_eq!(rig.serve(one.line()).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_fetched_message_is_hidden_for_thirty_seconds() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    let seq = rig.publish("a", &["b"], json!(1)).0;
    let peeked = rig.serve(b.result("fetch", json!({"peek": true}))).await;
    assert_eq!(seqs(&peeked), [seq]);
    let taken = rig.serve(b.result("fetch", json!({}))).await;
    assert_eq!(seqs(&taken), [seq]);
    assert!(taken["messages"][0]["redelivered"].is_null());
    assert!(seqs(&rig.serve(b.result("fetch", json!({}))).await).is_empty());
    // It stays hidden when the connection ends: a shell works on it.
    drop(b);
    let mut b = rig.connect("b").await;
    let begin = rig.now();
    let again = rig.serve(b.result("fetch", json!({"wait_ms": 60_000}))).await;
    assert_eq!(seqs(&again), [seq]);
    assert_eq!(again["messages"][0]["redelivered"], true);
    assert!((29_000..31_000).contains(&rig.now().since_ms(begin)));
    rig.serve(b.result("ack", json!({"seqs": [seq]}))).await;
    assert!(seqs(&rig.serve(b.result("fetch", json!({"peek": true}))).await).is_empty());
}

#[tokio::test(start_paused = true)]
async fn concurrent_fetches_share_a_subscription() {
    let mut rig = Rig::new();
    let (mut one, mut two) = (rig.connect("b").await, rig.connect("b").await);
    let sent: Vec<_> = (0..4).map(|n| rig.publish("a", &["b"], json!(n)).0).collect();
    let ask = json!({"limit": 2});
    assert_eq!(seqs(&rig.serve(one.result("fetch", ask.clone())).await), sent[..2]);
    assert_eq!(seqs(&rig.serve(two.result("fetch", ask)).await), sent[2..]);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_waits_for_a_message_or_its_time() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    let begin = rig.now();
    let none = rig.serve(b.result("fetch", json!({"wait_ms": 5_000}))).await;
    assert!(seqs(&none).is_empty());
    assert_eq!(none["upto"], rig.log.last().unwrap().seq.0);
    assert!((5_000..5_100).contains(&rig.now().since_ms(begin)));
    rig.serve(b.ask("fetch", json!({"wait_ms": 5_000}))).await;
    let mut a = rig.connect("a").await;
    rig.serve(a.result("publish", json!({"type": "alert", "content": 1}))).await;
    assert_eq!(seqs(&rig.serve(b.reply()).await["result"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_cancels_waits() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    rig.serve(b.ask("fetch", json!({"wait_ms": 600_000}))).await;
    let mut other = rig.connect("b").await;
    assert!(rig.hub.next_deadline().is_some());
    drop(b);
    rig.serve(other.result("agent.heartbeat", json!({}))).await;
    assert_eq!(rig.arrivals, ["disconnected"]);
    assert_eq!(rig.hub.next_deadline(), None);
}

#[tokio::test(start_paused = true)]
async fn a_nacked_message_comes_again_later_and_in_the_end_is_dead() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    rig.serve(b.result("subscribe", json!({}))).await;
    let seq = rig.publish("a", &["b"], json!(1)).0;
    let mut waited = Vec::new();
    for round in 0..5 {
        let begin = rig.now();
        assert_eq!(rig.serve(b.message()).await, (seq, round > 0));
        waited.push(rig.now().since_ms(begin) / 1_000);
        rig.serve(b.result("ack", json!({"nack": [seq]}))).await;
    }
    assert_eq!(waited, [0, 1, 2, 4, 8]);
    let later = rig.publish("a", &["b"], json!(2)).0;
    assert_eq!(rig.serve(b.message()).await, (later, false), "the dead one does not come");
    assert!(rig.log.iter().any(|event| event.kind() == "messages_dead"));
}

#[tokio::test(start_paused = true)]
async fn what_a_filter_skips_moves_the_cursor() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    rig.serve(b.result("subscribe", json!({"types": ["alert"]}))).await;
    let skipped = rig.publish_as("a", &["b"], "status_update", json!(1)).0;
    assert_eq!(rig.head.state().agent(rig.uid("b")).unwrap().inbox.held.len(), 1);
    rig.serve(tokio::time::sleep(Duration::from_millis(1_100))).await;
    let cursor = rig.head.state().cursor(rig.uid("b"), &crate::core::inbox_name()).unwrap();
    assert!(cursor.acked_upto.0 >= skipped);
    assert!(rig.head.state().agent(rig.uid("b")).unwrap().inbox.held.is_empty());
    let alert = rig.publish_as("a", &["b"], "alert", json!(2)).0;
    assert_eq!(rig.serve(b.message()).await, (alert, false));
    // A delivered message holds the cursor, whatever is skipped after it.
    rig.publish_as("a", &["b"], "status_update", json!(3));
    rig.serve(tokio::time::sleep(Duration::from_millis(1_100))).await;
    let cursor = rig.head.state().cursor(rig.uid("b"), &crate::core::inbox_name()).unwrap();
    assert!(cursor.acked_upto.0 < alert, "{cursor:?}");
}

#[tokio::test(start_paused = true)]
async fn advances_that_nobody_takes_are_no_busy_wait() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    rig.serve(b.result("subscribe", json!({"types": ["alert"]}))).await;
    rig.publish_as("a", &["b"], "status_update", json!(1));
    // A daemon on a full disk ticks, and takes no advances.
    let mut now = rig.now();
    for _ in 0..20 {
        now = rig.hub.next_deadline().unwrap().max(now);
        rig.hub.tick(now, rig.head.state());
    }
    assert!(now.since_ms(rig.now()) >= 9_000, "{} ms", now.since_ms(rig.now()));
    assert_eq!(rig.hub.advances(now.plus_ms(1_000)).len(), 1, "nothing is forgotten");
    assert_eq!(rig.hub.next_deadline(), None);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_reads_the_log_and_loses_nothing() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    rig.serve(b.result("subscribe", json!({"credit": 1024}))).await;
    let text = "x".repeat(1_000);
    let sent: Vec<_> = (0..12_000).map(|_| rig.publish("a", &[], json!(text)).0).collect();
    let queued = rig
        .hub
        .links
        .values()
        .map(|link| link.conn.owner.queued.load(std::sync::atomic::Ordering::Relaxed));
    assert!(queued.max().unwrap() < 400_000, "the queue is bounded");
    for (n, seq) in sent.iter().enumerate() {
        assert_eq!(rig.serve(b.message()).await, (*seq, false));
        if n % 100 == 99 {
            rig.serve(b.result("ack", json!({"upto": seq}))).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_subscriber_gets_what_was_sent_before() {
    let mut rig = Rig::new();
    let sent: Vec<_> = (0..10_000).map(|n| rig.publish("a", &[], json!(n)).0).collect();
    let mut b = rig.connect("b").await;
    rig.serve(b.result("subscribe", json!({"credit": 1000}))).await;
    for (n, seq) in sent.iter().enumerate() {
        assert_eq!(rig.serve(b.message()).await, (*seq, false));
        if n % 500 == 499 {
            rig.serve(b.result("ack", json!({"upto": seq}))).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_overtaken_by_pruning_is_told_what_is_missing() {
    let mut rig = Rig::new();
    let sent: Vec<_> = (0..6_000).map(|n| rig.publish("a", &[], json!(n)).0).collect();
    rig.floor = Seq(sent[999]);
    let mut b = rig.connect("b").await;
    rig.serve(b.result("subscribe", json!({}))).await;
    let lagged = rig.serve(b.notification()).await;
    assert_eq!(lagged["method"], "lagged");
    assert_eq!(lagged["params"]["to"], sent[999]);
    assert_eq!(rig.serve(b.message()).await, (sent[1000], false));
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_message_names_what_it_follows_and_promises_nothing() {
    let mut rig = Rig::new();
    let (mut a, mut b) = (rig.connect("a").await, rig.connect("b").await);
    let typing = json!({"type": "custom.typing", "content": 1, "ephemeral": true});
    rig.serve(a.result("publish", typing.clone())).await;
    rig.serve(b.result("subscribe", json!({"credit": 1}))).await;
    let seq = rig.publish("a", &["b"], json!(1)).0;
    rig.serve(a.result("publish", typing)).await;
    assert_eq!(rig.serve(b.message()).await.0, seq);
    let ephemeral = rig.serve(b.notification()).await;
    let params = &ephemeral["params"];
    assert_eq!(params["ephemeral"], true);
    assert_eq!(params["message"]["seq"], seq, "it follows the last durable event");
    assert!(params["message"]["id"].is_null());
    assert_eq!(rig.log.iter().filter(|event| is_published(event)).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tail_begins_now_and_needs_no_ack() {
    let mut rig = Rig::new();
    rig.publish("a", &[], json!(0));
    let (mut c, mut operator) = (rig.connect("c").await, rig.connect("control").await);
    rig.serve(c.result("subscribe", json!({"subscription": "tail", "credit": 1}))).await;
    rig.serve(operator.result("subscribe", json!({"subscription": "tail"}))).await;
    let private = rig.publish("a", &["b"], json!(1)).0;
    let all: Vec<_> = (0..3_000).map(|n| rig.publish("a", &[], json!(n)).0).collect();
    assert_eq!(rig.serve(operator.message()).await.0, private);
    for seq in all {
        assert_eq!(rig.serve(c.message()).await.0, seq);
        assert_eq!(rig.serve(operator.message()).await.0, seq);
    }
    assert!(rig.head.state().agent(rig.uid("c")).unwrap().inbox.cursors.is_empty());
    assert_eq!(rig.serve(operator.refusal("subscribe", json!({}))).await, "invalid");
}

#[tokio::test(start_paused = true)]
async fn who_loses_read_receives_no_more() {
    let mut rig = Rig::new();
    let mut c = rig.connect("c").await;
    rig.serve(c.result("subscribe", json!({}))).await;
    let seq = rig.publish("a", &[], json!(1)).0;
    assert_eq!(rig.serve(c.message()).await.0, seq);
    // A role without `read`.
    let uid = rig.uid("c");
    let blind = "blind".parse().unwrap();
    let mut state = rig.head.state().clone();
    state.roles.insert(blind, crate::core::spec::Permissions::NONE);
    rig.head = Head::from_state(state);
    let role = serde_json::from_value(json!({"agent": "c", "role": "blind"})).unwrap();
    rig.request(Caller::Operator, Request::AgentRole(role)).unwrap();
    let unseen = rig.publish("a", &["c"], json!(2)).0;
    assert_eq!(rig.serve(c.refusal("fetch", json!({"peek": true}))).await, "denied");
    assert!(c.notifications.is_empty());
    assert!(!rig.hub.is_delivered(uid, Seq(unseen)));
    let role = serde_json::from_value(json!({"agent": "c", "role": "read"})).unwrap();
    rig.request(Caller::Operator, Request::AgentRole(role)).unwrap();
    assert_eq!(rig.serve(c.message()).await, (unseen, false), "it was kept in the log");
}

#[tokio::test(start_paused = true)]
async fn receipts_are_for_the_sender() {
    let mut rig = Rig::new();
    let (mut a, mut b) = (rig.connect("a").await, rig.connect("b").await);
    let seq = rig.publish("a", &["b", "c"], json!(1)).0;
    rig.serve(b.result("fetch", json!({}))).await;
    let fetched = rig.serve(a.result("fetch", json!({"seqs": [seq]}))).await;
    let receipts = fetched["messages"][0]["receipts"].as_array().unwrap();
    let state = |name: &str| {
        let receipt = receipts.iter().find(|receipt| receipt["to"] == name).unwrap();
        receipt["state"].as_str().unwrap()
    };
    assert_eq!((state("b"), state("c")), ("delivered", "accepted"));
    assert_eq!(rig.serve(b.refusal("fetch", json!({"seqs": [seq]}))).await, "denied");
    assert_eq!(rig.serve(a.refusal("fetch", json!({"seqs": [1]}))).await, "not_found");
}

#[tokio::test(start_paused = true)]
async fn following_the_log_leaves_no_gap() {
    let mut rig = Rig::new();
    let mut operator = rig.connect("control").await;
    for n in 0..50 {
        rig.publish("a", &[], json!(n));
    }
    let ask = json!({"since": 5, "limit": 10, "follow": true});
    let page = rig.serve(operator.result("audit.read", ask)).await;
    let of = |event: &Value| event["seq"].as_u64().unwrap();
    let mut seen: Vec<u64> = page["events"].as_array().unwrap().iter().map(of).collect();
    assert_eq!(seen, (6..=15).collect::<Vec<_>>());
    let text = "y".repeat(500);
    for _ in 0..5_000 {
        rig.publish("a", &[], json!(text));
    }
    let last = rig.log.last().unwrap().seq.0;
    while seen.last() != Some(&last) {
        let event = rig.serve(operator.notification()).await;
        assert_eq!(event["method"], "event");
        seen.push(of(&event["params"]));
    }
    assert_eq!(seen, (6..=last).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn who_loses_audit_follows_the_log_no_longer() {
    let mut rig = Rig::new();
    let mut a = rig.connect("a").await;
    rig.serve(a.result("audit.read", json!({"follow": true}))).await;
    let seq = rig.publish("b", &["b"], json!("for b alone")).0;
    let event = rig.serve(a.notification()).await;
    assert_eq!(event["params"]["seq"], seq);
    let role = serde_json::from_value(json!({"agent": "a", "role": "write"})).unwrap();
    rig.request(Caller::Operator, Request::AgentRole(role)).unwrap();
    rig.publish("b", &["b"], json!("not for a"));
    let mut last = None;
    while let Some(line) = rig.serve(a.line()).await {
        assert!(!line.to_string().contains("not for a"), "{line}");
        last = Some(line);
    }
    assert_eq!(last.unwrap()["error"]["data"]["code"], "denied");
}

#[tokio::test(start_paused = true)]
async fn after_a_refold_unacknowledged_messages_come_again() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    rig.serve(b.result("subscribe", json!({}))).await;
    let seq = rig.publish("a", &["b"], json!(1)).0;
    assert_eq!(rig.serve(b.message()).await.0, seq);
    let before = rig.head.state().clone();
    rig.serve(b.result("ack", json!({"upto": seq}))).await;
    // The store failed: the ack was never durable.
    rig.head = Head::from_state(before);
    let now = rig.now();
    rig.hub.resync(now, rig.head.state());
    assert_eq!(rig.serve(b.message()).await.0, seq);
}
