//! What a start protects in the trees that its agent writes, and what is looked at after its end.
//!
//! ```text
//! prepare: search -> placeholders -> plan      ...agent...      end: placeholders go,
//!          (found repositories are noted)                            later repositories are told
//! ```
//!
//! What to protect is found by [`workspace`](crate::workspace), on a thread that may block; that it is
//! so is the sandbox's business. Only level 2 can: Landlock, all that level 1 has, knows no "all but".

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ground::Ground;
use super::prepare::{refused, write_new};
use crate::config::dirs::AgentDirs;
use crate::config::{AgentLaunch, SecretSource, WorkspaceMode};
use crate::policy::{Level, PrivateTree, Roots};
use crate::supervise::SetupFailure;
use crate::workspace::private::{Private, Upper};
use crate::workspace::{
    Cleaned, Found, Later, Registry, RegistryError, Scanner, Substitute, User, Wanted, excludes,
    git_dir_outside, inspect, secure,
};

/// Alerts about one end of an agent.
const ALERTS: usize = 10;

/// Programs that run the file they are given.
const INTERPRETERS: [&str; 12] = [
    "sh", "bash", "dash", "zsh", "python", "python3", "node", "perl", "ruby", "deno", "bun", "env",
];

/// Shared by all starts of a mission.
#[derive(Debug)]
pub(super) struct Guards {
    scanner: Scanner,
    registry: Registry,
    working: Mutex<Working>,
    /// There were placeholders at the start that somebody may have used still: the agents of a killed
    /// daemon live for a second.
    unclean: AtomicBool,
}

/// Who writes now, and what is to be moved aside when nobody does.
#[derive(Debug, Default)]
struct Working {
    writers: usize,
    dangerous: BTreeSet<PathBuf>,
}

/// From the preparation of a start until what it left was looked at. Dropped before, its placeholders
/// go all the same.
#[derive(Debug)]
pub(super) struct Protection {
    guards: Arc<Guards>,
    wanted: Wanted,
    /// What was there before.
    repositories: BTreeSet<PathBuf>,
    user: Option<User>,
}

impl Guards {
    /// Also removes what dead daemons of this user left. `state_base` holds the state of all missions.
    ///
    /// # Errors
    /// The records can't be kept.
    pub(super) fn open(state_base: &Path) -> Result<(Guards, Cleaned), RegistryError> {
        let registry = Registry::open(state_base)?;
        let cleaned = registry.clean(None)?;
        let unclean = AtomicBool::new(!registry.is_empty()?);
        let scanner = Scanner::default();
        Ok((Guards { scanner, registry, working: Mutex::default(), unclean }, cleaned))
    }

    /// Removes what a killed daemon's agent has left, whose lock we hold now.
    fn catch_up(&self, agent_lock: &Path) -> Result<(), RegistryError> {
        if self.unclean.load(Ordering::Relaxed) {
            self.registry.clean(Some(agent_lock))?;
            self.unclean.store(!self.registry.is_empty()?, Ordering::Relaxed);
        }
        Ok(())
    }

