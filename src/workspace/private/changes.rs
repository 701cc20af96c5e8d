//! What is different between the agent's side and the real tree.
//!
//! The agent's side is in overlayfs's own form (Documentation/filesystems/overlayfs.rst): a deleted
//! name is a character device 0/0, a directory that hides what was below it has the attribute
//! `user.overlay.opaque`, and what was copied up has `user.overlay.origin`. With `userxattr` there are
//! no redirected directories: a directory that is renamed is copied by whoever renames it.
//!
//! | refused | why |
//! |---|---|
//! | protected places | git or the mission would run them |
//! | in a `.git`: all but objects, refs, logs, the index and a few heads | the same |
//! | a new `.git`, a file named `HEAD` anywhere else | it could make a repository |
//! | a link that leads out of the workspace | who follows it leaves the tree |
//! | devices, pipes, sockets | nobody means them |

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;
use serde::Serialize;

use super::{Moment, PrivateError, Session, failed};
use crate::workspace::beneath::{self, Tree, each};
use crate::workspace::walk::is_dot_git;

/// Most changes.
const MOST: usize = 200_000;
/// Directories below each other.
const DEPTH: usize = 256;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It is new.
    Added,
    /// Its content or mode is another.
    Modified,
    /// It is gone, with everything in it.
    Deleted,
    /// Something of another kind is in its place.
    Replaced,
}

/// Of what kind it is on the agent's side (for what was deleted: was).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// Something else.
    Other,
}

/// Whether it can be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "why")]
pub enum Verdict {
    /// It can, or was.
    Fine,
    /// Never.
    Refused(String),
    /// The workspace has changed there, too.
    Conflict(String),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Relative to the workspace.
    pub path: PathBuf,
    /// What was done.
    pub what: What,
    /// To what.
    pub kind: Kind,
    /// Whether it can be taken back.
    pub verdict: Verdict,
}

struct Comparison<'a> {
    session: &'a Session,
    upper: Tree,
    lower: Tree,
    changes: Vec<Change>,
}

/// All changes.
pub(super) fn changes(session: &Session, upper: &Path) -> Result<Vec<Change>, PrivateError> {
    let open = |path: &Path| Tree::open(path).map_err(failed("open", path));
    let (upper, lower) = (open(upper)?, open(&session.workspace)?);
    let mut comparison = Comparison { session, upper, lower, changes: Vec::new() };
    comparison.directory(Path::new(""), None, 0)?;
    comparison.changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(comparison.changes)
}

pub(super) fn kind(stat: &Stat) -> Kind {
    match beneath::kind(FileType::from_raw_mode(stat.st_mode)) {
        beneath::Kind::File => Kind::File,
        beneath::Kind::Directory => Kind::Directory,
        beneath::Kind::Link => Kind::Link,
        beneath::Kind::Other => Kind::Other,
    }
}

