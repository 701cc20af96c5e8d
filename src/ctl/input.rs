//! What commands take besides names: JSON from the command line, a file or standard input; positions
//! in the log; the task that a write is about, with its epoch.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::DeserializeOwned;

use super::Context;
use super::error::CtlError;
use super::out::read;
use super::session::Session;
use crate::ids::{Epoch, MessageId, Seq, TaskId};
use crate::proto::json::Json;
use crate::proto::request::TaskGet;
use crate::proto::view::TaskView;
use crate::proto::{MAX_LINE, Method};

/// JSON as it is given: in place, `@FILE`, or `-` for standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JsonSource {
    /// In place.
    Inline(Json),
    /// From a file.
    File(PathBuf),
    /// From standard input.
    Stdin,
}

impl FromStr for JsonSource {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "-" => Ok(JsonSource::Stdin),
            text => match text.strip_prefix('@') {
                Some(file) => Ok(JsonSource::File(file.into())),
                None => parse(text).map(JsonSource::Inline),
            },
        }
    }
}

fn parse(text: &str) -> Result<Json, String> {
    Json::parse(text)
        .map_err(|error| format!("not JSON: {error} (@FILE and - read it from elsewhere)"))
}

impl JsonSource {
    /// The JSON.
    ///
    /// # Errors
    /// It can't be read, is too large, or is no JSON.
    pub(crate) fn load(self) -> Result<Json, CtlError> {
        let (text, from) = match self {
            JsonSource::Inline(json) => return Ok(json),
            JsonSource::Stdin => (stdin()?, "standard input".to_owned()),
            JsonSource::File(path) => {
                let doing = format!("read {}", path.display());
                let file = File::open(&path)
                    .map_err(|source| CtlError::Io { doing: doing.clone(), source })?;
                (bounded(file, &doing)?, path.display().to_string())
            }
        };
        Json::parse(text.trim()).map_err(|error| CtlError::Usage {
            what: format!("{from} does not hold one JSON value"),
            cause: error.to_string(),
            help: "text that is no JSON is sent without --json".to_owned(),
        })
    }
}

/// All of standard input, as text.
///
/// # Errors
/// It can't be read, is too large for a message, or no UTF-8.
pub(crate) fn stdin() -> Result<String, CtlError> {
    bounded(io::stdin().lock(), "read standard input")
}

/// At most what fits into one frame.
fn bounded(from: impl Read, doing: &str) -> Result<String, CtlError> {
    let mut text = String::new();
    let max = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    from.take(max + 1)
        .read_to_string(&mut text)
        .map_err(|source| CtlError::Io { doing: doing.to_owned(), source })?;
    if text.len() > MAX_LINE {
        return Err(CtlError::Usage {
            what: format!("cannot {doing}"),
            cause: format!("it has more than {MAX_LINE} bytes"),
            help: "put large things into files: `missionctl checkpoint save --file`".to_owned(),
        });
    }
    Ok(text)
}

/// A position in the log: `17`, or `m-17` for the message there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position(pub(crate) Seq);

impl FromStr for Position {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<MessageId>() {
            Ok(id) => Ok(Position(id.0)),
            Err(_) => text
                .parse()
                .map(|number| Position(Seq(number)))
                .map_err(|_| format!("`{text}` is neither a seq (17) nor a message id (m-17)")),
        }
    }
}

/// A value by its name on the wire, in any case.
///
/// # Errors
/// The names that there are.
pub(crate) fn by_name<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let named = |text: String| serde_json::from_value(serde_json::Value::String(text));
    named(text.to_lowercase()).or_else(|_| named(text.to_uppercase())).map_err(|error| {
        let error = error.to_string();
        let known = error.find("expected").map_or("", |at| &error[at..]);
        format!("`{text}` is unknown: {known}")
    })
}

/// Which epoch a write is made under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EpochSource {
    /// This one.
    Given(Epoch),
    /// The present one, whatever it is: gives up the protection against acting on outdated knowledge.
    Current,
}

