//! Signal dispositions, masks, and SIGCHLD as a descriptor.
#![expect(unsafe_code, reason = "sigaction has no safe function for real-time signals")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Sets every signal to its default action, real-time ones included.
///
/// A program inherits what is ignored: SIGCHLD ignored breaks waiting, and Rust's own start-up
/// ignores SIGPIPE, which would change how a payload's pipelines end.
pub fn reset_dispositions() {
    /// `struct sigaction` of the kernel, with room to spare: all zero is SIG_DFL without flags.
    static DEFAULT: [u64; 8] = [0; 8];
    /// Bytes of the kernel's signal set: one bit each for 64 signals.
    const SET_BYTES: usize = 8;
    for number in 1..=64 {
        // By the system call, since libc keeps 32 and 33 to itself, and posix_spawn(3) starts a
        // program with those two ignored. SIGKILL and SIGSTOP say EINVAL.
        // SAFETY: `DEFAULT` is at least as large as the kernel's structure and lives for ever; the
        // default action installs no code of ours; a null pointer for the old one is allowed.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                DEFAULT.as_ptr(),
                std::ptr::null::<u64>(),
                SET_BYTES,
            );
        }
    }
}

/// Blocks every signal that can be blocked, for this thread and what it forks.
///
/// # Errors
/// sigprocmask(2).
pub fn block_all() -> io::Result<()> {
    Ok(SigSet::all().thread_set_mask()?)
}

/// Blocks none.
///
/// # Errors
/// sigprocmask(2).
pub fn unblock_all() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Readable when a child has ended (signalfd(2)). SIGCHLD must be blocked.
#[derive(Debug)]
pub struct ChildEvents(SignalFd);

impl ChildEvents {
    /// Opens it.
    ///
    /// # Errors
    /// signalfd(2).
    pub fn new() -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Takes what is pending. One signal may stand for many children: reap until there is none.
    ///
    /// # Errors
    /// read(2).
    pub fn drain(&self) -> io::Result<()> {
        while self.0.read_signal()?.is_some() {}
        Ok(())
    }
}

impl AsFd for ChildEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
