//! Where files of git point, and whether what is outside of a tree says that it belongs to it.
//!
//! An agent may have written the file that points; the place outside it can't have written. So git's
//! own back reference there decides.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::beneath::{Tree, path_of, plain, read_bounded};
use super::gitconfig::{self, Effect};
use super::walk::is_repository;

/// Bytes of a configuration file that are read; a longer one is told.
pub(super) const CONFIG_BYTES: u64 = 1 << 20;
/// Bytes of a file that only names a path.
const POINTER_BYTES: u64 = 8 << 10;

/// Configuration files that were read, each with the directory it was read for.
#[derive(Debug, Default)]
pub(super) struct Configs(pub(super) BTreeSet<(PathBuf, Option<PathBuf>)>);

/// What the path in a file leads to, by its text alone.
pub(super) fn pointed(tree: &Tree, file: &Path, from: &Path, prefix: &str) -> Option<PathBuf> {
    let text = tree.read(file, POINTER_BYTES).ok()?;
    let path = path_of(text.strip_prefix(prefix.as_bytes())?.trim_ascii_start());
    if path.as_os_str().is_empty() {
        return None;
    }
    plain(&from.join(path))
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
pub(super) fn read_outside(file: &Path, most: u64) -> io::Result<Vec<u8>> {
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
