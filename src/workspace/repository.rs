//! What the files of a repository lead to: its configuration, and where a `.git` file points.

use std::io;
use std::path::{Path, PathBuf};

use super::beneath::{Kind, Tree, Way, path_of, plain};
use super::discover::Search;
use super::found::Filler;
use super::gitconfig::{self, Effect};
use super::pointer::{CONFIG_BYTES, outside, pointed, read_outside};

/// Configuration files read in one search.
const CONFIGS: usize = 10_000;
/// Files that include each other.
const INCLUDE_DEPTH: usize = 10;

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
