//! `start`, `stop`, `restart`: of agents, or of the mission.

use std::time::Duration;

use super::super::Context;
use super::super::error::CtlError;
use super::super::exit::Exit;
use super::super::out::read;
use super::super::session::{CALL, Session};
use super::super::time::{duration, millis};
use super::agent::{Change, each};
use crate::ids::AgentName;
use crate::proto::Method;
use crate::proto::spec::Mode;
use crate::proto::view::{AgentStateName, AgentView};
use crate::proto::wire::{Empty, MissionStop};

const START_AFTER: &str = "\
Starts agents of a mission that runs. The mission itself is started by `missiond start FILE`.

Examples:
  missionctl start writer
  missionctl start              every agent that is stopped, ended or given up";

/// Starts agents that are down: those named, or all
#[derive(Debug, clap::Args)]
#[command(after_help = START_AFTER)]
pub(crate) struct Start {
    /// Which; all that are stopped, ended or failed without
    #[arg(value_name = "AGENT")]
    agents: Vec<AgentName>,
}

const STOP_AFTER: &str = "\
Without names it stops the mission: agents get SIGTERM, after the grace time SIGKILL, and it answers \
0 only when the daemon has verified that no process of the mission is left. Tasks keep their state: \
`missiond start` continues where it ended.

With names it stops these agents, and the mission goes on; they stay down until they are started.

Examples:
  missionctl stop
  missionctl stop --grace 30s
  missionctl stop writer";

/// Stops the mission until nothing of it is left; or, with names, agents
#[derive(Debug, clap::Args)]
#[command(after_help = STOP_AFTER)]
pub(crate) struct Stop {
    /// Only these agents; the mission goes on
    #[arg(value_name = "AGENT")]
    agents: Vec<AgentName>,
    /// Time between SIGTERM and SIGKILL (5s); each agent's own without
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    grace: Option<Duration>,
    /// How long to wait for the end (2m) [default: 5 minutes and the grace time]
    #[arg(long, value_parser = duration, value_name = "DURATION", conflicts_with = "agents")]
    timeout: Option<Duration>,
}

const RESTART_AFTER: &str = "\
Without names it restarts every service agent that is up; the daemon and the tasks stay as they are.

Examples:
  missionctl restart writer
  missionctl restart";

/// Stops agents and starts them again: those named, or all
#[derive(Debug, clap::Args)]
#[command(after_help = RESTART_AFTER)]
pub(crate) struct Restart {
    /// Which; every service agent that is up without
    #[arg(value_name = "AGENT")]
    agents: Vec<AgentName>,
}

impl Start {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let mut session = context.session().await?;
        let is_down = |agent: &AgentView| match agent.state {
            AgentStateName::Stopped | AgentStateName::Ended | AgentStateName::Failed => true,
            AgentStateName::Idle => agent.mode == Mode::Service,
            AgentStateName::Waiting
            | AgentStateName::Starting
            | AgentStateName::Running
            | AgentStateName::Stopping => false,
        };
        let agents = chosen(&mut session, self.agents, is_down).await?;
        if agents.is_empty() {
            context.out.note("every agent is up");
        }
        each(context, &mut session, Change::Start, &agents).await
    }
}

impl Restart {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let mut session = context.session().await?;
        let is_up = |agent: &AgentView| {
            agent.mode == Mode::Service
                && matches!(agent.state, AgentStateName::Starting | AgentStateName::Running)
        };
        let agents = chosen(&mut session, self.agents, is_up).await?;
        if agents.is_empty() {
            context.out.note("no service agent is up");
        }
        each(context, &mut session, Change::Restart, &agents).await
    }
}

/// Those named, or those that are meant without names.
async fn chosen(
    session: &mut Session,
    named: Vec<AgentName>,
    is_meant: impl Fn(&AgentView) -> bool,
) -> Result<Vec<AgentName>, CtlError> {
    if !named.is_empty() {
        return Ok(named);
    }
    let reply = session.ask("list the agents", Method::AgentList, &Empty {}).await?;
    let agents: Vec<AgentView> = read(&reply)?;
    Ok(agents.into_iter().filter(|agent| is_meant(agent)).map(|agent| agent.name).collect())
}

impl Stop {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let mut session = context.session().await?;
        if !self.agents.is_empty() {
            return each(context, &mut session, Change::Stop(self.grace), &self.agents).await;
        }
        let within =
            self.timeout.unwrap_or(Duration::from_secs(300) + self.grace.unwrap_or_default());
        let mission = session.hello().mission.clone();
        let doing = format!("stop mission `{mission}`");
        let params = MissionStop { grace_ms: self.grace.map(millis) };
        let reply = session.ask_once_within(within, &doing, Method::MissionStop, &params).await;
        let reply = match reply {
            Err(CtlError::Lost { cause, .. }) => {
                return Err(CtlError::Ended {
                    what: format!("cannot say that nothing is left of mission `{mission}`"),
                    cause: format!("{cause} before the daemon had verified it"),
                    help:
                        "agents of a daemon that died end within a second; `missiond start` checks \
                           for what is left"
                            .to_owned(),
                    exit: Exit::Failure,
                });
            }
            reply => reply?,
        };
        // The daemon exits after its answer: a start that follows at once must not meet it.
        session.wait_for_end(CALL).await;
        context.out.reply(&reply, |_, _: &Empty| {
            format!("mission {mission} is stopped: nothing is left\n")
        })
    }
}
