//! `assign AGENT TASK`.

use super::super::Context;
use super::super::error::CtlError;
use crate::ids::{AgentName, TaskId};
use crate::proto::Method;
use crate::proto::request::TaskAssign;
use crate::proto::view::{TaskStateName, TaskView};

const AFTER: &str = "\
A task whose dependencies are open is kept for the agent until they are completed. A task that is \
being worked on is not assigned away but handed off: `missionctl handoff FROM TO TASK`.

Exit codes: 3 no such agent or task, 4 the agent's role can't own tasks (or yours can't give them), \
5 somebody works on it, or it is settled.

Examples:
  missionctl assign writer task-1";

/// Gives a task that nobody works on to an agent
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Assign {
    /// To whom
    agent: AgentName,
    /// What
    task: TaskId,
}

impl Assign {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let Assign { agent, task } = self;
        let mut session = context.session().await?;
        let doing = format!("assign task `{task}` to `{agent}`");
        let params = TaskAssign { task, to: agent };
        let reply = session.ask(&doing, Method::TaskAssign, &params).await?;
        context.out.reply(&reply, |_, task: &TaskView| match (task.state, &task.owner) {
            (TaskStateName::Pending, _) => {
                let after: Vec<&str> = task.after.iter().map(TaskId::as_str).collect();
                let agent = task.reserved.as_ref().map_or("nobody", |agent| agent.as_str());
                format!("task {} is kept for {agent} until {} is done\n", task.id, after.join(", "))
            }
            (state, Some(owner)) => {
                format!(
                    "task {} is {} to {owner}, epoch {}\n",
                    task.id,
                    super::super::views::name(&state),
                    task.epoch
                )
            }
            (state, None) => format!("task {} is {}\n", task.id, super::super::views::name(&state)),
        })
    }
}
