//! Slow work: on threads that may block (see `lanes`), its outcome comes back to the loop.

use std::collections::BTreeSet;

use tokio::sync::mpsc;
use tracing::Span;

use super::alive;
use super::collect::{self, Left, Stored};
use super::ground::{Restore, Shared, logged};
use super::guards::Protection;
use super::lanes::{self, Lane, Lanes};
use super::prepare::{self, Launch, Ready};
use crate::bus::{Inbound, LogPage, LogRead, ReadId, ReadWhat, Ticket};
use crate::core::denied::{Code, Denied};
use crate::core::json::Json;
use crate::core::spec::Limits;
use crate::core::view::Reply;
use crate::ids::{AgentName, AgentUid, BlobHash, Incarnation, Seq, Timestamp};
use crate::launch::{Pid, SweepError, sweep};
use crate::proto::wire::SaveCheckpoint;
use crate::store::blobs::Collection;
use crate::store::{Hash, ReadError};
use crate::supervise::{Outcome, SetupFailure};

/// Events read at once where their contents may be large.
const PIECE: usize = 64;

/// Bytes of contents of single messages that are held for one answer.
const SEQS_BYTES: usize = 4 << 20;

/// What a job came to.
#[derive(Debug)]
pub(super) enum Done {
    /// A launch or release is ready, or can't be.
    Prepared {
        /// The agent.
        uid: AgentUid,
        /// Which start of it.
        incarnation: Incarnation,
        /// What was made ready.
        result: Result<Ready, SetupFailure>,
    },
    /// What a task-mode process left.
    Collected {
        /// The process.
        outcome: Box<Outcome>,
        /// Its result.
        output: Option<Json>,
        /// Its checkpoint.
        left: Left,
    },
    /// What an agent left in the trees that it wrote, as alerts.
    Unprotected(Vec<String>),
    /// Nothing is left below the daemon but what was to be left alone.
    Swept(Result<usize, SweepError>),
    /// A part of the log.
    Page(ReadId, Result<LogPage, Denied>),
    /// A reply with all its content.
    Answer(Ticket, Result<Reply, Denied>),
    /// What comes with a task lies in the handoff directory of the one that is to complete its handoff.
    Restored(Box<Inbound>, Result<(), Denied>),
    /// The files of a checkpoint are stored.
    Stored(Box<(Inbound, SaveCheckpoint)>, Result<Stored, Denied>),
    /// A mark of our life was made, or that failed.
    Marked(std::io::Result<()>),
    /// Blobs that nobody needs were removed, or that failed.
    Collapsed(Result<u64, String>),
}

/// Where outcomes come from.
pub(super) type Outcomes = mpsc::UnboundedReceiver<lanes::Outcome<Done>>;

/// Starts jobs.
#[derive(Debug)]
pub(super) struct Jobs {
    ground: Shared,
    lanes: Lanes<Done>,
    /// Blobs are being looked through; what becomes garbage meanwhile is for the next time.
    collapsing: bool,
}

impl Jobs {
    /// Outcomes go to the receiver that comes with it.
    pub(super) fn new(ground: Shared) -> (Jobs, Outcomes) {
        let (lanes, outcomes) = Lanes::new();
        (Jobs { ground, lanes, collapsing: false }, outcomes)
    }

    /// One outcome was taken.
    pub(super) fn finished(&mut self, lane: Lane) {
        self.lanes.finished(lane);
    }

    /// Whether blobs are being looked through.
    pub(super) fn is_collapsing(&self) -> bool {
        self.collapsing
    }

    /// Blobs were looked through.
    pub(super) fn collapsed(&mut self) {
        self.collapsing = false;
    }

