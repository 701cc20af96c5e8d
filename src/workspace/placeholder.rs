//! One placeholder: made so that it is known before it is there, removed only if it is still ours.
//!
//! ```text
//! recorded Intended -> made under a name that nobody guesses -> recorded Made(inode) -> renamed
//! ```
//!
//! Whoever dies in between leaves a record from which the next one can tell ours from what a person
//! made: by the temporary name, or by inode, time of birth and content.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, StatxFlags};
use rustix::io::Errno;

use super::beneath::{open, read_bounded};
use super::journal::{Inode, Place, Stage};

/// What became of a placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// It is gone, by us or somebody else.
    Gone,
    /// What is there was made or changed by somebody.
    Theirs,
    /// The directory that it is in isn't there now.
    NoDirectory,
}

/// The directory that a placeholder is in.
fn parent(place: &Place) -> io::Result<OwnedFd> {
    let path = place.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let below = path.strip_prefix("/").map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(open(root.as_fd(), below, OFlags::RDONLY | OFlags::DIRECTORY)?)
}

/// Makes it under its temporary name.
pub(super) fn make(place: &Place) -> io::Result<Inode> {
    let parent = parent(place)?;
    let name = place.temporary.as_str();
    let Some(content) = &place.content else {
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        return inode(&open(parent.as_fd(), Path::new(name), flags)?);
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file =
        File::from(rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?);
    file.write_all(content.as_bytes())?;
    inode(&file)
}

/// Gives it its own name; false if somebody else has made something there meanwhile.
pub(super) fn place(place: &Place) -> io::Result<bool> {
    let parent = parent(place)?;
    let name = place.path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(&parent, place.temporary.as_str(), &parent, name, flags) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes it, under whichever name it has, and sees to it that this is on disk.
pub(super) fn remove(place: &Place) -> io::Result<Removal> {
    let parent = match parent(place) {
        Ok(parent) => parent,
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => return Ok(Removal::NoDirectory),
            _ => return Err(error),
        },
    };
    let unlink = match place.content {
        Some(_) => AtFlags::empty(),
        None => AtFlags::REMOVEDIR,
    };
    match rustix::fs::unlinkat(&parent, place.temporary.as_str(), unlink) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(Errno::NOTEMPTY) => return Ok(Removal::Theirs),
        Err(error) => return Err(error.into()),
    }
    let Stage::Made(made) = place.stage else {
        rustix::fs::fsync(&parent)?;
        return Ok(Removal::Gone);
    };
    let name = Path::new(place.path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    let there = match open(parent.as_fd(), name, OFlags::PATH) {
        Ok(there) => there,
        Err(Errno::NOENT) => {
            rustix::fs::fsync(&parent)?;
            return Ok(Removal::Gone);
        }
        Err(error) => return Err(error.into()),
    };
    if inode(&there)? != made || !unchanged(&parent, name, place)? {
        return Ok(Removal::Theirs);
    }
    match rustix::fs::unlinkat(&parent, name, unlink) {
        Ok(()) | Err(Errno::NOENT) => {}
        // For a directory the kernel has the last word on whether it is empty.
        Err(Errno::NOTEMPTY) => return Ok(Removal::Theirs),
        Err(error) => return Err(error.into()),
    }
    rustix::fs::fsync(&parent)?;
    Ok(Removal::Gone)
}

fn unchanged(parent: &OwnedFd, name: &Path, place: &Place) -> io::Result<bool> {
    let Some(content) = &place.content else { return Ok(true) };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match open(parent.as_fd(), name, flags) {
        Ok(file) => File::from(file),
        // Ours could be read.
        Err(Errno::ACCESS | Errno::LOOP) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    match read_bounded(file, content.len() as u64) {
        Ok(text) => Ok(text == content.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(false),
        Err(error) => Err(error),
    }
}

fn inode(file: impl std::os::fd::AsFd) -> io::Result<Inode> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME | StatxFlags::TYPE;
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted)?;
    let born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        // Nothing of ours; the number alone tells it from everything that is.
        return Ok(Inode { major: 0, minor: 0, number: 0, born: None });
    }
    Ok(Inode {
        major: stat.stx_dev_major,
        minor: stat.stx_dev_minor,
        number: stat.stx_ino,
        born: born.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)),
    })
}
