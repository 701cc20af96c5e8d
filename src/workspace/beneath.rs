//! A tree that an agent can write, looked at without ever leaving it.
//!
//! Every path is resolved by the kernel beneath the descriptor of the tree's root, with no symbolic
//! link followed (openat2(2), Linux 5.6): whatever an agent has put there, or puts there meanwhile,
//! what is found lies in the tree and has no second name through a link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, pipe or socket.
    Other,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Something is there.
    To(Kind),
    /// Nothing; what is above it is a directory.
    Missing,
    /// Something on the way is a symbolic link, no directory, or can't be searched.
    Barred,
}

/// A tree, by the descriptor of its root.
#[derive(Debug)]
pub(super) struct Tree {
    fd: OwnedFd,
    path: PathBuf,
}

impl Tree {
    /// Opens a tree. The path itself is trusted: it is the operator's.
    pub(super) fn open(path: &Path) -> io::Result<Tree> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Tree { fd: rustix::fs::open(path, flags, Mode::empty())?, path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An absolute path as one of this tree; none if it lies elsewhere.
    pub(super) fn relative<'a>(&self, absolute: &'a Path) -> Option<&'a Path> {
        absolute.strip_prefix(&self.path).ok()
    }

    pub(super) fn absolute(&self, relative: &Path) -> PathBuf {
        if relative.as_os_str().is_empty() { self.path.clone() } else { self.path.join(relative) }
    }

    /// Opens what is at `relative`; the root itself for an empty path.
    pub(super) fn open_at(&self, relative: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        open(self.fd.as_fd(), relative, flags)
    }

    /// Opens a directory for reading.
    pub(super) fn directory(&self, relative: &Path) -> Result<OwnedFd, Errno> {
        self.open_at(relative, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// What is at `relative`.
    pub(super) fn way(&self, relative: &Path) -> Way {
        match self.open_at(relative, OFlags::PATH) {
            Ok(fd) => match rustix::fs::fstat(&fd) {
                Ok(stat) => Way::To(kind(FileType::from_raw_mode(stat.st_mode))),
                Err(_) => Way::Barred,
            },
            Err(Errno::NOENT) => Way::Missing,
            Err(_) => Way::Barred,
        }
    }

    /// How many names the file at `relative` has.
    pub(super) fn hard_links(&self, relative: &Path) -> u64 {
        let fd = self.open_at(relative, OFlags::PATH);
        fd.and_then(rustix::fs::fstat).map_or(1, |stat| stat.st_nlink)
    }

    /// The content of a regular file, if it has at most `most` bytes.
    pub(super) fn read(&self, relative: &Path, most: u64) -> io::Result<Vec<u8>> {
        // O_NONBLOCK: opening a pipe would wait for a writer.
        let fd = self.open_at(relative, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        read_bounded(File::from(fd), most)
    }

    /// The names in a directory with what they are, sorted; at most `most` of them.
    pub(super) fn list(&self, relative: &Path, most: usize) -> io::Result<Vec<(OsString, Kind)>> {
        let mut found = list(self.directory(relative)?, most)?;
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }
}

/// Opens a path beneath a directory.
pub(super) fn open(root: BorrowedFd<'_>, relative: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // EAGAIN: something was renamed meanwhile, and the kernel can't tell whether that led out.
    for _ in 0..16 {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// The names in a directory with what they are.
pub(super) fn list(directory: OwnedFd, most: usize) -> io::Result<Vec<(OsString, Kind)>> {
    let mut found = Vec::new();
    let too_many = || io::Error::from_raw_os_error(libc::E2BIG);
    each(&directory, |name, kind| {
        let room = found.len() < most;
        if room {
            found.push((OsString::from_vec(name.to_vec()), kind));
        }
        room
    })?
    .then_some(found)
    .ok_or_else(too_many)
}

/// Calls `visit` for each name in an open directory until it says no; whether it never did.
pub(super) fn each(
    directory: &OwnedFd,
    mut visit: impl FnMut(&[u8], Kind) -> bool,
) -> io::Result<bool> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = rustix::fs::RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let mut file_type = entry.file_type();
        if file_type == FileType::Unknown {
            // Not every file system says it.
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            let Ok(stat) = rustix::fs::statat(directory, name, flags) else { continue };
            file_type = FileType::from_raw_mode(stat.st_mode);
        }
        let kind = kind(file_type);
        if !visit(name.to_bytes(), kind) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads a regular file, if it has at most `most` bytes.
pub(super) fn read_bounded(file: File, most: u64) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(most + 1).read_to_end(&mut text)?;
    if text.len() as u64 > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

pub(super) fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Kind::Other,
    }
}

/// A path without `.` and `..`, by its text alone: right where no link is followed anyway. None if it
/// leads above its beginning.
pub(super) fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Prefix(_) | Component::CurDir => {}
            Component::RootDir => plain.push("/"),
            Component::ParentDir => {
                if !plain.pop() {
                    return None;
                }
            }
            Component::Normal(name) => plain.push(name),
        }
    }
    Some(plain)
}

/// Bytes as a path, without white space at the end.
pub(super) fn path_of(text: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(text.trim_ascii_end()))
}
