//! What the files of a repository lead to: its configuration, and where a `.git` file points.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::beneath::{Kind, Tree, Way, path_of, plain, read_bounded};
use super::discover::Search;
use super::found::Filler;
use super::gitconfig::{self, Effect};
use super::walk::is_repository;

/// Bytes of a configuration file that are read; a longer one is told.
const CONFIG_BYTES: u64 = 1 << 20;
/// Bytes of a file that only names a path.
const POINTER_BYTES: u64 = 8 << 10;
/// Configuration files read in one search.
const CONFIGS: usize = 10_000;
/// Files that include each other.
const INCLUDE_DEPTH: usize = 10;

/// Configuration files that were read, each with the directory it was read for.
#[derive(Debug, Default)]
pub(super) struct Configs(BTreeSet<(PathBuf, Option<PathBuf>)>);

/// What the path in a file leads to, by its text alone.
pub(super) fn pointed(tree: &Tree, file: &Path, from: &Path, prefix: &str) -> Option<PathBuf> {
    let text = tree.read(file, POINTER_BYTES).ok()?;
    let path = path_of(text.strip_prefix(prefix.as_bytes())?.trim_ascii_start());
    if path.as_os_str().is_empty() {
        return None;
    }
    plain(&from.join(path))
}

/// Where git's configuration is being read for.
#[derive(Debug, Clone, Copy)]
struct Scope<'a> {
    /// Relative paths of programs and hooks start here; none for the operator's own configuration,
    /// which holds for every repository.
    top: Option<&'a Path>,
    depth: usize,
}

impl Search<'_> {
    /// Reads a repository's configuration.
    pub(super) fn config(&mut self, file: &Path, git_dir: &Path, worktree: Option<&Path>) {
        let scope = Scope { top: Some(worktree.unwrap_or(git_dir)), depth: 0 };
        self.read_config(file, scope);
    }

    /// Reads the operator's configuration: it may name hooks or files in a tree, too.
    pub(super) fn outer_config(&mut self) {
        for file in &self.wanted.git_config {
            self.read_config(file, Scope { top: None, depth: 0 });
        }
    }

    fn read_config(&mut self, file: &Path, scope: Scope<'_>) {
        let key = (file.to_owned(), scope.top.map(Path::to_owned));
        if self.configs.0.len() >= CONFIGS {
            return self.gap(format!("more than {CONFIGS} git configuration files"));
        }
        if !self.configs.0.insert(key) {
            return;
        }
        let text = match self.locate(file) {
            Some((tree, relative)) => tree.read(&relative, CONFIG_BYTES),
            None => read_outside(file, CONFIG_BYTES),
        };
        let text = match text {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.gap(format!("{} was not read: {error}", file.display())),
        };
        for entry in gitconfig::parse(&text) {
            match entry.effect() {
                Some(Effect::Include(path)) => self.include(file, path, scope),
                Some(Effect::Hooks(path)) => self.hooks(path, scope),
                Some(Effect::Program(command)) => self.programs(command, scope),
                Some(Effect::WorkTree(_)) | None => {}
            }
        }
    }

    fn include(&mut self, file: &Path, path: &[u8], scope: Scope<'_>) {
        let base = file.parent().unwrap_or(Path::new("/"));
        let Some(included) = self.expand(base, path) else { return };
        self.want(&included, Filler::File(""));
        if scope.depth >= INCLUDE_DEPTH {
            return self.gap(format!("{} was not read: too many includes", included.display()));
        }
        self.read_config(&included, Scope { depth: scope.depth + 1, ..scope });
    }

    fn hooks(&mut self, path: &[u8], scope: Scope<'_>) {
        for top in self.tops(scope) {
            if let Some(hooks) = self.expand(&top, path) {
                self.want(&hooks, Filler::Directory);
            }
        }
    }

    fn programs(&mut self, command: &[u8], scope: Scope<'_>) {
        for top in self.tops(scope) {
            for (number, word) in gitconfig::words(command).iter().enumerate() {
                if !word.contains(&b'/') {
                    continue;
                }
                let Some(program) = self.expand(&top, word) else { continue };
                let Some((tree, relative)) = self.locate(&program) else { continue };
                // Only of the first word is it clear that it names a program.
                if number == 0 || tree.way(&relative) == Way::To(Kind::File) {
                    self.want_program(&program);
                }
            }
        }
    }

    fn tops(&self, scope: Scope<'_>) -> Vec<PathBuf> {
        match scope.top {
            Some(top) => vec![top.to_owned()],
            None => {
                let tops = self.found.repositories.iter();
                let tops = tops.map(|at| match at.file_name() {
                    Some(name) if name == ".git" => at.parent().unwrap_or(at),
                    _ => at,
                });
                tops.map(Path::to_owned).collect()
            }
        }
    }

    /// A path as git's configuration writes it.
    fn expand(&self, base: &Path, path: &[u8]) -> Option<PathBuf> {
        if path.is_empty() {
            return None;
        }
        let home = path.strip_prefix(b"~/").zip(self.wanted.home.as_ref());
        plain(&match home {
            Some((rest, home)) => home.join(path_of(rest)),
            None => base.join(path_of(path)),
        })
    }

    /// Follows a `.git` file to the git directory.
    pub(super) fn git_file(&mut self, at: &Path, dot_git: &Path) {
        let Some((tree, relative)) = self.locate(dot_git) else { return };
        let Some(mut git_dir) = pointed(tree, &relative, at, "gitdir:") else {
            return self.gap(format!("{} can't be read, or names no place", dot_git.display()));
        };
        if self.locate(&git_dir).is_none() {
            // Only of a tree's own root is it the operator's word that it belongs there.
            let is_root = self.wanted.trees.iter().any(|tree| tree == at);
            match is_root.then(|| outside(at, &git_dir, &self.wanted.keep_out)).flatten() {
                Some((common, real)) => {
                    if real != git_dir {
                        self.gap(format!(
                            "{} names {}, a way through a link that agents don't have",
                            dot_git.display(),
                            git_dir.display()
                        ));
                    }
                    self.take_in(&common, &real);
                    git_dir = real;
                }
                None => {
                    return self.gap(format!(
                        "{} leads out, to {}, which is not given to agents: nothing there says that it \
                         belongs to this work tree",
                        dot_git.display(),
                        git_dir.display()
                    ));
                }
            }
        }
        self.git_dir(&git_dir, Some(at));
    }

    /// Makes a git directory outside of the trees one of them; what in it belongs to other work trees
    /// stays as it is.
    fn take_in(&mut self, common: &Path, own: &Path) {
        let tree = match Tree::open(common) {
            Ok(tree) => tree,
            Err(error) => return self.gap(format!("{}: {error}", common.display())),
        };
        let others = tree.list(Path::new("worktrees"), 100_000).unwrap_or_default();
        self.trees.push(tree);
        self.found.roots.push(common.to_owned());
        self.found.outside.push(common.to_owned());
        self.git_dir(common, None);
        for (name, _) in others {
            let other = common.join("worktrees").join(name);
            if other != own {
                self.want(&other, Filler::Directory);
            }
        }
    }
}

