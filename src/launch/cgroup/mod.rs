//! Control groups: limits of an agent as a whole, and an end that no fork escapes.
//!
//! ```text
//! DELEGATED                 a subtree that is ours: our unit's (Delegate=yes), or a scope of our own
//!   |- daemon               missiond, the launcher and the shims: no agent's limit can kill them
//!   |- agent.ann.7          memory.max, pids.max, cpu.max; memory.oom.group; gone with the agent
//!   `- agent.bob.9
//! ```
//!
//! [`Cgroups::claim`] is called once, by the daemon, before it has a thread or a child. Whether a
//! subtree can be used is found out by using it: a writable directory isn't enough, moving a process
//! also needs the right to write in the group above both places.
//!
//! ```text
//! our own group: ours, nobody else in it? --yes--> move into `daemon`, enable controllers --> Cgroups
//!       | no                                                  | refused: moved back
//!       v                                                     v
//! no service manager waits for us? --> ask the user's systemd for a scope --> once more, or the reason
//! ```
//!
//! The shim forks its payload right into the group (`CLONE_INTO_CGROUP`), and removes it at the end.
//!
//! It deliberately changes nothing outside of a group that belongs to this user and holds nobody but
//! this process; and it does without version 1, where an ordinary user can't have a group.

pub(super) mod group;
mod place;
mod scope;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use scope::ScopeError;

use crate::policy::CgroupLimits;
use crate::sys::process;

/// What a limit of an agent needs.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Where the daemon itself goes, since a group with limits below it may hold no process.
const OWN: &str = "daemon";
/// The groups of agents are called `agent.NAME.INCARNATION`.
const AGENT: &str = "agent.";

/// Why something about control groups can't be done.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Version 2 isn't mounted, or we are in no group of it that we can see.
    #[error("no control group of version 2 can be seen")]
    NoHierarchy,
    /// A file or directory.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The group isn't ours.
    #[error("control group {group} belongs to another user")]
    NotOurs {
        /// The group.
        group: PathBuf,
    },
    /// Its processes would lose their place.
    #[error("there are other processes in control group {group}")]
    Shared {
        /// The group.
        group: PathBuf,
    },
    /// Not every kind of limit is there to be had.
    #[error("control group {group} has no controllers for {missing}")]
    NoControllers {
        /// The group.
        group: PathBuf,
        /// Their names.
        missing: String,
    },
    /// A limit was written and isn't in force.
    #[error("{file} reads `{reads}` after `{wrote}` was written")]
    NotTaken {
        /// The file.
        file: PathBuf,
        /// What was written.
        wrote: String,
        /// What it says.
        reads: String,
    },
    /// Killed, and still there.
    #[error("processes in control group {group} have not ended after SIGKILL")]
    Populated {
        /// The group.
        group: PathBuf,
    },
    /// Our own group can't be used, and there is no other one.
    #[error("no delegated control group: {}; {}", chain(own.as_ref()), chain(scope))]
    Nowhere {
        /// What is wrong with our own.
        own: Box<CgroupError>,
        /// Why there is no scope.
        scope: ScopeError,
    },
}

impl ScopeError {
    /// The error with its causes, on one line.
    #[must_use]
    pub fn in_full(&self) -> String {
        chain(self)
    }
}

impl CgroupError {
    /// The error with its causes, on one line.
    #[must_use]
    pub fn in_full(&self) -> String {
        chain(self)
    }
}

/// A subtree of control groups that is ours. Nothing is undone when this is dropped: the groups of
/// agents go with their agents, the subtree is its manager's to remove when it is empty.
#[derive(Debug)]
pub struct Cgroups {
    root: PathBuf,
}

impl Cgroups {
    /// Takes our own group if it is ours alone, else asks the user's systemd for one; `name` is part of
    /// its name. This process moves. To be called before it has threads or children, once.
    ///
    /// # Errors
    /// There is none, and why; then this process is where it was.
    pub fn claim(name: &str) -> Result<Cgroups, CgroupError> {
        let first = match place::own().and_then(|group| Self::take(&group)) {
            Ok(cgroups) => return Ok(cgroups),
            Err(error) => error,
        };
        // A service manager that waits for us to say something knows us by our group.
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            return Err(first);
        }
        let unit = format!("missiond-{name}-{}.scope", process::own_pid());
        if let Err(scope) = scope::request(&unit, &format!("missiond: mission {name}")) {
            return Err(CgroupError::Nowhere { own: Box::new(first), scope });
        }
        place::own().and_then(|group| Self::take(&group))
    }

    /// Makes a group ours: this process into one below it, controllers for the rest.
    fn take(root: &Path) -> Result<Cgroups, CgroupError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| CgroupError::Io { what, path, source }
        };
        let controllers = root.join("cgroup.controllers");
        let there = fs::read_to_string(&controllers).map_err(io("read", &controllers))?;
        let missing: Vec<_> = CONTROLLERS
            .into_iter()
            .filter(|wanted| !there.split_whitespace().any(|name| name == *wanted))
            .collect();
        if !missing.is_empty() {
            let (group, missing) = (root.to_owned(), missing.join(", "));
            return Err(CgroupError::NoControllers { group, missing });
        }
        let owner = fs::metadata(root).map_err(io("look at", root))?;
        if std::os::unix::fs::MetadataExt::uid(&owner) != nix::unistd::geteuid().as_raw() {
            return Err(CgroupError::NotOurs { group: root.to_owned() });
        }
        let own = process::own_pid();
        let members = place::members(root).map_err(io("read the members of", root))?;
        if members.iter().any(|pid| *pid != own) {
            return Err(CgroupError::Shared { group: root.to_owned() });
        }
        let inner = root.join(OWN);
        match fs::create_dir(&inner) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io("make", &inner)(error));
            }
            _ => {}
        }
        let moved = enter(&inner).and_then(|()| enable(root));
        if let Err(error) = moved {
            // Back to where we were, as far as that goes.
            let _stays = enter(root);
            let _stays = fs::remove_dir(&inner);
            return Err(error);
        }
        let cgroups = Cgroups { root: root.to_owned() };
        cgroups.clear();
        Ok(cgroups)
    }

    /// The subtree.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the group of a start of an agent, with its limits in force. Groups of its earlier starts
    /// are ended and removed: there are none, unless a shim was killed.
    ///
    /// # Errors
    /// It can't be had as it is meant; then there is none.
    pub fn prepare(
        &self,
        agent: &str,
        incarnation: u64,
        limits: &CgroupLimits,
    ) -> Result<PathBuf, CgroupError> {
        let earlier = format!("{AGENT}{agent}.");
        for dir in self.agents().filter(|dir| name_of(dir).starts_with(&earlier)) {
            group::remove(&dir)?;
        }
        let dir = self.root.join(format!("{AGENT}{agent}.{incarnation}"));
        group::make(&dir, limits)?;
        Ok(dir)
    }

    /// Ends and removes the groups of all agents: those that a dead daemon has left, or, at the end of
    /// a mission, those whose shim was killed. Returns what can't be removed.
    pub fn clear(&self) -> Vec<CgroupError> {
        self.agents().filter_map(|dir| group::remove(&dir).err()).collect()
    }

    fn agents(&self) -> impl Iterator<Item = PathBuf> {
        group::below(&self.root).into_iter().filter(|dir| name_of(dir).starts_with(AGENT))
    }
}

