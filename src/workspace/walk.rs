//! Where the repositories of a tree are.
//!
//! Breadth first, so that what is near the root is found whatever is below; one descriptor at a time;
//! nothing is opened but directories, and no link is followed. What lies below a `.git` is git's. A directory costs four system calls,
//! about 4 us when the kernel has it in memory. Number, depth and time are bounded; what was not
//! looked at is told, never silently left out.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::beneath::{Kind, Tree, each};
use crate::sys::clock::since_boot;

/// How far a walk goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Directories opened.
    pub(super) directories: usize,
    /// Directories below each other.
    pub(super) depth: usize,
    /// How long it takes.
    pub(super) time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { directories: 1_000_000, depth: 128, time: Duration::from_secs(8) }
    }
}

/// How a directory belongs to git.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    /// `.git` is a directory.
    Directory,
    /// `.git` is a file that says where the repository is.
    File,
    /// `.git` is a symbolic link, or something else.
    Odd,
    /// It is itself a repository, without a work tree (or pretends to be).
    Bare,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// Directories that belong to git, relative to the root, nearest first.
    pub(super) found: Vec<(PathBuf, Mark)>,
    /// What was not looked at, as sentences.
    pub(super) gaps: Vec<String>,
    /// How many directories were looked at.
    pub(super) directories: usize,
}

/// Gaps told one by one; more are counted.
const GAPS: usize = 8;

/// Walks a whole tree.
pub(super) fn walk(tree: &Tree, bounds: Bounds) -> Walked {
    let deadline = since_boot() + bounds.time;
    let mut walked = Walked::default();
    let mut more_gaps = 0_usize;
    let mut queue: VecDeque<(PathBuf, usize)> = VecDeque::from([(PathBuf::new(), 0)]);
    while let Some((path, depth)) = queue.pop_front() {
        let late = walked.directories % 256 == 0 && since_boot() >= deadline;
        if walked.directories >= bounds.directories || late {
            let why = if late { "there was no time for more" } else { "there are more" };
            walked.gaps.push(format!(
                "only {} directories of {} were searched for nested repositories ({why}), none from {} on",
                walked.directories,
                tree.path().display(),
                path.display(),
            ));
            break;
        }
        let mut gap = |what: &str| {
            if walked.gaps.len() < GAPS {
                let path = tree.absolute(&path);
                walked.gaps.push(format!("{} was not searched: {what}", path.display()));
            } else {
                more_gaps += 1;
            }
        };
        let directory = match tree.directory(&path) {
            Ok(directory) => directory,
            // Gone, or replaced, since its parent was read.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => {
                gap(&std::io::Error::from(error).to_string());
                continue;
            }
        };
        walked.directories += 1;
        let mut below = Vec::new();
        let mut signs = Signs::default();
        let read = each(&directory, |name, kind| {
            if is_dot_git(name) {
                signs.dot_git = Some(kind);
            } else {
                signs.see(name, kind);
                if kind == Kind::Directory {
                    below.push(path.join(OsStr::from_bytes(name)));
                }
            }
            true
        });
        if let Err(error) = read {
            gap(&error.to_string());
        }
        if let Some(mark) = signs.dot_git.map(mark_of) {
            walked.found.push((path.clone(), mark));
        }
        if signs.is_bare() {
            // What is below is searched all the same: else three names would hide a whole tree.
            walked.found.push((path.clone(), Mark::Bare));
        }
        if depth >= bounds.depth && !below.is_empty() {
            gap("it lies too deep");
            continue;
        }
        queue.extend(below.into_iter().map(|path| (path, depth + 1)));
    }
    if more_gaps > 0 {
        walked.gaps.push(format!("{more_gaps} more directories were not searched"));
    }
    walked
}

/// `.git`, also as a file system that ignores case would find it.
pub(super) fn is_dot_git(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b".git")
}

fn mark_of(kind: Kind) -> Mark {
    match kind {
        Kind::Directory => Mark::Directory,
        Kind::File => Mark::File,
        Kind::Link | Kind::Other => Mark::Odd,
    }
}

