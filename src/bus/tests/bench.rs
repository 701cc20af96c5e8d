//! A measurement, not a test: `cargo test --release bus::tests::bench -- --ignored --nocapture`.

use super::*;
use std::io::Read;

#[test]
#[ignore = "a measurement"]
fn what_a_delivery_costs() {
    for readers in [1usize, 8, 64] {
        for ephemeral in [false, true] {
            for per_turn in [1, 16, 256] {
                measure(readers, ephemeral, per_turn);
            }
        }
    }
}

fn measure(readers: usize, ephemeral: bool, per_turn: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let limits = Limits { connections: 200, ..Limits::default() };
        let mut rig = Rig::with(limits, by_path, None);
        let mut drains = Vec::new();
        for n in 0..readers {
            // Tails: no credit in the way. Each is a mailbox of its own.
            let mut raw = rig.connect(["a", "b", "c"][n % 3]).await;
            rig.serve(raw.result("subscribe", json!({"subscription": "tail"}))).await;
            let stream = raw.read.into_inner().reunite(raw.write).unwrap().into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            drains.push(stream);
        }
        let total = 200_000 / readers;
        let drains: Vec<_> = drains
            .into_iter()
            .map(|mut stream| {
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 256 << 10];
                    let mut lines = 0;
                    while lines < total {
                        match stream.read(&mut buffer) {
                            Ok(n) if n > 0 => {
                                lines += buffer[..n].iter().filter(|b| **b == b'\n').count()
                            }
                            _ => break,
                        }
                    }
                    lines
                })
            })
            .collect();
        let uid = rig.uid("a");
        let (mut spent, mut sent) = (0, 0);
        while sent < total {
            let batch = per_turn.min(total - sent);
            let mut events = Vec::new();
            let mut ephemerals = Vec::new();
            for _ in 0..batch {
                let params =
                    json!({"type": "custom.x", "content": "0123456789", "ephemeral": ephemeral});
                let publish = serde_json::from_value(params).unwrap();
                let now = rig.now();
                let step =
                    rig.head.request(now, &Caller::Agent(uid), None, Request::Publish(publish));
                events.extend(step.events);
                ephemerals.extend(step.ephemeral);
            }
            let now = rig.now();
            let begin = cpu();
            rig.hub.deliver(now, &events, rig.head.state());
            rig.hub.ephemeral(&ephemerals, rig.head.state());
            rig.hub.flush();
            spent += cpu() - begin;
            sent += batch;
            rig.log.extend(events);
            // Readers that fell behind catch up before the next batch.
            rig.serve(tokio::task::yield_now()).await;
        }
        rig.serve(tokio::time::sleep(Duration::from_millis(300))).await;
        let deliveries = total * readers;
        println!(
            "{readers:>3} readers, ephemeral {ephemeral:5}: {} ns/delivery",
            spent / deliveries as u64
        );
        rig.hub.close().await;
        let got: usize = drains.into_iter().map(|d| d.join().unwrap()).sum();
        println!("    received {got} of {deliveries}");
    });
}

/// CPU time of this thread in nanoseconds.
fn cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}