    fn working(&self) -> MutexGuard<'_, Working> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to it that everything in an agent's writable trees that is to be protected is known and exists,
/// and adds it to what the agent gets. Gives also what can't be protected, as sentences.
///
/// # Errors
/// A tree can't be searched, there is too much in it, or a placeholder can't be made.
pub(super) fn protect(
    ground: &Ground,
    config: &AgentLaunch,
    can_write: bool,
    dirs: &AgentDirs,
    roots: &mut Roots,
) -> Result<(Option<Box<Protection>>, Vec<String>), SetupFailure> {
    ground.guards.catch_up(&dirs.lock()).map_err(|error| refused("placeholders", &error))?;
    if config.level != Level::Namespaces {
        return Ok((None, Vec::new()));
    }
    let wanted = wanted(ground, config, can_write);
    let workspace = &ground.mission.workspace;
    if !can_write {
        roots.extra_read.extend(git_dir_outside(workspace, &wanted.keep_out));
    }
    let guards = &ground.guards;
    let mut gaps = Vec::new();
    if can_write && config.workspace_mode == WorkspaceMode::Private {
        gaps = private(ground, &wanted, dirs, roots)?;
    }
    if wanted.trees.is_empty() {
        return Ok((None, gaps));
    }
    // Our caller holds the agent's lock.
    let (mut found, user) = secure(&guards.scanner, &guards.registry, &wanted, &dirs.lock())
        .map_err(|error| refused("protect", &error))?;
    guards.working().writers += 1;
    // From here on whatever fails lets the placeholders go.
    let protection = Protection {
        guards: Arc::clone(guards),
        wanted,
        repositories: found.repositories.clone(),
        user: Some(user),
    };
    roots.protected.extend(found.protected().map_err(|error| refused("protect", &error))?);
    roots.extra_write.extend(found.outside.iter().cloned());
    let placeholders = protection.user.as_ref().map(User::places).unwrap_or_default();
    roots.substitutes = substitutes(&found, placeholders, dirs)?;
    gaps.append(&mut found.gaps);
    Ok((Some(Box::new(protection)), gaps))
}

/// Makes the agent's own side of the workspace ready. Nothing there needs protection; what would be
/// protected is what never comes back.
fn private(
    ground: &Ground,
    wanted: &Wanted,
    dirs: &AgentDirs,
    roots: &mut Roots,
) -> Result<Vec<String>, SetupFailure> {
    let workspace = &ground.mission.workspace;
    let real = Wanted { trees: vec![workspace.clone()], ..wanted.clone() };
    let found = ground.guards.scanner.search(&real, false);
    let found = found.map_err(|error| refused("private workspace", &error))?;
    let protected: Vec<PathBuf> = found.places().map(Path::to_owned).collect();
    let begun = Private::at(dirs.private()).begin(workspace, &protected);
    let Upper { upper, work } = begun.map_err(|error| refused("private workspace", &error))?;
    roots.private = Some(PrivateTree { upper, work });
    // A work tree's repository outside can't be private as well: it is only read.
    roots.extra_read.extend(found.outside);
    Ok(found.gaps)
}

/// Files that hide placeholders from git, made for this start.
fn substitutes(
    found: &Found,
    placeholders: &[PathBuf],
    dirs: &AgentDirs,
) -> Result<Vec<(PathBuf, PathBuf)>, SetupFailure> {
    let mut made = Vec::new();
    for (number, Substitute { target, text }) in
        excludes(found, placeholders).into_iter().enumerate()
    {
        let source = dirs.exclude(number);
        write_new(&source, text.as_bytes())
            .map_err(|error| refused("write what git is to overlook", &error))?;
        made.push((source, target));
    }
    Ok(made)
}

/// What is searched for an agent.
fn wanted(ground: &Ground, config: &AgentLaunch, can_write: bool) -> Wanted {
    let shared = can_write && config.workspace_mode == WorkspaceMode::Shared;
    let workspace = shared.then_some(&ground.mission.workspace);
    let mut trees: Vec<PathBuf> = Vec::new();
    for tree in workspace.into_iter().chain(&config.write) {
        if !trees.iter().any(|other| tree.starts_with(other)) {
            trees.push(tree.clone());
        }
    }
    let variable = |name: &str| {
        let found = ground.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| PathBuf::from(value)).filter(|path| path.is_absolute())
    };
    let home = variable("HOME");
    let of_user = variable("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let git_config = [
        Some(PathBuf::from("/etc/gitconfig")),
        of_user.map(|dir| dir.join("git/config")),
        home.as_ref().map(|home| home.join(".gitconfig")),
    ];
    let own = [ground.dirs.runtime(), ground.dirs.state()];
    Wanted {
        trees,
        names: config.protected.clone(),
        files: files(ground),
        keep_out: own.iter().filter_map(|dir| dir.parent()).map(Path::to_owned).collect(),
        home,
        git_config: git_config.into_iter().flatten().collect(),
    }
}

