//! `task list|get|show|create|assign|claim|update|complete|fail|release|cancel`.

use std::time::Duration;

use clap::Subcommand;

use super::super::error::CtlError;
use super::super::input::{JsonSource, OwnTask, by_name, no_task, stdin};
use super::super::out::{Look, read};
use super::super::time::{duration, millis};
use super::super::{Context, views};
use super::assign::Assign;
use crate::ids::{AgentName, Capability, TaskId};
use crate::proto::Method;
use crate::proto::json::Json;
use crate::proto::request::{
    TaskCancel, TaskClaim, TaskGet, TaskList, TaskRelease, TaskSettle, TaskUpdate,
};
use crate::proto::spec::TaskSpec;
use crate::proto::view::{TaskStateName, TaskView};

const AFTER: &str = "\
The owner of a task proves with its epoch that it still is the owner: the fencing token that it got \
with the task, from `task claim`, the message task_assign, or the environment. A write under a former \
epoch is refused with exit code 5. `--epoch current` takes whatever it is now, and with that gives up \
this protection. Inside a task-mode agent task and epoch come from the environment.

Examples:
  missionctl task create lint --title 'run the linter' --after build --needs rust
  missionctl task list --state failed
  eval \"$(missionctl task claim --export)\" && work && missionctl task complete --result '{\"ok\":true}'";

/// Lists, creates, takes, reports and settles tasks
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Task {
    #[command(subcommand)]
    command: TaskCommand,
}

#[derive(Debug, Subcommand)]
enum TaskCommand {
    /// Lists tasks, oldest first
    List {
        /// Only those pending, assigned, active, completed, failed or cancelled
        #[arg(long, value_parser = by_name::<TaskStateName>)]
        state: Option<TaskStateName>,
        /// Only this owner's
        #[arg(long, value_name = "AGENT", conflicts_with = "mine")]
        owner: Option<AgentName>,
        /// Only your own (inside an agent)
        #[arg(long)]
        mine: bool,
    },
    /// Shows a task with its data and result
    #[command(visible_alias = "show")]
    Get {
        /// Which [default: $MISSION_TASK_ID]
        task: Option<TaskId>,
    },
    /// Creates a task
    Create(Box<Create>),
    /// Gives a task that nobody works on to an agent: the same as `missionctl assign`
    Assign(Assign),
    /// Takes an unassigned task that you are able to do
    Claim {
        /// Which; the oldest that you may take without
        task: Option<TaskId>,
        /// Print shell commands that set MISSION_TASK_ID and MISSION_TASK_EPOCH, for eval
        #[arg(long)]
        export: bool,
    },
    /// Reports that work on a task has begun, or how far it is
    Update {
        #[command(flatten)]
        own: OwnTask,
        /// 0 to 100
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
        progress: Option<u8>,
        /// One line for people
        #[arg(long)]
        note: Option<String>,
    },
    /// Settles a task: done, with its result
    Complete {
        #[command(flatten)]
        own: OwnTask,
        #[command(flatten)]
        result: Outcome,
    },
    /// Settles a task: it failed, and why
    Fail {
        #[command(flatten)]
        own: OwnTask,
        #[command(flatten)]
        result: Outcome,
        /// What went wrong, in words: short for --text
        #[arg(long, conflicts_with_all = ["result", "text"])]
        reason: Option<String>,
    },
    /// Gives a task back, for somebody else to take
    Release {
        #[command(flatten)]
        own: OwnTask,
        /// Why, for people
        #[arg(long)]
        reason: Option<String>,
    },
    /// Ends a task for good, whoever works on it
    Cancel {
        /// Which
        task: TaskId,
        /// Why, for people
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Its id: letters, digits, -, _ and .
    task: TaskId,
    /// One line for people [default: the id]
    #[arg(long)]
    title: Option<String>,
    /// A task that must be completed before; may be given again
    #[arg(long, value_name = "TASK")]
    after: Vec<TaskId>,
    /// Who is to have it; whoever is able may take it without
    #[arg(long, value_name = "AGENT")]
    assign: Option<AgentName>,
    /// What its owner must be able to do; may be given again
    #[arg(long, value_name = "CAPABILITY")]
    needs: Vec<Capability>,
    /// Time until it fails unless settled (30m); unbounded without
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    /// How often an owner may end without completing it before it fails
    #[arg(long, default_value_t = 3, value_name = "N")]
    max_attempts: u32,
    /// What it is about: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    data: Option<JsonSource>,
}

/// How a task ended.
#[derive(Debug, clap::Args)]
struct Outcome {
    /// The result: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    result: Option<JsonSource>,
    /// The result as text, - for standard input
    #[arg(long, conflicts_with = "result")]
    text: Option<String>,
}

impl Outcome {
    fn load(self) -> Result<Option<Json>, CtlError> {
        let text = match self.text {
            None => return self.result.map(JsonSource::load).transpose(),
            Some(dash) if dash == "-" => stdin()?,
            Some(text) => text,
        };
        json_text(&text).map(Some)
    }
}

/// A text as a JSON string.
pub(super) fn json_text(text: &str) -> Result<Json, CtlError> {
    Json::of(text).map_err(|error| CtlError::Usage {
        what: "this text can't be sent".to_owned(),
        cause: error.to_string(),
        help: "send UTF-8".to_owned(),
    })
}

fn line(_: &Look, task: &TaskView) -> String {
    let state = views::name(&task.state);
    let owner = task.owner.as_ref().map_or_else(String::new, |owner| format!(", owner {owner}"));
    format!("task {} is {state}{owner}, epoch {}\n", task.id, task.epoch)
}

impl Task {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        match self.command {
            TaskCommand::List { state, owner, mine } => list(context, state, owner, mine).await,
            TaskCommand::Get { task } => {
                let task = named(context, task)?;
                let mut session = context.session().await?;
                let doing = format!("show task `{task}`");
                let reply = session.ask(&doing, Method::TaskGet, &TaskGet { task }).await?;
                context.out.reply(&reply, views::task)
            }
            TaskCommand::Create(create) => create.run(context).await,
            TaskCommand::Assign(assign) => assign.run(context).await,
            TaskCommand::Claim { task, export } => claim(context, task, export).await,
            TaskCommand::Update { own, progress, note } => {
                let mut session = context.session().await?;
                let (task, epoch) = own.resolve(context, &mut session).await?;
                let doing = format!("update task `{task}`");
                let params = TaskUpdate { task, epoch, progress, note };
                let reply = session.ask(&doing, Method::TaskUpdate, &params).await?;
                context.out.reply(&reply, |look, task: &TaskView| {
                    let note = task.note.as_deref().map_or_else(String::new, |n| look.text(n));
                    format!(
                        "task {} is at {}%{}{note}\n",
                        task.id,
                        task.progress,
                        if note.is_empty() { "" } else { ": " }
                    )
                })
            }
            TaskCommand::Complete { own, result } => {
                settle(context, own, result.load()?, Method::TaskComplete, "complete").await
            }
            TaskCommand::Fail { own, result, reason } => {
                let result = match reason {
                    Some(reason) => Some(json_text(&reason)?),
                    None => result.load()?,
                };
                settle(context, own, result, Method::TaskFail, "fail").await
            }
            TaskCommand::Release { own, reason } => {
                let mut session = context.session().await?;
                let (task, epoch) = own.resolve(context, &mut session).await?;
                let doing = format!("release task `{task}`");
                let params = TaskRelease { task, epoch, reason };
                let reply = session.ask(&doing, Method::TaskRelease, &params).await?;
                context.out.reply(&reply, line)
            }
            TaskCommand::Cancel { task, reason } => {
                let mut session = context.session().await?;
                let doing = format!("cancel task `{task}`");
                let params = TaskCancel { task, reason };
                let reply = session.ask(&doing, Method::TaskCancel, &params).await?;
                context.out.reply(&reply, line)
            }
        }
    }
}

