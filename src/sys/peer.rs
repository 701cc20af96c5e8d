//! Who is on the other side of a Unix socket, by the kernel's word: the process, its ancestors, its
//! user and whether it runs under `no_new_privs`.
//!
//! A process is named by its id *and* its start time. The chain of ancestors is read twice through
//! directory descriptors of `/proc`, which, like pidfds, stay with one process and never with a
//! recycled id; only two identical readings count. While a process lives, a dead parent of it shows
//! as another parent; so what is accepted was true at one moment between the two readings.
//!
//! Since Linux 6.5 the peer itself is held by a pidfd (`SO_PEERPIDFD`, unix(7)). Before, there is only
//! its id: a process that takes over the very id between connect and check would be taken for it.
//!
//! What it deliberately does not do: judge. Which chain makes an agent or an operator is decided in
//! `bus::identity`.
#![expect(unsafe_code, reason = "nix has no SO_PEERPIDFD")]

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::Mode;

use super::procfs::{self, Stat};

/// `SO_PEERPIDFD` of include/uapi/asm-generic/socket.h, Linux 6.5.
const SO_PEERPIDFD: libc::c_int = 77;

/// No chain of ancestors is longer in earnest.
const MAX_DEPTH: usize = 1_024;

/// How often a chain that changes under our eyes is read anew.
const ATTEMPTS: usize = 4;

/// A process, named for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Its id.
    pub pid: u32,
    /// Its start, in clock ticks since boot (field 22 of proc_pid_stat(5)).
    pub start: u64,
}

/// The other side of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The effective user when it connected.
    pub uid: u32,
    /// Whether it is under `no_new_privs`, now and for ever.
    pub no_new_privs: bool,
    /// The process, its parent, its parent's parent and so on up to the first that we can see.
    pub chain: Vec<ProcessId>,
}

/// A peer that can't be told.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The socket does not say who is there.
    #[error("the socket does not name its peer")]
    Socket(#[source] io::Error),
    /// It has ended, or is not visible in our pid namespace.
    #[error("the peer has ended")]
    Gone {
        /// Its id, as far as it is known.
        pid: u32,
    },
    /// Its ancestors can't be read.
    #[error("the ancestors of the peer can't be read")]
    Unreadable {
        /// Its id.
        pid: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its ancestors did not stand still.
    #[error("the ancestors of the peer change too fast to be read")]
    Changing {
        /// Its id.
        pid: u32,
    },
}

impl PeerError {
    /// The peer's id as far as it is known, else 0.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match self {
            PeerError::Socket(_) => 0,
            PeerError::Gone { pid }
            | PeerError::Unreadable { pid, .. }
            | PeerError::Changing { pid } => *pid,
        }
    }
}

/// The process of that id, as it is now.
///
/// # Errors
/// There is none, or `/proc` can't be read.
pub fn process_id(pid: u32) -> io::Result<ProcessId> {
    procfs::stat(pid).map(|stat| ProcessId { pid, start: stat.start })
}

/// This process.
///
/// # Errors
/// `/proc` can't be read.
pub fn own() -> io::Result<ProcessId> {
    process_id(super::process::own_pid())
}

impl Peer {
    /// Tells who connected `socket` (for a pair, who made it).
    ///
    /// # Errors
    /// It can't be told: see [`PeerError`]. Such a peer is to be refused.
    pub fn of(socket: BorrowedFd<'_>) -> Result<Peer, PeerError> {
        let credentials = getsockopt(&socket, sockopt::PeerCredentials)
            .map_err(|errno| PeerError::Socket(errno.into()))?;
        let pid = u32::try_from(credentials.pid()).unwrap_or(0);
        if pid == 0 {
            return Err(PeerError::Gone { pid });
        }
        let pidfd = peer_pidfd(socket).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH | libc::EINVAL) => PeerError::Gone { pid },
            _ => PeerError::Socket(error),
        })?;
        for _ in 0..ATTEMPTS {
            match read_twice(pid, pidfd.as_ref()) {
                Ok(Some((no_new_privs, chain))) => {
                    return Ok(Peer { uid: credentials.uid(), no_new_privs, chain });
                }
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
        Err(PeerError::Changing { pid })
    }
}

