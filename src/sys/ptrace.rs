//! Watching the system calls of other processes (ptrace(2)).
//!
//! By `PTRACE_SEIZE`, which leaves signals and job control of the watched as they are.
#![expect(unsafe_code, reason = "nix has neither PTRACE_GET_SYSCALL_INFO nor seize with waitid")]

use std::io;

use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid as NixPid;

use super::process::{End, Pid};

/// What happened to a watched process, or to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is about to make a system call, or has made one: ask [`system_call`] which.
    SystemCall,
    /// A signal is about to reach it; to be handed on by [`resume`].
    Signal(i32),
    /// It is stopped by a signal, as a job; to be left so by [`leave_stopped`].
    Stopped,
    /// Something else that needs no answer but to go on: an exec, a fork, its first stop.
    Event,
    /// It has ended, and was reaped.
    Ended(End),
}

/// One side of a system call (`struct ptrace_syscall_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemCall {
    /// It is about to be made.
    Entry {
        /// `AUDIT_ARCH_*`.
        arch: u32,
        /// Its number.
        number: u64,
        /// Its arguments.
        args: [u64; 6],
    },
    /// It was made.
    Exit {
        /// What it returned: minus errno for an error.
        value: i64,
        /// It failed.
        failed: bool,
    },
    /// Neither.
    None,
}

/// `PTRACE_GET_SYSCALL_INFO` (Linux 5.3).
const GET_SYSCALL_INFO: libc::c_uint = 0x420e;

/// `struct ptrace_syscall_info`: 8 words of the union after a head of 24 bytes.
#[repr(C)]
#[derive(Default)]
struct Info {
    op: u8,
    _pad: [u8; 3],
    arch: u32,
    _ip: u64,
    _sp: u64,
    words: [u64; 8],
}

fn nix_pid(pid: Pid) -> io::Result<NixPid> {
    Ok(NixPid::from_raw(i32::try_from(pid).map_err(io::Error::other)?))
}

/// Watches a process and all that it will fork; it runs on. They are killed when the caller ends.
///
/// # Errors
/// `EPERM` if it may not be traced, or is traced already; `ESRCH`.
pub fn seize(pid: Pid) -> io::Result<()> {
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    Ok(ptrace::seize(nix_pid(pid)?, options)?)
}

/// Stops a watched process: [`Change::Event`] follows.
///
/// # Errors
/// `ESRCH`.
pub fn interrupt(pid: Pid) -> io::Result<()> {
    Ok(ptrace::interrupt(nix_pid(pid)?)?)
}

/// Lets a stopped one go on to its next system call, with a signal or with 0 for none.
///
/// # Errors
/// `ESRCH` if it was killed meanwhile.
pub fn resume(pid: Pid, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: PTRACE_SYSCALL takes a pid, an ignored address and a signal number in the place of data.
    let done = unsafe {
        libc::ptrace(
            libc::PTRACE_SYSCALL,
            pid,
            std::ptr::null_mut::<libc::c_void>(),
            libc::c_long::from(signal) as *mut libc::c_void,
        )
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Leaves one stopped that a signal has stopped, until SIGCONT.
///
/// # Errors
/// `ESRCH` if it was killed meanwhile.
pub fn leave_stopped(pid: Pid) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: PTRACE_LISTEN takes a pid and two ignored arguments.
    let done = unsafe { libc::ptrace(libc::PTRACE_LISTEN, pid, none, none) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The next change, if there is one now.
///
/// # Errors
/// `ECHILD` when nobody is left, neither child nor watched.
pub fn next() -> io::Result<Option<(Pid, Change)>> {
    // SAFETY: all bytes zero is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::__WALL;
    // SAFETY: `info` is valid for writing for the duration of the call.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid(2) fills in the SIGCHLD fields, or (with WNOHANG) leaves si_pid zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let pid = Pid::try_from(pid).map_err(io::Error::other)?;
    let (signal, event) = (status & 0xff, status >> 8);
    let stops = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal);
    let change = match info.si_code {
        libc::CLD_EXITED => Change::Ended(End::Exited(status)),
        libc::CLD_KILLED | libc::CLD_DUMPED => Change::Ended(End::Signaled(status)),
        _ if signal == libc::SIGTRAP | 0x80 => Change::SystemCall,
        _ if event == libc::PTRACE_EVENT_STOP && stops => Change::Stopped,
        _ if event != 0 => Change::Event,
        libc::CLD_TRAPPED => Change::Signal(signal),
        _ => Change::Event,
    };
    Ok(Some((pid, change)))
}

/// Which system call a process stopped by [`Change::SystemCall`] is in.
///
/// # Errors
/// `ESRCH` if it was killed meanwhile.
pub fn system_call(pid: Pid) -> io::Result<SystemCall> {
    const ENTRY: u8 = 1;
    const EXIT: u8 = 2;
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    let mut info = Info::default();
    let size = std::mem::size_of::<Info>();
    // SAFETY: the kernel writes at most `size` bytes to `info`, which is as large and valid for
    // writing; every bit pattern is a valid value of it.
    let done =
        unsafe { libc::ptrace(GET_SYSCALL_INFO, pid, size as *mut libc::c_void, &raw mut info) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    let [first, args @ ..] = info.words;
    Ok(match info.op {
        ENTRY => {
            let [a, b, c, d, e, f, _] = args;
            SystemCall::Entry { arch: info.arch, number: first, args: [a, b, c, d, e, f] }
        }
        EXIT => SystemCall::Exit { value: first.cast_signed(), failed: args[0] & 0xff != 0 },
        _ => SystemCall::None,
    })
}

/// Reads memory of a watched process, up to the end of what is mapped there.
///
/// # Errors
/// `EFAULT` if nothing is, `ESRCH`.
pub fn read(pid: Pid, address: u64, length: usize) -> io::Result<Vec<u8>> {
    const PAGE: u64 = 4096;
    let base = usize::try_from(address).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    // In pieces that end with a page: a read that runs into a hole gives what is before it.
    let first = usize::try_from(PAGE - address % PAGE).map_err(io::Error::other)?.min(length);
    let remote = [
        nix::sys::uio::RemoteIoVec { base, len: first },
        nix::sys::uio::RemoteIoVec { base: base.saturating_add(first), len: length - first },
    ];
    let count = nix::sys::uio::process_vm_readv(
        nix_pid(pid)?,
        &mut [io::IoSliceMut::new(&mut bytes)],
        &remote,
    )?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Reads a string of a watched process, without its final NUL, of at most `most` bytes.
///
/// # Errors
/// As [`read`].
pub fn read_string(pid: Pid, address: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = read(pid, address, most)?;
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    Ok(bytes)
}
