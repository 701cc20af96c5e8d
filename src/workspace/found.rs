//! What must not be changed from inside of a sandbox.
//!
//! Binding a place read-only is not enough: its parent could be renamed and made anew. So the plan
//! also pins everything between the root of the tree and the place (a mount point can't be renamed).
//! The price: `rename` and `link` across a pin give EXDEV, as between file systems, and a pinned
//! directory can't be moved or removed inside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Most mounts for one sandbox's protection: each costs the kernel some 10 us at the start and again at the end.
const MOUNTS: usize = 20_000;

/// What a missing place is to be while a sandbox needs it to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filler {
    /// An empty directory.
    Directory,
    /// A file with this content.
    File(&'static str),
}

/// What stands at a protected place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Something.
    Present,
    /// Nothing: it would have to be made before it can be protected.
    Missing(Filler),
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The writable trees, the workspace first; git directories outside of it are among them.
    pub(super) roots: Vec<PathBuf>,
    /// The protected places.
    pub(super) places: BTreeMap<PathBuf, State>,
    /// Directories outside of the trees that belong to them: what a git worktree is a worktree of.
    pub outside: Vec<PathBuf>,
    /// What can't be protected, or was not searched, as sentences.
    pub gaps: Vec<String>,
    /// The repositories: a `.git`, or the directory of one without a work tree.
    pub repositories: BTreeSet<PathBuf>,
}

/// There is more to protect than a sandbox can have mounts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{mounts} places would have to be protected, more than {MOUNTS}: there are {repositories} \
     repositories in the writable directories"
)]
pub struct TooMany {
    mounts: usize,
    repositories: usize,
}

impl Found {
    /// Leaves out what lies in something protected as a whole.
    pub(super) fn simplify(&mut self) {
        let all = std::mem::take(&mut self.places);
        let mut last: Option<PathBuf> = None;
        for (path, state) in all {
            // Whatever lies below comes next, in the order of paths.
            if last.as_ref().is_some_and(|last| path.starts_with(last)) {
                continue;
            }
            last = Some(path.clone());
            self.places.insert(path, state);
        }
    }

    /// The places that don't exist, with what is to stand there.
    pub fn missing(&self) -> impl Iterator<Item = (&Path, &Filler)> {
        self.places.iter().filter_map(|(path, state)| match state {
            State::Missing(filler) => Some((path.as_path(), filler)),
            State::Present => None,
        })
    }

    /// All protected places.
    pub fn places(&self) -> impl Iterator<Item = &Path> {
        self.places.keys().map(PathBuf::as_path)
    }

    /// All protected places, as a plan wants them.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn protected(&self) -> Result<Vec<PathBuf>, TooMany> {
        let mut mounts: BTreeSet<&Path> = BTreeSet::new();
        for path in self.places() {
            let roots = self.roots.iter().filter(|root| path.starts_with(root));
            let Some(root) = roots.max_by_key(|root| root.as_os_str().len()) else { continue };
            mounts.extend(path.ancestors().take_while(|above| above != root));
        }
        if mounts.len() > MOUNTS {
            let (mounts, repositories) = (mounts.len(), self.repositories.len());
            return Err(TooMany { mounts, repositories });
        }
        Ok(self.places().map(Path::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(roots: &[&str], places: &[&str]) -> Found {
        let mut found = Found {
            roots: roots.iter().map(PathBuf::from).collect(),
            places: places.iter().map(|path| (PathBuf::from(path), State::Present)).collect(),
            ..Found::default()
        };
        found.simplify();
        found
    }

    #[test]
    fn what_lies_in_something_protected_needs_nothing_more() {
        let found = found(&["/w"], &["/w/h", "/w/h/a/b", "/w/h-2", "/w/h.c"]);
        let places: Vec<_> = found.places().collect();
        assert_eq!(places, ["/w/h", "/w/h-2", "/w/h.c"].map(Path::new));
    }

    #[test]
    fn more_than_a_sandbox_can_have_is_refused() {
        let in_one = |count: usize| {
            let places: Vec<String> = (0..count).map(|n| format!("/w/a/b/{n}")).collect();
            let places: Vec<&str> = places.iter().map(String::as_str).collect();
            found(&["/w"], &places).protected()
        };
        assert_eq!(in_one(MOUNTS - 2).unwrap().len(), MOUNTS - 2, "the two above count as well");
        let error = in_one(MOUNTS - 1).unwrap_err();
        assert!(error.to_string().contains("20001 places"), "{error}");
    }
}
