//! Bad input and too much of it: typed errors, bounded memory, others unaffected.

use super::*;
use std::sync::atomic::Ordering;

#[tokio::test(start_paused = true)]
async fn bad_lines_get_typed_errors_and_the_connection_lives() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    for bad in [
        &b"{\n"[..],
        b"\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"xyz\"}\n",
    ] {
        rig.serve(b.send(bad)).await;
        let reply = rig.serve(b.reply()).await;
        assert_eq!(reply["error"]["data"]["code"], "invalid", "{reply}");
    }
    rig.serve(b.result("agent.heartbeat", json!({}))).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_before_hello() {
    let mut rig = Rig::new();
    let mut b = Raw::connect(&rig.socket("b")).await;
    assert_eq!(rig.serve(b.refusal("agent.list", json!({}))).await, "invalid");
    rig.serve(b.result("hello", json!({"version": 1}))).await;
    rig.serve(b.result("agent.list", json!({}))).await;
}

#[tokio::test(start_paused = true)]
async fn an_endless_line_is_cut_off_and_costs_a_mebibyte() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    let mut c = rig.connect("c").await;
    let flood = async {
        let chunk = vec![b'x'; 64 << 10];
        let mut sent = 0usize;
        // Ends with an error when the other side hangs up.
        while b.write.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
            assert!(sent < 4 << 20, "the server reads on and on");
        }
        b
    };
    let mut b = rig.serve(flood).await;
    let reply = rig.serve(b.line()).await.unwrap();
    assert_eq!(reply["error"]["data"]["code"], "limit");
    assert_eq!(rig.serve(b.line()).await, None);
    rig.serve(c.result("agent.heartbeat", json!({}))).await;
}

