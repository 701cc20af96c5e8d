//! `handoff FROM TO TASK` and `handoff list|get|request|accept|reject|complete|cancel`.

use std::time::Duration;

use clap::Subcommand;

use super::super::error::CtlError;
use super::super::exit::Exit;
use super::super::follow::{Follow, Outcome};
use super::super::out::{Format, Look, read};
use super::super::session::Session;
use super::super::time::{duration, millis, short};
use super::super::{Context, views};
use crate::ids::{AgentName, HandoffId, TaskId};
use crate::proto::Method;
use crate::proto::denied::{Code, Denied};
use crate::proto::json::Json;
use crate::proto::request::{HandoffList, HandoffRef, HandoffRefuse, HandoffRequest};
use crate::proto::view::{HandoffStateName, HandoffView};

const AFTER: &str = "\
A handoff moves a task with its latest checkpoint: requested, accepted (the source saves a fresh \
checkpoint), quiesced (the source writes no more), completed (the target owns the task under a new \
epoch). Each step is shown as it happens, and the command waits for the end. Each step has a time \
limit of its own; one that runs out ends the handoff, and the task stays where it was.

FROM may be `.`, the agent that you speak as. An agent that is called like one of the commands below \
is meant with `missionctl handoff request FROM TO TASK`.

Exit codes: 0 completed, 1 rejected, cancelled or failed, 3 no such agent or task, 4 your role does not \
allow it, 5 the task is not FROM's, TO's role can't own tasks, or it is in another handoff, 124 expired.

Examples:
  missionctl handoff writer reviewer task-1
  missionctl handoff writer reviewer task-1 --timeout 30s || echo still with writer
  missionctl handoff . reviewer                  (inside a task: your own task)
  missionctl handoff list
  missionctl handoff accept h-17 --complete      (as the target)";

/// Moves a task from one agent to another, with its checkpoint
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER, args_conflicts_with_subcommands = true)]
#[command(subcommand_negates_reqs = true)]
#[command(
    override_usage = "missionctl handoff [OPTIONS] FROM TO [TASK]\n       missionctl handoff COMMAND"
)]
pub(crate) struct Handoff {
    #[command(subcommand)]
    command: Option<HandoffCommand>,
    #[command(flatten)]
    request: Option<Request>,
}

#[derive(Debug, Subcommand)]
enum HandoffCommand {
    /// Lists the open handoffs
    List {
        /// Also those that have ended
        #[arg(short, long)]
        all: bool,
    },
    /// Shows a handoff
    #[command(visible_alias = "show")]
    Get(Named),
    /// Asks for a handoff: the same as without this word
    Request(Request),
    /// Agrees to take the task over (as the target)
    Accept {
        #[command(flatten)]
        named: Named,
        /// Also wait until the source writes no more, and complete it
        #[arg(long)]
        complete: bool,
    },
    /// Refuses to take the task over (as the target)
    Reject(Refuse),
    /// Takes ownership, once the source writes no more (as the target)
    Complete(Named),
    /// Calls a handoff off: the task stays where it was
    Cancel(Refuse),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// Which (h-17) [default: $MISSION_HANDOFF_ID]
    handoff: Option<HandoffId>,
}

#[derive(Debug, clap::Args)]
struct Refuse {
    #[command(flatten)]
    named: Named,
    /// Why, for people
    #[arg(long)]
    reason: Option<String>,
}

/// An agent, or `.`: the one that this program speaks as.
#[derive(Debug, Clone)]
enum Source {
    Own,
    Named(AgentName),
}

impl std::str::FromStr for Source {
    type Err = crate::ids::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "." => Ok(Source::Own),
            text => AgentName::new(text).map(Source::Named),
        }
    }
}

#[derive(Debug, clap::Args)]
struct Request {
    /// Who owns the task; `.` for yourself
    from: Source,
    /// Who is to own it
    to: AgentName,
    /// Which task [default: $MISSION_TASK_ID]
    task: Option<TaskId>,
    /// Why, for people
    #[arg(long)]
    reason: Option<String>,
    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,
    /// How long all of it may take (30s); then it is called off [default: the limits of the mission
    /// for each step]
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    timeout: Option<Duration>,
}

