//! One search at a time for all agents of a mission.
//!
//! A walk through a large tree costs seconds, and is the same for every agent; so it is shared, and
//! used again for twenty times as long as it took: at most a twentieth of the time goes into walking,
//! while a small tree is walked at each start. What a walk found is looked at anew every time.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::beneath::Tree;
use super::discover::{Wanted, search};
use super::found::Found;
use super::walk::{Bounds, Walked, walk};
use crate::sys::clock::since_boot;

/// How many times its own duration a walk is good for.
const GOOD_FOR: u32 = 20;

/// A tree can't be searched at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot search {}", path.display())]
pub struct SearchError {
    /// The root of the tree.
    path: PathBuf,
    /// Why.
    #[source]
    source: io::Error,
}

#[derive(Debug)]
struct Past {
    root: PathBuf,
    walked: Walked,
    began: Duration,
    took: Duration,
}

/// Searches the trees of a mission's agents. Blocks: not for the loop.
#[derive(Debug, Default)]
pub struct Scanner {
    past: Mutex<Vec<Past>>,
}

impl Scanner {
    /// Finds what is to be protected. A walk that is recent enough is used again unless `anew`.
    ///
    /// # Errors
    /// A tree can't be opened.
    pub fn search(&self, wanted: &Wanted, anew: bool) -> Result<Found, SearchError> {
        let mut trees = Vec::new();
        for path in &wanted.trees {
            let open = Tree::open(path);
            trees.push(open.map_err(|source| SearchError { path: path.clone(), source })?);
        }
        let asked = since_boot();
        let walked: Vec<_> = trees.iter().map(|tree| self.walked(tree, asked, anew)).collect();
        Ok(search(wanted, trees, &walked))
    }

    /// Waits for a walk that is under way, and shares it.
    fn walked(&self, tree: &Tree, asked: Duration, anew: bool) -> Walked {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = past.iter().find(|past| past.root == tree.path())
            && (old.began >= asked || !anew && asked < old.began + old.took * GOOD_FOR)
        {
            return old.walked.clone();
        }
        let began = since_boot();
        let walked = walk(tree, Bounds::default());
        past.retain(|past| past.root != tree.path());
        let (root, took) = (tree.path().to_owned(), since_boot().saturating_sub(began));
        past.push(Past { root, walked: walked.clone(), began, took });
        walked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_that_took_long_is_used_again_and_a_quick_or_old_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let wanted = Wanted { trees: vec![root.clone()], ..Wanted::default() };
        std::fs::create_dir_all(root.join("a/.git")).unwrap();
        // Ages are those of a machine that was booted a minute ago.
        let [second, day] = [1, 86_400].map(Duration::from_secs);
        let none = Duration::ZERO;
        let cases = [(none, day, 0), (none, none, 1), (second * (GOOD_FOR + 10), second, 1)];
        for (age, took, expected) in cases {
            let began = since_boot().saturating_sub(age);
            let past = Past { root: root.clone(), walked: Walked::default(), began, took };
            let scanner = Scanner { past: Mutex::new(vec![past]) };
            let found = scanner.search(&wanted, false).unwrap();
            assert_eq!(found.repositories.len(), expected, "{age:?} {took:?}");
            let anew = scanner.search(&wanted, true).unwrap();
            assert_eq!(anew.repositories.len(), 1, "a search that must be new is");
        }
    }
}
