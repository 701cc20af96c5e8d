//! Takes changes back, one by one, on descriptors.
//!
//! ```text
//! objects of git -> other files and directories -> references of git -> deletions
//! ```
//!
//! A file is made under a temporary name in the root of the workspace, recorded before, and renamed:
//! whoever looks sees the old one or the new one. What the real tree has is looked at once more just
//! before; between this look and the rename a change by somebody else can still be lost.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::changes::{Change, Kind, Verdict, What, changed, is_newer, is_reference, kind, look};
use super::{Left, PrivateError, Session, failed};
use crate::workspace::beneath::{Tree, open};

/// Takes back what is fine; whatever turns out not to be gets another verdict.
pub(super) fn apply(
    session: &mut Session,
    upper: &Path,
    changes: &mut [Change],
) -> Result<(), PrivateError> {
    let open = |path: &Path| Tree::open(path).map_err(failed("open", path));
    let (upper, lower) = (open(upper)?, open(&session.workspace)?);
    // Of an earlier time that was interrupted.
    remove_temporary(session, &lower)?;
    let mut order: Vec<usize> = (0..changes.len()).collect();
    order.sort_by_key(|index| changes.get(*index).map(rank));
    for index in order {
        let Some(change) = changes.get_mut(index).filter(|c| c.verdict == Verdict::Fine) else {
            continue;
        };
        let done = match change.what {
            What::Deleted => delete(session, &lower, &change.path),
            What::Replaced => delete(session, &lower, &change.path)
                .and_then(|()| make(session, &upper, &lower, change)),
            What::Added | What::Modified => make(session, &upper, &lower, change),
        };
        let cleared = remove_temporary(session, &lower);
        match done {
            Ok(()) => {
                cleared?;
                take_out(&upper, change)?;
            }
            Err(Stop::Changed) => {
                change.verdict =
                    Verdict::Conflict(format!("{} has changed since", change.path.display()));
            }
            Err(Stop::Failed(error)) => {
                return Err(failed("take back", &lower.absolute(&change.path))(error));
            }
        }
    }
    Ok(())
}

/// Removes changes from the agent's side.
pub(super) fn forget(upper: &Path, changes: &[Change]) -> Result<(), PrivateError> {
    let tree = Tree::open(upper).map_err(failed("open", upper))?;
    for change in changes {
        let path = tree.absolute(&change.path);
        let there = look(&tree, &change.path).map_err(failed("look at", &path))?;
        match there.as_ref().map(kind) {
            // Hidden by an opaque directory above, which goes with its own change.
            None => {}
            Some(Kind::Directory) => super::remove_all(&path).map_err(failed("remove", &path))?,
            Some(_) => {
                remove(&tree, &change.path, AtFlags::empty()).map_err(failed("remove", &path))?
            }
        }
    }
    Ok(())
}

/// Why a change isn't taken.
enum Stop {
    /// Somebody was quicker.
    Changed,
    Failed(io::Error),
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Self {
        Stop::Failed(error.into())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Failed(error)
    }
}

/// Directories come before what is in them by their paths.
fn rank(change: &Change) -> (u8, std::path::PathBuf) {
    let group = match change.what {
        What::Deleted => 3,
        _ if is_reference(&change.path) => 2,
        What::Replaced => 1,
        What::Added | What::Modified => {
            u8::from(!change.path.components().any(|name| name.as_os_str() == "objects"))
        }
    };
    (group, change.path.clone())
}

fn parent(tree: &Tree, path: &Path) -> Result<OwnedFd, Errno> {
    let parent = path.parent().unwrap_or(Path::new(""));
    tree.open_at(parent, OFlags::RDONLY | OFlags::DIRECTORY)
}

fn name(path: &Path) -> &Path {
    path.file_name().map_or(path, Path::new)
}

