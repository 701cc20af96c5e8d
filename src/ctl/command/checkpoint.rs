//! `checkpoint save|get`.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use super::super::error::CtlError;
use super::super::input::{JsonSource, OwnEpoch, OwnTask, no_task};
use super::super::{Context, views};
use crate::ids::{CheckpointId, TaskId};
use crate::proto::Method;
use crate::proto::request::CheckpointGet;
use crate::proto::view::CheckpointView;
use crate::proto::wire::SaveCheckpoint;

/// Storing the files may take long.
const SAVE: Duration = Duration::from_secs(300);

const AFTER: &str = "\
A checkpoint is what a successor needs to go on: JSON, and files of the workspace, of your home or of \
MISSION_CHECKPOINT_DIR. Files are stored by their content; the next owner finds them under \
MISSION_HANDOFF_DIR.

Examples:
  missionctl checkpoint save --json '{\"line\": 512}' --file notes.md --file out/part-1
  ./state | missionctl checkpoint save --json -
  missionctl checkpoint get task-1
  missionctl checkpoint get c-17 -o json | jq .files";

/// Keeps the state of a task for whoever goes on with it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Checkpoint {
    #[command(subcommand)]
    command: CheckpointCommand,
}

#[derive(Debug, Subcommand)]
enum CheckpointCommand {
    /// Saves a checkpoint of a task that you own
    Save {
        /// What a successor needs to know: JSON, @FILE, or - for standard input
        #[arg(long, value_name = "JSON")]
        json: Option<JsonSource>,
        /// A file to keep; may be given again
        #[arg(long = "file", value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The task [default: $MISSION_TASK_ID]
        #[arg(long)]
        task: Option<TaskId>,
        #[command(flatten)]
        epoch: OwnEpoch,
    },
    /// Shows a checkpoint: c-17, or the latest of a task
    #[command(visible_alias = "show")]
    Get {
        /// A checkpoint (c-17) or a task [default: $MISSION_TASK_ID]
        #[arg(value_name = "CHECKPOINT|TASK", conflicts_with = "task")]
        what: Option<String>,
        /// A task, also one that is called like a checkpoint
        #[arg(long)]
        task: Option<TaskId>,
    },
}

impl Checkpoint {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        match self.command {
            CheckpointCommand::Save { json, files, task, epoch } => {
                if json.is_none() && files.is_empty() {
                    return Err(CtlError::Usage {
                        what: "nothing to save".to_owned(),
                        cause: "neither --json nor --file is given".to_owned(),
                        help: "missionctl checkpoint save --json '{\"at\": 3}' --file notes.md"
                            .to_owned(),
                    });
                }
                let json = json.map(JsonSource::load).transpose()?;
                let files = files.iter().map(|file| absolute(context, file));
                let files = files.collect::<Result<_, _>>()?;
                let mut session = context.session().await?;
                let (task, epoch) = OwnTask { task, epoch }.resolve(context, &mut session).await?;
                let doing = format!("save a checkpoint of task `{task}`");
                let params = SaveCheckpoint { task, epoch, json, files };
                let method = Method::CheckpointSave;
                let reply = session.ask_within(SAVE, &doing, method, &params).await?;
                context
                    .out
                    .reply(&reply, |_, checkpoint: &CheckpointView| format!("{}\n", checkpoint.id))
            }
            CheckpointCommand::Get { what, task } => {
                let params = which(context, what.as_deref(), task)?;
                let doing = match (&params.checkpoint, &params.task) {
                    (Some(checkpoint), _) => format!("show checkpoint {checkpoint}"),
                    (None, Some(task)) => format!("show the checkpoint of task `{task}`"),
                    (None, None) => return Err(no_task()),
                };
                let mut session = context.session().await?;
                let reply = session.ask(&doing, Method::CheckpointGet, &params).await?;
                context.out.reply(&reply, views::checkpoint)
            }
        }
    }
}

fn which(
    context: &Context,
    what: Option<&str>,
    task: Option<TaskId>,
) -> Result<CheckpointGet, CtlError> {
    let of = |task: TaskId| CheckpointGet { task: Some(task), checkpoint: None };
    if let Some(task) = task {
        return Ok(of(task));
    }
    let Some(what) = what else { return context.env.task()?.map(of).ok_or_else(no_task) };
    if let Ok(id) = what.parse::<CheckpointId>() {
        return Ok(CheckpointGet { task: None, checkpoint: Some(id) });
    }
    TaskId::new(what).map(of).map_err(|error| CtlError::Usage {
        what: "which checkpoint?".to_owned(),
        cause: error.to_string(),
        help: "name a checkpoint (c-17) or a task".to_owned(),
    })
}

/// A path is meant from the caller's directory, which the daemon doesn't know.
fn absolute(context: &Context, file: &Path) -> Result<String, CtlError> {
    let wrong = |cause: &str| CtlError::Usage {
        what: format!("cannot save {}", file.display()),
        cause: cause.to_owned(),
        help: "name files of the workspace, of your home or of MISSION_CHECKPOINT_DIR".to_owned(),
    };
    let path = match &context.env.cwd {
        _ if file.is_absolute() => file.to_owned(),
        Some(cwd) => cwd.join(file),
        None => return Err(wrong("the working directory is gone")),
    };
    // `./` goes away; `..` stays for the daemon to refuse, for only it can resolve links safely.
    let path: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    path.into_os_string().into_string().map_err(|_| wrong("its name is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::out::Format;
    use crate::ctl::{Env, Out};

    fn context(cwd: &str) -> Context {
        let env = Env { cwd: Some(cwd.into()), task: Some("t-1".into()), ..Env::default() };
        let out = Out::stdout(Format::Table, false, &env);
        Context { env, out, mission: None, key: None }
    }

    #[test]
    fn a_file_is_meant_from_the_working_directory() {
        let context = context("/w/sub");
        assert_eq!(absolute(&context, Path::new("./a/b")).unwrap(), "/w/sub/a/b");
        assert_eq!(absolute(&context, Path::new("/x")).unwrap(), "/x");
        assert_eq!(absolute(&context, Path::new("../a")).unwrap(), "/w/sub/../a");
    }

    #[test]
    fn a_checkpoint_is_told_from_a_task_by_its_form() {
        let context = context("/");
        assert!(which(&context, Some("c-17"), None).unwrap().checkpoint.is_some());
        assert_eq!(which(&context, Some("c17"), None).unwrap().task.unwrap().as_str(), "c17");
        assert_eq!(which(&context, None, None).unwrap().task.unwrap().as_str(), "t-1");
        let named = Some(TaskId::new("c-17").unwrap());
        assert!(which(&context, None, named).unwrap().checkpoint.is_none());
    }
}
