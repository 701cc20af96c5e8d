//! `status` and `ps`: the mission at one glance.

use super::super::Context;
use super::super::error::CtlError;
use super::super::out::{Format, read};
use super::super::views;
use crate::proto::Method;
use crate::proto::json::Json;
use crate::proto::view::AgentView;
use crate::proto::wire::Empty;

const STATUS_AFTER: &str = "\
Whatever stands still says what it waits for, and until when. Alerts, and what this machine can't \
enforce of an agent's isolation, come first.

Examples:
  missionctl status
  missionctl -m review status -o json | jq '.tasks[] | select(.state == \"failed\")'";

/// Shows the mission: agents, tasks, open handoffs, and what waits for what
#[derive(Debug, clap::Args)]
#[command(after_help = STATUS_AFTER)]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let mut session = context.session().await?;
        let reply = session.ask("show the mission", Method::MissionStatus, &Empty {}).await?;
        context.out.reply(&reply, views::mission)
    }
}

const PS_AFTER: &str = "\
START counts the starts of an agent, RESTARTS those that were not asked for. HEARD is when it last \
said something on the bus. Names select agents; without, all are shown.

Examples:
  missionctl ps
  missionctl ps writer -o json";

/// Shows the agents' processes
#[derive(Debug, clap::Args)]
#[command(after_help = PS_AFTER)]
pub(crate) struct Ps {
    /// Only these agents
    #[arg(value_name = "AGENT")]
    agents: Vec<crate::ids::AgentName>,
}

impl Ps {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let mut session = context.session().await?;
        let doing = "list the agents";
        let reply = session.ask(doing, Method::AgentList, &Empty {}).await?;
        if self.agents.is_empty() {
            return context.out.list(&reply, views::processes);
        }
        let items = read::<Vec<Json>>(&reply)?;
        let mut chosen = Vec::new();
        for name in &self.agents {
            let mut matching = None;
            for item in &items {
                let agent: AgentView = read(item)?;
                if agent.name == *name {
                    matching = Some((item, agent));
                }
            }
            let Some(matching) = matching else {
                return Err(CtlError::Ended {
                    what: format!("no agent `{name}`"),
                    cause: "the mission has none of that name".to_owned(),
                    help: "`missionctl agent list` shows them".to_owned(),
                    exit: super::super::exit::Exit::NotFound,
                });
            };
            chosen.push(matching);
        }
        match context.out.format {
            Format::Table => {
                let agents: Vec<AgentView> = chosen.into_iter().map(|(_, agent)| agent).collect();
                let text = views::processes(&context.out.look, &agents);
                context.out.write(&text)
            }
            Format::Json | Format::Jsonl => {
                chosen.iter().try_for_each(|(item, _)| context.out.json(item.get()))
            }
        }
    }
}
