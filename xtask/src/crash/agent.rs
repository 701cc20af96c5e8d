//! The program of the agents: publishes to the others as fast as it gets acknowledgements, acknowledges
//! what it gets, works on tasks, and takes and gives handoffs. It is killed with its daemon, and goes
//! on in its next life where its journal ends.

use std::collections::BTreeSet;
use std::path::PathBuf;

use missiond::client::{Client, ClientError, Notifications};
use missiond::ids::Key;
use missiond::proto::view::{
    Acked, AgentView, CheckpointView, HandoffView, MessageView, Published, TaskStateName, TaskView,
};
use missiond::proto::wire::{Subscribe, Subscribed};
use missiond::proto::{Method, Notification};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::journal::{self, Entry, Journal};
use super::{Failure, LAST, QUIET};

/// How many requests of one kind an agent has on the way at once.
const IN_FLIGHT: usize = 4;
/// How many more messages an agent publishes than it has got.
const AHEAD: usize = 8;

fn variable(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|_| Failure::new(format!("{name} is not set")))
}

struct Agent {
    client: Client,
    name: String,
    journal: std::cell::RefCell<Journal>,
    /// Tries without an answer, of the former life.
    unanswered: Vec<(String, String)>,
    quiet: tokio::sync::watch::Sender<bool>,
    /// Messages that came in this life; who talks waits for it, or inboxes would fill up.
    got: tokio::sync::watch::Sender<usize>,
}

/// A notification that is there already.
async fn at_once(notifications: &mut Notifications) -> Option<Notification> {
    tokio::select! {
        biased;
        notification = notifications.next() => notification,
        () = std::future::ready(()) => None,
    }
}

/// Runs until the daemon is gone.
pub(crate) async fn run() -> Result<(), Failure> {
    let socket = PathBuf::from(variable("MISSION_SOCKET")?);
    let name = variable("MISSION_AGENT")?;
    let path = PathBuf::from(variable("MISSION_WORKSPACE")?).join(format!("{name}.jsonl"));
    let before = journal::read(&path)?;
    let done: BTreeSet<&String> = before
        .iter()
        .filter_map(|entry| if let Entry::Published { key, .. } = entry { Some(key) } else { None })
        .collect();
    let tried = before.iter().filter_map(|entry| {
        if let Entry::Try { key, to } = entry { Some((key, to)) } else { None }
    });
    let unanswered = tried
        .filter(|(key, _)| !done.contains(key))
        .map(|(key, to)| (key.clone(), to.clone()))
        .collect();
    let (client, notifications) = Client::connect(&socket).await?;
    let agent = Agent {
        client,
        name,
        journal: std::cell::RefCell::new(Journal::open(&path)?),
        unanswered,
        quiet: tokio::sync::watch::Sender::new(false),
        got: tokio::sync::watch::Sender::new(0),
    };
    let _: Subscribed = agent.call(Method::Subscribe, Subscribe::default()).await?;
    tokio::try_join!(agent.listen(notifications), agent.talk(), agent.resume())?;
    Ok(())
}

impl Agent {
    async fn call<R: DeserializeOwned>(
        &self,
        method: Method,
        params: impl Serialize,
    ) -> Result<R, ClientError> {
        self.client.call(method, &params).await
    }

