//! The placeholders of all missions of a user, and who uses them.
//!
//! A protected place that doesn't exist has to exist while a sandbox protects it. What is made for
//! that is shared: two agents, or two missions on one workspace, use one placeholder, and it goes with
//! the last of them. Users that died without a word are told from living ones by locks, which end
//! with their holders.
//!
//! ```text
//! .placeholders/lock          one at a time
//!               journal       which placeholders there are; on disk before they are
//!               holders/ID    locked by a daemon as long as it lives
//!               users/ID      one start of an agent: its daemon's holder, its own lock, its places
//! ```
//!
//! A user lives while its daemon does and has not released it, or while its shim holds the agent's
//! lock (after the death of the daemon for a second at most). Whoever comes next removes what nobody
//! uses any more.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::found::{Filler, Found, State};
use super::journal::{Journal, Place, Stage, read_json, write_json};
use super::placeholder::{self, Removal};

/// Most placeholders of a user's missions.
const MOST: usize = 50_000;

/// What went wrong with placeholders.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct RegistryError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.to_owned();
    move |source| RegistryError { what, path, source }
}

/// One start of an agent that uses placeholders.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "it is to be released when the agent has ended"]
pub struct User {
    id: String,
    places: Vec<PathBuf>,
}

impl User {
    /// The placeholders that it uses.
    #[must_use]
    pub fn places(&self) -> &[PathBuf] {
        &self.places
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserRecord {
    holder: String,
    agent_lock: PathBuf,
    places: BTreeSet<PathBuf>,
}

/// What became of placeholders that nobody uses any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Removed.
    pub removed: Vec<PathBuf>,
    /// Left, because somebody has changed or replaced them.
    pub left: Vec<PathBuf>,
    /// To be tried again, with what was wrong.
    pub failed: Vec<String>,
}

/// The placeholders, for one daemon. Its functions block: not for the loop.
#[derive(Debug)]
pub struct Registry {
    base: PathBuf,
    holder: String,
    /// Locked as long as this lives.
    _held: File,
}

impl Registry {
    /// Opens the registry of a user, below the directory that has the state of all missions.
    ///
    /// # Errors
    /// It can't be made or locked.
    pub fn open(state_base: &Path) -> Result<Registry, RegistryError> {
        // No mission can have this name.
        let base = state_base.join(".placeholders");
        for dir in [base.clone(), base.join("holders"), base.join("users")] {
            match DirBuilder::new().recursive(true).mode(0o700).create(&dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("make", &dir)(error));
                }
                _ => {}
            }
        }
        let _lock = lock(&base)?;
        let holder = random_name().map_err(failed("name", &base))?;
        let path = base.join("holders").join(&holder);
        let held = options().create_new(true).open(&path).map_err(failed("make", &path))?;
        held.lock().map_err(failed("lock", &path))?;
        Ok(Registry { base, holder, _held: held })
    }

    /// Makes what is missing of `found`, for an agent whose shim will hold `agent_lock`, which the
    /// caller holds now; afterwards every place of it exists. What can't be made, and can't be made by
    /// the agent either without changing modes, is left out and told among the gaps.
    ///
    /// None if something has gone since the search: a placeholder of others, most likely, whose last
    /// user has ended. The caller searches again.
    ///
    /// # Errors
    /// The registry, or a placeholder, can't be written; then nothing is left behind.
    pub fn acquire(
        &self,
        found: &mut Found,
        agent_lock: &Path,
    ) -> Result<Option<User>, RegistryError> {
        let _lock = lock(&self.base)?;
        let mut journal = self.journal()?;
        self.collect(&mut journal, Some(agent_lock), &mut Cleaned::default())?;
        let gone = |(path, state): (&PathBuf, &State)| {
            *state == State::Present && fs::symlink_metadata(path).is_err()
        };
        if found.places.iter().any(gone) {
            return Ok(None);
        }
        let mut user =
            User { id: random_name().map_err(failed("name", &self.base))?, places: Vec::new() };
        let known = journal.places.iter().map(|place| &place.path);
        let shared = known.filter(|path| found.places.contains_key(*path)).cloned();
        let record = UserRecord {
            holder: self.holder.clone(),
            agent_lock: agent_lock.to_owned(),
            places: shared.chain(found.missing().map(|(path, _)| path.to_owned())).collect(),
        };
        if record.places.is_empty() {
            return Ok(Some(user));
        }
        let path = self.user_path(&user);
        write_json(&path, &record, false).map_err(failed("write", &path))?;
        match self.make(&mut journal, found) {
            Ok(()) => {
                let ours = |path: &&PathBuf| journal.find(path).is_some();
                user.places = record.places.iter().filter(ours).cloned().collect();
                Ok(Some(user))
            }
            Err(error) => {
                // The first error is the one to tell; what is left now goes at the next occasion.
                let _later = fs::remove_file(&path);
                let _later = self.collect(&mut journal, None, &mut Cleaned::default());
                Err(error)
            }
        }
    }

    fn make(&self, journal: &mut Journal, found: &mut Found) -> Result<(), RegistryError> {
        let mut wanted = Vec::new();
        for (path, filler) in found.missing() {
            if journal.find(path).is_some() {
                // Ours has been removed by somebody, and others live on without it.
                journal.places.retain(|place| place.path != path);
            }
            wanted.push(Place {
                path: path.to_owned(),
                temporary: temporary_name().map_err(failed("name", &self.base))?,
                content: match filler {
                    Filler::Directory => None,
                    Filler::File(text) => Some((*text).to_owned()),
                },
                stage: Stage::Intended,
            });
        }
        if wanted.is_empty() {
            return Ok(());
        }
        if journal.places.len() + wanted.len() > MOST {
            let full = io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(failed("keep more placeholders in", &self.base)(full));
        }
        let first = journal.places.len();
        journal.places.extend(wanted);
        self.write(journal)?;
        let mut refused = BTreeSet::new();
        for place in journal.places.iter_mut().skip(first) {
            match placeholder::make(place) {
                Ok(inode) => place.stage = Stage::Made(inode),
                Err(error) if is_closed(&error) => {
                    refused.insert(place.path.clone());
                    found.gaps.push(format!("{} is not protected: {error}", place.path.display()));
                }
                Err(error) => return Err(failed("make", &place.path)(error)),
            }
        }
        journal.places.retain(|place| !refused.contains(&place.path));
        self.write(journal)?;
        let mut theirs = BTreeSet::new();
        for place in journal.places.iter().skip(first) {
            if !placeholder::place(place).map_err(failed("place", &place.path))? {
                placeholder::remove(place).map_err(failed("remove", &place.path))?;
                theirs.insert(place.path.clone());
            }
        }
        if !theirs.is_empty() {
            journal.places.retain(|place| !theirs.contains(&place.path));
            self.write(journal)?;
        }
        found.places.retain(|path, _| !refused.contains(path));
        for state in found.places.values_mut() {
            *state = State::Present;
        }
        Ok(())
    }

    /// The agent has ended, or was never started.
    ///
    /// # Errors
    /// The registry can't be read or written.
    pub fn release(&self, user: User) -> Result<Cleaned, RegistryError> {
        let _lock = lock(&self.base)?;
        let path = self.user_path(&user);
        match fs::remove_file(&path) {
            // It has used none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Cleaned::default()),
            other => other.map_err(failed("remove", &path))?,
        }
        let mut cleaned = Cleaned::default();
        self.collect(&mut self.journal()?, None, &mut cleaned)?;
        Ok(cleaned)
    }

    /// Removes what the dead have left. `held`: an agent's lock that the caller holds, so that nobody
    /// who had it lives.
    ///
    /// # Errors
    /// The registry can't be read or written.
    pub fn clean(&self, held: Option<&Path>) -> Result<Cleaned, RegistryError> {
        let _lock = lock(&self.base)?;
        let mut cleaned = Cleaned::default();
        self.collect(&mut self.journal()?, held, &mut cleaned)?;
        Ok(cleaned)
    }

    /// Whether there are placeholders.
    ///
    /// # Errors
    /// The registry can't be read.
    pub fn is_empty(&self) -> Result<bool, RegistryError> {
        let _lock = lock(&self.base)?;
        Ok(self.journal()?.places.is_empty())
    }

    /// Removes every placeholder without a living user.
    fn collect(
        &self,
        journal: &mut Journal,
        held: Option<&Path>,
        cleaned: &mut Cleaned,
    ) -> Result<(), RegistryError> {
        let used = self.used(held)?;
        let before = journal.places.len();
        journal.places.retain(|place| {
            if used.contains(&place.path) {
                return true;
            }
            match placeholder::remove(place) {
                Ok(Removal::Gone) => cleaned.removed.push(place.path.clone()),
                Ok(Removal::Theirs) => cleaned.left.push(place.path.clone()),
                Ok(Removal::NoDirectory) => {
                    let path = place.path.display();
                    cleaned.failed.push(format!("{path}: its directory is not there"));
                    return true;
                }
                Err(error) => {
                    cleaned.failed.push(format!("{}: {error}", place.path.display()));
                    return true;
                }
            }
            false
        });
        if journal.places.len() == before { Ok(()) } else { self.write(journal) }
    }

    /// The places that living users need; records of the dead are removed.
    fn used(&self, held: Option<&Path>) -> Result<BTreeSet<PathBuf>, RegistryError> {
        let mut used = BTreeSet::new();
        let mut holders = BTreeSet::new();
        let users = self.base.join("users");
        for name in names(&users)? {
            let path = users.join(&name);
            if name.ends_with(".new") {
                // Half a record of somebody who died over it: nobody else is at work now.
                fs::remove_file(&path).map_err(failed("remove", &path))?;
                continue;
            }
            let record: Option<UserRecord> = match read_json(&path) {
                // Cut off by a power failure, which has ended the user as well.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
                other => other.map_err(failed("read", &path))?,
            };
            let alive = record.as_ref().is_some_and(|record| self.is_alive(record, held));
            match record {
                Some(record) if alive => {
                    holders.insert(record.holder);
                    used.extend(record.places);
                }
                Some(_) | None => fs::remove_file(&path).map_err(failed("remove", &path))?,
            }
        }
        for name in names(&self.base.join("holders"))? {
            let path = self.base.join("holders").join(&name);
            if !holders.contains(&name) && !is_locked(&path) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(used)
    }

    fn is_alive(&self, user: &UserRecord, held: Option<&Path>) -> bool {
        user.holder == self.holder
            || is_locked(&self.base.join("holders").join(&user.holder))
            || held != Some(&user.agent_lock) && is_locked(&user.agent_lock)
    }

    fn journal_path(&self) -> PathBuf {
        self.base.join("journal")
    }

    fn journal(&self) -> Result<Journal, RegistryError> {
        let path = self.journal_path();
        // Half of one, whose writer died.
        let _mostly_absent = fs::remove_file(path.with_extension("new"));
        Journal::read(&path).map_err(failed("read", &path))
    }

    fn write(&self, journal: &Journal) -> Result<(), RegistryError> {
        let path = self.journal_path();
        journal.write(&path).map_err(failed("write", &path))
    }

    fn user_path(&self, user: &User) -> PathBuf {
        self.base.join("users").join(&user.id)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Whoever comes next would do it.
        let _later = fs::remove_file(self.base.join("holders").join(&self.holder));
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

fn lock(base: &Path) -> Result<File, RegistryError> {
    let path = base.join("lock");
    let file = options().create(true).truncate(false).open(&path).map_err(failed("open", &path))?;
    file.lock().map_err(failed("lock", &path))?;
    Ok(file)
}

/// Whether somebody holds the lock of a file. Asks with a shared lock: two that ask don't take each
/// other for a holder.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = options().open(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// No room for what an agent couldn't make there either.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

fn names(dir: &Path) -> Result<Vec<String>, RegistryError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let name = entry.map_err(failed("list", dir))?.file_name();
        names.extend(name.into_string());
    }
    Ok(names)
}

/// A name that nobody has, for something in a workspace that gets another one.
pub(super) fn temporary_name() -> io::Result<String> {
    Ok(format!(".missiond-{}", random_name()?))
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| io::ErrorKind::WouldBlock)?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests;
