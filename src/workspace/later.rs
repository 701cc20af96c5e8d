//! Repositories that were made while agents worked: whether they could run something on the host.
//!
//! A repository that an agent makes has no protection while the agent lives, and it can't be kept from
//! making one. So it is looked at when the agent has ended: one with hooks, with configuration that
//! names programs, or with a git directory somewhere else is moved aside under another name, where git
//! doesn't find it. Nothing is lost; a person looks at it and renames it back. One that could run
//! nothing (a plain `git init`, a clone, a work tree of a known repository) is only told.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;

use super::beneath::{Kind, Tree, Way};
use super::discover::Wanted;
use super::gitconfig::{self, Effect};
use super::pointer::pointed;

/// Bytes of configuration that are read; more is reason enough.
const CONFIG_BYTES: u64 = 1 << 20;
/// Names in a directory; more are reason enough.
const NAMES: usize = 10_000;
/// Submodules below each other.
const DEPTH: usize = 12;
/// Names tried for what is moved aside.
const ASIDE: u32 = 1_000;

/// A repository that was made later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Later {
    /// Its `.git`, or itself where it has no work tree.
    pub path: PathBuf,
    /// Why git might run something of it; none if it wouldn't.
    pub danger: Option<String>,
}

/// Looks at repositories that a search found and an earlier one did not.
///
/// # Errors
/// A tree can't be opened.
pub fn inspect<'a>(
    wanted: &Wanted,
    repositories: impl Iterator<Item = &'a PathBuf>,
) -> io::Result<Vec<Later>> {
    let trees: Vec<Tree> =
        wanted.trees.iter().map(|tree| Tree::open(tree)).collect::<io::Result<_>>()?;
    let look = |path: &PathBuf| {
        let (tree, relative) = locate(&trees, path)?;
        let danger = danger(&trees, tree, &relative, path);
        Some(Later { path: path.clone(), danger })
    };
    Ok(repositories.filter_map(look).collect())
}

fn locate<'t>(trees: &'t [Tree], path: &Path) -> Option<(&'t Tree, PathBuf)> {
    trees.iter().find_map(|tree| Some((tree, tree.relative(path)?.to_owned())))
}

fn danger(trees: &[Tree], tree: &Tree, relative: &Path, path: &Path) -> Option<String> {
    match tree.way(relative) {
        Way::Missing => None,
        Way::To(Kind::Directory) => git_dir(trees, tree, relative, DEPTH),
        Way::To(Kind::Link) => Some("it is a symbolic link".to_owned()),
        Way::To(Kind::Other) | Way::Barred => Some("it can't be looked at".to_owned()),
        Way::To(Kind::File) => {
            let at = path.parent().unwrap_or(path);
            let Some(to) = pointed(tree, relative, at, "gitdir:") else {
                return Some("it is no file of git".to_owned());
            };
            let Some((tree, relative)) = locate(trees, &to) else {
                return Some(format!("it leads out, to {}", to.display()));
            };
            match tree.way(&relative) {
                Way::Missing => None,
                Way::To(Kind::Directory) => git_dir(trees, tree, &relative, DEPTH),
                Way::To(_) | Way::Barred => Some(format!("it leads to {}", to.display())),
            }
        }
    }
}

/// Why git might run something of a git directory.
fn git_dir(trees: &[Tree], tree: &Tree, git_dir: &Path, depth: usize) -> Option<String> {
    if let Some(why) = config(tree, &git_dir.join("config.worktree")) {
        return Some(why);
    }
    match tree.way(&git_dir.join("commondir")) {
        Way::Missing => {}
        Way::To(_) | Way::Barred => {
            let absolute = tree.absolute(git_dir);
            let common = pointed(tree, &git_dir.join("commondir"), &absolute, "");
            // A work tree's own part of a repository, where git puts it.
            let ordinary = |common: &PathBuf| absolute.parent() == Some(&common.join("worktrees"));
            let inside = common.filter(ordinary).and_then(|common| locate(trees, &common));
            let known = inside.is_some_and(|(tree, common)| {
                tree.way(&common.join("commondir")) == Way::Missing
                    || pointed(tree, &common.join("commondir"), &tree.absolute(&common), "")
                        == Some(tree.absolute(&common))
            });
            return (!known).then(|| "its commondir leads elsewhere".to_owned());
        }
    }
    config(tree, &git_dir.join("config"))
        .or_else(|| hooks(tree, &git_dir.join("hooks")))
        .or_else(|| modules(trees, tree, &git_dir.join("modules"), depth))
}

