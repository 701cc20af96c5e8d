//! What must not be changed from inside of a sandbox, and the nodes that see to it.
//!
//! Binding a place read-only is not enough: its parent could be renamed and made anew. So everything
//! between the root of the tree and the place is pinned (a mount point can't be renamed). The price:
//! `rename` and `link` across a pin give EXDEV, as between file systems, and a pinned directory can't
//! be moved or removed inside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::policy::sandbox::Node;

/// Most nodes of one sandbox: a mount costs the kernel some 10 us at the start and again at the end.
const NODES: usize = 20_000;

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
    "{nodes} places would have to be protected, more than {NODES}: there are {repositories} \
     repositories in the writable directories"
)]
pub struct TooMany {
    nodes: usize,
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

    /// The nodes that protect every place, in the order in which they are made; the missing ones have
    /// to exist by then.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn nodes(&self) -> Result<Vec<Node>, TooMany> {
        let mut nodes: BTreeMap<PathBuf, bool> = BTreeMap::new();
        for path in self.places.keys() {
            // The nearest root: what is above it is no part of its mount.
            let roots = self.roots.iter().filter(|root| path.starts_with(root));
            let Some(root) = roots.max_by_key(|root| root.as_os_str().len()) else { continue };
            for above in path.ancestors().skip(1).take_while(|above| above != root) {
                nodes.entry(above.to_owned()).or_insert(false);
            }
            nodes.insert(path.clone(), true);
        }
        if nodes.len() > NODES {
            return Err(TooMany { nodes: nodes.len(), repositories: self.repositories.len() });
        }
        // In the order of paths a directory comes before what is in it.
        let node = |(target, protect)| match protect {
            true => Node::Protect { target },
            false => Node::Pin { target },
        };
        Ok(nodes.into_iter().map(node).collect())
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
    fn every_directory_up_to_the_root_is_pinned_before_what_is_in_it() {
        let nodes = found(&["/w"], &["/w/a/.git/config", "/w/a/.git/hooks", "/w/m"]).nodes();
        let pin = |path: &str| Node::Pin { target: path.into() };
        let protect = |path: &str| Node::Protect { target: path.into() };
        assert_eq!(
            nodes.unwrap(),
            [
                pin("/w/a"),
                pin("/w/a/.git"),
                protect("/w/a/.git/config"),
                protect("/w/a/.git/hooks"),
                protect("/w/m"),
            ]
        );
    }

    #[test]
    fn a_root_inside_of_another_is_pinned_by_its_own_bind() {
        let nodes = found(&["/w", "/w/out"], &["/w/out/x/y"]).nodes().unwrap();
        let targets: Vec<_> = nodes.iter().map(Node::target).collect();
        assert_eq!(targets, [Path::new("/w/out/x"), Path::new("/w/out/x/y")]);
    }

    #[test]
    fn what_lies_in_something_protected_needs_nothing_more() {
        let found = found(&["/w"], &["/w/h", "/w/h/a/b", "/w/h-2", "/w/h.c"]);
        let places: Vec<_> = found.places().collect();
        assert_eq!(places, ["/w/h", "/w/h-2", "/w/h.c"].map(Path::new));
    }

    #[test]
    fn more_than_a_sandbox_can_have_is_refused() {
        let places: Vec<String> = (0..=NODES).map(|n| format!("/w/{n}")).collect();
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        let error = found(&["/w"], &places).nodes().unwrap_err();
        assert!(error.to_string().contains("20001 places"), "{error}");
    }
}
