//! Message sockets between our own processes: `SOCK_SEQPACKET` pairs and descriptors over them.
#![expect(unsafe_code, reason = "received descriptors become owned")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    recvmsg, sendmsg, socketpair,
};

/// Two connected sockets that keep message boundaries and tell when the other end is closed
/// (unix(7)). Close-on-exec; blocking.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Whether a call may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until it can be done.
    Block,
    /// `EWOULDBLOCK` instead.
    Never,
}

impl Wait {
    fn flags(self) -> MsgFlags {
        match self {
            Self::Block => MsgFlags::MSG_NOSIGNAL,
            Self::Never => MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        }
    }
}

/// Sends one message, with descriptors.
///
/// # Errors
/// `EPIPE` or `ECONNRESET` when the other end is closed; `EWOULDBLOCK`; `EMSGSIZE`; `ETOOMANYREFS`
/// when the user has more descriptors in flight than this process may have open.
pub fn send(
    socket: BorrowedFd<'_>,
    message: &[u8],
    fds: &[BorrowedFd<'_>],
    wait: Wait,
) -> io::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &[IoSlice::new(message)],
            control,
            wait.flags(),
            None,
        ) {
            Err(nix::errno::Errno::EINTR) => {}
            result => return result.map(|_| ()).map_err(Into::into),
        }
    }
}

/// Most descriptors in one message.
pub const MAX_FDS: usize = 4;

/// What one receive gave.
#[derive(Debug)]
pub struct Received {
    /// Bytes of the message, 0 when the other end is closed (no message is empty).
    pub length: usize,
    /// Descriptors that came along, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Receives one message into `buffer`.
///
/// # Errors
/// `EWOULDBLOCK`; `ECONNRESET`; `EMSGSIZE` if the message didn't fit.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], wait: Wait) -> io::Result<Received> {
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = loop {
        match recvmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            wait.flags() | MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(nix::errno::Errno::EINTR) => {}
            result => break result?,
        }
    };
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(list) = control {
            // SAFETY: the kernel has just installed these descriptors for this message, and this is
            // the only place that sees them.
            fds.extend(list.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    Ok(Received { length, fds })
}

/// Reads or writes on this descriptor return `EWOULDBLOCK` instead of waiting.
///
/// # Errors
/// fcntl(2).
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
