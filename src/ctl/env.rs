//! What the environment says: who speaks, about which task, and where missions run. Read once, here.

use std::ffi::OsString;
use std::path::PathBuf;

use super::error::CtlError;
use crate::ids::{Epoch, HandoffId, IdError, MissionName, TaskId};

/// The environment of an invocation; empty variables count as unset.
#[derive(Debug, Clone, Default)]
pub(crate) struct Env {
    /// `MISSION_SOCKET`: set inside an agent, and then this program speaks as that agent.
    pub(crate) socket: Option<PathBuf>,
    /// `MISSION_NAME`.
    pub(crate) mission: Option<String>,
    /// `MISSION_TASK_ID`: the task that the agent works on.
    pub(crate) task: Option<String>,
    /// `MISSION_TASK_EPOCH`: the fencing token of that ownership.
    pub(crate) epoch: Option<String>,
    /// `MISSION_HANDOFF_ID`: the handoff that a message is about, set by `inbox --each`.
    pub(crate) handoff: Option<String>,
    /// `XDG_RUNTIME_DIR`.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// `NO_COLOR`.
    pub(crate) no_colour: bool,
    /// The working directory.
    pub(crate) cwd: Option<PathBuf>,
}

impl Env {
    /// The environment of this process.
    pub(crate) fn of_process() -> Self {
        Env { cwd: std::env::current_dir().ok(), ..Env::read(|name| std::env::var_os(name)) }
    }

    /// The environment that `get` gives.
    pub(crate) fn read(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let text = |name: &str| get(name).map(|value| value.to_string_lossy().into_owned());
        Env {
            socket: get("MISSION_SOCKET").map(PathBuf::from),
            mission: text("MISSION_NAME"),
            task: text("MISSION_TASK_ID"),
            epoch: text("MISSION_TASK_EPOCH"),
            handoff: text("MISSION_HANDOFF_ID"),
            runtime_dir: get("XDG_RUNTIME_DIR").map(PathBuf::from),
            no_colour: get("NO_COLOR").is_some(),
            cwd: None,
        }
    }

    /// The mission's name, where it is one.
    pub(crate) fn mission(&self) -> Option<MissionName> {
        MissionName::new(self.mission.as_deref()?).ok()
    }

    /// The task that the agent works on.
    ///
    /// # Errors
    /// `MISSION_TASK_ID` holds no task id.
    pub(crate) fn task(&self) -> Result<Option<TaskId>, CtlError> {
        let Some(text) = self.task.as_deref() else { return Ok(None) };
        TaskId::new(text).map(Some).map_err(|error| CtlError::Usage {
            what: "MISSION_TASK_ID holds no task id".to_owned(),
            cause: error.to_string(),
            help: "unset it, or name the task".to_owned(),
        })
    }

    /// The handoff that a message is about.
    ///
    /// # Errors
    /// `MISSION_HANDOFF_ID` holds no handoff id.
    pub(crate) fn handoff(&self) -> Result<Option<HandoffId>, CtlError> {
        let Some(text) = self.handoff.as_deref() else { return Ok(None) };
        text.parse().map(Some).map_err(|error: IdError| CtlError::Usage {
            what: "MISSION_HANDOFF_ID holds no handoff id".to_owned(),
            cause: error.to_string(),
            help: "unset it, or name the handoff".to_owned(),
        })
    }

    /// The epoch of that task.
    ///
    /// # Errors
    /// `MISSION_TASK_EPOCH` holds no number.
    pub(crate) fn epoch(&self) -> Result<Option<Epoch>, CtlError> {
        let Some(text) = self.epoch.as_deref() else { return Ok(None) };
        text.parse().map(|number| Some(Epoch(number))).map_err(|_| CtlError::Usage {
            what: "MISSION_TASK_EPOCH holds no epoch".to_owned(),
            cause: format!("`{text}` is not a number"),
            help: "unset it, or give --epoch".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_an_unset_one() {
        let env = Env::read(|name| (name == "MISSION_SOCKET").then(OsString::new));
        assert!(env.socket.is_none() && !env.no_colour);
    }

    #[test]
    fn a_wrong_task_or_epoch_is_an_error_and_not_ignored() {
        let env = Env { task: Some("../x".into()), epoch: Some("x".into()), ..Env::default() };
        assert!(env.task().is_err() && env.epoch().is_err());
    }
}
