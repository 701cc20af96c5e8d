//! What must be true of the log after each restart, by the journals of all who took part.
//!
//! The reading of the log is that of the simulator, which shares no code with the core: it knows who
//! may own what, that a handoff has one end, that nothing is created twice.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use missiond::core::event::{Event, Logged};
use missiond::ids::{AgentName, Seq};
use missiond::proto::view::{MissionView, TaskStateName};
use missiond::proto::wire::EventView;
use serde_json::Value;

use super::Failure;
use super::journal::Entry;

#[path = "../../../tests/sim/model.rs"]
#[expect(dead_code, reason = "the simulator asks it more")]
mod model;

use model::{Model, Stand, ensure};

/// What is known of the log.
#[derive(Default)]
pub(crate) struct Log {
    model: Model,
    /// Kind and a hash of everything, by seq from 1.
    events: Vec<(&'static str, u64)>,
    /// Where the message of a key stands, and to whom it went.
    messages: BTreeMap<String, u64>,
    /// Direct messages by addressee.
    direct: BTreeMap<AgentName, Vec<u64>>,
    completed: BTreeSet<String>,
    handed_over: BTreeSet<String>,
}

/// How far a journal was read, and what its party has acknowledged and got.
struct Reader {
    path: PathBuf,
    offset: u64,
    acked: u64,
    got: BTreeSet<u64>,
}

/// The journals of all parties.
pub(crate) struct Journals {
    readers: BTreeMap<String, Reader>,
    /// Read and not yet checked.
    entries: Vec<(String, Entry)>,
    /// How much was confirmed to the parties.
    pub(crate) confirmed: u64,
}

fn fail<T>(what: String) -> Result<T, Failure> {
    Err(Failure::new(what))
}

fn fingerprint(view: &EventView) -> u64 {
    let mut hasher = DefaultHasher::new();
    view.seq.0.hash(&mut hasher);
    view.at.0.hash(&mut hasher);
    view.kind.hash(&mut hasher);
    view.actor.to_string().hash(&mut hasher);
    view.data.get().hash(&mut hasher);
    view.content.as_ref().map(missiond::core::json::Json::get).hash(&mut hasher);
    hasher.finish()
}

impl Log {
    pub(crate) fn head(&self) -> u64 {
        self.events.len() as u64
    }

    /// Takes in the next event.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the model has looked at the rest")]
    pub(crate) fn take(&mut self, view: &EventView) -> Result<(), Failure> {
        if view.seq.0 != self.head() + 1 {
            return fail(format!("event {} follows {}", view.seq, self.head()));
        }
        let known = Event::KINDS.iter().find(|(kind, _)| *kind == view.kind);
        let Some((kind, v)) = known.copied() else {
            return fail(format!("event {} is an unknown `{}`", view.seq, view.kind));
        };
        let logged = Logged::decode(
            view.seq,
            view.at,
            kind,
            v,
            &view.actor.to_string(),
            view.data.get().as_bytes(),
        );
        let logged =
            logged.map_err(|error| Failure::new(format!("event {}: {error}", view.seq)))?;
        let verdict = self.model.apply(&logged);
        verdict.map_err(|why| Failure::new(format!("event {}: {why}", view.seq)))?;
        self.events.push((kind, fingerprint(view)));
        match &logged.event {
            Event::MessagePublished(e) => {
                for to in &e.to {
                    self.direct.entry(to.1.clone()).or_default().push(view.seq.0);
                }
                self.take_key(view)?;
            }
            Event::TaskCompleted(e) if !self.completed.insert(e.task.to_string()) => {
                return fail(format!("task {} is completed twice", e.task));
            }
            Event::HandoffCompleted(e) if !self.handed_over.insert(e.handoff.to_string()) => {
                return fail(format!("handoff {} is completed twice", e.handoff));
            }
            _ => {}
        }
        Ok(())
    }

    fn take_key(&mut self, view: &EventView) -> Result<(), Failure> {
        let Some(content) = &view.content else { return Ok(()) };
        let content: Value = serde_json::from_str(content.get())?;
        let Some(key) = content.get("key").and_then(Value::as_str) else { return Ok(()) };
        match self.messages.insert(key.to_owned(), view.seq.0) {
            None => Ok(()),
            Some(first) => fail(format!("message {key} is there twice: {first} and {}", view.seq)),
        }
    }

    /// The same event as when it was first read.
    pub(crate) fn again(&self, view: &EventView) -> Result<(), Failure> {
        let at = usize::try_from(view.seq.0).unwrap_or(0).wrapping_sub(1);
        match self.events.get(at) {
            Some((_, known)) if *known == fingerprint(view) => Ok(()),
            Some((kind, _)) => fail(format!("event {}, a {kind}, has changed", view.seq)),
            None => Ok(()),
        }
    }

    fn kind(&self, seq: u64) -> Option<&'static str> {
        let at = usize::try_from(seq).ok()?.checked_sub(1)?;
        self.events.get(at).map(|(kind, _)| *kind)
    }