/// What in a directory tells that git would take it for a repository.
#[derive(Debug, Default)]
struct Signs {
    dot_git: Option<Kind>,
    head: bool,
    objects: bool,
    refs: bool,
    commondir: bool,
}

impl Signs {
    fn see(&mut self, name: &[u8], kind: Kind) {
        // `objects` and `refs` may be links as well.
        let passable = matches!(kind, Kind::Directory | Kind::Link);
        match name {
            b"HEAD" => self.head = kind != Kind::Directory,
            b"objects" => self.objects = passable,
            b"refs" => self.refs = passable,
            b"commondir" => self.commondir = true,
            _ => {}
        }
    }

    fn is_bare(&self) -> bool {
        self.head && (self.objects && self.refs || self.commondir)
    }
}

/// Whether the directory is one that git would take for a repository.
pub(super) fn is_repository(tree: &Tree, path: &Path) -> bool {
    let mut signs = Signs::default();
    let Ok(directory) = tree.directory(path) else { return false };
    let read = each(&directory, |name, kind| {
        signs.see(name, kind);
        true
    });
    read.is_ok() && signs.is_bare()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn tree(directories: &[&str], files: &[&str]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        for path in directories {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        for path in files {
            fs::write(dir.path().join(path), "").unwrap();
        }
        let tree = Tree::open(dir.path()).unwrap();
        (dir, tree)
    }

    fn found(tree: &Tree) -> Vec<(String, Mark)> {
        let walked = walk(tree, Bounds::default());
        assert_eq!(walked.gaps, [""; 0]);
        let mut found: Vec<_> = walked
            .found
            .into_iter()
            .map(|(path, mark)| (path.to_str().unwrap().to_owned(), mark))
            .collect();
        found.sort();
        found
    }

    #[test]
    fn every_kind_of_repository_is_found_at_every_depth() {
        let (dir, tree) = tree(
            &[".git/objects", "a/b/c/.git", "sub", "bare.git/objects", "bare.git/refs", "odd", "x"],
            &["sub/.git", "bare.git/HEAD", "odd/HEAD", "odd/commondir", "x/HEAD"],
        );
        symlink("../.git", dir.path().join("x/.git")).unwrap();
        assert_eq!(
            found(&tree),
            [
                (String::new(), Mark::Directory),
                ("a/b/c".into(), Mark::Directory),
                ("bare.git".into(), Mark::Bare),
                ("odd".into(), Mark::Bare),
                ("sub".into(), Mark::File),
                ("x".into(), Mark::Odd),
            ]
        );
    }

    #[test]
    fn a_link_leads_the_walk_nowhere() {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir_all(outside.path().join("repo/.git")).unwrap();
        let (dir, tree) = tree(&["a"], &[]);
        symlink(outside.path(), dir.path().join("a/out")).unwrap();
        symlink("..", dir.path().join("a/up")).unwrap();
        assert_eq!(found(&tree), []);
    }

    #[test]
    fn what_is_not_searched_is_told() {
        let (dir, tree) = tree(&["a/b/c/.git", "d"], &[]);
        let bounds = |directories, depth| Bounds { directories, depth, ..Bounds::default() };
        let few = walk(&tree, bounds(2, 99));
        assert!(few.found.is_empty());
        assert!(few.gaps[0].contains("only 2 directories"), "{few:?}");
        let flat = walk(&tree, bounds(99, 1));
        assert!(flat.found.is_empty());
        assert!(flat.gaps[0].contains("too deep"), "{flat:?}");
        let late = walk(&tree, Bounds { time: Duration::ZERO, ..Bounds::default() });
        assert!(late.gaps[0].contains("no time"), "{late:?}");

        if nix::unistd::geteuid().is_root() {
            println!("SKIP what_is_not_searched_is_told: root may search every directory");
            return;
        }
        fs::set_permissions(dir.path().join("a/b"), fs::Permissions::from_mode(0o0)).unwrap();
        let barred = walk(&tree, Bounds::default());
        fs::set_permissions(dir.path().join("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(barred.gaps[0].contains("a/b was not searched"), "{barred:?}");
    }
}
