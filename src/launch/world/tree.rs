//! Builds the tree of a plan, node by node, on descriptors.
//!
//! A path of the host is looked up once, for [`Node::Bind`]; a path of the new tree is looked up
//! beneath the new root without following any link, and what was found is what is mounted upon.
//! Somebody who swaps a directory for a link meanwhile makes the start fail, or is too late.
//!
//! Directories and files are made only where the ground is the sandbox's own: in the root and in a
//! `tmpfs` of the plan, never in what came from the host.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat, umask};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use crate::launch::message::Step;
use crate::launch::status::{Failure, on};
use crate::policy::sandbox::{Access, Node, Trust};
use crate::sys::mount::{self, Attributes};

/// Whose the file system is that a path lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ground {
    /// The sandbox's: things can be made in it.
    Own,
    /// The host's, or the kernel's: all that is needed must be there.
    Foreign,
}

/// A tree being built.
pub(super) struct Tree<'a> {
    root: OwnedFd,
    /// What was mounted so far.
    grounds: BTreeMap<&'a Path, Ground>,
    blanks: Option<Blanks>,
    /// Own file systems that become read-only at the end.
    closing: Vec<OwnedFd>,
}

/// What lies over hidden places: an empty directory, and a file that nobody may open.
struct Blanks {
    directory: OwnedFd,
    file: OwnedFd,
}

impl<'a> Tree<'a> {
    /// Makes the root and everything in it. The host's tree stays the process's root.
    pub(super) fn build(nodes: &'a [Node]) -> Result<Self, Failure> {
        let root = new_root().map_err(on(Step::Root, ""))?;
        let mut tree = Self { root, grounds: BTreeMap::new(), blanks: None, closing: Vec::new() };
        // Modes are those of the plan. It is the shim's business what its children inherit.
        let inherited = umask(Mode::empty());
        let built = nodes
            .iter()
            .try_for_each(|node| tree.node(node).map_err(on(Step::Mount, describe(node))));
        umask(inherited);
        built.map(|()| tree)
    }

    /// Makes it the root of the namespace, and read-only what the agent isn't to write.
    pub(super) fn enter(self) -> Result<(), Failure> {
        if self.blanks.is_some() {
            Blanks::unname(self.root.as_fd()).map_err(on(Step::Pivot, ""))?;
        }
        mount::enter_root(self.root.as_fd()).map_err(on(Step::Pivot, ""))?;
        for mount in [&self.root].into_iter().chain(&self.closing) {
            mount::confine_mount(mount.as_fd(), Attributes::MOUNT_ATTR_RDONLY)
                .map_err(on(Step::Pivot, "/"))?;
        }
        Ok(())
    }

