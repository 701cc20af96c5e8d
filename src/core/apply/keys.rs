//! Idempotency keys: kept for a time, bounded by number and by bytes.

use crate::core::event::KeyUsed;
use crate::core::spec::Limits;
use crate::core::state::{KeyRecord, Keys};

impl Keys {
    /// Keeps a key; the oldest go until there is room for it. The new one is kept in any case.
    pub(super) fn insert(&mut self, limits: &Limits, used: &KeyUsed, record: KeyRecord) {
        let bytes = record.bytes(&used.method, &used.key);
        let now = record.at;
        let fits = |keys: &Keys| {
            let oldest = keys.order.front();
            keys.order.len() < limits.keys_per_agent as usize
                && keys.bytes.saturating_add(bytes) <= limits.key_bytes
                && oldest.is_none_or(|(at, ..)| at.plus_ms(limits.key_ttl_ms) > now)
        };
        while !fits(self) {
            let Some((_, method, key)) = self.order.pop_front() else { break };
            let Some(of_method) = self.by_key.get_mut(&method) else { continue };
            if let Some(gone) = of_method.remove(&key) {
                self.bytes = self.bytes.saturating_sub(gone.bytes(&method, &key));
            }
            if of_method.is_empty() {
                self.by_key.remove(&method);
            }
        }
        self.order.push_back((now, used.method.clone(), used.key.clone()));
        let of_method = self.by_key.entry(used.method.clone()).or_default();
        self.bytes += bytes;
        if let Some(before) = of_method.insert(used.key.clone(), record) {
            self.bytes = self.bytes.saturating_sub(before.bytes(&used.method, &used.key));
        }
    }

    /// Counts the bytes anew, after a snapshot was read.
    pub(super) fn count(&mut self) {
        let all = self.by_key.iter().flat_map(|(method, keys)| {
            keys.iter().map(move |(key, record)| record.bytes(method, key))
        });
        self.bytes = all.sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::KeptReply;
    use crate::core::json::Json;
    use crate::ids::{BlobHash, Key, Timestamp};

    fn use_key(keys: &mut Keys, limits: &Limits, key: &str, answer: usize) {
        let reply = KeptReply { kind: "done".into(), view: Json::of(&"x".repeat(answer)).unwrap() };
        let used = KeyUsed {
            agent: None,
            method: "publish".into(),
            key: Key::new(key).unwrap(),
            digest: BlobHash([0; 32]),
            reply: reply.clone(),
        };
        let record = KeyRecord { digest: used.digest, at: Timestamp(0), reply };
        keys.insert(limits, &used, record);
    }

    /// The number alone was bounded: ten thousand large answers of each agent were kept.
    #[test]
    fn large_answers_push_out_older_ones_and_the_newest_is_kept_in_any_case() {
        let limits = Limits { key_bytes: 3_000, keys_per_agent: 4, ..Limits::default() };
        let mut keys = Keys::default();
        for (key, answer, kept) in [
            ("a", 900, 1),
            ("b", 900, 2),
            ("c", 900, 3),
            ("d", 900, 3),
            ("e", 2_500, 1),
            ("f", 9_000, 1),
            ("g", 10, 1),
            ("h", 10, 2),
            ("i", 10, 3),
            ("j", 10, 4),
            ("k", 10, 4),
            ("k", 20, 4),
        ] {
            use_key(&mut keys, &limits, key, answer);
            assert_eq!(keys.order.len(), kept, "after {key}");
            let counted = keys.bytes;
            keys.count();
            assert_eq!(keys.bytes, counted, "after {key}");
            assert!(kept == 1 || counted <= limits.key_bytes, "after {key}: {counted}");
        }
        assert_eq!(keys.by_key["publish"].last_key_value().unwrap().0.as_str(), "k");
    }
}
