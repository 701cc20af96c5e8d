//! `events`: the log.

use super::super::Context;
use super::super::error::CtlError;
use super::super::lines::{self, Names};
use super::super::out::{Format, read};
use super::super::session::Session;
use crate::ids::Seq;
use crate::proto::view::AgentView;
use crate::proto::wire::{AuditPage, AuditRead, Empty, EventView, MAX_AUDIT};
use crate::proto::{Method, Notification};

const AFTER: &str = "\
Every change of the mission is one event: what happened, to whom, by whom. Needs the permission \
`audit` (the operator has it). The table leaves out the bookkeeping of acknowledgements and idempotency \
keys unless it is asked for, and shows agents by name; in JSON all events are there, and `data` is the \
event as it is stored, where agents are their uids.

Examples:
  missionctl events                              the last 50
  missionctl events -f                           and those to come
  missionctl events --since 0 -o jsonl > log.jsonl
  missionctl events -f --kind task_completed --kind task_failed";

/// Shows the log of the mission, and follows it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Events {
    /// Go on with every event to come
    #[arg(short, long)]
    follow: bool,
    /// Begin after this position; 0 for the whole log
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,
    /// Only this kind (task_completed); may be given again
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// Also the bookkeeping: cursors_advanced and key_used
    #[arg(short, long)]
    all: bool,
    /// So many of the last events
    #[arg(
        short = 'n',
        long = "lines",
        default_value_t = 50,
        value_name = "N",
        conflicts_with = "since"
    )]
    count: usize,
}

impl Events {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let mut session = context.session().await?;
        let mut names = Names::default();
        if context.out.format == Format::Table {
            let reply = session.ask("list the agents", Method::AgentList, &Empty {}).await?;
            names = Names::of(&read::<Vec<AgentView>>(&reply)?);
        }
        let is_brief = context.out.format == Format::Table && !self.all && self.kinds.is_empty();
        let mut shown = Shown { names, items: Vec::new(), last: Seq(0), is_brief };
        match self.since {
            Some(since) => {
                shown.last = Seq(since);
                while self.page(context, &mut session, &mut shown).await? {}
            }
            None => {
                let wanted = |event: &EventView| !(is_brief && is_bookkeeping(event));
                let (events, head) = last(&mut session, &self.kinds, self.count, wanted).await?;
                for event in &events {
                    shown.event(context, event, self.follow)?;
                }
                shown.last = head;
            }
        }
        if !self.follow {
            return shown.finish(context);
        }
        self.follow(context, &mut session, &mut shown).await
    }

    /// Shows one page after what was shown; whether there may be more.
    async fn page(
        &self,
        context: &mut Context,
        session: &mut Session,
        shown: &mut Shown,
    ) -> Result<bool, CtlError> {
        let page = audit(session, shown.last, MAX_AUDIT, &self.kinds, false).await?;
        for event in &page.events {
            shown.event(context, event, self.follow)?;
        }
        let is_full = page.events.len() >= usize::try_from(MAX_AUDIT).unwrap_or(usize::MAX);
        if !is_full {
            shown.last = shown.last.max(page.head);
        }
        Ok(is_full)
    }

    async fn follow(
        &self,
        context: &mut Context,
        session: &mut Session,
        shown: &mut Shown,
    ) -> Result<(), CtlError> {
        loop {
            let page = audit(session, shown.last, MAX_AUDIT, &self.kinds, true).await?;
            for event in &page.events {
                shown.event(context, event, true)?;
            }
            while let Some(notification) = session.next().await {
                match notification {
                    Notification::Event(event) => shown.event(context, &event, true)?,
                    Notification::Lagged(lagged) => context.out.note(&format!(
                        "events {} to {} are no longer in the log",
                        lagged.from, lagged.to
                    )),
                    Notification::Message(_) => {}
                }
            }
            session.reconnect("go on showing events").await?;
        }
    }
}

/// What was shown so far; as one JSON document, it is written at the end.
struct Shown {
    names: Names,
    items: Vec<String>,
    last: Seq,
    is_brief: bool,
}

/// What is of interest only to those who look after the log itself.
fn is_bookkeeping(event: &EventView) -> bool {
    matches!(event.kind.as_str(), "cursors_advanced" | "key_used")
}

impl Shown {
    fn event(
        &mut self,
        context: &mut Context,
        event: &EventView,
        is_stream: bool,
    ) -> Result<(), CtlError> {
        self.names.learn(event);
        // Following begins where reading ended, and may repeat its last page.
        if event.seq <= self.last {
            return Ok(());
        }
        self.last = event.seq;
        if self.is_brief && is_bookkeeping(event) {
            return Ok(());
        }
        match context.out.format {
            Format::Table => {
                let text = lines::event(&context.out.look, event, &self.names);
                context.out.write(&text)?;
            }
            Format::Json if !is_stream => self.items.push(event_json(event)?),
            Format::Json | Format::Jsonl => context.out.json(&event_json(event)?)?,
        }
        if is_stream { context.out.flush() } else { Ok(()) }
    }

    fn finish(self, context: &mut Context) -> Result<(), CtlError> {
        match context.out.format {
            Format::Json => context.out.json(&format!("[{}]", self.items.join(","))),
            Format::Table | Format::Jsonl => Ok(()),
        }
    }
}

fn event_json(event: &EventView) -> Result<String, CtlError> {
    serde_json::to_string(event).map_err(|error| CtlError::Answer {
        doing: "show an event".to_owned(),
        cause: error.to_string(),
    })
}

/// One page of the log.
pub(super) async fn audit(
    session: &mut Session,
    since: Seq,
    limit: u32,
    kinds: &[String],
    follow: bool,
) -> Result<AuditPage, CtlError> {
    let kinds = kinds.to_vec();
    let params = AuditRead { since: Some(since), limit: Some(limit), kinds, follow };
    read(&session.ask("read the log", Method::AuditRead, &params).await?)
}

/// The last `count` events that are `wanted`, oldest first, and the head of the log. It looks at ever
/// larger windows before the head, so that a long log isn't read for its end.
pub(super) async fn last(
    session: &mut Session,
    kinds: &[String],
    count: usize,
    wanted: impl Fn(&EventView) -> bool,
) -> Result<(Vec<EventView>, Seq), CtlError> {
    let head = audit(session, Seq(0), 1, kinds, false).await?.head;
    let mut found: Vec<EventView> = Vec::new();
    let mut until = head.0;
    let mut window = 512;
    while until > 0 && found.len() < count {
        let since = until.saturating_sub(window);
        let mut part = Vec::new();
        let mut at = Seq(since);
        loop {
            let page = audit(session, at, MAX_AUDIT, kinds, false).await?;
            let is_full = page.events.len() >= usize::try_from(MAX_AUDIT).unwrap_or(usize::MAX);
            at = page.events.last().map_or(at, |event| event.seq);
            part.extend(
                page.events.into_iter().filter(|event| event.seq.0 <= until && wanted(event)),
            );
            if !is_full || at.0 >= until {
                break;
            }
        }
        part.append(&mut found);
        found = part;
        until = since;
        window = window.saturating_mul(4);
    }
    let surplus = found.len().saturating_sub(count);
    Ok((found.split_off(surplus), head))
}
