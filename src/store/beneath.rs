//! Files in a tree that an agent can write, reached without ever leaving it.
//!
//! Every path is relative, has ordinary names only, and is resolved by the kernel with
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS` (openat2(2), Linux 5.6), so that
//! no race with the agent leads out of the tree. All work is done on the descriptors gained.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Bytes of a relative path at most.
const MAX_PATH: usize = 2048;
/// Directories below each other at most.
const MAX_DEPTH: usize = 32;

/// Why a file in the tree is not touched.
#[derive(Debug, thiserror::Error)]
pub enum BeneathError {
    /// The path is empty, absolute, too long or deep, or has `.` or `..` in it.
    #[error("`{}` is not a plain relative path", path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// The path leads through a symlink, or out of the tree.
    #[error("`{}` leads through a symlink or out of its directory", path.display())]
    Escapes {
        /// The path.
        path: PathBuf,
    },
    /// What is there is a directory, device, pipe or socket.
    #[error("`{}` is not a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// There are more files than are taken.
    #[error("there are more than {max} files")]
    TooMany {
        /// How many are taken.
        max: usize,
    },
    /// The system refused.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The regular files of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Their relative paths, sorted.
    pub files: Vec<PathBuf>,
    /// What is there besides files and directories (symlinks, devices, pipes, sockets), sorted.
    pub refused: Vec<PathBuf>,
}

/// Lists a tree, following nothing.
///
/// # Errors
/// [`BeneathError::TooMany`] when there are more than `max` entries, [`BeneathError::BadPath`] when
/// it is nested too deeply, [`BeneathError::Io`].
pub fn list(root: BorrowedFd<'_>, max: usize) -> Result<Listing, BeneathError> {
    let mut listing = Listing::default();
    let mut seen = 0;
    let mut directories = vec![PathBuf::new()];
    while let Some(path) = directories.pop() {
        let failed = |errno| from_errno("list", &path, errno);
        if path.components().count() > MAX_DEPTH {
            return Err(BeneathError::BadPath { path });
        }
        let at = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
        let fd = open(root, at, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(failed)?;
        let mut dir = Dir::from_fd(fd).map_err(failed)?;
        let mut names: Vec<OsString> = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                seen += 1;
                if seen > max {
                    return Err(BeneathError::TooMany { max });
                }
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        for name in names {
            let entry = path.join(&name);
            match fstatat(&dir, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) if is(&stat, SFlag::S_IFREG) => listing.files.push(entry),
                Ok(stat) if is(&stat, SFlag::S_IFDIR) => directories.push(entry),
                Ok(_) => listing.refused.push(entry),
                // Removed meanwhile.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(from_errno("look at", &entry, errno)),
            }
        }
    }
    listing.files.sort();
    listing.refused.sort();
    Ok(listing)
}

/// Opens a regular file for reading; returns it with its permission bits.
pub(super) fn open_file(root: BorrowedFd<'_>, path: &Path) -> Result<(File, u32), BeneathError> {
    names(path)?;
    // O_NONBLOCK: opening a pipe would wait for a writer.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let fd = open(root, path, flags).map_err(|errno| from_errno("open", path, errno))?;
    let stat = fstat(&fd).map_err(|errno| from_errno("look at", path, errno))?;
    if !is(&stat, SFlag::S_IFREG) {
        return Err(BeneathError::NotRegular { path: path.to_owned() });
    }
    Ok((File::from(fd), stat.st_mode & 0o777))
}

/// A new file that takes its name only when it is whole. Dropped before, it leaves nothing.
pub(super) struct NewFile {
    parent: OwnedFd,
    temporary: OsString,
    path: PathBuf,
    pub(super) file: File,
    placed: bool,
}

impl NewFile {
    /// Makes it, and the directories above it.
    pub(super) fn create(root: BorrowedFd<'_>, path: &Path) -> Result<Self, BeneathError> {
        let failed = |errno| from_errno("make", path, errno);
        let names = names(path)?;
        let (_, above) = names.split_last().ok_or_else(|| bad(path))?;
        let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let mut parent = open(root, Path::new("."), directory).map_err(failed)?;
        for name in above {
            match mkdirat(&parent, *name, Mode::from_bits_truncate(0o700)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
            parent = open(parent.as_fd(), Path::new(name), directory).map_err(failed)?;
        }
        let temporary = OsString::from(format!(".missiond-{}", random_name().map_err(failed)?));
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let fd = open(parent.as_fd(), Path::new(&temporary), flags).map_err(failed)?;
        Ok(Self { parent, temporary, path: path.to_owned(), file: File::from(fd), placed: false })
    }

    /// Gives it its mode and name, in place of what has that name now; a symlink is replaced too.
    pub(super) fn place(mut self, mode: u32) -> Result<(), BeneathError> {
        let failed = |errno| from_errno("make", &self.path, errno);
        fchmod(&self.file, Mode::from_bits_truncate(mode & 0o777)).map_err(failed)?;
        let name = self.path.file_name().ok_or_else(|| bad(&self.path))?;
        renameat(&self.parent, self.temporary.as_os_str(), &self.parent, name).map_err(failed)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.placed {
            // The tree is the agent's: it may have removed the file itself.
            let _gone =
                unlinkat(&self.parent, self.temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// 32 hex digits that nobody can guess.
pub(super) fn random_name() -> Result<String, Errno> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Errno::EAGAIN)?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let mode = if flags.contains(OFlag::O_CREAT) { 0o600 } else { 0 };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .mode(Mode::from_bits_truncate(mode))
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
    openat2(root, path, how)
}

/// The names of a plain relative path.
fn names(path: &Path) -> Result<Vec<&OsStr>, BeneathError> {
    let bytes = path.as_os_str().as_bytes();
    let names: Option<Vec<_>> = path
        .components()
        .map(|component| match component {
            Component::Normal(name) => Some(name),
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => None,
        })
        .collect();
    match names {
        // `components` forgives `a//b`, `a/.` and a trailing slash; what is joined again must be
        // what was given.
        Some(names)
            if !names.is_empty()
                && names.len() <= MAX_DEPTH
                && bytes.len() <= MAX_PATH
                && names.join(OsStr::new("/")).as_bytes() == bytes =>
        {
            Ok(names)
        }
        _ => Err(bad(path)),
    }
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & libc::S_IFMT == kind.bits()
}

