//! What slow work stands on: shared with the threads that may block.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::guards::Guards;
use crate::config::Mission;
use crate::config::dirs::Dirs;
use crate::core::event::Logged;
use crate::core::json::Json;
use crate::core::state::{Checkpoint, State};
use crate::core::view::FileRef;
use crate::ids::{CheckpointId, Seq, TaskId, Timestamp};
use crate::launch::cgroup::Cgroups;
use crate::store::blobs::Blobs;
use crate::store::{ReadError, Reader, Record};

/// Variables by which a service manager speaks to the daemon: none of an agent's business.
const NOT_FOR_AGENTS: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "INVOCATION_ID",
];

/// The mission, its places and its store, as threads see them.
#[derive(Debug)]
pub(super) struct Ground {
    /// The mission file, checked.
    pub mission: Mission,
    /// Where it lives.
    pub dirs: Dirs,
    /// Its files.
    pub blobs: Blobs,
    /// Its log.
    pub reader: Reader,
    /// Where agents find `missionctl`.
    pub missionctl_dir: Option<PathBuf>,
    /// Where agents get control groups, or why they get none.
    pub cgroups: Result<Cgroups, String>,
    /// What protects the trees that agents write.
    pub guards: Arc<Guards>,
    /// The daemon's environment, as far as it is text and may be passed on.
    pub environment: Vec<(String, String)>,
}

impl Ground {
    /// The daemon's environment without what only concerns the daemon.
    pub(super) fn environment(
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Vec<(String, String)> {
        variables
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| !NOT_FOR_AGENTS.contains(&name.as_str()))
            .collect()
    }

    /// The content of an event.
    ///
    /// # Errors
    /// The log can't be read.
    pub(super) fn content(&self, at: Seq) -> Result<Option<Json>, ReadError> {
        let record = self.reader.get(at.0)?;
        Ok(record.and_then(|record| record.content).and_then(|text| Json::parse(&text).ok()))
    }
}

/// A record of the log as the event that it holds; none for what can't be read any more.
pub(super) fn logged(record: &Record) -> Option<Logged> {
    let (seq, at) = (Seq(record.seq), Timestamp(record.at_ms));
    let envelope = record.envelope.as_bytes();
    let mut logged =
        Logged::decode(seq, at, &record.kind, record.v, &record.actor, envelope).ok()?;
    logged.content = record.content.as_deref().and_then(|text| Json::parse(text).ok());
    Some(logged)
}

/// A checkpoint to be restored.
#[derive(Debug, Clone)]
pub(super) struct Restore {
    /// Which.
    pub id: CheckpointId,
    /// Of which task.
    pub task: TaskId,
    /// Where its JSON stands in the log.
    pub json_at: Option<Seq>,
    /// Its files.
    pub files: Vec<FileRef>,
}

impl Restore {
    /// The checkpoint of that id.
    pub(super) fn of(state: &State, id: CheckpointId) -> Option<Restore> {
        let Checkpoint { task, json, files, .. } = state.checkpoints.get(&id)?;
        let json_at = json.then_some(id.0);
        Some(Restore { id, task: task.clone(), json_at, files: files.clone() })
    }
}

/// Where agents find `missionctl`: beside this program, unless an agent could write there; then a
/// copy in the state directory. Where it isn't beside this program (`cargo run` builds just one), the
/// copy is of this program, which is `missionctl` when it is called so.
///
/// # Errors
/// The copy can't be made.
pub(super) fn missionctl_dir(
    exe: &Path,
    workspace: &Path,
    state: &Path,
) -> std::io::Result<Option<PathBuf>> {
    use std::os::unix::fs::PermissionsExt;
    let Some(dir) = exe.parent() else { return Ok(None) };
    let beside = dir.join("missionctl");
    let program = if beside.is_file() { &beside } else { exe };
    if program == beside && !dir.starts_with(workspace) {
        return Ok(Some(dir.to_owned()));
    }
    let own = state.join("bin");
    crate::config::dirs::ensure_private(&own).map_err(std::io::Error::other)?;
    let copy = own.join("missionctl");
    let fresh = own.join("missionctl.new");
    std::fs::copy(program, &fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o500))?;
    std::fs::rename(&fresh, &copy)?;
    Ok(Some(own))
}

/// Shared by the loop and its threads.
pub(super) type Shared = Arc<Ground>;
