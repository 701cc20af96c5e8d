//! Finds what must not be changed in the trees that an agent may write.
//!
//! ```text
//! walk -> .git directory ---------> hooks config config.worktree commondir
//!      -> .git file -> its gitdir -'   |  modules/**, worktrees/*: the same
//!      -> bare repository --------'    `-> config: core.hooksPath, include.path, programs that it names
//! names of the policy, files of the mission
//! ```
//!
//! What a place of that list lacks is to be there as well: a missing `hooks` is as good as a writable
//! one. Everything is looked at beneath the trees' descriptors; git is never run, because it would
//! run what an agent may have written.
//!
//! It deliberately makes and changes nothing, and trusts nothing that it reads: the worst that a
//! forged file can bring about is that too much is protected. The one thing that gives an agent more,
//! the git directory outside that a worktree belongs to, is taken only if the place outside, which no
//! agent can write, says so itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::beneath::{Kind, Tree, Way};
use super::found::{Filler, Found, State};
use super::pointer::{Configs, pointed};
use super::walk::{Mark, Walked};

/// What is searched, and for what.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Trees that the agent may write, the workspace first. Absolute, without symbolic links.
    pub trees: Vec<PathBuf>,
    /// Names at the root of each tree that are protected, there or not. One that ends in `/` is a
    /// directory.
    pub names: Vec<String>,
    /// Files that the mission is made of, as far as they lie in a tree. Absolute.
    pub files: Vec<PathBuf>,
    /// Where no git directory outside may lie: missiond's own directories.
    pub keep_out: Vec<PathBuf>,
    /// The operator's home, for `~/` in git's configuration.
    pub home: Option<PathBuf>,
    /// The operator's and the system's git configuration.
    pub git_config: Vec<PathBuf>,
}

/// Content of a `commondir` that changes nothing; an empty one breaks git.
const HERE: &str = ".\n";
/// Names below a directory of git that are looked at.
const NAMES: usize = 100_000;
/// Directories below `modules`, for names of submodules with slashes in them.
const MODULES_DEPTH: usize = 12;

/// A search under way.
pub(super) struct Search<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) trees: Vec<Tree>,
    pub(super) found: Found,
    /// Git directories that were looked at.
    seen: BTreeSet<PathBuf>,
    pub(super) configs: Configs,
}

/// Finds everything, given what walks through the trees found (one for each).
pub(super) fn search(wanted: &Wanted, trees: Vec<Tree>, walked: &[Walked]) -> Found {
    let roots = trees.iter().map(|tree| tree.path().to_owned()).collect();
    let mut search = Search {
        wanted,
        trees,
        found: Found { roots, ..Found::default() },
        seen: BTreeSet::new(),
        configs: Configs::default(),
    };
    let roots = search.found.roots.clone();
    for (root, walked) in roots.iter().zip(walked) {
        search.found.gaps.extend(walked.gaps.iter().cloned());
        for name in &wanted.names {
            let filler = if name.ends_with('/') { Filler::Directory } else { file(name) };
            search.want(&root.join(name.trim_end_matches('/')), filler);
        }
        for (path, mark) in &walked.found {
            let at = if path.as_os_str().is_empty() { root.clone() } else { root.join(path) };
            search.repository(&at, *mark);
        }
    }
    for file in &wanted.files {
        search.want(file, Filler::File(""));
    }
    search.outer_config();
    search.found.simplify();
    search.found
}

/// An empty file in the eyes of whoever reads it.
fn file(name: &str) -> Filler {
    let json = Path::new(name).extension().is_some_and(|extension| extension == "json");
    Filler::File(if json { "{}\n" } else { "" })
}

