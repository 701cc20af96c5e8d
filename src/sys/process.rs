//! Processes: fork, exec, wait, pidfds, prctl, sessions.
#![expect(unsafe_code, reason = "system calls that nix has no safe function for")]

use std::ffi::CStr;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A process id of a process, never a thread or group; always positive.
pub type Pid = u32;

/// Where a fork came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// In the parent, with the child's id.
    Parent(Pid),
    /// In the child.
    Child,
}

/// Whose child a fork makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentOf {
    /// The caller's own, as fork(2).
    Caller,
    /// The caller's parent's (`CLONE_PARENT`, clone(2)): a sibling of the caller. Its death is
    /// signalled as the caller's would be.
    CallersParent,
}

/// Copies the calling process.
///
/// The caller must be single-threaded: the child holds only the calling thread, and locks that
/// others held (malloc's, say) stay held for ever. The launcher and the shims never start a thread,
/// and nothing else calls this.
///
/// libc's fork handlers don't run, and its cached thread id is the parent's; neither is used by the
/// code that runs in the child.
///
/// # Errors
/// `EAGAIN` at a limit of processes, `ENOMEM`.
pub fn fork(parent: ParentOf) -> io::Result<Fork> {
    let flags = match parent {
        ParentOf::Caller => libc::SIGCHLD,
        // The kernel takes the exit signal from the caller in this case.
        ParentOf::CallersParent => libc::CLONE_PARENT,
    };
    // SAFETY: without CLONE_VM the child gets a copy of the whole address space, and with a null
    // stack it goes on using the (copied) stack of the caller; so both sides return from here like
    // from fork(2). No pointer argument is used with these flags. That the caller is single-threaded
    // is the documented precondition, and what it breaks otherwise is liveness, not memory.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    match pid {
        0 => Ok(Fork::Child),
        -1 => Err(io::Error::last_os_error()),
        pid => Pid::try_from(pid).map(Fork::Parent).map_err(io::Error::other),
    }
}

/// Whether a child of [`fork_borrowing`] has left the memory it borrowed in order: it was about to
/// exec or to exit. Static, because it is set on the last lines of [`exec`] and [`exit_now`].
static LEFT_IN_ORDER: AtomicBool = AtomicBool::new(false);

/// Bytes of the stack of a child of [`fork_borrowing`], and of what guards it.
const BORROWED_STACK: usize = 512 * 1024;
const GUARD: usize = 64 * 1024;

/// Runs `child` in a new process that uses this one's memory while this one stands still, until the
/// child calls exec or exits (`CLONE_VM | CLONE_VFORK`, clone(2), as posix_spawn(3) does it). That
/// spares copying the memory and touching it anew, which is most of what a fork costs.
///
/// The caller must be single-threaded, with every signal blocked: a handler would run in memory that
/// is not its own. Descriptors, directory, credentials and limits are the child's own, so what
/// `child` closes stays open here. It owns nothing: what it drops is gone for this process as well.
///
/// A child that is killed on the way may leave the allocator's books half-written, and nothing could
/// be trusted any more: then this process exits, too.
///
/// # Errors
/// `EAGAIN` at a limit of processes, `ENOMEM`.
pub fn fork_borrowing<F: FnMut()>(mut child: F) -> io::Result<Pid> {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

    extern "C" fn enter<F: FnMut()>(child: *mut libc::c_void) -> libc::c_int {
        // SAFETY: it is the closure below, of this type, alive and unused while its owner waits.
        let child = unsafe { &mut *child.cast::<F>() };
        child();
        // It was to exec or exit.
        exit_now(1)
    }

    let size = NonZeroUsize::MIN.saturating_add(BORROWED_STACK + GUARD - 1);
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_STACK | MapFlags::MAP_NORESERVE;
    // SAFETY: a fresh private mapping at an address of the kernel's choice.
    let base =
        unsafe { mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags)? };
    // SAFETY: the first bytes of the mapping just made, which nothing uses. Stacks grow down.
    let guarded = unsafe { mprotect(base, GUARD, ProtFlags::PROT_NONE) };
    // SAFETY: one past the end of the mapping just made; page-aligned, as the stack must be.
    let top = unsafe { base.as_ptr().byte_add(size.get()) };
    LEFT_IN_ORDER.store(false, Ordering::SeqCst);
    let started = guarded.map_err(io::Error::from).and_then(|()| {
        // SAFETY: the child runs `enter` on a stack of its own, which stays mapped until it has left
        // this memory: with CLONE_VFORK the call returns only then. The closure lives as long, and
        // nobody else looks at it. `enter` never returns. One thread and blocked signals: see above.
        let pid = unsafe {
            libc::clone(
                enter::<F>,
                top,
                libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
                (&raw mut child).cast(),
            )
        };
        if pid == -1 { Err(io::Error::last_os_error()) } else { Ok(pid) }
    });
    if started.is_ok() && !LEFT_IN_ORDER.load(Ordering::SeqCst) {
        exit_now(1);
    }
    // SAFETY: nobody is on that stack any more, and no reference into it was kept.
    unsafe { munmap(base, size.get()) }?;
    Pid::try_from(started?).map_err(io::Error::other)
}

