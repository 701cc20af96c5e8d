//! Follows a handoff and shows each step as it happens.
//!
//! Whoever may read the log follows it from the handoff's request on, so that no step is missed, however
//! fast they come. An agent without that permission hears of the steps by the messages that both sides
//! of a handoff get, through a `tail` of its own that touches nobody's cursor. Neither polls: only when
//! the present step's time is up and nothing was heard, the daemon is asked.
//!
//! ```text
//! prepare (tail) -> [request] -> run: steps... -> Reached | Late (the caller's time is up)
//! ```

use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use super::Context;
use super::error::CtlError;
use super::out::{Format, Look, read};
use super::session::Session;
use super::{time, views};
use crate::ids::{CheckpointId, Epoch, HandoffId, Seq, SubscriptionName, TaskId, Timestamp};
use crate::proto::json::Json;
use crate::proto::request::{HandoffRef, MessageType};
use crate::proto::spec::Permission;
use crate::proto::view::{FileRef, HandoffStateName, HandoffView};
use crate::proto::wire::{AuditPage, AuditRead, Delivery, EventView, MAX_CREDIT, Subscribe};
use crate::proto::{Method, Notification};
use crate::table::Paint;

/// How long after a step's time the daemon's word on it may take.
const SLACK: Duration = Duration::from_secs(5);

/// What advances a handoff, ends it, or belongs to it.
const KINDS: [&str; 6] = [
    "handoff_requested",
    "handoff_accepted",
    "checkpoint_saved",
    "handoff_quiesced",
    "handoff_completed",
    "handoff_ended",
];

/// Where the steps are heard of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Log,
    Messages,
}

/// A handoff that is followed.
pub(super) struct Follow {
    source: Source,
    last: Seq,
}

/// How following ended.
pub(super) enum Outcome {
    /// It is where it was followed to; the daemon's word on it.
    Reached(Json),
    /// The time is up before that; the daemon's word on it.
    Late(Json),
}

/// What has happened to it.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    at: Timestamp,
    state: Option<HandoffStateName>,
    until: Option<Timestamp>,
    says: String,
}

/// The fields of those events and messages, as far as they are shown.
#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    handoff: Option<HandoffId>,
    #[serde(default)]
    task: Option<TaskId>,
    #[serde(default)]
    until: Option<Timestamp>,
    #[serde(default)]
    checkpoint: Option<CheckpointId>,
    #[serde(default)]
    epoch: Option<Epoch>,
    /// How it ended, in the log.
    #[serde(default)]
    how: Option<HandoffStateName>,
    /// How far it is, in a message.
    #[serde(default)]
    state: Option<HandoffStateName>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    files: Vec<FileRef>,
}

impl Follow {
    /// Chooses how to follow, by what the caller may.
    pub(super) fn new(session: &Session) -> Self {
        let may_audit = session.hello().permissions.has(Permission::Audit);
        let source = if may_audit { Source::Log } else { Source::Messages };
        Follow { source, last: Seq(0) }
    }

    /// Does what must be done before the request, so that no step is missed.
    ///
    /// # Errors
    /// The daemon refuses.
    pub(super) async fn prepare(&self, session: &mut Session) -> Result<(), CtlError> {
        match self.source {
            Source::Log => Ok(()),
            Source::Messages => tail(session).await,
        }
    }

    /// Shows every step until `reached` says so, or the time is up.
    ///
    /// # Errors
    /// The connection is lost for good, or the daemon is silent for longer than the step may take.
    pub(super) async fn run(
        mut self,
        context: &mut Context,
        session: &mut Session,
        reply: &Json,
        within: Option<Duration>,
        reached: impl Fn(HandoffStateName) -> bool,
    ) -> Result<Outcome, CtlError> {
        let mut view: HandoffView = read(reply)?;
        let steps = self.steps(context, session, &mut view, reached);
        let is_reached = match within {
            Some(within) => timeout(within, steps).await.ok().transpose()?.is_some(),
            None => steps.await.map(|()| true)?,
        };
        let reply = get(session, view.id).await?;
        Ok(if is_reached { Outcome::Reached(reply) } else { Outcome::Late(reply) })
    }