    fn node(&mut self, node: &'a Node) -> io::Result<()> {
        match node {
            Node::Bind { source, target, access, trust } => {
                let source = open_source(source, *trust)?;
                let kind = kind_of(source.as_fd())?;
                if *access == Access::Device && kind != SFlag::S_IFCHR {
                    return Err(errno(libc::ENODEV));
                }
                let place = self.place(target, kind == SFlag::S_IFDIR)?;
                self.mount_clone(source.as_fd(), place.as_fd(), attributes(*access))?;
                self.covered(target, Ground::Foreign);
            }
            Node::Overlay { lower, upper, work, target } => {
                let [lower, upper, work] =
                    [lower, upper, work].map(|path| open_source(path, Trust::None));
                let (lower, upper, work) = (lower?, upper?, work?);
                let place = self.place(target, true)?;
                let attributes = attributes(Access::Write);
                let tree =
                    mount::new_overlay(lower.as_fd(), upper.as_fd(), work.as_fd(), attributes)?;
                mount::attach(tree.as_fd(), place.as_fd())?;
                self.covered(target, Ground::Foreign);
            }
            Node::Pin { target } => {
                let place = self.find(target)?;
                self.mount_clone(place.as_fd(), place.as_fd(), Attributes::MOUNT_ATTR_NOSUID)?;
                self.covered(target, Ground::Foreign);
            }
            Node::Protect { target } => {
                let place = self.find(target)?;
                let read_only = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_RDONLY;
                self.mount_clone(place.as_fd(), place.as_fd(), read_only)?;
                self.covered(target, Ground::Foreign);
            }
            Node::Hide { target } => {
                let place = self.find(target)?;
                let is_directory = kind_of(place.as_fd())? == SFlag::S_IFDIR;
                let root = self.root.as_fd();
                let blanks = match &mut self.blanks {
                    Some(blanks) => blanks,
                    empty => empty.insert(Blanks::new(root)?),
                };
                let blank = if is_directory { &blanks.directory } else { &blanks.file };
                let attributes = attributes(Access::Read) | Attributes::MOUNT_ATTR_NOEXEC;
                let tree = mount::clone_tree(blank.as_fd())?;
                mount::confine_tree(tree.as_fd(), attributes)?;
                mount::attach(tree.as_fd(), place.as_fd())?;
                self.covered(target, Ground::Foreign);
            }
            Node::Symlink { target, to } => {
                let (parent, name) = self.parent(target)?;
                symlinkat(to.as_path(), parent, name)?;
            }
            Node::Directory { target, mode } => {
                let (parent, name) = self.parent(target)?;
                mkdirat(parent, name, Mode::from_bits_truncate(*mode))?;
            }
            Node::File { target, text, mode } => {
                let (parent, name) = self.parent(target)?;
                let mut file = make_file(parent.as_fd(), name, Mode::from_bits_truncate(*mode))?;
                file.write_all(text.as_bytes())?;
            }
            Node::Tmpfs { target, bytes, inodes, mode, writable } => {
                let options = [
                    ("size", bytes.to_string()),
                    ("nr_inodes", inodes.to_string()),
                    ("mode", format!("{mode:o}")),
                ];
                let made =
                    self.mount_new(target, c"tmpfs", &options, Attributes::MOUNT_ATTR_NODEV)?;
                self.covered(target, Ground::Own);
                if !writable {
                    self.closing.push(made);
                }
            }
            Node::Proc { target } => {
                let attributes = Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC;
                self.mount_new(target, c"proc", &[], attributes)?;
                self.covered(target, Ground::Foreign);
            }
            Node::Devpts { target } => {
                // No gid: the terminals' group isn't mapped.
                let options = [("ptmxmode", "0666".to_owned()), ("mode", "0620".to_owned())];
                self.mount_new(target, c"devpts", &options, Attributes::MOUNT_ATTR_NOEXEC)?;
                self.covered(target, Ground::Foreign);
            }
        }
        Ok(())
    }

    fn mount_clone(
        &self,
        source: BorrowedFd<'_>,
        place: BorrowedFd<'_>,
        attributes: Attributes,
    ) -> io::Result<()> {
        let tree = mount::clone_tree(source)?;
        mount::confine_tree(tree.as_fd(), attributes)?;
        mount::attach(tree.as_fd(), place)
    }

    /// A file system of its own: never setuid.
    fn mount_new(
        &self,
        target: &Path,
        kind: &CStr,
        options: &[(&str, String)],
        attributes: Attributes,
    ) -> io::Result<OwnedFd> {
        let place = self.place(target, true)?;
        let options: Vec<_> = options.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let attributes = attributes | Attributes::MOUNT_ATTR_NOSUID;
        let tree = mount::new_file_system(kind, &options, attributes)?;
        mount::attach(tree.as_fd(), place.as_fd())?;
        Ok(tree)
    }

    fn covered(&mut self, target: &'a Path, ground: Ground) {
        self.grounds.insert(target, ground);
    }

    /// What the last mount at or above a path is.
    fn ground(&self, path: &Path) -> Ground {
        path.ancestors().find_map(|above| self.grounds.get(above)).copied().unwrap_or(Ground::Own)
    }

