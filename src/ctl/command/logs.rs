//! `logs AGENT`: what an agent's processes wrote.

use std::path::PathBuf;

use super::super::Context;
use super::super::error::CtlError;
use super::super::exit::Exit;
use super::super::logfile::{LogFile, SeenLine};
use super::super::out::{Format, read};
use super::super::session::Session;
use super::super::watch::Changes;
use crate::escape;
use crate::ids::AgentName;
use crate::proto::Method;
use crate::proto::view::MissionView;
use crate::proto::wire::Empty;
use crate::table::Paint;

const AFTER: &str = "\
Shows both streams, the lines of standard output first, each marked; following, as they come. With \
--stdout or --stderr it shows that one, unmarked. Rotated files are read, too. The files are below the \
state directory, readable for whoever started the mission.

Examples:
  missionctl logs writer
  missionctl logs writer -f --stderr
  missionctl logs writer --stdout -n all > writer.out";

/// Shows what an agent's processes wrote to standard output and error
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Logs {
    /// Whose
    agent: AgentName,
    /// Go on with every line to come, until the mission ends
    #[arg(short, long)]
    follow: bool,
    /// Only standard output
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Only standard error
    #[arg(long)]
    stderr: bool,
    /// So many of the last lines of each stream, or `all`
    #[arg(short = 'n', long, default_value = "100", value_name = "N", value_parser = lines)]
    lines: usize,
}

fn lines(text: &str) -> Result<usize, String> {
    match text {
        "all" => Ok(usize::MAX),
        text => text.parse().map_err(|_| "a number, or `all`".to_owned()),
    }
}

/// One of the two streams.
struct Stream {
    name: &'static str,
    file: LogFile,
}

impl Logs {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let mut session = context.session().await?;
        let directory = self.directory(&mut session).await?;
        // Watched before the first look, so that nothing written in between is overlooked.
        let changes = match self.follow {
            true => Some(Changes::of(&directory).map_err(|source| CtlError::Io {
                doing: format!("watch {}", directory.display()),
                source,
            })?),
            false => None,
        };
        let mut streams: Vec<Stream> = [("stdout", self.stderr), ("stderr", self.stdout)]
            .into_iter()
            .filter(|(_, is_unwanted)| !is_unwanted)
            .map(|(name, _)| Stream {
                name,
                file: LogFile::new(&directory, &format!("{name}.log")),
            })
            .collect();
        let is_marked = streams.len() > 1;
        for stream in &mut streams {
            let last =
                stream.file.last(self.lines).map_err(|source| unreadable(stream.name, source))?;
            for line in last {
                show(context, stream.name, is_marked, &line)?;
            }
        }
        let Some(mut changes) = changes else { return Ok(()) };
        loop {
            context.out.flush()?;
            let is_over = tokio::select! {
                changed = changes.next() => {
                    changed.map_err(|source| CtlError::Io { doing: "watch the log".to_owned(), source })?;
                    false
                }
                next = session.next() => next.is_none(),
            };
            for stream in &mut streams {
                let new =
                    stream.file.news(is_over).map_err(|source| unreadable(stream.name, source))?;
                for line in new {
                    show(context, stream.name, is_marked, &line)?;
                }
            }
            if is_over {
                context.out.note("the daemon has gone: the log ends here");
                return Ok(());
            }
        }
    }

    /// Where the agent's log is, by the daemon's word.
    async fn directory(&self, session: &mut Session) -> Result<PathBuf, CtlError> {
        let doing = format!("show the log of agent `{}`", self.agent);
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
        Ok(root.join("agents").join(self.agent.as_str()).join("log"))
    }
}

fn unreadable(stream: &str, source: std::io::Error) -> CtlError {
    CtlError::Io { doing: format!("read the log of {stream}"), source }
}

fn show(
    context: &mut Context,
    stream: &str,
    is_marked: bool,
    line: &SeenLine,
) -> Result<(), CtlError> {
    let out = &mut context.out;
    let SeenLine::Text(bytes) = line else {
        out.flush()?;
        out.note("some lines are missing: the log was rotated away before it was read");
        return Ok(());
    };
    if out.format != Format::Table {
        let line = String::from_utf8_lossy(bytes);
        let value = serde_json::json!({ "stream": stream, "line": line });
        return out.json(&value.to_string());
    }
    if is_marked {
        let (mark, paint) =
            if stream == "stderr" { ("err", Paint::Red) } else { ("out", Paint::Dim) };
        let mark = out.look.paint(mark, paint);
        out.write(&format!("{mark}| "))?;
    }
    match out.look.escapes {
        true => out.write(&escape::bytes(bytes))?,
        false => out.bytes(bytes)?,
    }
    out.write("\n")
}