/// Ends the process at once: no destructors, no exit handlers of the parent's program.
pub fn exit_now(code: i32) -> ! {
    LEFT_IN_ORDER.store(true, Ordering::SeqCst);
    // SAFETY: _exit(2) has no preconditions and doesn't return.
    unsafe { libc::_exit(code) }
}

/// A vector of C strings for exec, with its pointers laid out in advance.
#[derive(Debug)]
pub struct ExecVector {
    strings: Vec<std::ffi::CString>,
}

impl ExecVector {
    /// Takes the strings.
    ///
    /// # Errors
    /// `EINVAL` if one holds a NUL byte.
    pub fn new(strings: impl IntoIterator<Item = Vec<u8>>) -> io::Result<Self> {
        let strings = strings
            .into_iter()
            .map(std::ffi::CString::new)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        Ok(Self { strings })
    }

    fn pointers(&self) -> Vec<*const libc::c_char> {
        let mut list: Vec<_> = self.strings.iter().map(|s| s.as_ptr()).collect();
        list.push(std::ptr::null());
        list
    }
}

/// Replaces the program of this process; returns only an error. execve(2).
#[must_use]
pub fn exec(path: &CStr, argv: &ExecVector, envp: &ExecVector) -> io::Error {
    let (argv, envp) = (argv.pointers(), envp.pointers());
    LEFT_IN_ORDER.store(true, Ordering::SeqCst);
    // SAFETY: `path` is NUL-terminated; both arrays are null-terminated, and their strings are
    // borrowed from `argv` and `envp`, which outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    LEFT_IN_ORDER.store(false, Ordering::SeqCst);
    io::Error::last_os_error()
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It returned this code, 0 to 255.
    Exited(i32),
    /// A signal killed it.
    Signaled(i32),
}

/// Which children a wait is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Any.
    Any,
    /// One.
    One(Pid),
}

/// Reaps one child that has ended, if there is one now: `waitid(WEXITED | WNOHANG | __WALL)`.
///
/// # Errors
/// `ECHILD` when there is no such child, living or dead.
pub fn reap(which: Which) -> io::Result<Option<(Pid, End)>> {
    wait(which, libc::WNOHANG)
}

/// Reaps one child, waiting for it.
///
/// # Errors
/// As [`reap`].
pub fn reap_blocking(which: Which) -> io::Result<(Pid, End)> {
    loop {
        if let Some(ended) = wait(which, 0)? {
            return Ok(ended);
        }
    }
}

/// Waits until a child has ended, and leaves it unreaped (`WNOWAIT`): its id stays taken.
///
/// # Errors
/// As [`reap`].
pub fn await_end(which: Which) -> io::Result<(Pid, End)> {
    loop {
        if let Some(ended) = wait(which, libc::WNOWAIT)? {
            return Ok(ended);
        }
    }
}