/// The files that the mission is made of: whoever could change one would be another agent at its next
/// start.
fn files(ground: &Ground) -> Vec<PathBuf> {
    let mut files = vec![ground.mission.file.clone()];
    for agent in ground.mission.agents.values() {
        files.extend(agent.policy_files.iter().cloned());
        let [program, words @ ..] = agent.command.as_slice() else { continue };
        let program = Path::new(program);
        files.push(program.to_owned());
        let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if INTERPRETERS.contains(&name)
            && let Some(script) = words.iter().find(|word| !word.starts_with('-'))
            && agent.cwd.join(script).is_file()
        {
            files.push(agent.cwd.join(script));
        }
        files.extend(agent.secrets.values().filter_map(|source| match source {
            SecretSource::File(file) => Some(file.clone()),
            SecretSource::Env(_) => None,
        }));
    }
    // A link may lead to a file in the same tree.
    let real: Vec<PathBuf> = files.iter().filter_map(|file| file.canonicalize().ok()).collect();
    files.retain(|file| file.is_absolute());
    files.extend(real);
    files.sort();
    files.dedup();
    files
}

impl Protection {
    /// The agent has ended: removes placeholders that nobody uses any more, and looks for repositories
    /// that were made meanwhile. Gives what is to be told. Blocks.
    pub(super) fn end(mut self) -> Vec<String> {
        let mut alerts = Vec::new();
        match self.release() {
            Ok(cleaned) => {
                alerts.extend(cleaned.left.iter().map(|path| {
                    format!(
                        "{} stood in for a missing file and was changed meanwhile: it stays",
                        path.display()
                    )
                }));
                alerts.extend(cleaned.failed.iter().map(|why| format!("placeholder {why}")));
            }
            Err(error) => alerts.push(told(&error)),
        }
        match self.guards.scanner.search(&self.wanted, true) {
            Ok(found) => {
                let later = found.repositories.difference(&self.repositories).cloned().collect();
                self.look_at(later, &mut alerts);
            }
            Err(error) => alerts.push(told(&error)),
        }
        if alerts.len() > ALERTS {
            let more = alerts.len() - ALERTS;
            alerts.truncate(ALERTS);
            alerts.push(format!("{more} more about the workspace"));
        }
        alerts
    }

    /// Tells of repositories made later, and moves aside what could run something, once nobody works
    /// there.
    fn look_at(&self, mut later: BTreeSet<PathBuf>, alerts: &mut Vec<String>) {
        let mut working = self.guards.working();
        let is_last = working.writers == 0;
        if is_last {
            later.append(&mut working.dangerous);
        }
        let found = match inspect(&self.wanted, later.iter()) {
            Ok(found) => found,
            Err(error) => return alerts.push(format!("repositories made later: {error}")),
        };
        for later in found {
            let Later { path, danger } = &later;
            let path = path.display();
            alerts.push(match danger {
                None => format!("{path} was made by an agent; git would run nothing of it"),
                Some(why) if !is_last => {
                    working.dangerous.insert(later.path.clone());
                    format!("{path} was made by an agent, and {why}: don't run git there")
                }
                Some(why) => match later.quarantine(&self.wanted) {
                    Ok(aside) => format!(
                        "{path} was made by an agent, and {why}: moved to {} (in it, HEAD to \
                         HEAD.quarantined)",
                        aside.display()
                    ),
                    Err(error) => format!(
                        "{path} was made by an agent, and {why}: don't run git there; it can't be \
                         moved aside: {error}"
                    ),
                },
            });
        }
    }

    fn release(&mut self) -> Result<Cleaned, RegistryError> {
        let Some(user) = self.user.take() else { return Ok(Cleaned::default()) };
        self.guards.working().writers -= 1;
        self.guards.registry.release(user)
    }
}

impl Drop for Protection {
    fn drop(&mut self) {
        // What can't be removed now goes with the next start or end.
        let _later = self.release();
    }
}

fn told(error: &dyn std::error::Error) -> String {
    let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
    format!("{error}{cause}")
}