fn bad(path: &Path) -> BeneathError {
    BeneathError::BadPath { path: path.to_owned() }
}

fn from_errno(what: &'static str, path: &Path, errno: Errno) -> BeneathError {
    let path = path.to_owned();
    if matches!(errno, Errno::ELOOP | Errno::EXDEV) {
        BeneathError::Escapes { path }
    } else if matches!(errno, Errno::ENXIO | Errno::EISDIR | Errno::EOPNOTSUPP) {
        BeneathError::NotRegular { path }
    } else {
        BeneathError::Io { what, path, source: errno.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use nix::unistd::mkfifo;

    use super::*;

    fn tree() -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        let root = File::open(dir.path().join("root")).unwrap();
        (dir, root)
    }

    #[test]
    fn only_plain_relative_paths_are_taken() {
        for bad in ["", ".", "..", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a/./b"] {
            assert!(names(Path::new(bad)).is_err(), "{bad:?}");
        }
        assert!(names(Path::new(&"a/".repeat(MAX_DEPTH + 1))).is_err());
        assert!(names(Path::new(&"a".repeat(MAX_PATH + 1))).is_err());
        assert_eq!(names(Path::new("a/..b/c")).unwrap(), ["a", "..b", "c"]);
    }

    #[test]
    fn symlinks_pipes_sockets_and_directories_are_not_read() {
        let (dir, root) = tree();
        let at = |name: &str| dir.path().join("root").join(name);
        symlink("../secret", at("link")).unwrap();
        symlink("..", at("up")).unwrap();
        symlink("/etc", at("abs")).unwrap();
        mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        std::fs::create_dir(at("dir")).unwrap();
        for path in ["link", "up/secret", "abs/passwd"] {
            let error = open_file(root.as_fd(), Path::new(path)).unwrap_err();
            assert!(matches!(error, BeneathError::Escapes { .. }), "{path}: {error:?}");
        }
        for path in ["fifo", "socket", "dir"] {
            let error = open_file(root.as_fd(), Path::new(path)).unwrap_err();
            assert!(matches!(error, BeneathError::NotRegular { .. }), "{path}: {error:?}");
        }
        let listing = list(root.as_fd(), 100).unwrap();
        assert_eq!(listing.files, Vec::<PathBuf>::new());
        assert_eq!(listing.refused, ["abs", "fifo", "link", "socket", "up"].map(PathBuf::from));
    }

    #[test]
    fn a_listing_is_bounded_in_number_and_depth() {
        let (dir, root) = tree();
        let root_path = dir.path().join("root");
        std::fs::create_dir_all(root_path.join("a/b")).unwrap();
        std::fs::write(root_path.join("a/b/c"), "").unwrap();
        std::fs::write(root_path.join("a/d"), "").unwrap();
        let listing = list(root.as_fd(), 4).unwrap();
        assert_eq!(listing.files, ["a/b/c", "a/d"].map(PathBuf::from));
        assert!(matches!(list(root.as_fd(), 3), Err(BeneathError::TooMany { max: 3 })));
        std::fs::create_dir_all(root_path.join("d/".repeat(MAX_DEPTH + 1))).unwrap();
        assert!(matches!(list(root.as_fd(), 1000), Err(BeneathError::BadPath { .. })));
    }

    #[test]
    fn a_new_file_replaces_a_symlink_and_never_follows_one() {
        let (dir, root) = tree();
        let root_path = dir.path().join("root");
        symlink("../secret", root_path.join("out")).unwrap();
        let new = NewFile::create(root.as_fd(), Path::new("out")).unwrap();
        new.place(0o4755).unwrap();
        let meta = std::fs::symlink_metadata(root_path.join("out")).unwrap();
        assert!(meta.is_file());
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777, 0o755);
        assert_eq!(std::fs::read(dir.path().join("secret")).unwrap(), b"s");

        symlink("..", root_path.join("up")).unwrap();
        let through = NewFile::create(root.as_fd(), Path::new("up/planted"));
        assert!(through.is_err());
        assert!(!dir.path().join("planted").exists());
    }

    #[test]
    fn a_new_file_that_is_not_finished_leaves_nothing() {
        let (_dir, root) = tree();
        drop(NewFile::create(root.as_fd(), Path::new("a/b")).unwrap());
        assert_eq!(list(root.as_fd(), 10).unwrap(), Listing::default());
    }
}