impl Search<'_> {
    pub(super) fn gap(&mut self, text: String) {
        if !self.found.gaps.contains(&text) {
            self.found.gaps.push(text);
        }
    }

    /// The tree that a path lies in, with the path from its root.
    pub(super) fn locate(&self, path: &Path) -> Option<(&Tree, PathBuf)> {
        let inside = self.trees.iter().filter_map(|tree| Some((tree, tree.relative(path)?)));
        let (tree, relative) = inside.min_by_key(|(_, relative)| relative.as_os_str().len())?;
        Some((tree, relative.to_owned()))
    }

    /// Has a program protected: as [`Search::want`], but a directory that isn't there may be made.
    pub(super) fn want_program(&mut self, path: &Path) {
        let Some((tree, relative)) = self.locate(path) else { return };
        match way(tree, &relative) {
            (place, Way::Missing) if place != relative => {
                self.gap(format!("git would run {}, which an agent can make", path.display()))
            }
            _ => self.want(path, Filler::File("")),
        }
    }

    /// Has a place protected, if it lies in a tree.
    pub(super) fn want(&mut self, path: &Path, filler: Filler) {
        let Some((tree, relative)) = self.locate(path) else { return };
        if relative.as_os_str().is_empty() || self.found.places.contains_key(path) {
            return;
        }
        let (place, state) = match way(tree, &relative) {
            (place, Way::To(Kind::Link)) => {
                let place = tree.absolute(&place);
                return self.gap(format!(
                    "{} is a symbolic link, which an agent can replace by another",
                    place.display()
                ));
            }
            (place, Way::Barred) => {
                let place = tree.absolute(&place);
                return self.gap(format!("{} can't be protected: the way there", place.display()));
            }
            (place, Way::To(kind)) => {
                let names = if kind == Kind::File { tree.hard_links(&place) } else { 1 };
                let place = tree.absolute(&place);
                if names > 1 {
                    self.gap(format!(
                        "{} has {names} names (hard links): by another one it can be written",
                        place.display()
                    ));
                }
                (place, State::Present)
            }
            (place, Way::Missing) if place == relative => {
                (tree.absolute(&place), State::Missing(filler))
            }
            // Who can make the directory can make what is in it.
            (place, Way::Missing) => (tree.absolute(&place), State::Missing(Filler::Directory)),
        };
        if place.to_str().is_none() {
            // A plan is text, and the name is one that some agent chose.
            return self.gap(format!("{} can't be protected: not UTF-8", place.display()));
        }
        self.found.places.entry(place).or_insert(state);
    }

    fn repository(&mut self, at: &Path, mark: Mark) {
        let dot_git = at.join(".git");
        match mark {
            Mark::Directory => {
                self.found.repositories.insert(dot_git.clone());
                self.git_dir(&dot_git, Some(at));
            }
            Mark::File => {
                self.found.repositories.insert(dot_git.clone());
                self.want(&dot_git, Filler::File(""));
                self.git_file(at, &dot_git);
            }
            Mark::Bare => {
                self.found.repositories.insert(at.to_owned());
                self.git_dir(at, None);
            }
            Mark::Odd => {
                self.found.repositories.insert(dot_git.clone());
                self.gap(format!(
                    "{} is neither a directory nor a file: it can't be protected",
                    dot_git.display()
                ));
            }
        }
    }

    /// Everything in a git directory that decides what git runs.
    pub(super) fn git_dir(&mut self, path: &Path, worktree: Option<&Path>) {
        let Some((tree, relative)) = self.locate(path) else { return };
        if way(tree, &relative).1 != Way::To(Kind::Directory) {
            return;
        }
        let common = pointed(tree, &relative.join("commondir"), path, "");
        let new = self.seen.insert(path.to_owned());
        // One that leads to itself is a placeholder.
        let common = common.filter(|common| common != path);
        if new {
            self.want(&path.join("commondir"), Filler::File(HERE));
            self.want(&path.join("config.worktree"), Filler::File(""));
            // With a `commondir`, which can't be changed then, git uses none of these.
            if common.is_none() {
                self.want(&path.join("hooks"), Filler::Directory);
                self.want(&path.join("config"), Filler::File(""));
                self.modules(&path.join("modules"), MODULES_DEPTH);
                self.worktrees(&path.join("worktrees"));
            }
        }
        for name in ["config", "config.worktree"] {
            self.config(&path.join(name), path, worktree);
        }
        match common {
            Some(common) if self.locate(&common).is_none() => {
                self.gap(format!("{} leads out, to {}", path.display(), common.display()));
            }
            // Bounded: each is a directory of its own, and a chain ends where one was seen before.
            Some(common) if new || worktree.is_some() => self.git_dir(&common, worktree),
            Some(_) | None => {}
        }
    }

    fn names(&mut self, path: &Path) -> Vec<(PathBuf, Kind)> {
        let Some((tree, relative)) = self.locate(path) else { return Vec::new() };
        match tree.list(&relative, NAMES) {
            Ok(names) => names.into_iter().map(|(name, kind)| (path.join(name), kind)).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.gap(format!("{} was not searched: {error}", path.display()));
                Vec::new()
            }
        }
    }

    /// The git directories of submodules; their names may have slashes in them.
    fn modules(&mut self, path: &Path, depth: usize) {
        for (module, kind) in self.names(path) {
            if kind != Kind::Directory {
                continue;
            }
            let Some((tree, relative)) = self.locate(&module) else { continue };
            if tree.way(&relative.join("HEAD")) != Way::Missing {
                self.git_dir(&module, None);
            } else if depth > 0 {
                self.modules(&module, depth - 1);
            } else {
                self.gap(format!("{} was not searched: it lies too deep", module.display()));
            }
        }
    }

    /// What other work trees of a repository have of their own.
    fn worktrees(&mut self, path: &Path) {
        for (worktree, kind) in self.names(path) {
            if kind == Kind::Directory {
                self.want(&worktree.join("commondir"), Filler::File("../..\n"));
                self.want(&worktree.join("config.worktree"), Filler::File(""));
                self.want(&worktree.join("gitdir"), Filler::File(""));
                self.config(&worktree.join("config.worktree"), &worktree, None);
            }
        }
    }
}

/// What is at a path, or the first thing on the way that is missing or bars it.
fn way(tree: &Tree, relative: &Path) -> (PathBuf, Way) {
    match tree.way(relative) {
        there @ Way::To(_) => return (relative.to_owned(), there),
        Way::Missing | Way::Barred => {}
    }
    let mut place = PathBuf::new();
    for component in relative.components() {
        place.push(component);
        let way = tree.way(&place);
        if way != Way::To(Kind::Directory) {
            return (place, way);
        }
    }
    // It has appeared meanwhile.
    let last = tree.way(&place);
    (place, last)
}