/// SIGKILL for every process of this pid namespace but the caller, which is its first: kill(2).
/// Atomic against forks in it.
///
/// Does nothing in any other process: there it would mean every process of the user.
pub fn kill_namespace() {
    if own_pid() == 1 {
        // SAFETY: kill(2) takes two integers; -1 means this pid namespace, as just checked.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}

fn wait(which: Which, flags: i32) -> io::Result<Option<(Pid, End)>> {
    let (kind, id) = match which {
        Which::Any => (libc::P_ALL, 0),
        Which::One(pid) => (libc::P_PID, pid),
    };
    // SAFETY: all bytes zero is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `info` is valid for writing for the duration of the call.
        let done =
            unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | libc::__WALL | flags) };
        if done == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: waitid(2) fills in the SIGCHLD fields, or (with WNOHANG) leaves si_pid zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let end = match info.si_code {
        libc::CLD_EXITED => End::Exited(status),
        _ => End::Signaled(status),
    };
    Ok(Some((Pid::try_from(pid).map_err(io::Error::other)?, end)))
}

/// Opens a pidfd (pidfd_open(2), Linux 5.3). It names this process even after its id is used again.
///
/// # Errors
/// `ESRCH` if there is none.
pub fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us, close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal by pidfd (pidfd_send_signal(2), Linux 5.1); 0 only checks.
///
/// # Errors
/// `ESRCH` if the process was reaped, `EPERM` if it may not be signalled.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the siginfo pointer may be null; the rest are integers.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<()>(),
            0,
        )
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Signals a process group. Only for the holder of its unreaped leader: until then the id can't be
/// used again.
///
/// # Errors
/// `ESRCH`, `EPERM`, `EINVAL`; kill(2).
pub fn signal_group(leader: Pid, signal: i32) -> io::Result<()> {
    let group = libc::pid_t::try_from(leader).map_err(io::Error::other)?;
    // SAFETY: kill(2) takes two integers. A group of 0 or 1 is never meant: it would be "mine" or
    // "everything".
    let done = if group > 1 { unsafe { libc::kill(-group, signal) } } else { -1 };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The calling process's id.
#[must_use]
pub fn own_pid() -> Pid {
    std::process::id()
}

/// The parent's id, 0 if it is outside of this pid namespace.
#[must_use]
pub fn parent_pid() -> Pid {
    std::os::unix::process::parent_id()
}

/// Orphaned descendants become children of this process (`PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Nobody without privilege may trace this process or read its memory (`PR_SET_DUMPABLE` 0); its
/// `/proc` entry belongs to root until it calls exec.
///
/// # Errors
/// prctl(2).
pub fn become_undumpable() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// Undoes [`become_undumpable`]: the `/proc` entry belongs to the process's user again.
///
/// # Errors
/// prctl(2).
pub fn become_dumpable() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(true)?)
}

/// No exec gains privileges any more (`PR_SET_NO_NEW_PRIVS`); can't be undone.
///
/// # Errors
/// prctl(2).
pub fn no_new_privs() -> io::Result<()> {
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

/// SIGKILL for this process when the thread that forked it ends (`PR_SET_PDEATHSIG`). If the parent
/// may be gone already, compare [`parent_pid`] afterwards.
///
/// # Errors
/// prctl(2).
pub fn die_with_parent() -> io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?)
}

/// Sets the name that `ps` shows (`PR_SET_NAME`, 15 bytes).
///
/// # Errors
/// prctl(2).
pub fn set_name(name: &CStr) -> io::Result<()> {
    Ok(nix::sys::prctl::set_name(name)?)
}

/// A session and process group of its own, without a controlling terminal (setsid(2)).
///
/// # Errors
/// `EPERM` for a group leader.
pub fn new_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    Ok(())
}

/// Marks every descriptor from `first` on as close-on-exec (close_range(2), Linux 5.11).
///
/// # Errors
/// `EINVAL` on an older kernel.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on (close_range(2), Linux 5.9).
///
/// Only for a fresh process that holds no owner of such a descriptor; the launcher calls it on entry.
///
/// # Errors
/// `ENOSYS` on an older kernel.
pub fn close_from(first: u32) -> io::Result<()> {
    close_range(first, 0)
}

/// Closes every descriptor but one (close_range(2), Linux 5.9).
///
/// Only for a process that never again uses an owner of another one.
///
/// # Errors
/// `ENOSYS` on an older kernel.
pub fn close_all_but(kept: BorrowedFd<'_>) -> io::Result<()> {
    let kept = kept.as_raw_fd().cast_unsigned();
    if kept > 0 {
        close_between(0, kept - 1, 0)?;
    }
    close_from(kept + 1)
}