    /// A call whose refusal is no news: another life, or the other party, was faster.
    async fn attempt<R: DeserializeOwned>(
        &self,
        method: Method,
        params: impl Serialize,
    ) -> Result<Option<R>, Failure> {
        match self.call(method, params).await {
            Ok(reply) => Ok(Some(reply)),
            Err(ClientError::Refused(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn note(&self, entry: &Entry) -> Result<(), Failure> {
        Ok(self.journal.borrow_mut().write(entry)?)
    }

    async fn publish(&self, key: &str, to: &str) -> Result<(), Failure> {
        let params = json!({
            "type": "custom.load", "to": [to], "content": { "key": key, "from": self.name },
        });
        let id = Key::new(key).map_err(|error| Failure::new(error.to_string()))?;
        let answer: Result<Published, _> =
            self.client.call_with_key(Method::Publish, &params, Some(&id)).await;
        match answer {
            Ok(published) => {
                self.note(&Entry::Published { key: key.to_owned(), seq: published.seq.0 })
            }
            Err(ClientError::Refused(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The requests of the former life first, then one message after the other.
    async fn talk(&self) -> Result<(), Failure> {
        for (key, to) in &self.unanswered {
            self.publish(key, to).await?;
        }
        let life = std::process::id();
        let me: AgentView = self.call(Method::AgentGet, json!({})).await?;
        let others: Vec<&str> =
            super::SERVICES.iter().copied().filter(|name| *name != self.name).collect();
        let mut number = 0_usize;
        let mut got = self.got.subscribe();
        while !*self.quiet.borrow() {
            let paced = got.wait_for(|got| number < *got + AHEAD);
            paced.await.map_err(|_| Failure::new("nobody listens"))?;
            let mut batch = Vec::new();
            for _ in 0..IN_FLIGHT {
                number += 1;
                let key = format!("{}-{}-{life}-{number}", self.name, me.incarnation);
                let to = others[number % others.len()].to_owned();
                self.note(&Entry::Try { key: key.clone(), to: to.clone() })?;
                batch.push((key, to));
            }
            let [a, b, c, d] = batch.as_slice() else { return Ok(()) };
            tokio::try_join!(
                self.publish(&a.0, &a.1),
                self.publish(&b.0, &b.1),
                self.publish(&c.0, &c.1),
                self.publish(&d.0, &d.1),
            )?;
        }
        Ok(())
    }

    /// Tasks that nobody speaks of any more: those of a former life, those left for a handoff.
    async fn resume(&self) -> Result<(), Failure> {
        let tasks: Vec<TaskView> =
            self.call(Method::TaskList, json!({ "owner": self.name })).await?;
        for task in tasks {
            if matches!(task.state, TaskStateName::Assigned | TaskStateName::Active) {
                self.work(task.id.as_str(), task.epoch.0, task.handoff.is_none()).await?;
            }
        }
        Ok(())
    }

    async fn work(&self, task: &str, epoch: u64, finish: bool) -> Result<(), Failure> {
        let update = json!({ "task": task, "epoch": epoch, "progress": 50 });
        let _: Option<TaskView> = self.attempt(Method::TaskUpdate, update).await?;
        self.save(task, epoch).await?;
        if finish { self.complete(task, epoch).await } else { Ok(()) }
    }

    async fn save(&self, task: &str, epoch: u64) -> Result<(), Failure> {
        let params = json!({ "task": task, "epoch": epoch, "json": { "by": self.name } });
        let saved: Option<CheckpointView> = self.attempt(Method::CheckpointSave, params).await?;
        let Some(saved) = saved else { return Ok(()) };
        self.note(&Entry::Saved { task: task.to_owned(), id: saved.id.to_string() })
    }

    async fn complete(&self, task: &str, epoch: u64) -> Result<(), Failure> {
        let params = json!({ "task": task, "epoch": epoch, "result": { "by": self.name } });
        let done: Option<TaskView> = self.attempt(Method::TaskComplete, params).await?;
        if done.is_none() {
            return Ok(());
        }
        self.note(&Entry::Completed { task: task.to_owned(), epoch })
    }

    /// Takes what has come, acts on it, acknowledges it at once as a whole.
    async fn listen(&self, mut notifications: Notifications) -> Result<(), Failure> {
        while let Some(first) = notifications.next().await {
            let mut batch = vec![first];
            while let Some(more) = at_once(&mut notifications).await {
                batch.push(more);
            }
            let mut upto = 0;
            for notification in batch {
                let Notification::Message(delivery) = notification else { continue };
                let MessageView { seq, content, r#type, .. } = delivery.message;
                self.note(&Entry::Got { seq: seq.0, redelivered: delivery.redelivered })?;
                let content: Value = serde_json::from_str(content.get())?;
                self.react(&r#type.to_string(), &content).await?;
                upto = upto.max(seq.0);
                self.got.send_modify(|got| *got += 1);
            }
            let acked: Acked = self.call(Method::Ack, json!({ "upto": upto })).await?;
            self.note(&Entry::Acked { upto: upto.min(acked.upto.0) })?;
        }
        Err(Failure::new("the daemon is gone"))
    }

    async fn react(&self, kind: &str, content: &Value) -> Result<(), Failure> {
        let text = |name: &str| content.get(name).and_then(Value::as_str).unwrap_or_default();
        let epoch = content.get("epoch").and_then(Value::as_u64);
        let handoff = json!({ "handoff": text("handoff") });
        match (kind, text("state"), epoch) {
            // Most tasks are left for a handoff.
            ("task_assign", _, Some(epoch)) => {
                let finish = text("task").ends_with(['1', '5']);
                self.work(text("task"), epoch, finish).await
            }
            ("handoff_request", ..) => {
                self.attempt::<HandoffView>(Method::HandoffAccept, handoff).await.map(drop)
            }
            ("handoff_accept", "draining", _) => self.save_own(text("task")).await,
            ("handoff_accept", "quiesced", _) => {
                let view: Option<HandoffView> =
                    self.attempt(Method::HandoffComplete, handoff).await?;
                let Some(view) = view else { return Ok(()) };
                let (handoff, task) = (view.id.to_string(), view.task.to_string());
                self.note(&Entry::HandedOver { handoff, task })
            }
            ("handoff_complete", "completed", Some(epoch)) => {
                self.complete(text("task"), epoch).await
            }
            ("handoff_complete", ..) => self.finish_own(text("task")).await,
            (QUIET, ..) => {
                self.quiet.send_replace(true);
                self.resume().await
            }
            (LAST, ..) => {
                let bye = json!({ "type": "custom.bye", "content": {} });
                self.attempt::<Published>(Method::Publish, bye).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    async fn own(&self, task: &str) -> Result<Option<u64>, Failure> {
        let view: Option<TaskView> = self.attempt(Method::TaskGet, json!({ "task": task })).await?;
        let mine = view.filter(|view| view.owner.as_ref().is_some_and(|o| o.as_str() == self.name));
        Ok(mine.map(|view| view.epoch.0))
    }

    async fn save_own(&self, task: &str) -> Result<(), Failure> {
        let Some(epoch) = self.own(task).await? else { return Ok(()) };
        self.save(task, epoch).await
    }

    /// A handoff came to nothing: the task is still here.
    async fn finish_own(&self, task: &str) -> Result<(), Failure> {
        let Some(epoch) = self.own(task).await? else { return Ok(()) };
        self.complete(task, epoch).await
    }
}
