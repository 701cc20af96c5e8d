//! What must be true at the end of a seed, when everything has come to rest.

use missiond::core::head::Caller;
use missiond::core::request::Request;
use missiond::core::view::AgentStateName::{Starting, Stopping, Waiting};
use missiond::core::view::Reply;
use missiond::core::view::TaskStateName::{Active, Assigned, Pending};
use missiond::ids::{SubscriptionName, Timestamp};

use super::model::{Verdict, ensure};
use super::random::Random;
use super::world::{World, digest};

impl World {
    /// At rest: nothing hangs without saying for what, and nothing is forgotten.
    pub(super) fn check_rest(&mut self) -> Verdict {
        let step = self.head.request(self.now, &Caller::Operator, None, Request::MissionStatus);
        self.take(&step)?;
        let Some(Ok(Reply::Mission(view))) = step.reply else {
            return Err("no status for the operator".to_owned());
        };
        ensure!(view.handoffs.is_empty(), "at rest, but {:?} is open", view.handoffs);
        for task in &view.tasks {
            if matches!(task.state, Pending | Assigned) {
                ensure!(task.waits_for.is_some(), "task {} doesn't say what it waits for", task.id);
            }
            let known = self.model.tasks.get(&task.id);
            let owner = known.and_then(|t| t.owner).and_then(|uid| self.model.agents.get(&uid));
            if matches!(task.state, Assigned | Active) {
                let ours = owner.map(|agent| &agent.name);
                ensure!(task.owner.as_ref() == ours, "task {}: owner {ours:?}?", task.id);
                ensure!(known.map(|t| t.epoch) == Some(task.epoch), "epoch of {}", task.id);
            }
        }
        for agent in &view.agents {
            ensure!(
                !matches!(agent.state, Waiting | Starting | Stopping) || agent.waits_for.is_some(),
                "agent {} is {:?} at rest and does not say why",
                agent.name,
                agent.state
            );
        }
        self.check_cursors()?;
        ensure!(digest(self.head.state())? == digest(&self.follower)?, "head and follower differ");
        self.commit(&mut Random::new(self.seed, 0))
    }

    /// A cursor covers only what its agent has acknowledged, what is dead, or what wasn't for it.
    fn check_cursors(&self) -> Verdict {
        for (uid, agent) in self.durable.present() {
            for name in ["inbox", "other"] {
                let name = SubscriptionName::new(name).unwrap();
                let Some(cursor) = self.follower.cursor(uid, &name) else { continue };
                let upto = self.acked_upto.get(&(uid, name.clone())).copied().unwrap_or_default();
                for message in self.durable.messages.iter().filter(|m| m.seq > agent.joined) {
                    let seq = message.seq;
                    let direct = message.to.iter().any(|to| to.0 == uid);
                    let ranged = cursor.ranges.iter().any(|(a, b)| (*a..=*b).contains(&seq));
                    let covered = seq <= cursor.acked_upto || ranged;
                    let told = seq <= upto || self.acked.contains(&(uid, name.clone(), seq));
                    let dead = self.durable.dead.contains(&(uid, seq));
                    ensure!(
                        !direct || !covered || told || dead,
                        "message {seq} is counted as read by {uid}, who never said so"
                    );
                }
            }
        }
        Ok(())
    }

    pub(super) fn check_promises(&self) -> Verdict {
        for (seq, content) in &self.promised {
            let at = usize::try_from(seq.0).unwrap() - 1;
            let row = self.rows.get(at).map(|row| (row.logged.seq, &row.logged.content));
            let kept = row == Some((*seq, &Some(content.clone())));
            ensure!(kept, "message {seq} was acknowledged and is lost");
        }
        let twice = self.durable.keys.iter().find(|(_, count)| **count > 1);
        if let Some(((uid, method, key), count)) = twice {
            // A key may be used again once it is forgotten.
            let forgotten = self.now.since_ms(Timestamp(1_000_000)) > self.spec.limits.key_ttl_ms;
            let limit = u64::from(self.spec.limits.keys_per_agent);
            let crowded = self.counter > limit;
            ensure!(forgotten || crowded, "{method} {key} of {uid:?} was used {count} times");
        }
        Ok(())
    }

    /// The kinds of events in the log.
    pub(crate) fn kinds(&self) -> std::collections::BTreeSet<&'static str> {
        self.rows.iter().map(|row| row.logged.kind()).collect()
    }
}
