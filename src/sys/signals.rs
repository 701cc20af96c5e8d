//! Signal dispositions, masks, and SIGCHLD as a descriptor.
#![expect(unsafe_code, reason = "sigaction has no safe function for real-time signals")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
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

/// Undoes what Rust's start-up does to SIGPIPE, for what this process runs. Other dispositions are the
/// caller's choice (`nohup`) and stay.
///
/// # Errors
/// sigaction(2).
pub fn restore_sigpipe() -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action installs no code of ours.
    unsafe { sigaction(Signal::SIGPIPE, &default) }?;
    Ok(())
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

/// A signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its number.
    pub signal: i32,
    /// A process sent it; otherwise the kernel did, for the terminal for instance.
    pub from_process: bool,
}

/// All signals that arrive, one after the other (signalfd(2)), except those by which a terminal stops
/// and continues a job: they do what they always do.
#[derive(Debug)]
pub struct Arrivals(SignalFd);

impl Arrivals {
    /// Blocks the signals for this thread and opens the queue. SIGCHLD is among them even if it was
    /// ignored.
    ///
    /// # Errors
    /// sigprocmask(2), sigaction(2), signalfd(2).
    pub fn new() -> io::Result<Self> {
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: the default action installs no code of ours.
        unsafe { sigaction(Signal::SIGCHLD, &default) }?;
        let mut set = SigSet::all();
        for stop in [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGCONT] {
            set.remove(stop);
        }
        set.thread_set_mask()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?))
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// read(2).
    pub fn next(&self) -> io::Result<Arrival> {
        loop {
            match self.0.read_signal() {
                Ok(Some(info)) => {
                    let signal = info.ssi_signo.cast_signed();
                    return Ok(Arrival { signal, from_process: info.ssi_code <= libc::SI_USER });
                }
                Ok(None) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