    /// Whether none runs.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.is_idle()
    }

    fn run(&mut self, lane: Lane, job: impl FnOnce(&Shared) -> Done + Send + 'static) {
        let ground = Shared::clone(&self.ground);
        self.lanes.run(lane, move || job(&ground));
    }

    /// Makes a launch ready.
    pub(super) fn prepare(&mut self, uid: AgentUid, launch: Launch, span: Span) {
        self.run(Lane::Agents, move |ground| Done::Prepared {
            uid,
            incarnation: launch.incarnation,
            result: span.in_scope(|| prepare::prepare(ground, &launch)),
        });
    }

    /// Collects what a task-mode process left.
    pub(super) fn collect(
        &mut self,
        agent: AgentName,
        outcome: Outcome,
        limits: Limits,
        span: Span,
    ) {
        self.run(Lane::Agents, move |ground| {
            let _around = span.enter();
            let success = outcome.exit.is_success();
            let output = collect::output(&outcome.stdout, outcome.truncated, &limits);
            let left = collect::checkpoint_dir(ground, &agent, &outcome.run.task, &limits);
            Done::Collected { outcome: Box::new(outcome), output: output.filter(|_| success), left }
        });
    }

    /// Looks after the trees that an agent wrote.
    pub(super) fn unprotect(&mut self, protection: Protection) {
        self.run(Lane::Files, move |_| Done::Unprotected(protection.end()));
    }

    /// Ends what is below the daemon and not known.
    pub(super) fn sweep(&mut self, known: BTreeSet<Pid>) {
        self.run(Lane::Sweeps, move |_| Done::Swept(sweep(&known)));
    }

    /// Reads a part of the log.
    pub(super) fn read(&mut self, read: LogRead) {
        self.run(Lane::Reads, move |ground| {
            let page = page(ground, &read.what).map_err(|error| unreadable(&error));
            Done::Page(read.id, page)
        });
    }

    /// Completes a reply with contents from the log, and restores a checkpoint before it goes out.
    pub(super) fn answer(
        &mut self,
        ticket: Ticket,
        reply: Reply,
        restore: Option<(AgentName, Restore)>,
    ) {
        let lane = if restore.is_some() { Lane::Files } else { Lane::Reads };
        self.run(lane, move |ground| {
            let filled = fill(ground, reply).and_then(|reply| {
                if let Some((agent, checkpoint)) = &restore {
                    restored(ground, agent, checkpoint)?;
                }
                Ok(reply)
            });
            Done::Answer(ticket, filled)
        });
    }

    /// Restores a checkpoint before a request is decided.
    pub(super) fn restore(&mut self, inbound: Inbound, agent: AgentName, checkpoint: Restore) {
        self.run(Lane::Files, move |ground| {
            Done::Restored(Box::new(inbound), restored(ground, &agent, &checkpoint))
        });
    }

    /// Stores the files of a checkpoint.
    pub(super) fn store(
        &mut self,
        agent: AgentName,
        inbound: Inbound,
        save: SaveCheckpoint,
        limits: Limits,
    ) {
        self.run(Lane::Files, move |ground| {
            let stored = collect::named_files(ground, &agent, &save, &limits);
            Done::Stored(Box::new((inbound, save)), stored)
        });
    }

    /// Makes a mark of our life.
    pub(super) fn mark(&mut self, now: Timestamp) {
        self.run(Lane::Files, move |ground| {
            Done::Marked(alive::mark(&alive::path(ground.dirs.state()), now))
        });
    }

    /// Removes blobs that no checkpoint names; `begun` is older than `live`.
    pub(super) fn collapse(&mut self, begun: Collection, live: BTreeSet<BlobHash>) {
        self.collapsing = true;
        self.run(Lane::Files, move |ground| {
            let live = live.into_iter().map(|hash| Hash(hash.0)).collect();
            let collected = ground.blobs.collect(begun, &live);
            Done::Collapsed(collected.map(|c| c.bytes).map_err(|error| error.to_string()))
        });
    }
}

fn restored(ground: &Shared, agent: &AgentName, checkpoint: &Restore) -> Result<(), Denied> {
    let dirs = ground.dirs.agent(agent);
    prepare::restore_for_service(ground, &dirs, checkpoint).map_err(|error| {
        let cause = std::error::Error::source(&error);
        let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
        Denied::new(Code::Unavailable, format!("{error}{cause}"))
    })
}

fn unreadable(error: &ReadError) -> Denied {
    Denied::new(Code::Unavailable, format!("the log can't be read: {error}"))
}

fn page(ground: &Shared, what: &ReadWhat) -> Result<LogPage, ReadError> {
    let reader = &ground.reader;
    let floor = Seq(reader.floor()?.seq);
    match what {
        ReadWhat::From { after, limit, bytes, kinds } => {
            let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
            let mut page = LogPage { upto: (*after).max(floor), floor, events: Vec::new() };
            let mut held = 0;
            while page.events.len() < *limit && held < *bytes {
                let most = (*limit - page.events.len()).min(PIECE);
                let piece = reader.scan(page.upto.0.saturating_add(1), most, &kinds)?;
                page.upto = Seq(piece.next_seq.saturating_sub(1));
                for event in piece.records.iter().filter_map(logged) {
                    if held >= *bytes {
                        page.upto = page.events.last().map_or(page.upto, |last| last.seq);
                        break;
                    }
                    held += event.content.as_ref().map_or(0, Json::len);
                    page.events.push(event);
                }
                if piece.at_end || piece.records.is_empty() {
                    break;
                }
            }
            Ok(page)
        }
        ReadWhat::Seqs(seqs) => {
            let (mut events, mut held) = (Vec::new(), 0);
            let mut seen = BTreeSet::new();
            for seq in seqs {
                // The hub answers with no more than that, and one message named a thousand times
                // would else be held a thousand times.
                if held > SEQS_BYTES {
                    break;
                }
                if !seen.insert(*seq) {
                    continue;
                }
                if let Some(event) = reader.get(seq.0)?.as_ref().and_then(logged) {
                    held += event.content.as_ref().map_or(0, Json::len);
                    events.push(event);
                }
            }
            Ok(LogPage { upto: seqs.iter().max().copied().unwrap_or(floor), events, floor })
        }
    }
}

/// Puts in what the core does not keep.
fn fill(ground: &Shared, mut reply: Reply) -> Result<Reply, Denied> {
    let content = |at: Option<Seq>| match at {
        Some(at) => ground.content(at).map_err(|error| unreadable(&error)),
        None => Ok(None),
    };
    match &mut reply {
        Reply::Task(task) => {
            task.data = content(task.data_at)?;
            task.result = content(task.result_at)?;
        }
        Reply::Checkpoint(checkpoint) => checkpoint.json = content(checkpoint.json_at)?,
        Reply::Done
        | Reply::Published(_)
        | Reply::Acked(_)
        | Reply::Tasks(_)
        | Reply::Handoff(_)
        | Reply::Handoffs(_)
        | Reply::Agent(_)
        | Reply::Agents(_)
        | Reply::Mission(_) => {}
    }
    Ok(reply)
}