/// The git directory outside that a work tree belongs to, for an agent that only reads it; none if there
/// is none, or nothing there says so. `keep_out`: places that no agent gets.
#[must_use]
pub fn git_dir_outside(worktree: &Path, keep_out: &[PathBuf]) -> Option<PathBuf> {
    let tree = Tree::open(worktree).ok()?;
    let git_dir = pointed(&tree, Path::new(".git"), worktree, "gitdir:")?;
    let (common, _) = outside(worktree, &git_dir, keep_out)?;
    (!common.starts_with(worktree)).then_some(common)
}

/// The directory to be given (and where its part for this work tree really is) with a work tree whose `.git` file leads to `git_dir`, if what is there
/// says that it belongs together: git's own back reference, in a place that no agent can write.
pub(super) fn outside(
    worktree: &Path,
    git_dir: &Path,
    keep_out: &[PathBuf],
) -> Option<(PathBuf, PathBuf)> {
    // Links on the way are the operator's; what is checked is where they lead.
    let git_dir = git_dir.canonicalize().ok()?;
    let tree = Tree::open(&git_dir).ok()?;
    let linked = || {
        let back = pointed(&tree, Path::new("gitdir"), &git_dir, "")?;
        let common = pointed(&tree, Path::new("commondir"), &git_dir, "")?;
        let named = git_dir.parent().is_some_and(|above| above == common.join("worktrees"));
        (back == worktree.join(".git") && named).then_some(common)
    };
    let submodule = || {
        let text = tree.read(Path::new("config"), CONFIG_BYTES).ok()?;
        let entries = gitconfig::parse(&text);
        let back = entries.iter().rev().find_map(|entry| match entry.effect() {
            Some(Effect::WorkTree(path)) => plain(&git_dir.join(path_of(path))),
            _ => None,
        });
        (back? == worktree).then(|| git_dir.clone())
    };
    let common = linked().or_else(submodule)?;
    let overlaps = |other: &PathBuf| other.starts_with(&common) || common.starts_with(other);
    let whole = is_repository(&Tree::open(&common).ok()?, Path::new(""));
    let alone = !worktree.starts_with(&common) && !keep_out.iter().any(overlaps);
    (whole && alone && common.to_str().is_some()).then_some((common, git_dir))
}

/// Reads a file outside of the trees, whatever an agent may have named.
fn read_outside(file: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Looked at before it is opened: to open a device may do something.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let there: OwnedFd = rustix::fs::open(file, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&there)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::NotFound.into());
    }
    let same = format!("/proc/self/fd/{}", there.as_raw_fd());
    read_bounded(File::open(same)?, most)
}
