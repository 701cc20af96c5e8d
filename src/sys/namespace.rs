//! Namespaces (namespaces(7)): a child in new ones, and what is set inside them.
#![expect(unsafe_code, reason = "clone3 and the interface ioctl have no wrapper")]

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::process::{Fork, Pid};

/// `struct clone_args` of its first version (clone3(2), Linux 5.3).
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
}

/// Copies the calling process into new user, mount, pid, ipc, uts and cgroup namespaces, and a
/// network namespace if asked for: the child is the first process of its pid namespace and holds all
/// capabilities in its user namespace, but no id is mapped yet.
///
/// Like [`process::fork`](super::process::fork), and with the same precondition: the caller has one
/// thread.
///
/// # Errors
/// `EPERM` where user namespaces are forbidden to ordinary users, `ENOSPC` when there are as many as
/// allowed (or 0 are), `EAGAIN` at a limit of processes, `ENOSYS` before Linux 5.3.
pub fn fork_into_new(network: bool) -> io::Result<Fork> {
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | if network { libc::CLONE_NEWNET } else { 0 };
    let args = CloneArgs {
        flags: u64::from(flags.cast_unsigned()),
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        ..CloneArgs::default()
    };
    // SAFETY: `args` is valid for reading and of the size given. Without CLONE_VM the child gets a
    // copy of the whole address space, and with a null stack it goes on using the (copied) stack of
    // the caller; so both sides return from here like from fork(2). That the caller is
    // single-threaded is the documented precondition.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const args, std::mem::size_of_val(&args)) };
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