impl FromStr for EpochSource {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "current" => Ok(EpochSource::Current),
            text => text
                .parse()
                .map(|number| EpochSource::Given(Epoch(number)))
                .map_err(|_| format!("`{text}` is neither a number nor `current`")),
        }
    }
}

/// The task that its owner writes about.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OwnTask {
    /// The task [default: $MISSION_TASK_ID]
    pub(crate) task: Option<TaskId>,
    #[command(flatten)]
    pub(crate) epoch: OwnEpoch,
}

/// The epoch of that ownership.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OwnEpoch {
    /// Your epoch of the task, or `current` [default: $MISSION_TASK_EPOCH]
    #[arg(long, value_name = "N|current")]
    pub(crate) epoch: Option<EpochSource>,
}

impl OwnTask {
    /// The task and the epoch, from the arguments or the environment.
    ///
    /// # Errors
    /// Neither says it.
    pub(crate) async fn resolve(
        &self,
        context: &Context,
        session: &mut Session,
    ) -> Result<(TaskId, Epoch), CtlError> {
        let own = context.env.task()?;
        let task = self.task.clone().or_else(|| own.clone()).ok_or_else(no_task)?;
        let known = match self.epoch.epoch {
            Some(EpochSource::Given(epoch)) => Some(epoch),
            Some(EpochSource::Current) => {
                let params = TaskGet { task: task.clone() };
                let doing = format!("look at task `{task}`");
                let reply = session.ask(&doing, Method::TaskGet, &params).await?;
                Some(read::<TaskView>(&reply)?.epoch)
            }
            None if own.as_ref() == Some(&task) => context.env.epoch()?,
            None => None,
        };
        let epoch = known.ok_or_else(|| CtlError::Usage {
            what: format!("under which epoch do you own task `{task}`?"),
            cause: "neither --epoch nor, for this task, MISSION_TASK_EPOCH says it".to_owned(),
            help: "eval \"$(missionctl task claim --export)\" sets both; or say --epoch N, or \
                   --epoch current"
                .to_owned(),
        })?;
        Ok((task, epoch))
    }
}

/// Nobody said which task.
pub(crate) fn no_task() -> CtlError {
    CtlError::Usage {
        what: "which task?".to_owned(),
        cause: "none is named, and MISSION_TASK_ID is not set".to_owned(),
        help: "name it; `missionctl task list` shows them".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::request::Phase;
    use crate::proto::view::TaskStateName;

    #[test]
    fn a_position_is_a_number_or_a_message_id() {
        assert_eq!("17".parse(), Ok(Position(Seq(17))));
        assert_eq!("m-17".parse(), Ok(Position(Seq(17))));
        assert!("h-17".parse::<Position>().is_err());
    }

    #[test]
    fn names_are_taken_in_any_case_and_unknown_ones_list_the_known() {
        assert_eq!(by_name("Executing"), Ok(Phase::Executing));
        assert_eq!(by_name("ACTIVE"), Ok(TaskStateName::Active));
        let error = by_name::<Phase>("busy").unwrap_err();
        assert!(error.contains("`PLANNING`"), "{error}");
    }

    #[test]
    fn json_is_checked_before_anything_is_sent() {
        assert!("{\"a\":".parse::<JsonSource>().is_err());
        assert_eq!("-".parse(), Ok(JsonSource::Stdin));
        assert_eq!("@a b".parse(), Ok(JsonSource::File("a b".into())));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), " {\"a\": 1}\n").unwrap();
        let json = JsonSource::File(file.path().into()).load().unwrap();
        assert_eq!(json.get(), "{\"a\": 1}");
        std::fs::write(file.path(), "x".repeat(MAX_LINE + 1)).unwrap();
        let error = JsonSource::File(file.path().into()).load().unwrap_err();
        assert_eq!(error.exit().code(), 2);
    }
}
