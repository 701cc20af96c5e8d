//! System calls as safe functions; the only place with `unsafe`.
//!
//! Descriptors go in as `BorrowedFd` and come out as `OwnedFd`, always close-on-exec; errors are
//! `io::Error` with the errno kept. It deliberately holds no policy: which process to signal, which
//! rights to drop and what to do about an error is decided above.
//!
//! Each file that needs `unsafe` says so on its first line; [`procfs`] needs none.

pub mod capabilities;
pub mod channel;
pub mod clock;
pub mod landlock;
pub mod memfd;
pub mod mount;
pub mod namespace;
pub mod peer;
pub mod process;
pub mod procfs;
pub mod ptrace;
pub mod rlimit;
pub mod seccomp;
pub mod signals;
pub mod socket;
pub mod timer;
pub mod watch;
