//! What can go wrong in `missionctl`, how it is said, and which exit code it has.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::exit::Exit;
use super::time;
use crate::escape;
use crate::ids::MissionName;
use crate::proto::denied::{Code, Denied};

/// Why an invocation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CtlError {
    /// The daemon refused.
    #[error("cannot {doing}")]
    Refused {
        /// What was wanted.
        doing: String,
        /// The refusal.
        denied: Denied,
    },
    /// No mission runs for this user.
    #[error("no mission is running")]
    NoMission {
        /// Where their sockets would be.
        root: PathBuf,
    },
    /// The mission that was meant does not run.
    #[error("mission `{mission}` is not running")]
    NotRunning {
        /// The mission.
        mission: MissionName,
        /// The file that named it.
        file: Option<PathBuf>,
        /// Those that run.
        others: Vec<MissionName>,
    },
    /// Nobody said which of these.
    #[error("{} missions are running", names.len())]
    Several {
        /// Their names.
        names: Vec<MissionName>,
    },
    /// The socket does not answer.
    #[error("cannot reach the daemon")]
    NoDaemon {
        /// The socket.
        socket: PathBuf,
        /// What the connect said.
        cause: String,
    },
    /// The connection broke, also the second one.
    #[error("cannot {doing}")]
    Lost {
        /// What was wanted.
        doing: String,
        /// How it broke.
        cause: String,
    },
    /// It took too long.
    #[error("cannot {doing}")]
    TimedOut {
        /// What was wanted.
        doing: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The command line, or what it carries, is wrong.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// Why.
        cause: String,
        /// What would be right.
        help: String,
    },
    /// A file or a process could not be used.
    #[error("cannot {doing}")]
    Io {
        /// What was wanted.
        doing: String,
        /// Why not.
        source: io::Error,
    },
    /// The daemon's answer can't be understood.
    #[error("cannot {doing}")]
    Answer {
        /// What was wanted.
        doing: String,
        /// What is wrong with the answer.
        cause: String,
    },
    /// What was waited for ended otherwise.
    #[error("{what}")]
    Ended {
        /// What ended, and how.
        what: String,
        /// Why.
        cause: String,
        /// What now.
        help: String,
        /// The exit code.
        exit: Exit,
    },
    /// Several things were asked for, each failure has been reported; this is the first one's code.
    #[error("reported already")]
    Reported(Exit),
    /// Nobody reads the output any more.
    #[error("the reader of the output has gone")]
    Closed,
}

