//! Where a mission keeps its sockets and its state, and that these places are ours alone.
//!
//! ```text
//! runtime  $XDG_RUNTIME_DIR/missiond/MISSION/     control.sock  lock  agents/NAME/bus.sock
//! state    $XDG_STATE_HOME/missiond/MISSION/      mission.db  blobs/  daemon.log  agents/NAME/...
//! ```
//!
//! Without `XDG_RUNTIME_DIR` the runtime directory is below `/run/user/UID` if that is ours, else
//! `/tmp/missiond-UID`, which is checked for its owner: anybody can make it first. Without
//! `XDG_STATE_HOME` state is below `~/.local/state`. Directories are made with mode 0700.
//!
//! It deliberately opens nothing in these directories: the daemon and `missionctl` do.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::ids::{AgentName, MissionName, TaskId};

/// The longest path of a Unix socket: `sun_path` has 108 bytes with its NUL (unix(7)).
pub const MAX_SOCKET_PATH: usize = 107;

/// Why a mission has no place to be.
#[derive(Debug, thiserror::Error)]
pub enum DirsError {
    /// Neither `XDG_STATE_HOME` nor `HOME` names an absolute directory.
    #[error("cannot tell where state belongs: neither XDG_STATE_HOME nor HOME is an absolute path")]
    NoHome,
    /// The directory exists and isn't ours.
    #[error("`{path}` belongs to uid {owner}, not to us (uid {us})")]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Our uid.
        us: u32,
    },
    /// Something else than a directory is in its place.
    #[error("`{0}` is not a directory")]
    NotADirectory(PathBuf),
    /// It can't be made or looked at.
    #[error("cannot {what} `{path}`")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A socket would have too long a path.
    #[error(
        "the socket path `{path}` has {length} bytes, more than the {MAX_SOCKET_PATH} that the \
         kernel takes; set XDG_RUNTIME_DIR to a shorter directory or shorten the name"
    )]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
}

/// What decides where things are; see [`Places::from_environment`].
#[derive(Debug, Clone)]
pub struct Places {
    runtime_base: PathBuf,
    state_base: PathBuf,
}

impl Places {
    /// Reads `XDG_RUNTIME_DIR`, `XDG_STATE_HOME` and `HOME` through `variable`.
    ///
    /// # Errors
    /// [`DirsError::NoHome`].
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, DirsError> {
        let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let uid = own_uid();
        let runtime_base = match absolute("XDG_RUNTIME_DIR") {
            Some(dir) => dir.join("missiond"),
            None => {
                let dir = PathBuf::from(format!("/run/user/{uid}"));
                let ours = fs::metadata(&dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid);
                if ours { dir.join("missiond") } else { format!("/tmp/missiond-{uid}").into() }
            }
        };
        let state_base = absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .ok_or(DirsError::NoHome)?
            .join("missiond");
        Ok(Places { runtime_base, state_base })
    }

    /// The directories of one mission; nothing is looked at or made.
    #[must_use]
    pub fn of(&self, mission: &MissionName) -> Dirs {
        Dirs {
            runtime: self.runtime_base.join(mission.as_str()),
            state: self.state_base.join(mission.as_str()),
        }
    }

    /// The directories that hold the runtime directories and the state of all missions.
    #[must_use]
    pub fn bases(&self) -> [&Path; 2] {
        [&self.runtime_base, &self.state_base]
    }

