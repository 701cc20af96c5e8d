//! `why AGENT`: what its policy may have refused it.

use std::path::PathBuf;

use super::super::Context;
use super::super::error::CtlError;
use super::super::exit::Exit;
use super::super::out::{Format, read};
use crate::config::commands::why::suspicions;
use crate::escape;
use crate::ids::AgentName;
use crate::proto::Method;
use crate::proto::view::MissionView;
use crate::proto::wire::Empty;

const AFTER: &str = "\
Looks for errors in the end of what the agent wrote, and holds them against the plan of its last start: what \
is told is a guess that the plan bears out. It can't see what a program tried and did not speak of; \
`missiond run --trace -- CMD` shows each refusal of one command exactly.

Example:
  missionctl why writer";

/// Says what an agent's policy may have refused it, and the line that would allow it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Why {
    /// Whose
    agent: AgentName,
}

impl Why {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let doing = format!("say why agent `{}` was refused something", self.agent);
        let mut session = context.session().await?;
        let reply = session.ask(&doing, Method::MissionStatus, &Empty {}).await?;
        let mission: MissionView = read(&reply)?;
        if !mission.agents.iter().any(|agent| agent.name == self.agent) {
            return Err(CtlError::Ended {
                what: format!("cannot {doing}"),
                cause: format!("mission `{}` has no such agent", mission.name),
                help: "`missionctl agent list` shows them".to_owned(),
                exit: Exit::NotFound,
            });
        }
        let root = PathBuf::from(mission.state_dir);
        let log = root.join("agents").join(self.agent.as_str()).join("log");
        let found = suspicions(&log).map_err(|source| CtlError::Io { doing, source })?;
        let out = &mut context.out;
        if out.format != Format::Table {
            for suspicion in found.unwrap_or_default() {
                let text = serde_json::to_string(&suspicion).map_err(|error| CtlError::Io {
                    doing: "write JSON".to_owned(),
                    source: error.into(),
                })?;
                out.json(&text)?;
            }
            return Ok(());
        }
        let Some(found) = found else {
            out.note("it has not been started in this mission");
            return Ok(());
        };
        if found.is_empty() {
            out.note("nothing in the end of its output speaks of a refusal by its policy");
        }
        for suspicion in found {
            let line = match out.look.escapes {
                true => escape::line(&suspicion.line).into_owned(),
                false => suspicion.line,
            };
            out.write(&format!("{line}\n  rule: {}\n", escape::line(&suspicion.rule)))?;
            if let Some(add) = suspicion.add {
                let add = escape::line(&add).into_owned();
                out.write(&format!(
                    "  add:  {add}    to [agents.{}] of mission.toml\n",
                    self.agent
                ))?;
            }
        }
        Ok(())
    }
}
