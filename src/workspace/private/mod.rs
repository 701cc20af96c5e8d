//! A private workspace: what an agent writes goes into a directory of its own, over the real tree,
//! and comes back only when a person accepts it.
//!
//! ```text
//! agents/NAME/private/upper          what the agent changed, as overlayfs keeps it (userxattr)
//!                     work           overlayfs's own
//!                     session.json   of which tree, since when, what never comes back
//!
//! (nothing) --begin--> session --agent writes--> changes --accept--> in the workspace, gone from upper
//!                         ^                        |-----discard--> gone
//!                         '------- nothing left ---'
//! ```
//!
//! This is the one strict guarantee at any depth: whatever the agent does, the real tree is as it was.
//! Changes are taken back file by file, each as a whole. What was changed in the real tree since the
//! session began is a conflict and never overwritten; what git or the mission would run is refused
//! (see `changes`).
//!
//! Works on the state directory alone, whether the daemon runs or not: `accept` and `discard` hold the
//! agent's lock, so that the agent doesn't run, and isn't started, meanwhile. It deliberately merges
//! nothing.

mod apply;
mod changes;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::journal::{read_json, write_json};
pub use changes::{Change, Kind, Verdict, What};

/// Why something can't be done with a private workspace.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The agent has never had one, or it was discarded.
    #[error("there is no private workspace")]
    None,
    /// Its agent runs.
    #[error("the agent is running")]
    Running,
    /// It holds changes of another tree.
    #[error("it holds changes to {}, which were neither accepted nor discarded", path.display())]
    OtherTree {
        /// The tree.
        path: PathBuf,
    },
    /// Something to be accepted was also changed in the workspace.
    #[error("{count} of the changes conflict with the workspace")]
    Conflicts {
        /// How many.
        count: usize,
    },
    /// There are too many changes, or too deep ones.
    #[error("{0}")]
    TooMuch(String),
    /// The system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrivateError {
    let path = path.to_owned();
    move |source| PrivateError::Io { what, path, source }
}

/// Seconds and nanoseconds of a change time.
type Moment = (i64, i64);

/// A file of the real tree, as it was left by us: this is no change of somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Left {
    inode: u64,
    changed: Moment,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Session {
    workspace: PathBuf,
    /// Change times of the real tree from here on are conflicts.
    began: Moment,
    /// Never taken back; relative.
    protected: Vec<PathBuf>,
    /// What was taken back already.
    accepted: BTreeMap<PathBuf, Left>,
    /// The name under which files are made in the workspace.
    temporary: String,
}

/// Where a private workspace is kept.
#[derive(Debug, Clone)]
pub struct Private {
    dir: PathBuf,
}

/// The directories that overlayfs needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upper {
    /// For what the agent changes.
    pub upper: PathBuf,
    /// For overlayfs.
    pub work: PathBuf,
}

impl Private {
    /// The one in this directory, whether it is there or not.
    #[must_use]
    pub fn at(dir: PathBuf) -> Private {
        Private { dir }
    }

    fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    fn session_path(&self) -> PathBuf {
        self.dir.join("session.json")
    }

    fn session(&self) -> Result<Session, PrivateError> {
        let path = self.session_path();
        read_json(&path).map_err(failed("read", &path))?.ok_or(PrivateError::None)
    }

    fn write(&self, session: &Session) -> Result<(), PrivateError> {
        let path = self.session_path();
        write_json(&path, session, true).map_err(failed("write", &path))
    }

    /// Makes it ready for a start of its agent: begins a session, or goes on with the one that is
    /// there. `protected`: places in the workspace that never come back. The caller sees to it that the
    /// agent doesn't run.
    ///
    /// # Errors
    /// [`PrivateError::OtherTree`], [`PrivateError::Io`].
    pub fn begin(&self, workspace: &Path, protected: &[PathBuf]) -> Result<Upper, PrivateError> {
        let relative = protected.iter().filter_map(|path| path.strip_prefix(workspace).ok());
        let protected: Vec<PathBuf> = relative.map(Path::to_owned).collect();
        match self.session() {
            Ok(session) if session.workspace == workspace => {
                self.write(&Session { protected, ..session })?;
            }
            Ok(session) => return Err(PrivateError::OtherTree { path: session.workspace }),
            Err(PrivateError::None) => {
                // Whatever is there without a session is half of a beginning, or of an end.
                self.clear()?;
                for dir in [self.dir.clone(), self.work()] {
                    make(&dir, 0o700)?;
                }
                // Its root is what the agent sees as the workspace's.
                let mode = fs::metadata(workspace).map_err(failed("look at", workspace))?.mode();
                make(&self.upper(), mode & 0o777)?;
                let made = fs::metadata(self.upper()).map_err(failed("look at", &self.upper()))?;
                self.write(&Session {
                    workspace: workspace.to_owned(),
                    began: (made.ctime(), made.ctime_nsec()),
                    protected,
                    accepted: BTreeMap::new(),
                    temporary: super::registry::temporary_name()
                        .map_err(failed("name", &self.dir))?,
                })?;
            }
            Err(error) => return Err(error),
        }
        Ok(Upper { upper: self.upper(), work: self.work() })
    }

