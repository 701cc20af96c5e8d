//! `workspace diff|accept|discard AGENT`: what an agent changed in its private workspace.
//!
//! It works on the mission's state directory, whether the daemon runs or not: most missions are over
//! when somebody looks at what came of them. The agent's lock keeps it from running meanwhile.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Subcommand;

use super::super::Context;
use super::super::error::CtlError;
use super::super::exit::Exit;
use super::super::out::Format;
use super::super::target;
use crate::config::dirs::Places;
use crate::escape;
use crate::ids::AgentName;
use crate::table::Paint;
use crate::workspace::private::{Change, Kind, Private, PrivateError, Verdict, What};

const AFTER: &str = "\
An agent with workspace_mode = \"private\" writes a copy of its own; the workspace stays as it is until \
you take changes back. Never taken back: what git or the mission would run (hooks, git's configuration, \
new repositories, mission.toml and the programs that it names), links that lead out, devices. What was \
changed in the workspace meanwhile is a conflict and stays as it is.

Signs: A added, M modified, D deleted, R of another kind.

Examples:
  missionctl workspace diff writer --patch
  missionctl workspace accept writer src docs/guide.md
  missionctl workspace accept writer --dry-run
  missionctl workspace discard writer";

/// Shows, takes back or throws away what an agent changed in its private workspace
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Workspace {
    #[command(subcommand)]
    command: WorkspaceCommand,
}