    /// The missions that have a control socket, by name. One of them may be dead.
    ///
    /// # Errors
    /// The runtime directory is there and can't be read.
    pub fn running(&self) -> Result<Vec<MissionName>, DirsError> {
        let failed =
            |source| DirsError::Io { what: "list", path: self.runtime_base.clone(), source };
        let entries = match fs::read_dir(&self.runtime_base) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str().and_then(|name| MissionName::new(name).ok()) else {
                continue;
            };
            if fs::symlink_metadata(self.of(&name).control_socket()).is_ok() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// The directories of one mission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    runtime: PathBuf,
    state: PathBuf,
}

impl Dirs {
    /// Makes both directories (and their parents) if need be, checks that they are ours, closes them
    /// to others, and resolves symbolic links on the way to them.
    ///
    /// # Errors
    /// See [`DirsError`].
    pub fn prepare(&self) -> Result<Dirs, DirsError> {
        let prepare = |dir: &Path| {
            if let Some(base) = dir.parent() {
                ensure_parents(base)?;
                ensure_private(base)?;
            }
            ensure_private(dir)?;
            fs::canonicalize(dir).map_err(io_error("resolve", dir))
        };
        let dirs = Dirs { runtime: prepare(&self.runtime)?, state: prepare(&self.state)? };
        check_socket(&dirs.control_socket())?;
        Ok(dirs)
    }

    /// Sockets and the lock.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The log, blobs, and what belongs to the agents.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The operator's socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }

    /// The file whose lock the daemon holds; it names its pid.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.runtime.join("lock")
    }

    /// The key that an operator under `no_new_privs` shows.
    #[must_use]
    pub fn operator_key(&self) -> PathBuf {
        self.runtime.join("operator.key")
    }

    /// What the daemon itself writes when it is detached.
    #[must_use]
    pub fn daemon_log(&self) -> PathBuf {
        self.state.join("daemon.log")
    }

    /// An agent's socket, alone in its own directory.
    #[must_use]
    pub fn agent_socket(&self, agent: &AgentName) -> PathBuf {
        self.runtime.join("agents").join(agent.as_str()).join("bus.sock")
    }

    /// What belongs to an agent.
    #[must_use]
    pub fn agent(&self, agent: &AgentName) -> AgentDirs {
        AgentDirs {
            bus: self.runtime.join("agents").join(agent.as_str()),
            root: self.state.join("agents").join(agent.as_str()),
        }
    }
}

/// The directories of one agent.
///
/// ```text
/// root  home/  tmp/  log/{stdout.log,stderr.log}  lock  checkpoint/  handoff/TASK/  task/TASK/{...}
///       private/{upper,work,session.json}  exclude-N
/// bus   bus.sock
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentDirs {
    bus: PathBuf,
    root: PathBuf,
}

impl AgentDirs {
    /// Makes them all, each closed to others.
    ///
    /// # Errors
    /// See [`DirsError`].
    pub fn prepare(&self) -> Result<(), DirsError> {
        check_socket(&self.socket())?;
        for dir in [&self.bus, &self.root] {
            if let Some(parent) = dir.parent() {
                ensure_private(parent)?;
            }
            ensure_private(dir)?;
        }
        let own =
            [self.home(), self.tmp(), self.log(), self.checkpoint(), self.handoff(), self.tasks()];
        own.iter().try_for_each(|dir| ensure_private(dir))
    }

    /// The directory of its socket.
    #[must_use]
    pub fn bus(&self) -> &Path {
        &self.bus
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.bus.join("bus.sock")
    }

    /// Its `$HOME`.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// Its `$TMPDIR`.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Its output; it can't write here itself.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The file whose lock the shim of its living process holds.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// A service's `$MISSION_CHECKPOINT_DIR`.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.root.join("checkpoint")
    }

    /// A service's `$MISSION_HANDOFF_DIR`: what is restored for a task is in a directory of its name.
    #[must_use]
    pub fn handoff(&self) -> PathBuf {
        self.root.join("handoff")
    }

    /// What it has changed in a private workspace; it sees that only through the workspace.
    #[must_use]
    pub fn private(&self) -> PathBuf {
        self.root.join("private")
    }

    /// What git is to overlook in a repository, by number; the agent sees it in the repository.
    #[must_use]
    pub fn exclude(&self, number: usize) -> PathBuf {
        self.root.join(format!("exclude-{number}"))
    }

    fn tasks(&self) -> PathBuf {
        self.root.join("task")
    }

    /// A task-mode process's directory for one task: `task.json`, `checkpoint/`, `handoff/`.
    #[must_use]
    pub fn task(&self, task: &TaskId) -> PathBuf {
        self.tasks().join(task.as_str())
    }
}