/// What is at a path; none for nothing.
pub(super) fn look(tree: &Tree, path: &Path) -> io::Result<Option<Stat>> {
    match tree.open_at(path, OFlags::PATH) {
        Ok(fd) => Ok(Some(rustix::fs::fstat(fd)?)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn changed(stat: &Stat) -> Moment {
    (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0))
}

/// Whether somebody has changed it since the session began.
pub(super) fn is_newer(session: &Session, path: &Path, stat: &Stat) -> bool {
    let ours = session.accepted.get(path);
    let is_ours =
        ours.is_some_and(|left| left.inode == stat.st_ino && left.changed == changed(stat));
    !is_ours && changed(stat) >= session.began
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The value of one of overlayfs's attributes.
fn attribute(tree: &Tree, path: &Path, name: &str) -> Option<Vec<u8>> {
    let fd = tree.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).ok()?;
    let mut value = vec![0; 512];
    let length = rustix::fs::fgetxattr(fd, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

impl Comparison<'_> {
    fn directory(
        &mut self,
        path: &Path,
        above: Option<&Verdict>,
        depth: usize,
    ) -> Result<(), PrivateError> {
        let shown = self.upper.absolute(path);
        if depth > DEPTH {
            return Err(PrivateError::TooMuch(format!("{} lies too deep", shown.display())));
        }
        let directory = self.upper.directory(path).map_err(io::Error::from);
        let directory = directory.map_err(failed("open", &shown))?;
        let mut names: Vec<OsString> = Vec::new();
        each(&directory, |name, _| {
            names.push(OsString::from_vec(name.to_vec()));
            names.len() <= MOST
        })
        .map_err(failed("list", &shown))?;
        for name in &names {
            self.entry(&path.join(name), above, depth)?;
        }
        if attribute(&self.upper, path, "user.overlay.opaque").as_deref() == Some(b"y") {
            self.hidden(path, &names, above)?;
        }
        Ok(())
    }

    /// What an opaque directory hides is deleted.
    fn hidden(
        &mut self,
        path: &Path,
        kept: &[OsString],
        above: Option<&Verdict>,
    ) -> Result<(), PrivateError> {
        let Ok(directory) = self.lower.directory(path) else { return Ok(()) };
        let mut names: Vec<OsString> = Vec::new();
        let shown = self.lower.absolute(path);
        each(&directory, |name, _| {
            names.push(OsString::from_vec(name.to_vec()));
            names.len() <= MOST
        })
        .map_err(failed("list", &shown))?;
        for name in names.iter().filter(|name| !kept.contains(name)) {
            self.deleted(&path.join(name), above)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        path: &Path,
        what: What,
        kind: Kind,
        verdict: Verdict,
    ) -> Result<(), PrivateError> {
        if self.changes.len() >= MOST {
            return Err(PrivateError::TooMuch(format!("there are more than {MOST} changes")));
        }
        self.changes.push(Change { path: path.to_owned(), what, kind, verdict });
        Ok(())
    }

    fn deleted(&mut self, path: &Path, above: Option<&Verdict>) -> Result<(), PrivateError> {
        let shown = self.lower.absolute(path);
        let Some(lower) = look(&self.lower, path).map_err(failed("look at", &shown))? else {
            // Gone on both sides.
            return Ok(());
        };
        let kind = kind(&lower);
        let newer = self.newest(path, &lower, 0)?;
        let verdict = above.cloned().or_else(|| refusal(self.session, path, What::Deleted, kind));
        let verdict = verdict.unwrap_or_else(|| match newer {
            Some(newer) => Verdict::Conflict(format!("{} has changed since", newer.display())),
            None => Verdict::Fine,
        });
        self.add(path, What::Deleted, kind, verdict)
    }

    /// Something at or below a path of the real tree that was changed since the session began.
    fn newest(
        &self,
        path: &Path,
        stat: &Stat,
        depth: usize,
    ) -> Result<Option<PathBuf>, PrivateError> {
        if kind(stat) != Kind::Directory {
            return Ok(is_newer(self.session, path, stat).then(|| path.to_owned()));
        }
        let shown = self.lower.absolute(path);
        if depth > DEPTH {
            return Err(PrivateError::TooMuch(format!("{} lies too deep", shown.display())));
        }
        for (name, _) in self.lower.list(path, MOST).map_err(failed("list", &shown))? {
            let below = path.join(name);
            let stat = look(&self.lower, &below).map_err(failed("look at", &shown))?;
            if let Some(stat) = stat
                && let Some(newer) = self.newest(&below, &stat, depth + 1)?
            {
                return Ok(Some(newer));
            }
        }
        Ok(None)
    }

    fn entry(
        &mut self,
        path: &Path,
        above: Option<&Verdict>,
        depth: usize,
    ) -> Result<(), PrivateError> {
        let shown = self.upper.absolute(path);
        let Some(upper) = look(&self.upper, path).map_err(failed("look at", &shown))? else {
            return Ok(());
        };
        if is_whiteout(&upper) {
            return self.deleted(path, above);
        }
        let lower = look(&self.lower, path).map_err(failed("look at", &shown))?;
        let (now, before) = (kind(&upper), lower.as_ref().map(kind));
        let what = match before {
            None => What::Added,
            Some(before) if before == now => What::Modified,
            Some(_) => What::Replaced,
        };
        if what == What::Modified && self.is_same(path, now, &upper, lower.as_ref())? {
            // Nothing but what is below a directory.
            if now == Kind::Directory {
                self.directory(path, above, depth + 1)?;
            }
            return Ok(());
        }
        let verdict = above
            .cloned()
            .or_else(|| refusal(self.session, path, what, now))
            .or_else(|| self.link_out(path, now))
            .or_else(|| self.conflict(path, what, lower.as_ref()))
            .unwrap_or(Verdict::Fine);
        self.add(path, what, now, verdict.clone())?;
        if now == Kind::Directory {
            let above = (verdict != Verdict::Fine && what != What::Modified).then_some(&verdict);
            self.directory(path, above, depth + 1)?;
        }
        Ok(())
    }

    fn conflict(&self, path: &Path, what: What, lower: Option<&Stat>) -> Option<Verdict> {
        let why = match lower {
            // It was copied from there, so it was there.
            None if attribute(&self.upper, path, "user.overlay.origin").is_some() => {
                "was removed since"
            }
            None => return None,
            Some(lower) if kind(lower) == Kind::Directory && what != What::Replaced => return None,
            Some(lower) => match self.newest(path, lower, 0) {
                Ok(None) => return None,
                Ok(Some(_)) => "has changed since",
                Err(_) => "can't be looked at",
            },
        };
        Some(Verdict::Conflict(format!("{} {why}", path.display())))
    }

    fn link_out(&self, path: &Path, now: Kind) -> Option<Verdict> {
        if now != Kind::Link {
            return None;
        }
        let to = self.target(&self.upper, path).ok()?;
        let mut depth = path.components().count().saturating_sub(1);
        for component in Path::new(OsStr::from_bytes(&to)).components() {
            let leaves = match component {
                Component::Normal(_) => {
                    depth += 1;
                    false
                }
                Component::CurDir => false,
                Component::ParentDir if depth > 0 => {
                    depth -= 1;
                    false
                }
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => true,
            };
            if leaves {
                return Some(Verdict::Refused("leads out of the workspace".to_owned()));
            }
        }
        None
    }

    fn target(&self, tree: &Tree, path: &Path) -> io::Result<Vec<u8>> {
        let link = tree.open_at(path, OFlags::PATH)?;
        Ok(rustix::fs::readlinkat(link, c"", Vec::new())?.into_bytes())
    }

    fn is_same(
        &self,
        path: &Path,
        kind: Kind,
        upper: &Stat,
        lower: Option<&Stat>,
    ) -> Result<bool, PrivateError> {
        let Some(lower) = lower else { return Ok(false) };
        let shown = self.upper.absolute(path);
        let same_mode = upper.st_mode & 0o777 == lower.st_mode & 0o777;
        match kind {
            Kind::Directory => Ok(same_mode),
            Kind::Link => {
                let ours = self.target(&self.upper, path).map_err(failed("read", &shown))?;
                Ok(self.target(&self.lower, path).is_ok_and(|theirs| theirs == ours))
            }
            Kind::File if !same_mode || upper.st_size != lower.st_size => Ok(false),
            Kind::File => {
                let open = |tree: &Tree| {
                    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                    tree.open_at(path, flags).map(File::from).map_err(io::Error::from)
                };
                let ours = open(&self.upper).map_err(failed("open", &shown))?;
                let theirs = open(&self.lower);
                let theirs = theirs.map_err(failed("open", &self.lower.absolute(path)))?;
                same_content(ours, theirs).map_err(failed("read", &shown))
            }
            Kind::Other => Ok(false),
        }
    }
}

fn same_content(ours: File, theirs: File) -> io::Result<bool> {
    let (mut a, mut b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let (mut ours, mut theirs) = (ours, theirs);
    loop {
        let count = read_full(&mut ours, &mut a)?;
        if count != read_full(&mut theirs, &mut b)? || a.get(..count) != b.get(..count) {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut full = 0;
    while let Some(rest) = buffer.get_mut(full..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            count => full += count,
        }
    }
    Ok(full)
}

/// Why a path is never taken back.
fn refusal(session: &Session, path: &Path, what: What, kind: Kind) -> Option<Verdict> {
    let refused = |why: &str| Some(Verdict::Refused(why.to_owned()));
    if kind == Kind::Other {
        return refused("is neither a file nor a directory nor a link");
    }
    // What holds something protected can't go or be replaced either.
    let removes = matches!(what, What::Deleted | What::Replaced);
    let is_protected =
        |place: &PathBuf| path.starts_with(place) || removes && place.starts_with(path);
    if session.protected.iter().any(is_protected) {
        return refused("is protected");
    }
    let mut names = path.components().map(|name| name.as_os_str().as_bytes());
    if names.by_ref().any(is_dot_git) {
        let in_git = names.collect::<Vec<_>>();
        let is_content = match in_git.as_slice() {
            [] => what == What::Modified && kind == Kind::Directory,
            [b"objects", b"info", ..] => false,
            [b"objects" | b"refs" | b"logs", ..] => true,
            [b"index" | b"packed-refs" | b"HEAD" | b"ORIG_HEAD" | b"FETCH_HEAD"] => {
                kind == Kind::File
            }
            [b"MERGE_HEAD" | b"MERGE_MSG" | b"MERGE_MODE" | b"COMMIT_EDITMSG"] => true,
            [b"CHERRY_PICK_HEAD" | b"REVERT_HEAD" | b"AUTO_MERGE"] => true,
            _ => false,
        };
        return if is_content { None } else { refused("git could run something of it") };
    }
    if path.file_name().is_some_and(|name| name.eq_ignore_ascii_case("HEAD"))
        && what != What::Deleted
    {
        return refused("could make its directory a repository");
    }
    None
}

/// Whether a file of a repository names others: it is taken back after them.
pub(super) fn is_reference(path: &Path) -> bool {
    let mut names = path.components().map(|name| name.as_os_str().as_bytes());
    names.by_ref().any(is_dot_git) && names.next().is_some_and(|name| name != b"objects")
}