    /// What the agent has changed, in the order of paths.
    ///
    /// # Errors
    /// There is none, or it can't be read.
    pub fn changes(&self) -> Result<Vec<Change>, PrivateError> {
        changes::changes(&self.session()?, &self.upper())
    }

    /// The directory that has the agent's side of a changed file.
    #[must_use]
    pub fn agents_side(&self) -> PathBuf {
        self.upper()
    }

    /// The real tree.
    ///
    /// # Errors
    /// There is no private workspace.
    pub fn workspace(&self) -> Result<PathBuf, PrivateError> {
        Ok(self.session()?.workspace)
    }

    /// Takes changes back into the workspace: all, or those at and below `only`. With a conflict among
    /// them nothing is done, unless `partly`. Gives all that were considered, as they came out: what
    /// is [`Verdict::Fine`] was taken.
    ///
    /// # Errors
    /// See [`PrivateError`]. What was taken before an error stays taken.
    pub fn accept(
        &self,
        agent_lock: &Path,
        only: &[PathBuf],
        partly: bool,
    ) -> Result<Vec<Change>, PrivateError> {
        let _lock = hold(agent_lock)?;
        let mut session = self.session()?;
        let mut changes = changes::changes(&session, &self.upper())?;
        changes.retain(|change| selected(&change.path, only));
        let conflicts =
            changes.iter().filter(|change| matches!(change.verdict, Verdict::Conflict(_))).count();
        if conflicts > 0 && !partly {
            return Err(PrivateError::Conflicts { count: conflicts });
        }
        let applied = apply::apply(&mut session, &self.upper(), &mut changes);
        self.write(&session)?;
        applied?;
        self.end_if_empty(&session)?;
        Ok(changes)
    }

    /// Throws changes away: all, or those at and below `only`. Gives what was thrown away.
    ///
    /// # Errors
    /// See [`PrivateError`].
    pub fn discard(
        &self,
        agent_lock: &Path,
        only: &[PathBuf],
    ) -> Result<Vec<Change>, PrivateError> {
        let _lock = hold(agent_lock)?;
        let session = self.session()?;
        let mut changes = changes::changes(&session, &self.upper())?;
        if only.is_empty() {
            self.clear()?;
        } else {
            changes.retain(|change| selected(&change.path, only));
            apply::forget(&self.upper(), &changes)?;
            self.end_if_empty(&session)?;
        }
        Ok(changes)
    }

    /// Without changes the next start begins anew.
    fn end_if_empty(&self, session: &Session) -> Result<(), PrivateError> {
        if changes::changes(session, &self.upper())?.is_empty() {
            self.clear()?;
        }
        Ok(())
    }

    /// Removes everything; the session first, so that half of it is nothing.
    fn clear(&self) -> Result<(), PrivateError> {
        let path = self.session_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &path)(error));
            }
            _ => {}
        }
        for dir in [self.upper(), self.work()] {
            remove_all(&dir).map_err(failed("remove", &dir))?;
        }
        Ok(())
    }
}

/// Whether a path is asked for.
fn selected(path: &Path, only: &[PathBuf]) -> bool {
    only.is_empty() || only.iter().any(|one| path.starts_with(one))
}

fn make(dir: &Path, mode: u32) -> Result<(), PrivateError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("make", dir)(error));
        }
        _ => {}
    }
    fs::set_permissions(dir, Permissions::from_mode(mode)).map_err(failed("make", dir))
}

/// The agent's lock: its shim holds it while it lives.
fn hold(agent_lock: &Path) -> Result<File, PrivateError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW);
    let file = options.open(agent_lock).map_err(failed("open", agent_lock))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PrivateError::Running),
        Err(TryLockError::Error(error)) => Err(failed("lock", agent_lock)(error)),
    }
}

/// Removes a directory with all that is in it, whatever its modes: an agent and overlayfs may have
/// made directories that not even their owner may search.
fn remove_all(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        Err(_) => {}
    }
    let mut rest = vec![dir.to_owned()];
    while let Some(dir) = rest.pop() {
        fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            // The type of the entry itself: a link isn't followed.
            if entry.file_type()?.is_dir() {
                rest.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(dir)
}

#[cfg(test)]
mod tests;