/// The peer's pidfd; none on a kernel that has none to give.
fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut fd: RawFd = -1;
    let mut length = libc::socklen_t::try_from(size_of::<RawFd>()).map_err(io::Error::other)?;
    // SAFETY: `fd` and `length` are ours, live over the call, and `length` is the size of `fd`.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if status == 0 && fd >= 0 {
        // SAFETY: the kernel just made this descriptor for us, close-on-exec.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOPROTOOPT) { Ok(None) } else { Err(error) }
}

type Reading = (bool, Vec<ProcessId>);

/// Two readings of a chain; none where they differ.
fn read_twice(pid: u32, pidfd: Option<&OwnedFd>) -> Result<Option<Reading>, PeerError> {
    let unreadable = |source| PeerError::Unreadable { pid, source };
    let mut held: Vec<(OwnedFd, Stat)> = Vec::new();
    let mut next = pid;
    while next != 0 {
        if held.len() == MAX_DEPTH {
            return Err(unreadable(io::Error::other("the chain has no end")));
        }
        let read = directory(next).and_then(|dir| stat_in(&dir).map(|stat| (dir, stat)));
        let (dir, stat) = match read {
            Ok(read) => read,
            Err(_) if held.is_empty() => return Err(PeerError::Gone { pid }),
            // An ancestor ended while we read: its child has another parent by now.
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        next = stat.parent;
        held.push((dir, stat));
    }
    let Some((dir, _)) = held.first() else { return Err(PeerError::Gone { pid }) };
    let no_new_privs = no_new_privs(dir).map_err(|_| PeerError::Gone { pid })?;
    for (at, (dir, before)) in held.iter().enumerate() {
        match stat_in(dir) {
            Ok(stat) if at == 0 && matches!(stat.state, b'Z' | b'X') => {
                return Err(PeerError::Gone { pid });
            }
            Ok(stat) if stat.parent == before.parent && stat.start == before.start => {}
            Err(error) if at == 0 && is_gone(&error) => return Err(PeerError::Gone { pid }),
            Err(error) if !is_gone(&error) => return Err(unreadable(error)),
            Ok(_) | Err(_) => return Ok(None),
        }
    }
    // The directory was opened by number. That it is the peer's own follows from the pidfd: it
    // still names a process of this number, so the number was never free.
    if let Some(pidfd) = pidfd
        && pid_of(pidfd).map_err(PeerError::Socket)? != Some(pid)
    {
        return Err(PeerError::Gone { pid });
    }
    let chain = held.iter().map(|(_, stat)| ProcessId { pid: stat.pid, start: stat.start });
    Ok(Some((no_new_privs, chain.collect())))
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

fn directory(pid: u32) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(format!("/proc/{pid}").as_str(), flags, Mode::empty())?)
}

fn read_in(dir: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    let file = openat(dir.as_fd(), name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut text = Vec::with_capacity(512);
    std::fs::File::from(file).read_to_end(&mut text)?;
    Ok(text)
}

fn stat_in(dir: &OwnedFd) -> io::Result<Stat> {
    procfs::parse(&read_in(dir, "stat")?).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The field of proc_pid_status(5) (Linux 4.10).
fn no_new_privs(dir: &OwnedFd) -> io::Result<bool> {
    let status = read_in(dir, "status")?;
    let field = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"NoNewPrivs:"));
    match field.map(<[u8]>::trim_ascii) {
        Some(b"0") => Ok(false),
        Some(b"1") => Ok(true),
        Some(_) | None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The process that a pidfd names; none where it has been reaped (the field `Pid` is -1).
fn pid_of(pidfd: &OwnedFd) -> io::Result<Option<u32>> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let field = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    Ok(field.and_then(|field| field.trim().parse().ok()))
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
