//! Random readers against a model: whatever they do, nothing is lost, what is acknowledged never
//! comes again, and first deliveries are in order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Publish { direct: bool, count: usize },
    Fetch { limit: usize },
    Subscribe { credit: u32 },
    Disconnect,
    AckUpto(prop::sample::Index),
    AckOne(prop::sample::Index),
    Nack(prop::sample::Index),
    Sleep(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (any::<bool>(), 1usize..40).prop_map(|(direct, count)| Op::Publish { direct, count }),
        3 => (1usize..30).prop_map(|limit| Op::Fetch { limit }),
        2 => (1u32..20).prop_map(|credit| Op::Subscribe { credit }),
        1 => Just(Op::Disconnect),
        2 => any::<prop::sample::Index>().prop_map(Op::AckUpto),
        4 => any::<prop::sample::Index>().prop_map(Op::AckOne),
        1 => any::<prop::sample::Index>().prop_map(Op::Nack),
        2 => (1u64..40).prop_map(Op::Sleep),
    ]
}

/// What the reader knows.
#[derive(Default)]
struct Model {
    published: BTreeSet<u64>,
    /// Delivered and not acknowledged.
    open: BTreeSet<u64>,
    acked: BTreeSet<u64>,
    first: Vec<u64>,
}

impl Model {
    fn delivered(&mut self, seq: u64, redelivered: bool) {
        assert!(self.published.contains(&seq), "{seq} was never sent");
        assert!(!self.acked.contains(&seq), "{seq} was acknowledged");
        if !redelivered {
            assert!(self.first.last().is_none_or(|last| *last < seq), "{seq} out of order");
            self.first.push(seq);
        }
        self.open.insert(seq);
    }

    fn ack(&mut self, seq: u64) {
        self.open.remove(&seq);
        self.acked.insert(seq);
    }

    fn pick(&self, index: prop::sample::Index) -> Option<u64> {
        (!self.open.is_empty())
            .then(|| *self.open.iter().nth(index.index(self.open.len())).unwrap())
    }
}

struct Reader {
    rig: Rig,
    raw: Raw,
    is_subscribed: bool,
    model: Model,
}

impl Reader {
    /// Takes in what was pushed up to now.
    async fn drain(&mut self) {
        while let Some(pushed) = self.raw.notifications.pop_front() {
            let params = &pushed["params"];
            let seq = params["message"]["seq"].as_u64().unwrap();
            self.model.delivered(seq, params["redelivered"] == true);
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        let reply = self.rig.serve(self.raw.call(method, params)).await;
        self.drain().await;
        reply
    }

    async fn fetch(&mut self, limit: usize) -> usize {
        let reply = self.call("fetch", json!({"limit": limit})).await;
        if self.is_subscribed {
            assert_eq!(reply["error"]["data"]["code"], "conflict");
            return 0;
        }
        let messages = reply["result"]["messages"].as_array().unwrap();
        for message in messages {
            let seq = message["message"]["seq"].as_u64().unwrap();
            self.model.delivered(seq, message["redelivered"] == true);
        }
        messages.len()
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Publish { direct, count } => {
                for _ in 0..count {
                    let to: &[&str] = if direct { &["b"] } else { &[] };
                    let seq = self.rig.publish("a", to, json!("some content")).0;
                    self.model.published.insert(seq);
                }
            }
            Op::Fetch { limit } => {
                self.fetch(limit).await;
            }
            Op::Subscribe { credit } => {
                self.call("subscribe", json!({"credit": credit})).await;
                self.is_subscribed = true;
            }
            Op::Disconnect => {
                self.raw = self.rig.connect("b").await;
                self.is_subscribed = false;
                // The end of the former connection comes after the hello of this one.
                self.rig.serve(tokio::time::sleep(Duration::from_millis(5))).await;
            }
            Op::AckUpto(index) => {
                if let Some(upto) = self.model.pick(index) {
                    self.call("ack", json!({"upto": upto})).await;
                    let dealt_with = self.model.published.range(..=upto).copied();
                    for seq in dealt_with.collect::<Vec<_>>() {
                        self.model.ack(seq);
                    }
                }
            }
            Op::AckOne(index) => {
                if let Some(seq) = self.model.pick(index) {
                    self.call("ack", json!({"seqs": [seq]})).await;
                    self.model.ack(seq);
                }
            }
            Op::Nack(index) => {
                if let Some(seq) = self.model.pick(index) {
                    self.call("ack", json!({"nack": [seq]})).await;
                }
            }
            Op::Sleep(seconds) => {
                self.rig.serve(tokio::time::sleep(Duration::from_secs(seconds))).await;
            }
        }
        // What is on its way arrives.
        self.call("agent.heartbeat", json!({})).await;
    }

    /// A patient reader gets all that was not acknowledged.
    async fn finish(&mut self) {
        self.apply(Op::Disconnect).await;
        loop {
            self.apply(Op::Sleep(100)).await;
            if self.fetch(1_000).await == 0 {
                break;
            }
            for seq in self.model.open.clone() {
                self.call("ack", json!({"seqs": [seq]})).await;
                self.model.ack(seq);
            }
        }
        assert_eq!(self.model.acked, self.model.published);
        let cursor = self.rig.head.state().cursor(self.rig.uid("b"), &crate::core::inbox_name());
        assert!(cursor.is_none_or(|cursor| cursor.ranges.is_empty()), "{cursor:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_acknowledged_comes_again(
        ops in proptest::collection::vec(op(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let limits = Limits { max_nacks: 1_000, ..Limits::default() };
            let mut rig = Rig::with(limits, by_path, None);
            let raw = rig.connect("b").await;
            let model = Model::default();
            let mut reader = Reader { rig, raw, is_subscribed: false, model };
            for op in ops {
                reader.apply(op).await;
            }
            reader.finish().await;
        });
    }
}