#[tokio::test(start_paused = true)]
async fn half_a_line_has_ten_seconds() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    let begin = rig.now();
    let drip = async {
        // Bytes that keep coming don't move the deadline.
        for _ in 0..4 {
            b.send(b"{").await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        b.line().await
    };
    let reply = rig.serve(drip).await.unwrap();
    assert_eq!(reply["error"]["data"]["code"], "timeout");
    assert!((10_000..10_200).contains(&rig.now().since_ms(begin)));
    assert_eq!(rig.serve(b.line()).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_may_stay() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    rig.serve(tokio::time::sleep(Duration::from_secs(3600))).await;
    rig.serve(b.result("agent.heartbeat", json!({}))).await;
}

#[tokio::test(start_paused = true)]
async fn beyond_256_outstanding_requests_nothing_is_read() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    let mut c = rig.connect("c").await;
    rig.hold = true;
    for _ in 0..300 {
        rig.serve(b.ask("agent.heartbeat", json!({}))).await;
    }
    rig.serve(tokio::time::sleep(Duration::from_millis(10))).await;
    assert_eq!(rig.held.len(), 256);
    rig.hold = false;
    rig.serve(c.result("agent.heartbeat", json!({}))).await;
    for inbound in std::mem::take(&mut rig.held) {
        rig.carry_out(inbound);
    }
    for _ in 0..300 {
        rig.serve(b.reply()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_while_nothing_is_read_cancels_its_waits() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    for _ in 0..300 {
        rig.serve(b.ask("fetch", json!({"wait_ms": 600_000}))).await;
    }
    rig.serve(tokio::time::sleep(Duration::from_millis(10))).await;
    assert!(rig.hub.next_deadline().is_some());
    drop(b);
    rig.serve(tokio::time::sleep(Duration::from_millis(10))).await;
    assert_eq!(rig.arrivals, ["disconnected"]);
    assert_eq!(rig.hub.next_deadline(), None);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_is_answered_unavailable() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    rig.hold = true;
    rig.serve(b.ask("agent.heartbeat", json!({}))).await;
    rig.serve(tokio::time::sleep(Duration::from_millis(10))).await;
    rig.held.clear();
    let reply = rig.serve(b.reply()).await;
    assert_eq!(reply["error"]["data"]["code"], "unavailable");
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_per_second_are_refused_and_then_slowed_down() {
    let limits = Limits { requests_per_second: 20, ..Limits::default() };
    let mut rig = Rig::with(limits, by_path, None);
    let mut b = rig.connect("b").await;
    let begin = rig.now();
    let mut refused = 0;
    for _ in 0..59 {
        let reply = rig.serve(b.call("agent.heartbeat", json!({}))).await;
        if !reply["error"].is_null() {
            assert_eq!(reply["error"]["data"]["code"], "limit");
            refused += 1;
        }
    }
    assert!(refused > 0);
    assert!(rig.now().since_ms(begin) >= 900, "{} ms", rig.now().since_ms(begin));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_no_answers_is_not_read_from() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    // Errors of 200 bytes; the peer never reads them.
    let line = format!("{}\n", "x".repeat(100));
    let mut sent = 0;
    let flood = async {
        loop {
            let write =
                tokio::time::timeout(Duration::from_secs(5), b.write.write_all(line.as_bytes()));
            if write.await.is_err() {
                return;
            }
            sent += 1;
            assert!(sent < 1_000_000, "the server takes more and more");
        }
    };
    rig.serve(flood).await;
    let owner = &rig.hub.agents[&rig.uid("b")].owner;
    assert!(owner.queued.load(Ordering::Relaxed) < 400_000);
    let mut c = rig.connect("c").await;
    rig.serve(c.result("agent.heartbeat", json!({}))).await;
}

#[tokio::test(start_paused = true)]
async fn large_answers_that_nobody_reads_end_the_connection() {
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    rig.hold = true;
    for _ in 0..20 {
        rig.serve(b.ask("agent.heartbeat", json!({}))).await;
    }
    rig.serve(tokio::time::sleep(Duration::from_millis(10))).await;
    let huge = "x".repeat(8 << 20);
    for inbound in std::mem::take(&mut rig.held) {
        rig.hub.reply(inbound.ticket, Ok(&huge));
    }
    rig.hold = false;
    let uid = rig.uid("b");
    assert!(rig.hub.agents[&uid].owner.queued.load(Ordering::Relaxed) <= quota::OWNER_BYTES);
    let mut c = rig.connect("c").await;
    rig.serve(c.result("agent.heartbeat", json!({}))).await;
    assert_eq!(rig.arrivals, ["disconnected"]);
    assert_eq!(rig.hub.agents[&uid].owner.queued.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_connection_gets_its_answers() {
    let mut rig = Rig::new();
    let mut b = Raw::connect(&rig.socket("b")).await;
    let talk = async {
        b.ask("hello", json!({"version": 1})).await;
        b.ask("agent.list", json!({})).await;
        b.write.shutdown().await.unwrap();
        (b.reply().await, b.reply().await, b.line().await)
    };
    let (hello, list, end) = rig.serve(talk).await;
    assert!(hello["error"].is_null() && list["error"].is_null());
    assert_eq!(end, None);
}

#[tokio::test(start_paused = true)]
async fn sent_descriptors_are_dropped() {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd;
    let mut rig = Rig::new();
    let mut b = rig.connect("b").await;
    let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (read, write) = nix::unistd::pipe().unwrap();
    let line = b"{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"agent.heartbeat\"}\n";
    for _ in 0..50 {
        sendmsg::<()>(
            b.write.as_ref().as_raw_fd(),
            &[std::io::IoSlice::new(line)],
            &[ControlMessage::ScmRights(&[write.as_raw_fd(); 4])],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        rig.serve(b.reply()).await;
    }
    drop(write);
    // With every copy gone, the pipe is at its end; other tests may open files meanwhile.
    let mut end = std::fs::File::from(read);
    assert_eq!(std::io::Read::read(&mut end, &mut [0]).unwrap(), 0);
    assert!(before > 0);
}
