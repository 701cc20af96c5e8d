//! `agent list|get|start|stop|restart|role|phase|heartbeat`.

use std::time::Duration;

use clap::Subcommand;

use super::super::error::CtlError;
use super::super::input::by_name;
use super::super::out::Look;
use super::super::session::Session;
use super::super::time::{duration, millis};
use super::super::{Context, views};
use crate::ids::{AgentName, RoleName};
use crate::proto::Method;
use crate::proto::json::Json;
use crate::proto::request::{AgentPhase, AgentRef, AgentRole, AgentStop, Phase};
use crate::proto::view::AgentView;
use crate::proto::wire::Empty;

const AFTER: &str = "\
Inside an agent, `get`, `stop` and `restart` without a name mean that agent itself.

Examples:
  missionctl agent list
  missionctl agent get writer -o json | jq .permissions
  missionctl agent stop writer --grace 10s
  missionctl agent role writer read
  missionctl agent phase executing       (inside an agent)";

/// Lists, shows, starts, stops and changes agents
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Agent {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Lists all agents
    List,
    /// Shows one agent in full; inside an agent, itself unless named
    #[command(visible_alias = "show")]
    Get {
        /// Which
        agent: Option<AgentName>,
    },
    /// Starts agents that are down
    Start {
        /// Which
        #[arg(required = true, value_name = "AGENT")]
        agents: Vec<AgentName>,
    },
    /// Stops agents until they are started again: SIGTERM, the grace time, SIGKILL
    Stop {
        /// Which; inside an agent, itself unless named
        #[arg(value_name = "AGENT")]
        agents: Vec<AgentName>,
        /// Time between SIGTERM and SIGKILL (5s); the agent's own without
        #[arg(long, value_parser = duration, value_name = "DURATION")]
        grace: Option<Duration>,
    },
    /// Stops agents and starts them again
    Restart {
        /// Which; inside an agent, itself unless named
        #[arg(value_name = "AGENT")]
        agents: Vec<AgentName>,
    },
    /// Gives an agent another role: lead, write, read, audit, or one of mission.toml
    Role {
        /// Whom
        agent: AgentName,
        /// Which role
        role: RoleName,
    },
    /// Says what you are doing (inside an agent)
    Phase {
        /// init, ready, planning, executing, validating, complete or failed
        #[arg(value_parser = by_name::<Phase>)]
        phase: Phase,
    },
    /// Says that you are alive (inside an agent), for agents with a silence limit
    Heartbeat,
}

impl Agent {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let mut session = context.session().await?;
        let session = &mut session;
        match self.command {
            AgentCommand::List => {
                let reply = session.ask("list the agents", Method::AgentList, &Empty {}).await?;
                context.out.list(&reply, views::agents)
            }
            AgentCommand::Get { agent } => {
                let named = agent.as_ref().or(session.hello().agent.as_ref().map(|own| &own.name));
                let agent = Some(named.cloned().ok_or_else(|| nameless("get"))?);
                let doing = format!("show agent {}", label(agent.as_ref()));
                let reply = session.ask(&doing, Method::AgentGet, &AgentRef { agent }).await?;
                context.out.reply(&reply, views::agent)
            }
            AgentCommand::Start { agents } => each(context, session, Change::Start, &agents).await,
            AgentCommand::Stop { agents, grace } => {
                let agents = or_self(session, agents, "stop")?;
                each(context, session, Change::Stop(grace), &agents).await
            }
            AgentCommand::Restart { agents } => {
                let agents = or_self(session, agents, "restart")?;
                each(context, session, Change::Restart, &agents).await
            }
            AgentCommand::Role { agent, role } => {
                let doing = format!("give agent `{agent}` the role `{role}`");
                let params = AgentRole { agent, role };
                let reply = session.ask(&doing, Method::AgentRole, &params).await?;
                context.out.reply(&reply, |_, agent: &AgentView| {
                    format!("{} has the role {} now\n", agent.name, agent.role)
                })
            }
            AgentCommand::Phase { phase } => {
                let params = AgentPhase { phase };
                let reply = session.ask("set the phase", Method::AgentPhase, &params).await?;
                context.out.reply(&reply, |_, _: &serde_json::Value| String::new())
            }
            AgentCommand::Heartbeat => {
                let reply = session.ask("say so", Method::AgentHeartbeat, &Empty {}).await?;
                context.out.reply(&reply, |_, _: &serde_json::Value| String::new())
            }
        }
    }
}

fn label(agent: Option<&AgentName>) -> String {
    agent.map_or_else(|| "itself".to_owned(), |agent| format!("`{agent}`"))
}

fn nameless(command: &str) -> CtlError {
    CtlError::Usage {
        what: "which agent?".to_owned(),
        cause: "none is named, and the operator is none".to_owned(),
        help: format!("missionctl agent {command} AGENT; `missionctl agent list` shows them"),
    }
}

fn or_self(
    session: &Session,
    agents: Vec<AgentName>,
    command: &str,
) -> Result<Vec<AgentName>, CtlError> {
    if !agents.is_empty() {
        return Ok(agents);
    }
    let own = session.hello().agent.as_ref().map(|own| own.name.clone());
    own.map(|own| vec![own]).ok_or_else(|| nameless(command))
}

/// What is to become of agents' processes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Start,
    Stop(Option<Duration>),
    Restart,
}

impl Change {
    fn verb(self) -> &'static str {
        match self {
            Change::Start => "start",
            Change::Stop(_) => "stop",
            Change::Restart => "restart",
        }
    }

    async fn ask(self, session: &mut Session, agent: &AgentName) -> Result<Json, CtlError> {
        let doing = format!("{} agent `{agent}`", self.verb());
        let agent = Some(agent.clone());
        match self {
            Change::Start => session.ask(&doing, Method::AgentStart, &AgentRef { agent }).await,
            Change::Restart => session.ask(&doing, Method::AgentRestart, &AgentRef { agent }).await,
            Change::Stop(grace) => {
                let params = AgentStop { agent, grace_ms: grace.map(millis) };
                session.ask(&doing, Method::AgentStop, &params).await
            }
        }
    }
}

fn state_line(look: &Look, agent: &AgentView) -> String {
    let wait = views::wait(look, agent.waits_for.as_ref());
    let wait = if wait.is_empty() { wait } else { format!(" (waits for {wait})") };
    format!("{} is {}{wait}\n", agent.name, views::name(&agent.state))
}

/// Changes several agents; a failure doesn't keep the others from being changed, and the first one's
/// exit code is that of the whole.
pub(super) async fn each(
    context: &mut Context,
    session: &mut Session,
    change: Change,
    agents: &[AgentName],
) -> Result<(), CtlError> {
    let mut first_failure = None;
    for agent in agents {
        match change.ask(session, agent).await {
            Ok(reply) => context.out.reply(&reply, state_line)?,
            Err(error) if agents.len() == 1 => return Err(error),
            Err(error) => {
                context.out.flush()?;
                context.report(&error);
                first_failure.get_or_insert(error.exit());
            }
        }
    }
    first_failure.map_or(Ok(()), |exit| Err(CtlError::Reported(exit)))
}
