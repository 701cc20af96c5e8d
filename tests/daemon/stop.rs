//! The end of a mission, and what is said of it.

use crate::mission::{Bench, DEADLINE, holds};
use missiond::proto::Method;
use missiond::proto::wire::{Empty, MissionStop};
use serde_json::{Value, json};

const DEAF: &str = r#"
isolation = 1
until = "stopped"
[agents.deaf]
role = "write"
command = ["sh", "-c", "trap '' TERM; while :; do sleep 600; done"]
grace = "10m"
"#;

/// The grace that was asked for was applied, and nobody could read later why agents had got so little.
#[tokio::test]
async fn the_grace_that_a_stop_gives_is_in_the_log() {
    let bench = Bench::new(DEAF);
    let mut daemon = bench.start(&[]);
    daemon.line(&["deaf", "runs"]);
    let mut watcher = bench.operator().await;
    watcher.follow().await;
    let operator = bench.operator().await;
    let stop = operator.call::<Empty>(Method::MissionStop, MissionStop { grace_ms: Some(17) });
    let seen = async {
        watcher.event("mission_stopping", holds("\"grace_ms\":17")).await;
        watcher.event("agent_stopping", holds("\"grace_ms\":17")).await
    };
    tokio::join!(stop, seen);
    daemon.ends_with(0);
}

/// An operator who went on asking kept the daemon from its end: there was always something to write.
#[tokio::test]
async fn whoever_goes_on_asking_keeps_nobody_from_the_end() {
    let bench = Bench::new(DEAF);
    let mut daemon = bench.start(&[]);
    daemon.line(&["deaf", "runs"]);
    let mut floods = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let operator = std::sync::Arc::new(bench.operator().await);
        for _ in 0..64 {
            let operator = std::sync::Arc::clone(&operator);
            floods.spawn(async move {
                let ask = json!({"type": "custom.x", "content": 1});
                let mut done = 0;
                // Until it is refused, or there is nobody left to ask.
                while operator.client.call::<_, Value>(Method::Publish, &ask).await.is_ok() {
                    done += 1;
                }
                done
            });
        }
    }
    let operator = bench.operator().await;
    let stop = MissionStop { grace_ms: Some(0) };
    let ended = operator.call::<Empty>(Method::MissionStop, stop);
    tokio::time::timeout(DEADLINE, ended).await.unwrap();
    let done: u64 = floods.join_all().await.into_iter().sum();
    assert!(done > 0);
    daemon.ends_with(0);
}