fn name_of(dir: &Path) -> std::borrow::Cow<'_, str> {
    dir.file_name().map(|name| name.to_string_lossy()).unwrap_or_default()
}

/// Moves this process.
fn enter(group: &Path) -> Result<(), CgroupError> {
    let file = group.join("cgroup.procs");
    fs::write(&file, process::own_pid().to_string()).map_err(|source| CgroupError::Io {
        what: "move to",
        path: file,
        source,
    })
}

/// Lets the groups below have limits. `EBUSY` while a process is in the group itself.
fn enable(root: &Path) -> Result<(), CgroupError> {
    let file = root.join("cgroup.subtree_control");
    let wrote = CONTROLLERS.map(|name| format!("+{name}")).join(" ");
    let io = |what| {
        let path = file.clone();
        move |source| CgroupError::Io { what, path, source }
    };
    fs::write(&file, &wrote).map_err(io("enable controllers in"))?;
    let reads = fs::read_to_string(&file).map_err(io("read"))?.trim_end().to_owned();
    let is_on = |wanted: &str| reads.split(" ").any(|name| name == wanted);
    if CONTROLLERS.into_iter().all(is_on) {
        Ok(())
    } else {
        Err(CgroupError::NotTaken { file, wrote, reads })
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like a group, as far as it goes.
    fn fake(controllers: &str, members: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
        fs::write(dir.path().join("cgroup.procs"), members).unwrap();
        dir
    }

    #[test]
    fn a_group_that_lacks_a_controller_is_left_alone() {
        let dir = fake("cpuset memory pids\n", "");
        let error = Cgroups::take(dir.path()).unwrap_err();
        assert!(matches!(&error, CgroupError::NoControllers { missing, .. } if missing == "cpu"));
        assert!(!dir.path().join(OWN).exists());
    }

    #[test]
    fn a_group_with_other_processes_is_left_alone() {
        let dir = fake("cpu memory pids\n", &format!("{}\n1\n", process::own_pid()));
        let error = Cgroups::take(dir.path()).unwrap_err();
        assert!(matches!(error, CgroupError::Shared { .. }), "{error}");
        assert!(!dir.path().join(OWN).exists());
    }

    /// A file there takes what is written and enables nothing; the member moves back.
    #[test]
    fn controllers_that_are_not_enabled_are_not_believed_and_nothing_is_left() {
        let dir = fake("cpu memory pids\n", "");
        let error = Cgroups::take(dir.path()).unwrap_err();
        let CgroupError::NotTaken { reads, .. } = &error else { panic!("{error}") };
        assert_eq!(reads, "+cpu +memory +pids");
        let back = fs::read_to_string(dir.path().join("cgroup.procs")).unwrap();
        assert_eq!(back, process::own_pid().to_string());
    }

    #[test]
    fn a_read_only_group_says_what_could_not_be_made() {
        if nix::unistd::geteuid().is_root() {
            println!("SKIP a_read_only_group_says_what_could_not_be_made: root may write there");
            return;
        }
        let dir = fake("cpu memory pids\n", "");
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o500);
        fs::set_permissions(dir.path(), closed).unwrap();
        let error = Cgroups::take(dir.path()).unwrap_err();
        assert!(matches!(error, CgroupError::Io { what: "make", .. }), "{error}");
        assert!(chain(&error).contains("denied"), "{}", chain(&error));
    }

    #[test]
    fn groups_of_earlier_starts_and_of_a_dead_daemon_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = Cgroups { root: dir.path().to_owned() };
        for name in ["agent.ann.1", "agent.ann.2", "agent.ann-b.1", "daemon"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let made = cgroups.prepare("ann", 3, &CgroupLimits::default()).unwrap();
        assert_eq!(made, dir.path().join("agent.ann.3"));
        let mut names: Vec<_> =
            group::below(dir.path()).iter().map(|dir| name_of(dir).into_owned()).collect();
        names.sort();
        assert_eq!(names, ["agent.ann-b.1", "agent.ann.3", "daemon"]);
        assert!(cgroups.clear().is_empty());
        assert_eq!(group::below(dir.path()), [dir.path().join("daemon")]);
    }
}
