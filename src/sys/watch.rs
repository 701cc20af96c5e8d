//! Which of many shims has something to say: one epoll instance, one place in the runtime's poller.
//!
//! A task or a timer per agent would cost memory and wake-ups for agents that do nothing.
#![expect(unsafe_code, reason = "tokio's registration of a descriptor is an unsafe function")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Looked at in one go.
const EVENTS: usize = 64;

struct Instance(Epoll);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

/// The descriptors that are watched, each with a number that says whose it is. A descriptor leaves
/// when it is closed.
pub struct Watch(AsyncFd<Instance>);

impl Watch {
    /// Watches nothing yet. Needs a runtime.
    ///
    /// # Errors
    /// epoll_create1(2), or the runtime's registration.
    pub fn new() -> io::Result<Watch> {
        let epoll = Instance(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        // SAFETY: the descriptor is owned by the instance, which moves into the AsyncFd and is only
        // ever lent out by shared reference: it stays open, and the same one, until both are dropped.
        let registered = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) };
        Ok(Watch(registered?))
    }

    /// Reports `whose` for as long as `fd` can be read.
    ///
    /// # Errors
    /// epoll_ctl(2).
    pub fn readable_of(&self, fd: impl AsFd, whose: u64) -> io::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, whose);
        Ok(self.0.get_ref().0.add(fd, event)?)
    }

    /// Reports `whose` once, when `fd` can be written.
    ///
    /// # Errors
    /// epoll_ctl(2).
    pub fn writable_once(&self, fd: impl AsFd, whose: u64) -> io::Result<()> {
        let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT;
        let mut event = EpollEvent::new(flags, whose);
        let epoll = &self.0.get_ref().0;
        match epoll.add(fd.as_fd(), event) {
            Err(nix::errno::Errno::EEXIST) => Ok(epoll.modify(fd.as_fd(), &mut event)?),
            other => Ok(other?),
        }
    }

    /// Waits until something can be read. Cancel-safe; says so again until [`Watch::take`] came back
    /// empty.
    ///
    /// # Errors
    /// The runtime is ending.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// Whose descriptors are ready now; without waiting.
    ///
    /// # Errors
    /// epoll_wait(2).
    pub fn take(&self) -> io::Result<Vec<u64>> {
        let mut ready = [EpollEvent::empty(); EVENTS];
        let count = match self.0.get_ref().0.wait(&mut ready, EpollTimeout::ZERO) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        if count == 0 {
            // The instance is level-triggered, the runtime's poller is not: only when nothing is left
            // may it wait for the next edge. What comes between these two lines is such an edge.
            let _was_ready = self.0.try_io(Interest::READABLE, |_| {
                Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock))
            });
        }
        Ok(ready.iter().take(count).map(EpollEvent::data).collect())
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}