fn make(session: &mut Session, upper: &Tree, lower: &Tree, change: &Change) -> Result<(), Stop> {
    let path = &change.path;
    let source = look(upper, path)?.ok_or(Errno::NOENT)?;
    let mode = Mode::from_raw_mode(source.st_mode & 0o777);
    let before = look(lower, path)?;
    if change.kind == Kind::Directory {
        return match before {
            None => {
                // Whose directory is gone, or is another thing now.
                let parent = parent(lower, path).map_err(|_| Stop::Changed)?;
                match rustix::fs::mkdirat(&parent, name(path), Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let made = open(parent.as_fd(), name(path), OFlags::RDONLY | OFlags::DIRECTORY)?;
                Ok(rustix::fs::fchmod(made, mode)?)
            }
            Some(there) if kind(&there) == Kind::Directory => {
                Ok(rustix::fs::fchmod(lower.directory(path)?, mode)?)
            }
            Some(_) => Err(Stop::Changed),
        };
    }
    if before.as_ref().is_some_and(|there| is_newer(session, path, there)) {
        return Err(Stop::Changed);
    }
    let root = lower.directory(Path::new(""))?;
    let temporary = session.temporary.as_str();
    if change.kind == Kind::Link {
        let link = upper.open_at(path, OFlags::PATH)?;
        let to = rustix::fs::readlinkat(link, c"", Vec::new())?;
        rustix::fs::symlinkat(to, &root, temporary)?;
    } else {
        let read = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut from = File::from(upper.open_at(path, read)?);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&root, temporary, flags, Mode::from_raw_mode(0o600))?;
        let mut to = File::from(made);
        io::copy(&mut from, &mut to)?;
        rustix::fs::fchmod(&to, mode)?;
    }
    let parent = parent(lower, path).map_err(|_| Stop::Changed)?;
    let flags = if before.is_some() { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    match rustix::fs::renameat_with(&root, temporary, &parent, name(path), flags) {
        Ok(()) => {}
        Err(Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY) => return Err(Stop::Changed),
        Err(error) => return Err(error.into()),
    }
    if let Some(there) = look(lower, path)? {
        let left = Left { inode: there.st_ino, changed: changed(&there) };
        session.accepted.insert(path.clone(), left);
    }
    Ok(())
}

/// Deletes something of the real tree with all that is in it, unless somebody has changed it.
fn delete(session: &Session, lower: &Tree, path: &Path) -> Result<(), Stop> {
    let Some(stat) = look(lower, path)? else { return Ok(()) };
    if kind(&stat) != Kind::Directory {
        if is_newer(session, path, &stat) {
            return Err(Stop::Changed);
        }
        return Ok(remove(lower, path, AtFlags::empty())?);
    }
    for (entry, _) in lower.list(path, usize::MAX)? {
        delete(session, lower, &path.join(entry))?;
    }
    match remove(lower, path, AtFlags::REMOVEDIR) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => Err(Stop::Changed),
        other => Ok(other?),
    }
}

fn remove(tree: &Tree, path: &Path, flags: AtFlags) -> io::Result<()> {
    match rustix::fs::unlinkat(parent(tree, path)?, name(path), flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn remove_temporary(session: &Session, lower: &Tree) -> Result<(), PrivateError> {
    remove(lower, Path::new(&session.temporary), AtFlags::empty())
        .map_err(failed("remove", &lower.absolute(Path::new(&session.temporary))))
}

/// What was taken back is the same on both sides: the agent's own goes. Directories stay; they hide
/// nothing once what they hid is deleted.
fn take_out(upper: &Tree, change: &Change) -> Result<(), PrivateError> {
    let path = upper.absolute(&change.path);
    let there = look(upper, &change.path).map_err(failed("look at", &path))?;
    match there.as_ref().map(kind) {
        None | Some(Kind::Directory) => Ok(()),
        Some(Kind::File | Kind::Link | Kind::Other) => {
            remove(upper, &change.path, AtFlags::empty()).map_err(failed("remove", &path))
        }
    }
}
