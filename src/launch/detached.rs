//! Whether the protection of a sandbox is still in place.
//!
//! A mount on a file or directory is *detached*, in every namespace, when somebody outside renames
//! something over it or removes it: `git config` on the host does that to `.git/config`. The agent
//! then finds the new file without protection. It can't be prevented; the kernel tells of it, though:
//! `/proc/PID/mountinfo` of a process in the sandbox polls as POLLPRI when the mounts have changed
//! (proc_pid_mountinfo(5)). The shim watches it, and ends the agent.
//!
//! To protect again was considered: in between the agent may have written, and whatever is there can't
//! be told from what the host wrote. A new start looks at everything anew. There is a window between
//! the detachment and the kill, in which the agent runs: it is as short as a wake-up of the shim.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::policy::sandbox::{Node, SandboxPlan};
use crate::sys::process::Pid;

/// The places of a plan that a detachment would lay open.
pub(super) fn places(plan: &SandboxPlan) -> Vec<PathBuf> {
    let places = plan.tree.iter().filter_map(|node| match node {
        Node::Pin { target } | Node::Protect { target } | Node::Hide { target } => Some(target),
        Node::Bind { .. }
        | Node::Overlay { .. }
        | Node::Symlink { .. }
        | Node::Directory { .. }
        | Node::File { .. }
        | Node::Tmpfs { .. }
        | Node::Proc { .. }
        | Node::Devpts { .. } => None,
    });
    // In a file system of the kernel nobody renames anything.
    places.filter(|target| !target.starts_with("/proc")).cloned().collect()
}

/// The mounts of a sandbox.
#[derive(Debug)]
pub(super) struct MountWatch {
    mountinfo: File,
    places: Vec<PathBuf>,
}

impl MountWatch {
    /// Watches the mounts that a process sees, which must be in its final root by now.
    pub(super) fn open(process: Pid, places: Vec<PathBuf>) -> io::Result<MountWatch> {
        Ok(MountWatch { mountinfo: File::open(format!("/proc/{process}/mountinfo"))?, places })
    }

    /// To be polled for POLLPRI.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.mountinfo.as_fd()
    }

    /// The places that are no mounts any more.
    ///
    /// # Errors
    /// The list can't be read.
    pub(super) fn missing(&mut self) -> io::Result<Vec<PathBuf>> {
        let mut text = Vec::new();
        self.mountinfo.rewind()?;
        self.mountinfo.read_to_end(&mut text)?;
        let mounts = mount_points(&text);
        let gone = |place: &&PathBuf| !mounts.contains(place.as_os_str());
        Ok(self.places.iter().filter(gone).cloned().collect())
    }
}

/// The fifth field of each line.
fn mount_points(mountinfo: &[u8]) -> BTreeSet<OsString> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(unescape).collect()
}

/// Blank, tab, line break and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digits = after.first_chunk::<3>().filter(|_| byte == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                path.push(escaped);
                rest = after.get(3..).unwrap_or_default();
            }
            None => path.push(byte),
        }
    }
    OsString::from_vec(path)
}

/// What is told of detached places.
pub(super) fn describe(places: &[PathBuf]) -> String {
    let shown =
        |path: &Path| String::from_utf8_lossy(OsStr::as_bytes(path.as_os_str())).into_owned();
    let mut names: Vec<String> = places.iter().take(3).map(|path| shown(path)).collect();
    if places.len() > names.len() {
        names.push(format!("{} more", places.len() - names.len()));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_whatever_their_names() {
        let text = b"22 1 0:5 / / rw - tmpfs x rw\n\
                     36 22 98:0 /a /w/a\\040b/\\134\\011c rw,nosuid master:1 - ext4 /dev/x rw\n\
                     37 22 98:0 /a /w/\\12 rw - ext4 /dev/x rw\n";
        let found = mount_points(text);
        let expected = ["/", "/w/\\12", "/w/a b/\\\tc"].map(OsString::from);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_no_mount_is_missing() {
        let own = std::process::id();
        let places = vec![PathBuf::from("/"), PathBuf::from("/no such place")];
        let mut watch = MountWatch::open(own, places).unwrap();
        assert_eq!(watch.missing().unwrap(), [PathBuf::from("/no such place")]);
        assert_eq!(watch.missing().unwrap().len(), 1, "it is read from its beginning each time");
    }

    #[test]
    fn a_long_list_is_cut() {
        let places: Vec<PathBuf> = (0..5).map(|n| format!("/{n}").into()).collect();
        assert_eq!(describe(&places), "/0, /1, /2, 2 more");
    }
}