fn named(context: &Context, task: Option<TaskId>) -> Result<TaskId, CtlError> {
    match task {
        Some(task) => Ok(task),
        None => context.env.task()?.ok_or_else(no_task),
    }
}

async fn list(
    context: &mut Context,
    state: Option<TaskStateName>,
    owner: Option<AgentName>,
    mine: bool,
) -> Result<(), CtlError> {
    let mut session = context.session().await?;
    let own = session.hello().agent.as_ref().map(|own| own.name.clone());
    let owner = match (mine, own) {
        (false, _) => owner,
        (true, Some(own)) => Some(own),
        (true, None) => {
            return Err(CtlError::Usage {
                what: "whose tasks?".to_owned(),
                cause: "the operator owns none".to_owned(),
                help: "name an agent: missionctl task list --owner AGENT".to_owned(),
            });
        }
    };
    let params = TaskList { state, owner };
    let reply = session.ask("list the tasks", Method::TaskList, &params).await?;
    context.out.list(&reply, views::tasks)
}

impl Create {
    async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let Create { task, title, after, assign, needs, timeout, max_attempts, data } = self;
        let doing = format!("create task `{task}`");
        let params = TaskSpec {
            title: title.unwrap_or_else(|| task.to_string()),
            id: task,
            after,
            assign,
            needs,
            timeout_ms: timeout.map(millis),
            max_attempts,
            data: data.map(JsonSource::load).transpose()?,
        };
        let mut session = context.session().await?;
        let reply = session.ask(&doing, Method::TaskCreate, &params).await?;
        context.out.reply(&reply, line)
    }
}

async fn claim(context: &mut Context, task: Option<TaskId>, export: bool) -> Result<(), CtlError> {
    let mut session = context.session().await?;
    let doing = match &task {
        Some(task) => format!("claim task `{task}`"),
        None => "claim a task".to_owned(),
    };
    let reply = session.ask(&doing, Method::TaskClaim, &TaskClaim { task }).await?;
    if export {
        // Ids and epochs have no character that a shell would read otherwise.
        let task: TaskView = read(&reply)?;
        let (id, epoch) = (&task.id, task.epoch);
        let text = format!("export MISSION_TASK_ID={id} MISSION_TASK_EPOCH={epoch}\n");
        return context.out.write(&text);
    }
    context.out.reply(&reply, line)
}

async fn settle(
    context: &mut Context,
    own: OwnTask,
    result: Option<Json>,
    method: Method,
    verb: &str,
) -> Result<(), CtlError> {
    let mut session = context.session().await?;
    let (task, epoch) = own.resolve(context, &mut session).await?;
    let doing = format!("{verb} task `{task}`");
    let params = TaskSettle { task, epoch, result };
    let reply = session.ask(&doing, method, &params).await?;
    context.out.reply(&reply, line)
}
