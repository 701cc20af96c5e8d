//! What protects the trees that agents write, from the preparation of a start to what is looked at
//! after its end; shared by all starts of a mission.
//!
//! ```text
//! search -> placeholders -> Protection    ...agent...    end: placeholders go,
//!           (repositories are noted)                          later repositories are told
//! ```
//!
//! It deliberately knows no mission: what is to be protected comes from `workspace`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::workspace::{
    Cleaned, Found, Later, Registry, RegistryError, Scanner, SearchError, SecureError, User,
    Wanted, inspect, secure,
};

/// Alerts about one end of an agent.
const ALERTS: usize = 10;

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
    ///
    /// # Errors
    /// The records can't be kept.
    pub(super) fn catch_up(&self, agent_lock: &Path) -> Result<(), RegistryError> {
        if self.unclean.load(Ordering::Relaxed) {
            self.registry.clean(Some(agent_lock))?;
            self.unclean.store(!self.registry.is_empty()?, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Finds what is to be protected, changing nothing.
    ///
    /// # Errors
    /// A tree can't be opened.
    pub(super) fn search(&self, wanted: &Wanted) -> Result<Found, SearchError> {
        self.scanner.search(wanted, false)
    }

    /// Finds what is to be protected, and makes what is missing, for a start whose agent's lock the
    /// caller holds.
    ///
    /// # Errors
    /// See [`SecureError`].
    pub(super) fn protect(
        self: &Arc<Guards>,
        wanted: Wanted,
        agent_lock: &Path,
    ) -> Result<(Protection, Found), SecureError> {
        let (found, user) = secure(&self.scanner, &self.registry, &wanted, agent_lock)?;
        self.working().writers += 1;
        let repositories = found.repositories.clone();
        let guards = Arc::clone(self);
        Ok((Protection { guards, wanted, repositories, user: Some(user) }, found))
    }

    fn working(&self) -> MutexGuard<'_, Working> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Protection {
    /// The placeholders that it uses.
    pub(super) fn placeholders(&self) -> &[PathBuf] {
        self.user.as_ref().map(User::places).unwrap_or_default()
    }

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