impl Handoff {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        match (self.command, self.request) {
            (Some(HandoffCommand::Request(request)), _) | (None, Some(request)) => {
                request.run(context).await
            }
            (Some(HandoffCommand::List { all }), _) => {
                let mut session = context.session().await?;
                let params = HandoffList { all };
                let reply = session.ask("list the handoffs", Method::HandoffList, &params).await?;
                let none = if all { "no handoffs" } else { "no open handoffs" };
                context.out.list(&reply, |look, list| views::handoffs(look, list, none))
            }
            (Some(HandoffCommand::Get(named)), _) => {
                let handoff = named.resolve(context)?;
                let mut session = context.session().await?;
                let doing = format!("show handoff {handoff}");
                let params = HandoffRef { handoff };
                let reply = session.ask(&doing, Method::HandoffGet, &params).await?;
                context.out.reply(&reply, views::handoff)
            }
            (Some(HandoffCommand::Accept { named, complete }), _) => {
                accept(context, named.resolve(context)?, complete).await
            }
            (Some(HandoffCommand::Complete(named)), _) => {
                let handoff = named.resolve(context)?;
                let mut session = context.session().await?;
                let reply =
                    settle(&mut session, handoff, Method::HandoffComplete, "complete").await?;
                context.out.reply(&reply, line)
            }
            (Some(HandoffCommand::Reject(refuse)), _) => {
                refuse.run(context, Method::HandoffReject, "reject").await
            }
            (Some(HandoffCommand::Cancel(refuse)), _) => {
                refuse.run(context, Method::HandoffCancel, "cancel").await
            }
            // Both missing is refused by the parser.
            (None, None) => Ok(()),
        }
    }
}

impl Named {
    fn resolve(&self, context: &Context) -> Result<HandoffId, CtlError> {
        match self.handoff {
            Some(handoff) => Ok(handoff),
            None => context.env.handoff()?.ok_or_else(|| CtlError::Usage {
                what: "which handoff?".to_owned(),
                cause: "none is named, and MISSION_HANDOFF_ID is not set".to_owned(),
                help: "name it (h-17); `missionctl handoff list` shows the open ones".to_owned(),
            }),
        }
    }
}

impl Refuse {
    async fn run(self, context: &mut Context, method: Method, verb: &str) -> Result<(), CtlError> {
        let handoff = self.named.resolve(context)?;
        let mut session = context.session().await?;
        let doing = format!("{verb} handoff {handoff}");
        let params = HandoffRefuse { handoff, reason: self.reason };
        let reply = session.ask(&doing, method, &params).await?;
        context.out.reply(&reply, line)
    }
}

fn line(look: &Look, handoff: &HandoffView) -> String {
    let wait = views::wait(look, handoff.waits_for.as_ref());
    let wait = if wait.is_empty() { wait } else { format!(", waits for {wait}") };
    let HandoffView { id, task, from, to, state, .. } = handoff;
    format!("handoff {id} of {task} from {from} to {to} is {}{wait}\n", views::name(state))
}

async fn settle(
    session: &mut Session,
    handoff: HandoffId,
    method: Method,
    verb: &str,
) -> Result<Json, CtlError> {
    session.ask(&format!("{verb} handoff {handoff}"), method, &HandoffRef { handoff }).await
}

/// Accepts, and with `complete` waits until the source is quiet and takes ownership.
async fn accept(context: &mut Context, handoff: HandoffId, complete: bool) -> Result<(), CtlError> {
    let mut session = context.session().await?;
    if !complete {
        let reply = settle(&mut session, handoff, Method::HandoffAccept, "accept").await?;
        return context.out.reply(&reply, line);
    }
    let follow = Follow::new(&session);
    follow.prepare(&mut session).await?;
    let reply = settle(&mut session, handoff, Method::HandoffAccept, "accept").await?;
    let until = |state: HandoffStateName| match state {
        HandoffStateName::Requested | HandoffStateName::Draining => false,
        HandoffStateName::Quiesced
        | HandoffStateName::Completed
        | HandoffStateName::Rejected
        | HandoffStateName::Expired
        | HandoffStateName::Cancelled
        | HandoffStateName::Failed => true,
    };
    let outcome = follow.run(context, &mut session, &reply, None, until).await?;
    let (Outcome::Reached(reply) | Outcome::Late(reply)) = outcome;
    let view: HandoffView = read(&reply)?;
    if view.state != HandoffStateName::Quiesced {
        return finish(context, &reply, &view);
    }
    let reply = settle(&mut session, handoff, Method::HandoffComplete, "complete").await?;
    context.out.reply(&reply, line)
}

