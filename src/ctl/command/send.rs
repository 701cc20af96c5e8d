//! `send`.

use super::super::Context;
use super::super::error::CtlError;
use super::super::input::{JsonSource, Position, stdin};
use super::task::json_text;
use crate::ids::{AgentName, MessageId, SubscriptionName, TaskId};
use crate::proto::Method;
use crate::proto::request::{MessageType, Publish};
use crate::proto::view::Published;

const AFTER: &str = "\
A message is durable when this command answers 0, and its id is printed. Everyone named in --to gets \
it at least once; without --to it goes to all, and its type is `broadcast`. With --to the type is \
`custom.message` unless said otherwise. TEXT goes out as a JSON string.

Exit codes: 3 no such agent, 4 your role can't publish, 75 somebody's inbox is full.

Examples:
  missionctl send 'the build is green'
  missionctl send --to reviewer --type alert 'look at src/parse.rs'
  missionctl send --to a --to b --json '{\"line\": 512}'
  generate | missionctl send --to reviewer -
  missionctl send --reply-to m-17 --to planner yes
  missionctl send --ephemeral --type status_update '40 of 100'";

/// Sends a message to agents, or to all
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Send {
    /// What it says, as text; - for standard input
    #[arg(required_unless_present = "json", conflicts_with = "json")]
    text: Option<String>,
    /// What it says: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    json: Option<JsonSource>,
    /// To whom; may be given again; to all without
    #[arg(long, value_name = "AGENT")]
    to: Vec<AgentName>,
    /// task_assign, task_update, task_complete, handoff_request, handoff_accept, handoff_complete,
    /// status_update, alert, broadcast, or custom.NAME
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<MessageType>,
    /// The task it is about [default: $MISSION_TASK_ID]
    #[arg(long)]
    task: Option<TaskId>,
    /// The message it answers (m-17)
    #[arg(long, value_name = "MESSAGE")]
    reply_to: Option<Position>,
    /// Not logged and nothing promised: for progress ticks; gone if nobody listens
    #[arg(long)]
    ephemeral: bool,
}

impl Send {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let content = match (self.json, self.text) {
            (Some(json), _) => json.load()?,
            (None, Some(text)) if text == "-" => json_text(stdin()?.trim_end_matches('\n'))?,
            (None, text) => json_text(&text.unwrap_or_default())?,
        };
        let task = match self.task {
            Some(task) => Some(task),
            None => context.env.task()?,
        };
        let params = Publish {
            r#type: self.kind.unwrap_or_else(|| default_type(&self.to)),
            to: self.to,
            content,
            task,
            reply_to: self.reply_to.map(|position| MessageId(position.0)),
            ephemeral: self.ephemeral,
        };
        let mut session = context.session().await?;
        let reply = session.ask("send the message", Method::Publish, &params).await?;
        context.out.reply(&reply, |_, published: &Published| match published.id {
            Some(id) => format!("{id}\n"),
            None => String::new(),
        })
    }
}

fn default_type(to: &[AgentName]) -> MessageType {
    match SubscriptionName::new("message") {
        Ok(name) if !to.is_empty() => MessageType::Custom(name),
        _ => MessageType::Broadcast,
    }
}