    async fn steps(
        &mut self,
        context: &mut Context,
        session: &mut Session,
        view: &mut HandoffView,
        reached: impl Fn(HandoffStateName) -> bool,
    ) -> Result<(), CtlError> {
        if context.out.format == Format::Table {
            let HandoffView { id, task, from, to, .. } = &*view;
            let head = context.out.look.paint(&id.to_string(), Paint::Bold);
            context.out.write(&format!("{head}  {task}: {from} -> {to}\n"))?;
        }
        match self.source {
            Source::Log => {
                // What the reply says is told by the log as well, step by step.
                self.last = Seq(view.id.0.0.saturating_sub(1));
                view.state = HandoffStateName::Requested;
                self.read_log(context, session, view).await?;
            }
            Source::Messages => show(context, view, &step_of_view(view, view.requested))?,
        }
        while !reached(view.state) {
            // The daemon's word on a step comes by its end, unless something is wrong.
            match timeout(left(view.until) + SLACK, session.next()).await {
                Ok(Some(Notification::Event(event))) => self.event(context, &event, view)?,
                Ok(Some(Notification::Message(delivery))) => message(context, &delivery, view)?,
                Ok(Some(Notification::Lagged(_))) => look_again(context, session, view).await?,
                Ok(None) => {
                    session.reconnect("follow the handoff").await?;
                    match self.source {
                        Source::Log => self.read_log(context, session, view).await?,
                        Source::Messages => {
                            tail(session).await?;
                            look_again(context, session, view).await?;
                        }
                    }
                }
                Err(_) => {
                    let (state, until) = (view.state, view.until);
                    look_again(context, session, view).await?;
                    if (state, until) == (view.state, view.until) {
                        return Err(CtlError::TimedOut {
                            doing: format!("see the end of handoff {}", view.id),
                            after: left(until) + SLACK,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Follows the log after what was shown.
    async fn read_log(
        &mut self,
        context: &mut Context,
        session: &mut Session,
        view: &mut HandoffView,
    ) -> Result<(), CtlError> {
        let kinds = KINDS.iter().map(|kind| (*kind).to_owned()).collect();
        let params = AuditRead { since: Some(self.last), limit: None, kinds, follow: true };
        let reply = session.ask("follow the handoff", Method::AuditRead, &params).await?;
        let page: AuditPage = read(&reply)?;
        page.events.iter().try_for_each(|event| self.event(context, event, view))
    }

    /// An event of the log, shown if it is one of this handoff.
    fn event(
        &mut self,
        context: &mut Context,
        event: &EventView,
        view: &mut HandoffView,
    ) -> Result<(), CtlError> {
        // The page and what is pushed after it may overlap.
        if event.seq <= self.last {
            return Ok(());
        }
        self.last = event.seq;
        let Some(step) = step_of_event(event, view) else { return Ok(()) };
        if context.out.format == Format::Jsonl {
            let raw = serde_json::to_string(event).unwrap_or_default();
            context.out.json(&raw)?;
        }
        show(context, view, &step)?;
        advance(view, &step);
        Ok(())
    }
}

/// Subscribes to the messages of handoffs that come from now on.
async fn tail(session: &mut Session) -> Result<(), CtlError> {
    let subscription = SubscriptionName::new("tail").map_err(|error| CtlError::Usage {
        what: "cannot subscribe".to_owned(),
        cause: error.to_string(),
        help: String::new(),
    })?;
    let types =
        vec![MessageType::HandoffRequest, MessageType::HandoffAccept, MessageType::HandoffComplete];
    let params = Subscribe { subscription, types, credit: MAX_CREDIT, takeover: false };
    session.ask("follow the handoff", Method::Subscribe, &params).await.map(drop)
}

async fn get(session: &mut Session, handoff: HandoffId) -> Result<Json, CtlError> {
    let doing = format!("show handoff {handoff}");
    session.ask(&doing, Method::HandoffGet, &HandoffRef { handoff }).await
}

/// Asks the daemon, because nothing was heard or something may have been missed.
async fn look_again(
    context: &mut Context,
    session: &mut Session,
    view: &mut HandoffView,
) -> Result<(), CtlError> {
    let next: HandoffView = read(&get(session, view.id).await?)?;
    let is_news = next.state != view.state;
    *view = next;
    if is_news {
        show(context, view, &step_of_view(view, time::now()))?;
    }
    Ok(())
}

/// A message of the daemon, shown if it is about this handoff.
fn message(
    context: &mut Context,
    delivery: &Delivery,
    view: &mut HandoffView,
) -> Result<(), CtlError> {
    let message = &delivery.message;
    let Ok(fields) = serde_json::from_str::<Fields>(message.content.get()) else { return Ok(()) };
    let Some(state) = fields.state else { return Ok(()) };
    // Only the daemon tells how far a handoff is, and what was told before is no news.
    let is_daemon = message.from == crate::proto::view::Party::Daemon;
    if !is_daemon || fields.handoff != Some(view.id) || rank(state) <= rank(view.state) {
        return Ok(());
    }
    let epoch = fields.epoch;
    let says =
        says(view, state, fields.checkpoint.or(view.checkpoint), epoch, fields.reason.as_deref());
    let step = Step { at: message.at, state: Some(state), until: fields.until, says };
    if context.out.format == Format::Jsonl {
        let raw = serde_json::to_string(delivery).unwrap_or_default();
        context.out.json(&raw)?;
    }
    show(context, view, &step)?;
    advance(view, &step);
    Ok(())
}

/// How far along a state is: a handoff only ever goes forward.
fn rank(state: HandoffStateName) -> u8 {
    match state {
        HandoffStateName::Requested => 0,
        HandoffStateName::Draining => 1,
        HandoffStateName::Quiesced => 2,
        HandoffStateName::Completed
        | HandoffStateName::Rejected
        | HandoffStateName::Expired
        | HandoffStateName::Cancelled
        | HandoffStateName::Failed => 3,
    }
}

fn advance(view: &mut HandoffView, step: &Step) {
    if let Some(state) = step.state {
        view.state = state;
        view.until = step.until;
    }
}

/// What an event means for this handoff; none if it is about something else.
fn step_of_event(event: &EventView, view: &HandoffView) -> Option<Step> {
    let fields: Fields = serde_json::from_str(event.data.get()).ok()?;
    let step = |state, says| Some(Step { at: event.at, state, until: fields.until, says });
    if event.kind == "checkpoint_saved" {
        if fields.task.as_ref() != Some(&view.task) {
            return None;
        }
        let id = CheckpointId(event.seq);
        return step(None, format!("{id} saved by {}: {}", event.actor, count(&fields.files)));
    }
    let is_request = event.kind == "handoff_requested" && event.seq == view.id.0;
    if !is_request && fields.handoff != Some(view.id) {
        return None;
    }
    let state = match event.kind.as_str() {
        "handoff_requested" => HandoffStateName::Requested,
        "handoff_accepted" => HandoffStateName::Draining,
        "handoff_quiesced" => HandoffStateName::Quiesced,
        "handoff_completed" => HandoffStateName::Completed,
        "handoff_ended" => fields.how?,
        _ => return None,
    };
    let epoch = Some(Epoch(event.seq.0));
    step(Some(state), says(view, state, fields.checkpoint, epoch, fields.reason.as_deref()))
}

fn count(files: &[FileRef]) -> String {
    match files.len() {
        0 => "no files".to_owned(),
        1 => "1 file".to_owned(),
        more => format!("{more} files"),
    }
}

fn step_of_view(view: &HandoffView, at: Timestamp) -> Step {
    let says = says(view, view.state, view.checkpoint, view.epoch, view.reason.as_deref());
    Step { at, state: Some(view.state), until: view.until, says }
}

/// A state in words.
fn says(
    view: &HandoffView,
    state: HandoffStateName,
    checkpoint: Option<CheckpointId>,
    epoch: Option<Epoch>,
    reason: Option<&str>,
) -> String {
    let HandoffView { from, to, task, .. } = view;
    let with_reason = |text: String| match reason {
        Some(reason) => format!("{text}: {reason}"),
        None => text,
    };
    match state {
        HandoffStateName::Requested => format!("waits for {to} to accept"),
        HandoffStateName::Draining => {
            format!("{to} accepts; waits for {from} to save a checkpoint")
        }
        HandoffStateName::Quiesced => {
            let with = checkpoint.map_or("no checkpoint".to_owned(), |id| id.to_string());
            format!("{from} writes no more; waits for {to} to take over with {with}")
        }
        HandoffStateName::Completed => {
            let epoch = epoch.map_or_else(String::new, |epoch| format!(", epoch {epoch}"));
            format!("{to} owns {task} now{epoch}")
        }
        HandoffStateName::Rejected => with_reason(format!("{to} does not want it")),
        HandoffStateName::Expired => with_reason(format!("{to} did not answer in time")),
        HandoffStateName::Cancelled => with_reason("called off".to_owned()),
        HandoffStateName::Failed => with_reason("failed".to_owned()),
    }
}

/// How long until then; nothing where it is over.
fn left(until: Option<Timestamp>) -> Duration {
    until.map_or(Duration::ZERO, |until| Duration::from_millis(until.since_ms(time::now())))
}

fn show(context: &mut Context, view: &HandoffView, step: &Step) -> Result<(), CtlError> {
    if context.out.format == Format::Table {
        let text = line(&context.out.look, view, step);
        context.out.write(&text)?;
    }
    context.out.flush()
}

fn line(look: &Look, view: &HandoffView, step: &Step) -> String {
    let after = time::short(step.at.since_ms(view.requested));
    let (name, paint) = match step.state {
        Some(HandoffStateName::Draining) => ("accepted".to_owned(), Paint::Yellow),
        Some(state) => (views::name(&state), views::handoff_paint(state)),
        None => ("checkpoint".to_owned(), Paint::Plain),
    };
    let until = step.until.filter(|_| step.state.is_some_and(|state| rank(state) < 3));
    let bound = until.map_or_else(String::new, |until| {
        format!(" ({} at most)", time::short(until.since_ms(step.at)))
    });
    format!(
        "  {:>7}  {}  {}{bound}\n",
        after,
        look.paint(&format!("{name:<10}"), paint),
        look.text(&step.says)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::time::Clock;
    use crate::proto::view::Party;
    use jiff::tz::TimeZone;

    fn view() -> HandoffView {
        let json = r#"{"id":"h-17","task":"task-1","from":"writer","to":"reviewer",
            "state":"requested","by":"operator","requested":1000,"until":61000,"checkpoint":null,
            "epoch":null,"reason":null,"waits_for":null}"#;
        serde_json::from_str(json).unwrap()
    }

    fn event(seq: u64, kind: &str, data: &str) -> EventView {
        EventView {
            seq: Seq(seq),
            at: Timestamp(1_000 + i64::try_from(seq).unwrap() * 10 - 170),
            kind: kind.to_owned(),
            actor: Party::Daemon,
            data: Json::parse(data).unwrap(),
            content: None,
        }
    }

    #[test]
    fn every_step_of_a_handoff_is_told() {
        let look = Look::at(Clock { now: Timestamp(1_000), zone: TimeZone::UTC });
        let file = format!(r#"{{"path":"a","hash":"{}","size":3,"mode":420}}"#, "0".repeat(64));
        let saved = format!(r#"{{"task":"task-1","by":2,"epoch":9,"json":true,"files":[{file}]}}"#);
        let events = [
            event(17, "handoff_requested", r#"{"task":"task-1","from":2,"to":3,"until":61000}"#),
            event(19, "handoff_accepted", r#"{"handoff":"h-17","until":61020}"#),
            event(20, "checkpoint_saved", &saved),
            event(
                21,
                "handoff_quiesced",
                r#"{"handoff":"h-17","checkpoint":"c-20","until":61040}"#,
            ),
            event(22, "handoff_completed", r#"{"handoff":"h-17","incarnation":1}"#),
            event(
                22,
                "handoff_ended",
                r#"{"handoff":"h-17","how":"rejected","reason":"bu\u001bsy"}"#,
            ),
        ];
        let view = view();
        let shown: String =
            events.iter().map(|e| line(&look, &view, &step_of_event(e, &view).unwrap())).collect();
        insta::assert_snapshot!(shown, @r"
             0 ms  requested   waits for reviewer to accept (60 s at most)
            20 ms  accepted    reviewer accepts; waits for writer to save a checkpoint (60 s at most)
            30 ms  checkpoint  c-20 saved by daemon: 1 file
            40 ms  quiesced    writer writes no more; waits for reviewer to take over with c-20 (60 s at most)
            50 ms  completed   reviewer owns task-1 now, epoch 22
            50 ms  rejected    reviewer does not want it: bu\x1bsy
        ");
    }

    #[test]
    fn what_is_not_of_this_handoff_is_passed_over() {
        let view = view();
        for (kind, data) in [
            ("handoff_accepted", r#"{"handoff":"h-18","until":1}"#),
            ("handoff_requested", r#"{"task":"task-1","from":2,"to":3,"until":1}"#),
            ("checkpoint_saved", r#"{"task":"task-2","by":2,"epoch":9,"json":true}"#),
            ("handoff_pruned", r#"{"handoff":"h-17"}"#),
        ] {
            assert_eq!(step_of_event(&event(30, kind, data), &view), None, "{kind}");
        }
    }
}