impl CtlError {
    /// An error of writing results: a reader that has gone is no failure.
    pub(crate) fn output(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return CtlError::Closed;
        }
        CtlError::Io { doing: "write the output".to_owned(), source }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            CtlError::Refused { denied, .. } => Exit::from(denied.code),
            CtlError::NoMission { .. }
            | CtlError::NotRunning { .. }
            | CtlError::NoDaemon { .. }
            | CtlError::Lost { .. } => Exit::NoDaemon,
            CtlError::Several { .. } | CtlError::Usage { .. } => Exit::Usage,
            CtlError::TimedOut { .. } => Exit::TimedOut,
            CtlError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Exit::NotFound
            }
            CtlError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Denied
            }
            CtlError::Io { .. } => Exit::Failure,
            CtlError::Answer { .. } => Exit::Failure,
            CtlError::Ended { exit, .. } | CtlError::Reported(exit) => *exit,
            CtlError::Closed => Exit::Ok,
        }
    }

    fn cause(&self) -> String {
        match self {
            CtlError::Refused { denied, .. } => format!("{} ({})", denied.message, denied.code),
            CtlError::NoMission { root } => {
                format!("no daemon has a control socket below {}", root.display())
            }
            CtlError::NotRunning { file, others, .. } => {
                let named = file.as_ref().map(|file| format!("named by {}", file.display()));
                let running = match others.as_slice() {
                    [] => "no mission is running".to_owned(),
                    names => format!("running: {}", list(names)),
                };
                named.into_iter().chain([running]).collect::<Vec<_>>().join("; ")
            }
            CtlError::Several { names } => format!("running: {}", list(names)),
            CtlError::NoDaemon { socket, cause } => format!("{}: {cause}", socket.display()),
            CtlError::Lost { cause, .. } | CtlError::Answer { cause, .. } => cause.clone(),
            CtlError::TimedOut { after, .. } => {
                format!("no answer within {}", time::short(time::millis(*after)))
            }
            CtlError::Usage { cause, .. } | CtlError::Ended { cause, .. } => cause.clone(),
            CtlError::Io { source, .. } => source.to_string(),
            CtlError::Reported(_) | CtlError::Closed => String::new(),
        }
    }

    fn help(&self) -> String {
        match self {
            CtlError::Refused { denied, .. } => match denied.code {
                Code::Denied => {
                    "`missionctl agent list` shows who has which role; a lead or the \
                                 operator changes it by `missionctl agent role AGENT ROLE`"
                }
                Code::NotFound => "`missionctl status` lists the agents, tasks and open handoffs",
                Code::Conflict => "`missionctl status` shows what stands in the way",
                Code::Stale => "somebody else owns it now: drop this work, or claim it again",
                Code::Limit => {
                    "try again when some of it is done, or raise the limit in mission.toml"
                }
                Code::Invalid => "`missionctl help COMMAND` has examples",
                Code::Timeout => "try again, or wait longer",
                // The refusal itself says whether to try again.
                Code::Unavailable => "`missionctl status` shows alerts",
            }
            .to_owned(),
            CtlError::NoMission { .. } => "start one by `missiond start mission.toml`".to_owned(),
            CtlError::NotRunning { mission, file, others } => match (file, others.as_slice()) {
                (Some(_), [other, ..]) => {
                    format!("name the one that you mean: `missionctl -m {other} ...`")
                }
                (Some(file), []) => format!("start it by `missiond start {}`", escape::word(file)),
                (None, [other, ..]) => match nearest(mission, others) {
                    Some(near) => format!("did you mean `-m {near}`?"),
                    None => format!("name one that runs: `missionctl -m {other} ...`"),
                },
                (None, []) => "start it by `missiond start mission.toml`".to_owned(),
            },
            CtlError::Several { names } => {
                let first = names.first().map_or("NAME", |name| name.as_str());
                format!("name the one that you mean: `missionctl -m {first} ...`")
            }
            CtlError::NoDaemon { .. } | CtlError::Lost { .. } => {
                "the mission has ended or its daemon died; `missiond start` continues it".to_owned()
            }
            CtlError::TimedOut { .. } => "`missionctl status` shows what it waits for".to_owned(),
            CtlError::Usage { help, .. } | CtlError::Ended { help, .. } => help.clone(),
            CtlError::Answer { .. } => {
                "missionctl and missiond should be of the same version".to_owned()
            }
            CtlError::Io { .. } | CtlError::Reported(_) | CtlError::Closed => String::new(),
        }
    }

    /// The three lines that a person sees; `is_raw` shows agent-supplied text as it is.
    pub(crate) fn report(&self, is_raw: bool) -> String {
        if matches!(self, CtlError::Reported(_) | CtlError::Closed) {
            return String::new();
        }
        let clean = |text: &str| {
            if is_raw { text.to_owned() } else { escape::line(text).into_owned() }
        };
        let mut out = format!("error: {}\n", clean(&self.to_string()));
        for (name, text) in [("cause:", self.cause()), ("help: ", self.help())] {
            if !text.is_empty() {
                // Writing to a String does not fail.
                let _ = writeln!(out, "  {name} {}", clean(&text));
            }
        }
        out
    }
}

/// The one that was probably meant.
fn nearest<'a>(mission: &MissionName, others: &'a [MissionName]) -> Option<&'a MissionName> {
    let distance =
        |other: &&MissionName| strsim::damerau_levenshtein(mission.as_str(), other.as_str());
    let near = others.iter().min_by_key(distance)?;
    (distance(&near) <= mission.as_str().len().div_ceil(3)).then_some(near)
}

fn list(names: &[MissionName]) -> String {
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_three_lines_and_no_control_characters() {
        let error = CtlError::Refused {
            doing: "assign task `t\x1b[31m` to `a`".into(),
            denied: Denied::new(Code::Conflict, "task `t` is active:\nhand it off"),
        };
        insta::assert_snapshot!(error.report(false), @r"
        error: cannot assign task `t\x1b[31m` to `a`
          cause: task `t` is active:\nhand it off (conflict)
          help:  `missionctl status` shows what stands in the way
        ");
        assert_eq!(error.exit(), Exit::Conflict);
    }

    #[test]
    fn a_mission_that_does_not_run_is_told_from_those_that_do() {
        let error = CtlError::NotRunning {
            mission: MissionName::new("a").unwrap(),
            file: Some("/x/mission.toml".into()),
            others: vec![MissionName::new("b").unwrap()],
        };
        insta::assert_snapshot!(error.report(false), @r"
        error: mission `a` is not running
          cause: named by /x/mission.toml; running: b
          help:  name the one that you mean: `missionctl -m b ...`
        ");
        assert_eq!(error.exit().code(), 69);
    }

    #[test]
    fn of_those_that_run_the_one_is_proposed_that_was_probably_meant() {
        let help = |name: &str| {
            let others = ["my-proj", "two"].map(|name| MissionName::new(name).unwrap()).to_vec();
            CtlError::NotRunning { mission: MissionName::new(name).unwrap(), file: None, others }
                .help()
        };
        assert_eq!(help("tow"), "did you mean `-m two`?");
        assert_eq!(help("unlike"), "name one that runs: `missionctl -m my-proj ...`");
    }

    #[test]
    fn a_reader_that_has_gone_is_quiet_and_no_failure() {
        let error = CtlError::output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((error.report(false), error.exit()), (String::new(), Exit::Ok));
    }
}
