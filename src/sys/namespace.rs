//! Namespaces (namespaces(7)): a child in new ones, and what is set inside them.
#![expect(unsafe_code, reason = "clone3 and the interface ioctl have no wrapper")]

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::process::{Fork, Pid};

/// `struct clone_args` (clone3(2), Linux 5.3; the last three fields 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Of its first version, which every kernel with clone3 takes.
const FIRST_VERSION: usize = 64;

/// Copies the calling process right into a control group of version 2 (`CLONE_INTO_CGROUP`, Linux
/// 5.7): not an instruction of the child runs outside of it.
///
/// Like [`process::fork`](super::process::fork), and with the same precondition: the caller has one
/// thread.
///
/// # Errors
/// `EACCES` if the group may not be entered from the caller's, `EBUSY` if controllers are enabled
/// below it, `ENODEV` if it was removed, `EAGAIN` at its limit of processes, `EINVAL` or `E2BIG`
/// before Linux 5.7.
pub fn fork_into_cgroup(group: BorrowedFd<'_>) -> io::Result<Fork> {
    clone(0, Some(group))
}

/// Copies the calling process into new user, mount, pid, ipc, uts and cgroup namespaces, and a
/// network namespace if asked for, and right into a control group if one is given (see
/// [`fork_into_cgroup`]): the child is the first process of its pid namespace and holds all
/// capabilities in its user namespace, but no id is mapped yet.
///
/// Like [`process::fork`](super::process::fork), and with the same precondition: the caller has one
/// thread.
///
/// # Errors
/// `EPERM` where user namespaces are forbidden to ordinary users, `ENOSPC` when there are as many as
/// allowed (or 0 are), `EAGAIN` at a limit of processes, `ENOSYS` before Linux 5.3.
pub fn fork_into_new(network: bool, group: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | if network { libc::CLONE_NEWNET } else { 0 };
    clone(flags, group)
}

fn clone(flags: libc::c_int, group: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    /// `CLONE_INTO_CGROUP`; beyond the flags that clone(2) has.
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut args = CloneArgs {
        flags: u64::from(flags.cast_unsigned()),
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        ..CloneArgs::default()
    };
    let mut size = FIRST_VERSION;
    if let Some(group) = group {
        args.flags |= INTO_CGROUP;
        args.cgroup = u64::from(group.as_raw_fd().cast_unsigned());
        size = std::mem::size_of_val(&args);
    }
    // SAFETY: `args` is valid for reading and not smaller than the size given. Without CLONE_VM the child gets a
    // copy of the whole address space, and with a null stack it goes on using the (copied) stack of
    // the caller; so both sides return from here like from fork(2). That the caller is
    // single-threaded is the documented precondition.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size) };
    match pid {
        0 => Ok(Fork::Child),
        -1 => Err(io::Error::last_os_error()),
        pid => Pid::try_from(pid).map(Fork::Parent).map_err(io::Error::other),
    }
}

/// Writes a whole setting of `/proc` in one call, as the kernel demands of most of them.
///
/// # Errors
/// open(2), write(2).
pub fn write_setting(path: &Path, value: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let count = file.write(value.as_bytes())?;
    if count == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Sets the name of the machine in this uts namespace (sethostname(2)).
///
/// # Errors
/// `EINVAL` above 64 bytes, `EPERM` without the capability.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Brings the loopback device of this network namespace up (netdevice(7)); the kernel then gives it
/// its addresses.
///
/// # Errors
/// `EPERM` without the capability.
pub fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all bytes zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: SIOCSIFFLAGS reads an ifreq with the name (NUL-terminated, the rest is zero) and the
    // flags set, which `request` is for the duration of the call.
    let done = unsafe {
        libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