fn config(tree: &Tree, file: &Path) -> Option<String> {
    let name = file.file_name().unwrap_or_default().display();
    let text = match tree.way(file) {
        Way::Missing => return None,
        Way::To(Kind::File) => tree.read(file, CONFIG_BYTES),
        Way::To(_) | Way::Barred => Err(io::ErrorKind::InvalidInput.into()),
    };
    let Ok(text) = text else { return Some(format!("its {name} can't be read")) };
    let entries = gitconfig::parse(&text);
    let runs = entries.iter().find(|entry| {
        matches!(entry.effect(), Some(Effect::Include(_) | Effect::Hooks(_) | Effect::Program(_)))
    })?;
    Some(format!("its {name} sets {}", runs.name()))
}

fn hooks(tree: &Tree, hooks: &Path) -> Option<String> {
    match tree.way(hooks) {
        Way::Missing => None,
        Way::To(Kind::Directory) => {
            let Ok(names) = tree.list(hooks, NAMES) else {
                return Some("its hooks can't be listed".to_owned());
            };
            let hook = names.iter().find(|(name, _)| !name.as_bytes().ends_with(b".sample"))?;
            Some(format!("it has hooks/{}", hook.0.display()))
        }
        Way::To(_) | Way::Barred => Some("its hooks are no directory".to_owned()),
    }
}

fn modules(trees: &[Tree], tree: &Tree, path: &Path, depth: usize) -> Option<String> {
    match tree.way(path) {
        Way::Missing => return None,
        Way::To(Kind::Directory) if depth > 0 => {}
        Way::To(_) | Way::Barred => return Some("its submodules can't be looked at".to_owned()),
    }
    let Ok(names) = tree.list(path, NAMES) else {
        return Some("its submodules can't be listed".to_owned());
    };
    names.iter().filter(|(_, kind)| *kind != Kind::File).find_map(|(name, _)| {
        let module = path.join(name);
        match tree.way(&module.join("HEAD")) {
            Way::Missing => modules(trees, tree, &module, depth - 1),
            Way::To(_) | Way::Barred => git_dir(trees, tree, &module, depth - 1),
        }
    })
}

impl Later {
    /// Moves it aside, under a name that git doesn't look for, and its `HEAD` as well, without which a
    /// directory of any name is no repository. Returns the new name.
    ///
    /// # Errors
    /// It is gone, or its directory can't be written.
    pub fn quarantine(&self, wanted: &Wanted) -> io::Result<PathBuf> {
        let tree = wanted.trees.iter().find(|tree| self.path.starts_with(tree));
        let tree = Tree::open(tree.ok_or(io::ErrorKind::InvalidInput)?)?;
        let head = self.path.join("HEAD");
        let has_head = tree.relative(&head).is_some_and(|head| tree.way(head) != Way::Missing);
        let is_directory = tree.relative(&self.path).map(|path| tree.way(path));
        if has_head && is_directory == Some(Way::To(Kind::Directory)) {
            aside(&tree, &head)?;
        }
        match self.path.file_name() {
            Some(name) if name == ".git" => aside(&tree, &self.path),
            Some(_) | None => Ok(self.path.clone()),
        }
    }
}

fn aside(tree: &Tree, path: &Path) -> io::Result<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let relative = tree.relative(parent).ok_or(io::ErrorKind::InvalidInput)?;
    let directory = tree.open_at(relative, OFlags::RDONLY | OFlags::DIRECTORY)?;
    for number in 1..=ASIDE {
        let mut aside = OsString::from(name);
        aside.push(".quarantined");
        if number > 1 {
            aside.push(format!("-{number}"));
        }
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&directory, name, &directory, &aside, flags) {
            Ok(()) => return Ok(parent.join(aside)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
