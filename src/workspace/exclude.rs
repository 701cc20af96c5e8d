//! Keeps git, inside of a sandbox, from taking placeholders for new files: else `git add -A` would
//! commit them. A copy of the repository's `info/exclude` with their names lies over the real one.

use std::path::{Path, PathBuf};

use super::beneath::{Kind, Tree, Way};
use super::found::Found;

/// Bytes of an exclude file; a longer one is left alone.
const BYTES: u64 = 1 << 20;

/// A file that is to be seen in the place of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Substitute {
    /// Where.
    pub target: PathBuf,
    /// Its content.
    pub text: String,
}

/// The exclude files of the repositories that have some of `placeholders` in their work trees.
/// Directories are none of git's business: it doesn't see empty ones.
#[must_use]
pub fn excludes(found: &Found, placeholders: &[PathBuf]) -> Vec<Substitute> {
    let mut all: Vec<Substitute> = Vec::new();
    for path in placeholders {
        let Some((worktree, git_dir)) = repository(found, path) else { continue };
        if path.starts_with(&git_dir) || !path.is_file() {
            continue;
        }
        let Some(name) = path.strip_prefix(&worktree).ok().and_then(Path::to_str) else { continue };
        let target = git_dir.join("info/exclude");
        let known = all.iter().position(|one| one.target == target);
        let index = match known {
            Some(index) => index,
            None => {
                let Some(fresh) = read(&git_dir, target) else { continue };
                all.push(fresh);
                all.len() - 1
            }
        };
        if let Some(substitute) = all.get_mut(index) {
            substitute.text.push_str(&format!("/{name}\n"));
        }
    }
    all
}

/// The work tree that a path lies in, and the git directory with its `info`.
fn repository(found: &Found, path: &Path) -> Option<(PathBuf, PathBuf)> {
    let above = path.ancestors().skip(1);
    let worktree = above.into_iter().find(|dir| found.repositories.contains(&dir.join(".git")))?;
    let dot_git = worktree.join(".git");
    if dot_git.is_dir() {
        return Some((worktree.to_owned(), dot_git));
    }
    // A work tree of a repository outside; of one inside it isn't known here.
    let outside = found.outside.first().filter(|_| found.roots.iter().any(|root| root == worktree));
    Some((worktree.to_owned(), outside?.clone()))
}

fn read(git_dir: &Path, target: PathBuf) -> Option<Substitute> {
    let tree = Tree::open(git_dir).ok()?;
    let name = Path::new("info/exclude");
    if tree.way(name) != Way::To(Kind::File) {
        return None;
    }
    let mut text = String::from_utf8(tree.read(name, BYTES).ok()?).ok()?;
    text.push_str("\n# What missiond keeps from being made while this agent runs:\n");
    Some(Substitute { target, text })
}