impl Request {
    async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        self.check_spelling()?;
        let task = match self.task {
            Some(task) => task,
            None => context.env.task()?.ok_or_else(super::super::input::no_task)?,
        };
        let mut session = context.session().await?;
        let from = match self.from {
            Source::Named(from) => from,
            Source::Own => {
                session.hello().agent.as_ref().map(|own| own.name.clone()).ok_or_else(|| {
                    CtlError::Usage {
                        what: "whose task is it?".to_owned(),
                        cause: "`.` means the agent that you are, and the operator is none"
                            .to_owned(),
                        help: "missionctl handoff FROM TO TASK".to_owned(),
                    }
                })?
            }
        };
        let doing = format!("hand task `{task}` from `{from}` to `{}`", self.to);
        let timeout_ms = self.timeout.map(millis);
        let params = HandoffRequest { from, to: self.to, task, timeout_ms, reason: self.reason };
        let follow = Follow::new(&session);
        if !self.no_wait {
            follow.prepare(&mut session).await?;
        }
        let reply = session.ask(&doing, Method::HandoffRequest, &params).await?;
        if self.no_wait {
            return context.out.reply(&reply, line);
        }
        let outcome = follow.run(context, &mut session, &reply, self.timeout, is_ended).await?;
        match outcome {
            Outcome::Reached(reply) => finish(context, &reply, &read(&reply)?),
            Outcome::Late(reply) => {
                let after = self.timeout.unwrap_or_default();
                call_off(context, &mut session, &read(&reply)?, after).await
            }
        }
    }

    /// `handoff acept h-3` would else be a handoff from `acept` to `h-3`.
    fn check_spelling(&self) -> Result<(), CtlError> {
        let Source::Named(from) = &self.from else { return Ok(()) };
        let takes_id = ["get", "show", "accept", "reject", "complete", "cancel"];
        let near = takes_id
            .into_iter()
            .map(|name| (strsim::jaro_winkler(from.as_str(), name), name))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(likeness, _)| *likeness > 0.8);
        match near {
            Some((_, name)) if self.to.as_str().parse::<HandoffId>().is_ok() => {
                Err(CtlError::Usage {
                    what: format!("unknown command `{from}`"),
                    cause: format!("`{}` is a handoff and no agent", self.to),
                    help: format!("did you mean `missionctl handoff {name} {}`?", self.to),
                })
            }
            _ => Ok(()),
        }
    }
}

/// Whether nothing more happens to it.
fn is_ended(state: HandoffStateName) -> bool {
    match state {
        HandoffStateName::Requested | HandoffStateName::Draining | HandoffStateName::Quiesced => {
            false
        }
        HandoffStateName::Completed
        | HandoffStateName::Rejected
        | HandoffStateName::Expired
        | HandoffStateName::Cancelled
        | HandoffStateName::Failed => true,
    }
}

/// The time is up: calls it off, so that the task surely stays where it was.
async fn call_off(
    context: &mut Context,
    session: &mut Session,
    view: &HandoffView,
    after: Duration,
) -> Result<(), CtlError> {
    let after = short(millis(after));
    let params =
        HandoffRefuse { handoff: view.id, reason: Some(format!("not completed within {after}")) };
    let doing = format!("call off handoff {}", view.id);
    match session.ask(&doing, Method::HandoffCancel, &params).await {
        Ok(reply) => {
            if context.out.format != Format::Table {
                context.out.json(reply.get())?;
            }
            Err(CtlError::Ended {
                what: format!("handoff {} of task `{}` took too long", view.id, view.task),
                cause: format!(
                    "it was {} after {after}, and has been called off",
                    views::name(&view.state)
                ),
                help: format!(
                    "the task stays with `{}`; `missionctl handoff get {}`",
                    view.from, view.id
                ),
                exit: Exit::TimedOut,
            })
        }
        // It ended in this very moment: then that is the outcome.
        Err(CtlError::Refused { denied: Denied { code: Code::Conflict, .. }, .. }) => {
            let doing = format!("show handoff {}", view.id);
            let params = HandoffRef { handoff: view.id };
            let reply = session.ask(&doing, Method::HandoffGet, &params).await?;
            finish(context, &reply, &read(&reply)?)
        }
        Err(error) => Err(error),
    }
}

/// Says how it ended: the table has shown the steps already.
fn finish(context: &mut Context, reply: &Json, view: &HandoffView) -> Result<(), CtlError> {
    if context.out.format != Format::Table {
        context.out.json(reply.get())?;
    }
    let exit = match view.state {
        HandoffStateName::Completed => return Ok(()),
        HandoffStateName::Expired => Exit::TimedOut,
        HandoffStateName::Rejected
        | HandoffStateName::Cancelled
        | HandoffStateName::Failed
        | HandoffStateName::Requested
        | HandoffStateName::Draining
        | HandoffStateName::Quiesced => Exit::Failure,
    };
    let state = views::name(&view.state);
    Err(CtlError::Ended {
        what: format!("handoff {} of task `{}` is {state}", view.id, view.task),
        cause: view.reason.clone().unwrap_or_else(|| {
            let is_late = exit == Exit::TimedOut;
            if is_late {
                format!("`{}` did not answer in time", view.to)
            } else {
                "no reason was given".to_owned()
            }
        }),
        help: format!("`missionctl task get {}` shows who has it now", view.task),
        exit,
    })
}
