//! `messages`: those of the log, with what became of them.

use super::super::Context;
use super::super::error::CtlError;
use super::super::input::Position;
use super::super::lines;
use super::super::out::{Format, Look, read};
use super::super::session::Session;
use super::super::views;
use super::events::last;
use crate::ids::{AgentName, Seq, TaskId};
use crate::proto::Method;
use crate::proto::json::Json;
use crate::proto::request::MessageType;
use crate::proto::spec::Permission;
use crate::proto::view::Party;
use crate::proto::wire::{EventView, Fetch, FetchedMessage, MAX_AUDIT};

const AFTER: &str = "\
With the permission `audit` (the operator has it) it shows every message and its receipts: accepted, \
delivered, acked, or dead with the reason. Without, it shows what waits in your inbox; the receipts of \
a message that you sent are shown when you name it.

Examples:
  missionctl messages -n 100
  missionctl messages --type alert --from writer
  missionctl messages m-17 m-23 -o json";

/// Shows messages with their receipts
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Messages {
    /// Exactly these (m-17)
    #[arg(value_name = "MESSAGE")]
    ids: Vec<Position>,
    /// So many of the last messages, at most 1000
    #[arg(short = 'n', long = "lines", default_value_t = 50, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_AUDIT)))]
    count: u32,
    /// Only this type; may be given again
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<MessageType>,
    /// Only from this agent
    #[arg(long, value_name = "AGENT")]
    from: Option<AgentName>,
    /// Only to this agent, or to all
    #[arg(long, value_name = "AGENT")]
    to: Option<AgentName>,
    /// Only about this task
    #[arg(long)]
    task: Option<TaskId>,
}

/// What the log says of a message, as far as it is filtered here.
#[derive(serde::Deserialize)]
struct Logged {
    r#type: MessageType,
    #[serde(default)]
    to: Vec<(u64, AgentName)>,
    #[serde(default)]
    task: Option<TaskId>,
}

impl Messages {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let mut session = context.session().await?;
        let may_audit = session.hello().permissions.has(Permission::Audit);
        let reply = if !self.ids.is_empty() {
            let seqs = self.ids.iter().map(|position| position.0).collect();
            exactly(&mut session, seqs).await?
        } else if may_audit {
            let kinds = ["message_published".to_owned()];
            let count = usize::try_from(self.count).unwrap_or(usize::MAX);
            let (events, _) =
                last(&mut session, &kinds, count, |event| self.is_wanted(event)).await?;
            exactly(&mut session, events.iter().map(|event| event.seq).collect()).await?
        } else {
            context.out.note("without the permission `audit`, these are those in your inbox");
            let (limit, types) = (self.count, self.types.clone());
            let params = Fetch { limit, types, peek: true, ..Fetch::default() };
            let reply = session.ask("look into the inbox", Method::Fetch, &params).await?;
            items(&reply)?
        };
        show(context, &reply)
    }

    fn is_wanted(&self, event: &EventView) -> bool {
        let Ok(logged) = serde_json::from_str::<Logged>(event.data.get()) else { return false };
        let is_to = |to: &AgentName| logged.to.is_empty() || logged.to.iter().any(|(_, n)| n == to);
        (self.types.is_empty() || self.types.contains(&logged.r#type))
            && self.from.as_ref().is_none_or(|from| event.actor == Party::Agent(from.clone()))
            && self.to.as_ref().is_none_or(is_to)
            && self.task.as_ref().is_none_or(|task| logged.task.as_ref() == Some(task))
    }
}

/// These messages with their receipts, each as the daemon says it.
async fn exactly(session: &mut Session, seqs: Vec<Seq>) -> Result<Vec<Json>, CtlError> {
    if seqs.is_empty() {
        return Ok(Vec::new());
    }
    let limit = MAX_AUDIT;
    let params = Fetch { seqs, limit, ..Fetch::default() };
    items(&session.ask("show messages", Method::Fetch, &params).await?)
}

#[derive(serde::Deserialize)]
struct Items {
    messages: Vec<Json>,
}

/// The messages of a `fetch`, each as the daemon says it.
pub(super) fn items(reply: &Json) -> Result<Vec<Json>, CtlError> {
    read::<Items>(reply).map(|items| items.messages)
}

/// A list of fetched messages.
pub(super) fn show(context: &mut Context, items: &[Json]) -> Result<(), CtlError> {
    match context.out.format {
        Format::Jsonl => items.iter().try_for_each(|item| context.out.json(item.get())),
        Format::Json => {
            let items: Vec<&str> = items.iter().map(Json::get).collect();
            context.out.json(&format!("[{}]", items.join(",")))
        }
        Format::Table => items.iter().try_for_each(|item| {
            let text = row(&context.out.look, &read(item)?);
            context.out.write(&text)
        }),
    }
}

fn row(look: &Look, fetched: &FetchedMessage) -> String {
    let mark = if fetched.redelivered { "again" } else { "" };
    let mut text = lines::message(look, &fetched.message, mark);
    if !fetched.receipts.is_empty() {
        text.push_str(&format!("    {}\n", views::receipts(look, &fetched.receipts)));
    }
    text
}
