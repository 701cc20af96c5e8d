//! `tail`: messages as they come.

use super::super::Context;
use super::super::error::CtlError;
use super::super::lines;
use super::super::out::Format;
use super::super::session::Session;
use crate::ids::{AgentName, SubscriptionName, TaskId};
use crate::proto::request::MessageType;
use crate::proto::view::Party;
use crate::proto::wire::{Delivery, MAX_CREDIT, Subscribe};
use crate::proto::{Method, Notification};

const AFTER: &str = "\
Begins now, shows what you may see, ephemeral messages included, and changes nothing: it acknowledges \
no message and is no receipt. What went before: `missionctl messages`. What is for you and waits to \
be dealt with: `missionctl inbox`.

Examples:
  missionctl tail
  missionctl tail --type alert --type task_complete -o jsonl";

/// Shows messages as they come, without acknowledging any
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Tail {
    /// Only this type; may be given again
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<MessageType>,
    /// Only from this agent
    #[arg(long, value_name = "AGENT")]
    from: Option<AgentName>,
    /// Only about this task
    #[arg(long)]
    task: Option<TaskId>,
}

impl Tail {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let mut session = context.session().await?;
        self.subscribe(&mut session).await?;
        loop {
            match session.next().await {
                Some(Notification::Message(delivery)) if self.is_wanted(&delivery) => {
                    show(context, &delivery)?;
                }
                Some(Notification::Lagged(lagged)) => context.out.note(&format!(
                    "some messages are missing: {} to {} went by too fast",
                    lagged.from, lagged.to
                )),
                Some(Notification::Message(_) | Notification::Event(_)) => {}
                None => {
                    session.reconnect("go on showing messages").await?;
                    self.subscribe(&mut session).await?;
                    context
                        .out
                        .note("connected again; what came in between is in `missionctl messages`");
                }
            }
        }
    }

    async fn subscribe(&self, session: &mut Session) -> Result<(), CtlError> {
        let subscription = SubscriptionName::new("tail").map_err(|error| CtlError::Usage {
            what: "cannot subscribe".to_owned(),
            cause: error.to_string(),
            help: String::new(),
        })?;
        let params = Subscribe {
            subscription,
            types: self.types.clone(),
            credit: MAX_CREDIT,
            takeover: false,
        };
        session.ask("show messages", Method::Subscribe, &params).await.map(drop)
    }

    fn is_wanted(&self, delivery: &Delivery) -> bool {
        let message = &delivery.message;
        let is_from = |from: &AgentName| message.from == Party::Agent(from.clone());
        self.from.as_ref().is_none_or(is_from)
            && self.task.as_ref().is_none_or(|task| message.task.as_ref() == Some(task))
    }
}

/// A message as it came, flushed: whoever reads a stream reads it now.
pub(super) fn show(context: &mut Context, delivery: &Delivery) -> Result<(), CtlError> {
    match context.out.format {
        Format::Table => {
            let mark = match (delivery.ephemeral, delivery.redelivered) {
                (true, _) => lines::EPHEMERAL,
                (false, true) => "again",
                (false, false) => "",
            };
            let text = lines::message(&context.out.look, &delivery.message, mark);
            context.out.write(&text)?;
        }
        Format::Json | Format::Jsonl => {
            let raw = delivery_json(delivery)?;
            context.out.json(&raw)?;
        }
    }
    context.out.flush()
}

/// The delivery as JSON, for programs.
pub(super) fn delivery_json(delivery: &Delivery) -> Result<String, CtlError> {
    serde_json::to_string(delivery).map_err(|error| CtlError::Answer {
        doing: "show a message".to_owned(),
        cause: error.to_string(),
    })
}
