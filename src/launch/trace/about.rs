//! What a system call is about: its paths and addresses, read from the caller's memory.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::policy::why::{Attempt, Call, call_name};
use crate::sys::process::Pid;
use crate::sys::ptrace;

/// `PATH_MAX`.
const MOST_PATH: usize = 4096;
/// Bytes of the largest `sockaddr`.
const MOST_ADDRESS: usize = 128;

/// What a call was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The call's name.
    pub name: &'static str,
    /// What it was to reach.
    pub targets: Vec<Target>,
}

/// Something that a call was to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A path, absolute, as it is called inside, and what was tried on it.
    Path(PathBuf, Attempt),
    /// An address of the network.
    Address(String),
    /// Another process or thread.
    Process,
}

/// Where a call has a path: which argument, which one holds the directory, and what it is for.
struct Place {
    path: usize,
    directory: Option<usize>,
    attempt: Attempt,
}

const fn at(path: usize, attempt: Attempt) -> Place {
    Place { path, directory: None, attempt }
}

const fn beside(directory: usize, path: usize, attempt: Attempt) -> Place {
    Place { path, directory: Some(directory), attempt }
}

fn places(name: &str, call: &Call, pid: Pid) -> Vec<Place> {
    use Attempt::{Execute, Read, Write};
    let flags = |flags: u64| {
        let flags = i32::try_from(flags & 0xffff_ffff).unwrap_or(0);
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY
            || flags & (libc::O_CREAT | libc::O_TRUNC) != 0;
        if writes { Write } else { Read }
    };
    let [_, second, third, ..] = call.args;
    match name {
        "open" => vec![at(0, flags(second))],
        "openat" => vec![beside(0, 1, flags(third))],
        "openat2" => {
            let how = ptrace::read(pid, third, 8).ok().and_then(|b| b.try_into().ok());
            vec![beside(0, 1, flags(how.map_or(0, u64::from_le_bytes)))]
        }
        "stat" | "lstat" | "access" | "readlink" | "statfs" | "chdir" | "getxattr"
        | "lgetxattr" | "listxattr" | "llistxattr" => vec![at(0, Read)],
        "newfstatat" | "statx" | "faccessat" | "faccessat2" | "readlinkat" => {
            vec![beside(0, 1, Read)]
        }
        "inotify_add_watch" => vec![at(1, Read)],
        "execve" => vec![at(0, Execute)],
        "execveat" => vec![beside(0, 1, Execute)],
        "creat" | "mkdir" | "rmdir" | "unlink" | "truncate" | "chmod" | "chown" | "lchown"
        | "mknod" | "utime" | "utimes" | "setxattr" | "lsetxattr" | "removexattr" => {
            vec![at(0, Write)]
        }
        "mkdirat" | "unlinkat" | "fchmodat" | "fchmodat2" | "fchownat" | "mknodat"
        | "utimensat" | "futimesat" => vec![beside(0, 1, Write)],
        "rename" | "link" => vec![at(0, Write), at(1, Write)],
        "renameat" | "renameat2" => vec![beside(0, 1, Write), beside(2, 3, Write)],
        "linkat" => vec![beside(0, 1, Read), beside(2, 3, Write)],
        "symlink" => vec![at(1, Write)],
        "symlinkat" => vec![beside(1, 2, Write)],
        _ => Vec::new(),
    }
}

impl Subject {
    /// Reads it, while the caller is stopped at the end of the call.
    pub(super) fn of(pid: Pid, call: &Call) -> Self {
        let name = call_name(call).unwrap_or("?");
        let mut targets = Vec::new();
        for Place { path, directory, attempt } in places(name, call, pid) {
            let directory = directory.and_then(|index| call.args.get(index)).copied();
            let read = call.args.get(path).and_then(|at| read_path(pid, *at, directory));
            targets.extend(read.map(|path| Target::Path(path, attempt)));
        }
        let [_, second, _, _, fifth, sixth] = call.args;
        let address = match name {
            "connect" | "bind" => Some((second, call.args[2])),
            "sendto" => Some((fifth, sixth)),
            "sendmsg" => message_name(pid, second),
            _ => None,
        };
        targets.extend(address.and_then(|(at, length)| read_address(pid, at, length)));
        if matches!(
            name,
            "kill"
                | "tgkill"
                | "tkill"
                | "ptrace"
                | "process_vm_readv"
                | "process_vm_writev"
                | "pidfd_open"
                | "pidfd_send_signal"
                | "prlimit64"
                | "sched_setaffinity"
                | "setpriority"
        ) {
            targets.push(Target::Process);
        }
        Self { name, targets }
    }
}

/// A path argument, made absolute by the caller's own directory or descriptor.
fn read_path(pid: Pid, at: u64, directory: Option<u64>) -> Option<PathBuf> {
    let text = ptrace::read_string(pid, at, MOST_PATH).ok()?;
    let path = PathBuf::from(OsString::from_vec(text));
    if path.is_absolute() {
        return Some(path);
    }
    // Descriptors are ints: the upper half of the register is of no meaning.
    let descriptor = directory.map(|number| (number & 0xffff_ffff) as u32 as i32);
    let base = match descriptor {
        Some(number) if number != libc::AT_FDCWD => format!("/proc/{pid}/fd/{number}"),
        _ => format!("/proc/{pid}/cwd"),
    };
    let base = fs::read_link(base).ok().filter(|base| base.is_absolute())?;
    Some(if path.as_os_str().is_empty() { base } else { base.join(path) })
}

/// The address of a message: pointer and length (`struct msghdr`).
fn message_name(pid: Pid, at: u64) -> Option<(u64, u64)> {
    let bytes = ptrace::read(pid, at, 16).ok()?;
    let (name, length) = bytes.split_first_chunk::<8>()?;
    let length = length.first_chunk::<4>()?;
    Some((u64::from_le_bytes(*name), u64::from(u32::from_le_bytes(*length))))
}

fn read_address(pid: Pid, at: u64, length: u64) -> Option<Target> {
    let length = usize::try_from(length).ok()?.min(MOST_ADDRESS);
    if at == 0 || length < 2 {
        return None;
    }
    let bytes = ptrace::read(pid, at, length).ok()?;
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let port = || Some(u16::from_be_bytes(*rest.first_chunk::<2>()?));
    match i32::from(u16::from_le_bytes(*family)) {
        libc::AF_UNIX => {
            let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            match rest.get(..end) {
                Some(path) if !path.is_empty() => {
                    let path = Path::new(&OsString::from_vec(path.to_vec())).to_path_buf();
                    Some(Target::Path(path, Attempt::Write))
                }
                _ => Some(Target::Address("abstract Unix socket".into())),
            }
        }
        libc::AF_INET => {
            let ip = Ipv4Addr::from(*rest.get(2..)?.first_chunk::<4>()?);
            Some(Target::Address(format!("{ip}:{}", port()?)))
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(*rest.get(6..)?.first_chunk::<16>()?);
            Some(Target::Address(format!("[{ip}]:{}", port()?)))
        }
        _ => None,
    }
}