/// Makes a directory with mode 0700 if it isn't there, and closes ours to others if it is.
///
/// # Errors
/// It isn't ours, isn't a directory (a symbolic link isn't one), or can't be made.
pub fn ensure_private(dir: &Path) -> Result<(), DirsError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other.map_err(io_error("make", dir)),
    }
    let meta = fs::symlink_metadata(dir).map_err(io_error("look at", dir))?;
    if !meta.is_dir() {
        return Err(DirsError::NotADirectory(dir.to_owned()));
    }
    let us = own_uid();
    if meta.uid() != us {
        return Err(DirsError::NotOurs { path: dir.to_owned(), owner: meta.uid(), us });
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(io_error("close", dir))?;
    }
    Ok(())
}

/// Makes what is missing above `dir` (`~/.local/state`), with the usual mode.
fn ensure_parents(dir: &Path) -> Result<(), DirsError> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(io_error("make", parent))
}

fn check_socket(path: &Path) -> Result<(), DirsError> {
    let length = path.as_os_str().as_bytes().len();
    if length > MAX_SOCKET_PATH {
        return Err(DirsError::SocketPath { path: path.to_owned(), length });
    }
    Ok(())
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirsError {
    let path = path.to_owned();
    move |source| DirsError::Io { what, path, source }
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(root: &Path) -> Places {
        let (run, state) = (root.join("run"), root.join("home"));
        fs::create_dir_all(&run).unwrap();
        Places::from_environment(|name| match name {
            "XDG_RUNTIME_DIR" => Some(run.clone().into()),
            "HOME" => Some(state.clone().into()),
            _ => None,
        })
        .unwrap()
    }

    fn mission() -> MissionName {
        MissionName::new("review").unwrap()
    }

    #[test]
    fn directories_are_made_closed_to_others() {
        let root = tempfile::tempdir().unwrap();
        let dirs = places(root.path()).of(&mission()).prepare().unwrap();
        assert!(dirs.state().ends_with("home/.local/state/missiond/review"));
        let agent = dirs.agent(&AgentName::new("writer").unwrap());
        agent.prepare().unwrap();
        for dir in [dirs.runtime(), dirs.state(), agent.bus(), &agent.home(), &agent.log()] {
            assert_eq!(fs::metadata(dir).unwrap().mode() & 0o7777, 0o700, "{}", dir.display());
        }
    }

    #[test]
    fn an_open_directory_of_ours_is_closed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("open");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
        ensure_private(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_symbolic_link_or_file_in_its_place_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.path(), &link).unwrap();
        assert!(matches!(ensure_private(&link), Err(DirsError::NotADirectory(_))));
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(ensure_private(&file), Err(DirsError::NotADirectory(_))));
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        if own_uid() == 0 {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("theirs");
            fs::create_dir(&dir).unwrap();
            std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).unwrap();
            assert!(matches!(ensure_private(&dir), Err(DirsError::NotOurs { owner: 65534, .. })));
        } else {
            assert!(matches!(ensure_private(Path::new("/usr")), Err(DirsError::NotOurs { .. })));
        }
    }

    #[test]
    fn a_socket_path_of_108_bytes_is_refused_with_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let long = root.path().join("x".repeat(100));
        let error = places(&long).of(&mission()).prepare().unwrap_err();
        assert!(matches!(error, DirsError::SocketPath { .. }), "{error}");
        assert!(error.to_string().contains("XDG_RUNTIME_DIR"), "{error}");
    }

    #[test]
    fn running_missions_are_those_with_a_socket() {
        let root = tempfile::tempdir().unwrap();
        let places = places(root.path());
        assert_eq!(places.running().unwrap(), []);
        let dirs = places.of(&mission()).prepare().unwrap();
        assert_eq!(places.running().unwrap(), []);
        fs::write(dirs.control_socket(), "").unwrap();
        assert_eq!(places.running().unwrap(), [mission()]);
    }

    #[test]
    fn without_a_home_there_is_no_place_for_state() {
        assert!(matches!(Places::from_environment(|_| None), Err(DirsError::NoHome)));
    }
}
