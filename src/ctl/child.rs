//! Runs the command of `inbox --each` for one message.
//!
//! It waits without serving the connection: one message is out at a time, so that nothing else can
//! come meanwhile but ephemeral ones, which may be dropped.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

use serde::Deserialize;

use super::error::CtlError;
use super::exit::Exit;
use crate::ids::{Epoch, HandoffId, TaskId};
use crate::proto::view::Party;
use crate::proto::wire::Delivery;

/// How the command ended.
pub(super) enum Ended {
    /// With exit code 0.
    Well,
    /// Otherwise: how, in words.
    Badly(String),
}

/// What messages of the daemon are about.
#[derive(Deserialize)]
struct About {
    #[serde(default)]
    task: Option<TaskId>,
    #[serde(default)]
    epoch: Option<Epoch>,
    #[serde(default)]
    handoff: Option<HandoffId>,
}

/// Runs `command` with the message as JSON on its standard input, and waits for its end.
///
/// # Errors
/// There is no such program: the message stays unacknowledged.
pub(super) fn run(command: &[OsString], delivery: &Delivery) -> Result<Ended, CtlError> {
    let message = &delivery.message;
    let [program, arguments @ ..] = command else { return Ok(Ended::Well) };
    let mut json = serde_json::to_vec(message).map_err(|error| CtlError::Answer {
        doing: "hand on a message".to_owned(),
        cause: error.to_string(),
    })?;
    json.push(b'\n');
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .env("MISSION_MESSAGE_SEQ", message.seq.to_string())
        .env("MISSION_MESSAGE_TYPE", message.r#type.to_string())
        .env("MISSION_MESSAGE_FROM", message.from.to_string())
        .env("MISSION_MESSAGE_AGAIN", if delivery.redelivered { "1" } else { "" });
    set(&mut command, "MISSION_MESSAGE_ID", message.id.map(|id| id.to_string()));
    // Anyone can write `epoch` into a message; what the daemon writes is true.
    if message.from == Party::Daemon
        && let Ok(about) = serde_json::from_str::<About>(message.content.get())
    {
        set(&mut command, "MISSION_HANDOFF_ID", about.handoff.map(|id| id.to_string()));
        if let Some(task) = about.task {
            // An epoch of another task, from outside, must not be taken for this one's.
            set(&mut command, "MISSION_TASK_EPOCH", about.epoch.map(|epoch| epoch.to_string()));
            command.env("MISSION_TASK_ID", task.as_str());
        }
    }
    let shown = program.to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|source| CtlError::Ended {
        what: format!("cannot run `{shown}`"),
        cause: source.to_string(),
        help: "the message is not acknowledged; give a program, or sh -c 'COMMANDS'".to_owned(),
        exit: Exit::Usage,
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(&json) {
            // It need not read it.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(CtlError::Io { doing: format!("write to `{shown}`"), source: error });
            }
            _ => {}
        }
    }
    let status = child
        .wait()
        .map_err(|source| CtlError::Io { doing: format!("wait for `{shown}`"), source })?;
    Ok(if status.success() { Ended::Well } else { Ended::Badly(describe(status)) })
}

fn set(command: &mut Command, name: &str, value: Option<String>) {
    match value {
        Some(value) => command.env(name, value),
        None => command.env_remove(name),
    };
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".to_owned(),
    }
}