    /// Finds what is at a path of the new tree.
    fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
        let inside = inside(path)?;
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        Ok(openat2(&self.root, inside, how)?)
    }

    /// Finds where something is to be mounted, or makes it where that is allowed.
    fn place(&self, target: &Path, directory: bool) -> io::Result<OwnedFd> {
        match self.find(target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let (parent, name) = self.parent(target)?;
        if directory {
            mkdirat(&parent, name, Mode::from_bits_truncate(0o755))?;
        } else {
            make_file(parent.as_fd(), name, Mode::from_bits_truncate(0o644))?;
        }
        self.find(target)
    }

    /// Where something is to be made: its directory, made too if it is missing, and its name.
    fn parent<'p>(&self, target: &'p Path) -> io::Result<(OwnedFd, &'p Path)> {
        let (Some(above), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(errno(libc::EINVAL));
        };
        if self.ground(target) == Ground::Foreign {
            // What isn't there can't be made: that would be a change of the host.
            return Err(errno(libc::ENOENT));
        }
        Ok((self.place(above, true)?, Path::new(name)))
    }
}

/// A fresh root, mounted over the old one. Paths go on naming the old tree: a root isn't looked up.
fn new_root() -> io::Result<OwnedFd> {
    let attributes = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV;
    let root = mount::new_file_system(c"tmpfs", &[("mode", "0755")], attributes)?;
    let old = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    mount::attach(root.as_fd(), old.as_fd())?;
    Ok(root)
}

impl Blanks {
    const DIRECTORY: &str = ".hidden-directory";
    const FILE: &str = ".hidden-file";

    /// Makes them in the root. Nothing can be mounted from a place without a name, so they have one
    /// until the tree is finished.
    fn new(root: BorrowedFd<'_>) -> io::Result<Self> {
        let open = |name| {
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            openat(root, name, flags, Mode::empty())
        };
        mkdirat(root, Self::DIRECTORY, Mode::from_bits_truncate(0o555))?;
        make_file(root, Path::new(Self::FILE), Mode::empty())?;
        Ok(Self { directory: open(Self::DIRECTORY)?, file: open(Self::FILE)? })
    }

    /// Takes their names away; what is mounted stays.
    fn unname(root: BorrowedFd<'_>) -> io::Result<()> {
        unlinkat(root, Self::DIRECTORY, UnlinkatFlags::RemoveDir)?;
        Ok(unlinkat(root, Self::FILE, UnlinkatFlags::NoRemoveDir)?)
    }
}

fn attributes(access: Access) -> Attributes {
    let common = Attributes::MOUNT_ATTR_NOSUID;
    match access {
        Access::Read => common | Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_RDONLY,
        Access::Write => common | Attributes::MOUNT_ATTR_NODEV,
        Access::Device => common | Attributes::MOUNT_ATTR_NOEXEC,
    }
}

fn open_source(source: &Path, trust: Trust) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    match trust {
        Trust::System => Ok(open(source, flags, Mode::empty())?),
        Trust::None => {
            let how = OpenHow::new()
                .flags(flags)
                .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
            Ok(openat2(AT_FDCWD, source, how)?)
        }
    }
}

fn make_file(parent: BorrowedFd<'_>, name: &Path, mode: Mode) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    Ok(openat(parent, name, flags, mode)?.into())
}

fn kind_of(file: BorrowedFd<'_>) -> io::Result<SFlag> {
    Ok(SFlag::from_bits_truncate(fstat(file)?.st_mode & SFlag::S_IFMT.bits()))
}

/// The path relative to the root.
fn inside(path: &Path) -> io::Result<&Path> {
    let clean =
        path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let relative = path.strip_prefix("/").ok().filter(|_| clean);
    relative.ok_or_else(|| errno(libc::EINVAL))
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// What is said when a node fails.
fn describe(node: &Node) -> String {
    let target = node.target().display();
    match node {
        Node::Bind { source, .. } if source != node.target() => {
            format!("{} at {target}", source.display())
        }
        Node::Overlay { .. } => format!("overlay at {target}"),
        Node::Bind { .. }
        | Node::Pin { .. }
        | Node::Protect { .. }
        | Node::Hide { .. }
        | Node::Symlink { .. }
        | Node::Directory { .. }
        | Node::File { .. } => target.to_string(),
        Node::Tmpfs { .. } => format!("tmpfs at {target}"),
        Node::Proc { .. } => format!("proc at {target}"),
        Node::Devpts { .. } => format!("devpts at {target}"),
    }
}