fn close_range(first: u32, flags: libc::c_uint) -> io::Result<()> {
    close_between(first, libc::c_uint::MAX, flags)
}

fn close_between(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: close_range(2) takes integers. Closing descriptors that a Rust value owns would be
    // wrong; that is the documented precondition of those who close.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts descriptors in the place of 0, 1 and 2, inheritable.
///
/// # Errors
/// dup2(2).
pub fn set_stdio(
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    error: BorrowedFd<'_>,
) -> io::Result<()> {
    // A source that is itself 0, 1 or 2 could be overwritten before its turn: move those up first.
    let high = |fd: BorrowedFd<'_>| -> io::Result<OwnedFd> {
        // SAFETY: F_DUPFD_CLOEXEC takes an integer and makes a new descriptor, owned by nobody yet.
        unsafe {
            let new = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3);
            if new < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(new)) }
        }
    };
    let sources = [high(input)?, high(output)?, high(error)?];
    for (source, target) in sources.iter().zip(0..) {
        // SAFETY: dup2(2) takes two descriptors; 0, 1 and 2 belong to the process as a whole, not
        // to a Rust owner.
        if unsafe { libc::dup2(source.as_raw_fd(), target) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Puts `/dev/null` in the place of standard input and output.
///
/// # Errors
/// open(2), dup2(2).
pub fn leave_stdio() -> io::Result<()> {
    use std::os::fd::AsFd;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    set_stdio(null.as_fd(), null.as_fd(), std::io::stderr().as_fd())
}

/// Takes descriptor `number`, which this program was started with, as its owner.
///
/// # Errors
/// `EBADF` if it isn't open. To be called once per number.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD on an arbitrary number fails with EBADF at worst.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open (just checked), and by the documented precondition nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes an exclusive lock on an open file (flock(2)). It belongs to the open file description:
/// copies made by fork hold the same lock, and it goes when the last of them is closed.
///
/// # Errors
/// `EWOULDBLOCK` if `wait` is false and another holds it.
pub fn lock_exclusive(file: BorrowedFd<'_>, wait: bool) -> io::Result<()> {
    let flags = libc::LOCK_EX | if wait { 0 } else { libc::LOCK_NB };
    // SAFETY: flock(2) takes two integers.
    if unsafe { libc::flock(file.as_raw_fd(), flags) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What this process's reaped descendants used in total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Largest resident set of one process, bytes.
    pub max_rss: u64,
}

/// Resources used by children that were waited for, and theirs (getrusage(2), `RUSAGE_CHILDREN`).
///
/// # Errors
/// getrusage(2).
pub fn children_usage() -> io::Result<Usage> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let time = |t: nix::sys::time::TimeVal| {
        Duration::from_micros(
            u64::try_from(t.tv_sec()).unwrap_or(0) * 1_000_000
                + u64::try_from(t.tv_usec()).unwrap_or(0),
        )
    };
    Ok(Usage {
        user: time(usage.user_time()),
        system: time(usage.system_time()),
        max_rss: u64::try_from(usage.max_rss()).unwrap_or(0) * 1024,
    })
}

/// Starts a program from a process that may have threads (posix_spawn(3), which shares memory with
/// the child until exec and runs no code of ours in it).
///
/// The child gets `channel` as descriptor 3, `/dev/null` as 0 to 2, no environment, every signal at
/// its default and all signals blocked, so that nothing can hit it before it is ready.
///
/// # Errors
/// Those of posix_spawn(3), the exec's included.
pub fn spawn(path: &CStr, argv: &[&CStr], channel: BorrowedFd<'_>) -> io::Result<Pid> {
    use nix::fcntl::OFlag;
    use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
    use nix::sys::signal::SigSet;
    use nix::sys::stat::Mode;

    let mut actions = PosixSpawnFileActions::init()?;
    // The channel first: were it 0 to 2, opening those would replace it. If it is 3 already, libc
    // clears its close-on-exec flag.
    actions.add_dup2(channel.as_raw_fd(), 3)?;
    for fd in 0..3 {
        actions.add_open(fd, c"/dev/null", OFlag::O_RDWR, Mode::empty())?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::all())?;
    let pid = posix_spawn(path, &actions, &attributes, argv, &[] as &[&CStr])?;
    Pid::try_from(pid.as_raw()).map_err(io::Error::other)
}