    /// The daemon's own view against the reading of its log at the same head.
    pub(crate) fn compare(&self, view: &MissionView) -> Result<(), Failure> {
        self.model.settled_step().map_err(Failure::new)?;
        for task in &view.tasks {
            let Some(known) = self.model.tasks.get(&task.id) else {
                return fail(format!("task {} is not in the log", task.id));
            };
            let settled = matches!(
                task.state,
                TaskStateName::Completed | TaskStateName::Failed | TaskStateName::Cancelled
            );
            if settled != (known.stand == Stand::Settled) {
                return fail(format!(
                    "task {} is {:?}, the log says {:?}",
                    task.id, task.state, known.stand
                ));
            }
            if settled {
                continue;
            }
            let owner = known.owner.and_then(|uid| self.model.agents.get(&uid)).map(|a| &a.name);
            if task.owner.as_ref() != owner || (owner.is_some() && task.epoch != known.epoch) {
                return fail(format!(
                    "task {} is {:?}'s under {}, the log says {owner:?} under {}",
                    task.id, task.owner, task.epoch, known.epoch
                ));
            }
            if task.handoff != known.handoff {
                return fail(format!("task {}: handoff {:?}?", task.id, task.handoff));
            }
        }
        let open =
            view.handoffs.iter().filter(|h| !self.model.handoffs.contains_key(&h.id)).count();
        if open > 0 { fail(format!("{open} handoffs are not in the log")) } else { Ok(()) }
    }

    /// Handoffs that were completed, and all that were asked for.
    pub(crate) fn handoffs(&self) -> (usize, usize) {
        let asked = self.events.iter().filter(|(kind, _)| *kind == "handoff_requested").count();
        (self.handed_over.len(), asked)
    }

    pub(crate) fn completed(&self) -> usize {
        self.completed.len()
    }

    pub(crate) fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Unsettled tasks.
    pub(crate) fn open_tasks(&self) -> Vec<String> {
        let open = self.model.tasks.iter().filter(|(_, task)| task.stand != Stand::Settled);
        open.map(|(id, _)| id.to_string()).collect()
    }
}

impl Journals {
    pub(crate) fn new(dir: &Path, parties: &[&str]) -> Journals {
        let reader = |name: &str| {
            let path = dir.join(format!("{name}.jsonl"));
            let (offset, acked, got) = (0, 0, BTreeSet::new());
            (name.to_owned(), Reader { path, offset, acked, got })
        };
        let readers = parties.iter().map(|name| reader(name)).collect();
        Journals { readers, entries: Vec::new(), confirmed: 0 }
    }

    /// Reads what is new in all journals, while nobody writes to them.
    pub(crate) fn collect(&mut self) -> Result<(), Failure> {
        for (name, reader) in &mut self.readers {
            let more = reader.more()?;
            self.entries.extend(more.into_iter().map(|entry| (name.clone(), entry)));
        }
        Ok(())
    }

    /// Everything that was confirmed to somebody must be in the log.
    pub(crate) fn check(&mut self, log: &Log) -> Result<(), Failure> {
        for (name, entry) in std::mem::take(&mut self.entries) {
            let Some(reader) = self.readers.get_mut(&name) else { continue };
            self.confirmed += u64::from(!matches!(entry, Entry::Try { .. }));
            check(&name, reader, &entry, log)
                .map_err(|why| Failure::new(format!("{name}, {entry:?}: {why}")))?;
        }
        Ok(())
    }

    /// At the end: every direct message has come to its addressee.
    pub(crate) fn check_arrivals(&self, log: &Log) -> Result<(), Failure> {
        for (name, seqs) in &log.direct {
            let Some(reader) = self.readers.get(name.as_str()) else { continue };
            let missing: Vec<_> = seqs.iter().filter(|seq| !reader.got.contains(seq)).collect();
            if !missing.is_empty() {
                let first: Vec<_> = missing.iter().take(10).collect();
                return fail(format!("{} messages never came to {name}: {first:?}", missing.len()));
            }
        }
        Ok(())
    }
}

impl Reader {
    fn more(&mut self) -> Result<Vec<Entry>, Failure> {
        let mut file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A torn last line stays for the next time, when it has an end.
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        self.offset += whole as u64;
        let lines = text[..whole].lines();
        Ok(lines.filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

fn check(name: &str, reader: &mut Reader, entry: &Entry, log: &Log) -> Result<(), String> {
    let number = |id: &str| id.get(2..).and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0);
    let expect = |seq: u64, kind: &str| match log.kind(seq) {
        Some(found) if found == kind => Ok(()),
        found => Err(format!("event {seq} is {found:?}, not {kind}; the head is {}", log.head())),
    };
    match entry {
        Entry::Try { .. } => Ok(()),
        Entry::Published { key, seq } => match log.messages.get(key) {
            Some(found) if found == seq => Ok(()),
            found => Err(format!("the message stands at {found:?}")),
        },
        Entry::Got { seq, .. } => {
            reader.got.insert(*seq);
            ensure!(*seq > reader.acked, "{name} has acknowledged up to {} before", reader.acked);
            Ok(())
        }
        Entry::Acked { upto } => {
            reader.acked = reader.acked.max(*upto);
            Ok(())
        }
        Entry::Created { task } => {
            let id = missiond::ids::TaskId::new(task).map_err(|error| error.to_string())?;
            if log.model.tasks.contains_key(&id) { Ok(()) } else { Err("it is lost".to_owned()) }
        }
        Entry::Saved { id, .. } => expect(number(id), "checkpoint_saved"),
        Entry::Completed { task, .. } if log.completed.contains(task) => Ok(()),
        Entry::Completed { .. } => Err("the log does not know".to_owned()),
        Entry::Requested { handoff } => expect(number(handoff), "handoff_requested"),
        Entry::HandedOver { handoff, .. } if log.handed_over.contains(handoff) => Ok(()),
        Entry::HandedOver { .. } => Err("the log does not know".to_owned()),
    }
}

/// The event after this one, for reading on.
pub(crate) fn after(log: &Log) -> Option<Seq> {
    (log.head() > 0).then_some(Seq(log.head()))
}