#[derive(Debug, Subcommand)]
enum WorkspaceCommand {
    /// Shows what the agent changed
    Diff {
        #[command(flatten)]
        of: Of,
        /// The changed lines as well, by the program `diff`
        #[arg(short, long)]
        patch: bool,
    },
    /// Takes changes back into the workspace; the agent must not run
    Accept {
        #[command(flatten)]
        of: Of,
        /// Only say what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Leave conflicts where they are, instead of taking nothing
        #[arg(long)]
        partly: bool,
    },
    /// Throws changes away for good; the agent must not run
    Discard {
        #[command(flatten)]
        of: Of,
        /// Only say what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Of {
    /// Whose
    agent: AgentName,
    /// Only these files and directories, relative to the workspace
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl Workspace {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let (WorkspaceCommand::Diff { of, .. }
        | WorkspaceCommand::Accept { of, .. }
        | WorkspaceCommand::Discard { of, .. }) = &self.command;
        let agent = of.agent.clone();
        let (private, lock) = place(context, &agent).await?;
        let only: Vec<PathBuf> = of.paths.iter().map(|path| path.components().collect()).collect();
        let failed = |doing: &str| {
            let doing = format!("{doing} the private workspace of agent `{agent}`");
            move |error: PrivateError| said(doing, error)
        };
        match self.command {
            WorkspaceCommand::Diff { patch, .. } => {
                let changes = looked(&private, &only).map_err(failed("look at"))?;
                show(context, &changes)?;
                if patch && context.out.format == Format::Table {
                    patches(context, &private, &changes)?;
                }
                Ok(())
            }
            WorkspaceCommand::Accept { dry_run: true, .. } => {
                let changes = looked(&private, &only).map_err(failed("look at"))?;
                show(context, &changes)?;
                left(&changes)
            }
            WorkspaceCommand::Accept { partly, .. } => {
                let changes = private.accept(&lock, &only, partly).map_err(failed("accept"))?;
                show(context, &changes)?;
                left(&changes)
            }
            WorkspaceCommand::Discard { dry_run: true, .. } => {
                show(context, &looked(&private, &only).map_err(failed("look at"))?)
            }
            WorkspaceCommand::Discard { .. } => {
                show(context, &private.discard(&lock, &only).map_err(failed("discard"))?)
            }
        }
    }
}

/// Where an agent's private workspace and lock are.
async fn place(context: &Context, agent: &AgentName) -> Result<(Private, PathBuf), CtlError> {
    if context.env.socket.is_some() {
        return Err(CtlError::Usage {
            what: "an agent can't look at private workspaces".to_owned(),
            cause: "MISSION_SOCKET is set".to_owned(),
            help: "whoever started the mission does that, outside".to_owned(),
        });
    }
    let mission = target::mission(&context.env, context.mission.as_ref()).await?;
    let places = Places::from_environment(|name| std::env::var_os(name));
    let places = places.map_err(|error| CtlError::Usage {
        what: "cannot find the state of missions".to_owned(),
        cause: error.to_string(),
        help: "set HOME or XDG_STATE_HOME".to_owned(),
    })?;
    let dirs = places.of(&mission).agent(agent);
    Ok((Private::at(dirs.private()), dirs.lock()))
}

fn looked(private: &Private, only: &[PathBuf]) -> Result<Vec<Change>, PrivateError> {
    let mut changes = private.changes()?;
    changes.retain(|change| only.is_empty() || only.iter().any(|one| change.path.starts_with(one)));
    Ok(changes)
}

fn said(doing: String, error: PrivateError) -> CtlError {
    let ended = |exit, help: &str| CtlError::Ended {
        what: format!("cannot {doing}"),
        cause: error.to_string(),
        help: help.to_owned(),
        exit,
    };
    match error {
        PrivateError::None => ended(
            Exit::NotFound,
            "it begins when an agent with `workspace_mode = \"private\"` starts, and ends when \
             nothing is left of it",
        ),
        PrivateError::Running => ended(Exit::Conflict, "stop it first: `missionctl stop AGENT`"),
        PrivateError::Conflicts { .. } => ended(
            Exit::Conflict,
            "`workspace diff` shows them; --partly takes the others, or name what you want",
        ),
        PrivateError::OtherTree { .. } | PrivateError::TooMuch(_) => ended(Exit::Failure, ""),
        PrivateError::Io { what, ref path, source } => {
            let doing = format!("{doing}: {what} {}", path.display());
            CtlError::Io { doing, source }
        }
    }
}

/// What was refused or conflicts is no success.
fn left(changes: &[Change]) -> Result<(), CtlError> {
    let left = changes.iter().filter(|change| change.verdict != Verdict::Fine).count();
    if left == 0 { Ok(()) } else { Err(CtlError::Reported(Exit::Conflict)) }
}

fn show(context: &mut Context, changes: &[Change]) -> Result<(), CtlError> {
    let out = &mut context.out;
    if out.format != Format::Table {
        let rows: Vec<_> = changes.iter().map(row).collect();
        if out.format == Format::Jsonl {
            return rows.iter().try_for_each(|row| out.json(&row.to_string()));
        }
        return out.json(&serde_json::Value::from(rows).to_string());
    }
    if changes.is_empty() {
        return out.write(&format!("{}\n", out.look.paint("no changes", Paint::Dim)));
    }
    for change in changes {
        let (sign, paint) = match change.what {
            What::Added => ("A", Paint::Green),
            What::Modified => ("M", Paint::Yellow),
            What::Deleted => ("D", Paint::Red),
            What::Replaced => ("R", Paint::Red),
        };
        let slash = if change.kind == Kind::Directory { "/" } else { "" };
        let path = out.look.text(&change.path.to_string_lossy());
        let why = match &change.verdict {
            Verdict::Fine => String::new(),
            Verdict::Refused(why) => {
                format!(
                    "  {}",
                    out.look.paint(&format!("refused: {}", out.look.text(why)), Paint::Red)
                )
            }
            Verdict::Conflict(why) => {
                format!(
                    "  {}",
                    out.look.paint(&format!("conflict: {}", out.look.text(why)), Paint::Red)
                )
            }
        };
        let sign = out.look.paint(sign, paint);
        out.write(&format!("{sign} {path}{slash}{why}\n"))?;
    }
    Ok(())
}

fn row(change: &Change) -> serde_json::Value {
    let mut row = serde_json::json!({
        "path": change.path.to_string_lossy(),
        "what": change.what,
        "kind": change.kind,
    });
    let (verdict, why) = match &change.verdict {
        Verdict::Fine => ("fine", None),
        Verdict::Refused(why) => ("refused", Some(why)),
        Verdict::Conflict(why) => ("conflict", Some(why)),
    };
    if let Some(row) = row.as_object_mut() {
        row.insert("verdict".to_owned(), verdict.into());
        if let Some(why) = why {
            row.insert("why".to_owned(), why.as_str().into());
        }
    }
    row
}

/// The changed lines of files, as `diff -u` shows them.
fn patches(context: &mut Context, private: &Private, changes: &[Change]) -> Result<(), CtlError> {
    let workspace = private.workspace().map_err(|error| said("look at it".to_owned(), error))?;
    let nothing = Path::new("/dev/null");
    for change in changes.iter().filter(|change| change.kind == Kind::File) {
        let (real, own) = (workspace.join(&change.path), private.agents_side().join(&change.path));
        let (before, after) = match change.what {
            What::Added | What::Replaced => (nothing, own.as_path()),
            What::Deleted => (real.as_path(), nothing),
            What::Modified => (real.as_path(), own.as_path()),
        };
        let name = change.path.to_string_lossy();
        let output = Command::new("diff")
            .args(["-u", "--label", &format!("a/{name}"), "--label", &format!("b/{name}"), "--"])
            .args([before, after])
            .stdin(Stdio::null())
            .output()
            .map_err(|source| CtlError::Io { doing: "run `diff`".to_owned(), source })?;
        match context.out.look.escapes {
            true => {
                for line in output.stdout.split_inclusive(|byte| *byte == b'\n') {
                    let text = escape::bytes(line.strip_suffix(b"\n").unwrap_or(line));
                    context.out.write(&text)?;
                    context.out.write("\n")?;
                }
            }
            false => context.out.bytes(&output.stdout)?,
        }
    }
    Ok(())
}
