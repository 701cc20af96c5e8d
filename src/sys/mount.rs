//! Mounts by descriptors: open_tree(2), fsopen(2), mount_setattr(2), move_mount(2), pivot_root(2).
//!
//! Whatever is mounted or mounted upon is an open file, so that no path is looked up twice. All of
//! this needs CAP_SYS_ADMIN over the mount namespace, and Linux 5.12.
#![expect(unsafe_code, reason = "mount_setattr has no wrapper")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

pub use rustix::mount::MountAttrFlags as Attributes;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

/// Makes a file system that is mounted nowhere yet (fsopen(2), Linux 5.2). The descriptor is its root.
///
/// # Errors
/// `EPERM` where it may not be mounted (a `proc` in a container that hides parts of its own),
/// `EINVAL` for an option it doesn't know, `ENODEV` for an unknown `kind`.
pub fn new_file_system(
    kind: &CStr,
    options: &[(&str, &str)],
    attributes: Attributes,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for &(key, value) in options {
        fsconfig_set_string(context.as_fd(), key, value)?;
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Makes an overlay of `upper` over `lower`, that is mounted nowhere yet, with its own notes in
/// attributes that an ordinary user may write (`userxattr`, Linux 5.11).
///
/// # Errors
/// `EINVAL` where something is mounted below `lower` that must not be uncovered, or where the file
/// system of `upper` can't hold an upper directory.
pub fn new_overlay(
    lower: BorrowedFd<'_>,
    upper: BorrowedFd<'_>,
    work: BorrowedFd<'_>,
    attributes: Attributes,
) -> io::Result<OwnedFd> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "overlay")?;
    for (key, directory) in [("lowerdir", lower), ("upperdir", upper), ("workdir", work)] {
        // By descriptor: a path would be looked up again, and could have a colon in it. The kernel
        // takes descriptors themselves only since Linux 6.13.
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        fsconfig_set_string(context.as_fd(), key, path)?;
    }
    fsconfig_set_flag(context.as_fd(), "userxattr")?;
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Copies what is mounted at and below an open file, or that file alone, as a tree that is mounted
/// nowhere yet (open_tree(2), Linux 5.2).
///
/// # Errors
/// `EINVAL` if the file isn't in this mount namespace.
pub fn clone_tree(place: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(place, c"", flags)?)
}

/// `struct mount_attr` (mount_setattr(2)).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Adds attributes to every mount of a tree and cuts it off from all others: nothing that is mounted
/// outside appears in it, nor the other way round (mount_setattr(2), Linux 5.12).
///
/// Attributes are only ever added. Those that came from a more privileged namespace are locked, and
/// the kernel refuses to clear them.
///
/// # Errors
/// `EINVAL` if it isn't the root of a mount.
pub fn confine_tree(tree: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    set_attributes(tree, attributes, libc::MS_PRIVATE, libc::AT_RECURSIVE)
}

/// Adds attributes to one mount.
///
/// # Errors
/// `EINVAL` if it isn't the root of a mount.
pub fn confine_mount(mount: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    set_attributes(mount, attributes, 0, 0)
}

fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: Attributes,
    propagation: libc::c_ulong,
    flags: libc::c_int,
) -> io::Result<()> {
    let attributes =
        MountAttr { attr_set: attributes.bits().into(), propagation, ..MountAttr::default() };
    // SAFETY: the path is a NUL-terminated empty string, which AT_EMPTY_PATH allows, and
    // `attributes` is valid for reading and of the size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attributes,
            std::mem::size_of_val(&attributes),
        )
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Mounts a tree of [`clone_tree`] or [`new_file_system`] on an open file or directory
/// (move_mount(2), Linux 5.2).
///
/// # Errors
/// `ENOTDIR` if one is a directory and the other isn't.
pub fn attach(tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, c"", place, c"", flags)?)
}

/// Makes an attached mount the root of this mount namespace and takes the old tree out of it.
///
/// # Errors
/// `EINVAL` where the present root can't be left (an initial ramdisk).
pub fn enter_root(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    // pivot_root(2), "pivot_root(".", ".")": the old root comes to lie over the new one, at the same
    // place, and is what the unmount finds there.
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")?;
    Ok(())
}
